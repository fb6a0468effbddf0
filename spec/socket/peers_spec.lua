-- Libraries that exist, unmodified, inside tasks, against real servers: lua-redis and redis-server, LuaSocket's http
-- and nginx, its smtp and ftp, PostgreSQL's protocol.

local task = require "asynctask"
local fs = require "asynctask.fs"
local socket = require "asynctask.socket"
local peers = require "spec.support.peers"
local sandbox = require "spec.support.sandbox"

local await, spawn = task.await, task.spawn

local path, put, _, before, after = sandbox.new()

local function now()
  return socket.gettime()
end

-- Loads a library for Lua 5.1, which runs under 5.4 as it is.
local function load_51(name)
  local search = package.path:gsub("/lua/5%.4/", "/lua/5.1/")
  local file = package.searchpath(name, search)
  return file and assert(loadfile(file))(name)
end

local has_luasocket = pcall(require, "ltn12") and pcall(require, "mime")

local function needs(what, ...)
  for _, program in ipairs { ... } do
    if not peers.has(program) then
      pending(program .. " is not installed")
      return false
    end
  end
  if not what then
    pending("a library is not installed")
  end
  return what
end

describe("lua-redis with redis-server", function()
  local redis, server

  before_each(before)
  after_each(after)

  -- Runs `f(connect)` with the library loaded over our sockets.
  local function with_redis(f)
    if not needs(true, "redis-server") then
      return
    end
    socket.install { coroutine = true }
    finally(function() socket.uninstall() end)
    redis = load_51("redis")
    if not needs(redis) then
      return
    end
    server = peers.redis(path("."):sub(1, -3))
    local _ <close> = server
    f(function(options)
      return redis.connect(options or { host = "127.0.0.1", port = server.port })
    end)
  end

  it("runs commands, in a task and on the main chunk, over TCP and a Unix socket", function()
    with_redis(function(connect)
      local function exercise(options)
        local c = connect(options)
        assert.is_true(c:ping())
        c:set("key", "value\r\nof two lines")
        assert.are.equal("value\r\nof two lines", c:get("key"))
        assert.is_nil(c:get("nothing"))
        assert.are.equal(3, c:rpush("list", "a", "b", "c"))
        assert.are.same({ "a", "b", "c" }, c:lrange("list", 0, -1))
        c:hmset("hash", { field = "1", other = "2" })
        assert.are.same({ field = "1", other = "2" }, c:hgetall("hash"))
        local ok, err = pcall(c.incr, c, "key")
        assert.is_false(ok)
        assert.matches("not an integer", tostring(err))
        c:flushdb()
        c:quit()
        return true
      end
      assert.is_true(exercise())
      assert.is_true(await(spawn(exercise)))
      assert.is_true(await(spawn(exercise, { scheme = "unix", path = server.path })))
    end)
  end)

  it("runs pipelines and transactions", function()
    with_redis(function(connect)
      local results, count = await(spawn(function()
        local c = connect()
        c:hset("hash", "field", "value")
        -- commands whose replies the library parses: it puts nil into a list for others, which 5.4 refuses
        local replies = c:pipeline(function(p)
          for _ = 1, 100 do
            p:exists("nothing")
          end
          p:hgetall("hash")
        end)
        local _, n = c:transaction(function(t)
          t:exists("hash")
          t:hgetall("hash")
        end)
        c:quit()
        return replies, n
      end))
      assert.are.equal(101, #results)
      assert.is_false(results[100])
      assert.are.same({ field = "value" }, results[101])
      assert.are.equal(2, count)
    end)
  end)

  it("a blocking pop waits beside other work, and is cancelled with its task", function()
    with_redis(function(connect)
      local popping = spawn(function()
        return connect():blpop("queue", 0)
      end)
      local ticks = 0
      await(spawn(function()
        for _ = 1, 3 do
          await(task.delay(0.01))
          ticks = ticks + 1
        end
      end))
      assert.are.equal("pending", popping:status())
      connect():rpush("queue", "job")
      assert.are.same({ "queue", "job" }, await(popping))
      assert.are.equal(3, ticks)
      local endless = spawn(function()
        connect():blpop("nothing", 0)
      end)
      await(task.delay(0.01))
      endless:cancel()
      assert.is_true(task.is_cancelled(select(2, task.try(endless))))
      collectgarbage()
    end)
  end)

  it("publishes and subscribes, receiving inside the library's generators", function()
    with_redis(function(connect)
      local got = {}
      local subscribed = task.source()
      local listening = spawn(function()
        for message, abort in connect():pubsub { subscribe = { "news" } } do
          if message.kind == "subscribe" then
            subscribed:set_result(true)
          elseif message.payload == "stop" then
            abort()
          else
            got[#got + 1] = message.payload
          end
        end
      end)
      await(subscribed.task)
      local c = connect()
      for _, word in ipairs { "one", "two", "stop" } do
        c:publish("news", word)
      end
      await(listening)
      assert.are.same({ "one", "two" }, got)
    end)
  end)

  it("twenty clients that block take the time of one", function()
    with_redis(function(connect)
      local function blocked()
        local c = connect()
        c:blpop("empty", 0.25)
        c:quit()
      end
      local begun = now()
      await(spawn(blocked))
      local one = now() - begun
      begun = now()
      local list = {}
      for i = 1, 20 do
        list[i] = spawn(blocked)
      end
      await(task.when_all(list))
      local twenty = now() - begun
      assert.is_true(one >= 0.25)
      assert.is_true(twenty < 4 * one, ("one: %.3f s, twenty: %.3f s"):format(one, twenty))
    end)
  end)
end)

describe("socket.http with nginx", function()
  before_each(before)
  after_each(after)

  it("fetches, posts, follows, fails; many at once", function()
    if not needs(has_luasocket, "nginx") then
      return
    end
    put("the page\n", "page.txt")
    await(fs.mkdir(path("slow")))
    await(fs.mkdir(path("up")))
    put(("x"):rep(10 * 1024), "slow/page.txt")
    local _ <close> = peers.nginx(path("."):sub(1, -3))
    local base = ("http://127.0.0.1:%d"):format(_.port)
    local http, ltn12 = socket.http, socket.ltn12

    local function exercise()
      local body, code, headers = http.request(base .. "/page.txt")
      assert.are.same({ "the page\n", 200, "text/plain" }, { body, code, headers["content-type"]:match("[^;]*") })
      body, code = http.request(base .. "/moved")
      assert.are.same({ "the page\n", 200 }, { body, code })
      body, code = http.request(base .. "/gone")
      assert.are.same({ "not here", 404 }, { body, code })
      local pieces = {}
      local ok
      ok, code = http.request { url = base .. "/page.txt", method = "HEAD", sink = ltn12.sink.table(pieces) }
      assert.are.same({ 1, 200, 0 }, { ok, code, #pieces })
      local data = ("0123456789"):rep(20000)
      ok, code = http.request { url = base .. "/up/new.txt", method = "PUT", source = ltn12.source.string(data),
        headers = { ["content-length"] = #data } }
      assert.are.same({ 1, true }, { ok, code == 201 or code == 204 })
      body = http.request(base .. "/up/new.txt")
      assert.are.equal(data, body)
    end
    exercise()
    await(spawn(exercise))
    assert.are.same({ nil, "connection refused" }, { await(spawn(http.request, "http://127.0.0.1:1/")) })

    local function slow()
      return #assert((http.request(base .. "/slow/page.txt")))
    end
    local begun = now()
    assert.are.equal(10240, await(spawn(slow)))
    local one = now() - begun
    begun = now()
    local list = {}
    for i = 1, 20 do
      list[i] = spawn(slow)
    end
    for i, size in ipairs(await(task.when_all(list))) do
      assert.are.same({ i, 10240 }, { i, size })
    end
    local twenty = now() - begun
    assert.is_true(twenty < 5 * one + 0.5, ("one: %.3f s, twenty: %.3f s"):format(one, twenty))
  end)
end)

describe("socket.smtp", function()
  it("sends mail from several tasks at once", function()
    if not needs(has_luasocket) then
      return
    end
    local sink <close> = peers.smtp()
    local smtp = socket.smtp
    local function send(i)
      return smtp.send {
        from = "<from@example.org>", rcpt = { "<a@example.org>", ("<b%d@example.org>"):format(i) },
        source = smtp.message { headers = { subject = "mail " .. i }, body = "one\r\n.two\r\n" },
        server = "127.0.0.1", port = sink.port,
      }
    end
    local list = {}
    for i = 1, 5 do
      list[i] = spawn(send, i)
    end
    assert.are.same({ 1, 1, 1, 1, 1 }, { table.unpack(await(task.when_all(list)), 1, 5) })
    assert.are.equal(5, #sink.state)
    local seen = {}
    for _, mail in ipairs(sink.state) do
      local i = tonumber(mail.data:match("[Ss]ubject: mail (%d)"))
      seen[i] = true
      assert.are.equal("from@example.org", mail.from)
      assert.are.same({ "a@example.org", ("b%d@example.org"):format(i) }, mail.to)
      assert.is_truthy(mail.data:find("one\r\n..two", 1, true))
    end
    assert.are.equal(5, #seen)
    local ok, err = await(spawn(smtp.send, { from = "<x@y>", rcpt = "<nobody@y>", source = smtp.message { body = "" },
      server = "127.0.0.1", port = sink.port }))
    assert.are.same({ nil, "550 no such user" }, { ok, err })
  end)
end)

describe("socket.ftp", function()
  it("gets and puts files", function()
    if not needs(has_luasocket) then
      return
    end
    local server <close> = peers.ftp { ["a.txt"] = "the file\r\n", big = ("0123456789"):rep(30000) }
    local ftp = socket.ftp
    local url = ("ftp://user:secret@127.0.0.1:%d"):format(server.port)
    local function exercise()
      assert.are.equal("the file\r\n", (assert(ftp.get(url .. "/a.txt"))))
      assert.are.equal(300000, #assert(ftp.get(url .. "/big;type=i")))
      assert.are.equal(11, (assert(ftp.put(url .. "/new;type=i", "what is put"))))
      assert.are.equal("what is put", server.state.new)
      assert.are.same({ nil, "550 no such file" }, { ftp.get(url .. "/none") })
      assert.are.same({ nil, "530 no" }, { ftp.get((url:gsub("secret", "wrong")) .. "/a.txt") })
    end
    exercise()
    await(task.when_all(spawn(exercise), spawn(exercise)))
  end)
end)

-- Enough of PostgreSQL's protocol (version 3) for a query, written as such clients are: against LuaSocket.
local function postgres_client(port)
  local c = assert(socket.tcp())
  c:settimeout(10)
  assert(c:connect("127.0.0.1", port))
  local function message(kind, body)
    c:send(kind .. (">I4"):pack(#body + 4) .. body)
  end
  local function answer()
    local kind = assert(c:receive(1))
    local size = (">I4"):unpack(assert(c:receive(4)))
    return kind, size > 4 and assert(c:receive(size - 4)) or ""
  end
  local function until_ready()
    local rows, failure = {}, nil
    while true do
      local kind, body = answer()
      if kind == "D" then
        local row, at = {}, 3
        for i = 1, (">I2"):unpack(body) do
          local length = (">i4"):unpack(body, at)
          at = at + 4
          row[i] = length >= 0 and body:sub(at, at + length - 1) or false
          at = at + math.max(length, 0)
        end
        rows[#rows + 1] = row
      elseif kind == "E" then
        failure = body:match("\0M([^\0]*)") or body
      elseif kind == "Z" then
        return not failure and rows or nil, failure
      end
    end
  end
  message("", (">I4"):pack(196608) .. "user\0postgres\0database\0postgres\0\0")
  assert(until_ready())
  return {
    query = function(text)
      message("Q", text .. "\0")
      return until_ready()
    end,
    close = function()
      message("X", "")
      c:close()
    end,
  }
end

describe("a client of PostgreSQL", function()
  before_each(before)
  after_each(after)

  it("asks; several sleep in the server at once", function()
    if not peers.has_postgres() then
      pending("PostgreSQL is not installed")
      return
    end
    local server <close> = peers.postgres(path("."):sub(1, -3))
    local c = postgres_client(server.port)
    assert.are.same({ { "3", "text" }, { "4", false } },
      c.query("select 1 + 2, 'text' union all select 4, null order by 1"))
    local rows, err = c.query("select nonsense")
    assert.is_nil(rows)
    assert.matches("nonsense", err)
    c.close()
    local begun = now()
    local function sleeper()
      local own = postgres_client(server.port)
      local got = own.query("select pg_sleep(0.2), 7")
      own.close()
      return got[1][2]
    end
    await(spawn(sleeper))
    local one = now() - begun
    begun = now()
    local list = {}
    for i = 1, 10 do
      list[i] = spawn(sleeper)
    end
    assert.are.equal("7", await(task.when_all(list))[10])
    assert.is_true(now() - begun < 5 * one)
  end)
end)
