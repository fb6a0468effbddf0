-- A bad world: peers that dawdle, vanish or never read, interfaces that go away; and libuv's own edge cases
-- (test-tcp-*.c, test-pipe-*.c there) as ours.

local task = require "asynctask"
local net = require "asynctask.net"
local child = require "spec.support.child"

local await, try, spawn, delay = task.await, task.try, task.spawn, task.delay

local function tcp_pair()
  local server <close> = await(net.listen("127.0.0.1", 0))
  local client = await(net.connect("127.0.0.1", server:sockname().port))
  return client, await(server:accept())
end

local function close(...)
  for _, s in ipairs { ... } do
    await(s:close())
  end
end

-- A child in a network of its own, where that is allowed; sanitizers cannot be preloaded through unshare.
local has_namespaces = not child.sanitizer()
  and os.execute("unshare -rn ip link set lo up >/dev/null 2>&1") and true or false
local it_isolated = has_namespaces and it or pending

local function isolated(source)
  local file = os.tmpname()
  local f = assert(io.open(file, "w"))
  f:write([[
    local task, net = require "asynctask", require "asynctask.net"
    local await, try, spawn, delay = task.await, task.try, task.spawn, task.delay
    assert(os.execute "ip link set lo up")
  ]], source)
  f:close()
  local q = child.quote
  local output, code = child.shell(("LUA_PATH=%s LUA_CPATH=%s exec unshare -rn timeout -k 5 30 %s %s"):format(
    q(package.path), q(package.cpath), child.interpreter(), q(file)))
  os.remove(file)
  return output, code
end

describe("a bad world", function()
  it("a peer that sends one byte at a time is read as any other", function()
    local a, b = tcp_pair()
    local text = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    local reading = b:read_until("\r\n\r\n", { max = 100 })
    for byte in text:gmatch(".") do
      await(a:write(byte))
      await(task.yield())
    end
    assert.are.equal(text:sub(1, -5), await(reading))
    close(a, b)
  end)

  it("a peer that never reads costs bounded memory", function()
    local a, b = tcp_pair()
    a:send_buffer_size(65536)
    local sent, piece = 0, ("x"):rep(16384)
    local writer = spawn(function()
      while true do
        await(a:write(piece))
        sent = sent + #piece
      end
    end)
    local last
    repeat
      last = sent
      await(delay(0.02))
    until sent == last -- held up
    collectgarbage()
    assert.is_true(sent < 32 * 1024 * 1024)
    assert.are.equal("pending", writer:status())
    writer:cancel()
    close(b, a)
  end)

  it("slow clients take no more than their share of `max`, and deadlines free it", function()
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local lost = 0
    local serving = server:serve(function(stream)
      local line = task.with_timeout(0.05, stream.read_until, stream, "\n", { max = 100 })
      await(stream:write("heard ", line, "\n"))
    end, {
      max = 2,
      on_error = function(err)
        assert.are.equal("ETIMEDOUT", err.code)
        lost = lost + 1
      end,
    })
    local slow = {}
    for i = 1, 4 do
      slow[i] = await(net.connect("127.0.0.1", port))
      await(slow[i]:write("s"))
    end
    local quick = await(net.connect("127.0.0.1", port))
    await(quick:write("me\n"))
    assert.are.equal("heard me", await(quick:read()))
    assert.are.equal(4, lost)
    close(quick, table.unpack(slow))
    await(server:close { grace = 1 })
    await(serving)
  end)

  it("a connection that is reset in the middle of a write faults the write", function()
    local a, b = tcp_pair()
    await(a:write("unread"))
    local big = b:write(("x"):rep(32 * 1024 * 1024))
    assert.are.equal("pending", big:status())
    await(b:read(1))
    await(a:write("still unread"))
    close(a) -- with what b has sent unread: a reset
    local ok, err = task.pcall(await, big)
    assert.is_false(ok)
    assert.is_truthy(err.code == "ECONNRESET" or err.code == "EPIPE", err.code)
    close(b)
  end)

  it("addresses that cannot be reached, or bound to", function()
    local stream, err = try(net.connect("255.255.255.255", 9))
    assert.is_nil(stream)
    assert.is_truthy(("EACCES ENETUNREACH EHOSTUNREACH EINVAL"):find(err.code, 1, true), err.code)
    local server
    server, err = try(net.listen("192.0.2.1", 0)) -- RFC 5737: nobody's
    assert.is_nil(server)
    assert.are.equal("EADDRNOTAVAIL", err.code)
    server, err = try(net.listen { path = "/nonexistent-dir/socket" })
    assert.is_nil(server)
    assert.are.equal("ENOENT", err.code)
    assert.are.equal("/nonexistent-dir/socket", err.path)
    stream, err = try(net.connect { path = "/nonexistent-dir/socket" })
    assert.is_nil(stream)
    assert.are.equal("ENOENT", err.code)
    local udp
    udp, err = try(net.udp("192.0.2.1", 0))
    assert.is_nil(udp)
    assert.are.equal("EADDRNOTAVAIL", err.code)
  end)

  it("without descriptors, connect and listen say EMFILE and go on later", function()
    local output, code = child.lua([[
      local task, net = require "asynctask", require "asynctask.net"
      local await, try = task.await, task.try
      local server = await(net.listen("127.0.0.1", 0))
      local port, held = server:sockname().port, {}
      repeat
        local f = io.open("/dev/null")
        held[#held + 1] = f
      until not f
      for _, t in ipairs { net.connect("127.0.0.1", port), net.listen("127.0.0.1", 0), net.pair(),
                           net.udp("127.0.0.1", 0) } do
        local ok, err = try(t)
        print(ok == nil and err.code)
      end
      for _, f in ipairs(held) do f:close() end
      local client <close> = await(net.connect("127.0.0.1", port))
      print(client:peername().port == port)
      await(server:close())
    ]], { before = "ulimit -n 40;" })
    assert.are.equal("EMFILE\nEMFILE\nEMFILE\nEMFILE\ntrue\n", output)
    assert.are.equal(0, code)
  end)

  it_isolated("an interface that goes away", function()
    local output = isolated [[
      assert(os.execute "ip addr add 10.77.0.1/32 dev lo")
      local server = await(net.listen("10.77.0.1", 0))
      local port = server:sockname().port
      local client = await(net.connect("10.77.0.1", port))
      local peer = await(server:accept())
      await(client:write("before\n"))
      print(await(peer:read()))
      assert(os.execute "ip addr del 10.77.0.1/32 dev lo")
      local stream, err = try(net.connect("10.77.0.1", port, { timeout = 5 }))
      print(stream, err.code)
      local u = await(net.udp())
      local ok, why = task.pcall(await, u:send("x", "10.77.0.1", 9))
      print(ok, why.code)
      local late, timeout = try(spawn(function() return task.with_timeout(0.05, peer.read, peer) end))
      print(late, timeout.code)
      await(client:close()) await(peer:close()) await(server:close()) await(u:close())
      print "closed"
    ]]
    assert.are.equal("before\nnil\tENETUNREACH\nfalse\tENETUNREACH\nnil\tETIMEDOUT\nclosed\n", output)
  end)

  it_isolated("a half-open connection: silence has a deadline, and the stream outlives it", function()
    local output = isolated [[
      local server = await(net.listen("127.0.0.1", 0))
      local client = await(net.connect("127.0.0.1", server:sockname().port))
      local peer = await(server:accept())
      await(client:write("one\n"))
      print(await(peer:read()))
      assert(os.execute "ip link set lo down") -- what is sent is lost from here on, and nobody is told
      await(client:write("two\n"))
      local line, err = try(spawn(function() return task.with_timeout(0.1, peer.read, peer) end))
      print(line, err.code, err.op)
      assert(os.execute "ip link set lo up")
      print(await(peer:read())) -- sent again by the system
      await(client:close()) await(peer:close()) await(server:close())
    ]]
    assert.are.equal("one\nnil\tETIMEDOUT\ttimeout\ntwo\n", output)
  end)
end)

describe("edge cases", function()
  it("close while connecting", function()
    local server = await(net.listen("127.0.0.1", 0, { backlog = 1 }))
    local port, streams, pending_one = server:sockname().port, {}, nil
    for _ = 1, 20 do
      local t = net.connect("127.0.0.1", port)
      if try(task.when_any { t, delay(0.05) }) ~= t then
        pending_one = t
        break
      end
      streams[#streams + 1] = await(t)
    end
    assert.is_truthy(pending_one)
    await(server:close()) -- what was in its backlog is reset
    pending_one:cancel()
    assert.are.equal("cancelled", pending_one:status())
    close(table.unpack(streams))
  end)

  it("accept, then close at once; and a server closed with connections in its backlog", function()
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local a, b = await(net.connect("127.0.0.1", port)), await(net.connect("127.0.0.1", port))
    close(await(server:accept()))
    assert.is_nil(await(a:read()))
    await(server:close())
    local line, err = try(b:read())
    assert.is_nil(line)
    assert.is_truthy(err == nil or err.code == "ECONNRESET")
    close(a, b)
  end)

  it("stop reading inside a read, and read again", function()
    local a, b = tcp_pair()
    await(a:write("1\n2\n3\n"))
    assert.are.equal("1", await(b:read()))
    local t = b:read(100)
    t:cancel()
    t = b:read(100)
    t:cancel()
    assert.are.equal("2", await(b:read()))
    assert.are.equal("3\n", await(b:read("L")))
    close(a, b)
  end)

  it("close inside a read, and inside a write's wait", function()
    local a, b = tcp_pair()
    local reader = spawn(function()
      for line in b:lines() do
        if line == "stop" then
          close(b)
          return line
        end
      end
    end)
    await(a:write("go\nstop\nnever\n"))
    assert.are.equal("stop", await(reader))
    local big = spawn(function()
      return await(a:write(("x"):rep(32 * 1024 * 1024)))
    end)
    await(task.yield())
    close(a)
    assert.are.equal("faulted", (function() try(big) return big:status() end)())
  end)

  it("shut down twice, and close while shutting down", function()
    local a, b = tcp_pair()
    await(a:shutdown())
    await(a:shutdown())
    assert.is_nil(await(b:read()))
    local big = b:write(("y"):rep(8 * 1024 * 1024))
    local shut = b:shutdown()
    local closing = b:close()
    assert.are.equal(8 * 1024 * 1024, #await(a:read("a")))
    await(big)
    await(shut)
    await(closing)
    close(a)
  end)

  it("writes of nothing", function()
    local a, b = tcp_pair()
    await(a:write("", ""))
    await(a:write())
    await(a:write("", "x", ""))
    await(a:shutdown())
    assert.are.equal("x", await(b:read("a")))
    close(a, b)
  end)

  it("reading from a socket whose other end only shut down", function()
    local a, b = tcp_pair()
    await(a:shutdown())
    assert.is_nil(await(b:read()))
    assert.is_nil(await(b:read())) -- and does not spin
    local before = os.clock()
    await(delay(0.05))
    assert.is_true(os.clock() - before < 0.04)
    await(b:write("more\n"))
    assert.are.equal("more", await(a:read()))
    close(a, b)
  end)

  it("a stream piped to itself is an echo; half-closing ends it", function()
    local a, b = tcp_pair()
    local echo = b:pipe_to(b)
    await(a:write("round trip"))
    await(a:shutdown())
    assert.are.equal("round trip", await(a:read("a")))
    assert.are.equal(10, await(echo))
    close(a, b)
  end)

  it("a pipe whose target goes away faults, and leaves the source open", function()
    local a, b = await(net.pair())
    local c, d = await(net.pair())
    local moving = b:pipe_to(c)
    close(d)
    local ok, err
    for _ = 1, 100 do
      await(a:write("x"))
      await(task.yield())
      if moving:done() then
        break
      end
    end
    ok, err = task.pcall(await, moving)
    assert.is_false(ok)
    assert.are.equal("EPIPE", err.code)
    assert.is_truthy(b:fd())
    await(a:write("direct\n"))
    assert.are.equal("direct", await(b:read("l")):match("direct"))
    close(a, b, c)
  end)

  it("pipe_to may leave its target open, and refuses what is no stream", function()
    local a, b = await(net.pair())
    local c, d = await(net.pair())
    await(a:write("first "))
    await(a:shutdown())
    assert.are.equal(6, await(b:pipe_to(c, { shutdown = false })))
    await(c:write("second"))
    await(c:shutdown())
    assert.are.equal("first second", await(d:read("a")))
    assert.is_false((pcall(b.pipe_to, b, "x")))
    assert.is_false((pcall(b.pipe_to, b, c, { close = true })))
    close(a, b, c, d)
  end)

  it("connect, talk and close, 20,000 times, without growth", function()
    local rounds = child.sanitizer() and 500 or 20000
    local output, code = child.lua(child.root .. "/bench/echo/soak.lua", {
      args = { tostring(rounds), child.sanitizer() and "100000" or nil }, timeout = 120, -- they keep freed memory
    })
    assert.are.equal(0, code, output)
    assert.matches(rounds .. " cycles", output, 1, true)
  end)
end)
