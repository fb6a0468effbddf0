-- Graceful shutdown: a service that Ctrl-C (or SIGTERM) stops. Workers finish what they have in hand, what is
-- in the queue is saved, and both await while they clean up; a second Ctrl-C ends the process at once.
--
--     lua5.4 examples/graceful.lua [state-file]     until it is stopped; with a file, saves the queue there

local task = require "asynctask"
local channel = require "asynctask.channel"
local fs = require "asynctask.fs"

local await = task.await
local state_file = arg[1]

local function log(...)
  print(...)
  io.stdout:flush()
end

-- One job is never cut in half: it is shielded, and the worker stops between two of them.
local function work(name, jobs)
  local done = 0
  local _ <close> = setmetatable({}, { __close = function()
    log(("%s: stops after %d jobs"):format(name, done))
  end })
  for job in jobs:each() do
    task.shield(function()
      await(task.delay(0.02)) -- the work
      done = done + 1
      if job % 10 == 0 then log(("%s: job %d"):format(name, job)) end
    end)
  end
end

-- What is left when everybody has stopped. Runs while the program is being cancelled: hence the shield.
local function save(jobs)
  local left = {}
  for job in function() return (jobs:try_receive()) end do left[#left + 1] = job end
  task.shield(function()
    if state_file then
      await(fs.write_file(state_file, table.concat(left, "\n") .. "\n"))
    else
      await(task.delay(0.01))
    end
  end)
  log(("saved %d jobs"):format(#left))
end

task.main({ grace = 2, dump = "SIGQUIT" }, function()
  local jobs = channel.new(8)
  local _ <close> = setmetatable({}, { __close = function() save(jobs) end })
  log("started; stop me with Ctrl-C")
  task.with_group(function(g) -- its end waits for the members, cancelled ones too
    for i = 1, 2 do g:spawn(work, "worker " .. i, jobs):named("worker " .. i) end
    local n = 0
    while true do -- the cancellation is raised here, in await
      n = n + 1
      await(jobs:send(n))
    end
  end)
end)
