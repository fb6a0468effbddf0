-- Perturbed schedules of threads: a slice of `make perturb`.

local child = require "spec.support.child"

local SEEDS = 50

describe("threads whose order is shaken", function()
  it("S18-S21: jobs, channels, cancellations and closing come out right with every seed", function()
    local library = os.tmpname()
    finally(function() os.remove(library) end)
    local output, code = child.shell(("cd %s && ${CC:-gcc} -O1 -shared -fPIC -o %s spec/support/perturb.c -ldl"):format(
      child.quote(child.root), child.quote(library)))
    assert.equal(0, code, output)
    local preload = os.getenv "ASYNCTASK_PRELOAD"
    for seed = 1, SEEDS do
      output, code = child.lua(child.root .. "/spec/reliability/threads.lua", {
        timeout = 60,
        env = { LD_PRELOAD = preload and preload .. " " .. library or library, PERTURB_SEED = tostring(seed) },
      })
      assert.equal("ok\n", output, "seed " .. seed)
      assert.equal(0, code, "seed " .. seed)
    end
  end)
end)
