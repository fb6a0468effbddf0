-- What a hostile client, or a careless program, could do to the HTTP server and the WebSocket client.

local task = require "asynctask"
local http = require "asynctask.http"
local raw = require "spec.support.rawhttp"

local await = task.await

describe("http.serve: hostile requests", function()
  it("refuses targets that are no path, no URL, no authority of CONNECT and no star of OPTIONS", function()
    local router, seen = http.router(), {}
    for _, method in ipairs { "GET", "CONNECT", "OPTIONS" } do
      router:on(method, "/admin", function(req)
        seen[#seen + 1] = req.target
        return 200
      end)
    end
    raw.with(router, nil, function(port)
      for _, line in ipairs { "GET */admin", "GET *", "OPTIONS */admin", "OPTIONS *?x", "CONNECT x/admin",
        "CONNECT /admin", "CONNECT x?y", "GET http:///admin", "GET http://?x" } do
        local r = raw.send(port, raw.message(line))
        assert(r.status == 400, ("%s: %d"):format(line, r.status))
      end
      assert.same({}, seen)
      assert.equal(204, raw.send(port, raw.message("OPTIONS *")).status)
      assert.equal(404, raw.send(port, raw.message("CONNECT x:80")).status)
      assert.equal(200, raw.send(port, raw.message("GET http://x/admin")).status)
    end)
  end)

  local function form(content_type, body)
    local status
    raw.with(function(req)
      return 200, nil, tostring(await(req:form()).name)
    end, { on_error = error }, function(port)
      status = raw.send(port, raw.message("POST /", ("Content-Type: %s\r\nContent-Length: %d\r\n"):format(
        content_type, #body), body)).status
    end)
    return status
  end

  it("answers 415 where the type of a form is empty", function()
    assert.equal(415, form(";", "name=1"))
    assert.equal(415, form("", "name=1"))
  end)

  it("reads the head of a part in linear time", function()
    local begun = os.clock()
    local body = ("--b\r\n%s\r\nContent-Disposition: form-data; name=name\r\n\r\n1\r\n--b--"):format(("a"):rep(40000))
    assert.equal(200, form("multipart/form-data; boundary=b", body))
    body = ("--b\r\n%s\r\nContent-Disposition: form-data; name=name\r\n\r\n1\r\n--b--"):format(("a\rb"):rep(40000))
    assert.equal(200, form("multipart/form-data; boundary=b", body))
    assert.is_true(os.clock() - begun < 1)
  end)

  it("refuses a form of very many fields", function()
    assert.equal(200, form("application/x-www-form-urlencoded", ("a&"):rep(9999)))
    assert.equal(413, form("application/x-www-form-urlencoded", ("a&"):rep(10001)))
    local part = "--b\r\nContent-Disposition: form-data; name=n\r\n\r\n\r\n"
    assert.equal(413, form("multipart/form-data; boundary=b", part:rep(10001) .. "--b--"))
  end)

  it("does not answer with the status that another server gave the handler", function()
    raw.with(function() return 401, nil, "not you" end, nil, function(other)
      local reported
      raw.with(function()
        return await(http.get_string("http://127.0.0.1:" .. other .. "/"))
      end, { on_error = function(err) reported = err end }, function(port)
        assert.equal(500, raw.send(port, raw.message("GET /")).status)
      end)
      assert.equal(401, reported.status)
      raw.with(function()
        return await(http.websocket("ws://127.0.0.1:" .. other .. "/"))
      end, { on_error = function(err) reported = err end }, function(port)
        assert.equal(500, raw.send(port, raw.message("GET /")).status)
      end)
      assert.equal("websocket", reported.op)
    end)
    await(http.close())
  end)
end)

describe("http.serve: handlers that are wrong", function()
  it("say that there is none of the name, at the call or, on threads, to each request", function()
    for _, name in ipairs { "spec.support.nothing.f", "string.nothing" } do
      local done, err = pcall(http.serve, "127.0.0.1", 0, name)
      assert.is_false(done)
      assert.matches("bad argument #3 to 'serve' .-nothing", err)
    end
    raw.with("string.nothing", { threads = 1, on_error = function() end }, function(port)
      assert.equal(500, raw.send(port, raw.message("GET /")).status)
    end)
  end)

  it("are answered with 500, and reported, when the headers of their error cannot be sent", function()
    local reported = {}
    raw.with(function(req)
      error({ status = 404, headers = req.path == "/bad" and { X = "a\r\nb" } or nil }, 0)
    end, { on_error = function(err) reported[#reported + 1] = err end }, function(port)
      assert.equal(500, raw.send(port, raw.message("GET /bad")).status)
      assert.equal("error 404\n", raw.send(port, raw.message("GET /")).body)
    end)
    assert.equal(1, #reported)
    assert.matches("bad response header 'X'", reported[1])
  end)

  it("are told which status is none", function()
    local reported
    raw.with(function() return 999 end, { on_error = function(err) reported = err end }, function(port)
      assert.equal(500, raw.send(port, raw.message("GET /")).status)
    end)
    assert.matches("bad response status 999: one between 200 and 599 expected", reported)
  end)
end)

describe("http.websocket", function()
  it("takes no line end in an origin", function()
    local done, err = pcall(http.websocket, "ws://127.0.0.1:1/", { origin = "http://x\r\nX-Injected: 1" })
    assert.is_false(done)
    assert.matches("option 'origin'", err)
  end)
end)
