-- Servers that answer HTTP requests with whatever bytes a spec wants: a handler for each connection, which gets the
-- stream and, from `request`, what was asked.

local task = require "asynctask"
local net = require "asynctask.net"

local await = task.await

local child = require "spec.support.child"

local badweb = {}

--- Runs a Lua script against the build under test while the loop of this one turns: for scripts that talk to a server
--- of the spec.
---@param script string  Lua source
---@param env? table<string, string>
---@return string output
---@return integer code
function badweb.script(script, env)
  local process = require "asynctask.process"
  local all = {
    PATH = os.getenv "PATH", ASAN_OPTIONS = os.getenv "ASAN_OPTIONS", UBSAN_OPTIONS = os.getenv "UBSAN_OPTIONS",
    LUA_PATH = child.root .. "/lua/?.lua;" .. child.root .. "/lua/?/init.lua;" .. child.root .. "/?.lua;;",
    LUA_CPATH = child.build .. "/?.so;;", LD_PRELOAD = os.getenv "ASYNCTASK_PRELOAD",
  }
  for name, value in pairs(env or {}) do
    all[name] = value
  end
  local output, errors, code, signal = await(process.run(child.interpreter(), { "-e", script },
    { env = all, timeout = 60 }))
  return output .. errors, code or signal
end

--- The next request of a stream, its body read; nil when the peer has gone.
---@param stream asynctask.Stream
---@return { line: string, method: string, target: string, head: string, headers: table, body: string }?
function badweb.request(stream)
  local head = await(stream:read_until("\r\n\r\n"))
  if not head then
    return nil
  end
  local line = head:match("^[^\r\n]*")
  local r = { line = line, head = head, headers = {}, body = "" }
  r.method, r.target = line:match("^(%S+) (%S+)")
  for name, value in (head .. "\r\n"):gmatch("\r\n([^:\r\n]+): ?([^\r\n]*)") do
    r.headers[name:lower()] = value
  end
  local length = tonumber(r.headers["content-length"])
  if length and length > 0 then
    r.body = await(stream:read(length))
  elseif r.headers["transfer-encoding"] == "chunked" then
    local parts = {}
    while true do
      local size = tonumber(await(stream:read_until("\r\n")), 16)
      if size > 0 then
        parts[#parts + 1] = await(stream:read(size))
      end
      await(stream:read_until("\r\n"))
      if size == 0 then
        break
      end
    end
    r.body = table.concat(parts)
  end
  return r
end

--- A response with a length.
---@param status integer
---@param body? string
---@param headers? string  lines with their ends
function badweb.answer(status, body, headers)
  body = body or ""
  return ("HTTP/1.1 %d Words\r\n%sContent-Length: %d\r\n\r\n%s"):format(status, headers or "", #body, body)
end

--- Calls `f(url, port)` while `handler(stream)` serves connections.
---@param handler fun(stream: asynctask.Stream)
---@param f fun(url: string, port: integer): ...
---@return any ...  of `f`
function badweb.with(handler, f)
  local server = await(net.listen("127.0.0.1", 0))
  local port = server:sockname().port
  local serving = server:serve(handler, { on_error = function() end })
  local results = table.pack(xpcall(f, function(e)
    return type(e) == "string" and debug.traceback(e, 2) or e
  end, ("http://127.0.0.1:%d/"):format(port), port))
  await(server:close())
  await(serving)
  if not results[1] then
    error(results[2], 0)
  end
  return table.unpack(results, 2, results.n)
end

--- The same with a function from requests to bytes; connections stay open.
---@param respond fun(request: table, stream: asynctask.Stream): string?
---@param f fun(url: string, port: integer): ...
function badweb.each(respond, f)
  return badweb.with(function(stream)
    for request in function() return badweb.request(stream) end do
      local bytes = respond(request, stream)
      if not bytes then
        return
      end
      await(stream:write(bytes))
    end
  end, f)
end

return badweb
