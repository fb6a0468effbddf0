-- Specs of channels: rendezvous and bounded, overflow, closing, select.

local task = require "asynctask"
local channel = require "asynctask.channel"

local await, spawn = task.await, task.spawn

local function turns(n)
  for _ = 1, n or 3 do await(task.yield()) end
end

-- Receives everything until the channel is closed.
local function drain(ch)
  local got = {}
  for v in ch:each() do got[#got + 1] = v end
  return got
end

describe("a rendezvous", function()
  it("settles a send when somebody receives, and not before", function()
    local ch = channel.new()
    local send = ch:send("v")
    turns()
    assert.are.equal("pending", send:status())
    assert.are.equal(0, #ch)
    assert.are.equal("v", await(ch:receive()))
    assert.are.equal("succeeded", send:status())
    assert.are.equal(0, select("#", await(send)))
  end)

  it("settles a receive when somebody sends", function()
    local ch = channel.new(0)
    local receive = ch:receive()
    assert.are.equal("pending", receive:status())
    await(ch:send(false))
    assert.are.equal(false, await(receive))
  end)

  it("is first come, first served, on both sides", function()
    local ch = channel.new()
    local sends, receives = {}, {}
    for i = 1, 5 do sends[i] = ch:send(i) end
    for i = 1, 5 do assert.are.equal(i, await(ch:receive())) end
    for i = 1, 5 do receives[i] = ch:receive() end
    for i = 1, 5 do await(ch:send(i * 10)) end
    for i = 1, 5 do
      assert.are.equal("succeeded", sends[i]:status())
      assert.are.equal(i * 10, await(receives[i]))
    end
  end)

  it("passes values by reference", function()
    local ch, v = channel.new(), {}
    ch:send(v)
    assert.are.equal(v, await(ch:receive()))
  end)
end)

describe("a bounded channel", function()
  it("takes as many values as it holds without waiting, then makes the sender wait", function()
    local ch = channel.new(2)
    assert.are.equal("succeeded", ch:send(1):status())
    assert.are.equal("succeeded", ch:send(2):status())
    local third, fourth = ch:send(3), ch:send(4)
    assert.are.equal("pending", third:status())
    assert.are.equal(2, #ch)
    assert.are.equal(1, await(ch:receive()))
    assert.are.equal("succeeded", third:status())
    assert.are.equal("pending", fourth:status())
    assert.are.equal(2, #ch)
    assert.are.same({ 2, 3, 4 }, { await(ch:receive()), await(ch:receive()), await(ch:receive()) })
    assert.are.equal("succeeded", fourth:status())
    assert.are.equal(0, #ch)
  end)

  it("loses nothing and doubles nothing between many senders and receivers", function()
    local ch = channel.new(3)
    local sum, count = 0, 0
    task.with_group(function(g)
      for r = 1, 4 do
        g:spawn(function()
          for v in ch:each() do
            sum, count = sum + v, count + 1
            if v % r == 0 then await(task.yield()) end
          end
        end)
      end
      local senders = {}
      for s = 1, 5 do
        senders[s] = g:spawn(function()
          for i = 1, 200 do await(ch:send(i + s)) end
        end)
      end
      await(task.when_all(senders))
      ch:close()
    end)
    assert.are.equal(1000, count)
    local expected = 0
    for s = 1, 5 do for i = 1, 200 do expected = expected + i + s end end
    assert.are.equal(expected, sum)
  end)

  it("keeps the order of one sender over 10,000 values", function()
    local ch = channel.new(7)
    local sender = spawn(function()
      for i = 1, 10000 do await(ch:send(i)) end
      ch:close()
    end)
    local expected = 0
    for v in ch:each() do
      expected = expected + 1
      assert(v == expected)
    end
    assert.are.equal(10000, expected)
    await(sender)
  end)

  it("a slow receiver bounds how far the sender is ahead (backpressure)", function()
    local ch, ahead, sent, received = channel.new(4), 0, 0, 0
    local sender = spawn(function()
      for i = 1, 100 do
        await(ch:send(i))
        sent = sent + 1
        ahead = math.max(ahead, sent - received)
      end
      ch:close()
    end)
    for _ in ch:each() do
      received = received + 1
      turns(2)
    end
    await(sender)
    assert.is_true(ahead <= 6)
  end)
end)

describe("overflow", function()
  it("drop_oldest keeps the newest, and never waits", function()
    local ch = channel.new(3, { overflow = "drop_oldest" })
    for i = 1, 10 do assert.are.equal("succeeded", ch:send(i):status()) end
    assert.are.equal(3, #ch)
    ch:close()
    assert.are.same({ 8, 9, 10 }, drain(ch))
  end)

  it("drop_newest keeps the oldest, and never waits", function()
    local ch = channel.new(3, { overflow = "drop_newest" })
    for i = 1, 10 do assert.are.equal("succeeded", ch:send(i):status()) end
    ch:close()
    assert.are.same({ 1, 2, 3 }, drain(ch))
  end)

  it("drop_newest without capacity gives to those who wait only", function()
    local ch = channel.new(0, { overflow = "drop_newest" })
    await(ch:send("lost"))
    local r = ch:receive()
    await(ch:send("got"))
    assert.are.equal("got", await(r))
  end)

  it("error faults the send with ENOBUFS, and takes nothing", function()
    local ch = channel.new(1, { overflow = "error" })
    await(ch:send("a"))
    local _, e = task.try(ch:send("b"))
    assert.are.equal("ENOBUFS", e.code)
    assert.are.equal("send", e.op)
    assert.are.equal("a", await(ch:receive()))
    await(ch:send("c"))
    ch:close()
    assert.are.same({ "c" }, drain(ch))
  end)

  it("in every mode a value goes to a receiver that waits", function()
    for _, overflow in ipairs { "wait", "drop_oldest", "drop_newest", "error" } do
      local ch = channel.new(1, { overflow = overflow })
      local r1, r2 = ch:receive(), ch:receive()
      await(ch:send(1))
      await(ch:send(2))
      assert.are.same({ 1, 2 }, { await(r1), await(r2) })
    end
  end)

  it("S22: refuses wrong arguments at the call", function()
    for _, case in ipairs {
      { "non%-negative integer expected, got %-1", -1 },
      { "non%-negative integer expected, got string", "x" },
      { "non%-negative integer expected, got 1.5", 1.5 },
      { "unknown option 'limit'", 1, { limit = 1 } },
      { "got 'drop'", 1, { overflow = "drop" } },
      { "'drop_oldest' needs a capacity", 0, { overflow = "drop_oldest" } },
      { "table of options expected", 1, "wait" },
    } do
      local ok, e = pcall(channel.new, case[2], case[3])
      assert.is_false(ok)
      assert.matches(case[1], e)
    end
    local ch = channel.new(1)
    assert.matches("bad argument #1 to 'send'.*must not be nil", select(2, pcall(function() ch:send(nil) end)))
    assert.is_false(pcall(function() ch:send() end))
    assert.matches("must not be nil", select(2, pcall(function() ch:try_send(nil) end)))
    assert.are.equal(0, #ch)
  end)
end)

describe("try_send, try_receive", function()
  it("never wait", function()
    local ch = channel.new(1)
    assert.is_true(ch:try_send("a"))
    assert.is_false(ch:try_send("b"))
    assert.are.equal("a", ch:try_receive())
    assert.are.same({ nil, "empty", n = 2 }, table.pack(ch:try_receive()))
  end)

  it("of a rendezvous take part only if somebody waits", function()
    local ch = channel.new()
    assert.is_false(ch:try_send(1))
    assert.are.same({ nil, "empty", n = 2 }, table.pack(ch:try_receive()))
    local r = ch:receive()
    assert.is_true(ch:try_send(2))
    assert.are.equal(2, await(r))
    local s = ch:send(3)
    assert.are.equal(3, ch:try_receive())
    assert.are.equal("succeeded", s:status())
  end)

  it("do not overtake: a full channel's waiting sender fills the place", function()
    local ch = channel.new(1)
    await(ch:send(1))
    local s = ch:send(2)
    assert.are.equal(1, ch:try_receive())
    assert.are.equal("succeeded", s:status())
    assert.is_false(ch:try_send(3))
    assert.are.equal(2, ch:try_receive())
  end)

  it("of a closed channel", function()
    local ch = channel.new(1)
    ch:try_send(1)
    ch:close()
    assert.is_false(ch:try_send(2))
    assert.are.equal(1, ch:try_receive())
    assert.are.same({ nil, "closed", n = 2 }, table.pack(ch:try_receive()))
  end)

  it("work in a cancelled scope: they are no operations", function()
    local ch = channel.new(2)
    local t = spawn(function()
      pcall(await, task.delay(60))
      return ch:try_send("v"), ch:try_receive()
    end)
    t:cancel()
    assert.are.same({ true, "v" }, { await(t) })
  end)
end)

describe("close", function()
  it("lets receivers have what is left, then nil, for ever", function()
    local ch = channel.new(2)
    await(ch:send(1))
    await(ch:send(2))
    assert.is_false(ch:is_closed())
    ch:close()
    assert.is_true(ch:is_closed())
    assert.are.same({ 1, 2 }, { await(ch:receive()), await(ch:receive()) })
    for _ = 1, 3 do assert.are.same({ nil, n = 1 }, table.pack(await(ch:receive()))) end
  end)

  it("wakes all who wait to receive with nil, and all who wait to send with EPIPE", function()
    local ch = channel.new()
    local r1, r2 = ch:receive(), ch:receive()
    ch:close()
    assert.are.same({ nil, nil, n = 2 }, table.pack((await(r1)), (await(r2))))
    ch = channel.new()
    local s1, s2 = ch:send(1), ch:send(2)
    ch:close()
    for _, s in ipairs { s1, s2 } do
      local _, e = task.try(s)
      assert.are.equal("EPIPE", e.code)
    end
    assert.is_nil((await(ch:receive()))) -- what was not sent is not there
  end)

  it("with an error: receivers get what is left, then that very error", function()
    local ch, err = channel.new(1), {}
    await(ch:send("left"))
    ch:close(err)
    assert.are.equal("left", await(ch:receive()))
    for _ = 1, 2 do assert.are.equal(err, select(2, task.try(ch:receive()))) end
    local waiting = channel.new()
    local r = waiting:receive()
    waiting:close(err)
    assert.are.equal(err, select(2, task.try(r)))
    assert.is_false(pcall(drain, waiting))
  end)

  it("sending to a closed channel faults with EPIPE; closing twice is fine, the first counts", function()
    local ch = channel.new(1)
    ch:close()
    ch:close("later")
    assert.are.equal("EPIPE", select(2, task.try(ch:send(1))).code)
    assert.is_nil((await(ch:receive())))
  end)

  it("false is an error, too", function()
    local ch = channel.new()
    ch:close(false)
    local ok, e = pcall(await, ch:receive())
    assert.are.same({ false, false }, { ok, e })
  end)
end)

describe("each", function()
  it("S26: visits until closed and drained; leaving does not close the channel", function()
    local ch = channel.new(5)
    for i = 1, 4 do ch:try_send(i) end
    for v in ch:each() do
      if v == 2 then break end
    end
    assert.is_false(ch:is_closed())
    ch:close()
    assert.are.same({ 3, 4 }, drain(ch))
  end)

  it("S26: false is a value, not the end", function()
    local ch = channel.new(2)
    ch:try_send(false)
    ch:try_send(1)
    ch:close()
    assert.are.same({ false, 1 }, drain(ch))
  end)

  it("S26: several share a channel, each value goes to one", function()
    local ch = channel.new()
    local got = {}
    local tasks = {}
    for i = 1, 3 do
      tasks[i] = spawn(function() for v in ch:each() do got[v] = (got[v] or 0) + 1 end end)
    end
    for i = 1, 30 do await(ch:send(i)) end
    ch:close()
    await(task.when_all(tasks))
    for i = 1, 30 do assert.are.equal(1, got[i]) end
  end)
end)

describe("cancelling", function()
  it("S10: a cancelled receiver takes nothing: the next gets the value", function()
    local ch = channel.new()
    local first, second, third = ch:receive(), ch:receive(), ch:receive()
    first:cancel()
    third:cancel()
    await(ch:send("v"))
    assert.are.equal("v", await(second))
    assert.is_false(ch:try_send("nobody waits any more"))
  end)

  it("S10: a cancelled sender has not sent", function()
    local ch = channel.new(1)
    await(ch:send(1))
    local a, b = ch:send("a"), ch:send("b")
    a:cancel()
    assert.are.equal(1, await(ch:receive()))
    assert.are.equal("succeeded", b:status())
    assert.are.equal("b", await(ch:receive()))
    assert.are.same({ nil, "empty", n = 2 }, table.pack(ch:try_receive()))
  end)

  it("S10: a receive that ran out of time leaves the channel sound", function()
    local ch = channel.new()
    local ok, e = pcall(task.with_timeout, 0.001, ch.receive, ch)
    assert.are.same({ false, "ETIMEDOUT" }, { ok, e.code })
    local send = ch:send("later")
    assert.are.equal("later", await(ch:receive()))
    assert.are.equal("succeeded", send:status())
    ok, e = pcall(await, ch:receive():timeout(0.001))
    assert.are.same({ false, "ETIMEDOUT" }, { ok, e.code })
    assert.is_false(ch:try_send("nobody"))
  end)

  it("S10: cancelled in the turn in which a value came: the value is given, not lost", function()
    local ch = channel.new()
    local t = spawn(function()
      local v <const> = await(ch:receive())
      assert.is_false((pcall(await, task.yield())))
      return v
    end)
    ch:try_send("v")
    assert.is_true(t:cancel())
    assert.are.equal("v", await(t))
  end)

  it("S10: the other way round the value stays in the channel", function()
    local ch = channel.new(1)
    local t = spawn(ch.receive, ch)
    t:cancel()
    assert.is_true(ch:try_send("v"))
    assert.is_true(task.is_cancelled(select(2, t:try())))
    assert.are.equal("v", ch:try_receive())
  end)

  it("S10: send and receive in a cancelled scope do nothing", function()
    local ch = channel.new(2)
    ch:try_send("there")
    local t = spawn(function()
      pcall(await, task.delay(60))
      return ch:send("x"):status(), ch:receive():status(), channel.select(ch, { ch, 1 }):status()
    end)
    t:cancel()
    assert.are.same({ "cancelled", "cancelled", "cancelled" }, { await(t) })
    assert.are.equal(1, #ch)
  end)

  it("S7: the losing receives of a when_any stay in the queue until they are cancelled", function()
    local ch, other = channel.new(), channel.new(1)
    other:try_send("o")
    local r = ch:receive()
    local winner = await(task.when_any { r, other:receive() })
    assert.are.equal("o", await(winner))
    assert.is_true(ch:try_send("for r"))
    assert.are.equal("for r", await(r))
  end)
end)

describe("select", function()
  it("takes the one branch that can go on, and says which", function()
    local a, b = channel.new(1), channel.new(1)
    b:try_send("vb")
    local ch, v = await(channel.select(a, b))
    assert.are.equal(b, ch)
    assert.are.equal("vb", v)
    assert.are.same({ a, n = 1 }, table.pack(await(channel.select({ a, "va" }, b))))
    assert.are.equal("va", a:try_receive())
  end)

  it("waits for the first that can", function()
    local a, b = channel.new(), channel.new()
    local t = channel.select(a, b)
    assert.are.equal("pending", t:status())
    await(b:send("v"))
    assert.are.same({ b, "v" }, { await(t) })
    local u = channel.select(a, { b, "w" })
    assert.are.equal("w", await(b:receive()))
    assert.are.same({ b, n = 1 }, table.pack(await(u)))
  end)

  it("S10: the branches not taken did not happen", function()
    local a, b, c = channel.new(), channel.new(), channel.new()
    local t = channel.select(a, { b, "b" }, c)
    await(c:send("c"))
    await(t)
    assert.is_false(a:try_send("nobody receives any more"))
    assert.are.same({ nil, "empty", n = 2 }, table.pack(b:try_receive()))
  end)

  it("S10: cancelled, none of them happens, and others get theirs", function()
    local a, b = channel.new(), channel.new()
    local t = channel.select(a, { b, "mine" })
    local next_a, next_b = a:receive(), b:send("next")
    t:cancel()
    await(a:send("v"))
    assert.are.equal("v", await(next_a))
    assert.are.equal("next", await(b:receive()))
    await(next_b)
    assert.is_false(pcall(task.with_timeout, 0.001, channel.select, a, b))
    assert.is_false(a:try_send(1))
  end)

  it("is fair: of branches that can all go on, each gets its turn", function()
    local chs, counts = {}, {}
    for i = 1, 3 do
      chs[i] = channel.new(100)
      for _ = 1, 100 do chs[i]:try_send(i) end
    end
    for _ = 1, 90 do
      local _, v = await(channel.select(table.unpack(chs)))
      counts[v] = (counts[v] or 0) + 1
    end
    for i = 1, 3 do assert.is_true(counts[i] >= 25) end
  end)

  it("waits in line like everybody: first come, first served", function()
    local a, b = channel.new(), channel.new()
    local before = a:receive()
    local t = channel.select(b, a)
    local after = a:receive()
    await(a:send(1))
    await(a:send(2))
    await(a:send(3))
    assert.are.equal(1, await(before))
    assert.are.same({ a, 2 }, { await(t) })
    assert.are.equal(3, await(after))
  end)

  it("of closed channels gives nil, or the error; a send faults", function()
    local a, b = channel.new(), channel.new()
    local t = channel.select(a, b)
    a:close()
    assert.are.same({ a, nil, n = 2 }, table.pack(await(t)))
    assert.are.same({ a, nil, n = 2 }, table.pack(await(channel.select(a, b))))
    b:close("broken")
    assert.are.equal("broken", select(2, task.try(channel.select(b))))
    assert.are.equal("EPIPE", select(2, task.try(channel.select({ a, 1 }))).code)
    local c = channel.new()
    local u, w = channel.select({ c, 1 }), channel.select(c, channel.new())
    assert.are.equal(1, select(2, await(w))) -- two selects meet
    await(u)
    local x = channel.select({ c, 1 }, channel.new())
    c:close()
    assert.are.equal("EPIPE", select(2, task.try(x)).code)
  end)

  it("does not meet itself when it sends to and receives from one channel", function()
    local ch = channel.new()
    local t = channel.select(ch, { ch, "own" })
    turns()
    assert.are.equal("pending", t:status())
    local u = channel.select(ch, { ch, "other" })
    local _, v = await(t)
    local _, w = await(u)
    assert.is_true((v == nil and w == "own") or (v == "other" and w == nil))
    assert.is_false(ch:try_send(1))
    assert.is_nil((ch:try_receive()))
  end)

  it("the same channel twice takes one value", function()
    local ch = channel.new(3)
    local t = channel.select(ch, ch)
    ch:try_send(1)
    ch:try_send(2)
    assert.are.equal(1, select(2, await(t)))
    assert.are.equal(1, #ch)
  end)

  it("works under load: nothing lost, nothing twice", function()
    local a, b, quit = channel.new(2), channel.new(), channel.new()
    local got = {}
    local readers = {}
    for i = 1, 3 do
      readers[i] = spawn(function()
        while true do
          local ch, v = await(channel.select(a, quit, b))
          if ch == quit then return end
          got[v] = (got[v] or 0) + 1
        end
      end)
    end
    local writers = {}
    for w = 1, 4 do
      writers[w] = spawn(function()
        for i = 1, 50 do
          local v = w * 1000 + i
          await(channel.select({ a, v }, { b, v }))
        end
      end)
    end
    await(task.when_all(writers))
    quit:close()
    await(task.when_all(readers))
    while #a > 0 do
      local v = a:try_receive()
      got[v] = (got[v] or 0) + 1
    end
    for w = 1, 4 do
      for i = 1, 50 do assert(got[w * 1000 + i] == 1) end
    end
  end)

  it("S22: refuses what is no branch", function()
    local ch = channel.new()
    assert.is_false(pcall(channel.select))
    assert.matches("bad argument #2", select(2, pcall(channel.select, ch, 5)))
    assert.matches("{channel, value} expected", select(2, pcall(channel.select, { ch })))
    assert.matches("{channel, value} expected", select(2, pcall(channel.select, { 1, ch })))
    assert.is_false(ch:try_send(1)) -- and has not begun to wait
  end)
end)

describe("memory", function()
  it("100,000 values through a channel, and cancelled waits on it, leave nothing", function()
    local ch, idle = channel.new(4), channel.new()
    local function once()
      for i = 1, 4 do ch:try_send({ i }) end
      for _ = 1, 4 do ch:try_receive() end
      local r = idle:receive()
      r:cancel()
      local s = channel.select(idle, { idle, {} })
      s:cancel()
    end
    for _ = 1, 100 do once() end
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 25000 do once() end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 20)
  end)

  it("a channel with waiters that nobody else holds is not collected, nor are they", function()
    local got
    do
      local ch = channel.new()
      local sender = task.delay(0.005):continue_with(function() return ch:send("v") end)
      spawn(function() got = await(ch:receive()) end)
      assert.is_truthy(sender)
    end
    collectgarbage()
    collectgarbage()
    await(task.delay(0.01))
    turns()
    assert.are.equal("v", got)
  end)
end)
