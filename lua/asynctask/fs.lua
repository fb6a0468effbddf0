-- fs.lua - files and directories (DESIGN section 3). The operations are C, the iterators in walk.lua and
-- watch.lua; here are the types, and locks. Errors of the world come through the Task as error
-- objects with code, op and path (S22); wrong arguments raise at the call.

local core = require "asynctask.core"
local walk = require "asynctask.walk"
local watch = require "asynctask.watch"

local native = core.fs
local await, delay, start = core.await, core.delay, core.start

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
---@field error? asynctask.Error why it could not be read, or its stat not be had (walk)

---A format of `io`: a line without or with its end, a numeral, all, or so many bytes.
---@alias asynctask.Format "l"|"L"|"n"|"a"|"*l"|"*L"|"*n"|"*a"|integer

---Opens a file. Modes as for `io.open`, and "x" after "w" or "a": it must not exist (C11 7.21.5.3).
---A directory is an error (EISDIR). A result that nobody can receive any more is closed. With `beneath`, the
---path begins in that directory and cannot leave it, by "..", as an absolute path or through a link
---(EXDEV; openat2(2) with RESOLVE_BENEATH, on other systems by comparing real paths).
---@type fun(path: string, mode?: string, options?: {permissions?: integer, beneath?: string}): asynctask.Task
fs.open = native.open

---The contents of a file, in one trip to the pool or none; also of files that do not tell their
---size (/proc, a FIFO).
---@type fun(path: string): asynctask.Task
fs.read_file = native.read_file

---Makes or replaces a file. `permissions` (0666 less the umask) apply to one that is made. With `atomic`
---it is written beside the old one, stored (fsync) and then put in its place (rename(2)), with its
---permissions: whoever reads sees the old contents or the new ones, after a crash, too.
---@type fun(path: string, data: string|number, options?: {permissions: integer, atomic: boolean}): asynctask.Task
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

---Owner and group by number; nil leaves it as it is. `follow = false`: of a link itself (lchown(2)).
---@type fun(path: string, uid?: integer, gid?: integer, options?: {follow: boolean}): asynctask.Task
fs.chown = native.chown

---Times of access and change, in seconds since the epoch; nil is now. `follow = false`: of a link itself.
---@type fun(path: string, atime?: number, mtime?: number, options?: {follow: boolean}): asynctask.Task
fs.utime = native.utime

---Cuts or extends a file to a size in bytes.
---@type fun(path: string, size: integer): asynctask.Task
fs.truncate = native.truncate

---Makes a directory of a new name that begins with `prefix` (one in the system's temporary
---directory if none is given); gives its path. Removing it is the caller's.
---@type fun(prefix?: string): asynctask.Task
fs.mkdtemp = native.mkdtemp

---A file for reading and writing that has no name and goes when it is closed, in the directory given (the
---system's temporary one if none is). Only its owner could read it.
---@type fun(directory?: string): asynctask.Task
fs.tmpfile = native.tmpfile

---What `statfs` tells about the file system of a path (statfs(2)). `size free available` are bytes;
---`available` is what an unprivileged process may use.
---@class asynctask.Statfs
---@field type integer the system's number for the kind
---@field size integer
---@field free integer
---@field available integer
---@field bsize integer bytes of a block
---@field blocks integer
---@field bfree integer
---@field bavail integer
---@field files integer
---@field ffree integer

---@type fun(path: string): asynctask.Task
fs.statfs = native.statfs

---The paths that a pattern matches, as a list in the order of their bytes: `*` any bytes of a name, `?` one
---character, `[a-z]` `[!a-z]` one of a set, `**` as a whole part any number of directories (not through links), `\`
---takes the next character as it is (fnmatch(3)). A leading dot is matched by a dot only. A slash at the end
---asks for directories. What cannot be searched matches nothing.
---@type fun(pattern: string): asynctask.Task
fs.glob = native.glob

---The size of the pool of threads for calls that block (1 to 256), for the whole process; without an argument it
---is left as it is. Threads beyond a smaller size end when they have nothing to do.
---@type fun(n?: integer): integer
fs.threads = native.threads

local SHORTEST, LONGEST = 0.001, 0.05 -- seconds between two tries of a lock

local function lock(file, shared)
  local pause = SHORTEST
  while not await(file:try_lock(shared)) do
    await(delay(pause))
    pause = math.min(pause * 2, LONGEST)
  end
  return file
end

---Locks the whole file against other openings of it, in this process and others (flock(2): advisory; locks of
---fcntl(2) are not seen). A lock that is held is replaced. Gives the file; with `wait = false` false if
---somebody else has it. It is asked for again and again, so no thread hangs in it. Closing unlocks.
---@param mode? "exclusive"|"shared"
---@param options? {wait: boolean}
---@return asynctask.Task
function native.File:lock(mode, options)
  if mode ~= nil and mode ~= "exclusive" and mode ~= "shared" then
    error(("bad argument #1 to 'lock' (invalid mode '%s')"):format(tostring(mode)), 2)
  end
  local o = walk.check_options("lock", options, { wait = "boolean" })
  if o.wait == false then
    return start(function()
      return await(self:try_lock(mode == "shared")) and self
    end)
  end
  return start(lock, self, mode == "shared")
end

---@class asynctask.WalkOptions
---@field depth? integer how far down; 1: the directory itself only
---@field order? "pre"|"post" directories before what is in them (none given), or after it
---@field follow? boolean follow symbolic links; a directory inside itself is given with an error (ELOOP)
---@field stat? boolean entries carry all of `asynctask.Stat`
---@field filter? fun(path: string, entry: asynctask.Entry): boolean? false leaves it out, and what is in it

---Iterates over everything below a directory: `for path, entry in fs.walk(dir) do`. The names of one
---directory come in the order of their bytes. An entry that cannot be read is given with
---`entry.error`, and the walk goes on; the error of the root is raised.
---@type fun(path: string, options?: asynctask.WalkOptions): asynctask.Iterator, nil, nil, asynctask.Iterator
fs.walk = walk.walk

---Iterates over one directory in the system's order, a part at a time: `for name, entry in
---fs.dir(path) do`. The entries "." and ".." are left out.
---@type fun(path: string, options?: {stat: boolean}): asynctask.Iterator, nil, nil, asynctask.Iterator
fs.dir = walk.dir

---What happened: to `path`, which begins with the path that is watched.
---@class asynctask.WatchEvent
---@field type "create"|"change"|"remove"|"rename"|"overflow"|"error"
---@field path string of an overflow: the path that is watched
---@field from? string of a rename: the old path
---@field error? asynctask.Error why a directory below cannot be watched

---@class asynctask.WatchOptions
---@field recursive? boolean what is below the directories in it, too, those that are made later included
---@field debounce? number seconds of rest after which what happened is told, once for each path

---Iterates over what changes in a directory, or to a file: `for event in fs.watch(path) do`. Watches from this
---call until the loop is left. Overflow: events were lost, look for yourself. Linux: inotify(7).
---@type fun(path: string, options?: asynctask.WatchOptions): asynctask.Iterator, nil, nil, asynctask.Iterator
fs.watch = watch.watch

return fs
