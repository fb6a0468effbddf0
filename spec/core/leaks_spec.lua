-- Specs of what must not grow: long-lived tasks, sources, groups and scopes under very many short ones. Each
-- measures memory after full collections, before and after.

local task = require "asynctask"
local child = require "spec.support.child"

local await, spawn = task.await, task.spawn

local CYCLES = child.sanitizer() and 20000 or 200000
local MILLION = child.sanitizer() and 20000 or 1000000

local function kilobytes()
  for _ = 1, 6 do collectgarbage() end -- each halves Lua's table of strings at most
  return collectgarbage("count")
end

local ALLOWED = child.sanitizer() and 160 or 64 -- KB

-- Runs `once` so many times and says by how many KB memory has grown: the least of three rounds, since
-- tables grow and shrink by steps; what leaks grows in each. The warm-up comes first.
local function growth(once, n)
  n = n or CYCLES
  for i = 1, n // 2 do once(i) end
  local least = math.huge
  for _ = 1, 3 do
    local before = kilobytes()
    for i = 1, n do once(i) end
    least = math.min(least, kilobytes() - before)
    if least < ALLOWED then break end
  end
  return least
end

describe("a long-lived task", function()
  it("S7: awaited by very many when_any holds nothing of them", function()
    local s = task.source()
    assert.is_true(growth(function() await(task.when_any { s.task, task.yield() }) end, MILLION) < ALLOWED)
    s:set_result()
  end)

  it("S11: awaited with very many timeouts holds nothing of them", function()
    local s = task.source()
    assert.is_true(growth(function()
      local t = s.task:timeout(60)
      t:cancel()
      t:try()
    end, CYCLES // 2) < ALLOWED)
    assert.is_true(growth(function() pcall(task.with_timeout, 0, await, s.task) end, CYCLES) < ALLOWED)
    assert.are.equal(0, task.stats().delays)
    s:set_result()
  end)

  it("S8: awaited by very many tasks that are cancelled holds nothing of them", function()
    local s = task.source()
    assert.is_true(growth(function()
      local t = spawn(function() await(s.task) end)
      local u = spawn(function() await(s.task) end)
      t:cancel()
      u:cancel()
      u:try()
    end, CYCLES // 2) < ALLOWED)
    s:set_result()
  end)

  it("S7: visited by when_each that is left early, and waited for by continue_with that is cancelled", function()
    local s = task.source()
    assert.is_true(growth(function()
      for _ in task.when_each(task.yield(), s.task) do break end
      local t = s.task:continue_with(print)
      t:cancel()
      t:try()
    end, CYCLES // 4) < ALLOWED)
    s:set_result()
  end)

  it("S8: that makes very many operations holds nothing of them", function()
    await(spawn(function()
      assert.is_true(growth(function()
        local d = task.delay(60)
        d:cancel()
        await(task.from_result({}))
        task.source():set_result({})
      end, CYCLES) < ALLOWED)
    end))
  end)

  it("S12: that enters and leaves very many scopes holds nothing of them", function()
    await(spawn(function()
      local function leave() end
      assert.is_true(growth(function()
        task.with_timeout(60, leave)
        task.shield(leave)
        pcall(task.with_timeout, 60, error, {})
      end, CYCLES // 2) < ALLOWED)
    end))
  end)
end)

describe("a long-lived cancellation source", function()
  it("does not grow by a million cycles of with", function()
    local c = task.cancellation()
    local function f() end
    assert.is_true(growth(function() c:with(f) end, MILLION) < ALLOWED)
    c:cancel()
  end)

  it("does not grow by registrations that are closed, in any order", function()
    local c = task.cancellation()
    local older = c:on_cancel(print)
    assert.is_true(growth(function()
      local r = c:on_cancel(print)
      older:close()
      older = r
    end, CYCLES) < ALLOWED)
    assert.is_true(growth(function()
      local a, b = c:on_cancel(print), c:on_cancel(print)
      b:close()
      a:close()
    end, CYCLES) < ALLOWED)
    older:close()
    local t0 = os.clock()
    c:cancel()
    assert.is_true(os.clock() - t0 < 1)
  end)

  it("does not grow by linked sources that come and go, nor they by their deadlines", function()
    local c = task.cancellation()
    assert.is_true(growth(function()
      local linked = task.cancellation(c)
      linked:cancel_after(3600)
      linked:on_cancel(print):close()
      linked:cancel()
    end, CYCLES // 4) < ALLOWED)
    assert.is_true(growth(function() task.cancellation(c) end, CYCLES // 4) < ALLOWED)
    assert.are.equal(0, task.stats().delays)
    c:cancel()
  end)
end)

describe("a long-lived group", function()
  it("S13: does not grow by a million members", function()
    task.with_group(function(g)
      local function member() end
      assert.is_true(growth(function() g:spawn(member) end, MILLION) < ALLOWED)
    end)
  end)

  it("S13: nor by members that wait, fault under on_error, or are cancelled", function()
    local faults = 0
    task.with_group({ limit = 4, on_error = function() faults = faults + 1 end }, function(g)
      local i = 0
      assert.is_true(growth(function()
        i = i + 1
        local t = g:spawn(function()
          await(task.yield())
          if i % 3 == 0 then error({}) end
        end)
        if i % 5 == 0 then t:cancel() end
        if i % 4 == 0 then await(g:wait()) end
        g:add(task.from_result({}))
      end, CYCLES // 10) < ALLOWED)
    end)
    assert.is_true(faults > 0)
  end)

  it("S13: groups that come and go leave nothing in the scope around them", function()
    await(spawn(function()
      assert.is_true(growth(function()
        task.with_group(function(g) g:spawn(task.yield) end)
        pcall(task.with_group, function(g) g:spawn(error, {}) end)
      end, CYCLES // 20) < ALLOWED)
    end))
  end)
end)

describe("faults", function()
  it("S15: that were looked at leave nothing", function()
    assert.is_true(growth(function()
      pcall(await, spawn(error, {}))
      task.from_error({}):error()
    end, CYCLES // 10) < ALLOWED)
  end)

  it("S3: with equal errors leave nothing, either", function()
    assert.is_true(growth(function() pcall(await, spawn(error, "the same text", 0)) end, CYCLES // 10) < ALLOWED)
    assert.is_true(growth(function() pcall(await, task.from_error("the same text")) end, CYCLES // 10) < ALLOWED)
    await(spawn(function()
      assert.is_true(growth(function() pcall(await, spawn(error, "the same text", 0)) end, CYCLES // 10) < ALLOWED)
      assert.is_true(growth(function() task.try(task.from_error("the same text")) end, CYCLES // 10) < ALLOWED)
    end))
  end)
end)

describe("names", function()
  it("are forgotten with their tasks", function()
    local i = 0
    local function once()
      i = i + 1
      spawn(task.yield):named("task " .. i)
      if i % 100 == 0 then await(task.yield()) end
    end
    growth(once, CYCLES // 10) -- the table of names has its size now
    assert.is_true(growth(once, CYCLES // 10) < ALLOWED)
    await(task.yield())
  end)
end)
