-- watch.lua - the iterator over changes behind asynctask.fs: watch. C gives what the system told, in batches
-- (csrc/io/watch.c); here they become rounds, and with `debounce` what belongs together becomes one.

local core = require "asynctask.core"
local iterator = require "asynctask.iterator"
local walk = require "asynctask.walk"

local native = core.fs
local await, start = core.await, core.start

local LONGEST = 10 -- times the debounce, after which a file that never rests is told of

-- What happened to each path since the first event of a burst: whether it was there before ("maybe": it
-- was moved there, which may have replaced something), and whether it is there now.
local function burst()
  local self = { order = {}, paths = {}, others = {} }

  local function record(path, was)
    local r = self.paths[path]
    if not r then
      r = { path = path, was = was }
      self.paths[path] = r
      self.order[#self.order + 1] = r
    end
    return r
  end

  function self.add(event)
    local kind = event.type
    if kind == "create" then
      record(event.path, "no").is = true
    elseif kind == "change" then
      record(event.path, "yes").is = true
    elseif kind == "remove" then
      record(event.path, "yes").is = false
    elseif kind == "rename" then
      local from, to = record(event.from, "yes"), record(event.path, "maybe")
      from.is, to.is = false, true
      to.from = from.was == "yes" and from or nil
    else
      self.others[#self.others + 1] = event
    end
  end

  -- One event for each path that is not as it was, in the order of the first.
  function self.flush()
    local list = self.others
    for _, r in ipairs(self.order) do
      if r.is and r.was == "maybe" and r.from and not r.from.is then
        r.from.renamed = true
      end
    end
    for _, r in ipairs(self.order) do
      if r.is then
        if r.was == "maybe" and r.from and r.from.renamed then
          list[#list + 1] = { type = "rename", path = r.path, from = r.from.path }
        else
          list[#list + 1] = { type = r.was == "no" and "create" or "change", path = r.path }
        end
      elseif r.was == "yes" and not r.renamed then -- a backup that was moved there came and went
        list[#list + 1] = { type = "remove", path = r.path }
      end
    end
    self.order, self.paths, self.others = {}, {}, {}
    return list
  end

  return self
end

-- A function that is a Task of the next events: nothing has happened for `seconds` behind them.
local function debounced(watcher, seconds)
  local pending = burst()
  local waiting -- when the burst under way is told at the latest

  local function add(list, count)
    for i = 1, count do
      pending.add(list[i])
    end
  end

  -- What has arrived stays in `pending` when the wait is cancelled.
  local function collect()
    while true do
      if not waiting then
        local list, count = await(watcher:read())
        if not list then
          return nil
        end
        add(list, count)
        waiting = core.now() + seconds * LONGEST
      end
      repeat
        await(core.delay(seconds))
        local list, count = watcher:take()
        if list then
          add(list, count)
        end
      until not list or core.now() >= waiting
      waiting = nil
      local events = pending.flush()
      if events[1] then
        return events, #events
      end
    end
  end

  return function()
    return start(collect)
  end
end

local watch = {}

function watch.watch(path, options)
  walk.check_path("watch", path)
  local o = walk.check_options("watch", options, { recursive = "boolean", debounce = "number" })
  local debounce = o.debounce or 0
  if not (debounce >= 0 and debounce < math.huge) then
    error("bad argument #2 to 'watch' (option 'debounce': must be a number of seconds)", 2)
  end
  local watcher = native.watcher(path, o.recursive)
  local list, at, size = nil, 0, 0

  local function take()
    if at < size then
      at = at + 1
      return list[at]
    end
    return nil
  end

  local fetch = debounce > 0 and debounced(watcher, debounce) or function()
    return watcher:read()
  end
  return iterator.new(walk.rounds(take, fetch, function(events, count)
    list, at, size = events, 0, count
  end), function()
    watcher:close()
  end)
end

return watch
