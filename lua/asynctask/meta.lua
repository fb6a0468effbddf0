-- meta.lua - what C registers, for language servers (LuaCATS). Nothing loads this file; `make lint`
-- (tools/meta.lua) compares it with the functions that the built module has. The public functions of
-- each module are described where the module is; of those that `asynctask` takes over as they are,
-- this is the description.
---@meta asynctask.core

---An error of an operation (S22). `tostring(e)` reads like
---`open notes.txt: no such file or directory (ENOENT)`; `..` works.
---@class asynctask.Error
---@field code string "ENOENT", "ETIMEDOUT", "ECANCELED"...: the names of errno.h, EOF and EAI_* of libuv, EABANDONED
---@field message string
---@field op? string the operation: "open", "connect", "timeout"
---@field path? string
---@field address? string
---@field reason? any of a cancellation

---@alias asynctask.Status "pending"|"succeeded"|"faulted"|"cancelled"

---Work in the background. Made by operations, `spawn`, `run`, `when_all`...; settles once.
---`asynctask.Task<string>` is one whose first value is a string.
---@class asynctask.Task<T>
local Task = {}

---Waits for the task. The same as `task.await(t)`. Raises the error it failed with: the same value,
---whatever it is.
---@return T value its values
---@return any ...
function Task:await() end

---Waits for the task. The same as `task.try(t)`.
---@return T? value its values, or nil and its error
---@return any ...
function Task:try() end

---@return asynctask.Status
function Task:status() end

---@return boolean settled
function Task:done() end

---The values of a task that has succeeded. Raises the error of one that failed, and an error for
---one that is pending. Never waits.
---@return T value
---@return any ...
function Task:result() end

---The error of a task that failed, which counts as seen then.
---@return any error nothing for one that is pending or succeeded
function Task:error() end

---All errors, of `when_all` in the order of its arguments. They count as seen.
---@return any[] errors empty for one that is pending or succeeded
function Task:errors() end

---Cancels the task and what it owns. Never waits.
---@param reason? any the error's `reason`
---@return boolean took_effect false when it had settled or was cancelled before
function Task:cancel(reason) end

---Where the error was raised, and through which tasks it came.
---@return string? text nothing when there is none
function Task:traceback() end

---@return string? name the one that it was given
function Task:name() end

---Names the task, for reports, dumps and tracebacks.
---@param name string
---@return asynctask.Task<T> self
function Task:named(name) end

---A Task that its maker settles. Collected before that, it faults its task with EABANDONED (S14).
---@class asynctask.Source
---@field task asynctask.Task
local Source = {}

---@param ... any the values
---@return boolean took_effect
function Source:set_result(...) end

---@param err any
---@return boolean took_effect
function Source:set_error(err) end

---@param reason? any
---@return boolean took_effect
function Source:set_cancelled(reason) end

---A switch that cancels whatever runs under it (`task.cancellation`).
---@class asynctask.Cancellation
local Cancellation = {}

---@param reason? any the error's `reason`
---@return boolean took_effect false when it was cancelled before
function Cancellation:cancel(reason) end

---Cancels it later. A second call replaces the first.
---@param seconds number
function Cancellation:cancel_after(seconds) end

---@return boolean
function Cancellation:is_cancelled() end

---Raises the cancellation if there is one.
function Cancellation:check() end

---Runs `f` in a scope that the source cancels.
---@param f fun(...): ...
---@param ... any
---@return any ... results of `f`
function Cancellation:with(f, ...) end

---Has `f(reason)` called, as a task from the queue, when the source is cancelled, or soon if it is.
---@param f fun(reason: any)
---@return asynctask.Registration
function Cancellation:on_cancel(f) end

---What `on_cancel` gives; a value for `<close>`.
---@class asynctask.Registration
local Registration = {}

---Takes it back: the function is not called any more.
function Registration:close() end

---A variable whose value belongs to the task that runs (`task.local_value`).
---@class asynctask.Local
local Local = {}

---@return any value of the running task, or the default
function Local:get() end

---Runs `f` with the variable set. Tasks that are started meanwhile inherit it.
---@param value any
---@param f fun(...): ...
---@param ... any
---@return any ... results of `f`
function Local:with(value, f, ...) end

---Tasks that end together (`task.with_group`, `task.group`). `run`, `thread` and `wait` are in Lua.
---@class asynctask.Group
local Group = {}

---Starts a member; never waits. With `limit`, it is queued while as many run.
---@generic T
---@param f fun(...): T
---@param ... any
---@return asynctask.Task<T>
function Group:spawn(f, ...) end

---Makes a task a member, whoever owned it.
---@generic T: asynctask.Task
---@param t T
---@return T
function Group:add(t) end

---Cancels the members and spares the body.
---@param reason? any
function Group:cancel(reason) end

---@return integer members that are pending
function Group:count() end

---@return any[] errors of the members that faulted, in the order of settling
function Group:errors() end

---@return asynctask.Task? member the first that faulted
function Group:fault() end

---@return asynctask.Task task settles when no member is pending, and no call of `on_error`
function Group:idle() end

---@return integer? limit members that run at once
function Group:limit() end

---Leaves the group's scope.
---@param err any what the body failed with
---@return boolean interrupted whether that is the group's own interruption
function Group:leave(err) end

---For `__close`: whether nobody called it, since the thread is being closed.
---@return boolean
function Group:orphaned() end

---Lets the group be collected: its faults have been raised.
function Group:release() end

---Behind `task.when_each`.
---@class asynctask.Each
local Each = {}

---@return asynctask.Task next gives a settled task and its key; nothing at the end
function Each:next() end

---Lets go of the tasks that it has not visited.
function Each:close() end

-- ---- asynctask.core: the functions that `asynctask` is built from --------------------------------

---@class asynctask.core
---@field Task asynctask.Task the methods of tasks, to which the Lua face adds its own
---@field Group table the metatable of groups, to which the Lua face adds its own
local core = {}

---Waits for a task; on the main chunk by running the loop. Raises the error it failed with, the
---cancellation of a scope around the call, or "deadlock"; and an error where Lua cannot yield (S17).
---@generic T
---@param t asynctask.Task<T> a Task, or a value whose metatable has `__await`
---@return T value its values
---@return any ...
function core.await(t) end

---As `await`, but gives the task's own failure back.
---@generic T
---@param t asynctask.Task<T>
---@return T? value its values, or nil and its error
---@return any ...
function core.try(t) end

---Waits until a task has settled, whatever its outcome, which does not count as seen.
---@param t asynctask.Task
function core.wait(t) end

---Starts a task at once, on this thread (S1). It belongs to nobody.
---@generic T
---@param f fun(...): T
---@param ... any
---@return asynctask.Task<T>
function core.spawn(f, ...) end

---As `spawn`; the task belongs to the running scope.
---@generic T
---@param f fun(...): T
---@param ... any
---@return asynctask.Task<T>
function core.start(f, ...) end

---As `start`, but from the ready queue.
---@generic T
---@param f fun(...): T
---@param ... any
---@return asynctask.Task<T>
function core.post(f, ...) end

---A function that starts `f` with its arguments and returns the Task, which belongs to the caller's scope.
---@generic T
---@param f fun(...): T
---@return fun(...): asynctask.Task<T>
function core.async(f) end

---A Task that settles at the next turn. Uses no timer.
---@return asynctask.Task
function core.yield() end

---@return asynctask.Task? task the one that runs; nil on the main chunk
function core.current() end

---A Task that settles after a time, never before (S23).
---@generic T
---@param seconds number at least 0; `math.huge` is never
---@param value? T
---@param ... any its values
---@return asynctask.Task<T>
function core.delay(seconds, value, ...) end

---When it will be so many seconds from now, exactly.
---@param seconds number
---@return integer due nanoseconds on the runtime's clock
function core.due(seconds) end

---A Task that settles when the runtime's clock has got there.
---@param due number whole nanoseconds, as `due` gives, or seconds (a float), as `now` gives
---@return asynctask.Task
function core.delay_until(due) end

---@return number seconds on the runtime's monotonic clock
function core.now() end

---Chooses the clock that delays and deadlines follow; those that are pending keep the time that is left to
---them.
---@param mode "real"|"virtual"|"auto" auto: virtual, and jumps when the loop would block for a delay only
function core.clock(mode) end

---Moves a virtual clock to the next due time, as far as `due` at most.
---@param due integer nanoseconds, as `due` gives
---@return boolean due whether something became due
function core.advance(due) end

---Runs `f` under a deadline (S11). Raises ETIMEDOUT past it.
---@param seconds number
---@param f fun(...): ...
---@param ... any
---@return any ... results of `f`
function core.with_timeout(seconds, f, ...) end

---Runs `f` with cancellation from outside held off.
---@param f fun(...): ...
---@param ... any
---@return any ... results of `f`
function core.shield(f, ...) end

---As Lua's, but lets cancellations through that are aimed at a scope around the call (S9).
---@param f fun(...): ...
---@param ... any
---@return boolean ok
---@return any ... results of `f`, or the error
function core.pcall(f, ...) end

---@return asynctask.Error? error the one that is aimed at the running scope
function core.cancelling() end

---@param err any
---@return boolean
function core.is_cancelled(err) end

---@param v any
---@return boolean
function core.is_task(v) end

---@param t asynctask.Task
---@return boolean owned whether the running scope owns it
function core.owned(t) end

---Makes an error object (S22) out of a table with `code` and what else is known.
---@param fields table
---@return asynctask.Error
function core.error(fields) end

---A Task that the caller settles.
---@param on_cancel? fun(reason: any) called, as a task, when the source's task is cancelled
---@return asynctask.Source
function core.source(on_cancel) end

---@generic T
---@param value? T
---@param ... any
---@return asynctask.Task<T> succeeded
function core.from_result(value, ...) end

---@param err any
---@return asynctask.Task faulted
function core.from_error(err) end

---@param reason? any
---@return asynctask.Task cancelled
function core.from_cancelled(reason) end

---A Task that settles when all have (S6).
---@param ... asynctask.Task|table<any, asynctask.Task> tasks, or one table of them
---@return asynctask.Task values the first value of each; for a table one table, keys kept, `n` set for sequences
function core.when_all(...) end

---A Task that succeeds with the first that settles, and its key (S7).
---@param ... asynctask.Task|table<any, asynctask.Task> tasks, or one table of them, not empty
---@return asynctask.Task
function core.when_any(...) end

---@param ... asynctask.Task|table<any, asynctask.Task>
---@return asynctask.Each
function core.each(...) end

---A source of cancellation.
---@param ... asynctask.Cancellation parents: the first of them to be cancelled cancels it
---@return asynctask.Cancellation
function core.cancellation(...) end

---A group; its scope is entered. `task.group` checks the arguments.
---@param limit? integer members that run at once
---@param on_error? fun(err: any, t: asynctask.Task)
---@return asynctask.Group
function core.group(limit, on_error) end

---A task-local variable.
---@param default? any
---@return asynctask.Local
function core.local_value(default) end

---Switches debugging on or off: while it is on, tasks that are started are named by the place of the call
---("spawned at f.lua:12"), in reports, tracebacks and dumps, until they are given another name.
---@param on? boolean none: leave it as it is
---@return boolean before
function core.debug(on) end

---Sets who is told of faults that nobody looked at (S15). Runs as a task.
---@param f? fun(err: any, traceback: string) nil: write them to standard error
---@return function? previous
function core.on_unobserved(f) end

---@return integer count of faults that nobody has looked at since the runtime began
function core.unobserved() end

---@return { task: asynctask.Task, name: string, state: string, waits_for: string, where: string }[] tasks that live
function core.tasks() end

---@return string text who waits for what, and where, a line each
function core.dump() end

---@return boolean ready whether anything but the caller could run now
function core.ready() end

---Counts, for monitoring.
---@class asynctask.Stats
---@field tasks integer coroutine tasks that live
---@field coroutines integer that exist
---@field idle_coroutines integer of these, kept for reuse
---@field delays integer pending, deadlines included
---@field external_operations integer under way on other threads
---@field unobserved integer faults that nobody has looked at so far
---@field reported integer faults that were reported

---@return asynctask.Stats
function core.stats() end

---What is alive in this runtime.
---@return { tasks: integer, timers: integer, externals: integer, handles: integer, unobserved: integer }
function core.census() end

-- ---- asynctask.core.loop: asynctask.loop ---------------------------------------------------------

---@class asynctask.core.loop
local loops = {}

---@param budget? number seconds of work; 0: one task; negative: until nothing is ready
---@return boolean more is ready
function loops.step(budget) end

---@param seconds? number negative: no limit
---@return boolean more is still to be waited for
function loops.run(seconds) end

---@return integer? fd readable when `step` has something to do
function loops.fd() end

---@return number? seconds nil: until the descriptor is readable
function loops.timeout() end

---@return boolean alive
function loops.alive() end

---@param on boolean the host drives: an await on the main chunk raises
---@return boolean before
function loops.drive(on) end

-- ---- asynctask.core.channel: behind asynctask.channel --------------------------------------------

---@class asynctask.core.channel
local channels = {}

---@param capacity integer values that it holds at most; 0: a receiver has to be there
---@param overflow? "wait"|"drop_oldest"|"drop_newest"|"error" what a send into a full channel does
---@return asynctask.Channel
function channels.new(capacity, overflow) end

---Receives from the first channel that has a value, or sends into the first that takes it.
---@param ... asynctask.Channel|{ [1]: asynctask.Channel, [2]: any } to receive from; to send into, with the value
---@return asynctask.Task branch the channel and, for a receive, the value
function channels.select(...) end

---Values from task to task in one state, by reference, first come first served.
---@class asynctask.Channel
local Channel = {}

---@param value any not nil
---@return asynctask.Task task settles when the channel has taken it
function Channel:send(value) end

---@return asynctask.Task value nil when the channel is closed and drained
function Channel:receive() end

---@param value any not nil
---@return boolean taken
function Channel:try_send(value) end

---@return any value or nil
---@return "empty"|"closed"|nil why there is none
function Channel:try_receive() end

---Senders fail from now on; receivers get what is left, then nil, or the error.
---@param err? any
function Channel:close(err) end

---@return boolean
function Channel:is_closed() end

---A channel between tasks on any threads (`channel.shared`). Values are copied.
---@class asynctask.SharedChannel
local SharedChannel = {}

---@param value any not nil; one that cannot be copied raises
---@return asynctask.Task task settles when the channel has taken it; faults with EPIPE when it is closed
function SharedChannel:send(value) end

---@return asynctask.Task value nil when the channel is closed and drained
function SharedChannel:receive() end

---@param value any not nil
---@return boolean taken
function SharedChannel:try_send(value) end

---@return any value or nil
---@return "empty"|"closed"|nil why there is none
function SharedChannel:try_receive() end

---Senders fail from now on, on every thread; receivers get what is left, then nil, or the error.
---@param err? any
function SharedChannel:close(err) end

---@return boolean
function SharedChannel:is_closed() end

---@class asynctask.core.sharedchannel
local sharedchannels = {}

---@param capacity? integer values that it holds at most; 0: a receiver has to be there
---@return asynctask.SharedChannel
function sharedchannels.new(capacity) end

-- ---- asynctask.core.array: asynctask.array -------------------------------------------------------

---An array of numbers that every state of the process may show. `#a`, `a[i]`, `pairs(a)`, `a == b`.
---@class asynctask.Array
---@field [integer] number
local Array = {}

---@return asynctask.ElementType
function Array:type() end

---The elements from `first` to `last` (negative: counted from the end), in the same memory.
---@param first integer
---@param last? integer default: the end
---@return asynctask.Array
function Array:slice(first, last) end

---@return asynctask.Array copy with memory of its own
function Array:copy() end

---@param value number
---@return asynctask.Array self
function Array:fill(value) end

---@param source asynctask.Array|number[]|string of the same type, of the same length; or the bytes
---@return asynctask.Array self
function Array:assign(source) end

---@return number sum integers wrap around
function Array:sum() end

---@return number? least nil when there is none; NaN does not count
---@return integer? index
function Array:min() end

---@return number? greatest nil when there is none; NaN does not count
---@return integer? index
function Array:max() end

---Sorts in place, ascending, NaN last.
---@return asynctask.Array self
function Array:sort() end

---@return string bytes in this machine's order
function Array:to_string() end

---@return number[]
function Array:to_list() end

---Adds in one step among all threads. Integers only; wraps around.
---@param i integer
---@param n? integer default 1
---@return integer value the new one
function Array:add(i, n) end

---@param i integer
---@param value integer
---@return integer value the old one
function Array:exchange(i, value) end

---@param i integer
---@param expected integer
---@param value integer what the element becomes if it is `expected`
---@return boolean done
---@return integer found
function Array:compare_exchange(i, expected, value) end

---@class asynctask.core.array
local arrays = {}

---@param type asynctask.ElementType
---@param length integer
---@param value? number of each element; default 0
---@return asynctask.Array
function arrays.new(type, length, value) end

---@param type asynctask.ElementType
---@param list number[]
---@return asynctask.Array
function arrays.from_list(type, list) end

---@param type asynctask.ElementType
---@param bytes string whole elements, in this machine's order of bytes
---@return asynctask.Array
function arrays.from_string(type, bytes) end

---Permits and those who wait for them, first come first served. Behind asynctask.sync.
---@class asynctask.WaitQueue
local WaitQueue = {}

---@param guard? any what the Task gives
---@param wants? integer permits, default 1
---@return asynctask.Task guard
function WaitQueue:acquire(guard, wants) end

---Never waits, never overtakes.
---@param wants? integer
---@return boolean taken
function WaitQueue:try_acquire(wants) end

---@param n? integer permits, default 1: first to those who wait
function WaitQueue:release(n) end

---Lets all who wait go on; the permits stay as they are.
---@return integer waiters
function WaitQueue:wake_all() end

---@return integer
function WaitQueue:permits() end

---@param permits? integer default 0
---@return asynctask.WaitQueue
function core.waitqueue(permits) end

-- ---- asynctask.core.coroutine: behind asynctask.coroutine ----------------------------------------

---@class asynctask.core.coroutine
local co = {}

---As `coroutine.resume`; an await inside `thread` makes the whole task wait.
---@param thread thread
---@param ... any
---@return boolean ok
---@return any ...
function co.resume(thread, ...) end

---As `coroutine.wrap`.
---@param f fun(...): ...
---@return fun(...): ...
function co.wrap(f) end

---As `coroutine.status`; "normal" for one that waits for a task: it is not to be resumed.
---@param thread thread
---@return "running"|"suspended"|"normal"|"dead"
function co.status(thread) end

---As `coroutine.close`; refuses one that waits for a task.
---@param thread thread
---@return boolean ok
---@return any error
function co.close(thread) end

-- ---- asynctask.core.fs ---------------------------------------------------------------------------
-- Each gives a Task that faults with the system's code, `op` and `path`. Sizes and positions are in
-- bytes, times in seconds since the epoch, permissions are the bits of chmod(2).

---@class asynctask.core.fs
local fs = {}

---@param path string
---@param mode? string as `io.open`: "r" (default), "w", "a", "r+", "w+", "a+", with or without "b"
---@param options? { permissions?: integer, beneath?: string } permissions of a file that is made (default 0666
---less the umask); a directory in which the path begins and which it cannot leave (EXDEV)
---@return asynctask.Task file an `asynctask.File`
function fs.open(path, mode, options) end

---The whole file in one trip, whatever size it reports.
---@param path string
---@return asynctask.Task contents a string
function fs.read_file(path) end

---@param path string
---@param data string|number
---@param options? { permissions?: integer, atomic?: boolean } atomic: a temporary file takes its place
---@return asynctask.Task
function fs.write_file(path, data, options) end

---@param path string
---@param data string|number
---@param options? { permissions?: integer }
---@return asynctask.Task
function fs.append_file(path, data, options) end

---Iterates over a file; opens it at the first round, closes it when the loop is left.
---@param path string
---@param ... asynctask.Format of `read`; none: "l"
---@return asynctask.Lines
function fs.lines(path, ...) end

---@param path string
---@return asynctask.Task stat an `asynctask.Stat`
function fs.stat(path) end

---As `stat`, but of a symbolic link itself.
---@param path string
---@return asynctask.Task stat an `asynctask.Stat`
function fs.lstat(path) end

---@param path string
---@return asynctask.Task exists a boolean
function fs.exists(path) end

---@param path string
---@param options? { parents?: boolean, permissions?: integer }
---@return asynctask.Task
function fs.mkdir(path, options) end

---Removes a file, a link or an empty directory; with `recursive` what is in it, too.
---@param path string
---@param options? { recursive?: boolean }
---@return asynctask.Task
function fs.remove(path, options) end

---@param from string
---@param to string
---@return asynctask.Task
function fs.rename(from, to) end

---@param from string
---@param to string
---@param options? { exclusive?: boolean } exclusive: EEXIST when `to` exists
---@return asynctask.Task
function fs.copy(from, to, options) end

---@param target string
---@param path string the new name
---@return asynctask.Task
function fs.link(target, path) end

---@param target string
---@param path string the link
---@return asynctask.Task
function fs.symlink(target, path) end

---@param path string
---@return asynctask.Task target a string
function fs.readlink(path) end

---@param path string
---@return asynctask.Task path absolute, without links
function fs.realpath(path) end

---@param path string
---@param permissions integer
---@return asynctask.Task
function fs.chmod(path, permissions) end

---@param path string
---@param uid? integer nil: as it is
---@param gid? integer
---@param options? { follow?: boolean } false: of a link itself
---@return asynctask.Task
function fs.chown(path, uid, gid, options) end

---@param path string
---@param atime? number nil: now
---@param mtime? number
---@param options? { follow?: boolean } false: of a link itself
---@return asynctask.Task
function fs.utime(path, atime, mtime, options) end

---@param path string
---@return asynctask.Task statfs an `asynctask.Statfs`
function fs.statfs(path) end

---@param pattern string
---@return asynctask.Task paths a list, in the order of their bytes
function fs.glob(pattern) end

---Sets the size of the process' pool of threads for calls that block.
---@param n? integer 1 to 256; nil: as it is
---@return integer n
function fs.threads(n) end

---@param path string
---@param size integer
---@return asynctask.Task
function fs.truncate(path, size) end

---Makes a directory that only its owner may enter.
---@param prefix? string
---@return asynctask.Task path a string
function fs.mkdtemp(prefix) end

---@param directory? string default: the system's temporary one
---@return asynctask.Task file an `asynctask.File` without a name
function fs.tmpfile(directory) end

---Behind `fs.dir` and `fs.walk`, which check the arguments.
---@param path string
---@param stream boolean
---@param follow boolean?
---@param stat boolean?
---@param depth integer?
---@param post boolean? directories after what is in them: they come twice, `entering` true and false
---@return asynctask.Walker
function fs.walker(path, stream, follow, stat, depth, post) end

---Behind `fs.watch`. Watches from now on; what it cannot watch faults its first read.
---@param path string
---@param recursive boolean?
---@return asynctask.Watcher
function fs.watcher(path, recursive) end

---An open file. Its operations run one after another, in the order in which they were started.
---@class asynctask.File
local File = {}

---@param ... asynctask.Format none: "l"
---@return asynctask.Task values as `file:read` of `io` gives them; nil at the end
function File:read(...) end

---@param ... string|number
---@return asynctask.Task file
function File:write(...) end

---@param offset integer
---@param count integer
---@return asynctask.Task bytes nil at the end; the position stays
function File:read_at(offset, count) end

---@param offset integer
---@param ... string|number
---@return asynctask.Task file
function File:write_at(offset, ...) end

---Behind `file:lock`, which the Lua face adds: tries once.
---@param shared boolean
---@return asynctask.Task got
function File:try_lock(shared) end

---@return asynctask.Task file
function File:unlock() end

---Reads as `read` does, again and again; leaves the file open.
---@param ... asynctask.Format
---@return asynctask.Lines
function File:lines(...) end

---@param whence? "set"|"cur"|"end" default "cur"
---@param offset? integer default 0
---@return asynctask.Task position
function File:seek(whence, offset) end

---@param size? integer default: the position
---@return asynctask.Task file
function File:truncate(size) end

---@return asynctask.Task file once the system has stored it (fsync)
function File:sync() end

---@return asynctask.Task file as `sync`, without the times (fdatasync)
function File:datasync() end

---@return asynctask.Task stat an `asynctask.Stat`
function File:stat() end

---As a stream's: what one call of the system gives.
---@param max? integer bytes (64 KiB)
---@return asynctask.Task data nil at the end
function File:read_some(max) end

---@param delimiter string not empty
---@param options? { max?: integer, keep?: boolean } max: bytes before it (16 MiB), more is EMSGSIZE
---@return asynctask.Task data what stands before the delimiter, or what is left at the end, or nil
function File:read_until(delimiter, options) end

---@param position integer bytes from the beginning
---@param count integer bytes at most
---@return asynctask.Task data a string; nil at the end
function File:read_at(position, count) end

---@param position integer bytes from the beginning
---@param ... string|number
---@return asynctask.Task file
function File:write_at(position, ...) end

---Tries to lock the file (advisory). Never waits for whoever holds it.
---@param shared? boolean beside others that share it
---@return asynctask.Task locked a boolean
function File:try_lock(shared) end

---@return asynctask.Task file
function File:unlock() end

---Waits for what was started before. Closes in cancelled scopes, too.
---@return asynctask.Task
function File:close() end

---@class asynctask.Lines
---@overload fun(): ...
local Lines = {}

---@return asynctask.Task values nil at the end
function Lines:next() end

---@return asynctask.Task
function Lines:close() end

---@class asynctask.Walker
local Walker = {}

---@param prune? table
---@return asynctask.Task batch
function Walker:read(prune) end

function Walker:close() end

---@class asynctask.Watcher
local Watcher = {}

---@return asynctask.Task events a list of `asynctask.WatchEvent` and its length; nil at the end
function Watcher:read() end

---What has come, without waiting: a list and its length, or nil.
---@return asynctask.WatchEvent[]? events
---@return integer? count
function Watcher:take() end

function Watcher:close() end

-- ---- asynctask.core.net --------------------------------------------------------------------------
-- Addresses are numeric here; asynctask.net resolves names. Faults carry `address`.

---@class asynctask.core.net
local net = {}

---@param host string|{ path: string }
---@param port? integer
---@param options? { local_address?: string, local_port?: integer, nodelay?: boolean, keepalive?: integer,
---fastopen?: boolean }
---keepalive: seconds, 0: the system's
---@return asynctask.Task stream an `asynctask.Stream`
function net.connect(host, port, options) end

---@param host string|{ path: string }
---@param port? integer 0: the system chooses
---@param options? { backlog?: integer, reuseport?: boolean, ipv6only?: boolean, fastopen?: integer }
---@return asynctask.Task server an `asynctask.Server`
function net.listen(host, port, options) end

---@param fd integer a descriptor that listens; the server's from then on
---@return asynctask.Task server an `asynctask.Server`
function net.listen_fd(fd) end

---What a service manager has passed (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES), from descriptor 3 on.
---@return integer count
---@return string? names separated by colons
function net.inherited() end

---@return asynctask.Task streams two, connected to each other
function net.pair() end

---@param options? { mark?: integer } bytes that wait to be read before a push waits (64 KiB)
---@return asynctask.Feed feed both ends in one
function net.feed(options) end

---@param host string
---@param options? { family?: "any"|"ipv4"|"ipv6", service?: string }
---@return asynctask.Task addresses list of `{host=, family=, port=}`, the port with a service only
function net.resolve(host, options) end

---@param host string numeric
---@param port? integer
---@return asynctask.Task names two: host, service
function net.lookup(host, port) end

---@param host string
---@return boolean numeric no name that has to be resolved
function net.is_numeric(host) end

---What gethostbyname and gethostbyaddr say of a host (IPv4).
---@param host string name or address
---@return asynctask.Task entry `{name=, alias={...}, ip={...}}`
function net.host_entry(host) end

---@return asynctask.Udp socket without descriptor: what is done first chooses IPv4 or IPv6
function net.udp() end

---Leaves a copy of a descriptor for another runtime of this process.
---@param fd integer
---@return asynctask.Deposit? deposit
---@return asynctask.Error? error
function net.deposit(fd) end

---@param token integer of a deposit, on any thread
---@return asynctask.Task object an `asynctask.Stream`, `asynctask.Server` or `asynctask.Udp`; EBADF when it is gone
function net.collect(token) end

---@class asynctask.Deposit
local Deposit = {}

---@return integer token 0 once closed
function Deposit:token() end

---Takes it back, if nobody has collected it.
function Deposit:close() end

---A stream of bytes in both directions: a TCP or Unix socket, or one end of a pair. One task reads at
---a time (else EBUSY); any number may write, whole writes leave in order.
---@class asynctask.Stream
local Stream = {}

---As `file:read` of `io` (Lua manual, section 6.8): all values are there, or the stream has ended.
---@param ... "l"|"L"|"n"|"a"|integer none: "l"; a line of more than 16 MiB is EMSGSIZE
---@return asynctask.Task values nil at the end; faults with ECONNRESET and the like, EBADF once closed
function Stream:read(...) end

---@param max? integer bytes (64 KiB)
---@return asynctask.Task data what is there, at least a byte; nil at the end
function Stream:read_some(max) end

---@param delimiter string not empty
---@param options? { max?: integer, keep?: boolean } max: bytes before it (16 MiB), more is EMSGSIZE
---and loses nothing; keep: the delimiter is part of the data
---@return asynctask.Task data what stands before the delimiter, or what is left at the end, or nil
function Stream:read_until(delimiter, options) end

---Tried at once, else queued. Cancelled before its turn it did not happen, half-written it closes
---the stream (S10).
---@param ... string|number
---@return asynctask.Task task settles when it is out, or less than 64 KiB up to its end are queued;
---faults with EPIPE or ECONNRESET when the peer went away
function Stream:write(...) end

---No more will be written: the peer reads the end after what is queued. Reading goes on.
---@return asynctask.Task
function Stream:shutdown() end

---Closes when what was written is out, at once if nothing is queued, or when the peer takes nothing
---for 5 s. Closing twice is fine; closes in cancelled scopes, too; cancelled, it closes at once.
---@return asynctask.Task
function Stream:close() end

---@return { host?: string, port?: integer, family?: "ipv4"|"ipv6", path?: string }? address
---@return asynctask.Error? error
function Stream:sockname() end

---@return { host?: string, port?: integer, family?: "ipv4"|"ipv6", path?: string }? address
---@return asynctask.Error? error
function Stream:peername() end

---Whether small writes go out at once (TCP_NODELAY); on from the start.
---@param on? boolean default true
---@return true? done
---@return asynctask.Error? error
function Stream:nodelay(on) end

---@param on? boolean default true
---@param seconds? number idle time before the first probe; none: the system's
---@return true? done
---@return asynctask.Error? error
function Stream:keepalive(on, seconds) end

---The system's buffer for what is on its way; it may choose another size than asked for.
---@param bytes? integer
---@return integer? bytes
---@return asynctask.Error? error
function Stream:send_buffer_size(bytes) end

---@param bytes? integer
---@return integer? bytes
---@return asynctask.Error? error
function Stream:recv_buffer_size(bytes) end

---Sends a copy of a handle over a Unix socket or one of a pair, in its turn among the writes. The handle stays
---open here.
---@param other asynctask.Stream|asynctask.Server|asynctask.Udp
---@return asynctask.Task task faults with ENOTSUP on a stream of another kind
function Stream:send_handle(other) end

---The next handle that the peer has sent. Handles travel beside the bytes: reads do not see them.
---@return asynctask.Task handle an `asynctask.Stream`, `asynctask.Server` or `asynctask.Udp`; nil at the end
function Stream:receive_handle() end

---@return integer? fd nil once closed
function Stream:fd() end

---A readable stream whose bytes come from Lua code, or from a library through the C API, not from a descriptor.
---`lines`, `pipe_to` and closing at the end of a scope are as of an `asynctask.Stream`.
---@class asynctask.Feed
local Feed = {}

---@param ... "l"|"L"|"n"|"a"|integer none: "l"; a line of more than 16 MiB is EMSGSIZE
---@return asynctask.Task values nil at the end; faults with the error of `finish`, EBADF once closed
function Feed:read(...) end

---@param max? integer bytes (64 KiB)
---@return asynctask.Task data what is there, at least a byte; nil at the end
function Feed:read_some(max) end

---@param delimiter string not empty
---@param options? { max?: integer, keep?: boolean } as for `Stream:read_until`
---@return asynctask.Task data what stands before the delimiter, or what is left at the end, or nil
function Feed:read_until(delimiter, options) end

---The reader is done: what was not read is dropped, pushes fault with EPIPE. Closing twice is fine.
---@return asynctask.Task
function Feed:close() end

---@return boolean
function Feed:closed() end

---The producer's side: whether a read waits for more than has been pushed.
---@return boolean
function Feed:wanted() end

---The producer's side: appends the bytes, always whole and in the order of the calls. Await the Task, and a slow
---reader slows its producer down. The bytes are there when the call returns: cancelling the Task only stops waiting.
---@param ... string|number
---@return asynctask.Task task settles when a reader waits, or less than the mark up to their end is left to be read;
---faults with EPIPE when the feed was closed or finished. Raises for a feed whose bytes come from C, as `finish` does
function Feed:push(...) end

---The producer's side: no more bytes come. Once all is read, reads give nil, or fault with the error. The first
---call counts.
---@param err? any
function Feed:finish(err) end

---@class asynctask.Server
local Server = {}

---The next connection. A cancelled accept loses none; out of descriptors, it waits for some.
---@return asynctask.Task stream an `asynctask.Stream`; EBADF when the server stops
function Server:accept() end

---@return { host?: string, port?: integer, family?: "ipv4"|"ipv6", path?: string }? address
---@return asynctask.Error? error
function Server:sockname() end

---Takes no more connections, at once: the first half of `close`.
function Server:stop() end

---@return boolean
function Server:stopped() end

---@return integer? fd nil once stopped
function Server:fd() end

---A datagram socket. Hosts are numeric here; asynctask.net resolves names.
---@class asynctask.Udp
local Udp = {}

---@param host string
---@param port integer
---@param options? { reuseaddr?: boolean, reuseport?: boolean, ipv6only?: boolean }
---@return asynctask.Task
function Udp:bind(host, port, options) end

---@param host? string none: connected no longer
---@param port? integer
---@return asynctask.Task
function Udp:connect(host, port) end

---Cancelled before its turn it did not happen.
---@param data string
---@param host? string none on a connected socket
---@param port? integer
---@return asynctask.Task
function Udp:send(data, host, port) end

---The next datagram. A cancelled receive loses none (S10).
---@return asynctask.Task datagram two values: data and `{host=, port=, family=}`
function Udp:receive() end

---A datagram if one is there now.
---@return string? data
---@return { host: string, port: integer, family: string }|asynctask.Error|nil from
function Udp:try_receive() end

---@return asynctask.Task
function Udp:close() end

---@return { host: string, port: integer, family: string }? address
---@return asynctask.Error? error
function Udp:sockname() end

---@return { host: string, port: integer, family: string }? address
---@return asynctask.Error? error
function Udp:peername() end

---@return integer? fd nil before the first use, and once closed
function Udp:fd() end

---@param on? boolean default true
---@return true? done
---@return asynctask.Error? error
function Udp:broadcast(on) end

---@param hops integer 0 to 255
---@return true? done
---@return asynctask.Error? error
function Udp:ttl(hops) end

---@param hops integer 0 to 255
---@return true? done
---@return asynctask.Error? error
function Udp:multicast_ttl(hops) end

---Whether this machine gets its own multicasts.
---@param on? boolean default true
---@return true? done
---@return asynctask.Error? error
function Udp:multicast_loop(on) end

---@param interface string name, or (IPv4) an address of it
---@return true? done
---@return asynctask.Error? error
function Udp:multicast_interface(interface) end

---@param group string numeric address
---@param interface? string name, or (IPv4) an address of it; none: the system's choice
---@return true? done
---@return asynctask.Error? error
function Udp:join(group, interface) end

---@param group string
---@param interface? string
---@return true? done
---@return asynctask.Error? error
function Udp:leave(group, interface) end

---@param bytes? integer
---@return integer? bytes
---@return asynctask.Error? error
function Udp:send_buffer_size(bytes) end

---@param bytes? integer
---@return integer? bytes
---@return asynctask.Error? error
function Udp:recv_buffer_size(bytes) end

-- ---- asynctask.core.socket -----------------------------------------------------------------------
-- What asynctask.socket is built on: a descriptor, calls that never block, and waiting. A call gives its
-- result; or false when it would have to wait; or nil and LuaSocket's words. Addresses are the strings that
-- `addresses` makes, or paths.

---@class asynctask.core.socket
local socket = {}

---@param name string
---@return table metatable of a class of sockets
function socket.class(name) end

---@param metatable table of `class`
---@param what "tcp"|"udp"|"unixstream"|"unixdgram" decides which options it has
---@param state any
---@return userdata socket without descriptor
function socket.new(metatable, what, state) end

---@param value any
---@return any state that `new` was given; nil for what is no socket
function socket.state(value) end

---@param object userdata
---@param metatable table
function socket.retype(object, metatable) end

---Never waits; what waits for the socket ends.
---@param object userdata
function socket.close(object) end

---@param object userdata
---@return number fd -1: none
function socket.getfd(object) end

---The descriptor that it had stays open.
---@param object userdata
---@param fd number below 0: none
function socket.setfd(object, fd) end

---@param object userdata has no descriptor then
---@return asynctask.Stream? stream that has its descriptor
---@return asynctask.Error? error
function socket.stream(object) end

---@param metatable table
---@param fd number anybody's
---@return userdata? socket with a copy of the descriptor, to wait for; nil: it is none
function socket.duplicate(metatable, fd) end

---@return number seconds since 1970
function socket.gettime() end

---@param object userdata
---@param events "r"|"w"|"rw"
---@return asynctask.Task open true once a call may succeed or fail; false when it is closed
function socket.ready(object, events) end

---@param sockets userdata[]
---@param events string[] for each
---@return asynctask.Task open true once one of them is ready, false when one is closed
function socket.ready_any(sockets, events) end

---@param fds number[]
---@param events string[] for each
---@return (string|false)[]? found for each the events that there are
---@return string? error
function socket.poll(fds, events) end

---@param host string? numeric; nil: every interface
---@param port string
---@param family "inet"|"inet6"|"unspec"
---@param datagram boolean
---@return string[]|false|nil list families and addresses in turn; false: a name is among them
---@return string? error
function socket.addresses(host, port, family, datagram) end

---@param object userdata without descriptor
---@param family "inet"|"inet6"|"unix"
---@return true? ok
---@return string? error
function socket.create(object, family) end

---@param object userdata
---@param address string
---@return true? ok
---@return string? error
function socket.bind(object, address) end

---@param object userdata
---@param backlog number
---@return true? ok
---@return string? error
function socket.listen(object, backlog) end

---@param object userdata
---@param address string? none: no longer, of datagrams
---@return boolean? done false: it has begun
---@return string? error
function socket.connect(object, address) end

---@param object userdata
---@return boolean? done
---@return string? error
function socket.connected(object) end

---@param server userdata
---@param object userdata without descriptor: has the connection's then
---@return boolean? done
---@return string? error
function socket.accept(server, object) end

---@param object userdata
---@param max number
---@return string|false|nil data
---@return string? error
function socket.recv(object, max) end

---@param object userdata
---@param max number
---@return string|false|nil data
---@return string? host or path, or the error
---@return integer? port
function socket.recvfrom(object, max) end

---@param object userdata
---@param data string
---@param first integer
---@param last integer
---@return integer|false|nil count
---@return string? error
function socket.send(object, data, first, last) end

---@param object userdata
---@param data string
---@param address string
---@return integer|false|nil count
---@return string? error
function socket.sendto(object, data, address) end

---@param object userdata
---@param how? "receive"|"send"|"both"
function socket.shutdown(object, how) end

---@param object userdata
---@return string? host or path
---@return integer|string|nil port or error
function socket.sockname(object) end

---@param object userdata
---@return string? host or path
---@return integer|string|nil port or error
function socket.peername(object) end

---@return string? name
---@return string? error
function socket.hostname() end

---A method of LuaSocket's objects.
---@param self userdata
---@param name string
---@return any value nil: failed, or "error" has none
---@return string? error
function socket.getoption(self, name) end

---A method of LuaSocket's objects.
---@param self userdata
---@param name string
---@param value any
---@return number? one
---@return string? error
function socket.setoption(self, name, value) end

-- ---- asynctask.core.signal -----------------------------------------------------------------------

---@class asynctask.core.signal
local signal = {}

---@param name string "SIGTERM"
---@return asynctask.Task name
function signal.wait(name) end

---Keeps what arrives between two waits.
---@param name string
---@param background? boolean waiting for it does not keep the loop alive (S16)
---@return asynctask.signal.Watch
function signal.watch(name, background) end

---@class asynctask.signal.Watch
local Watch = {}

---@return asynctask.Task name several signals since the last one count as one; nil once it is closed
function Watch:next() end

function Watch:close() end

-- ---- asynctask.core.process ----------------------------------------------------------------------
-- Arguments are checked by asynctask.process; nil is none.

---@class asynctask.core.process
local process = {}

---@param command string
---@param args? (string|number)[]
---@param env? table<string, string> all variables
---@param cwd? string
---@param uid? integer
---@param gid? integer
---@param detached? boolean in a session of its own; not ended when the state closes
---@param stdin any "pipe", "inherit", "ignore", a Stream, a File, a file of `io`, a descriptor
---@param stdout any
---@param stderr any or "stdout"
---@return asynctask.process.Handle|asynctask.Task handle or the Task of what was not begun
---@return integer? pid
---@return asynctask.Stream|false|nil stdin false: no pipe
---@return asynctask.Stream|false|nil stdout
---@return asynctask.Stream|false|nil stderr
function process.spawn(command, args, env, cwd, uid, gid, detached, stdin, stdout, stderr) end

---@return table<string, string> variables of this process, a copy
function process.environ() end

---@class asynctask.process.Handle
local Handle = {}

---@return asynctask.Task code and signal: exit code and nil, or nil and the signal's name
function Handle:wait() end

---@param which? string|integer "SIGTERM"
---@return asynctask.Task sent whether it was still there; runs in cancelled scopes, too
function Handle:kill(which) end

---@return boolean
function Handle:running() end

-- ---- asynctask.core.tty --------------------------------------------------------------------------

---@class asynctask.core.tty
local tty = {}

---@param fd integer 0, 1 or 2
---@return asynctask.Stream|asynctask.File? stream a File where it cannot be polled
---@return asynctask.Error? error
function tty.standard(fd) end

---@param path string
---@return asynctask.Stream? stream
---@return asynctask.Error? error ENOTTY when it is no terminal
function tty.open(path) end

---@param raw? boolean
---@return asynctask.Stream? master
---@return asynctask.Stream|asynctask.Error slave or the error
---@return string? name
function tty.pair(raw) end

---@param stream? asynctask.Stream|asynctask.File none: the first terminal among the standard descriptors
---@return asynctask.tty.Raw? guard
---@return asynctask.Error? error
function tty.raw(stream) end

---@param stream? asynctask.Stream|asynctask.File none: standard output, or as for `raw`
---@return integer? columns
---@return integer|asynctask.Error rows or the error
function tty.size(stream) end

---@param stream asynctask.Stream
---@param columns integer
---@param rows integer
---@return true? done
---@return asynctask.Error? error
function tty.resize(stream, columns, rows) end

---@class asynctask.tty.Raw
local Raw = {}

---Puts the terminal back as it was, when it is the last one. Closing twice is fine.
function Raw:close() end

-- ---- asynctask.core.par --------------------------------------------------------------------------

---@class asynctask.core.par
local par = {}

---Registers a class: tables with this metatable are copied to other states, where the class of this name is
---their metatable. A state that has none of that name gets a copy of this one. `parallel.class`.
---@param name string 1 to 255 bytes
---@param metatable table
---@return table metatable
function par.class(name, metatable) end

---Runs a function on a thread of the default pool (S19, S20). Raises for what cannot be copied.
---@generic T
---@param f string|fun(...): T a Lua function, copied with its upvalues, or "module.function"
---@param ... any copied
---@return asynctask.Task<T> results copied back
function par.run(f, ...) end

---As `run`, on a thread of its own: for a server's loop, or for what takes long. Belongs to nobody.
---@generic T
---@param f string|fun(...): T
---@param ... any copied
---@return asynctask.Task<T> results copied back
function par.thread(f, ...) end

---A pool of threads of one's own (`task.pool`). Raises for wrong options.
---@param opts? { threads?: integer, name?: string, memory?: integer, fresh?: boolean } threads: default
---  as the default pool; memory: bytes by which a thread's state may grow; fresh: each job has globals of its own
---@return asynctask.Pool
function par.pool(opts) end

---@return integer threads that the default pool has at most; in a job, its own pool
function par.threads() end

---What the jobs of a parallel loop share; travels once to each worker.
---@param ... any copied
---@return asynctask.Parcel
function par.parcel(...) end

---A job of a parallel loop: `name` is called with the parcel's table and the arguments.
---@param pool? asynctask.Pool nil: the default pool
---@param parcel asynctask.Parcel
---@param name string "module.function"
---@param ... any copied
---@return asynctask.Task
function par.call(pool, parcel, name, ...) end

---Raises what ends a parallel loop early.
---@param value any
function par.stop(value) end

---Threads that run jobs (`task.pool`). One that is collected ends its threads when its jobs have ended.
---@class asynctask.Pool
local Pool = {}

---As `task.run`, on a thread of this pool. Raises when the pool is closed.
---@generic T
---@param f string|fun(...): T
---@param ... any copied
---@return asynctask.Task<T> results copied back
function Pool:run(f, ...) end

---@class asynctask.Pool.stats
---@field name? string
---@field threads integer at most
---@field started integer
---@field idle integer
---@field queued integer
---@field running integer
---@field completed integer
---@field closed boolean

---@return asynctask.Pool.stats
function Pool:stats() end

---Takes no jobs any more; its threads end when the last job has ended.
---@param opts? { cancel?: boolean } cancel: the jobs are cancelled
---@return asynctask.Task task of nothing, when the threads have ended
function Pool:close(opts) end

---@class asynctask.Parcel
local Parcel = {}

---@return integer index the last one that is still wanted
function Parcel:limit() end

---Nothing after the index is wanted.
---@param index integer
function Parcel:lower(index) end

---Nobody sends it any more: workers forget it.
function Parcel:close() end

return core
