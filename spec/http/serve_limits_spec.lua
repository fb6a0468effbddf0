-- Every limit of the server, hit once; and one kind of client does not take from the others.

local task = require "asynctask"
local raw = require "spec.support.rawhttp"

local await, try = task.await, task.try
local message = raw.message

describe("http.serve: limits", function()
  local function status(opts, bytes, handler)
    local r, closed
    raw.with(handler or function(req) return 200, nil, await(req:text()) end, opts, function(port)
      r, closed = raw.send(port, bytes)
    end)
    return r.status, closed, r
  end

  it("the request line", function()
    assert.equal(200, (status({ max_line = 30 }, message("GET /" .. ("x"):rep(16)))))
    assert.equal(414, (status({ max_line = 30 }, message("GET /" .. ("x"):rep(17)))))
    assert.equal(414, (status(nil, "GET /" .. ("x"):rep(9000)))) -- before it has ended
  end)

  it("the bytes of the headers, and their number", function()
    local lines = ("X: 345678\r\n"):rep(9)
    assert.equal(200, (status({ max_header_size = 108 }, message("GET /", lines))))
    assert.equal(431, (status({ max_header_size = 107 }, message("GET /", lines))))
    assert.equal(200, (status({ max_headers = 10 }, message("GET /", lines))))
    assert.equal(431, (status({ max_headers = 9 }, message("GET /", lines))))
    assert.equal(431, (status(nil, "GET / HTTP/1.1\r\nX: " .. ("x"):rep(50000)))) -- before they have ended
  end)

  it("the bytes of a body", function()
    local function post(n)
      return message("POST /", ("Content-Length: %d\r\n"):format(n), ("x"):rep(n))
    end
    assert.equal(200, (status({ max_body = 10 }, post(10))))
    local s, closed = status({ max_body = 10 }, post(11))
    assert.equal(413, s)
    assert.is_true(closed)
    s, closed = status({ max_body = 10 }, message("POST /", "Transfer-Encoding: chunked\r\n",
      "b\r\n0123456789a\r\n0\r\n\r\n"))
    assert.equal(413, s)
    assert.is_true(closed)
  end)

  it("the bytes of a body, chosen by the handler", function()
    local handler = function(req)
      req.limit = req.path == "/upload" and 100 or 5
      return 200, nil, await(req:text())
    end
    local body = ("x"):rep(100)
    assert.equal(200, (status({ max_body = 10 }, message("POST /upload", "Content-Length: 100\r\n", body), handler)))
    assert.equal(413, (status({ max_body = 10 }, message("POST /", "Content-Length: 6\r\n", body), handler)))
  end)

  it("the body's limit is an error that the handler may answer itself", function()
    local s = status({ max_body = 10 }, message("POST /", "Content-Length: 11\r\n", "01234567890"), function(req)
      local text, err = try(req:text())
      return text and 200 or err.status == 413 and 400 or 500
    end)
    assert.equal(400, s)
  end)

  it("the time for the head of the first request, also when nothing comes", function()
    raw.with(function() return "x" end, { head_timeout = 0.1 }, function(port)
      local s <close> = raw.connect(port)
      assert.is_nil(await(s:read_some():timeout(2))) -- nothing was asked: nothing is answered
      local slow <close> = raw.connect(port)
      await(slow:write("GET / HTTP/1.1\r\nHo"))
      local r = task.with_timeout(2, raw.response, slow)
      assert.equal(408, r.status)
      assert.equal("close", r.headers.connection)
      assert.is_nil(await(slow:read_some():timeout(2)))
    end)
  end)

  it("the time for the head of a later request, counted from its first byte", function()
    raw.with(function() return "x" end, { head_timeout = 0.2 }, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message "GET /"))
      assert.equal("x", raw.response(s).body)
      await(task.delay(0.5)) -- idle: another limit
      await(s:write(message "GET /"))
      assert.equal("x", raw.response(s).body)
      local t = task.spawn(function()
        for i = 1, 100 do -- a byte now and then does not help
          await(s:write(("GET / HTTP/1.1\r\n" .. ("X: y\r\n"):rep(20)):sub(i, i)))
          await(task.delay(0.03))
        end
      end)
      assert.equal(408, task.with_timeout(2, raw.response, s).status)
      t:cancel()
    end)
  end)

  it("the silence between requests", function()
    raw.with(function() return "x" end, { idle_timeout = 0.1 }, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message "GET /"))
      assert.equal("x", raw.response(s).body)
      assert.is_nil(await(s:read_some():timeout(2)))
    end)
  end)

  it("the time for the body", function()
    raw.with(function(req) return 200, nil, await(req:text()) end, { body_timeout = 0.1 }, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message("POST /", "Content-Length: 5\r\n", "ab")))
      local r = task.with_timeout(2, raw.response, s)
      assert.equal(408, r.status)
      assert.is_nil(await(s:read_some():timeout(2)))
    end)
  end)

  it("the time for the body grows with what comes, and stands still while the handler works", function()
    raw.with(function(req)
      await(task.delay(0.4))
      return 200, nil, await(req:text())
    end, { body_timeout = 0.15, body_rate = 100 }, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message("POST /", "Content-Length: 100\r\n", ("x"):rep(10))))
      await(task.delay(0.42))
      for _ = 1, 9 do -- 100 bytes a second give one more second each
        await(s:write(("x"):rep(10)))
        await(task.delay(0.05))
      end
      assert.equal(200, raw.response(s).status)
    end)
  end)

  it("the time for the body is not that of a read that was cancelled", function()
    raw.with(function(req)
      local t = req:read(3)
      await(task.delay(0.01))
      t:cancel()
      try(t)
      await(task.delay(0.4))
      return 200, nil, await(req:text())
    end, { body_timeout = 0.1 }, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message("POST /", "Content-Length: 3\r\n")))
      await(task.delay(0.3))
      await(s:write("abc"))
      local r = task.with_timeout(2, raw.response, s)
      assert.equal(200, r.status)
      assert.equal("abc", r.body)
      assert.is_nil(r.headers.connection)
    end)
  end)

  it("the time in which a client takes what is written", function()
    local ended = task.source()
    raw.with(function()
      local _ <close> = setmetatable({}, { __close = function() ended:set_result() end })
      await(task.delay(0))
      local piece = ("x"):rep(60000)
      return 200, nil, function() return piece end -- without end
    end, { write_timeout = 0.1 }, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message "GET /"))
      await(task.delay(0.05))
      local n = 0
      while true do -- after a while in which it reads nothing the connection has gone
        await(task.delay(n == 0 and 1 or 0))
        local data = try(s:read_some())
        if not data then
          break
        end
        n = n + #data
        assert(n < 1 << 30)
      end
    end)
    await(ended.task:timeout(1))
  end)

  it("the requests of a connection", function()
    raw.with(function() return "x" end, { max_requests = 3 }, function(port)
      local s <close> = raw.connect(port)
      for i = 1, 3 do
        await(s:write(message "GET /"))
        assert.equal(i == 3 and "close" or nil, raw.response(s).headers.connection)
      end
      assert.is_nil(await(s:read_some():timeout(2)))
    end)
  end)

  it("the connections at once: more wait", function()
    raw.with(function() return "x" end, { max = 2 }, function(port)
      local list = {}
      for i = 1, 3 do
        list[i] = raw.connect(port)
        await(list[i]:write(message "GET /"))
      end
      assert.equal("x", raw.response(list[1]).body)
      assert.equal("x", raw.response(list[2]).body)
      local third = task.spawn(raw.response, list[3])
      await(task.delay(0.05))
      assert.is_false(third:done())
      await(list[1]:close())
      assert.equal("x", await(third:timeout(2)).body)
      await(list[2]:close())
      await(list[3]:close())
    end)
  end)

  it("has no timer for each connection", function()
    raw.with(function() return "x" end, nil, function(port)
      local list = {}
      for i = 1, 50 do
        list[i] = raw.connect(port)
        await(list[i]:write(message "GET /"))
        raw.response(list[i])
      end
      assert.equal(1, task.stats().delays)
      for i = 1, 50 do
        await(list[i]:close())
      end
    end)
  end)
end)
