-- http.files: what is sent for which path and which conditions, and what is never sent.

local task = require "asynctask"
local fs = require "asynctask.fs"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local found, http1 = pcall(require, "asynctask.http1")
if not found then
  describe("http.files", function()
    pending("the server was built without its parser: " .. tostring(http1):match "^[^\n]*")
  end)
  return
end

local http = require "asynctask.http"
local date = require "asynctask.http.date"
local process = require "asynctask.process"
local web = require "spec.support.web"

local await = task.await
local path, put, _, before, after = sandbox.new()

describe("http.files", function()
  local port, server, serving

  -- Begins to serve the directory "root".
  local function serve(opts, around)
    local handler = http.files(path "root", opts)
    port, server, serving = web.serve(around and around(handler) or handler)
  end

  local function get(...)
    return web.get(port, ...)
  end

  before_each(function()
    before()
    await(fs.mkdir(path "root/sub", { parents = true }))
    put("0123456789", "root/digits.txt")
    put("secret", "secret.txt")
    put("index", "root/sub/index.html")
  end)

  after_each(function()
    if server then
      await(server:close())
      await(serving)
      server = nil
    end
    after()
  end)

  it("sends a file with its type, length, tag and time", function()
    serve()
    await(fs.utime(path "root/digits.txt", 784111777, 784111777))
    local status, headers, body = get "/digits.txt"
    assert.are.equal(200, status)
    assert.are.equal("0123456789", body)
    assert.are.equal("text/plain; charset=utf-8", headers["content-type"])
    assert.are.equal("10", headers["content-length"])
    assert.are.equal("Sun, 06 Nov 1994 08:49:37 GMT", headers["last-modified"])
    assert.are.equal("bytes", headers["accept-ranges"])
    assert.are.equal("nosniff", headers["x-content-type-options"])
    assert.matches('^"%x+%-a"$', headers.etag)
    assert.is_nil(headers["cache-control"])
  end)

  it("answers HEAD with the same head", function()
    serve()
    local _, wanted = get "/digits.txt"
    local status, headers, body = get("/digits.txt", nil, "HEAD")
    assert.are.equal(200, status)
    assert.are.equal("", body)
    for _, name in ipairs { "content-length", "content-type", "etag", "last-modified" } do
      assert.are.equal(wanted[name], headers[name])
    end
  end)

  it("knows types, and takes others", function()
    serve { types = { txt = "text/x-mine", odd = "application/x-odd" } }
    for name, wanted in pairs {
      ["a.html"] = "text/html; charset=utf-8", ["a.JS"] = "text/javascript; charset=utf-8", ["a.png"] = "image/png",
      ["a.json"] = "application/json", ["a.svg"] = "image/svg+xml; charset=utf-8", a = "application/octet-stream",
      ["a.wasm"] = "application/wasm", ["a.txt"] = "text/x-mine", ["a.tar.odd"] = "application/x-odd",
    } do
      put("x", "root/" .. name)
      local status, headers = get("/" .. name)
      assert.are.equal(200, status)
      assert.are.equal(wanted, headers["content-type"], name)
    end
  end)

  it("sends an index, and the way to a directory's own path", function()
    serve()
    assert.are.equal("index", select(3, get "/sub/"))
    local status, headers = get "/sub?a=b%20c"
    assert.are.equal(301, status)
    assert.are.equal("/sub/?a=b%20c", headers.location)
    assert.are.equal(404, (get "/"))
  end)

  it("has no index where none is wanted, or another one", function()
    put("start", "root/start.htm")
    serve { index = "start.htm" }
    assert.are.equal("start", select(3, get "/"))
    await(server:close())
    await(serving)
    serve { index = false }
    assert.are.equal(404, (get "/sub/"))
    assert.are.equal(404, (get "/sub"))
  end)

  it("decodes a path once", function()
    put("spaced", "root/a b.txt")
    put("percent", "root/%61.txt")
    serve()
    assert.are.equal("spaced", select(3, get "/a%20b.txt"))
    assert.are.equal("percent", select(3, get "/%2561.txt"))
    assert.are.equal(404, (get "/%61.txt"))
    assert.are.equal("index", select(3, get "/sub%2findex.html"))
  end)

  it("never leaves the directory", function()
    await(fs.symlink("../secret.txt", path "root/link.txt"))
    await(fs.symlink("..", path "root/up"))
    await(fs.symlink(path "secret.txt", path "root/absolute.txt"))
    await(fs.symlink("digits.txt", path "root/inside.txt"))
    put("hidden", "root/.hidden")
    serve()
    for _, target in ipairs {
      "/../secret.txt", "/%2e%2e/secret.txt", "/sub/../../secret.txt", "/sub/%2e%2e%2f..%2fsecret.txt",
      "/..%5csecret.txt",
      "/sub\\..\\..\\secret.txt", "/link.txt", "/up/secret.txt", "/absolute.txt", "//etc/passwd", "/sub//index.html",
      "/digits.txt%00.html", "/./digits.txt", "/...", "/.hidden", "/sub/..", "/digits.txt/", "/digits.txt/x",
      "/" .. ("x"):rep(300), "//sub", "/%2fsub", "/%5csub",
    } do
      local status, headers, body = get(target)
      assert.is_true(status == 404 or status == 400, target .. ": " .. status)
      assert.is_nil(body:find("secret", 1, true), target)
      assert.is_nil(headers.location)
    end
    assert.are.equal("0123456789", select(3, get "/inside.txt"))
  end)

  it("shows dot files where that is wanted, '..' never", function()
    put("hidden", "root/.hidden")
    serve { dotfiles = true }
    assert.are.equal("hidden", select(3, get "/.hidden"))
    assert.are.equal(404, (get "/../secret.txt"))
  end)

  it("answers nothing but GET and HEAD", function()
    serve()
    local status, headers = get("/digits.txt", { ["Content-Length"] = "0" }, "POST")
    assert.are.equal(405, status)
    assert.are.equal("GET, HEAD", headers.allow)
  end)

  it("answers what cannot be opened, and what is no file", function()
    assert.are.equal(0, select(2, child.shell("mkfifo " .. child.quote(path "root/fifo"))))
    serve()
    assert.are.equal(404, (get "/fifo"))
    assert.are.equal(404, (get "/none"))
  end)

  it("asks a fallback where there is no file", function()
    serve { fallback = function(req) return 200, nil, "for " .. req.path end }
    assert.are.equal("for /app/page", select(3, get "/app/page"))
  end)

  it("keeps the conditions of RFC 9110", function()
    serve()
    await(fs.utime(path "root/digits.txt", 784111777, 784111777))
    local _, headers = get "/digits.txt"
    local tag = headers.etag
    local function status(name, value)
      return (get("/digits.txt", { [name] = value }))
    end
    assert.are.equal(304, status("If-None-Match", tag))
    assert.are.equal(304, status("If-None-Match", '"x", W/' .. tag))
    assert.are.equal(304, status("If-None-Match", "*"))
    assert.are.equal(200, status("If-None-Match", '"x"'))
    assert.are.equal(304, status("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"))
    assert.are.equal(304, status("If-Modified-Since", "Sunday, 06-Nov-94 08:49:38 GMT"))
    assert.are.equal(200, status("If-Modified-Since", "Sun Nov  6 08:49:36 1994"))
    assert.are.equal(200, status("If-Modified-Since", "yesterday"))
    assert.are.equal(200, status("If-Match", tag))
    assert.are.equal(412, status("If-Match", "W/" .. tag))
    assert.are.equal(412, status("If-Match", '"x"'))
    assert.are.equal(412, status("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:36 GMT"))
    assert.are.equal(200, status("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"))
    -- If-None-Match goes before If-Modified-Since
    assert.are.equal(200, (get("/digits.txt", { ["If-None-Match"] = '"x"', ["If-Modified-Since"] = date.format(9e8) })))
    local code, short, body = get("/digits.txt", { ["If-None-Match"] = tag })
    assert.are.equal(304, code)
    assert.are.equal("", body)
    assert.are.equal(tag, short.etag)
    assert.is_nil(short["content-type"])
  end)

  it("gives a changed file another tag", function()
    serve()
    local _, first = get "/digits.txt"
    put("9876543210", "root/digits.txt")
    await(fs.utime(path "root/digits.txt", 1e9, 1e9 + 0.5))
    local _, second = get("/digits.txt", { ["If-None-Match"] = first.etag })
    assert.are_not.equal(first.etag, second.etag)
  end)

  it("sends one range", function()
    serve()
    for range, wanted in pairs {
      ["bytes=0-0"] = "0", ["bytes=2-4"] = "234", ["bytes=7-"] = "789", ["bytes=-3"] = "789",
      ["bytes=-100"] = "0123456789",
      ["bytes=5-100"] = "56789", ["Bytes = 1-2"] = "12", ["bytes=, 3-3 ,"] = "3", ["bytes=50-60,1-1"] = "1",
    } do
      local status, headers, body = get("/digits.txt", { Range = range })
      assert.are.equal(206, status, range)
      assert.are.equal(wanted, body, range)
      assert.are.equal(tostring(#wanted), headers["content-length"])
      local first = ("0123456789"):find(wanted, 1, true) - 1
      assert.are.equal(("bytes %d-%d/10"):format(first, first + #wanted - 1), headers["content-range"])
    end
  end)

  it("sends everything for a range that it does not understand, or of another file", function()
    serve()
    local _, headers = get "/digits.txt"
    for _, range in ipairs { "bytes=", "bytes=a-b", "bytes=5-2", "lines=1-2", "bytes=-", "bytes=1-2,x", "bytes 1-2",
      "bytes=" .. ("0-0,"):rep(17), "bytes=0-9,0-9" } do
      assert.are.equal(200, (get("/digits.txt", { Range = range })), range)
    end
    assert.are.equal(200, (get("/digits.txt", { Range = "bytes=0-0", ["If-Range"] = '"x"' })))
    assert.are.equal(200, (get("/digits.txt", { Range = "bytes=0-0", ["If-Range"] = "W/" .. headers.etag })))
    assert.are.equal(200, (get("/digits.txt", { Range = "bytes=0-0", ["If-Range"] = date.format(1) })))
    assert.are.equal(206, (get("/digits.txt", { Range = "bytes=0-0", ["If-Range"] = headers.etag })))
    assert.are.equal(206, (get("/digits.txt", { Range = "bytes=0-0", ["If-Range"] = headers["last-modified"] })))
    assert.are.equal(200, (get("/digits.txt", { Range = "bytes=0-0" }, "HEAD")))
  end)

  it("refuses ranges that lie behind the end", function()
    put("", "root/empty.txt")
    serve()
    for target, range in pairs { ["/digits.txt"] = "bytes=10-", ["/empty.txt"] = "bytes=0-0" } do
      local status, headers = get(target, { Range = range })
      assert.are.equal(416, status)
      assert.are.equal(target == "/empty.txt" and "bytes */0" or "bytes */10", headers["content-range"])
    end
    assert.are.equal(416, (get("/digits.txt", { Range = "bytes=-0" })))
    assert.are.equal("", select(3, get "/empty.txt"))
  end)

  it("sends several ranges as parts", function()
    serve()
    local status, headers, body = get("/digits.txt", { Range = "bytes=0-1, -2, 4-4" })
    assert.are.equal(206, status)
    local boundary = headers["content-type"]:match "^multipart/byteranges; boundary=(.+)$"
    assert.is_string(boundary)
    assert.are.equal(tostring(#body), headers["content-length"])
    local parts = {}
    for range, data in body:gmatch("\r\n%-%-" .. boundary .. "\r\nContent%-Type: text/plain; charset=utf%-8\r\n"
      .. "Content%-Range: (bytes [%d%-/]+)\r\n\r\n([^\r]*)") do
      parts[#parts + 1] = range .. "=" .. data
    end
    assert.are.equal("bytes 0-1/10=01 bytes 8-9/10=89 bytes 4-4/10=4", table.concat(parts, " "))
    assert.are.equal("\r\n--" .. boundary .. "--\r\n", body:sub(-#boundary - 8))
  end)

  it("sends a large file piece by piece, and parts of it", function()
    local text = {}
    for i = 1, 200000 do
      text[i] = ("%07d\n"):format(i)
    end
    text = table.concat(text)
    put(text, "root/large.bin")
    serve()
    local _, headers, body = get "/large.bin"
    assert.are.equal(tostring(#text), headers["content-length"])
    assert.is_true(body == text)
    _, _, body = get("/large.bin", { Range = "bytes=1000-1400000" })
    assert.is_true(body == text:sub(1001, 1400001))
  end)

  it("sends what was compressed beforehand to who takes it", function()
    put(("plain "):rep(10), "root/page.html")
    put("brotli", "root/page.html.br")
    put("gzip", "root/page.html.gz")
    put("image", "root/image.png")
    put("not this", "root/image.png.gz")
    serve { precompressed = true }
    for accept, wanted in pairs {
      ["gzip, deflate, br"] = "br", ["gzip"] = "gzip", ["br;q=0.5, gzip;q=0.8"] = "gzip", ["*"] = "br",
      ["br;q=0, *;q=0.1"] = "gzip", ["x-gzip"] = "gzip",
    } do
      local _, headers, body = get("/page.html", { ["Accept-Encoding"] = accept })
      assert.are.equal(wanted, headers["content-encoding"], accept)
      assert.are.equal(wanted == "br" and "brotli" or "gzip", body)
      assert.are.equal("Accept-Encoding", headers.vary)
      assert.are.equal("text/html; charset=utf-8", headers["content-type"])
      assert.matches(wanted .. '"$', headers.etag)
    end
    local _, headers = get("/page.html", { ["Accept-Encoding"] = "identity" })
    assert.is_nil(headers["content-encoding"])
    assert.are.equal("Accept-Encoding", headers.vary)
    _, headers = get "/page.html"
    assert.is_nil(headers["content-encoding"])
    _, headers = get("/image.png", { ["Accept-Encoding"] = "gzip" })
    assert.is_nil(headers["content-encoding"])
    assert.is_nil(headers.vary)
  end)

  it("does not send a compressed file that is older than the plain one", function()
    put("new", "root/page.html")
    put("old", "root/page.html.gz")
    await(fs.utime(path "root/page.html.gz", 1e9, 1e9))
    serve { precompressed = true }
    assert.are.equal("new", select(3, get("/page.html", { ["Accept-Encoding"] = "gzip" })))
  end)

  it("says how long to keep files", function()
    serve { cache_control = function(name) return name:find "txt$" and "max-age=60" or nil end }
    assert.are.equal("max-age=60", select(2, get "/digits.txt")["cache-control"])
    assert.is_nil(select(2, get "/sub/")["cache-control"])
  end)

  it("can be mounted below a path", function()
    serve(nil, function(handler) return http.router():mount("/static", handler) end)
    assert.are.equal("0123456789", select(3, get "/static/digits.txt"))
    assert.are.equal("index", select(3, get "/static/sub/"))
    assert.are.equal("/static/sub/", select(2, get "/static/sub").location)
    assert.are.equal(404, (get "/digits.txt"))
    assert.are.equal(404, (get "/static/../secret.txt"))
  end)

  it("S19: serves from the threads of a server", function()
    local net = require "asynctask.net"
    put(("x"):rep(300000), "root/large.bin")
    server = await(net.listen("127.0.0.1", 0, { reuseport = true }))
    port = server:sockname().port
    local routes = http.router():mount("/static", http.files(path "root", { types = { txt = "text/x-mine" } }))
    serving = http.serve(server, routes, { threads = 2 })
    for _ = 1, 8 do
      local _, headers, body = get("/static/digits.txt", { Range = "bytes=2-3" })
      assert.are.equal("23", body)
      assert.are.equal("text/x-mine", headers["content-type"])
      assert.are.equal(300000, #select(3, get "/static/large.bin"))
    end
  end)

  it("talks to curl, which goes on with a download that was broken off", function()
    if select(2, child.shell "curl --version") ~= 0 then
      pending "curl is not installed"
    end
    put(("0123456789"):rep(50000), "root/long.bin")
    put(("0123456789"):rep(100), "part")
    serve()
    local _, errors, code = await(process.run("curl", { "-sS", "-C", "-", "-o", path "part",
      ("http://127.0.0.1:%d/long.bin"):format(port) }))
    assert.are.equal(0, code, errors)
    assert.is_true(await(fs.read_file(path "part")) == ("0123456789"):rep(50000))
  end)

  it("closes the file when the client goes away in the middle", function()
    put(("x"):rep(4 * 1024 * 1024), "root/large.bin")
    serve()
    local before_count = #await(fs.glob "/proc/self/fd/*")
    do
      local stream <close> = await(require "asynctask.net".connect("127.0.0.1", port))
      await(stream:write("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n"))
      await(stream:read(1000))
    end
    for _ = 1, 500 do
      if #await(fs.glob "/proc/self/fd/*") <= before_count then
        return
      end
      await(task.delay(0.01))
    end
    error "a descriptor is left open"
  end)

  it("S22: checks its arguments", function()
    assert.has_error(function() http.files() end,
      "bad argument #1 to 'files' (path of a directory expected, got nil)")
    assert.has_error(function() http.files(".", { indx = "x" }) end,
      "bad argument #2 to 'files' (unknown option 'indx')")
    assert.has_error(function() http.files(".", { index = "a/b" }) end,
      "bad argument #2 to 'files' (option 'index': name or false expected, got 'a/b')")
  end)
end)
