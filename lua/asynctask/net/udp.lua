-- udp.lua - what Lua adds to datagram sockets (csrc/io/udp.c): names in place of addresses, each, closing
-- at the end of a scope.

local core = require "asynctask.core"
local check = require "asynctask.net.check"
local iterator = require "asynctask.iterator"
local stream = require "asynctask.net.stream"

local await, start = core.await, core.start
local socket = core.net

---A datagram socket. Options and getters are C's (csrc/io/udpoption.c).
---@class asynctask.Udp
local Udp = socket.Udp.__index

local bind_options = { reuseaddr = check.boolean, reuseport = check.boolean, ipv6only = check.boolean }

-- Calls `method(self, host, ...)` with the first address of the host.
local function with_address(self, method, before, host, ...)
  if socket.is_numeric(host) then
    if before == nil then
      return method(self, host, ...)
    end
    return method(self, before, host, ...)
  end
  return start(function(...)
    local address = await(socket.resolve(host, { family = "any" }))[1].host
    if before == nil then
      return await(method(self, address, ...))
    end
    return await(method(self, before, address, ...))
  end, ...)
end

-- C's methods, which those below stand before; kept with the class, for whoever loads this file again.
local native = socket.Udp.native or { bind = Udp.bind, connect = Udp.connect, send = Udp.send }
socket.Udp.native = native

-- "*" and nil: every interface, of IPv4.
local function bind(self, host, port, opts)
  return with_address(self, native.bind, nil, (host == nil or host == "*") and "0.0.0.0" or host, port or 0, opts)
end

local function check_bind(name, arg, host, port)
  if host ~= nil then
    check.host(host, arg, name)
  end
  if port ~= nil then
    check.expect(check.port(port), arg + 1, name, "port number", port)
  end
end

---Binds to an address: datagrams to it are received. Without bind the system chooses a port at the first send.
---@param host? string name or numeric address; none or "*": every interface (of IPv4)
---@param port? integer default 0: the system chooses
---@param opts? {reuseaddr?: boolean, reuseport?: boolean, ipv6only?: boolean}
---@return asynctask.Task
---@diagnostic disable-next-line: duplicate-set-field
function Udp:bind(host, port, opts)
  check_bind("bind", 1, host, port)
  return bind(self, host, port, check.options(opts, 3, "bind", bind_options))
end

---Sends go to this address from now on, and only what comes from it is received. Without arguments: no longer.
---@param host? string
---@param port? integer
---@return asynctask.Task
---@diagnostic disable-next-line: duplicate-set-field
function Udp:connect(host, port)
  if host == nil then
    return native.connect(self)
  end
  check.address("connect", 1, host, port)
  return with_address(self, native.connect, nil, host, port)
end

---Sends one datagram, whole or not at all.
---@param data string
---@param host? string name or numeric address; left out on a connected socket
---@param port? integer
---@return asynctask.Task
---@diagnostic disable-next-line: duplicate-set-field
function Udp:send(data, host, port)
  if host == nil or (type(host) == "string" and type(port) == "number" and socket.is_numeric(host)) then
    return native.send(self, data, host, port)
  end
  check.expect(type(data) == "string", 1, "send", "string", data)
  check.address("send", 2, host, port)
  return with_address(self, native.send, data, host, port)
end

---Receives again and again: `for data, from in socket:each() do`. Ends when the socket is closed.
---@return asynctask.Iterator iterator of data and `{host=, port=, family=}`
---@return nil
---@return nil
---@return asynctask.Iterator
function Udp:each()
  return iterator.new(core.async(function()
    local ok, data, from = core.pcall(await, self:receive())
    if ok then
      return data, from
    elseif self:fd() then
      error(data, 0)
    end
  end))
end

socket.Udp.__close = stream.close_scope

local udp = {}

---@class asynctask.net.udp_options
---@field host? string
---@field port? integer
---@field reuseaddr? boolean several sockets may bind to the port (multicast)
---@field reuseport? boolean several sockets share the port's datagrams
---@field ipv6only? boolean
---@field broadcast? boolean may send to broadcast addresses

---A datagram socket, bound if host or port are given.
---@param host? string|table as for `bind`; or the options, `host` and `port` among them
---@param port? integer
---@param opts? asynctask.net.udp_options
---@return asynctask.Task socket an `asynctask.Udp`
function udp.udp(host, port, opts)
  local arg = 3
  if type(host) == "table" then
    arg, opts = 1, host
    host, port = opts.host, opts.port
  end
  opts = check.options(opts, arg, "udp", {
    host = check.string, port = check.port, broadcast = check.boolean, reuseaddr = check.boolean,
    reuseport = check.boolean, ipv6only = check.boolean,
  })
  host, port = host or opts.host, port or opts.port
  check_bind("udp", 1, host, port)
  return start(function()
    local self = socket.udp()
    if host ~= nil or port ~= nil or opts.broadcast then
      await(bind(self, host, port, opts))
    end
    if opts.broadcast then
      local ok, err = self:broadcast(true)
      if not ok then
        error(err, 0)
      end
    end
    return self
  end)
end

return udp
