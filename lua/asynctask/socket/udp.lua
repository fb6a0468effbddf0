-- udp.lua - LuaSocket's UDP objects. `setpeername` connects one, `setpeername("*")` undoes that.

local core = require "asynctask.core"
local check = require "asynctask.socket.check"
local dgram = require "asynctask.socket.dgram"
local inet = require "asynctask.socket.inet"
local wait = require "asynctask.socket.wait"

local native = core.socket
local GROUP <const> = "udp{any}"

local methods = {}
inet.methods(GROUP, methods)

local connected, unconnected

function methods.dirty(self)
  check.group(self, GROUP, "dirty")
  return false
end

function methods.send(self, data)
  local state = check.class(self, connected, "send")
  return dgram.send(self, state, check.string(data, 1, "send"))
end

function methods.sendto(self, data, ip, port)
  local state = check.class(self, unconnected, "sendto")
  data = check.string(data, 1, "sendto")
  ip, port = check.text(ip, 2, "sendto"), check.text(port, 3, "sendto")
  local list, err = native.addresses(ip, port, state.family, true)
  if not list then
    return nil, err or "Name or service not known"
  end
  if native.getfd(self) < 0 and state.family == "unspec" then
    local ok
    ok, err = inet.create(self, list[1])
    if not ok then
      return nil, err
    end
    state.family = list[1]
  end
  return dgram.sendto(self, state, data, list[2])
end

function methods.receive(self, size)
  local state = check.group(self, GROUP, "receive")
  return dgram.receive(self, state, check.number(size, 1, "receive", dgram.SIZE))
end

function methods.receivefrom(self, size)
  local state = check.class(self, unconnected, "receivefrom")
  return dgram.receivefrom(self, state, check.number(size, 1, "receivefrom", dgram.SIZE))
end

function methods.getpeername(self)
  return inet.getpeername(self, check.class(self, connected, "getpeername"))
end

function methods.setsockname(self, host, port)
  local state = check.class(self, unconnected, "setsockname")
  host, port = check.text(host, 1, "setsockname"), check.text(port, 2, "setsockname")
  wait.point()
  local err = inet.bind(self, state, host, port, true)
  if err then
    return nil, err
  end
  return 1.0
end

function methods.setpeername(self, host, port)
  local state = check.group(self, GROUP, "setpeername")
  host = check.text(host, 1, "setpeername")
  if host == "*" then
    if state.family ~= "unspec" then
      native.connect(self) -- LuaSocket is silent about failures, too
    end
    native.retype(self, unconnected)
    return 1.0
  end
  port = check.text(port, 2, "setpeername")
  wait.point()
  local err = inet.connect(self, state, host, port, true)
  if err then
    return nil, err
  end
  native.retype(self, connected)
  return 1.0
end

connected = inet.class("udp{connected}", GROUP, methods)
unconnected = inet.class("udp{unconnected}", GROUP, methods)
connected["select{able}"], unconnected["select{able}"] = true, true

local udp = {}

local function create(family)
  local socket = native.new(unconnected, "udp", wait.init { family = family })
  if family ~= "unspec" then
    local ok, err = inet.create(socket, family)
    if not ok then
      return nil, err
    end
  end
  return socket
end

---@return userdata socket made for the first address that it is used with
function udp.udp()
  return create("unspec")
end

---@return userdata? socket
---@return string? err
function udp.udp4()
  return create("inet")
end

---@return userdata? socket
---@return string? err
function udp.udp6()
  return create("inet6")
end

return udp
