-- A cancellation with a deadline that was cancelled after its runtime had been closed took the deadline out of a heap
-- that was gone: a crash.

local child = require "spec.support.child"
local cc = require "spec.support.cc"

describe("a cancellation with a deadline", function()
  it("S18: can be cancelled when the runtime has been closed", function()
    local output, code = child.lua(([[
      package.cpath = %q .. "/?.so;" .. package.cpath
      local task = require "asynctask"
      local close = require "closer"
      local first, second = task.cancellation(), task.cancellation()
      first:cancel_after(30)
      second:cancel_after(40)
      print(close(), second:cancel "late", first:cancel(), first:cancel())
    ]]):format(cc.module "closer"))
    assert.equal("0\ttrue\ttrue\tfalse\n", output)
    assert.equal(0, code)
  end)
end)
