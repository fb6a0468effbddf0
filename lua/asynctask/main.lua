-- main.lua - task.main: the program (S24). Runs a function as the one task that everything hangs on,
-- turns SIGINT and SIGTERM into its cancellation, and ends with a proper exit code.

local core = require "asynctask.core"
local check = require "asynctask.check"

local numbers = { SIGINT = 2, SIGTERM = 15 }

local function fail(text)
  io.stderr:write(text, "\n")
end

-- The tasks that are neither the program's nor its watchers.
local function others(state)
  local list = {}
  for _, entry in ipairs(core.tasks()) do
    if entry.task ~= state.main and not state.watchers[entry.task] then
      list[#list + 1] = entry.task
    end
  end
  return list
end

-- Cancels what is still running and gives it `grace` seconds to clean up.
local function clean_up(state, grace)
  for _, t in ipairs(others(state)) do
    t:cancel("the program ends")
  end
  local deadline = core.now() + grace
  local left = others(state)
  while #left > 0 and core.now() < deadline do
    local delay <const> = core.delay(deadline - core.now())
    core.try(core.when_any(core.when_all(left), delay))
    delay:cancel()
    left = others(state)
  end
end

-- Waits for the signals; the first cancels the program, the second, of either kind, ends the process.
local function watch(state)
  local signal = core.signal
  if not signal then
    return
  end
  for name, number in pairs(numbers) do
    local t = core.spawn(function()
      local arrivals = signal.watch(name, true) -- in the background: not what could end a deadlock
      while true do
        core.await(arrivals:next())
        if state.signal then
          os.exit(128 + number, false)
        end
        state.signal = number
        state.main:cancel(name)
      end
    end):named(name)
    state.watchers[t] = true
  end
end

-- Prints who waits for what to standard error at each signal of this name; but for the watchers.
local function watch_dump(state, name)
  local arrivals = core.signal.watch(name, true)
  local t = core.spawn(function()
    while core.await(arrivals:next()) do
      local text = core.dump():gsub("\ttask 'SIG%u+' [^\n]- at %? %b()\n", "")
      fail(("asynctask: %s: the tasks of this program\n%s"):format(name, text))
    end
  end):named(name)
  state.watchers[t] = true
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
---@param opts? { grace?: number, dump?: string } grace: seconds, default 5; dump: name of a signal at which
---  `task.dump()` is printed to standard error, such as "SIGQUIT"
---@param f fun(...): ...
---@return any ...
return function(_, ...)
  local opts, f, first = {}, (...), 2
  if type(f) == "table" and not check.callable(f) then
    opts, f, first = f, (select(2, ...)), 3
  end
  check.expect(check.callable(f), first - 1, "main", "function", f)
  if core.current() then
    error("task.main inside a task", 3)
  end
  for k in pairs(opts) do
    if k ~= "grace" and k ~= "dump" then
      error(("bad argument #1 to 'main' (unknown option '%s')"):format(tostring(k)), 3)
    end
  end
  local grace = opts.grace or 5
  if type(grace) ~= "number" or grace < 0 or grace ~= grace then
    error("bad argument #1 to 'main' (option 'grace': seconds expected)", 3)
  end
  local dump = opts.dump
  if dump ~= nil and (type(dump) ~= "string" or numbers[dump]) then
    error(("bad argument #1 to 'main' (option 'dump': name of a signal that ends nothing expected, got %s)")
      :format(tostring(dump)), 3)
  end
  local state = { watchers = {} }
  if dump then
    local ok, err = pcall(watch_dump, state, dump)
    if not ok then
      error(("bad argument #1 to 'main' (option 'dump': %s)"):format(tostring(err):match "%((.-)%)$" or err), 3)
    end
  end
  watch(state) -- first: a signal may come while f runs for the first time
  local main = core.spawn(f, select(first, ...)):named("main")
  state.main = main
  core.wait(main)
  clean_up(state, grace)
  for t in pairs(state.watchers) do
    t:cancel("the program ends")
    core.wait(t)
  end
  exit(state, main)
  return main:result()
end
