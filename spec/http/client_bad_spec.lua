-- The HTTP client in a bad world: what servers and networks do wrong, and how long it is waited for.

local http = require "asynctask.http"
local task = require "asynctask"

if not pcall(require, "asynctask.curl") then
  describe("asynctask.http's client in a bad world", function()
    pending("needs libcurl")
  end)
  return
end

local badweb = require "spec.support.badweb"
local net = require "asynctask.net"
local sandbox = require "spec.support.sandbox"

local await, code_of = task.await, sandbox.code_of
local answer = badweb.answer

--- Serves connections that get these bytes once their request has come; then `behind` happens to the stream, or the
--- connection closes.
local function sending(bytes, f, behind)
  return badweb.with(function(stream)
    badweb.request(stream)
    stream:write(bytes):try() -- the client may have gone
    if behind then behind(stream) end
  end, f)
end

local function hang(stream)
  while stream:read_some():try() do end -- until the client goes
end

describe("asynctask.http in a bad world", function()
  after_each(function() await(http.close()) end)

  it("S22: refused: ECONNREFUSED, with the URL", function()
    local server = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    await(server:close())
    local url = ("http://127.0.0.1:%d/x"):format(port)
    local code, err = code_of(http.get(url))
    assert.are.equal("ECONNREFUSED", code)
    assert.are.equal(url, err.url)
    assert.are.equal("GET", err.op)
    assert.matches("^GET http://127%.0%.0%.1:%d+/x: .*%(ECONNREFUSED%)$", tostring(err))
  end)

  it("S22: a name that there is none of: EAI_NONAME, as asynctask.net says it", function()
    local code, err = code_of(http.get "http://nowhere.invalid/")
    assert.are.equal(code_of(net.resolve "nowhere.invalid"), code)
    assert.matches("^GET http://nowhere.invalid/: nowhere.invalid: ", tostring(err))
    assert.are.equal(code, code_of(http.get("http://127.0.0.1/", { proxy = "http://proxy.invalid:3128" })))
  end)

  it("no credentials of a URL in its errors", function()
    local _, err = code_of(http.get "http://ann:secret@nowhere.invalid/")
    assert.is_nil(tostring(err):find("secret", 1, true))
    assert.is_nil(err.url:find("secret", 1, true))
  end)

  it("a connection that closes without an answer: ECONNRESET", function()
    badweb.with(function(stream) badweb.request(stream) end, function(url)
      assert.are.equal("ECONNRESET", code_of(http.get(url)))
      assert.are.equal("ECONNRESET", code_of(http.get_string(url)))
    end)
  end)

  it("a body shorter than its Content-Length: EOF, after what came", function()
    sending("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", function(url)
      assert.are.equal("EOF", code_of(http.get_string(url)))
      local reply = await(http.get(url))
      assert.are.equal("abc", await(reply:read_some()))
      local code, err = code_of(reply:read_some())
      assert.are.equal("EOF", code)
      assert.are.equal("GET", err.op)
      code, err = code_of(await(http.get(url)):text())
      assert.are.equal("EOF", code)
      assert.are.equal(url, err.url)
    end)
  end)

  it("chunks that end too soon, or are none: a fault, never a short body", function()
    local head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for bytes, code in pairs {
      ["5\r\nabc"] = "EOF", ["3\r\nabc\r\n"] = "EOF", ["zz\r\nabc\r\n0\r\n\r\n"] = "EPROTO",
      ["ffffffffffffffffffff\r\nabc\r\n"] = "EPROTO",
    } do
      sending(head .. bytes, function(url)
        assert.are.equal(code, code_of(http.get_string(url)), bytes)
        assert.are.equal(code, code_of(await(http.get(url)):text()), bytes)
      end)
    end
  end)

  it("what is no HTTP: EPROTO", function()
    for _, bytes in ipairs { "SSH-2.0-OpenSSH\r\n", "\0\1\2\3\4\5\6\7\8\9", "HTTP/9.9 200 OK\r\n\r\n" } do
      sending(bytes, function(url)
        assert.are.equal("EPROTO", code_of(http.get_string(url)), bytes)
      end)
    end
  end)

  it("content that is not compressed as it says: EPROTO", function()
    sending(answer(200, "this is no gzip at all", "Content-Encoding: gzip\r\n"), function(url)
      assert.are.equal("EPROTO", code_of(http.get_string(url)))
    end)
  end)

  it("endless headers: EMSGSIZE; max_headers says how many", function()
    local function endless(line)
      return badweb.with(function(stream)
        badweb.request(stream)
        if line:sub(1, 4) ~= "HTTP" then await(stream:write("HTTP/1.1 200 OK\r\n")) end
        while await(stream:write((line):rep(100))) == nil do task.yield():await() end
      end, function(url)
        assert.are.equal("EMSGSIZE", code_of(http.get_string(url)), line)
      end)
    end
    endless("X-Filler: " .. ("x"):rep(100) .. "\r\n")
    endless("HTTP/1.1 100 Continue\r\n\r\n")
    sending(answer(200, "", ("A: " .. ("a"):rep(97) .. "\r\n"):rep(30)), function(url)
      assert.are.equal("EMSGSIZE", code_of(http.get(url, { max_headers = 2000 })))
      assert.are.equal(200, await(http.get(url)).status)
    end)
  end)

  it("two lengths that differ are a fault, two that agree are one (RFC 9112, 6.3)", function()
    local function lengths(first, second)
      return ("HTTP/1.1 200 OK\r\nContent-Length: %s\r\ncontent-length:%s\r\nConnection: close\r\n\r\nhello"):format(
        first, second)
    end
    for _, pair in ipairs { { "1", "5" }, { "5", " 1" }, { "5", " 5, 5" }, { "5", " +5" } } do
      sending(lengths(pair[1], pair[2]), function(url)
        assert.are.equal("EPROTO", code_of(http.get_string(url)), pair[2])
      end)
    end
    sending(lengths("5", " 5"), function(url)
      assert.are.equal("hello", await(http.get_string(url)))
    end)
  end)

  it("one header line that never ends is a fault, too", function()
    badweb.with(function(stream)
      badweb.request(stream)
      await(stream:write("HTTP/1.1 200 OK\r\nX: "))
      while true do await(stream:write(("x"):rep(10000))) end
    end, function(url)
      assert.is_string(code_of(http.get_string(url)))
    end)
  end)

  it("a body over max_body: EMSGSIZE, also of unknown length, also read as a stream", function()
    sending("HTTP/1.0 200 OK\r\n\r\n" .. ("x"):rep(100000), function(url)
      assert.are.equal("EMSGSIZE", code_of(http.get_string(url, { max_body = 99999 })))
      assert.are.equal(100000, #await(http.get_string(url, { max_body = 100000 })))
      assert.are.equal("EMSGSIZE", code_of(await(http.get(url)):text { max = 5000 }))
      local reply = await(http.get(url, { max_body = 50000 }))
      assert.are.equal("EMSGSIZE", code_of(reply:text()))
    end)
  end)

  it("a gzip bomb is met by max_body, without unpacking it", function()
    local child = require "spec.support.child"
    local packed, code = child.shell("head -c 200000000 /dev/zero | gzip -9 | base64 -w0")
    if code ~= 0 then pending("no gzip") end
    -- base64, decoded
    local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    local value = {}
    for i = 1, 64 do value[alphabet:sub(i, i)] = i - 1 end
    local bomb = packed:gsub("%s", ""):gsub("(.)(.)(.)(.)", function(a, b, c, d)
      local n = value[a] << 18 | value[b] << 12 | (value[c] or 0) << 6 | (value[d] or 0)
      local three = string.char(n >> 16, n >> 8 & 255, n & 255)
      return c == "=" and three:sub(1, 1) or d == "=" and three:sub(1, 2) or three
    end)
    assert.is_true(#bomb < 300000)
    badweb.each(function() return answer(200, bomb, "Content-Encoding: gzip\r\n") end, function(url)
      collectgarbage()
      assert.are.equal("EMSGSIZE", code_of(http.get_string(url, { max_body = 1000000 })))
      assert.are.equal("EMSGSIZE", code_of(http.get_string(url))) -- 128 MiB, the default
      assert.are.equal("EMSGSIZE", code_of(await(http.get(url)):text { max = 1000000 }))
      local reply, n = await(http.get(url)), 0 -- read as a stream it comes in small pieces
      for chunk in reply:each_chunk() do
        n = n + #chunk
        if n > 20000000 then break end
      end
      assert.is_true(n > 20000000)
      await(reply:close())
    end)
  end)

  -- ---- time ------------------------------------------------------------------------------------

  local function times_out(stage, options, url)
    local began = os.time()
    local code, err = code_of(http.get_string(url, options))
    assert.are.equal("ETIMEDOUT", code)
    assert.are.equal(stage, err.stage, tostring(err))
    assert.are.equal("GET", err.op)
    assert.is_true(os.time() - began <= 3)
  end

  it("a server that accepts and says nothing in the TLS handshake: connect_timeout", function()
    badweb.with(hang, function(_, port)
      times_out("connect", { connect_timeout = 0.1 }, ("https://127.0.0.1:%d/"):format(port))
    end)
  end)

  it("a port where connections are not even answered: connect_timeout", function()
    -- A full backlog drops what comes: nobody accepts here.
    local server = await(net.listen("127.0.0.1", 0, { backlog = 1 }))
    local port, fillers = server:sockname().port, {}
    repeat -- one after the other, until one is not answered
      local t = net.connect("127.0.0.1", port)
      fillers[#fillers + 1] = t
      await(task.when_any(t, task.delay(0.1)))
    until not t:done() or #fillers == 20
    times_out("connect", { connect_timeout = 0.2 }, ("http://127.0.0.1:%d/"):format(port))
    for _, t in ipairs(fillers) do
      t:cancel()
      local stream = t:try()
      if stream then await(stream:close()) end
    end
    await(server:close())
  end)

  it("a name that is not resolved in time: connect_timeout; a cancelled request waits for no lookup", function()
    local child = require "spec.support.child"
    if child.sanitizer() then pending("preloads a getaddrinfo of its own") end
    local library = os.tmpname()
    finally(function() os.remove(library) end)
    if select(2, child.shell(("cc -shared -fPIC -o %s %s"):format(library,
      child.quote(child.root .. "/spec/c/slow_names.c")))) ~= 0 then pending("no C compiler") end
    local output, code = child.lua([[
      local task, http = require "asynctask", require "asynctask.http"
      local now = require "asynctask.core".now
      local _, err = task.try(http.get("http://hang/", { connect_timeout = 0.1 }))
      print(err.code, err.stage, err)
      _, err = task.try(http.get("http://hang/", { connect_timeout = 60, timeout = 0.1 }))
      print(err.code, err.stage)
      local t, began = http.get "http://hang/", now()
      task.await(task.delay(0.05))
      t:cancel()
      t:try()
      print(now() - began < 1)
      os.exit(0)
    ]], { env = { LD_PRELOAD = library }, timeout = 20 })
    assert.are.equal("ETIMEDOUT\tconnect\tGET http://hang/: the name was not resolved in time (ETIMEDOUT)\n"
      .. "ETIMEDOUT\ttotal\ntrue\n", output)
    assert.are.equal(0, code)
  end)

  it("stalls before the answer, in the head, in the body: idle_timeout", function()
    local with_body = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    for _, bytes in ipairs { "", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nA: b\r\n", with_body } do
      sending(bytes, function(url) times_out("idle", { idle_timeout = 0.1 }, url) end, hang)
    end
    sending(with_body, function(url)
      local reply = await(http.get(url, { idle_timeout = 0.1 }))
      assert.are.equal("ETIMEDOUT", code_of(reply:text()))
    end, hang)
  end)

  it("a server that does not take the body: idle_timeout", function()
    badweb.with(function(stream)
      await(stream:read_until("\r\n\r\n"))
      await(task.delay(0.6))
    end, function(url)
      local code, err = code_of(http.post(url, { body = ("x"):rep(20000000), idle_timeout = 0.15 }))
      assert.are.equal("ETIMEDOUT", code)
      assert.are.equal("idle", err.stage)
    end)
  end)

  it("idle_timeout does not count while the reader does not read, nor while a body is being made", function()
    local big = ("x"):rep(1000000)
    badweb.each(function(r) return answer(200, r.method == "POST" and r.body or big) end, function(url)
      local reply = await(http.get(url, { idle_timeout = 0.1 }))
      await(task.delay(0.3))
      assert.are.equal(#big, #await(reply:text()))
      local n = 0
      assert.are.equal("1234", await(await(http.post(url, { idle_timeout = 0.1, body = function()
        await(task.delay(0.15))
        n = n + 1
        return n <= 4 and tostring(n) or nil
      end })):text()))
    end)
  end)

  it("trickles: timeout bounds the whole call, whatever comes meanwhile", function()
    badweb.with(function(stream)
      badweb.request(stream)
      await(stream:write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"))
      for _ = 1, 1000 do
        await(stream:write("x"))
        await(task.delay(0.02))
      end
    end, function(url)
      times_out("total", { timeout = 0.15, idle_timeout = 0.1 }, url)
      local reply = await(http.get(url, { timeout = 0.15 }))
      local code = code_of(reply:text())
      assert.are.equal("ETIMEDOUT", code)
    end)
  end)

  it("timeout counts redirects and retries, too, and waiting for a connection", function()
    badweb.each(function()
      await(task.delay(0.05))
      return answer(302, "", "Location: /again\r\n")
    end, function(url)
      times_out("total", { timeout = 0.12 }, url)
    end)
    badweb.with(hang, function(url)
      local client <close> = http.client { max_per_host = 1 }
      local first = client:get(url)
      local code, err = code_of(client:get(url, { timeout = 0.1 }))
      assert.are.equal("ETIMEDOUT", code)
      assert.are.equal("total", err.stage)
      first:cancel()
      first:try()
    end)
  end)

  it("S11: task.with_timeout bounds a call as any other", function()
    badweb.with(hang, function(url)
      local ok, err = task.pcall(task.with_timeout, 0.05, http.get_string, url)
      assert.is_false(ok)
      assert.are.equal("timeout", err.op)
    end)
  end)
end)
