-- guard.lua [--write] - counts the instructions of the six hottest paths with valgrind's callgrind and compares them
-- with bench/guard.txt, so that a lost fast path is noticed on any machine, however busy. `make guard`; a minute.
--
-- Each path runs in a process of its own, n times and 2n times; the difference, divided by n, is what one costs: what
-- starting costs falls out. Only the thread of the loop is counted. A figure that is more than MARGIN above the
-- committed one fails; one that is as far below asks for a new figure (`make guard ARGS=--write`).
-- Figures belong to a compiler and a Lua: guard.txt names them, and with others the margin is WIDE.

local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local report = require "support.report"

local FIGURES = here .. "/guard.txt"
local MARGIN, WIDE = 0.08, 0.40

local function trivial() end

-- ---- the paths, run in the child: f(n) -------------------------------------------------------

local paths = {}

function paths.spawn(task, n)
  for _ = 1, n do
    task.await(task.spawn(trivial))
  end
end

function paths.switch(task, n)
  local function half()
    for _ = 1, n / 2 do
      task.await(task.yield())
    end
  end
  task.await(task.when_all(task.spawn(half), task.spawn(half)))
end

function paths.delay(task, n)
  for _ = 1, n do
    task.await(task.delay(0))
  end
end

function paths.channel(task, n)
  local ch = require("asynctask.channel").new(0)
  local reader = task.spawn(function()
    for _ = 1, n do
      task.await(ch:receive())
    end
  end)
  for i = 1, n do
    task.await(ch:send(i))
  end
  task.await(reader)
end

function paths.echo(task, n)
  local a, b = task.await(require("asynctask.net").pair())
  local server = task.spawn(function()
    while true do
      local data = task.await(b:read_some())
      if not data then
        return
      end
      task.await(b:write(data))
    end
  end)
  for _ = 1, n do
    task.await(a:write "ping")
    task.await(a:read_some())
  end
  task.await(a:close())
  task.await(server)
  task.await(b:close())
end

function paths.job(task, n)
  for _ = 1, n do
    task.await(task.run(trivial))
  end
end

local COUNTS = { spawn = 20000, switch = 20000, delay = 10000, channel = 10000, echo = 5000, job = 1500 }
local ORDER = { "spawn", "switch", "delay", "channel", "echo", "job" }

if arg[1] == "--path" then
  local task = require "asynctask"
  task.await(task.spawn(function()
    paths[arg[2]](task, tonumber(arg[3]))
  end))
  os.exit(0, true)
end

-- ---- counting --------------------------------------------------------------------------------

-- Instructions of the first thread.
local function instructions(path, n)
  local file = os.tmpname()
  local command = ("valgrind -q --tool=callgrind --separate-threads=yes --callgrind-out-file=%s '%s' '%s' --path %s %d")
    :format(file, report.interpreter(), arg[0], path, n)
  assert(os.execute(command .. " >/dev/null 2>&1"), "failed: " .. command)
  local total
  for line in io.lines(file .. "-01") do
    total = total or tonumber(line:match "^summary: (%d+)" or line:match "^totals: (%d+)")
  end
  os.execute(("rm -f %s %s-*"):format(file, file))
  return assert(total, "callgrind wrote no total")
end

local function cost(path)
  local n = COUNTS[path]
  return (instructions(path, 2 * n) - instructions(path, n)) / n
end

-- ---- comparing -------------------------------------------------------------------------------

local function first_line(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local line = pipe:read("l")
  pipe:close()
  return line or ""
end

local function tools()
  local lua = first_line(("'%s' -v"):format(report.interpreter())):match "^Lua [%d.]+" or "another Lua"
  return first_line((os.getenv "CC" or "gcc") .. " --version") .. ", " .. lua
end

local function read_figures()
  local figures, by = {}, nil
  for line in io.lines(FIGURES) do
    local name, value = line:match "^(%l+) (%d+)$"
    if name then
      figures[name] = tonumber(value)
    end
    by = by or line:match "^# with (.*)$"
  end
  return figures, by
end

local function write_figures(measured)
  local file = assert(io.open(FIGURES, "w"))
  file:write("# instructions of one of each, as `make guard ARGS=--write` counted them\n# with ", tools(), "\n")
  for _, path in ipairs(ORDER) do
    file:write(("%s %d\n"):format(path, math.floor(measured[path] + 0.5)))
  end
  file:close()
end

if not report.succeeds "valgrind --version" then
  io.stderr:write("guard: valgrind is missing: run ./bootstrap guard\n")
  os.exit(1)
end
local measured = {}
for _, path in ipairs(ORDER) do
  measured[path] = cost(path)
end
if arg[1] == "--write" then
  write_figures(measured)
end
local figures, by = read_figures()
local margin = by == tools() and MARGIN or WIDE
local failed = false
print(("%-10s %12s %12s"):format("path", "instructions", "committed"))
for _, path in ipairs(ORDER) do
  local is, was = measured[path], figures[path]
  local change = is / was - 1
  local word = change > margin and "LOST: more than the margin"
    or change < -margin and "better: write the new figure with `make guard ARGS=--write`" or ""
  failed = failed or change > margin
  print(("%-10s %12.0f %12d   %+.1f %%   %s"):format(path, is, was, change * 100, word))
end
print(("margin %.0f %%%s"):format(margin * 100, margin == WIDE and " (other tools than " .. tostring(by) .. ")" or ""))
os.exit(failed and 1 or 0)
