-- echo_server.lua [clients] [--threads n] - a server that sends back every line, and clients that talk to it.
--
-- Each connection is a task of its own: its code reads as if it were alone. With --threads the connections are
-- served on n threads that listen on one port, each with a Lua state of its own. A program that only serves
-- would end at `await(server:serve(echo))`; this one closes the server when its clients have gone.

local task = require "asynctask"
local net = require "asynctask.net"

local await = task.await

local function echo(stream)
  for line in stream:lines() do
    await(stream:write(line, "\n")) -- waits while the other side does not read
  end
end -- the connection closes here

local function client(port, name)
  local stream <close> = await(net.connect("127.0.0.1", port))
  for i = 1, 3 do
    await(stream:write(("%s says %d\n"):format(name, i)))
    print(await(stream:read "l"))
  end
end

local clients, threads = 3, nil
local i = 1
while arg[i] do
  if arg[i] == "--threads" then
    threads, i = math.tointeger(arg[i + 1]), i + 1
  else
    clients = math.tointeger(arg[i])
  end
  i = i + 1
end

task.main(function()
  -- Port 0: the system chooses. `reuseport` lets each thread have a listening socket of its own.
  local server <close> = await(net.listen("127.0.0.1", 0, { reuseport = threads ~= nil }))
  local serving = server:serve(echo, { threads = threads })
  local port = server:sockname().port
  print("listening on port " .. port)

  local names = {}
  for n = 1, clients do
    names[n] = "client " .. n
  end
  await(task.for_each(names, function(name)
    return task.with_timeout(5, client, port, name)
  end))

  await(server:close { grace = 1 })
  await(serving)
  print "closed"
end)
