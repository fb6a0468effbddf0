-- The server with clients that others wrote: curl and Python's http.client; on several threads; with many clients.

local task = require "asynctask"
local process = require "asynctask.process"
local child = require "spec.support.child"
local raw = require "spec.support.rawhttp"
local sandbox = require "spec.support.sandbox"

local await = task.await
local message = raw.message
local path, put, get, before, after = sandbox.new()

-- Programs must not load the sanitizer's runtime.
local function run(command, ...)
  local env = process.environ()
  env.LD_PRELOAD = nil
  local output, errors = await(process.run(command, { ... }, { env = env, timeout = 60 }))
  return { stdout = output, stderr = errors }
end

local function installed(command)
  return os.execute("command -v " .. command .. " >/dev/null 2>&1")
end

local function handler(req)
  if req.path == "/echo" then
    return 200, { ["x-length"] = req.length or "unknown", ["x-expect"] = req.headers.expect }, await(req:text())
  elseif req.path == "/pieces" then
    local i = 0
    return 200, { ["content-type"] = "text/plain" }, function()
      i = i + 1
      return i <= 5 and ("piece %d\n"):format(i) or nil
    end
  elseif req.path == "/trailers" then
    local res = req:respond(200, { trailer = "X-Sum" })
    await(res:write("body"))
    return await(res:close { ["X-Sum"] = "4" })
  elseif req.path == "/moved" then
    return 302, { location = "/hello" }
  elseif req.path == "/form" then
    local f = await(req:form())
    if f:part "file" then
      local part = f:part "file"
      return ("%s %s %s %d"):format(f.name, part.filename, part.type, #part.data)
    end
    return table.concat(f:all "n", "+") .. f.name
  end
  return 200, { ["x-method"] = req.method }, "hello " .. (req.query.name or "nobody") .. "\n"
end

describe("http.serve: curl", function()
  before_each(before)
  after_each(after)

  local function curl(port, target, ...)
    local r = run("curl", "-sS", "--max-time", "20", ("http://127.0.0.1:%d%s"):format(port, target), ...)
    assert.equal("", r.stderr)
    return r.stdout
  end

  local function with(f)
    if not installed "curl" then
      return pending "curl is not installed"
    end
    raw.with(handler, nil, f)
  end

  it("gets, heads, follows, deletes", function()
    with(function(port)
      assert.equal("hello Ann Lee\n", curl(port, "/hello?name=Ann%20Lee"))
      assert.truthy(curl(port, "/hello", "-I"):find("Content-Length: 13\r\n", 1, true))
      assert.equal("hello nobody\n", curl(port, "/moved", "-L"))
      assert.truthy(curl(port, "/", "-X", "DELETE", "-i"):find("x-method: DELETE", 1, true))
      assert.equal("hello nobody\n", curl(port, "/", "--http1.0"))
    end)
  end)

  it("reuses a connection", function()
    with(function(port)
      local url = ("http://127.0.0.1:%d/"):format(port)
      local text = curl(port, "/", url, url, "-w", "%{num_connects} ")
      assert.equal("hello nobody\n1 hello nobody\n0 hello nobody\n0 ", text)
    end)
  end)

  it("posts forms, files, and bodies in chunks", function()
    with(function(port)
      assert.equal("1+2J & K", curl(port, "/form", "-d", "n=1", "-d", "n=2", "--data-urlencode", "name=J & K"))
      local small = put("small\r\n")
      assert.equal("Ann file text/x-small 7",
        curl(port, "/form", "-F", "name=Ann", "-F", "file=@" .. small .. ";type=text/x-small"))
      local text = ("0123456789"):rep(300000)
      local file = put(text)
      curl(port, "/echo", "--data-binary", "@" .. file, "-o", path "a") -- curl sends Expect: 100-continue
      assert.is_true(get "a" == text)
      curl(port, "/echo", "-T", file, "-H", "Transfer-Encoding: chunked", "-X", "POST", "-o", path "b")
      assert.is_true(get "b" == text)
    end)
  end)

  it("reads chunks and trailers", function()
    with(function(port)
      assert.equal("piece 1\npiece 2\npiece 3\npiece 4\npiece 5\n", curl(port, "/pieces"))
      assert.truthy(curl(port, "/trailers", "-i"):find("body", 1, true))
    end)
  end)
end)

describe("http.serve: Python's http.client", function()
  before_each(before)
  after_each(after)

  it("speaks with it over one connection", function()
    if not installed "python3" then
      return pending "python3 is not installed"
    end
    local script = put([[
import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=20)
def ask(*args, **more):
    c.request(*args, **more)
    r = c.getresponse()
    return r.status, r.read(), r
print(ask("GET", "/hello?name=py")[1])
sock = c.sock
print(ask("HEAD", "/hello")[2].getheader("Content-Length"))
print(ask("POST", "/echo", body=b"x" * 100000)[1] == b"x" * 100000)
pieces = [b"a", b"b" * 70000]
chunked = {"Transfer-Encoding": "chunked"}
print(ask("POST", "/echo", body=iter(pieces), encode_chunked=True, headers=chunked)[1] == b"".join(pieces))
print(ask("GET", "/pieces")[1])
status, body, r = ask("GET", "/echo", headers={"Connection": "close"})
print(status, r.getheader("Connection"), c.sock is None, sock is not None)
]], "client.py")
    raw.with(handler, nil, function(port)
      local r = run("python3", script, tostring(port))
      assert.equal("", r.stderr)
      assert.equal([[
b'hello py\n'
13
True
True
b'piece 1\npiece 2\npiece 3\npiece 4\npiece 5\n'
200 close True True
]], r.stdout)
    end)
  end)
end)

describe("http.serve: threads", function()
  it("serves on several, with limits, and closes gently", function()
    local served = function(req)
      local wait = require("asynctask").await
      if req.path == "/slow" then
        wait(require("asynctask").delay(0.2))
      elseif req.path == "/text" then
        return 200, nil, wait(req:text())
      elseif req.path == "/fail" then
        error("failed on purpose")
      end
      return 200, nil, tostring(package.loaded["asynctask.http.server"] ~= nil)
    end
    raw.with(served, { threads = 2, max_line = 100, on_error = function() end }, function(port, server)
      local list = {}
      for i = 1, 10 do
        list[i] = task.spawn(raw.send, port, message "GET /")
      end
      for i = 1, 10 do
        assert.equal("true", await(list[i]).body)
      end
      assert.equal("abc", raw.send(port, message("POST /text", "Content-Length: 3\r\n", "abc")).body)
      assert.equal(500, raw.send(port, message "GET /fail").status)
      assert.equal(414, raw.send(port, message("GET /" .. ("x"):rep(200))).status)
      local idle <close> = raw.connect(port)
      local busy <close> = raw.connect(port)
      await(idle:write(message "GET /"))
      raw.response(idle)
      await(busy:write(message "GET /slow"))
      await(task.delay(0.05))
      local closing = server:close { grace = 5 }
      assert.is_nil(await(idle:read_some():timeout(5)))
      assert.equal("close", raw.response(busy).headers.connection)
      await(closing:timeout(5))
    end)
  end)
end)

describe("http.serve: the state's end", function()
  it("S18: may come while requests are served, bodies awaited and responses written", function()
    local output, code = child.lua([[
      local task, net, http = require "asynctask", require "asynctask.net", require "asynctask.http"
      local await = task.await
      local server = await(net.listen("127.0.0.1", 0))
      http.serve(server, function(req)
        if req.path == "/body" then return 200, nil, await(req:text()) end
        if req.path == "/large" then return 200, nil, ("x"):rep(1 << 24) end
        if req.path == "/events" then
          local events = req:events()
          for tick in task.every(0.001) do await(events:send(tostring(tick))) end
        end
        await(task.delay(60))
      end)
      local clients = {}
      for i, line in ipairs { "POST /body", "GET /large", "GET /events", "GET /wait", "GET /half" } do
        local s = await(net.connect("127.0.0.1", server:sockname().port))
        await(s:write(line, " HTTP/1.1\r\nHost: x\r\n", i == 1 and "Content-Length: 9\r\n" or ""))
        await(s:write(i < 5 and "\r\n" or ""))
        clients[i] = s
      end
      await(task.delay(0.05))
      io.write("ends")
      io.stdout:flush()
      os.exit(0, true)
    ]])
    assert.equal(0, code, output)
    assert.truthy(output:find("ends", 1, true))
    assert.is_nil(output:find("attempt to", 1, true), output)
  end)
end)

describe("http.serve: many clients", function()
  it("ends 1,000 slow ones by their deadlines, and serves others meanwhile as before", function()
    local n = child.sanitizer() and 200 or 1000
    local limit = tonumber(child.shell("ulimit -n"):match "%d+") or math.huge
    n = math.min(n, (limit - 100) // 2)
    raw.with(function() return "x" end, { head_timeout = 1 }, function(port)
      local normal <close> = raw.connect(port)
      local function measure(seconds)
        local times, list, t0 = {}, {}, os.clock()
        local stop = task.delay(seconds)
        while not stop:done() do
          local began = os.clock()
          await(normal:write(message "GET /"))
          assert.equal(200, raw.response(normal).status)
          times[#times + 1] = os.clock() - began
          await(task.delay(0.001))
        end
        table.sort(times)
        list.p99 = times[math.ceil(#times * 0.99)]
        list.n, list.cpu = #times, os.clock() - t0
        return list
      end
      local alone = measure(0.5)
      local slow = {}
      for i = 1, n do
        slow[i] = raw.connect(port)
        await(slow[i]:write("GET / HTTP/1.1\r\nHost: x\r\nX-"))
      end
      local beside = measure(0.7)
      -- CPU time of this process, which is server and clients: nothing but work counts.
      assert(beside.p99 < alone.p99 * 5 + 0.005, ("p99 %.6f s beside %.6f s alone"):format(beside.p99, alone.p99))
      assert.is_true(beside.n > 50)
      for i = 1, n do
        local r = task.with_timeout(5, raw.response, slow[i])
        assert.equal(408, r.status)
        await(slow[i]:close())
      end
    end)
  end)

  it("serves 100,000 requests without growing in memory or descriptors", function()
    local total = child.sanitizer() and 5000 or 100000
    local connections <const>, batch <const> = 20, 25
    local function descriptors()
      local n = 0
      for _ in io.popen("ls /proc/self/fd"):lines() do
        n = n + 1
      end
      return n
    end
    local function memory()
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    raw.with(function(req)
      if req.path == "/wait" then await(task.yield()) end
      return 200, { ["x-q"] = req.query.q }, req.method == "POST" and await(req:text()) or "x"
    end, nil, function(port)
      local texts = {}
      for i = 1, batch do
        texts[i] = i % 5 == 0 and message("POST /p", "Content-Length: 3\r\n", "abc") or
          message((i % 5 == 1 and "GET /wait" or "GET /hello") .. "?q=" .. i)
      end
      local batch_text = table.concat(texts)
      local function client(requests)
        local s <close> = raw.connect(port)
        for _ = 1, requests // batch do
          await(s:write(batch_text))
          for _ = 1, batch do
            assert(raw.response(s).status == 200)
          end
        end
      end
      local function round(requests)
        local list = {}
        for i = 1, connections do
          list[i] = task.spawn(client, requests // connections)
        end
        await(task.when_all(list))
      end
      round(total // 10)
      local before_memory, before_fds = memory(), descriptors()
      for _ = 1, 9 do
        round(total // 10)
      end
      await(task.delay(0.01))
      local growth = memory() - before_memory
      assert(growth < 200, ("%.0f KB more than before"):format(growth))
      assert.is_true(descriptors() <= before_fds + 1)
    end)
  end)
end)
