-- rawhttp.lua - for the specs of the HTTP server: a server for the time of a function, and a client that sends bytes
-- as they are given and takes responses apart.

local task = require "asynctask"
local http = require "asynctask.http"
local net = require "asynctask.net"

local await = task.await

local raw = {}

---Calls `f(port, server, serving)` while `handler` serves.
---@param handler function|string
---@param opts table?
---@param f fun(port: integer, server: asynctask.Server, serving: asynctask.Task): ...
function raw.with(handler, opts, f)
  local server = await(net.listen("127.0.0.1", 0))
  local port = server:sockname().port
  local serving = http.serve(server, handler, opts)
  local ok, err = xpcall(f, debug.traceback, port, server, serving)
  await(server:close())
  await(serving)
  if not ok then
    error(err, 0)
  end
end

function raw.connect(port)
  return await(net.connect("127.0.0.1", port))
end

local function read_headers(text)
  local headers = {}
  for name, value in text:gmatch("([^\r\n:]+): ?([^\r\n]*)\r\n") do
    headers[name:lower()] = value
  end
  return headers
end

local function read_chunked(stream)
  local pieces, trailers = {}, {}
  while true do
    local size = tonumber(await(stream:read_until("\r\n")), 16)
    if size == 0 then
      break
    end
    pieces[#pieces + 1] = await(stream:read(size))
    assert(await(stream:read(2)) == "\r\n")
  end
  while true do
    local line = await(stream:read_until("\r\n"))
    if line == "" then
      return table.concat(pieces), trailers, #pieces
    end
    trailers[#trailers + 1] = line
  end
end

---The next response of a stream, nil at its end.
---@param stream asynctask.Stream
---@param method string? of the request: of a response to HEAD no body is read
---@return { status: integer, headers: table, body: string, head: string, trailers: table?, chunks: integer? }?
function raw.response(stream, method)
  local head = await(stream:read_until("\r\n\r\n", { keep = true }))
  if not head then
    return nil
  end
  local status = tonumber(head:match("^HTTP/1%.1 (%d%d%d) [^\r\n]*\r\n"))
  assert(status, "no status line: " .. head)
  local r = { status = status, head = head, headers = read_headers(head:match("\r\n(.*)$")), body = "" }
  if method == "HEAD" or status < 200 or status == 204 or status == 304 then
    return r
  elseif r.headers["transfer-encoding"] == "chunked" then
    r.body, r.trailers, r.chunks = read_chunked(stream)
  elseif r.headers["content-length"] then
    local length = tonumber(r.headers["content-length"])
    r.body = length > 0 and await(stream:read(length)) or ""
  else
    r.body = await(stream:read("a"))
  end
  return r
end

---Sends bytes on a connection of their own; the response, and whether the connection ended behind it.
---@param port integer
---@param bytes string
---@return table? response
---@return boolean closed
function raw.send(port, bytes)
  local stream <close> = raw.connect(port)
  local writing = stream:write(bytes)
  local r = task.with_timeout(10, raw.response, stream, bytes:match("^%u+"))
  local data, err = task.try(stream:read_some():timeout(0.05))
  writing:try() -- the server may have closed without taking all of it
  return r, data == nil and (err == nil or err.code == "ECONNRESET")
end

---Everything that comes until the connection ends.
---@param port integer
---@param bytes string
---@return string
function raw.exchange(port, bytes)
  local stream <close> = raw.connect(port)
  await(stream:write(bytes))
  return await(stream:read("a"):timeout(10))
end

---A request with a Host.
---@param line string such as "GET /"
---@param headers string? lines, each with its CRLF
---@param body string?
function raw.message(line, headers, body)
  return ("%s HTTP/1.1\r\nHost: x\r\n%s\r\n%s"):format(line, headers or "", body or "")
end

return raw
