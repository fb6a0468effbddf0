-- asynctask.coroutine - a drop-in for Lua's `coroutine` whose resume and wrap let an await inside a
-- generator through to the task that runs it (S17). `coroutine.yield` inside such a generator is
-- Lua's own and reaches the generator's resumer, as ever.

local core = require "asynctask.core"

---@class asynctask.coroutine
---@field create fun(f: function): thread
---@field resume fun(co: thread, ...): boolean, ... as coroutine.resume; awaits go through
---@field wrap fun(f: function): function as coroutine.wrap; awaits go through
---@field status fun(co: thread): string as coroutine.status; "normal" for one that waits for a task
---@field close fun(co: thread): boolean, any as coroutine.close; refuses one that waits for a task
---@field yield fun(...): ...
---@field running fun(): thread, boolean
---@field isyieldable fun(co?: thread): boolean
local M = {
  create = coroutine.create,
  yield = coroutine.yield,
  running = coroutine.running,
  isyieldable = coroutine.isyieldable,
  resume = core.coroutine.resume,
  wrap = core.coroutine.wrap,
  status = core.coroutine.status,
  close = core.coroutine.close,
}

return M
