-- What jobs leave behind for the next on the same thread: globals, memory, modules.

local child = require "spec.support.child"
local task = require "asynctask"

local await = task.await

describe("a worker", function()
  it("with fresh = true gives each job globals of its own", function()
    local p <const> = task.pool { threads = 1, fresh = true }
    -- luacheck: push ignore
    assert.equal(1, await(p:run(function() leaked = 1 string.x = nil return _G.leaked end)))
    assert.is_nil(await(p:run(function() return leaked end)))
    local captured = 2
    assert.equal(2, await(p:run(function() leaked = captured return leaked end)))
    assert.is_nil(await(p:run(function() return leaked or rawget(_G, "leaked") end)))
    local function plain() counter = (counter or 0) + 1 return counter end
    for _ = 1, 3 do assert.equal(1, await(p:run(plain))) end
    -- luacheck: pop
    assert.is_true(await(p:run(function() return _G == _ENV and rawget(_G, "print") ~= nil end)))
    assert.equal(6, await(p:run(function()
      local parallel, t = require "asynctask.parallel", require "asynctask"
      return t.await(parallel.reduce({ 1, 2, 3 }, function(a, b) return a + b end, 0))
    end)))
    await(p:close())
  end)

  it("without it the globals of one thread are seen by its next job, and by no other state", function()
    local p <const> = task.pool { threads = 1 }
    -- luacheck: push ignore
    await(p:run(function() left_behind = "here" end))
    assert.equal("here", await(p:run(function() return left_behind end)))
    assert.is_nil(left_behind)
    -- luacheck: pop
    await(p:close())
  end)

  it("ends a job that wants more memory than it may with an error, and lives on", function()
    local p <const> = task.pool { threads = 1, memory = 4 * 1024 * 1024 }
    for _, grow in ipairs {
      function() local t = {} for i = 1, 1e9 do t[i] = i end return t end,
      function() local t = {} for i = 1, 1e9 do t[i] = tostring(i) end return t end,
      function() return ("x"):rep(64 * 1024 * 1024) end,
      function() local s = "x" while true do s = s .. s end end,
    } do
      local ok, err = task.pcall(await, p:run(grow))
      assert.is_false(ok)
      assert.equal("ENOMEM", err.code)
      assert.matches("more than its 4194304 bytes", tostring(err), 1, true)
      assert.equal("fine", await(p:run(function() return "fine" end)))
    end
    local text = ("y"):rep(100)
    assert.equal(1e6, await(p:run(function(s) return #s:rep(1e4) end, text)))
    await(p:close())
  end)

  it("a job that catches the lack of memory goes on", function()
    local p <const> = task.pool { threads = 1, memory = 4 * 1024 * 1024 }
    assert.equal("caught not enough memory", await(p:run(function()
      local _, err = pcall(string.rep, "x", 64 * 1024 * 1024)
      return "caught " .. tostring(err)
    end)))
    await(p:close())
  end)

  it("collects what jobs have left before it sleeps", function()
    local p <const> = task.pool { threads = 1 }
    await(p:run(function()
      local t = {}
      for i = 1, 200000 do t[i] = { i } end
      return #t
    end))
    await(task.delay(0.05))
    assert.is_true(await(p:run(function() return collectgarbage "count" end)) < 4000)
    await(p:close())
  end)

  it("S12: a <close> handler sees the error itself", function()
    assert.equal("boom", await(task.run(function()
      local seen
      pcall(function()
        local _ <close> = setmetatable({}, { __close = function(_, err) seen = err end })
        error("boom", 0)
      end)
      return seen
    end)))
    local ok, err = task.pcall(await, task.run(function()
      local _ <close> = setmetatable({}, { __close = function(_, e) error("saw " .. type(e) .. " " .. e.code, 0) end })
      error { code = "EOWN" }
    end))
    assert.is_false(ok)
    assert.equal("saw table EOWN", err)
  end)

  it("package.path and cpath follow those of the program", function()
    local dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir " .. child.quote(dir)))
    local f = assert(io.open(dir .. "/mine.lua", "w"))
    f:write "return { f = function() return 'found' end }"
    f:close()
    local output = child.lua([[
      local task = require "asynctask"
      package.path = ]] .. ("%q"):format(dir .. "/?.lua;") .. [[ .. package.path
      print(task.await(task.run("mine.f")))
      print(task.await(task.pool{threads=1}:run(function() return require "mine".f() end)))]], { timeout = 10 })
    os.remove(dir .. "/mine.lua")
    os.remove(dir)
    assert.equal("found\nfound\n", output)
  end)

  it("runs functions of C modules by name", function()
    assert.equal(3, await(task.run("math.tointeger", 3.0)))
    assert.equal("a", await(task.run("utf8.char", 97)))
  end)
end)
