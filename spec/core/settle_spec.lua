-- Specs of settling: who is woken, when and how often (S4), and in which state a task ends (S5).

local task = require "asynctask"

local await, spawn = task.await, task.spawn

describe("settling", function()
  it("S4: runs no code of the waiters inline", function()
    local s = task.source()
    local order = {}
    local t = spawn(function()
      await(s.task)
      order[#order + 1] = "waiter"
    end)
    local c = s.task:continue_with(function() order[#order + 1] = "continuation" end)
    s:set_result()
    order[#order + 1] = "setter"
    await(t)
    await(c)
    assert.are.equal("setter", order[1])
    assert.are.equal(3, #order)
  end)

  it("S4: wakes waiters first in, first out", function()
    local s = task.source()
    local order, list = {}, {}
    for i = 1, 20 do
      list[i] = spawn(function()
        if i % 3 == 0 then
          await(task.when_any({ s.task }))
        else
          await(s.task)
        end
        order[#order + 1] = i
      end)
    end
    s:set_result()
    await(task.when_all(list))
    local plain, combined = {}, {}
    for _, i in ipairs(order) do
      local list_of = i % 3 == 0 and combined or plain
      list_of[#list_of + 1] = i
    end
    assert.are.same({ 1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20 }, plain)
    assert.are.same({ 3, 6, 9, 12, 15, 18 }, combined)
  end)

  it("S4: tasks that became ready run in that order", function()
    local a, b, c = task.source(), task.source(), task.source()
    local order, list = {}, {}
    for name, s in pairs({ a = a, b = b, c = c }) do
      list[#list + 1] = spawn(function()
        await(s.task)
        order[#order + 1] = name
      end)
    end
    b:set_result()
    c:set_error("x")
    a:set_result()
    for _, t in ipairs(list) do
      task.try(t)
    end
    assert.are.same({ "b", "a" }, order)
  end)

  it("S4: happens once", function()
    local s = task.source()
    assert.is_true(s:set_result(1))
    assert.is_false(s:set_result(2))
    assert.is_false(s:set_error("e"))
    assert.is_false(s:set_cancelled())
    assert.is_false(s.task:cancel())
    assert.are.equal(1, await(s.task))
    assert.are.equal("succeeded", s.task:status())
  end)

  it("S4: each suspension is woken once, whatever happens in one turn", function()
    local s = task.source()
    local woken = 0
    local t
    t = spawn(function()
      pcall(await, s.task)
      woken = woken + 1
      pcall(await, task.yield())
      woken = woken + 1
      return "end"
    end)
    t:cancel()
    s:set_result()
    t:cancel()
    assert.are.equal(0, woken)
    task.try(t)
    assert.are.equal(2, woken)
  end)

  it("S4: continue_with runs as a task, from the queue, with the task", function()
    local t = task.from_result("v")
    local seen
    local c = t:continue_with(function(settled)
      seen = settled
      assert.is_true(task.is_task(task.current()))
      await(task.yield())
      return "after " .. await(settled)
    end)
    assert.is_nil(seen)
    assert.are.equal("after v", await(c))
    assert.are.equal(t, seen)
  end)

  it("S4: continue_with is called whatever the outcome", function()
    local outcomes = {}
    for _, t in ipairs({ task.from_result(), task.from_error("e"), task.from_cancelled() }) do
      outcomes[#outcomes + 1] = await(t:continue_with(function(x)
        x:error()
        return x:status()
      end))
    end
    assert.are.same({ "succeeded", "faulted", "cancelled" }, outcomes)
  end)

  it("S4: a fault of a continuation is its own", function()
    local t = task.from_result()
    local c = t:continue_with(error)
    local ok, err = pcall(await, c)
    assert.is_false(ok)
    assert.are.equal(t, err)
    assert.are.equal("succeeded", t:status())
  end)

  it("S4: many continuations run in the order in which they were added", function()
    local s = task.source()
    local order, list = {}, {}
    for i = 1, 10 do
      list[i] = s.task:continue_with(function() order[#order + 1] = i end)
    end
    s:set_result()
    await(task.when_all(list))
    assert.are.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, order)
  end)
end)

describe("the state in which a task ends", function()
  it("S5: succeeded, faulted, cancelled", function()
    local s = task.source()
    local cancelled = spawn(function() await(s.task) end)
    cancelled:cancel("enough")
    task.try(cancelled)
    assert.are.equal("cancelled", cancelled:status())
    assert.are.equal("enough", cancelled:error().reason)
    assert.are.equal("ECANCELED", cancelled:error().code)
    local faulted = spawn(error, "x")
    assert.are.equal("faulted", faulted:status())
    assert.are.equal("x", faulted:error())
    assert.are.equal("succeeded", spawn(function() end):status())
    s:set_result()
  end)

  it("S5: somebody else's cancellation that it does not catch faults it", function()
    local s = task.source()
    local t = spawn(function() return await(s.task) end)
    s.task:cancel("gone")
    local ok, err = pcall(await, t)
    assert.is_false(ok)
    assert.is_true(task.is_cancelled(err))
    assert.are.equal("gone", err.reason)
    assert.are.equal("faulted", t:status())
    assert.are.equal("cancelled", s.task:status())
  end)

  it("S5: a cancelled task that catches it and returns has succeeded", function()
    local s = task.source()
    local t = spawn(function()
      local ok, err = pcall(await, s.task)
      assert.is_false(ok)
      assert.is_true(task.is_cancelled(err))
      return "cleaned up"
    end)
    assert.is_true(t:cancel())
    assert.are.equal("cleaned up", await(t))
    assert.are.equal("succeeded", t:status())
    s:set_result()
  end)

  it("S5: a cancelled task that raises something else is faulted", function()
    local s = task.source()
    local t = spawn(function()
      pcall(await, s.task)
      error("while cleaning up", 0)
    end)
    t:cancel()
    assert.are.same({ nil, "while cleaning up" }, { task.try(t) })
    assert.are.equal("faulted", t:status())
    s:set_result()
  end)

  it("S5: raising a cancellation of one's own making does not cancel", function()
    local err = task.error { code = "ECANCELED", message = "mine" }
    local t = spawn(error, err)
    assert.are.equal("faulted", t:status())
    assert.are.equal(err, t:error())
  end)

  it("S5: cancelling after the end changes nothing", function()
    local t = spawn(function() return 1 end)
    assert.is_false(t:cancel())
    assert.are.equal("succeeded", t:status())
    assert.are.equal(1, await(t))
  end)
end)
