-- Specs of the budget (S2): a task that never really waits gives way now and then.

local task = require "asynctask"

local await, spawn = task.await, task.spawn

describe("the budget of settled awaits", function()
  it("S2: lets other tasks run", function()
    local settled = task.from_result(1)
    local others, at = 0, nil
    local other = spawn(function()
      await(task.yield())
      others = others + 1
    end)
    local greedy = spawn(function()
      for i = 1, 100000 do
        await(settled)
        if others > 0 and not at then
          at = i
        end
      end
    end)
    await(greedy)
    await(other)
    assert.is_true(at ~= nil and at <= 1000)
  end)

  it("S2: is some hundreds, not some: a few settled awaits do not give way", function()
    local settled = task.from_result(1)
    await(task.yield())
    local ran = false
    local other = spawn(function()
      await(task.yield())
      ran = true
    end)
    await(spawn(function()
      await(task.yield())
      ran = false
      local third = spawn(function()
        await(task.yield())
        ran = true
      end)
      for _ = 1, 100 do
        await(settled)
      end
      assert.is_false(ran)
      await(third)
    end))
    await(other)
  end)

  it("S2: lets delays and I/O go on", function()
    local settled = task.from_result(1)
    local stop = false
    task.delay(0.003):continue_with(function() stop = true end)
    local greedy = spawn(function()
      local n = 0
      while not stop do
        await(settled)
        n = n + 1
        if n > 5e7 then
          error("starved")
        end
      end
    end)
    await(greedy)
  end)

  it("S2: on the main chunk, too", function()
    local settled = task.from_result(1)
    local stop = false
    task.delay(0.003):continue_with(function() stop = true end)
    local n = 0
    while not stop do
      await(settled)
      n = n + 1
      assert(n < 5e7, "starved")
    end
    assert.is_true(n > 0)
  end)

  it("S9: makes a loop over settled awaits mortal", function()
    local settled = task.from_result(1)
    local t = spawn(function()
      while true do
        await(settled)
      end
    end)
    assert.are.equal("pending", t:status())
    assert.is_true(t:cancel("stop"))
    local _, err = task.try(t)
    assert.are.equal("stop", err.reason)
    assert.are.equal("cancelled", t:status())
  end)

  it("S11: and subject to a deadline", function()
    local settled = task.from_result(1)
    local function f()
      local ok, err = pcall(task.with_timeout, 0.003, function()
        while true do
          await(settled)
        end
      end)
      assert.is_false(ok)
      assert.are.equal("ETIMEDOUT", err.code)
    end
    f()
    await(spawn(f))
  end)

  it("S2: where Lua cannot yield the loop goes on undisturbed", function()
    local settled = task.from_result(1)
    local n = 0
    await(spawn(function()
      local _ = ("x"):rep(2000):gsub(".", function()
        n = n + await(settled)
      end)
    end))
    assert.are.equal(2000, n)
  end)

  it("S2: loses no value when it gives way", function()
    local sum = 0
    await(spawn(function()
      for i = 1, 2000 do
        local a, b = await(task.from_result(i, i))
        sum = sum + a + b
      end
    end))
    assert.are.equal(2000 * 2001, sum)
  end)
end)
