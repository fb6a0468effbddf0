-- asynctask.net - TCP and Unix sockets, datagrams, names. One stream, one listening socket, one datagram
-- socket are in C (csrc/io); policy is in Lua: which address of a name is tried (net/race.lua), who runs
-- handlers (net/server.lua, net/threads.lua), what streams offer besides (net/stream.lua, net/udp.lua).

local core = require "asynctask.core"
local check = require "asynctask.net.check"
local race = require "asynctask.net.race"
local server = require "asynctask.net.server"
local udp = require "asynctask.net.udp"

local await, try, start = core.await, core.try, core.start
local socket = core.net

local net = {}

-- ---- names -----------------------------------------------------------------------------------

local resolve_options = { family = check.family, service = check.string }

---The addresses of a host, in the system's order (getaddrinfo(3), on the pool for blocking calls; no more
---than half of its threads look up names). Faults with EAI_NONAME and its kin when the name does not resolve.
---@param host string a name, or a numeric address
---@param opts? {family?: "ipv4"|"ipv6"|"any", service?: string} service: a name of services(5) or a
---number; then the addresses have a `port`
---@return asynctask.Task addresses list of `{host=, family=, port=}`
function net.resolve(host, opts)
  check.host(host, 1, "resolve")
  return socket.resolve(host, check.options(opts, 2, "resolve", resolve_options))
end

---The name of an address, and of the service on that port (getnameinfo(3)). Faults with EAI_NONAME when it
---has none.
---@param host string numeric address
---@param port? integer
---@return asynctask.Task name two values: the host's name, the service's (the port as text if it has none)
function net.lookup(host, port)
  check.host(host, 1, "lookup")
  if not socket.is_numeric(host) then
    check.bad(1, "lookup", "numeric address expected")
  end
  if port ~= nil then
    check.expect(check.port(port), 2, "lookup", "port number", port)
  end
  return socket.lookup(host, port)
end

-- ---- connecting ------------------------------------------------------------------------------

---@class asynctask.net.connect_options
---@field timeout? number seconds
---@field family? "ipv4"|"ipv6"|"any" of the addresses of a name
---@field stagger? number seconds before the next address is tried beside the last one (0.25)
---@field local_address? string numeric address to connect from
---@field local_port? integer
---@field nodelay? boolean default true
---@field keepalive? boolean|number probes on an idle connection; a number: seconds before the first one
---@field fastopen? boolean the data of the first write goes with the SYN (RFC 7413) where the system has
---that; then a failure to connect shows at the first read or write

local function local_address(v)
  return type(v) == "string" and socket.is_numeric(v), "numeric address"
end

local function keepalive(v)
  return type(v) == "boolean" or type(v) == "number" and v >= 0 and v <= 32767, "boolean or seconds"
end

local connect_options = {
  timeout = check.seconds, family = check.family, stagger = check.seconds, local_address = local_address,
  local_port = check.port, nodelay = check.boolean, keepalive = keepalive, fastopen = check.boolean,
}

-- The options as C takes them: keepalive in whole seconds.
local function for_socket(opts)
  local keep = opts.keepalive
  if type(keep) == "number" then
    keep = math.ceil(keep)
  else
    keep = keep and 0 or nil
  end
  return {
    local_address = opts.local_address, local_port = opts.local_port, nodelay = opts.nodelay,
    keepalive = keep, fastopen = opts.fastopen,
  }
end

local function connect_name(host, port, opts)
  local addresses = await(socket.resolve(host, { family = opts.family }))
  local options = for_socket(opts)
  return race.run(race.order(addresses), function(address)
    return socket.connect(address.host, port, options)
  end, opts.stagger or race.STAGGER)
end

---Connects. A name is resolved first; its addresses are raced, IPv6 and IPv4 in turn, each begun when the
---one before has failed or has not answered for 0.25 s (RFC 8305), and the losers are closed. When none
---answers, the failure of the first is raised. Nagle's algorithm is off (see `nodelay`).
---@param host string|{path: string} host name or numeric address; or the path of a Unix socket
---@param port? integer 0 to 65535; left out with a path
---@param opts? asynctask.net.connect_options
---@return asynctask.Task stream an `asynctask.Stream`
function net.connect(host, port, opts)
  local n = check.address("connect", 1, host, port)
  if n == 1 then
    opts = opts or port
    port = nil
  end
  opts = check.options(opts, n + 1, "connect", connect_options)
  local t
  if n == 1 or socket.is_numeric(host) then
    t = socket.connect(host, port, next(opts) ~= nil and for_socket(opts) or nil)
  else
    t = start(connect_name, host, port, opts):named(("connect %s:%d"):format(host, port))
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

local listen_options = {
  backlog = check.backlog, reuseport = check.boolean, ipv6only = check.boolean, fastopen = check.positive,
}

-- Calls `f(host)`, which returns a Task, for one address after the other until one succeeds.
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

-- Every interface: IPv6 with IPv4 where there is IPv6, else IPv4.
local function listen_anywhere(port, opts)
  local listening = try(socket.listen("::", port, opts))
  return listening or await(socket.listen("0.0.0.0", port, opts))
end

local function listen_name(host, port, opts)
  return first_of(await(socket.resolve(host)), function(address)
    return socket.listen(address, port, opts)
  end)
end

local function listen(host, port, opts)
  if type(host) == "table" and host.fd then
    return socket.listen_fd(host.fd)
  elseif type(host) == "table" or socket.is_numeric(host) then
    return socket.listen(host, port, opts)
  elseif host == "*" then
    return start(listen_anywhere, port, opts)
  end
  return start(listen_name, host, port, opts)
end

-- Checks the front of `listen` and `serve`; returns how many arguments that were.
local function check_listen(name, host, port)
  if type(host) == "table" and host.fd ~= nil then
    check.expect(math.type(host.fd) == "integer" and host.fd >= 0, 1, name, "descriptor in field 'fd'", host.fd)
    return 1
  end
  return check.address(name, 1, host, port)
end

---Listens. Port 0 lets the system choose: `server:sockname().port` says which.
---@param host string|{path: string}|{fd: integer} name or numeric address, "*" for every interface; or the
---path of a Unix socket, which is removed again when the server closes (a first zero byte: an abstract
---one); or a descriptor that listens already (see `inherited`), which belongs to the server from then on
---@param port? integer 0 to 65535; left out with a path or a descriptor
---@param opts? {backlog?: integer, reuseport?: boolean, ipv6only?: boolean, fastopen?: integer} fastopen:
---connections whose data came with the SYN that may wait (RFC 7413)
---@return asynctask.Task server an `asynctask.Server`
function net.listen(host, port, opts)
  local n = check_listen("listen", host, port)
  if n == 1 then
    opts = opts or port
    port = nil
  end
  return server.opened(listen(host, port, check.options(opts, n + 1, "listen", listen_options)), opts)
end

---The listening sockets that the service manager has passed to this process (LISTEN_FDS and LISTEN_PID, as
---sd_listen_fds(3) describes): `net.listen(net.inherited()[1])`.
---@return { fd: integer, name: string }[] sockets name: of LISTEN_FDNAMES, "unknown" without; empty: none
function net.inherited()
  local count, names = socket.inherited()
  local list, next_name = {}, (names or ""):gmatch("([^:]*):?")
  for i = 1, count do
    local name = next_name()
    list[i] = { fd = 2 + i, name = name and name ~= "" and name or "unknown" }
  end
  return list
end

---Listens and serves: `net.listen` and `server:serve` in one. To learn the port that the system
---chose for port 0, use these two.
---@param host string|{path: string}|{fd: integer} as for `listen`
---@param port? integer left out with a path
---@param handler string|fun(stream: asynctask.Stream): any
---@param opts? table options of `listen` and of `serve`
---@return asynctask.Task ends when it is cancelled
---@overload fun(address: {path: string}, handler: function, opts?: table): asynctask.Task
function net.serve(host, port, handler, opts)
  local n = check_listen("serve", host, port)
  if n == 1 then
    port, handler, opts = nil, port, handler
  end
  server.check("serve", n + 1, handler, opts)
  local for_listen, for_serve, known = {}, {}, {}
  for _, list in ipairs { listen_options, server.options } do
    for name, fits in pairs(list) do
      known[name] = fits
    end
  end
  for name, value in pairs(check.options(opts, n + 2, "serve", known)) do
    local to = listen_options[name] and for_listen or for_serve
    to[name] = value
  end
  if for_serve.threads and type(host) == "string" and for_listen.reuseport == nil then
    for_listen.reuseport = true
  end
  return start(function()
    local listening <close> = await(server.opened(listen(host, port, for_listen), for_listen))
    await(server.serve(listening, handler, for_serve))
  end):named("serve")
end

net.udp = udp.udp

return net
