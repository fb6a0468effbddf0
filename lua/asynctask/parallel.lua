-- asynctask.parallel - loops over lists, arrays and ranges on all processors: range, for_each, map, filter,
-- reduce, sort, invoke. A loop is cut into chunks, each a job; the function travels once to each worker
-- (a parcel), and asynctask.chunks is what runs there. A few lanes on the caller's thread hand out
-- chunks, sized by what an item has cost so far.

local core = require "asynctask.core"
local check = require "asynctask.check"

local await, start, is_task, par = core.await, core.start, core.is_task, core.par

---@class asynctask.parallel
local parallel = {}

---@class asynctask.parallel.options
---@field workers? integer   chunks that run at once; default: one for each thread of the pool
---@field chunk? integer     items of a chunk; default: adapts to what an item costs
---@field ordered? boolean   false: results in the order in which chunks end (map, filter, reduce)
---@field cancel? asynctask.Cancellation  cancels the loop
---@field init? fun(): any   called once on each worker; its value is the last argument of `f`
---@field progress? fun(done: integer, total: integer)  on this thread; calls are merged while one runs
---@field pool? asynctask.Pool  where the jobs run; default: the default pool
---@field combine? fun(a: any, b: any): any  of reduce

local CHUNK_SECONDS_MIN = 0.0005 -- a job costs some 5 to 50 microseconds
local CHUNK_SECONDS_MAX = 1.0
local PROGRESS_SECONDS = 0.05    -- chunks are no longer when somebody watches

-- ---- arguments -------------------------------------------------------------------------------

local expect, type_name, callable = check.expect, check.type_name, check.callable

local function is_function(v)
  return type(v) == "function" or type(v) == "string" and v:find("^.+%..+$") ~= nil
end

local function is_list(v)
  return type(v) == "table" or type_name(v) == "asynctask.Array"
end

local function of_class(class, words)
  return function(v)
    return type_name(v) == class, words
  end
end

local SORT = { workers = check.positive, cancel = of_class("asynctask.Cancellation", "cancellation source"),
  pool = of_class("asynctask.Pool", "pool") }
local LOOP = setmetatable({ chunk = check.positive, init = check.plain_function, progress = callable },
  { __index = SORT })
local MAP = setmetatable({ ordered = check.boolean }, { __index = LOOP })
local REDUCE = setmetatable({ combine = callable }, { __index = MAP })

-- ---- errors() of a loop ----------------------------------------------------------------------

local all_errors = setmetatable({}, { __mode = "k" }) -- Task of a loop -> its errors, lowest index first
local Task = core.Task
local errors_of_core = Task.errors

function Task:errors()
  local list = is_task(self) and all_errors[self]
  if list then
    return table.move(list, 1, #list, 1, {})
  end
  return errors_of_core(self)
end

-- ---- chunks ----------------------------------------------------------------------------------

---What is going on in one loop.
---@class asynctask.parallel.plan
---@field name string            of the function in asynctask.chunks
---@field parcel asynctask.Parcel
---@field position integer?      first index that has not been handed out; nil: none is left
---@field last integer
---@field total integer
---@field opts asynctask.parallel.options
---@field list any?              list or array
---@field workers integer
---@field cost number?           seconds an item has taken lately
---@field results table          first index of a chunk -> result; in order of ending at 1, 2...
---@field ended table            events that end the loop: {first=, task=} or {first=, stopped=, value=}
local plan = {}
plan.__index = plan

local function round_up(x)
  return x >= math.maxinteger and math.maxinteger or math.ceil(x)
end

-- Large chunks first, so that there are few; smaller ones at the end, so that all workers end together.
function plan:size()
  local left = self.last - self.position + 1
  local size = self.opts.chunk
  if not size then
    size = left / (2 * self.workers)
    if self.cost then
      local longest = self.opts.progress and PROGRESS_SECONDS or CHUNK_SECONDS_MAX
      size = math.max(math.min(size, longest / self.cost), CHUNK_SECONDS_MIN / self.cost)
    elseif self.opts.progress then
      size = size / 16
    end
  end
  return math.max(1, math.min(left, round_up(size)))
end

function plan:next()
  local first = self.position
  if not first or first > self.parcel:limit() then
    return nil
  end
  local last = first + self:size() - 1
  self.position = last < self.last and last + 1 or nil
  return first, last
end

function plan:items(first, last)
  local list = self.list
  if type(list) == "table" then
    return table.move(list, first, last, 1, {})
  end
  return list and list:slice(first, last)
end

-- The job of a chunk; what cannot be copied makes it a Task that has failed.
function plan:submit(first, last)
  local ok, t = pcall(par.call, self.opts.pool, self.parcel, "asynctask.chunks." .. self.name, first, last,
    self:items(first, last), self.initial)
  if ok then
    return t
  end
  if type(t) == "string" then
    t = t:gsub("^argument 4, index (%d+)", function(i) return "the list, index " .. i + first - 1 end)
      :gsub("^argument 5", "the initial value")
  end
  return core.from_error(t)
end

local function report(self)
  repeat
    local done = self.done
    self.opts.progress(done, self.total)
  until self.done == done
end

function plan:progressed(n)
  self.done = self.done + n
  if self.opts.progress and not (self.reporting and not self.reporting:done()) then
    self.reporting = core.post(report, self)
  end
end

function plan:finish(first, last, seconds, result)
  if seconds == nil then -- parallel.stop(result)
    self.ended[#self.ended + 1] = { first = first, stopped = true, value = result }
    return
  end
  local n = last - first + 1
  if seconds > 0 then
    local cost = seconds / n
    self.cost = self.cost and (self.cost + cost) / 2 or cost
  end
  local results = self.results
  results[#results + 1] = { first = first, n = n, value = result }
  self:progressed(n)
end

local function lane(self)
  while true do
    local first, last = self:next()
    if not first then
      return
    end
    local t = self:submit(first, last)
    core.wait(t)
    if t:status() == "succeeded" then
      self:finish(first, last, t:result())
    else
      self.parcel:lower(first) -- a fault of the function itself has done so
      self.ended[#self.ended + 1] = { first = first, task = t }
    end
  end
end

local function by_first(a, b)
  return a.first < b.first
end

-- Runs all chunks. Returns whether parallel.stop ended the loop, and its value.
local function run_lanes(self)
  local lanes = {}
  for i = 1, self.opts.workers or 2 * self.workers do -- one runs, one waits for a worker
    if not self.position then
      break
    end
    lanes[i] = start(lane, self)
  end
  await(core.when_all(lanes))
  if self.reporting then
    core.wait(self.reporting)
  end
  table.sort(self.ended, by_first)
  local errors = {}
  for _, event in ipairs(self.ended) do
    if event.task then
      errors[#errors + 1] = event.task:error()
    end
  end
  local first = self.ended[1]
  if first and first.task then
    all_errors[core.current()] = errors
    await(first.task)
  end
  return first ~= nil, first and first.value
end

local function drive(self, collect)
  local me = core.current()
  local source = self.opts.cancel
  local _ <close> = source and source:on_cancel(function(reason)
    me:cancel(reason)
  end)
  local _ <close> = setmetatable({}, { __close = function()
    self.parcel:close()
  end })
  local stopped, value = run_lanes(self)
  if stopped then
    return value
  end
  if not collect then
    return
  end
  if self.opts.ordered ~= false then
    table.sort(self.results, by_first)
  end
  return collect(self)
end

-- The plan for the indices first to last.
local function new_plan(name, f, first, last, opts, level)
  local self = setmetatable({
    name = name, opts = opts, position = first <= last and first or nil, last = last,
    total = math.max(0, last - first + 1), done = 0, results = {}, ended = {},
    workers = opts.workers or opts.pool and opts.pool:stats().threads or par.threads(),
  }, plan)
  local ok, parcel = pcall(par.parcel, f, opts.init or false)
  if not ok then -- something in them cannot be copied
    error(parcel, level)
  end
  self.parcel = parcel
  return self
end

local function list_plan(name, list, f, opts)
  local self = new_plan(name, f, 1, #list, opts, 4)
  self.list = list
  return self
end

-- ---- loops -----------------------------------------------------------------------------------

---Calls `f(i)` for each integer from `first` to `last`, on all processors.
---@param first integer
---@param last integer
---@param f string|fun(i: integer, state: any) copied once to each worker; or "module.function"
---@param opts? asynctask.parallel.options
---@return asynctask.Task task of nothing, or of what was given to `parallel.stop`
function parallel.range(first, last, f, opts)
  expect(math.type(first) == "integer", 1, "range", "integer", first)
  expect(math.type(last) == "integer", 2, "range", "integer", last)
  expect(is_function(f), 3, "range", "function", f)
  if first < last and last - first < 0 or last - first == math.maxinteger then
    error("bad argument #2 to 'range' (too many integers)", 2)
  end
  return start(drive, new_plan("range", f, first, last, check.options(opts, 4, "range", LOOP), 3))
end

---Calls `f(value, index)` for each element of a list or array, on all processors.
---@generic T
---@param list T[]|asynctask.Array
---@param f string|fun(value: T, index: integer, state: any)
---@param opts? asynctask.parallel.options
---@return asynctask.Task task of nothing, or of what was given to `parallel.stop`
function parallel.for_each(list, f, opts)
  expect(is_list(list), 1, "for_each", "list", list)
  expect(is_function(f), 2, "for_each", "function", f)
  return start(drive, list_plan("for_each", list, f, check.options(opts, 3, "for_each", LOOP)))
end

local function collect_map(self)
  local all, at = { n = self.total }, 1
  for _, chunk in ipairs(self.results) do
    if chunk.value then
      table.move(chunk.value, 1, chunk.n, at, all)
    end
    at = at + chunk.n
  end
  return all
end

---The first results of `f(value, index)` for each element, computed on all processors, in order.
---@generic T, R
---@param list T[]|asynctask.Array
---@param f string|fun(value: T, index: integer, state: any): R
---@param opts? asynctask.parallel.options
---@return asynctask.Task task of a list of results with `n`, or of what was given to `parallel.stop`
function parallel.map(list, f, opts)
  expect(is_list(list), 1, "map", "list", list)
  expect(is_function(f), 2, "map", "function", f)
  return start(drive, list_plan("map", list, f, check.options(opts, 3, "map", MAP)), collect_map)
end

local function collect_filter(self)
  local all, list, n = {}, self.list, 0
  for _, chunk in ipairs(self.results) do
    for _, index in ipairs(chunk.value or {}) do
      n = n + 1
      all[n] = list[index]
    end
  end
  return all
end

---The elements for which `f(value, index)` is true, in order; `f` runs on all processors.
---@generic T
---@param list T[]|asynctask.Array
---@param f string|fun(value: T, index: integer, state: any): any
---@param opts? asynctask.parallel.options
---@return asynctask.Task task of a list, or of what was given to `parallel.stop`
function parallel.filter(list, f, opts)
  expect(is_list(list), 1, "filter", "list", list)
  expect(is_function(f), 2, "filter", "function", f)
  return start(drive, list_plan("filter", list, f, check.options(opts, 3, "filter", MAP)), collect_filter)
end

---Reduces a list: each chunk begins with a copy of `init` and goes on with `f(result, value, index)`; the results
---of the chunks are joined on this thread, in order, by `combine(a, b)` (default: `f`). So `init` must
---be neutral (0 for sums, an empty table), and how often it is used depends on the chunks.
---@generic T, R
---@param list T[]|asynctask.Array
---@param f string|fun(result: R, value: T, index: integer, state: any): R
---@param init R copied
---@param opts? asynctask.parallel.options combine: fun(a, b); ordered = false: as chunks end
---@return asynctask.Task task of the result (of `init` if the list is empty)
function parallel.reduce(list, f, init, opts)
  expect(is_list(list), 1, "reduce", "list", list)
  expect(is_function(f), 2, "reduce", "function", f)
  opts = check.options(opts, 4, "reduce", REDUCE)
  local combine = opts.combine or f
  if type(combine) == "string" then
    error("bad argument #4 to 'reduce' (option 'combine' is needed with the name of a function)", 2)
  end
  local self = list_plan("reduce", list, f, opts)
  self.initial = init
  return start(drive, self, function()
    local results = self.results
    if not results[1] then
      return init
    end
    local result = results[1].value
    for i = 2, #results do
      result = combine(result, results[i].value)
    end
    return result
  end)
end

---Calls functions on all processors at once: `local a, b = await(parallel.invoke(f, g))`.
---@param ... function
---@return asynctask.Task task of the first result of each
function parallel.invoke(...)
  local functions = table.pack(...)
  for i = 1, functions.n do
    expect(type(functions[i]) == "function", i, "invoke", "function", functions[i])
  end
  local self = list_plan("invoke", functions, function() end, { chunk = 1 })
  return start(drive, self, function()
    local all = collect_map(self)
    return table.unpack(all, 1, all.n)
  end)
end

---Ends the loop that called the function in which this is called, as `break` does: what comes later is
---not started, and the loop's Task succeeds with the value. Of several the one at the lowest index counts.
---@param value any copied
function parallel.stop(value)
  return par.stop(value)
end

-- ---- sorting ---------------------------------------------------------------------------------

local SORT_ALONE = 4000 -- elements that are not worth cutting

local function run_sort(list, less, opts)
  local me, source = core.current(), opts.cancel
  local _ <close> = source and source:on_cancel(function(reason)
    me:cancel(reason)
  end)
  local run = opts.pool and function(...) return opts.pool:run(...) end or par.run
  local array = type(list) ~= "table" and list or nil
  if array and not less then
    await(run("asynctask.chunks.sort_array", array))
    return list
  end
  local values = array and array:to_list() or list
  local n = #values
  local parts = n < SORT_ALONE and 1 or opts.workers or opts.pool and opts.pool:stats().threads or par.threads()
  local tasks = {}
  for i = 1, parts do
    local part = table.move(values, n * (i - 1) // parts + 1, n * i // parts, 1, {})
    tasks[i] = run("asynctask.chunks.sort", part, less)
  end
  local sorted = await(core.when_all(tasks))
  while #sorted > 1 do
    local merged = {}
    for i = 1, #sorted, 2 do
      local a, b = sorted[i], sorted[i + 1]
      merged[#merged + 1] = b and run("asynctask.chunks.merge", a, b, less) or core.from_result(a)
    end
    sorted = await(core.when_all(merged))
  end
  if array then
    array:assign(sorted[1])
  else
    table.move(sorted[1], 1, n, 1, list)
  end
  return list
end

---Sorts a list or array in place, on all processors, as `table.sort` does; the list changes at the end, all at once.
---@generic T
---@param list T[]|asynctask.Array
---@param less? fun(a: T, b: T): boolean
---@param opts? asynctask.parallel.options only workers, cancel, pool
---@return asynctask.Task task of the list
function parallel.sort(list, less, opts)
  expect(is_list(list), 1, "sort", "list", list)
  expect(less == nil or type(less) == "function", 2, "sort", "function", less)
  return start(run_sort, list, less, check.options(opts, 3, "sort", SORT))
end

---Registers the metatable of a class of tables: its objects are copied to jobs and back, where the class of
---this name is theirs. A state that has none of that name gets a copy of this one, methods included.
---@type fun(name: string, metatable: table): table
parallel.class = par.class

return parallel
