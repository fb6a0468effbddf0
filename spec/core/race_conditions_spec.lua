-- Specs of the ways in which others got cancellation wrong: for every operation that exists a cancel in the
-- turn of the completion, twice, before the first await, in a handler that awaits, along chains, and so on.

local task = require "asynctask"
local channel = require "asynctask.channel"
local program = require "spec.support.child"
local sync = require "asynctask.sync"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local testing = require "asynctask.testing"

local await, spawn = task.await, task.spawn

local function never()
  return task.delay(math.huge)
end

local function turns(n)
  for _ = 1, n or 3 do await(task.yield()) end
end

-- Each kind of operation: makes a pending Task; `complete` makes it settle with a value that `is_value`
-- knows; `free` says whether nothing was taken from the world by one that was cancelled.
local kinds = {
  delay = function()
    local clock = testing.clock()
    return {
      start = function() return task.delay(1, "value") end,
      complete = function() await(clock:advance(1)) end,
      close = function() clock:close() end,
    }
  end,
  source = function()
    local s
    return {
      start = function()
        s = task.source()
        return s.task
      end,
      complete = function() s:set_result("value") end,
    }
  end,
  ["another task"] = function()
    local s = task.source()
    return {
      start = function() return spawn(function() return await(s.task) end) end,
      complete = function() s:set_result("value") end,
    }
  end,
  when_all = function()
    local s = task.source()
    return {
      start = function() return task.when_all(s.task, task.from_result(1)) end,
      complete = function() s:set_result("value") end,
    }
  end,
  ["when_any, unwrapped"] = function()
    local s = task.source()
    return {
      start = function()
        return task.async(function() return await(task.race(s.task, never())) end)()
      end,
      complete = function() s:set_result("value") end,
    }
  end,
  channel = function()
    local ch = channel.new(1)
    return {
      start = function() return ch:receive() end,
      complete = function() ch:try_send("value") end,
      taken = function() return ch:try_receive() == nil end,
    }
  end,
  select = function()
    local ch, other = channel.new(1), channel.new()
    return {
      start = function()
        return task.async(function() return select(2, await(channel.select(ch, other))) end)()
      end,
      complete = function() ch:try_send("value") end,
      taken = function() return ch:try_receive() == nil end,
    }
  end,
  lock = function()
    local m = sync.mutex()
    local guard = m:try_lock()
    return {
      start = function()
        return task.async(function()
          local _ <close> = await(m:lock())
          return "value"
        end)()
      end,
      complete = function() guard:release() end,
      close = function()
        guard:release()
        assert.is_false(m:is_locked())
      end,
    }
  end,
  event = function()
    local e = sync.event()
    return {
      start = function() return task.async(function() await(e:wait()) return "value" end)() end,
      complete = function() e:set() end,
    }
  end,
  socket = function()
    local a, b = await(net.pair())
    return {
      start = function() return a:read(5) end,
      complete = function() await(b:write("value")) end,
      taken = function()
        local ok, data = pcall(task.with_timeout, 0.2, a.read, a, 5)
        return not (ok and data == "value")
      end,
      close = function()
        await(a:close())
        await(b:close())
      end,
    }
  end,
  file = function()
    local path = os.tmpname()
    await(fs.write_file(path, "value"))
    return {
      start = function() return fs.read_file(path) end,
      complete = function() end,
      close = function() os.remove(path) end,
    }
  end,
  job = function()
    return {
      start = function() return task.run(function() return "value" end) end,
      complete = function() end,
    }
  end,
}

for name, make in pairs(kinds) do
  describe("cancelling " .. name, function()
    local kind
    before_each(function() kind = make() end)
    after_each(function()
      if kind.close then kind.close() end
    end)

    it("S10: the operation itself: it settles at once, and happened or did not", function()
      local t = kind.start()
      if not t:cancel("r") then
        assert.are.equal("value", await(t)) -- it had ended
        return
      end
      local _, e = t:try()
      assert.is_true(task.is_cancelled(e))
      assert.are.equal("r", e.reason)
      kind.complete()
      turns()
      assert.are.equal("cancelled", t:status())
      if kind.taken then assert.is_false(kind.taken()) end
    end)

    it("S9: twice: the second takes no effect, the first reason stays", function()
      local t = spawn(function() return await(kind.start()) end)
      local took = t:cancel("first")
      assert.is_false(t:cancel("second"))
      local _, e = t:try()
      if took then assert.are.equal("first", e.reason) end
      kind.complete()
    end)

    it("S10: completion first, cancel in the same turn: the value is given, the next await raises", function()
      local t = spawn(function()
        local v <const> = await(kind.start())
        return v, (pcall(await, task.yield()))
      end)
      kind.complete()
      if t:cancel() then
        local v, ok = task.try(t)
        if v ~= nil then
          assert.are.same({ "value", false }, { v, ok })
        elseif kind.taken then
          assert.is_false(kind.taken()) -- what was not given is still there
        end
      else
        assert.are.equal("value", (await(t)))
      end
    end)

    it("S10: cancel first, completion in the same turn: nothing is lost", function()
      local t = spawn(function() return await(kind.start()) end)
      local took = t:cancel()
      kind.complete()
      local v = task.try(t)
      if took and v == nil and kind.taken then assert.is_false(kind.taken()) end
      if v ~= nil then assert.are.equal("value", v) end
    end)

    it("S9: before the first await", function()
      local s = task.source()
      local t = spawn(function()
        await(s.task)
        return await(kind.start())
      end)
      s:set_result()
      t:cancel()
      local v, e = t:try()
      assert.is_nil(v)
      assert.is_true(task.is_cancelled(e))
      kind.complete()
      if kind.taken then assert.is_false(kind.taken()) end
    end)

    it("S12: during a <close> handler that awaits it: with shield it comes through", function()
      local got
      local t = spawn(function()
        local _ <close> = setmetatable({}, { __close = function()
          got = task.shield(function() return await(kind.start()) end)
        end })
        await(task.yield())
      end)
      turns(1)
      t:cancel()
      turns(1)
      kind.complete()
      t:try()
      assert.are.equal("value", got)
    end)

    it("S9: a deadline around it", function()
      if name == "delay" then return end -- has a clock of its own
      local ok, e = pcall(task.with_timeout, 0, function() return await(kind.start()) end)
      assert.is_false(ok)
      assert.are.equal("ETIMEDOUT", e.code)
      kind.complete()
      if kind.taken then assert.is_false(kind.taken()) end
    end)

    it("S8: of a waiter on a shared one spares the other waiters", function()
      local shared = spawn(function() return await(kind.start()) end)
      local a = spawn(function() return await(shared) end)
      local b = spawn(function() return await(shared) end)
      a:cancel()
      local v, e = a:try()
      assert.is_true(v == "value" or task.is_cancelled(e))
      kind.complete()
      assert.are.equal("value", await(b))
    end)

    it("S7: as a loser of when_any it goes on, and is still good", function()
      local t = kind.start()
      local winner = await(task.when_any { task.from_result("w"), t })
      assert.is_truthy(winner)
      kind.complete()
      assert.are.equal("value", await(t))
    end)

    it("S18: abandoned in a task that is cancelled, it leaves nothing", function()
      local t = spawn(function()
        local op = kind.start()
        await(never())
        return op
      end)
      t:cancel()
      t:try()
      kind.complete()
      turns()
    end)
  end)
end

describe("cancelling in chains", function()
  it("S8: a chain of three whose parts own each other stops whole, innermost first", function()
    local log = {}
    local function part(name, next)
      return task.async(function()
        local _ <close> = setmetatable({}, { __close = function() log[#log + 1] = name end })
        await(next and next() or never())
      end)
    end
    local t = spawn(part("first", part("second", part("third"))))
    t:cancel()
    t:try()
    turns()
    table.sort(log)
    assert.are.same({ "first", "second", "third" }, log)
  end)

  it("S8: a chain of three that only await each other: the first stops waiting, the others go on", function()
    local s = task.source()
    local third = spawn(function() return await(s.task) end)
    local second = spawn(function() return await(third) end)
    local first = spawn(function() return await(second) end)
    first:cancel()
    assert.is_true(task.is_cancelled(select(2, first:try())))
    s:set_result("v")
    assert.are.equal("v", await(second))
  end)

  it("S8: ten thousand that own each other", function()
    local ended = 0
    local function deeper(n)
      local _ <close> = setmetatable({}, { __close = function() ended = ended + 1 end })
      if n == 0 then await(never()) end
      await(task.async(deeper)(n - 1))
    end
    local t = spawn(deeper, 10000)
    t:cancel()
    t:try()
    turns()
    assert.are.equal(10001, ended)
  end)
end)

describe("cancelling that is caught", function()
  it("S9: in a loop: raised each time, and others run between", function()
    local caught, others = 0, 0
    local stop = false
    local looper = spawn(function()
      repeat
        local ok, e = pcall(await, never())
        assert(not ok and task.is_cancelled(e))
        caught = caught + 1
      until stop
      return "left"
    end)
    looper:cancel()
    local other = spawn(function()
      for _ = 1, 50 do
        await(task.yield())
        others = others + 1
      end
      stop = true
    end)
    await(other)
    assert.are.equal("left", await(looper))
    assert.are.equal(50, others)
    assert.is_true(caught >= 25)
  end)

  it("S9: task.pcall in a loop does not catch it", function()
    local rounds = 0
    local t = spawn(function()
      while true do
        rounds = rounds + 1
        task.pcall(await, never())
      end
    end)
    t:cancel()
    t:try()
    assert.are.equal(1, rounds)
    assert.are.equal("cancelled", t:status())
  end)
end)

describe("cancelling from inside", function()
  it("S9: a child cancels its own parent, which owns it: both end", function()
    local parent, child
    parent = spawn(function()
      child = task.async(function()
        await(task.yield())
        assert.is_true(parent:cancel("by the child"))
        await(never())
      end)()
      await(child)
    end)
    local _, e = parent:try()
    assert.are.equal("by the child", e.reason)
    turns()
    assert.are.equal("cancelled", child:status())
    assert.are.equal("by the child", child:error().reason)
  end)

  it("S9: a child cancels its parent and returns a value: the value is not taken for the parent's", function()
    local parent
    parent = spawn(function()
      local v <const> = await(task.async(function()
        await(task.yield())
        parent:cancel()
        return "child"
      end)())
      await(task.yield())
      return v
    end)
    assert.is_true(task.is_cancelled(select(2, parent:try())))
    assert.are.equal("cancelled", parent:status())
  end)

  it("S9: a task cancels itself: the next await raises", function()
    local reached
    local t = spawn(function()
      await(task.yield())
      task.current():cancel("self")
      reached = true
      await(task.yield())
      reached = "too far"
    end)
    assert.are.equal("self", select(2, t:try()).reason)
    assert.is_true(reached)
  end)

  it("S9: during the clean-up of a cancellation a second cancel changes nothing", function()
    local s, cleaned = task.source(), false
    local t = spawn(function()
      local _ <close> = setmetatable({}, { __close = function()
        task.shield(await, s.task)
        cleaned = true
      end })
      await(never())
    end)
    t:cancel("first")
    turns()
    assert.are.equal("pending", t:status())
    assert.is_false(t:cancel("second"))
    s:set_result()
    assert.are.equal("first", select(2, t:try()).reason)
    assert.is_true(cleaned)
  end)

  it("S12: a cancel that comes while a normal end runs a handler that awaits is not lost", function()
    local s = task.source()
    local t = spawn(function()
      local _ <close> = setmetatable({}, { __close = function() task.shield(await, s.task) end })
      return "result"
    end)
    turns()
    assert.is_true(t:cancel())
    s:set_result()
    -- The function had its result: the handler was left in peace, and nothing waited afterwards.
    assert.are.equal("result", await(t))
  end)
end)

describe("deadlines in the same turn", function()
  it("S11: inner and outer expire together: the outer one leaves, the inner does not take it", function()
    for _, order in ipairs { { 1, 1 }, { 1, 2 } } do
      local clock <close> = testing.clock()
      local between = false
      local t = spawn(function()
        return pcall(task.with_timeout, order[1], function()
          task.pcall(task.with_timeout, order[2], never)
          between = true
          await(task.yield())
        end)
      end)
      clock:advance(2)
      local ok, e = await(t)
      assert.is_false(ok)
      assert.are.equal("ETIMEDOUT", e.code)
      assert.is_false(between)
    end
  end)

  it("S11: an inner one just before the outer is caught inside", function()
    local clock <close> = testing.clock()
    local inner
    local t = spawn(function()
      return task.with_timeout(2, function()
        local ok, e = task.pcall(task.with_timeout, 1, never)
        inner = not ok and e.code
        return "outer fine"
      end)
    end)
    clock:advance(1)
    assert.are.equal("outer fine", await(t))
    assert.are.equal("ETIMEDOUT", inner)
  end)

  it("S11: a completion in the turn of the deadline, whichever is first", function()
    local clock <close> = testing.clock()
    local first = spawn(task.with_timeout, 1, function() return await(task.delay(1, "delay")) end)
    clock:advance(1)
    local v, e = first:try() -- the deadline was made first and is due first
    assert.is_true(v == "delay" or e.code == "ETIMEDOUT")
    local d = task.delay(1, "delay")
    local second = spawn(task.with_timeout, 1, await, d)
    clock:advance(1)
    assert.are.equal("delay", await(second))
  end)

  it("S11: t:timeout loses no value that came in the turn of the deadline", function()
    local clock <close> = testing.clock()
    local ch = channel.new(1)
    local r = ch:receive()
    local t = r:timeout(1)
    task.delay(1):continue_with(function() ch:try_send("v") end)
    clock:advance(1)
    local v, e = t:try()
    if v == nil then
      assert.are.equal("ETIMEDOUT", e.code)
      v = r:status() == "succeeded" and r:result() or ch:try_receive()
    end
    assert.are.equal("v", v)
  end)
end)

-- Each leaves the process with something of this kind under way; the sanitizers look for what is lost.
local abandoned = {
  ["a group with members that run, wait for their place, fault and are handled"] = [[
    task.with_group({ limit = 2, on_error = function() await(never()) end }, function(g)
      for _ = 1, 5 do g:spawn(function() await(never()) end) end
      g:spawn(error, "x")
      g:wait()
      await(task.yield())
      os.exit(0, true)
    end)]],
  ["a group that is waited for, and waits that were cancelled"] = [[
    local g = task.group()
    g:spawn(never)
    local a = g:wait()
    g:wait()
    a:cancel()]],
  ["calls of on_error"] = [[
    local g = task.group { on_error = function() await(never()) end }
    g:spawn(error, {})
    await(task.delay(0))
    await(task.delay(0))]],
  ["channels with waiting senders, receivers and selects"] = [[
    local ch, other = channel.new(1), channel.new()
    for i = 1, 5 do ch:send(i) end
    other:receive()
    channel.select(other, channel.new(), { channel.new(), 1 })]],
  ["locks that are held and waited for"] = [[
    local m, s, b = sync.mutex(), sync.semaphore(3), sync.barrier(3)
    kept = { m:try_lock(), s:try_acquire(2) }
    m:lock()
    s:acquire(2)
    s:acquire(1)
    b:wait()
    sync.event():wait()]],
  ["linked sources with scopes, deadlines and callbacks that have not run"] = [[
    local c = task.cancellation()
    local d = task.cancellation(c)
    d:on_cancel(print)
    d:cancel_after(100)
    task.spawn(function() d:with(never) end)
    c:cancel()]],
  ["task-local values, from inside with"] = [[
    local v = task.local_value(1)
    v:with(2, function()
      task.spawn(function() v:with(3, never) end)
      os.exit(0, true)
    end)]],
  ["a virtual clock, and debugging"] = [[
    task.debug(true)
    local clock = testing.clock()
    task.spawn(never)
    task.spawn(function() await(task.spawn(never)) end)
    clock:advance(1)
    assert(#task.dump() > 0)]],
  ["finalizers that use locks, channels and groups while the state closes"] = [[
    local m, ch, e = sync.mutex(), channel.new(2), sync.event()
    e:wait()
    for _ = 1, 3 do
      setmetatable({ m:try_lock() }, { __gc = function()
        pcall(function()
          ch:try_send(1)
          m:try_lock()
          e:set()
          task.cancellation():cancel()
          task.with_group(function(g) g:spawn(never) end)
        end)
      end })
    end]],
}

describe("closing the state", function()
  for name, source in pairs(abandoned) do
    it("S18: with " .. name, function()
      local output, code = program.lua([[
        local task = require "asynctask"
        local channel, sync = require "asynctask.channel", require "asynctask.sync"
        local testing = require "asynctask.testing"
        local await = task.await
        local function never() return task.delay(math.huge) end
      ]] .. source, { timeout = 30 })
      assert.are.equal(0, code, output)
      assert.is_nil(output:find("traceback", 1, true), output)
    end)
  end
end)
