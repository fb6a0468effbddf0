-- Specs of cancellation sources: task.cancellation, and what hangs on one.

local task = require "asynctask"
local testing = require "asynctask.testing"

local await, spawn = task.await, task.spawn

local function never()
  return task.delay(math.huge)
end

-- Lets what is queued run.
local function turns(n)
  for _ = 1, n or 3 do await(task.yield()) end
end

describe("cancellation", function()
  it("is not cancelled until it is, and then for ever", function()
    local c = task.cancellation()
    assert.is_false(c:is_cancelled())
    c:check()
    assert.is_true(c:cancel("why"))
    assert.is_true(c:is_cancelled())
    local ok, e = pcall(c.check, c)
    assert.is_false(ok)
    assert.is_true(task.is_cancelled(e))
    assert.are.equal("why", e.reason)
    assert.is_false(c:cancel("again"))
    assert.are.equal("why", select(2, pcall(c.check, c)).reason)
  end)

  it("with gives the results of the function, and flattens one Task (S25)", function()
    local c = task.cancellation()
    assert.are.same({ 1, nil, 3, n = 3 }, table.pack(c:with(function(...) return ... end, 1, nil, 3)))
    assert.are.equal("v", c:with(task.delay, 0, "v"))
    assert.are.same({ false, "e" }, { pcall(c.with, c, error, "e", 0) })
  end)

  it("with: cancelling raises in everything that waits inside, the same error everywhere", function()
    local c = task.cancellation()
    local seen = {}
    local tasks = {}
    for i = 1, 3 do
      tasks[i] = spawn(function()
        local ok, e = pcall(c.with, c, function() await(never()) end)
        assert.is_false(ok)
        seen[i] = e
        return "went on after with"
      end)
    end
    c:cancel("all")
    for i = 1, 3 do
      assert.are.equal("went on after with", await(tasks[i]))
      assert.are.equal(seen[1], seen[i])
    end
    assert.are.equal("all", seen[1].reason)
  end)

  it("S9: with is a scope: sticky inside, over outside", function()
    local c = task.cancellation()
    local raised = 0
    local t = spawn(function()
      pcall(c.with, c, function()
        for _ = 1, 3 do
          local ok, e = pcall(await, never())
          raised = raised + (not ok and task.is_cancelled(e) and 1 or 0)
        end
        assert.are.equal("ECANCELED", task.cancelling().code)
      end)
      assert.is_nil(task.cancelling())
      await(task.yield())
      return "out"
    end)
    c:cancel()
    assert.are.equal("out", await(t))
    assert.are.equal(3, raised)
  end)

  it("S8: with cancels what the scope owns, and not what was spawned", function()
    local c = task.cancellation()
    local owned, spawned
    local s = task.source()
    local t = spawn(function()
      c:with(function()
        owned = task.async(function() await(s.task) end)()
        spawned = spawn(function() await(s.task) end)
        await(never())
      end)
    end)
    c:cancel()
    t:try()
    owned:try()
    assert.are.equal("cancelled", owned:status())
    assert.are.equal("pending", spawned:status())
    s:set_result()
    await(spawned)
  end)

  it("S5: a task that its source stops and that does not catch it ends faulted", function()
    local c = task.cancellation()
    local t = spawn(c.with, c, never)
    c:cancel("r")
    local _, e = t:try()
    assert.are.equal("r", e.reason)
    assert.are.equal("faulted", t:status())
  end)

  it("with of a source that is cancelled already raises at the first await, and starts no operation", function()
    local c = task.cancellation()
    c:cancel("early")
    local before, d = false, nil
    local ok, e = pcall(c.with, c, function()
      before = true
      d = task.delay(60)
      await(d)
    end)
    assert.are.same({ false, "early", true, "cancelled" }, { ok, e.reason, before, d:status() })
    assert.are.equal("value", c:with(function() return "value" end))
  end)

  it("with on the main chunk", function()
    local c = task.cancellation()
    spawn(function()
      await(task.yield())
      c:cancel("from a task")
    end)
    local ok, e = pcall(c.with, c, never)
    assert.are.same({ false, "from a task" }, { ok, e.reason })
    await(task.yield())
  end)

  it("S9: a cancel in the same turn as the completion: what came first wins", function()
    local c = task.cancellation()
    local s = task.source()
    local first = spawn(function() return c:with(await, s.task) end)
    s:set_result("value")
    c:cancel()
    assert.are.equal("value", await(first))

    -- The other way round nothing is lost: the value is given (S10), and it is in the task.
    local c2, s2 = task.cancellation(), task.source()
    local second = spawn(function()
      local ok, v = pcall(c2.with, c2, function()
        local v <const> = await(s2.task)
        assert.is_false((pcall(await, task.yield()))) -- the next await raises
        return v
      end)
      return ok and v or task.is_cancelled(v) and "cancelled"
    end)
    c2:cancel()
    s2:set_result("value")
    assert.is_truthy(({ value = true, cancelled = true })[await(second)])
    assert.are.equal("value", await(s2.task))
  end)

  it("S9: nested withs: the outer one is not caught by the inner", function()
    local outer, inner = task.cancellation(), task.cancellation()
    local where
    local t = spawn(function()
      local ok, e = pcall(outer.with, outer, function()
        task.pcall(inner.with, inner, never)
        where = "between"
      end)
      return ok, e.reason
    end)
    outer:cancel("outer")
    assert.are.same({ false, "outer" }, { await(t) })
    assert.is_nil(where)
    t = spawn(function()
      local ok, e = pcall(task.cancellation().with, task.cancellation(), function()
        local fine, err = task.pcall(inner.with, inner, never)
        where = not fine and err.reason
        await(task.yield())
        return "on"
      end)
      return ok, e
    end)
    inner:cancel("inner")
    assert.are.same({ true, "on" }, { await(t) })
    assert.are.equal("inner", where)
  end)

  it("S9: shield holds a source's cancellation off, too", function()
    local c = task.cancellation()
    local s, log = task.source(), {}
    local t = spawn(function()
      return pcall(c.with, c, function()
        task.shield(function()
          await(s.task)
          log[#log + 1] = "cleaned"
        end)
        await(task.yield())
        log[#log + 1] = "never here"
      end)
    end)
    c:cancel()
    turns()
    s:set_result()
    assert.is_false(await(t))
    assert.are.same({ "cleaned" }, log)
  end)

  it("cancel_after cancels later; a second one replaces the first; math.huge takes it back", function()
    local clock <close> = testing.clock()
    local c = task.cancellation()
    c:cancel_after(10)
    clock:advance(9)
    assert.is_false(c:is_cancelled())
    c:cancel_after(5)
    clock:advance(4)
    assert.is_false(c:is_cancelled())
    clock:advance(1)
    assert.is_true(c:is_cancelled())
    c:cancel_after(1) -- no effect any more
    local d = task.cancellation()
    d:cancel_after(1)
    d:cancel_after(math.huge)
    clock:advance(100)
    assert.is_false(d:is_cancelled())
    assert.are.equal(0, task.stats().delays)
  end)

  it("cancel_after wakes who waits under it, with the clock", function()
    local clock <close> = testing.clock { auto = true }
    local c = task.cancellation()
    c:cancel_after(3600)
    local t0 = clock:now()
    local ok, e = pcall(c.with, c, never)
    assert.is_false(ok)
    assert.is_true(task.is_cancelled(e))
    assert.is_true(clock:now() - t0 > 3599.999)
  end)

  it("cancel_after keeps a source that nobody holds alive until then", function()
    local clock <close> = testing.clock()
    local called = false
    do
      local c = task.cancellation()
      c:on_cancel(function() called = true end)
      c:cancel_after(1)
    end
    collectgarbage()
    collectgarbage()
    clock:advance(1)
    assert.is_true(called)
  end)

  it("S22: refuses wrong arguments at the call", function()
    local c = task.cancellation()
    assert.matches("bad argument #1", select(2, pcall(task.cancellation, 5)))
    assert.matches("bad argument #1 to 'with'", select(2, pcall(function() c:with(5) end)))
    assert.matches("function expected", select(2, pcall(function() c:on_cancel() end)))
    assert.matches("negative", select(2, pcall(function() c:cancel_after(-1) end)))
    assert.matches("NaN", select(2, pcall(function() c:cancel_after(0 / 0) end)))
    assert.matches("number of seconds", select(2, pcall(function() c:cancel_after("soon") end)))
  end)
end)

describe("linked sources", function()
  it("are cancelled with the first of their parents, and have its error", function()
    local a, b = task.cancellation(), task.cancellation()
    local child = task.cancellation(a, b)
    local grandchild = task.cancellation(child)
    b:cancel("from b")
    assert.is_false(a:is_cancelled())
    assert.is_true(child:is_cancelled())
    assert.is_true(grandchild:is_cancelled())
    assert.are.equal(select(2, pcall(b.check, b)), select(2, pcall(grandchild.check, grandchild)))
    assert.is_true(a:cancel("later"))
    assert.are.equal("from b", select(2, pcall(child.check, child)).reason)
  end)

  it("do not cancel their parents or siblings", function()
    local a = task.cancellation()
    local b, c = task.cancellation(a), task.cancellation(a)
    b:cancel()
    assert.is_false(a:is_cancelled())
    assert.is_false(c:is_cancelled())
  end)

  it("of a cancelled parent are cancelled from the start", function()
    local a, b = task.cancellation(), task.cancellation()
    a:cancel("early")
    local child = task.cancellation(b, a)
    assert.is_true(child:is_cancelled())
    assert.are.equal("early", select(2, pcall(child.check, child)).reason)
    b:cancel()
  end)

  it("reach the scopes and callbacks of the children", function()
    local root = task.cancellation()
    local child = task.cancellation(root)
    local reason
    child:on_cancel(function(r) reason = r end)
    local t = spawn(function() return pcall(child.with, child, never) end)
    root:cancel("root")
    assert.is_false(await(t))
    turns()
    assert.are.equal("root", reason)
  end)

  it("keep the sources between a root and a child alive", function()
    local root = task.cancellation()
    local child = task.cancellation(task.cancellation(task.cancellation(root)))
    collectgarbage()
    collectgarbage()
    root:cancel("through both")
    assert.is_true(child:is_cancelled())
  end)

  it("a parent does not keep its children", function()
    local root = task.cancellation()
    local weak = setmetatable({}, { __mode = "v" })
    weak[1] = task.cancellation(root)
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
    root:cancel()
  end)

  it("twice the same parent is once", function()
    local a = task.cancellation()
    local child = task.cancellation(a, a)
    local n = 0
    child:on_cancel(function() n = n + 1 end)
    a:cancel()
    turns()
    assert.are.equal(1, n)
  end)

  it("a thousand of them in a chain are cancelled in one go", function()
    local root = task.cancellation()
    local last = root
    for _ = 1, 1000 do last = task.cancellation(last) end
    root:cancel()
    assert.is_true(last:is_cancelled())
  end)
end)

describe("on_cancel", function()
  it("S4: runs the function once, from the queue, in the order of registration, with the reason", function()
    local c = task.cancellation()
    local log = {}
    c:on_cancel(function(r) log[#log + 1] = "a" .. r end)
    c:on_cancel(function(r) log[#log + 1] = "b" .. r end)
    c:cancel("!")
    assert.are.same({}, log)
    turns()
    assert.are.same({ "a!", "b!" }, log)
    c:cancel("again")
    turns()
    assert.are.same({ "a!", "b!" }, log)
  end)

  it("S4: soon, if the source is cancelled already, and not inline", function()
    local c = task.cancellation()
    c:cancel("r")
    local got
    local r = c:on_cancel(function(reason) got = reason end)
    assert.is_nil(got)
    turns()
    assert.are.equal("r", got)
    r:close()
  end)

  it("S4: the function is a task: it may await, and its fault is reported", function()
    local reports = {}
    local before = task.on_unobserved(function(e) reports[#reports + 1] = e end)
    finally(function() task.on_unobserved(before) end)
    local c = task.cancellation()
    local done = task.source()
    c:on_cancel(function()
      await(task.delay(0.001))
      done:set_result("after a delay")
    end)
    c:on_cancel(function() error("in a callback", 0) end)
    c:cancel()
    assert.are.equal("after a delay", await(done.task))
    collectgarbage()
    collectgarbage()
    turns()
    assert.are.same({ "in a callback" }, reports)
  end)

  it("a registration that is closed is not called; closing is idempotent and <close>", function()
    local c = task.cancellation()
    local log = {}
    local r = c:on_cancel(function() log[#log + 1] = "closed" end)
    c:on_cancel(function() log[#log + 1] = "kept" end)
    do
      local _ <close> = c:on_cancel(function() log[#log + 1] = "left" end)
    end
    r:close()
    r:close()
    c:cancel()
    turns()
    r:close()
    assert.are.same({ "kept" }, log)
  end)

  it("a registration keeps its source, so that a linked one is told", function()
    local root = task.cancellation()
    local told
    local r <close> = task.cancellation(root):on_cancel(function(reason) told = reason end)
    collectgarbage()
    collectgarbage()
    root:cancel("heard")
    turns()
    assert.are.equal("heard", told)
    assert.is_truthy(r)
  end)

  it("a linked source that nobody holds is kept by its parents while it has callbacks, and no longer", function()
    local root = task.cancellation()
    local told = {}
    local weak = setmetatable({}, { __mode = "v" })
    local function link(name)
      local c = task.cancellation(task.cancellation(task.cancellation(root), task.cancellation()))
      weak[name] = c
      return c:on_cancel(function(r) told[#told + 1] = name .. r end)
    end
    local a = link("a")
    link("b")
    local twice = weak.b:on_cancel(function() told[#told + 1] = "b again" end)
    a:close()
    twice:close()
    a, twice = nil, nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak.a)
    assert.is_truthy(weak.b)
    root:cancel("!")
    turns()
    assert.are.same({ "b!" }, told)
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak.b)
  end)

  it("a callback may use the source: cancel it, register again, close others", function()
    local c = task.cancellation()
    local log, r = {}, nil
    c:on_cancel(function()
      assert.is_false(c:cancel("inside"))
      c:on_cancel(function(reason) log[#log + 1] = reason end)
      r:close()
    end)
    r = c:on_cancel(function() log[#log + 1] = "second" end)
    c:cancel("first")
    turns(5)
    table.sort(log)
    assert.are.same({ "first", "second" }, log)
  end)

  it("a child's callback may cancel the parent, and a task its own source", function()
    local c = task.cancellation()
    local t = spawn(function()
      return pcall(c.with, c, function()
        await(task.yield())
        c:cancel("myself")
        await(never())
      end)
    end)
    local ok, e = await(t)
    assert.are.same({ false, "myself" }, { ok, e.reason })
  end)
end)
