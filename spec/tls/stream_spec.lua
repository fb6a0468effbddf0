-- Encrypted streams, beside the conformance suite: ends that are none, records that are torn, slow and strange
-- transports.

local task = require "asynctask"
local net = require "asynctask.net"
local child = require "spec.support.child"
local certificates = require "spec.support.certificates"

local tls = certificates.tls(describe, pending)
if not tls then
  return
end

local await, try, spawn = task.await, task.try, task.spawn
local path = certificates.make()
local server_context, client_context

-- client, server, and what they lie on
local function streams(a, b, version)
  if not a then
    a, b = await(net.pair())
  end
  server_context = server_context or await(tls.context {
    server = true, cert = path "server.pem", key = path "server.key",
  })
  client_context = client_context or await(tls.context { ca = path "ca.pem", sessions = false })
  local context = version and await(tls.context { ca = path "ca.pem", max_version = version }) or client_context
  local serving = tls.wrap(b, { context = server_context })
  local client = await(tls.wrap(a, { context = context, server_name = "localhost" }))
  return client, await(serving), a, b
end

local function close(...)
  for i = 1, select("#", ...) do
    await((select(i, ...)):close())
  end
end

-- An error that says that something is missing.
local function torn(err)
  return err.reason == "truncated" or err.code == "ECONNRESET"
end

describe("an encrypted stream", function()
  for _, version in ipairs { "1.2", "1.3" } do
    it("S23: ends with nil when the peer has said so, in TLS " .. version, function()
      local client, server = streams(nil, nil, version)
      await(server:write("all"))
      await(server:close())
      assert.are.equal("all", await(client:read("a")))
      assert.is_nil(await(client:read()))
      close(client)
    end)

    it("that ends otherwise is an error: what came is there, but no end, in TLS " .. version, function()
      local client, server, _, b = streams(nil, nil, version)
      await(server:write("some of it"))
      await(b:close())
      local t = client:read("a")
      local all, err = try(t)
      assert.is_nil(all)
      assert.are.equal("EPROTO", err.code)
      assert.are.equal("truncated", err.reason)
      assert.matches("^read: .*close_notify %(EPROTO%): truncated$", tostring(err))
      assert.are.equal("some of it", await(client:read_some()))
      local data, again = try(client:read_some())
      assert.is_nil(data)
      assert.are.equal("truncated", again.reason)
      close(client, server)
    end)
  end

  it("gives the transport's error where that has one", function()
    local listening <close> = await(net.listen("127.0.0.1", 0))
    local a = await(net.connect("127.0.0.1", listening:sockname().port))
    local b = await(listening:accept())
    local client, server = streams(a, b)
    await(client:write("unread, so that closing resets"))
    await(task.delay(0.01))
    await(b:close())
    local data, err = try(client:read())
    assert.is_nil(data)
    assert.is_true(torn(err), tostring(err))
    close(client, server)
  end)

  it("does not believe what was changed on its way, and tells the peer", function()
    local client, server, a, b = streams()
    await(b:write("\x17\x03\x03\x00\x20" .. ("x"):rep(32)))
    local data, err = try(client:read())
    assert.is_nil(data)
    assert.are.equal("EPROTO", err.code)
    assert.is_string(err.reason)
    local ok, again = task.pcall(await, client:write("x"))
    assert.is_false(ok)
    assert.are.equal("EPROTO", again.code)
    data, err = try(server:read())
    assert.is_nil(data)
    assert.are.equal("EPROTO", err.code)
    assert.matches("the peer has refused", err.message)
    close(client, server)
    assert.is_nil(a:fd())
  end)

  it("moves much both ways at once", function()
    local client, server = streams()
    local text = ("0123456789abcdef"):rep(512 * 1024) -- 8 MiB
    local writers = { client:write(text), server:write(text) }
    local readers = { client:read(#text), server:read(#text) }
    local all = await(task.when_all(readers))
    await(task.when_all(writers))
    assert.is_true(all[1] == text and all[2] == text)
    close(client, server)
  end)

  it("moves many small messages both ways at once", function()
    local client, server = streams()
    local function talk(from)
      return spawn(function()
        for i = 1, 2000 do
          await(from:write(i, "\n"))
        end
      end)
    end
    local function hear(to)
      return spawn(function()
        local sum = 0
        for _ = 1, 2000 do
          sum = sum + await(to:read("n", "L"))
        end
        return sum
      end)
    end
    local heard = await(task.when_all { talk(client) and hear(server), talk(server) and hear(client) })
    assert.are.equal(2001000, heard[1])
    assert.are.equal(2001000, heard[2])
    close(client, server)
  end)

  it("writes arrays and numbers, and nothing", function()
    local array = require "asynctask.array"
    local client, server = streams()
    await(client:write())
    await(client:write(""))
    await(client:write(array.from_string("u8", "bytes"), 1, 2.5, "\n"))
    assert.are.equal("bytes12.5", await(server:read()))
    assert.error_matches(function() client:write({}) end, "bad argument #1 to 'write' %(string expected, got table%)")
    assert.error_matches(function() client:write("a", nil) end, "bad argument #2 to 'write'")
    assert.error_matches(function() client:read("x") end, "bad argument #1 to 'read'")
    close(client, server)
  end)

  it("S10: a write that is cancelled before its turn has sent nothing", function()
    local client, server = streams()
    local big = ("b"):rep(4 * 1024 * 1024)
    local first = client:write(big)
    local second = client:write("second")
    local third = client:write("third")
    assert.are.equal("pending", second:status())
    second:cancel()
    assert.is_true(await(server:read(#big)) == big)
    assert.are.equal("third", await(server:read(5)))
    await(first)
    await(third)
    close(client, server)
  end)

  it("S10: a write that is cancelled half out closes the stream", function()
    local client, server, a = streams()
    local t = client:write(("b"):rep(4 * 1024 * 1024))
    local waiting = client:write("more")
    assert.are.equal("pending", t:status())
    t:cancel()
    try(t)
    local ok, err = task.pcall(await, client:write("x"))
    assert.is_false(ok)
    assert.are.equal("EBADF", err.code)
    assert.is_nil(a:fd())
    assert.is_false((task.pcall(await, waiting)))
    local data
    repeat
      data, err = try(server:read_some())
    until not data
    assert.is_true(torn(err), tostring(err))
    close(client, server)
  end)

  it("S1: writes from deep inside, and is closed when that is cancelled before it runs", function()
    for _, cancel in ipairs { false, true } do
      local client, server, a = streams()
      local big = ("d"):rep(1024 * 1024)
      local write
      local function nest(levels)
        if levels > 0 then
          spawn(nest, levels - 1)
        elseif levels == 0 then
          write = client:write(big)
          if cancel then
            write:cancel()
          end
        end
      end
      for levels = 18, 21 do
        write = nil
        if client:closed() then
          break
        end
        spawn(nest, levels)
        while not write do
          await(task.yield())
        end
        if cancel then
          try(write)
        else
          assert.is_true(await(server:read(#big)) == big)
          await(write)
        end
      end
      assert.are.equal(cancel, client:closed())
      await(client:close())
      assert.is_nil(a:fd())
      close(server)
    end
  end)

  it("S10: a cancelled shutdown did not happen", function()
    local client, server = streams()
    local big = ("b"):rep(4 * 1024 * 1024)
    local first = client:write(big)
    local shut = client:shutdown()
    assert.are.equal("pending", shut:status())
    shut:cancel()
    try(shut)
    local last = client:write("last")
    assert.is_true(await(server:read(#big)) == big)
    assert.are.equal("last", await(server:read(4)))
    await(first)
    await(last)
    close(client, server)
  end)

  it("S10: begins nothing in a cancelled scope but close", function()
    local client, server, a = streams()
    local t = spawn(function()
      pcall(await, task.delay(60))
      local never = { client:write("never"), client:shutdown(), client:read() }
      local closing = client:close()
      for _, one in ipairs(never) do
        assert.are.equal("cancelled", one:status())
      end
      task.shield(await, closing)
    end)
    t:cancel()
    await(t) -- it has caught that
    assert.is_nil(a:fd())
    assert.are.equal("", await(server:read("a"))) -- and close_notify came
    close(server)
  end)

  it("closes after what was written, and can be told not to wait", function()
    local client, server = streams()
    local text = ("z"):rep(2 * 1024 * 1024)
    local sent = client:write(text)
    local closing = client:close()
    assert.are.equal("pending", closing:status())
    local second = client:close()
    assert.are.equal(#text, #await(server:read("a")))
    await(sent)
    await(closing)
    await(second)
    close(server)

    local a
    client, server, a = streams()
    sent = client:write(text)
    closing = client:close()
    closing:cancel()
    try(closing)
    assert.is_false((task.pcall(await, sent)))
    assert.is_nil(a:fd())
    close(server)
  end)

  it("gives a close up at a deadline", function()
    local client, server, a = streams()
    local sent = client:write(("z"):rep(2 * 1024 * 1024))
    local ok, err = task.pcall(task.with_timeout, 0.05, client.close, client)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.is_false((task.pcall(await, sent)))
    assert.is_nil(a:fd())
    close(server)
  end)

  it("knows what it is", function()
    local client, server, a = streams()
    assert.matches("^asynctask%.tls%.Stream: asynctask%.Stream: ", tostring(client))
    assert.are.equal(a:fd(), client:fd())
    assert.is_false(client:closed())
    local certificate = client:peer_certificate()
    assert.are.same({ "localhost", "*.wild.test" }, certificate.names)
    assert.are.same({ "127.0.0.1" }, certificate.addresses)
    assert.are.equal("CN=server,O=specs", certificate.subject)
    assert.are.equal("CN=ca,O=specs", certificate.issuer)
    assert.matches("^%x+$", certificate.serial)
    assert.are.equal(64, #certificate.fingerprint)
    assert.are.equal(30 * 86400, certificate.not_after - certificate.not_before)
    assert.is_true(math.abs(certificate.not_before - os.time()) < 3600)
    close(client)
    assert.is_true(client:closed())
    assert.matches("^asynctask%.tls%.Stream %(closed%)", tostring(client))
    close(server)
  end)

  it("goes over anything that has the methods of a stream, a byte at a time too", function()
    local a, b = await(net.pair())
    local function trickle(stream)
      return {
        read_some = function()
          return stream:read_some(1)
        end,
        write = function(_, bytes)
          return stream:write(bytes)
        end,
        close = function()
          return stream:close()
        end,
      }
    end
    local client, server = streams(trickle(a), trickle(b))
    await(client:write("a line\n"))
    assert.are.equal("a line", await(server:read()))
    assert.is_nil(client:fd())
    local name, err = client:peername()
    assert.is_nil(name)
    assert.are.equal("ENOTSUP", err.code)
    await(client:shutdown())
    assert.is_nil(await(server:read()))
    await(server:write("answer"))
    await(server:close())
    assert.are.equal("answer", await(client:read("a")))
    close(client)
  end)

  it("that is collected is closed, without an end for the peer", function()
    local client, server, a = streams() -- luacheck: ignore 231
    local fd = a:fd()
    client, a = nil, nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    local data, err = try(server:read())
    assert.is_nil(data)
    assert.is_true(torn(err), tostring(err))
    assert.is_number(fd)
    close(server)
  end)

  it("S16: leaves nothing that keeps the loop alive while nobody reads", function()
    local client, server = streams()
    local source = task.source()
    local ok, err = pcall(await, source.task)
    assert.is_false(ok)
    assert.matches("deadlock", tostring(err))
    source:set_result()
    close(client, server)
  end)

  it("works inside a job", function()
    local listening <close> = await(net.listen("127.0.0.1", 0))
    local serving = listening:serve(await(tls.handler(function(stream)
      await(stream:write(await(stream:read()):upper(), "\n"))
    end, { server = true, cert = path "server.pem", key = path "server.key" })))
    local answer = await(task.run(function(port, ca)
      local wait = require("asynctask").await
      local stream <close> = wait(require("asynctask.tls").connect("127.0.0.1", port, { ca = ca }))
      wait(stream:write("from a job\n"))
      return wait(stream:read())
    end, listening:sockname().port, path "ca.pem"))
    assert.are.equal("FROM A JOB", answer)
    await(listening:close())
    await(serving)
  end)

  it("S18: may be left at any point when the state closes", function()
    for _, stage in ipairs { "handshake", "read", "write", "close", "garbage" } do
      local output, status = child.lua([[
        local task = require "asynctask"
        local net = require "asynctask.net"
        local tls = require "asynctask.tls"
        local await, spawn = task.await, task.spawn
        local directory, stage = arg[1], arg[2]
        task.on_unobserved(function() end)
        local a, b = await(net.pair())
        local t = tls.wrap(b, { server = true, cert = directory .. "server.pem", key = directory .. "server.key" })
        if stage == "handshake" then
          local u = tls.wrap(a, { ca = directory .. "ca.pem", server_name = "localhost" })
          await(task.yield())
          os.exit(0, true)
        end
        local client = await(tls.wrap(a, { ca = directory .. "ca.pem", server_name = "localhost" }))
        local server = await(t)
        if stage == "read" then
          spawn(function() await(client:read()) end)
          await(server:write("no line"))
          await(task.delay(0.01))
        elseif stage == "write" then
          spawn(function() await(client:write(("x"):rep(1000000))) end)
          spawn(function() await(client:write(("y"):rep(1000000))) end)
          await(server:read(10))
        elseif stage == "close" then
          local sent = client:write(("x"):rep(1000000))
          local closing = client:close()
        else
          client, server, a, b, t = nil, nil, nil, nil, nil
        end
        os.exit(0, true)
      ]], { args = { path "", stage } })
      assert.are.equal(0, status, stage .. "\n" .. output)
    end
  end)
end)
