-- wsconnect.lua - the client's side of a WebSocket's handshake (RFC 6455, section 4.1): `http.websocket`.

local core = require "asynctask.core"
local check = require "asynctask.check"
local net = require "asynctask.net"
local websocket = require "asynctask.http.websocket"

local await, try, start, shield = core.await, core.try, core.start, core.shield
local has_token = websocket.has_token

local HEAD = 16 * 1024 -- bytes of the server's answer
local TIMEOUT = 30     -- seconds for connecting and the answer

local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$" -- RFC 9110, 5.6.2

local M = {}

-- ---- arguments -----------------------------------------------------------------------------------

-- Its parts, or nil and what is wrong with it.
local function parse_url(url)
  local scheme, authority, rest = url:match("^(%a+)://([^/?#]+)([^#]*)$")
  scheme = scheme and scheme:lower()
  if scheme ~= "ws" and scheme ~= "wss" then
    return nil, "a URL ws://... or wss://... without fragment expected"
  elseif authority:find("@", 1, true) then
    return nil, "user and password do not belong into the URL; send a header"
  elseif url:find("[%c \127-\255]") then
    return nil, "the URL has characters that must be escaped"
  end
  local host, port = authority:match("^%[([%x:.]+)%]:?(%d*)$")
  if not host then
    host, port = authority:match("^([^:%[%]]+):?(%d*)$")
  end
  port = port and (port == "" and (scheme == "ws" and 80 or 443) or tonumber(port))
  if not host or port > 65535 then
    return nil, "the URL has no host, or a wrong port"
  end
  if rest:sub(1, 1) ~= "/" then
    rest = "/" .. rest
  end
  return { secure = scheme == "wss", authority = authority, host = host, port = port, target = rest }
end

local function tokens(v)
  if type(v) ~= "table" then
    return false, "list of names"
  end
  for _, name in ipairs(v) do
    if type(name) ~= "string" or not name:find(TOKEN) then
      return false, "list of names"
    end
  end
  return true, "list of names"
end

local function header_fields(v)
  if type(v) ~= "table" then
    return false, "table of headers"
  end
  for name, value in pairs(v) do
    if type(name) ~= "string" or not name:find(TOKEN) or type(value) ~= "string" or value:find("[\r\n%z]") then
      return false, "table of names and values without line breaks"
    end
  end
  return true, "table of headers"
end

local function origin(v)
  return type(v) == "string" and not v:find("[%c ]"), "origin"
end

local function tls_options(v)
  return type(v) == "table", "table of options"
end

local options = {
  protocols = tokens, headers = header_fields, origin = origin, timeout = check.seconds, tls = tls_options,
}
for name, fits in pairs(websocket.options) do
  options[name] = fits
end

-- ---- the handshake -------------------------------------------------------------------------------

local function refused(url, message, status)
  error(core.error {
    code = "EPROTO", op = "websocket", address = url, url = url, message = message, status = status,
  }, 0)
end

local function request(parts, key, opts)
  local lines = {
    "GET " .. parts.target .. " HTTP/1.1", "Host: " .. parts.authority, "Upgrade: websocket", "Connection: Upgrade",
    "Sec-WebSocket-Key: " .. key, "Sec-WebSocket-Version: 13",
  }
  if opts.protocols and opts.protocols[1] then
    lines[#lines + 1] = "Sec-WebSocket-Protocol: " .. table.concat(opts.protocols, ", ")
  end
  if opts.origin then
    lines[#lines + 1] = "Origin: " .. opts.origin
  end
  for name, value in pairs(opts.headers or {}) do
    lines[#lines + 1] = name .. ": " .. value
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- Status and fields (in lower case; repeated ones joined by commas) of an answer, or nothing.
local function parse_head(head)
  local status, rest = head:match("^HTTP/1%.1 (%d%d%d)[^\r\n]*\r\n(.*)$")
  if not status then
    return nil
  end
  local fields = {}
  for line in (rest .. "\r\n"):gmatch("(.-)\r\n") do
    local name, value = line:match("^([^%s:]+):[ \t]*(.-)[ \t]*$")
    if name then
      name = name:lower()
      fields[name] = fields[name] and fields[name] .. ", " .. value or value
    elseif line ~= "" then
      return nil
    end
  end
  return tonumber(status), fields
end

local function offered(protocols, name)
  for _, protocol in ipairs(protocols or {}) do
    if protocol == name then
      return true
    end
  end
  return false
end

-- Checks the answer; gives the subprotocol.
local function check_answer(url, head, key, opts)
  local status, fields = parse_head(head)
  if not status then
    refused(url, "the server's answer is no HTTP/1.1")
  elseif status ~= 101 then
    refused(url, ("the server has answered %d"):format(status), status)
  end
  local protocol = fields["sec-websocket-protocol"]
  if (fields.upgrade or ""):lower() ~= "websocket" or not has_token(fields.connection, "upgrade") then
    refused(url, "the server has not changed to the WebSocket protocol")
  elseif fields["sec-websocket-accept"] ~= websocket.accept(key) then
    refused(url, "the server's Sec-WebSocket-Accept is wrong")
  elseif fields["sec-websocket-extensions"] then
    refused(url, "the server uses an extension that nobody asked for")
  elseif protocol and not offered(opts.protocols, protocol) then
    refused(url, "the server has chosen a subprotocol that nobody asked for")
  end
  return protocol
end

local function connect(parts, opts)
  if parts.secure then
    local tls = require "asynctask.tls"
    return await(tls.connect(parts.host, parts.port, opts.tls))
  end
  return await(net.connect(parts.host, parts.port))
end

local function handshake(stream, url, parts, opts)
  local key = websocket.key()
  await(stream:write(request(parts, key, opts)))
  local head = await(stream:read_until("\r\n\r\n", { max = HEAD, keep = true }))
  if not head or head:sub(-4) ~= "\r\n\r\n" then
    refused(url, "the server has closed the connection")
  end
  return check_answer(url, head:sub(1, -3), key, opts)
end

local function dial(url, parts, opts)
  local stream = connect(parts, opts)
  local ok, protocol = pcall(handshake, stream, url, parts, opts)
  if not ok then
    shield(try, stream:close())
    error(protocol, 0)
  end
  return websocket.over(stream, false, opts, protocol)
end

---@class asynctask.http.websocket_connect_options: asynctask.http.websocket_options
---@field protocols? string[] subprotocols, the best first; `ws.protocol` is the one that the server chose
---@field headers? table<string, string> more fields of the request
---@field origin? string the field Origin, which browsers send
---@field timeout? number seconds for connecting and the server's answer (30)
---@field tls? table options of `tls.connect`, for wss

---Connects to a WebSocket server. Redirects are not followed. Faults with what connecting fails with, ETIMEDOUT, or
---EPROTO when the server does not answer as RFC 6455 asks (`status`: the HTTP status if that was not 101).
---@param url string ws://host:port/path?query or wss://...
---@param opts? asynctask.http.websocket_connect_options
---@return asynctask.Task ws an `asynctask.http.WebSocket`
function M.websocket(url, opts)
  check.expect(type(url) == "string", 1, "websocket", "string", url)
  opts = check.options(opts, 2, "websocket", options)
  local parts, wrong = parse_url(url)
  if not parts then
    check.bad(1, "websocket", wrong)
  end
  return start(core.with_timeout, opts.timeout or TIMEOUT, dial, url, parts, opts):named("websocket " .. url)
end

return M
