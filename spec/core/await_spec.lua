-- Specs of await and try: what they give (S2, S3), and where they may stand (S17).

local task = require "asynctask"

local await, try, spawn = task.await, task.try, task.spawn

-- A task that gives `...` when others have run.
local function later(...)
  local values = table.pack(...)
  return spawn(function()
    await(task.yield())
    return table.unpack(values, 1, values.n)
  end)
end

-- A task that fails with `err` when others have run.
local function failing(err)
  return spawn(function()
    await(task.yield())
    error(err, 0)
  end)
end

describe("await", function()
  it("S2: on a settled task returns at once, without letting others run", function()
    local order = {}
    local a = spawn(function()
      await(task.yield())
      order[#order + 1] = "other"
    end)
    local b = spawn(function()
      await(task.from_result())
      await(task.from_result(1))
      order[#order + 1] = "this"
    end)
    await(task.when_all(a, b))
    assert.are.same({ "this", "other" }, order)
  end)

  it("S2: takes a value whose metatable has __await", function()
    local future = setmetatable({}, { __await = function(self)
      assert(getmetatable(self).__await)
      return later("value", 2)
    end })
    assert.are.same({ "value", 2 }, { await(future) })
    assert.are.same({ "value", 2 }, { await(spawn(function() return await(future) end)) })
    assert.are.same({ "value", 2 }, { try(future) })
  end)

  it("S2: __await that gives no Task is an error that says so", function()
    local future = setmetatable({}, { __await = function() return 1 end })
    local ok, err = pcall(await, future)
    assert.is_false(ok)
    assert.matches("__await", err)
    assert.matches("Task", err)
  end)

  it("S22: refuses what is no Task, naming what it got", function()
    for _, f in ipairs({ await, try }) do
      for _, v in ipairs({ 1, "x", {}, print }) do
        local ok, err = pcall(f, v)
        assert.is_false(ok)
        assert.matches("bad argument #1", err)
        assert.matches("Task expected, got " .. type(v), err)
      end
      local ok, err = pcall(f)
      assert.is_false(ok)
      assert.matches("Task expected", err)
    end
  end)

  it("S3: gives every value, nils at the end included", function()
    assert.are.same(table.pack(1, nil, 3, nil), table.pack(await(later(1, nil, 3, nil))))
    assert.are.same(table.pack(), table.pack(await(later())))
    assert.are.same(table.pack(nil), table.pack(await(later(nil))))
    local t = later(1, nil)
    assert.are.same(table.pack(1, nil), table.pack(await(t)))
    assert.are.same(table.pack(1, nil), table.pack(await(t)))
  end)

  it("S3: raises the very error that the task failed with", function()
    local f = function() end
    for _, err in ipairs({ {}, f, "text", 42, 1.5, true, false, coroutine.create(f), io.stdout,
      setmetatable({}, { __tostring = function() error "must not be called" end }) }) do
      local t = failing(err)
      local ok, got = pcall(await, t)
      assert.is_false(ok)
      assert.is_true(rawequal(err, got))
      local again, second = pcall(await, t)
      assert.is_false(again)
      assert.is_true(rawequal(err, second))
      assert.is_true(rawequal(err, t:error()))
    end
  end)

  it("S3: an error that is nil stays nil", function()
    local t = spawn(function()
      await(task.yield())
      error(nil)
    end)
    local got = table.pack(pcall(await, t))
    assert.is_false(got[1])
    assert.is_nil(got[2])
    assert.are.equal("faulted", t:status())
    assert.is_nil(t:error())
    assert.are.same(table.pack(nil, nil), table.pack(try(t)))
    local direct = task.from_error(nil)
    assert.are.equal("faulted", direct:status())
    assert.is_false((pcall(await, direct)))
  end)

  it("S3: a string keeps the place that error gave it, and gets no second one", function()
    local t = spawn(function() error "here" end)
    local _, err = pcall(await, t)
    assert.matches("^[^\n]*await_spec%.lua:%d+: here$", err)
    local outer = spawn(function() return await(t) end)
    assert.are.equal(err, outer:error())
  end)

  it("S3: an error goes through three tasks and stays the same", function()
    local err = {}
    local a = failing(err)
    local b = spawn(function() return await(a) end)
    local c = spawn(function()
      local x <const> = await(b)
      return x
    end)
    local ok, got = pcall(await, c)
    assert.is_false(ok)
    assert.are.equal(err, got)
  end)

  it("S3: try gives the values, or nil and the error", function()
    assert.are.same(table.pack("a", nil), table.pack(try(later("a", nil))))
    local err = {}
    local r = table.pack(try(failing(err)))
    assert.are.equal(2, r.n)
    assert.is_nil(r[1])
    assert.are.equal(err, r[2])
    local value, cancelled = try(task.from_cancelled("why"))
    assert.is_nil(value)
    assert.is_true(task.is_cancelled(cancelled))
    assert.are.equal("why", cancelled.reason)
  end)

  it("S3: t:await and t:try wait, too", function()
    assert.are.equal(1, later(1):await())
    assert.are.same({ nil, "e" }, { failing("e"):try() })
    assert.are.equal(1, await(spawn(function() return later(1):await() end)))
  end)

  it("many may await one task, and each gets all of it", function()
    local s = task.source()
    local list = {}
    for i = 1, 50 do
      list[i] = spawn(function() return await(s.task) end)
    end
    s:set_result("a", "b")
    for i = 1, 50 do
      assert.are.same({ "a", "b" }, { await(list[i]) })
    end
  end)

  it("a task that awaits itself gets an error, no deadlock", function()
    local t
    t = spawn(function()
      await(task.yield())
      return await(t)
    end)
    local ok, err = pcall(await, t)
    assert.is_false(ok)
    assert.matches("itself", err)
  end)

  it("can wait a million times in one task without growing its stack", function()
    local n = os.getenv("ASYNCTASK_SANITIZER") and 20000 or 200000
    local function f(left)
      if left == 0 then
        return "done"
      end
      await(task.yield())
      return f(left - 1)
    end
    assert.are.equal("done", await(spawn(f, n)))
  end)
end)

-- What works in a task works on the main chunk, too.
local function both(f)
  f()
  await(spawn(f))
end

describe("await may stand in", function()
  it("S17: pcall and xpcall", function()
    both(function()
      assert.are.same({ true, 1 }, { pcall(function() return await(later(1)) end) })
      assert.are.same({ true, 1 }, { pcall(await, later(1)) })
      local err = {}
      local ok, got = pcall(await, failing(err))
      assert.is_false(ok)
      assert.are.equal(err, got)
      local handled
      local fine, result = xpcall(function() return await(failing(err)) end, function(e)
        handled = e
        return "handled"
      end)
      assert.is_false(fine)
      assert.are.equal("handled", result)
      assert.are.equal(err, handled)
    end)
  end)

  it("S17: iterators of a generic for", function()
    both(function()
      local seen = {}
      for i in function(_, i) return await(later(i < 3 and i + 1 or nil)) end, nil, 0 do
        seen[#seen + 1] = i
      end
      assert.are.same({ 1, 2, 3 }, seen)
    end)
  end)

  it("S17: metamethods", function()
    both(function()
      local wait = function(v) return function() return await(later(v)) end end
      local mt = {
        __add = wait("+"), __concat = wait(".."), __unm = wait("-"), __len = wait(5), __eq = wait(true),
        __lt = wait(true), __le = wait(true), __call = wait("()"), __index = wait("[]"),
      }
      local stored
      function mt.__newindex(_, k, v) stored = await(later(k .. v)) end
      local x, y = setmetatable({}, mt), setmetatable({}, mt)
      assert.are.equal("+", x + 1)
      assert.are.equal("..", "s" .. x)
      assert.are.equal("..", x .. x .. x)
      assert.are.equal("-", -x)
      assert.are.equal(5, #x)
      assert.is_true(x == y)
      assert.is_false(x ~= y)
      assert.is_true(x < y)
      assert.is_true(x <= y)
      assert.are.equal("()", x())
      assert.are.equal("[]", x.key)
      x.k = "v"
      assert.are.equal("kv", stored)
    end)
  end)

  it("S17: __pairs and the function it gives", function()
    both(function()
      local seen = {}
      local list = setmetatable({}, { __pairs = function()
        await(later())
        return function(_, k)
          return await(later(k == nil and "only" or nil))
        end
      end })
      for k in pairs(list) do
        seen[#seen + 1] = k
      end
      assert.are.same({ "only" }, seen)
    end)
  end)

  it("S12: __close, at the end of a scope, on return, break, goto and error", function()
    both(function()
      local closed = {}
      local function closing(name)
        return setmetatable({}, { __close = function(_, err)
          await(later())
          closed[#closed + 1] = name .. (err ~= nil and " " .. tostring(err) or "")
        end })
      end
      do
        local _ <close> = closing("end")
      end
      local function returning()
        local _ <close> = closing("return")
        return "values", "kept"
      end
      assert.are.same({ "values", "kept" }, { returning() })
      while true do
        local _ <close> = closing("break")
        break
      end
      for _ = 1, 2 do
        local _ <close> = closing("goto")
        goto continue
        ::continue::
      end
      assert.is_false((pcall(function()
        local _ <close> = closing("outer")
        local _ <close> = closing("inner")
        error("boom", 0)
      end)))
      assert.are.same({ "end", "return", "break", "goto", "goto", "inner boom", "outer boom" }, closed)
    end)
  end)

  it("S17: a file run with dofile", function()
    local path = os.tmpname()
    local f = assert(io.open(path, "w"))
    assert(f:write([[local task = require "asynctask"
      task.await(task.yield())
      return "loaded", task.await(task.from_result(2))]]))
    f:close()
    both(function()
      assert.are.same({ "loaded", 2 }, { dofile(path) })
    end)
    os.remove(path)
  end)

  it("S17: select, tail calls and vararg functions", function()
    both(function()
      local function tail(...) return await(...) end
      assert.are.equal("v", tail(later("v")))
      assert.are.equal("b", (select(2, await(later("a", "b")))))
    end)
  end)
end)

-- The message of the error that `f` fails with when a task runs it.
local function refusal(f)
  local t = spawn(f)
  if not t:done() then
    await(task.yield())
    await(task.yield())
  end
  local ok, err = pcall(await, t)
  assert.is_false(ok)
  assert.is_string(err)
  return err
end

describe("await is refused, with the cause and the cure,", function()
  it("S17: in a comparator of table.sort", function()
    local err = refusal(function()
      table.sort({ 3, 1, 2 }, function(a, b)
        await(later())
        return a < b
      end)
    end)
    assert.matches("sort", err)
    assert.matches("cannot be suspended", err)
    assert.matches("before the call", err)
    assert.matches("await_spec%.lua:%d+:", err)
  end)

  it("S17: in a callback of gsub", function()
    local err = refusal(function()
      return (("abc"):gsub(".", function() return await(later("x")) end))
    end)
    assert.matches("gsub", err)
    assert.matches("before the call", err)
  end)

  it("S17: in a file that require loads", function()
    local path = os.tmpname()
    local f = assert(io.open(path, "w"))
    assert(f:write([[local task = require "asynctask"
      return task.await(task.spawn(function() task.await(task.yield()) end))]]))
    f:close()
    local old = package.path
    package.path = path
    local err = refusal(function() require("awaiting_module") end)
    package.path = old
    os.remove(path)
    assert.matches("require", err)
    assert.matches("dofile", err)
    assert.is_nil(package.loaded.awaiting_module)
  end)

  it("S17: in a coroutine that is not a task's", function()
    local err = refusal(function()
      local co = coroutine.wrap(function() return await(later(1)) end)
      return co()
    end)
    assert.matches("coroutine", err)
    assert.matches("asynctask%.coroutine", err)
    local ok, message
    local co = coroutine.create(function() return await(later(1)) end)
    ok, message = coroutine.resume(co)
    assert.is_false(ok)
    assert.matches("asynctask%.coroutine", message)
  end)

  it("S17: in a __tostring, a message handler, a reader of load, and a callback's callback", function()
    assert.matches("cannot be suspended", refusal(function()
      return tostring(setmetatable({}, { __tostring = function() return await(later("x")) end }))
    end))
    assert.matches("cannot be suspended", refusal(function()
      local _, err = xpcall(error, function() return select(2, pcall(await, later())) end, "x")
      error(err, 0)
    end))
    assert.matches("cannot be suspended", refusal(function()
      local chunk, err = load(function() return await(later("return 1")) end)
      assert.is_nil(chunk)
      error(err, 0)
    end))
    assert.matches("sort", refusal(function()
      table.sort({ 2, 1 }, function()
        return (pcall(function()
          local _, e = pcall(await, later())
          error(e, 0)
        end)) or error(select(2, pcall(await, later())), 0)
      end)
    end))
  end)

  it("S17: but a settled task is welcome there", function()
    local three = task.from_result(3)
    local list = { 3, 1, 2 }
    await(spawn(function()
      table.sort(list, function(a, b)
        await(three)
        return a < b
      end)
    end))
    assert.are.same({ 1, 2, 3 }, list)
    assert.are.equal("333", await(spawn(function()
      return (("abc"):gsub(".", function() return tostring(await(three)) end))
    end)))
    assert.are.equal(3, coroutine.wrap(function() return await(three) end)())
  end)

  it("S17: the task goes on after a refusal that it caught", function()
    local t = spawn(function()
      local ok = pcall(table.sort, { 2, 1 }, function() return await(later(true)) end)
      assert.is_false(ok)
      return await(later("fine"))
    end)
    assert.are.equal("fine", await(t))
    await(task.yield())
    await(task.yield())
  end)
end)

describe("a stray yield", function()
  it("S17: of a task is an error at its place", function()
    local t = spawn(function()
      await(task.yield())
      coroutine.yield("lost")
      return "not reached"
    end)
    local ok, err = pcall(await, t)
    assert.is_false(ok)
    assert.matches("yield", err)
    assert.matches("await_spec%.lua:%d+:", err)
    assert.matches("await", err)
  end)

  it("S17: can be caught, and the task goes on", function()
    local t = spawn(function()
      local ok, err = pcall(function()
        coroutine.yield(1, 2, 3)
        return "not reached"
      end)
      await(task.yield())
      return ok, err
    end)
    local ok, err = await(t)
    assert.is_false(ok)
    assert.matches("yield", err)
  end)

  it("S17: over and over hurts nobody else", function()
    local t = spawn(function()
      for _ = 1, 100 do
        assert.is_false((pcall(function()
          coroutine.yield()
          return true
        end)))
      end
      return "end"
    end)
    local u = later("other")
    assert.are.equal("end", (await(t)))
    assert.are.equal("other", await(u))
  end)
end)
