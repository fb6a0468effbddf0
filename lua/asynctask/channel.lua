-- asynctask.channel - channels between tasks: of one state (new), where values pass by reference, or of
-- any threads (shared), where they are copied. Sending waits while the channel is full (backpressure),
-- receiving while it is empty; first come, first served.

local core = require "asynctask.core"
local check = require "asynctask.check"
local iterator = require "asynctask.iterator"

local native = core.channel
local M = { select = native.select }

---@class asynctask.Channel
local Channel = native.Channel.__index

---Iterates over the messages until the channel is closed and drained: `for v in ch:each() do`.
---Leaving the loop does not close the channel.
---@return asynctask.Iterator iterator of values
---@return nil
---@return nil
---@return asynctask.Iterator
function Channel:each()
  return iterator.new(function()
    return self:receive()
  end)
end

---@class asynctask.SharedChannel
local SharedChannel = core.sharedchannel.SharedChannel.__index

---Iterates over the messages until the channel is closed and drained, as `Channel:each` does.
---@return asynctask.Iterator iterator of values
---@return nil
---@return nil
---@return asynctask.Iterator
function SharedChannel:each()
  return iterator.new(function()
    return self:receive()
  end)
end

local function check_capacity(capacity, name)
  if capacity ~= nil and (math.type(capacity) ~= "integer" or capacity < 0) then
    check.bad(1, name, ("non-negative integer expected, got %s")
      :format(type(capacity) == "number" and capacity or check.type_name(capacity)))
  end
end

---Makes a channel between tasks on any threads, to be passed to jobs. Values are copied as the arguments
---of `task.run` are. It has the methods of a local channel, and cannot be part of a `select`.
---@param capacity? integer values that it holds; 0 (default): a send waits for a receive
---@return asynctask.SharedChannel
function M.shared(capacity)
  check_capacity(capacity, "shared")
  return core.sharedchannel.new(capacity or 0)
end

local overflows = { wait = true, drop_oldest = true, drop_newest = true, error = true }
local options = {
  overflow = function(v)
    return overflows[v], '"wait", "drop_oldest", "drop_newest" or "error"'
  end,
}

---Makes a channel.
---@param capacity? integer values that it holds; 0 (default): a send waits for a receive (rendezvous)
---@param opts? { overflow?: "wait"|"drop_oldest"|"drop_newest"|"error" } what a send does when the
---  channel is full: wait (default), drop a value, or fault with ENOBUFS
---@return asynctask.Channel
function M.new(capacity, opts)
  check_capacity(capacity, "new")
  local overflow = check.options(opts, 2, "new", options).overflow or "wait"
  if overflow == "drop_oldest" and (capacity or 0) == 0 then
    check.bad(2, "new", "option 'overflow': 'drop_oldest' needs a capacity")
  end
  return native.new(capacity or 0, overflow)
end

return M
