-- What the server refuses, as RFC 9112 asks: everything about which two servers could disagree where a message ends.

local task = require "asynctask"
local raw = require "spec.support.rawhttp"

local await = task.await

describe("http.serve: strictness", function()
  -- The status with which the bytes are refused; the connection must end behind it.
  local function refused(port, bytes)
    local r, closed = raw.send(port, bytes)
    assert(r, "no response")
    if r.status >= 400 then
      assert.is_true(closed)
      assert.equal("close", r.headers.connection)
    end
    return r.status
  end

  local function each(cases, handler)
    local served = 0
    raw.with(handler or function(req)
      served = served + 1
      return 200, nil, await(req:text())
    end, { on_error = error }, function(port)
      for _, case in ipairs(cases) do
        local status = refused(port, case[2])
        assert(status == case[1], ("%d expected, got %d for %q"):format(case[1], status, case[2]))
      end
    end)
    return served
  end

  it("refuses request lines that are none", function()
    local served = each {
      { 400, "GET /\r\nHost: x\r\n\r\n" },
      { 400, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET /  HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET / HTTP/1.1 \r\nHost: x\r\n\r\n" },
      { 400, "GET / x HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET /\tHTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, " GET / HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET / HTTP/1.1\nHost: x\r\n\r\n" },
      { 400, "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET /\r HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET /\228 HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET /#f HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET /%4 HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "GET / HTTP/1.11\r\nHost: x\r\n\r\n" },
      { 400, "GET / http/1.1\r\nHost: x\r\n\r\n" },
      { 400, "G@T / HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 400, "\22\3\1\0\100\1\0\0" },
    }
    assert.equal(0, served)
  end)

  it("says that a method or a version is unknown", function()
    each {
      { 501, "FROB / HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 505, "GET / HTTP/2.0\r\nHost: x\r\n\r\n" },
      { 505, "GET / HTTP/0.9\r\nHost: x\r\n\r\n" },
      { 501, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" },
      { 417, "POST / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n" },
    }
  end)

  it("refuses headers that are none: bare CR and LF, folded lines, NUL, spaces before the colon", function()
    local function with(lines)
      return "GET / HTTP/1.1\r\nHost: x\r\n" .. lines .. "\r\n"
    end
    local served = each {
      { 400, with "X-A: b\n" },
      { 400, with "X-A: b\rc\r\n" },
      { 400, with "X-A: b\r\r\n" },
      { 400, with "X-A: b\r\n c\r\n" },
      { 400, with "X-A: b\r\n\tc\r\n" },
      { 400, with "X-A: b\0c\r\n" },
      { 400, with "X-A: b\1c\r\n" },
      { 400, with "X-A: b\127c\r\n" },
      { 400, with "X-A : b\r\n" },
      { 400, with " X-A: b\r\n" },
      { 400, with ": b\r\n" },
      { 400, with "X-A\r\n" },
      { 400, with "X(A): b\r\n" },
      { 400, with "X\228: b\r\n" },
      { 400, "GET / HTTP/1.1\r\n Host: x\r\n\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: x\r\n\n" },
      { 400, "GET / HTTP/1.1\r\nHost: x\n\r\n" },
    }
    assert.equal(0, served)
  end)

  it("wants one Host", function()
    each {
      { 400, "GET / HTTP/1.1\r\n\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: x y\r\n\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: x, y\r\n\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: u@x\r\n\r\n" },
      { 200, "GET / HTTP/1.0\r\n\r\n" },
      { 200, "GET / HTTP/1.1\r\nHost:\r\n\r\n" },
    }
  end)

  it("refuses lengths that are two, or none", function()
    local function with(lines)
      return "POST / HTTP/1.1\r\nHost: x\r\n" .. lines .. "\r\nabc"
    end
    local served = each {
      { 400, with "Content-Length: 3\r\nContent-Length: 3\r\n" },
      { 400, with "Content-Length: 3\r\nContent-Length: 4\r\n" },
      { 400, with "Content-Length: 3, 3\r\n" },
      { 400, with "Content-Length: +3\r\n" },
      { 400, with "Content-Length: -3\r\n" },
      { 400, with "Content-Length: 3 3\r\n" },
      { 400, with "Content-Length: 0x3\r\n" },
      { 400, with "Content-Length: 3.0\r\n" },
      { 400, with "Content-Length:\r\n" },
      { 400, with "Content-Length: 99999999999999999999\r\n" },
      { 400, with "Content-Length: 18446744073709551619\r\n" },
      { 400, with "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n" },
      { 400, with "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n" },
      { 400, with "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" },
      { 501, with "Transfer-Encoding: identity\r\n" },
      { 501, with "Transfer-Encoding: xchunked\r\n" },
      { 400, with "Transfer-Encoding : chunked\r\n" },
      { 400, with "Transfer-Encoding:\vchunked\r\n" },
      { 400, "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" },
    }
    assert.equal(0, served)
  end)

  it("refuses chunks that are broken", function()
    local function with(body)
      return "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" .. body
    end
    each {
      { 200, with "3\r\nabc\r\n0\r\n\r\n" },
      { 200, with "003;a=b;c=\"d e\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n" },
      { 400, with "g\r\nabc\r\n0\r\n\r\n" },
      { 400, with "3 \r\nabc\r\n0\r\n\r\n" },
      { 400, with " 3\r\nabc\r\n0\r\n\r\n" },
      { 400, with "+3\r\nabc\r\n0\r\n\r\n" },
      { 400, with "-3\r\nabc\r\n0\r\n\r\n" },
      { 400, with "0x3\r\nabc\r\n0\r\n\r\n" },
      { 400, with "\r\nabc\r\n0\r\n\r\n" },
      { 400, with ";a\r\nabc\r\n0\r\n\r\n" },
      { 400, with "3\nabc\r\n0\r\n\r\n" },
      { 400, with "3\rabc\r\n0\r\n\r\n" },
      { 400, with "3\r\nabc\n0\r\n\r\n" },
      { 400, with "3\r\nabcd\r\n0\r\n\r\n" },
      { 400, with "3\r\nabc0\r\n\r\n" },
      { 400, with "3;a\nb\r\nabc\r\n0\r\n\r\n" },
      { 400, with "3;a\rb\r\nabc\r\n0\r\n\r\n" },
      { 400, with "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n" },
      { 400, with "8000000000000000\r\nabc\r\n0\r\n\r\n" },
      { 400, with ("3;" .. ("x"):rep(5000) .. "\r\nabc\r\n0\r\n\r\n") },
      { 400, with "3\r\nabc\r\n0\r\nX-T: 1\n\r\n" },
      { 400, with "3\r\nabc\r\n0\r\n X-T: 1\r\n\r\n" },
      { 400, with "3\r\nabc\r\n0\r\nX-T : 1\r\n\r\n" },
      { 400, with "3\r\nabc\r\n0\r\nX-T\r\n\r\n" },
      { 431, with ("3\r\nabc\r\n0\r\nX-T: " .. ("x"):rep(40000) .. "\r\n\r\n") },
      { 431, with ("3\r\nabc\r\n0\r\n" .. ("T: 1\r\n"):rep(101) .. "\r\n") },
    }
  end)

  it("does not take the rest of a refused message for a request", function()
    local served = 0
    raw.with(function()
      served = served + 1
      return "x"
    end, nil, function(port)
      local inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
      for _, bytes in ipairs {
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" .. inner,
        "GET / HTTP/1.1\r\nHost: x\r\nX: y\n\r\n" .. inner,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 0\r\n\r\n" .. inner,
      } do
        assert.equal(1, select(2, raw.exchange(port, bytes):gsub("HTTP/1.1 ", "")))
      end
    end)
    assert.equal(0, served)
  end)

  it("does not take a body that nobody read for a request", function()
    local seen = {}
    raw.with(function(req)
      seen[#seen + 1] = req.path
      return "x"
    end, nil, function(port)
      local inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
      local s <close> = raw.connect(port)
      await(s:write(raw.message("POST /a", ("Content-Length: %d\r\n"):format(#inner), inner), raw.message(
        "POST /b", "Transfer-Encoding: chunked\r\n", ("%x\r\n%s\r\n0\r\n\r\n"):format(#inner, inner)),
        raw.message "GET /c"))
      for _ = 1, 3 do
        assert.equal("x", raw.response(s).body)
      end
    end)
    assert.same({ "/a", "/b", "/c" }, seen)
  end)

  it("takes empty lines before a request, and spaces around values", function()
    each {
      { 200, "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n" },
      { 200, "GET / HTTP/1.1\r\nHost:\t x \t\r\nX: \r\n\r\n" },
      { 200, "GET / HTTP/1.1\r\nHost: x\r\nX: \228\246\r\n\r\n" },
    }
  end)
end)

describe("http.serve: splits", function()
  local head = "POST /a%20b?x=1 HTTP/1.1\r\nHost: example\r\nX-Long: " .. ("v"):rep(30) ..
    "\r\nX-A: 1\r\nx-a: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
  local message = head .. "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n"
  local expected = "POST|/a b|1|example|1, 2|hello world|11"

  local function describe_request(req)
    local text = await(req:text())
    return 200, nil, table.concat({ req.method, req.path, req.query.x, req.headers.host, req.headers["x-a"], text,
      req.trailers["x-sum"] }, "|")
  end

  -- Each split is two reads: the second part is written when the first was taken.
  it("sees the same request wherever two reads divide it", function()
    raw.with(describe_request, nil, function(port)
      local s <close> = raw.connect(port)
      for at = 1, #message - 1 do
        await(s:write(message:sub(1, at)))
        await(task.delay(0))
        await(task.delay(0))
        await(s:write(message:sub(at + 1)))
        local r = raw.response(s)
        assert(r.status == 200 and r.body == expected, ("split at %d: %d %s"):format(at, r.status, r.body))
      end
    end)
  end)

  it("sees the same request byte by byte, and two of them in odd pieces", function()
    raw.with(describe_request, nil, function(port)
      local s <close> = raw.connect(port)
      for i = 1, #message do
        await(s:write(message:sub(i, i)))
        await(task.delay(0))
      end
      assert.equal(expected, raw.response(s).body)
      local two = message .. message
      for at = 1, #two, 37 do
        await(s:write(two:sub(at, at + 36)))
        await(task.delay(0))
      end
      assert.equal(expected, raw.response(s).body)
      assert.equal(expected, raw.response(s).body)
    end)
  end)

  it("refuses the same bytes wherever two reads divide them", function()
    local native = require "asynctask.http.native"
    local meta = {}
    local function outcome(...)
      local parser = native.parser(meta, 100, 1000, 10)
      for i = 1, select("#", ...) do
        local req, status = native.head(parser, (select(i, ...)))
        if req ~= nil then
          return req and "request" or status
        end
      end
      return "more"
    end
    for _, bytes in ipairs {
      "GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
      "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
      "GET / HTTP/3.1\r\nHost: x\r\n\r\n",
      "GET /" .. ("x"):rep(101) .. " HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    } do
      local whole = outcome(bytes)
      assert.is_not.equal("more", whole)
      for at = 1, #bytes - 1 do
        local split = outcome(bytes:sub(1, at), bytes:sub(at + 1))
        assert(split == whole, ("%q split at %d: %s, whole: %s"):format(bytes, at, split, whole))
      end
    end
  end)

  it("says the same of any bytes, whole and in pieces, heads and bodies", function()
    local native = require "asynctask.http.native"
    local meta = {}
    local seed = 20261125 -- the same bytes in every run
    local function random(n)
      seed = (seed * 1103515245 + 12345) % (1 << 31)
      return (seed >> 8) % n + 1
    end

    -- Reads all messages of the pieces, as a connection does: a text of what came out.
    local function outcome(pieces)
      local parser, seen, in_body = native.parser(meta, 200, 400, 8), {}, false
      for _, piece in ipairs(pieces) do
        local at = 1
        while at <= #piece do
          if in_body then
            local body, next_byte, done = native.body(parser, piece, at)
            if not body then
              return table.concat(seen) .. "!" .. next_byte
            end
            seen[#seen + 1] = body
            at, in_body = next_byte, not done
          else
            local req, next_byte, flags = native.head(parser, piece, at)
            if req == nil then
              break
            elseif not req then
              return table.concat(seen) .. "!" .. next_byte
            end
            seen[#seen + 1] = ("<%s %s>"):format(req.method, req.path)
            at, in_body = next_byte, flags & 2 ~= 0
          end
        end
      end
      return table.concat(seen)
    end

    -- Of a body that turns out to be broken some bytes may have been given in one case and not in the other; and
    -- what begins like an unknown method (501) may turn out to be no request line (400).
    local function plain(text)
      return (text:gsub("(<[^>]*>)[^<]*!", "%1!"):gsub("!501", "!400"))
    end

    local base = "POST /a%20b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" ..
      "3;e\r\nabc\r\n0\r\nT: 1\r\n\r\nPUT /c HTTP/1.1\r\nHost: x\r\n" ..
      "Content-Length: 4\r\n\r\nbodyGET /d HTTP/1.1\r\nHost: x\r\n\r\n"
    local odd = { "\r", "\n", "\0", " ", "\t", ":", "0", "f", ";", "%", "\r\n", "\r\n\r\n", "\255", "chunked",
      "1", "," }
    assert.equal("<POST /a b>abc<PUT /c>body<GET /d>", outcome { base })
    local refused, served = 0, 0
    for _ = 1, 3000 do
      local bytes = base
      for _ = 1, random(3) do
        local at = random(#bytes)
        local keep = random(3)
        bytes = bytes:sub(1, at - 1) .. odd[random(#odd)] .. bytes:sub(at + keep - 1)
      end
      local whole = outcome { bytes }
      local pieces, at = {}, 1
      while at <= #bytes do
        local size = random(40)
        pieces[#pieces + 1] = bytes:sub(at, at + size - 1)
        at = at + size
      end
      local split = outcome(pieces)
      local clean, cut = plain(whole), plain(split)
      assert(clean == cut, ("%q\nwhole: %s\nsplit: %s"):format(bytes, whole, split))
      refused = refused + (whole:find "!" and 1 or 0)
      served = served + (whole:find "!" and 0 or 1)
    end
    assert.is_true(refused > 500 and served > 50, refused .. " " .. served)
  end)
end)
