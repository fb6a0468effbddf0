-- Several states in one process: a C program that links the sources, built here as it stands and run with
-- whatever sanitizer the suite runs under.

local child = require "spec.support.child"

local flags = {
  asan = "-fsanitize=address,undefined -fno-sanitize-recover=all",
  tsan = "-fsanitize=thread",
}

describe("several states in one process", function()
  it("S18: do not know of each other, on one thread and on several, and close at any moment", function()
    local directory = os.tmpname()
    os.remove(directory)
    finally(function() child.shell("rm -rf " .. child.quote(directory)) end)
    local output, code = child.shell(("mkdir %s && cd %s && ${CC:-gcc} -g -O1 %s -std=gnu11 -D_GNU_SOURCE= "
      .. "-Icsrc -Icsrc/include $(pkg-config --cflags lua5.4 libuv) csrc/*/*.c spec/c/states.c -o %s/states "
      .. "$(pkg-config --libs lua5.4 libuv) -pthread -ldl -lm"):format(child.quote(directory),
      child.quote(child.root), flags[child.sanitizer()] or "", child.quote(directory)))
    assert.equal(0, code, output)
    local path = child.root .. "/lua/?.lua;" .. child.root .. "/lua/?/init.lua"
    output, code = child.shell(("LUA_PATH=%s timeout 120 %s/states %d 2>%s/err || tail -40 %s/err"):format(
      child.quote(path), child.quote(directory), child.sanitizer() and 8 or 200, child.quote(directory),
      child.quote(directory)))
    assert.equal("ok\n", output)
    assert.equal(0, code)
  end)
end)
