-- Jobs on a thread of their own.

local child = require "spec.support.child"
local core = require "asynctask.core"
local task = require "asynctask"

local await, thread, run = task.await, core.par.thread, core.par.run
local interrupts = child.sanitizer() == "tsan" and pending or it -- ThreadSanitizer delays signals

describe("thread", function()
  it("runs a function and gives its results or its error", function()
    assert.equal(3, await(thread(function(a, b) return a + b end, 1, 2)))
    assert.equal("abab", await(thread("string.rep", "ab", 2)))
    local ok, err = task.pcall(await, thread(function() error("lost", 0) end))
    assert.is_false(ok)
    assert.equal("lost", err)
    assert.is_false((pcall(thread, 1)))
  end)

  interrupts("does not take a thread of the pool, and is not held up by a full one", function()
    local busy = {}
    for i = 1, 20 do busy[i] = run(function() while true do end end) end
    assert.equal("free", task.with_timeout(10, function() return await(thread(function() return "free" end)) end))
    for i = 1, 20 do busy[i]:cancel() end
  end)

  it("awaits, and its jobs go to the pool", function()
    assert.equal("pool", await(thread(function()
      local t = require "asynctask"
      local par = require "asynctask.core".par
      t.await(t.delay(0.002))
      return t.await(par.run(function() return "pool" end))
    end)))
    assert.equal("thread", await(run(function()
      local t = require "asynctask"
      local par = require "asynctask.core".par
      return t.await(par.thread(function() return "thread" end))
    end)))
  end)

  it("many one after another and many at once leave nothing behind", function()
    for i = 1, 20 do assert.equal(i, await(thread(function(n) return n end, i))) end
    local list = {}
    for i = 1, 20 do list[i] = thread(function(n) return n end, i) end
    local got = await(task.when_all(list))
    for i = 1, 20 do assert.equal(i, got[i]) end
  end)

  it("S8: belongs to nobody", function()
    local t
    local owner = task.spawn(function()
      t = thread(function()
        local a = require "asynctask"
        a.await(a.delay(0.01))
        return "done"
      end)
      await(task.delay(100))
    end)
    owner:cancel()
    task.pcall(await, owner)
    assert.equal("pending", t:status())
    assert.equal("done", await(t))
  end)

  interrupts("S20: is interrupted when cancelled", function()
    for i = 1, 5 do
      local t = thread(function() while true do pcall(error) end end)
      await(task.delay(0.001 * i))
      assert.is_true(t:cancel())
      assert.is_true(task.is_cancelled(select(2, task.pcall(await, t))))
    end
  end)

  interrupts("S18: the state closes with such threads running", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local par = require "asynctask.core".par
      par.thread(function() while true do pcall(error) end end)
      par.run(function()
        local inner = require "asynctask.core".par
        inner.thread(function() while true do end end)
        while true do end
      end)
      par.thread(function() return 1 end)
      task.await(task.delay(0.02))]], { timeout = 10 })
    assert.equal(0, code, output)
  end)
end)
