-- The programs in examples/ that use TLS.

local child = require "spec.support.child"
local certificates = require "spec.support.certificates"

if not certificates.tls(describe, pending) then
  return
end

describe("examples/", function()
  it("tls_echo.lua talks to whom it trusts, shortly the second time, and to nobody else", function()
    local output, code = child.lua(child.root .. "/examples/tls_echo.lua", { args = { "2" }, timeout = 30 })
    assert.are.equal(0, code, output)
    assert.matches("client 1 says hello\nTLSv1.3\twith a full handshake\n", output, 1, true)
    assert.matches("client 2 says hello\nTLSv1.3\twith the session of before\n", output, 1, true)
    assert.matches("nil\thandshake localhost:%d+: the peer's certificate is refused %(ECERT%): ", output)
    assert.matches("the server goes on after\thandshake: the peer has refused %(EPROTO%): unknown ca\n", output)
    assert.matches("closed\n$", output)
  end)
end)
