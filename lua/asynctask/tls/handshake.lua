-- handshake.lua - from a stream to an encrypted one: `tls.wrap`, and what connect and serve share with it.

local core = require "asynctask.core"
local check = require "asynctask.check"
local context = require "asynctask.tls.context"
local failure = require "asynctask.tls.failure"
local stream = require "asynctask.tls.stream"

local await, try, start = core.await, core.try, core.start
local is_cancelled, with_timeout = core.is_cancelled, core.with_timeout

local TIMEOUT = 30 -- seconds

local M = {}

---@class asynctask.tls.options: asynctask.tls.context_options
---@field context? asynctask.tls.Context in place of the options of a context, `alpn` excepted
---@field server_name? string client: the name to ask for and to verify; `connect` takes the host
---@field insecure_skip_verify? boolean client: true accepts every certificate, for every name
---@field handshake_timeout? number seconds (30)

local function name(v)
  return type(v) == "string" and v ~= "" and #v < 256 and not v:find("[%z\1-\32\127-\255]"), "host name or address"
end

---Predicates of the options of a connection, those of a context included.
M.options = {
  context = context.is_context, server_name = name, insecure_skip_verify = check.boolean,
  handshake_timeout = check.seconds,
}
for option, fits in pairs(context.options) do
  M.options[option] = fits
end

---Checks options that belong together.
---@param opts table
---@param arg integer
---@param caller string
---@param server boolean
function M.check(opts, arg, caller, server)
  if opts.context then
    for option in pairs(context.options) do
      if opts[option] ~= nil and option ~= "server" and (server or option ~= "alpn") then
        check.bad(arg, caller, ("option '%s' belongs to the context"):format(option))
      end
    end
    if opts.context:is_server() ~= server then
      check.bad(arg, caller, ("option 'context': one for %s expected"):format(server and "servers" or "clients"))
    end
  else
    context.check(setmetatable({ server = server }, { __index = opts }), arg, caller)
  end
  if server and (opts.server_name or opts.insecure_skip_verify ~= nil) then
    check.bad(arg, caller, ("option '%s' is a client's"):format(opts.server_name and "server_name"
      or "insecure_skip_verify"))
  elseif not server and not opts.server_name and not opts.insecure_skip_verify then
    check.bad(arg, caller, "option 'server_name' expected: whose certificate it has to be")
  elseif opts.server_name and opts.server_name:sub(1, 1) == "." then -- OpenSSL would take every name below it
    check.bad(arg, caller, "option 'server_name': a name that begins with a dot is none of a host")
  end
end

-- ---- the handshake ---------------------------------------------------------------------------------

local guard_meta = {}

-- Without an outcome the transport is closed: gently, so that an alert gets there; at once where nobody waits.
function guard_meta.__close(guard, err)
  if err ~= nil then
    local t = guard.transport:close()
    if (is_cancelled(err) or core.cancelling()) and not t:done() then
      t:cancel()
    end
  end
end

-- Whom a session may be resumed with: the name that was verified, and that it was.
local function session_key(transport, opts)
  if not opts.server_name then
    return nil
  end
  local peer = transport.peername and transport:peername()
  return ("%s|%s|%s"):format(opts.server_name, peer and (peer.port or peer.path) or "",
    opts.insecure_skip_verify and "unverified" or "verified")
end

local function connection(transport, opts, plain)
  local native = context.native(plain)
  local conn, message, reason, kind
  if plain.server then
    conn, message, reason, kind = native:server()
  else
    local server_name = opts.server_name and opts.server_name:gsub("^%[(.*)%]$", "%1"):gsub("%.$", "")
    conn, message, reason, kind = native:client(server_name, not opts.insecure_skip_verify,
      session_key(transport, opts), opts.alpn and context.wire(opts.alpn))
  end
  if not conn then
    error(failure.of("handshake", message, reason, kind), 0)
  end
  return conn
end

-- Talks until both sides agree; raises what one of them does not like.
local function agree(transport, conn, address)
  local bytes
  while true do
    local done, message, reason, kind = conn:handshake(bytes)
    local out = conn:output()
    if done == nil then
      if out then
        try(transport:write(out)) -- the alert
      end
      error(failure.of("handshake", message, reason, kind, address), 0)
    elseif out then
      await(transport:write(out))
    end
    if done then
      return
    end
    bytes = await(transport:read_some())
    if not bytes then
      error(failure.truncated("handshake", address), 0)
    end
  end
end

local function run(transport, opts, server, address, plain)
  local _ <close> = setmetatable({ transport = transport }, guard_meta)
  local conn = connection(transport, opts, plain or context.of(opts, server))
  agree(transport, conn, address)
  local self = stream.new(transport, conn)
  stream.take(self, "") -- what came with the last step
  return self
end

---The encrypted stream over `transport`, for checked options. Waits, no longer than they say.
---@param transport table
---@param opts table
---@param server boolean
---@param address? string for errors
---@param plain? table of the context, where it is known
---@return asynctask.tls.Stream
function M.run(transport, opts, server, address, plain)
  local seconds = opts.handshake_timeout or TIMEOUT
  if seconds == math.huge then
    return run(transport, opts, server, address, plain)
  end
  return with_timeout(seconds, run, transport, opts, server, address, plain)
end

local function is_stream(v)
  local kind = type(v)
  return (kind == "userdata" or kind == "table") and v.read_some ~= nil and v.write ~= nil and v.close ~= nil
end

---Encrypts a stream. It belongs to the new one from then on, and is closed when the handshake fails or is
---cancelled. A client needs `server_name` (or `insecure_skip_verify`), a server `server = true`, `cert` and `key`, or
---the `context` of a server.
---@param transport asynctask.Stream|table anything with the methods of a stream
---@param opts? asynctask.tls.options
---@return asynctask.Task stream an `asynctask.tls.Stream`; faults with ECERT, EPROTO, ETIMEDOUT
function M.wrap(transport, opts)
  check.expect(is_stream(transport), 1, "wrap", "stream", transport)
  opts = check.options(opts, 2, "wrap", M.options)
  local server = opts.server
  if server == nil then
    server = opts.context ~= nil and opts.context:is_server()
  end
  M.check(opts, 2, "wrap", server)
  if core.cancelling() then
    return core.from_cancelled()
  end
  return start(M.run, transport, opts, server):named("tls handshake")
end

return M
