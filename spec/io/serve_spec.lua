-- Servers: several threads on one port, inherited descriptors, handles over Unix sockets.

local task = require "asynctask"
local net = require "asynctask.net"
local child = require "spec.support.child"

local await, try, spawn, delay = task.await, task.try, task.spawn, task.delay

-- A program that is started by another one has no sanitizer's runtime.
local it_perl = (child.sanitizer() or not os.execute("perl -MSocket -MPOSIX -e 1 >/dev/null 2>&1")) and pending or it

local function who(stream)
  local t = require "asynctask"
  for line in stream:lines() do
    t.await(stream:write(line, " ", tostring(t), "\n")) -- each runtime has a facade of its own
  end
end

-- Asks `count` times over connections of their own; returns the different answers and their number.
local function ask(connect, count)
  local seen, different = {}, 0
  local clients = {}
  for i = 1, count do
    clients[i] = spawn(function()
      local stream <close> = await(connect())
      await(stream:write("from ", i, "\n"))
      local name, thread = await(stream:read()):match("^from (%d+) (.*)$")
      assert.are.equal(i, tonumber(name))
      return thread
    end)
  end
  for _, thread in ipairs(await(task.when_all(clients))) do
    if not seen[thread] then
      seen[thread], different = true, different + 1
    end
  end
  return seen, different
end

describe("a server on several threads", function()
  it("serves on one port from all of them", function()
    local server = await(net.listen("127.0.0.1", 0, { reuseport = true }))
    local port = server:sockname().port
    local serving = server:serve(who, { threads = 2 })
    local seen, different = ask(function() return net.connect("127.0.0.1", port) end, 60)
    assert.is_true(different >= 1 and different <= 2)
    assert.is_nil(seen[tostring(task)]) -- not this one
    await(server:close { grace = 5 })
    await(serving)
    assert.are.equal("ECONNREFUSED", select(2, try(net.connect("127.0.0.1", port))).code)
  end)

  it("works without SO_REUSEPORT, and at a path", function()
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local serving = server:serve(who, { threads = 2 })
    ask(function() return net.connect("127.0.0.1", port) end, 30)
    await(server:close { grace = 5 })
    await(serving)

    local path = "\0asynctask-serve-" .. math.random(1 << 60)
    serving = net.serve({ path = path }, who, { threads = 2 })
    ask(function() return net.connect { path = path } end, 30)
    serving:cancel()
    try(serving)
  end)

  it("finds handlers by name, and says when there is none", function()
    local server = await(net.listen("127.0.0.1", 0, { reuseport = true }))
    local serving = server:serve("spec.support.handlers.shout", { threads = 2 })
    local client <close> = await(net.connect("127.0.0.1", server:sockname().port))
    await(client:write("hello\n"))
    assert.are.equal("HELLO", await(client:read()))
    await(client:shutdown())
    await(server:close { grace = 5 })
    await(serving)
    server = await(net.listen("127.0.0.1", 0))
    local ok, err = task.pcall(await, server:serve("spec.support.nothing.at_all", { threads = 2 }))
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("spec.support.nothing", 1, true), tostring(err))
    assert.is_true(server:stopped())
  end)

  it("lets handlers end within the grace, then cancels them", function()
    local server = await(net.listen("127.0.0.1", 0, { reuseport = true }))
    local port = server:sockname().port
    local serving = server:serve(function(stream)
      local t = require "asynctask"
      local name = t.await(stream:read())
      t.await(stream:write("begun\n"))
      t.await(t.delay(name == "quick" and 0.02 or 60))
      t.await(stream:write("done\n"))
    end, { threads = 2 })
    local clients = {}
    for _, name in ipairs { "quick", "slow" } do
      local stream = await(net.connect("127.0.0.1", port))
      await(stream:write(name, "\n"))
      assert.are.equal("begun", await(stream:read()))
      clients[name] = stream
    end
    await(server:close { grace = 0.3 })
    await(serving)
    assert.are.equal("done\n", await(clients.quick:read("a")))
    assert.are.equal("", await(clients.slow:read("a")))
    await(clients.quick:close())
    await(clients.slow:close())
  end)

  it("tells on_close of the closing, before handlers are waited for, on each thread or here", function()
    for _, threads in ipairs { false, 2 } do
      local server = await(net.listen("127.0.0.1", 0))
      local state = { waiting = {} } -- copied to each thread, once for both functions
      local serving = server:serve(function(stream)
        local t = require "asynctask"
        local slot = t.source()
        state.waiting[slot] = true
        t.await(stream:write("begun\n"))
        t.await(slot.task)
        t.await(stream:write("told\n"))
      end, {
        threads = threads or nil,
        on_close = function()
          for slot in pairs(state.waiting) do
            slot:set_result()
          end
        end,
      })
      local clients = {}
      for i = 1, 4 do
        clients[i] = await(net.connect("127.0.0.1", server:sockname().port))
        assert.are.equal("begun", await(clients[i]:read()))
      end
      await(server:close { grace = 5 }:timeout(4))
      for i = 1, 4 do
        assert.are.equal("told\n", await(clients[i]:read("a")))
        await(clients[i]:close())
      end
      await(serving)
    end
  end)

  it("S19: refuses a handler that cannot be copied", function()
    local server <close> = await(net.listen("127.0.0.1", 0))
    local stray = io.stdout
    local ok, err = task.pcall(await, server:serve(function() stray:write("no") end, { threads = 2 }))
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("cannot copy"), tostring(err))
    assert.is_false((pcall(server.serve, server, "no_module", { threads = 2 })))
    assert.is_false((pcall(server.serve, server, "some.handler")))
    assert.is_false((pcall(server.serve, server, who, { threads = 0 })))
  end)

  it("bounds handlers, and takes their errors, on each thread", function()
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local serving = server:serve(function(stream)
      local t = require "asynctask"
      if t.await(stream:read()) == "fail" then error "as asked" end
      t.await(stream:write("fine\n"))
    end, { threads = 2, max = 1, on_error = function() end })
    for _, word in ipairs { "fail", "go", "fail", "go", "go" } do
      local stream <close> = await(net.connect("127.0.0.1", port))
      await(stream:write(word, "\n"))
      assert.are.equal(word == "go" and "fine\n" or "", await(stream:read("a")))
    end
    await(server:close { grace = 5 })
    await(serving)
  end)

  it("S18: the state may close at any moment", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local net = require "asynctask.net"
      local await = task.await
      local server = await(net.listen("127.0.0.1", 0, { reuseport = true }))
      local serving = server:serve(function(s) require("asynctask").await(s:read()) end, { threads = 2 })
      local client = await(net.connect("127.0.0.1", server:sockname().port))
      await(client:write "x")
      if arg[1] then await(task.delay(0.05)) end
      print "end"
      os.exit(0, true)
    ]], { timeout = 20 })
    assert.are.equal(0, code, output)
    assert.matches("end\n", output, 1, true)
  end)
end)

describe("inherited descriptors", function()
  it("S22: are sockets that listen, or an error", function()
    local server = await(net.listen("127.0.0.1", 0))
    local fd = server:fd()
    assert.are.equal("number", math.type(fd) and "number")
    local pairs_a, pairs_b = await(net.pair())
    for _, other in ipairs { { fd = pairs_a:fd() }, { fd = 9999 } } do
      local adopted, err = try(net.listen(other))
      assert.is_nil(adopted)
      assert.is_truthy(err.code == "EINVAL" or err.code == "EBADF", err.code)
    end
    assert.is_false((pcall(net.listen, { fd = -1 })))
    await(pairs_a:close())
    await(pairs_b:close())
    await(server:close())
  end)

  it_perl("come from the service manager, with their names", function()
    -- What systemd does, in Perl, which Debian always has: sockets from descriptor 3 on, then exec.
    local script = os.tmpname()
    finally(function() os.remove(script) end)
    local f = assert(io.open(script, "w"))
    f:write [[
      local task = require "asynctask"
      local net = require "asynctask.net"
      local await = task.await
      local list = net.inherited()
      print(#list, list[1].fd, list[1].name, list[2] and list[2].name)
      local server <close> = await(net.listen(list[1]))
      local port = server:sockname().port
      local serving = server:serve(function(s) await(s:write "inherited\n") end)
      local client <close> = await(net.connect("127.0.0.1", port))
      print(await(client:read()))
      await(server:close())
      await(serving)
    ]]
    f:close()
    local program = [[
      use Socket; use POSIX (); $^F = 20;
      socket(my $s, PF_INET, SOCK_STREAM, 0) or die; bind($s, sockaddr_in(0, INADDR_LOOPBACK)) or die;
      listen($s, 5) or die;
      my $copy = POSIX::dup(fileno $s); POSIX::dup2($copy, 3); POSIX::dup2($copy, 4);
      $ENV{LISTEN_PID} = $$; $ENV{LISTEN_FDS} = 2; $ENV{LISTEN_FDNAMES} = "web:";
      exec @ARGV;
    ]]
    local output, code = child.shell(("LUA_PATH=%s LUA_CPATH=%s exec perl -e %s %s %s"):format(
      child.quote(package.path), child.quote(package.cpath), child.quote(program), child.interpreter(),
      child.quote(script)))
    assert.are.equal("2\t3\tweb\tunknown\ninherited\n", output)
    assert.are.equal(0, code)
  end)

  it("are none without LISTEN_FDS", function()
    assert.are.same({}, net.inherited())
  end)
end)

describe("handles", function()
  it("travel over Unix sockets beside the bytes", function()
    local a, b = await(net.pair())
    local x, y = await(net.pair())
    await(a:write("before\n"))
    await(a:send_handle(x))
    await(a:write("after\n"))
    await(x:close())
    assert.are.equal("before", await(b:read()))
    local received = await(b:receive_handle())
    assert.are.equal("after", await(b:read()))
    await(y:write("through\n"))
    assert.are.equal("through", await(received:read()))
    for _, s in ipairs { a, b, received, y } do await(s:close()) end
  end)

  it("may be servers and datagram sockets", function()
    local a, b = await(net.pair())
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local waiting = b:receive_handle()
    await(a:send_handle(server))
    await(server:close())
    local same <close> = await(waiting)
    assert.are.equal(port, same:sockname().port)
    local client <close> = await(net.connect("127.0.0.1", port))
    local peer <close> = await(same:accept())
    await(peer:write("x"))
    assert.are.equal("x", await(client:read(1)))
    local udp <close> = await(net.udp("127.0.0.1", 0))
    await(a:send_handle(udp))
    local twin <close> = await(b:receive_handle())
    assert.are.same(udp:sockname(), twin:sockname())
    await(a:close())
    assert.is_nil(await(b:receive_handle()))
    await(b:close())
  end)

  it("more than fit wait, and are closed with the stream", function()
    local a, b = await(net.pair())
    local x, y = await(net.pair())
    for _ = 1, 10 do await(a:send_handle(x)) end
    await(x:close())
    await(a:write("tail\n"))
    local received = {}
    for i = 1, 7 do received[i] = await(b:receive_handle()) end
    for _, s in ipairs(received) do await(s:close()) end
    await(b:close()) -- with three that nobody took
    assert.is_nil(await(y:read())) -- so nobody holds x any more
    await(a:close())
    await(y:close())
  end)

  it("S10: a cancelled receive loses none", function()
    local a, b = await(net.pair())
    local t = b:receive_handle()
    local other = b:receive_handle()
    assert.are.equal("EBUSY", select(2, try(other)).code)
    await(a:send_handle(a))
    t:cancel()
    local received = await(b:receive_handle())
    assert.is_truthy(received:fd())
    for _, s in ipairs { a, b, received } do await(s:close()) end
  end)

  it("S22: go over Unix sockets only, and only what has a descriptor", function()
    local server <close> = await(net.listen("127.0.0.1", 0))
    local client <close> = await(net.connect("127.0.0.1", server:sockname().port))
    local a, b = await(net.pair())
    local ok, err = task.pcall(await, client:send_handle(a))
    assert.is_false(ok)
    assert.are.equal("ENOTSUP", err.code)
    assert.are.equal("ENOTSUP", select(2, try(client:receive_handle())).code)
    assert.is_false((pcall(a.send_handle, a, io.stdout)))
    await(b:close())
    ok, err = task.pcall(await, a:send_handle(b))
    assert.is_false(ok)
    assert.are.equal("EBADF", err.code)
    await(delay(0))
    await(a:close())
  end)
end)
