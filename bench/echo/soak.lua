-- soak.lua [cycles [kilobytes]] - connect, echo, close, again and again (default: a million), 50 at a time; fails
-- when memory grows (by more than a quarter, or so many kilobytes) or descriptors do. `make soak-net`.

local task = require "asynctask"
local net = require "asynctask.net"

local await = task.await
local cycles = math.tointeger(arg[1]) or 1000000
local AT_ONCE = 50

-- Kilobytes of the process, and its open descriptors (0 where there is no /proc).
local function usage()
  await(task.delay(0.1)) -- what was closed last is gone
  collectgarbage()
  collectgarbage()
  local kilobytes, descriptors = 0, 0
  local status = io.open("/proc/self/status")
  if status then
    kilobytes = tonumber(status:read("a"):match("VmRSS:%s*(%d+)"))
    status:close()
    local fs = require "asynctask.fs"
    for _ in fs.dir "/proc/self/fd" do
      descriptors = descriptors + 1
    end
  end
  return kilobytes, descriptors
end

local function cycle(port, i)
  local stream <close> = await(net.connect("127.0.0.1", port))
  local text = "cycle " .. i
  await(stream:write(text, "\n"))
  assert(await(stream:read "l") == text)
end

local function run(port, from, to)
  local next_one = from
  local function worker()
    while next_one <= to do
      next_one = next_one + 1
      cycle(port, next_one)
    end
  end
  local workers = {}
  for i = 1, AT_ONCE do
    workers[i] = task.spawn(worker)
  end
  await(task.when_all(workers))
end

task.main(function()
  local server = await(net.listen("127.0.0.1", 0))
  local serving = server:serve(function(stream)
    return stream:pipe_to(stream)
  end)
  local port = server:sockname().port
  local warm = math.max(cycles // 10, 200)
  run(port, 1, warm)
  local kilobytes, descriptors = usage()
  local step = math.max(cycles // 10, 1)
  for done = 0, cycles - 1, step do
    run(port, done + 1, math.min(done + step, cycles))
    local now = usage()
    io.stderr:write(("%d cycles, %d kB\n"):format(math.min(done + step, cycles), now))
  end
  await(server:close { grace = 5 })
  await(serving)
  local kilobytes_now, descriptors_now = usage()
  print(("%d cycles: %d kB and %d descriptors before, %d and %d after"):format(cycles, kilobytes, descriptors,
    kilobytes_now, descriptors_now))
  local allowed = tonumber(arg[2]) or kilobytes // 4 + 2000
  if descriptors_now > descriptors or kilobytes_now > kilobytes + allowed then
    error("it grows", 0)
  end
end)
