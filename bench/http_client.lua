-- http_client.lua - requests per second of HTTP clients with 100 in flight, against nginx on loopback: asynctask.http
-- beside node's fetch (undici) and http.Agent, Python's aiohttp, and curl --parallel (those that are installed).
-- `make bench-http-client`; about a minute.
--
--     lua5.4 bench/http_client.lua WORK [count [rounds]]
--
-- Clients run on the first core, nginx on the second, in turns. Curl is a process for each run: its figure contains
-- its start, and it writes bodies to /dev/null.

local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local report = require "support.report"
local quote, succeeds = report.quote, report.succeeds

local work = assert(arg[1], "a directory for nginx")
local count = math.tointeger(tonumber(arg[2])) or report.quick and 5000 or 20000
local rounds = math.tointeger(tonumber(arg[3])) or report.quick and 3 or 5

if not succeeds "PATH=$PATH:/usr/sbin command -v nginx" then
  report.say "bench-http-client: nginx is missing (Debian: nginx-light)"
  os.exit(0)
end
local lua = report.interpreter()
if not succeeds(quote(lua) .. " -e 'require \"asynctask.curl\"'") then
  report.say "bench-http-client: built without libcurl"
  os.exit(0)
end
if work:sub(1, 1) ~= "/" then
  local pipe = assert(io.popen "pwd")
  work = pipe:read "l" .. "/" .. work
  pipe:close()
end

local cores = succeeds "taskset -c 0,1 true"
local first, second = cores and "taskset -c 0 " or "", cores and "taskset -c 1 " or ""

local function free_port()
  local pipe = assert(io.popen(quote(lua) .. [[ -e '
    local net = require "asynctask.net"
    local s = require("asynctask").await(net.listen("127.0.0.1", 0))
    print(s:sockname().port)']]))
  local port = pipe:read "n"
  pipe:close()
  return math.tointeger(port)
end

local function start_nginx(port)
  os.execute("mkdir -p " .. quote(work))
  local file = assert(io.open(work .. "/nginx.conf", "w"))
  assert(file:write((([[
worker_processes 1; pid DIR/pid; error_log DIR/error.log; worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000; default_type text/plain;
  client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d;
  scgi_temp_path DIR/e;
  server { listen 127.0.0.1:PORT backlog=4096; location / { return 200 "hello world\n"; } }
}
]]):gsub("DIR", work):gsub("PORT", tostring(port)))))
  file:close()
  assert(os.execute(("PATH=$PATH:/usr/sbin; %snginx -e %s/error.log -c %s/nginx.conf"):format(second, quote(work),
    quote(work))), "nginx does not start")
end

local port = free_port()
local url = ("http://127.0.0.1:%d/"):format(port)

local function program(command)
  return function()
    return report.figures(("%s%s %s %d"):format(first, command, url, count)).rate
  end
end

local function seconds_of(command)
  local pipe = assert(io.popen(("/bin/bash -c 'TIMEFORMAT=%%R; time %s >/dev/null 2>&1' 2>&1"):format(command)))
  local s = pipe:read "n"
  pipe:close()
  return s
end

-- One URL with a range is as many requests.
local function curl()
  local s = seconds_of(("%scurl -s --parallel --parallel-max 100 -o /dev/null \"%s?[1-%d]\""):format(first, url, count))
  return s and count / s
end

local contestants = { { "asynctask.http", program(quote(lua) .. " " .. quote(here .. "/http_client/ours.lua")) } }
if succeeds "curl --version" then
  contestants[#contestants + 1] = { "curl --parallel", curl }
end
if succeeds "node -e fetch" then
  contestants[#contestants + 1] = { "node fetch (undici)", program("node " .. quote(here .. "/http_client/fetch.js")) }
  contestants[#contestants + 1] = { "node http.Agent", program("node " .. quote(here .. "/http_client/agent.js")) }
end
for _, python in ipairs { "/usr/bin/python3", "python3" } do
  if succeeds(python .. " -c 'import aiohttp'") then
    contestants[#contestants + 1] =
      { "Python aiohttp", program(python .. " " .. quote(here .. "/http_client/aiohttp_peer.py")) }
    break
  end
end

start_nginx(port)
local ok, err = pcall(function()
  local rows = {}
  for i, c in ipairs(contestants) do
    rows[i] = { name = c[1], values = {} }
  end
  for round = 1, rounds do
    for i = 1, #contestants do -- a different one begins each round
      local k = (i + round) % #contestants + 1
      local rate = contestants[k][2]()
      assert(rate, contestants[k][1] .. " failed")
      table.insert(rows[k].values, rate)
    end
  end
  report.add("HTTP client, 100 requests in flight, nginx on loopback", "requests/s", rows, true)
end)
os.execute("kill -TERM $(cat " .. quote(work) .. "/pid)")
if not ok then
  error(err, 0)
end
