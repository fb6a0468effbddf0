-- Specs of datagram sockets.

local task = require "asynctask"
local net = require "asynctask.net"
local testing = require "asynctask.testing"

local await, try, spawn = task.await, task.try, task.spawn

-- Two bound sockets, their ports, and what closes them when the scope is left.
local function two(host)
  local a, b = await(net.udp(host or "127.0.0.1", 0)), await(net.udp(host or "127.0.0.1", 0))
  return a, b, a:sockname().port, b:sockname().port, setmetatable({}, { __close = function()
    await(a:close())
    await(b:close())
  end })
end

local has_ipv6 = (function()
  local s = try(net.udp("::1", 0))
  if s then await(s:close()) end
  return s ~= nil
end)()

describe("datagrams", function()
  it("go from one socket to another, whole, with the sender's address", function()
    local a, b, port_a, port_b, _ <close> = two()
    await(a:send("one", "127.0.0.1", port_b))
    await(a:send("", "127.0.0.1", port_b))
    await(a:send(("x"):rep(9000), "127.0.0.1", port_b))
    local data, from = await(b:receive())
    assert.are.equal("one", data)
    assert.are.same({ host = "127.0.0.1", port = port_a, family = "ipv4" }, from)
    assert.are.equal("", (await(b:receive())))
    assert.are.equal(9000, #await(b:receive()))
    assert.is_nil(b:try_receive())
    await(b:send("back", from.host, from.port))
    assert.are.equal("back", (await(a:receive())))
  end)

  it("wake those that wait, first come first served", function()
    local a, b, _, port_b, _ <close> = two()
    local first, second = b:receive(), b:receive()
    await(a:send("1", "127.0.0.1", port_b))
    await(a:send("2", "127.0.0.1", port_b))
    assert.are.equal("2", (await(second)))
    assert.are.equal("1", (await(first)))
  end)

  it("go to names, and from an unbound socket", function()
    local b <close> = await(net.udp("localhost", 0))
    local a <close> = await(net.udp())
    assert.is_nil(a:fd())
    await(a:send("by name", "localhost", b:sockname().port))
    if b:sockname().family == "ipv4" or has_ipv6 then
      assert.are.equal("by name", (await(b:receive())))
    end
  end)

  it("S10: a cancelled receive loses none", function()
    local a, b, _, port_b, _ <close> = two()
    local t = b:receive()
    await(a:send("kept", "127.0.0.1", port_b))
    t:cancel()
    assert.are.equal("kept", (await(b:receive())))
    local ok = task.pcall(task.with_timeout, 0.005, b.receive, b)
    assert.is_false(ok)
    await(a:send("also", "127.0.0.1", port_b))
    assert.are.equal("also", (await(b:receive())))
  end)

  it("of a connected socket come from its peer only", function()
    local a, b, port_a, port_b, _ <close> = two()
    local c <close> = await(net.udp("127.0.0.1", 0))
    await(a:connect("127.0.0.1", port_b))
    assert.are.equal(port_b, a:peername().port)
    await(c:send("stranger", "127.0.0.1", port_a))
    await(b:send("peer", "127.0.0.1", port_a))
    assert.are.equal("peer", (await(a:receive())))
    await(a:send("hello"))
    assert.are.equal("hello", (await(b:receive())))
    await(a:connect())
    await(c:send("again", "127.0.0.1", port_a))
    assert.are.equal("again", (await(a:receive())))
  end)

  it("S22: to nobody are refused", function()
    local a, b, _, port_b, _ <close> = two()
    await(b:close())
    await(a:connect("127.0.0.1", port_b))
    await(a:send("anybody?"))
    local data, err = try(a:receive())
    assert.is_nil(data)
    assert.are.equal("ECONNREFUSED", err.code)
    assert.are.equal("receive", err.op)
    local ok
    ok, err = task.pcall(await, a:send(("x"):rep(70000), "127.0.0.1", port_b))
    assert.is_false(ok)
    assert.are.equal("EMSGSIZE", err.code)
  end)

  it("are visited with each, until the socket closes", function()
    local a, b, port_a, port_b, _ <close> = two()
    local got, ports = {}, {}
    local visitor = spawn(function()
      for data, from in b:each() do
        got[#got + 1], ports[from.port] = data, true
      end
      return "end"
    end)
    for i = 1, 3 do await(a:send(tostring(i), "127.0.0.1", port_b)) end
    for _ = 1, 1000 do
      if #got == 3 then break end
      await(task.delay(0.001))
    end
    await(b:close())
    assert.are.equal("end", await(visitor))
    assert.are.same({ "1", "2", "3" }, got)
    assert.is_true(ports[port_a])
  end)

  it("burst in and out, without loss where the buffers suffice", function()
    local a, b, _, port_b, _ <close> = two()
    b:recv_buffer_size(1 << 20)
    local sum = 0
    local receiver = spawn(function()
      for _ = 1, 500 do sum = sum + tonumber((await(b:receive()))) end
    end)
    for i = 1, 500 do
      await(a:send(tostring(i), "127.0.0.1", port_b))
      if i % 50 == 0 then await(task.yield()) end
    end
    task.with_timeout(5, await, receiver)
    assert.are.equal(500 * 501 // 2, sum)
  end)

  it("need leave to broadcast", function()
    local a, b, _, port_b, _ <close> = two("0.0.0.0")
    local ok, err = task.pcall(await, a:send("all", "255.255.255.255", port_b))
    assert.is_false(ok)
    assert.is_truthy(err.code == "EACCES" or err.code == "ENETUNREACH", err.code)
    assert.is_true(a:broadcast())
    await(a:send("all", "127.255.255.255", port_b))
    assert.are.equal("all", (await(b:receive())))
    local c <close> = await(net.udp { broadcast = true })
    await(c:send("all", "127.255.255.255", port_b))
    assert.are.equal("all", (await(b:receive())))
  end)

  it("reach those that have joined a group", function()
    local a, b, _, port_b, _ <close> = two("0.0.0.0")
    assert.is_true(b:join("239.255.7.7", "127.0.0.1"))
    assert.is_true(a:multicast_interface("127.0.0.1"))
    assert.is_true(a:multicast_loop(true))
    assert.is_true(a:multicast_ttl(1))
    await(a:send("group", "239.255.7.7", port_b))
    assert.are.equal("group", (await(b:receive())))
    assert.is_true(b:leave("239.255.7.7", "127.0.0.1"))
    local ok, err = b:leave("239.255.7.7", "127.0.0.1")
    assert.is_nil(ok)
    assert.are.equal("EADDRNOTAVAIL", err.code)
    ok, err = b:join("239.255.7.7", "no-such-interface")
    assert.is_nil(ok)
    assert.are.equal("ENODEV", err.code)
    assert.is_true(a:ttl(3))
    assert.is_false((pcall(a.ttl, a, 256)))
    assert.is_false((pcall(a.join, a, "localhost")))
  end)

  it("may share a port", function()
    local a <close> = await(net.udp("0.0.0.0", 0, { reuseaddr = true }))
    local port = a:sockname().port
    local b <close> = await(net.udp("0.0.0.0", port, { reuseaddr = true }))
    assert.are.equal(port, b:sockname().port)
    local c, err = try(net.udp("0.0.0.0", port))
    assert.is_nil(c)
    assert.are.equal("EADDRINUSE", err.code)
    assert.are.equal("0.0.0.0:" .. port, err.address)
  end)

  it("pass between IPv6 and IPv4 where there is IPv6", function()
    if not has_ipv6 then
      pending("no IPv6 here")
      return
    end
    local six <close> = await(net.udp("::", 0))
    local four <close> = await(net.udp("127.0.0.1", 0))
    await(six:send("mapped", "127.0.0.1", four:sockname().port))
    assert.are.equal("mapped", (await(four:receive())))
  end)

  it("S22: a closed socket says so", function()
    local a, b, _, port_b, _ <close> = two()
    local t = b:receive()
    await(b:close())
    await(b:close())
    local data, err = try(t)
    assert.is_nil(data)
    assert.are.equal("EBADF", err.code)
    assert.are.equal("EBADF", select(2, try(b:receive())).code)
    assert.is_nil(b:fd())
    assert.is_nil(b:sockname())
    assert.are.equal("EBADF", select(2, b:ttl(1)).code)
    await(a:send("nobody is there", "127.0.0.1", port_b))
  end)

  it("refuses wrong arguments at the call", function()
    local a, _, _, _, _ <close> = two()
    local function raises(text, f, ...)
      local ok, err = pcall(f, ...)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find(text, 1, true), tostring(err))
    end
    raises("bad argument #1 to 'send' (string expected, got nil)", function() a:send(nil, "localhost", 1) end)
    raises("string expected", function() a:send(nil, "127.0.0.1", 1) end)
    raises("bad argument #3 to 'send' (port 65536", function() a:send("x", "localhost", 65536) end)
    raises("bad argument #3 to 'send' (port number expected", function() a:send("x", "127.0.0.1") end)
    raises("bad argument #2 to 'udp' (port number expected, got string)", function() net.udp("127.0.0.1", "http") end)
    raises("unknown option 'reuse'", function() net.udp("127.0.0.1", 1, { reuse = true }) end)
    raises("bad argument #1 to 'udp' (option 'port'", function() net.udp { port = -1 } end)
  end)

  it("a socket that nobody waits on keeps no loop alive", function()
    local a <close> = await(net.udp("127.0.0.1", 0))
    local ok, err = pcall(await, task.source().task)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("deadlock") or tostring(err):find("EABANDONED"), tostring(err))
    assert.is_truthy(a:fd())
  end)

  it("sockets that are collected are closed", function()
    (function()
      local s = await(net.udp("127.0.0.1", 0))
      assert.is_truthy(s:fd())
    end)()
    local before = #testing.leaks()
    for _ = 1, 200 do -- a handle is closed in the loop's next turn
      if before == 0 then
        break
      end
      await(task.delay(0.001))
      before = #testing.leaks()
    end
    assert.are.equal(0, before)
  end)
end)
