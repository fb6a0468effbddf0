-- Handshakes: who is accepted, who is not and why, and peers that are none.

local task = require "asynctask"
local net = require "asynctask.net"
local certificates = require "spec.support.certificates"

local tls = certificates.tls(describe, pending)
if not tls then
  return
end

local await, try = task.await, task.try
local path = certificates.make()

local function merged(base, more)
  local all = {}
  for _, from in ipairs { base, more or {} } do
    for key, value in pairs(from) do
      all[key] = value
    end
  end
  return all
end

local function server_of(name, more)
  return merged({ server = true, cert = path(name .. ".pem"), key = path(name .. ".key") }, more)
end

local function client_of(more)
  return merged({ ca = path "ca.pem", server_name = "localhost" }, more)
end

-- Both sides of a handshake over a pair: client, its error, server, its error.
local function meet(client_options, server_options)
  local a, b = await(net.pair())
  local serving = tls.wrap(b, server_options)
  local client, client_error = try(tls.wrap(a, client_options))
  local server, server_error = try(serving)
  return client, client_error, server, server_error, a, b
end

local function close(...)
  for i = 1, select("#", ...) do
    local stream = select(i, ...)
    if stream then
      await(stream:close())
    end
  end
end

-- The client's error; both transports are closed afterwards.
local function refusal(client_options, server_options)
  local client, err, server, server_error, a, b = meet(client_options, server_options)
  assert.is_nil(client)
  assert.is_nil(a:fd())
  close(server)
  assert.is_nil(b:fd())
  return err, server_error
end

describe("a TLS client", function()
  it("accepts a certificate for the name, by a wildcard and for an address, too", function()
    for _, name in ipairs { "localhost", "LOCALHOST", "localhost.", "one.wild.test", "127.0.0.1" } do
      local client, err, server = meet(client_of { server_name = name }, server_of "server")
      assert(client, err)
      assert.are.equal("TLSv1.3", client:version())
      assert.is_truthy(client:cipher():find("TLS_", 1, true))
      close(client, server)
    end
  end)

  it("asks for the name, but not for an address", function()
    for name, asked in pairs { ["one.wild.test"] = "one.wild.test", ["127.0.0.1"] = "" } do
      local client, _, server = meet(client_of { server_name = name }, server_of "server")
      assert.are.equal(asked, server:server_name() or "")
      close(client, server)
    end
  end)

  for name, case in pairs {
    ["another name"] = { cert = "wrong", reason = "hostname mismatch" },
    ["a name in the subject only"] = { cert = "common", reason = "hostname mismatch" },
    ["two labels for one wildcard"] = { name = "a.b.wild.test", reason = "hostname mismatch" },
    ["another address"] = { name = "127.0.0.2", reason = "IP address mismatch" },
    ["a time that has passed"] = { cert = "expired", reason = "certificate has expired" },
    ["no authority but itself"] = { cert = "self", reason = "self" },
    ["an authority nobody trusts"] = { ca = "other.pem", reason = "unable to get local issuer certificate" },
    ["the use of clients"] = { cert = "client", reason = "unsuitable certificate purpose", any_name = true },
  } do
    it("refuses a certificate of " .. name, function()
      local err, server_error = refusal(client_of {
        ca = case.ca and path(case.ca), server_name = case.name,
      }, server_of(case.cert or "server"))
      assert.are.equal("ECERT", err.code)
      assert.is_truthy(err.reason:lower():find(case.reason:lower(), 1, true), err.reason)
      assert.is_truthy(tostring(err):find(err.reason, 1, true), tostring(err))
      assert.are.equal("handshake", err.op)
      assert.are.equal("EPROTO", server_error.code)
      assert.are.equal("the peer has refused", server_error.message)
    end)
  end

  it("trusts nobody that only its caller trusts: the system's authorities are the default", function()
    local err = refusal({ server_name = "localhost" }, server_of "server")
    assert.are.equal("ECERT", err.code)
  end)

  it("trusts a certificate itself when it is among those to trust", function()
    local client, err, server = meet(client_of { ca = path "self.pem" }, server_of "self")
    assert(client, err)
    close(client, server)
  end)

  it("takes PEM text, several authorities and a directory", function()
    for _, ca in ipairs { { certificates.read "ca.pem" }, { { path "other.pem", certificates.read "ca.pem" } } } do
      local client, err, server = meet(client_of { ca = ca[1] }, {
        server = true, cert = certificates.read "chain.pem", key = certificates.read "server.key",
      })
      assert(client, err)
      close(client, server)
    end
    local client, err, server = meet({ ca_dir = path "", server_name = "localhost" }, server_of "server")
    assert.is_nil(client) -- the directory has no hashed names
    assert.are.equal("ECERT", err.code)
    close(server)
  end)

  it("accepts everybody where it is told so, by a name that says it", function()
    for _, cert in ipairs { "wrong", "expired", "self" } do
      local client, err, server = meet({ insecure_skip_verify = true }, server_of(cert))
      assert(client, err)
      assert.are.equal("O=specs", client:peer_certificate().subject:match "O=specs")
      close(client, server)
    end
  end)

  it("does without a version that the peer does not have", function()
    local err, other = refusal(client_of { max_version = "1.2" }, server_of("server", { min_version = "1.3" }))
    assert.are.equal("EPROTO", err.code)
    assert.are.equal("EPROTO", other.code)
    local client, _, server = meet(client_of(), server_of("server", { max_version = "1.2" }))
    assert.are.equal("TLSv1.2", client:version())
    close(client, server)
  end)

  it("and its server choose ciphers", function()
    local client, _, server = meet(client_of { ciphersuites = "TLS_CHACHA20_POLY1305_SHA256" }, server_of "server")
    assert.are.equal("TLS_CHACHA20_POLY1305_SHA256", client:cipher())
    close(client, server)
    client, _, server = meet(client_of { max_version = "1.2", ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256" },
      server_of "server")
    assert.are.equal("ECDHE-ECDSA-AES128-GCM-SHA256", server:cipher())
    close(client, server)
  end)
end)

describe("ALPN", function()
  it("is what the server likes best of what the client has", function()
    local client, _, server = meet(client_of { alpn = { "x", "http/1.1", "h2" } },
      server_of("server", { alpn = { "h2", "http/1.1" } }))
    assert.are.equal("h2", client:alpn())
    assert.are.equal("h2", server:alpn())
    close(client, server)
  end)

  it("is nil where one of them has none", function()
    for _, pair in ipairs { { { alpn = { "h2" } }, {} }, { {}, { alpn = { "h2" } } } } do
      local client, _, server = meet(client_of(pair[1]), server_of("server", pair[2]))
      assert.is_nil(client:alpn())
      assert.is_nil(server:alpn())
      close(client, server)
    end
  end)

  it("without a common protocol ends the connection", function()
    local err, other = refusal(client_of { alpn = { "x" } }, server_of("server", { alpn = { "h2" } }))
    assert.are.equal("EPROTO", err.code)
    assert.is_truthy(err.reason:find("no application protocol", 1, true), err.reason)
    assert.are.equal("EPROTO", other.code)
  end)
end)

describe("certificates of clients", function()
  local function asking(how)
    return server_of("server", { client_certificate = how, ca = path "ca.pem" })
  end

  local own = { cert = path "client.pem", key = path "client.key" }

  it("are shown to a server that asks", function()
    for _, how in ipairs { "request", "require" } do
      local client, err, server = meet(client_of(own), asking(how))
      assert(client, err)
      assert.is_truthy(server:peer_certificate().subject:find("CN=client", 1, true))
      assert.are.equal(certificates.read "client.pem", server:peer_certificate().pem)
      close(client, server)
    end
  end)

  it("may be left out where they are not required", function()
    local client, _, server = meet(client_of(), asking "request")
    assert.is_nil(server:peer_certificate())
    close(client, server)
  end)

  it("must be there where they are; in TLS 1.3 the client learns it from its first read", function()
    local client, _, server, err = meet(client_of(), asking "require")
    assert.is_nil(server)
    assert.are.equal("EPROTO", err.code)
    assert.is_truthy(err.reason:find("did not return a certificate", 1, true), err.reason)
    local line, refused = try(client:read())
    assert.is_nil(line)
    assert.are.equal("EPROTO", refused.code)
    assert.is_truthy(refused.reason:find("certificate required", 1, true), refused.reason)
    close(client)
  end)

  it("must be issued by whom the server trusts", function()
    local client, _, server, err = meet(client_of { cert = path "self.pem", key = path "self.key" }, asking "require")
    assert.is_nil(server)
    assert.are.equal("ECERT", err.code)
    close(client)
  end)
end)

describe("a server with several names", function()
  local context

  before_each(function()
    context = await(tls.context(server_of("server", {
      names = {
        ["named.test"] = { cert = path "named.pem", key = path "named.key" },
        ["*.elsewhere.test"] = { cert = path "wrong.pem", key = path "wrong.key" },
      },
    })))
  end)

  it("shows the certificate for the name that is asked for", function()
    for name, cert in pairs {
      ["named.test"] = "named.pem", ["NAMED.test"] = "named.pem", ["x.elsewhere.test"] = "wrong.pem",
      ["x.y.elsewhere.test"] = "server.pem", ["elsewhere.test"] = "server.pem", ["else.test"] = "server.pem",
    } do
      local client, err, server = meet({ server_name = name, insecure_skip_verify = true }, { context = context })
      assert(client, err)
      assert.are.equal(certificates.read(cert), client:peer_certificate().pem, name)
      close(client, server)
    end
    local client, err, server = meet(client_of { server_name = "named.test" }, { context = context })
    assert(client, err)
    close(client, server)
  end)
end)

describe("sessions", function()
  -- Whether a connection by these contexts resumes one. Reads once, for the tickets of TLS 1.3.
  local function visit(client_options, server_options)
    local client, err, server = meet(client_options, server_options)
    assert(client, err)
    await(server:write("x"))
    assert.are.equal("x", await(client:read(1)))
    local reused = client:session_reused()
    assert.are.equal(reused, server:session_reused())
    close(client, server)
    return reused
  end

  for _, version in ipairs { "1.2", "1.3" } do
    it("are resumed, in TLS " .. version, function()
      local serving = { context = await(tls.context(server_of "server")) }
      local context = await(tls.context { ca = path "ca.pem", max_version = version })
      local client = { context = context, server_name = "localhost" }
      assert.is_false(visit(client, serving))
      assert.is_true(context:sessions() > 0)
      assert.is_true(visit(client, serving))
      assert.is_true(visit(client, serving))
      assert.is_true(context:sessions() <= 4)
    end)
  end

  it("are not resumed for another name, nor across a missing verification", function()
    local serving = { context = await(tls.context(server_of "server")) }
    local context = await(tls.context { ca = path "ca.pem" })
    assert.is_false(visit({ context = context, server_name = "localhost" }, serving))
    assert.is_false(visit({ context = context, server_name = "one.wild.test" }, serving))
    context = await(tls.context { ca = path "other.pem" })
    assert.is_false(visit({ context = context, server_name = "localhost", insecure_skip_verify = true }, serving))
    local err = refusal({ context = context, server_name = "localhost" }, serving)
    assert.are.equal("ECERT", err.code)
  end)

  it("are not kept where one side does not want it", function()
    local context = await(tls.context { ca = path "ca.pem", sessions = false })
    local client = { context = context, server_name = "localhost" }
    local serving = { context = await(tls.context(server_of "server")) }
    assert.is_false(visit(client, serving))
    assert.is_false(visit(client, serving))
    assert.are.equal(0, context:sessions())
    client.context = await(tls.context { ca = path "ca.pem" })
    serving.context = await(tls.context(server_of("server", { sessions = false })))
    assert.is_false(visit(client, serving))
    assert.is_false(visit(client, serving))
  end)
end)

describe("a peer that is none", function()
  it("is told apart by what it says", function()
    local a, b = await(net.pair())
    await(b:write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
    local client, err = try(tls.wrap(a, client_of()))
    assert.is_nil(client)
    assert.are.equal("EPROTO", err.code)
    assert.is_string(err.reason)
    assert.is_nil(a:fd())
    await(b:close())

    a, b = await(net.pair())
    await(a:write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    local server, other = try(tls.wrap(b, server_of "server"))
    assert.is_nil(server)
    assert.are.equal("EPROTO", other.code)
    assert.are.equal("http request", other.reason)
    await(a:close())
  end)

  it("is told apart by what it does not say", function()
    local a, b = await(net.pair())
    local t = tls.wrap(a, client_of())
    await(b:read_some())
    await(b:close())
    local client, err = try(t)
    assert.is_nil(client)
    assert.are.equal("EPROTO", err.code)
    assert.are.equal("truncated", err.reason)
    assert.is_nil(a:fd())
  end)

  it("has a limited time", function()
    local limit = { handshake_timeout = 0.05 }
    for _, opts in ipairs { client_of(limit), server_of("server", limit) } do
      local a, b = await(net.pair())
      local stream, err = try(tls.wrap(a, opts))
      assert.is_nil(stream)
      assert.are.equal("ETIMEDOUT", err.code)
      await(task.yield())
      assert.is_nil(a:fd())
      await(b:close())
    end
  end)

  it("S10: a cancelled handshake closes the stream", function()
    local a, b = await(net.pair())
    local t = tls.wrap(a, client_of())
    assert.are.equal("pending", t:status())
    t:cancel()
    assert.is_nil((try(t)))
    await(task.yield())
    assert.is_nil(a:fd())
    await(b:close())
  end)
end)

describe("tls.connect", function()
  it("takes the host for the name", function()
    local listening <close> = await(net.listen("localhost", 0))
    local serving = listening:serve(await(tls.handler(function(stream)
      await(stream:write(stream:server_name() or "none"))
    end, server_of "server")))
    local port = listening:sockname().port
    local stream <close> = await(tls.connect("localhost", port, { ca = path "ca.pem", nodelay = false }))
    assert.are.equal("localhost", await(stream:read("a")))
    assert.are.equal(port, stream:peername().port)
    assert.is_true(stream:nodelay())
    assert.is_true(stream:keepalive(true, 10))
    assert.is_truthy(stream:sockname().port)
    await(listening:close())
    await(serving)
  end)

  it("S22: names the address in its errors", function()
    local listening <close> = await(net.listen("localhost", 0))
    local serving = listening:serve(await(tls.handler(function() end, server_of "wrong")), {
      on_error = function() end,
    })
    local port = listening:sockname().port
    local stream, err = try(tls.connect("localhost", port, { ca = path "ca.pem" }))
    assert.is_nil(stream)
    assert.are.equal(("localhost:%d"):format(port), err.address)
    assert.matches("^handshake localhost:%d+: the peer's certificate is refused %(ECERT%): hostname mismatch$",
      tostring(err))
    await(listening:close())
    await(serving)
    stream, err = try(tls.connect("127.0.0.1", port, { ca = path "ca.pem" }))
    assert.is_nil(stream)
    assert.are.equal("ECONNREFUSED", err.code)
  end)

  it("has a limit for all of it", function()
    local listening <close> = await(net.listen("127.0.0.1", 0))
    local stream, err = try(tls.connect("127.0.0.1", listening:sockname().port, { timeout = 0.05 }))
    assert.is_nil(stream)
    assert.are.equal("ETIMEDOUT", err.code)
  end)

  it("connects to a path, with a name", function()
    local fs = require "asynctask.fs"
    local dir = await(fs.mkdtemp())
    local listening = await(net.listen { path = dir .. "/s" })
    local serving = listening:serve(await(tls.handler(function(stream)
      await(stream:write("here"))
    end, server_of "server")))
    local stream = await(tls.connect({ path = dir .. "/s" }, client_of()))
    assert.are.equal("here", await(stream:read("a")))
    await(stream:close())
    await(listening:close())
    await(serving)
    await(fs.remove(dir, { recursive = true }))
  end)
end)

describe("arguments of asynctask.tls", function()
  local function says(pattern, f, ...)
    local ok, err = pcall(f, ...)
    assert.is_false(ok)
    assert.matches(pattern, tostring(err))
  end

  it("S22: raise at once", function()
    local a, b = await(net.pair())
    says("bad argument #1 to 'wrap' %(stream expected, got nil%)", tls.wrap)
    says("bad argument #2 to 'wrap' %(option 'server_name' expected", tls.wrap, a)
    says("bad argument #2 to 'wrap' %(unknown option 'cafile'%)", tls.wrap, a, { cafile = "x" })
    says("a server needs options 'cert' and 'key'", tls.wrap, a, { server = true })
    says("belong together", tls.wrap, a, { server_name = "x", cert = "y" })
    says("option 'server_name'", tls.wrap, a, { server_name = "x\ny" })
    says("option 'server_name': a name that begins with a dot", tls.wrap, a, { server_name = ".example.org" })
    says("option 'server_name': a name that begins with a dot", tls.connect, ".example.org", 1)
    says("option 'server_name' is a client's", tls.wrap, a, server_of("server", { server_name = "x" }))
    says("option 'client_certificate' needs 'ca'", tls.wrap, a, server_of("server", { client_certificate = "require" }))
    says("option 'names' is a server's", tls.context, { names = {} })
    says("option 'alpn': list", tls.context, { alpn = {} })
    says("option 'min_version'", tls.context, { min_version = "1.1" })
    says("no version is allowed", tls.context, { min_version = "1.3", max_version = "1.2" })
    says("bad argument #3 to 'connect' %(unknown option", tls.connect, "localhost", 1, { x = 1 })
    says("bad argument #2 to 'connect' %(port number", tls.connect, "localhost", "1")
    says("bad argument #3 to 'serve' %(function", tls.serve, "localhost", 0, 1)
    says("a server needs options 'cert' and 'key'", tls.serve, "localhost", 0, print, {})
    local context = await(tls.context { ca = path "ca.pem" })
    says("belongs to the context", tls.wrap, a, { context = context, server_name = "x", ca = "y" })
    says("one for servers expected", tls.wrap, a, { context = context, server = true })
    await(a:close())
    await(b:close())
  end)

  it("S22: files that are not what they should be are faults", function()
    local function fault(opts)
      local context, err = try(tls.context(opts))
      assert.is_nil(context)
      return err
    end
    local err = fault { ca = path "missing.pem" }
    assert.are.equal("ENOENT", err.code)
    assert.are.equal(path "missing.pem", err.path)
    err = fault { ca = path "ca.key" }
    assert.are.equal("EINVAL", err.code)
    assert.are.equal(path "ca.key", err.path)
    assert.matches("^context .*ca%.key: option 'ca' cannot be used %(EINVAL%): ", tostring(err))
    err = fault(server_of("server", { key = path "client.key" }))
    assert.are.equal("EINVAL", err.code)
    assert.matches("option 'key'", err.message)
    err = fault(server_of("server", { key = path "locked.key", password = "wrong" }))
    assert.are.equal("EINVAL", err.code)
    err = fault(server_of("server", { key = path "locked.key" })) -- and nobody is asked on the terminal
    assert.are.equal("EINVAL", err.code)
    err = fault { ciphers = "nonsense" }
    assert.matches("option 'ciphers'", err.message)
    assert.are.equal("no cipher match", err.reason)
    assert.is_truthy(await(tls.context(server_of("server", { key = path "locked.key", password = "secret" }))))
  end)
end)
