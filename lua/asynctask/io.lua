-- asynctask.io - the shapes of `io` and of `os.execute`, with calls that await: a script is moved over by
-- `local io = require "asynctask.io"` and `local os = io.os`. Follows section 6.8 and 6.9 of the Lua manual:
-- results are values, and `nil, message, number` for failures. Files are asynctask.fs's, commands
-- asynctask.process's; what writes to standard output is `io`'s own, so that it stays in order with `print`.

local core = require "asynctask.core"
local check = require "asynctask.check"
local fs = require "asynctask.fs"
local process = require "asynctask.process"
local tty = require "asynctask.tty"

local await, try = core.await, core.try
local real_io, real_os = io, os

-- ---- failures ----------------------------------------------------------------------------------

-- What errno.h says, of those that all Unix systems number alike.
local numbers = {
  EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, ENOEXEC = 8, EBADF = 9, ECHILD = 10,
  ENOMEM = 12, EACCES = 13, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20, EISDIR = 21,
  EINVAL = 22, ENFILE = 23, EMFILE = 24, ENOTTY = 25, ETXTBSY = 26, EFBIG = 27, ENOSPC = 28, ESPIPE = 29,
  EROFS = 30, EMLINK = 31, EPIPE = 32,
}

-- nil, message, number
local function failure(err, name)
  if type(err) ~= "table" or not err.code then
    error(err, 0)
  end
  local message = err.code == "EBADF" and "Bad file descriptor" or err.message:gsub("^%l", string.upper)
  return nil, name and name .. ": " .. message or message, numbers[err.code] or 0
end

-- ---- files -------------------------------------------------------------------------------------

---An open file, with the methods of `io`'s. `handle` is what it reads from and writes to.
---@class asynctask.io.File
---@field private handle table?
---@field private ended? fun(): ... what `close` gives, of a command
local File = {}

local meta = { __index = File, __name = "FILE*" }

local function wrap(handle, ended)
  return setmetatable({ handle = handle, ended = ended }, meta)
end

local function handle_of(self, name)
  if getmetatable(self) ~= meta then
    check.raise(("bad argument #1 to '%s' (FILE* expected, got %s)"):format(name, check.type_name(self)))
  end
  local handle = rawget(self, "handle")
  if not handle then
    check.raise("attempt to use a closed file")
  end
  return handle
end

function meta.__tostring(self)
  return rawget(self, "handle") and ("file (%p)"):format(self) or "file (closed)"
end

-- Formats may begin with a "*", as those of older versions.
local function formats(...)
  local list = table.pack(...)
  for i = 1, list.n do
    if type(list[i]) == "string" then
      list[i] = list[i]:gsub("^%*", ""):sub(1, 1)
    end
  end
  return table.unpack(list, 1, list.n)
end

-- The values of a Task, or nil, message, number.
local function values_of(t)
  local results = table.pack(core.pcall(await, t))
  if results[1] then
    return table.unpack(results, 2, results.n)
  end
  return failure(results[2])
end

---@param ... string|integer formats; none: "l"
---@return any ... values, nil where there is none; or nil, message, number
function File:read(...)
  return values_of(handle_of(self, "read"):read(formats(...)))
end

---@param ... string|number
---@return asynctask.io.File? self
---@return string? err
---@return integer? errno
function File:write(...)
  local _, err = try(handle_of(self, "write"):write(...))
  if err ~= nil then
    return failure(err)
  end
  return self
end

---@param ... string|integer formats; none: "l"
---@return fun(): ... iterator; leaves the file open
function File:lines(...)
  handle_of(self, "lines")
  local list = table.pack(...)
  return function()
    local handle = handle_of(self, "lines")
    return await(handle:read(formats(table.unpack(list, 1, list.n))))
  end
end

---@param whence? "set"|"cur"|"end"
---@param offset? integer
---@return integer? position
---@return string? err
---@return integer? errno
function File:seek(whence, offset)
  local handle = handle_of(self, "seek")
  if not handle.seek then
    return nil, "Illegal seek", numbers.ESPIPE
  end
  return values_of(handle:seek(whence, offset))
end

---What was written is with the system already.
---@return asynctask.io.File self
function File:flush()
  handle_of(self, "flush")
  return self
end

---Taken as a wish.
---@return boolean
function File:setvbuf()
  handle_of(self, "setvbuf")
  return true
end

---@return boolean? ok of a command: true when it exited with 0, else nil
---@return string? how "exit" or "signal", of a command
---@return integer? code
function File:close()
  local handle, ended = handle_of(self, "close"), self.ended
  self.handle = nil
  local _, err = core.shield(try, handle:close())
  if ended then
    return ended()
  elseif err ~= nil then
    return failure(err)
  end
  return true
end

function meta.__close(self)
  if rawget(self, "handle") then
    self:close()
  end
end

-- ---- the module --------------------------------------------------------------------------------

local M = {
  stdout = real_io.stdout, stderr = real_io.stderr, -- in order with `print`
}

---@param path string
---@param mode? string "r"
---@return asynctask.io.File? file
---@return string? err
---@return integer? errno
function M.open(path, mode)
  check.expect(type(path) == "string", 1, "open", "string", path)
  mode = mode == nil and "r" or mode
  if type(mode) ~= "string" or not mode:find("^[rwa]%+?b?$") then
    check.bad(2, "open", "invalid mode")
  end
  local file, err = try(fs.open(path, (mode:gsub("b$", ""))))
  if not file then
    return failure(err, path)
  end
  return wrap(file)
end

---@return asynctask.io.File? file that nobody else sees, removed when it is closed
---@return string? err
---@return integer? errno
function M.tmpfile()
  local file, err = try(fs.tmpfile())
  if not file then
    return failure(err)
  end
  return wrap(file)
end

---@param v any
---@return "file"|"closed file"|nil
function M.type(v)
  if getmetatable(v) == meta then
    return rawget(v, "handle") and "file" or "closed file"
  end
  return real_io.type(v)
end

-- ---- commands ----------------------------------------------------------------------------------

-- Of those that a child may end by, as all Unix systems number them; the others are at their place in Linux.
local signals = {
  SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9,
  SIGUSR1 = 10, SIGSEGV = 11, SIGUSR2 = 12, SIGPIPE = 13, SIGALRM = 14, SIGTERM = 15,
}

-- A wait that is cancelled ends the command.
local ender = {
  __close = function(self, err)
    if err ~= nil then
      self.child:close()
    end
  end,
}

-- What `close` of a command and `execute` give.
local function outcome(child)
  local _ <close> = setmetatable({ child = child }, ender)
  local code, signal = await(child:wait())
  if signal then
    return nil, "signal", signals[signal] or 0
  end
  return code == 0 or nil, "exit", code
end

local function begin(command, pipes)
  real_io.stdout:flush()
  real_io.stderr:flush()
  return try(process.spawn("sh", { "-c", command }, pipes))
end

---Runs a command line with the shell; what it writes is read here, or what is written here it reads.
---@param command string
---@param mode? "r"|"w" "r"
---@return asynctask.io.File? file `close` waits for the command: true or nil, "exit" or "signal", number
---@return string? err
---@return integer? errno
function M.popen(command, mode)
  check.expect(type(command) == "string", 1, "popen", "string", command)
  mode = mode == nil and "r" or mode
  if mode ~= "r" and mode ~= "w" then
    check.bad(2, "popen", "invalid mode")
  end
  local child, err = begin(command, { stdin = mode == "w" and "pipe" or "inherit",
    stdout = mode == "r" and "pipe" or "inherit", stderr = "inherit" })
  if not child then
    return failure(err, command)
  end
  return wrap(mode == "r" and child.stdout or child.stdin, function()
    return outcome(child)
  end)
end

-- ---- the default files -------------------------------------------------------------------------

local input, output

-- Standard input, whatever it is, opened at the first look.
local function standard_input()
  local stdin = rawget(M, "stdin")
  if not stdin then
    stdin = wrap(tty.stdin)
    M.stdin = stdin
  end
  return stdin
end

setmetatable(M, {
  __index = function(_, name)
    return name == "stdin" and standard_input() or nil
  end,
})

local function opened(file, mode, name)
  if type(file) ~= "string" then
    if M.type(file) == nil then
      check.bad(1, name, "FILE* expected, got " .. check.type_name(file))
    end
    return file
  end
  local handle, err = try(fs.open(file, mode))
  if not handle then
    local _, message = failure(err)
    check.raise(("cannot open file '%s' (%s)"):format(file, message))
  end
  return wrap(handle)
end

---@param file? string|asynctask.io.File the default file for reading from now on
---@return asynctask.io.File file the default one
function M.input(file)
  if file ~= nil then
    input = opened(file, "r", "input")
  end
  return input or standard_input()
end

---@param file? string|asynctask.io.File the default file for writing from now on
---@return asynctask.io.File|file* file
function M.output(file)
  if file ~= nil then
    output = opened(file, "w", "output")
  end
  return output or M.stdout
end

function M.read(...)
  return M.input():read(...)
end

function M.write(...)
  return M.output():write(...)
end

---@param file? asynctask.io.File the default file for writing
---@return boolean? ok
---@return string? how
---@return integer? code
function M.close(file)
  if file == nil then
    file = M.output()
  end
  return file:close()
end

---Lines of a file, which is closed at the end of them and when the loop is left.
---@param path? string the default file for reading, which stays open
---@param ... string|integer formats
---@return fun(): ... iterator
---@return nil
---@return nil
---@return asynctask.io.File? file
function M.lines(path, ...)
  if path == nil then
    return M.input():lines(...)
  end
  check.expect(type(path) == "string", 1, "lines", "string", path)
  local file = opened(path, "r", "lines")
  local next_line = file:lines(...)
  return function()
    local results = table.pack(next_line())
    if results[1] == nil then
      file:close()
    end
    return table.unpack(results, 1, results.n)
  end, nil, nil, file
end

-- ---- os ----------------------------------------------------------------------------------------

---`os` with an `execute`, `remove` and `rename` that await.
M.os = setmetatable({}, { __index = real_os })

---Runs a command line with the shell, to its end.
---@param command? string none: is there a shell?
---@return boolean? ok
---@return "exit"|"signal"|string|nil how
---@return integer? code
function M.os.execute(command)
  if command == nil then
    return true
  end
  check.expect(type(command) == "string", 1, "execute", "string", command)
  local child, err = begin(command, { stdin = "inherit", stdout = "inherit", stderr = "inherit" })
  if not child then
    return failure(err)
  end
  return outcome(child)
end

---@param path string
---@return boolean? ok
---@return string? err
---@return integer? errno
function M.os.remove(path)
  local _, err = try(fs.remove(path))
  if err ~= nil then
    return failure(err, path)
  end
  return true
end

---@param from string
---@param to string
---@return boolean? ok
---@return string? err
---@return integer? errno
function M.os.rename(from, to)
  local _, err = try(fs.rename(from, to))
  if err ~= nil then
    return failure(err)
  end
  return true
end

return M
