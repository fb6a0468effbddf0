-- stream.lua - what Lua adds to streams (csrc/io/stream.c): lines, pipe_to, closing at the end of a scope.

local core = require "asynctask.core"
local iterator = require "asynctask.iterator"
local check = require "asynctask.net.check"

local await, start, shield = core.await, core.start, core.shield
local unpack = table.unpack

---A stream of bytes in both directions. All but `lines` and `pipe_to` is C's (csrc/io/stream.c).
---@class asynctask.Stream
local Stream = core.net.Stream.__index

---Reads as `read` does, again and again: `for line in stream:lines() do`. Does not close the stream.
---@param ... "l"|"L"|"n"|"a"|integer formats of `read`; none: "l"
---@return asynctask.Iterator iterator
---@return nil
---@return nil
---@return asynctask.Iterator
function Stream:lines(...)
  local n = select("#", ...)
  if n == 0 then
    return iterator.new(function()
      return self:read("l")
    end)
  end
  local formats = { ... }
  return iterator.new(function()
    return self:read(unpack(formats, 1, n))
  end)
end

local function pump(from, to, half_close)
  local total = 0
  while true do
    local data = await(from:read_some())
    if not data then
      break
    end
    total = total + #data
    await(to:write(data)) -- waits while the other side does not read
  end
  if half_close and to.shutdown then
    await(to:shutdown())
  end
  return total
end

local pipe_options = { shutdown = check.boolean }

---Moves everything that comes from this stream to another one, no faster than that takes it, and shuts
---the other's sending side when this one has ended; the way back stays open. Cancelled, what was read
---and not yet written is lost.
---@param other { write: function, shutdown?: function } a stream, or a file of `asynctask.fs`
---@param opts? { shutdown?: boolean } false: leaves the other one open for more
---@return asynctask.Task bytes how many were moved
function Stream:pipe_to(other, opts)
  local kind = type(other)
  check.expect((kind == "userdata" or kind == "table") and other.write ~= nil, 1, "pipe_to", "stream", other)
  opts = check.options(opts, 2, "pipe_to", pipe_options)
  return start(pump, self, other, opts.shutdown ~= false):named("pipe_to")
end

local stream = {}

---A `__close` for what has a method `close` that returns a Task. Waits for a closing that has begun, in
---cancelled scopes too; does not wait where nothing is left to wait for, so that it works where Lua
---cannot yield.
---@param v any
function stream.close_scope(v)
  local t = v:close()
  if t:done() then
    await(t)
  else
    shield(await, t)
  end
end

core.net.Stream.__close = stream.close_scope

-- Feeds (csrc/io/feed.c) have the reading half: bytes that come from a library or from Lua code.
local Feed = core.net.Feed.__index
Feed.lines, Feed.pipe_to = Stream.lines, Stream.pipe_to
core.net.Feed.__close = stream.close_scope

return stream
