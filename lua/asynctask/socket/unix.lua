-- unix.lua - LuaSocket's `socket.unix`: streams and datagrams over Unix sockets.

local core = require "asynctask.core"
local check = require "asynctask.socket.check"
local dgram = require "asynctask.socket.dgram"
local inet = require "asynctask.socket.inet"
local stream = require "asynctask.socket.stream"
local wait = require "asynctask.socket.wait"

local native = core.socket

-- ---- what both have ----------------------------------------------------------------------------

local function common(group, methods)
  function methods.getsockname(self)
    check.group(self, group, "getsockname")
    return native.sockname(self)
  end

  inet.common(group, methods)
end

-- A failure closes the socket, as LuaSocket's does.
local function bind(self, path)
  local ok, err = native.bind(self, path)
  if not ok then
    if err ~= "path too long" then
      native.close(self)
    end
    return nil, err
  end
  return 1.0
end

local function connect(self, state, path)
  wait.begin(state)
  local err = inet.connect_one(self, state, path)
  if err and err ~= "path too long" then
    native.close(self)
  end
  return err
end

-- ---- streams -----------------------------------------------------------------------------------

local STREAM <const> = "unixstream{any}"
local methods = {}
common(STREAM, methods)

local classes = {}

local function new_stream(class)
  return native.new(class, "unixstream", stream.init {})
end

stream.methods(STREAM, classes, function()
  return new_stream(classes.client)
end, methods)

function methods.bind(self, path)
  check.class(self, classes.master, "bind")
  return bind(self, check.text(path, 1, "bind"))
end

function methods.connect(self, path)
  local state = check.class(self, classes.master, "connect")
  local err = connect(self, state, check.text(path, 1, "connect"))
  if err then
    return nil, err
  end
  native.retype(self, classes.client)
  return 1.0
end

methods.setpeername = methods.connect
methods.setsockname = methods.bind

classes.master = inet.class("unixstream{master}", STREAM, methods)
classes.client = inet.class("unixstream{client}", STREAM, methods)
classes.server = inet.class("unixstream{server}", STREAM, methods)

-- ---- datagrams ---------------------------------------------------------------------------------

local DGRAM <const> = "unixdgram{any}"
methods = {}
common(DGRAM, methods)

local connected, unconnected

function methods.dirty(self)
  check.group(self, DGRAM, "dirty")
  return false
end

function methods.gettimeout(self)
  local state = check.group(self, DGRAM, "gettimeout")
  return state.block + 0.0, state.total + 0.0
end

function methods.bind(self, path)
  check.class(self, unconnected, "bind")
  return bind(self, check.text(path, 1, "bind"))
end

function methods.connect(self, path)
  local state = check.class(self, unconnected, "connect")
  local err = connect(self, state, check.text(path, 1, "connect"))
  if err then
    return nil, err
  end
  native.retype(self, connected)
  return 1.0
end

function methods.send(self, data)
  local state = check.class(self, connected, "send")
  return dgram.send(self, state, check.string(data, 1, "send"))
end

function methods.sendto(self, data, path)
  local state = check.class(self, unconnected, "sendto")
  return dgram.sendto(self, state, check.string(data, 1, "sendto"), check.text(path, 2, "sendto"))
end

function methods.receive(self, size)
  local state = check.group(self, DGRAM, "receive")
  return dgram.receive(self, state, check.number(size, 1, "receive", dgram.SIZE))
end

function methods.receivefrom(self, size)
  local state = check.class(self, unconnected, "receivefrom")
  return dgram.receivefrom(self, state, check.number(size, 1, "receivefrom", dgram.SIZE))
end

methods.setpeername = methods.connect
methods.setsockname = methods.bind

connected = inet.class("unixdgram{connected}", DGRAM, methods)
unconnected = inet.class("unixdgram{unconnected}", DGRAM, methods)
connected["select{able}"], unconnected["select{able}"] = true, true

-- ---- the module --------------------------------------------------------------------------------

local unix = {}

---@return userdata? socket a master, to be bound or connected to a path
---@return string? err
function unix.stream()
  local socket = new_stream(classes.master)
  local ok, err = native.create(socket, "unix")
  if not ok then
    return nil, err
  end
  return socket
end

---@return userdata? socket
---@return string? err
function unix.dgram()
  local socket = native.new(unconnected, "unixdgram", wait.init {})
  local ok, err = native.create(socket, "unix")
  if not ok then
    return nil, err
  end
  return socket
end

unix.tcp, unix.udp = unix.stream, unix.dgram

---The module was a function once.
function unix.__call(self, ...)
  return self.stream(...)
end

return setmetatable(unix, unix)
