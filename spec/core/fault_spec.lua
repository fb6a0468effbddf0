-- Specs of faults: tracebacks through the tasks that awaited (S3), and faults nobody looked at (S15).

local task = require "asynctask"
local child = require "spec.support.child"

local await, spawn = task.await, task.spawn

local function here()
  return debug.getinfo(2, "l").currentline
end

describe("a traceback", function()
  it("S3: holds the stack where the error was raised", function()
    local line
    local function inner()
      line = here() + 1
      error("boom")
    end
    local function outer()
      inner()
      return 1
    end
    local t = spawn(outer)
    local text = t:traceback()
    assert.matches("boom", text)
    assert.matches("fault_spec%.lua:" .. line .. ":", text)
    assert.matches("fault_spec%.lua:" .. line + 3 .. ":", text)
    t:error()
  end)

  it("S3: goes on through the tasks that awaited it, a line for each", function()
    local lines = {}
    local a = spawn(function()
      await(task.yield())
      lines[1] = here() + 1
      error("deep")
    end):named("reader")
    local b = spawn(function()
      lines[2] = here() + 1
      await(a)
      return 1
    end):named("parser")
    local c = spawn(function()
      lines[3] = here() + 1
      await(b)
      return 1
    end):named("page")
    task.try(c)
    local text = c:traceback()
    local last = 0
    for i = 1, 3 do
      local at = text:find("fault_spec%.lua:" .. lines[i] .. ":")
      assert.is_truthy(at, "line of task " .. i .. " in\n" .. text)
      assert.is_true(at > last)
      last = at
    end
    for _, name in ipairs({ "reader", "parser", "page" }) do
      assert.matches(name, text)
    end
  end)

  it("S3: and through try that raises again, and error objects", function()
    local raised
    local a = spawn(function()
      await(task.yield())
      raised = here() + 1
      error(task.error { code = "EBAD", message = "broken" })
    end)
    local b = spawn(function()
      local v, err = task.try(a)
      if err then
        error(err)
      end
      return v
    end)
    task.try(b)
    assert.matches("EBAD", b:traceback())
    assert.matches("fault_spec%.lua:" .. raised .. ":", a:traceback())
  end)

  it("S3: is nothing for a task that is pending or succeeded", function()
    local s = task.source()
    assert.is_nil(s.task:traceback())
    s:set_result()
    assert.is_nil(s.task:traceback())
  end)

  it("S3: of when_all is that of the member whose error it is", function()
    local line
    local t = task.when_all(task.from_result(), spawn(function()
      await(task.yield())
      line = here() + 1
      error("member")
    end))
    task.try(t)
    assert.matches("fault_spec%.lua:" .. line .. ":", t:traceback())
  end)

  it("S3: reads any error value, even one that cannot become a string", function()
    for _, err in ipairs({ false, 12, {}, print }) do
      local t = spawn(error, err)
      assert.is_string(t:traceback())
      t:error()
    end
    local t = spawn(error, nil)
    assert.matches("nil", t:traceback())
    t:error()
  end)

  it("S3: does not count as a place of its own in the library's files", function()
    local t = spawn(function()
      await(task.map({ 1 }, function()
        await(task.yield())
        error("in map")
      end))
    end)
    task.try(t)
    assert.not_matches("lua/asynctask/", t:traceback())
  end)

  it("S3: an uncaught error on the main chunk prints the message", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local function read()
        task.await(task.yield())
        error("no such luck")
      end
      local t = task.spawn(read)
      task.await(t)
    ]])
    assert.are.equal(1, code)
    assert.matches("no such luck", output)
  end)
end)

describe("a fault nobody looked at", function()
  local reports, old
  before_each(function()
    reports = {}
    old = task.on_unobserved(function(err, traceback)
      reports[#reports + 1] = { err = err, traceback = traceback }
    end)
  end)
  after_each(function()
    task.on_unobserved(old)
  end)

  local function collect()
    for _ = 1, 3 do
      collectgarbage()
      await(task.yield())
    end
  end

  it("S15: is reported once, when its task is collected", function()
    local err = {}
    spawn(error, err)
    assert.are.equal(0, #reports)
    collect()
    collect()
    assert.are.equal(1, #reports)
    assert.are.equal(err, reports[1].err)
    assert.is_string(reports[1].traceback)
  end)

  it("S15: is not reported once it was awaited, tried or read", function()
    local looks = {
      function(t) pcall(await, t) end,
      function(t) task.try(t) end,
      function(t) t:error() end,
      function(t) t:errors() end,
      function(t) pcall(t.result, t) end,
      function(t) pcall(await, task.when_all(t)) end,
      function(t) pcall(await, t:timeout(60)) end,
      function(t) pcall(await, task.race(t)) end,
      function(t) spawn(function() await(t) end):error() end,
    }
    for _, look in ipairs(looks) do
      look(spawn(error, "seen"))
    end
    collect()
    assert.are.same({}, reports)
  end)

  it("S15: status, done and when_any do not look", function()
    do
      local t = spawn(error, "unseen")
      t:status()
      t:done()
      t:name()
      await(task.when_any({ t }))
    end
    collect()
    assert.are.equal(1, #reports)
    assert.are.equal("unseen", reports[1].err)
  end)

  it("S15: of one that was awaited by a task that failed with it, only the last counts", function()
    do
      local a = spawn(function()
        await(task.yield())
        error("one error", 0)
      end)
      spawn(function() await(a) end)
    end
    await(task.yield())
    collect()
    collect()
    assert.are.equal(1, #reports)
    assert.are.equal("one error", reports[1].err)
  end)

  it("S15: a cancellation is none", function()
    do
      local t = spawn(function() await(task.delay(60)) end)
      t:cancel()
      task.from_cancelled()
      task.delay(60):cancel()
    end
    collect()
    assert.are.same({}, reports)
  end)

  it("S15: of a source and of from_error, too", function()
    task.source():set_error("of a source")
    task.from_error("of from_error")
    collect()
    local errors = {}
    for _, r in ipairs(reports) do
      errors[r.err] = true
    end
    assert.are.same({ ["of a source"] = true, ["of from_error"] = true }, errors)
  end)

  it("S15: the handler runs as a task, and may await", function()
    local handled
    task.on_unobserved(function(err)
      await(task.yield())
      handled = { err, task.current() ~= nil }
    end)
    spawn(error, "e")
    collect()
    await(task.yield())
    await(task.yield())
    assert.are.same({ "e", true }, handled)
  end)

  it("S15: setting a handler gives the one before", function()
    local f = function() end
    local before = task.on_unobserved(f)
    assert.is_function(before)
    assert.are.equal(f, task.on_unobserved(before))
    assert.is_false((pcall(task.on_unobserved, 1)))
  end)

  it("S15: by default is written to standard error, once, with its traceback", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      do task.spawn(error, "nobody looked") end
      collectgarbage() collectgarbage()
      task.await(task.yield())
      task.await(task.yield())
      print("end of the script")
    ]])
    assert.are.equal(0, code)
    local _, count = output:gsub("nobody looked", "")
    assert.are.equal(1, count)
    assert.matches("asynctask", output)
    assert.is_true(output:find("nobody looked") < output:find("end of the script"))
  end)

  it("S15: at the latest when the state ends", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      t = task.spawn(function() error("kept to the end") end):named("keeper")
      print("end of the script")
    ]])
    assert.are.equal(0, code)
    local _, count = output:gsub("kept to the end", "")
    assert.are.equal(1, count)
    assert.matches("keeper", output)
    assert.is_true(output:find("kept to the end") > output:find("end of the script"))
  end)

  it("S15: when the state ends, on_unobserved takes it, too", function()
    local output = child.lua([[
      local task = require "asynctask"
      task.on_unobserved(function(err, traceback) print("handler", err, type(traceback)) end)
      t = task.spawn(function() error("late", 0) end)
    ]])
    assert.are.equal("handler\tlate\tstring\n", output)
  end)

  it("S15: an idle loop collects now and then, so that a server reports", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      collectgarbage("stop")
      collectgarbage("restart")
      local seen = task.source()
      task.on_unobserved(function(err) seen:set_result(err) end)
      do task.spawn(error, "in a server") end
      print(task.with_timeout(10, task.await, seen.task))
    ]])
    assert.are.equal("in a server\n", output)
    assert.are.equal(0, code)
  end)

  it("S15: a fault of the handler is no endless loop", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local n = 0
      task.on_unobserved(function(err)
        n = n + 1
        if n > 50 then os.exit(9) end
        error("handler failed: " .. tostring(err), 0)
      end)
      do task.spawn(error, "first") end
      for i = 1, 10 do collectgarbage() task.await(task.yield()) end
      print(n >= 1)
    ]], { timeout = 10 })
    assert.matches("true", output)
    assert.are.equal(0, code)
  end)
end)
