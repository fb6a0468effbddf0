-- Specs of seeing: tasks, dump, stats, the place of the spawn, and the dump at a signal.

local task = require "asynctask"
local child = require "spec.support.child"
local sync = require "asynctask.sync"
local channel = require "asynctask.channel"
local testing = require "asynctask.testing"

local await, spawn = task.await, task.spawn

local function here()
  return debug.getinfo(2, "l").currentline
end

-- The entry of one task in tasks().
local function entry(t)
  for _, e in ipairs(task.tasks()) do
    if e.task == t then return e end
  end
end

-- Ends what a spec started.
local function stop(...)
  for _, t in ipairs { ... } do
    t:cancel()
    t:try()
  end
end

describe("tasks", function()
  it("lists the live tasks with name, state, what each waits for, and where", function()
    local line
    local a = spawn(function()
      line = here() + 1
      await(task.delay(60))
    end):named("sleeper")
    local b = spawn(function() await(a) end)
    local e = entry(a)
    assert.are.equal("task 'sleeper'", e.name)
    assert.are.equal("waiting", e.state)
    assert.are.equal("a delay", e.waits_for)
    assert.matches("seeing_spec%.lua:" .. line .. "$", e.where)
    assert.are.equal("task 'sleeper'", entry(b).waits_for)
    assert.are.equal("task", entry(b).name)
    stop(a, b)
    assert.is_nil(entry(a))
  end)

  it("tells a task that runs, one that is ready, and one that has its place in a group to wait for", function()
    local seen
    local a = spawn(function() await(task.yield()) end)
    assert.are.equal("ready", entry(a).state)
    await(spawn(function() seen = entry(task.current()) end))
    assert.are.equal("running", seen.state)
    await(a)
    local line = here() + 3
    task.with_group({ limit = 1 }, function(g)
      g:spawn(function() await(task.delay(60)) end)
      local held = g:spawn(function() end)
      local e = entry(held)
      assert.are.equal("waiting", e.state)
      assert.are.equal("its place in a group", e.waits_for)
      assert.matches("seeing_spec%.lua:" .. line .. "$", e.where)
      g:cancel()
    end)
  end)

  it("knows the age of each", function()
    local clock <close> = testing.clock()
    local a = spawn(function() await(task.delay(60)) end)
    await(clock:advance(5))
    local b = spawn(function() await(task.delay(60)) end)
    await(clock:advance(2.5))
    assert.is_true(math.abs(entry(a).age - 7.5) < 0.01)
    assert.is_true(math.abs(entry(b).age - 2.5) < 0.01)
    assert.matches("%(7%.5 s%)", task.dump())
    stop(a, b)
  end)

  it("knows it on the real clock, too", function()
    local a = spawn(function() await(task.delay(60)) end)
    await(task.delay(0.02))
    assert.is_true(entry(a).age >= 0.015 and entry(a).age < 30)
    stop(a)
  end)

  it("names what is waited for: locks, channels, sources, groups, combinations", function()
    local m, ch, s = sync.mutex(), channel.new(), task.source()
    local guard = m:try_lock()
    local function waits(f)
      local t = spawn(f)
      local text = entry(t).waits_for
      stop(t)
      return text
    end
    assert.are.equal("acquire", waits(function() await(m:lock()) end))
    assert.are.equal("receive", waits(function() await(ch:receive()) end))
    assert.are.equal("send", waits(function() await(ch:send(1)) end))
    assert.are.equal("select", waits(function() await(channel.select(ch)) end))
    assert.are.equal("a source", waits(function() await(s.task) end))
    assert.are.equal("when_any", waits(function() await(task.when_any { s.task }) end))
    assert.are.equal("group", waits(function()
      task.with_group(function(g) g:spawn(function() await(s.task) end) end)
    end))
    guard:release()
    s:set_result()
  end)
end)

describe("dump", function()
  it("is empty when nothing lives", function()
    assert.are.equal("", task.dump())
  end)

  it("shows the await tree: below each task what it waits for", function()
    local a = spawn(function() await(task.delay(60)) end):named("a")
    local b = spawn(function() await(a) end):named("b")
    local c = spawn(function() await(b) end):named("c")
    local lines = {}
    for line in task.dump():gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.are.equal(3, #lines)
    assert.matches("^\ttask 'c' waits for task 'b' at [^\n]*seeing_spec%.lua:%d+ %(%d+%.%d s%)$", lines[1])
    assert.matches("^\t\ttask 'b' waits for task 'a' at ", lines[2])
    assert.matches("^\t\t\ttask 'a' waits for a delay at ", lines[3])
    stop(a, b, c)
  end)

  it("shows the members of combinations that are pending, and each task in full once", function()
    local s = task.source()
    local a = spawn(function() await(s.task) end):named("a")
    local b = spawn(function()
      await(task.when_all { a, task.from_result(), task.delay(60), task.when_any { a, s.task } })
    end):named("b")
    local text = task.dump():gsub(" at [^\n]*", "")
    assert.are.equal("\ttask 'b' waits for when_all\n\t\ttask 'a' waits for a source\n\t\ta delay\n"
      .. "\t\twhen_any\n\t\t\ttask 'a' (see above)\n\t\t\ta source\n", text)
    stop(b)
    s:set_result()
    await(a)
  end)

  it("shows tasks that wait for each other in a circle", function()
    local a, b
    a = spawn(function()
      await(task.yield())
      await(b)
    end):named("a")
    b = spawn(function() await(a) end):named("b")
    await(task.yield())
    local text = task.dump()
    assert.matches("task 'a' waits for task 'b'", text)
    assert.matches("task 'b' waits for task 'a'", text)
    assert.matches("see above", text)
    stop(a, b)
  end)

  it("bears a chain of 2,000, and a combination of 1,000", function()
    local last = spawn(function() await(task.delay(60)) end)
    local chain = { last }
    for i = 2, 2000 do
      local next = chain[i - 1]
      chain[i] = spawn(function() await(next) end)
    end
    local delays = {}
    for i = 1, 1000 do delays[i] = task.delay(60) end
    local all = spawn(function() await(task.when_all(delays)) end)
    local text = task.dump()
    local _, n = text:gsub("\n", "")
    assert.is_true(n >= 2000 and n < 2100)
    assert.is_true(#text < 400000)
    stop(all)
    for i = 2000, 1, -1 do stop(chain[i]) end
    for i = 1, 1000 do delays[i]:cancel() end
  end)

  it("changes nothing: what was pending goes on", function()
    local t = spawn(function() return await(task.delay(0.002, "v")) end)
    for _ = 1, 10 do task.dump() end
    assert.are.equal("v", await(t))
  end)
end)

describe("stats", function()
  it("counts what there is", function()
    local before = task.stats()
    local a = spawn(function() await(task.delay(60)) end)
    local d = task.delay(60)
    local e = spawn(error, {})
    local now = task.stats()
    assert.are.equal(before.tasks + 1, now.tasks)
    assert.are.equal(before.delays + 2, now.delays)
    assert.are.equal(before.unobserved + 1, now.unobserved)
    assert.is_true(now.coroutines >= now.tasks + now.idle_coroutines)
    e:error()
    stop(a)
    d:cancel()
    now = task.stats()
    assert.are.equal(before.tasks, now.tasks)
    assert.are.equal(before.delays, now.delays)
    assert.are.equal(before.unobserved, now.unobserved)
  end)

  it("counts work on other threads, and faults that were reported", function()
    local before = task.stats()
    local previous = task.on_unobserved(function() end)
    local job = task.run(function() return 1 end)
    assert.is_true(task.stats().external_operations > before.external_operations)
    await(job)
    spawn(error, {})
    collectgarbage()
    collectgarbage()
    await(task.yield())
    await(task.yield())
    assert.are.equal(before.reported + 1, task.stats().reported)
    task.on_unobserved(previous)
  end)
end)

describe("debug", function()
  after_each(function() task.debug(false) end)

  it("is off, and says what it was", function()
    assert.is_false(task.debug())
    assert.is_false(task.debug(true))
    assert.is_true(task.debug())
    assert.is_true(task.debug(false))
    assert.is_false(task.debug())
  end)

  it("names tasks by the place of their spawn, also for functions that were taken before", function()
    task.debug(true)
    local line = here() + 1
    local t = spawn(function() await(task.yield()) end)
    assert.matches("^spawned at [^\n]*seeing_spec%.lua:" .. line .. "$", t:name())
    local inner
    await(spawn(function()
      await(task.yield())
      inner = spawn(task.yield)
    end))
    assert.matches("seeing_spec%.lua:" .. line + 5 .. "$", inner:name())
    assert.are.equal("mine", spawn(task.yield):named("mine"):name())
    task.debug(false)
    assert.is_nil(spawn(task.yield):name())
    await(task.yield())
  end)

  it("reaches tasks that live already, groups, map, and the library's own starts", function()
    local s, inner = task.source(), nil
    local t = spawn(function()
      await(s.task)
      inner = spawn(task.yield)
      await(task.yield())
    end)
    task.debug(true)
    s:set_result()
    await(t)
    assert.matches("^spawned at ", inner:name())
    assert.is_nil(t:name())
    task.with_group(function(g)
      assert.matches("seeing_spec%.lua:%d+$", g:spawn(task.yield):name())
    end)
    local mapped = task.map({ 1 }, function() return task.current():name() end)
    assert.matches("seeing_spec%.lua:%d+$", mapped:name())
    assert.matches("seeing_spec%.lua:%d+$", await(mapped)[1])
  end)

  it("goes with task-local values, and leaves them as they are", function()
    local v = task.local_value("d")
    v:with(1, function()
      task.debug(true)
      assert.are.equal(1, await(spawn(v.get, v)))
    end)
    assert.are.equal("d", await(spawn(v.get, v)))
    assert.matches("^spawned at ", spawn(task.yield):name())
    await(task.yield())
  end)

  it("S15: reports say where the task was spawned", function()
    local output = child.lua([[
      local task = require "asynctask"
      task.debug(true)
      task.spawn(function() task.await(task.yield()) error("lost", 0) end)
      task.await(task.delay(0))
      task.await(task.delay(0))
    ]])
    assert.matches("unobserved error in task 'spawned at [^\n]-:3': lost", output)
  end)
end)

describe("main with a dump", function()
  it("prints it to standard error at the signal, again and again, and goes on", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local await = task.await
      print(task.main({ dump = "SIGQUIT" }, function()
        local worker = task.spawn(function() await(task.delay(30)) end):named "worker"
        for _ = 1, 2 do
          io.popen("kill -QUIT $PPID"):close()
          await(task.delay(0.05))
        end
        worker:cancel()
        return "done"
      end))
    ]], { timeout = 20 })
    assert.are.equal(0, code)
    local _, n = output:gsub("asynctask: SIGQUIT: ", "")
    assert.are.equal(2, n)
    assert.matches("\ttask 'main' waits for a delay at ", output)
    assert.matches("\ttask 'worker' waits for a delay at [^\n]*:4 %(%d+%.%d s%)\n", output)
    assert.is_nil(output:find("SIGTERM", 1, true)) -- the watchers are nobody's business
    assert.matches("done\n$", output)
  end)

  it("S16: waiting for the signal hides no deadlock", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local s = task.source()
      task.main({ dump = "SIGUSR1" }, function() task.await(s.task) end)
      s:set_result()
    ]], { timeout = 20 })
    assert.are.equal(1, code)
    assert.matches("deadlock", output)
  end)

  it("S22: refuses what is no signal, and those that end the program", function()
    for _, name in ipairs { "SIGINT", "SIGTERM", "SIGNOT", "SIGKILL", 3, true } do
      local ok, e = pcall(task.main, { dump = name }, function() end)
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'main' %(option 'dump': ", e)
    end
  end)
end)
