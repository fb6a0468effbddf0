-- Specs of the read formats (csrc/base/format.c, buffer.c), through a stream: whatever the pieces in
-- which bytes arrive, the values are those that io gives for the same bytes.

local task = require "asynctask"
local net = require "asynctask.net"

local await, spawn = task.await, task.spawn

-- A generator of its own, so that a failure can be repeated from its seed.
local function random(seed)
  local state = seed * 2654435761 % 4294967296
  return function(n)
    state = (state * 1664525 + 1013904223) % 4294967296
    return state // 65536 % n + 1
  end
end

local atoms = { "\n", "\n", " ", "\t", "0", "1", "9", "-", "+", ".", "e", "E", "p", "x", "0x", "a", "F", "\0", "\r\n",
  "12", "3.5e2", "nan", "inf", "word", "\255", ("7"):rep(199), ("long "):rep(30) }
local formats = { "l", "L", "n", "a", "*l", "line", 0, 1, 3, 100, "l", "n", "n", "L" }

local function some_text(r)
  local parts = {}
  for i = 1, r(30) - 1 do
    parts[i] = atoms[r(#atoms)]
  end
  return table.concat(parts)
end

-- One to three formats for each of a few reads.
local function some_reads(r)
  local reads = {}
  for i = 1, r(8) do
    reads[i] = {}
    for k = 1, r(3) do
      reads[i][k] = formats[r(#formats)]
    end
  end
  return reads
end

-- Values as text in which 1, 1.0, "1" and nil differ.
local function spell(...)
  local list = table.pack(...)
  for i = 1, list.n do
    list[i] = math.type(list[i]) and math.type(list[i]) .. ":" .. ("%q"):format(list[i])
      or list[i] == nil and "nil" or ("%q"):format(list[i])
  end
  return table.concat(list, ", ")
end

local function by_io(text, reads)
  local file <close> = assert(io.tmpfile())
  file:write(text)
  file:seek("set")
  local results = {}
  for i, read in ipairs(reads) do
    results[i] = spell(file:read(table.unpack(read)))
  end
  return results
end

local ping, pong

-- Returns when the loop has seen what was written before: a byte has gone through another pair.
local function arrive()
  local t = pong:read(1)
  await(ping:write("x"))
  await(t)
end

local function by_stream(text, reads, r)
  local a, b = await(net.pair())
  local writer = spawn(function()
    local at = 1
    while at <= #text do
      local size = r(4) == 1 and r(100) or r(5)
      await(a:write(text:sub(at, at + size - 1)))
      at = at + size
      if r(3) == 1 then
        arrive()
      end
    end
    await(a:close())
  end)
  local results = {}
  for i, read in ipairs(reads) do
    results[i] = spell(await(b:read(table.unpack(read))))
  end
  await(b:close())
  task.pcall(await, writer)
  return results
end

describe("read formats", function()
  it("S23: give what io gives, however the bytes arrive", function()
    local values = 0
    ping, pong = await(net.pair())
    for seed = 1, 1500 do
      local r = random(seed)
      local text, reads = some_text(r), some_reads(r)
      local wanted, got = by_io(text, reads), by_stream(text, reads, r)
      for i = 1, #reads do
        if wanted[i] ~= got[i] then
          error(("seed %d, read %d (%s) of %q: io gives %s, the stream %s"):format(seed, i,
            spell(table.unpack(reads[i])), text, wanted[i], got[i]))
        end
        values = values + 1
      end
    end
    assert.is_true(values > 4000)
    await(ping:close())
    await(pong:close())
  end)

  it("take a numeral of 200 characters and none of 201", function()
    local a, b = await(net.pair())
    await(a:write(("1"):rep(200), " ", ("2"):rep(201), " "))
    assert.are.equal("float", math.type(await(b:read("n"))))
    assert.is_nil(await(b:read("n")))
    assert.are.equal("2 ", await(b:read(2)))
    await(a:close())
    await(b:close())
  end)

  it("stop at the first that fails", function()
    local a, b = await(net.pair())
    await(a:write("1 x 2\n"))
    local list = table.pack(await(b:read("n", "n", "l")))
    assert.are.same({ 1, nil, n = 2 }, list)
    assert.are.equal("x 2", await(b:read("l")))
    await(a:close())
    await(b:close())
  end)

  it("search long lines once, not once for each piece", function()
    local a, b = await(net.pair())
    local before = os.clock()
    ping, pong = await(net.pair())
    local line = b:read("l")
    local piece = ("."):rep(256)
    for _ = 1, 10000 do
      await(a:write(piece))
      arrive()
    end
    await(a:write("\n"))
    assert.are.equal(10000 * 256, #await(line))
    await(ping:close())
    await(pong:close())
    assert.is_true(os.clock() - before < 5)
    await(a:close())
    await(b:close())
  end)
end)
