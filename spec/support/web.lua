-- A server for specs, and a client that sends what it is told, byte by byte if need be.

local task = require "asynctask"
local net = require "asynctask.net"

local await = task.await

local web = {}

--- Serves a handler on a free port until the spec is over.
---@param handler function
---@param opts? table  of http.serve
---@return integer port
---@return asynctask.Server server
function web.serve(handler, opts)
  local http = require "asynctask.http"
  local server = await(net.listen("127.0.0.1", 0))
  local serving = http.serve(server, handler, opts)
  return server:sockname().port, server, serving
end

--- Sends bytes and reads until the other side closes.
---@param port integer
---@param bytes string
---@return string answer
function web.raw(port, bytes)
  local stream <close> = await(net.connect("127.0.0.1", port))
  await(stream:write(bytes))
  return task.with_timeout(10, stream.read, stream, "a")
end

--- One request, as a browser would send it, and its answer.
---@param port integer
---@param target string  as it is sent
---@param headers? table<string, string>
---@param method? string
---@return integer status
---@return table<string, string> headers  names in lower case
---@return string body
function web.get(port, target, headers, method)
  local lines = { ("%s %s HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n"):format(method or "GET", target,
    port) }
  for name, value in pairs(headers or {}) do
    lines[#lines + 1] = ("%s: %s\r\n"):format(name, value)
  end
  local answer = web.raw(port, table.concat(lines) .. "\r\n")
  local status, head, body = answer:match("^HTTP/1%.1 (%d+)[^\r\n]*(\r\n.-\r\n)\r\n(.*)$")
  assert(status, "no answer: " .. answer)
  local found = {}
  for name, value in head:gmatch("\r\n([^:\r\n]+): ([^\r\n]*)") do
    found[name:lower()] = value
  end
  if found["transfer-encoding"] == "chunked" then
    local list = {}
    for piece in body:gmatch("%x+\r\n(.-)\r\n") do
      list[#list + 1] = piece
    end
    body = table.concat(list)
  end
  return tonumber(status), found, body
end

return web
