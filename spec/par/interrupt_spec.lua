-- Cancelling jobs that are queued, running or waiting (S20), and closing a state that has jobs (S18).

local child = require "spec.support.child"
local core = require "asynctask.core"
local task = require "asynctask"

local await, run = task.await, core.par.run
local interrupts = child.sanitizer() == "tsan" and pending or it -- ThreadSanitizer delays signals

--- The text of a file, as soon as it is as long as expected; bounded.
local function eventually(path, size)
  local text
  for _ = 1, 500 do
    local f = assert(io.open(path))
    text = f:read "a"
    f:close()
    if #text >= size then break end
    await(task.delay(0.01))
  end
  return text
end

--- Every thread of the pool runs jobs again: as many jobs as threads, each waiting for all to have begun.
local function all_workers_answer()
  local list = {}
  for i = 1, 4 do
    list[i] = run(function(n)
      local sum = 0
      for k = 1, 1000 do sum = sum + k end
      return sum + n
    end, i)
  end
  local got = await(task.when_all(list):timeout(10))
  for i = 1, 4 do assert.equal(500500 + i, got[i]) end
end

--- Runs f in a job, cancels it once it runs, and checks that the threads live on.
local function stops(f)
  for _ = 1, 5 do
    local first, second = run(f), run(f) -- both cores busy
    await(task.delay(0.002))
    assert.is_true(first:cancel("enough"))
    assert.is_true(second:cancel())
    assert.equal("cancelled", first:status())
    local ok, err = task.pcall(await, first)
    assert.is_false(ok)
    assert.is_true(task.is_cancelled(err))
    assert.equal("enough", err.reason)
    all_workers_answer()
  end
end

describe("interruption", function()
  interrupts("S20: stops an empty loop", function()
    stops(function() while true do end end)
  end)

  interrupts("S20: stops a job that catches errors in a loop", function()
    stops(function() while true do pcall(error) end end)
    stops(function() while true do pcall(function() while true do end end) end end)
    stops(function() while true do xpcall(error, function() while true do end end) end end)
  end)

  interrupts("S20: stops deep recursion", function()
    stops(function()
      local function f(n)
        if n == 0 then while true do end end
        return f(n - 1) + 1
      end
      return f(100000)
    end)
  end)

  interrupts("S20: stops a job inside coroutines of its own", function()
    stops(function()
      coroutine.wrap(function()
        coroutine.wrap(function() while true do pcall(error) end end)()
      end)()
    end)
    stops(function()
      while true do
        local co = coroutine.create(function() coroutine.yield(1) end)
        coroutine.resume(co)
      end
    end)
  end)

  interrupts("S20: stops a job where Lua cannot yield", function()
    stops(function()
      local function less() while true do pcall(error) end end
      while true do pcall(table.sort, { 3, 2, 1, 5, 4 }, less) end
    end)
    stops(function() while true do pcall(string.gsub, "aaa", "a", function() while true do end end) end end)
    stops(function()
      while true do
        pcall(table.sort, { 3, 2, 1 }, function() coroutine.wrap(function() while true do end end)() end)
      end
    end)
    stops(function()
      local m = setmetatable({}, { __tostring = function() while true do end end })
      while true do pcall(tostring, m) end
    end)
  end)

  interrupts("S20: stops a task that the job owns", function()
    stops(function()
      local t = require "asynctask"
      t.await(t.async(function() while true do end end)())
    end)
  end)

  interrupts("S12: the <close> variables of a stopped job are closed, the innermost first", function()
    local name = os.tmpname()
    local t = run(function(path)
      local function note(text)
        return setmetatable({}, { __close = function()
          local f <close> = assert(io.open(path, "a"))
          f:write(text)
        end })
      end
      local outer <close> = note "outer" -- luacheck: ignore
      coroutine.wrap(function()
        local inner <close> = note "inner," -- luacheck: ignore
        while true do pcall(error) end
      end)()
    end, name)
    await(task.delay(0.01))
    t:cancel()
    local text = eventually(name, 11)
    os.remove(name)
    assert.equal("inner,outer", text)
  end)

  interrupts("S20: a <close> handler that never ends is stopped too", function()
    local t = run(function()
      local x <close> = setmetatable({}, { __close = function() while true do end end }) -- luacheck: ignore
      while true do end
    end)
    await(task.delay(0.005))
    t:cancel()
    all_workers_answer()
  end)

  interrupts("S20: the thread of a stopped job is clean: no hook, no global changed", function()
    local t = run(function() while true do end end)
    await(task.delay(0.005))
    t:cancel()
    for _ = 1, 8 do
      assert.is_true(await(run(function()
        for _ = 1, 100000 do end
        return debug.gethook() == nil
      end)))
    end
  end)

  it("S20: refuses debug.sethook in jobs", function()
    local ok, err = task.pcall(await, run(function() debug.sethook(print, "l") end))
    assert.is_false(ok)
    assert.matches("debug.sethook cannot be used in a job", err, 1, true)
  end)

  it("S20: a job that has not started is removed", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local run = require "asynctask.core".par.run
      local name = os.tmpname()
      local first = run(function()
        local e = os.clock() + 0.1
        while os.clock() < e do end
      end)
      local second = run(function(path) local f = io.open(path, "w") f:write "ran" f:close() end, name)
      print(second:cancel(), second:status())
      task.await(first)
      task.await(run(function() end))
      local f = io.open(name) print(f:read "a" == "") f:close() os.remove(name)]],
      { env = { ASYNCTASK_THREADS = "1" }, timeout = 20 })
    assert.equal("true\tcancelled\ntrue\n", output)
    assert.equal(0, code)
  end)

  it("S20: a job that waits is cancelled where it waits, and cleans up", function()
    local name = os.tmpname()
    local t = run(function(path)
      local a = require "asynctask"
      local ok, err = pcall(function() a.await(a.delay(1000)) end)
      local f = assert(io.open(path, "w"))
      f:write(tostring(ok), " ", tostring(a.is_cancelled(err)))
      f:close()
    end, name)
    await(task.delay(0.02))
    assert.is_true(t:cancel())
    local text = eventually(name, 10)
    os.remove(name)
    assert.equal("false true", text)
  end)

  it("S11: a deadline around a job that waits", function()
    local ok, err = task.pcall(task.with_timeout, 0.01, run, function()
      local a = require "asynctask"
      a.await(a.delay(1000))
    end)
    assert.is_false(ok)
    assert.equal("ETIMEDOUT", err.code)
  end)

  it("S10: a job is not begun in a cancelled scope", function()
    local began
    local t = task.spawn(function()
      pcall(function() await(task.delay(100)) end)
      began = run(function() end):status()
    end)
    t:cancel()
    task.pcall(await, t)
    assert.equal("cancelled", began)
  end)
end)

describe("closing the state", function()
  interrupts("S18: interrupts a runaway job; the process ends", function()
    local start = os.time()
    local output, code = child.lua([[
      local task = require "asynctask"
      local run = require "asynctask.core".par.run
      for _ = 1, 4 do
        run(function() while true do pcall(error) end end)
        run(function() while true do pcall(table.sort, { 2, 1, 3 }, function() while true do end end) end end)
      end
      task.await(task.delay(0.02))]], { timeout = 10 })
    assert.equal(0, code, output)
    assert.is_true(os.time() - start <= 3)
  end)

  interrupts("S18: no Lua code of a stopped job runs any more", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local run = require "asynctask.core".par.run
      run(function()
        local x <close> = setmetatable({}, { __close = function() print "handler ran" end })
        while true do end
      end)
      run(function()
        local t = require "asynctask"
        local x <close> = setmetatable({}, { __close = function() print "handler ran" end })
        t.await(t.delay(100))
      end)
      task.await(task.delay(0.02))]], { timeout = 10 })
    assert.not_matches("handler ran", output, 1, true)
    assert.equal(0, code)
  end)

  it("S18: with jobs queued, waiting and just ended", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local run = require "asynctask.core".par.run
      for i = 1, 300 do
        run(function(n)
          local t = require "asynctask"
          local r = require "asynctask.core".par.run
          if n % 3 == 0 then return n end
          if n % 3 == 1 then t.await(t.delay(100)) end
          return t.await(r(function(x) return x end, { n }))
        end, i)
      end
      if arg[1] then task.await(task.delay(tonumber(arg[1]))) end]], { timeout = 20, args = { "0.004" } })
    assert.not_matches("attempt", output, 1, true)
    assert.equal(0, code, output)
  end)

  it("S18: at once after the first job was handed over", function()
    for _ = 1, 5 do
      local output, code = child.lua([[ local run = require "asynctask.core".par.run  run(function() return 1 end) ]],
        { timeout = 10 })
      assert.equal(0, code, output)
    end
  end)
end)
