-- Specs of when_all (S6), when_any, race and when_each (S7).

local task = require "asynctask"

local await, spawn = task.await, task.spawn

local function later(...)
  return spawn(function(...)
    await(task.yield())
    return ...
  end, ...)
end

local function failing(err)
  return spawn(function()
    await(task.yield())
    error(err, 0)
  end)
end

describe("when_all", function()
  it("S6: arguments in, values out, the first of each", function()
    assert.are.same(table.pack(1, "b", nil), table.pack(await(task.when_all(later(1, 2), later("b"), later()))))
    assert.are.same(table.pack(nil, nil), table.pack(await(task.when_all(later(), later()))))
    assert.are.same(table.pack("x"), table.pack(await(task.when_all(later("x", "y")))))
  end)

  it("S6: one table in, one table out, keys kept", function()
    local r = await(task.when_all({ a = later(1), b = later(2), [true] = task.from_result(3) }))
    assert.are.equal(1, r.a)
    assert.are.equal(2, r.b)
    assert.are.equal(3, r[true])
  end)

  it("S6: sequences have n, whatever is nil in them", function()
    local r = await(task.when_all({ later(1), later(nil), later() }))
    assert.are.equal(3, r.n)
    assert.are.equal(1, r[1])
    assert.is_nil(r[2])
    assert.is_nil(r[3])
    assert.are.equal(1, await(task.when_all({ later("x") })).n)
  end)

  it("S6: empty succeeds at once", function()
    assert.are.equal("succeeded", task.when_all():status())
    assert.are.equal(0, select("#", await(task.when_all())))
    local r = await(task.when_all({}))
    assert.is_table(r)
    assert.is_nil(next(r, "n"))
    assert.are.equal(0, r.n)
  end)

  it("S6: leaves the table it was given as it was", function()
    local a, b = later(1), later(2)
    local list = { a, b }
    local t = task.when_all(list)
    list[1], list[3] = nil, "junk"
    local r = await(t)
    assert.are.equal(1, r[1])
    assert.are.equal(2, r[2])
    assert.are.equal(2, r.n)
    assert.are_not.equal(list, r)
  end)

  it("S6: the same task may stand in it twice", function()
    local t = later("v")
    assert.are.same({ "v", "v" }, { await(task.when_all(t, t)) })
    assert.are.same({ "v", "v" }, { await(task.when_all(t, t)) })
  end)

  it("S6: waits for all, even after a fault", function()
    local s = task.source()
    local t = task.when_all(task.from_error("early"), s.task)
    await(task.yield())
    await(task.yield())
    assert.are.equal("pending", t:status())
    s:set_result(1)
    local ok, err = pcall(await, t)
    assert.is_false(ok)
    assert.are.equal("early", err)
    assert.are.equal("faulted", t:status())
  end)

  it("S6: raises the first error in argument order, whatever came first in time", function()
    local a, b, c = task.source(), task.source(), task.source()
    local t = task.when_all(a.task, b.task, c.task)
    c:set_error("third")
    b:set_error("second")
    a:set_result()
    local ok, err = pcall(await, t)
    assert.is_false(ok)
    assert.are.equal("second", err)
    assert.are.same({ "second", "third" }, t:errors())
    assert.are.equal("second", t:error())
  end)

  it("S6: keeps the identity of the error", function()
    local err = {}
    local t = task.when_all(later(1), failing(err))
    assert.is_true(rawequal(err, select(2, pcall(await, t))))
    assert.is_true(rawequal(err, t:errors()[1]))
  end)

  it("S6: a fault wins over cancellations, and a cancellation over success", function()
    local t = task.when_all(task.from_cancelled("c"), failing("f"), later(1))
    assert.are.same({ nil, "f" }, { task.try(t) })
    assert.are.equal("faulted", t:status())
    local u = task.when_all(later(1), task.from_cancelled("c"), later(2))
    local _, err = task.try(u)
    assert.is_true(task.is_cancelled(err))
    assert.are.equal("c", err.reason)
    assert.are.equal("cancelled", u:status())
  end)

  it("S6: an error nil among the errors does not hide the others", function()
    local t = task.when_all(task.from_error(nil), task.from_error("b"))
    local ok, err = pcall(await, t)
    assert.is_false(ok)
    assert.is_nil(err)
    assert.are.equal("faulted", t:status())
  end)

  it("S6: counts the faults of its members as seen when its own is seen (S15)", function()
    local reports = 0
    local old = task.on_unobserved(function() reports = reports + 1 end)
    do
      local t = task.when_all(failing("a"), failing("b"))
      assert.is_false((pcall(await, t)))
    end
    collectgarbage()
    collectgarbage()
    await(task.yield())
    await(task.yield())
    task.on_unobserved(old)
    assert.are.equal(0, reports)
  end)

  it("S8: cancelling it leaves its members alone", function()
    local s = task.source()
    local member = later("m")
    local t = task.when_all(s.task, member)
    assert.is_true(t:cancel("no more"))
    assert.are.equal("cancelled", t:status())
    assert.are.equal("pending", s.task:status())
    assert.are.equal("m", await(member))
    assert.are.equal("no more", t:error().reason)
    s:set_result()
  end)

  it("takes thousands", function()
    local list = {}
    for i = 1, 5000 do list[i] = later(i) end
    local r = await(task.when_all(list))
    for i = 1, 5000 do
      if r[i] ~= i then
        assert.are.equal(i, r[i])
      end
    end
    assert.are.equal(5000, r.n)
  end)

  it("S22: refuses what is no Task, naming the place", function()
    local ok, err = pcall(task.when_all, task.from_result(), 1)
    assert.is_false(ok)
    assert.matches("bad argument #2 to '[%w.]*when_all'", err)
    assert.matches("Task expected", err)
    local fine, message = pcall(task.when_all, { task.from_result(), "x" })
    assert.is_false(fine)
    assert.matches("Task expected", message)
    assert.matches("2", message)
  end)
end)

describe("when_any", function()
  it("S7: gives the first settled task and its key", function()
    local a, b = task.source(), later("b")
    local t, i = await(task.when_any({ a.task, b }))
    assert.are.equal(b, t)
    assert.are.equal(2, i)
    assert.are.equal("pending", a.task:status())
    local u, k = await(task.when_any({ x = a.task, y = b }))
    assert.are.equal(b, u)
    assert.are.equal("y", k)
    local v, n = await(task.when_any(a.task, b))
    assert.are.equal(b, v)
    assert.are.equal(2, n)
    a:set_result()
  end)

  it("S7: of several that have settled, the first in argument order", function()
    local a, b = task.from_result("a"), task.from_result("b")
    local t, i = await(task.when_any({ a, b }))
    assert.are.equal(a, t)
    assert.are.equal(1, i)
  end)

  it("S7: of several that settle in one turn, the first that settled", function()
    local a, b, c = task.source(), task.source(), task.source()
    local t = task.when_any({ a.task, b.task, c.task })
    b:set_result()
    a:set_result()
    c:set_result()
    local _, i = await(t)
    assert.are.equal(2, i)
  end)

  it("S7: succeeds with one that failed, and does not look at its error", function()
    local f = failing("x")
    local t, i = await(task.when_any({ f }))
    assert.are.equal(f, t)
    assert.are.equal(1, i)
    assert.are.equal("x", f:error())
    local c = task.from_cancelled()
    assert.are.equal(c, (await(task.when_any({ c }))))
  end)

  it("S7: the losers go on untouched", function()
    local slow = later("slow")
    local s = task.source()
    await(task.when_any({ task.from_result(), slow, s.task }))
    assert.are.equal("slow", await(slow))
    assert.are.equal("pending", s.task:status())
    s:set_result()
  end)

  it("S7: empty is an error, at once", function()
    for _, call in ipairs({ function() task.when_any() end, function() task.when_any({}) end,
      function() task.race({}) end, function() task.race() end }) do
      assert.is_false((pcall(call)))
    end
    assert.matches("bad argument #1 to '[%w.]*when_any'", (select(2, pcall(task.when_any, {}))))
    assert.matches("bad argument #1 to '[%w.]*race'", (select(2, pcall(task.race, {}))))
  end)

  it("S7: a long-lived loser keeps nothing of 100,000 calls", function()
    local n = os.getenv("ASYNCTASK_SANITIZER") and 5000 or 100000
    local s = task.source()
    local function round()
      await(task.when_any({ s.task, task.from_result(1) }))
      await(task.when_any({ s.task, task.yield() }))
    end
    for _ = 1, 100 do round() end
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, n do round() end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 64)
    s:set_result()
  end)

  it("S7: as long as it is pending, it may be cancelled, and lets go", function()
    local s = task.source()
    local t = task.when_any({ s.task })
    assert.is_true(t:cancel())
    assert.are.equal("cancelled", t:status())
    s:set_result("v")
    assert.are.equal("v", await(s.task))
  end)
end)

describe("race", function()
  it("S7: unwraps the winner and cancels the losers", function()
    local a, b = task.source(), task.source()
    local c = later("c", "and more")
    local r = task.race({ a.task, c, x = b.task })
    assert.are.same({ "c", "and more" }, { await(r) })
    assert.are.equal("cancelled", a.task:status())
    assert.are.equal("cancelled", b.task:status())
  end)

  it("S7: settles as the winner does", function()
    local s = task.source()
    local err = {}
    local r = task.race(s.task, failing(err))
    local ok, got = pcall(await, r)
    assert.is_false(ok)
    assert.are.equal(err, got)
    assert.are.equal("cancelled", s.task:status())
  end)

  it("S7: does not touch a loser that had settled", function()
    local a, b = task.from_result(1), task.from_result(2)
    assert.are.equal(1, await(task.race(a, b)))
    assert.are.equal(2, await(b))
  end)

  it("S7: a loser's clean-up may go on after the race", function()
    local s, cleaned = task.source(), false
    local loser = spawn(function()
      local _ <close> = setmetatable({}, { __close = function()
        task.shield(await, task.yield())
        cleaned = true
      end })
      await(s.task)
    end)
    assert.are.equal("w", await(task.race(loser, later("w"))))
    task.try(loser)
    assert.is_true(cleaned)
    assert.are.equal("cancelled", loser:status())
    s:set_result()
  end)

  it("S22: refuses what is no Task", function()
    assert.matches("bad argument #2 to '[%w.]*race'", (select(2, pcall(task.race, task.from_result(), 3))))
  end)
end)

describe("when_each", function()
  it("S7: visits in the order of settling, with the keys", function()
    local s = {}
    for i = 1, 4 do s[i] = task.source() end
    local list = {}
    for i = 1, 4 do list[i] = s[i].task end
    local order = {}
    local t = spawn(function()
      for one, key in task.when_each(list) do
        assert.are.equal(list[key], one)
        order[#order + 1] = key
      end
    end)
    s[3]:set_result()
    s[1]:set_error("e")
    await(task.yield())
    s[4]:set_cancelled()
    s[2]:set_result()
    await(t)
    assert.are.same({ 3, 1, 4, 2 }, order)
    list[1]:error()
  end)

  it("S7: takes settled ones first, in argument order, and a table with keys", function()
    local pending = later()
    local order = {}
    for _, key in task.when_each({ pending, task.from_result(), task.from_result() }) do
      order[#order + 1] = key
    end
    assert.are.same({ 2, 3, 1 }, order)
    local keys = {}
    for t, key in task.when_each({ a = task.from_result("A"), b = task.from_result("B") }) do
      keys[key] = await(t)
    end
    assert.are.same({ a = "A", b = "B" }, keys)
  end)

  it("S7: empty visits nothing", function()
    for _ in task.when_each({}) do
      error("visited")
    end
  end)

  it("S26: leaving the loop early lets go of the rest", function()
    local s = task.source()
    for t in task.when_each({ s.task, task.from_result(1) }) do
      assert.are.equal(1, await(t))
      break
    end
    assert.are.equal("pending", s.task:status())
    s:set_result()
  end)

  it("S26: next gives a Task of the same", function()
    local a = later("a")
    local each = task.when_each({ a })
    local t, key = await(each:next())
    assert.are.equal(a, t)
    assert.are.equal(1, key)
    assert.is_nil((await(each:next())))
  end)
end)
