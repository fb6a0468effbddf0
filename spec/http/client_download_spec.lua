-- http.download: a URL into a file, whole or not at all.

local http = require "asynctask.http"
local task = require "asynctask"

if not pcall(require, "asynctask.curl") then
  describe("http.download", function()
    pending("needs libcurl")
  end)
  return
end

local badweb = require "spec.support.badweb"
local fs = require "asynctask.fs"
local sandbox = require "spec.support.sandbox"

local await, code_of = task.await, sandbox.code_of
local answer = badweb.answer

describe("http.download", function()
  local path, put, get, before, after = sandbox.new()

  before_each(before)
  after_each(function()
    await(http.close())
    after()
  end)

  local function names()
    local list = {}
    for name in fs.dir(path ".") do list[#list + 1] = name end
    table.sort(list)
    return table.concat(list, " ")
  end

  local body = {}
  for i = 1, 50000 do body[i] = ("%07d "):format(i) end
  body = table.concat(body)

  it("writes the file, gives its size, and tells its progress", function()
    badweb.each(function(r)
      assert.are.equal("identity", r.headers["accept-encoding"])
      return answer(200, body)
    end, function(url)
      local last, total, calls = 0, nil, 0
      local size = await(http.download(url, path "f", { progress = function(n, all)
        assert.is_true(n > last)
        last, total, calls = n, all, calls + 1
      end }))
      assert.are.equal(#body, size)
      assert.are.equal(body, get "f")
      assert.are.equal(#body, last)
      assert.are.equal(#body, total)
      assert.is_true(calls > 1)
      assert.are.equal("f", names())
    end)
  end)

  it("leaves the old file as it is until the new one is complete, and when it fails", function()
    put("old", "f")
    badweb.with(function(stream)
      badweb.request(stream)
      await(stream:write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"))
      await(task.delay(0.02))
      assert(get "f" == "old")
    end, function(url)
      assert.are.equal("EOF", code_of(http.download(url, path "f")))
      assert.are.equal("old", get "f")
      assert.are.equal("f", names())
    end)
  end)

  it("S22: faults: a status, no directory, too much", function()
    badweb.each(function(r) return r.target == "/no" and answer(404, "no") or answer(200, body) end, function(url)
      local code, err = code_of(http.download(url .. "no", path "f"))
      assert.are.equal("EHTTP", code)
      assert.are.equal(404, err.status)
      assert.are.equal("ENOENT", code_of(http.download(url, path "none/f")))
      assert.are.equal("EMSGSIZE", code_of(http.download(url, path "f", { max_body = 1000 })))
      assert.are.equal("", names())
      assert.has_error(function() http.download(url) end)
      assert.has_error(function() http.download(url, path "f", { progress = 1 }) end)
      assert.has_error(function() http.download(url, path "f", { bogus = 1 }) end)
    end)
  end)

  it("S10: cancelled, it leaves nothing", function()
    badweb.with(function(stream)
      badweb.request(stream)
      await(stream:write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"))
      stream:read_some():try()
    end, function(url)
      local seen = task.source()
      local t = http.download(url, path "f", { progress = function() seen:set_result() end })
      await(seen.task)
      t:cancel()
      assert.are.equal("ECANCELED", code_of(t))
      assert.are.equal("", names())
    end)
  end)

  --- A server that breaks off after `cut` bytes the first time and knows ranges; `tags` has the ETag of each request.
  local function resumable(cut, tags, f)
    local log = {}
    badweb.with(function(stream)
      local r = badweb.request(stream)
      if not r then return end
      log[#log + 1] = (r.headers.range or "all") .. " " .. (r.headers["if-range"] or "-")
      local tag = tags[#log] or tags[#tags]
      local from = tonumber((r.headers.range or ""):match("bytes=(%d+)%-"))
      if from and r.headers["if-range"] ~= tag then from = nil end
      if from and from >= #body then
        return await(stream:write("HTTP/1.1 416 No\r\nContent-Range: bytes */", #body, "\r\nContent-Length: 0\r\n\r\n"))
      end
      local part = body:sub((from or 0) + 1)
      local head = from and ("HTTP/1.1 206 Partial\r\nContent-Range: bytes %d-%d/%d\r\n"):format(from, #body - 1, #body)
        or "HTTP/1.1 200 OK\r\n"
      await(stream:write(head, ("ETag: %s\r\nContent-Length: %d\r\n\r\n"):format(tag, #part)))
      await(stream:write(#log == 1 and part:sub(1, cut) or part))
    end, function(url) return f(url, log) end)
  end

  it("resume: goes on where the last one broke off, if it is still the same", function()
    resumable(100000, { '"v1"' }, function(url, log)
      assert.are.equal("EOF", code_of(http.download(url, path "f", { resume = true })))
      assert.are.equal("f.part f.part-of", names())
      local first
      assert.are.equal(#body, await(http.download(url, path "f", { resume = true, progress = function(n, total)
        first = first or n
        assert.are.equal(#body, total)
      end })))
      assert.is_true(first > 100000)
      assert.are.equal(body, get "f")
      assert.are.equal("f", names())
      assert.are.same({ "all -", 'bytes=100000- "v1"' }, log)
    end)
  end)

  it("resume: begins anew when the resource has changed, or has no version that can be told", function()
    resumable(100000, { '"v1"', '"v2"' }, function(url, log)
      assert.are.equal("EOF", code_of(http.download(url, path "f", { resume = true })))
      assert.are.equal(#body, await(http.download(url, path "f", { resume = true })))
      assert.are.equal(body, get "f")
      assert.are.equal('bytes=100000- "v1"', log[2])
      assert.are.equal("f", names())
    end)
    await(fs.remove(path "f"))
    resumable(100000, { 'W/"weak"' }, function(url, log)
      assert.are.equal("EOF", code_of(http.download(url, path "f", { resume = true })))
      assert.are.equal(#body, await(http.download(url, path "f", { resume = true })))
      assert.are.equal("all -", log[2])
      assert.are.equal(body, get "f")
    end)
  end)

  it("resume: begins anew when the server cannot satisfy the range", function()
    put(("x"):rep(#body), "f.part")
    put('"v1"', "f.part-of")
    resumable(#body, { '"v1"' }, function(url, log)
      assert.are.equal(#body, await(http.download(url, path "f", { resume = true })))
      assert.are.equal(body, get "f")
      assert.are.same({ ("bytes=%d- \"v1\""):format(#body), "all -" }, log)
    end)
  end)
end)
