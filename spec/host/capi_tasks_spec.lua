-- The C API: tasks. A C module of somebody else's (spec/c/apimodule.c) uses them.

local task = require "asynctask"
local api = require("spec.support.cc").load "apimodule"
local child = require "spec.support.child"
local await = task.await

local PENDING, SUCCEEDED, FAULTED, CANCELLED, NOT_A_TASK = 0, 1, 2, 3, -1

describe("tasks for C", function()
  it("S1: spawn runs a function at once, until its first wait", function()
    local seen = {}
    local t = api.spawn(function(...)
      seen[1] = table.pack(...)
      await(task.yield())
      seen[2] = true
      return ...
    end, 1, nil, "three")
    assert.same({ 1, nil, "three", n = 3 }, seen[1])
    assert.is_nil(seen[2])
    assert.same({ 1, nil, "three", n = 3 }, table.pack(await(t)))
    assert.is_true(seen[2])
  end)

  it("S1: an error in the function faults the Task, and so does what cannot be called", function()
    local t = api.spawn(function() error "boom" end)
    assert.equal("faulted", t:status())
    assert.matches("boom", t:error())
    t = api.spawn(42)
    assert.matches("attempt to call a number value", t:error())
  end)

  it("S1: nested deeply the start is queued, and nothing overflows", function()
    local function deep(n)
      if n == 0 then return 0 end
      return 1 + await(api.spawn(deep, n - 1))
    end
    assert.equal(1000, await(task.spawn(deep, 1000)))
  end)

  it("S8: a spawned Task belongs to nobody", function()
    local inner
    local outer = task.spawn(function()
      inner = api.spawn(function() return await(task.delay(0.001, "inner")) end)
      await(task.delay(50))
    end)
    outer:cancel()
    task.try(outer)
    assert.equal("cancelled", outer:status())
    assert.equal("inner", await(inner))
  end)

  it("says the state of a Task, and that another value is none", function()
    local slow = task.delay(50)
    assert.equal(PENDING, api.state(slow))
    slow:cancel()
    assert.equal(CANCELLED, api.state(slow))
    assert.equal(SUCCEEDED, api.state(task.from_result()))
    local fault = task.from_error("e")
    assert.equal(FAULTED, api.state(fault))
    fault:error()
    for _, value in ipairs { 1, "x", {}, print, io.stdout, coroutine.create(print) } do
      assert.equal(NOT_A_TASK, api.state(value))
    end
    assert.equal(NOT_A_TASK, api.state(nil))
  end)

  it("gives values, the error, or neither", function()
    assert.same({ 3, 1, nil, 3, n = 4 }, table.pack(api.values(task.from_result(1, nil, 3))))
    assert.same({ 0, n = 1 }, table.pack(api.values(task.from_result())))
    assert.same({ -1, "e", n = 2 }, table.pack(api.values(task.from_error("e"))))
    local n, err = api.values(task.from_cancelled("why"))
    assert.equal(-1, n)
    assert.equal("why", err.reason)
    local slow <close> = setmetatable({ t = task.delay(50) }, { __close = function(self) self.t:cancel() end })
    assert.same({ -2, n = 1 }, table.pack(api.values(slow.t)))
    assert.has_error(function() api.values(12) end, "asynctask_task_values: Task expected, got number")
  end)

  it("cancels once, with a reason", function()
    local t = task.delay(50)
    assert.is_true(api.cancel(t, "enough"))
    assert.is_false(api.cancel(t, "again"))
    assert.equal("enough", t:error().reason)
    t = task.delay(50)
    assert.is_true(api.cancel(t))
    assert.is_nil(t:error().reason)
    assert.has_error(function() api.cancel({}) end, "asynctask_task_cancel: Task expected, got table")
  end)

  it("makes error objects", function()
    local e = api.error("ENOENT", "op", nil)
    assert.equal("op: no such file or directory (ENOENT)", tostring(e))
    assert.equal("mine (EMINE)", tostring(api.error("EMINE", nil, "mine")))
    assert.equal("error (EMINE)", tostring(api.error("EMINE")))
    assert.equal("UNKNOWN", api.error().code)
  end)

  it("has words for a status", function()
    assert.equal("no error", api.strerror(0))
    assert.equal("operation canceled", api.strerror(-125))
    assert.equal("unknown error", api.strerror(-77777))
    assert.equal("unknown error", api.strerror(5))
  end)
end)

describe("on_settled", function()
  it("S4: calls from the ready queue, in the order of the calls, with the values or the error", function()
    local seen = {}
    local t = task.delay(0.001, "a", nil, "c")
    for i = 1, 3 do
      api.on_settled(t, function(...) seen[#seen + 1] = table.pack(i, ...) end)
    end
    api.on_settled(task.from_error("e"), function(...) seen[#seen + 1] = table.pack(...) end)
    assert.same({}, seen)
    await(t)
    await(task.yield())
    assert.same({ { FAULTED, "e", n = 2 }, { 1, SUCCEEDED, "a", nil, "c", n = 5 },
      { 2, SUCCEEDED, "a", nil, "c", n = 5 }, { 3, SUCCEEDED, "a", nil, "c", n = 5 } }, seen)
    assert.equal(0, api.counts().alive)
  end)

  it("sees a cancellation, and a Task of every kind", function()
    local seen = {}
    local source = task.source()
    local function see(name) return function(state, ...) seen[name] = table.pack(state, ...) end end
    local slow = task.delay(50)
    api.on_settled(slow, see "cancelled")
    api.on_settled(source.task, see "source")
    api.on_settled(task.yield(), see "yield")
    api.on_settled(task.spawn(function() await(task.yield()) return "coroutine" end), see "coroutine")
    api.on_settled(task.when_all(task.delay(0, 1), task.delay(0, 2)), see "combination")
    slow:cancel("why")
    source:set_result("s")
    await(task.delay(0.002))
    await(task.yield())
    assert.equal(CANCELLED, seen.cancelled[1])
    assert.equal("why", seen.cancelled[2].reason)
    assert.same({ SUCCEEDED, "s", n = 2 }, seen.source)
    assert.same({ SUCCEEDED, n = 1 }, seen.yield)
    assert.same({ SUCCEEDED, "coroutine", n = 2 }, seen.coroutine)
    assert.same({ SUCCEEDED, 1, 2, n = 3 }, seen.combination)
  end)

  it("S15: counts as a look at the fault; an error of the callback is reported", function()
    local reports = {}
    local before = task.on_unobserved(function(e) reports[#reports + 1] = tostring(e) end)
    finally(function() task.on_unobserved(before) end)
    do
      local t = task.spawn(function() await(task.yield()) error("seen", 0) end)
      api.on_settled(t, function() error("of the callback", 0) end)
      api.on_settled(task.from_error("seen, too"), function() end)
    end
    for _ = 1, 5 do await(task.yield()) collectgarbage() end
    assert.same({ "of the callback" }, reports)
  end)

  it("raises for another value", function()
    assert.has_error(function() api.on_settled(1, print) end, "asynctask_on_settled: Task expected, got number")
  end)

  it("may spawn, and await in a task", function()
    local done
    api.on_settled(task.from_result(1), function()
      task.spawn(function() await(task.delay(0.001)) done = true end)
    end)
    await(task.delay(0.01))
    assert.is_true(done)
  end)
end)

describe("await in a C function", function()
  it("S3: gives the values to the continuation, waited for or not", function()
    assert.same({ 2, "a", "b", n = 3 }, table.pack(api.await(task.from_result("a", "b"))))
    assert.same({ 2, "a", "b", n = 3 }, table.pack(api.await(task.delay(0.001, "a", "b"))))
    local t = task.spawn(function() return api.await(task.delay(0.001, "a", nil)) end)
    assert.same({ 2, "a", nil, n = 3 }, table.pack(await(t)))
    assert.same({ 0, n = 1 }, table.pack(await(task.spawn(function() return api.await(task.yield()) end))))
  end)

  it("S2: takes a value with __await, and no other", function()
    local value = setmetatable({}, { __await = function() return task.delay(0, "v") end })
    assert.same({ 1, "v" }, { api.await(value) })
    assert.has_error(function() api.await(5) end, "bad argument #1 to '?' (Task expected, got number)")
  end)

  it("S3: raises the very error", function()
    local e = {}
    local _, raised = pcall(api.await, task.from_error(e))
    assert.equal(e, raised)
    local t = task.spawn(function()
      local ok, other = pcall(api.await, task.spawn(function() await(task.yield()) error(e) end))
      return ok, other
    end)
    assert.same({ false, e }, { await(t) })
    assert.equal(e, select(2, await(t)))
  end)

  it("S2: many in a row neither starve others nor grow the C stack", function()
    local turns, stop = 0, false
    task.spawn(function() while not stop do turns = turns + 1 await(task.yield()) end end)
    await(task.spawn(function() api.await_often(task.from_result(), 100000) end))
    stop = true
    assert.is_true(turns > 10)
    await(task.yield())
  end)

  it("S9: raises the cancellation of its scope", function()
    local err
    local t = task.spawn(function()
      local ok, e = pcall(api.await, task.delay(50))
      err = not ok and e
      api.await(task.delay(50))
    end)
    t:cancel("stop")
    local _, e = task.try(t)
    assert.equal("stop", e.reason)
    assert.equal(e, err)
    assert.equal("cancelled", t:status())
  end)

  it("S16: raises the deadlock on the main chunk", function()
    local s = task.source()
    local ok, e = pcall(api.await, s.task)
    assert.is_false(ok)
    assert.matches("deadlock", e)
    s:set_result()
  end)

  it("S17: says why it cannot wait where Lua cannot yield", function()
    local slow = task.source()
    local t = task.spawn(function()
      table.sort({ 1, 2, 3 }, function() api.await(slow.task) end)
    end)
    assert.matches("await inside a function called by 'sort'", t:error())
    t = task.spawn(function() coroutine.wrap(function() api.await(slow.task) end)() end)
    assert.matches("await inside a coroutine that is not a task's", t:error())
    slow:set_result()
  end)
end)

describe("closing the state", function()
  it("S18: calls those of on_settled without a state, once each", function()
    local output, code = child.lua(([[
      package.cpath = %q .. "/?.so;" .. package.cpath
      local task, api
      sentinel = setmetatable({}, {__gc = function() local c = api.counts() print(c.closed, c.alive) end}) -- runs last
      task, api = require "asynctask", require "apimodule"

      task.on_unobserved(function() end)
      for _ = 1, 3 do api.on_settled(task.delay(50), print) end
      api.on_settled(task.from_result(), print)
      local t = task.spawn(function() task.await(task.yield()) end)
      api.on_settled(t, function(state) print("called", state) end)
      task.await(t)
      task.await(task.yield())
      api.on_settled(task.from_result(), print)
      os.exit(true, true)
    ]]):format(require("spec.support.cc").module "apimodule"))
    assert.equal("1\ncalled\t1\n4\t0\n", output)
    assert.equal(0, code, output)
  end)
end)
