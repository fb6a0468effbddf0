-- grep.lua pattern [path] [jobs] - the lines below a path that a Lua pattern is found in, files searched in
-- parallel. As `grep -rn`: exits with 0 when something was found, with 1 when not.
--
-- Reading is concurrent on this thread; searching, which is work, goes to the pool of worker threads in
-- batches, so that a small file does not cost a trip of its own. The output is in order all the same: batch by
-- batch, as they were begun.

local task = require "asynctask"
local coroutine = require "asynctask.coroutine" -- its generators may await
local fs = require "asynctask.fs"

local await = task.await

local BATCH = 32     -- files in a job
local BINARY = 8000  -- a zero byte among so many first ones: no text

local pattern, root, jobs = arg[1], arg[2] or ".", tonumber(arg[3]) or 4
if not pattern then
  io.stderr:write("usage: grep.lua pattern [path] [jobs]\n")
  os.exit(2)
end
if not pcall(string.find, "", pattern) then
  io.stderr:write("grep.lua: malformed pattern\n")
  os.exit(2)
end

-- On a worker: reads and searches a batch of files. Its modules are the worker's own.
local function search(paths, wanted, binary)
  local files = require "asynctask.fs"
  local tasks = require "asynctask"
  local reads, found = {}, {}
  for i, path in ipairs(paths) do
    reads[i] = files.read_file(path)
  end
  for i, path in ipairs(paths) do
    local text, err = tasks.try(reads[i])
    if not text then
      found[#found + 1] = ("%s: %s"):format(path, err.message)
    elseif not text:sub(1, binary):find("\0", 1, true) and text:find(wanted) then
      local number = 0
      for line in text:gmatch("([^\n]*)\n?") do
        number = number + 1
        if line:find(wanted) then
          found[#found + 1] = ("%s:%d:%s"):format(path, number, line)
        end
      end
    end
  end
  return found
end

-- Batches of the files below the path.
local function batches()
  local batch = {}
  return coroutine.wrap(function()
    for path, entry in fs.walk(root, { filter = function(_, e) return e.name ~= ".git" end }) do
      if entry.error then
        io.stderr:write(tostring(entry.error), "\n")
      elseif entry.type == "file" then
        batch[#batch + 1] = path
        if #batch == BATCH then
          coroutine.yield(batch)
          batch = {}
        end
      end
    end
    if batch[1] then
      coroutine.yield(batch)
    end
  end)
end

local matches = 0

task.main(function()
  if await(fs.stat(root)).type ~= "directory" then
    batches = function() return coroutine.wrap(function() coroutine.yield { root } end) end
  end
  local running, first, last = {}, 1, 0
  local function print_first()
    for _, line in ipairs(await(running[first])) do
      print(line)
      matches = matches + 1
    end
    running[first] = nil
    first = first + 1
  end
  for batch in batches() do
    last = last + 1
    running[last] = task.run(search, batch, pattern, BINARY)
    if last - first + 1 >= jobs then
      print_first()
    end
  end
  while first <= last do
    print_first()
  end
end)

os.exit(matches > 0 and 0 or 1, true)
