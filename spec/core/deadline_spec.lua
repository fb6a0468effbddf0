-- Specs of deadlines: with_timeout and Task:timeout (S11).

local task = require "asynctask"

local await, spawn = task.await, task.spawn

local open = {}
local function never()
  local s = task.source()
  open[#open + 1] = s
  return s.task
end

-- Uses the processor, without letting the loop run.
local function burn(seconds)
  local e = os.clock() + seconds
  while os.clock() < e do end
end

local function close_all()
  for i, s in ipairs(open) do
    s:set_result()
    open[i] = nil
  end
end

describe("with_timeout", function()
  after_each(close_all)

  it("S11: gives what the function returns in time", function()
    assert.are.same(table.pack(1, nil, 3), table.pack(task.with_timeout(60, function(...)
      await(task.yield())
      return ...
    end, 1, nil, 3)))
  end)

  it("S11: raises ETIMEDOUT past the deadline, in a task and on the main chunk", function()
    local function f()
      local before = os.clock()
      local ok, err = pcall(task.with_timeout, 0.01, function() await(never()) end)
      assert.is_false(ok)
      assert.are.equal("ETIMEDOUT", err.code)
      assert.are.equal("timeout", err.op)
      assert.is_false(task.is_cancelled(err))
      assert.matches("ETIMEDOUT", tostring(err))
      assert.is_true(os.clock() - before < 5)
    end
    f()
    await(spawn(f))
  end)

  it("S11: an uncaught one faults the task, and does not cancel it", function()
    local t = spawn(task.with_timeout, 0.001, await, never())
    local _, err = task.try(t)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.are.equal("faulted", t:status())
  end)

  it("S11: what runs inside is cancelled, again and again, until it is left", function()
    local raised = 0
    local ok, err = pcall(task.with_timeout, 0.001, function()
      for _ = 1, 3 do
        local fine, e = pcall(await, never())
        assert.is_false(fine)
        assert.is_true(task.is_cancelled(e))
        raised = raised + 1
      end
      await(task.yield())
    end)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.are.equal(3, raised)
    await(task.yield())
  end)

  it("S11: a function that returns all the same gives its value", function()
    assert.are.equal("in spite of it", task.with_timeout(0.001, function()
      pcall(await, never())
      return "in spite of it"
    end))
  end)

  it("S11: an error that the function raises goes through", function()
    local err = {}
    local ok, got = pcall(task.with_timeout, 60, error, err)
    assert.is_false(ok)
    assert.are.equal(err, got)
  end)

  it("S11: after it is left, the deadline is gone", function()
    local t = spawn(function()
      task.with_timeout(0.002, function() end)
      await(task.delay(0.006))
      return "alive"
    end)
    assert.are.equal("alive", await(t))
  end)

  it("S11: an inner deadline fires and the outer scope goes on", function()
    assert.are.equal("outer", task.with_timeout(60, function()
      local ok, err = task.pcall(task.with_timeout, 0.001, await, never())
      assert.is_false(ok)
      assert.are.equal("ETIMEDOUT", err.code)
      await(task.yield())
      return "outer"
    end))
  end)

  it("S11: an inner deadline never catches an outer one", function()
    local reached = false
    local ok, err = pcall(task.with_timeout, 0.002, function()
      task.pcall(task.with_timeout, 60, function()
        task.pcall(await, never())
        reached = true
      end)
      reached = true
    end)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.is_false(reached)
  end)

  it("S11: nor when both pass in the same turn, whichever is first", function()
    for _, inner in ipairs({ 0.001, 0.002, 0.003 }) do
      local reached = false
      local ok, err = pcall(task.with_timeout, 0.002, function()
        task.pcall(task.with_timeout, inner, function()
          burn(0.006)
          await(never())
        end)
        reached = true
      end)
      assert.is_false(ok)
      assert.are.equal("ETIMEDOUT", err.code)
      assert.is_false(reached)
    end
  end)

  it("S11: a cancellation of the task is not turned into ETIMEDOUT", function()
    local t = spawn(function()
      task.with_timeout(60, await, never())
    end)
    t:cancel("from outside")
    local _, err = task.try(t)
    assert.are.equal("from outside", err.reason)
    assert.are.equal("cancelled", t:status())
  end)

  it("S11: deadline and cancellation in the same turn: the task ends cancelled", function()
    local t = spawn(function()
      task.pcall(task.with_timeout, 0.001, function()
        await(never())
      end)
      await(never())
    end)
    burn(0.003)
    t:cancel("both")
    task.try(t)
    assert.are.equal("cancelled", t:status())
  end)

  it("S11: a completion that came first wins", function()
    local s = task.source()
    local t = spawn(function()
      return task.with_timeout(0.002, await, s.task)
    end)
    burn(0.005)
    s:set_result("first")
    assert.are.equal("first", await(t))
  end)

  it("S11: zero seconds: what does not wait is done, what waits is not", function()
    assert.are.equal(1, task.with_timeout(0, function() return 1 end))
    local ok, err = pcall(task.with_timeout, 0, function() await(never()) end)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
  end)

  it("S11: infinite seconds are no deadline", function()
    assert.are.equal(1, task.with_timeout(math.huge, function()
      await(task.delay(0.001))
      return 1
    end))
  end)

  it("S12: handlers run inside the scope that is left", function()
    local e, done
    local ok, err = pcall(task.with_timeout, 0.001, function()
      local _ <close> = setmetatable({}, { __close = function(_, x)
        e = x
        done = task.shield(task.delay, 0.001, "done")
      end })
      await(never())
    end)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.is_true(task.is_cancelled(e))
    assert.are.equal("done", done)
  end)

  it("S9: is held off by shield only from outside", function()
    local ok, err = pcall(task.with_timeout, 0.001, function()
      assert.are.equal("waited", task.shield(await, task.delay(0.005, "waited")))
      await(never())
    end)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
  end)

  it("nests hundreds deep", function()
    local function nest(n)
      if n == 0 then
        return await(never())
      end
      return task.with_timeout(n == 90 and 0.002 or 60, nest, n - 1)
    end
    local ok, err = pcall(nest, 90)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
  end)

  it("S22: refuses wrong arguments at once", function()
    for _, bad in ipairs({ -1, 0 / 0, -math.huge }) do
      local ok, err = pcall(task.with_timeout, bad, print)
      assert.is_false(ok)
      assert.matches("bad argument #1 to '[%w.]*with_timeout'", err)
    end
    assert.matches("bad argument #1 to '[%w.]*with_timeout'.*got n", (select(2, pcall(task.with_timeout))))
    assert.matches("bad argument #1 to '[%w.]*with_timeout'.*got string",
      (select(2, pcall(task.with_timeout, "1", print))))
    assert.matches("bad argument #2 to '[%w.]*with_timeout' %(function expected, got n",
      (select(2, pcall(task.with_timeout, 1))))
  end)
end)

describe("Task:timeout", function()
  after_each(close_all)

  it("S11: settles as the task does", function()
    assert.are.same({ 1, 2 }, { await(task.delay(0.001, 1, 2):timeout(60)) })
    local err = {}
    assert.are.equal(err, select(2, task.try(task.from_error(err):timeout(60))))
    local c = task.from_cancelled("c"):timeout(60)
    local _, e = task.try(c)
    assert.are.equal("c", e.reason)
  end)

  it("S11: faults with ETIMEDOUT, and cancels the task that the running scope owns", function()
    local d = task.delay(60)
    local t = d:timeout(0.001)
    assert.is_true(task.is_task(t))
    assert.are.equal("pending", t:status())
    local _, err = task.try(t)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.are.equal("timeout", err.op)
    assert.are.equal("faulted", t:status())
    assert.are.equal("cancelled", d:status())
  end)

  it("S11: leaves a task alone that is somebody else's or nobody's", function()
    local s = task.source()
    local shared = spawn(function() return await(s.task) end)
    local _, err = task.try(shared:timeout(0.001))
    assert.are.equal("ETIMEDOUT", err.code)
    assert.are.equal("pending", shared:status())
    local mine = task.delay(0.02)
    local t = spawn(function() return task.try(mine:timeout(0.001)) end)
    assert.are.equal("ETIMEDOUT", select(2, await(t)).code)
    assert.are.equal("pending", mine:status())
    s:set_result("went on")
    assert.are.equal("went on", await(shared))
    await(mine)
  end)

  it("S11: cancelled, it lets go of the task", function()
    local s = task.source()
    local shared = spawn(function() return await(s.task) end)
    local t = shared:timeout(60)
    assert.is_true(t:cancel())
    task.try(t)
    assert.are.equal("cancelled", t:status())
    assert.are.equal("pending", shared:status())
    s:set_result()
    await(shared)
  end)

  it("S7: a long-lived task that many waited for with a deadline holds nothing of them", function()
    local s = task.source()
    local shared = spawn(function() return await(s.task) end)
    local function round()
      pcall(task.with_timeout, 0, await, shared)
      local t = shared:timeout(60)
      t:cancel()
      task.try(t)
    end
    for _ = 1, 50 do round() end
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 3000 do round() end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 64)
    s:set_result("kept")
    assert.are.equal("kept", await(shared))
  end)

  it("S22: refuses wrong seconds at once", function()
    local t = task.from_result()
    for _, bad in ipairs({ -1, 0 / 0, "x", {} }) do
      assert.is_false((pcall(t.timeout, t, bad)))
    end
    assert.is_false((pcall(t.timeout, t)))
  end)
end)
