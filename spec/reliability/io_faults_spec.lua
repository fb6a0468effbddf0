-- System calls that fail, each once and then for good: a slice of `make io-faults`.

local child = require "spec.support.child"

describe("system calls that fail", function()
  it("S10, S18: give an error object, lose nothing, leave nothing", function()
    local library = os.tmpname()
    finally(function() os.remove(library) end)
    local output, code = child.shell(("cd %s && ${CC:-gcc} -O1 -shared -fPIC $(pkg-config --cflags lua5.4) -o %s "
      .. "spec/support/faultio.c -ldl"):format(child.quote(child.root), child.quote(library)))
    assert.equal(0, code, output)
    local preload = os.getenv "ASYNCTASK_PRELOAD"
    output, code = child.lua(child.root .. "/spec/reliability/io_faults.lua", {
      args = { library, "60" }, timeout = 180,
      env = { LD_PRELOAD = preload and preload .. " " .. library or library },
    })
    assert.equal(0, code, output)
    assert.is_true(tonumber(output:match "(%d+) faults in %d+ runs") > 300, output)
  end)
end)
