-- Specs of completion sources (S14), of tasks made from values, and of from_callback.

local task = require "asynctask"

local await, spawn = task.await, task.spawn

describe("a source", function()
  it("S14: settles its task with values, an error or a cancellation", function()
    local a, b, c = task.source(), task.source(), task.source()
    assert.is_true(a:set_result(1, nil, 3, nil))
    assert.are.same(table.pack(1, nil, 3, nil), table.pack(await(a.task)))
    local err = {}
    assert.is_true(b:set_error(err))
    assert.are.same({ nil, err }, { task.try(b.task) })
    assert.are.equal("faulted", b.task:status())
    assert.is_true(c:set_cancelled("why"))
    local _, e = task.try(c.task)
    assert.are.equal("why", e.reason)
    assert.are.equal("cancelled", c.task:status())
  end)

  it("S4: each call says whether it took effect", function()
    for _, first in ipairs({ "set_result", "set_error", "set_cancelled" }) do
      local s = task.source()
      assert.is_true(s[first](s, "first"))
      for _, second in ipairs({ "set_result", "set_error", "set_cancelled" }) do
        assert.is_false(s[second](s, "second"))
      end
      s.task:error()
    end
  end)

  it("S14: gives the same task always", function()
    local s = task.source()
    assert.are.equal(s.task, s.task)
    assert.is_nil(s.nothing)
    s:set_result()
    assert.are.equal(s.task, s.task)
  end)

  it("S14: calls on_cancel with the reason, from the queue, as a task", function()
    local reason, current
    local s = task.source(function(r)
      await(task.yield())
      reason, current = r, task.current()
    end)
    assert.is_true(s.task:cancel("user left"))
    assert.is_nil(reason)
    assert.are.equal("cancelled", s.task:status())
    assert.is_false(s:set_result("too late"))
    for _ = 1, 4 do
      await(task.yield())
    end
    assert.are.equal("user left", reason)
    assert.is_true(task.is_task(current))
  end)

  it("S14: does not call on_cancel when it settles by itself", function()
    local called = false
    local s = task.source(function() called = true end)
    s:set_cancelled()
    local r = task.source(function() called = true end)
    r:set_result()
    r.task:cancel()
    for _ = 1, 3 do
      await(task.yield())
    end
    assert.is_false(called)
  end)

  it("S4: a fault of on_cancel is reported", function()
    local reported
    local old = task.on_unobserved(function(err) reported = err end)
    local s = task.source(function() error("in on_cancel", 0) end)
    s.task:cancel()
    for _ = 1, 4 do
      await(task.yield())
      collectgarbage()
    end
    await(task.yield())
    task.on_unobserved(old)
    assert.are.equal("in on_cancel", reported)
  end)

  it("S14: collected unsettled, it faults its task with EABANDONED", function()
    local t = (function() return task.source().task end)()
    local waiter = spawn(function() return await(t) end)
    collectgarbage()
    collectgarbage()
    local _, err = task.try(waiter)
    assert.are.equal("EABANDONED", err.code)
    assert.are.equal("faulted", t:status())
    assert.are.equal("faulted", waiter:status())
  end)

  it("S14: collected while the main chunk waits for it, it ends the wait", function()
    local t = (function() return task.source().task end)()
    local collector = spawn(function()
      for _ = 1, 3 do
        await(task.yield())
        collectgarbage()
      end
    end)
    local _, err = task.try(t)
    assert.are.equal("EABANDONED", err.code)
    await(collector)
  end)

  it("S14: a source that is still held is not abandoned, whoever forgot its task", function()
    local s = task.source()
    collectgarbage()
    collectgarbage()
    assert.are.equal("pending", s.task:status())
    s:set_result("v")
    assert.are.equal("v", await(s.task))
  end)

  it("S14: a source and its waiter that only hold each other are abandoned, too", function()
    local t = spawn(function()
      local s = task.source()
      local ok, err = pcall(await, s.task)
      return ok, err
    end)
    for _ = 1, 4 do
      collectgarbage()
      await(task.yield())
    end
    -- The waiting task's own stack holds the source: it is not collected, and the wait is a deadlock
    -- that is reported as one.
    if t:done() then
      assert.are.equal("EABANDONED", select(2, await(t)).code)
    else
      assert.matches("deadlock", (select(2, pcall(await, t))))
      t:cancel()
      task.try(t)
    end
  end)

  it("S22: refuses an on_cancel that cannot be called", function()
    assert.is_false((pcall(task.source, 1)))
    assert.is_false((pcall(task.source, {})))
  end)
end)

describe("tasks of values", function()
  it("S14: from_result", function()
    assert.are.same(table.pack(nil, 2, nil), table.pack(await(task.from_result(nil, 2, nil))))
    assert.are.equal(0, select("#", await(task.from_result())))
    assert.are.same(table.pack(nil), table.pack(await(task.from_result(nil))))
  end)

  it("S14: from_error keeps the value", function()
    for _, err in ipairs({ {}, "x", 1, false }) do
      local t = task.from_error(err)
      assert.are.equal("faulted", t:status())
      assert.is_true(rawequal(err, t:error()))
    end
  end)

  it("S14: from_cancelled", function()
    local t = task.from_cancelled({ 1 })
    assert.are.equal("cancelled", t:status())
    assert.are.same({ 1 }, t:error().reason)
  end)

  it("S8: cancelling a settled one says no", function()
    assert.is_false(task.from_result():cancel())
    assert.is_false(task.from_result(1):cancel())
    assert.is_false(task.from_cancelled():cancel())
  end)
end)

describe("from_callback", function()
  it("gives what the callback is called with", function()
    assert.are.same(table.pack(1, nil), table.pack(await(task.from_callback(function(done) done(1, nil) end))))
    local kept
    local t = task.from_callback(function(done) kept = done end)
    assert.are.equal("pending", t:status())
    kept("later")
    assert.are.equal("later", await(t))
  end)

  it("error_first: the first argument is an error, or nil or false", function()
    local t = task.from_callback(function(done) done("failed", "ignored") end, { error_first = true })
    assert.are.same({ nil, "failed" }, { task.try(t) })
    assert.are.equal("faulted", t:status())
    local u = task.from_callback(function(done) done(nil, 1, 2) end, { error_first = true })
    assert.are.same({ 1, 2 }, { await(u) })
  end)

  it("arity: takes so many results", function()
    local t = task.from_callback(function(done) done(1, 2, 3) end, { arity = 2 })
    assert.are.same(table.pack(1, 2), table.pack(await(t)))
    local u = task.from_callback(function(done) done(nil, 1, 2, 3) end, { error_first = true, arity = 1 })
    assert.are.same(table.pack(1), table.pack(await(u)))
  end)

  it("S4: a second call changes nothing", function()
    local kept
    local t = task.from_callback(function(done) kept = done end)
    kept(1)
    kept(2)
    assert.are.equal(1, await(t))
  end)

  it("S14: a callback that is dropped faults the task with EABANDONED", function()
    local t = task.from_callback(function() end)
    collectgarbage()
    collectgarbage()
    local _, err = task.try(t)
    assert.are.equal("EABANDONED", err.code)
  end)

  it("S9: can be cancelled; a call after that is ignored", function()
    local kept
    local t = task.from_callback(function(done) kept = done end)
    assert.is_true(t:cancel())
    kept("late")
    assert.are.equal("cancelled", t:status())
  end)

  it("S22: refuses wrong arguments, and an error of the function is raised at once", function()
    assert.matches("bad argument #1 to '[%w.]*from_callback'", (select(2, pcall(task.from_callback))))
    assert.matches("bad argument #2 to '[%w.]*from_callback'", (select(2, pcall(task.from_callback, print, 1))))
    local ok, err = pcall(task.from_callback, function() error("at the call", 0) end)
    assert.is_false(ok)
    assert.are.equal("at the call", err)
  end)

  it("S15: such an error is not reported a second time", function()
    local reports = 0
    local old = task.on_unobserved(function() reports = reports + 1 end)
    pcall(task.from_callback, error)
    for _ = 1, 3 do
      collectgarbage()
      await(task.yield())
    end
    task.on_unobserved(old)
    assert.are.equal(0, reports)
  end)
end)
