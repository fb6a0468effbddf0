-- What LuaSocket's functions and methods give, case by case: each is a function of a `socket` module whose
-- results are compared, those of LuaSocket with ours, value for value. Cases play both ends themselves: over
-- loopback the system holds what one end has sent until the other end asks.

local exchange = {}

local cases = {}

--- Adds a case.
---@param name string
---@param f fun(S: table, tools: table): ...
local function case(name, f)
  cases[#cases + 1] = { name = name, run = f }
end

-- ---- tools of the cases ------------------------------------------------------------------------

local tools = {}

--- Closes what a case leaves open.
local function keeper()
  local list = {}
  return function(object)
    list[#list + 1] = object
    return object
  end, function()
    for _, object in ipairs(list) do
      object:close()
    end
  end
end

--- A server on loopback and its port.
function tools.server(S, host)
  local server = assert(S.bind(host or "127.0.0.1", 0))
  tools.keep(server)
  local _, port = server:getsockname()
  return server, port
end

--- Two connected sockets: client, the server's side of it.
function tools.pair(S)
  local server, port = tools.server(S)
  local client = tools.keep(assert(S.connect("127.0.0.1", port)))
  local other = tools.keep(assert(server:accept()))
  return client, other, server
end

--- A port that nobody listens on.
function tools.dead_port(S)
  local server, port = tools.server(S)
  server:close()
  return port
end

--- Calls the function; says also whether it took about as long as it should.
function tools.timed(S, seconds, f, ...)
  local begun = S.gettime()
  local results = table.pack(f(...))
  local taken = S.gettime() - begun
  -- LuaSocket waits in whole milliseconds, rounded down
  return taken >= seconds - 0.002 and taken < seconds + 1, table.unpack(results, 1, results.n)
end

--- What was raised, without the place.
function tools.raised(f, ...)
  local ok, err = pcall(f, ...)
  if ok then
    return "nothing was raised"
  end
  if type(err) ~= "string" then
    return err
  end
  -- the place, and how a C function is named that was not called as a method or a global
  return (err:gsub("^[^:]+:%d+: ", ""):gsub("'[%w_.]+%.([%w_]+)'", "'%1'"):gsub("to '%?'", "to a function"))
end

-- ---- connecting --------------------------------------------------------------------------------

case("connect to a port that refuses", function(S, t)
  return S.connect("127.0.0.1", t.dead_port(S))
end)

case("connect of a master to a port that refuses makes it a client", function(S, t)
  local s = t.keep(S.tcp())
  local a, b = s:connect("127.0.0.1", t.dead_port(S))
  return a, b, tostring(s)
end)

case("connect with timeout 0, then its outcome", function(S, t)
  local server, port = t.server(S)
  local s = t.keep(S.tcp())
  s:settimeout(0)
  local a, b = s:connect("127.0.0.1", port)
  local _, writable = S.select(nil, { s }, 1)
  local c = writable[s]
  local d, e = s:connect("127.0.0.1", port)
  return a, b, c, d, e, (server:accept() ~= nil)
end)

case("connect with timeout 0 to a port that refuses, then its outcome", function(S, t)
  local port = t.dead_port(S)
  local s = t.keep(S.tcp())
  s:settimeout(0)
  local a, b = s:connect("127.0.0.1", port)
  local _, writable = S.select(nil, { s }, 1)
  return a, b, writable[s], s:getoption("error")
end)

case("connect twice", function(S, t)
  local client, _, server = t.pair(S)
  local _, port = server:getsockname()
  return client:connect("127.0.0.1", port)
end)

case("connect to a name that does not exist", function(S)
  return S.connect("no-such-host.invalid", 80)
end)

case("connect of a master to a name that does not exist", function(S, t)
  local s = t.keep(S.tcp4())
  return s:connect("no-such-host.invalid", 80), tostring(s)
end)

case("connect to a service that does not exist", function(S)
  return S.connect("127.0.0.1", "no-such-service")
end)

case("connect by the name of the machine", function(S, t)
  local server, port = t.server(S)
  local s = t.keep(S.tcp4())
  local a, b = s:connect("localhost", port)
  return a, b, s:getpeername() == "127.0.0.1", (server:accept()) ~= nil
end)

case("connect from a local address", function(S, t)
  local _, port = t.server(S)
  local s = t.keep(S.connect("127.0.0.1", port, "127.0.0.1", 0))
  return s:getsockname() == "127.0.0.1", s:getpeername() == "127.0.0.1"
end)

case("connect from a local address that is not there", function(S, t)
  local _, port = t.server(S)
  return S.connect("127.0.0.1", port, "192.0.2.1", 0)
end)

case("connect4 and connect6 with a local address of the other family", function(S, t)
  local _, port = t.server(S)
  local a, b = S.connect6("127.0.0.1", port, "127.0.0.1", 0)
  local c = t.keep(S.connect4("127.0.0.1", port, "127.0.0.1", 0))
  return a, b, c:getsockname() == "127.0.0.1"
end)

case("connect with a timeout of its own for each call", function(S, t)
  local s = t.keep(S.tcp())
  s:settimeout(2)
  local _, port = t.server(S)
  return s:connect("127.0.0.1", port)
end)

case("connect to an address of the wrong family", function(S, t)
  local s = t.keep(S.tcp4())
  return s:connect("::1", 80)
end)

case("connect on a closed master makes a new socket", function(S, t)
  local _, port = t.server(S)
  local s = t.keep(S.tcp4())
  s:close()
  return s:connect("127.0.0.1", port)
end)

case("IPv6", function(S, t)
  local s, err = S.tcp6()
  if not s then
    return err
  end
  t.keep(s)
  local a, b = s:bind("::1", 0)
  if not a then
    return b
  end
  s:listen()
  local host, port, family = s:getsockname()
  local client = t.keep(S.tcp6())
  local c, d = client:connect("::1", port)
  return host, type(port), family, s:getfamily(), c, d, client:getfamily(), (client:getpeername())
end)

-- ---- masters and servers -----------------------------------------------------------------------

case("bind, listen and what they make of a master", function(S, t)
  local s = t.keep(S.tcp())
  local a = tostring(s)
  local b, c = s:bind("127.0.0.1", 0)
  local d, e = s:listen(5)
  return a, b, c, d, e, tostring(s), s:getfamily(), select("#", s:getsockname())
end)

case("bind to a port that is taken", function(S, t)
  local _, port = t.server(S)
  local s = t.keep(S.tcp4())
  local a, b = s:bind("127.0.0.1", port)
  return a, b, S.bind("127.0.0.1", port)
end)

case("bind to an address that is not here", function(S, t)
  local s = t.keep(S.tcp())
  local a, b = s:bind("192.0.2.1", 0)
  return a, b, S.bind("192.0.2.1", 0)
end)

case("bind to every interface", function(S, t)
  local s = t.keep(S.tcp4())
  local a, b = s:bind("*", 0)
  local host, _, family = s:getsockname()
  local u = t.keep(S.bind("*", 0))
  return a, b, host, family, (u:getsockname())
end)

case("bind to names and services that do not exist", function(S, t)
  local s = t.keep(S.tcp())
  local a, b = s:bind("no-such-host.invalid", 0)
  local c, d = s:bind("127.0.0.1", "no-such-service")
  return a, b, c, d, S.bind("no-such-host.invalid", 0)
end)

case("listen without a socket", function(S, t)
  return t.keep(S.tcp()):listen()
end)

case("accept that times out", function(S, t)
  local server = t.server(S)
  server:settimeout(0.05)
  local a, b, c = t.timed(S, 0.05, server.accept, server)
  server:settimeout(0)
  return a, b, c, server:accept()
end)

case("accept of a closed server", function(S, t)
  local server = t.server(S)
  server:close()
  return server:accept()
end)

case("accepted sockets have no timeout and the server's family", function(S, t)
  local _, other = t.pair(S)
  return tostring(other), other:getfamily(), other:gettimeout()
end)

case("names of sockets", function(S, t)
  local client, other, server = t.pair(S)
  local ah, ap, af = client:getpeername()
  local bh, bp, bf = server:getsockname()
  local ch, cp, cf = other:getsockname()
  local dh, dp, df = other:getpeername()
  local _, own = client:getsockname()
  return ah, math.type(ap), af, bh, type(bp), bf, ch, cp == bp, cf, dh, df, tostring(dp) == own, server:getpeername()
end)

case("names of a socket that is closed, and of one that has none", function(S, t)
  local client = t.pair(S)
  client:close()
  local a, b = client:getsockname()
  local c, d = client:getpeername()
  local e, f = S.tcp():getsockname()
  return a, b, c, d, e, f, S.tcp():getpeername()
end)

case("close, again and again", function(S, t)
  local client, _, server = t.pair(S)
  return client:close(), client:close(), server:close(), server:close(), client:getfd(), S.tcp():close()
end)

-- ---- receiving ---------------------------------------------------------------------------------

case("receive of lines", function(S, t)
  local client, other = t.pair(S)
  client:send("one\r\ntwo\n\nth\rr\ree\r\r\n")
  return table.pack(other:receive()), table.pack(other:receive("*l")), table.pack(other:receive("*line")),
    table.pack(other:receive("*l"))
end)

case("receive of a line that has not ended times out with what there is", function(S, t)
  local client, other = t.pair(S)
  client:send("half\r a li")
  other:settimeout(0.05)
  local a = table.pack(t.timed(S, 0.05, other.receive, other))
  client:send("ne\nmore")
  return a, table.pack(other:receive()), table.pack(other:receive())
end)

case("receive with timeout 0", function(S, t)
  local client, other = t.pair(S)
  other:settimeout(0)
  local a = table.pack(other:receive())
  client:send("abc")
  S.select({ other }, nil, 1)
  return a, table.pack(other:receive()), table.pack(other:receive(2)), table.pack(other:receive("*a"))
end)

case("receive of a line with a prefix", function(S, t)
  local client, other = t.pair(S)
  client:send("abc\r\ndef")
  client:close()
  return table.pack(other:receive("*l", "pre\rfix ")), table.pack(other:receive("*l", "more ")),
    table.pack(other:receive("*l", "none "))
end)

case("receive of a count", function(S, t)
  local client, other = t.pair(S)
  client:send("0123456789")
  return table.pack(other:receive(3)), table.pack(other:receive("2")), table.pack(other:receive(1.9)),
    other:dirty()
end)

case("receive of a count with a prefix counts the prefix", function(S, t)
  local client, other = t.pair(S)
  client:send("0123456789")
  return table.pack(other:receive(5, "abc")), table.pack(other:receive(3, "abc")),
    table.pack(other:receive(2, "abc")), table.pack(other:receive(4, "abc"))
end)

case("receive of a count that the peer does not reach", function(S, t)
  local client, other = t.pair(S)
  client:send("0123456789")
  client:close()
  return table.pack(other:receive(20)), table.pack(other:receive(1)), table.pack(other:receive(5, "pre"))
end)

case("receive of a count that times out, and goes on with the partial result", function(S, t)
  local client, other = t.pair(S)
  other:settimeout(0.05)
  client:send("01234")
  local _, err, partial = other:receive(8)
  client:send("567rest")
  return err, partial, table.pack(other:receive(8, partial)), table.pack(other:receive(4))
end)

case("receive of nothing waits for something", function(S, t)
  local client, other = t.pair(S)
  other:settimeout(0.03)
  local a = table.pack(other:receive(0))
  client:send("x")
  local b = table.pack(other:receive(0))
  local c = table.pack(other:receive(1))
  client:close()
  return a, b, c, table.pack(other:receive(0))
end)

case("receive of all", function(S, t)
  local client, other = t.pair(S)
  client:send("a\r\nb")
  client:close()
  return table.pack(other:receive("*a")), table.pack(other:receive("*a")), table.pack(other:receive("*all", "pre"))
end)

case("receive of all with a prefix, and a timeout", function(S, t)
  local client, other = t.pair(S)
  other:settimeout(0.05)
  client:send("first ")
  local a = table.pack(other:receive("*a", "pre "))
  client:send("second")
  client:close()
  return a, table.pack(other:receive("*a", a[3]))
end)

case("receive of much", function(S, t)
  local client, other = t.pair(S)
  local data = ("0123456789abcde\n"):rep(4000)
  client:settimeout(0)
  local sent = client:send(data)
  other:settimeout(1)
  local text = other:receive(sent)
  return text == data:sub(1, math.tointeger(sent)), other:dirty()
end)

case("receive after the peer has closed, and has reset", function(S, t)
  local client, other = t.pair(S)
  other:send("unread")
  S.select({ client }, nil, 1)
  client:setoption("linger", { on = true, timeout = 0 })
  client:close() -- resets
  S.select({ other }, nil, 1)
  return table.pack(other:receive()), table.pack(other:receive())
end)

case("receive on a closed socket", function(S, t)
  local client = t.pair(S)
  client:close()
  return table.pack(client:receive()), table.pack(client:receive(5, "pre")), table.pack(client:receive("*a", "pre"))
end)

case("wrong patterns", function(S, t)
  local client = t.pair(S)
  return t.raised(function() client:receive("l") end), t.raised(function() client:receive("*x") end),
    t.raised(function() client:receive(-1) end), t.raised(function() client:receive({}) end),
    t.raised(function() client:receive("*l", {}) end), t.raised(function() client:receive("") end)
end)

case("receive on what is no client", function(S, t)
  local server = t.server(S)
  local master = S.tcp()
  return t.raised(function() server:receive() end), t.raised(function() master:send("x") end),
    t.raised(function() master:accept() end), t.raised(function() server:bind("*", 0) end),
    t.raised(function() server:getstats() end), t.raised(function() master:shutdown() end)
end)

-- ---- sending -----------------------------------------------------------------------------------

case("send of parts", function(S, t)
  local client, other = t.pair(S)
  local results = {
    table.pack(client:send("0123456789")), table.pack(client:send("0123456789", 3)),
    table.pack(client:send("0123456789", 3, 5)), table.pack(client:send("0123456789", -3)),
    table.pack(client:send("0123456789", -3, -2)), table.pack(client:send("0123456789", 5, 4)),
    table.pack(client:send("0123456789", 0)), table.pack(client:send("0123456789", 1, 100)),
    table.pack(client:send("")), table.pack(client:send(42)), table.pack(client:send("0123456789", -100, 2)),
    table.pack(client:send("0123456789", 20)),
  }
  client:close()
  return results, (other:receive("*a"))
end)

case("send that times out says how far it came", function(S, t)
  local client, other = t.pair(S)
  local data = ("x"):rep(32 * 1024 * 1024)
  client:settimeout(0.05)
  local ok, err, last = client:send(data)
  other:settimeout(0.2)
  local text, err2, partial = other:receive(#data)
  return ok, err, math.type(last), last > 0 and last < #data, text, err2, #partial == last
end)

case("send with timeout 0 says how far it came", function(S, t)
  local client, other = t.pair(S)
  local data = ("x"):rep(32 * 1024 * 1024)
  client:settimeout(0)
  local ok, err, last = client:send(data, 11)
  other:settimeout(0.2)
  local _, err2, partial = other:receive("*a")
  return ok, err, last > 10 and last < #data, err2, #partial == last - 10
end)

case("send to a peer that has closed", function(S, t)
  local client, other = t.pair(S)
  other:close()
  client:send("first")
  S.sleep(0.05)
  local a = table.pack(client:send("second"))
  return a, table.pack(client:send("third", 2))
end)

case("send on a closed socket", function(S, t)
  local client = t.pair(S)
  client:close()
  return table.pack(client:send("x")), table.pack(client:send("abcdef", 3, 4)), table.pack(client:send(""))
end)

case("wrong things to send", function(S, t)
  local client = t.pair(S)
  return t.raised(function() client:send() end), t.raised(function() client:send({}) end),
    t.raised(function() client:send("x", "y") end), t.raised(function() client:send("x", 1, {}) end)
end)

case("shutdown, and what goes on", function(S, t)
  local client, other = t.pair(S)
  client:send("last words")
  local a = table.pack(client:shutdown("send"))
  local b = table.pack(other:receive("*a"))
  other:send("an answer\n")
  return a, b, table.pack(client:receive()), table.pack(client:send("x")), table.pack(client:shutdown("receive")),
    table.pack(client:receive()), table.pack(client:shutdown()), t.raised(function() client:shutdown("x") end)
end)

case("shutdown of a closed socket", function(S, t)
  local client = t.pair(S)
  client:close()
  return client:shutdown("both")
end)

-- ---- timeouts ----------------------------------------------------------------------------------

case("settimeout and gettimeout", function(S, t)
  local client = t.pair(S)
  local results = { table.pack(client:gettimeout()) }
  local list = { { 1 }, { 0.5, "b" }, { 2, "t" }, { 3, "r" }, { -5 }, { nil, "t" }, { "7" }, { 8, "total" } }
  for _, arguments in ipairs(list) do
    results[#results + 1] = table.pack(client:settimeout(arguments[1], arguments[2]))
    results[#results + 1] = table.pack(client:gettimeout())
  end
  return results, t.raised(function() client:settimeout("x") end), t.raised(function() client:settimeout(1, "x") end),
    t.raised(function() client:settimeout({}) end), t.raised(function() client:settimeout(1, {}) end)
end)

case("block and total timeouts of receive", function(S, t)
  local client, other = t.pair(S)
  client:send("part")
  other:settimeout(0.06)
  local a = table.pack(t.timed(S, 0.06, other.receive, other))
  other:settimeout(nil)
  other:settimeout(0.06, "t")
  local b = table.pack(t.timed(S, 0.06, other.receive, other))
  other:settimeout(0.06)
  other:settimeout(0.2, "t")
  local c = table.pack(t.timed(S, 0.06, other.receive, other))
  other:settimeout(5)
  other:settimeout(0, "t")
  local d = table.pack(t.timed(S, 0, other.receive, other))
  return a, b, c, d
end)

-- ---- options, statistics, the rest of a socket --------------------------------------------------

case("options", function(S, t)
  local client, _, server = t.pair(S)
  local results = {}
  for _, name in ipairs { "keepalive", "reuseaddr", "reuseport", "tcp-nodelay" } do
    results[name] = { client:setoption(name, true), client:getoption(name), client:setoption(name, false),
      client:getoption(name) }
  end
  for _, name in ipairs { "tcp-keepidle", "tcp-keepcnt", "tcp-keepintvl" } do
    results[name] = { client:setoption(name, 7), client:getoption(name) }
  end
  results.linger = { client:setoption("linger", { on = true, timeout = 3 }), client:getoption("linger") }
  results.error = { n = select("#", client:getoption("error")), client:getoption("error") }
  results.sizes = { client:setoption("recv-buffer-size", 20000), client:getoption("recv-buffer-size"),
    client:setoption("send-buffer-size", 20000), client:getoption("send-buffer-size") }
  results.server = { server:getoption("reuseaddr"), server:setoption("tcp-defer-accept", 1),
    server:setoption("tcp-fastopen", 5) }
  return results
end)

case("options that fail or do not exist", function(S, t)
  local client = t.pair(S)
  local r = t.raised
  local results = {
    r(function() client:setoption("no-such-option", 1) end), r(function() client:getoption("no-such-option") end),
    r(function() client:setoption("keepalive", 1) end), r(function() client:setoption("linger", true) end),
    r(function() client:setoption("linger", {}) end), r(function() client:setoption("linger", { on = true }) end),
    r(function() client:setoption("broadcast", true) end), r(function() client:setoption() end),
    r(function() client:getoption("ipv6-v6only") end), r(function() client:setoption("error", 1) end),
  }
  results.v6only = table.pack(client:setoption("ipv6-v6only", true))
  client:close()
  return results, table.pack(client:getoption("keepalive")), table.pack(client:setoption("keepalive", true)),
    table.pack(client:getoption("error"))
end)

case("statistics", function(S, t)
  local client, other = t.pair(S)
  client:send("0123456789\r\n")
  other:receive(4)
  local a, b, age = other:getstats()
  other:receive()
  local c, d = other:getstats()
  local e = other:setstats(1, 2, 100)
  local f, g, old = other:getstats()
  other:setstats()
  local h, i = other:getstats()
  return a, b, age < 5, c, d, e, f, g, old >= 100 and old < 105, h, i, table.pack(client:getstats()).n,
    (select(2, client:getstats()))
end)

case("dirty", function(S, t)
  local client, other, server = t.pair(S)
  client:send("ab\ncd")
  S.select({ other }, nil, 1)
  local a = other:dirty()
  other:receive()
  local b = other:dirty()
  other:receive(2)
  return a, b, other:dirty(), server:dirty(), S.tcp():dirty()
end)

case("getfd and setfd", function(S, t)
  local client, other = t.pair(S)
  local fd = client:getfd()
  local a = select("#", client:setfd(-1))
  local b = client:getfd()
  local c = table.pack(client:send("x"))
  client:setfd(fd)
  client:send("back\n")
  return math.type(fd), fd >= 0, a, b, c, (other:receive())
end)

case("what objects look like", function(S, t)
  local client, _, server = t.pair(S)
  local shape = function(object)
    return (tostring(object):gsub("0x%x+", "POINTER"))
  end
  return type(client), shape(client), shape(server), shape(S.tcp()), shape(S.udp()), client.class, server.class,
    getmetatable(client)["tcp{any}"], getmetatable(client).__name, getmetatable(S.udp())["udp{any}"]
end)

-- ---- select ------------------------------------------------------------------------------------

case("select of one that can be read", function(S, t)
  local client, other = t.pair(S)
  local a, b, c = S.select({ other }, nil, 0)
  client:send("x")
  local d, e, f = S.select({ other, client }, nil, 1)
  return #a, #b, c, #d, d[1] == other, d[other], d[client], #e, f
end)

case("select of those that can be written to", function(S, t)
  local client, other, server = t.pair(S)
  local r, w, err = S.select({ client, other, server }, { client, other }, 1)
  return #r, #w, err, w[1] ~= w[2], w[client] ~= nil, w[other] ~= nil
end)

case("select of one that is dirty does not wait", function(S, t)
  local client, other = t.pair(S)
  client:send("ab\ncd\n")
  other:receive()
  local r, _, err = S.select({ client, other }, nil)
  return #r, r[1] == other, r[other], err
end)

case("select of a server", function(S, t)
  local server, port = t.server(S)
  local a = #S.select({ server }, nil, 0)
  t.keep(S.connect("127.0.0.1", port))
  local r = S.select({ server }, nil, 1)
  return a, r[1] == server
end)

case("select of nothing times out", function(S, t)
  local a, r, w, err = t.timed(S, 0.03, S.select, nil, nil, 0.03)
  local b, _, _, err2 = t.timed(S, 0.03, S.select, {}, {}, 0.03)
  return a, #r, #w, err, b, err2
end)

case("select of a peer that has closed", function(S, t)
  local client, other = t.pair(S)
  client:close()
  local r = S.select({ other }, nil, 1)
  return r[1] == other
end)

case("select takes what has getfd and dirty, and skips what has no descriptor", function(S, t)
  local client, other = t.pair(S)
  client:send("x")
  local wrapped = { getfd = function() return other:getfd() end, dirty = function() return false end }
  local none = { getfd = function() return -1 end }
  local r = S.select({ none, wrapped, {}, S.tcp() }, nil, 1)
  local lazy = { getfd = function() return client:getfd() end, dirty = function() return true end }
  local q = S.select({ lazy }, nil)
  return #r, r[1] == wrapped, q[1] == lazy, t.raised(S.select, 1), t.raised(S.select, nil, nil, "x"),
    (t.raised(S.select, { 5 }):gsub(" %(.*%)", ""))
end)

-- ---- UDP ---------------------------------------------------------------------------------------

local function datagram_pair(S, t)
  local a, b = t.keep(S.udp4()), t.keep(S.udp4())
  assert(a:setsockname("127.0.0.1", 0))
  assert(b:setsockname("127.0.0.1", 0))
  local _, port_a = a:getsockname()
  local _, port_b = b:getsockname()
  a:settimeout(1)
  b:settimeout(1)
  return a, b, port_a, port_b
end

case("UDP: sendto and receivefrom", function(S, t)
  local a, b, port_a, port_b = datagram_pair(S, t)
  local sent = table.pack(a:sendto("hello", "127.0.0.1", port_b))
  local data, host, port = b:receivefrom()
  return sent, data, host, math.type(port), port == math.tointeger(port_a), table.pack(a:sendto("", "127.0.0.1",
    port_b)),
    (b:receivefrom())
end)

case("UDP: receive of either kind, and what is cut off", function(S, t)
  local a, b, _, port_b = datagram_pair(S, t)
  for _ = 1, 4 do
    a:sendto("0123456789", "127.0.0.1", port_b)
  end
  a:sendto(("x"):rep(9000), "127.0.0.1", port_b)
  a:sendto(("x"):rep(9000), "127.0.0.1", port_b)
  return table.pack(b:receive()), table.pack(b:receive(4)), (b:receivefrom(3)), table.pack(b:receive(0)),
    #b:receive(), #b:receive(20000)
end)

case("UDP: timeouts", function(S, t)
  local a = datagram_pair(S, t)
  a:settimeout(0.04)
  local x = table.pack(t.timed(S, 0.04, a.receive, a))
  a:settimeout(0)
  local y = table.pack(a:receive())
  a:settimeout(nil)
  a:settimeout(0.04, "t")
  return x, y, table.pack(t.timed(S, 0.04, a.receivefrom, a)), table.pack(a:gettimeout())
end)

case("UDP: connected sockets", function(S, t)
  local a, b, port_a, port_b = datagram_pair(S, t)
  local results = { a:setpeername("127.0.0.1", port_b) }
  local host, port, family = a:getpeername()
  results[#results + 1] = (tostring(a):gsub("0x%x+", ""))
  results[#results + 1] = a:send("to the peer")
  results[#results + 1] = b:receive()
  local r = t.raised
  return results, host, port == math.tointeger(port_b), family, r(function() a:sendto("x", "127.0.0.1", port_b) end),
    r(function() a:receivefrom() end), r(function() b:send("x") end), r(function() b:getpeername() end),
    r(function() a:setsockname("127.0.0.1", 0) end), table.pack(b:sendto("back", "127.0.0.1", port_a)), (a:receive())
end)

case("UDP: no longer connected", function(S, t)
  local a, b, _, port_b = datagram_pair(S, t)
  a:setpeername("127.0.0.1", port_b)
  local x = table.pack(a:setpeername("*"))
  local y = (tostring(a):gsub("0x%x+", ""))
  a:sendto("free", "127.0.0.1", port_b)
  return x, y, (b:receive())
end)

case("UDP: a peer that is not there refuses", function(S, t)
  local a, b, _, port_b = datagram_pair(S, t)
  b:close()
  a:setpeername("127.0.0.1", port_b)
  a:send("x")
  S.sleep(0.02)
  local x = table.pack(a:receive())
  a:send("x")
  S.sleep(0.02)
  return x, table.pack(a:send("y"))
end)

case("UDP: families, names and failures", function(S, t)
  local u = t.keep(S.udp())
  local results = { u:getfd(), u:getfamily(), table.pack(u:getsockname()), table.pack(u:receivefrom()) }
  results[#results + 1] = table.pack(u:setsockname("*", 0))
  results[#results + 1] = u:getfamily()
  results[#results + 1] = table.pack(u:sendto("x", "not numeric", 5))
  results[#results + 1] = table.pack(u:sendto("x", "127.0.0.1", "not numeric"))
  results[#results + 1] = table.pack(u:setpeername("no-such-host.invalid", 5))
  results[#results + 1] = t.raised(function() u:sendto("x") end)
  results[#results + 1] = t.raised(function() u:setpeername() end)
  results[#results + 1] = u:dirty()
  return results
end)

case("UDP: the first sendto makes the socket", function(S, t)
  local _, b, _, port_b = datagram_pair(S, t)
  local u = t.keep(S.udp())
  local sent = table.pack(u:sendto("hello", "127.0.0.1", port_b))
  return sent, (b:receive()), u:getfamily(), u:getfd() >= 0
end)

case("UDP: closed", function(S, t)
  local a, _, _, port_b = datagram_pair(S, t)
  local x = table.pack(a:close())
  return x, table.pack(a:receive()), table.pack(a:sendto("x", "127.0.0.1", port_b)), a:getfd(), a:close()
end)

case("UDP: too large", function(S, t)
  local a, _, _, port_b = datagram_pair(S, t)
  return a:sendto(("x"):rep(70000), "127.0.0.1", port_b)
end)

case("UDP: options", function(S, t)
  local a = datagram_pair(S, t)
  local results = {}
  for _, name in ipairs { "dontroute", "broadcast", "reuseaddr", "reuseport", "ip-multicast-loop" } do
    results[name] = { a:setoption(name, true), a:getoption(name), a:setoption(name, false), a:getoption(name) }
  end
  results.ttl = table.pack(a:setoption("ip-multicast-ttl", 3))
  results.interface = { table.pack(a:setoption("ip-multicast-if", "127.0.0.1")), a:getoption("ip-multicast-if"),
    a:setoption("ip-multicast-if", "*"), a:getoption("ip-multicast-if") }
  local group = { multiaddr = "239.1.2.3", interface = "127.0.0.1" }
  results.member = { table.pack(a:setoption("ip-add-membership", group)), table.pack(a:setoption("ip-add-membership",
    group)),
    table.pack(a:setoption("ip-drop-membership", group)) }
  results.raised = { t.raised(function() a:setoption("ip-add-membership", {}) end),
    t.raised(function() a:setoption("ip-add-membership", { multiaddr = "x" }) end),
    t.raised(function() a:setoption("ip-add-membership", { multiaddr = "239.1.2.3" }) end),
    t.raised(function() a:setoption("ip-multicast-if", "x") end), t.raised(function() a:setoption("keepalive",
      true) end),
    t.raised(function() a:getoption("ip-multicast-ttl") end) }
  results.v6 = table.pack(a:getoption("ipv6-v6only"))
  return results
end)

-- ---- names -------------------------------------------------------------------------------------

case("dns", function(S)
  local ip, entry = S.dns.toip("localhost")
  local name, entry2 = S.dns.tohostname("127.0.0.1")
  return ip, entry, name, entry2, S.dns.gethostname() == S.dns.gethostname(), S.dns.getaddrinfo("127.0.0.1"),
    S.dns.getaddrinfo("localhost"), S.dns.getaddrinfo("::1"), table.pack(S.dns.toip("127.0.0.1"))
end)

case("dns: what does not exist", function(S, t)
  return table.pack(S.dns.toip("no-such-host.invalid")), table.pack(S.dns.tohostname("no-such-host.invalid")),
    table.pack(S.dns.getaddrinfo("no-such-host.invalid")), table.pack(S.dns.getnameinfo("no-such-host.invalid")),
    table.pack(S.dns.getaddrinfo("")), t.raised(S.dns.getnameinfo), t.raised(function() S.dns.toip() end),
    t.raised(function() S.dns.getaddrinfo({}) end)
end)

case("dns: names of addresses and services", function(S)
  return table.pack(S.dns.getnameinfo("127.0.0.1")), table.pack(S.dns.getnameinfo("127.0.0.1", 80)),
    table.pack(S.dns.getnameinfo(nil, "http")), table.pack(S.dns.getnameinfo("192.0.2.7")),
    table.pack(S.dns.getnameinfo("127.0.0.1", "no-such-service"))
end)

-- ---- functions of the module ---------------------------------------------------------------------

case("sleep", function(S, t)
  return select("#", S.sleep(0)), select("#", S.sleep(-1)), (t.timed(S, 0.03, S.sleep, 0.03)),
    t.raised(function() S.sleep("x") end)
end)

case("gettime", function(S)
  return math.type(S.gettime()), math.abs(S.gettime() - os.time()) < 2
end)

case("skip", function(S)
  return table.pack(S.skip(0, 1, 2)), table.pack(S.skip(1, 1, 2)), table.pack(S.skip(2, 1, 2)), table.pack(S.skip(3,
    1, 2)),
    table.pack(S.skip(1, nil, nil, nil))
end)

case("try and protect", function(S, t)
  local f = S.protect(function(...)
    return S.try(...)
  end)
  local g = S.protect(function()
    error("a real one", 0)
  end)
  local kind = { "a table" }
  return table.pack(f(1, 2, nil)), table.pack(f(nil, "failed", 3)), table.pack(f(false, "failed")), table.pack(f()),
    table.pack(f(nil, kind))[2] == kind, t.raised(g), t.raised(S.protect(function() error(kind) end))
end)

case("newtry and its finalizer", function(S, t)
  local calls = 0
  local try = S.newtry(function()
    calls = calls + 1
  end)
  local f = S.protect(function(...)
    return try(...)
  end)
  local a, b = table.pack(f(1, 2)), table.pack(f(nil, "x"))
  local bad = S.newtry(function()
    error("of the finalizer", 0)
  end)
  local nested = S.protect(function()
    return S.protect(function()
      S.try(nil, "inner")
    end)()
  end)
  return a, b, calls, t.raised(S.protect(function() bad(nil, "x") end)), table.pack(nested()),
    getmetatable(select(2, pcall(S.try, nil, "x"))), select(2, pcall(S.try, nil, "x"))[1]
end)

case("choose, sink and source", function(S, t)
  local client, other = t.pair(S)
  local choose = S.choose { default = function(a) return "default", a end, other = function(a, b) return a, b end }
  local sink = S.sink("keep-open", client)
  local a = { table.pack(choose("other", 1, 2)), table.pack(choose(5)), table.pack(choose(nil, 6)),
    (t.raised(choose, "missing")) }
  local b = { table.pack(sink("chunk")), table.pack(sink(nil)), sink.getfd() == client:getfd(), sink.dirty() }
  local close = S.sink("close-when-done", client)
  local c = { table.pack(close(" and more")), table.pack(close()), client:getfd() }
  local by_length = S.source("by-length", other, 5)
  local d = { table.pack(by_length()), table.pack(by_length()) }
  local rest = S.source("until-closed", other)
  return a, b, c, d, table.pack(rest()), table.pack(rest()), other:getfd(), table.pack(S.source("by-length", other,
    3)())
end)

case("constants", function(S)
  return S._VERSION, S._DATAGRAMSIZE, S._SETSIZE, S._SOCKETINVALID, S.BLOCKSIZE, type(S.sourcet), type(S.sinkt)
end)

case("the names that a module has", function(S)
  local names = {}
  for _, name in ipairs { "bind", "choose", "connect", "connect4", "connect6", "dns", "gettime", "newtry", "protect",
    "select", "sink", "sinkt", "skip", "sleep", "source", "sourcet", "tcp", "tcp4", "tcp6", "try", "udp", "udp4",
    "udp6", "__unload" } do
    names[name] = type(S[name])
  end
  local methods = {}
  for _, object in ipairs { S.tcp(), S.udp() } do
    for name, value in pairs(getmetatable(object).__index) do
      methods[object.class .. "." .. name] = type(value)
    end
  end
  return names, methods
end)

case("wrong arguments of functions", function(S, t)
  local r = t.raised
  return r(S.connect), r(S.connect, "x"), r(S.connect, "127.0.0.1", 1, nil, nil, "x"), r(S.connect, {}), r(S.skip, "x")
end)

-- ---- Unix sockets ------------------------------------------------------------------------------

case("Unix: streams", function(_, t)
  local unix = t.unix
  local path = t.path()
  local server = t.keep(unix.stream())
  local shapes = { (tostring(server):gsub("0x%x+", "")) }
  local a = table.pack(server:bind(path))
  local b = table.pack(server:listen())
  shapes[#shapes + 1] = (tostring(server):gsub("0x%x+", ""))
  local client = t.keep(unix.stream())
  local c = table.pack(client:connect(path))
  shapes[#shapes + 1] = (tostring(client):gsub("0x%x+", ""))
  local other = t.keep(server:accept())
  client:send("line\nrest")
  local d = table.pack(other:receive())
  client:close()
  local e = table.pack(other:receive("*a"))
  return shapes, a, b, c, d, e, server:getsockname() == path, other:getsockname() == path,
    table.pack(other:getstats()).n,
    other:dirty(), math.type(server:getfd())
end)

case("Unix: failures of streams", function(_, t)
  local unix = t.unix
  local path = t.path()
  local s = t.keep(unix.stream())
  local a = table.pack(s:connect(path))
  local fd = s:getfd()
  local long = t.keep(unix.stream())
  local b = table.pack(long:connect(("x"):rep(200)))
  local c = table.pack(long:bind(("x"):rep(200)))
  local server = t.keep(unix.stream())
  server:bind(path)
  local refused = t.keep(unix.stream())
  local d = table.pack(refused:connect(path))
  local again = t.keep(unix.stream())
  local e = table.pack(again:bind(path))
  return a, fd, b, c, d, e, tostring(refused):gsub("0x%x+", ""), t.raised(function() server:send("x") end),
    t.raised(function() server:setoption("tcp-nodelay", true) end), table.pack(server:setoption("reuseaddr", true))
end)

case("Unix: timeouts, accept, shutdown", function(S, t)
  local unix = t.unix
  local path = t.path()
  local server = t.keep(unix.tcp())
  server:bind(path)
  server:listen(1)
  server:settimeout(0.03)
  local a = table.pack(t.timed(S, 0.03, server.accept, server))
  local client = t.keep(unix())
  client:connect(path)
  local other = t.keep(server:accept())
  other:settimeout(0.03)
  client:send("part")
  local b = table.pack(other:receive())
  local c = table.pack(client:shutdown("send"))
  return a, b, c, table.pack(other:receive()), select("#", other:settimeout(1)), other:close(), other:close()
end)

case("Unix: datagrams", function(_, t)
  local unix = t.unix
  local path = t.path()
  local a, b = t.keep(unix.dgram()), t.keep(unix.udp())
  local x = table.pack(b:bind(path))
  local y = table.pack(a:sendto("hello", path))
  b:settimeout(1)
  local z = table.pack(b:receivefrom())
  local c = table.pack(a:connect(path))
  local d = table.pack(a:send("more than that"))
  local e = table.pack(b:receive(4))
  local nobody = t.keep(unix.dgram())
  return x, y, z, c, d, e, b:getsockname() == path, tostring(a):gsub("0x%x+", ""), table.pack(nobody:sendto("x",
    path .. "-")),
    table.pack(nobody:connect(path .. "-")), nobody:getfd(), t.raised(function() a:sendto("x", path) end),
    table.pack(b:gettimeout()), a:dirty()
end)

case("Unix: datagrams that have a sender, and none", function(_, t)
  local unix = t.unix
  local path, from = t.path(), t.path()
  local a, b = t.keep(unix.dgram()), t.keep(unix.dgram())
  a:bind(from)
  b:bind(path)
  a:sendto("x", path)
  local data, sender = b:receivefrom()
  b:settimeout(0)
  return data, sender == from, table.pack(b:receivefrom()), table.pack(b:receive())
end)

case("Unix: datagrams of a closed socket", function(_, t)
  local s = t.unix.dgram()
  s:close()
  return table.pack(s:receive()), table.pack(s:receivefrom()), table.pack(s:sendto("x", t.path())), s:getfd()
end)

case("Unix: the names that objects have", function(_, t)
  local methods = {}
  for _, object in ipairs { t.unix.stream(), t.unix.dgram() } do
    for name, value in pairs(getmetatable(object).__index) do
      methods[object.class .. "." .. name] = type(value)
    end
    object:close()
  end
  return methods
end)

-- ---- running and comparing ---------------------------------------------------------------------

exchange.cases = cases

--- Runs a case; gives its packed results.
---@param c table
---@param socket table
---@param unix table
---@param directory string for Unix sockets
---@return table results
function exchange.run(c, socket, unix, directory)
  local keep, close = keeper()
  local files = {}
  tools.keep, tools.unix = keep, unix
  tools.path = function()
    files[#files + 1] = ("%s/socket-%d"):format(directory, #files + 1)
    os.remove(files[#files])
    return files[#files]
  end
  local results = table.pack(pcall(c.run, socket, tools))
  close()
  for _, file in ipairs(files) do
    os.remove(file)
  end
  return results
end

--- A value as text, in which equal values of equal type look the same.
---@param v any
---@return string
function exchange.text(v)
  if type(v) == "table" then
    local keys, parts = {}, {}
    for key in pairs(v) do
      keys[#keys + 1] = key
    end
    table.sort(keys, function(a, b)
      return tostring(a) < tostring(b)
    end)
    for i, key in ipairs(keys) do
      parts[i] = ("%s=%s"):format(tostring(key), exchange.text(v[key]))
    end
    return "{" .. table.concat(parts, ", ") .. "}"
  elseif type(v) == "string" then
    return (("%q"):format(v):gsub("\\\n", "\\n"):gsub("0x%x+", "POINTER"))
  end
  return (tostring(v):gsub("0x%x+", "POINTER"))
end

return exchange
