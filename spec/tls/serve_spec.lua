-- tls.serve and tls.handler: connections of clients, what becomes of those that fail, several threads.

local task = require "asynctask"
local net = require "asynctask.net"
local certificates = require "spec.support.certificates"

local tls = certificates.tls(describe, pending)
if not tls then
  return
end

local await, try, spawn = task.await, task.try, task.spawn
local path = certificates.make()
local certified = { cert = path "server.pem", key = path "server.key" }

local function with(more)
  local opts = {}
  for _, from in ipairs { certified, more or {} } do
    for key, value in pairs(from) do
      opts[key] = value
    end
  end
  return opts
end

-- A port that is free now.
local function free_port()
  local listening <close> = await(net.listen("127.0.0.1", 0))
  return listening:sockname().port
end

local function visit(port, context, text)
  local stream <close> = await(tls.connect("127.0.0.1", port, { context = context }))
  await(stream:write(text, "\n"))
  return await(stream:read()), stream:session_reused()
end

describe("tls.serve", function()
  it("serves until it is cancelled", function()
    local port = free_port()
    local serving = tls.serve("127.0.0.1", port, function(stream)
      for line in stream:lines() do
        await(stream:write(line:upper(), "\n"))
      end
    end, with())
    local context = await(tls.context { ca = path "ca.pem" })
    while select(2, try(task.spawn(visit, port, context, "ready"))) and not serving:done() do
      await(task.delay(0.005)) -- the certificate's files are read first
    end
    local visits = {}
    for i = 1, 20 do
      visits[i] = spawn(visit, port, context, "hello " .. i)
    end
    for i, answer in ipairs(await(task.when_all(visits))) do
      assert.are.equal("HELLO " .. i, answer)
    end
    serving:cancel()
    try(serving)
    assert.are.equal("cancelled", serving:status())
  end)

  it("fails where its certificate cannot be used", function()
    local serving = tls.serve("127.0.0.1", 0, print, { cert = path "none.pem", key = path "server.key" })
    local _, err = try(serving)
    assert.are.equal("ENOENT", err.code)
  end)

  it("goes on after a handshake that fails, which on_error is told", function()
    local listening <close> = await(net.listen("127.0.0.1", 0))
    local port = listening:sockname().port
    local failures = task.source()
    local serving = listening:serve(await(tls.handler(function(stream)
      await(stream:write("welcome\n"))
      await(stream:read())
    end, with { handshake_timeout = 5 })), {
      on_error = function(err)
        failures:set_result(err)
      end,
    })
    local garbage = await(net.connect("127.0.0.1", port))
    await(garbage:write("\0\1\2\3 no handshake"))
    local err = await(failures.task)
    assert.are.equal("EPROTO", err.code)
    await(garbage:close())
    local stream <close> = await(tls.connect("127.0.0.1", port, { ca = path "ca.pem" }))
    assert.are.equal("welcome", await(stream:read()))
    await(stream:close())
    await(listening:close { grace = 5 })
    await(serving)
  end)

  it("ends a client that is silent, and serves the others meanwhile", function()
    local listening <close> = await(net.listen("127.0.0.1", 0))
    local port = listening:sockname().port
    local failures = task.source()
    local serving = listening:serve(await(tls.handler(function(stream)
      await(stream:write(await(stream:read()), "\n"))
    end, with { handshake_timeout = 0.2 })), {
      on_error = function(err)
        failures:set_result(err)
      end,
    })
    local silent = await(net.connect("127.0.0.1", port))
    assert.are.equal("meanwhile", (visit(port, await(tls.context { ca = path "ca.pem" }), "meanwhile")))
    local err = await(failures.task)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.is_nil(await(silent:read()))
    await(silent:close())
    await(listening:close())
    await(serving)
  end)

  it("serves on several threads, and each resumes the others' sessions", function()
    local listening <close> = await(net.listen("127.0.0.1", 0))
    local port = listening:sockname().port
    local serving = listening:serve(await(tls.handler(function(stream)
      await(stream:write(await(stream:read()):reverse(), "\n"))
    end, with())), { threads = 2 })
    local context = await(tls.context { ca = path "ca.pem" })
    local reused
    for i = 1, 12 do
      local answer, short = visit(port, context, "abc" .. i)
      assert.are.equal(("abc" .. i):reverse(), answer)
      assert.are.equal(i > 1, short)
      reused = short
    end
    assert.is_true(reused)
    await(listening:close { grace = 5 })
    await(serving)
  end)

  it("takes the context of others", function()
    local context = await(tls.context(with { server = true, alpn = { "echo" } }))
    assert.is_true(context:is_server())
    assert.are.equal("asynctask.tls.Context (server)", tostring(context))
    local listening <close> = await(net.listen("127.0.0.1", 0))
    local serving = listening:serve(await(tls.handler(function(stream)
      await(stream:write(stream:alpn()))
    end, { context = context })))
    local stream <close> = await(tls.connect("127.0.0.1", listening:sockname().port, {
      ca = path "ca.pem", alpn = { "other", "echo" },
    }))
    assert.are.equal("echo", await(stream:read("a")))
    await(stream:close())
    await(listening:close())
    await(serving)
  end)
end)
