-- The examples that serve HTTP: each runs as it stands, and is talked to from here; the chat and the progress page in a
-- real browser, where there is one.

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"
local child = require "spec.support.child"
local browser = require "spec.support.browser"
local web = require "spec.support.web"

local await, try = task.await, task.try

if not pcall(require, "asynctask.http1") then
  describe("examples/", function()
    pending "the server was built without its parser"
  end)
  return
end

local has_wslay = pcall(require, "asynctask.wslay")
local http = require "asynctask.http"
local json = pcall(http.json.encode, {}) and http.json

describe("examples/", function()
  local running -- the program

  -- Starts it; gives the port that it says.
  local function start(name, ...)
    running = await(process.spawn(child.interpreter(), { child.root .. "/examples/" .. name, ... }, {
      stdin = "ignore", stdout = "pipe", stderr = "pipe",
      env = { LUA_PATH = package.path, LUA_CPATH = package.cpath, PATH = os.getenv "PATH",
        LD_PRELOAD = os.getenv "ASYNCTASK_PRELOAD", ASAN_OPTIONS = os.getenv "ASAN_OPTIONS",
        TSAN_OPTIONS = os.getenv "TSAN_OPTIONS" },
    }))
    local line = task.with_timeout(30, running.stdout.read, running.stdout)
    local port = line and tonumber(line:match "^http://127%.0%.0%.1:(%d+)/$")
    assert(port, line or await(running.stderr:read "a"))
    return port
  end

  -- Ends it as Ctrl-C and service managers do; gives how it ended, and what it complained about.
  local function stop()
    running:kill "SIGTERM"
    local errors = running.stderr:read "a"
    local code, signal = await(running:wait():timeout(20))
    running = nil
    return code, signal, await(errors)
  end

  after_each(function()
    if running then
      running:kill "SIGKILL"
      await(running:wait())
      running = nil
    end
  end)

  it("http_hello.lua says hello, and ends when it is told to", function()
    local port = start("http_hello.lua", "0")
    local status, headers, body = web.get(port, "/you%20there")
    assert.are.equal(200, status)
    assert.are.equal("hello you there\n", body)
    assert.are.equal("text/plain; charset=utf-8", headers["content-type"])
    local code, _, errors = stop()
    assert.are.equal(143, code)
    assert.are.equal("", errors)
  end)

  local with_json = json and it or pending
  with_json("json_api.lua answers everybody while other cores compute", function()
    local port = start("json_api.lua", "0")
    local slow = task.spawn(web.get, port, "/fib/32")
    local quick = 0
    while not slow:done() do
      local status, _, body = web.get(port, "/health")
      assert.are.equal(200, status)
      if json.decode(body).running == 1 then
        quick = quick + 1
      end
    end
    assert.is_true(quick >= 5, quick .. " answers while one was computed")
    local _, headers, body = await(slow)
    assert.are.equal("application/json", headers["content-type"])
    assert.are.equal(2178309, json.decode(body).value)
    stop()
  end)

  with_json("json_api.lua says what is wrong, and ends work that nobody waits for", function()
    local port = start("json_api.lua", "0")
    local function post(text)
      local head = "POST /stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
      local answer = web.raw(port, head:format(#text) .. text)
      return tonumber(answer:match "^HTTP/1%.1 (%d+)"), json.decode(answer:match "\r\n\r\n(.*)$")
    end
    local status, value = post "[1, 2, 6]"
    assert.are.equal(200, status)
    assert.same({ count = 3, sum = 9, mean = 3 }, value)
    assert.are.equal(400, (post "{"))
    assert.are.equal(422, (post "{}"))
    local _, body
    status, _, body = web.get(port, "/fib/46")
    assert.are.equal(422, status)
    assert.are.equal("n is a number between 0 and 45", json.decode(body).error)
    assert.are.equal(404, (web.get(port, "/fib")))
    assert.are.equal(405, (web.get(port, "/health", { ["Content-Length"] = "0" }, "POST")))

    -- Minutes of work, for a client that goes away.
    local stream = await(net.connect("127.0.0.1", port))
    await(stream:write "GET /fib/45 HTTP/1.1\r\nHost: x\r\n\r\n")
    local function is_running()
      return json.decode((select(3, web.get(port, "/health")))).running
    end
    while is_running() == 0 do
      await(task.delay(0.01))
    end
    await(stream:close())
    task.with_timeout(20, function()
      while is_running() > 0 do
        await(task.delay(0.01))
      end
    end)
    assert.are.equal("", (select(3, stop())))
  end)

  it("file_server.lua serves a directory, and nothing else", function()
    local dir = await(fs.mkdtemp())
    finally(function() await(fs.remove(dir, { recursive = true })) end)
    await(fs.mkdir(dir .. "/root/a <b>", { parents = true }))
    await(fs.write_file(dir .. "/root/x.txt", "text"))
    await(fs.write_file(dir .. "/secret", "secret"))
    await(fs.symlink("..", dir .. "/root/up"))
    await(fs.symlink("../secret", dir .. "/root/link"))
    local port = start("file_server.lua", dir .. "/root", "0")
    assert.are.equal("text", (select(3, web.get(port, "/x.txt"))))
    local status, _, body = web.get(port, "/")
    assert.are.equal(200, status)
    assert.matches('<li><a href="x.txt">x.txt</a>', body, 1, true)
    assert.matches('<li><a href="a%20%3Cb%3E/">a &lt;b&gt;/</a>', body, 1, true)
    assert.is_nil(body:find("link", 1, true))
    assert.are.equal(200, (web.get(port, "/a%20%3Cb%3E/")))
    assert.are.equal(301, (web.get(port, "/a%20%3Cb%3E")))
    for _, target in ipairs { "/up/", "/up/secret", "/link", "/../", "/%2e%2e/", "/none/", "/..%2f", "/a%00/" } do
      assert.are.equal(404, (web.get(port, target)), target)
    end
    stop()
  end)

  local with_ws = has_wslay and it or pending
  with_ws("chat_web.lua tells everybody what one says", function()
    local port = start("chat_web.lua", "0")
    assert.matches("<title>Chat</title>", (select(3, web.get(port, "/"))), 1, true)
    assert.are.equal(426, (web.get(port, "/chat")))
    local url = ("ws://127.0.0.1:%d/chat"):format(port)
    local ada <close> = await(http.websocket(url))
    await(ada:send "ada")
    assert.are.equal("* ada has come", await(ada:receive():timeout(10)))
    do
      local other <close> = await(http.websocket(url))
      await(other:send "ada")
      assert.is_nil((await(other:receive():timeout(10))))
      assert.are.equal(4000, (other:closed()))
      local bob <close> = await(http.websocket(url))
      await(bob:send "bob")
      assert.are.equal("* bob has come", await(bob:receive():timeout(10)))
      await(bob:send "hello <b>")
      assert.are.equal("bob: hello <b>", await(bob:receive():timeout(10)))
    end
    local heard = {}
    for i = 1, 3 do
      heard[i] = await(ada:receive():timeout(10))
    end
    assert.are.equal("* bob has come|bob: hello <b>|* bob has left", table.concat(heard, "|"))
    assert.are.equal(403, try(http.websocket(url, { origin = "http://evil.example" })) == nil
      and select(2, try(http.websocket(url, { origin = "http://evil.example" }))).status)
    await(ada:send(("x"):rep(1001)))
    assert.is_nil((await(ada:receive():timeout(10))))
    assert.are.equal(1009, (ada:closed()))
    stop()
  end)

  it("progress_sse.lua tells how far it has come, and the result", function()
    local port = start("progress_sse.lua", "0")
    assert.matches("<title>Counting primes</title>", (select(3, web.get(port, "/"))), 1, true)
    local status, headers, body = web.get(port, "/count?blocks=4")
    assert.are.equal(200, status)
    assert.matches("^text/event%-stream", headers["content-type"])
    assert.matches("event: begin\ndata: 40000\n\n", body, 1, true)
    assert.matches("event: progress\ndata: 100.0\n\n", body, 1, true)
    assert.matches("event: done\ndata: 4203\n\n", body, 1, true) -- primes below 40,000
    assert.are.equal("", (select(3, stop())))
  end)

  describe("in a browser", function()
    local missing = select(2, browser.command()) or not json and "there is no JSON library"
      or child.sanitizer() and "not under a sanitizer"
    local chromium

    local function it_shows(name, f)
      it(name, function()
        if missing then
          pending(missing)
        end
        chromium = browser.new()
        f()
      end)
    end

    after_each(function()
      if chromium then
        chromium:close()
        chromium = nil
      end
    end)

    it_shows("chat_web.lua: two windows talk to each other", function()
      local url = ("http://127.0.0.1:%d/"):format(start("chat_web.lua", "0"))
      local ada = chromium:open(url .. "?name=ada&say=hello+all")
      chromium:wait_for 'return document.body.innerText.includes("ada: hello all")'
      chromium:open(url)
      chromium:run [[
        const text = document.getElementById("text"), form = document.getElementById("form");
        text.value = "bob"; form.requestSubmit();
      ]]
      chromium:wait_for 'return document.body.innerText.includes("connected as bob")'
      chromium:run [[
        document.getElementById("text").value = "<b>hi</b> ada";
        document.getElementById("form").requestSubmit();
      ]]
      chromium:wait_for 'return document.body.innerText.includes("bob: <b>hi</b> ada")'
      chromium:use(ada)
      assert.are.equal("* ada has come\nada: hello all\n* bob has come\nbob: <b>hi</b> ada", chromium:wait_for [[
        const lines = document.getElementById("lines").innerText;
        return lines.includes("bob: <b>hi</b> ada") && lines;
      ]])
    end)

    it_shows("progress_sse.lua: the bar moves, and the result is there", function()
      local url = ("http://127.0.0.1:%d/"):format(start("progress_sse.lua", "0"))
      chromium:open(url .. "?blocks=60&start")
      chromium:wait_for 'return document.title.startsWith("done after")'
      assert.are.equal("49,098 primes below 600,000.", chromium:run 'return document.getElementById("state").innerText')
      assert.are.equal(100, chromium:run 'return document.getElementById("bar").value')
      assert.is_true(tonumber(chromium:run("return document.title"):match "%d+") >= 5)
    end)
  end)
end)
