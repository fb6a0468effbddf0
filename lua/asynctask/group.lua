-- group.lua - the policy of groups (S13): what leaving one does. Mechanism is in core/group.c.

local core = require "asynctask.core"
local check = require "asynctask.check"

local await = core.await

---A group of tasks that end together. Leaving it waits for all members; the first fault cancels the
---others, interrupts the body at its next await, and is raised on leaving.
---@class asynctask.Group
local Group = core.Group.__index

local function check_job(name, f)
  check.expect(type(f) == "function" or type(f) == "string", 1, name, 'function or "module.function"', f)
end

-- Without a limit a job starts here, so that what cannot be copied is said here; with one it may wait.

---Starts a job of the pool as a member; takes what `task.run` takes.
---@param f function|string
---@return asynctask.Task
function Group:run(f, ...)
  check_job("run", f)
  if self:limit() then
    return self:spawn(core.par.run, f, ...)
  end
  return self:add(core.par.run(f, ...))
end

---Starts a job on a thread of its own as a member; takes what `task.thread` takes.
---@param f function|string
---@return asynctask.Task
function Group:thread(f, ...)
  check_job("thread", f)
  if self:limit() then
    return self:spawn(core.par.thread, f, ...)
  end
  return self:add(core.par.thread(f, ...))
end

local function wait(self)
  await(self:idle())
  local failed = self:fault()
  if failed then
    await(failed)
  end
end

---A Task that settles when no member is pending any more; it faults with the first member's fault.
---@return asynctask.Task
function Group:wait()
  return core.start(wait, self)
end

-- Says whether there was something to wait for. Runs shielded: in the group's own scope, which may be
-- cancelled, nothing would begin.
local function wait_out(self, failed)
  if failed then
    self:cancel("the body of the group failed")
  end
  local idle = self:idle()
  local waited = not idle:done()
  await(idle)
  return waited
end

-- Waits for the members, whatever is aimed at the scope around; it reaches them, and is raised when they
-- have ended if it came while there was something to wait for.
function core.Group.__close(self, err)
  if err == nil and self:orphaned() then
    return self:cancel("the state closes")
  end
  local ok, waited = pcall(core.shield, wait_out, self, err ~= nil)
  local interrupted = self:leave(err)
  if not ok then -- a deadlock, no memory, an interrupt: the scope is left all the same
    error(waited, 0)
  end
  local failed = self:fault()
  self:errors() -- whoever leaves has seen them all
  self:release()
  if failed and (err == nil or interrupted) then
    await(failed)
  elseif waited and err == nil and core.cancelling() then
    error(core.cancelling(), 0)
  end
end

local options = { limit = check.positive, on_error = check.plain_function }

local function new(name, opts)
  if opts == nil then
    return core.group()
  end
  check.options(opts, 1, name, options)
  return core.group(opts.limit, opts.on_error)
end

local M = {}

---A group for a `<close>` variable: `local g <close> = task.group()`.
---@param opts? { limit?: integer, on_error?: fun(err: any, t: asynctask.Task) } limit: members of
---  `spawn` and `run` that run at once, the rest is queued; on_error: takes faults, the rest goes on
---@return asynctask.Group
function M.group(opts)
  return new("group", opts)
end

-- S25 for functions that are called from Lua.
function M.flat(...)
  if select("#", ...) == 1 and core.is_task((...)) then
    return await((...))
  end
  return ...
end

local function body(f, group)
  local g <close> = group
  return M.flat(f(g))
end

---Runs `f(g)` with a group that is left when it returns.
---@param opts? { limit?: integer, on_error?: fun(err: any, t: asynctask.Task) } may be left out
---@param f fun(g: asynctask.Group): ...
---@return any ... results of f
function M.with_group(opts, f)
  if f == nil and type(opts) == "function" then
    opts, f = nil, opts
  end
  check.expect(type(f) == "function", opts == nil and 1 or 2, "with_group", "function", f)
  return body(f, new("with_group", opts))
end

return M
