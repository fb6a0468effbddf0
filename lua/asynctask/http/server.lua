-- server.lua - asynctask.http's server: arguments, limits, what the connections of one server share on one thread, the
-- sweep that ends those that are late. A connection is in connection.lua; accepting, handlers' threads and closing are
-- asynctask.net's.

local core = require "asynctask.core"
local check = require "asynctask.net.check"
local connection = require "asynctask.http.connection"
local native = require "asynctask.http.native"
local net = require "asynctask.net"
local request = require "asynctask.http.request"

local await, start, spawn = core.await, core.start, core.spawn

local M = {}

-- ---- limits ------------------------------------------------------------------------------------

---Options of `http.serve`, with what is in force without them.
---@class asynctask.http.serve_options
---@field max_line? integer bytes of a request line (8192): 414
---@field max_header_size? integer bytes of all headers (32768): 431
---@field max_headers? integer how many (100): 431
---@field max_body? integer bytes of a body (8 MiB): 413
---@field head_timeout? number seconds from the start of a connection, or the first byte of a later request, until
---the head is whole (10): 408
---@field idle_timeout? number seconds of silence between requests (60)
---@field body_timeout? number seconds that a handler waits for bytes of a body, in all (30); each `body_rate` bytes
---that come give a second more: 408
---@field body_rate? integer bytes a second (1024)
---@field write_timeout? number seconds in which the client must take what is written, 256 KiB at most at a time (30)
---@field max? integer connections at once, on each thread (10000); more wait in the system's backlog
---@field max_requests? integer of one connection (100000)
---@field threads? integer serve on that many threads, see asynctask.net
---@field on_error? fun(err: any, t?: asynctask.Task, req?: asynctask.http.Request) faults of handlers; also those of
---TLS handshakes, which have neither task nor request and are not reported without this
---@field tls? asynctask.tls.options serve https: `cert`, `key` and what else asynctask.tls takes
local defaults = {
  max_line = 8192, max_header_size = 32768, max_headers = 100, max_body = 8 * 1024 * 1024,
  head_timeout = 10, idle_timeout = 60, body_timeout = 30, body_rate = 1024, write_timeout = 30,
  max = 10000, max_requests = 100000,
}

local LINGER_SECONDS <const> = 2

local function seconds(v)
  return type(v) == "number" and v > 0, "positive number of seconds"
end

local function size(v)
  return math.type(v) == "integer" and v > 0 and v <= 1 << 30, "integer between 1 and 2^30"
end

local function is_table(v)
  return type(v) == "table", "table"
end

local own_options = {
  max_line = size, max_header_size = size, max_headers = size, max_body = check.positive, head_timeout = seconds,
  idle_timeout = seconds, body_timeout = seconds, body_rate = check.positive, write_timeout = seconds,
  max_requests = check.positive, on_error = check.callable, tls = is_table,
}

local net_options = { max = check.positive, threads = check.positive }

local listen_options = {
  backlog = check.backlog, reuseport = check.boolean, ipv6only = check.boolean, fastopen = check.positive,
}

-- ---- what connections share --------------------------------------------------------------------

---What the connections of one server share on one thread.
---@class asynctask.http.Record
---@field handler fun(req: asynctask.http.Request): ...
---@field now integer ticks that the sweep has counted
---@field conns table<table, true>
---@field closing boolean
local Record = {}

local record_meta = { __index = Record }

-- settings -> record: the settings are copied once to each thread.
local records = setmetatable({}, { __mode = "k" })

-- The function that a handler's name means; without one a function that fails, and what is wrong.
local function find_handler(handler)
  if type(handler) ~= "string" then
    return handler
  end
  local module, name = handler:match("^(.*)%.([^.]+)$")
  local found, loaded = pcall(require, module)
  local f = found and type(loaded) == "table" and loaded[name]
  if check.callable(f) then
    return f
  end
  local wrong = found and ("module '%s' has no function '%s'"):format(module, name) or tostring(loaded)
  return function()
    error(wrong, 0)
  end, wrong
end

-- The sweep's period: a quarter of the shortest time, within bounds.
local function period_of(settings)
  local least = math.min(settings.head_timeout, settings.idle_timeout, settings.body_timeout, settings.write_timeout)
  return math.min(math.max(least / 4, 0.02), 1)
end

-- A time in ticks: never less, since the tick that runs now has run for a while.
local function ticks(time, period)
  return time == math.huge and 1 << 40 or math.ceil(time / period) + 1
end

local function record_of(settings)
  local record = records[settings]
  if record then
    return record
  end
  local period = period_of(settings)
  record = setmetatable({
    settings = settings, handler = (find_handler(settings.handler)), on_error = settings.on_error,
    max_body = settings.max_body, max_requests = settings.max_requests,
    period = period, now = 0, conns = {}, count = 0, closing = false,
    head_ticks = ticks(settings.head_timeout, period), idle_ticks = ticks(settings.idle_timeout, period),
    body_ticks = ticks(settings.body_timeout, period), write_ticks = ticks(settings.write_timeout, period),
    linger_ticks = ticks(LINGER_SECONDS, period), body_rate = math.max(1, math.ceil(settings.body_rate * period)),
  }, record_meta)
  records[settings] = record
  return record
end

---@return userdata parser
function Record:parser()
  local s = self.settings
  return native.parser(request.meta, s.max_line, s.max_header_size, s.max_headers)
end

-- The certificate was read when the server was started; each thread makes an SSL_CTX of its own of it.
---@param stream asynctask.Stream
---@return asynctask.tls.Stream? secured nil: the handshake failed
function Record:secure(stream)
  local opts = { handshake_timeout = self.settings.tls.handshake_timeout or self.settings.head_timeout }
  local handshake = require "asynctask.tls.handshake"
  local ok, secured = core.pcall(handshake.run, stream, opts, true, nil, self.settings.tls_context)
  if ok then
    return secured
  elseif self.on_error and type(secured) == "table" then
    spawn(self.on_error, secured)
  end
end

-- Ends what is late. One timer for all connections.
local function sweep(record)
  while true do
    await(core.delay(record.period))
    local now = record.now + 1
    record.now = now
    for conn in pairs(record.conns) do
      if conn.deadline <= now then
        conn:expire()
      end
      if conn.write_deadline <= now then
        conn:expire_write()
      end
    end
  end
end

---@param conn table
function Record:add(conn)
  self.conns[conn] = true
  self.count = self.count + 1
  if self.count == 1 then
    self.sweep = spawn(sweep, self):named("http sweep")
  end
end

---@param conn table
function Record:remove(conn)
  self.conns[conn] = nil
  self.count = self.count - 1
  if self.count == 0 then
    self.sweep:cancel()
    self.sweep = nil
  end
end

---The body of each connection's task.
---@param stream asynctask.Stream
---@param settings table
function M.connection(stream, settings)
  return connection.run(stream, record_of(settings))
end

---The server closes: connections end after the response that they are at, idle ones at once.
---@param settings table
function M.closing(settings)
  local record = record_of(settings)
  record.closing = true
  for conn in pairs(record.conns) do
    conn:finish()
  end
end

-- ---- serving -----------------------------------------------------------------------------------

local function is_server(v)
  return type(v) == "userdata" and getmetatable(v) == core.net.Server
end

local function handler_fits(v)
  return check.callable(v) or type(v) == "string" and v:find("^[%w_.]+%.[%w_]+$") ~= nil
end

-- Two functions for asynctask.net, which are copied to threads: their upvalues are data and the handler.
local function entry_points(settings)
  return function(stream)
    return require("asynctask.http.server").connection(stream, settings)
  end, function()
    require("asynctask.http.server").closing(settings)
  end
end

local function sort_options(opts, arg, listening)
  local known, settings, for_net = {}, {}, {}
  for _, list in ipairs { own_options, net_options, listening and {} or listen_options } do
    for name, fits in pairs(list) do
      known[name] = fits
    end
  end
  for name, value in pairs(defaults) do
    settings[name] = value
  end
  for name, value in pairs(check.options(opts, arg, "serve", known)) do
    if own_options[name] then
      settings[name] = value
    else
      for_net[name] = value
    end
  end
  for_net.max = for_net.max or defaults.max
  return settings, for_net
end

-- The options of a server's TLS, checked; loads asynctask.tls.
local function check_tls(opts, arg)
  local handshake = require("asynctask.tls") and require "asynctask.tls.handshake"
  local all = { alpn = not opts.context and { "http/1.1" } or nil }
  for name, value in pairs(opts) do
    all[name] = value
  end
  check.options(all, arg, "serve", handshake.options)
  all.server = nil
  handshake.check(all, arg, "serve", true)
  return all
end

---Serves HTTP/1.1. `handler(req)` runs as a task of its own for each request and returns `status, headers, body` (or a
---body alone, or a status with or without a body), or answers piece by piece (`req:respond`). It is cancelled when the
---client goes away. An error in it is answered with 500 and reported; one that is a table with a `status` is answered
---with that. The Task ends when it is cancelled or the server is closed; see docs/http_server.md.
---
---    http.serve(host, port, handler, opts)
---    http.serve({ path = }, handler, opts)         -- a Unix socket
---    http.serve(server, handler, opts)             -- of net.listen, to be closed gently: server:close{grace=}
---
---Follows RFC 9110 and RFC 9112.
---@param host string|{ path: string }|{ fd: integer }|asynctask.Server
---@param port? integer left out with the others
---@param handler string|fun(req: asynctask.http.Request): any, any, any with `threads`: or "module.function"
---@param opts? asynctask.http.serve_options and those of `net.listen`
---@return asynctask.Task ends when the server is closed
function M.serve(host, port, handler, opts)
  local listening, n = is_server(host), 1
  if not listening then
    if type(host) == "table" and host.fd ~= nil then
      check.expect(math.type(host.fd) == "integer" and host.fd >= 0, 1, "serve", "descriptor in field 'fd'", host.fd)
    else
      n = check.address("serve", 1, host, port)
    end
  end
  if n == 1 then
    port, handler, opts = nil, port, handler
  end
  check.expect(handler_fits(handler), n + 1, "serve", 'function or "module.function"', handler)
  local settings, for_net = sort_options(opts, n + 2, listening)
  settings.handler = handler
  local _, wrong = find_handler(not for_net.threads and handler or nil)
  if wrong then
    check.bad(n + 1, "serve", wrong)
  end
  local function serve()
    local serve_one, closing = entry_points(settings)
    for_net.on_close = closing
    if listening then
      return host:serve(serve_one, for_net)
    elseif n == 1 then
      return net.serve(host, serve_one, for_net)
    end
    return net.serve(host, port, serve_one, for_net)
  end
  if not settings.tls then
    return serve()
  end
  local tls = check_tls(settings.tls, n + 2)
  settings.tls = { handshake_timeout = tls.handshake_timeout }
  return start(function()
    settings.tls_context = require("asynctask.tls.context").of(tls, true)
    await(serve())
  end):named("serve")
end

M.start = start

return M
