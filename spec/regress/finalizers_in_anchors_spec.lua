-- A finalizer that ran while the table of anchors grew, and anchored something itself, made the kernel
-- hand out the same anchor twice: cancelling one delay cancelled another.

local child = require "spec.support.child"

describe("finalizers that start operations", function()
  it("S14: while the library allocates do not disturb what it is about to keep", function()
    local output, code = child.lua([[ -- in a process of its own: how often it collects depends on the heap
      local task = require "asynctask"
      local made, going = {}, true
      local function refill()
        setmetatable({}, { __gc = function()
          if going then
            for _ = 1, 7 do made[#made + 1] = task.delay(60) end
            refill()
          end
        end })
      end
      collectgarbage("generational", 1, 100) -- each small collection runs the finalizers
      refill()
      local own = {}
      for i = 1, 20000 do own[i] = task.delay(60) end
      going = false
      assert(#made > 100)
      for i = 1, #made do
        made[i]:cancel()
        assert(made[i]:status() == "cancelled", "another one was cancelled")
      end
      for i = 1, #own do
        assert(own[i]:status() == "pending", "cancelled with another one")
        own[i]:cancel()
        assert(own[i]:status() == "cancelled", "another one was cancelled")
      end
      print("fine")
    ]])
    assert.equal("fine\n", output)
    assert.equal(0, code)
  end)
end)
