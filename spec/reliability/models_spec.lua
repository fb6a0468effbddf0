-- The models of what threads do to each other (spec/models), checked by spin in all their states; mutants must fail.

local child = require "spec.support.child"

describe("models", function()
  it("no wake-up is lost, no value, no job; and each mutant of a model is found", function()
    if not os.execute "command -v spin >/dev/null 2>&1" then
      pending "spin is missing: ./bootstrap test installs it"
    end
    local directory = os.tmpname()
    os.remove(directory)
    finally(function() child.shell("rm -rf " .. child.quote(directory)) end)
    local output, code = child.shell(("timeout 120 %s/spec/models/run.sh %s"):format(child.quote(child.root),
      child.quote(directory)))
    assert.equal(0, code, output)
    for _, model in ipairs { "inbox", "pool", "sharedchannel" } do
      assert.matches(model .. ": %d+ states, 0 errors", output)
      assert.matches(model .. " with MUTANT_[A-Z_]+: %d+ states, 1 errors", output)
    end
  end)
end)
