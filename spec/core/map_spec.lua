-- Specs of map and for_each: concurrently on this thread, with a limit.

local task = require "asynctask"
local iterator = require "asynctask.iterator"

local await, spawn = task.await, task.spawn

-- A function that counts how many calls of it run at once.
local function counted(f)
  local count = { now = 0, most = 0, calls = 0 }
  return count, function(...)
    count.calls = count.calls + 1
    count.now = count.now + 1
    count.most = math.max(count.most, count.now)
    local _ <close> = setmetatable({}, { __close = function() count.now = count.now - 1 end })
    return f(...)
  end
end

describe("map", function()
  it("gives the results in order, whatever the order of the ends", function()
    local r = await(task.map({ 3, 1, 2 }, function(v, i)
      await(task.delay(v / 2000))
      return v * 10 + i
    end))
    assert.are.same({ 31, 12, 23, n = 3 }, r)
  end)

  it("keeps n when results are nil, and takes the first result of each", function()
    local r = await(task.map({ 1, 2, 3 }, function(v)
      if v ~= 2 then
        return v, "more"
      end
    end))
    assert.are.equal(3, r.n)
    assert.are.equal(1, r[1])
    assert.is_nil(r[2])
    assert.are.equal(3, r[3])
  end)

  it("of nothing is nothing", function()
    assert.are.same({ n = 0 }, await(task.map({}, error)))
  end)

  it("runs all at once, or up to the limit", function()
    for _, limit in ipairs({ 1, 3, 50 }) do
      local count, f = counted(function(v)
        await(task.yield())
        await(task.yield())
        return v
      end)
      local list = {}
      for i = 1, 20 do list[i] = i end
      local r = await(task.map(list, f, { limit = limit }))
      assert.are.equal(math.min(limit, 20), count.most)
      assert.are.equal(20, count.calls)
      for i = 1, 20 do assert.are.equal(i, r[i]) end
    end
    local count, f = counted(function() await(task.yield()) end)
    await(task.map({ 1, 2, 3, 4, 5 }, f))
    assert.are.equal(5, count.most)
  end)

  it("is hot: the first calls have run when map returns", function()
    local seen = {}
    local t = task.map({ "a", "b", "c" }, function(v)
      seen[#seen + 1] = v
      await(task.yield())
    end, { limit = 2 })
    assert.are.same({ "a", "b" }, seen)
    await(t)
    assert.are.same({ "a", "b", "c" }, seen)
  end)

  it("the first fault is raised, cancels the others, and starts no more", function()
    local ended = {}
    local err = {}
    local s = task.source()
    local t = task.map({ 1, 2, 3, 4, 5 }, function(v)
      local _ <close> = setmetatable({}, { __close = function(_, e) ended[v] = e or "end" end })
      await(task.yield())
      if v == 2 then
        error(err)
      end
      await(s.task)
    end, { limit = 3 })
    local _, got = task.try(t)
    assert.are.equal(err, got)
    assert.are.equal("faulted", t:status())
    assert.is_true(task.is_cancelled(ended[1]))
    assert.is_true(task.is_cancelled(ended[3]))
    assert.is_nil(ended[4])
    assert.is_nil(ended[5])
    s:set_result()
  end)

  it("a fault without a wait is the same", function()
    local calls = 0
    local t = task.map({ 1, 2, 3 }, function(v)
      calls = calls + 1
      if v == 2 then
        error("at once", 0)
      end
    end, { limit = 1 })
    assert.are.same({ nil, "at once" }, { task.try(t) })
    assert.are.equal(2, calls)
  end)

  it("an error that is nil is a fault, too", function()
    local t = task.map({ 1, 2 }, function(v)
      if v == 1 then
        error(nil)
      end
    end, { limit = 1 })
    local ok = pcall(await, t)
    assert.is_false(ok)
    assert.are.equal("faulted", t:status())
  end)

  it("S15: leaves no fault unseen but its own", function()
    local reports = 0
    local old = task.on_unobserved(function() reports = reports + 1 end)
    do
      local t = task.map({ 1, 2, 3 }, function()
        await(task.yield())
        error("all fail")
      end)
      task.try(t)
    end
    for _ = 1, 3 do
      collectgarbage()
      await(task.yield())
    end
    task.on_unobserved(old)
    assert.are.equal(0, reports)
  end)

  it("S8: cancelling it cancels its calls", function()
    local s, ended = task.source(), 0
    local t = task.map({ 1, 2, 3 }, function()
      local _ <close> = setmetatable({}, { __close = function() ended = ended + 1 end })
      await(s.task)
    end, { limit = 2 })
    assert.is_true(t:cancel("enough"))
    local _, err = task.try(t)
    assert.are.equal("enough", err.reason)
    assert.are.equal("cancelled", t:status())
    for _ = 1, 3 do
      await(task.yield())
    end
    assert.are.equal(2, ended)
    s:set_result()
  end)

  it("S8: a call that somebody else cancels is a fault of map", function()
    local t = task.map({ 1 }, function() return await(task.from_cancelled("other's")) end)
    local _, err = task.try(t)
    assert.are.equal("other's", err.reason)
    assert.are.equal("faulted", t:status())
  end)

  it("takes thousands with a small limit", function()
    local list = {}
    for i = 1, 3000 do list[i] = i end
    local r = await(task.map(list, function(v)
      if v % 3 == 0 then
        await(task.yield())
      end
      return v
    end, { limit = 4 }))
    assert.are.equal(3000, r.n)
    for i = 1, 3000 do
      if r[i] ~= i then
        assert.are.equal(i, r[i])
      end
    end
  end)

  it("S22: refuses wrong arguments at once", function()
    assert.matches("bad argument #1 to '[%w.]*map' %(table expected, got nil%)", (select(2, pcall(task.map))))
    assert.matches("bad argument #2 to '[%w.]*map' %(function expected, got nil%)", (select(2, pcall(task.map, {}))))
    for _, bad in ipairs({ 0, -1, 1.5, "2", {} }) do
      assert.matches("bad argument #3 to '[%w.]*map'", (select(2, pcall(task.map, {}, print, { limit = bad }))))
    end
    assert.matches("bad argument #3 to '[%w.]*map'.*limt", (select(2, pcall(task.map, {}, print, { limt = 1 }))))
    assert.matches("bad argument #3 to '[%w.]*map'", (select(2, pcall(task.map, {}, print, 3))))
  end)
end)

describe("for_each", function()
  it("calls with the value and the index of a list", function()
    local seen = {}
    local t = task.for_each({ "a", "b" }, function(v, i)
      await(task.yield())
      seen[i] = v
    end)
    assert.are.equal(0, select("#", await(t)))
    assert.are.same({ "a", "b" }, seen)
  end)

  it("takes an iterator, pulls no more than it runs, and closes it", function()
    local pulled, closed, running, most = 0, 0, 0, 0
    local it = iterator.new(function()
      pulled = pulled + 1
      assert.is_true(pulled - 1 <= 10)
      if pulled <= 10 then
        return task.delay(0, pulled, "second")
      end
    end, function() closed = closed + 1 end)
    local sum = 0
    await(task.for_each(it, function(v, second)
      running = running + 1
      most = math.max(most, running)
      assert.are.equal("second", second)
      await(task.delay(0.002))
      sum = sum + v
      running = running - 1
    end, { limit = 3 }))
    assert.are.equal(55, sum)
    assert.are.equal(1, closed)
    assert.is_true(most <= 3)
    assert.is_true(most >= 2)
  end)

  it("closes the iterator after a fault", function()
    local closed, pulled = 0, 0
    local it = iterator.new(function()
      pulled = pulled + 1
      return pulled
    end, function() closed = closed + 1 end)
    local t = task.for_each(it, function(v)
      await(task.yield())
      if v == 2 then
        error("stop", 0)
      end
    end, { limit = 2 })
    assert.are.same({ nil, "stop" }, { task.try(t) })
    assert.are.equal(1, closed)
    assert.is_true(pulled <= 5)
  end)

  it("closes the iterator when it is cancelled", function()
    local closed = 0
    local it = iterator.new(function() return task.delay(60) end, function() closed = closed + 1 end)
    local t = task.for_each(it, print)
    t:cancel()
    task.try(t)
    assert.are.equal("cancelled", t:status())
    assert.are.equal(1, closed)
  end)

  it("takes any function, and io.lines", function()
    local n = 0
    await(task.for_each(function()
      n = n + 1
      return n <= 3 and n or nil
    end, function() end, { limit = 2 }))
    assert.are.equal(4, n)
    local lines = 0
    local path = os.tmpname()
    local f = assert(io.open(path, "w"))
    assert(f:write("a\nb\n"))
    f:close()
    await(task.for_each(io.lines(path), function() lines = lines + 1 end))
    os.remove(path)
    assert.are.equal(2, lines)
  end)

  it("an error of the iterator is raised when the calls have been cancelled", function()
    local s, cancelled = task.source(), 0
    local n = 0
    local t = task.for_each(function()
      n = n + 1
      if n == 3 then
        error("bad iterator", 0)
      end
      return n
    end, function()
      local ok, err = pcall(await, s.task)
      if not ok and task.is_cancelled(err) then
        cancelled = cancelled + 1
      end
    end)
    assert.are.same({ nil, "bad iterator" }, { task.try(t) })
    for _ = 1, 3 do
      await(task.yield())
    end
    assert.are.equal(2, cancelled)
    s:set_result()
    assert.are.same({}, task.tasks())
  end)

  it("S22: refuses wrong arguments at once", function()
    assert.matches("bad argument #1 to '[%w.]*for_each'", (select(2, pcall(task.for_each, 1, print))))
    assert.matches("bad argument #2 to '[%w.]*for_each'", (select(2, pcall(task.for_each, {}))))
    assert.matches("bad argument #3 to '[%w.]*for_each'", (select(2, pcall(task.for_each, {}, print, { limit = 0 }))))
  end)

  it("runs inside a task, too", function()
    local sum = 0
    await(spawn(function()
      await(task.for_each({ 1, 2, 3 }, function(v)
        await(task.yield())
        sum = sum + v
      end))
    end))
    assert.are.equal(6, sum)
  end)
end)
