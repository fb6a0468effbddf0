-- Checks the house of DESIGN section 4 in csrc/, for `make lint`:
--   includes go down only (host -> par, io -> core -> base; io and par never into each other), and
--   are written from csrc; each module of csrc/ext sees the public header and its own folder only;
--   lua_resume, lua_yield and lua_sethook are called only in the files that may;
--   every C file says at its top, in 2 to 12 lines, what it is (a header in as many as it needs);
--   every Lua file of the library begins with a comment.
-- Prints one line for each offence and ends with exit code 1 when there is one.

local FLOORS = {
  base = { "base" },
  core = { "core", "base" },
  io = { "io", "core", "base" },
  par = { "par", "core", "base" },
  host = { "host", "par", "io", "core", "base", "include" },
  include = {},
}

-- The only files that call these: two doors of the scheduler, the drop-in for `coroutine`, and the
-- interruption of jobs. A hook is set where a stray yield is caught and where a job is interrupted, and
-- taken away when that came too late (job.c).
local DOORS = {
  lua_resume = { "core/sched.c", "core/coroutine.c", "par/interrupt.c" },
  lua_yield = { "core/await.c", "core/coroutine.c", "par/interrupt.c" },
  lua_sethook = { "core/sched.c", "core/coroutine.c", "par/interrupt.c", "par/job.c" },
}

local offences = 0
local function offence(file, line, text)
  offences = offences + 1
  io.stderr:write(("%s:%d: %s\n"):format(file, line, text))
end

local function files_of(directory, patterns)
  local pipe = assert(io.popen("find " .. directory .. " -type f | LC_ALL=C sort"))
  local list = {}
  for name in pipe:lines() do
    for _, pattern in ipairs(patterns) do
      if name:find(pattern) then list[#list + 1] = name break end
    end
  end
  pipe:close()
  return list
end

local function contains(list, value)
  for _, v in ipairs(list) do
    if v == value then return true end
  end
  return false
end

local function read(name)
  local f = assert(io.open(name))
  local text = f:read("a")
  f:close()
  return text
end

--- C without comments, strings and character constants, lines kept in place.
local function bare(text)
  local out, at, n = {}, 1, #text
  local function blank(from, to) out[#out + 1] = text:sub(from, to):gsub("[^\n]", " ") end
  while at <= n do
    local start = text:find("[/\"']", at)
    if not start then break end
    out[#out + 1] = text:sub(at, start - 1)
    local two, finish = text:sub(start, start + 1), nil
    if two == "/*" then
      finish = select(2, text:find("*/", start + 2, true)) or n
    elseif two == "//" then
      finish = (text:find("\n", start, true) or n + 1) - 1
    elseif two:sub(1, 1) == "/" then
      out[#out + 1] = "/"
      at = start + 1
    else
      local quote = two:sub(1, 1)
      local i = start + 1
      while i <= n and text:sub(i, i) ~= quote and text:sub(i, i) ~= "\n" do
        i = i + (text:sub(i, i) == "\\" and 2 or 1)
      end
      finish = math.min(i, n)
    end
    if finish then
      blank(start, finish)
      at = finish + 1
    end
  end
  out[#out + 1] = text:sub(at)
  return table.concat(out)
end

local function lines_of(text)
  local list = {}
  for line in (text .. "\n"):gmatch("(.-)\n") do list[#list + 1] = line end
  return list
end

--- The length in lines of the comment that opens the file, and its text.
local function opening(text)
  local comment = text:match("^/%*.-%*/")
  return comment and select(2, comment:gsub("\n", "")) + 1, comment
end

local function check_header(name, text)
  local count, comment = opening(text)
  local base = name:match("[^/]+$")
  if not comment or not comment:find("^/%* " .. base:gsub("%p", "%%%0") .. " %- ") then
    return offence(name, 1, ("does not begin with the comment `/* %s - ...`"):format(base))
  end
  if base:find("%.c$") and (count < 2 or count > 12) then
    offence(name, 1, ("the opening comment has %d lines: 2 to 12 say what it owns, what it may call, "
      .. "which thread runs it, its invariants"):format(count))
  end
end

local function check_includes(name, floor, text)
  local allowed = FLOORS[floor] or { floor, "include" }
  for number, line in ipairs(lines_of(text)) do
    local target = line:match('^%s*#%s*include%s*"([^"]*)"')
    if target then
      local to = target:match("^(%l+)/")
      if to == "ext" then to = target:match("^(ext/%w+)/") end
      if target == "asynctask.h" then to = "include" end
      if not to or not FLOORS[to] and to ~= floor then
        offence(name, number, ("include of %q: write it from csrc, as in \"core/op.h\""):format(target))
      elseif not contains(allowed, to) then
        offence(name, number, ("floor %s includes %s: it may include %s only"):format(floor, target,
          table.concat(allowed, ", ")))
      end
    end
  end
end

local function check_doors(name, text)
  local short = name:match("csrc/(.*)$")
  for number, line in ipairs(lines_of(text)) do
    for door, allowed in pairs(DOORS) do
      for word in line:gmatch("[%a_][%w_]*") do
        if (word == door or word == door .. "k") and not contains(allowed, short) then
          offence(name, number, ("%s is called in %s only"):format(word, table.concat(allowed, ", ")))
        end
      end
    end
  end
end

for _, name in ipairs(files_of("csrc", { "%.c$", "%.h$" })) do
  local floor = name:match("^csrc/(%w+)/[^/]+$") or name:match("^csrc/(ext/%w+)/[^/]+$")
  local text = read(name)
  if not floor or not FLOORS[floor] and not floor:find("^ext/") then
    offence(name, 1, "is on no floor: csrc has base, core, io, par, host, include and ext/<library>")
  else
    check_includes(name, floor, text)
  end
  check_header(name, text)
  check_doors(name, bare(text))
end

for _, name in ipairs(files_of("lua", { "%.lua$" })) do
  if not read(name):find("^%-%-") then offence(name, 1, "does not begin with a comment that says what it is") end
end

if offences > 0 then
  io.stderr:write(("floors: %d offence(s)\n"):format(offences))
  os.exit(1)
end
print("floors: in order")
