-- soak.lua [requests [kilobytes]] - HTTP requests of several kinds, again and again (default: ten million), pipelined
-- on connections that are opened anew now and then; fails when memory grows (by more than a quarter, or so many
-- kilobytes) or descriptors do. `make soak-http`.

local task = require "asynctask"
local fs = require "asynctask.fs"
local http = require "asynctask.http"
local net = require "asynctask.net"

local await = task.await
local total = math.tointeger(arg[1]) or 10000000
local CONNECTIONS <const>, BATCH <const>, PER_CONNECTION <const> = 20, 40, 10000

-- Kilobytes of the process, and its open descriptors (0 where there is no /proc).
local function usage()
  await(task.delay(0.1)) -- what was closed last is gone
  collectgarbage()
  collectgarbage()
  local kilobytes, descriptors = 0, 0
  local status = io.open("/proc/self/status")
  if status then
    kilobytes = tonumber(status:read("a"):match("VmRSS:%s*(%d+)"))
    status:close()
    for _ in fs.dir "/proc/self/fd" do
      descriptors = descriptors + 1
    end
  end
  return kilobytes, descriptors
end

local function handler(req)
  if req.path == "/wait" then
    await(task.yield())
  elseif req.path == "/fail" then
    error(task.error { code = "EINVAL", message = "refused on purpose", status = 400 })
  elseif req.path == "/pieces" then
    local res = req:respond(200)
    await(res:write("ok"))
    return await(res:close())
  end
  return 200, { ["X-Query"] = req.query.n }, req.method == "POST" and await(req:text()) or "ok"
end

local kinds = {
  "GET /hello?n=%d HTTP/1.1\r\nHost: x\r\n\r\n",
  "GET /wait?n=%d HTTP/1.1\r\nHost: x\r\nUser-Agent: soak\r\nAccept: */*\r\n\r\n",
  "POST /post?n=%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok",
  "POST /post?n=%d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
  "GET /pieces?n=%d HTTP/1.1\r\nHost: x\r\n\r\n",
  "GET /hello/%d HTTP/1.1\r\nHost: x\r\n\r\n",
  "GET /fail?n=%d HTTP/1.1\r\nHost: x\r\n\r\n",
}

local texts = {}
for i = 1, BATCH do
  texts[i] = kinds[i % #kinds + 1]:format(i)
end
local batch = table.concat(texts)

local function response(stream)
  local head = await(stream:read_until "\r\n\r\n")
  local length = head:match "Content%-Length: (%d+)"
  if length then
    await(stream:read(math.tointeger(tonumber(length))))
  else
    repeat
      local size = tonumber(await(stream:read_until "\r\n"), 16)
      await(stream:read(size + 2))
    until size == 0
  end
end

local function client(port, requests)
  while requests > 0 do
    local stream <close> = await(net.connect("127.0.0.1", port))
    for _ = 1, math.min(requests, PER_CONNECTION) // BATCH do
      await(stream:write(batch))
      for _ = 1, BATCH do
        response(stream)
      end
    end
    requests = requests - PER_CONNECTION
  end
end

local function run(port, requests)
  local workers = {}
  for i = 1, CONNECTIONS do
    workers[i] = task.spawn(client, port, requests // CONNECTIONS)
  end
  await(task.when_all(workers))
end

task.main(function()
  local server = await(net.listen("127.0.0.1", 0))
  local serving = http.serve(server, handler)
  local port = server:sockname().port
  run(port, math.max(total // 20, 20000))
  local kilobytes, descriptors = usage()
  for i = 1, 10 do
    run(port, total // 10)
    io.stderr:write(("%d requests, %d kB\n"):format(total // 10 * i, (usage())))
  end
  local kilobytes_now, descriptors_now = usage()
  await(server:close { grace = 5 })
  await(serving)
  print(("%d requests: %d kB and %d descriptors before, %d and %d after"):format(total, kilobytes, descriptors,
    kilobytes_now, descriptors_now))
  local allowed = tonumber(arg[2]) or kilobytes // 4 + 2000
  if descriptors_now > descriptors or kilobytes_now > kilobytes + allowed then
    error("it grows", 0)
  end
end)
