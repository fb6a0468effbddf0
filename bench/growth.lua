-- growth.lua [pattern] - how costs grow: the same work with 10, 1,000, 100,000 (and a million sleeping) tasks,
-- timers, waiters and jobs. `make bench-growth`; two minutes and 2 GB. Exit code 1 when something grows faster than
-- n log n.
--
-- A figure is nanoseconds for one item at that number of items: the smallest of the rounds, so that a busy machine
-- disturbs little. Between two sizes it may grow as log n does, and three times that for memory that no longer fits
-- into the caches.

local task = require "asynctask"
local channel = require "asynctask.channel"

local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local report = require "support.report"

local await, spawn = task.await, task.spawn

local ROUNDS = report.quick and 2 or 4
local CACHES = 3

local function trivial() end

local function tasks(n, f)
  local list = {}
  for i = 1, n do
    list[i] = f(i)
  end
  return list
end

-- Each prepares n things and returns the function that is measured.
local measurements = {
  { "spawn n tasks that wait, wake them, await them all", { 10, 1000, 100000 }, function(n)
    return function()
      local source = task.source()
      local list = tasks(n, function()
        return spawn(function() await(source.task) end)
      end)
      source:set_result()
      await(task.when_all(list))
    end
  end },
  { "n delays at once, each due at another time", { 10, 1000, 100000 }, function(n)
    return function()
      await(task.when_all(tasks(n, function(i)
        return task.delay((i * 7919 % n) / n * 0.01)
      end)))
    end
  end },
  { "n sleeping tasks, all of them cancelled", { 10, 1000, 100000, 1000000 }, function(n)
    local list = tasks(n, function()
      return spawn(function() await(task.delay(3600)) end)
    end)
    return function()
      for i = 1, n do
        list[i]:cancel()
      end
      await(task.yield())
    end
  end },
  { "a group of n members, cancelled", { 10, 1000, 100000 }, function(n)
    local g = task.group()
    for _ = 1, n do
      g:spawn(function() await(task.delay(3600)) end)
    end
    return function()
      g:cancel()
      task.try(g:wait())
    end
  end },
  { "when_any over n tasks, then when_each", { 10, 1000, 10000 }, function(n)
    local sources = tasks(n, function() return task.source() end)
    local list = tasks(n, function(i) return sources[i].task end)
    return function()
      local any = task.when_any(list)
      sources[n]:set_result(n)
      await(any)
      for i = 1, n - 1 do
        sources[i]:set_result(i)
      end
      for _ in task.when_each(list) do
        trivial()
      end
    end
  end },
  { "a channel with n waiting receivers", { 10, 1000, 10000 }, function(n)
    local ch = channel.new(0)
    local list = tasks(n, function()
      return spawn(function() return await(ch:receive()) end)
    end)
    return function()
      for i = 1, n do
        await(ch:send(i))
      end
      await(task.when_all(list))
    end
  end },
  { "a channel with n waiting senders, cancelled", { 10, 1000, 10000 }, function(n)
    local ch = channel.new(0)
    local list = tasks(n, function(i) return ch:send(i) end)
    return function()
      for i = n, 1, -1 do
        list[i]:cancel()
      end
      await(task.yield())
    end
  end },
  { "n queued jobs", { 10, 1000, 100000 }, function(n)
    return function()
      await(task.when_all(tasks(n, function()
        return task.run(trivial)
      end)))
    end
  end },
}

local function cost(prepare, n)
  local repeats, best = math.max(1, 20000 // n), math.huge
  for _ = 1, ROUNDS do
    local work = tasks(repeats, function() return prepare(n) end)
    collectgarbage()
    local began = os.clock()
    for i = 1, repeats do
      work[i]()
    end
    best = math.min(best, (os.clock() - began) / repeats / n * 1e9)
  end
  return best
end

local pattern, failed = arg[1] or "", false
for _, m in ipairs(measurements) do
  local title, sizes, prepare = table.unpack(m)
  if title:find(pattern) then
    local last
    report.say("\n%s (CPU ns for one)", title)
    for _, n in ipairs(sizes) do
      local ns = await(spawn(cost, prepare, n))
      local bound = last and last.ns * math.log(n) / math.log(last.n) * CACHES
      local over = bound and n >= 10000 and ns > bound -- what is fixed for a call weighs in small sizes
      failed = failed or over
      report.say("  %9d %9.0f%s", n, ns, over and ("   MORE THAN n log n: at most %.0f"):format(bound) or "")
      last = { n = n, ns = ns }
    end
  end
end
report.say("\n%s", failed and "something grows faster than n log n" or "nothing grows faster than n log n")
os.exit(failed and 1 or 0, true)
