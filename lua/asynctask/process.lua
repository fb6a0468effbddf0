-- asynctask.process - child processes: starting them, talking to them, ending them. One child is in C
-- (csrc/io/process.c, spawn.c); here is what is policy: when a child is told to end, and when it is
-- made to; what is done with what it says.

local core = require "asynctask.core"
local check = require "asynctask.check"
local group = require "asynctask.group"
require "asynctask.net.stream" -- which gives streams their Lua methods

local await, try, start, spawn, shield = core.await, core.try, core.start, core.spawn, core.shield
local from_result, is_task = core.from_result, core.is_task
local begin = core.process.spawn

local GRACE = 2 -- seconds between telling a child to end and making it
local MAX = 64 * 1024 * 1024 -- bytes of output that run keeps

local process = {}

-- ---- argument checks -------------------------------------------------------------------------

local bad, expect, type_name = check.bad, check.expect, check.type_name

local function string_without_zero(v)
  return type(v) == "string" and v ~= "" and not v:find("\0", 1, true), "string"
end

local function identity(v)
  return math.type(v) == "integer" and v >= 0 and v < 0xffffffff, "numeric id"
end

local function environment(v)
  if type(v) ~= "table" then
    return false, "table of variables"
  end
  for name, value in pairs(v) do
    if type(name) ~= "string" or name == "" or name:find("[=\0]") then
      return false, "names of variables"
    elseif type(value) ~= "string" and type(value) ~= "number" or tostring(value):find("\0", 1, true) then
      return false, ("string for %s"):format(name)
    end
  end
  return true
end

---@class asynctask.process.options
---@field cwd? string directory in which it starts
---@field env? table<string, string> all variables, not more ones
---@field stdin? "pipe"|"inherit"|"ignore"|asynctask.Stream|asynctask.File|file*|integer default "pipe"
---@field stdout? "pipe"|"inherit"|"ignore"|asynctask.Stream|asynctask.File|file*|integer default "pipe"
---@field stderr? "pipe"|"inherit"|"ignore"|"stdout"|asynctask.Stream|asynctask.File|file*|integer default "pipe"
---@field uid? integer
---@field gid? integer
---@field detached? boolean in a session of its own, and left alone when the state closes

---@class asynctask.process.run.options: asynctask.process.options
---@field input? string for its standard input
---@field timeout? number seconds
---@field check? boolean an exit code other than 0 is a fault: EEXIT with `status`, `signal`, `output`, `errors`
---@field max? integer bytes of each output (64 MiB); more is EMSGSIZE
---@field grace? number seconds between telling it to end and making it (2)

local words = { pipe = true, inherit = true, ignore = true }

local function descriptor(v)
  if type(v) == "string" then
    return words[v], '"pipe", "inherit" or "ignore"'
  end
  local name = type_name(v)
  return math.type(v) == "integer" and v >= 0 or name == "asynctask.Stream" or name == "asynctask.File"
    or io.type(v) == "file", "stream, file, descriptor or word"
end

local function error_descriptor(v)
  return v == "stdout" or descriptor(v), '"pipe", "inherit", "ignore", "stdout", stream, file or descriptor'
end

local spawn_options = {
  cwd = string_without_zero, env = environment, uid = identity, gid = identity, detached = check.boolean,
  stdin = descriptor, stdout = descriptor, stderr = error_descriptor,
}

local run_options = {
  input = check.string,
  timeout = check.seconds, grace = check.seconds, check = check.boolean,
  max = check.positive,
}
for name, fits in pairs(spawn_options) do
  run_options[name] = fits
end
run_options.detached = nil

local function check_arguments(name, args)
  expect(args == nil or type(args) == "table", 2, name, "table of arguments", args)
  for i, v in ipairs(args or {}) do
    if type(v) ~= "string" and type(v) ~= "number" then
      bad(2, name, ("argument %d is a %s"):format(i, type_name(v)))
    elseif tostring(v):find("\0", 1, true) then
      bad(2, name, ("argument %d contains a zero byte"):format(i))
    end
  end
end

local function check_command(name, command, args, opts, known)
  expect(type(command) == "string", 1, name, "string", command)
  if command == "" or command:find("\0", 1, true) then
    bad(1, name, "command " .. (command == "" and "is empty" or "contains a zero byte"))
  end
  check_arguments(name, args)
  return check.options(opts, 3, name, known)
end

-- ---- processes -------------------------------------------------------------------------------

---A child process.
---@class asynctask.Process
---@field pid integer
---@field stdin? asynctask.Stream to its standard input, if that is a pipe
---@field stdout? asynctask.Stream from its standard output, if that is a pipe
---@field stderr? asynctask.Stream from its standard error, if that is a pipe
---@field private handle asynctask.process.Handle
---@field private closed? asynctask.Task
local Process = {}

local meta = { __name = "asynctask.Process", __index = Process }

function meta.__tostring(self)
  return ("asynctask.Process: %d%s"):format(self.pid, self.handle:running() and "" or " (ended)")
end

---Waits for the child to end. Any number of tasks may wait, and after the end each is told at once.
---Cancelling a wait does nothing to the child.
---@return asynctask.Task code and signal: the exit code and nil, or nil and the name of the signal that ended it
function Process:wait()
  return self.handle:wait()
end

---Sends a signal (kill(2)), in cancelled scopes too. A child that has ended gets none, and that is no error.
---@param signal? string|integer "SIGTERM" (the default), "SIGKILL", "SIGHUP"...; or its number
---@return asynctask.Task sent whether it was still there
function Process:kill(signal)
  expect(signal == nil or type(signal) == "string" or math.type(signal) == "integer", 1, "kill", "name of a signal",
    signal)
  return self.handle:kill(signal)
end

local function close_streams(self)
  for _, name in ipairs { "stdin", "stdout", "stderr" } do
    local stream = self[name]
    if stream then
      stream:close():cancel() -- what is queued for a child that is to end is of no use
    end
  end
end

local function end_gently(self, grace)
  local handle = self.handle
  if self.stdin then
    self.stdin:close():cancel()
  end
  await(handle:kill("SIGTERM"))
  local ended = handle:wait()
  if grace < math.huge and handle:running() then
    core.pcall(core.with_timeout, grace, await, ended)
  end
  if handle:running() and grace < math.huge then
    await(handle:kill("SIGKILL"))
  end
  await(handle:wait())
  close_streams(self)
end

local close_options = { grace = check.seconds }

---Ends the child if it runs: SIGTERM, then after `grace` seconds SIGKILL; closes its streams. The Task
---ends when the child is gone for good. Happens in cancelled scopes too; closing twice is fine.
---@param opts? {grace?: number} seconds, default 2; 0 kills at once, `math.huge` never
---@return asynctask.Task
function Process:close(opts)
  opts = check.options(opts, 1, "close", close_options)
  if self.closed then
    return self.closed
  elseif not self.handle:running() then
    close_streams(self)
    self.closed = from_result()
    return self.closed
  end
  local grace = opts and opts.grace or self.grace or GRACE
  self.closed = spawn(shield, end_gently, self, grace):named(("close process %d"):format(self.pid))
  return self.closed
end

-- Waits for the end in cancelled scopes too; not at all where nothing is left to wait for.
function meta.__close(self)
  local t = self:close()
  if t:done() then
    await(t)
  else
    shield(await, t)
  end
end

-- Starts the child with checked arguments: a process, or nil and the Task of why not.
local function begin_process(command, args, opts, stdin)
  local handle, pid, input, output, errors = begin(command, args, opts.env, opts.cwd, opts.uid, opts.gid,
    opts.detached, opts.stdin or stdin or "pipe", opts.stdout or "pipe", opts.stderr or "pipe")
  if is_task(handle) then
    return nil, handle
  end
  return setmetatable({
    handle = handle, pid = pid, stdin = input or nil, stdout = output or nil, stderr = errors or nil,
  }, meta)
end

---Starts a program; no shell is involved, arguments arrive as they are. The command is searched for in
---PATH unless it contains a slash. What `stdin`, `stdout` and `stderr` are: "pipe" (the default: a
---stream of the process), "inherit" (ours), "ignore" (/dev/null), a stream, a file of `asynctask.fs` or
---`io`, a descriptor; `stderr` may be "stdout". Faults with ENOENT, EACCES... and `path`: the command,
---or the directory `cwd` if that is what is wrong.
---@param command string
---@param args? (string|number)[]
---@param opts? asynctask.process.options
---@return asynctask.Task process an `asynctask.Process`
function process.spawn(command, args, opts)
  opts = check_command("spawn", command, args, opts, spawn_options)
  local proc, failed = begin_process(command, args, opts)
  return proc and from_result(proc) or failed
end

---The environment of this process, a copy: `env = process.environ(); env.LANG = "C"`.
---@return table<string, string>
function process.environ()
  return core.process.environ()
end

-- ---- run -------------------------------------------------------------------------------------

-- All that comes, or the error of what is too much.
local function gather(stream, max, command, name)
  local parts, size = {}, 0
  for data in function() return await(stream:read_some()) end do
    size = size + #data
    if size > max then
      error(core.error {
        code = "EMSGSIZE", op = "run", path = command,
        message = ("more than %d bytes on standard %s"):format(max, name),
      }, 0)
    end
    parts[#parts + 1] = data
  end
  return table.concat(parts)
end

-- A child need not read its input: that it has gone away is no error.
local function feed(stream, input)
  local _, err = try(stream:write(input))
  if err and err.code ~= "EPIPE" and err.code ~= "EBADF" then
    error(err, 0)
  end
  await(stream:close())
end

local function failure(command, code, signal, output, errors)
  local last = (errors or ""):match("([^\n]+)\n*$")
  return core.error {
    code = "EEXIT", op = "run", path = command, status = code, signal = signal, output = output, errors = errors,
    message = (signal and "ended by " .. signal or "exit code " .. tostring(code)) .. (last and ": " .. last or ""),
  }
end

local function talk(proc, command, opts)
  local max = opts.max or MAX
  local output, errors, code, signal
  group.with_group(function(g)
    if opts.input then
      g:spawn(feed, proc.stdin, opts.input)
    end
    if proc.stdout then
      g:spawn(function() output = gather(proc.stdout, max, command, "output") end)
    end
    if proc.stderr then
      g:spawn(function() errors = gather(proc.stderr, max, command, "error") end)
    end
    code, signal = await(proc:wait())
  end)
  if opts.check and code ~= 0 then
    error(failure(command, code, signal, output, errors), 0)
  end
  return output, errors, code, signal
end

local function run_process(command, args, opts)
  local proc, failed = begin_process(command, args, opts, opts.input and "pipe" or "ignore")
  if not proc then
    return await(failed)
  end
  proc.grace = opts.grace
  local _ <close> = proc
  if opts.timeout then
    return core.with_timeout(opts.timeout, talk, proc, command, opts)
  end
  return talk(proc, command, opts)
end

---Runs a program to its end and gives what it said. Cancelled, past `timeout` or past `max`, the child
---is told to end, made to after `grace` seconds, and waited for. Without `input` its standard input is
---/dev/null.
---@param command string as for `spawn`
---@param args? (string|number)[]
---@param opts? asynctask.process.run.options
---@return asynctask.Task output, errors, code, signal: as of `wait`; nil for an output that is no pipe
function process.run(command, args, opts)
  opts = check_command("run", command, args, opts, run_options)
  if opts.input and opts.stdin and opts.stdin ~= "pipe" then
    bad(3, "run", "options 'input' and 'stdin' exclude each other")
  end
  return start(run_process, command, args, opts):named("run " .. command)
end

return process
