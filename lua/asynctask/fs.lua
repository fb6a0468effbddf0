-- fs.lua - files and directories (DESIGN section 3). The operations are C; here are the iterators
-- over directories and the types. Errors of the world come through the Task as error objects with
-- code, op and path (S22); wrong arguments raise at the call.

local core = require "asynctask.core"
local iterator = require "asynctask.iterator"

local native = core.fs
local is_cancelled, start, try = core.is_cancelled, core.start, core.try

---@class asynctask.fs
local fs = {}

---What `stat` tells (stat(2), POSIX.1-2017). Times are seconds since the epoch, with fractions.
---@class asynctask.Stat
---@field type "file"|"directory"|"link"|"fifo"|"socket"|"char"|"block"|"unknown"
---@field size integer bytes
---@field mode integer permission bits, 0 to 4095
---@field atime number last access
---@field mtime number last change of the contents
---@field ctime number last change of the entry
---@field dev integer
---@field ino integer
---@field nlink integer
---@field uid integer
---@field gid integer
---@field rdev integer
---@field blksize integer
---@field blocks integer of 512 bytes

---An entry of a directory: with the option `stat` all of `asynctask.Stat`, else its type.
---@class asynctask.Entry: asynctask.Stat
---@field name string the last part of its path
---@field depth integer 1 for what lies in the directory itself
---@field error? asynctask.Error why a directory could not be read (walk)

---A format of `io`: a line without or with its end, a numeral, all, or so many bytes.
---@alias asynctask.Format "l"|"L"|"n"|"a"|"*l"|"*L"|"*n"|"*a"|integer

---Opens a file. Modes as for `io.open`, and "x" after "w" or "a": it must not exist (C11 7.21.5.3).
---A directory is an error (EISDIR). A result that nobody can receive any more is closed.
---@type fun(path: string, mode?: string, options?: {permissions: integer}): asynctask.Task
fs.open = native.open

---The contents of a file, in one trip to the pool or none; also of files that do not tell their
---size (/proc, a FIFO).
---@type fun(path: string): asynctask.Task
fs.read_file = native.read_file

---Makes or replaces a file. `permissions` (0666 less the umask) apply to one that is made.
---@type fun(path: string, data: string|number, options?: {permissions: integer}): asynctask.Task
fs.write_file = native.write_file

---Adds to the end of a file, which it makes if need be.
---@type fun(path: string, data: string|number, options?: {permissions: integer}): asynctask.Task
fs.append_file = native.append_file

---Iterates over a file by formats ("l" if none); opens it in the first round, closes it at the end.
---@type fun(path: string, ...: asynctask.Format): asynctask.Iterator
fs.lines = native.lines

---What the system knows about a path: an `asynctask.Stat`. `lstat` does not follow a link.
---@type fun(path: string): asynctask.Task
fs.stat = native.stat
---@type fun(path: string): asynctask.Task
fs.lstat = native.lstat

---Whether there is something at the path (links followed). EACCES and the like fault.
---@type fun(path: string): asynctask.Task
fs.exists = native.exists

---Makes a directory; with `parents` those on the way too, and one that exists is fine.
---@type fun(path: string, options?: {parents: boolean, permissions: integer}): asynctask.Task
fs.mkdir = native.mkdir

---Removes a file or an empty directory; with `recursive` all that is in it, never through a link.
---@type fun(path: string, options?: {recursive: boolean}): asynctask.Task
fs.remove = native.remove

---Renames; what is at the new path is replaced (rename(2)).
---@type fun(from: string, to: string): asynctask.Task
fs.rename = native.rename

---Copies a file with its permissions, inside the kernel where that can be done.
---@type fun(from: string, to: string, options?: {exclusive: boolean}): asynctask.Task
fs.copy = native.copy

---A second name for a file; a symbolic link at `path` that says `target`.
---@type fun(target: string, path: string): asynctask.Task
fs.link = native.link
---@type fun(target: string, path: string): asynctask.Task
fs.symlink = native.symlink

---What a symbolic link says; the absolute path without links.
---@type fun(path: string): asynctask.Task
fs.readlink = native.readlink
---@type fun(path: string): asynctask.Task
fs.realpath = native.realpath

---Permission bits, 0 to 4095.
---@type fun(path: string, mode: integer): asynctask.Task
fs.chmod = native.chmod

---Times of access and change, in seconds since the epoch.
---@type fun(path: string, atime: number, mtime: number): asynctask.Task
fs.utime = native.utime

---Cuts or extends a file to a size in bytes.
---@type fun(path: string, size: integer): asynctask.Task
fs.truncate = native.truncate

---Makes a directory of a new name that begins with `prefix` (one in the system's temporary
---directory if none is given); gives its path. Removing it is the caller's.
---@type fun(prefix?: string): asynctask.Task
fs.mkdtemp = native.mkdtemp

-- The batches of a walker as rounds of an iterator: each round takes the next entry, or is a Task
-- that fetches a batch first. Rounds that overlap share the fetch.
local function rounds(walker, filter)
  local batch, at, size = nil, 0, 0
  local finished, loading = false, nil
  local skip -- depth of a directory that the filter refused: what is deeper is not visited

  local function take()
    while at < size do
      local path, entry = batch[at + 1], batch[at + 2]
      at = at + 2
      if skip and entry.depth <= skip then
        skip = nil
      end
      if not skip then
        if filter == nil or filter(path, entry) ~= false then
          return path, entry
        end
        skip = entry.depth
      end
    end
    return nil
  end

  local function fetch()
    loading = walker:read(skip)
    local found, count = try(loading)
    loading = nil
    if found then
      batch, at, size = found, 0, count
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
      local path, entry = take()
      if path or finished then
        return path, entry
      elseif loading and not loading:done() then
        try(loading)
      elseif at >= size then
        fetch()
      end
    end
  end

  return function()
    local path, entry = take()
    if path or finished then
      return path, entry
    end
    return start(advance)
  end
end

local function check_options(name, options, known)
  if options == nil then
    return {}
  end
  if type(options) ~= "table" then
    error(("bad argument #2 to '%s' (table of options expected, got %s)"):format(name, type(options)), 3)
  end
  for key, value in pairs(options) do
    local want = known[key]
    if not want then
      error(("bad argument #2 to '%s' (unknown option '%s')"):format(name, tostring(key)), 3)
    elseif want == "integer" and math.type(value) ~= "integer" or want ~= "integer" and type(value) ~= want then
      error(
        ("bad argument #2 to '%s' (option '%s': %s expected, got %s)"):format(name, key, want, type(value)),
        3
      )
    end
  end
  return options
end

local function check_path(name, path)
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

local function entries(walker, filter)
  return iterator.new(rounds(walker, filter), function()
    walker:close()
  end)
end

---@class asynctask.WalkOptions
---@field depth? integer how far down; 1: the directory itself only
---@field follow? boolean follow symbolic links; a directory inside itself is given with an error (ELOOP)
---@field stat? boolean entries carry all of `asynctask.Stat`
---@field filter? fun(path: string, entry: asynctask.Entry): boolean? false leaves it out, and what is in it

---Iterates over everything below a directory: `for path, entry in fs.walk(dir) do`. Parents come
---before what is in them, the names of one directory in the order of their bytes. A directory that
---cannot be read is given with `entry.error`, and the walk goes on; that of the root is raised.
---@param path string
---@param options? asynctask.WalkOptions
---@return asynctask.Iterator iterator gives path and asynctask.Entry
---@return nil
---@return nil
---@return asynctask.Iterator closing
function fs.walk(path, options)
  check_path("walk", path)
  local o = check_options(
    "walk",
    options,
    { depth = "integer", follow = "boolean", stat = "boolean", filter = "function" }
  )
  if o.depth and o.depth < 1 then
    error("bad argument #2 to 'walk' (option 'depth': must be at least 1)", 2)
  end
  return entries(native.walker(path, false, o.follow, o.stat, o.depth), o.filter)
end

---Iterates over one directory in the system's order, a part at a time: `for name, entry in
---fs.dir(path) do`. The entries "." and ".." are left out.
---@param path string
---@param options? {stat: boolean}
---@return asynctask.Iterator iterator gives name and asynctask.Entry
---@return nil
---@return nil
---@return asynctask.Iterator closing
function fs.dir(path, options)
  check_path("dir", path)
  local o = check_options("dir", options, { stat = "boolean" })
  return entries(native.walker(path, true, false, o.stat, 1))
end

return fs
