-- Memory that runs out: a C program that links the sources and lets the n-th allocation fail, and all
-- after it, in every scenario; built here as it stands, under whatever sanitizer the suite runs.

local child = require "spec.support.child"

local flags = { asan = "-fsanitize=address,undefined -fno-sanitize-recover=all" }

describe("memory that runs out", function()
  it("S18: an error says so, nothing crashes, and the state goes on as before", function()
    local sanitizer = child.sanitizer()
    if sanitizer == "tsan" then
      pending("a host without preload.c: ThreadSanitizer keeps a record for every error raised, until memory is gone")
    end
    local directory = os.tmpname()
    os.remove(directory)
    finally(function() child.shell("rm -rf " .. child.quote(directory)) end)
    local output, code = child.shell(("mkdir %s && cd %s && ${CC:-gcc} -g -O1 %s -std=gnu11 -D_GNU_SOURCE= "
      .. "-Icsrc -Icsrc/include $(pkg-config --cflags lua5.4 libuv) csrc/*/*.c spec/c/faults.c -o %s/faults "
      .. "-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc $(pkg-config --libs lua5.4 libuv) -pthread -ldl -lm"):format(
      child.quote(directory), child.quote(child.root), flags[sanitizer] or "", child.quote(directory)))
    assert.equal(0, code, output)
    local path = child.root .. "/lua/?.lua;" .. child.root .. "/lua/?/init.lua"
    output, code = child.shell(("LUA_PATH=%s timeout 280 %s/faults %d 2>%s/err || tail -40 %s/err"):format(
      child.quote(path), child.quote(directory), sanitizer and 15 or 40, child.quote(directory),
      child.quote(directory)))
    assert.matches("^ok %d+\n$", output)
    assert.equal(0, code)
  end)
end)
