-- Leaving a group on the main chunk ended in a deadlock, and the group's scope stayed the innermost one:
-- a member that faulted afterwards interrupted the main chunk's awaits for ever.

local task = require "asynctask"

describe("leaving a group that deadlocks", function()
  it("S13: leaves its scope all the same", function()
    local s, member = task.source(), nil
    local ok, err = pcall(task.with_group, function(g)
      member = g:spawn(task.await, s.task)
    end)
    assert.is_false(ok)
    assert.matches("deadlock", tostring(err), 1, true)
    s:set_error("too late")
    assert.equal(7, task.await(task.delay(0.001, 7)))
    assert.is_nil(task.cancelling())
    assert.equal("too late", select(2, task.try(member)))
  end)
end)
