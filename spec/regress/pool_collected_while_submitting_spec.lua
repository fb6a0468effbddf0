-- A pool that only the call `task.pool{...}:run(...)` held could be collected while that call copied its arguments:
-- it drained, refused the job, and the job's Task ended as cancelled.

local task = require "asynctask"

describe("a pool that nobody keeps", function()
  it("S14: runs the job that it was asked for", function()
    local pause, step = collectgarbage("setpause", 1), collectgarbage("setstepmul", 1000)
    local _ <close> = setmetatable({}, { __close = function()
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", step)
    end })
    local list = {}
    for i = 1, 200 do
      list[i] = { "item " .. i }
    end
    for i = 1, 60 do
      list[#list] = { i }
      assert.equal(i, task.await(task.pool({ threads = 1 }):run(function(l, v) return #l > 0 and v end, list, i)))
    end
  end)
end)
