-- Specs of groups: tasks that end together (S13), in both forms.

local task = require "asynctask"
local testing = require "asynctask.testing"

local await, spawn = task.await, task.spawn

local function never()
  return task.delay(math.huge)
end

-- A function that waits for ever and notes how it was left.
local function noting(log, name)
  return function()
    local _ <close> = setmetatable({}, { __close = function(_, e)
      log[#log + 1] = name
      log[name] = e
    end })
    await(never())
  end
end

-- The names in a log, in order of the notes, or sorted.
local function names(log, sorted)
  local list = { table.unpack(log) }
  if sorted then table.sort(list) end
  return list
end

-- The same body in both forms: with_group, and a <close> variable. What is particular to one is not here.
local forms = {
  with_group = function(opts, f)
    return task.with_group(opts, f)
  end,
  group = function(opts, f)
    local g <close> = task.group(opts)
    return f(g)
  end,
}

for name, run in pairs(forms) do
  describe(name, function()
    it("S13: leaving waits for all members", function()
      local ended = 0
      run(nil, function(g)
        for i = 1, 5 do
          g:spawn(function()
            for _ = 1, i do await(task.yield()) end
            ended = ended + 1
          end)
        end
        assert.are.equal(0, ended)
      end)
      assert.are.equal(5, ended)
    end)

    it("S13: gives the values of its body when nothing went wrong", function()
      assert.are.same({ 1, nil, 3, n = 3 }, table.pack(run(nil, function(g)
        g:spawn(function() await(task.yield()) end)
        return 1, nil, 3
      end)))
      assert.are.equal(0, select("#", run(nil, function() end)))
    end)

    it("S13: the first fault cancels the others and is raised on leaving, the very value", function()
      local err, log = {}, {}
      local ok, got = pcall(run, nil, function(g)
        g:spawn(noting(log, "a"))
        g:spawn(function()
          await(task.yield())
          error(err)
        end)
        g:spawn(noting(log, "b"))
      end)
      assert.is_false(ok)
      assert.are.equal(err, got)
      assert.are.equal(2, #log)
      assert.is_true(task.is_cancelled(log.a))
      assert.is_true(task.is_cancelled(log.b))
    end)

    it("S13: a member that faults while the body still runs interrupts it at its next await", function()
      local where = {}
      local ok, got = pcall(run, nil, function(g)
        g:spawn(function()
          await(task.yield())
          error("member", 0)
        end)
        where[#where + 1] = "before"
        local fine, e = pcall(await, never())
        where[#where + 1] = task.is_cancelled(e) and not fine and "interrupted"
        local again, e2 = pcall(await, task.yield())
        where[#where + 1] = not again and e2 == e and "again"
        return "not given"
      end)
      assert.are.same({ "before", "interrupted", "again" }, where)
      assert.is_false(ok)
      assert.are.equal("member", got)
    end)

    it("S13: a member that faults in its first slice does so, too", function()
      local reached = false
      local ok, got = pcall(run, nil, function(g)
        g:spawn(error, "at once", 0)
        await(never())
        reached = true
      end)
      assert.are.same({ false, "at once", false }, { ok, got, reached })
    end)

    it("S13: a body that raises cancels the members, waits for them, and its error goes on", function()
      local log, cleaned = {}, false
      local ok, got = pcall(run, nil, function(g)
        g:spawn(noting(log, "a"))
        g:spawn(function()
          local _ <close> = setmetatable({}, { __close = function()
            task.shield(task.delay, 0.001)
            cleaned = true
          end })
          await(never())
        end)
        error("body", 0)
      end)
      assert.are.same({ false, "body" }, { ok, got })
      assert.is_true(task.is_cancelled(log.a))
      assert.is_true(cleaned)
    end)

    it("S13: the body's error wins over the faults of members, which count as seen (S15)", function()
      local reports = {}
      local before = task.on_unobserved(function(e) reports[#reports + 1] = e end)
      finally(function() task.on_unobserved(before) end)
      local ok, got = pcall(run, nil, function(g)
        g:spawn(function()
          local _ <close> = setmetatable({}, { __close = function() error("while cleaning up", 0) end })
          await(never())
        end)
        error("body", 0)
      end)
      assert.are.same({ false, "body" }, { ok, got })
      collectgarbage()
      collectgarbage()
      await(task.yield())
      await(task.yield())
      assert.are.same({}, reports)
    end)

    it("S13: of several faults the first in time is raised, and all are in errors", function()
      local group
      local ok, got = pcall(run, nil, function(g)
        group = g
        g:spawn(function()
          for _ = 1, 3 do await(task.yield()) end
          error("late", 0)
        end)
        g:spawn(function()
          local _ <close> = setmetatable({}, { __close = function() error("while cancelled", 0) end })
          await(never())
        end)
        g:spawn(function()
          await(task.yield())
          error("first", 0)
        end)
      end)
      assert.are.same({ false, "first" }, { ok, got })
      local errors = group:errors()
      assert.are.equal("first", errors[1])
      assert.are.equal("while cancelled", errors[2])
      assert.are.equal(2, #errors) -- "late" was cancelled before
    end)

    it("S13: two faults of one turn: both are in errors, in the order of settling", function()
      local group
      local ok, got = pcall(run, nil, function(g)
        group = g
        for i = 1, 3 do
          g:spawn(function()
            await(task.yield())
            error(i, 0)
          end)
        end
      end)
      assert.are.same({ false, 1 }, { ok, got })
      assert.are.same({ 1, 2, 3 }, group:errors())
    end)

    it("S13: members that clean up with awaits are waited for after a fault", function()
      local log = {}
      local ok = pcall(run, nil, function(g)
        g:spawn(function()
          local _ <close> = setmetatable({}, { __close = function()
            task.shield(function()
              for i = 1, 3 do
                await(task.delay(0.001))
                log[#log + 1] = i
              end
            end)
          end })
          await(never())
        end)
        g:spawn(error, "now", 0)
      end)
      assert.is_false(ok)
      assert.are.same({ 1, 2, 3 }, log)
    end)

    it("S13: outer cancellation reaches the members and is what leaves", function()
      local log = {}
      local t = spawn(function()
        run(nil, function(g)
          g:spawn(noting(log, "a"))
          await(never())
        end)
      end)
      t:cancel("outside")
      assert.are.same({ nil, "outside" }, { nil, select(2, t:try()).reason })
      assert.are.equal("cancelled", t:status())
      assert.are.equal("outside", log.a.reason)
    end)

    it("S13: outer cancellation reaches the members while the group is being left", function()
      local log = {}
      local t = spawn(function()
        run(nil, function(g)
          g:spawn(noting(log, "a"))
        end)
        await(task.yield())
      end)
      await(task.yield())
      assert.are.equal("pending", t:status())
      t:cancel("outside")
      t:try()
      assert.are.equal("cancelled", t:status())
      assert.are.equal("outside", log.a.reason)
    end)

    it("S13: a deadline around it reaches the members", function()
      local clock <close> = testing.clock { auto = true }
      local log = {}
      local ok, err = pcall(task.with_timeout, 5, run, nil, function(g)
        g:spawn(noting(log, "a"))
        g:spawn(noting(log, "b"))
      end)
      assert.is_false(ok)
      assert.are.equal("ETIMEDOUT", err.code)
      assert.are.equal(2, #log)
      assert.is_truthy(clock)
    end)

    it("S13: a member cancelled by hand is no fault", function()
      local log = {}
      assert.are.equal("v", run(nil, function(g)
        local a = g:spawn(noting(log, "a"))
        local b = g:spawn(function() return 7 end)
        a:cancel("by hand")
        assert.are.equal(7, await(b))
        return "v"
      end))
      assert.are.equal("by hand", log.a.reason)
    end)

    it("S13: cancel spares the body", function()
      local log = {}
      assert.are.same({ "went on", 0 }, { run(nil, function(g)
        g:spawn(noting(log, "a"))
        g:spawn(noting(log, "b"))
        g:cancel("enough")
        await(task.yield())
        await(task.delay(0))
        return "went on", g:count()
      end) })
      assert.are.equal("enough", log.a.reason)
      assert.are.equal("enough", log.b.reason)
    end)

    it("S13: a member may be spawned by a member, after the body has ended, too", function()
      local log = {}
      run(nil, function(g)
        g:spawn(function()
          await(task.yield())
          await(task.yield())
          g:spawn(function()
            await(task.yield())
            log[#log + 1] = "grandchild"
          end)
        end)
      end)
      assert.are.same({ "grandchild" }, log)
    end)

    it("S13: groups in groups: an inner fault goes through both, and cancels the outer members", function()
      local log = {}
      local ok, got = pcall(run, nil, function(outer)
        outer:spawn(noting(log, "outer"))
        outer:spawn(function()
          run(nil, function(inner)
            inner:spawn(noting(log, "inner"))
            inner:spawn(function()
              await(task.yield())
              error("deep", 0)
            end)
          end)
        end)
      end)
      assert.are.same({ false, "deep" }, { ok, got })
      assert.are.same({ "inner", "outer" }, names(log))
    end)

    it("S13: groups in groups: an outer fault cancels the inner members, in the body's own group, too", function()
      local log = {}
      local ok, got = pcall(run, nil, function(outer)
        outer:spawn(function()
          await(task.yield())
          error("outer", 0)
        end)
        run(nil, function(inner)
          inner:spawn(noting(log, "inner"))
          inner:spawn(function()
            run(nil, function(third) third:spawn(noting(log, "third")) end)
          end)
        end)
      end)
      assert.are.same({ false, "outer" }, { ok, got })
      assert.are.same({ "inner", "third" }, names(log, true))
    end)

    it("S13: an inner fault that is caught leaves the outer group alone", function()
      local log = {}
      run(nil, function(outer)
        outer:spawn(function()
          await(task.yield())
          await(task.yield())
          log[#log + 1] = "outer member"
        end)
        local ok, e = pcall(run, nil, function(inner) inner:spawn(error, "inner", 0) end)
        log[#log + 1] = not ok and e
        await(task.yield())
      end)
      table.sort(log)
      assert.are.same({ "inner", "outer member" }, log)
    end)

    it("S13: works on the main chunk and in a task", function()
      local function f()
        local v
        run(nil, function(g) g:spawn(function()
          await(task.yield())
          v = "done"
        end) end)
        return v
      end
      assert.are.equal("done", f())
      assert.are.equal("done", await(spawn(f)))
    end)

    it("S13: operations of members end with them: what the body owns passes on", function()
      local d
      run(nil, function() d = task.delay(0.001, "still") end)
      assert.are.equal("still", await(d))
    end)
  end)
end

describe("with_group", function()
  it("S25: a body that returns one Task has it awaited, inside the group", function()
    assert.are.same({ 1, 2 }, { task.with_group(function(g)
      return g:spawn(function()
        await(task.yield())
        return 1, 2
      end)
    end) })
  end)

  it("S22: refuses wrong arguments at the call", function()
    for _, case in ipairs {
      { "bad argument #1 to 'with_group' %(function expected, got nil%)" },
      { "bad argument #2 to 'with_group' %(function expected, got nil%)", {} },
      { "bad argument #1 to 'with_group' %(unknown option 'limits'%)", { limits = 1 }, print },
      { "option 'limit': positive integer expected, got 0", { limit = 0 }, print },
      { "option 'limit': positive integer expected, got 1.5", { limit = 1.5 }, print },
      { "option 'on_error': function expected, got 'x'", { on_error = "x" }, print },
      { "table of options expected, got number", 5, print },
    } do
      local ok, e = pcall(task.with_group, case[2], case[3])
      assert.is_false(ok)
      assert.matches(case[1], e)
    end
    assert.matches("bad argument #1 to 'group'", select(2, pcall(task.group, { limit = -1 })))
  end)
end)

describe("a group", function()
  it("S13: limit runs at most n members at once; spawn never waits, the rest is queued in order", function()
    local now, most, order = 0, 0, {}
    task.with_group({ limit = 3 }, function(g)
      for i = 1, 20 do
        g:spawn(function()
          order[#order + 1] = i
          now = now + 1
          most = math.max(most, now)
          for _ = 1, i % 3 + 1 do await(task.yield()) end
          now = now - 1
        end)
      end
      assert.are.same({ 1, 2, 3 }, order)
      assert.are.equal(20, g:count())
    end)
    assert.are.equal(3, most)
    for i = 1, 20 do assert.are.equal(i, order[i]) end
  end)

  it("S13: limit holds for members that spawn members in their first slice", function()
    local now, most, n = 0, 0, 0
    task.with_group({ limit = 2 }, function(g)
      local function member(depth)
        now = now + 1
        n = n + 1
        most = math.max(most, now)
        if depth > 0 then
          g:spawn(member, depth - 1)
          g:spawn(member, depth - 1)
        end
        await(task.yield())
        now = now - 1
      end
      g:spawn(member, 4)
    end)
    assert.are.equal(31, n)
    assert.are.equal(2, most)
  end)

  it("S13: a member that ends, faults or is cancelled makes room", function()
    local started = {}
    local ok = pcall(task.with_group, { limit = 1, on_error = function() end }, function(g)
      g:spawn(error, "x")
      local a = g:spawn(function()
        started[#started + 1] = "a"
        await(never())
      end)
      g:spawn(function() started[#started + 1] = "b" end)
      await(task.yield())
      await(task.yield())
      assert.are.same({ "a" }, started)
      a:cancel()
    end)
    assert.is_true(ok)
    assert.are.same({ "a", "b" }, started)
  end)

  it("S13: queued members that are cancelled never begin; those behind them do", function()
    local started = {}
    task.with_group({ limit = 1 }, function(g)
      local s = task.source()
      g:spawn(function()
        started[#started + 1] = 1
        await(s.task)
      end)
      local list = {}
      for i = 2, 6 do list[i] = g:spawn(function() started[#started + 1] = i end) end
      list[6]:cancel()
      list[3]:cancel()
      list[2]:cancel()
      await(task.yield())
      assert.are.equal("cancelled", list[3]:status())
      s:set_result()
    end)
    assert.are.same({ 1, 4, 5 }, started)
  end)

  it("S13: cancel, and a fault, drop what is queued", function()
    local started = 0
    task.with_group({ limit = 2 }, function(g)
      for _ = 1, 10 do
        g:spawn(function()
          started = started + 1
          await(never())
        end)
      end
      g:cancel()
    end)
    assert.are.equal(2, started)
    local ok, e = pcall(task.with_group, { limit = 1 }, function(g)
      g:spawn(function()
        await(task.yield())
        error("f", 0)
      end)
      g:spawn(function() started = started + 1 end)
    end)
    assert.are.same({ false, "f", 2 }, { ok, e, started })
  end)

  it("S13: 50,000 queued members are cancelled in no time", function()
    local t0 = os.clock()
    task.with_group({ limit = 1 }, function(g)
      for _ = 1, 50000 do g:spawn(never) end
      g:cancel()
    end)
    assert.is_true(os.clock() - t0 < 5)
  end)

  it("S13: on_error takes the faults, and the rest goes on", function()
    local seen, ended = {}, 0
    local members = {}
    assert.are.equal("fine", task.with_group({ on_error = function(e, t)
      seen[#seen + 1] = { e, t }
    end }, function(g)
      for i = 1, 4 do
        members[i] = g:spawn(function()
          for _ = 1, i do await(task.yield()) end
          if i % 2 == 0 then error("fault " .. i, 0) end
          ended = ended + 1
        end)
      end
      return "fine"
    end))
    assert.are.equal(2, ended)
    assert.are.same({ "fault 2", members[2] }, seen[1])
    assert.are.same({ "fault 4", members[4] }, seen[2])
    assert.are.equal(2, #seen)
  end)

  it("S13: leaving waits for the calls of on_error, which may await", function()
    local log = {}
    task.with_group({ on_error = function(e)
      await(task.delay(0.001))
      log[#log + 1] = e
    end }, function(g)
      g:spawn(error, "one", 0)
      g:spawn(function()
        await(task.yield())
        error("two", 0)
      end)
    end)
    assert.are.same({ "one", "two" }, log)
  end)

  it("S13: a handler may spawn a member in place of the one that failed", function()
    local tries = 0
    task.with_group({ on_error = function() end }, function(outer)
      assert.is_truthy(outer)
    end)
    local group
    local function member()
      tries = tries + 1
      await(task.yield())
      if tries < 3 then error("again", 0) end
    end
    task.with_group({ on_error = function() group:spawn(member) end }, function(g)
      group = g
      g:spawn(member)
    end)
    assert.are.equal(3, tries)
  end)

  it("S4: a fault of on_error is reported, and hurts nobody", function()
    local reports = {}
    local before = task.on_unobserved(function(e) reports[#reports + 1] = e end)
    finally(function() task.on_unobserved(before) end)
    task.with_group({ on_error = function() error("in the handler", 0) end }, function(g)
      g:spawn(error, "member", 0)
    end)
    collectgarbage()
    collectgarbage()
    await(task.yield())
    await(task.yield())
    assert.are.same({ "in the handler" }, reports)
  end)

  it("S13: add moves a task, whoever owned it", function()
    local d, s = nil, task.source()
    local outsider = spawn(function() await(s.task) end)
    local owner = spawn(function()
      d = task.delay(60)
      await(never())
    end)
    task.with_group(function(g)
      assert.are.equal(d, g:add(d))
      assert.are.equal(outsider, g:add(outsider))
      owner:cancel()
      owner:try()
      assert.are.equal("pending", d:status())
      assert.are.equal(2, g:count())
      g:cancel("now")
    end)
    assert.are.equal("cancelled", d:status())
    assert.are.equal("cancelled", outsider:status())
    s:set_result()
  end)

  it("S13: add moves a member from one group to another, which alone waits for it then", function()
    local s = task.source()
    local moved, held
    local fine, err = pcall(task.with_group, function(outer)
      task.with_group({ limit = 1 }, function(inner)
        moved = inner:spawn(function()
          await(s.task)
          error("in the outer group", 0)
        end)
        held = inner:spawn(function() return "ran" end)
        local behind = inner:spawn(function() return "behind" end)
        outer:add(held)
        assert.are.same({ 1, 2 }, { outer:count(), inner:count() })
        outer:add(moved)
        outer:add(moved)
        assert.are.same({ 2, 1 }, { outer:count(), inner:count() })
        assert.are.equal("behind", await(behind)) -- has the place that became free
      end)
      assert.are.equal("pending", moved:status())
      assert.are.equal("ran", await(held))
      outer:add(task.from_result())
      s:set_result()
      task.shield(function() -- its fault interrupts this body
        assert.are.equal("in the outer group", select(2, outer:wait():try()))
      end)
      assert.are.same({ "in the outer group" }, outer:errors())
    end)
    assert.are.same({ false, "in the outer group" }, { fine, err })
  end)

  it("S13: add takes tasks that have settled, and their faults", function()
    task.with_group(function(g)
      assert.are.equal(1, await(g:add(task.from_result(1))))
      g:add(task.yield())
      local c = task.from_cancelled()
      assert.are.equal(c, g:add(c))
    end)
    local ok, e = pcall(task.with_group, function(g)
      g:add(task.from_error("born faulted"))
      await(never())
    end)
    assert.are.same({ false, "born faulted" }, { ok, e })
  end)

  it("S13: add takes combinations, sources and operations on files", function()
    local s = task.source()
    local fs = require "asynctask.fs"
    task.with_group(function(g)
      local all = g:add(task.when_all(s.task, task.delay(0.001)))
      local file = g:add(fs.read_file("/proc/self/status"))
      g:spawn(function()
        await(task.yield())
        s:set_result("v")
      end)
      assert.are.equal("v", await(all))
      assert.is_true(#await(file) > 0)
    end)
  end)

  it("S22: add and spawn refuse other things", function()
    task.with_group(function(g)
      assert.matches("Task expected", select(2, pcall(g.add, g, 5)))
      assert.matches("function expected", select(2, pcall(g.spawn, g, 5)))
      assert.matches("bad argument #1 to 'run'", select(2, pcall(g.run, g, 5)))
      assert.matches("cannot copy a userdata", select(2, pcall(g.run, g, function() end, io.stdout)))
    end)
  end)

  it("S13: run makes a job a member", function()
    local v
    task.with_group(function(g)
      local t = g:run(function(n) return n + 1 end, 41)
      v = await(t)
    end)
    assert.are.equal(42, v)
    local ok, e = pcall(task.with_group, function(g)
      g:run(function() error("in the job", 0) end)
      g:run(function()
        local t = require "asynctask"
        t.await(t.delay(60))
      end)
    end)
    assert.are.same({ false, "in the job" }, { ok, e })
  end)

  it("S13: wait is a Task of the last member's end; the group goes on", function()
    task.with_group(function(g)
      local n = 0
      for i = 1, 3 do
        g:spawn(function()
          for _ = 1, i do await(task.yield()) end
          n = n + 1
        end)
      end
      assert.is_true(task.is_task(g:wait()))
      await(g:wait())
      assert.are.equal(3, n)
      await(g:wait())
      g:spawn(function()
        await(task.yield())
        n = n + 1
      end)
      await(g:wait())
      assert.are.equal(4, n)
    end)
  end)

  it("S13: a wait that is cancelled, or runs out of time, leaves the group sound", function()
    local n = 0
    task.with_group(function(g)
      local s = task.source()
      g:spawn(function()
        await(s.task)
        n = n + 1
      end)
      local waits = {}
      for i = 1, 4 do waits[i] = g:wait() end
      waits[2]:cancel("no")
      waits[4]:cancel("no")
      waits[1]:cancel()
      assert.is_false(pcall(task.with_timeout, 0, await, g:wait()))
      collectgarbage()
      await(task.yield())
      assert.are.equal("pending", waits[3]:status())
      s:set_result()
      await(waits[3])
      assert.are.equal(1, n)
    end)
    assert.are.equal(1, n)
  end)

  it("S13: from outside, wait faults with the first fault", function()
    local g
    local t = spawn(task.with_group, function(group)
      g = group
      group:spawn(function()
        for _ = 1, 4 do await(task.yield()) end
        error("seen by both", 0)
      end)
    end)
    local _, e = task.try(g:wait())
    assert.are.equal("seen by both", e)
    assert.are.equal("seen by both", select(2, t:try()))
  end)

  it("S13: a left group takes no more members", function()
    local g
    task.with_group(function(group) g = group end)
    assert.is_false(pcall(g.spawn, g, print))
    assert.is_false(pcall(g.add, g, task.delay(0)))
    assert.are.equal(0, g:count())
    g:cancel()
  end)

  it("S13: a failed group starts no more members", function()
    local g, late
    local ran = false
    local t = spawn(task.with_group, function(group)
      g = group
      group:spawn(function()
        local _ <close> = setmetatable({}, { __close = function()
          task.shield(function()
            for _ = 1, 5 do await(task.yield()) end
          end)
        end })
        await(never())
      end)
      group:spawn(error, "failed", 0)
      await(never())
    end)
    await(task.yield())
    await(task.yield())
    assert.are.equal("pending", t:status())
    late = g:spawn(function()
      ran = true
      await(never())
    end)
    local d = g:add(task.delay(60))
    assert.are.equal("failed", select(2, t:try()))
    assert.is_false(ran)
    assert.are.equal("cancelled", late:status())
    assert.are.equal("cancelled", d:status())
  end)

  it("S13: a child that cancels its own group is cancelled, too, and spares the body", function()
    local log = {}
    assert.are.equal("body", task.with_group(function(g)
      g:spawn(noting(log, "sibling"))
      g:spawn(function()
        await(task.yield())
        g:cancel("from inside")
        local ok, e = pcall(await, never())
        log[#log + 1] = not ok and e.reason
      end)
      await(task.yield())
      await(task.yield())
      await(task.yield())
      return "body"
    end))
    assert.are.same({ "from inside", "sibling" }, names(log, true))
  end)

  it("S13: members that succeeded are forgotten", function()
    task.with_group(function(g)
      local weak = setmetatable({}, { __mode = "v" })
      for i = 1, 10 do
        weak[i] = g:spawn(function()
          await(task.yield())
          return {}
        end)
      end
      await(task.yield())
      await(task.yield())
      collectgarbage()
      collectgarbage()
      assert.are.equal(0, g:count())
      assert.is_nil(next(weak))
    end)
  end)

  it("S13: a body's group that is collected was left before; 1,000 of them leave nothing", function()
    local function once()
      task.with_group(function(g)
        g:spawn(function() await(task.yield()) end)
        g:spawn(function() end)
      end)
      pcall(task.with_group, function(g) g:spawn(error, {}) end)
    end
    for _ = 1, 1000 do once() end
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 1000 do once() end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 50)
  end)
end)
