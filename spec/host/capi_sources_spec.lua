-- The C API: completion sources, and values made without Lua. A C module of somebody else's
-- (spec/c/apimodule.c) uses them.

local task = require "asynctask"
local api = require("spec.support.cc").load "apimodule"
local child = require "spec.support.child"
local await = task.await

--- How the counts of callbacks have changed since it was called.
local function counting()
  local before = api.counts()
  return function()
    local now, changed = api.counts(), {}
    for _, name in ipairs { "cancelled", "released", "alive" } do changed[name] = now[name] - before[name] end
    return changed
  end
end

--- Until all that was posted has come: what is alive is `n` again.
local function settled(alive)
  for _ = 1, 1000 do
    if api.counts().alive == alive then return end
    await(task.delay(0.001))
  end
end

for _, kind in ipairs { "local", "of any thread" } do
  local is_local = kind == "local"
  local function source(name) return api.source(name, is_local) end

  describe("a source, " .. kind, function()
    it("settles its Task with values; the first one takes effect", function()
      local changes = counting()
      local t, s = source()
      assert.equal("pending", t:status())
      assert.is_true(s:wanted())
      assert.is_true(s:succeed(1, "two", 3.5, true, nil))
      assert.is_false(s:wanted())
      assert.is_false(s:succeed(2))
      assert.is_false(s:fail("EMINE"))
      assert.is_false(s:cancel())
      assert.is_false(s:settle("two"))
      assert.same({ 1, "two", 3.5, true, nil, n = 5 }, table.pack(await(t)))
      assert.same({ cancelled = 0, released = 0, alive = 1 }, changes())
      s:release()
      assert.same({ cancelled = 0, released = 1, alive = 0 }, changes())
    end)

    it("settles without values", function()
      local t, s = source()
      assert.is_true(s:succeed())
      s:release()
      assert.same({ n = 0 }, table.pack(await(t)))
    end)

    it("S22: faults with an error object", function()
      local t, s = source()
      assert.is_true(s:fail("EMINE", "fetch", "out of luck"))
      s:release()
      local _, e = task.try(t)
      assert.equal("fetch: out of luck (EMINE)", tostring(e))
      t, s = source()
      s:fail("ECONNREFUSED")
      s:release()
      _, e = task.try(t)
      assert.same({ "ECONNREFUSED", "connection refused", nil }, { e.code, e.message, e.op })
      t, s = source()
      s:fail()
      s:release()
      assert.equal("UNKNOWN", select(2, task.try(t)).code)
    end)

    it("S5: cancels its Task, with a reason or without", function()
      local t, s = source("n")
      assert.is_true(s:cancel("why"))
      s:release()
      local _, e = task.try(t)
      assert.equal("cancelled", t:status())
      assert.same({ "ECANCELED", "why" }, { e.code, e.reason })
      t, s = source()
      s:cancel()
      s:release()
      _, e = task.try(t)
      assert.equal("cancelled", t:status())
      assert.is_nil(e.reason)
    end)

    it("settles with what a function pushes on the loop thread", function()
      local t, s = source()
      assert.is_true(s:settle("two"))
      s:release()
      local data, two = await(t)
      assert.equal("userdata", type(data))
      assert.equal("two", two)
      t, s = source()
      s:settle("many")
      s:release()
      local many = table.pack(await(t))
      assert.same({ 500, 1, 500 }, { many.n, many[1], many[500] })
    end)

    it("faults with the error that the function pushes or raises", function()
      local t, s = source("it")
      s:settle("error")
      s:release()
      assert.equal("push: an error of mine (EMINE)", tostring(select(2, task.try(t))))
      t, s = source("it")
      s:settle("raises")
      s:release()
      assert.matches("push raises", select(2, task.try(t)))
      t, s = source("it")
      s:settle("lies")
      s:release()
      assert.matches("fewer values than were promised", select(2, task.try(t)))
    end)

    it("may run Lua code in that function, which cancels others, or the Task itself", function()
      local victims = { task.delay(50), (task.source().task) }
      local t, s = source()
      local u, r = source()
      function _G.api_push() -- luacheck: ignore 122
        for _, victim in ipairs(victims) do victim:cancel("by push") end
        local spawned = task.spawn(function() await(task.yield()) return "spawned" end)
        local ok, e = pcall(await, spawned)
        return ok, e, spawned
      end
      finally(function() _G.api_push = nil end) -- luacheck: ignore 122
      s:settle("calls")
      s:release()
      local ok, e, spawned = await(t)
      assert.is_false(ok)
      assert.matches("await inside a callback of the event loop", e)
      assert.equal("by push", victims[1]:error().reason)
      assert.equal("spawned", await(spawned))
      function _G.api_push() -- luacheck: ignore 122
        u:cancel("itself")
        return 1
      end
      r:settle("calls")
      r:release()
      local _, err = task.try(u)
      assert.equal("itself", err.reason)
    end)

    it("S14: faults with EABANDONED when the last reference goes", function()
      local changes = counting()
      local t, s = source("download")
      s:retain()
      s:release(true)
      await(task.yield())
      assert.equal("pending", t:status())
      s:release()
      local _, e = task.try(t)
      assert.equal("EABANDONED", e.code)
      assert.equal("download", e.op)
      assert.same({ cancelled = 0, released = 1, alive = 0 }, changes())
    end)

    it("S10: is told of a cancellation, and can settle no more", function()
      local changes = counting()
      local t, s = source()
      assert.is_true(t:cancel("enough"))
      assert.equal("cancelled", t:status())
      assert.same({ cancelled = 1, released = 0, alive = 1 }, changes())
      assert.is_false(s:wanted())
      assert.is_false(s:succeed(1))
      s:release()
      assert.same({ cancelled = 1, released = 1, alive = 0 }, changes())
      assert.equal("enough", t:error().reason)
    end)

    it("S8: belongs to the running scope", function()
      local changes, inner, source_of = counting()
      local t = task.spawn(function()
        inner, source_of = source()
        await(task.delay(50))
      end)
      t:cancel()
      assert.equal("cancelled", inner:status())
      assert.equal(1, changes().cancelled)
      source_of:release()
      await(task.yield())
    end)

    it("S10: is cancelled already in a cancelled scope; its data is let go all the same", function()
      local changes = counting()
      local status, wanted
      local t = task.spawn(function()
        pcall(await, task.delay(50))
        local inner, s = source()
        status, wanted = inner:status(), s:wanted()
        assert(not s:succeed(1))
        s:release()
      end)
      t:cancel()
      task.try(t)
      assert.equal("cancelled", status)
      assert.is_false(wanted)
      assert.same({ cancelled = 0, released = 1, alive = 0 }, changes())
    end)

    it("shows its name in dumps and in reports", function()
      local t, s = source("the download")
      assert.matches("source the download", tostring(t))
      local waiting = task.spawn(await, t)
      assert.matches("source the download", task.dump())
      s:succeed()
      s:release()
      await(waiting)
      local names = {}
      local before = task.on_unobserved(function(_, trace) names[#names + 1] = trace end)
      finally(function() task.on_unobserved(before) end)
      t, s = nil, select(2, source("the download"))
      assert.is_nil(t)
      s:fail("EMINE")
      s:release()
      for _ = 1, 500 do
        await(task.delay(0.001))
        collectgarbage()
        if #names > 0 then break end
      end
      assert.equal(1, #names)
      assert.matches("the download", names[1])
    end)
  end)
end

describe("a source", function()
  it("S16: of any thread is no deadlock; a local one is, when nothing of the loop is left", function()
    local t, s = api.source("slow")
    local waiter = task.spawn(function() return await(t) end)
    await(task.delay(0.002))
    assert.equal("pending", waiter:status())
    s:succeed(1)
    s:release()
    assert.equal(1, await(waiter))
    t, s = api.source("stuck", true)
    local ok, e = pcall(await, t)
    assert.is_false(ok)
    assert.matches("deadlock: the main chunk waits for source stuck", e)
    s:succeed()
    s:release()
    await(t)
  end)

  it("settles from eight threads at once", function()
    local changes = counting()
    local threads, each = 8, child.sanitizer() and 500 or 12500
    local tasks = api.crowd(threads, each)
    local counts = { n = 0 }
    for i, t in ipairs(tasks) do
      local a, b = task.try(t)
      local what = a == nil and type(b) == "table" and b.code or a ~= nil and "values" or "none"
      counts[what] = (counts[what] or 0) + 1
      if what == "values" and (a ~= (i - 1) % each or b ~= "some text") then error("wrong values") end
    end
    api.join()
    local fifth = threads * each // 5
    assert.same({ n = 0, values = fifth, EMINE = fifth, none = fifth, ECANCELED = fifth, EABANDONED = fifth }, counts)
    assert.same({ cancelled = 0, released = threads * each, alive = 0 }, changes())
  end)

  it("is cancelled while threads settle it", function()
    local changes = counting()
    local threads, each = 4, child.sanitizer() and 200 or 2000
    local tasks = api.crowd(threads, each)
    local cancelled = 0
    for i = #tasks, 1, -1 do
      if tasks[i]:cancel() then cancelled = cancelled + 1 end
      if i % 100 == 0 then await(task.yield()) end
    end
    api.join()
    for _, t in ipairs(tasks) do
      task.try(t)
      assert(t:status() ~= "pending")
    end
    settled(api.counts().alive - changes().alive)
    local c = changes()
    assert.same({ threads * each, 0 }, { c.released, c.alive })
    assert.is_true(c.cancelled <= cancelled)
  end)

  it("is settled by exactly one of two", function()
    local n = child.sanitizer() and 50 or 500
    assert.equal(n, api.duels(n))
    await(task.delay(0.002))
  end)
end)

describe("closing the state", function()
  local cc = require "spec.support.cc"

  it("S18: is safe while threads settle sources, and lets go of all data", function()
    for _, how in ipairs { "", "api.join()", "task.await(task.yield())" } do
      local output, code = child.lua(([[
        package.cpath = %q .. "/?.so;" .. package.cpath
        local task, api
        sentinel = setmetatable({}, {__gc = function() for _ = 1, 1000 do
          if api.counts().alive + api.counts().busy == 0 then break end
          os.execute("sleep 0.01") end io.write(api.counts().alive, " alive\n") end})
        task, api = require "asynctask", require "apimodule"
        task.on_unobserved(function() end)
        local tasks = api.crowd(8, 200)
        local held = {api.source("held")}
        local both = {api.source("both", true)}
        %s
        os.exit(true, true)
      ]]):format(cc.module "apimodule", how))
      assert.equal(0, code, output)
      assert.equal("0 alive\n", output)
    end
  end)
end)

describe("values", function()
  it("come as they were written", function()
    local written = { 1, 2, 3, x = { y = { z = "deep" } }, [2.5] = true, [true] = -1, [-7] = math.mininteger }
    local t = api.write(written, "nil", "", ("long"):rep(10000), math.maxinteger, 1 / 3, -0.0, false)
    local got = table.pack(await(t))
    assert.equal(8, got.n)
    assert.same(written, got[1])
    assert.same({ "", ("long"):rep(10000), math.maxinteger, 1 / 3, -0.0, false }, { table.unpack(got, 3) })
    assert.equal("integer", math.type(got[1][1]))
    assert.equal("float", math.type(got[7]))
    assert.equal("\0a\0", await(api.write("\0a\0")))
  end)

  it("make tables of many entries, sequences and others", function()
    local list, map = {}, {}
    for i = 1, 5000 do list[i], map["k" .. i] = i, i end
    local a, b = await(api.write(list, map))
    assert.same(list, a)
    assert.same(map, b)
  end)

  it("may have a table as a key, and nil as a value of one", function()
    local t = await(api.write("table", "table", 1, 2, "end", "v", "k", "nil", "end"))
    local k, v = next(t)
    assert.same({ [1] = 2 }, k)
    assert.equal("v", v)
    assert.is_nil(next(t, k))
  end)

  it("nest up to 100 deep", function()
    local calls = {}
    for i = 1, 100 do calls[2 * i - 1], calls[2 * i] = "table", 1 end
    calls[200] = nil
    for _ = 1, 100 do calls[#calls + 1] = "end" end
    -- the innermost is empty: its key 1 was never written
    local t, depth = await(api.write(table.unpack(calls))), 0
    while t do t, depth = t[1], depth + 1 end
    assert.equal(100, depth)
    local deeper = {}
    for i = 1, 101 do deeper[2 * i - 1], deeper[2 * i] = "table", 1 end
    local _, e = task.try(api.write(table.unpack(deeper)))
    assert.same({ "EINVAL", "tables nested more than 100 deep", "written" }, { e.code, e.message, e.op })
  end)

  it("written wrongly fault the Task with words that say how", function()
    local function wrong(...)
      local _, e = task.try(api.write(...))
      assert.equal("EINVAL", e.code)
      return e.message
    end
    assert.equal("the end of a table that was not begun", wrong("end"))
    assert.equal("the end of a table that was not begun", wrong("table", "end", "end"))
    assert.equal("a key of a table without a value", wrong("table", 1, "end"))
    assert.equal("a key of a table is nil or NaN", wrong("table", "nil", 1, "end"))
    assert.equal("a key of a table is nil or NaN", wrong("table", "nan", 1, "end"))
    assert.equal("a table was begun and not ended", wrong("table", 1, 2))
    assert.equal("the end of a table that was not begun", wrong("end", "table", "nil")) -- the first counts
  end)
end)
