-- asynctask - tasks for Lua: the facade. Mechanism is in asynctask.core (C); here are the policies
-- and combinations built on it: every, race, map, for_each, timeouts, continuations.

local core = require "asynctask.core"
local check = require "asynctask.check"
local group = require "asynctask.group"
local iterator = require "asynctask.iterator"

local await, start, is_task = core.await, core.start, core.is_task

---@class asynctask
local task = {
  await = core.await,
  try = core.try,
  spawn = core.spawn,
  async = core.async,
  delay = core.delay,
  yield = core.yield,
  when_all = core.when_all,
  when_any = core.when_any,
  from_result = core.from_result,
  from_error = core.from_error,
  from_cancelled = core.from_cancelled,
  source = core.source,
  with_timeout = core.with_timeout,
  shield = core.shield,
  group = group.group,
  with_group = group.with_group,
  cancellation = core.cancellation,
  local_value = core.local_value,
  pcall = core.pcall,
  cancelling = core.cancelling,
  is_cancelled = core.is_cancelled,
  is_task = core.is_task,
  current = core.current,
  error = core.error,
  on_unobserved = core.on_unobserved,
  tasks = core.tasks,
  dump = core.dump,
  stats = core.stats,
  debug = core.debug,
  run = core.par and core.par.run,
  thread = core.par and core.par.thread,
  pool = core.par and core.par.pool,
  _VERSION = "asynctask 0.2.0",
}

-- ---- argument checks -------------------------------------------------------------------------

local expect = check.expect

-- The option `limit`: a positive integer, or nil for no limit.
local limit_option = { limit = check.positive }

local function limit_of(opts, arg, name)
  return check.options(opts, arg, name, limit_option).limit or math.huge
end

-- ---- time ------------------------------------------------------------------------------------

---Ticks: `for tick in task.every(1) do`. The first comes after one period; ticks that were missed
---are merged into one, and the rhythm does not drift.
---@param seconds number above 0
---@return asynctask.Iterator iterator of the tick's number (missed ones counted)
---@return nil
---@return nil
---@return asynctask.Iterator
function task.every(seconds)
  expect(type(seconds) == "number" and seconds > 0 and seconds < math.huge, 1, "every",
    "positive number of seconds", seconds)
  local first, period, count = core.due(0), seconds * 1e9, 0
  local tick = core.async(function()
    local due = math.max(count + 1, math.floor((core.due(0) - first) / period))
    await(core.delay_until(math.tointeger(first + math.floor(due * period + 0.5)) or math.maxinteger))
    count = due
    return due
  end)
  return iterator.new(tick)
end

-- ---- combinations ----------------------------------------------------------------------------

local function cancel_others(tasks, winner)
  for _, t in pairs(tasks) do
    if t ~= winner and is_task(t) then
      t:cancel("lost a race")
    end
  end
end

local function run_race(tasks)
  local winner <const> = await(core.when_any(tasks))
  cancel_others(tasks, winner)
  return await(winner)
end

---Settles as the first of the tasks that settles does, and cancels the others.
---@param ... asynctask.Task|table<any, asynctask.Task> tasks, or one table of them (not empty)
---@return asynctask.Task
function task.race(...)
  local tasks = ...
  if is_task(tasks) or type(tasks) ~= "table" then
    tasks = { ... }
  end
  for k, t in pairs(tasks) do
    expect(is_task(t), type(k) == "number" and k or 1, "race", "Task", t)
  end
  expect(next(tasks) ~= nil, 1, "race", "at least one Task", nil)
  return start(run_race, tasks)
end

---Visits tasks in the order in which they settle: `for t, key in task.when_each(list) do`.
---@param ... asynctask.Task|table<any, asynctask.Task>
---@return asynctask.Iterator iterator of task and key
---@return nil
---@return nil
---@return asynctask.Iterator
function task.when_each(...)
  local each = core.each(...)
  return iterator.new(function()
    return each:next()
  end, function()
    each:close()
  end)
end

-- ---- map, for_each ---------------------------------------------------------------------------

local flat = group.flat -- S25 for functions that are called from Lua

-- Runs `visit` on what `pull` gives, up to `limit` calls at once, each a task owned by the one that
-- runs here; pulls no more than it runs. The first fault, of a call or of `pull`, stops pulling, cancels
-- the other calls, and is raised when they have ended.
local function run_limited(pull, visit, limit)
  local workers, running, started, failed, slot = {}, 0, 0, nil, nil -- workers: that have not succeeded

  local call_mt = {}
  function call_mt.__close(call)
    running = running - 1
    if call.succeeded then
      workers[call.id] = nil
    else
      failed = failed or call.id
    end
    if slot then
      slot:set_result()
    end
  end

  local function work(id, ...)
    local call <close> = setmetatable({ id = id, succeeded = false }, call_mt)
    flat(visit(...))
    call.succeeded = true
  end

  local function feed(...)
    if (...) == nil then
      return false
    end
    started, running = started + 1, running + 1
    local worker = start(work, started, ...)
    if worker:status() ~= "succeeded" then
      workers[started] = worker
    end
    return true
  end

  local function wait_below(n)
    while running >= n and not failed do
      slot = core.source()
      await(slot.task)
    end
  end

  -- What is left has no result that anybody could want: the first fault is the one that is raised,
  -- the others count as seen.
  local function stop()
    for _, worker in pairs(workers) do
      worker:cancel("another call failed")
    end
    for _, worker in pairs(workers) do
      core.wait(worker)
      worker:error()
    end
  end
  local _ <close> = setmetatable({}, { __close = function() core.shield(stop) end })

  while not failed and feed(flat(pull())) do
    wait_below(limit)
  end
  wait_below(1)
  if failed then
    await(workers[failed])
  end
end

local function list_puller(list)
  local i, n = 0, #list
  return function()
    i = i + 1
    if i <= n then
      return i, list[i]
    end
  end
end

---Calls `f(value, index)` for each element of a list, up to `limit` calls at once on this thread.
---The first fault cancels the other calls and is raised.
---@generic T
---@param list T[]
---@param f fun(value: T, index: integer): ...
---@param opts? { limit?: integer } calls at once; default: all
---@return asynctask.Task task of a list of the calls' first results, in order, with `n`
function task.map(list, f, opts)
  expect(type(list) == "table", 1, "map", "table", list)
  expect(check.callable(f), 2, "map", "function", f)
  local limit = limit_of(opts, 3, "map")
  local results = { n = #list }
  return start(function()
    run_limited(list_puller(list), function(i, value)
      results[i] = (flat(f(value, i)))
    end, limit)
    return results
  end)
end

---Calls `f` for each element of a list (`f(value, index)`) or each round of an iterator
---(`f(...)` with the values of the round), up to `limit` calls at once on this thread. An iterator
---is asked for no more than runs, and is closed at the end. The first fault cancels the others.
---@param source any[]|asynctask.Iterator|fun(): ...
---@param f fun(...)
---@param opts? { limit?: integer } calls at once; default: all
---@return asynctask.Task task of nothing
function task.for_each(source, f, opts)
  expect(type(source) == "table" or check.callable(source), 1, "for_each", "table or iterator", source)
  expect(check.callable(f), 2, "for_each", "function", f)
  local limit = limit_of(opts, 3, "for_each")
  if not check.callable(source) then
    return start(function()
      run_limited(list_puller(source), function(i, value)
        return f(value, i)
      end, limit)
    end)
  end
  return start(function()
    local mt = getmetatable(source)
    local _ <close> = type(mt) == "table" and mt.__close and source or nil
    run_limited(source, f, limit)
  end)
end

-- ---- methods of Task -------------------------------------------------------------------------

---@class asynctask.Task
local Task = core.Task

local function run_timeout(t, seconds, owned)
  local ok, err = core.pcall(core.with_timeout, seconds, core.wait, t)
  if not ok then
    if owned then
      t:cancel("deadline")
    end
    error(err, 0)
  end
  return await(t)
end

---A Task that settles as this one does, or faults with ETIMEDOUT after `seconds`; then this one is
---cancelled if the running scope owns it.
---@param seconds number
---@return asynctask.Task
function Task:timeout(seconds)
  expect(is_task(self), 1, "timeout", "Task", self)
  expect(type(seconds) == "number" and seconds >= 0, 2, "timeout", "number of seconds", seconds)
  return start(run_timeout, self, seconds, core.owned(self))
end

local function continuation(t, f)
  core.wait(t)
  return f(t)
end

---Calls `f(t)` when this task has settled, from the ready queue, as a task of its own.
---@param f fun(t: asynctask.Task): ...
---@return asynctask.Task task of what `f` returns
function Task:continue_with(f)
  expect(is_task(self), 1, "continue_with", "Task", self)
  expect(check.callable(f), 2, "continue_with", "function", f)
  return core.post(continuation, self, f)
end

-- ---- callbacks of others ---------------------------------------------------------------------

---Makes a Task out of a function that takes a callback last: `task.from_callback(function(done)
---uv.fs_stat(path, done) end, {error_first = true})`.
---@param f fun(done: fun(...)) called at once with the callback
---@param opts? { error_first?: boolean, arity?: integer } error_first: the callback's first argument
---  is an error or nil; arity: how many results are taken at most
---@return asynctask.Task
function task.from_callback(f, opts)
  expect(check.callable(f), 1, "from_callback", "function", f)
  expect(opts == nil or type(opts) == "table", 2, "from_callback", "table of options", opts)
  local error_first = opts and opts.error_first
  local arity = opts and opts.arity
  local source = core.source()
  local function settle(...)
    if arity and select("#", ...) > arity then
      return source:set_result(table.unpack({ ... }, 1, arity))
    end
    return source:set_result(...)
  end
  local function done(...)
    if not error_first then
      return settle(...)
    end
    local err = ...
    if err then
      return source:set_error(err)
    end
    return settle(select(2, ...))
  end
  local returned = false
  local _ <close> = setmetatable({}, { __close = function()
    if not returned then -- f raised: there is no Task that anybody could look at
      source:set_cancelled()
    end
  end })
  f(done)
  returned = true
  return source.task
end

-- ---- the program -----------------------------------------------------------------------------

---@diagnostic disable-next-line: duplicate-set-field
function task.main(...)
  return require "asynctask.main"(task, ...)
end

return task
