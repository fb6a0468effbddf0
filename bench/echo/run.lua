-- run.lua - echo of 64-byte messages: asynctask beside plain C on libuv, luv, node and Go (those that are
-- installed). `make bench-echo`; about two minutes.
--
--     lua5.4 bench/echo/run.lua WORK [seconds [rounds]]
--
-- WORK is a directory for what is compiled. Servers are pinned to one core, the load generator to another;
-- all servers run from the start and are measured in turns, since a machine is not the same from one
-- second to the next: a ratio is the median of the ratios of each round. "CPU" is the server's own time for a
-- request, which other programs on the machine disturb least; its ratio is C's to the server's.

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local work = assert(arg[1], "a directory for what is compiled")
local seconds, rounds = tonumber(arg[2]) or 1, tonumber(arg[3]) or 5
local CONNECTIONS = { 1, 64, 1000 }

local function succeeds(command)
  return (os.execute(command .. " >/dev/null 2>&1"))
end

local function must(command)
  if not os.execute(command) then
    error("failed: " .. command, 0)
  end
end

local lua = arg[-1]
local uv = "$(pkg-config --cflags --libs libuv 2>/dev/null || echo -luv)"
local cores = succeeds("taskset -c 0,1 true")
local server_core = cores and "taskset -c 0 " or ""
local load_core = cores and "taskset -c 1 " or ""

must(("cc -O2 -o %s/load %s/load.c -lm"):format(work, here))
must(("cc -O2 -o %s/server %s/server.c %s"):format(work, here, uv))

local servers = {
  { name = "C (libuv)", command = work .. "/server" },
  { name = "asynctask", command = lua .. " " .. here .. "/server.lua" },
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

local function median(list, field)
  local values = {}
  for i, v in ipairs(list) do values[i] = field and v[field] or v end
  table.sort(values)
  return values[(#values + 1) // 2]
end

local function ratios(results, base, field)
  local list = {}
  for i, r in ipairs(results) do list[i] = r[field] / base[i][field] end
  return list
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
  print(("%d connection%s"):format(connections, connections == 1 and "" or "s"))
  for _, server in ipairs(servers) do
    local r = results[server]
    local c = results[servers[1]]
    print(("  %-12s %9.0f requests/s %5.2f of C   p50 %8.1f us   p99 %8.1f us   CPU %5.2f us %5.2f of C"):format(
      server.name, median(r, "rate"), median(ratios(r, c, "rate")), median(r, "middle"), median(r, "p99"),
      median(r, "cost"), median(ratios(c, r, "cost"))))
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
