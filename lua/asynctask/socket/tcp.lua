-- tcp.lua - LuaSocket's TCP objects. A master becomes a client by `connect`, a server by `listen`.

local core = require "asynctask.core"
local check = require "asynctask.socket.check"
local inet = require "asynctask.socket.inet"
local stream = require "asynctask.socket.stream"
local wait = require "asynctask.socket.wait"

local native = core.socket
local GROUP <const> = "tcp{any}"

local methods = {}
inet.methods(GROUP, methods)

local classes = {}

local function new(family, class)
  local state = stream.init { family = family }
  return native.new(class, "tcp", state), state
end

stream.methods(GROUP, classes, function(state)
  return (new(state.family, classes.client))
end, methods)

function methods.bind(self, host, port)
  local state = check.class(self, classes.master, "bind")
  host, port = check.text(host, 1, "bind"), check.text(port, 2, "bind")
  wait.point()
  local err = inet.bind(self, state, host, port, false)
  if err then
    return nil, err
  end
  return 1.0
end

function methods.connect(self, host, port)
  local state = check.group(self, GROUP, "connect")
  host, port = check.text(host, 1, "connect"), check.text(port, 2, "connect")
  wait.point()
  state.host = host
  local err = inet.connect(self, state, host, port, false)
  native.retype(self, classes.client) -- also when it failed: it may be under way
  if err then
    return nil, err
  end
  return 1.0
end

function methods.getpeername(self)
  return inet.getpeername(self, check.group(self, GROUP, "getpeername"))
end

methods.setpeername = methods.connect
methods.setsockname = methods.bind

classes.master = inet.class("tcp{master}", GROUP, methods)
classes.client = inet.class("tcp{client}", GROUP, methods)
classes.server = inet.class("tcp{server}", GROUP, methods)

local tcp = {}

local function create(family)
  local socket = new(family, classes.master)
  if family ~= "unspec" then
    local ok, err = inet.create(socket, family)
    if not ok then
      return nil, err
    end
  end
  return socket
end

---A master whose socket is made by `bind` or `connect`, for the address at hand.
---@return userdata socket
function tcp.tcp()
  return create("unspec")
end

---@return userdata? socket
---@return string? err
function tcp.tcp4()
  return create("inet")
end

---@return userdata? socket
---@return string? err
function tcp.tcp6()
  return create("inet6")
end

local families = { unspec = "unspec", inet = "inet", inet6 = "inet6" }

---Connects to a host: `tcp`, `bind` and `connect` in one, without timeout.
---@param host string
---@param port string|number
---@param local_host? string
---@param local_port? string|number
---@param family? "unspec"|"inet"|"inet6" of the local address
---@return userdata? client
---@return string? err
function tcp.connect(host, port, local_host, local_port, family)
  host, port = check.text(host, 1, "connect"), check.text(port, 2, "connect")
  local_host = local_host ~= nil and check.text(local_host, 3, "connect") or nil
  local_port = local_port ~= nil and check.text(local_port, 4, "connect") or "0"
  family = check.option(family, 5, "connect", families, "unspec")
  wait.point()
  local socket, state = new("unspec", classes.client)
  local err
  if local_host then
    err = inet.bind(socket, state, local_host, local_port, false, family)
  end
  state.host = host -- for asynctask.ssl, which verifies it
  err = err or inet.connect(socket, state, host, port, false)
  if err then
    native.close(socket)
    return nil, err
  end
  return socket
end

return tcp
