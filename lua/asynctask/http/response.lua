-- response.lua - what goes back: what a handler returned, or writes piece by piece; server-sent events.
-- Heads are composed by C (csrc/ext/http1/response.c), which refuses what must not be sent. Runs in the handler's task.

local core = require "asynctask.core"
local check = require "asynctask.net.check"
local native = require "asynctask.http.native"

local await, start, is_task = core.await, core.start, core.is_task
local from_result, from_error = core.from_result, core.from_error
local compose, concat = native.response, table.concat

local CLOSE <const>, OLD <const>, HEADLESS <const>, STREAM <const> = 1, 2, 4, 8 -- modes
local CLOSES <const>, APART <const>, IN_CHUNKS <const>, NO_BODY <const> = 1, 2, 4, 8 -- results
local SLICE <const> = 256 * 1024 -- of a large body: each has its own time to be taken

local M = { CLOSE = CLOSE, OLD = OLD, HEADLESS = HEADLESS }

-- Once for each response: whether the connection may go on is known now.
local function mode_of(conn)
  if conn.answered then
    error(core.error { code = "EALREADY", message = "the request is answered already", op = "respond" }, 0)
  end
  return conn:settle_mode()
end

local function began(conn, bits)
  conn.answered = true
  if bits & CLOSES ~= 0 then
    conn.keep = false
  end
end

-- Writes, behind what was held back. The Task waits while the client does not take it.
local function send(conn, first, ...)
  local out = conn.out
  if out then
    conn.out = nil
    out[#out + 1] = first
    first = concat(out)
  end
  local t = conn.stream:write(first, ...)
  if not t:done() then
    conn:slow_write(t)
  end
  return t
end

local function send_slices(conn, head, body)
  await(send(conn, head, body:sub(1, SLICE)))
  for at = SLICE + 1, #body, SLICE do
    await(send(conn, body:sub(at, at + SLICE - 1)))
  end
end

-- ---- a body that is there ----------------------------------------------------------------------

local function respond(conn, status, headers, body)
  local head, bits = compose(status, headers, body, mode_of(conn))
  conn.answered = true
  if bits == 0 then
    if conn.data then -- perhaps the next request: its response may go with this one
      return conn:hold_back(head)
    end
    await(send(conn, head))
    return
  end
  began(conn, bits)
  if bits & APART == 0 then
    await(send(conn, head))
  elseif #body <= SLICE then
    await(send(conn, head, body))
  else
    send_slices(conn, head, body)
  end
end

M.respond = respond

-- ---- piece by piece ----------------------------------------------------------------------------

---A response that is written piece by piece.
---@class asynctask.http.Response
---@field private conn table
---@field private req asynctask.http.Request
---@field private head? string not sent yet
---@field private bits integer
---@field private left? integer bytes of the announced length that have not been written
---@field private closed? asynctask.Task
local Response = {}

local response_meta = { __name = "asynctask.http.Response", __index = Response }

---@param conn table
---@param req asynctask.http.Request
---@param status integer
---@param headers? table
---@return asynctask.http.Response
function M.begin(conn, req, status, headers)
  check.expect(math.type(status) == "integer", 1, "respond", "status", status)
  check.expect(headers == nil or type(headers) == "table", 2, "respond", "table of headers", headers)
  if conn.req ~= req then
    error(core.error { code = "EBADF", message = "the request has ended", op = "respond" }, 0)
  end
  local head, bits, length = compose(status, headers, nil, mode_of(conn) | STREAM)
  began(conn, bits)
  local res = setmetatable({ conn = conn, req = req, head = head, bits = bits, left = length }, response_meta)
  conn.response = res
  return res
end

local function failed(code, message)
  return from_error(core.error { code = code, message = message, op = "write" })
end

local function size_of(...)
  local size = 0
  for i = 1, select("#", ...) do
    local piece = select(i, ...)
    local kind = type(piece)
    check.expect(kind == "string" or kind == "number", i, "write", "string", piece)
    size = size + #(kind == "number" and tostring(piece) or piece)
  end
  return size
end

-- Why it takes no more, or nil.
local function refusal(res)
  if res.closed then
    return failed("EBADF", "the response is closed")
  elseif res.conn.req ~= res.req then
    return failed("EBADF", "the request has ended")
  end
end

---Writes a piece of the body.
---@param ... string|number
---@return asynctask.Task written settles while little waits to be taken by the client
function Response:write(...)
  local size = size_of(...)
  local no = refusal(self)
  if no then
    return no
  end
  local head, bits = self.head or "", self.bits
  if self.left then
    if size > self.left then
      return failed("EMSGSIZE", "more than the length that was announced")
    end
    self.left = self.left - size
  end
  self.head = nil
  if bits & NO_BODY ~= 0 or size == 0 then
    return head == "" and from_result() or send(self.conn, head)
  elseif bits & IN_CHUNKS == 0 then
    return send(self.conn, head, ...)
  end
  return send(self.conn, ("%s%x\r\n"):format(head, size), table.concat { ... }, "\r\n")
end

---Sends the head, if it was not sent yet.
---@return asynctask.Task
function Response:flush()
  return self:write()
end

---Ends the response.
---@param trailers? table<string, string> sent behind a body in chunks
---@return asynctask.Task closed faults when fewer bytes were written than were announced
function Response:close(trailers)
  check.expect(trailers == nil or type(trailers) == "table", 1, "close", "table of trailers", trailers)
  if self.closed then
    return self.closed
  end
  local no = refusal(self)
  if no then
    self.closed = no
    return no
  end
  local head, bits = self.head or "", self.bits
  local tail = bits & (IN_CHUNKS | NO_BODY) == IN_CHUNKS and native.last_chunk(trailers) or ""
  self.head = nil
  if self.left and self.left > 0 and bits & NO_BODY == 0 then
    self.conn:abort()
    self.closed = failed("EMSGSIZE", ("%d bytes fewer than the length that was announced"):format(self.left))
    self.closed:error()
  elseif head == "" and tail == "" then
    self.closed = from_result()
  else
    self.closed = send(self.conn, head .. tail)
  end
  return self.closed
end

---Leaving its scope ends it; an error breaks the connection off, so that the client sees that something is missing.
function response_meta.__close(res, err)
  if err ~= nil and not res.closed then
    res.conn:abort()
  elseif not res.closed then
    await(res:close())
  end
end

-- ---- bodies that are produced ------------------------------------------------------------------

-- What closes when the response has ended, whatever ends it.
local function closing(body)
  local mt = getmetatable(body)
  if type(mt) == "table" and mt.__close then
    return body
  end
  return nil
end

-- The bytes that a file has from its position on, or nil.
local function length_of(body)
  if not (body.stat and body.seek) then
    return nil
  end
  local info = core.try(body:stat())
  if not info or info.type ~= "file" then
    return nil
  end
  return math.max(info.size - await(body:seek("cur")), 0)
end

local function has_length(headers)
  for name in pairs(headers or {}) do
    if type(name) == "string" and name:lower() == "content-length" then
      return true
    end
  end
  return false
end

local function with_length(headers, length)
  local copy = { ["content-length"] = length }
  for name, value in pairs(headers or {}) do
    copy[name] = value
  end
  return copy
end

local function pump_reader(res, body)
  while true do
    local piece = await(body:read_some())
    if not piece then
      return
    end
    if res.left and #piece > res.left then
      piece = piece:sub(1, res.left) -- a file that grew
    end
    await(res:write(piece))
    if res.left == 0 then
      return
    end
  end
end

local function pump_calls(res, body)
  while true do
    local piece = body()
    if is_task(piece) then
      piece = await(piece)
    end
    if piece == nil then
      return
    end
    await(res:write(piece))
  end
end

local function produce(conn, req, status, headers, body)
  local _ <close> = closing(body)
  local reader = type(body) ~= "function" and body.read_some ~= nil
  if reader and not has_length(headers) then
    local length = length_of(body)
    if length then
      headers = with_length(headers, length)
    end
  end
  local res = M.begin(conn, req, status, headers)
  if res.bits & NO_BODY == 0 then
    if reader then
      pump_reader(res, body)
    else
      pump_calls(res, body)
    end
  end
  await(res:close())
end

local function callable(v)
  local mt = getmetatable(v)
  return type(mt) == "table" and mt.__call ~= nil
end

local function no_response(what)
  error(core.error { code = "EINVAL", message = what, op = "respond" }, 0)
end

---What a handler returned becomes the response.
---@param conn table
---@param req asynctask.http.Request
---@param status any
---@param headers any
---@param body any
function M.conclude(conn, req, status, headers, body)
  local kind = type(status)
  if kind == "string" then
    return respond(conn, 200, nil, status)
  elseif kind == "nil" then
    local res = conn.response
    if res then
      await(res:close())
    elseif not conn.answered then
      no_response("the handler returned no response")
    end
    return
  elseif is_task(status) then
    return M.conclude(conn, req, await(status))
  elseif math.type(status) ~= "integer" then
    no_response(("the handler returned a %s as status: a body, or status, headers, body expected"):format(kind))
  end
  if type(headers) == "string" and body == nil then
    headers, body = nil, headers
  end
  local what = type(body)
  if headers ~= nil and type(headers) ~= "table" then
    no_response(("the handler returned a %s as headers"):format(type(headers)))
  elseif body == nil or what == "string" then
    return respond(conn, status, headers, body)
  elseif what == "number" then
    return respond(conn, status, headers, tostring(body))
  elseif what == "function" or callable(body) or (what == "table" or what == "userdata") and body.read_some then
    return produce(conn, req, status, headers, body)
  elseif what == "table" then
    return respond(conn, status, headers, table.concat(body))
  end
  no_response(("the handler returned a %s as body"):format(what))
end

-- ---- before and beside a response --------------------------------------------------------------

---@param conn table
---@param req asynctask.http.Request
---@param status integer
---@param headers table
---@return asynctask.Task
function M.interim(conn, req, status, headers)
  check.expect(type(headers) == "table", 1, "early_hints", "table of headers", headers)
  if conn.req ~= req then
    return failed("EBADF", "the request has ended")
  elseif conn.answered then
    return failed("EALREADY", "the request is answered already")
  elseif conn.mode & OLD ~= 0 then
    return from_result()
  end
  return send(conn, native.interim(status, headers))
end

---@param conn table
---@param req asynctask.http.Request
---@param protocol string
---@param headers? table
---@return asynctask.Stream
---@return string rest
function M.switch(conn, req, protocol, headers)
  if conn.req ~= req then
    error(core.error { code = "EBADF", message = "the request has ended", op = "upgrade" }, 0)
  end
  mode_of(conn)
  local all = { Connection = "Upgrade", Upgrade = protocol }
  for name, value in pairs(headers or {}) do
    all[name] = value
  end
  local head = native.interim(101, all)
  conn.answered = true
  conn.keep = false
  local rest = conn:hand_over()
  await(send(conn, head))
  return conn.stream, rest
end

-- ---- server-sent events ------------------------------------------------------------------------

---A response of server-sent events, as browsers' EventSource reads them (HTML standard, 9.2).
---@class asynctask.http.Events
---@field private res asynctask.http.Response
local Events = {}

local events_meta = {
  __name = "asynctask.http.Events",
  __index = Events,
  __close = function(events, err)
    response_meta.__close(events.res, err)
  end,
}

---@param conn table
---@param req asynctask.http.Request
---@param headers? table
---@return asynctask.http.Events
function M.events(conn, req, headers)
  local all = { ["Content-Type"] = "text/event-stream", ["Cache-Control"] = "no-cache" }
  for name, value in pairs(headers or {}) do
    all[name] = value
  end
  return setmetatable({ res = M.begin(conn, req, 200, all) }, events_meta)
end

local event_fields = { "event", "id", "retry" }

local function one_line(name, value)
  value = tostring(value)
  if value:find("[\r\n\0]") then
    local message = ("the field '%s' of an event has a line break"):format(name)
    error(core.error { code = "EINVAL", message = message, op = "send" }, 0)
  end
  return value
end

local function event_text(event)
  local list = {}
  for _, name in ipairs(event_fields) do
    if event[name] ~= nil then
      list[#list + 1] = ("%s: %s\n"):format(name, one_line(name, event[name]))
    end
  end
  if event.data ~= nil then
    local data = tostring(event.data):gsub("\r\n?", "\n")
    list[#list + 1] = "data: " .. data:gsub("\n", "\ndata: ") .. "\n"
  end
  list[#list + 1] = "\n"
  return table.concat(list)
end

---Sends one event.
---@param event string|{ data?: string, event?: string, id?: string, retry?: integer } a string: its data; retry:
---milliseconds until the browser connects again
---@return asynctask.Task sent settles while little waits to be taken by the client
function Events:send(event)
  check.expect(type(event) == "string" or type(event) == "table", 1, "send", "string or table", event)
  return self.res:write(event_text(type(event) == "string" and { data = event } or event))
end

---Sends a line that browsers skip, to keep proxies from closing a quiet connection.
---@param text? string
---@return asynctask.Task sent
function Events:comment(text)
  return self.res:write(": " .. one_line("comment", text or "") .. "\n\n")
end

---Sends the head, so that the browser knows that it is connected.
---@return asynctask.Task
function Events:flush()
  return self.res:flush()
end

---@return asynctask.Task
function Events:close()
  return self.res:close()
end

M.start = start

return M
