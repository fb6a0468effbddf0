-- walk.lua - the iterators over directories behind asynctask.fs: walk and dir. C gives batches of entries
-- (csrc/io/fsdir.c); here they become rounds, filtered and in the order asked for.

local core = require "asynctask.core"
local iterator = require "asynctask.iterator"

local native = core.fs
local is_cancelled, start, try = core.is_cancelled, core.start, core.try

local walk = {}

-- The rounds of an iterator: each takes what is there, or is a Task that fetches first. `take` gives the
-- next values, or nil if there are none; `fetch` is a Task of more (nil: the end). Rounds that overlap
-- share the fetch; a fetch that fails is the last.
---@param take fun(): ...
---@param fetch fun(): asynctask.Task
---@param accept fun(list: table, count: integer)
---@return fun(): ...
function walk.rounds(take, fetch, accept)
  local finished, loading = false, nil

  local function load()
    loading = fetch()
    local list, count = try(loading)
    loading = nil
    if list then
      accept(list, count)
    elseif count and is_cancelled(count) then
      error(count, 0)
    else
      finished = true
      if count then
        error(count, 0)
      end
    end
  end

  local function advance()
    while true do
      local first, second = take()
      if first ~= nil or finished then
        return first, second
      elseif loading and not loading:done() then
        try(loading)
      else
        load()
      end
    end
  end

  return function()
    local first, second = take()
    if first ~= nil or finished then
      return first, second
    end
    return start(advance)
  end
end

-- The entries of a walker. Of a tree that is walked children first, directories come twice: on the way
-- in, for the filter, and on the way out.
local function entries(walker, filter)
  local batch, at, size = nil, 0, 0
  local skip -- depth of a directory that the filter refused: what is deeper is not visited

  local function wanted(path, entry)
    if skip then
      if entry.depth > skip then
        return false
      end
      local leaving = entry.depth == skip and entry.entering == false
      skip = nil
      if leaving then
        return false
      end
    end
    if entry.entering == false then
      return true -- the filter has seen it
    elseif filter and filter(path, entry) == false then
      skip = entry.depth
      return false
    end
    return not entry.entering
  end

  local function take()
    while at < size do
      local path, entry = batch[at + 1], batch[at + 2]
      at = at + 2
      if wanted(path, entry) then
        entry.entering = nil
        return path, entry
      end
    end
    return nil
  end

  local step = walk.rounds(take, function()
    return walker:read(skip)
  end, function(list, count)
    batch, at, size = list, 0, count
  end)
  return iterator.new(step, function()
    walker:close()
  end)
end

-- Checks a table of options against {name = type, or a list of strings}.
---@param name string of the function
---@param options table?
---@param known table
---@param level? integer of the caller, for error()
---@return table options
function walk.check_options(name, options, known, level)
  level = (level or 2) + 1
  if options == nil then
    return {}
  end
  if type(options) ~= "table" then
    error(("bad argument #2 to '%s' (table of options expected, got %s)"):format(name, type(options)), level)
  end
  for key, value in pairs(options) do
    local want, problem = known[key], nil
    if not want then
      problem = ("unknown option '%s'"):format(tostring(key))
    elseif type(want) == "table" then
      if not want[value] then
        problem = ("option '%s': invalid value '%s'"):format(key, tostring(value))
      end
    elseif want == "integer" and math.type(value) ~= "integer" or want ~= "integer" and type(value) ~= want then
      problem = ("option '%s': %s expected, got %s"):format(key, want, type(value))
    end
    if problem then
      error(("bad argument #2 to '%s' (%s)"):format(name, problem), level)
    end
  end
  return options
end

---@param name string of the function
---@param path any
function walk.check_path(name, path)
  local problem
  if type(path) ~= "string" then
    problem = ("string expected, got %s"):format(path == nil and "no value" or type(path))
  elseif path == "" then
    problem = "path is empty"
  elseif path:find("\0", 1, true) then
    problem = "path contains a zero byte"
  end
  if problem then
    error(("bad argument #1 to '%s' (%s)"):format(name, problem), 3)
  end
end

local WALK_OPTIONS = {
  depth = "integer",
  follow = "boolean",
  stat = "boolean",
  filter = "function",
  order = { pre = true, post = true },
}

function walk.walk(path, options)
  walk.check_path("walk", path)
  local o = walk.check_options("walk", options, WALK_OPTIONS)
  if o.depth and o.depth < 1 then
    error("bad argument #2 to 'walk' (option 'depth': must be at least 1)", 2)
  end
  return entries(native.walker(path, false, o.follow, o.stat, o.depth, o.order == "post"), o.filter)
end

function walk.dir(path, options)
  walk.check_path("dir", path)
  local o = walk.check_options("dir", options, { stat = "boolean" })
  return entries(native.walker(path, true, false, o.stat, 1, false))
end

return walk
