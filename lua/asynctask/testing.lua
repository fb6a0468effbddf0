-- asynctask.testing - for test suites: a virtual clock, settling, leaks. The project's own specs use it.

local core = require "asynctask.core"
local check = require "asynctask.check"

local M = {}

-- Lets everything run that is ready, the settling task last.
local function settle()
  repeat
    core.await(core.yield())
  until not core.ready()
end

-- A Task of f(...); on the main chunk it has been awaited already, so that specs need not.
local function run(f, ...)
  local t = core.spawn(f, ...)
  if not core.current() then
    core.await(t)
  end
  return t
end

---Runs until every other task waits for something (a delay, I/O, another thread).
---@return asynctask.Task settled when it is called on the main chunk
function M.settle()
  return run(settle)
end

---@class asynctask.Clock
local Clock = {}

local function advance(seconds)
  local target = core.due(seconds)
  repeat
    settle()
    local due = core.advance(target)
  until not due
  settle()
end

---Moves the clock on, visiting each due time in order and letting everything run there.
---@param seconds number not negative
---@return asynctask.Task settled when it is called on the main chunk
function Clock:advance(seconds)
  if type(seconds) ~= "number" or not (seconds >= 0 and seconds < math.huge) then
    check.bad(1, "advance", ("number of seconds expected, got %s"):format(tostring(seconds)))
  end
  if self.closed then
    error("the clock is closed", 2)
  end
  return run(advance, seconds)
end

---Seconds on the clock.
---@return number
function Clock:now()
  return core.now()
end

---Back to the real clock. Delays and deadlines that are pending go on there with the time that is left
---to them (`leaks` names them).
function Clock:close()
  if not self.closed then
    core.clock("real")
    self.closed = true
  end
end

local clock_mt = { __name = "asynctask.Clock", __index = Clock, __close = Clock.close }

---Gives the current runtime a virtual clock, on which delays and deadlines cost no time:
---`local clock <close> = testing.clock()`.
---@param opts? { auto?: boolean } auto: when the main chunk waits and nothing but delays is pending (no
---  real I/O is in flight), the clock jumps to the next due time
---@return asynctask.Clock
function M.clock(opts)
  check.expect(opts == nil or type(opts) == "table", 1, "clock", "table of options", opts)
  core.clock(opts and opts.auto and "auto" or "virtual")
  return setmetatable({}, clock_mt)
end

-- What census() counts, in the words of a message; operations belong to tasks or to these.
local kinds = {
  { "timers", "pending delays or deadlines" },
  { "externals", "operations on other threads" },
  { "handles", "open handles" },
}

---What is still alive after a collection: texts such as "task 'x' waits for a delay at f.lua:3",
---"2 open handles". Empty when all is clean. The task that asks does not count.
---@return string[]
function M.leaks()
  collectgarbage()
  collectgarbage()
  local found = {}
  local current = core.current()
  for _, entry in ipairs(core.tasks()) do
    if entry.task ~= current then
      found[#found + 1] = ("%s waits for %s at %s"):format(entry.name, entry.waits_for, entry.where)
    end
  end
  local census, stats = core.census(), core.stats()
  for _, kind in ipairs(kinds) do
    local n = census[kind[1]] or 0
    if n > 0 then
      found[#found + 1] = ("%d %s"):format(n, kind[2])
    end
  end
  local faults = stats.unobserved - stats.reported
  if faults > 0 then
    found[#found + 1] = ("%d faults that nobody looked at"):format(faults)
  end
  return found
end

---Makes a function that runs `f` as a task and waits for it: `it("...", testing.task(function() ... end))`.
---@param f fun(...): ...
---@return fun(...): ...
function M.task(f)
  check.expect(type(f) == "function", 1, "task", "function", f)
  return function(...)
    return core.await(core.spawn(f, ...))
  end
end

return M
