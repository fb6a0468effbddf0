-- Specs of S25: a function that returns exactly one Task has it awaited in its place.

local task = require "asynctask"

local await, spawn = task.await, task.spawn

local function get(v)
  return task.delay(0.001, v, "second")
end

describe("a function that returns one Task", function()
  it("S25: has it awaited by spawn and async", function()
    assert.are.same({ "x", "second" }, { await(spawn(get, "x")) })
    assert.are.same({ "x", "second" }, { await(task.async(get)("x")) })
  end)

  it("S25: and by pcall, shield and with_timeout, in a task and on the main chunk", function()
    local function f()
      assert.are.same({ true, "x", "second" }, { task.pcall(get, "x") })
      assert.are.same({ "x", "second" }, { task.shield(get, "x") })
      assert.are.same({ "x", "second" }, { task.with_timeout(60, get, "x") })
    end
    f()
    await(spawn(f))
  end)

  it("S25: and by map, for_each and continue_with", function()
    assert.are.same({ 1, 2, n = 2 }, await(task.map({ 1, 2 }, get)))
    await(task.for_each({ 1, 2 }, get))
    assert.are.same({ "x", "second" }, { await(task.from_result():continue_with(function() return get("x") end)) })
  end)

  it("S25: so the deadline is the Task's, too", function()
    local ok, err = pcall(task.with_timeout, 0.001, task.delay, 60)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
  end)

  it("S25: its failure is the function's", function()
    local err = {}
    local ok, got = task.pcall(task.from_error, err)
    assert.is_false(ok)
    assert.are.equal(err, got)
    local t = spawn(task.from_error, err)
    assert.are.same({ nil, err }, { task.try(t) })
  end)

  it("S25: as the one of two values, it is a value", function()
    local inner = task.from_result(1)
    local a, b = await(spawn(function() return inner, nil end))
    assert.are.equal(inner, a)
    assert.is_nil(b)
    assert.are.equal(inner, (select(2, task.pcall(function() return inner, 2 end))))
  end)

  it("S25: a settled one is awaited just the same", function()
    assert.are.equal(1, await(spawn(task.from_result, 1)))
    assert.are.equal(0, select("#", await(spawn(task.from_result))))
    assert.are.equal(1, task.with_timeout(60, task.from_result, 1))
  end)

  it("S25: await itself gives what a task's result is, Task or not", function()
    local inner = task.from_result(1)
    assert.are.equal(inner, await(task.from_result(inner)))
  end)

  it("S9: a cancellation reaches the task that waits so", function()
    local d
    local t = spawn(function()
      d = task.delay(60)
      return d
    end)
    t:cancel("why")
    local _, err = task.try(t)
    assert.are.equal("why", err.reason)
    assert.are.equal("cancelled", t:status())
    assert.are.equal("cancelled", d:status())
  end)
end)
