-- Specs of spawn and async (S1), of what a task tells about itself, and of the list of tasks.

local task = require "asynctask"

local await, spawn = task.await, task.spawn

describe("spawn", function()
  it("S1: runs the function at once, until its first incomplete await", function()
    local seen = {}
    local t = spawn(function()
      seen[#seen + 1] = "before"
      await(task.yield())
      seen[#seen + 1] = "after"
    end)
    assert.are.same({ "before" }, seen)
    assert.are.equal("pending", t:status())
    await(t)
    assert.are.same({ "before", "after" }, seen)
  end)

  it("S1: a function that never has to wait has ended when spawn returns", function()
    local t = spawn(function()
      return await(task.from_result("x"))
    end)
    assert.are.equal("succeeded", t:status())
    assert.is_true(t:done())
    assert.are.equal("x", t:result())
  end)

  it("S1: hands the arguments over, nils included, and keeps every result", function()
    local t = spawn(function(...)
      return select("#", ...), ...
    end, nil, "a", nil)
    assert.are.same(table.pack(3, nil, "a", nil), table.pack(await(t)))
    assert.are.same(table.pack(3, nil, "a", nil), table.pack(t:result()))
    assert.are.equal(0, select("#", await(spawn(function() end))))
    assert.are.same(table.pack(nil), table.pack(await(spawn(function() return nil end))))
  end)

  it("S1: takes hundreds of arguments and results", function()
    local list = {}
    for i = 1, 240 do list[i] = i end
    local got = table.pack(await(spawn(function(...)
      await(task.yield())
      return ...
    end, table.unpack(list))))
    assert.are.equal(240, got.n)
    assert.are.equal(240, got[240])
  end)

  it("S1: takes a value that can be called", function()
    local f = setmetatable({}, { __call = function(_, a) return a + 1 end })
    assert.are.equal(3, await(spawn(f, 2)))
  end)

  it("S1: an error faults the task and does not reach the spawner", function()
    local t = spawn(error, "boom", 0)
    assert.are.equal("faulted", t:status())
    assert.are.equal("boom", t:error())
  end)

  it("S22: refuses what cannot be called, at once", function()
    assert.has_error(function() spawn(nil) end, "bad argument #1 to 'spawn' (function expected, got nil)")
    assert.has_error(function() spawn({}) end, "bad argument #1 to 'spawn' (function expected, got table)")
    assert.has_error(function() task.async("x") end, "bad argument #1 to 'async' (function expected, got string)")
  end)

  it("S1: is hot at any depth: 100,000 tasks, each awaiting the next", function()
    local function deep(n)
      if n == 0 then
        return 0
      end
      return 1 + await(spawn(deep, n - 1))
    end
    assert.are.equal(100000, await(spawn(deep, 100000)))
  end)

  it("S1: a deeply nested start still runs before spawn returns", function()
    local order = {}
    local function deep(n)
      order[#order + 1] = n
      if n < 60 then
        spawn(deep, n + 1)
      end
      order[#order + 1] = -n
    end
    assert.are.equal("succeeded", spawn(deep, 1):status())
    local wanted = {}
    for n = 1, 60 do wanted[#wanted + 1] = n end
    for n = 60, 1, -1 do wanted[#wanted + 1] = -n end
    assert.are.same(wanted, order)
  end)

  it("S3: an error comes up through 100,000 tasks", function()
    local n = os.getenv("ASYNCTASK_SANITIZER") and 10000 or 100000
    local err = {}
    local function deep(left)
      if left == 0 then
        error(err)
      end
      return 1 + await(spawn(deep, left - 1))
    end
    do
      local t = spawn(deep, n)
      local _, got = task.try(t)
      assert.are.equal(err, got)
      assert.is_string(t:traceback())
    end
    collectgarbage()
    collectgarbage()
  end)

  it("S1: takes await itself as the function", function()
    assert.are.same({ "a", "b" }, { await(spawn(await, task.delay(0.001, "a", "b"))) })
  end)

  it("S1: keeps the results and errors of deeply nested starts apart", function()
    local function deep(n)
      if n == 100 then
        error({ level = n })
      end
      local t = spawn(deep, n + 1)
      local ok, err = pcall(await, t)
      if n % 2 == 0 then
        return ok, err
      end
      if not ok then
        error(err, 0)
      end
      error({ level = n, below = err })
    end
    local t = spawn(deep, 1)
    assert.are.equal(1, t:error().level)
    assert.is_false((pcall(await, t)))
  end)

  it("S1: nested through callbacks of C, a start is queued instead of failing", function()
    local started = 0
    local tasks = {}
    local function deep(n)
      started = started + 1
      if n == 0 then
        return
      end
      local _ = ("x"):gsub(".", function()
        tasks[#tasks + 1] = spawn(deep, n - 1)
      end)
    end
    tasks[1] = spawn(deep, 300)
    for round = 1, 300 do
      if started == 301 then
        break
      end
      await(task.yield())
      assert.is_true(round < 300)
    end
    assert.are.equal(301, started)
    for _, t in ipairs(tasks) do
      assert.are.equal("succeeded", t:status())
    end
  end)

  it("S1: nested through metamethods, too", function()
    local started = 0
    local proxy = setmetatable({}, {
      __index = function(self, n)
        started = started + 1
        if n > 0 then
          spawn(function() return self[n - 1] end)
        end
        return true
      end,
    })
    local t = spawn(function() return proxy[400] end)
    for _ = 1, 400 do
      if started == 401 then
        break
      end
      await(task.yield())
    end
    assert.is_true(await(t))
    assert.are.equal(401, started)
  end)

  it("S1: runs out of Lua's stack inside a task as an error of that task", function()
    local function endless(...)
      return 1 + endless(...)
    end
    local t = spawn(endless)
    assert.are.equal("faulted", t:status())
    assert.matches("stack overflow", t:error())
    assert.are.equal(1, await(spawn(function() return 1 end)))
  end)

  it("S1: a task may start tasks from a finalizer", function()
    local ran = false
    setmetatable({}, { __gc = function() spawn(function() ran = true end) end })
    collectgarbage()
    collectgarbage()
    for _ = 1, 10 do
      if ran then
        break
      end
      await(task.yield())
    end
    assert.is_true(ran)
  end)
end)

describe("async", function()
  it("S1: makes a function that starts the function and returns its Task", function()
    local add = task.async(function(a, b)
      await(task.yield())
      return a + b
    end)
    local t = add(2, 3)
    assert.is_true(task.is_task(t))
    assert.are.equal("pending", t:status())
    assert.are.equal(5, await(t))
    assert.are.equal(9, await(add(4, 5)))
  end)

  it("S1: an error faults the Task and is not raised by the call", function()
    local t = task.async(function() error("no", 0) end)()
    assert.are.equal("no", t:error())
  end)

  it("S1: calls may be nested 10,000 deep", function()
    local deep
    deep = task.async(function(n)
      return n == 0 and 0 or 1 + await(deep(n - 1))
    end)
    assert.are.equal(10000, await(deep(10000)))
  end)

  it("works as a method", function()
    local class = {}
    class.__index = class
    class.get = task.async(function(self, key)
      await(task.yield())
      return self[key]
    end)
    assert.are.equal(7, await(setmetatable({ x = 7 }, class):get("x")))
  end)
end)

describe("a task about itself", function()
  it("current is the task that runs, and nil on the main chunk", function()
    assert.is_nil(task.current())
    local inner, outer, again
    local t = spawn(function()
      outer = task.current()
      await(spawn(function()
        inner = task.current()
      end))
      await(task.yield())
      again = task.current()
    end)
    await(t)
    assert.are.equal(t, outer)
    assert.are.equal(t, again)
    assert.are_not.equal(inner, outer)
    assert.is_true(task.is_task(inner))
    assert.is_nil(task.current())
  end)

  it("is_task knows tasks of every kind", function()
    local s = task.source()
    local list = { spawn(function() end), task.delay(0), task.yield(), s.task, task.from_result(1),
      task.when_all(), task.from_result() }
    for i, t in ipairs(list) do
      assert.is_true(task.is_task(t), "number " .. i)
    end
    s:set_result()
    await(list[2])
    await(list[3])
    for _, v in ipairs({ 1, "x", {}, print, io.stdout, s, coroutine.create(print), true }) do
      assert.is_false(task.is_task(v))
    end
    assert.is_false(task.is_task(nil))
  end)

  it("status and done follow the states (S5)", function()
    local s = task.source()
    assert.are.equal("pending", s.task:status())
    assert.is_false(s.task:done())
    s:set_result(1)
    assert.are.equal("succeeded", s.task:status())
    assert.is_true(s.task:done())
    local faulted, cancelled = task.from_error("e"), task.from_cancelled("why")
    assert.are.equal("faulted", faulted:status())
    assert.are.equal("e", faulted:error())
    assert.are.equal("cancelled", cancelled:status())
    assert.is_true(cancelled:done())
  end)

  it("result gives the values, raises the error, and refuses while it is pending", function()
    local s = task.source()
    assert.has_error(function() s.task:result() end)
    s:set_result("a", nil, "c")
    assert.are.same(table.pack("a", nil, "c"), table.pack(s.task:result()))
    local err = {}
    local t = task.from_error(err)
    local ok, got = pcall(t.result, t)
    assert.is_false(ok)
    assert.are.equal(err, got)
  end)

  it("error and errors are empty for one that is pending or succeeded", function()
    local s = task.source()
    assert.is_nil(s.task:error())
    assert.are.same({}, s.task:errors())
    s:set_result(1)
    assert.is_nil(s.task:error())
    assert.are.same({}, s.task:errors())
    local t = task.from_error("e")
    assert.are.equal("e", t:error())
    assert.are.same({ "e" }, t:errors())
  end)

  it("named gives it a name, and returns the task", function()
    local t = spawn(function() await(task.yield()) end)
    assert.is_nil(t:name())
    assert.are.equal(t, t:named("worker"))
    assert.are.equal("worker", t:name())
    assert.matches("worker", tostring(t))
    t:named("other")
    assert.are.equal("other", t:name())
    await(t)
    assert.are.equal("other", t:name())
  end)

  it("a name given to one task is not another's", function()
    local a, b = task.from_result(), task.from_result()
    a:named("a")
    assert.is_nil(b:name())
    assert.is_nil(task.from_result():name())
    local x, y = task.yield(), task.yield()
    x:named("x")
    assert.is_nil(y:name())
    await(x)
  end)

  it("tasks lists those that live, with what they wait for and where", function()
    assert.are.same({}, task.tasks())
    local s = task.source()
    local a = spawn(function() await(s.task) end):named("first")
    local b = spawn(function() await(a) end):named("second")
    local function find(t)
      for _, entry in ipairs(task.tasks()) do
        if entry.task == t then
          return entry
        end
      end
    end
    assert.is_table(find(a))
    assert.matches("first", find(a).name)
    assert.matches("spawn_spec%.lua:%d+", find(a).where)
    assert.matches("first", find(b).waits_for)
    s:set_result()
    await(b)
    assert.are.same({}, task.tasks())
  end)

  it("methods refuse what is no Task", function()
    local t = task.from_result()
    for _, name in ipairs({ "status", "done", "result", "error", "errors", "cancel", "await", "try",
      "timeout", "continue_with", "traceback", "name", "named" }) do
      local ok, err = pcall(t[name], {}, "x")
      assert.is_false(ok, name)
      assert.matches("Task expected", tostring(err))
    end
  end)
end)

describe("memory", function()
  it("S14: a million tasks, each awaited, leave nothing", function()
    local n = os.getenv("ASYNCTASK_SANITIZER") and 50000 or 1000000
    local function f(i) return i end
    for i = 1, 1000 do await(spawn(f, i)) end
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for i = 1, n do
      await(spawn(f, i))
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 64)
  end)

  it("S14: neither do 100,000 that really waited", function()
    local n = os.getenv("ASYNCTASK_SANITIZER") and 5000 or 100000
    local function f(i)
      await(task.yield())
      return i
    end
    local function batch(count)
      local list = {}
      for i = 1, count do list[i] = spawn(f, i) end
      await(task.when_all(list))
    end
    batch(100)
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, n // 100 do
      batch(100)
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 256)
  end)
end)
