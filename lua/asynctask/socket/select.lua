-- select.lua - LuaSocket's `select`. Takes what it takes: anything with a method `getfd`, and `dirty` if it
-- holds bytes back. Sockets of ours are waited for as they are, others through a copy of their descriptor.
-- There is no limit on descriptors or their number.

local core = require "asynctask.core"
local check = require "asynctask.socket.check"
local wait = require "asynctask.socket.wait"

local await, try = core.await, core.try
local native = core.socket

-- A socket for waiting only, of somebody else's descriptor.
local watched = native.class("asynctask.socket.watched")

-- The descriptor of an object, nil if it has none. What cannot be indexed is an error, as for LuaSocket.
local function descriptor(object)
  local getfd = object.getfd
  local fd = getfd ~= nil and getfd(object) or nil
  return type(fd) == "number" and fd >= 0 and math.tointeger(fd) or nil
end

-- Sorts a list into those that are dirty and the descriptors of the others.
local function sort_out(list, dirty, fds, objects)
  local i, object = 1, list[1]
  while object ~= nil do
    local fd = descriptor(object)
    if fd then
      local is_dirty = dirty and object.dirty
      if is_dirty ~= nil and is_dirty and is_dirty(object) then
        dirty[#dirty + 1] = object
      else
        fds[#fds + 1] = fd
      end
      objects[fd] = object
    end
    i = i + 1
    object = list[i]
  end
end

-- Fills the lists with what is ready now, in the order of descriptors. Says whether there is anything.
local function collect(asked, objects, reading, writing)
  local found, err = native.poll(asked.fds, asked.events)
  if not found then
    check.raise("select failed: " .. err)
  end
  local any = false
  for i, events in ipairs(found) do
    if events then
      local list = events == "r" and reading or writing
      list[#list + 1] = objects[asked.fds[i]]
      any = true
    end
  end
  return any
end

-- A Task that settles when one of them may be ready, and the copies that have to be closed then.
local function ready_any(asked, objects)
  local sockets, copies = {}, {}
  for i, fd in ipairs(asked.fds) do
    local object = objects[fd]
    if native.state(object) and native.getfd(object) == fd then
      sockets[i] = object
    else
      local copy = copies[fd] or native.duplicate(watched, fd)
      if not copy then
        check.raise("select failed: Bad file descriptor")
      end
      copies[fd], sockets[i] = copy, copy
    end
  end
  return native.ready_any(sockets, asked.events), setmetatable(copies, {
    __close = function()
      for _, copy in pairs(copies) do
        native.close(copy)
      end
    end,
  })
end

local function wait_any(asked, objects, seconds)
  if #asked.fds == 0 then
    local never = seconds < 0 and core.source() -- kept: a deadlock if nothing else goes on, no abandoned one
    await(never and never.task or core.delay(seconds))
    return
  end
  local t, _ <close> = ready_any(asked, objects)
  if seconds < 0 then
    await(t)
    return
  end
  local ok, err = try(t:timeout(seconds))
  if ok == nil and err.code ~= "ETIMEDOUT" then
    error(err, 0)
  end
end

-- The descriptors in order, with what each is asked for.
local function merge(reading, writing)
  table.sort(reading)
  table.sort(writing)
  local fds, events = {}, {}
  for _, list in ipairs { reading, writing } do
    local last
    for _, fd in ipairs(list) do
      if fd ~= last then
        fds[#fds + 1], events[#events + 1] = fd, list == reading and "r" or "w"
        last = fd
      end
    end
  end
  return { fds = fds, events = events }
end

local function associate(list)
  for i = 1, #list do
    list[list[i]] = i + 0.0 -- a float, as LuaSocket's
  end
  return list
end

local function check_list(list, arg)
  if list ~= nil and type(list) ~= "table" then
    check.bad(arg, "select", "table expected, got " .. type(list))
  end
  return list or {}
end

---Waits until one of the sockets can be read from or written to.
---@param reading? table list of sockets
---@param writing? table
---@param timeout? number seconds; none or below 0: no limit
---@return table readable list, and the place of each: `list[socket]`
---@return table writable
---@return string? err "timeout"
return function(reading, writing, timeout)
  reading, writing = check_list(reading, 1), check_list(writing, 2)
  local seconds = check.number(timeout, 3, "select", -1)
  wait.point()
  local readable, writable, fds, write_fds, objects = {}, {}, {}, {}, {}
  sort_out(reading, readable, fds, objects)
  sort_out(writing, nil, write_fds, objects)
  local asked = merge(fds, write_fds)
  local dirty = #readable > 0
  local any = collect(asked, objects, readable, writable) or dirty
  local due = seconds >= 0 and core.now() + seconds or nil
  while not any and seconds ~= 0 do
    wait_any(asked, objects, due and math.max(due - core.now(), 0) or -1)
    any = collect(asked, objects, readable, writable)
    if due and core.now() >= due then
      break
    end
  end
  associate(readable)
  associate(writable)
  if not any then
    return readable, writable, "timeout"
  end
  return readable, writable
end
