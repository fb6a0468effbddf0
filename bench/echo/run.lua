-- run.lua - echo of 64-byte messages: asynctask beside plain C on libuv, luv, node and Go (those that are
-- installed). `make bench-echo`; about two minutes.
--
--     lua5.4 bench/echo/run.lua WORK [seconds [rounds]]
--
-- WORK is a directory for what is compiled. Servers are pinned to one core, the load generator to another;
-- all servers run from the start and are measured in turns. "CPU" is the server's own time for a request, which
-- other programs on the machine disturb least.

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local work = assert(arg[1], "a directory for what is compiled")
package.path = here .. "/../?.lua;" .. package.path
local report = require "support.report"
local succeeds = report.succeeds

local seconds, rounds = tonumber(arg[2]) or report.quick and 0.5 or 1, tonumber(arg[3]) or report.quick and 3 or 5
local GOALS = { [1] = 0.95, [64] = 0.92, [1000] = 0.95 } -- of C's rate
local CONNECTIONS = { 1, 64, 1000 }

local function must(command)
  if not os.execute(command) then
    error("failed: " .. command, 0)
  end
end

local lua = report.interpreter()
local uv = "$(pkg-config --cflags --libs libuv 2>/dev/null || echo -luv)"
local cores = succeeds("taskset -c 0,1 true")
local server_core = cores and "taskset -c 0 " or ""
local load_core = cores and "taskset -c 1 " or ""

must(("cc -O2 -o %s/load %s/load.c -lm"):format(work, here))
must(("cc -O2 -o %s/server %s/server.c %s"):format(work, here, uv))

local servers = {
  { name = "asynctask", command = lua .. " " .. here .. "/server.lua" },
  { name = "C (libuv)", command = work .. "/server" },
}
if succeeds(lua .. " -e 'require \"luv\"'") then
  servers[#servers + 1] = { name = "luv", command = lua .. " " .. here .. "/server_luv.lua" }
end
if succeeds("node --version") then
  servers[#servers + 1] = { name = "node", command = "node " .. here .. "/server.js" }
end
if succeeds("go version") and succeeds(("cd %s && go build -o %s/server_go server.go"):format(here, work)) then
  servers[#servers + 1] = { name = "Go", command = work .. "/server_go" }
end

-- Starts a server; its pid and port.
local function start(server)
  server.pipe = assert(io.popen(("sh -c 'echo $$; ulimit -n 8192; exec %s%s'"):format(server_core, server.command)))
  server.pid = assert(server.pipe:read("n"))
  server.port = assert(server.pipe:read("n"), server.name .. " does not start")
end

-- CPU seconds of a server so far, all of its threads; nil where there is no /proc.
local function cpu(server)
  local stat = io.open(("/proc/%d/stat"):format(server.pid))
  if not stat then return nil end
  local user, system = stat:read("a"):match("%) %a" .. (" %-?%d+"):rep(10) .. " (%d+) (%d+)")
  stat:close()
  return (user + system) / 100 -- USER_HZ
end

local function load(server, connections)
  local before = cpu(server)
  local pipe = assert(io.popen(("ulimit -n 8192; %s%s/load %d %d %g"):format(load_core, work, server.port,
    connections, seconds)))
  local rate, middle, p99 = pipe:read("n", "n", "n")
  pipe:close()
  assert(rate, server.name .. " failed")
  return {
    rate = rate, middle = middle, p99 = p99,
    cost = before and (cpu(server) - before) / (rate * seconds) * 1e6 or 0 / 0,
  }
end

local function measure(connections)
  local results = {}
  for _, server in ipairs(servers) do results[server] = {} end
  for round = 1, rounds do
    for i = 1, #servers do -- a different one begins each round
      local server = servers[(i + round) % #servers + 1]
      results[server][round] = load(server, connections)
    end
  end
  local what = ("echo, %d connection%s: "):format(connections, connections == 1 and "" or "s")
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
        goal = field[1] == "rate" and i == 2 and GOALS[connections] or nil }
    end
    report.add(what .. field[3], field[2], rows, field[4])
  end
end

for _, server in ipairs(servers) do start(server) end
local ok, err = pcall(function()
  for _, connections in ipairs(CONNECTIONS) do measure(connections) end
end)
for _, server in ipairs(servers) do
  if server.pid then os.execute("kill " .. server.pid) end
end
if not ok then error(err, 0) end
