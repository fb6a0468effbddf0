-- checksum_tree.lua [directory] - an Adler-32 checksum for each file of a tree, and one for all.
--
-- The names are found here, the files are read and summed in jobs on all processors: while one job waits for its
-- file, its thread goes on with another.

local task = require "asynctask"
local parallel = require "asynctask.parallel"
local fs = require "asynctask.fs"

local await = task.await

-- RFC 1950, section 9
local function adler32(path)
  local t, files = require "asynctask", require "asynctask.fs"
  local data = t.await(files.read_file(path))
  local a, b = 1, 0
  for i = 1, #data, 4096 do
    local bytes = { data:byte(i, math.min(i + 4095, #data)) }
    for k = 1, #bytes do
      a = a + bytes[k]
      b = b + a
    end
    a, b = a % 65521, b % 65521
  end
  return b << 16 | a
end

task.main(function()
  local root = arg[1] or "."
  local paths = {}
  for path, entry in fs.walk(root) do
    if entry.type == "file" then
      paths[#paths + 1] = path
    end
  end
  table.sort(paths)
  local sums = await(parallel.map(paths, adler32))
  local all = 0
  for i, path in ipairs(paths) do
    print(("%08x  %s"):format(sums[i], path))
    all = (all * 31 + sums[i]) & 0xffffffff
  end
  print(("%08x  %d files"):format(all, #paths))
end)
