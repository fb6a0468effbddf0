-- WebSockets: messages, limits, broken rules, closing, keepalive, cancelling (RFC 6455). Over pairs of streams, with
-- frames made by hand on the other side; the handshakes of both sides; Node as the peer.

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local child = require "spec.support.child"

local await, try = task.await, task.try

local found, websocket = pcall(require, "asynctask.http.websocket")
if not found then
  describe("WebSocket", function()
    pending("it was built without wslay: " .. tostring(websocket):match "^[^\n]*")
  end)
  return
end

-- What is called after each spec, the last one first.
local cleanups = {}

local function later(f)
  table.insert(cleanups, 1, f)
end

after_each(function()
  local list = cleanups
  cleanups = {}
  for _, f in ipairs(list) do f() end
end)

-- A frame as it is sent; masked with a fixed key for a client.
local function frame(opcode, payload, options)
  local o = options or {}
  local first = (o.fin == false and 0 or 0x80) | (o.rsv or 0) << 4 | opcode
  local masked = o.mask and 0x80 or 0
  local size = #payload
  local head
  if o.long then
    head = string.pack(">BBI8", first, masked | 127, size)
  elseif size < 126 then
    head = string.pack("BB", first, masked | size)
  elseif size < 65536 then
    head = string.pack(">BBI2", first, masked | 126, size)
  else
    head = string.pack(">BBI8", first, masked | 127, size)
  end
  if not o.mask then
    return head .. payload
  end
  local key = { 1, 2, 3, 4 }
  local i = 0
  return head .. "\1\2\3\4" .. payload:gsub(".", function(c)
    i = i + 1
    return string.char(c:byte() ~ key[(i - 1) % 4 + 1])
  end)
end

local TEXT <const>, BINARY <const>, CLOSE <const>, PING <const>, PONG <const> = 1, 2, 8, 9, 10

local function masked(opcode, payload, options)
  local o = { mask = true }
  for name, value in pairs(options or {}) do o[name] = value end
  return frame(opcode, payload, o)
end

-- Our side, and the stream of a peer who speaks by hand.
local function with_raw(server, options)
  local ours, raw = await(net.pair())
  local ws = websocket.over(ours, server, options or {})
  later(function()
    await(raw:close())
    await(ws:close())
  end)
  return ws, raw
end

-- Two of ours that talk to each other: server, client.
local function both(options, client_options)
  local a, b = await(net.pair())
  local server = websocket.over(a, true, options or {})
  local client = websocket.over(b, false, client_options or options or {})
  later(function()
    await(task.when_all(server:close(), client:close()))
  end)
  return server, client
end

local function code_of(t)
  local ok, err = try(t)
  assert.is_nil(ok)
  return err.code, err
end

-- A short limit for what should happen at once.
local function soon(t)
  return await(t:timeout(5))
end

describe("WebSocket", function()
  describe("messages", function()
    it("go both ways, as text and as bytes", function()
      local server, client = both()
      await(client:send "héllo")
      local message, kind = soon(server:receive())
      assert.are.equal("héllo", message)
      assert.are.equal("text", kind)
      await(server:send("\0\255", { binary = true }))
      message, kind = soon(client:receive())
      assert.are.equal("\0\255", message)
      assert.are.equal("binary", kind)
      await(client:send "")
      assert.are.equal("", soon(server:receive()))
    end)

    it("arrive whole and in order, whatever their size", function()
      local server, client = both({ max_message = 300000 }, { max_message = 300000 })
      local sizes = { 0, 1, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 65537, 300000 }
      local sending = task.spawn(function()
        for _, size in ipairs(sizes) do
          await(client:send(("x"):rep(size)))
          await(server:send(("y"):rep(size)))
        end
      end)
      for _, size in ipairs(sizes) do
        assert.is_true(soon(server:receive()) == ("x"):rep(size))
        assert.is_true(soon(client:receive()) == ("y"):rep(size))
      end
      await(sending)
    end)

    it("are put together from fragments, with pings between them, byte by byte", function()
      local ws, raw = with_raw(true)
      local bytes = masked(TEXT, "h\xc3", { fin = false }) .. masked(PING, "now") .. masked(0, "\xa9", { fin = false })
        .. masked(0, "") .. masked(BINARY, "next")
      local sending = task.spawn(function()
        for i = 1, #bytes do
          await(raw:write(bytes:sub(i, i)))
          if i % 7 == 0 then await(task.delay(0)) end
        end
      end)
      assert.are.equal("hé", soon(ws:receive()))
      assert.are.equal("next", soon(ws:receive()))
      assert.are.equal(frame(PONG, "now"), soon(raw:read(5)))
      await(sending)
    end)

    it("are sent unmasked by a server, masked by a client, with a mask of its own each", function()
      local server, raw = with_raw(true)
      await(server:send "Hello")
      assert.are.equal("\x81\x05Hello", soon(raw:read(7)))
      local client, other = with_raw(false)
      local masks = {}
      for _ = 1, 40 do
        await(client:send "Hello")
        local bytes = soon(other:read(11))
        assert.are.equal("\x81\x85", bytes:sub(1, 2))
        local key, i = bytes:sub(3, 6), 0
        masks[key] = true
        assert.are.equal("Hello", (bytes:sub(7):gsub(".", function(c)
          i = i + 1
          return string.char(c:byte() ~ key:byte(i > 4 and 1 or i))
        end)))
      end
      local count = 0
      for _ in pairs(masks) do count = count + 1 end
      assert.is_true(count > 35)
    end)

    it("come one after another in a loop, which ends when the peer closes", function()
      local server, client = both()
      task.spawn(function()
        for i = 1, 3 do await(client:send(tostring(i))) end
        await(client:close())
      end)
      local seen = {}
      for message, kind in server:each() do seen[#seen + 1] = message .. kind end
      assert.are.equal("1text2text3text", table.concat(seen))
    end)

    it("S22: are checked when they are sent", function()
      local server = both()
      local function fails(message, ...)
        local ok, err = pcall(server.send, server, ...)
        assert.is_false(ok)
        assert.are.equal(message, (err:gsub("^.-:%d+: ", "")))
      end
      fails("bad argument #1 to 'send' (string expected, got nil)")
      fails("bad argument #1 to 'send' (text is not valid UTF-8; {binary = true} sends bytes)", "\xff")
      fails("bad argument #1 to 'send' (text is not valid UTF-8; {binary = true} sends bytes)", "\xed\xa0\x80")
      fails("bad argument #2 to 'send' (unknown option 'binry')", "x", { binry = true })
    end)
  end)

  describe("broken rules", function()
    -- what the peer sends to a server, the error of receive, the code of the close frame
    local cases = {
      ["a frame that is not masked"] = { frame(TEXT, "x"), "EPROTO", 1002 },
      ["a reserved bit"] = { masked(TEXT, "x", { rsv = 4 }), "EPROTO", 1002 },
      ["another reserved bit"] = { masked(TEXT, "x", { rsv = 1 }), "EPROTO", 1002 },
      ["a reserved opcode"] = { masked(3, "x"), "EPROTO", 1002 },
      ["a reserved control opcode"] = { masked(11, ""), "EPROTO", 1002 },
      ["a control frame in fragments"] = { masked(PING, "x", { fin = false }), "EPROTO", 1002 },
      ["a control frame that is too long"] = { masked(PING, ("x"):rep(126)), "EPROTO", 1002 },
      ["a continuation of nothing"] = { masked(0, "x"), "EPROTO", 1002 },
      ["a new message inside another"] = { masked(TEXT, "x", { fin = false }) .. masked(TEXT, "y"), "EPROTO", 1002 },
      ["a length that is longer than need be"] = { masked(TEXT, "x", { long = true }), "EPROTO", 1002 },
      ["a close frame of one byte"] = { masked(CLOSE, "\3"), "EPROTO", 1002 },
      ["a close code that must not be sent"] = { masked(CLOSE, "\x03\xed"), "EPROTO", 1002 },
      ["a close code out of range"] = { masked(CLOSE, "\x03\xe7"), "EPROTO", 1002 },
      ["a close reason that is not UTF-8"] = { masked(CLOSE, "\x03\xe8\xff"), "EILSEQ", 1007 },
      ["text that is not UTF-8"] = { masked(TEXT, "a\xffb"), "EILSEQ", 1007 },
      ["text that ends within a character"] = { masked(TEXT, "a\xc3"), "EILSEQ", 1007 },
      ["a surrogate in fragments"] = { masked(TEXT, "\xed", { fin = false }) .. masked(0, "\xa0\x80"), "EILSEQ", 1007 },
      ["a message that is too large"] = { masked(BINARY, ("x"):rep(1001)), "EMSGSIZE", 1009 },
      ["fragments that are too large together"] = { masked(BINARY, ("x"):rep(900), { fin = false })
        .. masked(0, ("x"):rep(101)), "EMSGSIZE", 1009 },
      ["a length of 2^62"] = { "\x82\xff" .. string.pack(">I8", 1 << 62) .. "\1\2\3\4x", "EMSGSIZE", 1009 },
      ["a length with the highest bit"] = { "\x82\xff\x80" .. ("\0"):rep(7) .. "\1\2\3\4", "EPROTO", 1002 },
    }
    for what, case in pairs(cases) do
      it(("fault receive, and are told to the peer: %s"):format(what), function()
        local ws, raw = with_raw(true, { max_message = 1000 })
        await(raw:write(masked(TEXT, "before"), case[1]))
        await(raw:shutdown())
        assert.are.equal("before", soon(ws:receive()))
        local code, err = code_of(ws:receive():timeout(5))
        assert.are.equal(case[2], code)
        assert.are.equal("receive", err.op)
        assert.are.equal(frame(CLOSE, string.pack(">I2", case[3])), soon(raw:read "a"))
        assert.are.equal(case[2], (code_of(ws:receive())))
        assert.are.equal(case[2], (code_of(ws:send "x")))
      end)
    end

    it("of a server are seen by a client: a mask", function()
      local ws, raw = with_raw(false)
      await(raw:write(masked(TEXT, "x")))
      assert.are.equal("EPROTO", (code_of(ws:receive():timeout(5))))
      await(raw:close())
    end)
  end)

  describe("closing", function()
    it("by the peer ends receive with nil, after what came before, and is answered", function()
      local ws, raw = with_raw(true)
      await(raw:write(masked(TEXT, "last"), masked(CLOSE, "\x0f\xa0bye")))
      assert.are.equal(frame(CLOSE, "\x0f\xa0bye"), soon(raw:read "a"))
      assert.are.equal("last", soon(ws:receive()))
      assert.is_nil(soon(ws:receive()))
      assert.is_nil(soon(ws:receive()))
      local code, reason = ws:closed()
      assert.are.equal(4000, code)
      assert.are.equal("bye", reason)
      assert.are.equal("EPIPE", (code_of(ws:send "x")))
      assert.are.equal("EPIPE", (code_of(ws:ping())))
    end)

    it("knows frames without a code, and the newer codes", function()
      for payload, wanted in pairs { [""] = 1005, ["\x03\xf4"] = 1012, ["\x03\xf6later"] = 1014,
        ["\x03\xe9"] = 1001 } do
        local ws, raw = with_raw(true)
        await(raw:write(masked(CLOSE, payload)))
        assert.is_nil(soon(ws:receive()))
        soon(ws:wait())
        assert.are.equal(wanted, (ws:closed()))
      end
    end)

    it("by us sends code and reason, and waits for the answer", function()
      local server, client = both()
      local t = server:close(1001, "going")
      assert.is_nil(server:closed())
      await(t)
      assert.is_nil(soon(client:receive()))
      assert.are.same({ 1001, "going" }, { client:closed() })
      assert.are.same({ 1001, "going" }, { server:closed() }) -- what the peer answers
      await(server:close())
    end)

    it("by both at once is fine", function()
      local server, client = both()
      await(task.when_all(server:close(4001), client:close(4002)):timeout(5))
      assert.are.equal(4002, (server:closed()))
      assert.are.equal(4001, (client:closed()))
    end)

    it("does not wait for ever for a peer that does not answer", function()
      local ws, raw = with_raw(true, { close_timeout = 0.05 })
      soon(ws:close())
      assert.are.equal(1006, (ws:closed()))
      assert.are.equal(frame(CLOSE, "\x03\xe8"), soon(raw:read "a"))
    end)

    it("drops what still comes, and wakes who waits", function()
      local ws, raw = with_raw(true, { close_timeout = 0.05 })
      local waiting, ping = ws:receive(), ws:ping()
      local closing = ws:close()
      await(raw:write(masked(CLOSE, "\x03\xe8")))
      soon(closing)
      assert.is_nil(soon(waiting))
      assert.are.equal("EPIPE", (code_of(ping)))
    end)

    it("happens at the end of a scope: normally, after an error, when cancelled", function()
      local server, client = both()
      do local _ <close> = server end
      soon(client:wait())
      assert.are.equal(1000, (client:closed()))

      server, client = both()
      pcall(function()
        local _ <close> = server
        error "oh"
      end)
      soon(client:wait())
      assert.are.equal(1011, (client:closed()))

      server, client = both()
      local t = task.spawn(function()
        local _ <close> = server
        await(task.delay(60))
      end)
      t:cancel()
      try(t)
      soon(client:wait())
      assert.are.equal(1001, (client:closed()))
    end)

    it("S10: happens in cancelled scopes too", function()
      local server, client = both()
      local t = task.spawn(function()
        pcall(await, task.delay(60))
        server:close(4003)
      end)
      t:cancel()
      try(t)
      soon(client:wait())
      assert.are.equal(4003, (client:closed()))
    end)

    it("S22: checks code and reason", function()
      local server = both()
      for _, code in ipairs { 999, 1004, 1005, 1006, 1015, 2999, 5000, 1000.5, "1000" } do
        assert.is_false((pcall(server.close, server, code)), tostring(code))
      end
      assert.is_false((pcall(server.close, server, 1000, ("x"):rep(124))))
      assert.is_false((pcall(server.close, server, 1000, "\xff")))
    end)

    it("without a close frame is an error", function()
      local ws, raw = with_raw(true)
      await(raw:write(masked(TEXT, "x"), masked(TEXT, "cut"):sub(1, 4)))
      await(raw:close())
      assert.are.equal("x", soon(ws:receive()))
      local code, err = code_of(ws:receive():timeout(5))
      assert.are.equal("ECONNRESET", code)
      assert.are.equal("receive: the connection ended without a close frame (ECONNRESET)", tostring(err))
      soon(ws:wait())
      assert.are.equal(1006, (ws:closed()))
    end)

    it("is done by the collector for one that was forgotten", function()
      local a, b = await(net.pair())
      do
        local ws = websocket.over(a, true, {})
        assert.is_nil(ws:closed())
      end
      collectgarbage()
      collectgarbage()
      assert.is_nil(soon(b:read_some()))
      await(b:close())
    end)
  end)

  describe("pings", function()
    it("are answered, and measured", function()
      local server, client = both()
      local seconds = soon(client:ping())
      assert.is_true(seconds >= 0 and seconds < 5)
      assert.is_true(soon(server:ping "payload") >= 0)
    end)

    it("are answered up to the newest by one pong", function()
      local ws, raw = with_raw(true)
      local a, b, c = ws:ping "a", ws:ping "b", ws:ping "c"
      await(raw:write(masked(PONG, "b"), masked(PONG, "unasked")))
      soon(task.when_all(a, b))
      assert.is_false(c:done())
      await(raw:write(masked(PONG, "c")))
      soon(c)
    end)

    it("keep a quiet connection open", function()
      local server, client = both({ ping_interval = 0.02, ping_timeout = 5 }, { ping_interval = false })
      await(task.delay(0.2))
      assert.is_nil(server:closed())
      await(client:send "still there")
      assert.are.equal("still there", soon(server:receive()))
    end)

    it("find out that the peer is gone", function()
      local ws, raw = with_raw(true, { ping_interval = 0.02, ping_timeout = 0.05, close_timeout = 0.05 })
      local code, err = code_of(ws:receive():timeout(5))
      assert.are.equal("ETIMEDOUT", code)
      assert.are.equal("keepalive", err.op)
      assert.are.equal(frame(PING, "") .. frame(CLOSE, "\x03\xf3"), soon(raw:read "a"))
    end)

    it("are not missed while nobody receives and the buffer is full", function()
      local ws, raw = with_raw(true, { ping_interval = 0.02, ping_timeout = 0.02, buffer = 10 })
      await(raw:write(masked(TEXT, ("x"):rep(100)), masked(TEXT, "y")))
      await(task.delay(0.2))
      assert.is_nil(ws:closed())
      assert.are.equal(("x"):rep(100), soon(ws:receive()))
      assert.are.equal("y", soon(ws:receive()))
    end)
  end)

  describe("backpressure", function()
    it("holds up a sender whose peer does not read", function()
      local ws = with_raw(true)
      local sent = 0
      local sender = task.spawn(function()
        while true do
          await(ws:send(("x"):rep(10000), { binary = true }))
          sent = sent + 1
        end
      end)
      await(task.delay(0.1))
      local before = sent
      await(task.delay(0.1))
      assert.are.equal(before, sent)
      assert.is_true(sent < 1000)
      sender:cancel()
      try(sender)
    end)

    it("holds up a peer whose messages nobody receives", function()
      local server, client = both({ buffer = 20000 }, {})
      local sent = 0
      local sender = task.spawn(function()
        for i = 1, 500 do
          await(client:send(("x"):rep(10000)))
          sent = i
        end
      end)
      await(task.delay(0.1))
      local before = sent
      assert.is_true(before < 500)
      for _ = 1, 500 do
        assert.are.equal(10000, #soon(server:receive()))
      end
      await(sender)
    end)
  end)

  describe("cancelling", function()
    it("S10: a receive that was cancelled has taken nothing", function()
      local server, client = both()
      local waiting = server:receive()
      waiting:cancel()
      try(waiting)
      await(client:send "one")
      assert.are.equal("one", soon(server:receive()))

      await(client:send "two")
      await(task.delay(0.02))
      local t = task.spawn(function()
        pcall(await, task.delay(60))
        await(server:receive()) -- the scope is cancelled: it never begins
      end)
      t:cancel()
      try(t)
      assert.are.equal("cancelled", t:status())
      assert.are.equal("two", soon(server:receive()))
    end)

    it("S10: a send in a cancelled scope sends nothing", function()
      local server, client = both()
      local t = task.spawn(function()
        pcall(await, task.delay(60))
        await(client:send "never")
      end)
      t:cancel()
      try(t)
      await(client:send "this")
      assert.are.equal("this", soon(server:receive()))
    end)

    it("S10: a send cancelled before its turn sends nothing, one that is half out ends the connection", function()
      local a, b = await(net.pair())
      local server = websocket.over(a, true, { close_timeout = 0.05 })
      local client = websocket.over(b, false, { buffer = 1, max_message = 1 << 24 })
      await(server:send "fills the client's buffer")
      await(task.delay(0.02))
      local half_out = server:send(("x"):rep(8000000))
      local waiting = server:send "never"
      waiting:cancel()
      try(waiting)
      assert.are.equal("fills the client's buffer", soon(client:receive()))
      assert.are.equal(8000000, #soon(client:receive()))
      soon(half_out)
      await(server:send "after")
      assert.are.equal("after", soon(client:receive()))

      await(server:send "fills it again")
      await(task.delay(0.02))
      half_out = server:send(("x"):rep(8000000))
      half_out:cancel()
      try(half_out)
      soon(server:wait())
      assert.are.equal("fills it again", soon(client:receive()))
      assert.are.equal("ECONNRESET", (code_of(client:receive():timeout(5))))
      await(task.when_all(server:close(), client:close()))
    end)

    it("serves several receivers in turn", function()
      local server, client = both()
      local a, b = server:receive(), server:receive()
      await(client:send "1")
      await(client:send "2")
      assert.are.equal("1", soon(a))
      assert.are.equal("2", soon(b))
    end)
  end)

  it("survives bytes that make no sense, and its limits hold", function()
    local wslay = require "asynctask.wslay"
    local random = 12345
    local function next_random(n) -- the same numbers each time
      random = (random * 1103515245 + 12345) & 0x7fffffff
      return (random >> 8) % n
    end
    local ended = 0
    for round = 1, 3000 do
      local list = {}
      for i = 1, next_random(6) + 1 do
        local opcode = ({ TEXT, BINARY, 0, CLOSE, PING, PONG })[next_random(6) + 1]
        local payload = ("x"):rep(next_random(next_random(5) == 0 and 300 or 20))
        list[i] = frame(opcode, payload, { fin = next_random(3) > 0, mask = round % 2 == 0 })
      end
      local bytes = table.concat(list)
      for _ = 1, next_random(3) do -- and a few bytes that are wrong
        local at = next_random(#bytes) + 1
        bytes = bytes:sub(1, at - 1) .. string.char(next_random(256)) .. bytes:sub(at + 1)
      end
      local session = wslay.session(round % 2 == 0, 200)
      local at = 1
      while at <= #bytes do
        local size = next_random(40) + 1
        session:feed(bytes:sub(at, at + size - 1))
        at = at + size
        local kind, data = session:take()
        while kind do
          assert.is_true(#data <= 200)
          assert.is_true(kind ~= "text" or utf8.len(data) ~= nil)
          kind, data = session:take()
        end
      end
      local sent, received, broken = session:state()
      assert.are.equal(sent, received or broken ~= nil)
      ended = ended + (sent and 1 or 0)
    end
    assert.is_true(ended > 1000)
  end)

  it("reports memory that runs out, at every moment", function()
    local q = child.quote
    if child.sanitizer() or child.coverage() then
      pending "the program has functions in place of the C library's, as sanitizers do"
    elseif select(2, child.shell "${CC:-gcc} --version && getconf GNU_LIBC_VERSION") ~= 0 then
      pending "there is no compiler, or another C library"
    end
    local program = os.tmpname()
    later(function() os.remove(program) end)
    local output, code = child.shell(("cd %s && ${CC:-gcc} -g -O1 -std=gnu11 -D_GNU_SOURCE= -Icsrc -Icsrc/include "
      .. "csrc/ext/wslay/session.c spec/c/wslay_faults.c -o %s -lwslay"):format(q(child.root), q(program)))
    assert.are.equal(0, code, output)
    output, code = child.shell("timeout 60 " .. q(program))
    assert.are.equal(0, code, output)
    assert.matches("^ok %d%d%d\n$", output)
  end)

  it("says which library is missing where it was built without", function()
    local output, code = child.lua([[
      package.preload["asynctask.wslay"] = function() error "module 'asynctask.wslay' not found" end
      local http = require "asynctask.http"
      local ok, err = pcall(function() return http.websocket end)
      print(ok, err:match "^[^\n]*")
      print(type(http.router), type(http.files))
    ]])
    assert.are.equal(0, code, output)
    assert.are.equal("false\tWebSockets need the library wslay, which asynctask was built without: install it "
      .. "(Debian: libwslay-dev; pkg-config: libwslay) and build again\nfunction\tfunction\n", output)
  end)

  it("S18: the state may close in the middle", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local net = require "asynctask.net"
      local websocket = require "asynctask.http.websocket"
      local a, b = task.await(net.pair())
      server, client = websocket.over(a, true, {}), websocket.over(b, false, {})
      task.await(client:send("x"))
      receiving = client:receive()
      sending = server:send(("x"):rep(3000000))
      closing = task.spawn(function() task.await(server:close()) end)
      print "closing"
      os.exit(0, true)
    ]])
    assert.are.equal(0, code, output)
    assert.matches("closing", output)
  end)
end)

-- ---- handshakes ----------------------------------------------------------------------------------

local has_server = pcall(require, "asynctask.http1")

describe("http.websocket", function()
  local http = require "asynctask.http"

  -- A server that reads a head and answers what `answer(key, head)` gives; gives its URL.
  local function raw_server(answer)
    local server = await(net.listen("127.0.0.1", 0))
    local heads = {}
    local serving = server:serve(function(stream)
      local head = await(stream:read_until("\r\n\r\n", { keep = true }))
      heads[#heads + 1] = head
      local bytes = answer(head:match "Sec%-WebSocket%-Key: (%S+)\r\n", head)
      if bytes then
        await(stream:write(bytes))
      else
        await(task.delay(60))
      end
      await(stream:read "a")
    end, { on_error = function() end })
    later(function()
      await(server:close())
      await(serving)
    end)
    return ("ws://127.0.0.1:%d/chat?room=1"):format(server:sockname().port), heads
  end

  local function accepted(key, more)
    return ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
      .. "Sec-WebSocket-Accept: %s\r\n%s\r\n"):format(websocket.accept(key), more or "")
  end

  it("asks as RFC 6455 wants it, and takes bytes that come with the answer", function()
    local url, heads = raw_server(function(key)
      return accepted(key, "Sec-WebSocket-Protocol: b\r\n") .. frame(TEXT, "at once") .. frame(CLOSE, "\x03\xe8")
    end)
    local options = { protocols = { "a", "b" }, origin = "http://x", headers = { ["X-Y"] = "z" } }
    local ws <close> = await(http.websocket(url, options))
    assert.are.equal("b", ws.protocol)
    assert.are.equal("at once", soon(ws:receive()))
    assert.is_nil(soon(ws:receive()))
    local head = heads[1]
    assert.matches("^GET /chat%?room=1 HTTP/1%.1\r\nHost: 127%.0%.0%.1:%d+\r\n", head)
    for _, line in ipairs { "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Protocol: a, b", "Origin: http://x", "X-Y: z" } do
      assert.matches("\r\n" .. line .. "\r\n", head, 1, true)
    end
    assert.matches("\r\nSec%-WebSocket%-Key: [%w+/]+==\r\n", head)
  end)

  it("computes the answer of RFC 6455, section 1.3", function()
    assert.are.equal("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", websocket.accept "dGhlIHNhbXBsZSBub25jZQ==")
  end)

  local wrong = {
    ["another status"] = function() return "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n" end,
    ["no HTTP"] = function() return "SSH-2.0-x\r\n\r\n" end,
    ["a wrong accept"] = function() return accepted "x" end,
    ["no Upgrade"] = function(key) return (accepted(key):gsub("Upgrade: WebSocket\r\n", "")) end,
    ["no Connection"] = function(key) return (accepted(key):gsub("keep%-alive, Upgrade", "close")) end,
    ["an extension"] = function(key) return accepted(key, "Sec-WebSocket-Extensions: x\r\n") end,
    ["a protocol nobody asked for"] = function(key) return accepted(key, "Sec-WebSocket-Protocol: c\r\n") end,
    ["a head without end"] = function() return "HTTP/1.1 101 x\r\n" .. ("X: y\r\n"):rep(10000) end,
    ["a broken field"] = function(key) return accepted(key, "no field\r\n") end,
  }
  for what, answer in pairs(wrong) do
    it("refuses an answer with " .. what, function()
      local url = raw_server(answer)
      local code, err = code_of(http.websocket(url, { protocols = { "a" } }):timeout(5))
      assert.are.equal(what == "a head without end" and "EMSGSIZE" or "EPROTO", code)
      if what == "another status" then
        assert.are.equal(403, err.status)
        assert.are.equal("websocket " .. url .. ": the server has answered 403 (EPROTO)", tostring(err))
      end
    end)
  end

  it("gives up after its time", function()
    local url = raw_server(function() end)
    assert.are.equal("ETIMEDOUT", (code_of(http.websocket(url, { timeout = 0.05 }))))
  end)

  it("S10: cancelled, it closes its connection", function()
    local url = raw_server(function() end)
    local t = http.websocket(url)
    await(task.delay(0.05))
    t:cancel()
    try(t)
    assert.are.equal("cancelled", t:status())
  end)

  it("S22: checks its arguments", function()
    for _, url in ipairs { "http://x/", "ws:/x", "ws://", "ws://a@b/", "ws://x:99999/", "ws://x/#y", "ws://x/a b",
      "ws://x/\r\nHost: y", "ws://x:y/" } do
      assert.is_false((pcall(http.websocket, url)), url)
    end
    for name, value in pairs { headers = { ["a\r\nb"] = "c" }, protocols = { "a b" }, ping_interval = 0,
      max_message = -1, timeout = "x", nothing = 1 } do
      assert.is_false((pcall(http.websocket, "ws://localhost/", { [name] = value })), name)
    end
    assert.is_false((pcall(http.websocket, "ws://localhost/", { headers = { a = "b\r\nc: d" } })))
  end)
end)

local about_upgrade = has_server and describe or pending
about_upgrade("http.upgrade", function()
  local http = require "asynctask.http"
  local process = require "asynctask.process"
  local web = require "spec.support.web"

  local KEY = "dGhlIHNhbXBsZSBub25jZQ=="

  -- Serves an echo with these options; gives the port.
  local function echo(options, log)
    local port, server, serving = web.serve(function(req)
      local ws <close> = await(http.upgrade(req, options))
      for message, kind in ws:each() do
        await(ws:send(message, { binary = kind == "binary" }))
      end
      if log then log[#log + 1] = ws:closed() end
    end)
    later(function()
      await(server:close { grace = 1 })
      await(serving)
    end)
    return port
  end

  -- The head of a proper request, with some fields changed (false: left out).
  local function request(port, changes, first_line)
    local fields = {
      Host = ("localhost:%d"):format(port), Upgrade = "websocket", Connection = "Upgrade", ["Sec-WebSocket-Key"] = KEY,
      ["Sec-WebSocket-Version"] = "13",
    }
    for name, value in pairs(changes or {}) do fields[name] = value end
    local lines = { first_line or "GET / HTTP/1.1" }
    for name, value in pairs(fields) do
      if value then lines[#lines + 1] = name .. ": " .. value end
    end
    return table.concat(lines, "\r\n") .. "\r\n\r\n"
  end

  it("answers, and gives messages that came with the request", function()
    local port = echo()
    local stream <close> = await(net.connect("127.0.0.1", port))
    await(stream:write(request(port, { Connection = "keep-alive, UPGRADE", Upgrade = "WebSocket" }),
      masked(TEXT, "early")))
    local head = soon(stream:read_until("\r\n\r\n", { keep = true }))
    assert.matches("^HTTP/1%.1 101 ", head)
    assert.matches("\r\n[Ss]ec%-[Ww]eb[Ss]ocket%-[Aa]ccept: s3pPLMBiTxaQ9kYGzzhZRbK%+xOo=\r\n", head)
    assert.are.equal(frame(TEXT, "early"), soon(stream:read(7)))
    await(stream:write(masked(CLOSE, "\x03\xe8")))
    assert.are.equal(frame(CLOSE, "\x03\xe8"), soon(stream:read "a"))
  end)

  for what, case in pairs {
    ["no Upgrade"] = { 426, { Upgrade = false } }, ["no Connection"] = { 426, { Connection = "close" } },
    ["another version"] = { 426, { ["Sec-WebSocket-Version"] = "8" } },
    ["no key"] = { 400, { ["Sec-WebSocket-Key"] = false } },
    ["a short key"] = { 400, { ["Sec-WebSocket-Key"] = "eA==" } },
    ["another method"] = { 400, {}, "POST / HTTP/1.1" }, ["HTTP/1.0"] = { 400, {}, "GET / HTTP/1.0" },
    ["a body"] = { 400, { ["Content-Length"] = "1" } },
    ["somebody else's page"] = { 403, { Origin = "http://evil.example" } },
    ["a page without origin"] = { 403, { Origin = "null" } },
    ["a host that only begins like ours"] = { 403, { Origin = "http://localhost.evil.example" } },
  } do
    it("refuses a request with " .. what, function()
      local port = echo()
      local answer = web.raw(port, request(port, case[2], case[3]):gsub("\r\n\r\n$", "\r\nConnection: close\r\n\r\n", 1)
        .. (what == "a body" and "x" or ""))
      assert.matches("^HTTP/1%.1 " .. case[1] .. " ", answer)
      if what == "another version" then
        assert.matches("\r\nSec%-WebSocket%-Version: 13\r\n", answer)
      elseif case[1] == 426 then
        assert.matches("\r\nUpgrade: websocket\r\n", answer)
      end
    end)
  end

  it("takes pages of its own, and those that it is told to", function()
    local function status(port, origin)
      return tonumber(web.raw(port, request(port, { Origin = origin }) .. masked(CLOSE, "")):match "^HTTP/1%.1 (%d+)")
    end
    local port = echo()
    assert.are.equal(101, status(port, ("http://localhost:%d"):format(port)))
    assert.are.equal(403, status(port, "http://localhost"))
    port = echo { origin = { "https://a.example", "https://b.example" } }
    assert.are.equal(101, status(port, "https://B.example"))
    assert.are.equal(403, status(port, ("http://localhost:%d"):format(port)))
    port = echo { origin = "*" }
    assert.are.equal(101, status(port, "http://x"))
    port = echo { origin = function(origin, req) return origin == "http://x" and req.path == "/" end }
    assert.are.equal(101, status(port, "http://x"))
    assert.are.equal(403, status(port, false))
  end)

  it("agrees with our client on a subprotocol", function()
    local port = echo { protocols = { "b", "a" } }
    local url = ("ws://127.0.0.1:%d/"):format(port)
    for offered, wanted in pairs { ["a"] = "a", ["b"] = "b", ["c"] = false } do
      local ws <close> = await(http.websocket(url, { protocols = { offered } }))
      assert.are.equal(wanted or nil, ws.protocol)
      await(ws:send "x")
      assert.are.equal("x", soon(ws:receive()))
    end
    local ws <close> = await(http.websocket(url, { protocols = { "a", "b" } }))
    assert.are.equal("b", ws.protocol)
  end)

  it("says goodbye when the server closes", function()
    local port, server, serving = web.serve(function(req)
      local ws <close> = await(http.upgrade(req))
      await(ws:receive())
    end)
    local ws <close> = await(http.websocket(("ws://127.0.0.1:%d/"):format(port)))
    local closing = server:close()
    assert.is_nil(soon(ws:receive()))
    assert.are.equal(1001, (ws:closed()))
    await(closing)
    await(serving)
  end)

  it("speaks TLS (wss)", function()
    local certificates = require "spec.support.certificates"
    if not pcall(require, "asynctask.tls") or select(2, child.shell "openssl version") ~= 0 then
      pending "there is no TLS"
    end
    local path = certificates.make()
    local port, server, serving = web.serve(function(req)
      local ws <close> = await(http.upgrade(req))
      for message in ws:each() do
        await(ws:send(message))
      end
    end, { tls = { cert = path "chain.pem", key = path "server.key" }, on_error = function() end })
    later(function()
      await(server:close { grace = 1 })
      await(serving)
    end)
    local url = ("wss://localhost:%d/"):format(port)
    local ws <close> = await(http.websocket(url, { tls = { ca = path "ca.pem" } }))
    for _, size in ipairs { 5, 500000 } do
      await(ws:send(("x"):rep(size)))
      assert.are.equal(size, #soon(ws:receive()))
    end
    await(ws:close(4000))
    assert.are.equal(4000, (ws:closed()))
  end)

  it("works on the threads of a server", function()
    local server = await(net.listen("127.0.0.1", 0, { reuseport = true }))
    local routes = http.router():get("/:name", function(req)
      local ws <close> = await(http.upgrade(req))
      for message in ws:each() do
        await(ws:send(req.params.name .. message))
      end
    end)
    local serving = http.serve(server, routes, { threads = 2 })
    local url = ("ws://127.0.0.1:%d/"):format(server:sockname().port)
    for i = 1, 8 do
      local ws <close> = await(http.websocket(url .. i))
      await(ws:send "x")
      assert.are.equal(i .. "x", soon(ws:receive()))
    end
    await(server:close { grace = 1 })
    await(serving)
  end)

  it("talks to Node's client", function()
    local probe = [[node --experimental-websocket -e 'process.exit(typeof WebSocket === "function" ? 0 : 1)']]
    if select(2, child.shell(probe)) ~= 0 then
      pending "there is no node with a WebSocket"
    end
    local log = {}
    local port = echo({ protocols = { "echo" }, max_message = 1 << 20 }, log)
    local output, errors, code = await(process.run("node", { "--no-warnings", "--experimental-websocket", "-e", ([[
      const ws = new WebSocket("ws://127.0.0.1:%d/", "echo");
      ws.binaryType = "arraybuffer";
      const expected = ["héllo", new Uint8Array([0, 255, 1]), "x".repeat(500000), ""];
      let next = 0;
      ws.onopen = () => { console.log("protocol " + ws.protocol); expected.forEach((m) => ws.send(m)); };
      ws.onmessage = (event) => {
        const wanted = expected[next++];
        const same = typeof wanted === "string" ? wanted === event.data
          : Buffer.compare(Buffer.from(wanted), Buffer.from(event.data)) === 0;
        console.log(same ? "same" : "different");
        if (next === expected.length) ws.close(4321, "done");
      };
      ws.onerror = (event) => console.log("error " + event.message);
      ws.onclose = (event) => console.log("closed " + event.code + " " + event.reason + " " + event.wasClean);
    ]]):format(port) }, { timeout = 30 }))
    assert.are.equal(0, code, errors)
    assert.are.equal("protocol echo\nsame\nsame\nsame\nsame\nclosed 4321 done true\n", output)
    assert.are.equal(4321, log[1])
  end)

  it("talks to a server of Node's", function()
    if select(2, child.shell "node --version") ~= 0 then
      pending "node is not installed"
    end
    local file = os.tmpname()
    later(function() os.remove(file) end)
    await(fs.write_file(file, [[
      const crypto = require("crypto"), http = require("http");
      const server = http.createServer();
      server.on("upgrade", (req, socket) => {
        const key = req.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        const accept = crypto.createHash("sha1").update(key).digest("base64");
        socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
          "Sec-WebSocket-Accept: " + accept + "\r\n\r\n");
        let data = Buffer.alloc(0);
        socket.on("data", (piece) => {
          data = Buffer.concat([data, piece]);
          while (data.length >= 6) {                       // short masked frames only
            const size = data[1] & 127;
            if (data.length < 6 + size) return;
            const payload = Buffer.from(data.subarray(6, 6 + size).map((byte, i) => byte ^ data[2 + i % 4]));
            const opcode = data[0];
            data = data.subarray(6 + size);
            socket.write(Buffer.concat([Buffer.from([opcode, payload.length]), payload]));
            if ((opcode & 15) === 8) socket.end();
          }
        });
        socket.on("close", () => server.close());
      });
      server.listen(0, "127.0.0.1", () => console.log(server.address().port));
    ]]))
    local proc <close> = await(process.spawn("node", { file }, { stdout = "pipe" }))
    local port = soon(proc.stdout:read "l")
    do
      local ws <close> = await(http.websocket(("ws://127.0.0.1:%s/"):format(port)))
      await(ws:send "from Lua")
      assert.are.equal("from Lua", soon(ws:receive()))
      await(ws:close(4000, "bye"))
      assert.are.same({ 4000, "bye" }, { ws:closed() })
    end
    soon(proc:wait())
  end)
end)
