-- The server over TLS.

local task = require "asynctask"
local process = require "asynctask.process"
local certificates = require "spec.support.certificates"
local raw = require "spec.support.rawhttp"

local tls = certificates.tls(describe, pending)
if not tls then
  return
end

local await, try = task.await, task.try
local path = certificates.make()
local message = raw.message
local certified = { cert = path "server.pem", key = path "server.key" }

describe("http.serve: TLS", function()
  local function connect(port)
    return await(tls.connect("localhost", port, { ca = path "ca.pem", alpn = { "http/1.1" } }))
  end

  local function handler(req)
    if req.path == "/wait" then await(task.delay(0.02)) end
    return 200, { ["x-secure"] = tostring(req.secure), ["x-peer"] = req.peer.host }, req.path .. await(req:text())
  end

  it("serves requests, bodies, and what is pipelined", function()
    raw.with(handler, { tls = certified }, function(port)
      local s = connect(port)
      await(s:write(message("POST /a", "Content-Length: 3\r\n", "abc"), message "GET /wait", message "GET /c"))
      local r = raw.response(s)
      assert.equal("/aabc", r.body)
      assert.equal("true", r.headers["x-secure"])
      assert.equal("127.0.0.1", r.headers["x-peer"])
      assert.equal("/wait", raw.response(s).body)
      assert.equal("/c", raw.response(s).body)
      await(s:close())
    end)
  end)

  it("serves on several threads, and curl", function()
    raw.with(function(req) return req.path end, { tls = certified, threads = 2 }, function(port)
      local output, errors = await(process.run("curl", { "-sS", "--cacert", path "ca.pem", "--max-time", "10",
        ("https://localhost:%d/one"):format(port), ("https://localhost:%d/two"):format(port) },
        { env = { PATH = os.getenv "PATH" } }))
      assert.equal("", errors)
      assert.equal("/one/two", output)
    end)
  end)

  it("is not disturbed by clients that do not speak TLS, and ends those that say nothing", function()
    local failures = {}
    local opts = { tls = certified, head_timeout = 0.2, on_error = function(err) failures[#failures + 1] = err end }
    raw.with(handler, opts, function(port)
      local plain <close> = raw.connect(port)
      await(plain:write(message "GET /"))
      local silent <close> = raw.connect(port)
      await(plain:read("a"):timeout(5))
      assert.is_nil((try(silent:read_some():timeout(5))))
      local s = connect(port)
      await(s:write(message "GET /fine"))
      assert.equal("/fine", raw.response(s).body)
      await(s:close())
    end)
    assert.equal(2, #failures)
  end)

  it("S8: cancels the handler when the client goes away", function()
    local ended = task.source()
    raw.with(function()
      local ok, err = pcall(await, task.delay(60))
      ended:set_result(ok, task.is_cancelled(err))
      error(err, 0)
    end, { tls = certified }, function(port)
      local s = connect(port)
      await(s:write(message "GET /"))
      await(task.delay(0.02))
      await(s:close())
      local ok, cancelled = await(ended.task:timeout(5))
      assert.is_false(ok)
      assert.is_true(cancelled)
    end)
  end)

  it("S22: wrong options raise at the call", function()
    local http = require "asynctask.http"
    assert.has_error(function() http.serve("127.0.0.1", 0, print, { tls = { nope = 1 } }) end)
    assert.has_error(function() http.serve("127.0.0.1", 0, print, { tls = {} }) end)
    local serving = http.serve("127.0.0.1", 0, print, { tls = { cert = "/nowhere", key = "/nowhere" } })
    assert.equal("ENOENT", select(2, try(serving)).code)
  end)
end)
