-- The HTTP client: redirects and retries.

local http = require "asynctask.http"
local task = require "asynctask"

if not pcall(require, "asynctask.curl") then
  describe("asynctask.http's redirects", function()
    pending("needs libcurl")
  end)
  return
end

local badweb = require "spec.support.badweb"
local nginx = require "spec.support.nginx"
local sandbox = require "spec.support.sandbox"

local await, code_of = task.await, sandbox.code_of
local answer = badweb.answer

local function to(status, location)
  return answer(status, "moved", "Location: " .. location .. "\r\n")
end

describe("redirects", function()
  after_each(function() await(http.close()) end)

  it("are followed, relative ones too, on the same connection; the response knows where it came from", function()
    local connections = 0
    badweb.with(function(stream)
      connections = connections + 1
      for r in function() return badweb.request(stream) end do
        local where = ({ ["/"] = "/a/b?x#part", ["/a/b?x"] = "../c", ["/c"] = "?d" })[r.target]
        await(stream:write(where and to(302, where) or answer(200, r.target)))
      end
    end, function(url)
      local reply = await(http.get(url))
      assert.are.equal("/c?d", await(reply:text()))
      assert.are.equal(url .. "c?d", reply.url)
      assert.are.equal(3, reply.redirects)
      assert.are.equal("/c?d", await(http.get_string(url)))
      assert.are.equal(1, connections)
    end)
  end)

  it("are not followed with redirect = false, nor without a Location", function()
    badweb.each(function(r) return r.target == "/" and to(301, "/x") or answer(302) end, function(url)
      local reply = await(http.get(url, { redirect = false }))
      assert.are.equal(301, reply.status)
      assert.are.equal("/x", reply.headers.location)
      assert.are.equal("moved", await(reply:text()))
      assert.are.equal(302, await(http.get(url .. "none")).status)
    end)
  end)

  it("S22: a loop ends with ELOOP after max_redirects", function()
    local n = 0
    badweb.each(function() n = n + 1 return to(302, "/") end, function(url)
      local code, err = code_of(http.get_string(url))
      assert.are.equal("ELOOP", code)
      assert.matches("more than 10 redirects", err.message)
      assert.are.equal(11, n)
      n = 0
      assert.are.equal("ELOOP", code_of(http.get(url, { max_redirects = 2 })))
      assert.are.equal(3, n)
      assert.are.equal("ELOOP", code_of(http.get(url, { max_redirects = 0 })))
    end)
  end)

  it("change the method as RFC 9110 says: 303 to GET, 301 and 302 of POST, 307 and 308 never", function()
    local log = {}
    badweb.each(function(r)
      log[#log + 1] = r.method .. " " .. r.body .. " " .. (r.headers["content-type"] or "-")
      local status = tonumber(r.target:match("%d+"))
      return status and to(status, "/end") or answer(200)
    end, function(url)
      local function go(method, status)
        log = {}
        local reply = await(http.request { method = method, url = url .. status, body = "b", headers = {
          ["Content-Type"] = "text/x" } })
        assert.are.equal(200, reply.status)
        return log[2]
      end
      assert.are.equal("GET  -", go("POST", 301))
      assert.are.equal("GET  -", go("POST", 302))
      assert.are.equal("GET  -", go("PUT", 303))
      assert.are.equal("PUT b text/x", go("PUT", 302))
      assert.are.equal("POST b text/x", go("POST", 307))
      assert.are.equal("POST b text/x", go("POST", 308))
      assert.are.equal(200, await(http.head(url .. "303")).status)
      assert.are.equal("HEAD  -", log[#log])
    end)
  end)

  it("send a streamed body again only if it can be made again", function()
    local log = {}
    badweb.each(function(r)
      log[#log + 1] = r.body
      return r.target == "/" and to(307, "/end") or answer(200)
    end, function(url)
      local code, err = code_of(http.post(url, { body = coroutine.wrap(function() coroutine.yield("once") end) }))
      assert.are.equal("ESPIPE", code)
      assert.matches("cannot be sent again", err.message)
      log = {}
      await(http.post(url, { multipart = { a = "1" } }))
      assert.are.equal(log[1], log[2])
    end)
  end)

  it("drop credentials when they lead to another host, port or scheme", function()
    local seen
    badweb.each(function(r) seen = r return answer(200) end, function(other)
      badweb.each(function(r)
        return r.target == "/away" and to(302, other .. "x") or r.target == "/near" and to(302, "/end")
          or answer(200, (r.headers.authorization or "none") .. (r.headers.cookie or ""))
      end, function(url)
        local secret = { headers = { Authorization = "Token t", Cookie = "c=1", ["X-Other"] = "stays" } }
        assert.are.equal("Token tc=1", await(http.get_string(url .. "near", secret)))
        await(http.get_string(url .. "away", secret))
        assert.is_nil(seen.headers.authorization)
        assert.is_nil(seen.headers.cookie)
        assert.are.equal("stays", seen.headers["x-other"])
        await(http.get_string(url .. "away", { auth = { "ann", "pass" } }))
        assert.is_nil(seen.headers.authorization)
        await(http.get_string((url:gsub("//", "//ann:pass@")) .. "away"))
        assert.is_nil(seen.headers.authorization)
        await(http.get_string(url .. "away", { bearer = "b" }))
        assert.is_nil(seen.headers.authorization)
        assert.are_not.equal("none", await(http.get_string(url .. "near", { auth = { "ann", "pass" } })))
      end)
    end)
  end)

  it("lead to http and https only", function()
    for location, code in pairs {
      ["file:///etc/passwd"] = "EPROTONOSUPPORT", ["ftp://x/"] = "EPROTONOSUPPORT", ["http://[bad"] = "EPROTO",
      ["gopher://x"] = "EPROTONOSUPPORT",
    } do
      badweb.each(function() return to(302, location) end, function(url)
        assert.are.equal(code, code_of(http.get_string(url)), location)
      end)
    end
  end)

  it("never lead from https to http", function()
    if not nginx.available() then pending("nginx or openssl is not installed") end
    local server = nginx.start {}
    finally(function() server:stop() end)
    local client <close> = http.client { ca = server.dir .. "/ca.pem" }
    local code, err = code_of(client:get_string(server:url("down", "tls")))
    assert.are.equal("EINSECURE", code)
    assert.are.equal(server:url("down", "tls"), err.url)
    assert.are.equal(302, await(client:get(server:url("down", "tls"), { redirect = false })).status)
  end)

  it("of nginx are followed", function()
    if not nginx.available() then pending("nginx or openssl is not installed") end
    local server = nginx.start { ["hello.txt"] = "hello\n" }
    finally(function() server:stop() end)
    local client <close> = http.client()
    assert.are.equal("hello\n", await(client:get_string(server:url "moved")))
    assert.are.equal("ELOOP", code_of(client:get_string(server:url "loop")))
  end)
end)

describe("retries", function()
  after_each(function() await(http.close()) end)

  --- Serves what `answers` has, one for each request; false closes the connection.
  local function serving(answers, f)
    local n = 0
    return badweb.with(function(stream)
      for _ in function() return badweb.request(stream) end do
        n = n + 1
        if not answers[n] then return end
        await(stream:write(answers[n]))
      end
    end, function(url) return f(url, function() return n end) end)
  end

  local quick = { retries = 3, retry_delay = 0.001 }

  it("are made for busy servers and broken connections, with a pause", function()
    serving({ answer(503), false, answer(429), answer(200, "at last") }, function(url, count)
      local reply = await(http.get(url, quick))
      assert.are.equal("at last", await(reply:text()))
      assert.are.equal(4, count())
      assert.are.equal(3, reply.attempts) -- the broken one was sent again by curl, on a new connection
    end)
  end)

  it("are none unless asked for, none for other statuses, and end", function()
    serving({ answer(503), answer(200) }, function(url, count)
      assert.are.equal(503, await(http.get(url)).status)
      assert.are.equal(1, count())
    end)
    serving({ answer(404), answer(200) }, function(url, count)
      assert.are.equal(404, await(http.get(url, quick)).status)
      assert.are.equal(1, count())
    end)
    serving({ answer(503), answer(503), answer(503), answer(502, "last") }, function(url, count)
      local code, err = code_of(http.get_string(url, quick))
      assert.are.equal("EHTTP", code)
      assert.are.equal(502, err.status)
      assert.are.equal(4, count())
    end)
    local _, err = code_of(http.get("http://127.0.0.1:1/", quick))
    assert.are.equal("ECONNREFUSED", err.code)
  end)

  it("are made of idempotent methods only, and of bodies that can be made again", function()
    for method, expected in pairs { POST = 1, PATCH = 1, PUT = 2, DELETE = 2, OPTIONS = 2 } do
      serving({ answer(503), answer(200) }, function(url, count)
        await(http.request { method = method, url = url, retries = 1, retry_delay = 0.001 })
        assert.are.equal(expected, count(), method)
      end)
    end
    serving({ answer(503), answer(200) }, function(url, count)
      local sent
      local reply = await(http.put(url, { retries = 1, retry_delay = 0.001, body = function()
        sent = not sent
        return sent and "x" or nil
      end }))
      assert.are.equal(503, reply.status)
      assert.are.equal(1, count())
    end)
  end)

  it("wait as long as Retry-After asks for, if that is not too long", function()
    serving({ answer(503, "", "Retry-After: 1\r\n"), answer(200) }, function(url)
      local core = require "asynctask.core"
      local began = core.now()
      assert.are.equal(200, await(http.get(url, quick)).status)
      assert.is_true(core.now() - began >= 1)
    end)
    serving({ answer(429, "", "Retry-After: 3600\r\n"), answer(200) }, function(url, count)
      assert.are.equal(429, await(http.get(url, quick)).status)
      assert.are.equal(1, count())
    end)
    serving({ answer(503, "", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n"), answer(200) }, function(url)
      assert.are.equal(200, await(http.get(url, quick)).status)
    end)
    serving({ answer(503, "", "Retry-After: 1\r\n"), answer(200) }, function(url)
      assert.are.equal(503, await(http.get(url, { retries = 1, timeout = 0.5 })).status) -- it would come too late
    end)
  end)
end)
