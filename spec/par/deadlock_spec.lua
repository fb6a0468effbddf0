-- S16 across threads: jobs that wait for what nobody will do, while the main chunk waits for nothing but jobs.

local task = require "asynctask"

local await = task.await

local function stuck()
  local t = require "asynctask"
  never = t.source() -- luacheck: ignore (reachable, so that it is not abandoned)
  return t.await(never.task) -- luacheck: ignore
end

local function error_of(t)
  local ok, err = task.pcall(await, t)
  assert.is_false(ok)
  return err
end

describe("S16: a job that nothing can wake", function()
  it("fails with a deadlock that says where it waits, and its <close> handlers run", function()
    local p <const> = task.pool { threads = 1 }
    local err = error_of(p:run(function()
      local t = require "asynctask"
      local _ <close> = setmetatable({}, { __close = function() closed = true end }) -- luacheck: ignore
      never = t.source() -- luacheck: ignore
      t.await(never.task) -- luacheck: ignore
    end))
    assert.matches("^deadlock: the job waits, and nothing is left that could wake it\n", err)
    assert.matches("waits for a source at .-deadlock_spec.lua:%d+", err)
    assert.is_true(await(p:run(function() return closed end))) -- luacheck: ignore
    await(p:close())
  end)

  it("is found in every kind of pool, and when the pool closes", function()
    assert.matches("^deadlock", error_of(task.run(stuck)))
    assert.matches("^deadlock", error_of(task.thread(stuck)))
    local p <const> = task.pool { threads = 2 }
    local t = p:run(stuck)
    await(p:close())
    assert.matches("^deadlock", error_of(t))
  end)

  it("fails alone: a job that waits for it gets its error and goes on", function()
    local caught, text = await(task.run(function(f)
      local t = require "asynctask"
      local ok, err = t.pcall(t.await, t.run(f))
      return not ok and "caught", err
    end, stuck))
    assert.equal("caught", caught)
    assert.matches("^deadlock", text)
  end)

  it("is none while the main chunk has something else to wait for", function()
    local t = task.run(stuck)
    await(task.delay(0.05))
    assert.equal("pending", t:status())
    assert.matches("^deadlock", error_of(t))
  end)

  it("is none while another job works or waits for something that comes", function()
    local p <const> = task.pool { threads = 2 }
    local t = p:run(stuck)
    assert.equal("came", await(p:run(function() return require "asynctask".delay(0.05, "came") end)))
    assert.equal("pending", t:status())
    assert.equal("computed", await(task.run(function()
      local stop = os.clock() + 0.05
      while os.clock() < stop do end
      return "computed"
    end)))
    assert.equal("pending", t:status())
    assert.matches("^deadlock", error_of(t))
    await(p:close())
  end)

  it("is none when a later job of the thread wakes it", function()
    local p <const> = task.pool { threads = 1 }
    -- luacheck: push ignore
    local t = p:run(function()
      gate = require "asynctask".source()
      return require "asynctask".await(gate.task)
    end)
    await(task.delay(0.02))
    await(p:run(function() gate:set_result("opened") end))
    -- luacheck: pop
    assert.equal("opened", await(t))
    await(p:close())
  end)

  it("is none in a thousand jobs that wait for jobs and delays", function()
    local list = {}
    for i = 1, 1000 do
      list[i] = task.run(function(n)
        local t = require "asynctask"
        if n % 3 == 0 then t.await(t.delay(0.0005 * (n % 5))) end
        return t.await(t.run(function(m)
          local inner = require "asynctask"
          inner.await(inner.yield())
          return m
        end, n))
      end, i)
    end
    local got = await(task.when_all(list))
    for i = 1, 1000 do assert.equal(i, got[i]) end
    for i = 1, 500 do
      assert.equal(i, await(task.run(function(n)
        local t = require "asynctask"
        return t.await(t.run(function(m) return m end, n))
      end, i)))
    end
  end)
end)
