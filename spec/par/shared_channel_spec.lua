-- channel.shared: channels between threads. The methods of the local channel, copies, order, backpressure,
-- cancelling (S10), closing, deadlocks (S16), many producers and consumers; then cancellation sources,
-- task-local values and classes on their way to jobs.

local channel = require "asynctask.channel"
local core = require "asynctask.core"
local task = require "asynctask"

local await, run = task.await, task.run

local function raised(f, ...)
  local ok, err = task.pcall(f, ...)
  assert.is_false(ok)
  return err
end

describe("shared channel", function()
  it("passes values in order between a job and its parent, both ways", function()
    for _, capacity in ipairs { 0, 1, 7 } do
      local to, from = channel.shared(capacity), channel.shared(capacity)
      local job = run(function()
        local t = require "asynctask"
        for v in to:each() do t.await(from:send(v * 2)) end
        from:close()
      end)
      task.spawn(function()
        for i = 1, 300 do await(to:send(i)) end
        to:close()
      end)
      local n = 0
      for v in from:each() do
        n = n + 1
        assert.equal(n * 2, v)
      end
      await(job)
      assert.equal(300, n)
    end
  end)

  it("copies what is sent", function()
    local ch = channel.shared(1)
    local t = { list = { 1, 2 } }
    await(ch:send(t))
    t.list[1] = "changed"
    local got = await(ch:receive())
    assert.same({ list = { 1, 2 } }, got)
    assert.is_false(rawequal(got, t))
    local ok, message = pcall(ch.send, ch, { file = io.stdout })
    assert.is_false(ok)
    assert.matches('the message, field "file": cannot copy a userdata (FILE*)', message, 1, true)
    assert.matches("must not be nil", select(2, pcall(ch.send, ch, nil)), 1, true)
  end)

  it("is one object in each state, itself sent over channels, too", function()
    local ch, other = channel.shared(2), channel.shared(1)
    assert.equal(ch, await(run(function() return ch end)))
    await(ch:send(other))
    assert.equal(other, await(ch:receive()))
    assert.is_true(await(run(function(a, b) return rawequal(a, b) and rawequal(a, ch) end, ch, ch)))
  end)

  it("has a capacity, a length, and try_ calls that never wait", function()
    local ch = channel.shared(2)
    assert.equal(0, #ch)
    assert.is_true(ch:try_send("a"))
    assert.is_true(ch:try_send("b"))
    assert.is_false(ch:try_send("c"))
    assert.equal(2, #ch)
    assert.equal("a", ch:try_receive())
    assert.equal("b", ch:try_receive())
    assert.same({ nil, "empty" }, { ch:try_receive() })
    ch:close()
    assert.is_true(ch:is_closed())
    assert.same({ nil, "closed" }, { ch:try_receive() })
    assert.is_false(ch:try_send("d"))
    local rendezvous = channel.shared()
    assert.is_false(rendezvous:try_send(1))
    local r = rendezvous:receive()
    assert.is_true(rendezvous:try_send(1))
    assert.equal(1, await(r))
  end)

  it("S22: wrong arguments raise at once", function()
    assert.matches("bad argument #1 to 'shared'", select(2, pcall(channel.shared, -1)), 1, true)
    assert.matches("bad argument #1 to 'shared'", select(2, pcall(channel.shared, "x")), 1, true)
    local ch = channel.shared()
    assert.matches("a shared channel cannot be selected", select(2, pcall(channel.select, ch)), 1, true)
    assert.matches("a shared channel cannot be selected", select(2, pcall(channel.select, { ch, 1 })), 1, true)
  end)

  it("close lets receivers have what is left, then nil or the error; senders fail", function()
    local ch = channel.shared(1)
    await(ch:send(1))
    local waiting = ch:send(2)
    ch:close()
    local e = raised(await, waiting)
    assert.equal("EPIPE", e.code)
    assert.equal("EPIPE", raised(function() return await(ch:send(3)) end).code)
    assert.equal(1, await(ch:receive()))
    assert.is_nil(await(ch:receive()))
    ch:close("twice is fine")
    assert.is_nil(await(ch:receive()))
    local failed = channel.shared()
    local receiver = failed:receive()
    failed:close { why = "over" }
    assert.same({ why = "over" }, raised(await, receiver))
    assert.same({ why = "over" }, raised(function() return await(failed:receive()) end))
  end)

  it("close in a job ends those who wait elsewhere", function()
    local ch, full = channel.shared(), channel.shared()
    local receiver, sender = ch:receive(), full:send(1)
    await(run(function()
      ch:close()
      full:close()
    end))
    assert.is_nil(await(receiver))
    assert.equal("EPIPE", raised(await, sender).code)
  end)

  it("S10: a cancelled receiver takes nothing, a cancelled sender leaves nothing", function()
    local ch = channel.shared()
    local r = ch:receive()
    assert.is_true(r:cancel())
    assert.is_false(ch:try_send("lost"))
    local s = ch:send("gone")
    assert.is_true(s:cancel())
    assert.same({ nil, "empty" }, { ch:try_receive() })
    local first, second = ch:receive(), ch:receive()
    first:cancel()
    assert.is_true(ch:try_send("kept"))
    assert.equal("kept", await(second))
    local a, b = ch:send("a"), ch:send("b")
    a:cancel()
    assert.equal("b", await(ch:receive()))
    await(b)
  end)

  it("S10: in a cancelled scope nothing begins", function()
    local ch = channel.shared(1)
    local c = task.cancellation()
    c:cancel()
    task.pcall(function() return c:with(function() await(ch:send(1)) end) end)
    assert.equal(0, #ch)
    await(ch:send(2))
    task.pcall(function() return c:with(function() await(ch:receive()) end) end)
    assert.equal(1, #ch)
  end)

  it("S10: nothing is lost and nothing comes twice while receivers on several threads give up", function()
    for _, capacity in ipairs { 0, 1, 8 } do
      local ch = channel.shared(capacity)
      local senders, receivers = {}, {}
      for p = 1, 2 do
        senders[p] = run(function()
          local t = require "asynctask"
          for i = 1, 400 do t.await(ch:send(p * 1000 + i)) end
        end)
      end
      for q = 1, 3 do
        receivers[q] = run(function()
          local t = require "asynctask"
          local got, turn = {}, q
          while true do
            local r = ch:receive()
            turn = turn + 1
            if turn % 3 == 0 then
              if turn % 2 == 0 then t.await(t.yield()) end
              r:cancel()
            end
            if r:status() ~= "cancelled" then
              local v = t.await(r)
              if v == nil then return got end
              got[#got + 1] = v
            end
          end
        end)
      end
      await(task.when_all(senders))
      ch:close()
      local seen, total = {}, 0
      for _, r in ipairs(receivers) do
        for _, v in ipairs((await(r))) do
          assert.is_nil(seen[v])
          seen[v], total = true, total + 1
        end
      end
      assert.equal(800, total)
    end
  end)

  it("S10: senders that are cancelled have sent or have not, and know which", function()
    local ch = channel.shared()
    local job = run(function()
      local t = require "asynctask"
      local sent = 0
      for i = 1, 600 do
        local s = ch:send(i)
        if i % 2 == 0 then
          t.await(t.yield())
          s:cancel()
        end
        local ok = t.pcall(t.await, s)
        if ok then sent = sent + 1 end
      end
      ch:close()
      return sent
    end)
    local received = 0
    for _ in ch:each() do received = received + 1 end
    assert.equal(await(job), received)
  end)

  it("S10: a deadline in a job takes nothing from the channel", function()
    local ch, gave_up = channel.shared(), channel.shared()
    local job = run(function()
      local t = require "asynctask"
      local ok, err = t.pcall(t.with_timeout, 0.01, function() return ch:receive() end)
      t.await(gave_up:send(ok and "got it" or err.code))
      return t.await(ch:receive())
    end)
    assert.equal("ETIMEDOUT", await(gave_up:receive()))
    await(ch:send("kept"))
    assert.equal("kept", await(job))
  end)

  it("S16: waiting for what no other thread could send is a deadlock, waiting for a job is none", function()
    local ch = channel.shared()
    assert.matches("deadlock", raised(function() return await(channel.shared():receive()) end), 1, true)
    local job = run(function()
      local t = require "asynctask"
      t.await(t.delay(0.02))
      t.await(ch:send("late"))
    end)
    assert.equal("late", await(ch:receive()))
    await(job)
  end)

  it("a waiting receiver hears from a job that got the channel afterwards", function()
    local ch = channel.shared()
    local r = ch:receive()
    local job = run(function(c)
      local t = require "asynctask"
      t.await(c:send("hello"))
    end, ch)
    assert.equal("hello", await(r))
    await(job)
  end)

  it("leaves nothing behind when it is collected with values in it", function()
    for _ = 1, 50 do
      local ch = channel.shared(3)
      ch:try_send { 1, 2, 3 }
      ch:try_send(function() return channel end)
    end
    collectgarbage()
    collectgarbage()
  end)
end)

describe("a cancellation source that is passed to a job", function()
  it("cancels there when it is cancelled here, with its reason", function()
    local c, ready = task.cancellation(), channel.shared()
    local job = run(function()
      local t = require "asynctask"
      local ok, err = t.pcall(function()
        return c:with(function()
          t.await(ready:send(true))
          t.await(t.delay(30))
        end)
      end)
      return ok, err.code, err.reason, c:is_cancelled()
    end)
    await(ready:receive())
    c:cancel("enough")
    assert.same({ false, "ECANCELED", "enough", true }, { await(job) })
  end)

  it("arrives cancelled if it was", function()
    local c = task.cancellation()
    c:cancel(42)
    assert.same({ true, 42 }, { await(run(function(x)
      return x:is_cancelled(), select(2, pcall(x.check, x)).reason
    end, c)) })
  end)

  it("goes one way: cancelling the copy leaves the original", function()
    local c = task.cancellation()
    assert.is_true(await(run(function(x) return x:cancel() end, c)))
    await(task.delay(0.01))
    assert.is_false(c:is_cancelled())
  end)

  it("hears of its parents even when the source in between is collected", function()
    local root, ready = task.cancellation(), channel.shared()
    local job = run(function(x)
      local t = require "asynctask"
      local s = t.source()
      local _ <close> = x:on_cancel(function(reason) s:set_result(reason) end)
      t.await(ready:send(true))
      return t.await(s.task)
    end, task.cancellation(task.cancellation(root)))
    await(ready:receive())
    collectgarbage()
    collectgarbage()
    root:cancel("from the root")
    assert.equal("from the root", await(job))
  end)

  it("passes through several states, and deadlines count", function()
    local c = task.cancellation()
    local job = run(function()
      local t = require "asynctask"
      return t.await(t.run(function()
        local u = require "asynctask"
        local s = u.source()
        local _ <close> = c:on_cancel(function(reason) s:set_result(reason) end)
        return u.await(s.task)
      end))
    end)
    c:cancel_after(0.02)
    assert.equal("deadline", await(job))
  end)
end)

describe("task-local values", function()
  it("are inherited by jobs, as copies", function()
    local v, w = task.local_value("default"), task.local_value()
    local function seen()
      local t = require "asynctask"
      return v:get(), w:get(), t.await(t.spawn(function() return v:get() end))
    end
    assert.same({ "default", nil, "default" }, { await(run(seen)) })
    v:with({ "set" }, function()
      w:with(false, function()
        local a, b, c = await(run(seen))
        assert.same({ "set" }, a)
        assert.is_false(b)
        assert.same(a, c)
        assert.same({ "set" }, (await(run(function()
          local t = require "asynctask"
          return t.await(t.run(function() return v:get() end))
        end))))
      end)
    end)
    assert.same({ "default", nil, "default" }, { await(run(seen)) })
    assert.equal(v, await(run(function() return v end)))
  end)

  it("S19: one that cannot be copied is refused by name", function()
    local v = task.local_value()
    v:with(io.stdout, function()
      local ok, message = pcall(run, print)
      assert.is_false(ok)
      assert.matches("a task-local value: cannot copy a userdata (FILE*)", message, 1, true)
    end)
  end)
end)

describe("parallel.class", function()
  local class = core.par.class

  it("S19: objects of a registered class keep it, there and back", function()
    local Point = { __name = "spec.Point" }
    Point.__index = Point
    function Point.new(x, y) return setmetatable({ x = x, y = y }, Point) end
    function Point.__add(a, b) return Point.new(a.x + b.x, a.y + b.y) end
    Point.origin = Point.new(0, 0)
    local ok, message = pcall(run, print, Point.new(1, 2))
    assert.is_false(ok)
    assert.matches("cannot copy a table with a metatable (spec.Point); parallel.class registers it", message, 1, true)
    assert.equal(Point, class("spec.Point", Point))
    for _ = 1, 2 do
      local sum, same, origin = await(run(function(a, b)
        return a + b, getmetatable(a) == Point and getmetatable(b) == Point, a.origin
      end, Point.new(1, 2), Point.new(3, 4)))
      assert.equal(Point, getmetatable(sum))
      assert.equal(4, sum.x)
      assert.equal(6, sum.y)
      assert.is_true(same)
      assert.equal(Point, getmetatable(origin))
    end
  end)

  it("S19: so do derived classes, and lists of a hundred thousand objects", function()
    local Base = {}
    Base.__index = Base
    function Base.hello() return "hello" end
    local Derived = setmetatable({}, { __index = Base })
    Derived.__index = Derived
    class("spec.Derived", Derived)
    local first = setmetatable({}, Derived)
    local last = first
    for i = 1, 100000 do
      last.next = setmetatable({ i = i }, Derived)
      last = last.next
    end
    local n, greeting = await(run(function(link)
      local mt, count = getmetatable(link), 0
      while link.next do
        link, count = link.next, count + 1
        if getmetatable(link) ~= mt then return "another class" end
      end
      return count, link:hello()
    end, first))
    assert.equal(100000, n)
    assert.equal("hello", greeting)
  end)

  it("S22: wrong arguments raise at once", function()
    assert.matches("string expected", select(2, pcall(class, 1, {})), 1, true)
    assert.matches("metatable expected", select(2, pcall(class, "x", 1)), 1, true)
    assert.matches("1 to 255 characters", select(2, pcall(class, "", {})), 1, true)
  end)
end)
