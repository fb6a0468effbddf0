-- smooth.lua - what smooth_glib.c runs: a download, a computation on all processors, and one on the very
-- thread that draws. The chunk is a task: it may wait, and while it waits the window is drawn.

local task = require "asynctask"
local net = require "asynctask.net"
local parallel = require "asynctask.parallel"
local await = task.await

local BLOCK, BLOCKS = ("x"):rep(65536), 512

-- The example serves itself: 32 MiB to everyone who connects.
local server = await(net.listen("127.0.0.1", 0))
local serving = server:serve(function(stream)
  for _ = 1, BLOCKS do await(stream:write(BLOCK)) end
end)

local function download()
  local stream <close> = await(net.connect("127.0.0.1", server:sockname().port))
  local bytes = 0
  for part in stream:lines(65536) do bytes = bytes + #part end
  return bytes
end

-- On the pool: how many primes there are below 400,000. Progress is told on this thread.
local reports = 0
local function compute()
  local blocks, sum = {}, 0
  for i = 1, 400 do blocks[i] = (i - 1) * 1000 end
  local counts = await(parallel.map(blocks, function(first)
    local count = 0
    for n = math.max(first, 2), first + 999 do
      local d = 2
      while d * d <= n and n % d ~= 0 do d = d + 1 end
      if d * d > n then count = count + 1 end
    end
    return count
  end, { progress = function() reports = reports + 1 end }))
  for _, count in ipairs(counts) do sum = sum + count end
  return sum
end

-- On this thread, in pieces of about a millisecond: after each it gives way, and the budget does the rest.
local function think()
  local x = 0
  for _ = 1, 600 do
    for i = 1, 100000 do x = (x * 31 + i) % 1000003 end
    await(task.yield())
  end
  return x
end

local bytes, primes, thought = await(task.when_all(task.spawn(download), task.spawn(compute), task.spawn(think)))
await(server:close())
await(serving)
print(("downloaded %d MiB, %d primes, thought %d, progress %s"):format(bytes >> 20, primes, thought,
  reports > 0 and "yes" or "no"))
