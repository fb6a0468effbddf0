-- asynctask.array: numbers that jobs see without a copy. Elements, bounds, views, arithmetic, atomics.

local array = require "asynctask.array"
local task = require "asynctask"

local await, run = task.await, task.run

local INTEGERS = { "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64" }
local TYPES = { "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64" }
local LIMITS = {
  i8 = { -128, 127 }, i16 = { -32768, 32767 }, i32 = { -2147483648, 2147483647 },
  i64 = { math.mininteger, math.maxinteger }, u8 = { 0, 255 }, u16 = { 0, 65535 }, u32 = { 0, 4294967295 },
}

--- The message of the error that f raises.
local function problem(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  return tostring(message)
end

local function set(a, i, v)
  a[i] = v
end

local function get(a, i)
  return a[i]
end

--- A list of n numbers that fit into the type, some twice.
local function numbers(type, n)
  local list, state = {}, 12345
  for i = 1, n do
    state = (state * 1103515245 + 12345) & 0x7fffffff
    local v = state >> 8 & 127
    list[i] = type:find("^f") and (v - 64) / 4 or type:find("^i") and v - 64 or v
  end
  return list
end

describe("array", function()
  it("is made of zeros, of one value, of a list, of bytes", function()
    for _, type in ipairs(TYPES) do
      local a = array.new(type, 3)
      assert.equal(3, #a)
      assert.equal(type, a:type())
      assert.same({ 0, 0, 0 }, a:to_list())
      assert.same({ 7, 7 }, array.new(type, 2, 7):to_list())
      local b = array.from_list(type, { 1, 2, 100 })
      assert.same({ 1, 2, 100 }, b:to_list())
      assert.same({ 1, 2, 100 }, array.from_string(type, b:to_string()):to_list())
      assert.equal(0, #array.new(type, 0))
      assert.same({}, array.from_list(type, {}):to_list())
      assert.equal("", array.new(type, 0):to_string())
    end
    assert.equal(string.pack("=i4i4", 1, -2), array.from_list("i32", { 1, -2 }):to_string())
    assert.matches("^array of 2 i32", tostring(array.new("i32", 2)))
  end)

  it("keeps integers and floats apart, to the limits of each type", function()
    for type, limits in pairs(LIMITS) do
      local a = array.from_list(type, limits)
      assert.equal(limits[1], a[1])
      assert.equal(limits[2], a[2])
      assert.equal("integer", math.type(a[1]))
      if not type:find("64") then
        assert.matches("does not fit into an element of type " .. type, problem(set, a, 1, limits[1] - 1))
        assert.matches("does not fit into an element of type " .. type, problem(set, a, 1, limits[2] + 1))
      end
      assert.matches("1.5 does not fit", problem(set, a, 1, 1.5), 1, true)
      a[1] = 2.0
      assert.equal("integer", math.type(a[1]))
    end
    local u = array.new("u64", 1)
    u[1] = -1
    assert.equal(-1, u[1])
    local f = array.from_list("f64", { 0.1, 1, math.huge })
    assert.equal(0.1, f[1])
    assert.equal("float", math.type(f[2]))
    assert.equal(math.huge, f[3])
    local half = array.from_list("f32", { 0.5, 0.1 })
    assert.equal(0.5, half[1])
    assert.are_not.equal(0.1, half[2])
    assert.is_true(math.abs(half[2] - 0.1) < 1e-7)
  end)

  it("raises for indices out of bounds and for what is no number", function()
    local a = array.new("f64", 10)
    assert.matches("index 11 is out of bounds (1 to 10)", problem(get, a, 11), 1, true)
    assert.matches("index 0 is out of bounds (1 to 10)", problem(set, a, 0, 1), 1, true)
    assert.matches("index -1 is out of bounds", problem(get, a, -1), 1, true)
    assert.matches("integer indices (got 1.5)", problem(get, a, 1.5), 1, true)
    assert.matches("integer indices (got x)", problem(set, a, "x", 1), 1, true)
    assert.matches("number expected for an element of type f64, got string", problem(set, a, 1, "1"), 1, true)
    assert.equal(0, a[1.0])
    assert.is_nil(a.no_such_method)
  end)

  it("S22: wrong arguments raise at once", function()
    assert.matches("bad argument #1 to 'new' (no type of elements 'int')", problem(array.new, "int", 1), 1, true)
    assert.matches("bad argument #2 to 'new' (length must not be negative)", problem(array.new, "i8", -1), 1, true)
    assert.matches("bad argument #2 to 'new'", problem(array.new, "i8"), 1, true)
    assert.matches("bad argument #2 to 'from_list' (list expected", problem(array.from_list, "i8", 1), 1, true)
    assert.matches("index 2 of the list: number expected, got string",
      problem(array.from_list, "i8", { 1, "2" }), 1, true)
    assert.matches("3 bytes are no whole number of i32", problem(array.from_string, "i32", "abc"), 1, true)
    assert.matches("not enough memory", problem(array.new, "f64", math.maxinteger), 1, true)
    local a = array.new("f64", 2)
    assert.matches("array expected, got table", problem(a.sum, {}), 1, true)
    assert.matches("array expected, got userdata", problem(a.sum, io.stdout):gsub("FILE%*", "userdata"), 1, true)
  end)

  it("slices are views of the same elements", function()
    local a = array.from_list("i32", { 1, 2, 3, 4, 5 })
    local s = a:slice(2, 4)
    assert.same({ 2, 3, 4 }, s:to_list())
    s[1] = 20
    assert.equal(20, a[2])
    a[4] = 40
    assert.equal(40, s[3])
    assert.same({ 4, 5 }, array.from_list("i32", { 1, 2, 3, 4, 5 }):slice(-2):to_list())
    assert.same({ 3 }, s:slice(2, 2):to_list())
    assert.equal(0, #a:slice(6))
    assert.equal(0, #a:slice(3, 2))
    assert.is_true(a:slice(2, 4) == s)
    assert.is_false(a:slice(2, 3) == s)
    assert.matches("out of bounds (1 to 5)", problem(a.slice, a, 2, 6), 1, true)
    assert.matches("out of bounds (1 to 5)", problem(a.slice, a, 0), 1, true)
    assert.matches("out of bounds (1 to 5)", problem(a.slice, a, 4, 2), 1, true)
  end)

  it("a slice keeps the elements when the array is gone", function()
    local s = array.from_list("u8", { 1, 2, 3 }):slice(2)
    collectgarbage()
    collectgarbage()
    assert.same({ 2, 3 }, s:to_list())
  end)

  it("fills, copies, assigns", function()
    for _, type in ipairs(TYPES) do
      local a = array.from_list(type, { 1, 2, 3, 4 })
      local b = a:copy()
      a:slice(2, 3):fill(9)
      assert.same({ 1, 9, 9, 4 }, a:to_list())
      assert.same({ 1, 2, 3, 4 }, b:to_list())
      assert.is_false(a == b)
      assert.same({ 1, 9, 9, 4 }, b:assign(a):to_list())
      assert.same({ 5, 6, 7, 8 }, b:assign({ 5, 6, 7, 8 }):to_list())
      assert.same({ 1, 9, 9, 4 }, b:assign(a:to_string()):to_list())
      a:slice(1, 3):assign(a:slice(2, 4))
      assert.same({ 9, 9, 4, 4 }, a:to_list())
    end
    local a = array.new("u8", 2)
    assert.matches("length is 3, that of the array 2", problem(a.assign, a, { 1, 2, 3 }), 1, true)
    assert.matches("length is 1, that of the array 2", problem(a.assign, a, "x"), 1, true)
    assert.matches("array of the same type expected", problem(a.assign, a, array.new("i8", 2)), 1, true)
  end)

  it("sums, finds the least and the greatest, as loops in Lua do", function()
    for _, type in ipairs(TYPES) do
      local list = numbers(type, 500)
      local a, sum = array.from_list(type, list), type:find("^f") and 0.0 or 0
      for _, v in ipairs(list) do sum = sum + v end
      assert.equal(sum, a:sum())
      assert.equal(math.type(sum), math.type(a:sum()))
      assert.equal(math.min(table.unpack(list)), (a:min()))
      assert.equal(math.max(table.unpack(list)), (a:max()))
      local least, i = a:min()
      assert.equal(least, list[i])
    end
    assert.is_nil(array.new("f64", 0):min())
    assert.equal(0, array.new("i8", 0):sum())
    local nan = array.from_list("f64", { 0 / 0, 3, -1, 0 / 0 })
    assert.equal(-1, (nan:min()))
    assert.equal(3, (nan:max()))
    assert.equal(-1, array.from_list("u64", { 1, -1, 2 }):max()) -- 2^64 - 1
    assert.equal(-2, array.from_list("i64", { math.maxinteger, math.maxinteger }):sum())
  end)

  it("sorts as table.sort does", function()
    for _, type in ipairs(TYPES) do
      for _, n in ipairs { 0, 1, 2, 48, 49, 3000 } do
        local list = numbers(type, n)
        local a = array.from_list(type, list)
        table.sort(list)
        assert.same(list, a:sort():to_list())
      end
    end
    local wide = array.from_list("i64", { 5, math.mininteger, -1, math.maxinteger, 0 })
    assert.same({ math.mininteger, -1, 0, 5, math.maxinteger }, wide:sort():to_list())
    assert.same({ 0, 1, -1 }, array.from_list("u64", { -1, 1, 0 }):sort():to_list())
    for _, more in ipairs { 0, 100 } do -- by insertion, by digits
      local f = array.new("f64", 5 + more, 1)
      f:slice(1, 5):assign({ math.huge, 0 / 0, -0.5, -math.huge, 0.25 })
      local sorted = f:sort():to_list()
      assert.equal(-math.huge, sorted[1])
      assert.equal(-0.5, sorted[2])
      assert.equal(0.25, sorted[3])
      assert.equal(math.huge, sorted[4 + more])
      assert.is_true(sorted[5 + more] ~= sorted[5 + more])
    end
  end)

  it("pairs visits the elements in order", function()
    local seen = {}
    for i, v in pairs(array.from_list("u16", { 5, 6, 7 })) do seen[i] = v end
    assert.same({ 5, 6, 7 }, seen)
  end)

  it("adds, exchanges and compares on integers, one after another", function()
    for _, type in ipairs(INTEGERS) do
      local a = array.from_list(type, { 10, 20 })
      assert.equal(13, a:add(1, 3))
      assert.equal(14, a:add(1))
      assert.equal(12, a:add(1, -2))
      assert.equal(20, a:exchange(2, 21))
      local ok, found = a:compare_exchange(2, 21, 22)
      assert.is_true(ok)
      assert.equal(21, found)
      ok, found = a:compare_exchange(2, 21, 23)
      assert.is_false(ok)
      assert.equal(22, found)
      assert.same({ 12, 22 }, a:to_list())
      assert.matches("out of bounds", problem(a.add, a, 3, 1), 1, true)
    end
    assert.equal(-128, array.from_list("i8", { 127 }):add(1, 1))
    assert.equal(0, array.from_list("u16", { 65535 }):add(1, 1))
    local f = array.new("f64", 1)
    assert.matches("array of integers expected", problem(f.add, f, 1, 1), 1, true)
    assert.matches("array of integers expected", problem(f.exchange, f, 1, 1), 1, true)
    assert.matches("array of integers expected", problem(f.compare_exchange, f, 1, 1, 1), 1, true)
  end)

  it("S19: jobs see the elements themselves, through slices and upvalues, too", function()
    local a = array.new("f64", 8)
    local jobs = {}
    for i = 1, 8 do
      jobs[i] = run(function(part) part[1] = i * i end, a:slice(i, i))
    end
    await(task.when_all(jobs))
    assert.same({ 1, 4, 9, 16, 25, 36, 49, 64 }, a:to_list())
    local same, back, part = await(run(function(x, y) return rawequal(x, y), a, a:slice(3, 4) end, a, a))
    assert.is_true(same)
    assert.is_true(back == a)
    assert.same({ 9, 16 }, part:to_list())
    part[1] = -1
    assert.equal(-1, a[3])
  end)

  it("S19: every type travels, empty and odd slices included", function()
    for _, type in ipairs(TYPES) do
      local a = array.from_list(type, { 1, 2, 3 })
      local s, e = await(run(function(t) return t.s, t.e end, { s = a:slice(2, 2), e = a:slice(4) }))
      assert.equal(type, s:type())
      assert.same({ 2 }, s:to_list())
      assert.equal(0, #e)
    end
  end)

  it("adds are atomic among threads", function()
    for _, type in ipairs { "u16", "i32", "i64" } do
      local a, jobs = array.new(type, 1), {}
      for j = 1, 4 do
        jobs[j] = run(function(x)
          for _ = 1, 5000 do x:add(1, 1) end
        end, a)
      end
      await(task.when_all(jobs))
      assert.equal(20000, a[1])
    end
  end)

  it("compare_exchange makes a lock", function()
    local a, jobs = array.new("i32", 2), {}
    for j = 1, 3 do
      jobs[j] = run(function(x)
        local t = require "asynctask"
        for _ = 1, 200 do
          while not x:compare_exchange(1, 0, 1) do t.await(t.yield()) end
          x[2] = x[2] + 1
          x:exchange(1, 0)
        end
      end, a)
    end
    await(task.when_all(jobs))
    assert.equal(600, a[2])
  end)

  it("lives as long as anybody holds it, whoever made it", function()
    local made = await(run(function()
      local x = require "asynctask.array".new("i32", 1000)
      x:fill(5)
      return x
    end))
    for _ = 1, 20 do
      await(run(function() collectgarbage() end))
    end
    assert.equal(5000, made:sum())
  end)

  it("is written to sockets and files as its bytes", function()
    local fs, net = require "asynctask.fs", require "asynctask.net"
    local a = array.new("u32", 100000)
    for i = 1, #a do a[i] = i end
    local near, far = await(net.pair())
    local sent = task.spawn(function()
      await(near:write("<", a:slice(1, 0), a, ">"))
      await(near:close())
    end)
    local bytes = await(far:read("a"))
    await(sent)
    await(far:close())
    assert.equal("<", bytes:sub(1, 1))
    assert.equal(">", bytes:sub(-1))
    assert.is_true(bytes:sub(2, -2) == a:to_string())
    local name = os.tmpname()
    local f = await(fs.open(name, "w"))
    await(f:write(a))
    await(f:write_at(4, array.from_list("u32", { 7 })))
    await(f:close())
    local back = array.from_string("u32", await(fs.read_file(name)))
    os.remove(name)
    assert.equal(7, back[2])
    back[2] = 2
    assert.is_true(back:to_string() == a:to_string())
    assert.is_false((pcall(near.write, near, {})))
  end)
end)
