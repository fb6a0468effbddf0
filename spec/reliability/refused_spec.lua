-- S10: an operation that is called in a scope that has been cancelled does not begin: its Task is cancelled, and what
-- it would have used is as it was. Each operation of C that has no turn to wait for, and those that have.

local task = require "asynctask"
local core = require "asynctask.core"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"
local signal = require "asynctask.signal"
local sandbox = require "spec.support.sandbox"
require "asynctask.net.stream"

local await = task.await
local path, put, _, before, after = sandbox.new()

-- The state of what `start` gives inside a cancelled scope.
local function state_in_cancelled(start)
  local cancelled = task.cancellation()
  cancelled:cancel()
  local state
  pcall(function()
    cancelled:with(function() state = start():status() end)
  end)
  return state
end

local function refused(start)
  assert.equal("cancelled", state_in_cancelled(start))
end

describe("S10: in a cancelled scope nothing begins:", function()
  before_each(before)
  after_each(after)

  it("streams", function()
    local one, other = await(net.pair())
    local a <close> = one
    local b <close> = other
    refused(function() return a:write "lost" end)
    refused(function() return a:shutdown() end)
    refused(function() return b:read() end)
    refused(function() return b:read_some() end)
    refused(function() return b:receive_handle() end)
    refused(function() return a:send_handle(b) end)
    await(a:write "kept") -- neither written before, nor shut down
    await(a:shutdown())
    assert.equal("kept", await(b:read "a"))
  end)

  it("servers and connections", function()
    local server <close> = await(net.listen("127.0.0.1", 0))
    refused(function() return server:accept() end)
    refused(function() return core.net.listen("127.0.0.1", 0) end)
    refused(function() return core.net.listen_fd(0) end)
    refused(function() return core.net.connect("127.0.0.1", server:sockname().port) end)
    refused(function() return core.net.pair() end)
    refused(function() return core.net.collect(1) end)
    local s <close> = await(net.connect("127.0.0.1", server:sockname().port))
    local accepted <close> = await(server:accept())
    assert.is_truthy(accepted and s)
  end)

  it("datagrams", function()
    local a <close> = await(net.udp("127.0.0.1", 0))
    local b <close> = await(net.udp("127.0.0.1", 0))
    local port = b:sockname().port
    refused(function() return a:send("lost", "127.0.0.1", port) end)
    refused(function() return b:receive() end)
    refused(function() return a:connect("127.0.0.1", port) end)
    refused(function() return core.net.udp():bind("127.0.0.1", 0) end)
    assert.is_nil(b:try_receive())
    await(a:send("kept", "127.0.0.1", port))
    local data, from = await(b:receive())
    assert.equal("kept", data)
    assert.equal(a:sockname().port, from.port)
  end)

  it("files", function()
    local file <close> = await(fs.open(put "one\ntwo\n"))
    refused(function() return fs.read_file(path()) end)
    refused(function() return fs.stat(path()) end)
    refused(function() return fs.exists(path()) end)
    refused(function() return fs.write_file(path(), "lost") end)
    refused(function() return file:read "l" end)
    refused(function() return file:stat() end)
    assert.equal("one", await(file:read "l"))
    assert.equal("one\ntwo\n", await(fs.read_file(path())))
  end)

  it("lines of files", function()
    local name = put "one\ntwo\n"
    local cancelled = task.cancellation()
    local seen = {}
    local _, err = task.try(task.spawn(function()
      cancelled:with(function()
        for line in fs.lines(name) do
          seen[#seen + 1] = line
          cancelled:cancel()
        end
      end)
    end))
    assert.is_true(task.is_cancelled(err), tostring(err))
    assert.same({ "one" }, seen)
  end)

  it("processes and signals", function()
    local p <close> = await(process.spawn "cat")
    refused(function() return p:wait() end)
    refused(function() return process.spawn "cat" end)
    refused(function() return signal.wait "SIGUSR2" end)
    local watch = core.signal.watch "SIGUSR2"
    refused(function() return watch:next() end)
    watch:close()
    assert.is_nil((await(watch:next()))) -- closed: nothing more
    await(p.stdin:close())
    assert.equal(0, await(p:wait()))
  end)

  it("clocks", function()
    refused(function() return task.delay(0.001) end)
    refused(function() return core.delay_until(core.now() + 0.001) end)
  end)
end)

describe("one waits at a time:", function()
  it("a second wait for a watched signal is EBUSY, and the first goes on", function()
    local watch = core.signal.watch "SIGUSR2"
    local first = watch:next()
    local _, err = task.try(watch:next())
    assert.equal("EBUSY", err.code)
    assert.equal("pending", first:status())
    watch:close()
    assert.is_nil((await(first)))
  end)

  it("a second wait for a handle is EBUSY", function()
    local one, other = await(net.pair())
    local a <close> = one
    local b <close> = other
    local first = b:receive_handle()
    local _, err = task.try(b:receive_handle())
    assert.equal("EBUSY", err.code)
    await(a:send_handle(a))
    local received <close> = await(first)
    assert.is_truthy(received)
  end)
end)
