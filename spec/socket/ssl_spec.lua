-- Specs of asynctask.ssl: LuaSec's API over asynctask.tls, against itself, LuaSec and nginx.

local task = require "asynctask"
local process = require "asynctask.process"
local socket = require "asynctask.socket"
local certificates = require "spec.support.certificates"
local child = require "spec.support.child"

local tls = certificates.tls(describe, pending)
if not tls then
  return
end

local ssl = require "asynctask.ssl"

local await, try, spawn = task.await, task.try, task.spawn
local path = certificates.make()

local has_luasec = package.searchpath("ssl.https", package.path) ~= nil

local function server_configuration(more)
  local cfg = { mode = "server", protocol = "any", certificate = path "server.pem", key = path "server.key" }
  for key, value in pairs(more or {}) do
    cfg[key] = value
  end
  return cfg
end

local function client_configuration(more)
  local cfg = { mode = "client", protocol = "any", verify = "peer", cafile = path "ca.pem" }
  for key, value in pairs(more or {}) do
    cfg[key] = value
  end
  return cfg
end

-- Two encrypted connections, client and server, and what closes them. Fails unless both shake hands.
local function pair(client_cfg, server_cfg)
  local listening = assert(socket.bind("127.0.0.1", 0))
  local _, port = listening:getsockname()
  local accepting = spawn(function()
    local server = assert(ssl.wrap(assert(listening:accept()), server_cfg or server_configuration()))
    return server, server:dohandshake()
  end)
  local client = assert(ssl.wrap(assert(socket.connect("127.0.0.1", port)), client_cfg or client_configuration()))
  local ok, err = client:dohandshake()
  local server = await(accepting)
  listening:close()
  local closer = setmetatable({}, { __close = function()
    client:close()
    server:close()
  end })
  return client, server, closer, ok, err
end

describe("asynctask.ssl", function()
  it("shakes hands and exchanges lines, as LuaSec's users write it", function()
    local client, server, _ <close>, ok = pair()
    assert.is_true(ok)
    assert.are.equal(14.0, (client:send("a line\r\nbytes.")))
    assert.are.equal("a line", (server:receive()))
    assert.are.equal("bytes.", (server:receive(6)))
    server:send("answer")
    server:close()
    assert.are.equal("pre answer", (client:receive("*a", "pre ")))
    assert.are.same({ nil, "closed", "" }, { client:receive() })
    assert.are.same({ 6.0, 14.0 }, { (client:getstats()), (select(2, client:getstats())) })
    assert.are.equal(-1.0, server:getfd())
    assert.matches("^SSL connection: .*%(closed%)$", tostring(server))
  end)

  it("takes the descriptor of the socket", function()
    local listening = assert(socket.bind("127.0.0.1", 0))
    local _, port = listening:getsockname()
    local plain = assert(socket.connect("127.0.0.1", port))
    local fd = plain:getfd()
    local c = assert(ssl.wrap(plain, client_configuration()))
    assert.are.equal(-1.0, plain:getfd())
    assert.are.equal(fd, c:getfd())
    c:settimeout(0)
    assert.are.same({ false, "wantread" }, { c:dohandshake() })
    assert.are.equal("read", c:want())
    c:close()
    listening:close()
  end)

  it("moves much, in both directions at once", function()
    local client, server, _ <close> = pair()
    local data = ("0123456789abcdef"):rep(64 * 1024)
    local sent = { spawn(client.send, client, data), spawn(server.send, server, data) }
    local got = { spawn(client.receive, client, #data), spawn(server.receive, server, #data) }
    assert.is_true(await(got[1]) == data)
    assert.is_true(await(got[2]) == data)
    await(task.when_all(sent))
  end)

  it("says wantread and wantwrite where there is no time, and goes on where it was", function()
    local client, server, _ <close> = pair()
    client:settimeout(0)
    assert.are.same({ nil, "wantread", "" }, { client:receive() })
    client:settimeout(0.02)
    server:send("ha")
    local line, err
    local partial = ""
    repeat
      line, err, partial = client:receive("*l", partial)
      assert.are.same({ nil, "wantread" }, { line, err })
    until partial == "ha"
    server:send("lf\n")
    client:settimeout(5)
    assert.are.equal("half", (client:receive("*l", partial)))
    client:settimeout(0.02)
    local data = ("x"):rep(16 * 1024 * 1024)
    local at, last
    at, err, last = client:send(data)
    assert.is_nil(at)
    assert.are.equal("wantwrite", err)
    assert.are.equal("write", client:want())
    assert.is_true(last < #data)
    local reading = spawn(server.receive, server, #data)
    client:settimeout(nil)
    assert.are.equal(#data, client:send(data, last + 1))
    assert.is_true(await(reading) == data)
  end)

  it("dirty knows of what is decrypted already, and select heeds it", function()
    local client, server, _ <close> = pair()
    assert.is_false(client:dirty())
    server:send("one\ntwo\n")
    assert.are.equal(client, socket.select({ client }, nil, 5)[1])
    assert.are.equal("one", (client:receive()))
    assert.is_true(client:dirty())
    assert.are.equal(client, socket.select({ client })[1])
    assert.are.equal("two", (client:receive()))
    assert.is_false(client:dirty())
  end)

  it("verifies the chain and the name of the host", function()
    local function outcome(client_more, server_more)
      local _, _, _ <close>, ok, err = pair(client_configuration(client_more), server_configuration(server_more))
      return ok, err
    end
    assert.is_true(outcome())
    assert.are.same({ false, "certificate verify failed" }, { outcome { cafile = path "other.pem" } })
    assert.are.same({ false, "certificate verify failed" },
      { outcome({}, { certificate = path "wrong.pem", key = path "wrong.key" }) })
    assert.is_true(outcome({ verify = "none" }, { certificate = path "wrong.pem", key = path "wrong.key" }))
    assert.is_true(outcome({ verify = { "peer", "fail_if_no_peer_cert" } }))
  end)

  it("sni: asks for a name, and verifies it", function()
    local listening = assert(socket.bind("127.0.0.1", 0))
    local _, port = listening:getsockname()
    local named = { cert = path "named.pem", key = path "named.key" }
    local cfg = server_configuration { names = { ["named.test"] = named } }
    local accepting = spawn(function()
      local server = assert(ssl.wrap(assert(listening:accept()), cfg))
      local ok = server:dohandshake()
      local name = server:getsniname()
      server:close()
      return ok, name
    end)
    local client = assert(ssl.wrap(assert(socket.connect("127.0.0.1", port)), client_configuration()))
    client:sni("named.test")
    assert.is_true((client:dohandshake()))
    assert.are.same({ true, "named.test" }, { await(accepting) })
    client:close()
    listening:close()
  end)

  it("shows the peer's certificate, what was agreed upon, and whether it was verified", function()
    local client, server, _ <close> = pair(client_configuration { alpn = { "b", "a" } },
      server_configuration { alpn = "a" })
    local certificate = client:getpeercertificate()
    assert.matches("BEGIN CERTIFICATE", certificate:pem())
    assert.is_true(certificate:validat(os.time()))
    local names = {}
    for _, part in ipairs(certificate:subject()) do
      names[part.name] = part.value
    end
    assert.are.equal("server", names.commonName or names.CN)
    assert.are.same({ "localhost", "*.wild.test" }, certificate:extensions()["2.5.29.17"].dNSName)
    assert.is_nil(server:getpeercertificate())
    assert.is_true((client:getpeerverification()))
    assert.is_false((server:getpeerverification()))
    assert.are.equal("a", client:getalpn())
    assert.are.equal("TLSv1.3", client:info("protocol"))
    assert.is_string(client:info().cipher)
  end)

  it("asks clients for certificates", function()
    local cfg = server_configuration { cafile = path "ca.pem", verify = { "peer", "fail_if_no_peer_cert" } }
    local client, server, _ <close> = pair(client_configuration { certificate = path "client.pem",
      key = path "client.key" }, cfg)
    client:send("x\n")
    assert.are.equal("x", (server:receive()))
    assert.is_true((server:getpeerverification()))
  end)

  it("says what is wrong with a configuration", function()
    assert.are.same({ nil, "invalid protocol (tlsv1)" }, { ssl.newcontext { mode = "client", protocol = "tlsv1" } })
    assert.are.same({ nil, "invalid mode (nil)" }, { ssl.newcontext { protocol = "any" } })
    local context, err = ssl.newcontext(client_configuration { cafile = "/no/such/file.pem" })
    assert.is_nil(context)
    assert.matches("ENOENT", err)
    assert.is_nil((ssl.newcontext(server_configuration { key = path "client.key" })))
    assert.has_error(function() ssl.wrap({}, client_configuration()) end,
      "bad argument #1 to 'wrap' (socket of asynctask.socket expected, got table)")
    assert.is_true((try(spawn(ssl.newcontext, client_configuration()))) ~= nil)
  end)

  it("S10: a cancelled receive has taken nothing, a cancelled handshake goes on", function()
    local client, server, _ <close> = pair()
    local receiving = spawn(client.receive, client)
    await(task.delay(0.01))
    receiving:cancel()
    try(receiving)
    server:send("whole\n")
    assert.are.equal("whole", (client:receive()))
  end)

  local function luasec_child(script, ...)
    return await(process.spawn(child.interpreter(), { "-e", script, ... }, { stderr = "inherit" }))
  end

  it("talks with LuaSec, as client and as server", function()
    if not has_luasec then
      pending("LuaSec is not installed")
      return
    end
    local script = ([[
      local socket, ssl = require "socket", require "ssl"
      local s = assert(socket.bind("127.0.0.1", 0))
      local _, port = s:getsockname()
      print(port) io.stdout:flush()
      local c = assert(ssl.wrap(assert(s:accept()), { mode = "server", protocol = "any", certificate = %q, key = %q }))
      assert(c:dohandshake())
      c:send(c:receive():upper() .. "\n")
      c:receive("*a")
      c:close()
      s:close()
      local plain = assert(socket.connect("127.0.0.1", tonumber(io.read())))
      c = assert(ssl.wrap(plain, { mode = "client", protocol = "any", verify = "peer", cafile = %q }))
      assert(c:dohandshake())
      c:send("from LuaSec\n")
      print((c:receive()))
      c:close()
    ]]):format(path "server.pem", path "server.key", path "ca.pem")
    local luasec <close> = luasec_child(script)
    local port = tonumber((await(luasec.stdout:read())))
    local c = assert(ssl.wrap(assert(socket.connect("127.0.0.1", port)), client_configuration()))
    assert.is_true(c:dohandshake())
    c:send("hello\n")
    assert.are.equal("HELLO", (c:receive()))
    c:close()
    local listening = assert(socket.bind("127.0.0.1", 0))
    local _, own = listening:getsockname()
    await(luasec.stdin:write(own, "\n"))
    local s = assert(ssl.wrap(assert(listening:accept()), server_configuration()))
    assert.is_true(s:dohandshake())
    assert.are.equal("from LuaSec", (s:receive()))
    s:send("welcome\n")
    assert.are.equal("welcome", (await(luasec.stdout:read())))
    s:close()
    listening:close()
    assert.are.equal(0, (await(luasec:wait())))
  end)

  it("carries LuaSec's https, over this library, many at once", function()
    if not (has_luasec and package.searchpath("socket.http", package.path)) then
      pending("LuaSec is not installed")
      return
    end
    local serving = tls.serve("127.0.0.1", 0, function() end, { cert = path "server.pem", key = path "server.key" })
    serving:cancel()
    try(serving)
    local listening = assert(socket.bind("127.0.0.1", 0, 32))
    local _, port = listening:getsockname()
    local context = assert(ssl.newcontext(server_configuration()))
    local web = spawn(function()
      while true do
        local plain = assert(listening:accept())
        spawn(function()
          local c = assert(ssl.wrap(plain, context))
          assert(c:dohandshake())
          repeat until c:receive() == ""
          c:send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nencrypted")
          c:close()
        end)
      end
    end)
    local url = ("https://127.0.0.1:%d/"):format(port)
    local list = {}
    for i = 1, 5 do
      list[i] = spawn(socket.https.request, url)
    end
    for _, body in ipairs(await(task.when_all(list))) do
      assert.are.equal("encrypted", body)
    end
    local body, code = await(spawn(socket.http.request, url))
    assert.are.same({ "encrypted", 200 }, { body, code })
    web:cancel()
    try(web)
    listening:close()
  end)
end)
