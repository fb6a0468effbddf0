-- stream.lua - a stream that is encrypted. Between two others: the transport, anything with the methods of a
-- stream, and a feed (csrc/io/feed.c), which holds what was decrypted and answers reads from it.
--
-- Who drives: a read that has to wait reads from the transport itself, until it is answered; nobody reads ahead. What
-- the protocol wants to say meanwhile (an answer to a key update, an alert) is sent by that read, as a task of
-- nobody's. Writers take turns: one encrypts, at most PIECE bytes ahead of the transport, the others wait with what
-- they have, not encrypted, so that a write that is cancelled before its turn has sent nothing.
-- Invariant: bytes that OpenSSL puts out are given to transport:write in the same step, so records stay in order.

local core = require "asynctask.core"
local check = require "asynctask.check"
local failure = require "asynctask.tls.failure"
local close_scope = require("asynctask.net.stream").close_scope

local await, try, start, spawn = core.await, core.try, core.start, core.spawn
local cancelling, with_timeout = core.cancelling, core.with_timeout
local from_error, from_result, from_cancelled = core.from_error, core.from_result, core.from_cancelled

local PIECE = 64 * 1024 -- bytes that are encrypted at once
local LINGER = 5        -- seconds without progress after which a close gives up
local BOUNDLESS = 1 << 60 -- the feed's mark: reads bring what it holds themselves

---An encrypted stream. What it does not say itself is as of an `asynctask.Stream`.
---@class asynctask.tls.Stream
---@field private transport table
---@field private conn asynctask.openssl.Connection
---@field private feed asynctask.Feed
---@field private turns any a queue with one permit: to write
---@field private writer table closed when a turn ends
---@field private taken integer turns that tasks were started for
---@field private begun integer how many of these have run
---@field private sent integer bytes given to the transport, to see progress
---@field private shut boolean shutdown was called
---@field private closing boolean
---@field private failed? asynctask.Error of the protocol: nothing goes any more
local Stream = {}

-- ---- ending at once ----------------------------------------------------------------------------

-- Closes without waiting for what is queued.
local function abort(self)
  self.closing = true
  self.feed:close()
  local t = self.transport:close()
  if not t:done() then
    t:cancel()
  end
end

-- ---- reading -------------------------------------------------------------------------------------

-- Sends what the protocol has to say. Whether it arrives, reads and writes find out.
local function send_out(self, bytes)
  self.sent = self.sent + #bytes
  try(self.transport:write(bytes))
end

local function fail(self, err)
  self.failed = err
  self.feed:finish(err)
end

-- What came from the peer: plaintext into the feed, answers to the transport.
local function take(self, bytes)
  local conn, feed = self.conn, self.feed
  local plain, state, message, reason, kind
  repeat
    plain, state, message, reason, kind = conn:receive(bytes)
    if plain and not self.closing then
      feed:push(plain)
    end
    bytes = ""
  until state ~= "more"
  if state == "closed" then
    feed:finish()
  elseif state == "failed" then
    fail(self, failure.of("read", message, reason, kind))
  end
  local out = conn:output()
  if out then
    await(spawn(send_out, self, out)) -- nobody's: a cancelled read must not tear a record
  end
end

-- A read that has to wait: it belongs to this task, and so does what the transport is asked for.
local function drive(self, t)
  local feed = self.feed
  while feed:wanted() do
    local bytes, err = try(self.transport:read_some())
    if bytes then
      take(self, bytes)
    else
      feed:finish(err or failure.truncated("read"))
    end
  end
  return await(t)
end

local function read_later(self, ...)
  return drive(self, self.feed:read(...))
end

local function read_some_later(self, max)
  return drive(self, self.feed:read_some(max))
end

local function read_until_later(self, delimiter, options)
  return drive(self, self.feed:read_until(delimiter, options))
end

-- The Task of a read: settled, or asked again by a task that brings the bytes.
local function answer(t, later, ...)
  if t:done() then
    return t
  end
  t:cancel()
  return start(later, ...)
end

---As `Stream:read`.
---@param ... "l"|"L"|"n"|"a"|integer
---@return asynctask.Task values nil at the end, which the peer has told (close_notify); faults with EPROTO, its reason
---"truncated", when the connection ended without that
function Stream:read(...)
  return answer(self.feed:read(...), read_later, self, ...)
end

---As `Stream:read_some`.
---@param max? integer bytes (64 KiB)
---@return asynctask.Task data
function Stream:read_some(max)
  return answer(self.feed:read_some(max), read_some_later, self, max)
end

---As `Stream:read_until`.
---@param delimiter string
---@param options? { max?: integer, keep?: boolean }
---@return asynctask.Task data
function Stream:read_until(delimiter, options)
  return answer(self.feed:read_until(delimiter, options), read_until_later, self, delimiter, options)
end

Stream.lines = core.net.Stream.__index.lines
Stream.pipe_to = core.net.Stream.__index.pipe_to

-- ---- writing -------------------------------------------------------------------------------------

local writer_meta = {}

-- A turn ends. What was encrypted and not sent cannot be encrypted again: the stream closes.
function writer_meta.__close(writer, err)
  local self = writer.stream
  if err ~= nil and err ~= writer.refused then
    abort(self)
  end
  writer.refused = nil
  self.turns:release(1)
end

-- Waits for the transport's Task; its own failure, which reads are told apart from, tears nothing.
local function settle(self, t)
  local _, err = try(t)
  if err ~= nil then
    self.writer.refused = err
    error(err, 0)
  end
end

-- Encrypts and hands over, in one step: the transport's Task.
local function put(self, bytes, first, last)
  local out, message, reason, kind = self.conn:send(bytes, first, last)
  if not out then
    self.failed = failure.of("write", message, reason, kind)
    return from_error(self.failed)
  end
  self.sent = self.sent + #out
  return self.transport:write(out)
end

-- Starts `f`, whose turn it is now. It says with `begun` that it runs: where starts are nested
-- deeply, it is queued, and may be cancelled before.
local function take_turn(self, f, ...)
  self.turns:try_acquire(1)
  local number = self.taken + 1
  self.taken = number
  local t = start(f, self, ...)
  if self.begun < number then
    t:continue_with(function()
      if self.begun < number then
        abort(self)
        self.turns:release(1)
      end
    end)
  end
  return t
end

-- The rest of a write, from byte `first` on, whose turn it is.
local function put_pieces(self, bytes, first)
  while first <= #bytes do
    local last = math.min(first + PIECE - 1, #bytes)
    settle(self, put(self, bytes, first, last))
    first = last + 1
  end
end

-- A write that has to wait for the transport: `t` is of the part before `first`.
local function write_on(self, bytes, first, t)
  self.begun = self.taken
  local _ <close> = self.writer
  settle(self, t)
  put_pieces(self, bytes, first)
end

-- A write that has to wait for its turn.
local function write_later(self, bytes)
  await(self.turns:acquire(nil, 1))
  if self.failed then
    self.turns:release(1)
    error(self.failed, 0)
  end
  local _ <close> = self.writer
  put_pieces(self, bytes, 1)
end

local function refuse(op, code, message)
  return from_error(core.error { code = code, message = message, op = op })
end

-- The Task of a call that cannot begin, or nil.
local function refused(self, op)
  if cancelling() then
    return from_cancelled()
  elseif self.closing then
    return refuse(op, "EBADF", "the stream is closed")
  elseif self.failed then
    return from_error(self.failed)
  end
end

local function text(v, arg)
  local kind = type(v)
  if kind == "string" then
    return v
  elseif kind == "number" then
    return tostring(v)
  elseif kind == "userdata" and type(v.to_string) == "function" then
    return v:to_string()
  end
  check.expect(false, arg, "write", "string", v)
end

local function join(first, ...)
  local n = select("#", ...)
  if n == 0 then
    return text(first, 1)
  end
  local parts = { text(first, 1) }
  for i = 1, n do
    parts[i + 1] = text((select(i, ...)), i + 1)
  end
  return table.concat(parts)
end

---As `Stream:write`. One that is cancelled before its turn has sent nothing; later it closes the stream (S10).
---@param ... string|number
---@return asynctask.Task task
function Stream:write(...)
  local bytes = select("#", ...) == 0 and "" or join(...)
  local no = refused(self, "write")
  if no then
    return no
  elseif self.shut then
    return refuse("write", "EPIPE", "broken pipe")
  elseif bytes == "" then
    return from_result()
  elseif self.turns:permits() == 0 then
    return start(write_later, self, bytes)
  end
  local last = #bytes <= PIECE and #bytes or PIECE
  local t = put(self, bytes, 1, last)
  if t:done() and last == #bytes then
    return t
  end
  return take_turn(self, write_on, bytes, last + 1, t)
end

-- ---- ending --------------------------------------------------------------------------------------

-- close_notify. The transport's Task of it.
local function put_notify(self)
  local out = not self.failed and self.conn:shutdown()
  if not out then
    return from_result()
  end
  self.sent = self.sent + #out
  return self.transport:write(out)
end

local shutdown_meta = {}

-- A shutdown that was cancelled before its turn did not happen.
function shutdown_meta.__close(waiting)
  if not waiting.happened then
    waiting.stream.shut = false
  end
end

local function shutdown_later(self)
  local waiting <close> = setmetatable({ stream = self }, shutdown_meta)
  await(self.turns:acquire(nil, 1))
  waiting.happened = true
  local _ <close> = self.writer
  settle(self, put_notify(self))
end

local function shutdown_on(self, t)
  self.begun = self.taken
  local _ <close> = self.writer
  settle(self, t)
end

---No more will be written: the peer is told (close_notify) after what is queued. Reading goes on.
---@return asynctask.Task
function Stream:shutdown()
  local no = refused(self, "shutdown")
  if no then
    return no
  elseif self.shut then
    return from_result()
  end
  self.shut = true
  if self.turns:permits() == 0 then
    return start(shutdown_later, self)
  end
  local t = put_notify(self)
  if t:done() then
    return t
  end
  return take_turn(self, shutdown_on, t)
end

local function wait_turn(self)
  return self.turns:acquire(nil, 1)
end

-- Waits for the writers, as long as something moves. Gives whether they have ended.
local function drained(self)
  local before
  repeat
    before = self.sent
    if core.pcall(with_timeout, LINGER, wait_turn, self) then
      return true
    end
  until self.sent == before
  return false
end

local closer_meta = {}

function closer_meta.__close(closer, err)
  if err ~= nil then
    abort(closer.stream)
  end
end

local function close_later(self)
  local _ <close> = setmetatable({ stream = self }, closer_meta)
  if not drained(self) then
    abort(self)
    return
  end
  self.turns:release(1)
  spawn(try, put_notify(self))
  await(self.transport:close())
end

-- What the caller gets while writers are waited for: cancelled, it closes at once.
local function closer(self)
  local t = spawn(close_later, self)
  if cancelling() then
    return t
  end
  local source = core.source(function()
    t:cancel()
  end)
  spawn(function()
    try(t)
    source:set_result()
  end)
  return source.task
end

---Closes when what was written is out and the peer was told (close_notify), or when it takes nothing for 5 s. Closing
---twice is fine; closes in cancelled scopes, too; cancelled, it closes at once.
---@return asynctask.Task
function Stream:close()
  if self.closing then
    return self.turns:permits() == 0 and closer(self) or self.transport:close()
  end
  self.closing = true
  self.feed:close()
  if self.turns:permits() == 0 then
    return closer(self)
  end
  if not self.failed and not self.shut then
    spawn(function() -- a task of nobody's: it begins in a cancelled scope, too
      try(put_notify(self))
    end)
  end
  return self.transport:close()
end

-- ---- what is known ---------------------------------------------------------------------------------

---The protocol that was agreed upon (RFC 7301).
---@return string? protocol
function Stream:alpn()
  return self.conn:alpn()
end

---@return string version "TLSv1.2" or "TLSv1.3"
function Stream:version()
  return self.conn:version()
end

---@return string cipher as OpenSSL names it
function Stream:cipher()
  return self.conn:cipher()
end

---Whether the handshake was a short one, with a session of an earlier connection.
---@return boolean
function Stream:session_reused()
  return self.conn:session_reused()
end

---The name that the client has asked for (SNI).
---@return string? name
function Stream:server_name()
  return self.conn:server_name()
end

---@class asynctask.tls.certificate
---@field subject string as RFC 2253 writes it
---@field issuer string
---@field serial string hexadecimal
---@field not_before integer seconds since 1970
---@field not_after integer
---@field names string[] host names it is for
---@field addresses string[] addresses it is for
---@field fingerprint string of SHA-256, hexadecimal
---@field pem string

---@return asynctask.tls.certificate? certificate nil where the peer has shown none
function Stream:peer_certificate()
  return self.conn:peer_certificate()
end

-- ---- the transport's -------------------------------------------------------------------------------

for _, name in ipairs { "sockname", "peername", "nodelay", "keepalive", "send_buffer_size", "recv_buffer_size" } do
  Stream[name] = function(self, ...)
    local method = self.transport[name]
    if not method then
      return nil, core.error { code = "ENOTSUP", message = "the transport has no such thing", op = name }
    end
    return method(self.transport, ...)
  end
end

---@return integer? fd of the transport, nil once closed
function Stream:fd()
  local transport = self.transport
  if not self.closing and transport.fd then
    return transport:fd()
  end
end

---@return boolean
function Stream:closed()
  return self.closing
end

local meta = { __name = "asynctask.tls.Stream", __index = Stream, __close = close_scope }

function meta.__tostring(self)
  return ("asynctask.tls.Stream%s: %s"):format(self.closing and " (closed)" or "", tostring(self.transport))
end

local M = { take = take, abort = abort }

---@param transport table
---@param conn asynctask.openssl.Connection
---@return asynctask.tls.Stream
function M.new(transport, conn)
  local self = setmetatable({
    transport = transport, conn = conn, feed = core.net.feed { mark = BOUNDLESS }, turns = core.waitqueue(1), sent = 0,
    taken = 0, begun = 0, shut = false, closing = false,
  }, meta)
  self.writer = setmetatable({ stream = self }, writer_meta)
  return self
end

return M
