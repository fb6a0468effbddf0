-- The HTTP client and certificates, against nginx.

local http = require "asynctask.http"
local task = require "asynctask"

local nginx = require "spec.support.nginx"
if not pcall(require, "asynctask.curl") or not nginx.available() then
  describe("asynctask.http and certificates", function()
    pending("needs libcurl, nginx and openssl")
  end)
  return
end

local badweb = require "spec.support.badweb"
local sandbox = require "spec.support.sandbox"

local await, code_of = task.await, sandbox.code_of

describe("asynctask.http and certificates", function()
  local server, ca

  setup(function()
    server = nginx.start { ["hello.txt"] = "hello\n" }
    ca = server.dir .. "/ca.pem"
  end)
  teardown(function() server:stop() end)
  after_each(function() await(http.close()) end)

  local function get(kind, opts)
    return http.get_string(server:url("hello.txt", kind), opts)
  end

  it("takes a certificate that a trusted authority has signed for the host", function()
    assert.are.equal("hello\n", await(get("tls", { ca = ca })))
    local url = ("https://127.0.0.1:%d/hello.txt"):format(server.tls)
    assert.are.equal("hello\n", await(http.get_string(url, { ca = ca })))
  end)

  it("refuses one of an authority that it does not know", function()
    local code, err = code_of(get "tls")
    assert.are.equal("ECERT", code)
    assert.matches("certificate", err.message)
  end)

  it("refuses a self-signed one", function()
    assert.are.equal("ECERT", code_of(get "selfsigned"))
    assert.are.equal("ECERT", code_of(get("selfsigned", { ca = ca })))
  end)

  it("refuses one for another name", function()
    local code, err = code_of(get("wrong", { ca = ca }))
    assert.are.equal("ECERT", code)
    assert.matches("localhost", err.message)
  end)

  it("refuses one that has expired", function()
    local code, err = code_of(get("expired", { ca = ca }))
    assert.are.equal("ECERT", code)
    assert.matches("expired", err.message)
  end)

  it("takes any of these only with insecure_skip_verify", function()
    for _, kind in ipairs { "tls", "selfsigned", "wrong", "expired" } do
      assert.are.equal("hello\n", await(get(kind, { insecure_skip_verify = true })), kind)
      -- not by the connection that this has left
      assert.is_string(code_of(get(kind, { insecure_skip_verify = false })), kind)
    end
  end)

  it("a connection that was made without verification is not used for requests that want it", function()
    local client <close> = http.client()
    await(client:get_string(server:url("hello.txt", "selfsigned"), { insecure_skip_verify = true }))
    assert.are.equal("ECERT", code_of(client:get_string(server:url("hello.txt", "selfsigned"))))
  end)

  it("shows a client certificate", function()
    local with = { ca = ca, cert = server.dir .. "/user.pem", key = server.dir .. "/key.pem" }
    assert.are.equal("CN=user", await(get("mutual", with)))
    local _, err = code_of(get("mutual", { ca = ca }))
    assert.are.equal(400, err.status)
    assert.are.equal("CN=user", await(get("mutual", with)))
  end)

  it("goes through a proxy's tunnel, and verifies what is behind it", function()
    local net = require "asynctask.net"
    local asked
    badweb.with(function(stream)
      local r = badweb.request(stream)
      asked = r.line
      if r.target:find("refused", 1, true) then
        return await(stream:write("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"))
      end
      local other <close> = await(net.connect("127.0.0.1", tonumber(r.target:match(":(%d+)$"))))
      await(stream:write("HTTP/1.1 200 Connected\r\n\r\n"))
      local back = other:pipe_to(stream)
      stream:pipe_to(other):try()
      back:try()
    end, function(proxy)
      local client <close> = http.client { proxy = proxy, ca = ca }
      local reply = await(client:get(server:url("hello.txt", "tls")))
      assert.are.equal("hello\n", await(reply:text()))
      assert.is_nil(reply.headers["proxy"])
      assert.are.equal(("CONNECT localhost:%d HTTP/1.1"):format(server.tls), asked)
      assert.are.equal("ECERT", code_of(client:get(server:url("hello.txt", "expired"))))
      assert.are.equal("EPROTO", code_of(client:get "https://refused.invalid/"))
      await(client:close())
    end)
  end)

  it("S22: files of certificates that are not there: ECERTFILE", function()
    assert.are.equal("ECERTFILE", code_of(get("tls", { ca = server.dir .. "/none.pem" })))
    assert.are.equal("ECERTFILE", code_of(get("mutual", { ca = ca, cert = "/none.pem", key = "/none.key" })))
  end)

  it("https to a server that speaks plain HTTP: EPROTO", function()
    local url = server:url "hello.txt":gsub("^http:", "https:")
    assert.are.equal("EPROTO", code_of(http.get_string(url)))
  end)

  it("a connection that closes in the handshake is a fault", function()
    badweb.with(function(stream) stream:read_some():try() end, function(_, port)
      assert.is_string(code_of(http.get_string(("https://127.0.0.1:%d/"):format(port))))
    end)
  end)
end)
