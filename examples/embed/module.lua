-- module.lua - uses module.c: what C code gives out are Tasks like any other.
--     make module && LUA_CPATH="./build/?.so;;" lua5.4 module.lua

local task = require "asynctask"
local module = require "module"
local await = task.await

-- A C function that waits, as `await` does, on the main chunk and in a task.
print("length", module.length(task.delay(0.01, "seven !")))
print("length in a task", await(task.spawn(module.length, task.delay(0.01, { 1, 2, 3 }))))
print("its error", select(2, pcall(module.length, task.from_error("no such text"))))

-- A Task that a thread of the module's settles; a deadline cancels it, and the thread stops early.
local measured = await(module.measure(0.02))
print("measured", measured.value, measured.unit)
print("deadline", task.pcall(task.with_timeout, 0.02, module.measure, 60))

-- A job on the pool, with progress; beside it this thread goes on.
local last = -1
local ticks = 0
local ticking = task.spawn(function() for tick in task.every(0.001) do ticks = tick end end)
print("primes", await(module.primes(200000, function(done)
  assert(done > last)
  last = done
end)))
print("progress came in order", last >= 0)
print("this thread went on", ticks > 0)
ticking:cancel()

local job = module.primes(1 << 40)
job:cancel("changed my mind")
print("cancelled", job:try())

-- A job is a runtime of its own, and the module works there, too.
print("in a job", await(task.run(function()
  return await(module.primes(1000)), await(module.measure(0.01)).value
end)))
