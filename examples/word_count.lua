-- word_count.lua file... - the commonest words of texts, as map and reduce on all processors.
--
-- Each chunk of files is counted in a job, beginning with a table of its own; the tables are joined here.

local task = require "asynctask"
local parallel = require "asynctask.parallel"

local await = task.await

local function count(counts, path)
  local t, fs = require "asynctask", require "asynctask.fs"
  for word in t.await(fs.read_file(path)):lower():gmatch "%a+" do
    counts[word] = (counts[word] or 0) + 1
  end
  return counts
end

local function join(a, b)
  for word, n in pairs(b) do
    a[word] = (a[word] or 0) + n
  end
  return a
end

task.main(function()
  local paths = #arg > 0 and table.move(arg, 1, #arg, 1, {}) or { arg[0] }
  local counts = await(parallel.reduce(paths, count, {}, { combine = join }))
  local words = {}
  for word in pairs(counts) do
    words[#words + 1] = word
  end
  table.sort(words, function(a, b)
    if counts[a] ~= counts[b] then
      return counts[a] > counts[b]
    end
    return a < b
  end)
  for i = 1, math.min(10, #words) do
    print(("%6d  %s"):format(counts[words[i]], words[i]))
  end
end)
