-- The C API: descriptors and bytes of C code as streams. A C module of somebody else's
-- (spec/c/apimodule.c) hands them over.

local task = require "asynctask"
local api = require("spec.support.cc").load "apimodule"
local await = task.await

local ENOTSUP, EPERM, EBADF = -95, -1, -9

describe("a descriptor", function()
  it("becomes a Stream that reads and writes", function()
    local a, b = api.pair()
    local one, status = api.stream_fd(a)
    assert.equal(0, status)
    local two <close> = api.stream_fd(b)
    await(one:write "hello\nworld")
    assert.equal("hello", await(two:read "l"))
    await(two:write "back\n")
    assert.equal("back", await(one:read "l"))
    await(one:close())
    assert.equal("world", await(two:read "a"))
    assert.equal(a, a)
    assert.is_false(api.close(a)) -- the Stream had it
  end)

  it("of a pipe is one, too", function()
    local f = assert(io.popen("exec cat /proc/self/fd/0 </dev/null; echo from a pipe"))
    f:close()
    local a, b = api.pair()
    local s <close> = api.stream_fd(a)
    api.close(b)
    assert.is_nil(await(s:read "l"))
  end)

  it("that cannot be polled, or is none, stays the caller's", function()
    local datagram, listening = api.socket "datagram", api.socket "listening"
    for _, fd in ipairs { datagram, listening } do
      local s, status = api.stream_fd(fd)
      assert.is_nil(s)
      assert.equal(ENOTSUP, status)
      assert.is_true(api.close(fd))
    end
    local s, status = api.stream_fd(datagram)
    assert.is_nil(s)
    assert.equal(EBADF, status)
    local file = assert(io.open("/dev/null"))
    local fd
    for i = 3, 200 do -- the file's own
      local target = io.popen(("readlink /proc/$PPID/fd/%d 2>/dev/null"):format(i))
      if target:read "l" == "/dev/null" then fd = i end
      target:close()
      if fd then break end
    end
    if fd then
      s, status = api.stream_fd(fd)
      assert.is_nil(s)
      assert.equal(EPERM, status)
    end
    file:close()
  end)
end)

describe("a feed", function()
  it("is a readable stream of the bytes that C pushes", function()
    api.counts(true)
    local s, f = api.feed()
    assert.equal(1, f:push "one\ntw")
    assert.equal("one", await(s:read "l"))
    f:push "o\nrest"
    f:finish()
    assert.equal("two", await(s:read "l"))
    assert.equal("rest", await(s:read "a"))
    assert.is_nil(await(s:read "l"))
    f:release()
    await(s:close())
    assert.same({ 1, 0 }, { api.counts().released, api.counts().alive })
  end)

  it("wakes a reader that waits", function()
    local s, f = api.feed()
    local reader = task.spawn(function() return await(s:read "l"), await(s:read(3)) end)
    await(task.yield())
    f:push "line\nab"
    f:push "c"
    assert.same({ "line", "abc" }, { await(reader) })
    f:release()
    await(s:close())
  end)

  it("says hold above its mark, and asks for more when that was read", function()
    api.counts(true)
    local s, f = api.feed(10)
    assert.equal(1, f:push "12345")
    assert.equal(0, f:push(("x"):rep(20)))
    assert.equal(0, api.counts().wanted)
    await(s:read(25))
    assert.is_true(api.counts().wanted >= 1)
    assert.equal(1, f:push "more")
    f:finish()
    f:release()
    assert.equal("more", await(s:read "a"))
    await(s:close())
  end)

  it("S22: faults its reads with the error of the end", function()
    local s, f = api.feed()
    f:push "abc"
    f:fail("ECONNRESET", "read", "torn")
    f:release()
    assert.equal("abc", await(s:read(3)))
    local _, e = task.try(s:read(1))
    assert.equal("read: torn (ECONNRESET)", tostring(e))
    await(s:close())
    s, f = api.feed()
    f:fail("ECONNRESET")
    f:release()
    _, e = task.try(s:read(1))
    assert.same({ "ECONNRESET", "connection reset by peer" }, { e.code, e.message })
    await(s:close())
  end)

  it("takes nothing more once its reader has closed, and its data is let go", function()
    api.counts(true)
    local s, f = api.feed()
    await(s:close())
    assert.equal(1, api.counts().released)
    assert.equal(-32, f:push "x")
    f:release()
    assert.same({ 1, 0 }, { api.counts().released, api.counts().alive })
  end)

  it("S14: that is released without an end faults its reads", function()
    local s, f = api.feed()
    f:push "ab"
    f:release()
    local _, e = task.try(s:read "a")
    assert.equal("EABANDONED", e.code)
    await(s:close())
  end)
end)
