-- Specs of asynctask.signal. Signals are sent by a shell whose parent is this process.

local task = require "asynctask"
local signal = require "asynctask.signal"
local child = require "spec.support.child"

local await, try, spawn = task.await, task.try, task.spawn

local function send(name)
  os.execute("kill -" .. name .. " $PPID")
end

-- Whether the process has a handler for a signal of this number (proc(5), SigCgt).
local function caught(number)
  for line in io.lines("/proc/self/status") do
    local mask = line:match("^SigCgt:%s+(%x+)")
    if mask then
      return tonumber(mask:sub(-8), 16) >> (number - 1) & 1 == 1
    end
  end
end

local USR1, USR2 = 10, 12

describe("signal.wait", function()
  it("gives the signal that comes, and takes its handler away again", function()
    assert.is_false(caught(USR1))
    local t = signal.wait("SIGUSR1")
    assert.is_true(caught(USR1))
    send("USR1")
    assert.are.equal("SIGUSR1", await(t))
    assert.is_false(caught(USR1))
  end)

  it("tells all who wait for it, and nobody else", function()
    local one, two, other = signal.wait("SIGUSR1"), signal.wait("SIGUSR1"), signal.wait("SIGUSR2")
    send("USR1")
    assert.are.equal("SIGUSR1", await(one))
    assert.are.equal("SIGUSR1", await(two))
    assert.are.equal("pending", other:status())
    assert.is_true(caught(USR2))
    other:cancel()
    assert.is_false(caught(USR2))
  end)

  it("S10: one that is cancelled leaves the other its handler", function()
    local one, two = signal.wait("SIGUSR1"), signal.wait("SIGUSR1")
    one:cancel()
    assert.is_true(caught(USR1))
    send("USR1")
    assert.are.equal("SIGUSR1", await(two))
    assert.is_false(caught(USR1))
  end)

  it("is a wait like any other", function()
    local ok, err = task.pcall(task.with_timeout, 0.005, signal.wait, "SIGUSR2")
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.is_false(caught(USR2))
  end)

  it("refuses what is no signal, and what cannot be caught", function()
    for _, case in ipairs {
      { "SIGNOTHING", "unknown signal 'SIGNOTHING'" },
      { "SIGKILL", "SIGKILL cannot be caught" },
      { 15, "name of a signal expected, got number" },
    } do
      local ok, err = pcall(signal.wait, case[1])
      assert.is_false(ok)
      assert.is_truthy(err:find(case[2], 1, true), err)
    end
  end)

  it("gives back what was installed before", function()
    local output, code = child.lua([[
      local task, signal = require "asynctask", require "asynctask.signal"
      local t = signal.wait("SIGTERM")
      os.execute("kill -TERM $PPID")
      print(task.await(t))
      io.stdout:flush()
      os.execute("kill -TERM $PPID")
      print("not reached")
    ]], { timeout = 20 })
    assert.are.equal("SIGTERM\n", output)
    assert.are.equal(128 + 15, code)
    output = child.lua([[
      local task, signal = require "asynctask", require "asynctask.signal"
      local t = signal.wait("SIGINT")
      io.popen("kill -INT $PPID"):close()
      print(task.await(t))
      io.stdout:flush()
      io.popen("kill -INT $PPID"):close()
      for _ = 1, 1e9 do end
    ]], { timeout = 20 })
    assert.is_truthy(output:find("SIGINT\n.*interrupted!"), output)
  end)
end)

describe("signal.each", function()
  it("visits signals, keeps what comes meanwhile, and ends with the loop", function()
    local seen = 0
    local it = signal.each("SIGUSR1")
    send("USR1")
    for name in it, nil, nil, it do
      assert.are.equal("SIGUSR1", name)
      seen = seen + 1
      if seen == 3 then
        break
      end
      send("USR1")
      await(task.delay(0.005)) -- it arrives while nobody waits
    end
    assert.are.equal(3, seen)
    assert.is_false(caught(USR1))
  end)

  it("close ends a round that waits", function()
    local it = signal.each("SIGUSR2")
    local t = it:next()
    assert.is_true(caught(USR2))
    await(it:close())
    assert.is_nil(await(t))
    assert.is_false(caught(USR2))
    assert.is_nil(it())
  end)

  it("lets other tasks run while it waits", function()
    local count = 0
    local t = spawn(function()
      for _ in signal.each("SIGUSR1") do
        count = count + 1
        if count == 2 then
          return
        end
      end
    end)
    send("USR1")
    await(task.delay(0.005))
    send("USR1")
    await(t)
    assert.are.equal(2, count)
    assert.is_nil((try(task.from_error("nothing else"))))
  end)
end)
