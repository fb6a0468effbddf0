-- The C API by its names, in a host that links the sources: spec/c/apihost.c.

local cc = require "spec.support.cc"
local child = require "spec.support.child"

describe("a host of the C API", function()
  it("S18: hands libuv's handles over, and closes states while everything is under way", function()
    local program = cc.program("apihost", "spec/c/apimodule.c")
    local path = child.root .. "/lua/?.lua;" .. child.root .. "/lua/?/init.lua"
    local output, code = child.shell(("LUA_PATH=%s timeout 170 %s %d 2>%s.err || tail -60 %s.err"):format(
      child.quote(path), child.quote(program), child.sanitizer() and 30 or 200, child.quote(program),
      child.quote(program)))
    assert.equal("ok\n", output)
    assert.equal(0, code)
  end)
end)
