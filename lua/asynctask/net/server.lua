-- server.lua - what Lua adds to listening sockets (csrc/io/server.c): who runs which handler, on this
-- thread or on several, what becomes of a handler's error, closing gently.

local core = require "asynctask.core"
local check = require "asynctask.net.check"
local close_scope = require("asynctask.net.stream").close_scope
local threads = require "asynctask.net.threads"

local await, try, wait, start, spawn = core.await, core.try, core.wait, core.start, core.spawn
local source, current, shield = core.source, core.current, core.shield
local is_task, from_error, from_result = core.is_task, core.from_error, core.from_result

local M = {}

---A listening socket. `accept`, `sockname` and `stop` are C's (csrc/io/server.c).
---@class asynctask.Server
local Server = core.net.Server.__index

-- What is kept for a server: the handlers that run. Server -> record.
---@class asynctask.Server.record
---@field live table<asynctask.Task, true> handlers that have not ended
---@field count integer of these
---@field serving boolean
---@field slot? table source that is settled when a handler ends or the server closes
---@field leave table what a handler closes as its last
---@field crew? asynctask.net.Crew the threads that serve, in place of handlers here
---@field on_close? fun() told that the server closes, before its handlers are waited for
local records = setmetatable({}, { __mode = "k" })

local function wake(record)
  local slot = record.slot
  if slot then
    record.slot = nil
    slot:set_result()
  end
end

-- Waits for the fault to be in the task, so that the callback sees all of it.
local function report(on_error, t)
  wait(t)
  if t:status() == "faulted" then
    on_error(t:error(), t)
  end
end

local leave_meta = {}

-- The last thing a handler does, whatever ended it.
function leave_meta.__close(leave, err)
  local record, t = leave.record, current()
  record.live[t] = nil
  record.count = record.count - 1
  wake(record)
  if err ~= nil and leave.on_error then
    spawn(report, leave.on_error, t)
  end
end

-- S25: a handler that returns exactly one Task means its outcome.
local function finish_call(...)
  if select("#", ...) == 1 and is_task((...)) then
    await((...))
  end
end

local function run_handler(leave, handler, stream)
  local _ <close> = leave
  local _ <close> = stream
  finish_call(handler(stream))
end

local function admit(leave, handler, stream)
  local record = leave.record
  record.count = record.count + 1
  local t = spawn(run_handler, leave, handler, stream)
  if not t:done() then
    record.live[t] = true
  end
end

-- Waits until no handler runs but `except`, or (without waiting for them) cancels all of these.
local function drain(record, except)
  local t = next(record.live)
  while t do
    if t ~= except then
      wait(t)
      record.live[t] = nil
      t = nil
    end
    t = next(record.live, t)
  end
end

local function cancel_all(record, except)
  local list = {}
  for t in pairs(record.live) do
    list[#list + 1] = t
  end
  for _, t in ipairs(list) do
    if t ~= except then
      t:cancel("server closed")
    end
  end
end

local serving_meta = {}

-- serve ends: with an error or a cancellation its handlers end too; always they are waited for.
function serving_meta.__close(serving, err)
  local server, record = serving.server, serving.record
  record.serving = false
  if err ~= nil then
    server:stop()
    cancel_all(record)
  end
  if next(record.live) then
    shield(drain, record)
  end
end

local function serve_loop(server, record, leave, handler, max)
  local _ <close> = setmetatable({ server = server, record = record }, serving_meta)
  while not server:stopped() do
    if record.count >= max then
      record.slot = source()
      await(record.slot.task)
    else
      local stream, err = try(server:accept())
      if stream then
        admit(leave, handler, stream)
      elseif not server:stopped() then
        error(err, 0)
      end
    end
  end
end

local function fresh_record()
  return { live = {}, count = 0, serving = false }
end

-- Where threads serve: this one only waits for them.
local function serve_threads(server, record, handler, opts)
  local _ <close> = setmetatable({ server = server, record = record }, serving_meta)
  local crew <close> = threads.crew(server, handler, opts)
  record.crew = crew
  crew:begin()
  crew:wait()
end

-- What can be copied to another thread, or is found there by its name.
local function handler_fits(v)
  return check.callable(v) or type(v) == "string" and v:find("^[%w_.]+%.[%w_]+$") ~= nil
end

---Remembers with which options a server listens, for the threads that will listen beside it.
---@param t asynctask.Task of a server
---@param opts? table
---@return asynctask.Task
function M.opened(t, opts)
  if not (opts and opts.reuseport) then
    return t
  end
  return start(function()
    local server = await(t)
    threads.shareable(server, opts)
    return server
  end)
end

M.options = {
  max = check.positive, on_error = check.callable, on_close = check.callable, threads = check.positive,
}

---Checks the arguments of `serve`; `arg` is the handler's place.
---@param name string
---@param arg integer
---@param handler any
---@param opts any
function M.check(name, arg, handler, opts)
  if type(opts) == "table" and opts.threads then
    check.expect(handler_fits(handler), arg, name, 'function or "module.function"', handler)
  else
    check.expect(check.callable(handler), arg, name, "function", handler)
  end
end

---Starts serving with checked arguments.
---@param server asynctask.Server
---@param handler function|string
---@param opts table
---@return asynctask.Task
function M.serve(server, handler, opts)
  local record = records[server]
  if not record then
    record = fresh_record()
    records[server] = record
  end
  if record.serving then
    return from_error(core.error { code = "EBUSY", message = "the server is being served already", op = "serve" })
  end
  record.serving = true
  record.on_close = opts.on_close
  if opts.threads then
    return start(serve_threads, server, record, handler, opts):named("serve")
  end
  local leave = setmetatable({ record = record, on_error = opts.on_error }, leave_meta)
  return start(serve_loop, server, record, leave, handler, opts.max or math.huge):named("serve")
end

---Accepts connections and runs `handler(stream)` for each, as a task of its own. The connection
---closes when its handler returns or fails. A handler's error goes to `on_error(err, task)` or is
---reported as an unobserved fault, and the server goes on. The Task ends when the server is closed
---and its handlers have ended; cancelling it closes the server and cancels the handlers.
---
---With `threads = n` the handlers run on n threads, each with a runtime of its own (`task.thread`); the
---handler and `on_error` are copied there, as functions of jobs are, or are found by the name
---"module.function".
---@param handler string|fun(stream: asynctask.Stream): any
---@param opts? {max?: integer, on_error?: fun(err: any, t: asynctask.Task), on_close?: fun(), threads?: integer}
---max: handlers that run at once (on each thread); on_close: called (on each thread) when `close` begins, before
---the handlers are waited for, so that those that wait for more can be told
---@return asynctask.Task
function Server:serve(handler, opts)
  M.check("serve", 1, handler, opts)
  return M.serve(self, handler, check.options(opts, 2, "serve", M.options))
end

local function close_gently(record, grace, except)
  if record.crew then
    record.crew:finish(grace)
    return
  end
  if grace == math.huge then
    drain(record, except)
    return
  end
  if grace > 0 then
    core.pcall(core.with_timeout, grace, drain, record, except)
  end
  cancel_all(record, except)
  drain(record, except)
end

---Stops accepting and gives the handlers `grace` seconds (default 0) to end; then they are
---cancelled. A handler that closes its own server is neither waited for nor cancelled. Happens in
---cancelled scopes too; closing twice is fine.
---@param opts? {grace?: number} seconds; `math.huge` waits as long as it takes
---@return asynctask.Task closed
function Server:close(opts)
  opts = check.options(opts, 1, "close", { grace = check.seconds })
  self:stop()
  local record = records[self]
  if not record then
    return from_result()
  end
  wake(record)
  if record.on_close and not record.crew then
    record.on_close()
  end
  local except = current()
  if not record.live[except] then
    except = nil
  end
  return spawn(close_gently, record, opts.grace or 0, except):named("close server")
end


core.net.Server.__close = close_scope

return M
