-- What task.run copies, how, and what it refuses (S19). A value's way to a job and back is two copies.

local core = require "asynctask.core"
local task = require "asynctask"

local await, run = task.await, core.par.run

--- The values as they come back from a job that returns its arguments.
local function copy(...)
  return await(run(function(...) return ... end, ...))
end

--- What run says of arguments that it refuses.
local function refusal(...)
  local ok, message = pcall(run, ...)
  assert.is_false(ok)
  return message
end

describe("codec", function()
  it("S19: copies nil, booleans and strings of any size, zero bytes included", function()
    local long = ("z"):rep(3000000)
    local got = table.pack(copy(nil, true, false, "", "a\0b", ("x"):rep(255), ("y"):rep(256), long, nil))
    assert.equal(9, got.n)
    assert.is_nil(got[1])
    assert.is_true(got[2])
    assert.is_false(got[3])
    assert.equal("", got[4])
    assert.equal("a\0b", got[5])
    assert.equal(("x"):rep(255), got[6])
    assert.equal(("y"):rep(256), got[7])
    assert.is_true(long == got[8])
    assert.is_nil(got[9])
  end)

  it("S19: keeps integers and floats apart, to the last bit", function()
    for _, v in ipairs { 0, -1, 127, 128, -128, -129, 1 << 40, math.maxinteger, math.mininteger } do
      local got = copy(v)
      assert.equal(v, got)
      assert.equal("integer", math.type(got))
    end
    for _, v in ipairs { 0.0, 1.0, 0.1, -1e300, 5e-324, math.huge, -math.huge, 2.0 ^ 53 } do
      local got = copy(v)
      assert.equal(v, got)
      assert.equal("float", math.type(got))
    end
    assert.equal(-math.huge, 1 / copy(-0.0))
    local nan = copy(0 / 0)
    assert.is_true(nan ~= nan)
  end)

  it("S19: copies tables with every kind of key, with holes, nested", function()
    local got = copy { 1, 2, nil, 4, [100] = "far", [0] = "zero", [-1] = "minus", x = { y = { z = {} } },
      [2.5] = "float", [true] = "yes", [false] = false }
    assert.same({ 1, 2, nil, 4, [100] = "far", [0] = "zero", [-1] = "minus", x = { y = { z = {} } },
      [2.5] = "float", [true] = "yes", [false] = false }, got)
    assert.same({}, copy {})
  end)

  it("S19: keeps shared references and cycles, in one value and across values", function()
    local shared = { "shared" }
    local t = { shared, again = shared }
    t.self, t[shared] = t, "as a key"
    local a, b, c = copy(t, shared, t)
    assert.equal(a, c)
    assert.equal(a, a.self)
    assert.equal(a[1], a.again)
    assert.equal(a[1], b)
    assert.equal("as a key", a[b])
    assert.are_not.equal(t, a)
    assert.are_not.equal(shared, b)
  end)

  it("S19: copies a list of a million links and its cycle", function()
    local first = { n = 0 }
    local last = first
    for i = 1, 1000000 do
      last.next = { n = i }
      last = last.next
    end
    last.next = first
    local count = await(run(function(l)
      local n, link = 0, l
      repeat
        if link.n ~= n then return "out of order" end
        n, link = n + 1, link.next
      until link == l
      return n
    end, first))
    assert.equal(1000001, count)
  end)

  it("S19: copies functions with their upvalues; those are copies", function()
    local n, names = 10, { "a" }
    local function f(x)
      n = n + x
      names[#names + 1] = "b"
      return n, #names
    end
    local a, b = await(run(f, 5))
    assert.equal(15, a)
    assert.equal(2, b)
    assert.equal(10, n)
    assert.same({ "a" }, names)
  end)

  it("S19: keeps upvalues shared among the functions of one message", function()
    local count = 0
    local function increment() count = count + 1 end
    local function get() return count end
    assert.equal(2, await(run(function(inc, read) inc() inc() return read() end, increment, get)))
    local inc, read = copy(increment, get)
    inc() inc() inc()
    assert.equal(3, read())
    assert.equal(0, count)
  end)

  it("S19: copies functions that refer to themselves and to each other", function()
    local function fact(n) return n < 2 and 1 or n * fact(n - 1) end
    assert.equal(3628800, await(run(fact, 10)))
    local even, odd
    function even(n) return n == 0 or odd(n - 1) end
    function odd(n) return n ~= 0 and even(n - 1) end
    assert.is_true(await(run(even, 100)))
  end)

  it("S19: copies functions nested a thousand deep in upvalues", function()
    local f = function() return 42 end
    for _ = 1, 1000 do
      local inner = f
      f = function() return inner() end
    end
    assert.equal(42, copy(f)())
  end)

  it("S19: gives library functions and loaded modules by name", function()
    assert.equal(string.format, copy(string.format))
    assert.equal(string, copy(string))
    assert.equal(print, copy(print))
    assert.equal(_G.math, copy(_G.math))
    assert.equal(task, copy(task))
    assert.equal(task.map, copy(task.map))
    local function theirs(s, f) return s == string and f == string.format end
    assert.is_true(await(run(theirs, string, string.format)))
    assert.equal(task, await(run(function() return require "asynctask" end)))
  end)

  it("S19: sees modules that were loaded after the first message", function()
    local name = "asynctask.spec_late"
    package.preload[name] = function() return { f = function() return 1 end } end
    local m = require(name)
    local ok, err = task.pcall(function() return await(run(function(x) return x.f() end, m)) end)
    package.preload[name], package.loaded[name] = nil, nil
    assert.is_false(ok) -- by name: and the worker, which has no such preload, says so
    assert.matches("module 'asynctask.spec_late' not found", err, 1, true)
  end)

  it("S19: globals are the worker's own", function()
    _G.asynctask_spec_global = 1
    local seen = await(run(function() return rawget(_G, "asynctask_spec_global") end))
    _G.asynctask_spec_global = nil
    assert.is_nil(seen)
  end)

  it("S19: error objects stay error objects", function()
    local e = copy(task.error { code = "ENOENT", message = "no such file", op = "open", path = "x" })
    assert.equal("ENOENT", e.code)
    assert.equal("open x: no such file (ENOENT)", tostring(e))
    assert.equal(getmetatable(task.error { code = "X" }), getmetatable(e))
  end)

  it("S19: names the path to what cannot be copied", function()
    local f = function() end
    local file = io.stdout
    local co = coroutine.create(f)
    assert.matches('argument 2, field "conn": cannot copy a userdata (FILE*)', refusal(f, { conn = file }), 1, true)
    assert.matches("argument 2: cannot copy a coroutine", refusal(f, co), 1, true)
    assert.matches('argument 2, field "a", index 3, field "b": cannot copy a coroutine',
      refusal(f, { a = { 1, 2, { b = co } } }), 1, true)
    assert.matches("argument 2, a key: cannot copy a coroutine", refusal(f, { [co] = 1 }), 1, true)
    local plain, named = setmetatable({}, {}), setmetatable({}, { __name = "Point" })
    assert.matches("argument 4: cannot copy a table with a metatable", refusal(f, 1, 2, plain), 1, true)
    assert.matches("argument 2: cannot copy a table with a metatable (Point)", refusal(f, named), 1, true)
    assert.matches("cannot copy a userdata (asynctask.Task)", refusal(f, task.delay(0)), 1, true)
    assert.matches("cannot copy a C function that is in no loaded module", refusal(f, string.gmatch("", "")), 1, true)
    assert.matches('upvalue "co" of the function: cannot copy a coroutine', refusal(function() return co end), 1, true)
    assert.matches('argument 2, upvalue "co": cannot copy a coroutine', refusal(f, function() return co end), 1, true)
  end)

  it("S19: shortens the path to what lies deep, and names the argument", function()
    local deep = {}
    local t = deep
    for _ = 1, 500 do
      t.n = {}
      t = t.n
    end
    t.bad = coroutine.create(print)
    local message = refusal(function() end, 1, deep)
    assert.matches("argument 3, ...", message, 1, true)
    assert.matches('field "bad": cannot copy a coroutine', message, 1, true)
    assert.is_true(#message < 400)
  end)

  it("S19: a refused call leaves nothing behind: the next one works", function()
    for _ = 1, 50 do
      refusal(function() end, ("x"):rep(100000), { io.stdout })
      assert.equal("ok", copy("ok"))
    end
  end)

  it("S19: results are copied under the same rules, and say which", function()
    local t = run(function() return 1, { out = io.stdout } end)
    local ok, err = task.pcall(await, t)
    assert.is_false(ok)
    assert.matches('result 2, field "out": cannot copy a userdata (FILE*)', tostring(err), 1, true)
  end)

  it("S19: keys that come again and again, more than are numbered, long ones, and as values", function()
    local list = {}
    for i = 1, 300 do
      local record = { [""] = i, ["key " .. i % 150] = "key " .. i % 7, [i * 1.5] = "key 0" }
      record[("k"):rep(38 + i % 5)] = ("k"):rep(40)
      record["inner " .. i % 70] = { ["key " .. i % 150] = { ["key " .. i % 3] = "inner 1" } }
      list[i] = record
    end
    local deep = { ["key 1"] = 1 }
    for i = 1, 200 do deep = { ["key 2"] = deep, ["late " .. i] = "key 2" } end
    local got, below = copy(list, deep)
    assert.same(list, got)
    for i = 200, 1, -1 do
      assert.equal("key 2", below["late " .. i])
      below = below["key 2"]
    end
    assert.same({ ["key 1"] = 1 }, below)
  end)

  it("S19: a table met among 20,000 others is met again", function()
    local list = {}
    for i = 1, 20000 do list[i] = { i } end
    for i = 1, 20000, 7 do list[20000 + i] = list[i] end
    local got = copy(list)
    for i = 1, 20000, 7 do assert.is_true(rawequal(got[20000 + i], got[i])) end
    assert.equal(2, copy({ 2 })[1]) -- and nothing is left of it
  end)

  it("S19: 10,000 records come back as they went", function()
    local list = {}
    for i = 1, 10000 do list[i] = { id = i, name = "name" .. i, score = i / 3 } end
    local got = copy(list)
    assert.equal(#list, #got)
    for i = 1, #list, 97 do assert.same(list[i], got[i]) end
  end)
end)
