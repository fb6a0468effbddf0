-- The reading half of the conformance suite, for feeds: what is pushed comes out of a stream.

local task = require "asynctask"
local core = require "asynctask.core"
local streams = require "spec.conformance.streams"
require "asynctask.net.stream"

-- The producer's side as a writing stream: what its users would make of push and finish.
local Producer = {}
Producer.__index = Producer

function Producer:write(...)
  if self.shut then
    return task.from_error(task.error { code = "EPIPE", op = "write" })
  end
  self.last = self.feed:push(...)
  return self.last
end

function Producer:shutdown()
  self.shut = true
  return task.spawn(function()
    task.try(self.last or task.from_result())
    self.feed:finish()
  end)
end

function Producer:close()
  self.ended = true
  return self:shutdown()
end

streams(_ENV, "feed", function()
  local feed = core.net.feed()
  return setmetatable({ feed = feed }, Producer), feed
end, {
  one_way = true,
  is_open = function(s)
    if getmetatable(s) == Producer then
      return not s.ended
    end
    return not s:closed()
  end,
  cannot_write = true,
})
