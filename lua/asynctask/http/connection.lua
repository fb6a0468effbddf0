-- connection.lua - one connection of a server: reads heads, runs the handler as a task of its own for each request,
-- and while that waits goes on reading, so that it sees a client go away and takes in the bytes of a body (up to a
-- mark).
--
-- Two tasks: the connection's, which alone reads from the stream, and the handler's, which alone writes the
-- response. The fields:
--   data, pos     bytes that have come and belong to nobody yet; queue: more of them, first .. last
--   req           the request that the handler works on; body_open: more of its body is to come
--   reading       Task of the read that the connection waits in
--   out           responses that are held back, nil: none
--   slot          source of the handler's read of the body, which waits for bytes
--   room          source of the connection, which waits for something else than bytes
--   deadline      tick of the record's clock at which what is waited for is late; see server.lua
--   state         "head", "idle" (nothing of a head has come), "busy", "linger"

local core = require "asynctask.core"
local fault = require "asynctask.http.fault"
local native = require "asynctask.http.native"
local request = require "asynctask.http.request"
local response = require "asynctask.http.response"

local await, try, wait, spawn, source = core.await, core.try, core.wait, core.spawn, core.source
local parse_head = native.head
local conclude, respond = response.conclude, response.respond
local adopt, failed = request.adopt, fault.failed

local KEEP <const>, BODY <const>, EXPECT <const>, OLD <const>, HEADLESS <const> = 1, 2, 8, 32, 64
local NEVER <const> = math.maxinteger
local MARK <const> = 64 * 1024    -- bytes that wait for the handler before the client is held up
local DRAIN <const> = 256 * 1024  -- of a body that nobody read, for the sake of the next request
local HELD_BACK <const> = 32      -- responses to requests that were pipelined
local LINGER <const> = 1024 * 1024 -- that are thrown away so that the client gets to read the response

---@class asynctask.http.Connection
local Connection = {}

local meta = { __name = "asynctask.http.Connection", __index = Connection }

-- ---- bytes -------------------------------------------------------------------------------------

-- Writes what was held back, and waits while the client does not take it.
local function flush(conn)
  local out = conn.out
  if out then
    conn.out = nil
    local t = conn.stream:write(table.concat(out))
    if not t:done() then
      conn:slow_write(t)
    end
    try(t) -- what is wrong shows at the next read
  end
end

-- Waits for bytes; nil at the end; nil, err.
local function read(conn)
  if conn.out then
    flush(conn)
  end
  local t = conn.stream:read_some()
  conn.reading = t
  local data, err = try(t)
  conn.reading = nil
  return data, err
end

---The next bytes in the queue become the current ones.
function Connection:advance()
  local first = self.first
  if first > self.last then
    self.data = nil
    return
  end
  local queue = self.queue
  self.data, self.pos = queue[first], 1
  queue[first] = nil
  self.first = first + 1
  self.ahead = self.ahead - #self.data
  if self.room and self.ahead < MARK then
    self:wake()
  end
end

-- Bytes have come while the handler runs.
local function arrive(conn, data)
  if not conn.data then
    conn.data, conn.pos = data, 1
  else
    conn.last = conn.last + 1
    conn.queue[conn.last] = data
    conn.ahead = conn.ahead + #data
  end
  local slot = conn.slot
  if slot then
    conn.slot = nil
    slot:set_result()
  end
end

---Wakes the connection's task where it waits for something else than bytes.
function Connection:wake()
  local room = self.room
  if room then
    self.room = nil
    room:set_result()
  end
end

local function client_left()
  return core.error { code = "ECONNRESET", message = "the client went away", op = "read" }
end

---For the handler's task: waits until more of the body has come. Raises when the client is too slow, or gone.
function Connection:wait_for_bytes()
  if self.gone then
    error(client_left(), 0)
  end
  local record = self.record
  local slot = source()
  local begun = record.now
  self.slot = slot
  self.deadline = begun + record.body_ticks + self.received // record.body_rate - self.waited
  await(slot.task)
  self.deadline = NEVER
  self.waited = self.waited + record.now - begun
end

---The client is told to send the body that it announced, unless it has begun to.
function Connection:continue()
  self.expects = false
  if self.data then
    return
  end
  flush(self)
  local t = self.stream:write("HTTP/1.1 100 Continue\r\n\r\n")
  if not t:done() then
    self:slow_write(t)
  end
  await(t)
end

-- ---- writing -----------------------------------------------------------------------------------

---A write that waits for the client has a deadline.
---@param t asynctask.Task
function Connection:slow_write(t)
  self.writing = t
  self.write_deadline = self.record.now + self.record.write_ticks
end

---A whole response waits for those of the requests that have come already, so that all leave in one write. Nothing is
---held back while anybody waits: see flush.
---@param text string
function Connection:hold_back(text)
  local out = self.out
  if not out then
    self.out = { text }
    return
  end
  out[#out + 1] = text
  if #out >= HELD_BACK then
    flush(self)
  end
end

---Breaks the connection off: the client sees that the response is not whole.
function Connection:abort()
  self.keep = false
  self.aborted = true
  self.raw:close():cancel()
end

---The mode of the response, with which it is known whether the connection goes on.
---@return integer mode of csrc/ext/http1/response.c
function Connection:settle_mode()
  if self.keep then
    if self.record.closing or self.expects or self.body_open and (self.length or 0) - self.received > DRAIN then
      self.keep = false
    else
      return self.mode
    end
  end
  return self.mode | response.CLOSE
end

---The stream is somebody else's from now on. Waits until nobody reads from it here.
---@return string rest bytes that have come already
function Connection:hand_over()
  self.switched = true
  while self.reading do
    self.reading:cancel()
    await(core.yield())
  end
  local list = {}
  while self.data do
    list[#list + 1] = self.data:sub(self.pos)
    self:advance()
  end
  return table.concat(list)
end

-- ---- the next request --------------------------------------------------------------------------

-- Answers what is no proper request; the connection ends.
local function refuse(conn, status, words)
  conn.mode, conn.keep, conn.answered, conn.body_open = 0, false, false, false
  conn.state, conn.deadline = "linger", conn.record.now + conn.record.linger_ticks
  local ok = core.pcall(respond, conn, status, nil, words .. "\n")
  return ok
end

-- What ended a read that gave nothing: the sweep, because it was late, or the client.
local function ended(conn)
  if conn.late and (conn.state == "head" and native.begun(conn.parser)) then
    refuse(conn, 408, "the request took too long")
    return true
  end
  return false
end

-- The next request, its flags and length; nil: none will come; false: it was refused.
local function next_request(conn)
  local record, parser = conn.record, conn.parser
  while true do
    local data = conn.data
    if data then
      local req, next_byte, flags, length = parse_head(parser, data, conn.pos)
      if req then
        if next_byte > #data then
          conn:advance()
        else
          conn.pos = next_byte
        end
        return req, flags, length
      elseif req == false then
        refuse(conn, next_byte, flags)
        return false
      end
      conn:advance()
      if not conn.data and conn.state ~= "head" then
        conn.state, conn.deadline = "head", record.now + record.head_ticks
      end
    else
      data = read(conn)
      if not data then
        if ended(conn) then
          return false
        end
        return nil
      end
      conn.data, conn.pos = data, 1
    end
  end
end

-- ---- while the handler waits -------------------------------------------------------------------

-- Told that the handler has ended, the connection's task stops waiting for anything else.
local function notify(conn, t)
  wait(t)
  local reading = conn.reading
  if reading then
    reading:cancel()
  end
  conn:wake()
end

local function left(conn, t)
  conn.gone = true
  local slot = conn.slot
  if slot then
    conn.slot = nil
    slot:set_error(client_left())
  end
  t:cancel("the client went away")
end

-- Until the handler has ended.
local function watch(conn, t)
  spawn(notify, conn, t)
  flush(conn)
  while not t:done() do
    if conn.switched or conn.gone or conn.ahead >= MARK then
      local room = source()
      conn.room = room
      await(room.task)
    else
      local data, err = read(conn)
      if data then
        arrive(conn, data)
      elseif not (t:done() or conn.switched) and not core.is_cancelled(err) then
        left(conn, t)
      end
    end
  end
end

-- ---- the handler -------------------------------------------------------------------------------

local function run(conn, req)
  return conclude(conn, req, conn.handler(req))
end

-- ---- between requests --------------------------------------------------------------------------

-- What is left of a body that the handler did not read. Whether the next request can be read.
local function drain(conn)
  local budget = DRAIN
  while conn.body_open do
    local data = conn.data
    if not data then
      conn.state, conn.deadline = "drain", conn.record.now + conn.record.body_ticks
      data = read(conn)
      if not data then
        return false
      end
      conn.data, conn.pos = data, 1
    end
    local piece, next_byte, done = native.body(conn.parser, data, conn.pos)
    if not piece then
      return false
    end
    if next_byte > #data then
      conn:advance()
    else
      conn.pos = next_byte
    end
    budget = budget - #piece
    if budget < 0 then
      return false
    end
    conn.body_open = not done
  end
  return true
end

-- The client may still be sending. Closing now would throw away the response that it has not read yet.
local function linger(conn)
  if conn.aborted or conn.gone or conn.switched or not (conn.body_open or conn.data or conn.state == "linger") then
    return
  end
  conn.state, conn.deadline = "linger", conn.record.now + conn.record.linger_ticks
  local sent = try(conn.stream:shutdown())
  local budget = LINGER
  while sent ~= false and budget > 0 do
    local data = read(conn)
    if not data then
      return
    end
    budget = budget - #data
  end
end

local function begin(conn, req, flags, length)
  local count = conn.count + 1
  conn.count = count
  conn.deadline, conn.state = NEVER, "busy"
  conn.keep = flags & KEEP ~= 0 and count < conn.record.max_requests
  conn.mode = (flags & OLD ~= 0 and response.OLD or 0) | (flags & HEADLESS ~= 0 and response.HEADLESS or 0)
  conn.answered, conn.response = false, nil
  if flags & BODY ~= 0 then
    conn.expects = flags & EXPECT ~= 0
    conn.waited = 0
  end
  adopt(conn, req, flags, length)
end

local function serve(conn)
  local record = conn.record
  while true do
    local req, flags, length = next_request(conn)
    if not req then
      return
    end
    begin(conn, req, flags, length)
    local t = spawn(run, conn, req)
    if not t:done() then
      conn.task = t
      watch(conn, t)
      conn.task = nil
    end
    if t:status() ~= "succeeded" and not failed(conn, t, req) then
      return
    end
    conn.req = nil
    if not conn.keep or conn.body_open and not drain(conn) then
      return
    end
    conn.expects = false
    conn.state, conn.deadline = "idle", record.now + record.idle_ticks
  end
end

-- Whatever ends it: the handler ends too.
function meta.__close(conn)
  local record, t = conn.record, conn.task
  conn.deadline, conn.write_deadline = NEVER, NEVER
  record:remove(conn)
  if t and not t:done() then
    t:cancel("server closed")
    core.shield(wait, t)
  end
  if conn.stream ~= conn.raw and not conn.aborted then
    core.shield(try, conn.stream:close())
  end
end

---The sweep found it late.
function Connection:expire()
  self.deadline = NEVER
  local slot = self.slot
  if slot and slot.task:done() then -- that read was cancelled
    self.slot = nil
    return
  end
  self.late = true
  if slot then
    self.slot = nil
    self.keep = false
    slot:set_error(core.error { code = "ETIMEDOUT", message = "the body came too slowly", op = "read", status = 408 })
  elseif self.reading then
    self.reading:cancel()
  end
end

---The client does not take what is written.
function Connection:expire_write()
  self.write_deadline = NEVER
  local t = self.writing
  self.writing = nil
  if t and not t:done() then
    self.late = true
    self:abort()
  end
end

---The server closes: a connection on which nothing happens ends.
function Connection:finish()
  if self.reading and (self.state == "idle" or self.state == "head" and not native.begun(self.parser)) then
    self.reading:cancel()
  end
end

local M = {}

---Serves one connection until it ends.
---@param stream asynctask.Stream
---@param record table of the server, see server.lua
function M.run(stream, record)
  local conn <close> = setmetatable({
    stream = stream, raw = stream, record = record, handler = record.handler, parser = record:parser(),
    state = "head", deadline = record.now + record.head_ticks, write_deadline = NEVER,
    queue = {}, first = 1, last = 0, ahead = 0, received = 0, waited = 0, count = 0,
    keep = false, answered = false, body_open = false, expects = false, mode = 0,
  }, meta)
  record:add(conn)
  if record.settings.tls then
    local secured = record:secure(stream)
    if not secured then
      return
    end
    conn.stream = secured
  end
  serve(conn)
  flush(conn)
  linger(conn)
end

return M
