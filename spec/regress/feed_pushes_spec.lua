-- Pushes into a feed that waited together: those before a place that was read past never ended, as the bytes
-- left before their end were counted below zero. And the reader of a feed of C's could push into it and end it.

local task = require "asynctask"
local core = require "asynctask.core"
local await = task.await

describe("pushes into a feed", function()
  it("S4: end when their bytes are read, however many waited", function()
    local f = core.net.feed { mark = 1000 }
    local first, second = f:push(("a"):rep(2000)), f:push(("b"):rep(2000))
    assert.same({ "pending", "pending" }, { first:status(), second:status() })
    assert.equal(2900, #await(f:read(2900)))
    await(task.yield())
    assert.same({ "succeeded", "pending" }, { first:status(), second:status() })
    await(f:read(101))
    await(task.yield())
    assert.equal("succeeded", second:status())
    await(f:close())
  end)

  it("are its producer's alone: a reader of what comes from C has no part in it", function()
    local api = require("spec.support.cc").load "apimodule"
    local stream, feed = api.feed()
    for _, name in ipairs { "push", "finish" } do
      local ok, err = pcall(stream[name], stream, "mine")
      assert.is_false(ok)
      assert.matches("the bytes of this feed come from C", err, 1, true)
    end
    feed:push "theirs"
    feed:finish()
    assert.equal("theirs", await(stream:read "a"))
    feed:release()
  end)
end)
