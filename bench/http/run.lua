-- run.lua - "hello world" over HTTP with wrk: asynctask beside Go's net/http, node's http and nginx (those that are
-- installed). `make bench-http`; about three minutes.
--
--     lua5.4 bench/http/run.lua WORK [seconds [rounds]]
--
-- WORK is a directory for what is compiled. On one core: servers are pinned to the first, wrk to the second. With two
-- threads everything shares both, so those figures say how a server uses a second core, not what it could do alone. All
-- servers run from the start and are measured in turns. "CPU" is the server's own time for a request.

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local work = assert(arg[1], "a directory for what is compiled")
package.path = here .. "/../?.lua;" .. package.path
local report = require "support.report"
local succeeds = report.succeeds

local seconds = math.max(1, math.tointeger(tonumber(arg[2])) or report.quick and 1 or 2) -- wrk takes whole ones
local rounds = tonumber(arg[3]) or report.quick and 3 or 5
local CONNECTIONS = { 64, 1000 }

if not succeeds("command -v wrk") then
  report.say "bench-http: wrk is missing (Debian: wrk)"
  os.exit(0)
end
if work:sub(1, 1) ~= "/" then
  local pipe = assert(io.popen "pwd")
  work = pipe:read "l" .. "/" .. work
  pipe:close()
end
os.execute("mkdir -p " .. report.quote(work))

local lua = report.interpreter()
local cores = succeeds("taskset -c 0,1 true")
local has_go = succeeds("go version") and succeeds(("cd %s && go build -o %s/hello_go server.go"):format(here, work))
local has_node, has_nginx = succeeds "node --version", succeeds "PATH=$PATH:/usr/sbin command -v nginx"

local function read_line(command)
  local pipe = assert(io.popen(command))
  local line = pipe:read "l"
  pipe:close()
  return line
end

local function free_port()
  return math.tointeger(tonumber(read_line(lua .. [[ -e '
    local net = require "asynctask.net"
    local s = require("asynctask").await(net.listen("127.0.0.1", 0))
    print(s:sockname().port)']])))
end

-- nginx needs its port before it starts. Its workers are pinned as it is.
local function nginx(threads)
  local port = free_port()
  local path = ("%s/nginx%d"):format(work, threads)
  os.execute("mkdir -p " .. report.quote(path))
  local file = assert(io.open(path .. "/nginx.conf", "w"))
  file:write(([[
daemon off; worker_processes %d; pid %s/pid; error_log %s/error.log; worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000; default_type text/plain;
  client_body_temp_path %s/a; proxy_temp_path %s/b; fastcgi_temp_path %s/c; uwsgi_temp_path %s/d; scgi_temp_path %s/e;
  server { listen 127.0.0.1:%d backlog=4096 reuseport; location / { return 200 "hello world\n"; } }
}
]]):format(threads, path, path, path, path, path, path, path, port))
  file:close()
  return ("sh -c 'PATH=$PATH:/usr/sbin; echo %d; exec nginx -e %s/error.log -c %s/nginx.conf'"):format(port, path, path)
end

local function servers_for(threads)
  local list = { { name = "asynctask", command = ("%s %s/server.lua %d"):format(lua, here, threads) } }
  if has_go then
    list[#list + 1] = { name = "Go net/http", command = ("%s/hello_go %d"):format(work, threads), goal = true }
  end
  if has_node then
    list[#list + 1] = { name = "node http", command = ("node %s/server.js %d"):format(here, threads) }
  end
  if has_nginx then
    list[#list + 1] = { name = "nginx", command = nginx(threads) }
  end
  return list
end

-- Starts a server; its pid and port.
local function start(server, pin)
  server.pipe = assert(io.popen(("exec sh -c 'echo $$; ulimit -n 8192; exec %s'"):format(
    (pin .. server.command):gsub("'", "'\\''"))))
  server.pid = assert(server.pipe:read "n")
  server.port = assert(server.pipe:read "n", server.name .. " does not start")
end

-- The process and its children.
local function processes(pid)
  local list = { pid }
  local pipe = assert(io.popen("pgrep -P " .. pid .. " 2>/dev/null"))
  for line in pipe:lines() do
    list[#list + 1] = math.tointeger(tonumber(line))
  end
  pipe:close()
  return list
end

-- CPU seconds of a server so far; nil where there is no /proc.
local function cpu(server)
  local sum = 0
  for _, pid in ipairs(processes(server.pid)) do
    local stat = io.open(("/proc/%d/stat"):format(pid))
    if not stat then return nil end
    local user, system = stat:read("a"):match("%) %a" .. (" %-?%d+"):rep(10) .. " (%d+) (%d+)")
    stat:close()
    sum = sum + (user + system) / 100 -- USER_HZ
  end
  return sum
end

local units = { us = 1, ms = 1000, s = 1000000 }

local function load(server, connections, pin, threads)
  local before = cpu(server)
  local pipe = assert(io.popen(("ulimit -n 8192; %swrk -t%d -c%d -d%ds --latency http://127.0.0.1:%d/"):format(pin,
    threads, connections, seconds, server.port)))
  local text = pipe:read "a"
  pipe:close()
  local rate = tonumber(text:match "Requests/sec:%s+([%d.]+)")
  local p99, unit = text:match "99%%%s+([%d.]+)(%a+)"
  local count = tonumber(text:match "(%d+) requests in")
  assert(rate and count > 0, server.name .. " failed:\n" .. text)
  assert(not text:find "Non%-2xx", server.name .. " failed:\n" .. text)
  return {
    rate = rate, p99 = tonumber(p99) * units[unit],
    cost = before and (cpu(server) - before) / count * 1e6 or 0 / 0,
  }
end

local function measure(servers, threads, connections, pin)
  local results = {}
  for _, server in ipairs(servers) do results[server] = {} end
  for round = 1, rounds do
    for i = 1, #servers do -- a different one begins each round
      local server = servers[(i + round) % #servers + 1]
      results[server][round] = load(server, connections, pin, threads)
    end
  end
  local what = ("HTTP, %d thread%s, %d connections: "):format(threads, threads == 1 and "" or "s", connections)
  for _, field in ipairs {
    { "rate", "requests/s", "rate", true }, { "p99", "us", "99th percentile" },
    { "cost", "us a request", "CPU of the server", digits = 2 },
  } do
    local rows = {}
    for i, server in ipairs(servers) do
      local values = {}
      for round, r in ipairs(results[server]) do
        values[round] = r[field[1]]
      end
      rows[i] = { name = server.name, values = values, digits = field.digits or 0,
        goal = field[1] == "rate" and threads == 1 and server.goal and 1 or nil }
    end
    report.add(what .. field[3], field[2], rows, field[4])
  end
end

local function run(threads)
  local servers = servers_for(threads)
  local one = cores and threads == 1
  local ok, err = pcall(function()
    for _, server in ipairs(servers) do
      start(server, one and "taskset -c 0 " or "")
    end
    for _, connections in ipairs(CONNECTIONS) do
      measure(servers, threads, connections, one and "taskset -c 1 " or "")
    end
  end)
  for _, server in ipairs(servers) do
    if server.pid then
      os.execute("kill " .. server.pid)
      server.pipe:close()
    end
  end
  if not ok then error(err, 0) end
end

run(1)
run(2)
