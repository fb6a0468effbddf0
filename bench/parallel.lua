-- parallel.lua [pattern] - what jobs cost, beside luv's new_work, node's worker_threads and Go where they are
-- installed, and how much faster two jobs are than one, beside two processes. A pattern chooses
-- measurements by name. Under a minute.
--
-- The contestants take turns in each round, since a machine is not the same from one second to the next; the ratio is
-- the median of the ratios of each round. All times are wall-clock time.

local task = require "asynctask"
local core = require "asynctask.core"

local await = task.await
local found, uv = pcall(require, "luv")
uv = found and uv or nil

local ROUNDS = 7
local STEPS = 12000000 -- of the numeric job: about half a second

-- ---- statistics ------------------------------------------------------------------------------

local function sorted(list)
  local copy = table.move(list, 1, #list, 1, {})
  table.sort(copy)
  return copy
end

local function median(list)
  local s = sorted(list)
  local middle = (#s + 1) // 2
  return #s % 2 == 1 and s[middle] or (s[middle] + s[middle + 1]) / 2
end

local function ratio(a, b)
  local ratios = {}
  for i = 1, math.min(#a, #b) do
    ratios[i] = a[i] / b[i]
  end
  return median(ratios)
end

-- `values[name]` is the list of a contestant's figures; the first name is ours.
local function report(title, unit, names, values)
  print(("\n%s (%s)"):format(title, unit))
  for i, name in ipairs(names) do
    local s = values[name] and sorted(values[name])
    if s and #s > 0 then
      local line = ("  %-28s %10.2f   [%.2f .. %.2f]"):format(name, median(s), s[1], s[#s])
      if i > 1 then
        line = line .. ("   ours is %.2f of it"):format(ratio(values[names[1]], values[name]))
      end
      print(line)
    end
  end
end

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

local COUNTS = { one = 1000, many = 20000, string = 50, records = 1 }

-- ---- peers in processes of their own: one figure for each measurement, in seconds -------------

local NODE = [[
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (!isMainThread) { parentPort.on('message', m => parentPort.postMessage(m)); }
else (async () => {
  const workers = [new Worker(__filename), new Worker(__filename)];
  const call = (w, m) => new Promise(r => { w.once('message', r); w.postMessage(m); });
  for (const w of workers) await call(w, 0);
  const time = async (name, f) => { const t = process.hrtime.bigint(); await f();
    console.log(name, Number(process.hrtime.bigint() - t) / 1e9); };
  const text = 'x'.repeat(1 << 20);
  const list = Array.from({ length: 10000 }, (_, i) => ({ id: i, name: 'name ' + i, score: i * 0.5 }));
  await time('one', async () => { for (let i = 0; i < 1000; i++) await call(workers[0], 1); });
  await time('many', async () => { for (let k = 0; k < 20; k++) await new Promise(done => {
    let left = 1000; const on = () => { if (--left === 0) done(); };
    for (const w of workers) { w.removeAllListeners('message'); w.on('message', on); }
    for (let i = 0; i < 1000; i++) workers[i % 2].postMessage(1); });
    for (const w of workers) w.removeAllListeners('message'); });
  await time('string', async () => { for (let i = 0; i < 50; i++) await call(workers[0], text); });
  await time('records', async () => { await call(workers[0], list); });
  process.exit(0);
})();
]]

local GO = [[
package main
import ("fmt"; "time"; "sync")
func main() {
  jobs := make(chan func(), 1000)
  for i := 0; i < 2; i++ { go func() { for f := range jobs { f() } }() }
  clock := func(name string, f func()) { t := time.Now(); f(); fmt.Println(name, time.Since(t).Seconds()) }
  clock("one", func() { for i := 0; i < 1000; i++ { done := make(chan int); jobs <- func() { done <- 1 }; <-done } })
  clock("many", func() { for k := 0; k < 20; k++ { var wg sync.WaitGroup; wg.Add(1000)
    for i := 0; i < 1000; i++ { jobs <- func() { wg.Done() } }; wg.Wait() } })
}
]]

local function write(path, text)
  local f = assert(io.open(path, "w"))
  f:write(text)
  f:close()
end

local function read_figures(command)
  local figures, pipe = {}, io.popen(command .. " 2>/dev/null")
  for line in pipe:lines() do
    local name, value = line:match "^(%a+) ([%d.e-]+)$"
    if name then
      figures[name] = tonumber(value)
    end
  end
  pipe:close()
  return figures
end

local directory = os.tmpname()
os.remove(directory)
os.execute("mkdir '" .. directory .. "'")

local function has(command)
  return os.execute("command -v " .. command .. " >/dev/null 2>&1") == true
end

local peers = {}
if has "node" then
  write(directory .. "/peer.js", NODE)
  peers["node worker_threads"] = "timeout 20 node '" .. directory .. "/peer.js'"
end
if has "go" then
  write(directory .. "/peer.go", GO)
  if os.execute(("cd '%s' && timeout 60 go build -o peer peer.go >/dev/null 2>&1"):format(directory)) then
    peers["Go, two goroutines"] = "timeout 20 '" .. directory .. "/peer'"
  end
end

local names = { "asynctask", "luv new_work", "node worker_threads", "Go, two goroutines" }

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
            add(values, what, names[2], count, s)
          end
        end
      end
    end
    if round > 0 then
      for name, command in pairs(peers) do
        for what, s in pairs(read_figures(command)) do
          if what:find(pattern) then
            add(values, what, name, COUNTS[what], s)
          end
        end
      end
    end
  end
  report("one: round trip of a trivial job", "us", names, values.one or {})
  report("many: one of 1,000 trivial jobs in flight", "us", names, values.many or {})
  report("string: 1 MB there and back", "us", names, values.string or {})
  report("records: 10,000 {id, name, score} there and back", "us", names, values.records or {})
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

local function interpreter()
  local i = 0
  while arg[i - 1] do
    i = i - 1
  end
  return arg[i]
end

-- Two processes at once: how long the slower one computed, by its own clock.
local function two_processes()
  local command = ("'%s' '%s' --numeric"):format(interpreter(), arg[0])
  local a, b = io.popen(command), io.popen(command)
  local s, t = a:read "n", b:read "n"
  a:close()
  b:close()
  return math.max(assert(s), assert(t))
end

local function compare_speed()
  local one, jobs, processes, speed_up, of_processes = {}, {}, {}, {}, {}
  local p <const> = task.pool { threads = 2 }
  await(task.when_all(p:run(numeric, 1000), p:run(numeric, 1000)))
  for round = 1, ROUNDS do
    one[round] = seconds(function() await(p:run(numeric, STEPS)) end) * 1e3
    jobs[round] = seconds(function() await(task.when_all(p:run(numeric, STEPS), p:run(numeric, STEPS))) end) * 1e3
    processes[round] = two_processes() * 1e3
    speed_up[round] = 2 * one[round] / jobs[round]
    of_processes[round] = processes[round] / jobs[round]
  end
  await(p:close())
  report("speed: a pure-Lua numeric job", "ms", { "two jobs at once", "one job", "two processes at once" },
    { ["two jobs at once"] = jobs, ["one job"] = one, ["two processes at once"] = processes })
  local s, o = sorted(speed_up), sorted(of_processes)
  print(("  speed-up of two jobs %.2f [%.2f .. %.2f]; %.2f [%.2f .. %.2f] of what two processes reach, goal 0.95")
    :format(median(s), s[1], s[#s], median(o), o[1], o[#o]))
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
