-- Specs of ownership (S8): what a cancellation reaches, and what it leaves alone.

local task = require "asynctask"

local await, spawn = task.await, task.spawn

-- A task that waits until it is cancelled, and what `make` made inside it.
local function holder(make)
  local made
  local s = task.source()
  local t = spawn(function()
    made = make()
    await(s.task)
  end)
  return t, made, s
end

local function cancel(t, s)
  t:cancel()
  task.try(t)
  s:set_result()
end

describe("an owner", function()
  it("S8: takes its delays, combinations and async calls with it", function()
    local sleeper = task.async(function() await(task.delay(60)) end)
    for name, make in pairs({
      delay = function() return task.delay(60) end,
      async = function() return sleeper() end,
      when_all = function() return task.when_all(task.delay(60)) end,
      when_any = function() return task.when_any({ task.delay(60) }) end,
      source = function()
        local s = task.source()
        return setmetatable({}, { __index = function(_, k)
          return function() return s.task[k](s.task) end
        end })
      end,
      map = function() return task.map({ 1 }, function() await(task.delay(60)) end) end,
      continue_with = function()
        return task.delay(60):continue_with(function() await(task.delay(60)) end)
      end,
      timeout = function() return task.delay(60):timeout(50) end,
    }) do
      local t, made, s = holder(make)
      assert.are.equal("pending", made:status(), name)
      cancel(t, s)
      for _ = 1, 5 do
        await(task.yield())
      end
      assert.are.equal("cancelled", made:status(), name)
    end
  end)

  it("S8: takes what its async calls own, level by level", function()
    local leaf
    local function level(n)
      return task.async(function()
        if n == 0 then
          leaf = task.delay(60)
          return await(leaf)
        end
        return await(level(n - 1)())
      end)
    end
    local t, _, s = holder(function() return level(50)() end)
    cancel(t, s)
    assert.are.equal("cancelled", leaf:status())
  end)

  it("S8: does not take what it spawned: that belongs to nobody", function()
    local done = task.source()
    local t, made, s = holder(function()
      return spawn(function() return await(done.task) end)
    end)
    cancel(t, s)
    assert.are.equal("pending", made:status())
    done:set_result("went on")
    assert.are.equal("went on", await(made))
  end)

  it("S8: does not take what it merely awaits", function()
    local s = task.source()
    local shared = spawn(function() return await(s.task) end)
    local a = spawn(function() return await(shared) end)
    local b = spawn(function() return await(shared) end)
    a:cancel()
    assert.is_true(task.is_cancelled(select(2, task.try(a))))
    assert.are.equal("pending", shared:status())
    assert.are.equal("pending", b:status())
    s:set_result("for b")
    assert.are.equal("for b", await(b))
    assert.are.equal("for b", await(shared))
  end)

  it("S8: passing or storing a task changes nothing", function()
    local box = {}
    local t, made, s = holder(function()
      box.delay = task.delay(60)
      return box.delay
    end)
    local borrower = spawn(function() return await(box.delay) end)
    cancel(t, s)
    assert.are.equal("cancelled", made:status())
    assert.is_true(task.is_cancelled(select(2, task.try(borrower))))
    assert.are.equal("faulted", borrower:status())
  end)

  it("S8: cancelling a borrower leaves the owner's task alone", function()
    local d = task.delay(0.01)
    local borrower = spawn(function() return await(d) end)
    borrower:cancel()
    task.try(borrower)
    assert.are.equal("pending", d:status())
    await(d)
    assert.are.equal("succeeded", d:status())
  end)

  it("S8: at a task's normal end its pending work goes on and belongs to nobody", function()
    local made
    local t = spawn(function()
      made = task.delay(0.005, "value")
      return "ended"
    end)
    assert.are.equal("ended", await(t))
    assert.is_false(t:cancel())
    assert.are.equal("pending", made:status())
    assert.are.equal("value", await(made))
  end)

  it("S8: so it does when the task faults", function()
    local made
    local t = spawn(function()
      made = task.delay(0.005, "value")
      error("x", 0)
    end)
    assert.are.same({ nil, "x" }, { task.try(t) })
    assert.are.equal("value", await(made))
  end)

  it("S8: at a scope's normal end its pending work passes to the task around it", function()
    for name, scope in pairs({
      with_timeout = function(f) return task.with_timeout(60, f) end,
      shield = task.shield,
    }) do
      local t, made, s = holder(function()
        return (scope(function() return task.delay(60), 1 end))
      end)
      assert.are.equal("pending", made:status(), name)
      cancel(t, s)
      assert.are.equal("cancelled", made:status(), name)
    end
  end)

  it("S8: a scope that ends by its deadline takes its work with it", function()
    local made
    local ok, err = pcall(task.with_timeout, 0.001, function()
      made = task.delay(60)
      await(task.delay(60))
    end)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.are.equal("cancelled", made:status())
  end)

  it("S8: a scope's deadline leaves alone what the task made before it", function()
    local t = spawn(function()
      local before = task.delay(0.02, "kept")
      assert.is_false((pcall(task.with_timeout, 0.001, await, before)))
      return await(before)
    end)
    assert.are.equal("kept", await(t))
  end)

  it("S8: what is shared is spawned: the first asker's end is not the work's", function()
    local cache, runs = {}, 0
    local function fetch()
      runs = runs + 1
      await(task.yield())
      await(task.yield())
      return "page"
    end
    local function get()
      cache.page = cache.page or spawn(fetch)
      return await(cache.page)
    end
    local first, second = spawn(get), spawn(get)
    first:cancel()
    task.try(first)
    assert.are.equal("page", await(second))
    assert.are.equal(1, runs)
  end)

  it("S8: a plain coroutine's work belongs to the task that runs it", function()
    local t, made, s = holder(function()
      return coroutine.wrap(function() return task.delay(60) end)()
    end)
    cancel(t, s)
    assert.are.equal("cancelled", made:status())
  end)

  it("S8: 10,000 delays go with their owner", function()
    local list = {}
    local t, _, s = holder(function()
      for i = 1, 10000 do list[i] = task.delay(60 + i) end
    end)
    cancel(t, s)
    for i = 1, 10000 do
      if list[i]:status() ~= "cancelled" then
        assert.are.equal("cancelled", list[i]:status())
      end
    end
  end)
end)
