-- asynctask.http - HTTP: the facade. Each name belongs to a part, which is loaded at its first use, so that a
-- library that is missing (libcurl, a parser) only keeps out what needs it.

---@class asynctask.http
local http = {}

-- name -> the module that has it
local parts = {
  -- the server (llhttp or http-parser)
  serve = "asynctask.http.server",
  files = "asynctask.http.files",
  router = "asynctask.http.router",
  content_type = "asynctask.http.types",
  -- WebSockets (wslay)
  upgrade = "asynctask.http.upgrade",
  websocket = "asynctask.http.wsconnect",
  -- the client (libcurl)
  client = "asynctask.http.client",
  get = "asynctask.http.client",
  head = "asynctask.http.client",
  post = "asynctask.http.client",
  put = "asynctask.http.client",
  patch = "asynctask.http.client",
  delete = "asynctask.http.client",
  request = "asynctask.http.client",
  get_string = "asynctask.http.client",
  get_json = "asynctask.http.client",
  download = "asynctask.http.client",
  close = "asynctask.http.client",
  -- for both sides
  headers = "asynctask.http.headers",
  json = "asynctask.http.json",
}

return setmetatable(http, {
  __index = function(_, name)
    local part = parts[name]
    if not part then
      return nil
    end
    local value = require(part)[name]
    http[name] = value
    return value
  end,
})
