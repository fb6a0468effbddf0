-- What a hostile or unusual server could do to the HTTP client.

local task = require "asynctask"
local fs = require "asynctask.fs"
local http = require "asynctask.http"
local raw = require "spec.support.rawhttp"

local await, try = task.await, task.try

describe("asynctask.http's client", function()
  it("downloads what comes without a length", function()
    local directory = await(fs.mkdtemp(os.getenv "TMPDIR" or "/tmp"))
    raw.with(function()
      local pieces = { "one ", "two" }
      return 200, nil, function() return table.remove(pieces, 1) end
    end, nil, function(port)
      local path = directory .. "/file"
      assert.equal(7, await(http.download(("http://127.0.0.1:%d/"):format(port), path)))
      assert.equal("one two", await(fs.read_file(path)))
    end)
    await(fs.remove(directory, { recursive = true }))
    await(http.close())
  end)

  it("takes a Retry-After that is no date for none", function()
    raw.with(function(req)
      return 503, { ["Retry-After"] = req.query.after }, "busy"
    end, nil, function(port)
      for _, after in ipairs { "Sun, 99 Nov 99999999999999 99:99:99 GMT", "Sun, 06 Nov 9999999999 08:49:37 GMT",
        "Sun, 99999999999 Nov 1994 08:49:37 GMT", "Sun, 06 Xyz 1994 08:49:37 GMT" } do
        local reply, err = try(http.get(("http://127.0.0.1:%d/"):format(port), {
          query = { after = after }, retries = 1, retry_delay = 0.01,
        }))
        assert(reply, tostring(err))
        assert.equal(503, reply.status)
        reply:close()
      end
    end)
    await(http.close())
  end)

  it("does not take a Host of the program's to another origin", function()
    raw.with(function(req)
      return req.headers.host
    end, nil, function(other)
      raw.with(function(req)
        if req.path == "/here" then
          return req.headers.host
        end
        return 302, { Location = req.query.to }
      end, nil, function(port)
        local url = ("http://127.0.0.1:%d/"):format(port)
        local function host_after(to)
          return await(http.get_string(url, { query = { to = to }, headers = { Host = "inner.example" } }))
        end
        assert.equal("inner.example", host_after "/here")
        assert.equal("127.0.0.1:" .. other, host_after(("http://127.0.0.1:%d/"):format(other)))
      end)
    end)
    await(http.close())
  end)

  it("sends no byte behind the length of a body: a server would take it for the next request", function()
    local seen = {}
    raw.with(function(req)
      seen[#seen + 1] = req.target
      return 200, nil, await(req:text())
    end, { on_error = function() end }, function(port)
      local url = ("http://127.0.0.1:%d/"):format(port)
      local function post(length, ...)
        local pieces = { ... }
        local reply, err = try(http.post(url, {
          body = function() return table.remove(pieces, 1) end, length = length, timeout = 5,
        }))
        if reply then
          return await(reply:text())
        end
        return err.code
      end
      assert.equal("abc", post(3, "ab", "c"))
      assert.equal("EMSGSIZE", post(2, "ab", "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"))
      assert.equal("EMSGSIZE", post(2, "abGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"))
      assert.equal("EMSGSIZE", post(0, "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"))
      assert.equal("EMSGSIZE", post(5, "ab"))
      assert.equal("abc", post(nil, "ab", "c"))
    end)
    for _, target in ipairs(seen) do
      assert.equal("/", target)
    end
    await(http.close())
  end)

  it("escapes what would end a line or a quote in the names of a multipart form", function()
    raw.with(function(req) return 200, nil, await(req:text()) end, nil, function(port)
      local reply = await(http.post(("http://127.0.0.1:%d/"):format(port), {
        multipart = { { name = 'a"\r\nX-One: 1', filename = 'b"\r\nX-Two: 2', data = "data" } },
      }))
      local text = await(reply:text())
      assert.is_nil(text:find("\nX-", 1, true))
      assert.matches('name="a%22%0D%0AX-One: 1"; filename="b%22%0D%0AX-Two: 2"\r\n', text, 1, true)
    end)
    await(http.close())
  end)
end)
