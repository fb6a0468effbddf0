-- Specs of cancellation: sticky (S9), without loss (S10), and with <close> variables closed (S12).

local task = require "asynctask"

local await, spawn = task.await, task.spawn

-- A source that is settled when the spec is over.
local open = {}
local function never()
  local s = task.source()
  open[#open + 1] = s
  return s.task
end

local function closing(f)
  return setmetatable({}, { __close = f })
end

describe("cancel", function()
  after_each(function()
    for i, s in ipairs(open) do
      s:set_result()
      open[i] = nil
    end
  end)

  it("S9: wakes a waiting task with an error that says why", function()
    local caught
    local t = spawn(function()
      local ok, err = pcall(await, never())
      assert.is_false(ok)
      caught = err
      error(err, 0)
    end)
    assert.is_true(t:cancel({ any = "value" }))
    assert.is_nil(caught)
    local _, err = task.try(t)
    assert.are.equal(caught, err)
    assert.is_true(task.is_cancelled(err))
    assert.are.equal("ECANCELED", err.code)
    assert.are.same({ any = "value" }, err.reason)
    assert.are.equal("cancelled", t:status())
  end)

  it("S9: says whether it took effect; a second one changes nothing", function()
    local t = spawn(function() await(never()) end)
    assert.is_true(t:cancel("first"))
    assert.is_false(t:cancel("second"))
    local _, err = task.try(t)
    assert.are.equal("first", err.reason)
    assert.is_false(t:cancel("third"))
  end)

  it("S9: before the first await it raises at the first await", function()
    local reached = {}
    local t
    t = spawn(function()
      reached[1] = task.current():cancel("self")
      reached[2] = "after"
      await(never())
      reached[3] = "not reached"
    end)
    assert.are.same({ true, "after" }, reached)
    task.try(t)
    assert.are.equal("cancelled", t:status())
    assert.is_nil(reached[3])
  end)

  it("S9: of a task that returns without waiting again has no effect on its result", function()
    local t = spawn(function()
      task.current():cancel()
      return await(task.from_result("v"))
    end)
    assert.are.equal("succeeded", t:status())
    assert.are.equal("v", await(t))
  end)

  it("S9: of one that waits for another that waits for a third stops the first only", function()
    local s = task.source()
    local third = spawn(function() return await(s.task) end)
    local second = spawn(function() return await(third) end)
    local first = spawn(function() return await(second) end)
    first:cancel()
    assert.is_true(task.is_cancelled(select(2, task.try(first))))
    assert.are.equal("cancelled", first:status())
    assert.are.equal("pending", second:status())
    s:set_result("v")
    assert.are.equal("v", await(second))
    assert.are.equal("v", await(third))
  end)

  it("S9: the middle of a chain cancelled faults the one that waits for it", function()
    local s = task.source()
    local third = spawn(function() return await(s.task) end)
    local second = spawn(function() return await(third) end)
    local first = spawn(function() return await(second) end)
    second:cancel("middle")
    local _, err = task.try(first)
    assert.are.equal("middle", err.reason)
    assert.are.equal("faulted", first:status())
    assert.are.equal("cancelled", second:status())
    assert.are.equal("pending", third:status())
    s:set_result()
    await(third)
  end)

  it("S9: is sticky: every await that would wait raises, with the same error", function()
    local errors = {}
    local t = spawn(function()
      for i = 1, 5 do
        local ok, err = pcall(await, i % 2 == 0 and task.delay(60) or never())
        assert.is_false(ok)
        errors[i] = err
      end
      for i = 6, 7 do
        local ok, err = pcall(await, task.yield())
        assert.is_false(ok)
        errors[i] = err
      end
      assert.are.equal("settled", await(task.from_result("settled")))
      return "out"
    end)
    t:cancel()
    assert.are.equal("out", await(t))
    for i = 2, 7 do
      assert.are.equal(errors[1], errors[i])
    end
  end)

  it("S9: a loop around pcall lets other tasks run at each turn", function()
    local spins, others, stop = 0, 0, false
    local t = spawn(function()
      while not stop do
        spins = spins + 1
        pcall(await, never())
      end
    end)
    t:cancel()
    local other = spawn(function()
      for _ = 1, 20 do
        await(task.yield())
        others = others + 1
      end
      await(task.delay(0.003))
      stop = true
    end)
    await(other)
    await(t)
    assert.are.equal(20, others)
    assert.is_true(spins > 5)
  end)

  it("S9: an await that cannot yield raises at once", function()
    local t = spawn(function()
      task.current():cancel("x")
      local ok, err = pcall(table.sort, { 2, 1 }, function() return await(task.delay(60)) end)
      return ok, err
    end)
    local ok, err = await(t)
    assert.is_false(ok)
    assert.is_true(task.is_cancelled(err))
  end)

  it("S9: task.pcall lets through what is aimed at a scope around the call", function()
    local reached = false
    local t = spawn(function()
      task.pcall(await, never())
      reached = true
    end)
    t:cancel()
    task.try(t)
    assert.are.equal("cancelled", t:status())
    assert.is_false(reached)
  end)

  it("S9: task.pcall catches everything else", function()
    local err = {}
    local t = spawn(function()
      local a, e1 = task.pcall(error, err)
      local b, e2 = task.pcall(await, task.from_cancelled("other's"))
      local c, e3 = task.pcall(task.with_timeout, 0.001, await, never())
      local d, v1, v2 = task.pcall(function() return 1, nil end)
      return a, e1, b, e2, c, e3, d, v1, v2
    end)
    local a, e1, b, e2, c, e3, d, v1, v2 = await(t)
    assert.is_false(a)
    assert.are.equal(err, e1)
    assert.is_false(b)
    assert.are.equal("other's", e2.reason)
    assert.is_false(c)
    assert.are.equal("ETIMEDOUT", e3.code)
    assert.is_true(d)
    assert.are.equal(1, v1)
    assert.is_nil(v2)
  end)

  it("S9: task.pcall that let a cancellation through leaves what surrounds it in order", function()
    local t = spawn(function()
      local ok, err = pcall(function()
        task.pcall(task.pcall, task.pcall, await, never())
      end)
      return ok, task.is_cancelled(err), task.cancelling() == err
    end)
    t:cancel()
    assert.are.same({ false, true, true }, { await(t) })
  end)

  it("S9: try gives nil, err for its task's own outcome only", function()
    local reached
    local t = spawn(function()
      reached = table.pack(task.try(task.from_cancelled("its own")))
      task.try(never())
      reached = "after"
    end)
    assert.is_nil(reached[1])
    assert.are.equal("its own", reached[2].reason)
    t:cancel("mine")
    local _, err = task.try(t)
    assert.are.equal("mine", err.reason)
    assert.are.equal("cancelled", t:status())
    assert.are_not.equal("after", reached)
  end)

  it("S9: cancelling is the error aimed at the running scope, or nil", function()
    assert.is_nil(task.cancelling())
    local before, after, shielded, again, err
    local t = spawn(function()
      before = task.cancelling()
      task.current():cancel("why")
      after = task.cancelling()
      task.shield(function() shielded = task.cancelling() end)
      again = task.cancelling()
      err = select(2, pcall(await, never()))
    end)
    await(t)
    assert.is_nil(before)
    assert.are.equal("why", after.reason)
    assert.is_nil(shielded)
    assert.are.equal(after, again)
    assert.are.equal(after, err)
    assert.is_nil(task.cancelling())
  end)

  it("S9: shield holds it off while the function cleans up", function()
    local steps = {}
    local t = spawn(function()
      local ok = pcall(await, never())
      steps[#steps + 1] = ok
      steps[#steps + 1] = task.shield(function(...)
        await(task.yield())
        await(task.delay(0.001))
        return ...
      end, "cleaned")
      await(task.yield())
      steps[#steps + 1] = "not reached"
    end)
    t:cancel()
    task.try(t)
    assert.are.same({ false, "cleaned" }, steps)
    assert.are.equal("cancelled", t:status())
  end)

  it("S9: a cancellation that comes during a shield waits for its end", function()
    local s = task.source()
    local t = spawn(function()
      local v = task.shield(await, s.task)
      local ok, err = pcall(await, never())
      return v, ok, err
    end)
    assert.is_true(t:cancel("late"))
    await(task.yield())
    assert.are.equal("pending", t:status())
    s:set_result("shielded")
    local v, ok, err = await(t)
    assert.are.equal("shielded", v)
    assert.is_false(ok)
    assert.are.equal("late", err.reason)
  end)

  it("S9: deadlines inside a shield still fire", function()
    local t = spawn(function()
      task.current():cancel()
      return task.shield(function()
        return task.pcall(task.with_timeout, 0.001, await, never())
      end)
    end)
    local ok, err = await(t)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
  end)

  it("S9: an error in a shield goes through, and the shield is gone", function()
    local t = spawn(function()
      local ok, err = pcall(task.shield, error, "e")
      task.current():cancel()
      return ok, err, (pcall(await, never()))
    end)
    assert.are.same({ false, "e", false }, { await(t) })
  end)

  it("S10: a task that had settled before its waiter was woken gives its value", function()
    local s = task.source()
    local t = spawn(function()
      local v = await(s.task)
      local ok, err = pcall(await, never())
      return v, ok, task.is_cancelled(err)
    end)
    s:set_result("not lost")
    assert.is_true(t:cancel())
    assert.are.same({ "not lost", false, true }, { await(t) })
  end)

  it("S10: the other way round, the cancellation was first, and the waiter lets go", function()
    local s = task.source()
    local t = spawn(function()
      return pcall(await, s.task)
    end)
    assert.is_true(t:cancel())
    s:set_result("kept in the source's task")
    local ok, err = await(t)
    -- The value is not lost either way: it is the task's, and stays there.
    if ok then
      assert.are.equal("kept in the source's task", err)
    else
      assert.is_true(task.is_cancelled(err))
    end
    assert.are.equal("kept in the source's task", await(s.task))
  end)

  it("S10: an operation started in a cancelled scope never begins", function()
    local ran = false
    local t = spawn(function()
      task.current():cancel("before")
      local d = task.delay(0)
      local call = task.async(function() ran = true end)()
      return d, call
    end)
    local d, call = await(t)
    assert.are.equal("cancelled", d:status())
    assert.are.equal("cancelled", call:status())
    assert.is_false(ran)
  end)

  it("S10: inside shield it begins", function()
    local t = spawn(function()
      task.current():cancel()
      return task.shield(function()
        return await(task.delay(0.001, "slept")), await(task.async(function() return "ran" end)())
      end)
    end)
    assert.are.same({ "slept", "ran" }, { await(t) })
  end)

  it("S10: a delay that is cancelled is gone at once", function()
    local d = task.delay(60)
    assert.is_true(d:cancel("enough"))
    assert.are.equal("cancelled", d:status())
    assert.is_false(d:cancel())
    local _, err = task.try(d)
    assert.are.equal("enough", err.reason)
  end)

  it("S12: closes variables, innermost first, with the cancellation as the error", function()
    local closed = {}
    local t = spawn(function()
      local _ <close> = closing(function(_, err) closed[#closed + 1] = { "outer", err } end)
      local _ <close> = closing(function(_, err) closed[#closed + 1] = { "inner", err } end)
      await(never())
    end)
    t:cancel("why")
    task.try(t)
    assert.are.equal("inner", closed[1][1])
    assert.are.equal("outer", closed[2][1])
    assert.are.equal("why", closed[1][2].reason)
    assert.are.equal(closed[1][2], closed[2][2])
  end)

  it("S12: a handler may await after an error and after a normal end", function()
    local seen = {}
    local function f(err)
      local _ <close> = closing(function(_, e)
        await(task.yield())
        seen[#seen + 1] = e == nil and "end" or e
        await(task.delay(0.001))
      end)
      if err then
        error(err, 0)
      end
      return "value"
    end
    assert.are.equal("value", await(spawn(f)))
    assert.are.same({ nil, "boom" }, { task.try(spawn(f, "boom")) })
    assert.are.same({ "end", "boom" }, seen)
  end)

  it("S12: in a cancelled task a handler awaits under shield; without it the await raises", function()
    local raised, shielded
    local t = spawn(function()
      local _ <close> = closing(function()
        shielded = task.shield(task.delay, 0.001, "waited")
      end)
      local _ <close> = closing(function()
        raised = select(2, pcall(await, task.yield()))
      end)
      await(never())
    end)
    t:cancel()
    task.try(t)
    assert.are.equal("cancelled", t:status())
    assert.is_true(task.is_cancelled(raised))
    assert.are.equal("waited", shielded)
  end)

  it("S12: an error in a handler takes the place of the first", function()
    local t = spawn(function()
      local _ <close> = closing(function() error("second", 0) end)
      error("first", 0)
    end)
    assert.are.equal("second", t:error())
    assert.are.equal("faulted", t:status())
  end)

  it("S12: an error in a handler of a cancelled task faults it", function()
    local t = spawn(function()
      local _ <close> = closing(function() error("in the handler", 0) end)
      await(never())
    end)
    t:cancel()
    assert.are.same({ nil, "in the handler" }, { task.try(t) })
    assert.are.equal("faulted", t:status())
  end)

  it("S12: a task that nobody starts again is closed at its end only", function()
    local closed = false
    local s = task.source()
    local t = spawn(function()
      local _ <close> = closing(function() closed = true end)
      await(s.task)
    end)
    collectgarbage()
    assert.is_false(closed)
    s:set_result()
    await(t)
    assert.is_true(closed)
  end)

  it("S9: cancels 1,000 tasks that own each other in one go", function()
    local depth = 0
    local start
    start = task.async(function(n)
      depth = math.max(depth, n)
      if n < 1000 then
        return await(start(n + 1))
      end
      return await(never())
    end)
    local t = spawn(function() return await(start(1)) end)
    assert.are.equal(1000, depth)
    t:cancel("all")
    local _, err = task.try(t)
    assert.are.equal("all", err.reason)
    for _ = 1, 5 do
      await(task.yield())
    end
    assert.are.same({}, task.tasks())
  end)

  it("S9: by the very task that it waits for", function()
    local outer
    local inner
    outer = spawn(function()
      inner = spawn(function()
        await(task.yield())
        outer:cancel("from inside")
        await(task.yield())
        return "inner goes on"
      end)
      return await(inner)
    end)
    local _, err = task.try(outer)
    assert.are.equal("from inside", err.reason)
    assert.are.equal("cancelled", outer:status())
    assert.are.equal("inner goes on", await(inner))
  end)

  it("S9: a cancelled task that was only queued raises at its first await", function()
    local t = task.from_result():continue_with(function()
      await(task.yield())
      return "not reached"
    end)
    assert.is_true(t:cancel("queued"))
    local _, err = task.try(t)
    assert.are.equal("queued", err.reason)
    assert.are.equal("cancelled", t:status())
  end)

  it("S5: is_cancelled knows cancellations, and nothing else", function()
    local _, err = task.try(task.from_cancelled())
    assert.is_true(task.is_cancelled(err))
    assert.is_true(task.is_cancelled(task.error { code = "ECANCELED", message = "x" }))
    assert.is_false(task.is_cancelled(task.error { code = "ENOENT", message = "x" }))
    assert.is_false(task.is_cancelled(nil))
    assert.is_false(task.is_cancelled("ECANCELED"))
    assert.is_false(task.is_cancelled({}))
  end)
end)
