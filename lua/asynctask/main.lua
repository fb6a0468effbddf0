-- main.lua - task.main: the program (S24). Runs a function as the one task that everything hangs on,
-- turns SIGINT and SIGTERM into its cancellation, and ends with a proper exit code.

local core = require "asynctask.core"

local numbers = { SIGINT = 2, SIGTERM = 15 }

local function callable(v)
  return type(v) == "function" or (getmetatable(v) or {}).__call ~= nil
end

local function fail(text)
  io.stderr:write(text, "\n")
end

-- Cancels what is still running and gives it `grace` seconds to clean up.
local function clean_up(main, grace)
  local deadline = core.now() + grace
  for _, entry in ipairs(core.tasks()) do
    entry.task:cancel("the program ends")
  end
  while core.now() < deadline do
    local left = {}
    for _, entry in ipairs(core.tasks()) do
      if entry.task ~= main then
        left[#left + 1] = entry.task
      end
    end
    if #left == 0 then
      return
    end
    core.try(core.when_any(core.when_all(left), core.delay(deadline - core.now())))
  end
end

-- Waits for the signals; the first cancels the program, the second ends the process.
local function watch(main, state)
  local signal = core.signal
  if not signal then
    return
  end
  for name, number in pairs(numbers) do
    state[#state + 1] = core.spawn(function()
      core.await(signal.wait(name))
      state.signal = number
      main:cancel(name)
      core.await(signal.wait(name))
      os.exit(128 + number, false)
    end):named(name)
  end
end

local function exit(state, main)
  local err = main:error()
  if main:status() ~= "succeeded" and not (state.signal and core.is_cancelled(err)) then
    fail(main:traceback() or tostring(err))
  end
  if state.signal then
    os.exit(128 + state.signal, true)
  elseif main:status() ~= "succeeded" then
    os.exit(1, true)
  end
  collectgarbage()
  collectgarbage()
  if core.unobserved() > 0 then
    os.exit(1, true)
  end
end

---Runs `f(...)` as the program: ends when `f` does, then cancels what is still running and gives it
---`grace` seconds to clean up. SIGINT and SIGTERM cancel `f`; a second one ends the process at once.
---Returns f's values when all went well; else the process exits: 1 after an error (its traceback is on
---standard error) or a fault that nobody looked at, 128 + the signal's number after a signal.
---@param _ table the facade
---@param opts? { grace?: number } seconds, default 5
---@param f fun(...): ...
---@return any ...
return function(_, ...)
  local opts, f, first = {}, (...), 2
  if type(f) == "table" and not callable(f) then
    opts, f, first = f, (select(2, ...)), 3
  end
  if not callable(f) then
    error(("bad argument #%d to 'main' (function expected, got %s)"):format(first - 1, type(f)), 3)
  end
  if core.current() then
    error("task.main inside a task", 3)
  end
  local grace = opts.grace or 5
  if type(grace) ~= "number" or grace < 0 or grace ~= grace then
    error("bad argument #1 to 'main' (option 'grace': seconds expected)", 3)
  end
  local state = {}
  local main = core.spawn(f, select(first, ...)):named("main")
  watch(main, state)
  core.wait(main)
  for _, t in ipairs(state) do
    t:cancel("the program ends")
  end
  clean_up(main, grace)
  exit(state, main)
  return main:result()
end
