-- A short program that touches every floor, for `make valgrind`: tasks, timers, files, sockets, jobs,
-- cancellation, and a state that closes with work in flight. Prints one line and exits with 0.

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"

local await = task.await

-- tasks and timers, one of them cancelled
local sum = 0
local list = {}
for i = 1, 50 do
  list[i] = task.spawn(function()
    await(task.delay(0.001 * (i % 5)))
    sum = sum + i
    return i
  end)
end
await(task.when_all(list))
assert(sum == 1275)
local sleeper = task.spawn(function() await(task.delay(60)) end)
sleeper:cancel("enough")
assert(select(2, task.try(sleeper)).code == "ECANCELED")

-- an error and its traceback
local failing = task.spawn(function()
  await(task.yield())
  error({ code = "EMINE" })
end)
assert(select(2, task.try(failing)).code == "EMINE")
assert(failing:traceback())

-- files
local name = os.tmpname()
await(fs.write_file(name, "one\ntwo\n"))
assert(await(fs.read_file(name)) == "one\ntwo\n")
local lines = {}
for line in fs.lines(name) do lines[#lines + 1] = line end
assert(#lines == 2 and lines[2] == "two")
os.remove(name)
assert(select(2, task.try(fs.read_file(name))).code == "ENOENT")

-- sockets
local server = await(net.listen("127.0.0.1", 0))
local serving = task.spawn(function()
  local client = await(server:accept())
  await(client:write(await(client:read("l")), "!\n"))
  await(client:close())
end)
local client = await(net.connect("127.0.0.1", server:sockname().port))
await(client:write("hello\n"))
assert(await(client:read("l")) == "hello!")
await(serving)
await(client:close())
await(server:close())

-- jobs, one of them runaway
assert(await(task.run(function(n) return n * 2 end, 21)) == 42)
local runaway = task.run(function() while true do end end) -- luacheck: ignore
await(task.delay(0.05))
runaway:cancel()
assert(task.try(runaway) == nil)

-- what is still going on when the state closes
task.spawn(function() await(task.delay(60)) end):named("left behind on purpose")
task.run(function() return 1 end)

print("short: done")
