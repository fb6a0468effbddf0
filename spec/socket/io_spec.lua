-- Specs of asynctask.io: the shapes of `io` and `os`, compared with Lua's own where they can be.

local task = require "asynctask"
local aio = require "asynctask.io"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await, spawn = task.await, task.spawn

local path, put, get, before, after = sandbox.new()

-- What a script prints when `io` and `os` are Lua's, and when they are ours: on the main chunk, and in a task.
local function outputs(script, stdin)
  local options = { stdin = stdin, args = { path("."):sub(1, -3) } }
  local list = {}
  for i, head in ipairs {
    "local run = function(f) f() end\n",
    "local io = require 'asynctask.io'\nlocal os = io.os\nlocal run = function(f) f() end\n",
    "local io = require 'asynctask.io'\nlocal os = io.os\nlocal task = require 'asynctask'\n"
      .. "local run = function(f) task.await(task.spawn(f)) end\n",
  } do
    list[i] = (child.lua(head .. "local dir = arg[1]\nrun(function()\n" .. script .. "\nend)", options)
      :gsub("'io%.", "'"))
  end
  return list
end

local function same(script, stdin)
  local list = outputs(script, stdin)
  assert.are.equal(list[1], list[2])
  assert.are.equal(list[1], list[3])
  return list[1]
end

describe("asynctask.io", function()
  before_each(before)
  after_each(after)

  it("opens, reads, writes, seeks and closes as io does", function()
    same [[
      local f = assert(io.open(dir .. "/a.txt", "w"))
      print(f:write("one\n", 2, " ", 3.5, "\nthree") == f, io.type(f))
      print(f:seek("cur"), f:seek("set", 1), f:seek("end"))
      print(f:close(), io.type(f), io.type(42))
      print(pcall(f.read, f))
      f = assert(io.open(dir .. "/a.txt"))
      print(f:read())
      print(f:read("n", "*n", "l", "L", "a", "a", "l"))
      print(f:seek("set"), f:read(2), f:read(0), f:read("*a"), f:read(0), f:read(5))
      f:close()
      for line in io.lines(dir .. "/a.txt") do print(line) end
      for a, b in io.lines(dir .. "/a.txt", 1, "L") do print(a, b) end
      f = io.open(dir .. "/a.txt", "a+")
      f:write("\nmore") f:seek("set")
      for line in f:lines("L") do io.write(line) end
      print() f:close()
      print(tostring(f))
    ]]
  end)

  it("fails as io does", function()
    same [[
      print(io.open(dir .. "/no/such/file"))
      print(io.open(dir .. "/none", "r"))
      print(pcall(io.open, dir, "x"))
      print(pcall(io.lines, dir .. "/none"))
      print(io.open(dir .. "/a.txt", "w"):close())
      local f = io.open(dir .. "/a.txt", "r")
      print(f:write("x"))
      print(os.remove(dir .. "/none"))
      print(os.remove(dir .. "/a.txt"))
      print(os.rename(dir .. "/none", dir .. "/b"))
    ]]
  end)

  it("runs commands as io.popen and os.execute do", function()
    local text = same [[
      local p = io.popen("echo out; echo more; exit 3")
      print(p:read(), p:read("a"))
      print(p:close())
      for line in io.popen("printf 'a\nb\n'"):lines() do print(line) end
      p = io.popen("cat", "w")
      p:write("to cat\n")
      print(p:close())
      print(os.execute("exit 7"))
      print(os.execute("kill -9 $$"))
      print(os.execute("true"))
      print(os.execute())
      print(pcall(io.popen, "true", "x"))
      print(os.getenv("HOME") ~= nil, os.time() > 0)
    ]]
    assert.matches("to cat\n", text)
    assert.matches("nil\texit\t7\nnil\tsignal\t9\n", text)
  end)

  it("has default files", function()
    put("first\nsecond\n12 rest", "in.txt")
    same([[
      print(io.read())
      for line in io.lines() do print(line) break end
      print(io.read("n"), io.read("a"))
      print(io.type(io.stdin), io.input() == io.stdin)
      io.output(dir .. "/out.txt")
      io.write("to the file\n")
      io.close()
      io.input(dir .. "/out.txt")
      print(io.read("L"))
      io.close(io.input())
      print(pcall(io.input, dir .. "/none"))
    ]], path "in.txt")
    assert.are.equal("to the file\n", get "out.txt")
  end)

  it("lets other tasks run while a command runs", function()
    local order = {}
    local slow = spawn(function()
      local p = aio.popen("read x", "w")
      order[#order + 1] = "started"
      p:write("\n")
      p:close()
      order[#order + 1] = "ended"
    end)
    order[#order + 1] = "beside"
    await(slow)
    assert.are.equal("ended", order[#order])
    assert.are.equal(3, #order)
  end)

  it("closes files that go out of scope, and a loop that is left", function()
    put("a\nb\n", "x.txt")
    local kept
    do
      local f <close> = aio.open(path "x.txt")
      kept = f
    end
    assert.are.equal("closed file", aio.type(kept))
    for line, _ in aio.lines(path "x.txt") do
      assert.are.equal("a", line)
      break
    end
    local f = aio.tmpfile()
    assert.is_truthy(f:write("x"):flush():setvbuf("no"))
    f:close()
  end)

  it("S10: cancellations go through", function()
    local t = spawn(function()
      local p <close> = aio.popen("cat >/dev/null; sleep 30", "w")
      pcall(await, task.delay(30))
      p:write("x")
    end)
    await(task.delay(0.01))
    t:cancel()
    assert.is_nil((task.try(t)))
    assert.are.equal("cancelled", t:status())
  end)
end)
