-- The C API: C functions on pool threads. A C module of somebody else's (spec/c/apimodule.c) has them.

local task = require "asynctask"
local cc = require "spec.support.cc"
local api = cc.load "apimodule"
local child = require "spec.support.child"
local await = task.await

local function until_true(f)
  for _ = 1, 2000 do
    if f() then return true end
    await(task.delay(0.001))
  end
  return false
end

for _, pool in ipairs { "the pool for computing", "the pool for calls that block" } do
  local blocking = pool:find("block") ~= nil
  local function job(kind, n, progress, name) return api.job(kind, n, blocking, progress, name) end

  describe("a job on " .. pool, function()
    it("settles its Task with the values it wrote, and lets go of its data", function()
      api.counts(true)
      assert.same({ 500500, "sum", n = 2 }, table.pack(await(job("sum", 1000))))
      assert.same({ n = 0 }, table.pack(await(job "nothing")))
      local c = api.counts()
      assert.same({ 2, 2, 0 }, { c.ran, c.released, c.alive })
    end)

    it("S22: faults with the error it says, the first one", function()
      local _, e = task.try(job("fail", 0, nil, "my job"))
      assert.equal("my job: the job failed (EMINE)", tostring(e))
      _, e = task.try(job "twice")
      assert.same({ "ENOENT", "no such file or directory", nil }, { e.code, e.message, e.op })
      _, e = task.try(job("misuse", 0, nil, "my job"))
      assert.equal("my job: a table was begun and not ended (EINVAL)", tostring(e))
      _, e = task.try(job("bad progress", 0, function() end, "my job"))
      assert.equal("my job: the end of a table that was not begun (EINVAL)", tostring(e))
    end)

    it("S4: reports progress on the loop thread, in order, merged; the last report comes first of all", function()
      local seen, settled = {}, nil
      local t = job("progress", 20000, function(i, extra)
        assert(type(extra) == "table" and settled == nil)
        seen[#seen + 1] = i
      end)
      assert.equal(20000, await(t))
      settled = true
      assert.is_true(#seen >= 1)
      assert.equal(20000, seen[#seen])
      for i = 2, #seen do assert.is_true(seen[i - 1] < seen[i]) end
    end)

    it("reports to nobody where no function was given", function()
      api.counts(true)
      assert.equal(100, await(job("progress", 100)))
      assert.equal(0, api.counts().alive)
    end)

    it("S15: an error of the progress function is reported", function()
      local reports = {}
      local before = task.on_unobserved(function(e) reports[#reports + 1] = tostring(e) end)
      finally(function() task.on_unobserved(before) end)
      assert.equal(1, await(job("progress", 1, function() error("of progress", 0) end)))
      assert.is_true(until_true(function() collectgarbage() return #reports > 0 end))
      assert.same({ "of progress" }, reports)
    end)

    it("S20: that runs is told of its cancellation, and its result is dropped", function()
      api.counts(true)
      local t = job("wait", 0, function() error "nobody listens" end)
      assert.is_true(until_true(function() return api.counts().ran == 1 end))
      assert.is_true(t:cancel("enough"))
      assert.equal("cancelled", t:status())
      assert.equal("enough", t:error().reason)
      assert.is_true(until_true(function() return api.counts().alive == 0 end))
      assert.equal(1, api.counts().released)
      assert.equal(3, (await(job("sum", 2)))) -- the thread lives on
    end)

    it("S20: that has not started is removed", function()
      api.counts(true)
      local busy = {}
      for i = 1, 300 do busy[i] = job "wait" end
      assert.is_true(until_true(function() return api.counts().ran >= 1 end))
      for i = #busy, 1, -1 do busy[i]:cancel() end
      assert.is_true(until_true(function() return api.counts().alive == 0 end))
      local c = api.counts()
      assert.equal(300, c.released)
      assert.is_true(c.ran < 300)
    end)

    it("S10: is not started in a cancelled scope, and its data is let go", function()
      api.counts(true)
      local status
      local t = task.spawn(function()
        pcall(await, task.delay(50))
        status = job("sum", 1):status()
      end)
      t:cancel()
      task.try(t)
      assert.equal("cancelled", status)
      local c = api.counts()
      assert.same({ 0, 1, 0 }, { c.ran, c.released, c.alive })
    end)

    it("S8: belongs to the running scope", function()
      api.counts(true)
      local t = task.spawn(function() await(job "wait") end)
      t:cancel()
      task.try(t)
      assert.is_true(until_true(function() return api.counts().alive == 0 end))
    end)

    it("is cancelled at any moment", function()
      api.counts(true)
      for i = 1, child.sanitizer() and 100 or 400 do
        local seen = {}
        local t = job(i % 2 == 0 and "progress" or "sum", i, function(n) seen[#seen + 1] = n end)
        for _ = 1, i % 7 do await(task.yield()) end
        if i % 5 == 0 then await(task.delay(0)) end
        t:cancel()
      end
      assert.is_true(until_true(function() return api.counts().alive == 0 end))
      await(task.delay(0))
    end)

    it("shows its name in dumps", function()
      local t = job("wait", 0, nil, "the sum")
      assert.matches("job the sum", tostring(t))
      local other = job "wait"
      assert.matches("^Task %(job, pending%)", tostring(other))
      t:cancel()
      other:cancel()
      assert.is_true(until_true(function() return api.counts().alive == 0 end))
    end)

    it("S18: ends with the state", function()
      for _, ending in ipairs { "", "task.await(task.delay(0.01))", "t[1]:cancel()" } do
        local output, code = child.lua(([[
          package.cpath = %q .. "/?.so;" .. package.cpath
          local task, api
          sentinel = setmetatable({}, {__gc = function()
            for _ = 1, 500 do
              if api.counts().alive == 0 then break end
              os.execute("sleep 0.01")
            end
            if api.counts().alive ~= 0 then print("alive", api.counts().alive) end
          end})
          task, api = require "asynctask", require "apimodule"
          local t = {}
          for i = 1, 40 do
            t[i] = api.job(i %% 3 == 0 and "wait" or i %% 3 == 1 and "progress" or "sum", 1000, %s, function() end)
          end
          %s
          os.exit(true, true)
        ]]):format(cc.module "apimodule", tostring(blocking), ending))
        assert.equal("", output)
        assert.equal(0, code, output)
      end
    end)
  end)
end

describe("a job", function()
  it("without a function to run raises, and its data is let go", function()
    api.counts(true)
    assert.has_error(api.empty_job, "asynctask_job_submit: no function to run")
    assert.same({ 1, 0 }, { api.counts().released, api.counts().alive })
    assert.has_error(function() api.job("sum", 1, false, 42) end)
    assert.same({ 2, 0 }, { api.counts().released, api.counts().alive })
  end)

  it("runs beside task.run's, with which it shares the threads", function()
    api.counts(true)
    local list = {}
    for i = 1, 100 do
      list[i] = i % 2 == 0 and api.job("sum", i) or task.run(function(n) return n * (n + 1) // 2 end, i)
    end
    for i, v in ipairs(await(task.when_all(list))) do assert.equal(i * (i + 1) // 2, v) end
    assert.equal(0, api.counts().alive)
  end)

  it("S21: can be started by a job", function()
    local path = cc.module "apimodule"
    local n = await(task.run(function(directory)
      package.cpath = directory .. "/?.so;" .. package.cpath
      local mine, inner = require "apimodule", require "asynctask"
      local list = {}
      for i = 1, 20 do list[i] = mine.job("sum", i, i % 2 == 0) end
      local sum = 0
      for _, v in ipairs(inner.await(inner.when_all(list))) do sum = sum + v end
      return sum
    end, path))
    assert.equal(1540, n)
  end)
end)
