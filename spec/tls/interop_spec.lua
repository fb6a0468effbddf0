-- Other people's TLS as the peer: the openssl command and Python's ssl.

local task = require "asynctask"
local net = require "asynctask.net"
local process = require "asynctask.process"
local child = require "spec.support.child"
local certificates = require "spec.support.certificates"

local tls = certificates.tls(describe, pending)
if not tls then
  return
end

local await, try = task.await, task.try
local path = certificates.make()

-- Without the sanitizer that this process may run with.
local environment = { LD_PRELOAD = "" }

local function start(command, args)
  return await(process.spawn(command, args, { env = environment, stderr = "ignore" }))
end

-- A peer that does not do what it should must not hold the suite up.
local function bounded(f)
  return function()
    task.with_timeout(30, f)
  end
end

describe("openssl s_server", function()
  -- Starts one; its process and port.
  local function server(...)
    local proc = start("openssl", {
      "s_server", "-accept", "127.0.0.1:0", "-cert", path "server.pem", "-key", path "server.key", ...,
    })
    local port
    repeat
      local line = assert(await(proc.stdout:read()), "openssl s_server does not start")
      port = line:match("^ACCEPT .*:(%d+)$")
    until port
    return proc, math.tointeger(port)
  end

  for _, version in ipairs { "1.2", "1.3" } do
    it("answers lines, in TLS " .. version, bounded(function()
      local proc <close>, port = server("-rev")
      local stream <close> = await(tls.connect("127.0.0.1", port, { ca = path "ca.pem", max_version = version }))
      assert.are.equal("TLSv" .. version, stream:version())
      for i = 1, 10 do
        await(stream:write("line ", i, "\n"))
        assert.are.equal(("line " .. i):reverse(), await(stream:read()))
      end
      await(stream:close())
      await(proc:kill())
    end))
  end

  it("renews its keys, and asks for ours", bounded(function()
    local proc <close>, port = server("-tls1_3")
    local stream <close> = await(tls.connect("127.0.0.1", port, { ca = path "ca.pem" }))
    await(stream:write("before\n"))
    local seen
    repeat
      seen = await(proc.stdout:read())
    until seen == "before"
    await(proc.stdin:write("K\n")) -- a command of s_server: update the keys, the peer's, too
    await(stream:write("then\n"))
    repeat
      seen = await(proc.stdout:read())
    until seen == "then" or not seen
    await(proc.stdin:write("after\n"))
    assert.are.equal("after", await(stream:read()))
    await(stream:write("with new keys\n"))
    repeat
      seen = await(proc.stdout:read())
    until seen == "with new keys" or not seen
    assert.are.equal("with new keys", seen)
    await(proc:kill())
  end))

  it("asks for renegotiation in vain", bounded(function()
    local proc <close>, port = server("-tls1_2")
    local stream <close> = await(tls.connect("127.0.0.1", port, { ca = path "ca.pem" }))
    await(stream:write("before\n"))
    local seen
    repeat
      seen = await(proc.stdout:read())
    until seen == "before"
    await(proc.stdin:write("r\n")) -- renegotiate
    local line, err = try(stream:read():timeout(10))
    assert.is_nil(line)
    assert.is_true(err == nil or err.code == "EPROTO" or err.code == "ECONNRESET", tostring(err))
    await(proc:kill())
  end))

  it("sees our certificate", bounded(function()
    local proc <close>, port = server("-Verify", "1", "-verify_return_error", "-CAfile", path "ca.pem", "-rev")
    local stream <close> = await(tls.connect("127.0.0.1", port, {
      ca = path "ca.pem", cert = path "client.pem", key = path "client.key",
    }))
    await(stream:write("abc\n"))
    assert.are.equal("cba", await(stream:read()))
    await(stream:close())
    await(proc:kill())
  end))
end)

describe("openssl s_client", function()
  local listening, serving, port

  before_each(function()
    listening = await(net.listen("127.0.0.1", 0))
    port = listening:sockname().port
    serving = listening:serve(await(tls.handler(function(stream)
      await(stream:write(stream:version(), " ", stream:alpn() or "-", "\n"))
      await(stream:pipe_to(stream))
    end, { cert = path "server.pem", key = path "server.key", alpn = { "echo" } })), {
      on_error = function() end, -- a client that is killed does not say goodbye
    })
  end)

  after_each(function()
    await(listening:close())
    await(serving)
  end)

  for _, case in ipairs {
    { "-tls1_2" }, { "-tls1_3" }, { "-tls1_3", "-alpn", "x,echo", alpn = "echo" },
  } do
    it("talks to us: " .. table.concat(case, " "), bounded(function()
      local proc <close> = start("openssl", {
        "s_client", "-connect", "127.0.0.1:" .. port, "-CAfile", path "ca.pem", "-verify_return_error", "-quiet",
        "-verify_ip", "127.0.0.1", table.unpack(case),
      })
      local first = await(proc.stdout:read())
      assert.are.equal(("TLSv1.%s %s"):format(case[1]:match "%d$", case.alpn or "-"), first)
      await(proc.stdin:write("there and back\n"))
      assert.are.equal("there and back", await(proc.stdout:read()))
      await(proc:kill())
    end))
  end
end)

describe("Python's ssl", function()
  local CLIENT = [[
import socket, ssl, sys
port, ca, version = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=ca)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
with socket.create_connection(("127.0.0.1", port)) as raw:
    with context.wrap_socket(raw, server_hostname="localhost") as s:
        data = b"0123456789abcdef" * 65536
        import threading
        sender = threading.Thread(target=lambda: s.sendall(data + b"\n"))
        sender.start()
        got = b""
        while len(got) < len(data) + 1:
            got += s.recv(65536)
        sender.join()
        assert got == data + b"\n"
        s.unwrap()          # close_notify, and waits for ours
print("agreed", flush=True)
]]

  local SERVER = [[
import socket, ssl, sys
cert, key, how = sys.argv[1], sys.argv[2], sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
raw, _ = listening.accept()
s = context.wrap_socket(raw, server_side=True)
s.sendall(b"first\n")
if how == "whole":
    line = s.recv(100)
    s.sendall(line.upper())
    s.unwrap()
s.close()                   # without close_notify
]]

  local function python(source, ...)
    if select(2, child.shell "python3 -c 'import ssl'") ~= 0 then
      pending("there is no Python with ssl")
    end
    return start("python3", { "-c", source, ... })
  end

  for _, version in ipairs { "TLSv1_2", "TLSv1_3" } do
    it("sends and receives a megabyte at once, and ends in order, in " .. version, bounded(function()
      local listening <close> = await(net.listen("127.0.0.1", 0))
      local ended = task.source()
      local serving = listening:serve(await(tls.handler(function(stream)
        await(stream:write(await(stream:read("L"))))
        ended:set_result(await(stream:read()) == nil)
      end, { cert = path "server.pem", key = path "server.key" })))
      local proc <close> = python(CLIENT, tostring(listening:sockname().port), path "ca.pem", version)
      assert.is_true(await(ended.task))
      assert.are.equal("agreed", await(proc.stdout:read()))
      await(proc:wait())
      await(listening:close())
      await(serving)
    end))
  end

  it("ends in order, and we know", bounded(function()
    local proc <close> = python(SERVER, path "server.pem", path "server.key", "whole")
    local port = await(proc.stdout:read("n"))
    local stream <close> = await(tls.connect("127.0.0.1", port, { ca = path "ca.pem" }))
    assert.are.equal("first", await(stream:read()))
    await(stream:write("second\n"))
    assert.are.equal("SECOND", await(stream:read()))
    assert.is_nil(await(stream:read()))
    await(stream:close())
    await(proc:wait())
  end))

  it("ends without a word, and we know", bounded(function()
    local proc <close> = python(SERVER, path "server.pem", path "server.key", "torn")
    local port = await(proc.stdout:read("n"))
    local stream <close> = await(tls.connect("127.0.0.1", port, { ca = path "ca.pem" }))
    assert.are.equal("first", await(stream:read()))
    local line, err = try(stream:read())
    assert.is_nil(line)
    assert.are.equal("truncated", err.reason)
    await(proc:wait())
  end))
end)
