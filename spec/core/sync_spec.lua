-- Specs of asynctask.sync: mutex, semaphore, event, latch, barrier, once; and their waiters' cancellation.

local task = require "asynctask"
local sync = require "asynctask.sync"

local await, spawn = task.await, task.spawn

local function turns(n)
  for _ = 1, n or 3 do await(task.yield()) end
end

local function status(list)
  local found = {}
  for i, t in ipairs(list) do found[i] = t:status() end
  return table.concat(found, " ")
end

describe("mutex", function()
  it("lets one in at a time, in order of arrival", function()
    local m, inside, order = sync.mutex(), 0, {}
    local tasks = {}
    for i = 1, 10 do
      tasks[i] = spawn(function()
        local _ <close> = await(m:lock())
        inside = inside + 1
        assert.are.equal(1, inside)
        order[#order + 1] = i
        turns(i % 3)
        inside = inside - 1
      end)
    end
    await(task.when_all(tasks))
    for i = 1, 10 do assert.are.equal(i, order[i]) end
    assert.is_false(m:is_locked())
  end)

  it("is given at once when it is free, and is not reentrant", function()
    local m = sync.mutex()
    local t = m:lock()
    assert.are.equal("succeeded", t:status())
    assert.is_true(m:is_locked())
    local second = m:lock()
    assert.are.equal("pending", second:status())
    t:result():release()
    assert.are.equal("succeeded", second:status())
    assert.is_true(m:is_locked())
    second:result():release()
    assert.is_false(m:is_locked())
  end)

  it("a guard gives back once, however often it is released and closed", function()
    local m = sync.mutex()
    do
      local g <close> = await(m:lock())
      g:release()
      g:release()
    end
    local a = m:try_lock()
    assert.is_truthy(a)
    assert.is_nil(m:try_lock())
    a:release()
    a = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    local b, c = m:try_lock(), m:try_lock()
    assert.is_truthy(b)
    assert.is_nil(c)
    b:release()
  end)

  it("a guard is released by an error, a cancellation, the end of a task", function()
    local m = sync.mutex()
    assert.is_false(pcall(function()
      local _ <close> = await(m:lock())
      error("inside")
    end))
    assert.is_false(m:is_locked())
    local t = spawn(function()
      local _ <close> = await(m:lock())
      await(task.delay(60))
    end)
    assert.is_true(m:is_locked())
    t:cancel()
    t:try()
    assert.is_false(m:is_locked())
  end)

  it("a guard that is collected releases", function()
    local m = sync.mutex()
    local waiting
    do
      local g = await(m:lock())
      assert.is_truthy(g)
      waiting = m:lock()
    end
    assert.are.equal("pending", waiting:status())
    collectgarbage()
    collectgarbage()
    local g <close> = await(waiting)
    assert.is_truthy(g)
  end)

  it("try_lock does not overtake those who wait", function()
    local m = sync.mutex()
    local g = await(m:lock())
    local waiting = m:lock()
    g:release()
    assert.is_nil(m:try_lock())
    waiting:result():release()
    m:try_lock():release()
  end)

  it("S10: with_timeout(0.001, m.lock, m) leaves the lock sound", function()
    local m = sync.mutex()
    local g = await(m:lock())
    local ok, e = pcall(task.with_timeout, 0.001, m.lock, m)
    assert.are.same({ false, "ETIMEDOUT" }, { ok, e.code })
    ok, e = pcall(await, m:lock():timeout(0.001))
    assert.are.same({ false, "ETIMEDOUT" }, { ok, e.code })
    assert.is_true(m:is_locked())
    g:release()
    assert.is_false(m:is_locked())
    local again <close> = task.with_timeout(60, m.lock, m)
    assert.is_true(m:is_locked())
    assert.is_truthy(again)
  end)

  it("S10: the first waiter cancelled: the next gets it, nothing lost, nothing twice", function()
    local m = sync.mutex()
    local g = await(m:lock())
    local w = { m:lock(), m:lock(), m:lock() }
    w[1]:cancel()
    g:release()
    assert.are.equal("cancelled succeeded pending", status(w))
    w[2]:result():release()
    assert.are.equal("cancelled succeeded succeeded", status(w))
    w[3]:result():release()
    assert.is_false(m:is_locked())
  end)

  it("S10: cancelled in the turn of the grant: the guard is given, or the lock is free", function()
    local m = sync.mutex()
    local g = await(m:lock())
    local t = spawn(function()
      local _ <close> = await(m:lock())
      assert.is_true(m:is_locked())
      await(task.yield())
    end)
    local after = spawn(function()
      local _ <close> = await(m:lock())
      return "after"
    end)
    g:release()
    t:cancel()
    assert.is_true(task.is_cancelled(select(2, t:try())))
    assert.are.equal("after", await(after))
    assert.is_false(m:is_locked())

    g = await(m:lock()) -- the other way round
    t = spawn(function()
      local _ <close> = await(m:lock())
      return "got it"
    end)
    t:cancel()
    g:release()
    t:try()
    assert.is_false(m:is_locked())
  end)

  it("S10: many waiters, some cancelled at random, each of the others exactly once", function()
    local m = sync.mutex()
    local g = await(m:lock())
    local got, tasks = {}, {}
    for i = 1, 200 do
      tasks[i] = spawn(function()
        local _ <close> = await(m:lock())
        got[#got + 1] = i
        if i % 7 == 0 then await(task.yield()) end
        if i % 5 == 0 then tasks[i + 1]:cancel() end
      end)
    end
    for i = 1, 200, 3 do tasks[i]:cancel() end
    g:release()
    for i = 1, 200 do tasks[i]:try() end
    -- One that was cancelled in the turn of its grant has got the lock, and may have been stopped inside.
    local seen, last = {}, 0
    for _, i in ipairs(got) do
      assert.is_true(i > last)
      seen[i], last = true, i
    end
    for i = 1, 200 do
      if tasks[i]:status() == "succeeded" then assert.is_true(seen[i]) end
    end
    assert.is_true(#got > 80)
    assert.is_false(m:is_locked())
  end)

  it("S10: in a cancelled scope a lock is not taken; in shield it is", function()
    local m = sync.mutex()
    local t = spawn(function()
      pcall(await, task.delay(60))
      local refused = m:lock():status()
      return refused, m:is_locked(), task.shield(function()
        local _ <close> = await(m:lock())
        return m:is_locked()
      end)
    end)
    t:cancel()
    assert.are.same({ "cancelled", false, true }, { await(t) })
    assert.is_false(m:is_locked())
  end)

  it("a task that takes and holds nothing else deadlocks with a clear error (S16)", function()
    local m = sync.mutex()
    local g = await(m:lock())
    local ok, e = pcall(await, m:lock())
    assert.is_false(ok)
    assert.matches("deadlock", e)
    g:release()
    collectgarbage()
  end)
end)

describe("semaphore", function()
  it("lets as many in as it has permits", function()
    local s, inside, most = sync.semaphore(3), 0, 0
    await(task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function()
      local _ <close> = await(s:acquire())
      inside = inside + 1
      most = math.max(most, inside)
      turns(2)
      inside = inside - 1
    end))
    assert.are.equal(3, most)
    assert.are.equal(3, s:available())
  end)

  it("takes several permits at once; one who wants much is not overtaken", function()
    local s = sync.semaphore(4)
    local a = await(s:acquire(3))
    local much, little = s:acquire(3), s:acquire()
    assert.are.equal("pending pending", status { much, little })
    assert.is_nil(s:try_acquire())
    a:release()
    assert.are.equal("succeeded succeeded", status { much, little })
    assert.are.equal(0, s:available())
    much:result():release()
    little:result():release()
    assert.are.equal(4, s:available())
  end)

  it("S10: one who wanted much is cancelled: those behind go on", function()
    local s = sync.semaphore(2)
    local a = await(s:acquire())
    local much, little = s:acquire(2), s:acquire()
    much:cancel()
    turns()
    assert.are.equal("cancelled succeeded", status { much, little })
    assert.are.equal(0, s:available())
    a:release()
    little:result():release()
    assert.are.equal(2, s:available())
  end)

  it("try_acquire never waits", function()
    local s = sync.semaphore(2)
    local g = s:try_acquire(2)
    assert.is_nil(s:try_acquire())
    g:release()
    assert.are.equal(2, s:available())
  end)

  it("a semaphore without permits lets nobody in", function()
    local s = sync.semaphore(1)
    assert.is_truthy(s:try_acquire(1))
    collectgarbage()
    collectgarbage()
    turns()
    assert.are.equal(1, s:available())
  end)

  it("S22: refuses wrong arguments at the call", function()
    assert.matches("bad argument #1 to 'semaphore'", select(2, pcall(sync.semaphore, 0)))
    assert.matches("bad argument #1 to 'semaphore'", select(2, pcall(sync.semaphore, "3")))
    local s = sync.semaphore(2)
    assert.matches("3 permits of 2", select(2, pcall(s.acquire, s, 3)))
    assert.matches("bad argument #1 to 'acquire'", select(2, pcall(s.acquire, s, 0)))
    assert.is_nil(s:try_acquire(3))
    assert.are.equal(2, s:available())
  end)
end)

describe("event", function()
  it("set wakes all who wait, and lets everybody through until reset", function()
    local e = sync.event()
    local w = { e:wait(), e:wait() }
    assert.are.equal("pending pending", status(w))
    e:set()
    assert.are.equal("succeeded succeeded", status(w))
    assert.is_true(e:is_set())
    assert.are.equal("succeeded", e:wait():status())
    e:reset()
    assert.is_false(e:is_set())
    local again = e:wait()
    assert.are.equal("pending", again:status())
    e:set()
    await(again)
  end)

  it("set and reset in one turn still wakes those who waited", function()
    local e = sync.event()
    local t = spawn(function()
      await(e:wait())
      return "woken"
    end)
    e:set()
    e:reset()
    assert.are.equal("woken", await(t))
  end)

  it("pulse lets those who wait now go on, and nobody later", function()
    local e = sync.event()
    local w = e:wait()
    e:pulse()
    assert.are.equal("succeeded", w:status())
    assert.is_false(e:is_set())
    local later = e:wait()
    assert.are.equal("pending", later:status())
    later:cancel()
    local already = sync.event(true)
    already:pulse()
    assert.is_true(already:is_set())
  end)

  it("S10: a waiter that is cancelled is gone; the others are woken", function()
    local e = sync.event()
    local w = { e:wait(), e:wait(), e:wait() }
    w[1]:cancel()
    w[3]:cancel()
    e:set()
    assert.are.equal("cancelled succeeded cancelled", status(w))
  end)

  it("S10: a wait in a cancelled scope never begins, even on a set event", function()
    local e = sync.event(true)
    local t = spawn(function()
      pcall(await, task.delay(60))
      return e:wait():status()
    end)
    t:cancel()
    assert.are.equal("cancelled", await(t))
  end)
end)

describe("latch", function()
  it("opens at zero, for all, and stays open", function()
    local l = sync.latch(3)
    local w = { l:wait(), l:wait() }
    l:count_down()
    assert.are.equal(2, l:count())
    assert.are.equal("pending pending", status(w))
    l:count_down(2)
    assert.are.equal("succeeded succeeded", status(w))
    assert.are.equal("succeeded", l:wait():status())
    l:count_down()
    assert.are.equal(0, l:count())
  end)

  it("of nothing is open", function()
    assert.are.equal("succeeded", sync.latch(0):wait():status())
  end)

  it("S10: a cancelled waiter does not count", function()
    local l = sync.latch(1)
    local a, b = l:wait(), l:wait()
    a:cancel()
    l:count_down()
    assert.are.equal("cancelled succeeded", status { a, b })
  end)

  it("S22: refuses wrong arguments", function()
    assert.is_false(pcall(sync.latch, -1))
    assert.is_false(pcall(sync.latch))
    local l = sync.latch(1)
    assert.is_false(pcall(l.count_down, l, 0))
    assert.are.equal(1, l:count())
  end)
end)

describe("barrier", function()
  it("lets all go when all are there, generation after generation", function()
    local b = sync.barrier(3)
    local log = {}
    task.with_group(function(g)
      for i = 1, 3 do
        g:spawn(function()
          for round = 1, 4 do
            turns(i)
            log[#log + 1] = round
            assert.are.equal(round, await(b:wait()))
          end
        end)
      end
    end)
    assert.are.same({ 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4 }, log)
  end)

  it("S10: one that gives up is not counted", function()
    local b = sync.barrier(2)
    local a = b:wait()
    a:cancel()
    a:try()
    assert.is_false(pcall(task.with_timeout, 0.001, b.wait, b))
    local c = b:wait()
    turns()
    assert.are.equal("pending", c:status())
    assert.are.equal(1, await(b:wait()))
    assert.are.equal(1, await(c))
  end)

  it("S10: one cancelled in the turn in which the last arrived does not spoil the next generation", function()
    local b = sync.barrier(2)
    local a = b:wait()
    local last = b:wait()
    a:cancel()
    a:try()
    assert.are.equal(1, await(last))
    local c = b:wait()
    turns()
    assert.are.equal("pending", c:status())
    assert.are.equal(2, await(b:wait()))
    assert.are.equal(2, await(c))
  end)

  it("S10: one cancelled in the turn in which another arrives is not counted any more", function()
    local b = sync.barrier(2)
    local a = spawn(function() return await(b:wait()) end)
    local owned = b:wait()
    await(owned) -- both are through: generation 1
    a:try()
    a = spawn(function() return await(b:wait()) end)
    a:cancel()
    local alone = b:wait()
    turns()
    assert.are.equal("pending", alone:status())
    assert.is_true(task.is_cancelled(select(2, a:try())))
    assert.are.equal(2, await(b:wait()))
    assert.are.equal(2, await(alone))
  end)

  it("S10: in a cancelled scope nobody arrives", function()
    local b = sync.barrier(1)
    local t = spawn(function()
      pcall(await, task.delay(60))
      return b:wait():status()
    end)
    t:cancel()
    assert.are.equal("cancelled", await(t))
    assert.are.equal(1, await(b:wait()))
  end)

  it("of one never waits", function()
    local b = sync.barrier(1)
    assert.are.same({ 1, 2 }, { await(b:wait()), (await(b:wait())) })
    assert.is_false(pcall(sync.barrier, 0))
  end)
end)

describe("once", function()
  it("runs the function once, with the arguments of the first call; everybody has its outcome", function()
    local runs = 0
    local f = sync.once(function(...)
      runs = runs + 1
      await(task.yield())
      return ...
    end)
    local a, b = f(1, 2), f(3)
    assert.are.equal(a, b)
    assert.are.same({ 1, 2 }, { await(a) })
    assert.are.same({ 1, 2 }, { await(f()) })
    assert.are.equal(1, runs)
  end)

  it("once even for a call that comes while the function runs for the first time", function()
    local runs, f, inner = 0, nil, nil
    f = sync.once(function()
      runs = runs + 1
      inner = f()
      await(task.yield())
      return "v"
    end)
    local t = f()
    assert.are.equal(t, inner)
    assert.are.equal("v", await(t))
    assert.are.equal(1, runs)
  end)

  it("S8: belongs to nobody: the first caller's cancellation spares the others", function()
    local s = task.source()
    local f = sync.once(function() return await(s.task) end)
    local first = spawn(function() return await(f()) end)
    local second = spawn(function() return await(f()) end)
    first:cancel()
    first:try()
    s:set_result("shared")
    assert.are.equal("shared", await(second))
  end)

  it("a fault is everybody's, and the next call runs the function again", function()
    local runs = 0
    local f = sync.once(function()
      runs = runs + 1
      await(task.yield())
      if runs == 1 then error("first", 0) end
      return runs
    end)
    local a, b = f(), f()
    assert.are.equal("first", select(2, a:try()))
    assert.are.equal("first", select(2, b:try()))
    assert.are.equal(2, await(f()))
    assert.are.equal(2, await(f()))
  end)

  it("S22: refuses what is no function", function()
    assert.matches("bad argument #1 to 'once'", select(2, pcall(sync.once, 5)))
  end)
end)

describe("memory", function()
  it("locks and cancelled waits leave nothing", function()
    local m, s, e = sync.mutex(), sync.semaphore(2), sync.event()
    local function once()
      local g = await(m:lock())
      local w = m:lock()
      w:cancel()
      g:release()
      local much, more = await(s:acquire(2)), s:acquire(1)
      more:cancel()
      much:release()
      e:wait():cancel()
    end
    for _ = 1, 100 do once() end
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 20000 do once() end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 20)
  end)
end)
