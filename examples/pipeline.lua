-- A pipeline of channels with backpressure: read lines -> split words -> count. Each stage is a task, or several;
-- the channels between them hold a few values, so that a slow stage slows down those before it and
-- nothing piles up, however large the input is.
--
--     lua5.4 examples/pipeline.lua [file]      counts the words of a file (default: this program)

local task = require "asynctask"
local channel = require "asynctask.channel"
local fs = require "asynctask.fs"

local await = task.await
local path = arg[1] or arg[0]
local SPLITTERS = 3

-- Runs `f` and closes the channel after it, with the error if there was one: the next stage gets that.
local function stage(out, f)
  local ok, err = task.pcall(f)
  if ok then out:close() else out:close(err) end
end

local function read(lines)
  for line in fs.lines(path) do
    await(lines:send(line)) -- waits while the channel is full
  end
end

local function split(lines, words)
  for line in lines:each() do
    for word in line:lower():gmatch "%a+" do
      await(words:send(word))
    end
  end
end

local function count(words, most)
  local counts, total = {}, 0
  for word in words:each() do
    counts[word] = (counts[word] or 0) + 1
    total = total + 1
    most.ahead = math.max(most.ahead, #words)
    if total % 50 == 0 then await(task.delay(0.0005)) end -- the slow one
  end
  return counts, total
end

local counts, total, most = nil, 0, { ahead = 0 }
task.main(function()
  local lines, words = channel.new(4), channel.new(16)
  task.with_group(function(g)
    g:spawn(stage, lines, function() read(lines) end)
    g:spawn(stage, words, function()
      task.with_group(function(splitters)
        for _ = 1, SPLITTERS do splitters:spawn(split, lines, words) end
      end)
    end)
    counts, total = count(words, most)
  end)
end)

local list = {}
for word in pairs(counts) do list[#list + 1] = word end
table.sort(list, function(a, b) return counts[a] > counts[b] or counts[a] == counts[b] and a < b end)
print(("%d words, %d different; never more than %d waiting"):format(total, #list, most.ahead))
for i = 1, math.min(5, #list) do print(("%6d %s"):format(counts[list[i]], list[i])) end
