-- A finalizer that ran while a message was being written, and that sent something itself, wrote into the same
-- memory: the job got a corrupt message, or somebody else's values.

local task = require "asynctask"

local await = task.await

describe("a finalizer that sends", function()
  it("S19: leaves the message alone that is being written", function()
    local pause, step = collectgarbage("setpause", 1), collectgarbage("setstepmul", 1000)
    local on, sent = true, 0
    local _ <close> = setmetatable({}, { __close = function()
      on = false
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", step)
    end })
    local seen = {}
    local function arm()
      setmetatable({}, { __gc = function()
        if on then
          sent = sent + 1
          seen[sent % 2] = task.run(function(v) return v end, { sent })
          arm()
        end
      end })
    end
    arm()
    for i = 1, 20000 do
      if sent > 20 and i > 300 then break end
      local list = {}
      for k = 1, 20 do
        list[k] = { k, tostring(i * k), function() return list[1] end }
      end
      local job = function(l, v) return #l, v, l[3][2] end
      local a, b, c = await(task.run(job, list, i))
      assert.same({ 20, i, tostring(i * 3) }, { a, b, c })
    end
    on = false
    await(task.when_all(seen[0], seen[1]))
    assert.is_true(sent > 10)
  end)
end)
