-- Estimates pi by throwing darts, on all cores. Every job writes its hits into a shared array, and counts what it has
-- done in another one, which the main thread reads for its progress line while they run.
--
--     lua5.4 examples/monte_carlo.lua [darts]

local task = require "asynctask"
local array = require "asynctask.array"

local await = task.await

local darts = tonumber(arg[1]) or 4000000
local jobs = 8
local hits = array.new("i64", jobs)  -- one element for each job
local done = array.new("i64", 1)     -- one for all of them

-- Runs in a job: hits and done are the same memory there, everything else is a copy.
local function throw(job, count)
  math.randomseed(job)
  local inside = 0
  for i = 1, count do
    local x, y = math.random(), math.random()
    if x * x + y * y <= 1 then inside = inside + 1 end
    if i % 10000 == 0 then done:add(1, 10000) end
  end
  hits[job] = inside
  done:add(1, count % 10000)
end

local function watch(work)
  for _ in task.every(0.2) do
    if work:done() then return end
    io.write(("%3d %%\n"):format(done[1] * 100 // darts))
  end
end

task.main(function()
  local running = {}
  for job = 1, jobs do
    running[job] = task.run(throw, job, darts // jobs + (job <= darts % jobs and 1 or 0))
  end
  local work = task.when_all(running)
  task.spawn(watch, work)
  await(work)
  print(("threw %d darts, %d hit: pi is about %.3f"):format(done[1], hits:sum(), 4 * hits:sum() / darts))
end)
