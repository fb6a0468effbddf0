-- Specs of asynctask.testing: the virtual clock, settle, leaks, task; what users' own suites stand on.

local task = require "asynctask"
local testing = require "asynctask.testing"
local channel = require "asynctask.channel"
local net = require "asynctask.net"

local await, spawn = task.await, task.spawn

describe("clock", function()
  it("delays cost no time, and end when the clock gets there, not before", function()
    local clock <close> = testing.clock()
    local t0 = os.time()
    local t = task.delay(86400)
    clock:advance(86399.5)
    assert.are.equal("pending", t:status())
    clock:advance(0.5)
    assert.are.equal("succeeded", t:status())
    assert.is_true(os.time() - t0 < 30)
  end)

  it("advance visits each due time in order, and lets everything run there", function()
    local clock <close> = testing.clock()
    local log = {}
    local start = clock:now()
    local function note(name) log[#log + 1] = ("%s %.1f"):format(name, clock:now() - start) end
    spawn(function()
      await(task.delay(3))
      note("c")
    end)
    spawn(function()
      await(task.delay(1))
      note("a1")
      await(task.delay(1)) -- made on the way
      note("a2")
      await(task.yield())
      await(spawn(function()
        await(task.yield())
        note("a3")
      end))
    end)
    spawn(function()
      await(task.delay(2.5))
      note("b")
    end)
    clock:advance(10)
    assert.are.same({ "a1 1.0", "a2 2.0", "a3 2.0", "b 2.5", "c 3.0" }, log)
    assert.is_true(math.abs(clock:now() - start - 10) < 1e-6)
  end)

  it("equal due times fire in the order in which they were made", function()
    local clock <close> = testing.clock()
    local log = {}
    for i = 1, 20 do
      spawn(function()
        await(task.delay(i % 2 == 0 and 1 or 0.5))
        log[#log + 1] = i
      end)
    end
    clock:advance(1)
    for i = 1, 10 do
      assert.are.equal(2 * i - 1, log[i])
      assert.are.equal(2 * i, log[10 + i])
    end
  end)

  it("parts of an advance are the same as the whole, exactly", function()
    local clock <close> = testing.clock()
    for _, step in ipairs { 0.1, 0.3, 1 / 3, 0.7, 1e-6 } do
      local t = task.delay(10 * step)
      for _ = 1, 9 do clock:advance(step) end
      assert.are.equal("pending", t:status())
      clock:advance(step)
      clock:advance(1e-8) -- a third cannot be said in whole nanoseconds
      assert.are.equal("succeeded", t:status())
    end
    for _ = 1, 1000 do
      local t = task.delay(0.1)
      clock:advance(0.1)
      assert(t:done())
    end
  end)

  it("zero advances what is due now", function()
    local clock <close> = testing.clock()
    local t = task.delay(0)
    clock:advance(0)
    assert.are.equal("succeeded", t:status())
  end)

  it("drives deadlines, timeouts, cancel_after, and every", function()
    local clock <close> = testing.clock()
    local s = task.source()
    local a = spawn(function() return pcall(task.with_timeout, 5, await, s.task) end)
    local b = s.task:timeout(6)
    local c = task.cancellation()
    c:cancel_after(7)
    clock:advance(5)
    assert.are.equal("ETIMEDOUT", select(2, await(a)).code)
    assert.are.equal("pending", b:status())
    clock:advance(1)
    assert.are.equal("ETIMEDOUT", select(2, b:try()).code)
    assert.is_false(c:is_cancelled())
    clock:advance(1)
    assert.is_true(c:is_cancelled())
  end)

  it("in a task advance is awaited, and the others run meanwhile", function()
    local clock <close> = testing.clock()
    local seen
    spawn(function()
      await(task.delay(1))
      seen = true
    end)
    await(spawn(function()
      local t = clock:advance(1)
      assert.is_true(task.is_task(t))
      await(t)
      assert.is_true(seen)
    end))
  end)

  it("without auto a main chunk that waits for a delay is a deadlock, not a hang", function()
    local clock <close> = testing.clock()
    local d = task.delay(1)
    local ok, e = pcall(await, d)
    assert.is_false(ok)
    assert.matches("deadlock", e)
    clock:advance(1)
    await(d)
  end)

  it("auto jumps when everybody waits", function()
    local clock <close> = testing.clock { auto = true }
    local t0, start = os.time(), clock:now()
    await(task.delay(3600))
    task.with_group(function(g)
      for i = 1, 10 do g:spawn(task.delay, i * 1000) end
    end)
    assert.is_true(math.abs(clock:now() - start - 13600) < 1e-3)
    assert.is_true(os.time() - t0 < 30)
  end)

  it("auto visits due times in order", function()
    local clock <close> = testing.clock { auto = true }
    local log = {}
    await(task.when_all(task.delay(3):continue_with(function() log[#log + 1] = 3 end),
      task.delay(1):continue_with(function() log[#log + 1] = 1 end),
      task.delay(2):continue_with(function() log[#log + 1] = 2 end)))
    assert.are.same({ 1, 2, 3 }, log)
    assert.is_truthy(clock)
  end)

  it("auto never jumps over real I/O: a socket that answers late beats a deadline far away", function()
    local clock <close> = testing.clock { auto = true }
    local a, b = await(net.pair())
    local reply
    local job = task.run(function() -- a thread that takes real time
      local t0 = os.clock()
      while os.clock() - t0 < 0.05 do end
      return "from a thread"
    end)
    spawn(function()
      reply = await(job)
      await(b:write(reply .. "\n"))
    end)
    local before = clock:now()
    assert.are.equal("from a thread", task.with_timeout(3600, a.read, a, "l"))
    assert.is_true(clock:now() - before < 3600)
    await(a:close())
    await(b:close())
  end)

  it("closing lets what is pending go on, with the time that is left to it", function()
    local t, never
    do
      local clock <close> = testing.clock()
      clock:advance(1000000)
      t = task.delay(5.01)
      never = task.delay(math.huge)
      clock:advance(5)
      assert.are.equal("pending", t:status())
    end
    local t0 = os.time()
    await(t)
    assert.is_true(os.time() - t0 < 30)
    assert.are.equal("pending", never:status())
    never:cancel()
  end)

  it("an error in a spec that leaves delays behind is not hidden by the clock's closing", function()
    local d
    local ok, e = pcall(function()
      local clock <close> = testing.clock()
      d = task.delay(60)
      clock:advance(1)
      error("the spec's own", 0)
    end)
    assert.are.same({ false, "the spec's own" }, { ok, e })
    assert.is_true(d:cancel())
  end)

  it("what was pending before goes on under it", function()
    local d = task.delay(60)
    local clock <close> = testing.clock()
    clock:advance(59.9)
    assert.are.equal("pending", d:status())
    clock:advance(0.2)
    assert.are.equal("succeeded", d:status())
  end)

  it("S22: refuses wrong arguments", function()
    assert.is_false(pcall(testing.clock, 5))
    local clock <close> = testing.clock()
    for _, v in ipairs { -1, 0 / 0, math.huge, "1" } do
      assert.matches("bad argument #1 to 'advance'", select(2, pcall(clock.advance, clock, v)))
    end
    clock:close()
    clock:close()
    assert.matches("closed", select(2, pcall(clock.advance, clock, 1)))
  end)
end)

describe("every", function()
  it("ticks with the clock and does not drift", function()
    local clock <close> = testing.clock()
    for _, period in ipairs { 1, 0.1, 1 / 3, 0.7 } do
      local ticks, start, worst = {}, clock:now(), 0
      local t = spawn(function()
        for tick in task.every(period) do
          ticks[#ticks + 1] = tick
          worst = math.max(worst, math.abs(clock:now() - start - tick * period))
        end
      end)
      clock:advance(period / 2)
      assert.are.equal(0, #ticks)
      clock:advance(period / 2 + 99 * period + 1e-8)
      assert.are.equal(100, #ticks)
      for i = 1, 100 do assert.are.equal(i, ticks[i]) end
      assert.is_true(worst < 1e-6)
      t:cancel()
      t:try()
    end
  end)

  it("each tick comes with an advance of one period, exactly", function()
    local clock <close> = testing.clock()
    local n = 0
    local t = spawn(function() for _ in task.every(0.1) do n = n + 1 end end)
    for i = 1, 100 do
      clock:advance(0.1)
      assert.are.equal(i, n)
    end
    t:cancel()
    t:try()
  end)

  it("merges ticks that were missed, and keeps the rhythm", function()
    local clock <close> = testing.clock()
    local log, start = {}, clock:now()
    local busy = { [2] = 3.5 } -- after tick 2 the body takes three periods and a half
    local t = spawn(function()
      for tick in task.every(1) do
        log[#log + 1] = ("%d at %.1f"):format(tick, clock:now() - start)
        if busy[tick] then await(task.delay(busy[tick])) end
      end
    end)
    clock:advance(8)
    -- 3, 4 and 5 are one tick, late; 6 is on time.
    assert.are.same({ "1 at 1.0", "2 at 2.0", "5 at 5.5", "6 at 6.0", "7 at 7.0", "8 at 8.0" }, log)
    t:cancel()
    t:try()
  end)

  it("leaving the loop leaves no timer behind; a cancelled wait loses no tick", function()
    local clock <close> = testing.clock()
    local t = spawn(function() for _ in task.every(1) do break end end)
    clock:advance(1)
    await(t)
    assert.are.equal(0, task.stats().delays)
    local ticks = task.every(1)
    local first = ticks:next()
    first:cancel()
    local second = ticks:next()
    clock:advance(1)
    assert.are.equal(1, await(second))
    await(ticks:close())
  end)

  it("S22: refuses what is no period", function()
    for _, v in ipairs { 0, -1, 0 / 0, math.huge, "1" } do
      assert.matches("bad argument #1 to 'every'", select(2, pcall(task.every, v)))
    end
  end)
end)

describe("settle", function()
  it("runs until all tasks wait", function()
    local ch, log = channel.new(), {}
    spawn(function()
      for i = 1, 20 do
        await(task.yield())
        if i == 20 then log[#log + 1] = "yields" end
      end
    end)
    local reader = spawn(function() for v in ch:each() do log[#log + 1] = v end end)
    spawn(function()
      for i = 1, 3 do await(ch:send(i)) end
    end)
    testing.settle()
    table.sort(log, function(a, b) return tostring(a) < tostring(b) end)
    assert.are.same({ 1, 2, 3, "yields" }, log)
    assert.are.equal("pending", reader:status())
    ch:close()
    testing.settle()
    assert.are.equal("succeeded", reader:status())
  end)

  it("does not wait for delays, whatever clock, nor for threads", function()
    local d = task.delay(60)
    testing.settle()
    assert.are.equal("pending", d:status())
    d:cancel()
  end)

  it("in a task it is a Task", function()
    await(spawn(function()
      local done = false
      spawn(function()
        for _ = 1, 5 do await(task.yield()) end
        done = true
      end)
      await(testing.settle())
      assert.is_true(done)
    end))
  end)
end)

describe("leaks", function()
  it("is empty when all is clean", function()
    assert.are.same({}, testing.leaks())
    await(spawn(function() assert.are.same({}, testing.leaks()) end))
  end)

  it("names tasks with what they wait for and where, delays, handles, threads, faults", function()
    local t = spawn(function() await(task.delay(60)) end):named("forgotten")
    local a, b = await(net.pair())
    local job = task.run(function() end)
    local before = task.on_unobserved(function() end)
    spawn(error, "unseen")
    local text = table.concat(testing.leaks(), "\n")
    assert.matches("task 'forgotten' waits for a delay at [^\n]*testing_spec%.lua:%d+", text)
    assert.matches("1 pending delays", text)
    assert.matches("%d open handles", text)
    assert.matches("operations on other threads", text)
    assert.matches("1 faults", text)
    t:cancel()
    t:try()
    await(a:close())
    await(b:close())
    await(job)
    testing.settle()
    task.on_unobserved(before)
    assert.are.same({}, testing.leaks())
  end)
end)

describe("task", function()
  it("makes a spec's body a task", testing.task(function()
    assert.is_truthy(task.current())
    await(task.yield())
  end))

  it("passes arguments, values and errors", function()
    local f = testing.task(function(...)
      await(task.yield())
      return ...
    end)
    assert.are.same({ 1, nil, 3, n = 3 }, table.pack(f(1, nil, 3)))
    local err = {}
    assert.are.same({ false, err }, { pcall(testing.task(function() error(err) end)) })
    assert.is_false(pcall(testing.task, 5))
  end)
end)
