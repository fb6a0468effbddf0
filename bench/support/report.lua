-- report.lua - what the benchmark programs share: statistics of rounds, the table that they print, and the line
-- that each measurement leaves for bench/run.lua.
--
-- A measurement has contestants, which take turns (A B C, A B C, ...), since a machine is not the same from one second
-- to the next. The first is ours. Ours is set beside another one by the median of the ratios of the rounds.

local report = {}

--- True when a short run is wanted: fewer rounds, smaller counts.
report.quick = os.getenv "ASYNCTASK_BENCH_QUICK" ~= nil

---@param list number[]
---@return number[] a sorted copy
function report.sorted(list)
  local copy = table.move(list, 1, #list, 1, {})
  table.sort(copy)
  return copy
end

---@param list number[] at least one
---@return number
function report.median(list)
  local s = report.sorted(list)
  local middle = (#s + 1) // 2
  return #s % 2 == 1 and s[middle] or (s[middle] + s[middle + 1]) / 2
end

--- The median of a[i] / b[i].
---@param a number[]
---@param b number[]
---@return number
function report.ratio(a, b)
  local ratios = {}
  for i = 1, math.min(#a, #b) do
    ratios[i] = a[i] / b[i]
  end
  return report.median(ratios)
end

function report.say(format, ...)
  io.write(format:format(...), "\n")
  io.flush()
end

-- ---- the line for bench/run.lua ---------------------------------------------------------------

local function json(v)
  local kind = type(v)
  if kind == "table" and (#v > 0 or next(v) == nil) then
    local items = {}
    for i, item in ipairs(v) do
      items[i] = json(item)
    end
    return "[" .. table.concat(items, ", ") .. "]"
  elseif kind == "table" then
    local keys, items = {}, {}
    for key in pairs(v) do
      keys[#keys + 1] = key
    end
    table.sort(keys)
    for i, key in ipairs(keys) do
      items[i] = json(key) .. ": " .. json(v[key])
    end
    return "{" .. table.concat(items, ", ") .. "}"
  elseif kind == "string" then
    return '"' .. v:gsub('[%c"\\]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
  elseif kind == "number" then
    return v ~= v and "null" or ("%.6g"):format(v)
  end
  return tostring(v)
end

--- JSON of a value made of tables (lists, or string keys), strings, numbers and booleans.
---@param v any
---@return string
report.json = json

local function leave(result)
  local name = os.getenv "ASYNCTASK_BENCH_RESULTS"
  if not name then
    return
  end
  local file = assert(io.open(name, "a"))
  file:write(json(result), "\n")
  file:close()
end

-- ---- the table -------------------------------------------------------------------------------

---@class bench.row
---@field name string
---@field values number[] one for each round
---@field goal? number what our figure may be of this one's
---@field digits? integer behind the point (0)

--- Prints a measurement and leaves its line. Rows without values are left out.
---@param title string
---@param unit string
---@param rows bench.row[] ours is the first
---@param more? boolean more is better (a rate); default: less is (a cost)
function report.add(title, unit, rows, more)
  report.say("\n%s (%s)", title, unit)
  local ours, contestants = rows[1].values, {}
  for _, row in ipairs(rows) do
    local s = row.values and report.sorted(row.values)
    if s and #s > 0 then
      local number = "%" .. (row.digits and 9 or 7) .. "." .. (row.digits or 0) .. "f"
      local line = ("  %-34s " .. number .. "   [" .. number .. " .. " .. number .. "]")
        :format(row.name, report.median(s), s[1], s[#s])
      local entry = { name = row.name, median = report.median(s), min = s[1], max = s[#s], rounds = #s }
      if row.values ~= ours then
        entry.ratio = report.ratio(ours, row.values)
        line = line .. ("   ours is %.2f of it"):format(entry.ratio)
        if row.goal then
          entry.goal = row.goal
          line = line .. (", goal %.2f"):format(row.goal)
        end
      end
      contestants[#contestants + 1] = entry
      report.say("%s", line)
    end
  end
  leave { title = title, unit = unit, more = more or false, contestants = contestants }
end

-- ---- other programs --------------------------------------------------------------------------

--- True if the shell's command succeeds; its output is thrown away.
---@param command string
---@return boolean
function report.succeeds(command)
  return (os.execute("(" .. command .. ") >/dev/null 2>&1")) == true
end

---@param s string
---@return string word for the shell
function report.quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

--- What a program prints as lines `name number`.
---@param command string
---@return table<string, number>
function report.figures(command)
  local figures, pipe = {}, assert(io.popen(command .. " 2>/dev/null"))
  for line in pipe:lines() do
    local name, value = line:match "^([%w_]+) ([%d.e+-]+)$"
    if name then
      figures[name] = tonumber(value)
    end
  end
  pipe:close()
  return figures
end

--- The interpreter that runs this program.
---@return string
function report.interpreter()
  local i = 0
  while arg[i - 1] do
    i = i - 1
  end
  return arg[i]
end

return report
