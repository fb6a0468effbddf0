-- serving.lua - handlers of encrypted connections: `tls.handler` and `tls.serve`. A handler may be copied to other
-- threads, so what it needs is plain: the options of its context as they were read, from which each thread makes
-- an SSL_CTX of its own. The keys of session tickets are among them: sessions are resumed on every thread.

local core = require "asynctask.core"
local check = require "asynctask.check"
local net = require "asynctask.net"
local address = require("asynctask.net.check").address
local net_server = require "asynctask.net.server"
local context = require "asynctask.tls.context"
local handshake = require "asynctask.tls.handshake"

local await, start, is_task = core.await, core.start, core.is_task

local M = {}

local function find(handler)
  if type(handler) ~= "string" then
    return handler
  end
  local module, name = handler:match("^(.*)%.([^.]+)$")
  return require(module)[name]
end

-- S25
local function finish(...)
  if select("#", ...) == 1 and is_task((...)) then
    await((...))
  end
end

---One connection.
---@param transport asynctask.Stream
---@param plain table of the context
---@param opts { handshake_timeout?: number }
---@param handler function|string
function M.accept(transport, plain, opts, handler)
  local stream <close> = handshake.run(transport, opts, true, nil, plain)
  finish(find(handler)(stream))
end

-- The handler for `server:serve` of a context that is known.
local function over(plain, opts, handler)
  local serving = M
  opts = { handshake_timeout = opts.handshake_timeout }
  return function(transport)
    serving.accept(transport, plain, opts, handler)
  end
end

local function check_options(opts, arg, name, more)
  local known = setmetatable({}, { __index = more })
  for option, fits in pairs(handshake.options) do
    known[option] = fits
  end
  opts = check.options(opts, arg, name, known)
  if opts.server == false then
    check.bad(arg, name, "option 'server' is true here")
  end
  handshake.check(opts, arg, name, true)
  return opts
end

---A handler for `server:serve` of `asynctask.net` that encrypts each connection and hands it on:
---`server:serve(await(tls.handler(f, opts)))`.
---@param handler fun(stream: asynctask.tls.Stream): any
---@param opts asynctask.tls.options
---@return asynctask.Task handler
function M.handler(handler, opts)
  check.expect(check.callable(handler), 1, "handler", "function", handler)
  opts = check_options(opts, 2, "handler")
  return start(function()
    return over(context.of(opts, true), opts, handler)
  end)
end

local listen_options = {
  backlog = check.positive, reuseport = check.boolean, ipv6only = check.boolean, fastopen = check.positive,
}

---Listens and serves, as `net.serve`, over TLS. The connection closes when its handler returns. A handshake that
---fails is a fault like a handler's: `on_error` gets it.
---@param host string|{path: string}|{fd: integer}
---@param port? integer left out with a path
---@param handler string|fun(stream: asynctask.tls.Stream): any
---@param opts table options of `net.serve`, and `asynctask.tls.options` of a server
---@return asynctask.Task ends when it is cancelled
---@overload fun(address: {path: string}, handler: function, opts: table): asynctask.Task
function M.serve(host, port, handler, opts)
  local n = type(host) == "table" and host.fd ~= nil and 1 or address("serve", 1, host, port)
  if n == 1 then
    port, handler, opts = nil, port, handler
  end
  net_server.check("serve", n + 1, handler, opts)
  local more = {}
  for _, list in ipairs { listen_options, net_server.options } do
    for option, fits in pairs(list) do
      more[option] = fits
    end
  end
  opts = check_options(opts, n + 2, "serve", more)
  local for_net = {}
  for option in pairs(more) do
    for_net[option] = opts[option]
  end
  return start(function()
    local serving = over(context.of(opts, true), opts, handler)
    if n == 1 then
      await(net.serve(host, serving, for_net))
    else
      await(net.serve(host, port, serving, for_net))
    end
  end):named("serve")
end

return M
