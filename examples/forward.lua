-- forward.lua [port host port] - a port forwarder: what arrives at the first port goes to the host, and back.
-- Without arguments it shows itself: an echo server, a forwarder before it, and a client.

local task = require "asynctask"
local net = require "asynctask.net"

local await = task.await

-- Both directions at once; each end of file is passed on, so that half-closed connections work.
local function forward_to(host, port)
  return function(stream)
    local target <close> = await(net.connect(host, port, { timeout = 10 }))
    await(task.when_all(stream:pipe_to(target), target:pipe_to(stream)))
  end
end

local function report(err)
  io.stderr:write("a connection failed: ", tostring(err), "\n")
end

local function demonstrate()
  local echo <close> = await(net.listen("127.0.0.1", 0))
  local echoing = echo:serve(function(stream)
    return stream:pipe_to(stream)
  end)
  local forwarder <close> = await(net.listen("127.0.0.1", 0))
  local forwarding = forwarder:serve(forward_to("localhost", echo:sockname().port))
  local client <close> = await(net.connect("127.0.0.1", forwarder:sockname().port))
  await(client:write("through the forwarder and back\n"))
  await(client:shutdown())
  print(await(client:read "a"))
  await(task.when_all(forwarder:close { grace = 1 }, echo:close { grace = 1 }))
  await(task.when_all(forwarding, echoing))
end

task.main(function(from, host, to)
  if not from then
    return demonstrate()
  end
  print(("forwarding port %d to %s:%d"):format(from, host, to))
  await(net.serve("*", from, forward_to(host, to), { max = 1000, on_error = report }))
end, math.tointeger(arg[1]), arg[2], math.tointeger(arg[3]))
