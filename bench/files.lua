-- files.lua [pattern] [scale] - what files cost beside plain io, luv, node and C, where they are found. `make
-- bench-files`; a pattern chooses measurements by name (small, lines, pieces, copy, walk), a scale below 1 makes all
-- of it smaller. About three minutes and 1.5 GB in TMPDIR (/tmp), which are given back.
--
-- Wall-clock time, measured inside each program; the cache is warm.

local task = require "asynctask"
local core = require "asynctask.core"
local fs = require "asynctask.fs"

local HERE = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = HERE .. "/?.lua;" .. package.path
local report = require "support.report"

local await = task.await
local quote, runs, say = report.quote, report.succeeds, report.say

local found_luv, uv = pcall(require, "luv")
local found_lfs, lfs = pcall(require, "lfs")

local SCALE = tonumber(arg[2]) or report.quick and 0.2 or 1
local SMALL = math.floor(10000 * SCALE)
local LARGE = math.floor(512 * SCALE) -- MB
local DIRECTORIES = math.floor(1000 * SCALE) -- of 99 files: with themselves 100,000 entries
local ROUNDS, LARGE_ROUNDS = report.quick and 3 or 7, report.quick and 2 or 3
local NODE = "node " .. HERE .. "/files/files.js"

local dir -- everything is made in it

-- ---- measuring -------------------------------------------------------------------------------

-- A program that prints its seconds and what it has seen.
local function program(command, ...)
  local words = { command }
  for i, word in ipairs { ... } do
    words[i + 1] = quote(tostring(word))
  end
  local line = table.concat(words, " ")
  return function()
    local pipe = assert(io.popen(line))
    local output = pipe:read("a")
    assert(pipe:close(), line)
    local seconds, seen = output:match("^(%S+) (%d+)")
    return tonumber(seconds), tonumber(seen)
  end
end

-- A function that gives what it has seen.
local function here(f)
  return function()
    collectgarbage()
    local began = core.now()
    local seen = f()
    return core.now() - began, seen
  end
end

-- Contestants are {name=, run=, goal=}; the first is ours. `per`: how many things one run does.
local function compare(title, unit, factor, per, rounds, contestants)
  local present, values = {}, {}
  for _, c in ipairs(contestants) do
    if c.run then
      present[#present + 1] = c
      values[#present] = {}
    end
  end
  local expected
  for round = 0, rounds do -- the first warms up; another one begins each time
    for k = 1, #present do
      local i = (k + round) % #present + 1
      local c = present[i]
      local seconds, seen = c.run()
      expected = expected or seen
      assert(seen == nil or seen == expected, ("%s saw %s, not %s"):format(c.name, seen, expected))
      values[i][round] = seconds / per * factor
    end
  end
  local rows = {}
  for i, c in ipairs(present) do
    rows[i] = { name = c.name, values = values[i], goal = c.goal, digits = 2 }
  end
  report.add(title, unit, rows)
end

-- ---- many small files ------------------------------------------------------------------------

local function small_names()
  local names = {}
  for i = 0, SMALL - 1 do
    names[i + 1] = ("%s/small/%d/%d"):format(dir, i % 100, i)
  end
  return names
end

local function small_ours(names)
  local bytes = 0
  await(task.for_each(names, function(name)
    local size = #await(fs.read_file(name)) -- first: `bytes` may change while it waits
    bytes = bytes + size
  end, { limit = 64 }))
  return bytes
end

local function small_io(names)
  local bytes = 0
  for _, name in ipairs(names) do
    local f = assert(io.open(name, "rb"))
    bytes = bytes + #f:read("a")
    f:close()
  end
  return bytes
end

local function small_luv(names)
  local bytes, next_one = 0, 0
  local function start()
    next_one = next_one + 1
    local name = names[next_one]
    if not name then
      return
    end
    uv.fs_open(name, "r", 0, function(err, fd)
      assert(not err, err)
      uv.fs_fstat(fd, function(_, st)
        uv.fs_read(fd, st.size, 0, function(_, data)
          bytes = bytes + #data
          uv.fs_close(fd, start)
        end)
      end)
    end)
  end
  for _ = 1, 64 do
    start()
  end
  uv.run()
  return bytes
end

local function small(c)
  for i = 0, 99 do
    await(fs.mkdir(("%s/small/%d"):format(dir, i), { parents = true }))
  end
  local names = small_names()
  await(task.for_each(names, function(name)
    await(fs.write_file(name, ("x"):rep(4096)))
  end, { limit = 64 }))
  local path = dir .. "/small"
  compare(("%d files of 4 KiB, 64 in flight"):format(SMALL), "us a file", 1e6, SMALL, ROUNDS, {
    { name = "asynctask", run = here(function() return small_ours(names) end) },
    { name = "C, blocking, one by one", run = c and program(c, "small-blocking", path, SMALL) },
    { name = "C, uv_fs, four hops", run = c and program(c, "small-uv", path, SMALL), goal = 0.8 },
    { name = "Lua io, one by one", run = here(function() return small_io(names) end) },
    { name = "luv callbacks", run = found_luv and here(function() return small_luv(names) end) },
    { name = "node callbacks", run = runs "node -v" and program(NODE, "small", path, SMALL) },
  })
  await(fs.remove(path, { recursive = true }))
end

-- ---- one large file --------------------------------------------------------------------------

local function make_large()
  local path = dir .. "/large"
  if await(fs.exists(path)) then
    return path
  end
  local lines = {}
  for i = 1, 1024 do
    lines[i] = ("%04d %s"):format(i, ("word "):rep(i % 24))
  end
  local piece = table.concat(lines, "\n") .. "\n"
  piece = piece:rep(1048576 // #piece + 1):sub(1, 1048575) .. "\n"
  local f <close> = await(fs.open(path, "w"))
  for _ = 1, LARGE do
    await(f:write(piece))
  end
  return path
end

local function lines(c)
  local path = make_large()
  local function count(iterate)
    return here(function()
      local bytes = 0
      for line in iterate(path) do
        bytes = bytes + #line + 1
      end
      return bytes
    end)
  end
  compare(("a file of %d MB, line by line"):format(LARGE), "s", 1, 1, LARGE_ROUNDS, {
    { name = "asynctask fs.lines", run = count(fs.lines) },
    { name = "Lua io.lines", run = count(io.lines) },
    { name = "C getline", run = c and program(c, "lines", path) },
    { name = "node readline", run = runs "node -v" and program(NODE, "lines", path) },
  })
end

local function pieces(c)
  local path = make_large()
  local function ours()
    local bytes = 0
    local f <close> = await(fs.open(path))
    while true do
      local piece = await(f:read(65536))
      if not piece then
        return bytes
      end
      bytes = bytes + #piece
    end
  end
  local function plain()
    local bytes = 0
    local f <close> = assert(io.open(path, "rb"))
    for piece in f:lines(65536) do
      bytes = bytes + #piece
    end
    return bytes
  end
  local function luv()
    local bytes, fd = 0, assert(uv.fs_open(path, "r", 0))
    local function read()
      uv.fs_read(fd, 65536, -1, function(err, data)
        assert(not err, err)
        bytes = bytes + #data
        if #data > 0 then
          read()
        end
      end)
    end
    read()
    uv.run()
    uv.fs_close(fd)
    return bytes
  end
  compare(("a file of %d MB in pieces of 64 KiB"):format(LARGE), "us a piece", 1e6, LARGE * 16, LARGE_ROUNDS, {
    { name = "asynctask f:read(65536)", run = here(ours) },
    { name = "Lua io", run = here(plain), goal = 2.0 },
    { name = "C read", run = c and program(c, "pieces", path) },
    { name = "luv fs_read", run = found_luv and here(luv) },
    { name = "node fs.read", run = runs "node -v" and program(NODE, "pieces", path) },
  })
end

local function copy()
  local path, to = make_large(), dir .. "/copy"
  local size = await(fs.stat(path)).size
  -- What others have left is not written back in the time of the next one.
  local function clean()
    os.remove(to)
    os.execute("sync")
  end
  local function fresh(f)
    return function()
      clean()
      local seconds = here(f)()
      assert(await(fs.stat(to)).size == size)
      return seconds
    end
  end
  local node = runs "node -v" and program(NODE, "copy", path, to)
  compare(("copy of %d MB"):format(LARGE), "s", 1, 1, LARGE_ROUNDS, {
    { name = "asynctask fs.copy", run = fresh(function() await(fs.copy(path, to)) end) },
    { name = "cp", run = fresh(function() assert(os.execute(("cp %s %s"):format(quote(path), quote(to)))) end) },
    { name = "luv fs_copyfile", run = found_luv and fresh(function() assert(uv.fs_copyfile(path, to)) end) },
    { name = "node copyFile", run = node and function()
      clean()
      return (node())
    end },
    { name = "Lua io, pieces of 64 KiB", run = fresh(function()
      local from, target = assert(io.open(path, "rb")), assert(io.open(to, "wb"))
      for piece in from:lines(65536) do
        target:write(piece)
      end
      from:close()
      target:close()
    end) },
  })
  os.remove(to)
end

-- ---- a tree ----------------------------------------------------------------------------------

local function walk_lfs(path)
  local n = 0
  for name in lfs.dir(path) do
    if name ~= "." and name ~= ".." then
      n = n + 1
      local full = path .. "/" .. name
      if lfs.symlinkattributes(full, "mode") == "directory" then
        n = n + walk_lfs(full)
      end
    end
  end
  return n
end

local function walk_luv(path)
  local n = 0
  local scan = assert(uv.fs_scandir(path))
  while true do
    local name, kind = uv.fs_scandir_next(scan)
    if not name then
      return n
    end
    n = n + 1
    if kind == "directory" then
      n = n + walk_luv(path .. "/" .. name)
    end
  end
end

local function walk()
  local path = dir .. "/tree"
  await(fs.mkdir(path))
  await(task.for_each((function()
    local list = {}
    for i = 1, DIRECTORIES do
      list[i] = i
    end
    return list
  end)(), function(i)
    local sub = ("%s/%d/%d"):format(path, i % 30, i)
    await(fs.mkdir(sub, { parents = true }))
    for j = 1, 99 do
      await(fs.write_file(sub .. "/" .. j, ""))
    end
  end, { limit = 16 }))
  local entries = DIRECTORIES * 100 + math.min(30, DIRECTORIES)
  local function ours(options)
    return here(function()
      local n = 0
      for _ in fs.walk(path, options) do
        n = n + 1
      end
      return n
    end)
  end
  local function command(line)
    return here(function()
      local pipe, n = assert(io.popen(line)), 0
      for _ in pipe:lines() do
        n = n + 1
      end
      pipe:close()
      return n
    end)
  end
  compare(("walk over a tree of %d entries"):format(entries), "ms", 1e3, 1, ROUNDS, {
    { name = "asynctask fs.walk", run = ours() },
    { name = "find, its output read line by line", run = command("find " .. quote(path) .. " -mindepth 1") },
    { name = "find, its output thrown away", run = here(function()
      os.execute("find " .. quote(path) .. " >/dev/null")
    end) },
    { name = "lfs.dir", run = found_lfs and here(function() return walk_lfs(path) end) },
    { name = "luv fs_scandir, blocking", run = found_luv and here(function() return walk_luv(path) end) },
    { name = "node readdir", run = runs "node -v" and program(NODE, "walk", path) },
    { name = "asynctask fs.walk with stat", run = ours { stat = true } },
    { name = "asynctask fs.glob **", run = here(function()
      return #await(fs.glob(path .. "/**"))
    end) },
  })
  local began = core.now()
  await(fs.remove(path, { recursive = true }))
  say("  removed recursively in %.2f s", core.now() - began)
end

-- ---- all of it -------------------------------------------------------------------------------

-- The C contestant, compiled; nil where there is no compiler or no libuv.
local function build()
  local to = dir .. "/files"
  local command = ("cc -O2 -o %s %s $(pkg-config --cflags --libs libuv 2>/dev/null || echo -luv)"):format(
    quote(to), quote(HERE .. "/files/files.c"))
  return runs(command) and to or nil
end

local measurements = {
  { "small", small },
  { "lines", lines },
  { "pieces", pieces },
  { "copy", copy },
  { "walk", walk },
}

dir = await(fs.mkdtemp())
local _ <close> = setmetatable({}, { __close = function()
  await(fs.remove(dir, { recursive = true }))
end })

local room = await(fs.statfs(dir)).available
if room < LARGE * 2 * 1048576 + 1e9 then
  error(("%s: %d MB are free, too few: set TMPDIR or a smaller scale"):format(dir, room // 1000000), 0)
end
local found_node = runs "node -v" and "found" or "missing"
say("%s, luv %s, node %s", _VERSION, found_luv and uv.version_string() or "missing", found_node)
local c = build()
for _, m in ipairs(measurements) do
  if m[1]:find(arg[1] or "") then
    m[2](c)
  end
end
