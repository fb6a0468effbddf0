-- many_http.lua [url...] - LuaSocket's socket.http, unmodified, fetching many pages at once on one thread. Without
-- arguments it asks a small server of its own, each of whose answers takes 0.1 s.

local task   = require "asynctask"
local net    = require "asynctask.net"
local socket = require "asynctask.socket"

local await = task.await

local COUNT = 20

-- As much of HTTP as this needs.
local function answer(stream)
  local path = await(stream:read()):match("^GET (%S+)")
  repeat until await(stream:read()) == "\r"
  await(task.delay(0.1))
  local body = "this is " .. path .. "\n"
  await(stream:write("HTTP/1.0 200 OK\r\nContent-Length: ", #body, "\r\n\r\n", body))
end

task.main(function(...)
  if not pcall(function() return socket.http end) then
    print("this needs LuaSocket: apt-get install lua-socket")
    return
  end
  local http = socket.http -- loaded over asynctask's sockets

  local urls = { ... }
  local server <close> = await(net.listen("127.0.0.1", 0))
  server:serve(answer)
  if #urls == 0 then
    for i = 1, COUNT do
      urls[i] = ("http://127.0.0.1:%d/page%d"):format(server:sockname().port, i)
    end
  end

  local function fetch(url)
    local body, code = http.request(url) -- a blocking client: this task waits, the others go on
    return { body = body, code = code }
  end

  local begun = socket.gettime()
  fetch(urls[1])
  local one = socket.gettime() - begun

  begun = socket.gettime()
  local answers = await(task.map(urls, fetch))
  local all = socket.gettime() - begun

  local bytes, good = 0, 0
  for _, a in ipairs(answers) do
    if a.body then
      bytes, good = bytes + #a.body, good + (a.code == 200 and 1 or 0)
    end
  end
  print(("%d of %d pages, %d bytes"):format(good, #urls, bytes))
  print(("one alone: %.2f s, all of them: %.2f s"):format(one, all))
end, ...)
