-- dgram.lua - sending and receiving datagrams, for UDP and Unix sockets, with LuaSocket's results.

local core = require "asynctask.core"
local wait = require "asynctask.socket.wait"

local native = core.socket

local dgram = {
  SIZE = 8192, -- bytes of a datagram that are received unless more are asked for
}

-- Calls `call` until it has not to wait; its results, or nil and why not.
local function attempt(socket, state, events, call, ...)
  wait.begin(state)
  wait.check(state, events)
  while true do
    local value, a, b = call(socket, ...)
    if value then
      return value, a, b
    elseif value == nil then
      return nil, a
    end
    local err = wait.ready(socket, state, events)
    if err then
      return nil, err
    end
  end
end

-- Sending to where nobody is, is "refused".
local function sent(count, err)
  if not count then
    return nil, err == "closed" and "refused" or err
  end
  return count + 0.0
end

---@param socket userdata
---@param state table
---@param data string
---@return number? bytes
---@return string? err
function dgram.send(socket, state, data)
  return sent(attempt(socket, state, "w", native.send, data, 1, #data))
end

---@param socket userdata
---@param state table
---@param data string
---@param to string address, or path
---@return number? bytes
---@return string? err
function dgram.sendto(socket, state, data, to)
  return sent(attempt(socket, state, "w", native.sendto, data, to))
end

---One datagram; what is beyond `size` is lost. A socket without descriptor gives "", as LuaSocket's does.
---@param socket userdata
---@param state table
---@param size number
---@return string? datagram
---@return string? err
function dgram.receive(socket, state, size)
  if native.getfd(socket) < 0 then
    return ""
  end
  local data, err = attempt(socket, state, "r", native.recv, size)
  if not data then
    return nil, err
  end
  return data
end

---The same, and where it came from.
---@param socket userdata
---@param state table
---@param size number
---@return string? datagram
---@return string? host or path, or err
---@return integer? port
function dgram.receivefrom(socket, state, size)
  if native.getfd(socket) < 0 then -- LuaSocket fails to name a sender
    if state.family then
      return nil, "ai_family not supported"
    end
    return "", ""
  end
  local data, from, port = attempt(socket, state, "r", native.recvfrom, size)
  if port == nil then
    return data, from
  end
  return data, from, port
end

return dgram
