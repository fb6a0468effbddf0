-- asynctask.loop: a host that drives the loop from Lua, step by step.

local task = require "asynctask"
local loop = require "asynctask.loop"
local net = require "asynctask.net"
local child = require "spec.support.child"

local await, spawn = task.await, task.spawn

local function now()
  return require("asynctask.core").now()
end

local function compute(seconds)
  local finish = now() + seconds
  while now() < finish do end
end

describe("step", function()
  it("runs what is ready, and says whether there is more", function()
    local log = {}
    for i = 1, 3 do
      spawn(function()
        await(task.yield())
        log[#log + 1] = i
      end)
    end
    assert.are.equal(0, loop.timeout())
    assert.is_true(loop.step(0)) -- one task
    assert.are.same({ 1 }, log)
    assert.is_false(loop.step())
    assert.are.same({ 1, 2, 3 }, log)
    assert.is_false(loop.step(1))
  end)

  it("keeps to its budget within one resume", function()
    local count = 0
    for _ = 1, 100 do
      spawn(function()
        await(task.yield())
        count = count + 1
        compute(0.002)
      end)
    end
    local longest = 0
    repeat
      local before = count
      local more = loop.step(0.003)
      longest = math.max(longest, count - before)
    until not more
    assert.are.equal(100, count)
    assert.is_true(longest <= 2, tostring(longest))
  end)

  it("keeps to its budget in the callbacks of the loop, too", function()
    local count, done = 0, {}
    for i = 1, 20 do
      local a, b = await(net.pair())
      done[i] = spawn(function()
        local one <close> = a
        local two <close> = b
        await(two:read_some(1))
        assert(one)
        count = count + 1
        compute(0.002)
      end)
      await(a:write("x")) -- all are readable by the next step
    end
    local longest = 0
    while count < 20 do
      local before = count
      loop.step(0.001)
      longest = math.max(longest, count - before)
    end
    assert.is_true(longest <= 1, tostring(longest))
    await(task.when_all(done))
  end)

  it("S23: a delay is over by the time that timeout gave, and not before", function()
    local begun = now()
    local t = task.delay(0.02)
    local seconds = loop.timeout()
    assert.is_true(seconds >= 0 and seconds <= 0.02) -- 0: an earlier spec's faults want a collection
    while t:status() == "pending" do
      loop.step(0.01)
    end
    assert.is_true(now() - begun >= 0.02)

  end)

  it("S15: leaves errors to their tasks", function()
    local t = spawn(function()
      await(task.yield())
      error("mine", 0)
    end)
    loop.step()
    assert.are.equal("faulted", t:status())
    assert.are.equal("mine", t:error())
  end)

  it("raises inside a task, and for arguments that are none", function()
    local t = spawn(function() loop.step() end)
    assert.has_error(function() await(t) end)
    assert.is_truthy(tostring(t:error()):find("loop.step inside a task", 1, true))
    t = spawn(function() loop.run(0) end)
    assert.is_truthy(tostring(t:error()):find("loop.run inside a task", 1, true))
    assert.has_error(function() loop.step("x") end, "bad argument #1 to 'step' (seconds expected, got string)")
    assert.has_error(function() loop.run({}) end, "bad argument #1 to 'run' (seconds expected, got table)")
    assert.has_error(function() loop.step(0 / 0) end, "bad argument #1 to 'step' (seconds expected, got nan)")
    assert.has_error(function() loop.drive(1) end, "bad argument #1 to 'drive' (boolean expected, got number)")
  end)

  it("visits the due times of an automatic clock, one at a step", function()
    local testing = require "asynctask.testing"
    local clock <close> = testing.clock { auto = true }
    local log, begun = {}, clock:now()
    spawn(function()
      for _ = 1, 3 do
        await(task.delay(100))
        log[#log + 1] = math.floor(clock:now() - begun + 0.5)
      end
    end)
    for _ = 1, 20 do loop.step() end
    assert.are.same({ 100, 200, 300 }, log)
  end)
end)

describe("run", function()
  it("ends when nothing is left to wait for, or when its time is over", function()
    assert.is_false(loop.run())
    local t = task.delay(0.01)
    assert.is_true(loop.alive())
    assert.is_false(loop.run())
    assert.are.equal("succeeded", t:status())
    assert.is_false(loop.alive())
    t = task.delay(100)
    local begun = now()
    assert.is_true(loop.run(0.02))
    assert.is_true(now() - begun >= 0.02)
    assert.is_true(loop.run(0))
    t:cancel()
    assert.is_false(loop.run(0))
  end)

  it("S16: Ctrl-C ends it", function()
    if child.sanitizer() == "tsan" then pending("ThreadSanitizer delays signals") end
    local output, code = child.lua([[
      local task, loop = require "asynctask", require "asynctask.loop"
      task.delay(50)
      os.execute("(sleep 0.2; kill -INT " .. io.open("/proc/self/stat"):read("n") .. ") >/dev/null 2>&1 &")
      print(pcall(loop.run))
      print(loop.alive())]])
    assert.is_truthy(output:find("^false\t[^\n]*interrupted!\ntrue\n"), output)
    assert.are.equal(0, code)
  end)
end)

describe("fd", function()
  it("is readable when the system has something for step", function()
    local a, b = await(net.pair())
    local t = spawn(function() return await(b:read("l")) end)
    loop.step()
    local seconds = loop.timeout() -- only the descriptor tells; an earlier spec's faults may want a collection
    assert.is_true(seconds == nil or seconds > 0.01, tostring(seconds))
    assert.are.equal("integer", math.type(loop.fd()))
    await(a:write("hello\n"))
    while t:status() == "pending" do loop.step() end
    assert.are.equal("hello", await(t))
    await(a:close())
    await(b:close())
  end)
end)

describe("drive", function()
  it("S16: where the host drives, an await on the main chunk raises at once; tasks await as ever", function()
    assert.is_false(loop.drive(true))
    finally(function() loop.drive(false) end)
    local t = task.delay(0.001)
    local ok, err = pcall(await, t)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("await outside a task while the host runs the loop: spawn a task", 1, true))
    ok, err = pcall(task.with_timeout, 5, function() await(task.delay(0.001)) end)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("while the host runs the loop", 1, true))
    local inner = spawn(function()
      await(t)
      return task.with_timeout(5, function() return await(task.delay(0.001, 3)) end)
    end)
    while inner:status() == "pending" do loop.step(0.001) end
    assert.are.equal(3, await(inner)) -- has settled: nothing to wait for
    assert.is_true(loop.drive(false))
    assert.are.equal(4, await(task.delay(0.001, 4)))
  end)
end)
