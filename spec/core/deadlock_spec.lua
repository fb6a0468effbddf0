-- Specs of waiting on the main chunk (S16): it runs the loop, and sees that nothing can wake it.

local task = require "asynctask"
local child = require "spec.support.child"

local await, spawn = task.await, task.spawn

describe("await on the main chunk", function()
  it("S16: runs the loop until the task settles", function()
    assert.are.equal("v", await(task.delay(0.001, "v")))
    local order, gate = {}, task.source()
    local a = spawn(function()
      await(gate.task)
      order[#order + 1] = "long"
    end)
    local b = spawn(function()
      await(task.delay(0.001))
      order[#order + 1] = "short"
    end)
    await(b)
    assert.are.same({ "short" }, order)
    gate:set_result()
    await(a)
    assert.are.same({ "short", "long" }, order)
  end)

  it("S16: works in functions, pcall, coroutines of the library and nested requires of the main chunk", function()
    local ok, v = pcall(function() return await(task.delay(0.001, "in pcall")) end)
    assert.is_true(ok)
    assert.are.equal("in pcall", v)
    local seen = {}
    table.sort({ 3, 1, 2 }, function(a, b)
      seen[#seen + 1] = await(task.delay(0, a))
      return a < b
    end)
    assert.is_true(#seen >= 2)
  end)

  it("S16: raises deadlock when nothing is left that could settle it", function()
    local s = task.source()
    local ok, err = pcall(await, s.task)
    assert.is_false(ok)
    assert.matches("deadlock", err)
    s:set_result("later all the same")
    assert.are.equal("later all the same", await(s.task))
  end)

  it("S16: the message lists who waits for what, and where", function()
    local s = task.source()
    local a = spawn(function() return await(s.task) end):named("producer")
    local line = debug.getinfo(1, "l").currentline - 1
    local b = spawn(function() return await(a) end):named("consumer")
    local ok, err = pcall(await, b)
    assert.is_false(ok)
    assert.matches("deadlock", err)
    assert.matches("producer", err)
    assert.matches("consumer' waits for [^\n]*producer", err)
    assert.matches("deadlock_spec%.lua:" .. line, err)
    s:set_result(1)
    assert.are.equal(1, await(b))
  end)

  it("S16: two tasks that wait for each other are a deadlock", function()
    local a, b
    a = spawn(function()
      await(task.yield())
      return await(b)
    end):named("left")
    b = spawn(function()
      await(task.yield())
      return await(a)
    end):named("right")
    local ok, err = pcall(await, a)
    assert.is_false(ok)
    assert.matches("left", err)
    assert.matches("right", err)
    a:cancel()
    task.try(b)
  end)

  it("S16: try raises it, too: it is not the task's outcome", function()
    local s = task.source()
    local ok, err = pcall(task.try, s.task)
    assert.is_false(ok)
    assert.matches("deadlock", err)
    s:set_result()
  end)

  it("S16: a pending delay of somebody else is no deadlock yet", function()
    local s = task.source()
    local other = task.delay(0.005)
    other:continue_with(function() s:set_result("woken by another") end)
    assert.are.equal("woken by another", await(s.task))
  end)

  it("S16: the message of an uncaught one names the place of the await", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local s = task.source()
      local t = task.spawn(function()
        task.await(s.task)
      end):named("the waiter")
      task.await(t)
      print(s)
    ]])
    assert.are.equal(1, code)
    assert.matches("deadlock", output)
    assert.matches(":6: deadlock", output)
    assert.matches("the waiter", output)
    assert.matches(":4", output)
  end)

  it("S16: inside a task that the main chunk runs, a wait is a task's wait", function()
    local inner
    local t = spawn(function()
      inner = await(task.delay(0.001, 1))
      return inner
    end)
    assert.are.equal(1, await(t))
  end)

  it("S16: in a finalizer it is an error", function()
    local s, message = task.source(), nil
    setmetatable({}, { __gc = function()
      message = select(2, pcall(await, s.task))
    end })
    collectgarbage()
    collectgarbage()
    assert.matches("finalizer", message)
    s:set_result()
  end)

  it("S16: the first Ctrl-C ends it within 0.1 s", function()
    -- (popen, since os.execute ignores the signal in its caller; the second signal would end Lua. The
    -- best of three: the machine is shared.)
    local best = math.huge
    for _ = 1, 3 do
      local output, code = child.lua([[
        local task = require "asynctask"
        local core = require "asynctask.core"
        local start = core.now()
        local pipe = io.popen("sleep 0.1; kill -INT $PPID")
        local ok, err = pcall(task.await, task.delay(30))
        assert(not ok and tostring(err):find("interrupted"), err)
        print(core.now() - start - 0.1)
        os.exit(0)
      ]], { timeout = 20 })
      assert.are.equal(0, code)
      local seconds = assert(tonumber(output), output)
      best = math.min(best, seconds)
    end
    assert.is_true(best < 0.1)
  end)

  it("S16: so does it when it comes from outside while the loop sleeps", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local core = require "asynctask.core"
      os.execute("(sleep 0.2; kill -INT $PPID) &")
      local started = core.now()
      task.await(task.delay(30))
    ]], { timeout = 20 })
    assert.matches("interrupted", output)
    assert.are.equal(1, code)
  end)

  it("S16: so does it while tasks keep the loop busy", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      task.spawn(function() while true do task.await(task.yield()) end end)
      os.execute("(sleep 0.2; kill -INT $PPID) &")
      task.await(task.delay(30))
    ]], { timeout = 20 })
    assert.matches("interrupted", output)
    assert.are.equal(1, code)
  end)

  it("S16: it can be caught, and the loop runs on", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      os.execute("(sleep 0.1; kill -INT $PPID) &")
      print(pcall(task.await, task.delay(30)))
      print(task.await(task.delay(0.01, "and on")))
      os.exit(0)
    ]], { timeout = 20 })
    assert.matches("^false.-interrupted", output)
    assert.matches("\nand on\n$", output)
    assert.are.equal(0, code)
  end)
end)
