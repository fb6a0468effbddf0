-- iterator.lua - the iterators of S26: one callable object with next, close and <close>.
-- What makes one hands on the four values of `iterator.new`, so that a generic `for` closes it.

local core = require "asynctask.core"

local iterator = {}

---An iterator: `for x in it do`, `it:next()`, `it:close()`.
---@class asynctask.Iterator
---@field private step fun(): ...
---@field private finish? fun(): asynctask.Task?
---@field private closed? asynctask.Task
---@overload fun(): ...
local Iterator = {}

local meta = { __name = "asynctask.Iterator", __index = Iterator }

local is_task, await = core.is_task, core.await

-- Hands the values of one round on; the end (a first value nil) closes.
local function deliver(self, first, ...)
  if first == nil then
    await(self:close())
    return nil
  end
  return first, ...
end

local function arrive(self, first, ...)
  if is_task(first) then
    return deliver(self, await(first))
  end
  return deliver(self, first, ...)
end

---The next values, waiting for them: what the generic `for` calls.
function meta.__call(self)
  if self.closed then
    return nil
  end
  return arrive(self, self.step())
end

---The next values as a Task, nil at the end.
---@return asynctask.Task
function Iterator:next()
  if self.closed then
    return core.from_result(nil)
  end
  local function wrap(first, ...)
    if is_task(first) then
      return first
    end
    return core.from_result(first, ...)
  end
  return wrap(self.step())
end

---Ends the iteration and lets go of what it holds; later rounds give nil. Closing twice is fine.
---@return asynctask.Task closed
function Iterator:close()
  if not self.closed then
    local finish = self.finish
    self.step, self.finish = nil, nil
    self.closed = core.from_result()
    local t = finish and finish()
    if is_task(t) then
      self.closed = t
    end
  end
  return self.closed
end

-- Leaving a scope waits for the end even while the scope is being cancelled (S10, S12).
function meta.__close(self)
  local t = self:close()
  if not t:done() then
    core.shield(await, t)
  else
    await(t)
  end
end

---Makes an iterator out of `step`, which gives the next round: a Task of its values, or the values
---themselves (then the first is no Task). A first value nil is the end; `step` is not called after
---the iterator was closed. `finish`, called once, lets go of what the iterator holds; it may return
---a Task to wait for.
---@param step fun(): ...
---@param finish? fun(): asynctask.Task?
---@return asynctask.Iterator iterator
---@return nil
---@return nil
---@return asynctask.Iterator closing fourth value of the generic `for`
function iterator.new(step, finish)
  local self = setmetatable({ step = step, finish = finish }, meta)
  return self, nil, nil, self
end

return iterator
