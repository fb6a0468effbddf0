-- websocket.lua - a WebSocket over a stream (RFC 6455): who waits for what, keepalive, closing. The protocol is
-- wslay's (csrc/ext/wslay), which does no I/O; the handshakes are in upgrade.lua and wsconnect.lua.
--
-- One task reads, belongs to nobody and knows only `inner`: so the object that users hold can be collected, and
-- then the connection is closed. What is sent is written by whoever sends it, whole frames at a time.

require "asynctask" -- Task:timeout is there
local core = require "asynctask.core"
local check = require "asynctask.check"
local iterator = require "asynctask.iterator"

local found, wslay = pcall(require, "asynctask.wslay")
if not found then
  error("WebSockets need the library wslay, which asynctask was built without: install it (Debian: libwslay-dev; "
    .. "pkg-config: libwslay) and build again\n" .. tostring(wslay), 0)
end

local await, try, wait, spawn, shield = core.await, core.try, core.wait, core.spawn, core.shield
local source, from_result, from_error, now = core.source, core.from_result, core.from_error, core.now

local MESSAGE = 1024 * 1024 -- bytes of a message
local BUFFER = 64 * 1024    -- bytes of messages that wait before reading is held up
local EXTRA = 64            -- what a message counts beside its bytes
local INTERVAL, PATIENCE = 30, 10
local CLOSING = 5           -- seconds for the peer to answer a close frame
local LINGER = 1            -- seconds for a server to end the connection, once both have said goodbye

local M = {}

---A connection that both sides send messages over. One `<close>` variable, or the server's end of the request,
---closes it.
---@class asynctask.http.WebSocket
---@field protocol? string the subprotocol that was agreed on
---@field private inner table
local WebSocket = {}

local meta = { __name = "asynctask.http.WebSocket", __index = WebSocket }

local function failure(fields)
  return core.error(fields)
end

-- ---- what came in ------------------------------------------------------------------------------

local function wake_reader(inner)
  local room = inner.room
  if room then
    inner.room = nil
    room:set_result()
  end
end

-- Hands a message to the first that waits, or keeps it.
local function deliver(inner, data, kind)
  while inner.waiting_first <= inner.waiting_last do
    local waiter = inner.waiting[inner.waiting_first]
    inner.waiting[inner.waiting_first] = nil
    inner.waiting_first = inner.waiting_first + 1
    if waiter:set_result(data, kind) then
      return
    end
  end
  if inner.closing then
    return -- nobody wants what comes after close()
  end
  inner.last = inner.last + 1
  inner.queue[inner.last] = { data, kind }
  inner.held = inner.held + #data + EXTRA
end

-- The oldest message that waits.
local function take(inner)
  local message = inner.queue[inner.first]
  inner.queue[inner.first] = nil
  inner.first = inner.first + 1
  inner.held = inner.held - #message[1] - EXTRA
  if inner.held < inner.buffer then
    wake_reader(inner)
  end
  return message[1], message[2]
end

-- A pong answers every ping up to its own (RFC 6455, 5.5.3).
local function pong(inner, payload)
  for i, ping in ipairs(inner.pings) do
    if ping.payload == payload then
      local time = now()
      for _, answered in ipairs(table.move(inner.pings, 1, i, 1, {})) do
        answered.source:set_result(time - answered.time)
      end
      inner.pings = table.move(inner.pings, i + 1, #inner.pings, 1, {})
      return
    end
  end
end

-- Everything that the protocol has made of the bytes so far.
local function dispatch(inner)
  while true do
    local kind, data, code = inner.session:take()
    if kind == "text" or kind == "binary" then
      deliver(inner, data, kind)
    elseif kind == "pong" then
      pong(inner, data)
    elseif kind == "close" then
      inner.code, inner.reason = code, data
    elseif not kind then
      return
    end
  end
end

-- ---- the task that reads -------------------------------------------------------------------------

local BROKEN = {
  [1002] = { "EPROTO", "the peer has sent an invalid frame" },
  [1007] = { "EILSEQ", "the peer has sent text that is not UTF-8" },
  [1009] = { "EMSGSIZE", "the peer has sent a message that is too large" },
}

local function is_deadline(err)
  return type(err) == "table" and err.code == "ETIMEDOUT" and err.op == "timeout"
end

local function silent()
  return failure { code = "ETIMEDOUT", op = "keepalive", message = "the peer does not answer" }
end

-- Writes what the protocol has to say, and does not wait for a peer that is silent.
local function answer(inner)
  local out = inner.session:output()
  if out then
    local ok, err = try(inner.stream:write(out):timeout(inner.interval + inner.patience))
    if not ok and err then
      error(is_deadline(err) and silent() or err, 0)
    end
  end
end

-- Writes without waiting; that it may fail is no news, since reading tells it too.
local function write_beside(inner)
  local out = inner.session:output()
  local t = out and inner.stream:write(out)
  if t then
    spawn(try, t)
  end
end

-- The next bytes, nil at the end. A peer that is silent gets a ping, and then has to say something.
local function read(inner)
  local asked = false
  while true do
    local data, err = try(inner.stream:read_some():timeout(asked and inner.patience or inner.interval))
    if data or not err then
      return data
    elseif not is_deadline(err) then
      error(err, 0)
    elseif asked then
      error(silent(), 0)
    end
    asked = true
    inner.session:send("ping", "")
    write_beside(inner)
  end
end

local function wait_for_room(inner)
  while inner.held >= inner.buffer and not inner.closing do
    inner.room = source()
    await(inner.room.task)
  end
end

-- Until both have closed; raises why it ended otherwise.
local function read_all(inner)
  local session = inner.session
  while true do
    wait_for_room(inner)
    local data = inner.rest or read(inner)
    inner.rest = nil
    if not data then
      error(failure { code = "ECONNRESET", op = "receive", message = "the connection ended without a close frame" }, 0)
    end
    session:feed(data)
    dispatch(inner)
    answer(inner)
    local _, received, broken = session:state()
    if broken then
      local what = BROKEN[broken] or BROKEN[1002]
      error(failure { code = what[1], op = "receive", message = what[2], status = broken }, 0)
    elseif received then
      return
    end
  end
end

-- Takes what still comes, so that the close frame is not lost to a reset of the connection.
local function drain(inner)
  while try(inner.stream:read_some()) do end
end

local function goodbye(inner, err)
  local code = err.status or err.op == "keepalive" and 1011
  if code then
    inner.session:close(code)
    write_beside(inner)
    try(inner.stream:shutdown())
    core.pcall(core.with_timeout, inner.close_timeout, drain, inner)
  end
end

local function refuse_waiters(inner)
  for i = inner.waiting_first, inner.waiting_last do
    local waiter = inner.waiting[i]
    if inner.failure then
      waiter:set_error(inner.failure)
    else
      waiter:set_result(nil)
    end
  end
  inner.waiting, inner.waiting_first, inner.waiting_last = {}, 1, 0
  for _, ping in ipairs(inner.pings) do
    ping.source:set_error(inner.failure
      or failure { code = "EPIPE", op = "ping", message = "the WebSocket is closed" })
  end
  inner.pings = {}
end

-- It is over, whatever ended it.
local function finish(inner)
  inner.ended = true
  inner.code, inner.reason = inner.code or 1006, inner.reason or ""
  refuse_waiters(inner)
  local t = inner.stream:close()
  if not t:done() then
    shield(try, t)
  end
end

local finish_meta = { __close = function(guard) finish(guard.inner) end }

local function reader(inner)
  local _ <close> = setmetatable({ inner = inner }, finish_meta)
  local ok, err = core.pcall(read_all, inner)
  if ok then
    if not inner.server then
      core.pcall(core.with_timeout, LINGER, drain, inner)
    end
    return
  end
  if type(err) ~= "table" then
    err = failure { code = "EIO", op = "receive", message = tostring(err) }
  end
  if not inner.closing then
    inner.failure = err
    refuse_waiters(inner)
  end
  goodbye(inner, err)
end

-- ---- the object ----------------------------------------------------------------------------------

---The next message: Task of its bytes and "text" or "binary"; nil once the WebSocket was closed by either side
---(`closed` says why) and all messages are taken. Faults when it ended otherwise: ECONNRESET (the connection was
---lost, or ended without a close frame), ETIMEDOUT (no answer to a ping), EPROTO, EILSEQ, EMSGSIZE (the peer broke a
---rule; it was told by a close frame), after the messages that came before. A receive that is cancelled has taken
---nothing.
---@return asynctask.Task message, kind
function WebSocket:receive()
  local inner = self.inner
  if inner.first <= inner.last then
    if core.cancelling() then
      return source().task -- cancelled: it takes nothing (S10)
    end
    return from_result(take(inner))
  elseif inner.failure then
    return from_error(inner.failure)
  elseif inner.ended then
    return from_result(nil)
  end
  local waiter = source()
  if not waiter.task:done() then
    inner.waiting_last = inner.waiting_last + 1
    inner.waiting[inner.waiting_last] = waiter
  end
  return waiter.task
end

---Iterates over messages: `for message, kind in ws:each() do`. Ends when the WebSocket was closed; does not close it.
---@return asynctask.Iterator iterator
---@return nil
---@return nil
---@return asynctask.Iterator
function WebSocket:each()
  return iterator.new(function()
    return self:receive()
  end)
end

local function is_closed(op)
  return from_error(failure { code = "EPIPE", op = op, message = "the WebSocket is closed" })
end

-- Queues a frame and writes it. In a cancelled scope nothing begins (S10): the write is cancelled, the frame dropped.
local function send(inner, op, kind, data)
  if inner.failure then
    return from_error(inner.failure)
  elseif inner.ended or not inner.session:send(kind, data) then
    return is_closed(op)
  end
  return inner.stream:write(inner.session:output())
end

local send_options = { binary = check.boolean }

---Sends a message, as text unless `binary` is set. Settles as a stream's write does: at once while less than 64 KiB are
---on their way, so that a slow peer slows its sender down. Faults with EPIPE once the WebSocket is closed.
---@param message string text has to be UTF-8
---@param opts? { binary?: boolean }
---@return asynctask.Task
function WebSocket:send(message, opts)
  check.expect(type(message) == "string", 1, "send", "string", message)
  local binary = opts and check.options(opts, 2, "send", send_options).binary
  if not binary and not utf8.len(message) then
    check.bad(1, "send", "text is not valid UTF-8; {binary = true} sends bytes")
  end
  return send(self.inner, "send", binary and "binary" or "text", message)
end

---Sends a ping; settles with the seconds until its pong. Keeping the connection alive goes on by itself.
---@param payload? string up to 125 bytes; none: a number of its own
---@return asynctask.Task seconds
function WebSocket:ping(payload)
  check.expect(payload == nil or type(payload) == "string", 1, "ping", "string", payload)
  if payload and #payload > 125 then
    check.bad(1, "ping", "more than 125 bytes")
  end
  local inner = self.inner
  inner.ping_count = inner.ping_count + 1
  payload = payload or tostring(inner.ping_count)
  local t = send(inner, "ping", "ping", payload)
  if t:done() and t:status() ~= "succeeded" then
    return t
  end
  spawn(try, t) -- when it fails, reading does
  local ping = { payload = payload, time = now(), source = source() }
  inner.pings[#inner.pings + 1] = ping
  return ping.source.task
end

local function begin_closing(inner, code, reason)
  if not inner.ended then
    inner.session:close(code, reason)
    write_beside(inner)
    wake_reader(inner)
    core.pcall(core.with_timeout, inner.close_timeout, wait, inner.reader)
    inner.reader:cancel("the WebSocket was closed")
  end
  wait(inner.reader)
end

local function code_fits(code)
  return math.type(code) == "integer" and (code >= 1000 and code <= 1014 and code ~= 1004 and code ~= 1005
    and code ~= 1006 or code >= 3000 and code <= 4999)
end

---Closes: sends a close frame, waits up to `close_timeout` seconds for the peer's, and ends the connection. Messages
---that have not been received by then can still be. Closing twice is fine; happens in cancelled scopes too.
---@param code? integer 1000 (normal), 1001 (going away) to 1014, or 3000 to 4999 (RFC 6455, 7.4)
---@param reason? string UTF-8, up to 123 bytes
---@return asynctask.Task closed
function WebSocket:close(code, reason)
  if code ~= nil and not code_fits(code) then
    check.bad(1, "close", ("%s is not a code that can be sent"):format(tostring(code)))
  end
  check.expect(reason == nil or type(reason) == "string", 2, "close", "string", reason)
  if reason and (#reason > 123 or not utf8.len(reason)) then
    check.bad(2, "close", "reason is not UTF-8 of up to 123 bytes")
  end
  local inner = self.inner
  if not inner.closing then
    inner.closing = true
    inner.closer = spawn(begin_closing, inner, code or 1000, reason):named("close WebSocket")
  end
  return inner.closer
end

---Why it is over: the code and the reason of the peer's close frame, 1005 for one without a code, 1006 when there was
---none; nil while it is open.
---@return integer? code
---@return string? reason
function WebSocket:closed()
  local inner = self.inner
  if inner.code then
    return inner.code, inner.reason
  end
end

---Waits until it is over, whoever or whatever ended it.
---@return asynctask.Task code, reason as `closed` gives them
function WebSocket:wait()
  local inner = self.inner
  return core.start(function()
    wait(inner.reader)
    return inner.code, inner.reason
  end)
end

---The address of the other side, as a stream's.
---@return table? address
---@return asynctask.Error?
function WebSocket:peername()
  return self.inner.stream:peername()
end

---The address of this side.
---@return table? address
---@return asynctask.Error?
function WebSocket:sockname()
  return self.inner.stream:sockname()
end

-- Leaving a scope closes, and says to the peer why.
function meta.__close(self, err)
  local code = 1000
  if err ~= nil then
    code = core.is_cancelled(err) and 1001 or 1011
  end
  local t = self:close(code)
  if not t:done() then
    shield(wait, t)
  end
end

function meta.__gc(self)
  local inner = self.inner
  if not inner.ended and not inner.closing then
    pcall(inner.reader.cancel, inner.reader, "the WebSocket was collected")
  end
end

-- ---- making one ----------------------------------------------------------------------------------

local function interval(v)
  return v == false or type(v) == "number" and v > 0, "seconds or false"
end

---Options of both sides, with the predicates that check them.
M.options = {
  max_message = check.positive,
  buffer = check.positive,
  ping_interval = interval,
  ping_timeout = check.seconds,
  close_timeout = check.seconds,
}

---@class asynctask.http.websocket_options
---@field max_message? integer bytes of a message that is received (1 MiB); a larger one ends the connection (1009)
---@field buffer? integer bytes of messages that wait to be received before reading is held up (64 KiB)
---@field ping_interval? number|false seconds of silence after which the peer is asked (30); false: never
---@field ping_timeout? number seconds for it to answer (10)
---@field close_timeout? number seconds for it to answer a close frame (5)

---A WebSocket over a stream whose handshake has been made.
---@param stream asynctask.Stream
---@param server boolean which side this is
---@param opts asynctask.http.websocket_options checked
---@param protocol? string
---@param rest? string bytes of the peer that have come already
---@return asynctask.http.WebSocket
function M.over(stream, server, opts, protocol, rest)
  local inner = {
    stream = stream, server = server, session = wslay.session(server, opts.max_message or MESSAGE),
    queue = {}, first = 1, last = 0, held = 0, buffer = opts.buffer or BUFFER,
    waiting = {}, waiting_first = 1, waiting_last = 0, pings = {}, ping_count = 0,
    interval = opts.ping_interval == nil and INTERVAL or opts.ping_interval or math.huge,
    patience = opts.ping_timeout or PATIENCE, close_timeout = opts.close_timeout or CLOSING, rest = rest,
  }
  local self = setmetatable({ inner = inner, protocol = protocol }, meta)
  inner.reader = spawn(reader, inner):named("WebSocket")
  return self
end

---What the handshakes need of the library.
M.accept, M.key = wslay.accept, wslay.key

---Whether a field that is a list of tokens, such as Connection, has this one; `wanted` is in lower case.
---@param list string?
---@param wanted string
---@return boolean
function M.has_token(list, wanted)
  for token in (list or ""):gmatch("[^,%s]+") do
    if token:lower() == wanted then
      return true
    end
  end
  return false
end

return M
