-- The C API where memory runs out: spec/c/faults.c with the scenarios of apiscenarios.h, whose functions
-- are called by a module that has nothing but the header (apimodule.c).

local cc = require "spec.support.cc"
local child = require "spec.support.child"

describe("the C API where memory runs out", function()
  it("S18: says so, and lets go of all it was given", function()
    local sanitizer = child.sanitizer()
    if sanitizer == "tsan" then
      pending("a host without preload.c: ThreadSanitizer keeps a record for every error raised, until memory is gone")
    end
    local program = cc.program("faults",
      "-DFAULTS_API spec/c/apimodule.c -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc")
    local path = child.root .. "/lua/?.lua;" .. child.root .. "/lua/?/init.lua"
    local output, code = child.shell(("LUA_PATH=%s timeout 180 %s %d 2>%s.err || tail -40 %s.err"):format(
      child.quote(path), child.quote(program), sanitizer and 20 or 60, child.quote(program), child.quote(program)))
    assert.matches("^ok %d+\n$", output)
    assert.equal(0, code)
  end)
end)
