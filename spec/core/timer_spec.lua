-- Specs of time (S23): delay and yield.

local task = require "asynctask"
local core = require "asynctask.core"

local await, spawn = task.await, task.spawn

describe("delay", function()
  it("S23: settles with its values", function()
    assert.are.same(table.pack("a", nil, "c", nil), table.pack(await(task.delay(0.001, "a", nil, "c", nil))))
    assert.are.equal(0, select("#", await(task.delay(0.001))))
    assert.are.equal("one", await(task.delay(0, "one")))
  end)

  it("S23: never ends early", function()
    for _, seconds in ipairs({ 0.0001, 0.0005, 0.001, 0.0015, 0.003, 0.0033333, 0.01 }) do
      for _ = 1, 3 do
        local start = core.now()
        await(task.delay(seconds))
        assert.is_true(core.now() - start >= seconds)
      end
    end
  end)

  it("S23: counts from the call, not from the loop's cached clock", function()
    local e = os.clock() + 0.01
    while os.clock() < e do end
    local start = core.now()
    await(task.delay(0.005))
    assert.is_true(core.now() - start >= 0.005)
  end)

  it("S23: ends in the order of the dues, whatever the order of the calls", function()
    local order, list = {}, {}
    for i, ms in ipairs({ 5, 1, 3, 2, 4, 0, 6 }) do
      list[i] = spawn(function()
        await(task.delay(ms / 1000))
        order[#order + 1] = ms
      end)
    end
    await(task.when_all(list))
    assert.are.same({ 0, 1, 2, 3, 4, 5, 6 }, order)
  end)

  it("S23: first in, first out for equal dues", function()
    local order, list = {}, {}
    for i = 1, 200 do
      local d = core.delay_until(0)
      list[i] = spawn(function()
        await(d)
        order[#order + 1] = i
      end)
    end
    await(task.when_all(list))
    local due = core.now() + 0.003
    for i = 201, 400 do
      local d = core.delay_until(due)
      list[i] = spawn(function()
        await(d)
        order[#order + 1] = i
      end)
    end
    await(task.when_all(list))
    for i = 1, 400 do
      if order[i] ~= i then
        assert.are.equal(i, order[i])
      end
    end
  end)

  it("S23: zero seconds settle at a later turn, in order, and let others run", function()
    local order = {}
    local a = spawn(function()
      await(task.delay(0))
      order[#order + 1] = "a"
    end)
    local b = spawn(function()
      await(task.delay(0))
      order[#order + 1] = "b"
    end)
    order[#order + 1] = "main"
    await(task.when_all(a, b))
    assert.are.same({ "main", "a", "b" }, order)
    assert.are.equal("pending", task.delay(0):status())
    await(task.delay(0))
  end)

  it("S23: an infinite delay never ends, and can be cancelled", function()
    local d = task.delay(math.huge)
    await(task.delay(0.001))
    assert.are.equal("pending", d:status())
    assert.is_true(d:cancel())
    local far = task.delay(1e300)
    assert.are.equal("pending", far:status())
    assert.is_true(far:cancel())
  end)

  it("S22: negative seconds and NaN are wrong arguments", function()
    for _, bad in ipairs({ -1, -0.001, 0 / 0, -math.huge }) do
      local ok, err = pcall(task.delay, bad)
      assert.is_false(ok)
      assert.matches("bad argument #1 to '[%w.]*delay'", err)
    end
    local ok, err = pcall(task.delay)
    assert.is_false(ok)
    assert.matches("bad argument #1 to '[%w.]*delay'.*got n", err)
    assert.matches("got string", (select(2, pcall(task.delay, "1"))))
    assert.are.equal("pending", task.delay(-0.0):status())
    await(task.delay(0))
  end)

  it("S23: integers and floats will do", function()
    await(task.delay(0))
    await(task.delay(0.0))
  end)

  it("takes 20,000 at once, and cancels every other", function()
    local list, ended = {}, 0
    for i = 1, 20000 do
      list[i] = task.delay(0.001 + (i * 7919 % 20000) / 2e6)
    end
    for i = 1, 20000, 2 do
      assert(list[i]:cancel())
    end
    for i = 2, 20000, 2 do
      await(list[i])
      ended = ended + 1
    end
    assert.are.equal(10000, ended)
    assert.are.equal(0, core.census().timers)
  end)

  it("S14: nobody holds it, and still it ends", function()
    local ended = false
    spawn(function()
      await(task.delay(0.002))
      ended = true
    end)
    collectgarbage()
    collectgarbage()
    await(task.delay(0.01))
    assert.is_true(ended)
  end)
end)

describe("yield", function()
  it("settles at the next turn and uses no timer", function()
    local t = task.yield()
    assert.is_true(task.is_task(t))
    assert.are.equal("pending", t:status())
    assert.are.equal(0, core.census().timers)
    assert.are.equal(0, select("#", await(t)))
    assert.are.equal("succeeded", t:status())
  end)

  it("interleaves tasks fairly", function()
    local order, list = {}, {}
    for i = 1, 3 do
      list[i] = spawn(function()
        for n = 1, 5 do
          order[#order + 1] = i .. "." .. n
          await(task.yield())
        end
      end)
    end
    await(task.when_all(list))
    local wanted = {}
    for n = 1, 5 do
      for i = 1, 3 do
        wanted[#wanted + 1] = i .. "." .. n
      end
    end
    assert.are.same(wanted, order)
  end)

  it("a task that yields in a loop does not keep delays from ending", function()
    local stop = false
    local spinner = spawn(function()
      while not stop do
        await(task.yield())
      end
    end)
    await(task.delay(0.003))
    stop = true
    await(spinner)
  end)

  it("may be kept, and awaited later and twice", function()
    local t = task.yield()
    await(task.yield())
    await(task.delay(0.001))
    await(t)
    await(t)
    local a, b = spawn(function() await(t) end), spawn(function() await(t) end)
    await(task.when_all(a, b))
  end)

  it("works in combinations", function()
    local y = task.yield()
    local long = task.delay(60)
    local t, i = await(task.when_any({ long, y }))
    long:cancel()
    assert.are.equal(y, t)
    assert.are.equal(2, i)
    await(task.when_all(task.yield(), task.yield()))
    for _, d in ipairs(task.tasks()) do
      assert.is_nil(d)
    end
  end)
end)
