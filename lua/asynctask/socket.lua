-- asynctask.socket - LuaSocket's API (version 3.1) on this library's event loop: the same functions, methods
-- and results, and every call that waits lets other tasks run. Follows the manual of LuaSocket and, where
-- that is silent, what LuaSocket does; docs/compatibility.md has the table. Mechanism is in C
-- (csrc/io/socket*.c); each kind of socket has a file in asynctask/socket.

require "asynctask" -- adds Task:timeout

local core = require "asynctask.core"
local options = require("asynctask.check").options
local check = require "asynctask.socket.check"
local dns = require "asynctask.socket.dns"
local except = require "asynctask.socket.except"
local install = require "asynctask.socket.install"
local library = require "asynctask.socket.library"
local ltn = require "asynctask.socket.ltn"
local tcp = require "asynctask.socket.tcp"
local udp = require "asynctask.socket.udp"
local unix = require "asynctask.socket.unix"

local socket = {
  tcp = tcp.tcp, tcp4 = tcp.tcp4, tcp6 = tcp.tcp6, connect = tcp.connect,
  udp = udp.udp, udp4 = udp.udp4, udp6 = udp.udp6,
  dns = dns, unix = unix,
  select = require "asynctask.socket.select",
  newtry = except.newtry, protect = except.protect, try = except.newtry(),
  gettime = core.socket.gettime,
  _VERSION = "LuaSocket 3.0.0", -- what LuaSocket 3.1 calls itself
  _SETSIZE = 1024,              -- LuaSocket's; larger sets are fine here
  _DATAGRAMSIZE = 8192,
  _SOCKETINVALID = -1,
}

---@param host string
---@param port string|number
---@param local_host? string
---@param local_port? string|number
---@return userdata? client
---@return string? err
function socket.connect4(host, port, local_host, local_port)
  return socket.connect(host, port, local_host, local_port, "inet")
end

---@param host string
---@param port string|number
---@param local_host? string
---@param local_port? string|number
---@return userdata? client
---@return string? err
function socket.connect6(host, port, local_host, local_port)
  return socket.connect(host, port, local_host, local_port, "inet6")
end

local function listen_on(address, port, backlog)
  local make = address.family == "inet" and socket.tcp4 or socket.tcp6
  local server, err = make()
  if not server then
    return nil, err, true
  end
  server:setoption("reuseaddr", true)
  local ok
  ok, err = server:bind(address.addr, port)
  if ok then
    ok, err = server:listen(backlog)
  end
  if not ok then
    server:close()
    return nil, err
  end
  return server
end

---A server on the first address of the host that works.
---@param host string "*": every interface, of IPv4
---@param port string|number
---@param backlog? number 32
---@return userdata? server
---@return string? err
function socket.bind(host, port, backlog)
  local addresses, err = dns.getaddrinfo(host == "*" and "0.0.0.0" or host)
  if not addresses then
    return nil, err
  end
  err = "no info on address"
  for _, address in ipairs(addresses) do
    local server, hopeless
    server, err, hopeless = listen_on(address, port, backlog)
    if server or hopeless then
      return server, err
    end
  end
  return nil, err
end

---Waits.
---@param seconds number
function socket.sleep(seconds)
  seconds = check.number(seconds, 1, "sleep")
  core.await(core.delay(seconds > 0 and seconds or 0))
end

---Its arguments without the first `n`.
---@param n integer
---@param ... any
---@return any ...
function socket.skip(n, ...)
  n = check.number(n, 1, "skip")
  if n >= select("#", ...) then
    return
  end
  return select(n + 1, ...)
end

---LuaSocket has it; there is nothing to do.
function socket.__unload() end

local install_options = {
  coroutine = function(v)
    return type(v) == "boolean", "boolean"
  end,
}

---Makes `require "socket"`, "socket.core" and "socket.unix" mean this module in this state, and `require "ssl"`
---asynctask.ssl where that can be had. Modules that were loaded before keep the sockets they have: call it
---first. Twice is as once.
---@param opts? { coroutine?: boolean } coroutine: the global `coroutine` becomes asynctask.coroutine, for libraries
---that receive inside generators
---@return table socket this module
function socket.install(opts)
  opts = options(opts, 1, "install", install_options)
  local ok, ssl = pcall(require, "asynctask.ssl")
  install.install(socket, unix, ok and ssl or nil, opts.coroutine and require "asynctask.coroutine" or nil)
  return socket
end

---Undoes `install`. Modules that were loaded meanwhile keep these sockets.
function socket.uninstall()
  install.uninstall()
end

ltn.add(socket)
library.add(socket)

return socket
