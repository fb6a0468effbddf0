-- Bodies of requests: the ways to read them, holding the client up, the limits, Expect.

local task = require "asynctask"
local raw = require "spec.support.rawhttp"

local await, try = task.await, task.try
local message = raw.message

local function chunked(pieces)
  local list = {}
  for i, piece in ipairs(pieces) do
    list[i] = ("%x\r\n%s\r\n"):format(#piece, piece)
  end
  return table.concat(list) .. "0\r\n\r\n"
end

describe("http.serve: bodies", function()
  -- What `look(req)` returns for a request with this body; sent with a length, and in chunks.
  local function see(look, body, headers, opts)
    local seen = {}
    raw.with(function(req)
      seen[#seen + 1] = table.pack(look(req))
      return 204
    end, opts, function(port)
      local r = raw.send(port, message("POST /", (headers or "") .. ("Content-Length: %d\r\n"):format(#body), body))
      assert.equal(204, r.status)
      r = raw.send(port, message("POST /", (headers or "") .. "Transfer-Encoding: chunked\r\n", chunked {
        body:sub(1, 3), body:sub(4) }))
      assert.equal(204, r.status)
    end)
    assert.same(seen[1], seen[2])
    return table.unpack(seen[1], 1, seen[1].n)
  end

  it("is read as a file is", function()
    assert.same({ "one", "two\n", 4, "fo", "ur", "", nil, "" }, { see(function(req)
      local a = await(req:read())
      local b, c = await(req:read("L", 4))
      local d = await(req:read(2))
      local e = await(req:read(5))
      local rest = await(req:read("a"))
      return a, b, #c, d, e, rest, await(req:read(1)), await(req:read("a"))
    end, "one\ntwo\n\n\n\n\nfour") })
  end)

  it("is read line by line, and in pieces", function()
    assert.same({ "a|b||c" }, { see(function(req)
      local list = {}
      for line in req:lines() do
        list[#list + 1] = line
      end
      return table.concat(list, "|")
    end, "a\nb\n\nc") })
    assert.same({ "abcdef" }, { see(function(req)
      local list = {}
      for piece in req:each_chunk() do
        list[#list + 1] = piece
      end
      return table.concat(list)
    end, "abcdef") })
    assert.same({ "ab", "cdef" }, { see(function(req)
      return await(req:read_some(2)), await(req:text())
    end, "abcdef") })
  end)

  it("is a form, or JSON", function()
    local form = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n"
    assert.same({ "1 2", "&", "x" }, { see(function(req)
      local f = await(req:form())
      return f.a, f.b, f:all("c")[2]
    end, "a=1+2&b=%26&c=y&c=x", form) })
    assert.same({ 2 }, { see(function(req) return #await(req:json()).list end, '{"list":[1,2]}') })
    assert.same({ 415, 400 }, { see(function(req)
      return select(2, try(req:form())).status, select(2, try(req:json())).status
    end, "no json") })
  end)

  it("is a form with files", function()
    local kind = 'Content-Type: multipart/form-data; boundary="b 1"\r\n'
    local body = '--b 1\r\nContent-Disposition: form-data; name="text"\r\n\r\none\r\n' ..
      '--b 1\r\nContent-Disposition: form-data; name="f"; filename="a %22b.txt"\r\nContent-Type: x/y\r\n\r\n' ..
      '\r\n--b 2\r\n\r\n--b 1 \r\ncontent-disposition: Form-Data; name=part\r\n\r\n\r\n--b 1--\r\nafter'
    assert.same({ "one", "\r\n--b 2\r\n", 'a "b.txt', "x/y", "", 3, true }, { see(function(req)
      local f = await(req:form())
      local file = f:part "f"
      return f.text, file.data, file.filename, file.type, f:get "part", #f:parts(), f:part "none" == nil
    end, body, kind) })
    local nameless = body:gsub("; name=part", "")
    for _, broken in ipairs { "", "--b 1", "--b 1\r\n\r\nx\r\n--b 1--", body:sub(1, -12), nameless } do
      assert.same({ 400 }, { see(function(req) return select(2, try(req:form())).status end, broken .. "    ", kind) })
    end
    assert.same({ 400 }, { see(function(req) return select(2, try(req:form())).status end, body,
      "Content-Type: multipart/form-data\r\n") })
  end)

  it("is empty without one", function()
    raw.with(function(req)
      assert.is_nil(await(req:read()))
      assert.is_nil(await(req:read_some()))
      assert.equal("", await(req:read("a")))
      return 200, nil, await(req:text())
    end, nil, function(port)
      assert.equal("", raw.send(port, message "POST /").body)
      assert.equal("", raw.send(port, message("POST /", "Content-Length: 0\r\n")).body)
    end)
  end)

  it("comes while the handler waits for it, and holds the client up while it does not", function()
    local total, go = 20 * 1024 * 1024, task.source()
    local received = 0
    raw.with(function(req)
      await(go.task)
      for piece in req:each_chunk() do
        received = received + #piece
      end
      return tostring(received)
    end, { max_body = 1 << 30 }, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message("POST /", ("Content-Length: %d\r\n"):format(total))))
      local sent, piece = 0, ("x"):rep(65536)
      local writing = task.spawn(function()
        for _ = 1, total / #piece do
          await(s:write(piece))
          sent = sent + #piece
        end
      end)
      await(task.delay(0.1))
      assert.is_true(sent < total / 2, "the client was not held up")
      go:set_result()
      await(writing)
      assert.equal(tostring(total), raw.response(s).body)
    end)
  end)

  it("may be read by one task at a time", function()
    raw.with(function(req)
      local first = req:text()
      local _, err = try(req:read_some())
      assert.equal("EBUSY", err.code)
      return 200, nil, await(first)
    end, nil, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message("POST /", "Content-Length: 3\r\n", "a")))
      await(task.delay(0.01))
      await(s:write("bc"))
      assert.equal("abc", raw.response(s).body)
    end)
  end)

  it("S10: a read that is cancelled has taken nothing", function()
    raw.with(function(req)
      local t = req:read(3)
      await(task.delay(0.01))
      t:cancel()
      try(t)
      return 200, nil, await(req:text())
    end, nil, function(port)
      local s <close> = raw.connect(port)
      await(s:write(message("POST /", "Content-Length: 3\r\n")))
      await(task.delay(0.02))
      await(s:write("abc"))
      assert.equal("abc", raw.response(s).body)
    end)
  end)

  it("cannot be read when the request has ended", function()
    local kept
    raw.with(function(req)
      kept = req
      return "x"
    end, nil, function(port)
      raw.send(port, message("POST /", "Content-Length: 1\r\n", "a"))
      assert.equal("EBADF", select(2, try(kept:text())).code)
    end)
  end)

  it("ends the handler when the client goes away in the middle of it", function()
    local failure = task.source()
    raw.with(function(req)
      local ok, err = pcall(await, req:text())
      failure:set_result(ok, err)
      error(err, 0)
    end, nil, function(port)
      local s = raw.connect(port)
      await(s:write(message("POST /", "Content-Length: 10\r\n", "abc")))
      await(task.delay(0.01))
      await(s:close())
      local ok, err = await(failure.task:timeout(5))
      assert.is_false(ok)
      assert.truthy(task.is_cancelled(err) or err.code == "ECONNRESET")
    end)
  end)

  it("is asked for by Expect: 100-continue when the handler reads it, and not before", function()
    local go = task.source()
    raw.with(function(req)
      if req.path == "/no" then return 403, "no" end
      await(go.task)
      return 200, nil, await(req:text())
    end, nil, function(port)
      local expect = "Expect: 100-continue\r\nContent-Length: 3\r\n"
      local s <close> = raw.connect(port)
      await(s:write(message("POST /", expect)))
      local first = s:read_until("\r\n\r\n")
      await(task.delay(0.02))
      assert.is_false(first:done())
      go:set_result()
      assert.equal("HTTP/1.1 100 Continue", await(first))
      await(s:write("abc"))
      assert.equal("abc", raw.response(s).body)

      local r, closed = raw.send(port, message("POST /no", expect))
      assert.equal(403, r.status)
      assert.equal("close", r.headers.connection)
      assert.is_true(closed)
    end)
  end)

  it("that nobody reads is read over, if it is not too large, and else ends the connection", function()
    raw.with(function() return "unread" end, nil, function(port)
      local s <close> = raw.connect(port)
      for _ = 1, 2 do
        await(s:write(message("POST /", "Content-Length: 100000\r\n", ("x"):rep(50000))))
        assert.equal("unread", raw.response(s).body)
        await(s:write(("x"):rep(50000)))
      end
      local r, closed = raw.send(port, message("POST /", "Content-Length: 1000000\r\n", ("x"):rep(1000000)))
      assert.equal("unread", r.body)
      assert.equal("close", r.headers.connection)
      assert.is_true(closed)
    end)
  end)
end)
