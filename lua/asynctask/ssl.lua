-- asynctask.ssl - LuaSec's API (version 1.2) over asynctask.tls: `wrap` takes the descriptor of a socket of
-- asynctask.socket, and each call that waits lets other tasks run. Configurations: ssl/config.lua; certificates:
-- ssl/x509.lua. docs/compatibility.md says what differs; what matters: with verify = "peer" a client verifies the
-- host's name, too.

local core = require "asynctask.core"
local check = require "asynctask.check"
local config = require "asynctask.ssl.config"
local x509 = require "asynctask.ssl.x509"
local inet = require "asynctask.socket.inet"
local stream = require "asynctask.socket.stream"
local tls = require "asynctask.tls"
local wait = require "asynctask.socket.wait"

local await, try, spawn, yield, cancelling = core.await, core.try, core.spawn, core.yield, core.cancelling

local RECORD = 16384 -- bytes that are encrypted and waited for at once

---A connection, as `ssl.wrap` gives it.
---@class asynctask.ssl.Connection
local Connection = {}

local meta = { __index = Connection, __name = "SSL:Connection" }

-- Connection -> its state: as a stream's of asynctask.socket, and `transport`, `context`, `name`, `secure` (the
-- encrypted stream, once there is one), `handshake` (a Task), `pending` (a write that goes on), `wants`.
local states = setmetatable({}, { __mode = "k" })

local function state_of(self, name)
  local state = states[self]
  if not state then
    check.raise(("calling '%s' on bad self (SSL:Connection expected)"):format(name))
  end
  return state
end

-- ---- waiting -------------------------------------------------------------------------------------

-- Waits for the Task under the timeouts: true when it has settled. Without time it gives the loop a look at the world.
local function settled(state, t)
  if t:done() then
    return true
  elseif state.block == 0 then
    for _ = 1, 2 do
      await(yield())
    end
    return t:done()
  end
  local seconds = wait.left(state)
  local timer = seconds >= 0 and core.delay(seconds) or nil
  await(timer and core.when_any { t, timer } or core.when_any { t })
  if timer then
    timer:cancel()
  end
  return t:done()
end

-- LuaSec's words for the outcome of a Task that failed.
local function words(err)
  if type(err) ~= "table" or not err.code then
    error(err, 0)
  elseif err.reason == "truncated" or err.code == "ECONNRESET" or err.code == "EPIPE" or err.code == "EBADF" then
    return "closed"
  end
  return type(err.reason) == "string" and err.reason or err.message
end

-- ---- receiving and sending -----------------------------------------------------------------------

-- Lets go of a Task that is asked no more: what it would have taken stays in the stream.
local dropper = {
  __close = function(dropped)
    if not dropped.task:done() then
      dropped.task:cancel()
    end
  end,
}

local function fill(self, state, size)
  if not state.secure then
    return nil, "closed"
  end
  local t = state.secure:read_some(size)
  local _ <close> = wait.hold(self, state, "receiving")
  local _ <close> = setmetatable({ task = t }, dropper)
  if not settled(state, t) then
    state.wants = "read"
    return nil, "wantread"
  end
  state.wants = "nothing"
  local data, err = try(t)
  if data then
    return data
  end
  return nil, err == nil and "closed" or words(err)
end

local function abort(self)
  local state = states[self]
  local t = state.secure and state.secure:close()
  if t and not t:done() then
    t:cancel()
  end
end

-- The write goes on, whatever becomes of the call: OpenSSL's rule is that the same bytes are sent again then.
local function begin_write(state, piece)
  local secure = state.secure
  return { bytes = #piece, task = spawn(function()
    return select(2, try(secure:write(piece))) -- its error, as a value: nobody may ask
  end) }
end

local function put(self, data, first, last)
  local state = states[self]
  if not state.secure then
    return nil, "closed"
  end
  local pending = state.pending or begin_write(state, data:sub(first, math.min(last, first + RECORD - 1)))
  state.pending = pending
  local _ <close> = wait.hold(self, state, "sending", true, abort)
  if not settled(state, pending.task) then
    state.wants = "write"
    return nil, "wantwrite"
  end
  state.wants, state.pending = "nothing", nil
  local err = await(pending.task)
  if err ~= nil then
    return nil, words(err)
  end
  return math.min(pending.bytes, last - first + 1)
end

---As the `receive` of a TCP client; "wantread" in place of "timeout".
---@param pattern? string|number
---@param prefix? string
---@return string? data
---@return string? err
---@return string? partial
function Connection:receive(pattern, prefix)
  return stream.receive(self, state_of(self, "receive"), pattern, prefix)
end

---As the `send` of a TCP client; "wantwrite" in place of "timeout": then the same bytes have to be sent again.
---@param data string
---@param first? number
---@param last? number
---@return number? last
---@return string? err
---@return number? partial
function Connection:send(data, first, last)
  return stream.send(self, state_of(self, "send"), data, first, last)
end

---@return boolean whether there are bytes to receive without the system
function Connection:dirty()
  local state = state_of(self, "dirty")
  if stream.dirty(state) or not state.secure then
    return stream.dirty(state)
  end
  local t = state.secure:read_some()
  if not t:done() then
    t:cancel()
    return false
  end
  local data = try(t)
  if data then
    state.buffer, state.position = data, 1
  end
  return data ~= nil
end

-- ---- the handshake -------------------------------------------------------------------------------

---Shakes hands. After "wantread" it goes on when it is called again.
---@return boolean ok
---@return string? err
function Connection:dohandshake()
  local state = state_of(self, "dohandshake")
  wait.begin(state)
  if state.secure then
    return true
  elseif not state.transport then
    return false, "closed"
  end
  if not state.handshake then
    local transport, options = state.transport, config.options(state.context, state.name, state.host)
    if type(options) == "string" then
      return false, options
    end
    state.handshake = spawn(function()
      return try(tls.wrap(transport, options)) -- a failure is a value: nobody may ask
    end)
  end
  if not settled(state, state.handshake) then
    state.wants = "read"
    return false, "wantread"
  end
  state.wants = "nothing"
  if state.secure then -- of another task's call
    return true
  elseif not state.transport then -- closed meanwhile
    return false, "closed"
  end
  local secure, err = await(state.handshake)
  state.transport, state.secure = nil, secure
  if not secure then
    return false, err.code == "ECERT" and "certificate verify failed" or words(err)
  end
  return true
end

---A client: the name to ask for (and, with verify, to see in the certificate). A server's table of contexts by name
---is given to `newcontext` here: `names`.
---@param name string
---@return boolean? ok
---@return string? err
function Connection:sni(name)
  local state = state_of(self, "sni")
  check.expect(type(name) == "string", 1, "sni", "string", name)
  state.name = name
  return true
end

---@return "nothing"|"read"|"write"
function Connection:want()
  return state_of(self, "want").wants
end

-- ---- the rest ------------------------------------------------------------------------------------

---Tells the peer and closes, once what was sent is out.
function Connection:close()
  local state = state_of(self, "close")
  local open = state.secure or state.transport
  state.secure, state.transport = nil, nil
  if state.handshake and not state.handshake:done() then
    state.handshake:cancel()
  end
  local t = open and open:close()
  if t and not t:done() and not cancelling() then
    pcall(await, t) -- where it cannot be waited for, it goes on
  end
end

meta.__close = Connection.close

---@param seconds? number
---@param mode? string
---@return number one
function Connection:settimeout(seconds, mode)
  inet.settimeout(state_of(self, "settimeout"), seconds, mode)
  return 1.0
end

---@return number received
---@return number sent
---@return number age seconds
function Connection:getstats()
  return stream.getstats(state_of(self, "getstats"))
end

---@param received? number
---@param sent? number
---@param age? number
---@return number one
function Connection:setstats(received, sent, age)
  return stream.setstats(state_of(self, "setstats"), received, sent, age)
end

---@return number fd -1 when it is closed
function Connection:getfd()
  local state = state_of(self, "getfd")
  local open = state.secure or state.transport
  return (open and open:fd() or -1) + 0.0
end

---@return string? protocol that was agreed upon
function Connection:getalpn()
  local secure = state_of(self, "getalpn").secure
  return secure and secure:alpn() or nil
end

---@return string? name that the client has asked for
function Connection:getsniname()
  local secure = state_of(self, "getsniname").secure
  return secure and secure:server_name() or nil
end

---@param n? integer 1, the peer's own
---@return table? certificate as of LuaSec's `ssl.x509`
---@return string? err
function Connection:getpeercertificate(n)
  local secure = state_of(self, "getpeercertificate").secure
  if n ~= nil and n ~= 1 then
    return nil, "only the peer's own certificate is known"
  end
  local certificate = secure and secure:peer_certificate()
  return certificate and x509.of(certificate) or nil
end

---@return boolean verified
---@return table? errors
function Connection:getpeerverification()
  local state = state_of(self, "getpeerverification")
  if state.secure and state.context.verify and state.secure:peer_certificate() then
    return true
  end
  return false, { {}, { "not verified" } }
end

---What was agreed upon.
---@param field? "protocol"|"cipher"|"bits"|"compression"|"encryption"
---@return any info a table, or the field
function Connection:info(field)
  local secure = state_of(self, "info").secure
  if not secure then
    return nil
  end
  local cipher = secure:cipher()
  local info = {
    protocol = secure:version():gsub("^TLSv1$", "TLSv1.0"), cipher = cipher,
    bits = tonumber(cipher:match("AES_?(%d+)")) or cipher:find("CHACHA20", 1, true) and 256 or nil,
  }
  if field then
    return info[field]
  end
  return info
end

function meta.__tostring(self)
  local state = states[self]
  return ("SSL connection: %p%s"):format(self, not (state.secure or state.transport) and " (closed)" or "")
end

-- ---- the module ----------------------------------------------------------------------------------

local ssl = {
  _VERSION = "1.2.0", config = config.config, loadcertificate = x509.load, newcontext = config.newcontext,
}

---Makes a connection of a socket that is connected; the socket has no descriptor then.
---@param socket userdata of asynctask.socket
---@param cfg table a configuration, or a context of `newcontext`
---@return asynctask.ssl.Connection? connection
---@return string? err
function ssl.wrap(socket, cfg)
  local context = cfg
  if not config.is_context(cfg) then
    local err
    check.expect(type(cfg) == "table", 2, "wrap", "context", cfg)
    context, err = config.newcontext(cfg)
    if not context then
      return nil, err
    end
  end
  local below = core.socket.state(socket)
  check.expect(below ~= nil, 1, "wrap", "socket of asynctask.socket", socket)
  local transport, failure = core.socket.stream(socket)
  if not transport then
    return nil, failure.message
  end
  local state = stream.init { transport = transport, context = context, host = below.host, wants = "nothing",
    fill = fill, put = put }
  state.block, state.total = below.block, below.total
  local self = setmetatable({}, meta)
  states[self] = state
  return self
end

return ssl
