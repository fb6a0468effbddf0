-- task.pool: jobs on threads of one's own, closing, stats, stealing (S18, S20, S21).

local child = require "spec.support.child"
local task = require "asynctask"

local await = task.await
local interrupts = child.sanitizer() == "tsan" and pending or it -- ThreadSanitizer delays signals

local function waits(seconds, value)
  local t = require "asynctask"
  t.await(t.delay(seconds))
  return value
end

describe("pool", function()
  it("runs jobs on threads of its own, with what they raise", function()
    local p <const> = task.pool { threads = 2, name = "mine" }
    assert.matches("mine", tostring(p), 1, true)
    assert.equal(3, await(p:run(function(a, b) return a + b end, 1, 2)))
    assert.equal("abab", await(p:run("string.rep", "ab", 2)))
    local ok, err = task.pcall(await, p:run(function() error { code = 5 } end))
    assert.is_false(ok)
    assert.equal(5, err.code)
    await(p:close())
  end)

  it("S22: wrong arguments raise at once", function()
    local function message(...)
      local ok, err = pcall(...)
      assert.is_false(ok)
      return err
    end
    assert.matches("option 'threads': 0 is not between 1 and 1024", message(task.pool, { threads = 0 }), 1, true)
    assert.matches("unknown option 'thread'", message(task.pool, { thread = 1 }), 1, true)
    assert.matches("option 'name'", message(task.pool, { name = {} }), 1, true)
    local p <const> = task.pool { threads = 1 }
    assert.matches("bad argument #1 to 'run' (function or \"module.function\" expected, got number)",
      message(function() p:run(1) end), 1, true)
    assert.matches("argument 2: cannot copy", message(p.run, p, print, io.stdout), 1, true)
    await(p:close())
  end)

  it("tells what it does", function()
    local p <const> = task.pool { threads = 1, name = "counting" }
    assert.same({ name = "counting", threads = 1, started = 0, idle = 0, queued = 0, running = 0, completed = 0,
      closed = false }, p:stats())
    await(p:run(function() end))
    assert.equal(1, p:stats().completed)
    assert.equal(1, p:stats().started)
    local t = p:run(waits, 0.01)
    local s = p:stats()
    assert.equal(1, s.queued + s.running)
    await(t)
    await(p:close())
    assert.is_true(p:stats().closed)
    assert.equal(0, p:stats().threads)
  end)

  it("S21: jobs of jobs do not lock up a pool of one thread", function()
    local p <const> = task.pool { threads = 1 }
    local function fib(n)
      local t = require "asynctask"
      if n < 2 then return n end
      local a, b = t.await(t.when_all(t.run(fib, n - 1), t.run(fib, n - 2)))
      return a + b
    end
    assert.equal(55, await(p:run(fib, 10)))
    assert.equal(177, p:stats().completed) -- all of them ran in this pool
    await(p:close())
  end)

  it("idle threads take over what jobs have started", function()
    local p <const> = task.pool { threads = 2 }
    local function busy(list)
      local t, core = require "asynctask", require "asynctask.core"
      local jobs = {}
      for i = 1, #list do
        jobs[i] = t.run(function()
          local stop = require "asynctask.core".now() + 0.02
          while require "asynctask.core".now() < stop do end -- does not give way
          return tostring(_G)
        end)
      end
      local stop = core.now() + 0.1
      while core.now() < stop do end
      local all = t.await(t.when_all(jobs))
      all[#all + 1] = tostring(_G)
      return all
    end
    local states = {}
    for _, state in ipairs(await(p:run(busy, { 1, 2, 3, 4 }))) do states[state] = true end
    local n = 0
    for _ in pairs(states) do n = n + 1 end
    assert.equal(2, n)
    await(p:close())
  end)

  it("close waits for the jobs, those that they start included, and takes no others", function()
    local p <const> = task.pool { threads = 2 }
    local list = {}
    for i = 1, 20 do list[i] = p:run(waits, 0.01, i) end
    list[21] = p:run(function()
      local t = require "asynctask"
      t.await(t.delay(0.01))
      return t.await(t.run(function() return 21 end))
    end)
    local closing = p:close()
    local ok, err = pcall(p.run, p, print)
    assert.is_false(ok)
    assert.matches("the pool is closed", err, 1, true)
    assert.is_true(p:stats().closed)
    await(closing)
    for i = 1, 21 do assert.equal(i, list[i]:result()) end
    await(p:close()) -- once more
  end)

  it("close of a pool that has never run anything settles", function()
    await(task.pool { threads = 3 }:close())
  end)

  it("a close that nobody waits for any more goes on", function()
    local p <const> = task.pool { threads = 1 }
    local t = p:run(waits, 0.01, "done")
    local closing = p:close()
    closing:cancel()
    assert.equal("done", await(t))
    await(p:close())
  end)

  interrupts("S20: close{cancel=true} cancels what is queued, waits or runs, whose <close> handlers run", function()
    local p <const> = task.pool { threads = 2 }
    local name = os.tmpname()
    local running = p:run(function(path)
      local mark <close> = setmetatable({}, { __close = function() -- luacheck: ignore
        local f = io.open(path, "w")
        f:write "closed"
        f:close()
      end })
      while true do end
    end, name)
    local waiting = p:run(waits, 100)
    local queued = {}
    await(task.delay(0.02))
    for i = 1, 50 do queued[i] = p:run(waits, 100) end
    await(p:close { cancel = true })
    for _, t in ipairs { running, waiting, queued[1], queued[50] } do
      assert.equal("cancelled", t:status())
      assert.is_true(task.is_cancelled(t:error()))
    end
    local f = assert(io.open(name))
    assert.equal("closed", f:read "a")
    f:close()
    os.remove(name)
  end)

  it("a pool that is collected ends when its jobs have", function()
    local t
    do
      local p = task.pool { threads = 1 }
      t = p:run(waits, 0.02, "still done")
    end
    collectgarbage()
    collectgarbage()
    assert.equal("still done", await(t))
  end)

  it("jobs make pools, too", function()
    assert.equal("inner", await(task.run(function()
      local t = require "asynctask"
      local p = t.pool { threads = 1 }
      local result = t.await(p:run(function() return "inner" end))
      t.await(p:close())
      return result
    end)))
  end)

  interrupts("S18: the state closes while pools run, drain and are full", function()
    for _, how in ipairs { "", "a:close()", "a:close{cancel=true}", "a = nil collectgarbage() collectgarbage()" } do
      local output, code = child.lua([[
        local task = require "asynctask"
        local a, b = task.pool{threads=2}, task.pool{threads=1}
        task.on_unobserved(function() end)
        for i = 1, 40 do
          a:run(function() local t = require "asynctask" t.await(t.delay(100)) end)
          b:run(function() while true do end end)
        end
        task.await(task.delay(0.02)) ]] .. how .. [[ io.stderr:close() ]], { timeout = 10 })
      assert.equal(0, code, how .. output)
    end
  end)

  it("ASYNCTASK_THREADS sets the size of the default pool", function()
    local output = child.lua([[print(require "asynctask.core".par.threads(), task)]],
      { env = { ASYNCTASK_THREADS = "5" } })
    assert.equal("5\tnil\n", output)
  end)
end)
