-- Serving HTTP: what a handler sees of a request, what its values become, what the connection does between requests.

local task = require "asynctask"
local core = require "asynctask.core"
local fs = require "asynctask.fs"
local http = require "asynctask.http"
local net = require "asynctask.net"
local child = require "spec.support.child"
local raw = require "spec.support.rawhttp"
local sandbox = require "spec.support.sandbox"

local await, try = task.await, task.try
local message = raw.message
local path, put, _, before, after = sandbox.new()

describe("http.serve: requests", function()
  -- Calls `look(req)` in a handler; what it returns comes out here.
  local function see(bytes, look, opts)
    local seen
    raw.with(function(req)
      seen = table.pack(look(req))
      return 204
    end, opts, function(port)
      local r = raw.send(port, bytes)
      assert.equal(204, r.status)
    end)
    return table.unpack(seen, 1, seen.n)
  end

  it("gives method, path and query, decoded and raw", function()
    local req = see(message "GET /a%20b/c?x=1&y=a+b%26c&x=2&flag", function(req)
      return { req.method, req.path, req.raw_path, req.raw_query, req.query.x, req.query.y, req.query.flag,
        table.concat(req.query:all "x", " "), req.target, req.version, req.query.none == nil }
    end)
    assert.same({ "GET", "/a b/c", "/a%20b/c", "x=1&y=a+b%26c&x=2&flag", "1", "a b&c", "", "1 2",
      "/a%20b/c?x=1&y=a+b%26c&x=2&flag", "1.1", true }, req)
  end)

  it("takes absolute targets and the asterisk", function()
    assert.equal("/p", see(message "GET http://h:80/p?q", function(req) return req.path end))
    assert.equal("/", see(message "GET http://h?q", function(req) return req.raw_path end))
    assert.equal("*", see(message "OPTIONS *", function(req) return req.path end))
  end)

  it("finds headers in any case, joins repeated ones and keeps each", function()
    local h = see(message("GET /", "X-One:  a \r\nx-one: b\r\nCookie: p=1\r\nCookie: q=2\r\nget: odd\r\nEmpty:\r\n"),
      function(req)
        local list = {}
        for name, value in pairs(req.headers) do
          list[#list + 1] = name .. "=" .. value
        end
        local hs = req.headers
        return { hs["X-One"], hs["x-one"], hs.HOST, hs.cookie, hs:all("X-ONE")[2], hs:get "get", hs.empty,
          hs.none == nil, table.concat(list, ",") }
      end)
    assert.same({ "a, b", "a, b", "x", "p=1; q=2", "b", "odd", "", true,
      "host=x,x-one=a,x-one=b,cookie=p=1,cookie=q=2,get=odd,empty=" }, h)
  end)

  it("knows its peer and its length", function()
    local peer, length, body = see(message("POST /", "Content-Length: 3\r\n", "abc"), function(req)
      return req.peer, req.length, await(req:text())
    end)
    assert.equal("127.0.0.1", peer.host)
    assert.equal(3, length)
    assert.equal("abc", body)
    assert.equal(0, see(message "GET /", function(req) return req.length end))
  end)

  it("has a name that says what it is", function()
    assert.equal("asynctask.http.Request: GET /x?y", see(message "GET /x?y", tostring))
  end)
end)

describe("http.serve: responses", function()
  before_each(before)
  after_each(after)

  local function answer(handler, bytes)
    local r, closed
    raw.with(handler, nil, function(port)
      r, closed = raw.send(port, bytes or message "GET /")
    end)
    return r, closed
  end

  it("sends a text, a status, headers", function()
    local r, closed = answer(function() return "hello" end)
    assert.equal(200, r.status)
    assert.equal("hello", r.body)
    assert.equal("text/plain; charset=utf-8", r.headers["content-type"])
    assert.truthy(r.headers.date:match "^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$")
    assert.is_false(closed)

    r = answer(function() return 404 end)
    assert.equal(404, r.status)
    assert.equal("0", r.headers["content-length"])

    r = answer(function() return 201, "made" end)
    assert.equal("made", r.body)

    r = answer(function()
      return 200, { ["Content-Type"] = "a/b", ["X-N"] = 5, ["Set-Cookie"] = { "a=1", "b=2" } }, { "x", 1, "y" }
    end)
    assert.equal("a/b", r.headers["content-type"])
    assert.equal("5", r.headers["x-n"])
    assert.truthy(r.head:find("Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", 1, true))
    assert.equal("x1y", r.body)
  end)

  it("S25: one Task stands for its values", function()
    local r = answer(function() return task.spawn(function() return 202, nil, "later" end) end)
    assert.equal(202, r.status)
    assert.equal("later", r.body)
  end)

  it("sends headers that came from a request", function()
    local r = answer(function(req)
      return 200, http.headers { ["X-Host"] = req.headers.host, ["x-b"] = { 1, 2 } }, ""
    end)
    assert.equal("x", r.headers["x-host"])
    assert.equal("2", r.headers["x-b"])
  end)

  it("sends large bodies whole", function()
    local big = ("0123456789abcdef"):rep(200000)
    local r = answer(function() return 200, nil, big end)
    assert.equal(#big, #r.body)
    assert.is_true(big == r.body)
  end)

  it("sends what a function or an iterator gives, in chunks", function()
    local r = answer(function()
      local i = 0
      return 200, nil, function()
        i = i + 1
        await(task.delay(0))
        return i <= 3 and ("piece " .. i) or nil
      end
    end)
    assert.equal("piece 1piece 2piece 3", r.body)
    assert.equal(3, r.chunks)
    assert.is_nil(r.headers["content-length"])
  end)

  it("sends a file with its length, and closes it", function()
    local file_path = put(("line\n"):rep(50000))
    local file
    local r = answer(function()
      file = await(fs.open(file_path))
      return 200, { ["content-type"] = "text/plain" }, file
    end)
    assert.equal("250000", r.headers["content-length"])
    assert.equal(250000, #r.body)
    assert.is_nil((try(file:read())))
  end)

  it("sends a stream until its end", function()
    local r = answer(function()
      local a, b = await(net.pair())
      task.spawn(function()
        await(a:write("from a stream"))
        await(a:close())
      end)
      return 200, nil, b
    end)
    assert.equal("from a stream", r.body)
    assert.equal("chunked", r.headers["transfer-encoding"])
  end)

  it("is written piece by piece, with trailers", function()
    local r = answer(function(req)
      local res = req:respond(200, { ["x-a"] = "b" })
      await(res:write("one ", 2))
      await(res:write("")) -- no chunk: that would be the end
      await(res:write(" three"))
      await(res:close { ["X-Sum"] = "13" })
    end)
    assert.equal("one 2 three", r.body)
    assert.equal(2, r.chunks)
    assert.same({ "X-Sum: 13" }, r.trailers)
    assert.equal("b", r.headers["x-a"])
  end)

  it("holds a response that is written piece by piece to its length", function()
    local errors = {}
    local r = answer(function(req)
      local res = req:respond(200, { ["Content-Length"] = 5 })
      await(res:write("abc"))
      errors[1] = select(2, try(res:write("def")))
      await(res:write("de"))
    end)
    assert.equal("abcde", r.body)
    assert.equal("EMSGSIZE", errors[1].code)
  end)

  it("ends a response that the handler left open", function()
    local r, closed = answer(function(req)
      await(req:respond(200):write("left open"))
    end)
    assert.equal("left open", r.body)
    assert.is_false(closed)
  end)

  it("answers HEAD with the head alone", function()
    for _, handler in ipairs {
      function() return "12345" end,
      function() return 200, { ["content-length"] = 5 } end,
      function(req)
        local res = req:respond(200, { ["content-length"] = 5 })
        await(res:write("12345"))
      end,
    } do
      local r, closed = answer(handler, message "HEAD /")
      assert.equal(200, r.status)
      assert.equal("5", r.headers["content-length"])
      assert.is_false(closed)
    end
  end)

  it("sends neither body nor length with 204 and 304", function()
    local r, closed = answer(function() return 204, nil, "ignored" end)
    assert.is_nil(r.headers["content-length"])
    assert.is_false(closed)
    r = answer(function() return 304, { etag = '"x"', ["content-length"] = 7 } end)
    assert.equal("7", r.headers["content-length"])
  end)

  it("sends early hints before the response", function()
    raw.with(function(req)
      await(req:early_hints { link = "</a.css>; rel=preload" })
      return "body"
    end, nil, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message "GET /"))
      local hint, r = raw.response(s), raw.response(s)
      assert.equal(103, hint.status)
      assert.equal("</a.css>; rel=preload", hint.headers.link)
      assert.equal("body", r.body)
    end)
  end)

  it("sends server-sent events", function()
    local r = answer(function(req)
      local events = req:events()
      await(events:send("plain"))
      await(events:send { event = "tick", id = 7, retry = 1000, data = "two\nlines" })
      await(events:comment("still here"))
      assert(not pcall(events.send, events, { event = "a\nb", data = "" }))
    end)
    assert.equal("text/event-stream", r.headers["content-type"])
    assert.equal("no-cache", r.headers["cache-control"])
    assert.equal("data: plain\n\nevent: tick\nid: 7\nretry: 1000\ndata: two\ndata: lines\n\n: still here\n\n", r.body)
  end)

  it("hands the connection out for another protocol", function()
    raw.with(function(req)
      local stream, rest = await(req:upgrade("shout", { ["X-A"] = "b" }))
      await(task.delay(0))
      while not rest:find("\n") do
        rest = rest .. await(stream:read_some())
      end
      await(stream:write(rest:upper()))
    end, nil, function(port)
      for _, late in ipairs { "", "late\n" } do
        local s <close> = raw.connect(port)
        await(s:write(message("GET /", "Connection: upgrade\r\nUpgrade: shout\r\n", late == "" and "hello\n" or "hel")))
        local r = raw.response(s)
        assert.equal(101, r.status)
        assert.equal("shout", r.headers.upgrade)
        await(s:write(late))
        assert.equal(late == "" and "HELLO\n" or "HELLATE\n", await(s:read("a")))
      end
    end)
  end)

  it("refuses to send CR, LF or NUL in a header, and what it sets itself", function()
    for _, headers in ipairs {
      { ["X-A"] = "b\r\nX-C: d" }, { ["X-A"] = "b\nc" }, { ["X-A"] = "b\0" }, { ["X A"] = "b" },
      { ["X-A\r\nX-B"] = "c" }, { [""] = "b" }, { ["Transfer-Encoding"] = "chunked" }, { ["Content-Length"] = "3" },
      { ["X-A"] = true },
      { "X-A: b" }, { ["Content-Length"] = "0x4" },
    } do
      local reported
      raw.with(function() return 200, headers, "body" end, { on_error = function(err) reported = tostring(err) end },
        function(port)
          local r = raw.send(port, message "GET /")
          assert.equal(500, r.status)
          assert.is_nil(r.head:find("X-C", 1, true))
        end)
      assert.truthy(reported:find("bad response header", 1, true), reported)
    end
  end)

  it("answers errors of the handler with 500, reports them, and goes on", function()
    local reports = {}
    raw.with(function(req)
      if req.path == "/none" then return end
      if req.path == "/odd" then return {}, {} end
      if req.path == "/status" then error(task.error { code = "EGONE", message = "no more", status = 410 }) end
      if req.path == "/wait" then await(task.delay(0)) end
      if req.path == "/fine" then return "fine" end
      error("broken " .. req.path)
    end, {
      on_error = function(err, t, req)
        reports[#reports + 1] = ("%s|%s|%s"):format(req.path, tostring(err), t:traceback())
      end,
    }, function(port)
      local s <close> = raw.connect(port)
      for _, target in ipairs { "/now", "/wait", "/none", "/odd" } do
        await(s:write(message("GET " .. target)))
        local r = raw.response(s)
        assert.equal(500, r.status)
        assert.equal("Internal Server Error\n", r.body)
      end
      await(s:write(message "GET /status"))
      local r = raw.response(s)
      assert.equal(410, r.status)
      assert.equal("no more\n", r.body)
      await(s:write(message "GET /fine"))
      assert.equal("fine", raw.response(s).body)
    end)
    assert.equal(4, #reports)
    assert.truthy(reports[1]:find("broken /now", 1, true))
    assert.truthy(reports[1]:find("serve_spec.lua:%d+"))
    assert.truthy(reports[3]:find("no response", 1, true))
  end)

  it("S15: reports an error of the handler when there is no on_error", function()
    local seen
    local previous = task.on_unobserved(function(err, traceback) seen = tostring(err) .. traceback end)
    finally(function() task.on_unobserved(previous) end)
    local r = answer(function() error("nobody looks") end)
    assert.equal(500, r.status)
    collectgarbage()
    collectgarbage()
    await(task.delay(0))
    await(task.delay(0))
    assert.truthy(seen and seen:find("nobody looks", 1, true))
  end)

  it("breaks a response off whose handler fails in the middle of it", function()
    local reported
    raw.with(function(req)
      await(req:respond(200):write("half"))
      error("in the middle")
    end, { on_error = function(err) reported = err end }, function(port)
      local text = raw.exchange(port, message "GET /")
      assert.truthy(text:find("4\r\nhalf\r\n$"))
    end)
    assert.truthy(tostring(reported):find("in the middle", 1, true))
  end)

  it("cannot be answered twice", function()
    local second
    local r = answer(function(req)
      local res = req:respond(200)
      second = select(2, pcall(req.respond, req, 200))
      await(res:write("once"))
    end)
    assert.equal("once", r.body)
    assert.equal("EALREADY", second.code)
  end)
end)

describe("http.serve: connections", function()
  before_each(before)
  after_each(after)

  it("serves one request after the other on a connection, and what is pipelined, in order", function()
    raw.with(function(req)
      if req.path == "/2" then await(task.delay(0.01)) end
      return req.path
    end, nil, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message "GET /0"))
      assert.equal("/0", raw.response(s).body)
      local all = {}
      for i = 1, 20 do
        all[i] = message("GET /" .. i)
      end
      await(s:write(table.concat(all)))
      for i = 1, 20 do
        assert.equal("/" .. i, raw.response(s).body)
      end
    end)
  end)

  it("sends responses to pipelined requests in one write, but none waits for a handler that waits", function()
    local go = task.source()
    raw.with(function(req)
      if req.path == "/slow" then await(go.task) end
      return req.path
    end, nil, function(port)
      local s <close> = raw.connect(port)
      local many = {}
      for i = 1, 100 do
        many[i] = message("GET /" .. i)
      end
      await(s:write(table.concat(many), message "GET /slow", message "GET /last"))
      for i = 1, 100 do
        assert.equal("/" .. i, task.with_timeout(5, raw.response, s).body)
      end
      go:set_result()
      assert.equal("/slow", raw.response(s).body)
      assert.equal("/last", raw.response(s).body)
      await(s:write(message "GET /a", "GET /half"))
      assert.equal("/a", task.with_timeout(5, raw.response, s).body)
      await(s:write " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
      assert.equal("/half", raw.response(s).body)
    end)
  end)

  it("closes when it is asked to, and behind HTTP/1.0", function()
    raw.with(function(req) return 200, { connection = req.query.c }, "x" end, nil, function(port)
      local r, closed = raw.send(port, message("GET /", "Connection: close\r\n"))
      assert.equal("close", r.headers.connection)
      assert.is_true(closed)
      r, closed = raw.send(port, "GET / HTTP/1.0\r\n\r\n")
      assert.equal("close", r.headers.connection)
      assert.is_true(closed)
      r, closed = raw.send(port, "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
      assert.equal("keep-alive", r.headers.connection)
      assert.is_false(closed)
      r, closed = raw.send(port, message "GET /?c=close")
      assert.equal("close", r.headers.connection)
      assert.is_true(closed)
    end)
  end)

  it("ends a body of unknown length for HTTP/1.0 with the connection", function()
    raw.with(function(req) await(req:respond(200):write("until the end")) end, nil, function(port)
      local r, closed = raw.send(port, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
      assert.is_nil(r.headers["transfer-encoding"])
      assert.equal("until the end", r.body)
      assert.is_true(closed)
    end)
  end)

  it("S8: cancels the handler, and what it owns, when the client goes away", function()
    local outcome, inner = task.source(), nil
    raw.with(function()
      inner = task.delay(60)
      local ok, err = pcall(await, inner)
      outcome:set_result(ok, err)
      error(err, 0)
    end, { on_error = function(err) outcome:set_error(err) end }, function(port)
      local s = raw.connect(port)
      await(s:write(message "GET /"))
      await(task.delay(0.02))
      await(s:close())
      local ok, err = await(outcome.task:timeout(5))
      assert.is_false(ok)
      assert.is_true(task.is_cancelled(err))
      assert.equal("cancelled", inner:status())
    end)
  end)

  it("runs handlers of many connections at once", function()
    local running, most = 0, 0
    raw.with(function()
      running = running + 1
      most = math.max(most, running)
      await(task.delay(0.05))
      running = running - 1
      return "x"
    end, nil, function(port)
      local list = {}
      for i = 1, 20 do
        list[i] = task.spawn(raw.send, port, message "GET /")
      end
      await(task.when_all(list))
    end)
    assert.equal(20, most)
  end)

  it("closes gently: what runs is finished with Connection: close, what is idle ends at once", function()
    local began = task.source()
    raw.with(function()
      began:set_result()
      await(task.delay(0.1))
      return "finished"
    end, nil, function(port, server, serving)
      local idle <close> = raw.connect(port)
      local fresh <close> = raw.connect(port)
      local busy <close> = raw.connect(port)
      await(task.delay(0.02))
      await(busy:write(message "GET /"))
      await(began.task)
      local closing = server:close { grace = 5 }
      assert.is_nil(await(fresh:read_some():timeout(1)))
      assert.is_nil(await(idle:read_some():timeout(1)))
      local r = raw.response(busy)
      assert.equal("finished", r.body)
      assert.equal("close", r.headers.connection)
      await(closing)
      await(serving:timeout(1))
    end)
  end)

  it("cancels what takes longer than the grace", function()
    local began, ended = task.source(), nil
    raw.with(function()
      began:set_result()
      local ok, err = pcall(await, task.delay(60))
      ended = not ok and task.is_cancelled(err)
      error(err, 0)
    end, nil, function(port, server)
      local s <close> = raw.connect(port)
      await(s:write(message "GET /"))
      await(began.task)
      await(server:close { grace = 0.02 }:timeout(5))
      assert.is_true(ended)
    end)
  end)

  it("serves on a Unix socket", function()
    local serving = http.serve({ path = path "s" }, function(req)
      return req.path .. tostring(req.peer and req.peer.host)
    end)
    await(task.delay(0))
    local s = await(net.connect { path = path "s" })
    await(s:write(message "GET /u"))
    assert.equal("/unil", raw.response(s).body)
    await(s:close())
    serving:cancel()
    assert.is_true(core.is_cancelled(select(2, try(serving))))
  end)

  it("listens by itself, and ends when it is cancelled", function()
    local serving = http.serve("127.0.0.1", 0, function() return "x" end, { backlog = 5 })
    await(task.delay(0))
    assert.is_false(serving:done())
    serving:cancel()
    try(serving)
    assert.equal("cancelled", serving:status())
  end)

  it("S22: wrong arguments raise at the call", function()
    local function check(words, ...)
      local ok, err = pcall(http.serve, ...)
      assert.is_false(ok)
      assert.truthy(tostring(err):find(words, 1, true), err)
    end
    local wanted = '(function or "module.function" expected, got nil)'
    check("bad argument #1 to 'serve' (string expected, got nil)")
    check("bad argument #3 to 'serve' " .. wanted, "h", 1)
    check("bad argument #2 to 'serve' " .. wanted, { path = "x" })
    check("bad argument #4 to 'serve' (unknown option 'nope')", "h", 1, print, { nope = 1 })
    check("option 'max_body': positive integer expected, got -1", "h", 1, print, { max_body = -1 })
    check("option 'idle_timeout': positive number of seconds expected, got 0", "h", 1, print, { idle_timeout = 0 })
  end)

  it("says which package is missing without the parser, and what needs none works", function()
    local output, code = child.lua [[
      package.preload["asynctask.http1"] = function() error("not built", 0) end
      local http = require "asynctask.http"
      print(http.headers({ A = "b" }).a)
      local ok, err = pcall(function() return http.serve end)
      print(ok, (err:match "libhttp%-parser%-dev"), (err:match "libllhttp"), (err:match "not built"))
    ]]
    assert.equal("b\nfalse\tlibhttp-parser-dev\tlibllhttp\tnot built\n", output)
    assert.equal(0, code)
  end)
end)
