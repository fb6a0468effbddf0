-- The conformance suite of streams, for encrypted ones.

local task = require "asynctask"
local net = require "asynctask.net"
local certificates = require "spec.support.certificates"
local streams = require "spec.conformance.streams"

local tls = certificates.tls(describe, pending)
if not tls then
  return
end

local await = task.await
local path = certificates.make()

-- A client's and a server's stream over these two.
local function encrypt(a, b, versions)
  local serving = tls.wrap(b, { server = true, cert = path "server.pem", key = path "server.key" })
  versions = versions or {}
  versions.ca, versions.server_name = path "ca.pem", "localhost"
  local client = await(tls.wrap(a, versions))
  return client, await(serving)
end

streams(_ENV, "TLS 1.3, client", function()
  return encrypt(await(net.pair()))
end)

streams(_ENV, "TLS 1.3, server", function()
  local client, server = encrypt(await(net.pair()))
  return server, client
end)

streams(_ENV, "TLS 1.2", function()
  local a, b = await(net.pair())
  return encrypt(a, b, { max_version = "1.2" })
end)

streams(_ENV, "TLS over TCP", function()
  local listening <close> = await(net.listen("127.0.0.1", 0))
  local a = await(net.connect("127.0.0.1", listening:sockname().port))
  return encrypt(a, await(listening:accept()))
end)

streams(_ENV, "TLS in TLS", function()
  return encrypt(encrypt(await(net.pair())))
end)
