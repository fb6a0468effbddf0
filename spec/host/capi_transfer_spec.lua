-- The C API: userdata of somebody else's that travels between threads (spec/c/apimodule.c: a counter).

local task = require "asynctask"
local channel = require "asynctask.channel"
local parallel = require "asynctask.parallel"
local api = require("spec.support.cc").load "apimodule"
local child = require "spec.support.child"
local await = task.await

local function until_true(f)
  for _ = 1, 2000 do
    if f() then return true end
    collectgarbage()
    await(task.delay(0.001))
  end
  return false
end

--- Runs f; afterwards each counter that it made is gone, those of workers included.
local function leaves_none(f)
  local before = api.counts(true).counters
  f()
  assert.is_true(until_true(function()
    -- every worker collects, and forgets what loops have shared; what a message holds that could not be
    -- finished goes with the next one
    local each = {}
    for i = 1, 4 do
      each[i] = task.run(function()
        collectgarbage()
        local n = 0
        for _ = 1, 100000 do n = n + 1 end
      end)
    end
    await(task.when_all(each))
    await(parallel.range(1, 1, function() end)) -- the last loop's function is kept until the next one
    return api.counts().counters == before
  end), "counters are left")
  local c = api.counts()
  assert.equal(c.detached + c.shares, c.attached + c.dropped)
end

describe("transferable userdata", function()
  it("S19: goes to a job and back, and is the same there", function()
    leaves_none(function()
      local c = api.counter()
      c:add(5)
      local n, back = await(task.run(function(it) return it:add(2), it end, c))
      assert.equal(7, n)
      assert.equal(7, c:value())
      back:add(1)
      assert.equal(8, c:value())
      assert.are_not.equal(c, back)
    end)
  end)

  it("S19: goes in tables, as an upvalue, as a key", function()
    leaves_none(function()
      local c = api.counter()
      assert.equal(1, await(task.run(function(t) return t.deep[1].it:add(1) end, { deep = { { it = c } } })))
      assert.equal(2, await(task.run(function() return c:add(1) end)))
      assert.equal(3, await(task.run(function(t) return (next(t)):add(1) end, { [c] = true })))
    end)
  end)

  it("S19: that is twice in a message is one", function()
    leaves_none(function()
      local c = api.counter()
      assert.is_true(await(task.run(function(a, b, t) return rawequal(a, b) and rawequal(a, t[1]) end, c, c, { c })))
      assert.equal(1, api.counts().detached)
    end)
  end)

  it("goes through a shared channel", function()
    leaves_none(function()
      local ch = channel.shared(4)
      local c = api.counter()
      local job = task.run(function(mine)
        local sum = 0
        for it in mine:each() do sum = sum + it:add(1) end
        return sum
      end, ch)
      for _ = 1, 3 do await(ch:send(c)) end
      ch:close()
      assert.equal(6, await(job))
      assert.equal(3, c:value())
    end)
  end)

  it("that is never received is dropped", function()
    leaves_none(function()
      local ch = channel.shared(4)
      await(ch:send(api.counter()))
      ch = nil -- luacheck: ignore
      collectgarbage()
      assert.is_true(until_true(function() return api.counts().dropped == 1 end))
      -- with a job that never starts
      local busy = {}
      for i = 1, 20 do busy[i] = task.run(function(it) while true do it:add(1) end end, api.counter()) end
      for i = 20, 1, -1 do busy[i]:cancel() end
    end)
  end)

  it("goes on to a third thread from one that never saw its type", function()
    leaves_none(function()
      local c = api.counter()
      assert.equal(2, await(task.run(function(it)
        local inner = require "asynctask"
        it:add(1)
        return inner.await(inner.thread(function(again) return again:add(1) end, it))
      end, c)))
    end)
  end)

  it("S19: raises what detach raises, and what attach raises; then it is dropped", function()
    leaves_none(function()
      local c = api.counter()
      c:add(-1)
      assert.has_error(function() task.run(function() end, c) end, "a negative counter stays here")
      api.attach_fails(true)
      finally(function() api.attach_fails(false) end)
      local _, e = task.try(task.run(function() end, api.counter()))
      assert.matches("attach fails", tostring(e))
      api.attach_fails(false)
    end)
  end)

  it("S19: of another class still names the path", function()
    assert.error_matches(function() task.run(function() end, { conn = api.counter "Home" }) end,
      'argument 2, field "conn": cannot copy a userdata %(apimodule.Home%)')
    collectgarbage()
  end)

  it("S19: beside something that cannot be copied is let go with the next message", function()
    leaves_none(function()
      assert.has_error(function() task.run(function() end, api.counter(), io.stdout) end)
    end)
  end)

  it("is shared by the jobs of a parallel loop", function()
    leaves_none(function()
      local c = api.counter()
      await(parallel.range(1, 100, function() c:add(1) end, { chunk = 5 }))
      assert.equal(100, c:value())
    end)
  end)

  it("without share goes to one only", function()
    leaves_none(function()
      local c = api.counter "Shy"
      assert.equal(1, await(task.run(function(it) return it:add(1) end, c)))
      local done, e = task.try(parallel.range(1, 1000, function()
        c:add(1)
        local n = 0
        for _ = 1, 10000 do n = n + 1 end
        return n
      end, { chunk = 10, workers = 2 }))
      if done == nil and e ~= nil then
        assert.matches("a userdata %(apimodule.Shy%) that several threads should receive, and only one can",
          tostring(e))
      end
    end)
  end)

  it("must be described completely, and be no class of asynctask's own", function()
    assert.has_error(function() api.broken_transfer(true) end,
      "asynctask_transferable: 'asynctask.Task' is a class of asynctask's")
    assert.has_error(api.broken_transfer, "asynctask_transferable: name, detach and attach are needed")
  end)

  it("S18: is let go when the state closes", function()
    local output, code = child.lua(([[
      package.cpath = %q .. "/?.so;" .. package.cpath
      local task, api
      sentinel = setmetatable({}, {__gc = function() io.write(api.counts().counters, "\n") end})
      task, api = require "asynctask", require "apimodule"
      local ch = require("asynctask.channel").shared(4)
      task.await(ch:send(api.counter()))
      for _ = 1, 50 do task.run(function(it) while true do it:add(1) end end, api.counter()) end
      kept = api.counter()
      task.await(task.delay(0.01))
      kept = nil
      os.exit(true, true)
    ]]):format(require("spec.support.cc").module "apimodule"))
    assert.equal(0, code, output)
    assert.equal("0\n", output)
  end)
end)
