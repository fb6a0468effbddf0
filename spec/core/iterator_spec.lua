-- Specs of iterators (S26), with those of the kernel: every and when_each.

local task = require "asynctask"
local iterator = require "asynctask.iterator"

local await, spawn = task.await, task.spawn

-- An iterator over 1..n that counts how often it was asked and closed.
local function counting(n, delayed)
  local log = { asked = 0, closed = 0 }
  return log, iterator.new(function()
    log.asked = log.asked + 1
    local value = log.asked <= n and log.asked or nil
    if delayed then
      return task.delay(0, value)
    end
    return value
  end, function()
    log.closed = log.closed + 1
  end)
end

describe("an iterator", function()
  it("S26: serves the generic for, waiting for each round", function()
    for _, delayed in ipairs({ false, true }) do
      local function f()
        local log, it, a, b, c = counting(3, delayed)
        local seen = {}
        for x in it, a, b, c do
          seen[#seen + 1] = x
        end
        assert.are.same({ 1, 2, 3 }, seen)
        assert.are.equal(1, log.closed)
      end
      f()
      await(spawn(f))
    end
  end)

  it("S26: is closed when the loop is left by break, return and error", function()
    local log, it, a, b, c = counting(9)
    for _ in it, a, b, c do
      break
    end
    assert.are.equal(1, log.closed)
    local log2, it2, a2, b2, c2 = counting(9, true)
    local function f()
      for x in it2, a2, b2, c2 do
        return x
      end
    end
    assert.are.equal(1, f())
    assert.are.equal(1, log2.closed)
    local log3, it3, a3, b3, c3 = counting(9)
    assert.is_false((pcall(function()
      for _ in it3, a3, b3, c3 do
        error("x")
      end
    end)))
    assert.are.equal(1, log3.closed)
  end)

  it("S26: is closed when the task in the loop is cancelled", function()
    local s = task.source()
    local log, it, a, b, c = counting(9)
    local t = spawn(function()
      for _ in it, a, b, c do
        await(s.task)
      end
    end)
    t:cancel()
    task.try(t)
    assert.are.equal(1, log.closed)
    assert.are.equal("cancelled", t:status())
    s:set_result()
  end)

  it("S26: next gives a Task, nil at the end", function()
    local log, it = counting(2, true)
    local t = it:next()
    assert.is_true(task.is_task(t))
    assert.are.equal(1, await(t))
    assert.are.equal(2, await(it:next()))
    assert.is_nil((await(it:next())))
    await(it:close())
    assert.is_nil((await(it:next())))
    assert.are.equal(3, log.asked)
    assert.are.equal(1, log.closed)
  end)

  it("S26: can be called like a function", function()
    local _, it = counting(2)
    assert.are.equal(1, it())
    assert.are.equal(2, it())
    assert.is_nil(it())
    assert.is_nil(it())
  end)

  it("S26: close is a Task, and closing twice is fine", function()
    local log, it = counting(9)
    local t = it:close()
    assert.is_true(task.is_task(t))
    await(t)
    await(it:close())
    assert.are.equal(1, log.closed)
    assert.is_nil(it())
    assert.are.equal(0, log.asked)
  end)

  it("S26: an error of a round goes to the loop, and the iterator is closed", function()
    local closed = false
    local function f()
      for _ in iterator.new(function() return task.from_error("bad round") end, function() closed = true end) do
        error("not reached")
      end
    end
    local ok, err = pcall(f)
    assert.is_false(ok)
    assert.are.equal("bad round", err)
    assert.is_true(closed)
  end)
end)

describe("every", function()
  it("S26: ticks, with the tick's number, never early", function()
    local core = require "asynctask.core"
    local start = core.now()
    local seen = {}
    for tick in task.every(0.003) do
      assert.is_true(core.now() - start >= 0.003 * tick)
      seen[#seen + 1] = tick
      if #seen == 3 then
        break
      end
    end
    assert.are.equal(3, #seen)
    assert.is_true(seen[1] < seen[2] and seen[2] < seen[3])
  end)

  it("merges the ticks that were missed", function()
    local clock <close> = require("asynctask.testing").clock()
    local ticks = task.every(1)
    local first <const> = ticks:next()
    clock:advance(1)
    assert.are.equal(1, await(first))
    clock:advance(7.5)
    assert.are.equal(8, await(ticks:next()))
    local after <const> = ticks:next()
    assert.are.equal("pending", after:status())
    clock:advance(0.5)
    assert.are.equal(9, await(after))
    await(ticks:close())
  end)

  it("S26: may be waited for with a deadline", function()
    local ticks = task.every(60)
    local ok, err = task.pcall(task.with_timeout, 0.001, ticks.next, ticks)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
    await(ticks:close())
  end)

  it("S26: keeps nothing alive that nobody waits for", function()
    local ticks = task.every(0.001)
    await(ticks:next())
    await(ticks:close())
    assert.are.equal(0, require("asynctask.core").census().timers)
  end)

  it("S22: refuses seconds that make no sense", function()
    for _, bad in ipairs({ 0, -1, 0 / 0, math.huge, "1" }) do
      local ok, err = pcall(task.every, bad)
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'every'", err)
    end
    assert.matches("got nil", (select(2, pcall(task.every))))
  end)
end)
