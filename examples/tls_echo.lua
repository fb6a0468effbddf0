-- An echo server over TLS, and clients of it. The certificates are made by the openssl command in a temporary
-- directory: an authority of our own, which the clients trust, and a certificate for localhost.
--
--     lua5.4 examples/tls_echo.lua [clients]

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"
local tls = require "asynctask.tls"

local await = task.await
local clients = tonumber(arg[1]) or 3

local function openssl(dir, ...)
  await(process.run("openssl", { ... }, { cwd = dir }))
end

-- ca.pem, server.pem and server.key
local function make_certificates(dir)
  local curve = { "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1" }
  openssl(dir, "req", "-x509", "-subj", "/CN=example authority", "-keyout", "ca.key", "-out", "ca.pem",
    table.unpack(curve))
  openssl(dir, "req", "-subj", "/CN=example server", "-keyout", "server.key", "-out", "server.csr", table.unpack(curve))
  await(fs.write_file(dir .. "/names", "subjectAltName=DNS:localhost\n"))
  openssl(dir, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "1",
    "-days", "1", "-extfile", "names", "-out", "server.pem")
end

local function echo(stream)
  for line in stream:lines("L") do
    await(stream:write(line))
  end
end

local function talk(number, port, context)
  local stream <close> = await(tls.connect("localhost", port, { context = context }))
  await(stream:write(("client %d says hello\n"):format(number)))
  print(await(stream:read()))
  return stream:version(), stream:session_reused()
end

task.main(function()
  local dir = await(fs.mkdtemp())
  make_certificates(dir)

  local server <close> = await(net.listen("localhost", 0))
  local port = server:sockname().port
  local handler = await(tls.handler(echo, { cert = dir .. "/server.pem", key = dir .. "/server.key" }))
  local serving = server:serve(handler, {
    on_error = function(err)
      print("the server goes on after", err)
    end,
  })

  local trusting = await(tls.context { ca = dir .. "/ca.pem" })
  for i = 1, clients do
    local version, reused = await(task.spawn(talk, i, port, trusting))
    print(version, reused and "with the session of before" or "with a full handshake")
  end

  -- Whoever does not trust our authority does not talk to the server. The server learns it, too.
  local stream, err = task.try(tls.connect("localhost", port))
  print(stream, err)

  await(server:close { grace = 1 })
  await(serving)
  await(fs.remove(dir, { recursive = true }))
  print("closed")
end)
