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

---@return asynctask.Task task settles when no member is pending
function Group:idle() end

---Leaves the group's scope.
---@param err any what the body failed with
---@return boolean interrupted whether that is the group's own interruption
function Group:leave(err) end

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

---A Task that settles when the runtime's clock has got there.
---@param seconds number as `now` gives
---@return asynctask.Task
function core.delay_until(seconds) end

---@return number seconds on the runtime's monotonic clock
function core.now() end

---Chooses the clock that delays and deadlines follow. Raises while any is pending.
---@param mode? "real"|"virtual"
function core.clock(mode) end

---Moves a virtual clock to the next due time, as far as `seconds` at most.
---@param seconds number on the runtime's clock
---@return boolean due whether something became due
---@return number now
function core.advance(seconds) end

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
---@param options? { permissions?: integer } of a file that is made; default 0666 less the umask
---@return asynctask.Task file an `asynctask.File`
function fs.open(path, mode, options) end

---The whole file in one trip, whatever size it reports.
---@param path string
---@return asynctask.Task contents a string
function fs.read_file(path) end

---@param path string
---@param data string|number
---@param options? { permissions?: integer }
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
---@param atime number
---@param mtime number
---@return asynctask.Task
function fs.utime(path, atime, mtime) end

---@param path string
---@param size integer
---@return asynctask.Task
function fs.truncate(path, size) end

---Makes a directory that only its owner may enter.
---@param prefix? string
---@return asynctask.Task path a string
function fs.mkdtemp(prefix) end

---Behind `fs.dir` and `fs.walk`, which check the arguments.
---@param path string
---@param stream boolean
---@param follow boolean?
---@param stat boolean?
---@param depth integer?
---@return asynctask.Walker
function fs.walker(path, stream, follow, stat, depth) end

---An open file. Its operations run one after another, in the order in which they were started.
---@class asynctask.File
local File = {}

---@param ... asynctask.Format none: "l"
---@return asynctask.Task values as `file:read` of `io` gives them; nil at the end
function File:read(...) end

---@param ... string|number
---@return asynctask.Task file
function File:write(...) end

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

-- ---- asynctask.core.net --------------------------------------------------------------------------
-- Addresses are numeric here; asynctask.net resolves names. Faults carry `address`.

---@class asynctask.core.net
local net = {}

---@param host string|{ path: string }
---@param port? integer
---@return asynctask.Task stream an `asynctask.Stream`
function net.connect(host, port) end

---@param host string|{ path: string }
---@param port? integer 0: the system chooses
---@param options? { backlog?: integer, reuseport?: boolean, ipv6only?: boolean }
---@return asynctask.Task server an `asynctask.Server`
function net.listen(host, port, options) end

---@return asynctask.Task streams two, connected to each other
function net.pair() end

---@param host string
---@param options? { family?: "any"|"ipv4"|"ipv6" }
---@return asynctask.Task addresses list of `{host=, family=}`
function net.resolve(host, options) end

---@param host string
---@return boolean numeric no name that has to be resolved
function net.is_numeric(host) end

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

---@return integer? fd nil once closed
function Stream:fd() end

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

-- ---- asynctask.core.signal -----------------------------------------------------------------------

---@class asynctask.core.signal
local signal = {}

---@param name string "SIGTERM"
---@return asynctask.Task name
function signal.wait(name) end

---Keeps what arrives between two waits.
---@param name string
---@return asynctask.signal.Watch
function signal.watch(name) end

---@class asynctask.signal.Watch
local Watch = {}

---@return asynctask.Task name several signals since the last one count as one; nil once it is closed
function Watch:next() end

function Watch:close() end

-- ---- asynctask.core.par --------------------------------------------------------------------------

---@class asynctask.core.par
local par = {}

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

return core
