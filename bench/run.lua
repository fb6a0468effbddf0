-- run.lua WORK [pattern] - all benchmarks, one after another, and their figures as results.json, results.md and
-- results.svg in the directory WORK. `make bench` (about ten minutes); `make bench-quick` (two).
--
-- Each benchmark is a program of its own, which measures its contestants in turns and leaves a line of JSON for each
-- measurement (support/report.lua). Peers that are not installed are left out; the heading says which were found.

local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local report = require "support.report"

local work = assert(arg[1], "a directory for the results")
local pattern = arg[2] or ""
local lua = report.quote(report.interpreter())

local PROGRAMS = {
  { "kernel", "kernel.lua" },
  { "parallel", "parallel.lua" },
  { "files", "files.lua" },
  { "echo", "echo/run.lua " .. report.quote(work) },
  { "http", "http/run.lua " .. report.quote(work) },
  { "http-client", "http_client.lua " .. report.quote(work .. "/http_client") },
}

-- ---- where it ran ----------------------------------------------------------------------------

local function first_line(command)
  local pipe = assert(io.popen(command .. " 2>/dev/null"))
  local line = pipe:read("l")
  pipe:close()
  return line
end

local function version(name, command)
  local line = first_line(command)
  return name .. ": " .. (line and line ~= "" and line or "not found")
end

local function machine()
  return {
    "processor: " .. (first_line "sed -n 's/^model name.*: //p' /proc/cpuinfo" or "unknown") .. ", "
      .. (first_line "nproc" or "?") .. " cores",
    "system: " .. (first_line "uname -sr" or "unknown"),
    version("Lua", lua .. " -v"),
    version("libuv", "pkg-config --modversion libuv"),
    version("luv", lua .. " -e 'print(require(\"luv\").version_string())'"),
    version("cqueues", lua .. " -e 'print(require(\"cqueues\").VERSION)'"),
    version("node", "node --version"),
    version("Go", "go version"),
    version("Python", "python3 --version"),
    version("nginx", "nginx -v 2>&1"),
  }
end

-- ---- Markdown --------------------------------------------------------------------------------

local function number(v)
  return v >= 100 and ("%.0f"):format(v) or v >= 1 and ("%.2f"):format(v) or ("%.3f"):format(v)
end

local function met(m, c)
  if not c.goal then
    return ""
  end
  local good = m.more and c.ratio >= c.goal or not m.more and c.ratio <= c.goal
  return ("%.2f: %s"):format(c.goal, good and "met" or "missed")
end

local function markdown(measurements, facts)
  local lines = {
    "| measurement | | median | smallest to largest | ours to it | goal |",
    "|---|---|---:|---:|---:|---|",
  }
  for _, m in ipairs(measurements) do
    for i, c in ipairs(m.contestants) do
      lines[#lines + 1] = ("| %s | %s | %s | %s to %s | %s | %s |"):format(
        i == 1 and ("%s (%s)"):format(m.title, m.unit) or "", c.name, number(c.median), number(c.min), number(c.max),
        c.ratio and ("%.2f"):format(c.ratio) or "", met(m, c))
    end
  end
  lines[#lines + 1] = ""
  for _, fact in ipairs(facts) do
    lines[#lines + 1] = "- " .. fact
  end
  return table.concat(lines, "\n") .. "\n"
end

-- ---- the plot: for each measurement, how many times more (or less) each peer needs than we do --

local WIDTH, LEFT, ROW, HEAD = 960, 330, 16, 24
local SCALE = 60 -- pixels for a factor of two

local function escape(s)
  return (s:gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }))
end

local function svg(measurements)
  local out, y = {}, 40
  local zero = LEFT + 190
  local function put(format, ...)
    out[#out + 1] = format:format(...)
  end
  for _, m in ipairs(measurements) do
    y = y + HEAD
    put('<text x="10" y="%d" font-weight="bold">%s</text>', y, escape(m.title .. " (" .. m.unit .. ")"))
    for i, c in ipairs(m.contestants) do
      if i > 1 then
        y = y + ROW
        local advantage = m.more and c.ratio or 1 / c.ratio
        local length = math.max(-180, math.min(370, math.log(advantage, 2) * SCALE))
        put('<text x="%d" y="%d" text-anchor="end">%s</text>', LEFT, y, escape(c.name))
        put('<rect x="%.1f" y="%d" width="%.1f" height="11" fill="%s"/>', length < 0 and zero + length or zero, y - 10,
          math.max(math.abs(length), 1), length < 0 and "#c55" or "#595")
        put('<text x="%.1f" y="%d">%s</text>', length < 0 and zero + 6 or zero + length + 6, y,
          ("%.2f"):format(advantage))
      end
    end
  end
  local head = ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" '
    .. 'font-size="12"><rect width="100%%" height="100%%" fill="white"/>'):format(WIDTH, y + 30)
  local title = '<text x="10" y="20" font-size="14">asynctask beside each: how many times better (right) or worse '
    .. '(left); logarithmic</text>'
  local axis = ('<line x1="%d" y1="30" x2="%d" y2="%d" stroke="#999"/>'):format(zero, zero, y + 10)
  return head .. title .. axis .. "\n" .. table.concat(out, "\n") .. "\n</svg>\n"
end

-- ---- the run ---------------------------------------------------------------------------------

local function write(name, text)
  local file = assert(io.open(work .. "/" .. name, "w"))
  file:write(text)
  file:close()
  print(work .. "/" .. name)
end

assert(os.execute("mkdir -p " .. report.quote(work)))
local lines = work .. "/results.jsonl"
os.remove(lines)
for _, p in ipairs(PROGRAMS) do
  local file = io.open(here .. "/" .. p[2]:match "%S+")
  if file and p[1]:find(pattern) then
    file:close()
    report.say("\n==== %s ====", p[1])
    local command = ("ASYNCTASK_BENCH_RESULTS=%s %s %s/%s"):format(report.quote(lines), lua, here, p[2])
    if not os.execute(command) then
      report.say("%s FAILED", p[1])
    end
  end
end

local items, measurements = {}, {}
for line in io.lines(lines) do
  items[#items + 1] = line
  -- the lines are our own: JSON as Lua reads it after three replacements outside strings
  local text = line:gsub('"([^"]*)": ', '["%1"] = '):gsub("%[{", "{{"):gsub("}%]", "}}")
  measurements[#measurements + 1] = assert(load("return " .. text))()
end
local facts = machine()
print()
write("results.json", ('{"machine": %s, "measurements": [\n%s\n]}\n'):format(report.json(facts),
  table.concat(items, ",\n")))
write("results.md", markdown(measurements, facts))
write("results.svg", svg(measurements))
