-- asynctask.parallel: loops on all processors.

local child = require "spec.support.child"
local parallel = require "asynctask.parallel"
local task = require "asynctask"

local await = task.await
local interrupts = child.sanitizer() == "tsan" and pending or it -- delays signals

local function numbers(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

local function raised(...)
  local ok, err = pcall(...)
  assert.is_false(ok)
  return err
end

describe("parallel", function()
  it("map gives the results in order, with n, nil included", function()
    local k = 10
    local got = await(parallel.map(numbers(1000), function(x, i) return x * k + i end))
    assert.equal(1000, got.n)
    for i = 1, 1000 do assert.equal(11 * i, got[i]) end
    got = await(parallel.map({ 1, 2, 3 }, function(x) if x ~= 3 then return x end end))
    assert.same({ 1, 2, n = 3 }, got)
    assert.same({ n = 0 }, await(parallel.map({}, function(x) return x end)))
  end)

  it("map with ordered = false has all results", function()
    local got = await(parallel.map(numbers(100), function(x) return x end, { ordered = false, chunk = 7 }))
    table.sort(got)
    for i = 1, 100 do assert.equal(i, got[i]) end
  end)

  it("filter keeps what f wants, in order, the very values", function()
    local list = {}
    for i = 1, 200 do list[i] = { i } end
    local got = await(parallel.filter(list, function(x) return x[1] % 3 == 0 end))
    assert.equal(66, #got)
    for i, x in ipairs(got) do assert.equal(list[3 * i], x) end
  end)

  it("reduce joins the chunks in order", function()
    local function add(a, b) return a + b end
    assert.equal(500500, await(parallel.reduce(numbers(1000), add, 0)))
    assert.equal(7, await(parallel.reduce({}, add, 7)))
    local function join(a, b) return a .. b end
    local text = await(parallel.reduce({ "a", "b", "c", "d", "e" }, join, "", { chunk = 2 }))
    assert.equal("abcde", text)
  end)

  it("reduce begins each chunk with a copy of init, and combine joins them here", function()
    local words = {}
    for i = 1, 90 do words[i] = ({ "x", "y", "z" })[i % 3 + 1] end
    local init = {}
    local counts = await(parallel.reduce(words, function(all, word)
      all[word] = (all[word] or 0) + 1
      return all
    end, init, { chunk = 10, combine = function(a, b)
      for k, v in pairs(b) do a[k] = (a[k] or 0) + v end
      return a
    end }))
    assert.same({ x = 30, y = 30, z = 30 }, counts)
    assert.same({}, init)
  end)

  it("range visits each integer once, at the ends of the integers, too", function()
    local array = require "asynctask.array"
    local seen = array.new("i32", 5000)
    assert.equal(0, select("#", await(parallel.range(1, 5000, function(i) seen:add(i, 1) end))))
    assert.equal(5000, seen:sum())
    assert.equal(1, seen:min())
    await(parallel.range(math.maxinteger - 3, math.maxinteger, function() end))
    await(parallel.range(math.mininteger, math.mininteger + 3, function() end))
    await(parallel.range(2, 1, function() error "never" end))
  end)

  it("for_each gives values and indices; arrays are not copied", function()
    local array = require "asynctask.array"
    local out = array.new("i64", 300)
    local from = array.from_list("i64", numbers(300))
    await(parallel.for_each(from, function(x, i) out[i] = x * 2 end))
    for i = 1, 300 do assert.equal(2 * i, out[i]) end
  end)

  it("invoke calls functions at once", function()
    local function number(n) return function() return n end end
    local got = table.pack(await(parallel.invoke(number(1), number(nil), number(3))))
    assert.same({ 1, nil, 3, n = 3 }, got)
  end)

  it("sort sorts lists and arrays in place", function()
    local array = require "asynctask.array"
    for _, n in ipairs { 0, 1, 10, 9001 } do
      local list = {}
      for i = 1, n do list[i] = (i * 7919) % 10007 end
      local expected = table.move(list, 1, n, 1, {})
      table.sort(expected)
      assert.equal(list, await(parallel.sort(list)))
      assert.same(expected, list)
      await(parallel.sort(list, function(a, b) return a > b end, { workers = 3 }))
      for i = 1, n do assert.equal(expected[n + 1 - i], list[i]) end
      local a = array.from_list("i32", list)
      await(parallel.sort(a))
      assert.same(expected, a:to_list())
      await(parallel.sort(a, function(x, y) return x > y end))
      assert.same(list, a:to_list())
    end
    assert.matches("attempt to compare", raised(await, parallel.sort { 1, "a" }), 1, true)
  end)

  it("stop ends the loop with its value; the lowest index counts", function()
    local t = parallel.range(1, 100000, function(i)
      if i >= 50 then require "asynctask.parallel".stop("at " .. i) end
    end)
    assert.equal("at 50", await(t))
    assert.equal("succeeded", t:status())
    assert.equal(5, await(parallel.map(numbers(100), function(x)
      if x % 5 == 0 then require "asynctask.parallel".stop(x) end
      return x
    end, { chunk = 1 })))
    assert.matches("outside of the function of a parallel loop", tostring(raised(parallel.stop, 1)), 1, true)
  end)

  it("what comes after a stop or a fault is not started", function()
    local array = require "asynctask.array"
    local calls = array.new("i64", 1)
    await(parallel.range(1, 100000000, function(i)
      calls:add(1, 1)
      if i == 1 then require "asynctask.parallel".stop() end
    end, { chunk = 10 }))
    assert.is_true(calls[1] < 1000000)
    calls[1] = 0
    raised(await, parallel.range(1, 100000000, function(i)
      calls:add(1, 1)
      if i == 1 then error "first" end
    end, { chunk = 10 }))
    assert.is_true(calls[1] < 1000000)
  end)

  it("the error of the lowest index is raised, errors() has all, with the worker's traceback", function()
    for chunk = 1, 40, 13 do
      local t = parallel.for_each(numbers(200), function(x)
        local function failing() error { x = x } end
        if x >= 20 and x % 4 == 0 then failing() end
      end, { chunk = chunk })
      assert.equal(20, raised(await, t).x)
      local errors = t:errors()
      assert.equal(20, errors[1].x)
      for i = 2, #errors do assert.is_true(errors[i].x > errors[i - 1].x) end
      assert.matches("in function 'failing'", t:traceback(), 1, true)
    end
  end)

  it("init makes a state for each worker; the function travels once to each", function()
    local p <const> = task.pool { threads = 2 }
    local array = require "asynctask.array"
    local made, used = array.new("i64", 1), array.new("i64", 1)
    await(parallel.range(1, 400, function(_, state)
      state.calls = state.calls + 1
      used:add(1, 1)
    end, { pool = p, chunk = 5, init = function()
      local t = require "asynctask"
      made:add(1, 1)
      t.await(t.delay(0.001))
      return { calls = 0 }
    end }))
    assert.equal(400, used[1])
    assert.is_true(made[1] >= 1 and made[1] <= 2)
    await(p:close())
  end)

  it("upvalues are shared by all chunks of a worker", function()
    local count, p <const> = 0, task.pool { threads = 1 }
    local got = await(parallel.map(numbers(50), function()
      count = count + 1
      return count
    end, { chunk = 5, pool = p }))
    assert.equal(50, got[50])
    assert.equal(0, count)
    await(p:close())
  end)

  it("progress is called here, as a task, and ends with everything", function()
    local calls, done, total = 0, 0, nil
    await(parallel.range(1, 3000, function() for _ = 1, 2000 do end end, { progress = function(d, n) -- luacheck: ignore
      assert.is_true(d > done)
      calls, done, total = calls + 1, d, n
      await(task.yield())
    end }))
    assert.is_true(calls >= 2)
    assert.equal(3000, done)
    assert.equal(3000, total)
  end)

  it("workers bounds how many chunks run at once", function()
    local array = require "asynctask.array"
    local now, most = array.new("i64", 1), array.new("i64", 1)
    await(parallel.range(1, 40, function()
      local t = require "asynctask"
      local n = now:add(1, 1) + 1
      if n > most[1] then most[1] = n end
      t.await(t.delay(0.001))
      now:add(1, -1)
    end, { workers = 1, chunk = 1 }))
    assert.is_true(most[1] <= 2)
  end)

  interrupts("S20: cancelling the Task or the source interrupts the chunks", function()
    local function forever() while true do end end
    local t = parallel.range(1, 10, forever)
    await(task.delay(0.02))
    assert.is_true(t:cancel "enough")
    task.try(t)
    assert.equal("cancelled", t:status())
    local c <const> = task.cancellation()
    t = parallel.range(1, 10, forever, { cancel = c })
    local sorting = parallel.sort({ 3, 1, 2 }, function() while true do end end, { cancel = c })
    await(task.delay(0.02))
    c:cancel()
    task.try(t)
    task.try(sorting)
    assert.equal("cancelled", t:status())
    assert.equal("cancelled", sorting:status())
    local ok, err = task.pcall(task.with_timeout, 0.02, function() await(parallel.range(1, 4, forever)) end)
    assert.is_false(ok)
    assert.equal("ETIMEDOUT", err.code)
  end)

  it("S21: loops in loops do not lock up the pool", function()
    local p <const> = task.pool { threads = 1 }
    local sums = await(parallel.map({ 1, 2, 3, 4 }, function(k)
      local t, inner = require "asynctask", require "asynctask.parallel"
      return t.await(inner.reduce({ 1, 2, 3 }, function(a, b) return a + b * k end, 0,
        { combine = function(a, b) return a + b end }))
    end, { pool = p }))
    assert.same({ 6, 12, 18, 24, n = 4 }, sums)
    await(p:close())
  end)

  it("S25: a Task that the function returns is awaited in its place", function()
    local got = await(parallel.map({ 1, 2 }, function(x) return require "asynctask".delay(0.001, x + 1) end))
    assert.same({ 2, 3, n = 2 }, got)
  end)

  it("takes functions by name", function()
    assert.same({ 1, 2, n = 2 }, await(parallel.map({ -1, 2 }, "math.abs")))
  end)

  it("S22: says what is wrong with the arguments", function()
    assert.matches("bad argument #1 to 'map' (list expected, got number)", raised(parallel.map, 1, print), 1, true)
    assert.matches("bad argument #2 to 'filter' (function expected, got nil)", raised(parallel.filter, {}), 1, true)
    assert.matches("bad argument #1 to 'range' (integer expected, got number)", raised(parallel.range, 1.5, 2, print),
      1, true)
    assert.matches("option 'workers': positive integer expected, got 0", raised(parallel.map, {}, print,
      { workers = 0 }), 1, true)
    assert.matches("unknown option 'worker'", raised(parallel.map, {}, print, { worker = 1 }), 1, true)
    assert.matches("unknown option 'combine'", raised(parallel.map, {}, print, { combine = print }),
      1, true)
    assert.matches("too many integers", raised(parallel.range, math.mininteger, 0, print), 1, true)
    local t = task.from_result()
    assert.matches('upvalue "t" of the function: cannot copy', raised(parallel.map, {}, function() return t end),
      1, true)
    assert.matches("the list, index 2: cannot copy", raised(await, parallel.map({ 1, io.stdout }, tostring)), 1, true)
  end)

  it("workers forget the function and what it captured when the loop has ended", function()
    local p <const> = task.pool { threads = 1 }
    local big = {}
    for i = 1, 20000 do big[i] = { i } end
    local function used() return require "asynctask.core".par and collectgarbage "count" end
    local before = await(p:run(function() collectgarbage() collectgarbage() return collectgarbage "count" end))
    await(parallel.range(1, 10, function(i) return big[i] end, { pool = p }))
    await(p:run(used)) -- lets go
    local after = await(p:run(function() collectgarbage() collectgarbage() return collectgarbage "count" end))
    assert.is_true(after - before < 300, ("%.0f KB"):format(after - before))
    await(p:close())
  end)
end)
