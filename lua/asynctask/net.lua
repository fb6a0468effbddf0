-- asynctask.net - TCP and Unix sockets: names and addresses, connecting, servers with handlers.
-- One stream and one listening socket are in C (csrc/io); here is what is policy: which address of a
-- name is tried, who waits for which handler, what becomes of a handler's error.

local core = require "asynctask.core"
local iterator = require "asynctask.iterator"

local await, try, wait, start, spawn = core.await, core.try, core.wait, core.start, core.spawn
local source, current, shield = core.source, core.current, core.shield
local is_task, from_error, from_result = core.is_task, core.from_error, core.from_result
local socket = core.net

local net = {}

-- ---- argument checks -------------------------------------------------------------------------

local function type_name(v)
  local mt = getmetatable(v)
  return type(mt) == "table" and type(mt.__name) == "string" and mt.__name or type(v)
end

-- Raises at the caller of the function that was called wrongly.
local function bad(arg, name, message)
  error(("bad argument #%d to '%s' (%s)"):format(arg, name, message), 4)
end

local function expect(ok, arg, name, wanted, v)
  if not ok then
    error(("bad argument #%d to '%s' (%s expected, got %s)"):format(arg, name, wanted, type_name(v)), 4)
  end
end

local function check_options(opts, arg, name, known)
  if opts == nil then
    return {}
  end
  expect(type(opts) == "table", arg, name, "table of options", opts)
  for key, value in pairs(opts) do
    local wanted = known[key]
    if not wanted then
      bad(arg, name, ("unknown option '%s'"):format(tostring(key)))
    end
    local fits, what = wanted(value)
    if not fits then
      bad(arg, name, ("option '%s': %s expected, got %s"):format(key, what,
        type(value) == "number" and tostring(value) or type_name(value)))
    end
  end
  return opts
end

local function seconds(v)
  return type(v) == "number" and v >= 0, "seconds"
end

local function boolean(v)
  return type(v) == "boolean", "boolean"
end

local function positive(v)
  return math.type(v) == "integer" and v > 0, "positive integer"
end

local function backlog(v)
  return math.type(v) == "integer" and v > 0 and v <= 65535, "integer between 1 and 65535"
end

local function callable(v)
  if type(v) == "function" then
    return true
  end
  local mt = getmetatable(v)
  return type(mt) == "table" and mt.__call ~= nil, "function"
end

-- Checks `host, port` or `{path=}` at the front; returns how many arguments that were.
local function check_address(name, host, port)
  if type(host) == "table" then
    local path = host.path
    if type(path) ~= "string" then
      bad(1, name, ("host, or a table with a path expected, got a table with a path that is %s")
        :format(path == nil and "nil" or type_name(path)))
    end
    if path == "" then
      bad(1, name, "path is empty")
    end
    if path:byte(1) ~= 0 and path:find("\0", 1, true) then
      bad(1, name, "path contains a zero byte")
    end
    if #path > 107 then
      bad(1, name, "path is too long")
    end
    return 1
  end
  expect(type(host) == "string", 1, name, "string", host)
  if host == "" or host:find("\0", 1, true) then
    bad(1, name, host == "" and "host is empty" or "host contains a zero byte")
  end
  expect(math.tointeger(port) and type(port) == "number", 2, name, "port number", port)
  if port < 0 or port > 65535 then
    bad(2, name, ("port %d is not between 0 and 65535"):format(port))
  end
  return 2
end

-- ---- names -----------------------------------------------------------------------------------

---The addresses of a host, in the system's order (getaddrinfo(3), on the pool for blocking calls).
---Faults with EAI_NONAME and its kin when the name does not resolve.
---@param host string a name, or a numeric address
---@param opts? {family?: "ipv4"|"ipv6"|"any"}
---@return asynctask.Task addresses list of `{host=, family=}`
function net.resolve(host, opts)
  expect(type(host) == "string", 1, "resolve", "string", host)
  if host == "" or host:find("\0", 1, true) then
    error(("bad argument #1 to 'resolve' (%s)")
      :format(host == "" and "host is empty" or "host contains a zero byte"), 2)
  end
  check_options(opts, 2, "resolve", {
    family = function(v)
      return v == "ipv4" or v == "ipv6" or v == "any", '"ipv4", "ipv6" or "any"'
    end,
  })
  return socket.resolve(host, opts)
end

-- Calls `f(address)`, which returns a Task, for one address after the other until one succeeds.
local function first_of(addresses, f)
  local failure
  for _, address in ipairs(addresses) do
    local value, err = try(f(address.host))
    if value then
      return value
    end
    failure = failure or err
  end
  error(failure, 0)
end

-- ---- connecting ------------------------------------------------------------------------------

---Connects. A name is resolved first and its addresses are tried in turn; the first failure is the
---one that is reported when none answers. Nagle's algorithm is off (see `nodelay`).
---@param host string|{path: string} host name or numeric address; or the path of a Unix socket
---@param port? integer 0 to 65535; left out with a path
---@param opts? {timeout?: number} seconds
---@return asynctask.Task stream an `asynctask.Stream`
function net.connect(host, port, opts)
  local n = check_address("connect", host, port)
  if n == 1 then
    opts = opts or port
  end
  opts = check_options(opts, n + 1, "connect", { timeout = seconds })
  local t
  if n == 1 or socket.is_numeric(host) then
    t = socket.connect(host, port)
  else
    t = start(function()
      return first_of(await(socket.resolve(host)), function(address)
        return socket.connect(address, port)
      end)
    end):named(("connect %s:%d"):format(host, port))
  end
  if opts.timeout then
    return t:timeout(opts.timeout)
  end
  return t
end

---Two streams that are connected to each other: what one writes, the other reads.
---@return asynctask.Task streams two values
function net.pair()
  return socket.pair()
end

-- ---- listening -------------------------------------------------------------------------------

local listen_options = { backlog = backlog, reuseport = boolean, ipv6only = boolean }

-- Every interface: IPv6 with IPv4 where there is IPv6, else IPv4.
local function listen_anywhere(port, opts)
  local server = try(socket.listen("::", port, opts))
  return server or await(socket.listen("0.0.0.0", port, opts))
end

local function listen(host, port, opts)
  if type(host) == "table" or socket.is_numeric(host) then
    return socket.listen(host, port, opts)
  elseif host == "*" then
    return start(listen_anywhere, port, opts)
  end
  return start(function()
    return first_of(await(socket.resolve(host)), function(address)
      return socket.listen(address, port, opts)
    end)
  end)
end

---Listens. Port 0 lets the system choose: `server:sockname().port` says which.
---@param host string|{path: string} name or numeric address, "*" for every interface; or the path
---of a Unix socket, which is removed again when the server closes (a first zero byte: an abstract one)
---@param port? integer 0 to 65535; left out with a path
---@param opts? {backlog?: integer, reuseport?: boolean, ipv6only?: boolean}
---@return asynctask.Task server an `asynctask.Server`
function net.listen(host, port, opts)
  local n = check_address("listen", host, port)
  if n == 1 then
    opts = opts or port
    port = nil
  end
  return listen(host, port, check_options(opts, n + 1, "listen", listen_options))
end

-- ---- servers ---------------------------------------------------------------------------------

---A listening socket. `accept`, `sockname` and `stop` are C's (csrc/io/server.c).
---@class asynctask.Server
local Server = socket.Server.__index

-- What is kept for a server: the handlers that run. Server -> record.
---@class asynctask.Server.record
---@field live table<asynctask.Task, true> handlers that have not ended
---@field count integer of these
---@field serving boolean
---@field slot? table source that is settled when a handler ends or the server closes
---@field leave table what a handler closes as its last
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

local serve_options = { max = positive, on_error = callable }

-- Starts serving with checked arguments.
local function serve(server, handler, opts)
  local record = records[server]
  if not record then
    record = { live = {}, count = 0, serving = false }
    records[server] = record
  end
  if record.serving then
    return from_error(core.error { code = "EBUSY", message = "the server is being served already", op = "serve" })
  end
  record.serving = true
  local leave = setmetatable({ record = record, on_error = opts.on_error }, leave_meta)
  return start(serve_loop, server, record, leave, handler, opts.max or math.huge):named("serve")
end

---Accepts connections and runs `handler(stream)` for each, as a task of its own. The connection
---closes when its handler returns or fails. A handler's error goes to `on_error(err, task)` or is
---reported as an unobserved fault, and the server goes on. The Task ends when the server is closed
---and its handlers have ended; cancelling it closes the server and cancels the handlers.
---@param handler fun(stream: asynctask.Stream): any
---@param opts? {max?: integer, on_error?: fun(err: any, t: asynctask.Task)} max: handlers that run at once
---@return asynctask.Task
function Server:serve(handler, opts)
  expect(callable(handler), 1, "serve", "function", handler)
  return serve(self, handler, check_options(opts, 2, "serve", serve_options))
end

local function close_gently(record, grace, except)
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
  opts = check_options(opts, 1, "close", { grace = seconds })
  self:stop()
  local record = records[self]
  if not record then
    return from_result()
  end
  wake(record)
  local except = current()
  if not record.live[except] then
    except = nil
  end
  return spawn(close_gently, record, opts.grace or 0, except):named("close server")
end

-- Waits for a closing that has begun, in cancelled scopes too; does not wait where nothing is left
-- to wait for, so that it works where Lua cannot yield.
local function close_scope(v)
  local t = v:close()
  if t:done() then
    await(t)
  else
    shield(await, t)
  end
end

socket.Server.__close = close_scope

---Listens and serves: `net.listen` and `server:serve` in one. To learn the port that the system
---chose for port 0, use these two.
---@param host string|{path: string} as for `listen`
---@param port? integer left out with a path
---@param handler fun(stream: asynctask.Stream): any
---@param opts? table options of `listen` and of `serve`
---@return asynctask.Task ends when it is cancelled
---@overload fun(address: {path: string}, handler: function, opts?: table): asynctask.Task
function net.serve(host, port, handler, opts)
  local n = check_address("serve", host, port)
  if n == 1 then
    port, handler, opts = nil, port, handler
  end
  expect(callable(handler), n + 1, "serve", "function", handler)
  local for_listen, for_serve = {}, {}
  local known = { max = positive, on_error = callable }
  for name, fits in pairs(listen_options) do
    known[name] = fits
  end
  for name, value in pairs(check_options(opts, n + 2, "serve", known)) do
    if listen_options[name] then
      for_listen[name] = value
    else
      for_serve[name] = value
    end
  end
  return start(function()
    local server <close> = await(listen(host, port, for_listen))
    await(serve(server, handler, for_serve))
  end):named("serve")
end

-- ---- streams ---------------------------------------------------------------------------------

---A stream of bytes in both directions. All but `lines` is C's (csrc/io/stream.c).
---@class asynctask.Stream
local Stream = socket.Stream.__index

local unpack = table.unpack

---Reads as `read` does, again and again: `for line in stream:lines() do`. Does not close the stream.
---@param ... "l"|"L"|"n"|"a"|integer formats of `read`; none: "l"
---@return asynctask.Iterator iterator
---@return nil
---@return nil
---@return asynctask.Iterator
function Stream:lines(...)
  local n = select("#", ...)
  if n == 0 then
    return iterator.new(function()
      return self:read("l")
    end)
  end
  local formats = { ... }
  return iterator.new(function()
    return self:read(unpack(formats, 1, n))
  end)
end

socket.Stream.__close = close_scope

return net
