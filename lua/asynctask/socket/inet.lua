-- inet.lua - what TCP and UDP sockets have in common: binding and connecting to the first address of a
-- host that works, names, options, timeouts. A state has `family`: "unspec" until a socket was made.

local core = require "asynctask.core"
local address = require "asynctask.socket.address"
local check = require "asynctask.socket.check"
local wait = require "asynctask.socket.wait"

local native = core.socket

local inet = {}

---Makes the system's socket; what there was before is closed.
---@param socket userdata
---@param family "inet"|"inet6"
---@return true? ok
---@return string? err
function inet.create(socket, family)
  native.close(socket)
  return native.create(socket, family)
end

-- A socket of the family, unless there is one.
local function ensure(socket, current, family)
  if current == family and native.getfd(socket) >= 0 then
    return true
  end
  return inet.create(socket, family)
end

---Binds to the first address that works.
---@param socket userdata
---@param state table
---@param host string "*": every interface
---@param port string
---@param datagram boolean
---@param family? string of the addresses, in place of the state's
---@return string? err
function inet.bind(socket, state, host, port, datagram, family)
  local list, err = address.find(host ~= "*" and host or nil, port, family or state.family, datagram)
  if not list then
    return err
  end
  local current = state.family
  for i = 1, #list, 2 do
    local made, bound
    made, err = ensure(socket, current, list[i])
    if made then
      current = list[i]
      bound, err = native.bind(socket, list[i + 1])
    end
    if bound then
      state.family = current
      return nil
    end
  end
  return err
end

-- nil once it is connected, or why not
local function connect_one(socket, state, to)
  local ok, err = native.connect(socket, to)
  if ok then
    return nil
  elseif ok == nil then
    return err
  end
  while true do
    err = wait.ready(socket, state, "rw", true) -- cancelled, it is closed (S10)
    if err then
      return err
    end
    ok, err = native.connected(socket)
    if ok then
      return nil
    elseif ok == nil then
      return err
    end
  end
end

---Connects to the first address that works; each has the whole timeout.
---@param socket userdata
---@param state table
---@param host string
---@param port string
---@param datagram boolean
---@return string? err
function inet.connect(socket, state, host, port, datagram)
  local list, err = address.find(host, port, state.family, datagram)
  if not list then
    return err
  end
  local current = state.family
  for i = 1, #list, 2 do
    local made
    wait.begin(state)
    made, err = ensure(socket, current, list[i])
    if made then
      current = list[i]
      err = connect_one(socket, state, list[i + 1])
      if err == nil or state.block == 0 then
        state.family = current
        break
      end
    end
  end
  return err
end

inet.connect_one = connect_one

---The methods that sockets of every kind have, for the group ("tcp{any}").
---@param group string
---@param methods table filled
function inet.common(group, methods)
  function methods.settimeout(self, seconds, mode)
    inet.settimeout(check.group(self, group, "settimeout"), seconds, mode)
    return 1.0
  end

  function methods.close(self)
    check.group(self, group, "close")
    native.close(self)
    return 1.0
  end

  methods.getfd = native.getfd
  methods.setfd = native.setfd
  methods.setoption = native.setoption
end

---The methods that TCP and UDP have besides, for the group ("tcp{any}").
---@param group string
---@param methods table filled
function inet.methods(group, methods)
  function methods.getfamily(self)
    return check.group(self, group, "getfamily").family == "inet6" and "inet6" or "inet4"
  end

  function methods.getsockname(self)
    local state = check.group(self, group, "getsockname")
    local host, port = native.sockname(self)
    if not host then
      return nil, port
    end
    return host, tostring(port), state.family
  end

  function methods.gettimeout(self)
    local state = check.group(self, group, "gettimeout")
    return state.block + 0.0, state.total + 0.0
  end

  inet.common(group, methods)
  methods.getoption = native.getoption
end

local modes = { b = "b", r = "t", t = "t" }

---`settimeout` of every class.
---@param state table
---@param seconds? number
---@param mode? string
function inet.settimeout(state, seconds, mode)
  seconds = check.number(seconds, 1, "settimeout", -1)
  local known = modes[(mode == nil and "b" or check.string(mode, 2, "settimeout")):sub(1, 1)]
  if not known then
    check.bad(2, "settimeout", "invalid timeout mode")
  end
  wait.set(state, seconds, known)
end

---The peer's name.
---@param socket userdata
---@param state table
---@return string? host
---@return integer|string port or err
---@return string? family
function inet.getpeername(socket, state)
  local host, port = native.peername(socket)
  if not host then
    return nil, port
  end
  return host, port, state.family
end

---A class of sockets with these methods.
---@param name string "tcp{client}"
---@param group string "tcp{any}"
---@param methods table
---@return table metatable
function inet.class(name, group, methods)
  local class = native.class(name)
  local index = { class = name }
  for key, method in pairs(methods) do
    index[key] = method
  end
  class.__index = index
  class[group] = true
  class.__tostring = function(self)
    return ("%s: %s"):format(name, (("%p"):format(self)))
  end
  return class
end

return inet
