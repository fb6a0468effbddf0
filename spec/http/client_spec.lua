-- The HTTP client: requests, responses, options; against nginx, Python's http.server and servers of the suite's own.

local http = require "asynctask.http"
local task = require "asynctask"

if not pcall(require, "asynctask.curl") then
  describe("asynctask.http's client", function()
    pending("needs libcurl")
  end)
  return
end

local badweb = require "spec.support.badweb"
local child = require "spec.support.child"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local nginx = require "spec.support.nginx"
local sandbox = require "spec.support.sandbox"

local await, try, code_of = task.await, task.try, sandbox.code_of
local answer = badweb.answer

describe("asynctask.http", function()
  after_each(function() await(http.close()) end)

  -- ---- the typical call ------------------------------------------------------------------------

  it("get_string gives the body as a string", function()
    badweb.each(function(r) return answer(200, "you asked for " .. r.target) end, function(url)
      assert.are.equal("you asked for /a?b=c", await(http.get_string(url .. "a?b=c")))
    end)
  end)

  it("S25: get_string under a deadline, and many at once", function()
    badweb.each(function(r) return answer(200, r.target) end, function(url)
      assert.are.equal("/x", task.with_timeout(5, http.get_string, url .. "x"))
      local list = {}
      for i = 1, 20 do list[i] = http.get_string(url .. i) end
      local texts = await(task.when_all(list))
      for i = 1, 20 do assert.are.equal("/" .. i, texts[i]) end
    end)
  end)

  it("S22: get_string faults on a status of 400 or more, with the status, the body and the response", function()
    badweb.each(function() return answer(418, "short and stout", "X-Pot: yes\r\n") end, function(url)
      local code, err = code_of(http.get_string(url .. "tea"))
      assert.are.equal("EHTTP", code)
      assert.are.equal(418, err.status)
      assert.are.equal("short and stout", err.body)
      assert.are.equal("yes", err.response.headers["x-pot"])
      assert.are.equal(("GET %stea: the server answered with status 418 (EHTTP)"):format(url), tostring(err))
    end)
  end)

  it("get gives any status as a response, whose head comes before its body", function()
    badweb.with(function(stream)
      badweb.request(stream)
      await(stream:write("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nA: 1\r\nB: x\r\na: 2\r\n\r\n"))
      assert(await(stream:read()) == "go on")
      await(stream:write("body"))
    end, function(url, port)
      local reply = await(http.get(url))
      assert.are.equal(404, reply.status)
      assert.is_false(reply.ok)
      assert.are.equal("1.1", reply.version)
      assert.are.equal(url, reply.url)
      assert.are.equal("GET", reply.method)
      assert.are.equal("1, 2", reply.headers.A)
      assert.are.same({ "1", "2" }, reply.headers:all("A"))
      assert.are.equal("4", reply.headers["CONTENT-LENGTH"])
      assert.is_nil(reply.headers["nothing"])
      local reading = reply:text()
      assert.is_false(reading:done())
      reading:cancel()
      await(reply:close())
      assert.is_number(port)
    end)
  end)

  it("reads a body by lines, counts, delimiters, chunks, and as text", function()
    local body = "one\ntwo\n" .. ("x"):rep(1000) .. ";rest"
    badweb.each(function() return answer(200, body) end, function(url)
      local reply = await(http.get(url))
      assert.are.equal("one", await(reply:read()))
      assert.are.equal("tw", await(reply:read(2)))
      assert.are.equal("o", await(reply:read("l")))
      assert.are.equal(1000, #await(reply:read_until(";")))
      assert.are.equal("rest", await(reply:text()))
      assert.is_nil(await(reply:read_some()))
      local lines = {}
      for line in await(http.get(url)):lines() do lines[#lines + 1] = line end
      assert.are.equal(3, #lines)
      local total = 0
      for chunk in await(http.get(url)):each_chunk(100) do
        assert.is_true(#chunk > 0 and #chunk <= 100)
        total = total + #chunk
      end
      assert.are.equal(#body, total)
    end)
  end)

  it("uses a connection again", function()
    local connections = 0
    badweb.with(function(stream)
      connections = connections + 1
      while badweb.request(stream) do await(stream:write(answer(200, "x"))) end
    end, function(url)
      for _ = 1, 20 do await(http.get_string(url)) end
      assert.are.equal(1, connections)
    end)
  end)

  it("goes on when the server has closed the connection meanwhile", function()
    badweb.with(function(stream)
      badweb.request(stream)
      await(stream:write(answer(200, "once")))
    end, function(url)
      for _ = 1, 5 do assert.are.equal("once", await(http.get_string(url))) end
    end)
  end)

  -- ---- methods and headers ---------------------------------------------------------------------

  it("has a function for each method; HEAD has no body", function()
    local seen = {}
    badweb.each(function(r)
      seen[#seen + 1] = r.line
      return r.method == "HEAD" and "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n" or answer(200, r.method)
    end, function(url)
      for _, name in ipairs { "get", "post", "put", "patch", "delete" } do
        assert.are.equal(name:upper(), await(await(http[name](url .. name)):text()))
      end
      local head = await(http.head(url))
      assert.are.equal("17", head.headers["content-length"])
      assert.are.equal("", await(head:text()))
      assert.are.equal("PROPFIND", await(await(http.request { method = "PROPFIND", url = url }):text()))
      assert.are.equal("DELETE /delete HTTP/1.1", seen[5])
    end)
  end)

  it("sends headers: of the request, repeated ones, empty ones, and says who it is", function()
    local head
    badweb.each(function(r) head = r.head return answer(200) end, function(url)
      await(http.get_string(url, { headers = { ["X-One"] = "1", many = { "a", "b" }, empty = "", n = 5 } }))
      assert.matches("\r\nX%-One: 1", head)
      assert.matches("\r\nmany: a\r\nmany: b", head)
      assert.matches("\r\nempty:\r\n", head .. "\r\n")
      assert.matches("\r\nn: 5", head)
      assert.matches("\r\nUser%-Agent: asynctask/", head)
      assert.matches("\r\nHost: 127%.0%.0%.1:%d+", head)
      await(http.get_string(url, { headers = { ["user-agent"] = "me" } }))
      assert.matches("\r\nuser%-agent: me", head)
      assert.is_nil(head:find("asynctask", 1, true))
      await(http.get_string(url, { headers = { ["User-Agent"] = false } }))
      assert.is_nil(head:lower():find("user-agent", 1, true))
    end)
  end)

  it("adds fields to the query", function()
    badweb.each(function(r) return answer(200, r.target) end, function(url)
      assert.are.equal("/p?a=1&b=x+y%26z&c=1&c=2",
        await(http.get_string(url .. "p?a=1", { query = { b = "x y&z", c = { 1, 2 } } })))
      assert.are.equal("/p?b=2&a=1", await(http.get_string(url .. "p", { query = { { "b", 2 }, { "a", 1 } } })))
      assert.are.equal("/p?raw=1", await(http.get_string(url .. "p#part", { query = "raw=1" })))
      assert.are.equal("/a%20b", await(http.get_string(url .. "a b")))
    end)
  end)

  it("sends credentials: of the URL, of the option, a token", function()
    badweb.each(function(r) return answer(200, r.headers.authorization or "none") end, function(url)
      local function basic(text) return "Basic " .. text end
      assert.are.equal("none", await(http.get_string(url)))
      assert.are.equal(basic "YW5uOnNlY3JldA==", await(http.get_string(url, { auth = { "ann", "secret" } })))
      assert.are.equal(basic "YW5uOnNlY3JldA==",
        await(http.get_string((url:gsub("//", "//ann:secret@")))))
      assert.are.equal("Bearer abc", await(http.get_string(url, { bearer = "abc" })))
      local reply <close> = await(http.get((url:gsub("//", "//ann:secret@"))))
      assert.is_nil(reply.url:find("secret", 1, true))
    end)
  end)

  it("S22: wrong arguments raise at the call, at the caller's line", function()
    local function raises(pattern, f, ...)
      local ok, err = pcall(f, ...)
      assert.is_false(ok)
      assert.matches(pattern, err)
    end
    local url = "http://127.0.0.1/"
    raises("bad argument #1 to 'get_string' %(string expected, got nil%)", http.get_string)
    raises("bad argument #1 to 'get' %('example.com/x' has no scheme", http.get, "example.com/x")
    raises("bad argument #1 to 'get' %(scheme 'ftp': http or https expected", http.get, "ftp://x/")
    raises("bad argument #1 to 'get' %(scheme 'file'", http.get, "file:///etc/passwd")
    raises("bad argument #1 to 'get' %('http://': ", http.get, "http://")
    raises("bad argument #2 to 'post' %(unknown option 'bdy'", http.post, url, { bdy = "" })
    raises("bad argument #2 to 'get' %(option 'timeout': seconds above 0 expected", http.get, url, { timeout = "1" })
    raises("options '.-' and '.-': a request has one body", http.post, url, { body = "", form = {} })
    raises("option 'body': string, stream or iterator expected, got boolean", http.post, url, { body = true })
    raises("field 'method': a token expected", http.request, { method = "GET /", url = url })
    raises("CONNECT", http.request, { method = "CONNECT", url = url })
    raises("header 'content%-length' is the library's", http.get, url, { headers = { ["content-length"] = "5" } })
    raises("option 'insecure_skip_verify': boolean expected", http.get, url, { insecure_skip_verify = 1 })
    local ok, err = pcall(function() http.get_string(7, {}) end)
    assert.is_false(ok)
    assert.matches("client_spec.lua:%d+: bad argument", err)
  end)

  it("refuses line ends and zero bytes in methods, URLs, header names and values", function()
    local url = "http://127.0.0.1:1/"
    for _, bad in ipairs { "a\r\nX: y", "a\nb", "a\rb", "a\0b" } do
      assert.has_error(function() http.get(url .. bad) end)
      assert.has_error(function() http.request { method = bad, url = url } end)
      assert.has_error(function() http.get(url, { headers = { [bad] = "v" } }) end)
      assert.has_error(function() http.get(url, { headers = { v = bad } }) end)
      assert.has_error(function() http.get(url, { headers = { v = { "fine", bad } } }) end)
      assert.has_error(function() http.get(url, { bearer = bad }) end)
      assert.has_error(function() http.get(url, { query = bad }) end, nil)
      assert.has_error(function() http.client { headers = { v = bad } } end)
      assert.has_error(function()
        http.post(url, { multipart = { a = { data = "", type = bad } } })
      end, nil)
    end
    assert.has_error(function() http.get(url, { headers = { ["a b"] = "v" } }) end)
    assert.has_error(function() http.get(url, { headers = { [""] = "v" } }) end)
  end)

  -- ---- clients ---------------------------------------------------------------------------------

  it("http.client has a base, headers and options for its requests", function()
    badweb.each(function(r) return answer(200, r.target .. " " .. (r.headers["x-key"] or "none")) end, function(url)
      local client <close> = http.client { base = url .. "api/", headers = { ["X-Key"] = "k" }, timeout = 5 }
      assert.are.equal("/api/users?id=3 k", await(client:get_string("users", { query = { id = 3 } })))
      assert.are.equal("/users k", await(client:get_string "/users"))
      assert.are.equal("/api/ other", await(client:get_string("", { headers = { ["x-key"] = "other" } })))
      assert.are.equal("/api/x none", await(client:get_string("x", { headers = { ["x-key"] = false } })))
    end)
  end)

  it("http.client{base=} with get('') asks for the base itself", function()
    badweb.each(function(r) return answer(200, r.target) end, function(url)
      local client <close> = http.client { base = url .. "api/" }
      assert.are.equal("/api/", await(client:get_string "."))
    end)
  end)

  it("S10: closing a client ends what is under way, and later calls raise", function()
    badweb.with(function(stream)
      badweb.request(stream)
      await(stream:read_some())
    end, function(url)
      local client = http.client()
      local t = client:get(url)
      await(task.delay(0.02))
      await(client:close())
      local code, err = code_of(t)
      assert.are.equal("ECANCELED", code)
      assert.matches("closed", err.message)
      assert.has_error(function() client:get(url) end)
      await(client:close())
    end)
  end)

  it("keeps cookies in a client, and none in the functions", function()
    badweb.each(function(r)
      if r.target == "/set" then
        return answer(200, "", "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; HttpOnly\r\n")
      end
      return answer(200, r.headers.cookie or "none")
    end, function(url)
      local client <close> = http.client()
      await(client:get_string(url .. "set"))
      assert.matches("a=1", await(client:get_string(url)))
      local names = {}
      for _, cookie in ipairs(client:cookies()) do names[cookie.name] = cookie end
      assert.are.equal("1", names.a.value)
      assert.are.equal("/", names.a.path)
      assert.are.equal("127.0.0.1", names.b.domain)
      assert.is_true(names.b.http_only)
      assert.is_nil(names.a.expires)
      client:clear_cookies()
      assert.are.equal("none", await(client:get_string(url)))
      await(http.get_string(url .. "set"))
      assert.are.equal("none", await(http.get_string(url)))
      local plain <close> = http.client { cookies = false }
      await(plain:get_string(url .. "set"))
      assert.are.equal("none", await(plain:get_string(url)))
    end)
  end)

  it("limits connections to a host; further requests wait", function()
    local open, most = 0, 0
    badweb.with(function(stream)
      while badweb.request(stream) do
        open = open + 1
        most = math.max(most, open)
        await(task.delay(0.005))
        open = open - 1
        await(stream:write(answer(200, "x")))
      end
    end, function(url)
      local client <close> = http.client { max_per_host = 3 }
      local list = {}
      for i = 1, 30 do list[i] = client:get_string(url) end
      await(task.when_all(list))
      assert.are.equal(3, most)
    end)
  end)

  it("limits connections in all", function()
    local open, most = 0, 0
    local function serve(stream)
      while badweb.request(stream) do
        open = open + 1
        most = math.max(most, open)
        await(task.delay(0.005))
        open = open - 1
        await(stream:write(answer(200, "x")))
      end
    end
    badweb.with(serve, function(one)
      badweb.with(serve, function(other)
        local client <close> = http.client { max_connections = 2 }
        local list = {}
        for i = 1, 20 do list[i] = client:get_string(i % 2 == 0 and one or other) end
        await(task.when_all(list))
        assert.is_true(most <= 2)
      end)
    end)
  end)

  it("connects to a Unix socket, whatever the URL's host", function()
    local path, _, _, before, after = sandbox.new()
    before()
    finally(after)
    local server = await(net.listen { path = path "socket" })
    local serving = server:serve(function(stream)
      local r = badweb.request(stream)
      await(stream:write(answer(200, r.headers.host .. r.target)))
    end)
    local client <close> = http.client { unix_socket = path "socket" }
    assert.are.equal("engine.invalid/v1", await(client:get_string("http://engine.invalid/v1")))
    await(server:close())
    await(serving)
  end)

  it("goes through the proxy of the option, and of the environment, but for no_proxy", function()
    badweb.each(function(r) return answer(200, r.target) end, function(proxy)
      assert.are.equal("http://far.invalid/x", await(http.get_string("http://far.invalid/x", { proxy = proxy })))
      local output, code = badweb.script([[
        local task, http = require "asynctask", require "asynctask.http"
        print(task.await(http.get_string "http://far.invalid/y"))
        print(select(2, task.try(http.get "http://near.invalid/")).code)
        print(select(2, task.try(http.get("http://far.invalid/", { proxy = false }))).code)
      ]], { http_proxy = proxy, no_proxy = "localhost, .near.invalid" })
      assert.are.equal(0, code, output)
      assert.are.equal("http://far.invalid/y\nEAI_NONAME\nEAI_NONAME\n", output)
    end)
  end)

  -- ---- JSON ------------------------------------------------------------------------------------

  it("reads and sends JSON where a library is there", function()
    if not pcall(http.json and http.json.encode or error, {}) then pending("no JSON library") end
    badweb.each(function(r)
      if r.method == "POST" then
        return answer(200, r.headers["content-type"] .. " " .. r.body)
      end
      return answer(200, r.target == "/bad" and "{" or '{"a":[1,2],"accept":"' .. r.headers.accept .. '"}')
    end, function(url)
      local value = await(http.get_json(url))
      assert.are.equal(2, value.a[2])
      assert.are.equal("application/json", value.accept)
      assert.are.equal(1, await(await(http.get(url)):json()).a[1])
      assert.are.equal("application/json [1,2]", await(await(http.post(url, { json = { 1, 2 } })):text()))
      assert.are.equal("EJSON", code_of(http.get_json(url .. "bad")))
      assert.are.equal("EJSON", code_of(await(http.get(url .. "bad")):json()))
      assert.has_error(function() http.post(url, { json = function() end }) end)
    end)
  end)

  it("says which library JSON needs where there is none", function()
    local output = child.lua([[
      package.preload.cjson = function() error "none" end
      package.preload.dkjson = function() error "none" end
      local http = require "asynctask.http"
      print(pcall(http.get_json, "http://127.0.0.1:1/"))
    ]])
    assert.matches("false\t.*install lua%-cjson .* or dkjson", output)
  end)

  it("says what to install where the C part is missing; the rest of asynctask.http works", function()
    local output = child.lua([[
      package.preload["asynctask.curl"] = function() error("no such file", 0) end
      local http = require "asynctask.http"
      print(pcall(function() return http.get end))
      print(http.headers({ A = "1" }).a)
    ]])
    assert.matches("^false\t.*libcurl 7%.80 or newer.*Debian: libcurl4%-openssl%-dev; pkg%-config: libcurl", output)
    assert.matches("\n1\n$", output)
  end)

  -- ---- cancelling ------------------------------------------------------------------------------

  it("S10: cancelling a request closes its connection at once", function()
    local closed = task.source()
    badweb.with(function(stream)
      badweb.request(stream)
      closed:set_result(await(stream:read_some()) == nil)
    end, function(url)
      local t = http.get_string(url)
      await(task.delay(0.02))
      t:cancel("enough")
      assert.are.equal("ECANCELED", code_of(t))
      assert.are.equal("cancelled", t:status())
      assert.is_true(await(closed.task:timeout(2)))
    end)
  end)

  it("S10: cancelling the reading of a body takes nothing from it", function()
    badweb.with(function(stream)
      badweb.request(stream)
      await(stream:write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"))
      await(stream:read())
      await(stream:write("defghij"))
    end, function(url)
      local reply = await(http.get(url))
      local t = reply:read(10)
      await(task.delay(0.02))
      t:cancel()
      t:error()
      assert.are.equal("abc", await(reply:read_some()))
      await(reply:close())
    end)
  end)

  it("closing or dropping a response closes its connection", function()
    for _, how in ipairs { "close", "drop" } do
      local closed = task.source()
      badweb.with(function(stream)
        badweb.request(stream)
        await(stream:write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"))
        closed:set_result(await(stream:read_some()) == nil)
      end, function(url)
        local reply = await(http.get(url))
        if how == "close" then await(reply:close()) end
        reply = nil
        collectgarbage()
        collectgarbage()
        assert.is_true(await(closed.task:timeout(2)))
        assert.is_nil(reply)
      end)
    end
  end)

  it("responses that nobody has any more give way to requests that wait for their connections", function()
    badweb.each(function() return answer(200, ("x"):rep(300000)) end, function(url)
      local client <close> = http.client { max_per_host = 2 }
      collectgarbage("stop") -- only the client itself collects
      finally(function() collectgarbage("restart") end)
      for _ = 1, 6 do assert.are.equal(200, await(client:get(url)).status) end
    end)
  end)

  it("S10: starts nothing in a scope that is being cancelled", function()
    local connections = 0
    badweb.with(function() connections = connections + 1 end, function(url)
      local t = task.spawn(function()
        task.pcall(task.await, task.delay(60))
      end)
      t:cancel()
      t:error()
      local started
      local u = task.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() started = http.get(url) end })
        await(task.delay(60))
      end)
      u:cancel()
      u:try()
      assert.is_false(started:try() ~= nil)
      await(task.delay(0.02))
      assert.are.equal(0, connections)
    end)
  end)

  it("S18: a state may close at any moment", function()
    badweb.with(function(stream)
      local r = badweb.request(stream)
      if r and r.target == "/body" then
        await(stream:write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc"))
      end
      await(stream:read_some())
    end, function(url)
      for _, script in ipairs {
        "t = http.get_string(url)", "t = http.get_string(url) task.await(task.delay(0.03))",
        "r = task.await(http.get(url .. 'body'))", "r = task.await(http.get(url .. 'body')) t = r:text()",
        "t = http.post(url, { body = function() return task.delay(60) end }) task.await(task.delay(0.03))",
        "t = http.get 'http://nowhere.invalid/'", "c = http.client() c:get(url) c = nil collectgarbage()",
        "task.spawn(function() task.await(http.get(url)) end) task.await(task.delay(0.03))",
        "t = http.get_string(url) task.await(task.delay(0.03)) t:cancel()",
      } do
        local output, code = badweb.script(
          ("local url, task, http = %q, require 'asynctask', require 'asynctask.http' %s"):format(url, script)
          .. " task.on_unobserved(function() end)")
        assert.are.equal(0, code, script .. ": " .. output)
      end
    end)
  end)

  it("works in jobs, each thread with connections of its own", function()
    badweb.each(function(r) return answer(200, r.target) end, function(url)
      local function fetch(where)
        local http_there = require "asynctask.http"
        return require "asynctask".await(http_there.get_string(where))
      end
      local list = {}
      for i = 1, 8 do list[i] = task.run(fetch, url .. i) end
      for i, text in ipairs(await(task.when_all(list))) do assert.are.equal("/" .. i, text) end
    end)
  end)

  -- ---- servers of others -----------------------------------------------------------------------

  it("gets files from Python's http.server", function()
    if select(2, child.shell("command -v python3")) ~= 0 then pending("python3 is not installed") end
    local path, put, _, before, after = sandbox.new()
    before()
    finally(after)
    put(("0123456789"):rep(100000), "big")
    local process = require "asynctask.process"
    local python = await(process.spawn("python3", { "-u", "-m", "http.server", "0", "--bind", "127.0.0.1",
      "--directory", path "." }, { stdout = "pipe", stderr = "ignore" }))
    local port = await(python.stdout:read()):match("port (%d+)")
    local url = "http://127.0.0.1:" .. port .. "/"
    assert.are.equal(1000000, #await(http.get_string(url .. "big")))
    local reply = await(http.get(url .. "big"))
    assert.are.equal("1.0", reply.version)
    assert.are.equal(("0123456789"):rep(100000), await(reply:text()))
    assert.are.equal(404, code_of(http.get_string(url .. "none")) == "EHTTP" and 404)
    await(python:kill("SIGKILL"))
    await(python:wait())
    await(python.stdout:close())
  end)
end)

-- ---- nginx -----------------------------------------------------------------------------------------

describe("asynctask.http and nginx", function()
  if not nginx.available() then
    pending("nginx or openssl is not installed")
    return
  end

  local server
  local big = ("The quick brown fox. "):rep(100000)

  setup(function()
    server = nginx.start { ["hello.txt"] = "hello\n", ["big.txt"] = big }
  end)
  teardown(function() server:stop() end)
  after_each(function() await(http.close()) end)

  it("gets files, also large ones, read slowly", function()
    assert.are.equal("hello\n", await(http.get_string(server:url "hello.txt")))
    assert.are.equal(big, await(http.get_string(server:url "big.txt")))
    local reply, parts = await(http.get(server:url "big.txt")), {}
    for chunk in reply:each_chunk(50000) do
      parts[#parts + 1] = chunk
      if #parts % 10 == 0 then await(task.delay(0.001)) end
    end
    assert.are.equal(big, table.concat(parts))
  end)

  it("decompresses what comes compressed, unless told not to", function()
    local reply = await(http.get(server:url "zip/big.txt"))
    assert.are.equal("gzip", reply.headers["content-encoding"])
    assert.are.equal(big, await(reply:text()))
    local raw = await(http.get(server:url "zip/big.txt",
      { decompress = false, headers = { ["Accept-Encoding"] = "gzip" } }))
    local packed = await(raw:text())
    assert.are.equal("\x1f\x8b", packed:sub(1, 2))
    assert.is_true(#packed < #big / 10)
  end)

  it("speaks HTTP/2 over TLS, many requests on one connection", function()
    if not select(2, require("asynctask.curl").version()).http2 then pending("libcurl without HTTP/2") end
    local client <close> = http.client { ca = server.dir .. "/ca.pem" }
    local reply = await(client:get(server:url("hello.txt", "tls")))
    assert.are.equal("2", reply.version)
    assert.are.equal("hello\n", await(reply:text()))
    local list = {}
    for i = 1, 50 do list[i] = client:get_string(server:url("big.txt", "tls")) end
    for _, text in ipairs(await(task.when_all(list))) do assert.are.equal(#big, #text) end
    local old <close> = http.client { ca = server.dir .. "/ca.pem", http_version = "1.1" }
    local plain <close> = await(old:get(server:url("hello.txt", "tls")))
    assert.are.equal("1.1", plain.version)
    local direct <close> = await(http.get(server:url("hello.txt", "plain2"), { http_version = "2-direct" }))
    assert.are.equal("2", direct.version)
  end)

  it("S10: one stream of an HTTP/2 connection is cancelled, or held up, and the others go on", function()
    local client <close> = http.client { ca = server.dir .. "/ca.pem" }
    local url = server:url("big.txt", "tls")
    local slow = await(client:get(url)) -- nobody reads it now
    local cut = client:get_string(url)
    await(task.delay(0))
    cut:cancel()
    cut:error()
    for _ = 1, 5 do assert.are.equal(big, await(client:get_string(url))) end
    assert.are.equal(big, await(slow:text()))
  end)

  it("sends bodies: put, and what was put is there", function()
    local body = ("0123456789abcdef"):rep(65536)
    assert.are.equal(201, await(http.put(server:url "up/one", { body = body })).status)
    assert.are.equal(body, await(fs.read_file(server.dir .. "/www/up/one")))
    local n = 0
    local reply = await(http.put(server:url "up/two", { body = function()
      n = n + 1
      return n <= 100 and ("%6d"):format(n):rep(10000) or nil
    end }))
    assert.are.equal(201, reply.status)
    assert.are.equal(6000000, await(fs.stat(server.dir .. "/www/up/two")).size)
    assert.are.equal(204, await(http.delete(server:url "up/two")).status)
  end)

  it("connects to its Unix socket, and sends credentials", function()
    assert.are.equal("hello\n", await(http.get_string("http://anything/hello.txt", { unix_socket = server.socket })))
    assert.are.equal(401, select(2, try(http.get_string(server:url "private"))).status)
    assert.are.equal("hello\n", await(http.get_string(server:url "private", { auth = { "ann", "secret" } })))
  end)
end)
