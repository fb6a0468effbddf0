-- asynctask.sync - locks and signals between tasks of one state: mutex, semaphore, event, latch,
-- barrier, once. All wait in one kind of queue (core/waitqueue.c): first in, first out, and a waiter
-- that is cancelled leaves it without a trace.

local core = require "asynctask.core"
local check = require "asynctask.check"

local M = {}

local function check_count(v, arg, name, least)
  if math.type(v) ~= "integer" or v < least then
    check.bad(arg, name, ("integer of at least %d expected, got %s")
      :format(least, type(v) == "number" and v or check.type_name(v)))
  end
end

-- ---- mutex, semaphore ------------------------------------------------------------------------

---What a lock gives: held until it is released, closed (`<close>`), or collected.
---@class asynctask.Guard
---@field private queue any
---@field private permits integer
local Guard = {}

---Gives the lock back; releasing twice is fine.
function Guard:release()
  local queue = self.queue
  if queue then
    self.queue = nil
    queue:release(self.permits)
  end
end

local guard_mt = { __name = "asynctask.Guard", __index = Guard, __close = Guard.release, __gc = Guard.release }

local function new_guard(queue, permits)
  return setmetatable({ queue = queue, permits = permits }, guard_mt)
end

-- The guard gets its field `queue` at the grant, from the queue itself: before, it holds nothing.
local function acquire(queue, permits)
  return queue:acquire(setmetatable({ permits = permits }, guard_mt), permits)
end

---@class asynctask.Semaphore
---@field private queue any
---@field private most integer
local Semaphore = {}
local semaphore_mt = { __name = "asynctask.Semaphore", __index = Semaphore }

---Takes `n` permits, waiting for them in order of arrival: `local g <close> = await(s:acquire())`.
---@param n? integer permits, default 1
---@return asynctask.Task task of an asynctask.Guard
function Semaphore:acquire(n)
  n = n == nil and 1 or n
  check_count(n, 1, "acquire", 1)
  if n > self.most then
    check.bad(1, "acquire", ("%d permits of %d"):format(n, self.most))
  end
  return acquire(self.queue, n)
end

---Takes `n` permits if they are there and nobody waits; never waits.
---@param n? integer permits, default 1
---@return asynctask.Guard|nil
function Semaphore:try_acquire(n)
  n = n == nil and 1 or n
  check_count(n, 1, "try_acquire", 1)
  if self.queue:try_acquire(n) then
    return new_guard(self.queue, n)
  end
end

---Permits that are free.
---@return integer
function Semaphore:available()
  return self.queue:permits()
end

---A semaphore with `n` permits (SemaphoreSlim).
---@param n integer
---@return asynctask.Semaphore
function M.semaphore(n)
  check_count(n, 1, "semaphore", 1)
  return setmetatable({ queue = core.waitqueue(n), most = n }, semaphore_mt)
end

---@class asynctask.Mutex
---@field private queue any
local Mutex = {}
local mutex_mt = { __name = "asynctask.Mutex", __index = Mutex }

---Locks, waiting in order of arrival: `local g <close> = await(m:lock())`. Not reentrant.
---@return asynctask.Task task of an asynctask.Guard
function Mutex:lock()
  return acquire(self.queue, 1)
end

---Locks if it is free; never waits.
---@return asynctask.Guard|nil
function Mutex:try_lock()
  if self.queue:try_acquire(1) then
    return new_guard(self.queue, 1)
  end
end

---@return boolean
function Mutex:is_locked()
  return self.queue:permits() == 0
end

---A mutual exclusion lock for tasks.
---@return asynctask.Mutex
function M.mutex()
  return setmetatable({ queue = core.waitqueue(1) }, mutex_mt)
end

-- ---- event, latch, barrier, once -------------------------------------------------------------

---@class asynctask.Event
---@field private queue any
---@field private state boolean
local Event = {}
local event_mt = { __name = "asynctask.Event", __index = Event }

---A Task that settles when the event is set, at once if it is.
---@return asynctask.Task
function Event:wait()
  if self.state and not core.cancelling() then
    return core.from_result()
  end
  return self.queue:acquire()
end

---Sets the event: all who wait go on, and so does everybody until `reset`.
function Event:set()
  self.state = true
  self.queue:wake_all()
end

function Event:reset()
  self.state = false
end

---Lets those who wait now go on, and leaves the event as it is.
function Event:pulse()
  self.queue:wake_all()
end

---@return boolean
function Event:is_set()
  return self.state
end

---An event that stays set until it is reset (ManualResetEvent).
---@param set? boolean
---@return asynctask.Event
function M.event(set)
  return setmetatable({ queue = core.waitqueue(0), state = set and true or false }, event_mt)
end

---@class asynctask.Latch
---@field private event asynctask.Event
---@field private left integer
local Latch = {}
local latch_mt = { __name = "asynctask.Latch", __index = Latch }

---Counts down by `n` (1); at zero all who wait go on.
---@param n? integer
function Latch:count_down(n)
  n = n == nil and 1 or n
  check_count(n, 1, "count_down", 1)
  self.left = math.max(0, self.left - n)
  if self.left == 0 then
    self.event:set()
  end
end

---@return asynctask.Task task that settles at zero
function Latch:wait()
  return self.event:wait()
end

---@return integer
function Latch:count()
  return self.left
end

---A latch that opens after `n` counts (CountdownEvent).
---@param n integer
---@return asynctask.Latch
function M.latch(n)
  check_count(n, 1, "latch", 0)
  return setmetatable({ event = M.event(n == 0), left = n }, latch_mt)
end

---@class asynctask.Barrier
---@field private queue any
---@field private parties integer
---@field private generation integer
local Barrier = {}
local barrier_mt = { __name = "asynctask.Barrier", __index = Barrier }

---Waits until all parties have arrived; then the barrier is ready for the next generation. Those who wait
---are those in the queue: one that gives up is not counted from that moment.
---@return asynctask.Task task of the generation's number, from 1
function Barrier:wait()
  local generation = self.generation
  if #self.queue + 1 < self.parties or core.cancelling() then
    return self.queue:acquire(generation)
  end
  self.generation = generation + 1
  self.queue:wake_all()
  return core.from_result(generation)
end

---A barrier for `n` parties.
---@param n integer
---@return asynctask.Barrier
function M.barrier(n)
  check_count(n, 1, "barrier", 1)
  return setmetatable({ queue = core.waitqueue(0), parties = n, generation = 1 }, barrier_mt)
end

---Makes a function that runs `f` once and gives everybody its outcome: the Task of the first call
---belongs to nobody and is shared. A call that faulted or was cancelled is not remembered: the next one
---runs `f` again.
---@param f fun(...): ...
---@return fun(...): asynctask.Task
function M.once(f)
  check.expect(type(f) == "function", 1, "once", "function", f)
  local shared
  -- The Task is known before `f` runs: what it starts in its first slice may ask for it.
  local function first(...)
    shared = core.current()
    return f(...)
  end
  return function(...)
    if not shared or (shared:done() and shared:status() ~= "succeeded") then
      shared = core.spawn(first, ...)
    end
    return shared
  end
end

return M
