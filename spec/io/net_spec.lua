-- Specs of asynctask.net: connecting, reading, writing, closing, servers, and a bad world.

local task = require "asynctask"
local net = require "asynctask.net"
local child = require "spec.support.child"

local await, try, spawn, delay = task.await, task.try, task.spawn, task.delay


-- Two connected TCP streams and nothing else.
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

-- Two streams, and what closes them when the scope is left.
local function pair(make)
  local a, b
  if make then
    a, b = make()
  else
    a, b = await(net.pair())
  end
  return a, b, setmetatable({}, { __close = function()
    close(a, b)
  end })
end

-- Returns when the loop has seen what was written before: a byte has gone through another pair.
local function arrive()
  local a, b = await(net.pair())
  local t = b:read(1)
  await(a:write("x"))
  await(t)
  close(a, b)
end

-- Lets the loop turn until `done()`; a spec that waits in vain fails.
local function until_true(done, what)
  for _ = 1, 2000 do
    if done() then
      return
    end
    await(delay(0.001))
  end
  error("waited in vain for " .. what, 2)
end

-- Open descriptors, without those that only wait to be collected (unless they are to be `counted`).
local function descriptors(counted)
  if not counted then
    collectgarbage()
    collectgarbage()
  end
  local least = math.huge -- a sanitizer's runtime opens files now and then
  for _ = 1, 3 do
    local n, pipe = 0, assert(io.popen("ls /proc/$PPID/fd"))
    for _ in pipe:lines() do
      n = n + 1
    end
    pipe:close()
    least = math.min(least, n)
  end
  return least
end

local function port_of_nobody()
  local server = await(net.listen("127.0.0.1", 0))
  local port = server:sockname().port
  close(server)
  return port
end

describe("connecting", function()
  it("gives streams that know both names", function()
    local server <close> = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local client <close> = await(net.connect("127.0.0.1", port))
    local peer <close> = await(server:accept())
    assert.are.same({ host = "127.0.0.1", port = port, family = "ipv4" }, client:peername())
    assert.are.same(client:sockname(), peer:peername())
    assert.are.equal(port, peer:sockname().port)
    assert.are.equal("number", type(client:fd()))
    assert.is_true(client:nodelay(false))
    assert.is_true(client:keepalive(true, 30))
  end)

  it("resolves names and tries their addresses in turn", function()
    local server <close> = await(net.listen("localhost", 0))
    local client <close> = await(net.connect("localhost", server:sockname().port))
    local peer <close> = await(server:accept())
    await(client:write("hi\n"))
    assert.are.equal("hi", await(peer:read()))
  end)

  it("S22: says that it was refused, by whom", function()
    local port = port_of_nobody()
    local before = descriptors()
    collectgarbage("stop")
    local stream, err = try(net.connect("127.0.0.1", port))
    local after = descriptors(true)
    collectgarbage("restart")
    assert.is_nil(stream)
    assert.are.equal(before, after)
    assert.are.equal("ECONNREFUSED", err.code)
    assert.are.equal("connect", err.op)
    assert.are.equal("127.0.0.1:" .. port, err.address)
    stream, err = try(net.connect("localhost", port))
    assert.is_nil(stream)
    assert.are.equal("ECONNREFUSED", err.code)
  end)

  it("S22: says that a name does not resolve", function()
    for _, t in ipairs { net.resolve("nonexistent.invalid"), net.connect("nonexistent.invalid", 80) } do
      local list, err = try(t)
      assert.is_nil(list)
      assert.is_truthy(err.code:find("^EAI_"))
      assert.are.equal("resolve", err.op)
      assert.are.equal("nonexistent.invalid", err.address)
    end
  end)

  it("resolves into a list of addresses", function()
    local list = await(net.resolve("localhost"))
    assert.is_true(#list >= 1)
    assert.is_truthy(list[1].host == "127.0.0.1" or list[1].host == "::1")
    assert.are.same({ { host = "127.0.0.1", family = "ipv4" } }, await(net.resolve("127.0.0.1")))
    for _, a in ipairs(await(net.resolve("localhost", { family = "ipv4" }))) do
      assert.are.equal("ipv4", a.family)
    end
  end)

  it("S10: a cancelled connect leaves no descriptor", function()
    local server = await(net.listen("127.0.0.1", 0, { backlog = 1 }))
    local port, streams = server:sockname().port, {}
    local pending
    for _ = 1, 20 do -- the backlog fills, then the system does not answer
      local t = net.connect("127.0.0.1", port)
      local done = try(task.when_any { t, delay(0.05) })
      if done ~= t then
        pending = t
        break
      end
      streams[#streams + 1] = await(t)
    end
    assert.is_truthy(pending)
    local before = descriptors()
    pending:cancel()
    assert.are.equal("cancelled", pending:status())
    assert.are.equal(before - 1, descriptors())
    close(server, table.unpack(streams))
  end)

  it("has a timeout", function()
    local server = await(net.listen("127.0.0.1", 0, { backlog = 1 }))
    local port, streams, code = server:sockname().port, {}, nil
    for _ = 1, 20 do
      local stream, err = try(net.connect("127.0.0.1", port, { timeout = 0.05 }))
      if not stream then
        code = err.code
        break
      end
      streams[#streams + 1] = stream
    end
    assert.are.equal("ETIMEDOUT", code)
    close(server, table.unpack(streams))
  end)

  it("refuses wrong arguments at the call", function()
    local function raises(text, f, ...)
      local ok, err = pcall(f, ...)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find(text, 1, true), tostring(err))
    end
    raises("bad argument #1 to 'connect' (string expected, got nil)", net.connect)
    raises("bad argument #2 to 'connect' (port number expected, got nil)", net.connect, "127.0.0.1")
    raises("bad argument #2 to 'connect' (port 65536 is not between 0 and 65535)", net.connect, "::1", 65536)
    raises("bad argument #2 to 'listen' (port -1", net.listen, "127.0.0.1", -1)
    raises("bad argument #2 to 'listen' (port number expected, got string)", net.listen, "127.0.0.1", "http")
    raises("bad argument #3 to 'listen' (unknown option 'backlogs')", net.listen, "127.0.0.1", 0, { backlogs = 1 })
    raises("option 'timeout'", net.connect, "127.0.0.1", 1, { timeout = "1" })
    raises("bad argument #1 to 'connect' (host is empty)", net.connect, "", 1)
    raises("bad argument #1 to 'connect' (path is empty)", net.connect, { path = "" })
    raises("bad argument #3 to 'serve' (function expected, got nil)", net.serve, "127.0.0.1", 0)
    raises("bad argument #1 to 'resolve' (string expected, got table)", net.resolve, {})
    local a, b, _ <close> = pair()
    raises("bad argument #1 to 'read' (invalid format 'x')", function() a:read("x") end)
    raises("bad argument #2 to 'read' (format or count expected, got boolean)", function() a:read("l", true) end)
    raises("bad argument #1 to 'read' (negative count)", function() a:read(-1) end)
    raises("bad argument #1 to 'write' (string expected, got table)", function() b:write({}) end)
    raises("bad argument #1 to 'read_until' (delimiter is empty)", function() a:read_until("") end)
    raises("bad argument #2 to 'read_until' (unknown option 'min')", function() a:read_until("x", { min = 1 }) end)
    raises("bad argument #1 to 'read_some' (positive number", function() a:read_some(0) end)
    raises("asynctask.Stream expected", a.read, io.stdout)
    raises("asynctask.Stream expected", a.read, nil)
  end)
end)

describe("reading", function()
  it("gives the formats of io, several at once", function()
    local a, b, _ <close> = pair()
    await(a:write("line\nkept\n 0x1F -7.5e1 rest", "of it"))
    await(a:shutdown())
    assert.are.same({ "line", "kept\n", 31, -75.0, " rest" }, { await(b:read("l", "*L", "n", "n", 5)) })
    assert.are.equal("of it", await(b:read("a")))
    assert.are.equal("", await(b:read("a")))
    assert.is_nil(await(b:read("l")))
    assert.is_nil(await(b:read(0)))
    assert.are.equal("integer", math.type(31))
  end)

  it("waits for all that was asked, byte by byte", function()
    local a, b, _ <close> = pair()
    local t = b:read("l", "n", 3, "L")
    for byte in ("ab\n12 xyz\n"):gmatch(".") do
      assert.are.equal("pending", t:status())
      await(a:write(byte))
      arrive()
    end
    assert.are.same({ "ab", 12, " xy", "z\n" }, { await(t) })
  end)

  it("ends with nil, and gives what was left before", function()
    local a, b, _ <close> = pair()
    await(a:write("no newline"))
    await(a:close())
    assert.are.equal("no newline", await(b:read("l")))
    assert.is_nil(await(b:read("l")))
    assert.is_nil(await(b:read_some()))
    assert.is_nil(await(b:read_until("x")))
  end)

  it("visits lines", function()
    local a, b, _ <close> = pair()
    await(a:write("one\ntwo\n\nfour"))
    await(a:shutdown())
    local list = {}
    for line in b:lines() do
      list[#list + 1] = line
    end
    assert.are.same({ "one", "two", "", "four" }, list)
    await(b:write("1 2 3"))
    await(b:shutdown())
    local sum = 0
    for n in a:lines("n") do
      sum = sum + n
    end
    assert.are.equal(6, sum)
  end)

  it("gives what there is, at most so much", function()
    local a, b, _ <close> = pair()
    local t = b:read_some()
    await(a:write("abcdef"))
    assert.are.equal("abcdef", await(t))
    await(a:write("ghijkl"))
    assert.are.equal("gh", await(b:read_some(2)))
    assert.are.equal("ijkl", await(b:read_some()))
  end)

  it("reads up to a delimiter that comes in pieces", function()
    local a, b, _ <close> = pair()
    local t = b:read_until("\r\n\r\n")
    for _, piece in ipairs { "head\r", "\n", "\r", "\nbody--end" } do
      await(a:write(piece))
      arrive()
    end
    assert.are.equal("head", await(t))
    assert.are.equal("body--", await(b:read_until("--", { keep = true })))
    await(a:shutdown())
    assert.are.equal("end", await(b:read_until("--")))
  end)

  it("bounds a delimiter that never comes, and loses nothing", function()
    local a, b, _ <close> = pair()
    await(a:write(("x"):rep(100)))
    local s, err = try(b:read_until("\n", { max = 10 }))
    assert.is_nil(s)
    assert.are.equal("EMSGSIZE", err.code)
    assert.are.equal(("x"):rep(100), await(b:read(100)))
    await(a:write("0123456789\n"))
    assert.are.equal("0123456789", await(b:read_until("\n", { max = 10 })))
  end)

  it("bounds a line at 16 MiB", function()
    local a, b, _ <close> = pair()
    local writing = task.spawn(function()
      for _ = 1, 17 do
        await(a:write(("x"):rep(1024 * 1024)))
      end
    end)
    local line, err = try(b:read("l"))
    assert.is_nil(line)
    assert.are.equal("EMSGSIZE", err.code)
    assert.is_true(#await(b:read_some()) > 0)
    writing:cancel()
  end)

  it("S10: what a cancelled read would have got is got by the next one", function()
    local a, b, _ <close> = pair()
    local t = b:read(10)
    await(a:write("01234"))
    arrive()
    assert.is_true(t:cancel())
    assert.are.equal("cancelled", t:status())
    await(a:write("56789"))
    assert.are.equal("0123456789", await(b:read(10)))
    local ok = task.pcall(task.with_timeout, 0.005, b.read, b, "l")
    assert.is_false(ok)
    await(a:write("late\n"))
    assert.are.equal("late", await(b:read("l")))
  end)

  it("refuses a second reader", function()
    local a, b, _ <close> = pair()
    local first = b:read("l")
    local line, err = try(b:read("l"))
    assert.is_nil(line)
    assert.are.equal("EBUSY", err.code)
    assert.is_truthy(tostring(err):find("another task is reading"))
    await(a:write("mine\n"))
    assert.are.equal("mine", await(first))
  end)

  it("keeps what is left over for the stream that it came from", function()
    local streams, reads = {}, {}
    for i = 1, 5 do
      local a, b = await(net.pair())
      streams[i] = { a, b }
      reads[i] = b:read("l")
      await(a:write(("first %d\nsecond %d\nthird"):format(i, i)))
    end
    for i, t in ipairs(reads) do
      assert.are.equal("first " .. i, await(t))
    end
    for i, s in ipairs(streams) do
      assert.are.equal("second " .. i, await(s[2]:read("l")))
      assert.are.equal("third", await(s[2]:read_some()))
      close(s[1], s[2])
    end
  end)

  it("reads large counts whole", function()
    local a, b, _ <close> = pair(tcp_pair)
    local text = ("0123456789abcdef"):rep(256 * 1024)
    local sent = spawn(function()
      await(a:write(text))
    end)
    assert.are.equal(text, await(b:read(#text)))
    await(sent)
  end)

  it("stops when the buffer is full and nobody reads", function()
    local a, b, _ <close> = pair()
    local first = b:read(1)
    await(a:write("x"))
    assert.are.equal("x", await(first)) -- it reads ahead from here on
    local big = a:write(("y"):rep(4 * 1024 * 1024))
    await(delay(0.02))
    local before = os.clock()
    await(delay(0.1))
    assert.is_true(os.clock() - before < 0.05) -- it does not look again and again
    assert.are.equal("pending", big:status())
    assert.are.equal(4 * 1024 * 1024, #await(b:read(4 * 1024 * 1024)))
    await(big)
  end)

  it("gives the error of a connection that was reset, and what came before", function()
    local a, b = tcp_pair()
    await(a:write("never read"))
    await(b:write("last words\n"))
    until_true(function() return #await(a:read_some()) > 0 end, "the words")
    local t = a:read("l")
    await(b:close()) -- with bytes unread: the peer gets a reset
    local line, err = try(t)
    assert.is_nil(line)
    assert.are.equal("ECONNRESET", err.code)
    line, err = try(a:read("l"))
    assert.is_nil(line)
    assert.are.equal("ECONNRESET", err.code)
    close(a)
  end)
end)

describe("writing", function()
  it("settles at once what the system takes", function()
    local a, b, _ <close> = pair()
    local t = a:write("a", 1, "b", 2.5)
    assert.are.equal("succeeded", t:status())
    assert.are.equal("a1b2.5", await(b:read(6)))
    await(a:write())
    await(a:write(""))
  end)

  it("writes many strings whole and in order", function()
    local a, b, _ <close> = pair(tcp_pair)
    local parts = {}
    for i = 1, 200 do
      parts[i] = ("%d,"):format(i):rep(200)
    end
    local all = table.concat(parts)
    local sent = spawn(function()
      await(a:write(table.unpack(parts)))
      await(a:write("end\n"))
    end)
    assert.are.equal(all .. "end", await(b:read("l")))
    await(sent)
  end)

  it("holds a writer up while the peer does not read, in bounded memory", function()
    local a, b, _ <close> = pair()
    local piece, settled = ("z"):rep(16 * 1024), 0
    local writer = spawn(function()
      for _ = 1, 400 do
        await(a:write(piece))
        settled = settled + 1
      end
    end)
    await(delay(0.02))
    assert.are.equal("pending", writer:status())
    assert.is_true(settled < 200)
    local total = 0
    while total < 400 * #piece do
      total = total + #await(b:read_some())
    end
    await(writer)
    assert.are.equal(400, settled)
  end)

  it("says EPIPE for a peer that went away, never a signal", function()
    for _, make in ipairs { tcp_pair, function() return await(net.pair()) end } do
      local a, b = make()
      await(b:close())
      local err
      for _ = 1, 1000 do
        local ok, e = task.pcall(await, a:write("anybody there?"))
        if not ok then
          err = e
          break
        end
        await(delay(0.001))
      end
      assert.is_truthy(err)
      assert.is_truthy(err.code == "EPIPE" or err.code == "ECONNRESET", err.code)
      local _, again = try(a:write("x"))
      assert.are.equal(err.code, again.code)
      close(a)
    end
  end)

  it("says EPIPE after shutdown; reading goes on", function()
    local a, b, _ <close> = pair(tcp_pair)
    await(a:write("question"))
    await(a:shutdown())
    await(a:shutdown())
    local _, err = try(a:write("more"))
    assert.are.equal("EPIPE", err.code)
    assert.are.equal("question", await(b:read("a")))
    await(b:write("answer"))
    await(b:close())
    assert.are.equal("answer", await(a:read("a")))
  end)

  it("shuts down after what is queued", function()
    local a, b, _ <close> = pair()
    local size = 2 * 1024 * 1024
    local write, shut = a:write(("s"):rep(size)), a:shutdown()
    assert.are.equal("pending", shut:status())
    assert.are.equal(size, #await(b:read("a")))
    await(write)
    await(shut)
  end)

  it("S10: a write that was cancelled before its turn did not happen", function()
    local a, b, _ <close> = pair()
    local size = 1024 * 1024
    local first = a:write(("1"):rep(size))
    local second = a:write(("2"):rep(size))
    local third = a:write(("3"):rep(size))
    assert.are.equal("pending", second:status())
    second:cancel()
    local got = await(b:read(2 * size))
    assert.are.equal(("1"):rep(size) .. ("3"):rep(size), got)
    await(first)
    await(third)
  end)

  it("S10: a half-written write that is cancelled closes the stream", function()
    local a, b = await(net.pair())
    local t = a:write(("h"):rep(1024 * 1024))
    assert.are.equal("pending", t:status())
    t:cancel()
    assert.is_nil(a:fd())
    local _, err = try(a:write("x"))
    assert.are.equal("EBADF", err.code)
    assert.is_true(#await(b:read("a")) < 1024 * 1024)
    close(a, b)
  end)

  it("S10: a write in a cancelled scope never begins", function()
    local a, b, _ <close> = pair()
    local t = spawn(function()
      pcall(function() await(delay(60)) end)
      a:write("not this\n")
    end)
    t:cancel()
    try(t)
    await(a:write("this\n"))
    assert.are.equal("this", await(b:read("l")))
  end)
end)

describe("closing", function()
  it("ends a read that waits", function()
    local a, b, _ <close> = pair()
    local t = b:read("l")
    await(b:close())
    local line, err = try(t)
    assert.is_nil(line)
    assert.are.equal("EBADF", err.code)
    assert.is_false(task.is_cancelled(err))
    assert.is_nil(await(a:read_some()))
  end)

  it("twice is fine, using it afterwards is an error", function()
    local a, b = await(net.pair())
    close(a, a, b)
    for _, t in ipairs { a:read(), a:read_some(), a:write("x"), a:shutdown() } do
      local _, err = try(t)
      assert.are.equal("EBADF", err.code)
      assert.is_truthy(tostring(err):find("closed", 1, true))
    end
    local name, err = a:sockname()
    assert.is_nil(name)
    assert.are.equal("EBADF", err.code)
    assert.is_truthy(tostring(a):find("closed", 1, true))
  end)

  it("sends what is queued first", function()
    local a, b = await(net.pair())
    local size = 1024 * 1024
    local write = a:write(("q"):rep(size))
    local before = os.time()
    local closed = a:close()
    assert.are.equal("pending", closed:status())
    assert.are.equal(size, #await(b:read("a")))
    assert.is_true(os.time() - before < 4) -- with the last byte, not when it gives up
    await(write)
    await(closed)
    close(b)
  end)

  it("S10: a close whose Task is cancelled happens at once", function()
    local a, b = await(net.pair())
    local write = a:write(("q"):rep(1024 * 1024))
    local closed = a:close()
    closed:cancel()
    assert.is_nil(a:fd())
    local _, err = try(write)
    assert.are.equal("EBADF", err.code)
    close(b)
  end)

  it("happens when a scope is left, and in cancelled scopes", function()
    local a, b = await(net.pair())
    local t = spawn(function()
      local _ <close> = a
      await(delay(60))
    end)
    t:cancel()
    try(t)
    assert.is_nil(await(b:read_some()))
    close(b)
  end)

  it("happens when a stream is collected, after what is queued", function()
    local output, code = child.lua([[
      local task, net = require "asynctask", require "asynctask.net"
      local await = task.await
      local function descriptors()
        local least = math.huge
        for _ = 1, 3 do
          local n, pipe = 0, io.popen("ls /proc/$PPID/fd")
          for _ in pipe:lines() do n = n + 1 end
          pipe:close()
          least = math.min(least, n)
        end
        return least
      end
      local one, other = await(net.pair()) -- what comes with the first one is there
      local before = descriptors()
      for _ = 1, 20 do
        local a, b = await(net.pair())
        await(a:write("x"))
        assert(await(b:read(1)) == "x")
      end
      collectgarbage() collectgarbage()
      print(descriptors() - before)
      do
        local a, b = await(net.pair())
        keep, total = b, 0
        local piece = ("y"):rep(16384)
        while true do
          local t = a:write(piece)
          if t:status() == "pending" then t:cancel() break end
          total = total + #piece
        end
      end
      collectgarbage() collectgarbage()
      print(#await(keep:read("a")) - total)
      await(keep:close()) await(one:close()) await(other:close())
    ]], { timeout = 20 })
    assert.are.equal("0\n0\n", output)
    assert.are.equal(0, code)
  end)

  it("a stream that is only awaited is not collected", function()
    local a, b, _ <close> = pair()
    local t = b:read("l")
    b = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    await(a:write("still here\n"))
    assert.are.equal("still here", await(t))
    t = nil -- luacheck: ignore
    collectgarbage()
  end)
end)

describe("servers", function()
  it("S22: say that an address is in use", function()
    local server <close> = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local other, err = try(net.listen("127.0.0.1", port))
    assert.is_nil(other)
    assert.are.equal("EADDRINUSE", err.code)
    assert.are.equal("listen", err.op)
    assert.are.equal("127.0.0.1:" .. port, err.address)
  end)

  it("listen on every interface", function()
    local server <close> = await(net.listen("*", 0))
    local client <close> = await(net.connect("127.0.0.1", server:sockname().port))
    local peer <close> = await(server:accept())
    await(peer:write("x"))
    assert.are.equal("x", await(client:read(1)))
  end)

  it("S10: a cancelled accept loses no connection", function()
    local server <close> = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local first = server:accept()
    local second = server:accept()
    first:cancel()
    local client <close> = await(net.connect("127.0.0.1", port))
    local peer <close> = await(second)
    await(client:write("x"))
    assert.are.equal("x", await(peer:read(1)))
    local third = server:accept()
    local connected = net.connect("127.0.0.1", port)
    spawn(function() -- woken in the turn in which the accept ends, or before
      await(connected)
      third:cancel()
    end)
    local other <close> = await(connected)
    await(delay(0.005))
    local got <close> = third:status() == "succeeded" and await(third) or await(server:accept())
    await(other:write("y"))
    assert.are.equal("y", await(got:read(1)))
  end)

  it("end an accept that waits, when they close", function()
    local server = await(net.listen("127.0.0.1", 0))
    local t = server:accept()
    close(server, server)
    local stream, err = try(t)
    assert.is_nil(stream)
    assert.are.equal("EBADF", err.code)
    stream, err = try(server:accept())
    assert.is_nil(stream)
    assert.are.equal("EBADF", err.code)
  end)

  it("survive a connection that closes at once", function()
    local server <close> = await(net.listen("127.0.0.1", 0))
    local client = await(net.connect("127.0.0.1", server:sockname().port))
    close(client)
    local peer <close> = await(server:accept())
    assert.is_nil(await(peer:read()))
  end)

  it("S16: an idle one does not hide a deadlock", function()
    local server <close> = await(net.listen("127.0.0.1", 0))
    local a, b, _ <close> = pair()
    local first = b:read(1)
    await(a:write("x"))
    await(first) -- b reads ahead from here on
    local source = task.source()
    local ok, err = pcall(await, source.task)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("deadlock"))
    source:set_result()
    assert.is_truthy(server and a and b)
  end)

  it("serve 200 clients at once", function()
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local serving = server:serve(function(stream)
      for line in stream:lines() do
        await(stream:write(line, "\n"))
      end
    end)
    local clients = {}
    for i = 1, 200 do
      clients[i] = spawn(function()
        local stream <close> = await(net.connect("127.0.0.1", port))
        for round = 1, 5 do
          local text = ("client %d round %d"):format(i, round)
          await(stream:write(text, "\n"))
          assert.are.equal(text, await(stream:read("l")))
        end
        return i
      end)
    end
    local results = await(task.when_all(clients))
    assert.are.equal(200, results[200])
    await(server:close { grace = 1 })
    await(serving)
  end)

  it("close the connection when its handler returns, or fails", function()
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local failed
    local serving = server:serve(function(stream)
      local line = await(stream:read())
      if line == "fail" then
        error("as asked")
      end
      return spawn(function() -- S25: it is awaited before the connection closes
        await(delay(0.002))
        await(stream:write("fine\n"))
      end)
    end, {
      on_error = function(err, t)
        failed = { err, t:status() }
      end,
    })
    for _, word in ipairs { "go", "fail", "go" } do
      local stream <close> = await(net.connect("127.0.0.1", port))
      await(stream:write(word, "\n"))
      assert.are.equal(word == "go" and "fine\n" or "", await(stream:read("a")))
    end
    until_true(function() return failed end, "on_error")
    assert.is_truthy(tostring(failed[1]):find("as asked"))
    assert.are.equal("faulted", failed[2])
    close(server)
    await(serving)
  end)

  it("S15: report a handler's error that nobody asked for, and go on", function()
    local reports = {}
    local before = task.on_unobserved(function(err)
      reports[#reports + 1] = tostring(err)
    end)
    local server = await(net.listen("127.0.0.1", 0))
    local serving = server:serve(function()
      error("nobody looks")
    end)
    for _ = 1, 2 do
      local stream <close> = await(net.connect("127.0.0.1", server:sockname().port))
      assert.are.equal("", await(stream:read("a")))
    end
    until_true(function()
      collectgarbage()
      return #reports == 2
    end, "two reports")
    assert.is_truthy(reports[1]:find("nobody looks"))
    close(server)
    await(serving)
    task.on_unobserved(before)
  end)

  it("bound their handlers with max", function()
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local running, most = 0, 0
    local serving = server:serve(function(stream)
      running = running + 1
      most = math.max(most, running)
      await(stream:write("hello\n"))
      await(stream:read())
      running = running - 1
    end, { max = 2 })
    local clients = {}
    for i = 1, 6 do
      clients[i] = spawn(function()
        local stream <close> = await(net.connect("127.0.0.1", port))
        assert.are.equal("hello", await(stream:read()))
        await(delay(0.003))
        await(stream:write("bye\n"))
        assert.is_nil(await(stream:read()))
      end)
    end
    await(task.when_all(clients))
    assert.are.equal(2, most)
    await(server:close { grace = 1 })
    await(serving)
  end)

  it("let handlers end within the grace, then cancel them", function()
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local ended = {}
    local serving = server:serve(function(stream)
      local name = await(stream:read())
      local _ <close> = setmetatable({}, { __close = function(_, err)
        ended[name] = err ~= nil and "interrupted" or "ended"
      end })
      await(delay(name == "quick" and 0.01 or 60))
    end)
    local quick <close> = await(net.connect("127.0.0.1", port))
    local slow <close> = await(net.connect("127.0.0.1", port))
    await(quick:write("quick\n"))
    await(slow:write("slow\n"))
    await(delay(0.005))
    local closing = server:close { grace = 0.05 }
    assert.are.equal("pending", serving:status())
    await(closing)
    await(serving)
    assert.are.equal("ended", ended.quick)
    assert.are.equal("interrupted", ended.slow)
    assert.are.equal("", await(slow:read("a")))
  end)

  it("cancelling serve closes the server and cancels its handlers", function()
    local server = await(net.listen("127.0.0.1", 0))
    local stopped
    local serving = server:serve(function(stream)
      local ok, err = pcall(await, stream:read())
      stopped = not ok and err
      error(err, 0)
    end)
    local client <close> = await(net.connect("127.0.0.1", server:sockname().port))
    await(delay(0.005))
    serving:cancel()
    try(serving)
    assert.are.equal("cancelled", serving:status())
    assert.is_true(task.is_cancelled(stopped))
    assert.is_nil(await(client:read_some()))
    assert.is_nil(server:sockname())
  end)

  it("a handler may close its own server", function()
    local server = await(net.listen("127.0.0.1", 0))
    local serving = server:serve(function(stream)
      await(server:close { grace = 5 })
      await(stream:write("closed\n"))
    end)
    local client <close> = await(net.connect("127.0.0.1", server:sockname().port))
    assert.are.equal("closed", await(client:read()))
    await(serving)
  end)

  it("refuse to be served twice at once", function()
    local server = await(net.listen("127.0.0.1", 0))
    local serving = server:serve(function() end)
    local _, err = try(server:serve(function() end))
    assert.are.equal("EBUSY", err.code)
    close(server)
    await(serving)
  end)

  it("net.serve listens, serves and ends when it is cancelled", function()
    local port = port_of_nobody()
    local serving = net.serve("127.0.0.1", port, function(stream)
      await(stream:write("served\n"))
    end, { max = 10, backlog = 10 })
    local client <close> = await(net.connect("127.0.0.1", port))
    assert.are.equal("served", await(client:read()))
    serving:cancel()
    try(serving)
    assert.are.equal("cancelled", serving:status())
    local _, err = try(net.connect("127.0.0.1", port))
    assert.are.equal("ECONNREFUSED", err.code)
  end)

  it("net.serve faults when it cannot listen", function()
    local server <close> = await(net.listen("127.0.0.1", 0))
    local _, err = try(net.serve("127.0.0.1", server:sockname().port, function() end))
    assert.are.equal("EADDRINUSE", err.code)
  end)
end)

describe("Unix sockets", function()
  it("listen at a path, and remove it again", function()
    local path = os.tmpname()
    os.remove(path)
    local server = await(net.listen { path = path })
    assert.are.same({ path = path }, server:sockname())
    local client <close> = await(net.connect { path = path })
    local peer <close> = await(server:accept())
    await(client:write("local\n"))
    assert.are.equal("local", await(peer:read()))
    assert.are.same({ path = path }, client:peername())
    close(server)
    assert.is_nil(io.open(path))
    local _, err = try(net.connect { path = path })
    assert.are.equal("ENOENT", err.code)
    assert.are.equal(path, err.path)
  end)

  it("may have no path at all", function()
    local name = "\0asynctask spec " .. tostring({})
    local server <close> = await(net.listen { path = name })
    local client <close> = await(net.connect { path = name })
    local peer <close> = await(server:accept())
    await(peer:write("x"))
    assert.are.equal("x", await(client:read(1)))
  end)
end)

describe("a bad world", function()
  it("EMFILE while accepting neither spins nor ends the server", function()
    local output, code = child.lua([[
      local task, net = require "asynctask", require "asynctask.net"
      local await, delay = task.await, task.delay
      local server = await(net.listen("127.0.0.1", 0))
      local port, fillers = server:sockname().port, {}
      local client = await(net.connect("127.0.0.1", port))
      while true do
        local f = io.open("/dev/null")
        if not f then break end
        fillers[#fillers + 1] = f
      end
      local t = server:accept()
      local before = os.clock()
      await(delay(0.3))
      assert(t:status() == "pending", t:status())
      assert(os.clock() - before < 0.15, "it spins")
      for _, f in ipairs(fillers) do f:close() end
      local peer = task.with_timeout(5, await, t)
      await(peer:write("late but whole\n"))
      print(await(client:read()))
      await(client:close()) await(peer:close()) await(server:close())
    ]], { before = "ulimit -n 40;", timeout = 20 })
    assert.are.equal("late but whole\n", output)
    assert.are.equal(0, code)
  end)

  it("S18: a state may end with everything in flight", function()
    local output, code = child.lua([[
      local task, net = require "asynctask", require "asynctask.net"
      local await = task.await
      task.on_unobserved(function() end)
      local server = await(net.listen("127.0.0.1", 0))
      local port = server:sockname().port
      local a = await(net.connect("127.0.0.1", port))
      local b = await(server:accept())
      keep = { a:read("l"), a:write(("x"):rep(8000000)), server:accept(), net.resolve("localhost"),
        a:shutdown(), net.connect("127.0.0.1", port), b:read(9000000),
        server:serve(function(s) await(s:read()) end) }
      await(task.delay(0.01))
      keep[#keep + 1] = a:close()
      print("bye")
    ]], { timeout = 20 })
    assert.is_truthy(output:find("^bye\n"), output)
    assert.are.equal(0, code)
  end)
end)
