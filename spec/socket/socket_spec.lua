-- Specs of asynctask.socket among tasks: what LuaSocket has not. What it has is compared in exchange_spec.lua.

local task = require "asynctask"
local net = require "asynctask.net"
local socket = require "asynctask.socket"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await, try, spawn, delay = task.await, task.try, task.spawn, task.delay

-- It is not loaded here: it would ignore SIGPIPE for the whole process.
local has_luasocket = package.searchpath("socket.http", package.path) ~= nil

-- Two connected sockets, and what closes them.
local function pair()
  local server = assert(socket.bind("127.0.0.1", 0))
  local _, port = server:getsockname()
  local client = assert(socket.connect("127.0.0.1", port))
  local other = assert(server:accept())
  return client, other, setmetatable({ server }, { __close = function()
    client:close()
    other:close()
    server:close()
  end })
end

describe("asynctask.socket among tasks", function()
  it("lets other tasks run while one receives", function()
    local client, other, _ <close> = pair()
    local seen = {}
    local receiving = spawn(function()
      seen[#seen + 1] = "begins"
      local line = client:receive()
      seen[#seen + 1] = line
    end)
    seen[#seen + 1] = "goes on"
    other:send("a line\n")
    await(receiving)
    assert.are.same({ "begins", "goes on", "a line" }, seen)
  end)

  it("accepts and connects beside other work, many at once", function()
    local server = assert(socket.bind("127.0.0.1", 0, 64))
    local _, port = server:getsockname()
    local serving = spawn(function()
      for _ = 1, 30 do
        local connection = assert(server:accept())
        spawn(function()
          connection:send(connection:receive():upper() .. "\n")
          connection:close()
        end)
      end
    end)
    local names = {}
    for i = 1, 30 do
      names[i] = "client " .. i
    end
    local answers = await(task.map(names, function(name)
      local connection = assert(socket.connect("localhost", port))
      connection:send(name .. "\n")
      local answer = connection:receive()
      connection:close()
      return answer
    end))
    await(serving)
    server:close()
    for i = 1, 30 do
      assert.are.equal("CLIENT " .. i, answers[i])
    end
  end)

  it("S10: a cancelled receive has taken nothing", function()
    local client, other, _ <close> = pair()
    other:send("half a li")
    local receiving = spawn(function()
      return client:receive()
    end)
    await(delay(0.02))
    receiving:cancel()
    assert.is_true(task.is_cancelled(select(2, try(receiving))))
    assert.is_true(client:dirty())
    local counting = spawn(function()
      return client:receive(100)
    end)
    await(task.yield())
    counting:cancel()
    try(counting)
    other:send("ne\nrest")
    assert.are.equal("half a line", (client:receive()))
    assert.are.equal("rest", (client:receive(4)))
    assert.are.equal(16.0, (client:getstats()))
  end)

  it("S10: a send that is cancelled half out closes the socket", function()
    local client, other, _ <close> = pair()
    local sending = spawn(function()
      return client:send(("x"):rep(32 * 1024 * 1024))
    end)
    await(delay(0.02))
    sending:cancel()
    assert.is_true(task.is_cancelled(select(2, try(sending))))
    assert.are.equal(-1.0, client:getfd())
    local text = other:receive("*a")
    assert.is_true(#text > 0 and #text < 32 * 1024 * 1024)
  end)

  it("S10: a connect that is cancelled has closed its descriptor", function()
    local full = assert(socket.bind("127.0.0.1", 0, 0)) -- nobody accepts: the backlog fills up
    local _, port = full:getsockname()
    local queued = {}
    repeat
      local c = socket.tcp4()
      c:settimeout(0.05)
      queued[#queued + 1] = c
    until not c:connect("127.0.0.1", port) or #queued == 20
    assert.is_true(#queued < 20)
    local hanging = socket.tcp4()
    local connecting = spawn(hanging.connect, hanging, "127.0.0.1", port)
    await(task.yield())
    assert.is_true(hanging:getfd() >= 0)
    connecting:cancel()
    assert.is_true(task.is_cancelled(select(2, try(connecting))))
    assert.are.equal(-1.0, hanging:getfd())
    for _, c in ipairs(queued) do
      c:close()
    end
    full:close()
  end)

  it("S10: nothing begins in a cancelled scope, and close does", function()
    local client, other, _ <close> = pair()
    other:send("there\n")
    local outcomes = {}
    local t = spawn(function()
      pcall(await, delay(10))
      for name, f in pairs {
        receive = function() client:receive() end, send = function() client:send("x") end,
        connect = function() socket.connect("127.0.0.1", 1) end, sleep = function() socket.sleep(0) end,
        select = function() socket.select({ client }, nil, 0) end, toip = function() socket.dns.toip("localhost") end,
        protected = function() socket.protect(function() client:receive() end)() end,
      } do
        local ok, err = pcall(f)
        outcomes[name] = not ok and task.is_cancelled(err)
      end
      client:close()
    end)
    t:cancel()
    try(t)
    assert.are.same({ receive = true, send = true, connect = true, sleep = true, select = true, toip = true,
      protected = true }, outcomes)
    assert.are.equal(-1.0, client:getfd())
    assert.is_nil((other:receive()))
  end)

  it("S11: deadlines end waiting calls, those of LuaSocket's timeouts stay inside", function()
    local client, _, _ <close> = pair()
    client:settimeout(10)
    local ok, err = pcall(task.with_timeout, 0.03, function()
      return client:receive()
    end)
    assert.is_false(ok)
    assert.are.equal("ETIMEDOUT", err.code)
    client:settimeout(0.01)
    assert.are.same({ nil, "timeout", "" }, { task.with_timeout(5, function()
      return client:receive()
    end) })
  end)

  it("protect lets awaits through, and cancellations and errors as they are", function()
    local f = socket.protect(function(seconds)
      await(delay(seconds))
      return "slept"
    end)
    assert.are.equal("slept", await(spawn(f, 0.001)))
    local t = spawn(f, 10)
    t:cancel("enough")
    local _, err = try(t)
    assert.is_true(task.is_cancelled(err))
    assert.are.equal("enough", err.reason)
    assert.are.equal("cancelled", t:status())
  end)

  it("a call whose socket another task closes is told so", function()
    local client, _, list <close> = pair()
    local receiving = spawn(function() return client:receive() end)
    local accepting = spawn(function() return list[1]:accept() end)
    local selecting = spawn(function() return #socket.select({ list[1] }, nil, 5) end)
    await(task.yield())
    client:close()
    list[1]:close()
    assert.are.same({ nil, "closed", "" }, { await(receiving) })
    assert.are.same({ nil, "closed" }, { await(accepting) })
    assert.is_false((try(selecting)) ~= nil) -- as LuaSocket's: select of a descriptor that is none fails
    assert.matches("select failed", select(2, try(selecting)))
  end)

  it("two tasks that receive on one socket are an error; one that sends beside one that receives is none", function()
    local client, other, _ <close> = pair()
    local first = spawn(function() return client:receive() end)
    local ok, err = pcall(client.receive, client)
    assert.is_false(ok)
    assert.matches("another task is receiving on this socket", err)
    client:send("out\n")
    assert.are.equal("out", (other:receive()))
    other:send("in\n")
    assert.are.equal("in", (await(first)))
    client:settimeout(0)
    assert.are.same({ nil, "timeout", "" }, { client:receive() })
  end)

  it("S2: a loop of calls that never wait gives way", function()
    local client, other, _ <close> = pair()
    local turns = 0
    local other_work = spawn(function()
      while true do
        turns = turns + 1
        await(task.yield())
      end
    end)
    local polling = spawn(function() -- as programs do that wait for nothing else
      client:settimeout(0)
      local line
      local rounds = 0
      repeat
        line = client:receive()
        rounds = rounds + 1
      until line or rounds > 1e6
      return line
    end)
    spawn(function()
      await(delay(0.01))
      other:send("found\n")
    end)
    assert.are.equal("found", (await(polling)))
    assert.is_true(turns > 5)
    other_work:cancel()
    try(other_work)
  end)

  it("S16: calls on the main chunk run the loop, a receive that nobody can answer among them", function()
    local client, other, _ <close> = pair()
    local t = spawn(function()
      await(delay(0.01))
      other:send("from a task\n")
    end)
    assert.are.equal("from a task", (client:receive()))
    await(t)
    socket.sleep(0.01)
    assert.are.equal(3, select("#", socket.select(nil, nil, 0.001)))
  end)

  it("S17: names the cause in a coroutine that is not a task's, and works in asynctask.coroutine's", function()
    local client, other, _ <close> = pair()
    local outcome
    await(spawn(function()
      outcome = { coroutine.wrap(function() return pcall(client.receive, client) end)() }
    end))
    assert.is_false(outcome[1])
    assert.matches("coroutine that is not a task's", outcome[2])
    local coroutine = require "asynctask.coroutine"
    local lines = coroutine.wrap(function()
      for line in function() return client:receive() end do
        coroutine.yield(line)
      end
    end)
    spawn(function()
      await(delay(0.005))
      other:send("one\ntwo\n")
    end)
    assert.are.same({ "one", "two" }, { await(spawn(function() return lines(), lines() end)) })
  end)

  it("talks with this library's own streams", function()
    local server = await(net.listen("127.0.0.1", 0))
    local serving = server:serve(function(stream)
      for line in stream:lines() do
        await(stream:write(line:reverse(), "\n"))
      end
    end)
    local client = assert(socket.connect("127.0.0.1", server:sockname().port))
    client:send("abc\ndef\n")
    assert.are.same({ "cba", "fed" }, { client:receive(), (client:receive()) })
    client:close()
    await(server:close { grace = 1 })
    await(serving)
  end)

  it("select waits for many at once, and for descriptors that are somebody else's", function()
    local list, others = {}, {}
    local server = assert(socket.bind("127.0.0.1", 0, 64))
    local _, port = server:getsockname()
    for i = 1, 20 do
      list[i] = assert(socket.connect("127.0.0.1", port))
      others[i] = assert(server:accept())
    end
    spawn(function()
      await(delay(0.01))
      others[7]:send("x")
    end)
    assert.are.equal(list[7], socket.select(list)[1])
    local stream = await(net.connect("127.0.0.1", tonumber(port)))
    local peer = assert(server:accept())
    local foreign = { getfd = function() return stream:fd() end }
    spawn(function()
      await(delay(0.01))
      peer:send("for the stream\n")
    end)
    local ready = socket.select({ list[1], foreign }, nil, 5)
    assert.are.equal(foreign, ready[1])
    assert.are.equal("for the stream", (await(stream:read())))
    await(stream:close())
    peer:close()
    for i = 1, 20 do
      list[i]:close()
      others[i]:close()
    end
    server:close()
  end)

  it("select has no limit of 1024 descriptors", function()
    local output, code = child.lua([[
      local socket = require "asynctask.socket"
      local many, list = {}, {}
      for i = 1, 1100 do many[i] = assert(io.open("/dev/null")) end
      for i = 1, 3 do
        list[i] = assert(socket.udp4())
        assert(list[i]:setsockname("127.0.0.1", 0))
      end
      local _, port = list[2]:getsockname()
      assert(list[1]:sendto("x", "127.0.0.1", port))
      local ready = socket.select(list, nil, 5)
      print(list[1]:getfd() > 1024, ready[1] == list[2], #ready)
    ]], { before = "ulimit -n 1300;" })
    assert.are.equal("true\ttrue\t1\n", output)
    assert.are.equal(0, code)
  end)

  it("a socket that nobody has any more is closed", function()
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    do
      local client = assert(socket.connect("127.0.0.1", port))
      client:send("unfinished")
    end
    local other = assert(server:accept())
    collectgarbage()
    collectgarbage()
    assert.are.equal("unfinished", (other:receive("*a")))
    other:close()
    server:close()
  end)

  it("S18: a state that closes with calls in flight closes their sockets", function()
    local output, code = child.lua([[
      local task, socket = require "asynctask", require "asynctask.socket"
      local server = assert(socket.bind("127.0.0.1", 0))
      local _, port = server:getsockname()
      local client = assert(socket.connect("127.0.0.1", port))
      client:settimeout(60)
      task.spawn(function() server:accept() server:accept() end)
      task.spawn(function() client:receive() end)
      task.spawn(function() socket.select({ client, server }, nil, 60) end)
      task.spawn(function() client:send(("x"):rep(2^25)) end)
      task.await(task.delay(0.01))
      print "done" -- and a report of what was pending follows
    ]])
    assert.are.equal("done\n", output:sub(1, 5))
    assert.are.equal(0, code)
  end)

  it("S19: works in jobs, too", function()
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    local job = task.run(function(to)
      local s = require "asynctask.socket"
      local client = assert(s.connect("127.0.0.1", to))
      client:send("from a job\n")
      local answer = client:receive()
      client:close()
      return answer
    end, port)
    local other = assert(server:accept())
    assert.are.equal("from a job", (other:receive()))
    other:send("welcome\n")
    assert.are.equal("welcome", (await(job)))
    other:close()
    server:close()
  end)

  it("a deadlock names the wait", function()
    local output, code = child.lua([[
      local socket = require "asynctask.socket"
      print(pcall(socket.select))
    ]])
    assert.matches("^false\t.*deadlock", output)
    assert.are.equal(0, code)
  end)
end)

describe("asynctask.socket.install", function()
  local path, put, _, before, after = sandbox.new()
  before_each(before)
  after_each(after)

  local names = { "socket", "socket.core", "socket.unix", "socket.http", "socket.tp", "socket.smtp", "socket.ftp",
    "ssl", "ssl.https" }

  local function loaded()
    local list = {}
    for _, name in ipairs(names) do
      list[name] = package.loaded[name]
    end
    return list
  end

  it("makes require mean these sockets, and uninstall undoes it", function()
    local was = loaded()
    assert.are.equal(socket, socket.install())
    assert.are.equal(socket, require "socket")
    assert.are.equal(socket, require "socket.core")
    assert.are.equal(socket.unix, require "socket.unix")
    assert.are.equal(socket, socket.install())
    socket.uninstall()
    assert.are.same(was, loaded())
    socket.uninstall()
    assert.are.same(was, loaded())
  end)

  it("gives modules that were loaded with other sockets a second life", function()
    if not has_luasocket then
      pending("LuaSocket is not installed")
      return
    end
    local output = child.lua([[
      local real = require "socket.http"
      local socket = require "asynctask.socket"
      socket.install()
      local ours = require "socket.http"
      socket.uninstall()
      print(real ~= ours, real == require "socket.http", socket.http ~= real)
    ]])
    assert.are.equal("true\ttrue\ttrue\n", output)
  end)

  it("has LuaSocket's own modules as fields, over these sockets, without being installed", function()
    if not has_luasocket then
      pending("LuaSocket is not installed")
      return
    end
    assert.are.equal(require "socket.url", socket.url)
    assert.are.equal(require "ltn12", socket.ltn12)
    assert.are.equal(require "mime", socket.mime)
    assert.are.equal(socket.http, socket.http)
    assert.is_nil(rawget(_G, "socket"))
    assert.is_nil(socket.no_such_module)
    local server = await(net.listen("127.0.0.1", 0))
    local serving = server:serve(function(stream)
      repeat until await(stream:read()) == "\r"
      await(stream:write("HTTP/1.0 200 OK\r\n\r\nover our sockets"))
    end)
    local body = await(spawn(function()
      return (socket.http.request(("http://127.0.0.1:%d/"):format(server:sockname().port)))
    end))
    assert.are.equal("over our sockets", body)
    await(server:close())
    await(serving)
  end)

  it("says what to install where LuaSocket is missing", function()
    local output = child.lua([[
      package.path = package.path:gsub(";[^;]*/usr/[^;]*", "")
      local socket = require "asynctask.socket"
      print(pcall(function() return socket.http end))
      print(pcall(function() return socket.ltn12 end))
    ]])
    assert.matches("'socket.http' comes with LuaSocket, which is not installed %(Debian: lua%-socket", output)
    assert.matches("'ltn12' comes with LuaSocket", output)
  end)

  it("runs a module of somebody's as it is", function()
    put([[
      local socket = require "socket"
      return { hello = function(port)
        local c = assert(socket.tcp())
        c:settimeout(5)
        assert(c:connect("127.0.0.1", port))
        c:send("hello\n")
        local answer = c:receive("*l")
        c:close()
        return answer
      end }
    ]], "somebodys_client.lua")
    local search = package.path
    package.path = path("?.lua") .. ";" .. search
    finally(function()
      package.path = search
      package.loaded.somebodys_client = nil
      socket.uninstall()
    end)
    socket.install()
    local client = require "somebodys_client"
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    local asking = spawn(client.hello, port)
    local other = server:accept()
    assert.are.equal("hello", (other:receive()))
    other:send("answer\n")
    assert.are.equal("answer", (await(asking)))
    other:close()
    server:close()
  end)
end)
