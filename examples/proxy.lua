-- proxy.lua port host:port... - a TCP proxy that spreads connections over several servers and shuts down
-- gracefully: SIGTERM or Ctrl-C stops accepting, connections have GRACE seconds to end, a second signal ends
-- the process. Port 0: the system chooses one.

local task = require "asynctask"
local net = require "asynctask.net"

local await, try = task.await, task.try
local GRACE = 5 -- seconds

local backends = {}
for i = 2, #arg do
  local host, port = arg[i]:match("^(.+):(%d+)$")
  backends[#backends + 1] = { host = host, port = math.tointeger(port), connections = 0 }
end

-- The backend with the fewest connections that answers; those that do not are passed over.
local function connect_backend()
  local failure
  table.sort(backends, function(a, b) return a.connections < b.connections end)
  for _, backend in ipairs { table.unpack(backends) } do
    local stream, err = try(net.connect(backend.host, backend.port, { timeout = 2 }))
    if stream then
      return stream, backend
    end
    failure = err
  end
  error(failure, 0)
end

local function counted(backend)
  backend.connections = backend.connections + 1
  return setmetatable({}, { __close = function()
    backend.connections = backend.connections - 1
  end })
end

local function handle(client)
  local stream, backend = connect_backend()
  local _ <close> = counted(backend)
  local server <close> = stream
  await(task.when_all(client:pipe_to(server), server:pipe_to(client)))
end

task.main({ grace = GRACE + 1 }, function()
  if #backends == 0 then
    error("usage: proxy.lua port host:port...", 0)
  end
  local server <close> = await(net.listen("127.0.0.1", math.tointeger(arg[1])))
  print("listening on port " .. server:sockname().port)
  io.stdout:flush()
  -- A signal cancels this function and all that it owns. What is spawned belongs to nobody, so that the
  -- connections go on until `close` says otherwise.
  local serving = task.spawn(server.serve, server, handle, {
    max = 10000,
    on_error = function(err) io.stderr:write("a connection failed: ", tostring(err), "\n") end,
  })
  local ok, err = pcall(await, serving) -- a signal ends this wait
  print "shutting down"
  task.shield(function()
    await(server:close { grace = GRACE })
  end)
  print "closed"
  if not ok then
    error(err, 0)
  end
end)
