-- Specs of asynctask.coroutine (S17): generators that await; and strays from Lua's own coroutines.

local task = require "asynctask"
local co = require "asynctask.coroutine"

local await, spawn = task.await, task.spawn

local function later(...)
  return spawn(function(...)
    await(task.yield())
    return ...
  end, ...)
end

-- Runs f in a task and gives its results.
local function run(f)
  return await(spawn(f))
end

describe("asynctask.coroutine", function()
  it("S17: has what Lua's coroutine has", function()
    for name in pairs(coroutine) do
      assert.is_function(co[name], name)
    end
  end)

  it("S17: is a drop-in where nobody awaits", function()
    local function check()
      local gen = co.wrap(function(a, b)
        local c = co.yield(a + b)
        local d, e = co.yield(c * 2)
        return d, e, nil
      end)
      assert.are.equal(3, gen(1, 2))
      assert.are.equal(20, gen(10))
      assert.are.same(table.pack("d", "e", nil), table.pack(gen("d", "e")))
      assert.matches("dead coroutine", (select(2, pcall(gen))))
      local c = co.create(function(...)
        assert.is_true(co.isyieldable())
        assert.are.equal("running", co.status((co.running())))
        co.yield(...)
        error({ "object" })
      end)
      assert.are.equal("suspended", co.status(c))
      assert.are.same({ true, 1, 2 }, { co.resume(c, 1, 2) })
      assert.are.equal("suspended", co.status(c))
      local ok, err = co.resume(c)
      assert.is_false(ok)
      assert.are.same({ "object" }, err)
      assert.are.equal("dead", co.status(c))
      assert.are.same({ false, "cannot resume dead coroutine" }, { co.resume(c) })
    end
    check()
    run(check)
  end)

  it("S17: close closes a suspended one, as Lua's does", function()
    local closed
    local c = co.create(function()
      local _ <close> = setmetatable({}, { __close = function() closed = true end })
      co.yield()
    end)
    co.resume(c)
    assert.is_true((co.close(c)))
    assert.is_true(closed)
    assert.are.equal("dead", co.status(c))
    local failing = co.create(function()
      local _ <close> = setmetatable({}, { __close = function() error("in close", 0) end })
      co.yield()
    end)
    co.resume(failing)
    assert.are.same({ false, "in close" }, { co.close(failing) })
  end)

  it("S17: an await inside a generator goes through to the task", function()
    local order = {}
    local t = spawn(function()
      local gen = co.wrap(function()
        for i = 1, 3 do
          co.yield(await(later(i)))
        end
      end)
      for v in gen do
        order[#order + 1] = v
      end
      return "end"
    end)
    order[#order + 1] = "started"
    assert.are.equal("end", await(t))
    assert.are.same({ "started", 1, 2, 3 }, order)
  end)

  it("S17: others run while a generator waits", function()
    local log = {}
    local t = spawn(function()
      co.wrap(function()
        await(task.yield())
        log[#log + 1] = "generator"
      end)()
    end)
    local u = spawn(function()
      log[#log + 1] = "other"
    end)
    await(task.when_all(t, u))
    assert.are.same({ "other", "generator" }, log)
  end)

  it("S17: resume gives the values and errors of a generator that awaits", function()
    run(function()
      local err = {}
      local c = co.create(function(x)
        local got = co.yield(await(later(x)))
        await(later())
        error(got)
      end)
      assert.are.same({ true, "x" }, { co.resume(c, "x") })
      local ok, e = co.resume(c, err)
      assert.is_false(ok)
      assert.are.equal(err, e)
      assert.are.equal("dead", co.status(c))
    end)
  end)

  it("S17: wrap raises an error of an awaited task, unchanged", function()
    local err = {}
    run(function()
      local gen = co.wrap(function() return await(spawn(error, err)) end)
      local ok, e = pcall(gen)
      assert.is_false(ok)
      assert.are.equal(err, e)
    end)
  end)

  it("S17: generators nest, and each level may await", function()
    local function numbers(depth)
      return co.wrap(function()
        if depth == 0 then
          for i = 1, 3 do
            co.yield(await(later(i)))
          end
        else
          for v in numbers(depth - 1) do
            co.yield(v + await(later(0)))
          end
        end
      end)
    end
    local sum = run(function()
      local s = 0
      for v in numbers(20) do
        s = s + v
      end
      return s
    end)
    assert.are.equal(6, sum)
  end)

  it("S17: an await under a plain coroutine inside one of ours is refused cleanly", function()
    run(function()
      local ok, err = pcall(co.wrap(function()
        return coroutine.wrap(function() return await(later()) end)()
      end))
      assert.is_false(ok)
      assert.matches("asynctask%.coroutine", err)
      return await(later())
    end)
  end)

  it("S17: works on the main chunk, too", function()
    local gen = co.wrap(function()
      co.yield(await(task.from_result("settled")))
    end)
    assert.are.equal("settled", gen())
  end)

  it("S17: on the main chunk an await inside a generator runs the loop", function()
    local gen = co.wrap(function()
      for i = 1, 3 do
        co.yield(await(later(i)))
      end
    end)
    local seen = {}
    for v in gen do
      seen[#seen + 1] = v
    end
    assert.are.same({ 1, 2, 3 }, seen)
    local c = co.create(function() return await(task.delay(0.001, "slept")) end)
    assert.are.same({ true, "slept" }, { co.resume(c) })
  end)

  it("S17: one that waits is neither resumed nor closed by somebody else", function()
    local s = task.source()
    local c = co.create(function() return await(s.task) end)
    local t = spawn(function() return co.resume(c) end)
    assert.are.equal("normal", co.status(c))
    run(function()
      local ok, err = co.resume(c)
      assert.is_false(ok)
      assert.matches("wait", err)
      assert.is_false((pcall(co.close, c)))
    end)
    assert.are.equal("normal", co.status(c))
    s:set_result("value")
    assert.are.same({ true, "value" }, { await(t) })
    assert.are.equal("dead", co.status(c))
  end)

  it("S17: Lua's own resume of one that waits neither crashes nor wakes it", function()
    local s = task.source()
    local c = co.create(function() return await(s.task) end)
    local t = spawn(function() return co.resume(c) end)
    coroutine.resume(c)
    coroutine.resume(c, 1, 2, 3)
    run(function() coroutine.resume(c, "stray") end)
    assert.are.equal("pending", t:status())
    s:set_result("value")
    assert.are.same({ true, "value" }, { await(t) })
  end)

  it("S9: a cancellation reaches an await inside a generator", function()
    local s = task.source()
    local closed
    local t = spawn(function()
      local gen = co.wrap(function()
        local _ <close> = setmetatable({}, { __close = function(_, err) closed = err end })
        await(s.task)
      end)
      gen()
    end)
    t:cancel("why")
    local _, err = task.try(t)
    assert.are.equal("why", err.reason)
    assert.are.equal("cancelled", t:status())
    assert.are.equal(err, closed)
    s:set_result()
  end)

  it("S11: a deadline inside a generator, and around one", function()
    local s = task.source()
    run(function()
      local gen = co.wrap(function()
        local ok, err = task.pcall(task.with_timeout, 0.001, await, s.task)
        co.yield(ok, err.code)
        await(s.task)
      end)
      assert.are.same({ false, "ETIMEDOUT" }, { gen() })
      local ok, err = task.pcall(task.with_timeout, 0.001, gen)
      assert.is_false(ok)
      assert.are.equal("ETIMEDOUT", err.code)
    end)
    s:set_result()
  end)

  it("S17: a generator may be left in the middle and collected", function()
    run(function()
      for _ = 1, 100 do
        local gen = co.wrap(function()
          while true do
            co.yield(await(later(1)))
          end
        end)
        assert.are.equal(1, gen())
      end
    end)
    collectgarbage()
    collectgarbage()
  end)

  it("S17: a generator may move from one task to another between its awaits", function()
    local gen = co.wrap(function()
      for i = 1, 4 do
        co.yield(await(later(i)))
      end
    end)
    for i = 1, 4 do
      assert.are.equal(i, run(gen))
    end
  end)

  it("S22: refuses wrong arguments as Lua does", function()
    assert.is_false((pcall(co.resume, 1)))
    assert.is_false((pcall(co.wrap, 1)))
    assert.is_false((pcall(co.status)))
    assert.is_false((pcall(co.close)))
  end)
end)

describe("a task's own coroutine", function()
  -- A task that waits for the source, and the coroutine that it runs on.
  local function suspended()
    local s, thread = task.source(), nil
    local t = spawn(function()
      thread = coroutine.running()
      local v = await(s.task)
      return v, await(later("second"))
    end)
    return t, thread, s
  end

  it("S17: resumed by a stranger goes on waiting", function()
    for _, stranger in ipairs({ function(f) f() end, run }) do
      local t, thread, s = suspended()
      stranger(function()
        pcall(coroutine.resume, thread, "stray", 1)
        pcall(coroutine.resume, thread)
        pcall(co.resume, thread, "stray")
      end)
      assert.are.equal("pending", t:status())
      s:set_result("value")
      assert.are.same({ "value", "second" }, { await(t) })
    end
  end)

  it("S17: closed by a stranger ends the task without a crash", function()
    for _, close in ipairs({ coroutine.close, function(thread) pcall(co.close, thread) end }) do
      local t, thread, s = suspended()
      close(thread)
      s:set_result("value")
      for _ = 1, 4 do
        if t:done() then
          break
        end
        await(task.yield())
      end
      assert.is_true(t:done())
      task.try(t)
      assert.are.equal(1, await(later(1)))
    end
  end)

  it("S17: closed while it is ready to run", function()
    local t, thread, s = suspended()
    s:set_result("value")
    coroutine.close(thread)
    for _ = 1, 4 do
      if t:done() then
        break
      end
      await(task.yield())
    end
    assert.is_true(t:done())
    task.try(t)
    assert.are.equal(1, await(later(1)))
  end)

  it("S17: closed, and its task cancelled", function()
    local t, thread, s = suspended()
    coroutine.close(thread)
    t:cancel()
    task.try(t)
    assert.is_true(t:done())
    s:set_result()
    assert.are.equal(1, await(later(1)))
  end)

  it("S17: resumed by a stranger after the task ended", function()
    local thread
    run(function() thread = coroutine.running() end)
    pcall(coroutine.resume, thread)
    pcall(coroutine.close, thread)
    for i = 1, 10 do
      assert.are.equal(i, run(function()
        return await(later(i))
      end))
    end
  end)
end)
