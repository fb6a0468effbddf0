-- upgrade.lua - the server's side of a WebSocket's handshake (RFC 6455, section 4.2): `http.upgrade`.

local core = require "asynctask.core"
local check = require "asynctask.check"
local websocket = require "asynctask.http.websocket"

local await, start = core.await, core.start
local has_token = websocket.has_token

local M = {}

-- An error that the server answers with `status` where the handler does not catch it.
local function refused(status, message, headers)
  error(core.error { code = "EPROTO", op = "upgrade", message = message, status = status, headers = headers }, 0)
end

local function check_request(req)
  local headers = req.headers
  if req.method ~= "GET" or req.version == "1.0" or (req.length or 0) > 0 or headers["transfer-encoding"] then
    refused(400, "a WebSocket begins with a GET of HTTP/1.1 without a body")
  elseif not has_token(headers.upgrade, "websocket") or not has_token(headers.connection, "upgrade") then
    refused(426, "this is for WebSockets", { Upgrade = "websocket", Connection = "Upgrade" })
  elseif headers["sec-websocket-version"] ~= "13" then
    refused(426, "version 13 of the WebSocket protocol is spoken here", { ["Sec-WebSocket-Version"] = "13" })
  end
  local key = headers["sec-websocket-key"] or ""
  if not key:find("^[%w+/]+==$") or #key ~= 24 then
    refused(400, "Sec-WebSocket-Key is missing or wrong")
  end
  return key
end

-- A page of somebody else's site must not use the cookies of ours (RFC 6455, 10.2).
local function check_origin(req, wanted)
  local origin = req.headers.origin
  local fits
  if type(wanted) == "function" then
    fits = wanted(origin, req)
  elseif not origin or wanted == "*" then
    return
  elseif wanted == nil then
    fits = origin:lower():match("^%a[%w+.-]*://(.+)$") == (req.headers.host or ""):lower()
  else
    for _, one in ipairs(type(wanted) == "table" and wanted or { wanted }) do
      fits = fits or one:lower() == origin:lower()
    end
  end
  if not fits then
    refused(403, "this origin is not allowed")
  end
end

-- Ours, in our order, that the client offers.
local function choose(req, protocols)
  if not protocols then
    return nil
  end
  local offered = {}
  for name in (req.headers["sec-websocket-protocol"] or ""):gmatch("[^,%s]+") do
    offered[name] = true
  end
  for _, name in ipairs(protocols) do
    if offered[name] then
      return name
    end
  end
end

local function upgrade(req, opts)
  local key = check_request(req)
  check_origin(req, opts.origin)
  local protocol = choose(req, opts.protocols)
  local headers = { ["Sec-WebSocket-Accept"] = websocket.accept(key), ["Sec-WebSocket-Protocol"] = protocol }
  for name, value in pairs(opts.headers or {}) do
    headers[name] = value
  end
  local stream, rest = await(req:upgrade("websocket", headers))
  return websocket.over(stream, true, opts, protocol, rest)
end

local function origin_fits(v)
  return type(v) == "string" or type(v) == "table" or type(v) == "function", "origin, list of origins or function"
end

local function is_table(v)
  return type(v) == "table", "table"
end

local options = { protocols = is_table, headers = is_table, origin = origin_fits }
for name, fits in pairs(websocket.options) do
  options[name] = fits
end

---@class asynctask.http.upgrade_options: asynctask.http.websocket_options
---@field origin? string|string[]|fun(origin: string?, req: asynctask.http.Request): boolean who may connect from a
---browser: none given: pages of the same host and port; origins such as "https://example.org"; "*": everybody; a
---function that says. Clients that send no Origin are no browsers and pass, unless the function says otherwise
---@field protocols? string[] subprotocols, the best first; `ws.protocol` is the first that the client offers, too
---@field headers? table<string, string> more headers of the answer

---Makes a WebSocket out of a request, which is answered by it: `local ws <close> = await(http.upgrade(req))`.
---The connection ends when the handler does. Faults with EPROTO and a `status` (400, 403, 426) when the request is
---not for a WebSocket, or not allowed; a handler that does not catch it answers with that status.
---@param req asynctask.http.Request
---@param opts? asynctask.http.upgrade_options
---@return asynctask.Task ws an `asynctask.http.WebSocket`
function M.upgrade(req, opts)
  check.expect(type(req) == "table" and req.upgrade ~= nil and req.headers ~= nil, 1, "upgrade", "request", req)
  return start(upgrade, req, check.options(opts, 2, "upgrade", options))
end

return M
