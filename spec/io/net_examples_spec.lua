-- The programs in examples/ that serve: each runs as it stands; the proxy is talked to from here.

local task = require "asynctask"
local net = require "asynctask.net"
local child = require "spec.support.child"

local await, try, delay = task.await, task.try, task.delay

local function example(name, ...)
  return child.lua(child.root .. "/examples/" .. name, { args = { ... }, timeout = 30 })
end

describe("examples/", function()
  it("echo_server.lua serves on several threads", function()
    local output, code = example("echo_server.lua", "2", "--threads", "2")
    assert.are.equal(0, code, output)
    for name = 1, 2 do
      for i = 1, 3 do
        assert.matches(("client %d says %d\n"):format(name, i), output, 1, true)
      end
    end
    assert.matches("closed\n$", output)
  end)

  it("chat_server.lua shows who says what to whom", function()
    local output, code = example("chat_server.lua")
    assert.are.equal(0, code, output)
    assert.matches("ada reads: bob has come\n", output, 1, true)
    assert.matches("bob reads: ada: hello bob\n", output, 1, true)
    assert.matches("ada reads: bob: hello ada\n", output, 1, true)
    assert.matches("closed\n$", output)
  end)

  it("forward.lua passes both directions on, and their ends", function()
    local output, code = example("forward.lua")
    assert.are.equal(0, code, output)
    assert.are.equal("through the forwarder and back\n\n", output)
  end)

  it("proxy.lua goes on with its connections after SIGTERM, and then ends", function()
    local backend = await(net.listen("127.0.0.1", 0))
    local serving = backend:serve(function(stream)
      return stream:pipe_to(stream)
    end)
    local file = os.tmpname()
    local preload = os.getenv("ASYNCTASK_PRELOAD")
    local q = child.quote
    -- Runs beside us; it says its port, and its exit code, in the file.
    os.execute(("unset LUA_PATH_5_4 LUA_CPATH_5_4; LUA_PATH=%s LUA_CPATH=%s; "
      .. "export LUA_PATH LUA_CPATH; "
      .. "{ sh -c 'echo pid $$; exec \"$@\"' sh %s %s %s 0 127.0.0.1:1 127.0.0.1:%d; "
      .. "echo code $?; } >%s 2>&1 </dev/null &"):format(
      q(package.path), q(package.cpath), preload and "env LD_PRELOAD=" .. q(preload) or "", child.interpreter(),
      q(child.root .. "/examples/proxy.lua"), backend:sockname().port, q(file)))
    local function wait_for(pattern)
      for _ = 1, 1500 do
        local f = assert(io.open(file))
        local found = f:read("a"):match(pattern)
        f:close()
        if found then return found end
        await(delay(0.01))
      end
      error("waited in vain for " .. pattern)
    end
    local ended = false
    local pid = wait_for("pid (%d+)\n")
    finally(function()
      os.remove(file)
      if not ended then os.execute("kill -KILL " .. pid) end -- a failed spec leaves none behind
    end)
    local port = tonumber(wait_for("port (%d+)\n"))
    local stream <close> = await(net.connect("127.0.0.1", port))
    await(stream:write("before\n"))
    assert.are.equal("before", await(stream:read()))
    os.execute("kill -TERM " .. pid)
    wait_for("(shutting down)\n")
    assert.is_nil((try(net.connect("127.0.0.1", port))))
    await(stream:write("after\n"))
    assert.are.equal("after", await(stream:read()))
    await(stream:shutdown())
    assert.is_nil(await(stream:read()))
    assert.are.equal("143", wait_for("closed\n.*code (%d+)"))
    ended = true
    await(backend:close { grace = 1 })
    await(serving)
  end)
end)
