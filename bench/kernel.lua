-- kernel.lua [pattern] - what the kernel costs beside plain Lua coroutines, and beside luv, cqueues, node, Go, asyncio
-- and uvloop where they are installed. `make bench-kernel`; a pattern chooses measurements by name. Two minutes.
--
-- Times on one thread are CPU time, times of jobs are wall-clock time.

local task = require "asynctask"
local core = require "asynctask.core"

local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local report = require "support.report"

local await, spawn = task.await, task.spawn
local say = report.say

local function find(name)
  local ok, module = pcall(require, name)
  return ok and module or nil
end

local uv = find "luv"
local cqueues = find "cqueues"
local promise = cqueues and find "cqueues.promise"
local condition = cqueues and find "cqueues.condition"
local thread = cqueues and find "cqueues.thread"

local ROUNDS = report.quick and 5 or 9
local SLEEPER_ROUNDS = report.quick and 1 or 3
local PEER_ROUNDS = report.quick and 2 or 5
local SLEEPERS = 100000
local SLEEP = 1.0 -- seconds

-- ---- measuring -------------------------------------------------------------------------------

local function trivial() end

-- CPU seconds of f(n).
local function cpu(f, n)
  local began = os.clock()
  f(n)
  return os.clock() - began
end

local function wall(f, n)
  local began = core.now()
  f(n)
  return core.now() - began
end

-- The same inside a task, or inside a controller of cqueues.
local function in_task(measure)
  return function(f, n)
    return await(spawn(measure, f, n))
  end
end

local function in_cqueue(measure)
  return function(f, n)
    local seconds
    local loop = cqueues.new()
    loop:wrap(function()
      seconds = measure(f, n)
    end)
    assert(loop:loop())
    return seconds
  end
end

-- ---- peers in processes of their own, which print a figure for each measurement ---------------

local function find_peers()
  local work = os.tmpname()
  local python = report.succeeds "python3 -c 'import uvloop'" and "python3" or "/usr/bin/python3"
  local peers = {
    { name = "node", command = "node " .. here .. "/kernel/peer.js", there = "node -v" },
    { name = "asyncio", command = python .. " " .. here .. "/kernel/peer.py", there = python .. " -V" },
    { name = "uvloop", command = python .. " " .. here .. "/kernel/peer.py uvloop",
      there = python .. " -c 'import uvloop'" },
    { name = "Go", command = work, there = ("cd %s/kernel && go build -o %s peer.go"):format(here, work) },
  }
  local found = {}
  for _, peer in ipairs(peers) do
    if report.succeeds(peer.there) then
      found[#found + 1] = peer
      peer.figures = {}
    end
  end
  for round = 1, PEER_ROUNDS do
    for _, peer in ipairs(found) do
      peer.figures[round] = report.figures("timeout 60 " .. peer.command)
    end
  end
  os.remove(work)
  return found
end

local peers

-- Adds the peers' figures under `name` to the rows of a measurement.
local function add_peers(rows, name, goals, digits)
  peers = peers or find_peers()
  for _, peer in ipairs(peers) do
    local values = {}
    for _, figures in ipairs(peer.figures) do
      values[#values + 1] = figures[name]
    end
    rows[#rows + 1] = { name = peer.name, values = values, goal = goals and goals[peer.name], digits = digits }
  end
end

-- A contestant is {name=, run=f(n), n=, measure=}; results are nanoseconds for one of n.
local function compare(title, contestants, peer_name, goals)
  local values = {}
  for round = 0, ROUNDS do -- the first warms up
    for i, c in ipairs(contestants) do
      collectgarbage()
      values[i] = values[i] or {}
      values[i][round] = c.measure(c.run, c.n) / c.n * 1e9
    end
  end
  local rows = {}
  for i, c in ipairs(contestants) do
    rows[i] = { name = c.name, values = values[i], goal = c.goal }
  end
  if peer_name then
    add_peers(rows, peer_name, goals)
  end
  report.add(title, "ns", rows)
end

-- Contestants that exist.
local function only(list)
  local present = {}
  for _, c in ipairs(list) do
    if c.run then
      present[#present + 1] = c
    end
  end
  return present
end

-- ---- spawn and await -------------------------------------------------------------------------

local function spawn_and_await(n)
  for _ = 1, n do
    await(spawn(trivial))
  end
end

local function create_and_resume(n)
  local create, resume = coroutine.create, coroutine.resume
  for _ = 1, n do
    resume(create(trivial))
  end
end

local function wrap_and_call(n)
  local wrap = coroutine.wrap
  for _ = 1, n do
    wrap(trivial)()
  end
end

local function promise_and_get(n)
  for _ = 1, n do
    promise.new(trivial):get()
  end
end

-- ---- switching -------------------------------------------------------------------------------

local function yield_in_two_tasks(n)
  local function half()
    for _ = 1, n / 2 do
      await(task.yield())
    end
  end
  await(task.when_all(spawn(half), spawn(half)))
end

local function resume_and_yield(n)
  local resume, yield = coroutine.resume, coroutine.yield
  local co = coroutine.create(function()
    while true do
      yield()
    end
  end)
  for _ = 1, n do
    resume(co)
  end
end

local function signal_and_wait(n)
  local ping, pong = condition.new(), condition.new()
  local loop = cqueues.new()
  local function player(mine, other)
    return function()
      for _ = 1, n / 2 do
        other:signal()
        mine:wait()
      end
      other:signal()
    end
  end
  loop:wrap(player(ping, pong))
  loop:wrap(player(pong, ping))
  assert(loop:loop())
end

-- ---- zero delays -----------------------------------------------------------------------------

local function delay_nothing(n)
  for _ = 1, n do
    await(task.delay(0))
  end
end

local function sleep_nothing(n)
  for _ = 1, n do
    cqueues.sleep(0)
  end
end

local function timer_nothing(n)
  local timer = uv.new_timer()
  local co
  local function wake()
    assert(coroutine.resume(co))
  end
  co = coroutine.create(function()
    for _ = 1, n do
      uv.timer_start(timer, 0, 0, wake)
      coroutine.yield()
    end
    uv.close(timer)
  end)
  assert(coroutine.resume(co))
  uv.run()
end

-- ---- jobs ------------------------------------------------------------------------------------

local function run_one(n)
  for _ = 1, n do
    await(task.run(trivial))
  end
end

local function run_thousand(n)
  for _ = 1, n / 1000 do
    local jobs = {}
    for i = 1, 1000 do
      jobs[i] = task.run(trivial)
    end
    await(task.when_all(jobs))
  end
end

-- One piece of work after another in libuv's pool, each queued when the last has ended.
local function queue_one(n)
  local ended = 0
  local work
  work = uv.new_work(trivial, function()
    ended = ended + 1
    if ended < n then
      work:queue()
    end
  end)
  work:queue()
  uv.run()
  assert(ended == n)
end

local function queue_thousand(n)
  local ended = 0
  local work = uv.new_work(trivial, function()
    ended = ended + 1
  end)
  for _ = 1, n / 1000 do
    for _ = 1, 1000 do
      work:queue()
    end
    uv.run()
  end
  assert(ended == n)
end

local function start_thread(n)
  for _ = 1, n do
    assert(thread.start(trivial)):join()
  end
end

-- ---- sleepers, each kind in a process of its own ---------------------------------------------

local function rss()
  local file = io.open "/proc/self/statm"
  if not file then
    return nil
  end
  local _, resident = file:read("n", "n") -- in pages
  file:close()
  return resident * 4096
end

local sleepers = {}

function sleepers.asynctask(n, asleep)
  local list = {}
  for i = 1, n do
    list[i] = spawn(function()
      await(task.delay(SLEEP))
    end)
  end
  asleep()
  for i = 1, n do
    await(list[i])
  end
end

function sleepers.coroutines(n, asleep)
  local list = {}
  for i = 1, n do
    list[i] = coroutine.create(function()
      coroutine.yield()
    end)
    coroutine.resume(list[i])
  end
  asleep()
  for i = 1, n do
    coroutine.resume(list[i])
  end
end

function sleepers.cqueues(n, asleep)
  local loop = cqueues.new()
  for _ = 1, n do
    loop:wrap(function()
      cqueues.sleep(SLEEP)
    end)
  end
  loop:step(0)
  asleep()
  assert(loop:loop())
end

function sleepers.luv(n, asleep)
  local list = {}
  for i = 1, n do
    list[i] = coroutine.create(function(co)
      local timer = uv.new_timer()
      uv.timer_start(timer, SLEEP * 1000 // 1, 0, function()
        uv.close(timer)
        assert(coroutine.resume(co))
      end)
      coroutine.yield()
    end)
    assert(coroutine.resume(list[i], list[i]))
  end
  asleep()
  uv.run()
end

-- The child: prints CPU seconds, and bytes of memory for each sleeper while all of them sleep.
local function child(kind)
  collectgarbage()
  local before, bytes = rss(), nil
  local seconds = cpu(function()
    sleepers[kind](SLEEPERS, function()
      local now = rss()
      bytes = now and (now - before) / SLEEPERS
    end)
  end)
  print(seconds, bytes or -1)
  os.exit(0, false)
end

local function compare_sleepers()
  local kinds = {
    { name = "asynctask", kind = "asynctask" },
    { name = "raw coroutines, no timer", kind = "coroutines" },
  }
  if cqueues then
    kinds[#kinds + 1] = { name = "cqueues", kind = "cqueues", goal = 0.85, memory = 0.9 }
  end
  if uv then
    kinds[#kinds + 1] = { name = "luv with coroutines", kind = "luv" }
  end
  local seconds, bytes, times, memory = {}, {}, {}, {}
  for round = 1, SLEEPER_ROUNDS do
    for i, k in ipairs(kinds) do
      local pipe = assert(io.popen(("'%s' '%s' --sleepers %s"):format(report.interpreter(), arg[0], k.kind)))
      local s, b = pipe:read("n", "n")
      pipe:close()
      seconds[i], bytes[i] = seconds[i] or {}, bytes[i] or {}
      seconds[i][round], bytes[i][round] = assert(s, "the child failed: " .. k.kind), b
    end
  end
  for i, k in ipairs(kinds) do
    times[i] = { name = k.name, values = seconds[i], goal = k.goal, digits = 3 }
    memory[i] = { name = k.name, values = bytes[i], goal = k.kind == "coroutines" and 1.30 or k.memory }
  end
  add_peers(times, "sleepers", nil, 3)
  report.add(("%d sleepers, CPU time in all"):format(SLEEPERS), "seconds", times)
  if bytes[1][1] > 0 then
    add_peers(memory, "bytes")
    report.add("memory of one sleeper", "bytes of RSS", memory)
  end
end

-- ---- the run ---------------------------------------------------------------------------------

if arg[1] == "--sleepers" then
  child(arg[2])
end

local function measurements()
  local task_cpu, task_wall = in_task(cpu), in_task(wall)
  local cq_cpu, cq_wall = cqueues and in_cqueue(cpu), cqueues and in_cqueue(wall)
  return {
    { "spawn and await of a trivial function", {
      { name = "asynctask", run = spawn_and_await, n = 300000, measure = task_cpu },
      { name = "coroutine.create and resume", run = create_and_resume, n = 300000, measure = cpu, goal = 0.75 },
      { name = "coroutine.wrap and call", run = wrap_and_call, n = 300000, measure = cpu },
      { name = "cqueues promise", run = promise and promise_and_get, n = 20000, measure = cq_cpu, goal = 1 / 15 },
    }, "spawn", { Go = 0.4 } },
    { "switch between two tasks", {
      { name = "asynctask yield", run = yield_in_two_tasks, n = 300000, measure = task_cpu },
      { name = "coroutine.resume and yield", run = resume_and_yield, n = 300000, measure = cpu, goal = 0.85 },
      { name = "cqueues condition", run = condition and signal_and_wait, n = 60000, measure = cpu },
    }, "switch", { Go = 0.6 } },
    { "delays of zero, one after another", {
      { name = "asynctask", run = delay_nothing, n = 100000, measure = task_cpu },
      { name = "cqueues", run = cqueues and sleep_nothing, n = 60000, measure = cq_cpu, goal = 0.5 },
      { name = "luv with a coroutine", run = uv and timer_nothing, n = 60000, measure = cpu },
    }, "zero" },
    { "round trip of a trivial job", {
      { name = "asynctask", run = run_one, n = 1500, measure = task_wall },
      { name = "luv", run = uv and queue_one, n = 1500, measure = wall, goal = 0.6 },
      { name = "cqueues, a thread each", run = thread and start_thread, n = 100, measure = cq_wall },
    } },
    { "a job of a thousand in flight", {
      { name = "asynctask", run = run_thousand, n = 30000, measure = task_wall },
      { name = "luv", run = uv and queue_thousand, n = 30000, measure = wall },
    } },
  }
end

say("%s, %s, luv %s, cqueues %s", task._VERSION, _VERSION, uv and uv.version_string() or "is missing",
  cqueues and tostring(cqueues.VERSION) or "is missing")
say("medians [smallest .. largest] of %d rounds", ROUNDS)

local pattern = arg[1] or ""
for _, m in ipairs(measurements()) do
  if m[1]:find(pattern) then
    compare(m[1], only(m[2]), m[3], m[4])
  end
end
if ("sleepers"):find(pattern) then
  compare_sleepers()
end
