-- progress_sse.lua [port] - counts primes on all cores, and shows in the browser how far it has come: the job's
-- progress becomes server-sent events. Closing the page cancels the job. Serves until Ctrl-C.

local task = require "asynctask"
local net = require "asynctask.net"
local parallel = require "asynctask.parallel"
local http = require "asynctask.http"

local await = task.await

local here = arg[0]:match "^(.*)/" or "."
local BLOCK = 10000

-- How many primes there are in one block of numbers. Runs in jobs.
local function count_primes(block)
  local count = 0
  for n = math.max(2, (block - 1) * BLOCK), block * BLOCK - 1 do
    local prime = n % 2 ~= 0 or n == 2
    for d = 3, math.floor(math.sqrt(n)), 2 do
      if n % d == 0 then
        prime = false
        break
      end
    end
    count = count + (prime and 1 or 0)
  end
  return count
end

local function count(req)
  local blocks = math.tointeger(tonumber(req.query.blocks)) or 100
  blocks = math.max(1, math.min(blocks, 2000))
  local events <close> = req:events()
  await(events:send { event = "begin", data = tostring(blocks * BLOCK) })
  local list = {}
  for i = 1, blocks do
    list[i] = i
  end
  local primes = await(parallel.map(list, count_primes, {
    chunk = 1,
    progress = function(done, total)
      await(events:send { event = "progress", data = ("%.1f"):format(100 * done / total) })
    end,
  }))
  local sum = 0
  for _, found in ipairs(primes) do
    sum = sum + found
  end
  await(events:send { event = "done", data = tostring(sum) })
end

local router = http.router()
router:get("/count", count)
router:mount("/", http.files(here .. "/web", { index = "progress.html" }))

task.main(function(port)
  local server <close> = await(net.listen("127.0.0.1", port))
  print(("http://127.0.0.1:%d/"):format(server:sockname().port))
  io.stdout:flush()
  await(http.serve(server, router))
end, tonumber(arg[1]) or 8080)
