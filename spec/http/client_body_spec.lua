-- The HTTP client: bodies of requests.

local http = require "asynctask.http"
local task = require "asynctask"

if not pcall(require, "asynctask.curl") then
  describe("bodies of requests", function()
    pending("needs libcurl")
  end)
  return
end

local badweb = require "spec.support.badweb"
local channel = require "asynctask.channel"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local sandbox = require "spec.support.sandbox"

local await, code_of = task.await, sandbox.code_of
local answer = badweb.answer

describe("bodies of requests", function()
  local path, put, _, before, after = sandbox.new()
  local seen

  before_each(before)
  after_each(function()
    await(http.close())
    after()
  end)

  local function echo(f)
    return badweb.each(function(r)
      seen = r
      return answer(200, r.body)
    end, f)
  end

  local function post(url, opts)
    return await(await(http.post(url, opts)):text())
  end

  it("are strings, with their length and no type that nobody gave", function()
    echo(function(url)
      assert.are.equal("plain", post(url, { body = "plain" }))
      assert.are.equal("5", seen.headers["content-length"])
      assert.is_nil(seen.headers["content-type"])
      assert.is_nil(seen.headers.expect)
      assert.are.equal("a\0b\r\n", post(url, { body = "a\0b\r\n" }))
      assert.are.equal("7", post(url, { body = 7 }))
      local big = ("0123456789"):rep(300000)
      assert.are.equal(big, post(url, { body = big, headers = { ["Content-Type"] = "text/plain" } }))
      assert.are.equal("text/plain", seen.headers["content-type"])
      assert.is_nil(seen.headers.expect)
      assert.are.equal("", post(url))
      assert.are.equal("0", seen.headers["content-length"])
    end)
  end)

  it("are forms", function()
    echo(function(url)
      assert.are.equal("a+b=%C3%A4%26%3D&list=1&list=2&yes=true",
        post(url, { form = { ["a b"] = "ä&=", list = { 1, 2 }, yes = true } }))
      assert.are.equal("application/x-www-form-urlencoded", seen.headers["content-type"])
      assert.are.equal("z=1&a=2", post(url, { form = { { "z", 1 }, { "a", 2 } } }))
    end)
  end)

  it("are streams, sent in chunks, or with the length that is given", function()
    echo(function(url)
      local a, b = await(net.pair())
      local writing = task.spawn(function()
        for i = 1, 5 do
          await(a:write(("%d"):format(i):rep(10000)))
          await(task.delay(0.002))
        end
        await(a:close())
      end)
      local text = post(url, { body = b })
      assert.are.equal(50000, #text)
      assert.are.equal("chunked", seen.headers["transfer-encoding"])
      await(writing)
      await(b:close())
      local file <close> = await(fs.open(put(("x"):rep(200000))))
      assert.are.equal(200000, #post(url, { body = file, length = 200000 }))
      assert.are.equal("200000", seen.headers["content-length"])
    end)
  end)

  it("are iterators of strings, or of Tasks of strings", function()
    echo(function(url)
      local n = 0
      assert.are.equal("123", post(url, { body = function()
        n = n + 1
        return n <= 3 and tostring(n) or nil
      end }))
      local ch = channel.new(1)
      local sending = task.spawn(function()
        for i = 1, 3 do await(ch:send("m" .. i)) end
        ch:close()
      end)
      assert.are.equal("m1m2m3", post(url, { body = function() return ch:receive() end }))
      await(sending)
      put "one\ntwo\n"
      assert.are.equal("one\ntwo\n", post(url, { body = (fs.lines(path(), "L")) }))
      assert.are.equal("", post(url, { body = function() end }))
    end)
  end)

  it("are held back when the server takes them slowly", function()
    local made = 0
    badweb.with(function(stream)
      await(stream:read_until("\r\n\r\n"))
      await(task.delay(0.1))
      local at = made
      while not await(stream:read_some()):find("0\r\n\r\n$") do end
      await(stream:write(answer(200, tostring(at))))
    end, function(url)
      local text = post(url, { body = function()
        made = made + 1
        return made <= 400 and ("x"):rep(65536) or nil
      end })
      assert.are.equal(401, made)
      assert.is_true(tonumber(text) < 200, text) -- 12 MiB: what sockets hold, and no more
    end)
  end)

  it("an iterator that fails ends the request with its error", function()
    badweb.with(function(stream)
      while stream:read_some():try() do end
    end, function(url)
      local oops = { "oops" }
      local n = 0
      local _, err = task.try(http.post(url, { body = function()
        n = n + 1
        if n == 3 then error(oops) end
        return "x"
      end }))
      assert.are.equal(oops, err)
      _, err = task.try(http.post(url, { body = function() return 5 end }))
      assert.matches("gave a number: strings expected", err)
    end)
  end)

  it("an iterator that gives nothing more does not outlive the request", function()
    badweb.with(function(stream)
      stream:read_until("\r\n\r\n"):try() -- and closes
    end, function(url)
      local ch = channel.new(1)
      assert.is_string(code_of(http.post(url, { body = function() return ch:receive() end })))
      ch:close()
    end)
    for _, more in ipairs { "", "Connection: close\r\n" } do
      badweb.with(function(stream)
        stream:read_until("\r\n\r\n"):try()
        await(stream:write("HTTP/1.1 500 No\r\n", more, "Content-Length: 4\r\n\r\nbody"))
        while stream:read_some():try() do end
      end, function(url)
        local ch = channel.new(1)
        local code, err = code_of(http.get_string(url, { timeout = 2, body = function() return ch:receive() end }))
        assert.are.equal("EHTTP", code, tostring(err))
        assert.are.equal("body", err.body)
      end)
    end
  end)

  it("an answer before the end of the body is the answer", function()
    badweb.with(function(stream)
      await(stream:read_until("\r\n\r\n"))
      await(stream:write("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"))
      await(task.delay(0.02))
    end, function(url)
      local reply = await(http.post(url, { body = function()
        await(task.delay(0.001))
        return ("x"):rep(1000)
      end }))
      assert.are.equal(413, reply.status)
      await(reply:close())
    end)
  end)

  it("S10: cancelling ends an upload, and asks the iterator for no more", function()
    local asked = 0
    badweb.with(function(stream)
      while stream:read_some():try() do end
    end, function(url)
      local t = http.post(url, { body = function()
        asked = asked + 1
        await(task.delay(0.002))
        return "x"
      end })
      await(task.delay(0.03))
      t:cancel()
      t:try()
      local n = asked
      await(task.delay(0.02))
      assert.is_true(n > 0)
      assert.are.equal(n, asked)
    end)
  end)

  it("are multipart: fields, data, and files that are streamed", function()
    echo(function(url)
      put(("file contents "):rep(20000), "report.txt")
      local text = post(url, { multipart = {
        title = "a title", ["q\"\r\n"] = "quoted",
        upload = { file = path "report.txt", type = "text/plain" },
        data = { data = "\0\1", filename = "blob" },
      } })
      local boundary = seen.headers["content-type"]:match("^multipart/form%-data; boundary=(%S+)$")
      assert.is_string(boundary)
      assert.are.equal(tostring(#text), seen.headers["content-length"])
      local parts = {}
      for head, body in text:gmatch("%-%-" .. boundary:gsub("%-", "%%-") .. "\r\n(.-)\r\n\r\n(.-)\r\n%f[-]") do
        parts[head:match('name="([^"]*)"')] = { head = head, body = body }
      end
      assert.are.equal("a title", parts.title.body)
      assert.are.equal('Content-Disposition: form-data; name="title"', parts.title.head)
      assert.are.equal("quoted", parts["q%22%0D%0A"].body)
      assert.are.equal(("file contents "):rep(20000), parts.upload.body)
      assert.are.equal(
        'Content-Disposition: form-data; name="upload"; filename="report.txt"\r\nContent-Type: text/plain',
        parts.upload.head)
      assert.are.equal("\0\1", parts.data.body)
      assert.matches("filename=\"blob\"\r\nContent%-Type: application/octet%-stream", parts.data.head)
      assert.are.equal("--" .. boundary .. "--\r\n", text:sub(-#boundary - 6))
      local list = post(url, { multipart = { { name = "z", data = "1" }, { name = "a", data = "2" } } })
      assert.is_true(list:find('name="z"', 1, true) < list:find('name="a"', 1, true))
    end)
  end)

  it("multipart: wrong parts raise, a file that is not there faults", function()
    local url = "http://127.0.0.1:1/"
    assert.has_error(function() http.post(url, { multipart = { { data = "x" } } }) end)
    assert.has_error(function() http.post(url, { multipart = { a = {} } }) end)
    assert.has_error(function() http.post(url, { multipart = { a = { data = "x", file = "y" } } }) end)
    local code, err = code_of(http.post(url, { multipart = { a = { file = path "none" } } }))
    assert.are.equal("ENOENT", code)
    assert.are.equal(path "none", err.path)
  end)
end)

describe("escape", function()
  local escape = require "asynctask.http.client.escape"

  it("writes forms as WHATWG's URL standard says", function()
    assert.are.equal("a=1+2&b=%26%3D%2B%25&c=*-._", escape.fields { a = "1 2", b = "&=+%", c = "*-._" })
    assert.are.equal("", escape.fields {})
  end)

  it("knows tokens", function()
    assert.is_true(escape.is_token "X-Header_1")
    for _, bad in ipairs { "", "a b", "a:", "a\r", "ä", "(a)" } do assert.is_false(escape.is_token(bad), bad) end
  end)
end)

describe("proxy", function()
  local child = require "spec.support.child"

  it("reads the environment as curl does", function()
    local output = child.lua([[
      local of = require "asynctask.http.client.proxy".of
      local function show(scheme, host, port, option)
        print(of({ scheme = scheme, host = host, port = port or "80" }, option))
      end
      show("http", "a.example") show("https", "a.example") show("http", "skip.example") show("http", "x.skip.example")
      show("http", "noskip.example") show("http", "h", "81") show("http", "h", "80")
      show("http", "a", nil, false) show("http", "a", nil, "http://own")
    ]], { env = { http_proxy = "http://p:1", HTTPS_PROXY = "http://s:2", no_proxy = "skip.example, h:81" } })
    assert.are.equal("http://p:1\nhttp://s:2\n\n\nhttp://p:1\n\nhttp://p:1\n\nhttp://own\n", output)
    output = child.lua([[
      local of = require "asynctask.http.client.proxy".of
      print(of { scheme = "http", host = "a", port = "80" })
      print(of { scheme = "https", host = "a", port = "80" })
    ]], { env = { HTTP_PROXY = "http://attack", all_proxy = "http://all" } })
    assert.are.equal("http://all\nhttp://all\n", output)
  end)
end)
