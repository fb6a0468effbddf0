-- Specs of task.main (S24): the program, its exit codes and its signals. Each runs in a child.

local child = require "spec.support.child"

local head = "local task = require 'asynctask'\nlocal await = task.await\n"

local function run(script, seconds)
  return child.lua(head .. script, { timeout = seconds or 20 })
end

describe("main", function()
  it("S24: runs the function as a task and exits with 0", function()
    local output, code = run [[
      task.main(function(...)
        assert(task.is_task(task.current()))
        await(task.delay(0.001))
        print("ran", ...)
      end, "a", 2)
      print("after")
    ]]
    assert.are.equal("ran\ta\t2\nafter\n", output)
    assert.are.equal(0, code)
  end)

  it("S24: takes options first", function()
    local output, code = run [[
      task.main({ grace = 1 }, function(a) print(a) end, "x")
    ]]
    assert.are.equal("x\n", output)
    assert.are.equal(0, code)
  end)

  it("S24: gives what the function returns, and may be called again", function()
    local output, code = run [[
      print(task.main(function() return await(task.delay(0.001, 1, nil, 3)) end))
      print(task.main(task.delay, 0.001, "flat"))
    ]]
    assert.are.equal("1\tnil\t3\nflat\n", output)
    assert.are.equal(0, code)
  end)

  it("S24: an error exits with 1 and prints one traceback through every await", function()
    local output, code = run [[
      local function leaf()
        await(task.yield())
        error("deep down")
      end
      local branch = task.async(function()
        await(task.spawn(leaf))
      end)
      task.main(function()
        await(branch())
      end)
      print("not reached")
    ]]
    assert.are.equal(1, code)
    local _, times = output:gsub("deep down", "")
    assert.are.equal(1, times)
    local last = 0
    for _, line in ipairs({ 5, 8, 11 }) do
      local at = output:find(":" .. line .. ": in", 1, true)
      assert.is_truthy(at, "line " .. line .. " in\n" .. output)
      assert.is_true(at > last)
      last = at
    end
    assert.not_matches("not reached", output)
  end)

  it("S24: an error value that is no string is shown, too", function()
    local output, code = run [[ task.main(function() error(task.error { code = "EBAD", message = "broken" }) end) ]]
    assert.are.equal(1, code)
    assert.matches("broken %(EBAD%)", output)
    local _, other = run [[ task.main(function() error({}) end) ]]
    assert.are.equal(1, other)
    local _, none = run [[ task.main(function() error(nil) end) ]]
    assert.are.equal(1, none)
  end)

  it("S24: an unobserved fault exits with 1", function()
    local output, code = run [[
      task.main(function()
        task.spawn(error, "nobody looked")
      end)
    ]]
    assert.are.equal(1, code)
    local _, times = output:gsub("nobody looked", "")
    assert.are.equal(1, times)
  end)

  it("S24: so does one that is still held, and one that on_unobserved took", function()
    local output, code = run [[
      local kept
      task.main(function()
        kept = task.spawn(error, "held")
      end)
    ]]
    assert.are.equal(1, code)
    assert.matches("held", output)
    local _, handled = run [[
      task.main(function()
        task.on_unobserved(function() end)
        task.spawn(error, "handled")
        collectgarbage() collectgarbage()
        await(task.yield()) await(task.yield())
      end)
    ]]
    assert.are.equal(1, handled)
  end)

  it("S24: an observed fault does not", function()
    local output, code = run [[
      task.main(function()
        print(task.try(task.spawn(error, "seen")))
      end)
    ]]
    assert.are.equal("nil\tseen\n", output)
    assert.are.equal(0, code)
  end)

  it("S24: cancels what still runs, and gives it time to clean up", function()
    local output, code = run [[
      task.main(function()
        task.spawn(function()
          local _ <close> = setmetatable({}, { __close = function(_, err)
            print("cleaning", task.is_cancelled(err))
            task.shield(task.delay, 0.02)
            print("cleaned")
          end })
          await(task.delay(60))
        end)
        print("main ends")
      end)
      print("after")
    ]]
    assert.are.equal("main ends\ncleaning\ttrue\ncleaned\nafter\n", output)
    assert.are.equal(0, code)
  end)

  it("S24: but no longer than grace", function()
    local output, code = run([[
      local core = require "asynctask.core"
      local start = core.now()
      task.main({ grace = 0.05 }, function()
        task.spawn(function()
          task.shield(task.delay, 60)
        end)
      end)
      print(core.now() - start < 5)
      os.exit(7, false)
    ]], 15)
    assert.are.equal("true\n", output)
    assert.are.equal(7, code)
  end)

  it("S24: SIGINT cancels the function; the exit code is 130", function()
    local output, code = run [[
      task.main(function()
        local _ <close> = setmetatable({}, { __close = function(_, err)
          print("cleaning", task.is_cancelled(err))
          task.shield(task.delay, 0.01)
          print("cleaned")
        end })
        io.popen("kill -INT $PPID"):close()
        await(task.delay(30))
      end)
      print("not reached")
    ]]
    assert.are.equal("cleaning\ttrue\ncleaned\n", output)
    assert.are.equal(130, code)
  end)

  it("S24: SIGTERM cancels it, too; the exit code is 143", function()
    local output, code = run [[
      task.main(function()
        io.popen("kill -TERM $PPID"):close()
        await(task.delay(30))
      end)
    ]]
    assert.are.equal("", output)
    assert.are.equal(143, code)
  end)

  it("S24: a function that ends well after the signal still exits with 128 + signal", function()
    local output, code = run [[
      task.main(function()
        io.popen("kill -TERM $PPID"):close()
        pcall(await, task.delay(30))
        print("cleaned up")
      end)
    ]]
    assert.are.equal("cleaned up\n", output)
    assert.are.equal(143, code)
  end)

  it("S24: an error while cleaning up is printed", function()
    local output, code = run [[
      task.main(function()
        io.popen("kill -TERM $PPID"):close()
        pcall(await, task.delay(30))
        error("in the clean-up")
      end)
    ]]
    assert.matches("in the clean%-up", output)
    assert.are.equal(143, code)
  end)

  it("S24: a second signal ends the process", function()
    local output, code = run [[
      task.main(function()
        io.popen("kill -INT $PPID"):close()
        pcall(await, task.delay(30))
        print("first")
        io.stdout:flush()
        io.popen("kill -INT $PPID"):close()
        task.shield(task.delay, 30)
        print("not reached")
      end)
    ]]
    assert.are.equal("first\n", output)
    assert.are.equal(130, code)
  end)

  it("S24: a second signal during the grace ends the process", function()
    local output, code = run [[
      task.main({ grace = 30 }, function()
        task.spawn(function()
          local _ <close> = setmetatable({}, { __close = function()
            print("stubborn")
            io.stdout:flush()
            io.popen("kill -TERM $PPID"):close()
            task.shield(task.delay, 30)
            print("not reached")
          end })
          await(task.delay(60))
        end)
        io.popen("kill -TERM $PPID"):close()
        await(task.delay(30))
      end)
    ]]
    assert.are.equal("stubborn\n", output)
    assert.are.equal(143, code)
  end)

  it("S24: the second may be of the other kind", function()
    local output, code = run [[
      task.main(function()
        io.popen("kill -INT $PPID"):close()
        pcall(await, task.delay(30))
        io.popen("kill -TERM $PPID"):close()
        task.shield(task.delay, 30)
        print("not reached")
      end)
    ]]
    assert.are.equal("", output)
    assert.are.equal(143, code)
  end)

  it("S24: takes no signal handlers away that it did not set: after main Ctrl-C is Lua's again", function()
    local output, code = run [[
      task.main(function() await(task.delay(0.001)) end)
      local pipe = io.popen("sleep 0.1; kill -INT $PPID")
      local ok, err = pcall(function()
        local e = os.time() + 10
        while os.time() < e do end
      end)
      pipe:close()
      print(ok, err and err:match("interrupted"))
    ]]
    assert.are.equal("false\tinterrupted\n", output)
    assert.are.equal(0, code)
  end)

  it("S16: a deadlock in main exits with 1 and lists who waits", function()
    local output, code = run([[
      local s = task.source()
      task.main(function()
        await(s.task)
      end)
    ]], 10)
    assert.are.equal(1, code)
    assert.matches("deadlock", output)
    assert.matches(":5", output)
  end)

  it("S22: refuses wrong arguments", function()
    local output, code = run [[
      print(pcall(task.main))
      print(pcall(task.main, { grace = -1 }, print))
      print(pcall(task.main, { grace = "x" }, print))
      print(pcall(task.main, { grce = 1 }, print))
      print(task.try(task.spawn(function() task.main(print) end)))
    ]]
    assert.are.equal(0, code)
    local lines = {}
    for line in output:gmatch("[^\n]+") do
      lines[#lines + 1] = line
    end
    assert.matches("^false.*bad argument #1 to 'main'", lines[1])
    assert.matches("^false.*grace", lines[2])
    assert.matches("^false.*grace", lines[3])
    assert.matches("^false.*grce", lines[4])
    assert.matches("^nil.*inside a task", lines[5])
  end)
end)

describe("without main", function()
  it("S24: tasks still pending when the state closes are named once", function()
    local output, code = run [[
      local s = task.source()
      t = task.spawn(function() await(s.task) end):named("left behind")
      keep = s
    ]]
    assert.are.equal(0, code)
    local _, times = output:gsub("left behind", "")
    assert.are.equal(1, times)
  end)

  it("S24: a program that left nothing prints nothing", function()
    local output, code = run [[
      await(task.delay(0.001))
      await(task.spawn(function() await(task.yield()) end))
      task.delay(60):cancel()
    ]]
    assert.are.equal("", output)
    assert.are.equal(0, code)
  end)
end)
