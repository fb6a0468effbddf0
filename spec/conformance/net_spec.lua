-- The conformance suite of streams, for sockets and pairs.

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local streams = require "spec.conformance.streams"

local await = task.await

streams(_ENV, "TCP", function()
  local server <close> = await(net.listen("127.0.0.1", 0))
  local client = await(net.connect("127.0.0.1", server:sockname().port))
  return client, await(server:accept())
end)

streams(_ENV, "TCP, accepting side", function()
  local server <close> = await(net.listen("127.0.0.1", 0))
  local client = await(net.connect("127.0.0.1", server:sockname().port))
  return await(server:accept()), client
end)

streams(_ENV, "Unix socket", function()
  local dir = await(fs.mkdtemp())
  local server = await(net.listen { path = dir .. "/s" })
  local client = await(net.connect { path = dir .. "/s" })
  local peer = await(server:accept())
  await(server:close())
  await(fs.remove(dir, { recursive = true }))
  return client, peer
end)

streams(_ENV, "pair in memory", function()
  return await(net.pair())
end)

streams(_ENV, "received over a Unix socket", function()
  local a, b = await(net.pair())
  local x, y = await(net.pair())
  await(a:send_handle(x))
  await(x:close())
  local received = await(b:receive_handle())
  await(a:close())
  await(b:close())
  return received, y
end)
