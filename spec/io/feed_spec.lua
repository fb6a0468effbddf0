-- Feeds: readable streams whose bytes come from Lua (csrc/io/feed.c). Reading as such is in
-- spec/conformance/feed_spec.lua.

local task = require "asynctask"
local core = require "asynctask.core"
local child = require "spec.support.child"
require "asynctask.net.stream"

local await, try = task.await, task.try

local function feed(mark)
  return core.net.feed(mark and { mark = mark } or nil)
end

describe("a feed", function()
  it("gives what was pushed, then nil", function()
    local f <close> = feed()
    await(f:push("one\ntw", "o\n", 3))
    f:finish()
    assert.are.same({ "one", "two", 3 }, { await(f:read("l", "l", "n")) })
    assert.is_nil(await(f:read_some()))
    assert.are.equal("", await(f:read("a")))
  end)

  it("gives what was pushed, then the error it ended with, again and again", function()
    local f <close> = feed()
    await(f:push("rest"))
    local mine = {}
    f:finish(mine)
    f:finish() -- the first end counts
    assert.are.equal("rest", await(f:read_some()))
    for _ = 1, 2 do
      local ok, err = task.pcall(await, f:read("l"))
      assert.is_false(ok)
      assert.is_true(err == mine)
    end
  end)

  it("fails the read that waits when it ends with an error", function()
    local f <close> = feed()
    local t = f:read(10)
    await(f:push("12345"))
    f:finish(task.error { code = "EPROTO", message = "garbage", op = "decode" })
    local data, err = try(t)
    assert.is_nil(data)
    assert.are.equal("EPROTO", err.code)
    assert.are.equal("12345", await(f:read(5)))
  end)

  it("holds a producer up at the mark, until less than that is left", function()
    local f <close> = feed(10)
    assert.is_true(f:push("123456789"):done())
    local t = f:push("0")
    assert.are.equal("pending", t:status())
    local u = f:push("abc")
    assert.are.equal("1", await(f:read(1)))
    await(t)
    assert.are.equal("pending", u:status())
    assert.are.equal("234", await(f:read(3)))
    await(u)
    assert.are.equal("567890abc", await(f:read(9)))
  end)

  it("lets a producer go on while a reader wants more than the mark", function()
    local f <close> = feed(10)
    local t = f:read(100)
    for _ = 1, 9 do
      assert.is_true(f:push(("x"):rep(10)):done())
    end
    await(f:push(("y"):rep(10)))
    assert.are.equal(("x"):rep(90) .. ("y"):rep(10), await(t))
  end)

  it("lets a producer that was held up go on when a reader comes who wants more", function()
    local f <close> = feed(10)
    local pushed = f:push(("x"):rep(20))
    assert.are.equal("pending", pushed:status())
    local t = f:read(30)
    await(pushed)
    await(f:push(("y"):rep(10)))
    assert.are.equal(("x"):rep(20) .. ("y"):rep(10), await(t))
  end)

  it("says whether a reader wants more than was pushed", function()
    local f <close> = feed()
    assert.is_false(f:wanted())
    local t = f:read(4)
    assert.is_true(f:wanted())
    await(f:push("12"))
    assert.is_true(f:wanted())
    await(f:push("34"))
    assert.is_false(f:wanted())
    assert.are.equal("1234", await(t))
    t = f:read(4)
    t:cancel()
    assert.is_false(f:wanted())
    await(f:close())
    assert.is_false(f:wanted())
  end)

  it("S10: a cancelled push only stops waiting; its bytes are there", function()
    local f <close> = feed(4)
    local t = f:push("12345678")
    t:cancel()
    local u = f:push("9")
    assert.are.equal("123456", await(f:read(6)))
    await(u)
    assert.are.equal("789", await(f:read(3)))
  end)

  it("S10: begins no push in a cancelled scope", function()
    local f <close> = feed()
    local t = task.spawn(function()
      task.pcall(await, task.delay(60))
      f:push("never")
    end)
    t:cancel()
    try(t)
    f:finish()
    assert.are.equal("", await(f:read("a")))
  end)

  it("S22: tells a producer with EPIPE that nobody reads, also the one that waits", function()
    local f = feed(4)
    local t = f:push("12345678")
    assert.is_false(f:closed())
    await(f:close())
    assert.is_true(f:closed())
    for _, waiting in ipairs { t, f:push("x") } do
      local ok, err = task.pcall(await, waiting)
      assert.is_false(ok)
      assert.are.equal("EPIPE", err.code)
      assert.are.equal("push", err.op)
    end
    local _, err = try(f:read())
    assert.are.equal("EBADF", err.code)
    f:finish()
    await(f:close())
  end)

  it("refuses to be pushed to after its end", function()
    local f <close> = feed()
    f:finish()
    local ok, err = task.pcall(await, f:push("late"))
    assert.is_false(ok)
    assert.are.equal("EPIPE", err.code)
  end)

  it("checks its arguments", function()
    local f <close> = feed()
    assert.error_matches(function() f:push({}) end, "bad argument #1 to 'push'")
    assert.error_matches(function() f:read("x") end, "bad argument #1 to 'read'")
    assert.error_matches(function() core.net.feed { mark = 0 } end, "mark")
    assert.error_matches(function() core.net.feed { marks = 1 } end, "marks")
    assert.error_matches(function() f.read(core.net.Feed) end, "bad argument")
    assert.error_matches(function() core.net.Stream.__index.read(f) end, "bad argument")
  end)

  it("prints itself", function()
    local f = feed()
    assert.matches("^asynctask%.Feed: ", tostring(f))
    await(f:close())
    assert.are.equal("asynctask.Feed (closed)", tostring(f))
  end)

  it("S16: a read that nobody can feed is a deadlock", function()
    local f <close> = feed()
    local t = f:read()
    local ok, err = pcall(await, t)
    assert.is_false(ok)
    assert.matches("deadlock", tostring(err))
    t:cancel()
  end)

  it("S18: may be left at any point when the state closes", function()
    local _, status = child.lua [[
      local task = require "asynctask"
      local core = require "asynctask.core"
      local f, g, h = core.net.feed { mark = 1 }, core.net.feed(), core.net.feed()
      f:push "more than the mark"
      g:read()
      g:push "no line"
      task.spawn(function() task.await(h:read(100)) end)
      h:push "x"
      h:finish {}
      os.exit(0, true)
    ]]
    assert.are.equal(0, status)
  end)
end)
