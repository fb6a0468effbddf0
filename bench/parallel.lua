-- parallel.lua [pattern] - what jobs cost, beside luv's new_work, node's worker_threads and Go where they are
-- installed, and how much faster two jobs are than one, beside two processes. A pattern chooses
-- measurements by name. Under a minute.
--
-- All times are wall-clock time.

local task = require "asynctask"
local core = require "asynctask.core"

local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local report = require "support.report"

local await = task.await
local found, uv = pcall(require, "luv")
uv = found and uv or nil

local ROUNDS = report.quick and 3 or 7
local STEPS = 12000000 -- of the numeric job: about half a second

-- ---- what is measured ------------------------------------------------------------------------

local function trivial() end
local function same(v) return v end

local function seconds(f, ...)
  collectgarbage()
  local began = core.now()
  f(...)
  return core.now() - began
end

local function records()
  local list = {}
  for i = 1, 10000 do
    list[i] = { id = i, name = "name " .. i, score = i * 0.5 }
  end
  return list
end

local ours = {}

function ours.one()
  for _ = 1, 1000 do
    await(task.run(trivial))
  end
end

function ours.many()
  for _ = 1, 20 do
    local jobs = {}
    for i = 1, 1000 do
      jobs[i] = task.run(trivial)
    end
    await(task.when_all(jobs))
  end
end

local megabyte, list = ("x"):rep(1 << 20), records()

function ours.string()
  for _ = 1, 50 do
    await(task.run(same, megabyte))
  end
end

function ours.records()
  await(task.run(same, list))
end

local luv = {}

function luv.one()
  local left, work = 1000, nil
  work = uv.new_work(trivial, function()
    left = left - 1
    if left > 0 then
      work:queue()
    end
  end)
  work:queue()
  uv.run()
end

function luv.many()
  local work = uv.new_work(trivial, trivial)
  for _ = 1, 20 do
    for _ = 1, 1000 do
      work:queue()
    end
    uv.run()
  end
end

function luv.string()
  local left, work = 50, nil
  work = uv.new_work(same, function()
    left = left - 1
    if left > 0 then
      work:queue(megabyte)
    end
  end)
  work:queue(megabyte)
  uv.run()
end

local TITLES = {
  one = "round trip of a trivial job", many = "one of 1,000 trivial jobs in flight", string = "1 MB there and back",
  records = "10,000 records {id, name, score} there and back",
}
local COUNTS = { one = 1000, many = 20000, string = 50, records = 1 }

-- ---- peers in processes of their own: one figure for each measurement, in seconds -------------

local directory = os.tmpname()
os.remove(directory)
assert(os.execute("mkdir '" .. directory .. "'"))

local C <const> = "C, uv_queue_work"
local peers = {}

-- `make`: a command that says whether the peer is there, and builds it.
local function peer(name, make, command)
  if report.succeeds(make) then
    peers[name] = command
  end
end

peer(C, ("cc -O2 -o %s/c %s/jobs/peer.c $(pkg-config --cflags --libs libuv 2>/dev/null || echo -luv)")
  :format(directory, here), "UV_THREADPOOL_SIZE=2 timeout 20 " .. directory .. "/c")
peer("node worker_threads", "node -v", "timeout 20 node " .. here .. "/jobs/peer.js")
peer("Go, two goroutines", ("cd %s/jobs && timeout 60 go build -o %s/go peer.go"):format(here, directory),
  "timeout 20 " .. directory .. "/go")

local names = { "asynctask", C, "luv new_work", "node worker_threads", "Go, two goroutines" }
local goals = {
  one = { [C] = 1.2, ["luv new_work"] = 0.6 }, many = { [C] = 1.3 }, string = { [C] = 1.2 },
  records = { ["node worker_threads"] = 1 / 3 },
}

local function add(values, what, name, count, s)
  local per = s / count * 1e6
  values[what] = values[what] or {}
  values[what][name] = values[what][name] or {}
  table.insert(values[what][name], per)
end

local function compare_costs(pattern)
  local values = {}
  for round = 0, ROUNDS do -- the first warms up
    for what, count in pairs(COUNTS) do
      if what:find(pattern) then
        local s = await(task.spawn(seconds, ours[what]))
        if round > 0 then
          add(values, what, names[1], count, s)
        end
        if uv and luv[what] then
          s = seconds(luv[what])
          if round > 0 then
            add(values, what, "luv new_work", count, s)
          end
        end
      end
    end
    if round > 0 then
      for name, command in pairs(peers) do
        for what, s in pairs(report.figures(command)) do
          if what:find(pattern) then
            add(values, what, name, COUNTS[what], s)
          end
        end
      end
    end
  end
  for what, title in pairs(TITLES) do
    if values[what] then
      local rows = {}
      for i, name in ipairs(names) do
        rows[i] = { name = name, values = values[what][name], goal = goals[what][name], digits = 2 }
      end
      report.add(title, "us", rows)
    end
  end
end

-- ---- speed-up --------------------------------------------------------------------------------

-- A pure-Lua numeric job: integers and floats.
local function numeric(steps)
  local x, sum = 12345, 0.0
  for _ = 1, steps do
    x = (x * 1103515245 + 12345) & 0x7fffffff
    sum = sum + x / 0x7fffffff
  end
  return sum
end

-- Two processes at once: how long the slower one computed, by its own clock.
local function two_processes()
  local command = ("'%s' '%s' --numeric"):format(report.interpreter(), arg[0])
  local a, b = io.popen(command), io.popen(command)
  local s, t = a:read "n", b:read "n"
  a:close()
  b:close()
  return math.max(assert(s), assert(t))
end

local function compare_speed()
  local one, jobs, processes = {}, {}, {}
  local p <const> = task.pool { threads = 2 }
  await(task.when_all(p:run(numeric, 1000), p:run(numeric, 1000)))
  for round = 1, ROUNDS do
    one[round] = seconds(function() await(p:run(numeric, STEPS)) end) * 1e3
    jobs[round] = seconds(function() await(task.when_all(p:run(numeric, STEPS), p:run(numeric, STEPS))) end) * 1e3
    processes[round] = two_processes() * 1e3
  end
  await(p:close())
  report.add("two pure-Lua numeric jobs at once", "ms", {
    { name = "asynctask", values = jobs },
    { name = "one job alone", values = one, goal = 1 / 0.95 },
    { name = "two processes at once", values = processes, goal = 1 / 0.95 },
  })
end

-- ---- the run ---------------------------------------------------------------------------------

if arg[1] == "--numeric" then
  print(seconds(numeric, STEPS))
  os.exit(0, false)
end

local pattern = arg[1] or ""
print(("%s, %s, %d threads, luv %s; medians [smallest .. largest] of %d rounds"):format(task._VERSION, _VERSION,
  core.par.threads(), uv and uv.version_string() or "is missing", ROUNDS))
if not ("speed"):find(pattern) or pattern == "" then
  compare_costs(pattern)
end
if ("speed"):find(pattern) then
  compare_speed()
end
os.execute("rm -r '" .. directory .. "'")
