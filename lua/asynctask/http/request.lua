-- request.lua - what a handler sees of a request: the head, taken apart when somebody asks; the body, read from the
-- connection piece by piece, no faster than the handler takes it.
-- Made by C (csrc/ext/http1/request.c): { head, first byte of the fields, last one, flags, method=, path=, target= };
-- `conn` is the connection (connection.lua), whose bytes belong to its current request.

local core = require "asynctask.core"
local check = require "asynctask.net.check"
local headers = require "asynctask.http.headers"
local iterator = require "asynctask.iterator"
local json = require "asynctask.http.json"
local multipart = require "asynctask.http.multipart"
local native = require "asynctask.http.native"
local response = require "asynctask.http.response"

local start = core.start
local parse_body = native.body

local MOST_FIELDS <const> = 10000 -- of a form
local BODY <const>, CHUNKED <const>, OLD <const> = 2, 4, 32 -- flags, see csrc/ext/http1/head.h

---A request, as the handler gets it.
---@class asynctask.http.Request
---@field method string "GET", "POST" ..., as it was sent
---@field path string decoded; begins with a slash ("*" for OPTIONS *)
---@field target string as it was sent
---@field raw_path string of the target, not decoded
---@field raw_query? string what stands behind the question mark, not decoded
---@field query asynctask.http.Fields decoded
---@field headers asynctask.http.Headers
---@field version string "1.1" or "1.0"
---@field peer { host: string, port: integer }|{ path: string }|nil address of the other side
---@field secure boolean whether it came over TLS
---@field length? integer of the body; nil: not known before it ends
---@field limit integer bytes that the body may have (option `max_body`); may be set
---@field trailers? asynctask.http.Headers of a chunked body that was read to its end
---@field private conn table
local Request = {}

local M = { Request = Request }

-- ---- the head, lazily --------------------------------------------------------------------------

local lazy = {}

function lazy.headers(req)
  return setmetatable(native.fields(req[1], req[2], req[3]), headers.headers_meta)
end

function lazy.raw_query(req)
  return req.target:match("%?(.*)$")
end

function lazy.query(req)
  return setmetatable(native.query(req.raw_query or ""), headers.fields_meta)
end

function lazy.raw_path(req)
  local path = req.target:match("^[^?]*")
  if path:sub(1, 1) ~= "/" then
    local behind = path:match("^%a[%w+.-]*://[^/]*(.*)$")
    path = behind == "" and "/" or behind or path
  end
  return path
end

function lazy.version(req)
  return req[4] & OLD ~= 0 and "1.0" or "1.1"
end

function lazy.peer(req)
  local conn = req.conn
  if conn.peer == nil then
    conn.peer = conn.raw:peername() or false
  end
  return conn.peer or nil
end

function lazy.secure(req)
  return req.conn.stream ~= req.conn.raw
end

function lazy.length(req)
  return req[4] & BODY == 0 and 0 or nil
end

function lazy.limit(req)
  return req.conn.record.max_body
end

M.meta = {
  __name = "asynctask.http.Request",
  __index = function(req, name)
    local method = Request[name]
    if method then
      return method
    end
    local make = lazy[name]
    if make then
      local value = make(req)
      req[name] = value
      return value
    end
  end,
  __tostring = function(req)
    return ("asynctask.http.Request: %s %s"):format(req.method, req.target)
  end,
}

-- ---- the body ----------------------------------------------------------------------------------

---An error that the server answers with `status`, unless the handler catches it.
local function refused(status, code, message)
  return core.error { code = code, message = message, op = "read", status = status }
end

local function too_large(req)
  return refused(413, "EMSGSIZE", ("the body has more than %d bytes"):format(req.limit))
end

local function take(req, piece, next_byte, done)
  local conn = req.conn
  if next_byte > #conn.data then
    conn:advance()
  else
    conn.pos = next_byte
  end
  local got = (req.got or 0) + #piece
  req.got = got
  conn.received = got
  if done then
    conn.body_open = false
    if req[4] & CHUNKED ~= 0 then
      req.trailers = setmetatable(native.trailers(conn.parser), headers.headers_meta)
    end
  end
  if got > req.limit then
    conn.keep = false
    error(too_large(req), 0)
  end
end

-- The next bytes of the body, nil at its end. Waits.
local function next_piece(req)
  local conn = req.conn
  if conn.req ~= req then
    error(core.error { code = "EBADF", message = "the request has ended", op = "read" }, 0)
  end
  if conn.broken then
    error(conn.broken, 0)
  end
  while conn.body_open do
    if (conn.length or 0) > req.limit then
      conn.keep = false
      error(too_large(req), 0)
    end
    if conn.expects then
      conn:continue()
    end
    local data = conn.data
    if data then
      local piece, next_byte, done = parse_body(conn.parser, data, conn.pos)
      if not piece then
        conn.keep = false
        conn.broken = refused(next_byte, "EPROTO", done)
        error(conn.broken, 0)
      end
      take(req, piece, next_byte, done)
      if piece ~= "" then
        return piece
      end
    else
      conn:wait_for_bytes()
    end
  end
end

-- What was read and not yet taken is req.rest, from req.at on.

local function take_all(req)
  local rest = req.rest
  if not rest then
    return nil
  end
  local at = req.at
  req.rest = nil
  return at > 1 and rest:sub(at) or rest
end

local function read_some(req, max)
  local piece = take_all(req) or next_piece(req)
  if piece and max and #piece > max then
    req.rest, req.at = piece, max + 1
    return piece:sub(1, max)
  end
  return piece
end

local function read_all(req)
  local first = take_all(req)
  local piece = next_piece(req)
  if not piece then
    return first or ""
  end
  local list = { first or piece, first and piece }
  piece = next_piece(req)
  while piece do
    list[#list + 1] = piece
    piece = next_piece(req)
  end
  return #list == 1 and list[1] or table.concat(list)
end

local function read_line(req, keep)
  local list
  while true do
    local piece = take_all(req) or next_piece(req)
    if not piece then
      return list and table.concat(list) or nil
    end
    local at = piece:find("\n", 1, true)
    if at then
      local line = piece:sub(1, keep and at or at - 1)
      if at < #piece then
        req.rest, req.at = piece, at + 1
      end
      return list and table.concat(list) .. line or line
    end
    list = list or {}
    list[#list + 1] = piece
  end
end

local function read_count(req, count)
  local piece = read_some(req, math.max(count, 1))
  if count == 0 then
    if piece then
      req.rest, req.at = piece .. (take_all(req) or ""), 1
    end
    return piece and ""
  end
  if not piece or #piece == count then
    return piece
  end
  local list, have = { piece }, #piece
  while have < count do
    piece = read_some(req, count - have)
    if not piece then
      break
    end
    list[#list + 1] = piece
    have = have + #piece
  end
  return table.concat(list)
end

local function read_one(req, format)
  if format == "l" then
    return read_line(req, false)
  elseif format == "L" then
    return read_line(req, true)
  elseif format == "a" then
    return read_all(req)
  end
  return read_count(req, format)
end

local function check_format(format, arg)
  if math.type(format) == "integer" and format >= 0 then
    return format
  end
  local name = type(format) == "string" and format:gsub("^%*", "")
  check.expect(name == "l" or name == "L" or name == "a", arg, "read", '"l", "L", "a" or a count', format)
  return name
end

-- One reader at a time: the bytes would go to either.
local leave_meta = {
  __close = function(cell)
    cell.req.reading = false
  end,
}

local function exclusive(f, req, ...)
  if req.reading then
    error(core.error { code = "EBUSY", message = "another task is reading this body", op = "read" }, 0)
  end
  req.reading = true
  local _ <close> = setmetatable({ req = req }, leave_meta)
  return f(req, ...)
end

local function read_several(req, formats)
  local values, n = {}, #formats
  for i = 1, n do
    local value = read_one(req, formats[i])
    values[i] = value
    if value == nil then
      n = i
      break
    end
  end
  return table.unpack(values, 1, n)
end

---Reads from the body as `io` does: "l" (default), "L", "a", a count. At its end: nil ("" for "a").
---@param ... string|integer
---@return asynctask.Task values faults with `status` 413 past the limit, 408 when the client is too slow, 400 when the
---body is broken
function Request:read(...)
  local formats = { ... }
  for i = 1, #formats do
    formats[i] = check_format(formats[i], i)
  end
  if #formats == 0 then
    formats[1] = "l"
  end
  return start(exclusive, read_several, self, formats)
end

---What is there of the body, at least one byte; nil at its end.
---@param max? integer bytes
---@return asynctask.Task bytes
function Request:read_some(max)
  check.expect(max == nil or check.positive(max), 1, "read_some", "positive number of bytes", max)
  return start(exclusive, read_some, self, max)
end

---The whole body.
---@return asynctask.Task text "" without one
function Request:text()
  return start(exclusive, read_all, self)
end

---The body line by line: `for line in req:lines() do`.
---@param format? "l"|"L"
---@return asynctask.Iterator
---@return nil
---@return nil
---@return asynctask.Iterator
function Request:lines(format)
  format = check_format(format or "l", 1)
  return iterator.new(function()
    return start(exclusive, read_one, self, format)
  end)
end

---The body in the pieces in which it comes: `for piece in req:each_chunk() do`.
---@return asynctask.Iterator
---@return nil
---@return nil
---@return asynctask.Iterator
function Request:each_chunk()
  return iterator.new(function()
    return start(exclusive, read_some, self)
  end)
end

local function media_type(req)
  local value = req.headers["content-type"]
  return value and (value:match("^%s*([^;%s]*)"):lower())
end

-- Fields take many times the memory of their bytes.
local function too_many_fields()
  error(refused(413, "EMSGSIZE", ("the form has more than %d fields"):format(MOST_FIELDS)), 0)
end

local function read_parts(req)
  local boundary = multipart.boundary(req.headers["content-type"])
  local parts = boundary and multipart.parse(exclusive(read_all, req), boundary, MOST_FIELDS)
  if parts == false then
    too_many_fields()
  elseif not parts then
    error(refused(400, "EINVAL", "the body is no form in parts"), 0)
  end
  return headers.fields_of(parts)
end

local function read_form(req)
  local kind = media_type(req)
  if kind == "multipart/form-data" then
    return read_parts(req)
  elseif kind ~= "application/x-www-form-urlencoded" then
    error(refused(415, "EINVAL", "a form expected"), 0)
  end
  local text, at = exclusive(read_all, req), 0
  for _ = 1, MOST_FIELDS do
    at = text:find("&", at + 1, true)
    if not at then
      return setmetatable(native.query(text), headers.fields_meta)
    end
  end
  too_many_fields()
end

---The body as a form's fields (application/x-www-form-urlencoded, or multipart/form-data with files:
---`fields:part(name)`).
---@return asynctask.Task fields an `asynctask.http.Fields`; faults with `status` 415 when it is no form, 400 when it is
---broken
function Request:form()
  return start(read_form, self)
end

local function read_json(req)
  local library = json.library()
  local text = exclusive(read_all, req)
  local ok, value = pcall(library.decode, text)
  if not ok then
    error(refused(400, "EINVAL", "the body is no JSON: " .. tostring(value)), 0)
  end
  return value
end

---The body as JSON, by lua-cjson or dkjson.
---@return asynctask.Task value faults with `status` 400 when the body is no JSON
function Request:json()
  return start(read_json, self)
end

-- ---- answering piece by piece ------------------------------------------------------------------

---Begins a response whose body comes in pieces: `res:write(...)`, `res:close()`. With a Content-Length in the headers
---exactly that many bytes are to be written; without, they are sent in chunks. The head goes out with the first
---piece.
---@param status integer
---@param headers_given? table<string, string|number|string[]>
---@return asynctask.http.Response
function Request:respond(status, headers_given)
  return response.begin(self.conn, self, status, headers_given)
end

---A response of server-sent events (text/event-stream): `events:send(...)`.
---@param headers_given? table more headers
---@return asynctask.http.Events
function Request:events(headers_given)
  return response.events(self.conn, self, headers_given)
end

---Sends 103 (Early Hints), such as `{ link = "</style.css>; rel=preload" }`, before the response. Does nothing for
---clients of HTTP/1.0.
---@param headers_given table
---@return asynctask.Task sent
function Request:early_hints(headers_given)
  return response.interim(self.conn, self, 103, headers_given)
end

---Leaves HTTP: answers 101 (Switching Protocols) and hands out the connection's stream, with the bytes of the new
---protocol that have come already. The connection closes when the handler returns.
---@param protocol string of the Upgrade header
---@param headers_given? table more headers
---@return asynctask.Task stream two values: the stream, a string
function Request:upgrade(protocol, headers_given)
  return start(response.switch, self.conn, self, protocol, headers_given)
end

---@param conn table
---@param req table
---@param flags integer
---@param length integer
function M.adopt(conn, req, flags, length)
  req.conn = conn
  conn.req = req
  if flags & BODY ~= 0 then
    conn.body_open = true
    conn.received = 0
    if flags & CHUNKED == 0 then
      req.length = length
      conn.length = length
    else
      conn.length = nil
    end
  end
end

return M
