-- asynctask.tls - encrypted streams (TLS 1.2 and 1.3), on OpenSSL. The protocol is C's (csrc/ext/openssl), which does
-- no I/O; bytes move here, over any stream. Contexts: tls/context.lua. Handshakes: tls/handshake.lua. Streams:
-- tls/stream.lua. Servers: tls/serving.lua.

local core = require "asynctask.core"
local check = require "asynctask.check"
local net = require "asynctask.net"
local address_of = require("asynctask.net.check").address
local openssl = require "asynctask.tls.native"
local context = require "asynctask.tls.context"
local handshake = require "asynctask.tls.handshake"
local serving = require "asynctask.tls.serving"

local await, start = core.await, core.start

---@class asynctask.tls
---@field library string name and version of the library that encrypts
local tls = {
  context = context.context, wrap = handshake.wrap, handler = serving.handler, serve = serving.serve,
  library = openssl.library,
}

---@class asynctask.tls.connect_options: asynctask.tls.options, asynctask.net.connect_options
---@field timeout? number seconds for all of it

-- Options that are net.connect's, which checks them.
local for_net = { "family", "stagger", "local_address", "local_port", "nodelay", "keepalive", "fastopen" }

local function anything()
  return true
end

local known = { timeout = check.seconds }
for _, option in ipairs(for_net) do
  known[option] = anything
end
for option, fits in pairs(handshake.options) do
  known[option] = fits
end

local dialling_meta = {}

-- The connection is wanted no longer, or has passed on.
function dialling_meta.__close(dialling)
  dialling.task:cancel()
end

local function connect(dialling, opts, where)
  local _ <close> = dialling
  local transport = await(dialling.task)
  return handshake.run(transport, opts, false, where)
end

local function connect_within(seconds, ...)
  if seconds then
    return core.with_timeout(seconds, connect, ...)
  end
  return connect(...)
end

---Connects and encrypts. The certificate has to be one for the host (or `server_name`), issued by whom the context
---trusts.
---@param host string|{path: string} as for `net.connect`
---@param port? integer left out with a path
---@param opts? asynctask.tls.connect_options
---@return asynctask.Task stream an `asynctask.tls.Stream`; faults as `net.connect` does, and with ECERT, EPROTO,
---ETIMEDOUT
function tls.connect(host, port, opts)
  local n = address_of("connect", 1, host, port)
  if n == 1 then
    opts = opts or port
    port = nil
  end
  opts = check.options(opts, n + 1, "connect", known)
  if opts.server then
    check.bad(n + 1, "connect", "option 'server' is not for connect")
  end
  local mine, below = {}, {}
  for option, value in pairs(opts) do
    mine[option] = value
  end
  for _, option in ipairs(for_net) do
    below[option] = opts[option]
  end
  mine.server_name = opts.server_name or n == 2 and host or nil
  handshake.check(mine, n + 1, "connect", false)
  local dialling = setmetatable({ task = net.connect(host, n == 2 and port or below, n == 2 and below or nil) },
    dialling_meta)
  local where = n == 2 and ("%s:%d"):format(host, port) or host.path
  return start(connect_within, opts.timeout, dialling, mine, where):named("tls connect " .. where)
end

return tls
