-- threads.lua [rounds] - what threads do to each other, in a moment: jobs in and out of pools, nested, cancelled at any
-- time, shared channels with many ends, the pool for blocking calls, arrays, a state that closes while all of it
-- runs. Every number is checked. Run under spec/support/perturb.c, whose seeds shake the order of events.

local task = require "asynctask"
local array = require "asynctask.array"
local channel = require "asynctask.channel"
local fs = require "asynctask.fs"
local parallel = require "asynctask.parallel"

local await = task.await
local ROUNDS = tonumber(arg and arg[1]) or 3

local function jobs(pool)
  local list = {}
  for i = 1, 20 do
    list[i] = pool:run(function(n)
      local t = require "asynctask"
      if n % 5 == 0 then -- nested
        return t.await(t.run(function(m) return m end, n))
      elseif n % 3 == 0 then
        t.await(t.delay(0.0005))
      end
      return n
    end, i)
  end
  for i, v in ipairs(await(task.when_all(list))) do
    assert(v == i)
  end
end

-- Each job is cancelled at another moment: its end is one of two, and told once.
local function cancelled(pool)
  local ended = 0
  for i = 1, 12 do
    local t = pool:run(function(n)
      local x = 0
      for j = 1, n * 2000 do
        x = x + j
      end
      return n
    end, i)
    for _ = 1, i % 4 do
      await(task.yield())
    end
    t:cancel()
    local v = task.try(t)
    assert(v == i or t:status() == "cancelled")
    ended = ended + 1
  end
  assert(ended == 12)
end

local function channels(pool)
  local ch, results = channel.shared(2), channel.shared(0)
  local workers = {}
  for i = 1, 3 do
    workers[i] = pool:run(function(from, to)
      local t = require "asynctask"
      local sum = 0
      while true do
        local v = t.await(from:receive())
        if v == nil then
          break
        end
        sum = sum + v
        if v % 10 == 0 then
          t.await(to:send(v))
        end
      end
      return sum
    end, ch, results)
  end
  local tens = task.spawn(function()
    local sum = 0
    for _ = 1, 5 do
      sum = sum + await(results:receive())
    end
    return sum
  end)
  for i = 1, 50 do
    local sending = ch:send(i)
    if i % 7 == 0 and sending:cancel() then -- it did not happen: again
      sending = ch:send(i)
    end
    await(sending)
  end
  assert(await(tens) == 150)
  ch:close()
  local sum = 0
  for _, w in ipairs(workers) do
    sum = sum + await(w)
  end
  assert(sum == 1275, sum)
end

local function blocking(dir)
  local name = dir .. "/file"
  await(task.when_all(fs.write_file(name, "one"), fs.stat(dir), fs.mkdtemp()))
  for i = 1, 8 do
    local t = fs.read_file(name)
    if i % 2 == 0 then
      t:cancel()
    end
    task.try(t)
  end
  assert(await(fs.read_file(name)) == "one")
end

local function loops()
  local a = array.new("i64", 1000)
  await(parallel.for_each(a, function(_, i) return i end))
  assert(await(parallel.reduce(a, function(x, y) return x + y end, 0)) == 0)
  local squares = await(parallel.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function(v) return v * v end, { chunk = 1 }))
  assert(squares[8] == 64 and #squares == 8)
end

local dir = await(fs.mkdtemp())
for _ = 1, ROUNDS do
  local pool = task.pool { threads = 3 }
  task.with_group(function(g)
    g:spawn(jobs, pool)
    g:spawn(cancelled, pool)
    g:spawn(channels, pool)
    g:spawn(blocking, dir)
  end)
  if math.random(2) == 1 then
    await(pool:close())
  end
end
local ok, err = pcall(loops)
await(fs.remove(dir, { recursive = true }))
assert(ok, err)
-- The state closes while jobs run and wait.
for i = 1, 6 do
  task.run(function(n)
    while n % 2 == 0 do end
    require("asynctask").await(require("asynctask").delay(60))
  end, i)
end
task.on_unobserved(function() end)
print "ok"
os.exit(0, true)
