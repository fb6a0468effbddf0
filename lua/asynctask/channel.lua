-- asynctask.channel - channels between tasks: of one state (new), where values pass by reference, or of
-- any threads (shared), where they are copied. Sending waits while the channel is full (backpressure),
-- receiving while it is empty; first come, first served.

local core = require "asynctask.core"
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
    error(("bad argument #1 to '%s' (non-negative integer expected, got %s)")
      :format(name, type(capacity) == "number" and capacity or type(capacity)), 3)
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

---Makes a channel.
---@param capacity? integer values that it holds; 0 (default): a send waits for a receive (rendezvous)
---@param opts? { overflow?: "wait"|"drop_oldest"|"drop_newest"|"error" } what a send does when the
---  channel is full: wait (default), drop a value, or fault with ENOBUFS
---@return asynctask.Channel
function M.new(capacity, opts)
  check_capacity(capacity, "new")
  if opts ~= nil and type(opts) ~= "table" then
    error(("bad argument #2 to 'new' (table of options expected, got %s)"):format(type(opts)), 2)
  end
  for k in pairs(opts or {}) do
    if k ~= "overflow" then
      error(("bad argument #2 to 'new' (unknown option '%s')"):format(tostring(k)), 2)
    end
  end
  local overflow = opts and opts.overflow or "wait"
  if not overflows[overflow] then
    error(("bad argument #2 to 'new' (option 'overflow': invalid value '%s')"):format(tostring(overflow)), 2)
  end
  if overflow == "drop_oldest" and (capacity or 0) == 0 then
    error("bad argument #2 to 'new' (option 'overflow': 'drop_oldest' needs a capacity)", 2)
  end
  return native.new(capacity or 0, overflow)
end

return M
