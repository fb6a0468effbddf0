-- chunks.lua - the worker's half of asynctask.parallel: what the jobs of a loop run. Each is called with the
-- parcel's table {f, init, parcel=} of this worker, which all jobs of the loop share here, and with its
-- part of the work; it returns the seconds that took and its results. Items after parcel:limit() are
-- not wanted any more: a fault or stop elsewhere came before them.

local core = require "asynctask.core"

local await, is_task, now = core.await, core.is_task, core.now

local chunks = {}

local LOOKS = 32 -- at the limit, in one chunk

local failing = {}
failing.__index = failing
function failing.__close(chunk, err)
  if err ~= nil then
    chunk.parcel:lower(chunk.at)
  end
end

-- The state of this worker, made by `init` at the first chunk; other chunks wait for that here.
local function state_of(shared)
  local init = shared[2]
  if not init then
    return nil
  end
  if not shared.starting then
    shared.starting = core.spawn(init)
  end
  return await(shared.starting)
end

-- Calls visit(i) for each wanted index.
local function loop(shared, first, last, visit)
  local parcel = shared.parcel
  local chunk <close> = setmetatable({ parcel = parcel, at = first }, failing)
  local stride = math.max(1, (last - first + 1) // LOOKS)
  local i = first
  while i <= parcel:limit() do
    local stop = math.min(i + stride - 1, last)
    for k = i, stop do
      chunk.at = k
      visit(k)
    end
    if stop == last then -- the last integer may have no successor
      return
    end
    i = stop + 1
  end
end

local function value_of(v)
  if type(v) == "userdata" and is_task(v) then -- S25
    return (await(v))
  end
  return v
end

local function function_of(shared)
  local f = shared[1]
  if type(f) == "string" then
    local module, name = f:match("^(.+)%.(.+)$")
    f = require(module)[name]
    shared[1] = f
  end
  return f
end

-- Seconds, and what body(f, state) returns; nothing is called when the chunk is not wanted any more.
local function timed(shared, first, body)
  if first > shared.parcel:limit() then
    return 0
  end
  local began = now()
  local result = body(function_of(shared), state_of(shared))
  return now() - began, result
end

function chunks.range(shared, first, last)
  return timed(shared, first, function(f, state)
    loop(shared, first, last, function(i)
      value_of((f(i, state)))
    end)
  end)
end

function chunks.for_each(shared, first, last, items)
  return timed(shared, first, function(f, state)
    loop(shared, first, last, function(i)
      value_of((f(items[i - first + 1], i, state)))
    end)
  end)
end

function chunks.map(shared, first, last, items)
  return timed(shared, first, function(f, state)
    local results = {}
    loop(shared, first, last, function(i)
      results[i - first + 1] = value_of((f(items[i - first + 1], i, state)))
    end)
    return results
  end)
end

-- The indices of the items that are kept: the items need not travel back.
function chunks.filter(shared, first, last, items)
  return timed(shared, first, function(f, state)
    local kept, n = {}, 0
    loop(shared, first, last, function(i)
      if value_of((f(items[i - first + 1], i, state))) then
        n = n + 1
        kept[n] = i
      end
    end)
    return kept
  end)
end

function chunks.reduce(shared, first, last, items, initial)
  return timed(shared, first, function(f, state)
    local result = initial
    loop(shared, first, last, function(i)
      result = value_of((f(result, items[i - first + 1], i, state)))
    end)
    return result
  end)
end

function chunks.invoke(shared, first, last, functions)
  return timed(shared, first, function()
    local results = {}
    loop(shared, first, last, function(i)
      results[i - first + 1] = value_of((functions[i - first + 1]()))
    end)
    return results
  end)
end

-- ---- sorting: jobs of their own --------------------------------------------------------------

function chunks.sort(list, less)
  table.sort(list, less)
  return list
end

function chunks.sort_array(array)
  array:sort()
end

function chunks.merge(a, b, less)
  local list, i, j, n, m = {}, 1, 1, #a, #b
  less = less or function(x, y) return x < y end
  while i <= n and j <= m do
    local x, y = a[i], b[j]
    if less(y, x) then
      list[i + j - 1] = y
      j = j + 1
    else
      list[i + j - 1] = x
      i = i + 1
    end
  end
  table.move(a, i, n, i + j - 1, list)
  table.move(b, j, m, n + j, list)
  return list
end

return chunks
