-- coverage.lua BUILD [file...] - what the build in BUILD (by tools/coverage_cc) has run of our C: a table of lines and
-- branches for each file, totals, and, with files named (patterns), each line and branch of them that never ran.
-- Reads the text that gcov prints; a header counts once, with what ran in any file that includes it. Sources whose
-- objects never ran count as not covered. Nothing is left out. `make coverage`.

local build = assert(arg[1], "usage: coverage.lua BUILD [file...]")
local patterns = table.move(arg, 2, #arg, 1, {})

local files = {} -- path -> { lines = { [n] = count }, branches = { [n] = { counts } }, source = { [n] = text } }

--- What gcov says of one object, added up.
local function add(object)
  local file, line, branch
  local pipe = assert(io.popen(("gcov -b -c -t '%s' 2>/dev/null"):format(object)))
  for text in pipe:lines() do
    local count, number, source = text:match "^%s*([^:]+):%s*(%d+):(.*)$"
    number = math.tointeger(number)
    if number == 0 then
      local path = source:match "^Source:(.*)$"
      if path then
        path = path:match "(csrc/.*)$" -- what is not ours is a header of a library
        file = path and (files[path] or { lines = {}, branches = {}, source = {} })
        if path then
          files[path] = file
        end
      end
    elseif number then
      line, branch = number, 0
      local ran = count:match "^[#=]" and 0 or math.tointeger((count:gsub("%*", "")))
      if file and ran then
        file.lines[line] = (file.lines[line] or 0) + ran
        file.source[line] = source
      end
    elseif file and text:find "^branch" then
      local list = file.branches[line] or {}
      file.branches[line] = list
      branch = branch + 1
      list[branch] = (list[branch] or 0) + (math.tointeger(text:match "taken (%d+)") or 0)
    end
  end
  pipe:close()
end

--- Lines and branches of a file, and how many of them ran.
local function figures(file)
  local f = { lines = 0, ran = 0, branches = 0, taken = 0 }
  for _, count in pairs(file.lines) do
    f.lines = f.lines + 1
    f.ran = f.ran + (count > 0 and 1 or 0)
  end
  for _, list in pairs(file.branches) do
    for _, count in ipairs(list) do
      f.branches = f.branches + 1
      f.taken = f.taken + (count > 0 and 1 or 0)
    end
  end
  return f
end

local function row(name, f)
  local function share(n, of)
    return of == 0 and "     -" or ("%5.1f%%"):format(n / of * 100)
  end
  print(("%-36s %6d %6d %s   %6d %6d %s"):format(name, f.lines, f.ran, share(f.ran, f.lines), f.branches, f.taken,
    share(f.taken, f.branches)))
end

--- What never ran: "#####" lines, and lines of which "b/n" branches were never taken.
local function show(path, file)
  local numbers = {}
  for n in pairs(file.lines) do
    numbers[#numbers + 1] = n
  end
  table.sort(numbers)
  print("\n" .. path)
  for _, n in ipairs(numbers) do
    local missed = {}
    for i, count in ipairs(file.branches[n] or {}) do
      if count == 0 then
        missed[#missed + 1] = i
      end
    end
    if file.lines[n] == 0 then
      print(("  #####  %4d %s"):format(n, file.source[n]))
    elseif #missed > 0 then
      print(("  %-6s %4d %s"):format(table.concat(missed, ",") .. "/" .. #file.branches[n], n, file.source[n]))
    end
  end
end

local objects = {}
local pipe = assert(io.popen(("find '%s/obj' -name '*.gcno' | LC_ALL=C sort"):format(build)))
for object in pipe:lines() do
  objects[#objects + 1] = object
end
pipe:close()
assert(#objects > 0, "no .gcno files below " .. build .. ": it was not built by make coverage")
for _, object in ipairs(objects) do
  add(object)
end

local paths, total = {}, { lines = 0, ran = 0, branches = 0, taken = 0 }
for path in pairs(files) do
  paths[#paths + 1] = path
end
table.sort(paths)
print(("%-36s %6s %6s %6s   %6s %6s"):format("file", "lines", "ran", "", "branch", "taken"))
for _, path in ipairs(paths) do
  local f = figures(files[path])
  row(path, f)
  for k, n in pairs(f) do
    total[k] = total[k] + n
  end
end
row("total", total)
for _, path in ipairs(paths) do
  for _, pattern in ipairs(patterns) do
    if path:find(pattern) then
      show(path, files[path])
      break
    end
  end
end
