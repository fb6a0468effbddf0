-- Specs of asynctask.tty. Programs run on a terminal of their own (tty.pair), on pipes, files and sockets.

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"
local tty = require "asynctask.tty"
local child = require "spec.support.child"

local await, try = task.await, task.try

-- A terminal of our own, where the system has any.
local function pair(opts)
  local master, slave, name = try(tty.pair(opts))
  if not master and slave.code == "ENODEV" then
    pending("no terminals can be made here (/dev/pts is not mounted)")
  end
  assert(master, slave)
  return master, slave, name
end

-- The environment in which a Lua program finds this build.
local function environment()
  local env = process.environ()
  env.LUA_PATH_5_4, env.LUA_CPATH_5_4, env.LUA_INIT, env.LUA_INIT_5_4 = nil, nil, nil, nil
  env.LUA_PATH = ("%s/lua/?.lua;%s/lua/?/init.lua;;"):format(child.root, child.root)
  env.LUA_CPATH = child.build .. "/?.so;;"
  env.LD_PRELOAD = os.getenv("ASYNCTASK_PRELOAD")
  return env
end

-- Starts a Lua program; `head` is put before it.
local head = [[
local task = require "asynctask"
local tty = require "asynctask.tty"
local await = task.await
]]

local function program(text, opts)
  opts.env = environment()
  return await(process.spawn(child.interpreter(), { "-e", head .. text }, opts))
end

-- Runs it on a terminal: our side and the process.
local function on_terminal(text, opts)
  local master, slave = pair(opts)
  local proc = program(text, { stdin = slave, stdout = slave, stderr = slave })
  return master, proc, slave
end

local function stty(stream)
  return (await(process.run("stty", { "-a" }, { stdin = stream })))
end

-- Echoes lines, while another task counts.
local echo = [[
local turns = 0
local ticker = task.spawn(function() while true do await(task.delay(0.001)) turns = turns + 1 end end)
for line in tty.stdin:lines() do
  await(tty.stdout:write("<", line, ">\n"))
end
ticker:cancel()
task.try(ticker)
await(tty.stdout:write(turns > 0 and "ticked\n" or "stood still\n"))
]]

describe("tty.stdin and tty.stdout", function()
  it("on a terminal: lines come while other tasks run", function()
    local master, proc, slave = on_terminal(echo)
    await(slave:close())
    await(master:write("one\n"))
    assert.are.equal("one\r", await(master:read("l"))) -- the echo
    assert.are.equal("<one>\r", await(master:read("l")))
    await(task.delay(0.01))
    await(master:write("\4")) -- Ctrl-D
    assert.are.equal("ticked\r", await(master:read("l")))
    assert.are.equal(0, (await(proc:wait())))
    assert.is_nil(await(master:read("l")))
    await(master:close())
    await(proc:close())
  end)

  it("on pipes", function()
    local proc <close> = program(echo, {})
    await(proc.stdin:write("one\ntw"))
    assert.are.equal("<one>", await(proc.stdout:read("l")))
    await(task.delay(0.01))
    await(proc.stdin:write("o"))
    await(proc.stdin:close())
    assert.are.equal("<two>\nticked\n", await(proc.stdout:read("a")))
    assert.are.equal("", await(proc.stderr:read("a")))
  end)

  it("on files, where others write, too", function()
    local dir = await(fs.mkdtemp())
    await(fs.write_file(dir .. "/in", "skipped\none\ntwo"))
    local input <close> = assert(io.open(dir .. "/in"))
    input:setvbuf("no")
    local output <close> = assert(io.open(dir .. "/out", "w"))
    output:write("before\n")
    output:flush()
    input:seek("set", 8)
    local proc <close> = program(echo, { stdin = input, stdout = output })
    assert.are.equal("", await(proc.stderr:read("a")))
    await(proc:wait())
    output:write("after\n")
    output:flush()
    local text = await(fs.read_file(dir .. "/out"))
    assert.is_truthy(text:find("^before\n<one>\n<two>\n%a+ ?%a*\nafter\n$"), text)
    await(fs.remove(dir, { recursive = true }))
  end)

  it("on sockets and devices", function()
    local a, b = await(net.pair())
    local proc = program(echo, { stdin = b, stdout = b })
    await(b:close())
    await(a:write("one\n"))
    assert.are.equal("<one>", await(a:read("l")))
    await(a:shutdown())
    assert.is_truthy((await(a:read("a"))):find("^[ts]"))
    await(proc:wait())
    await(proc:close())
    await(a:close())
    local output, errors = await(process.run(child.interpreter(), { "-e", head .. echo },
      { env = environment(), stdin = "ignore" }))
    assert.is_truthy(output:find("^[ts]"))
    assert.are.equal("", errors)
  end)

  it("read what streams read, on a file as well", function()
    local dir = await(fs.mkdtemp())
    await(fs.write_file(dir .. "/in", "key: value;12 rest of it"))
    local input <close> = await(fs.open(dir .. "/in"))
    local output = await(process.run(child.interpreter(), { "-e", head .. [[
      print(await(tty.stdin:read_until(": ")), await(tty.stdin:read_until(";", { keep = true })))
      print(await(tty.stdin:read("n")), await(tty.stdin:read_some(3)))
      print(select(2, task.try(tty.stdin:read_until("#", { max = 3 }))).code)
      print(await(tty.stdin:read_some()), await(tty.stdin:read_some()), await(tty.stdin:read_until("x")))
    ]] }, { env = environment(), stdin = input }))
    assert.are.equal("key\tvalue;\n12\t re\nEMSGSIZE\nst of it\tnil\tnil\n", output)
    await(fs.remove(dir, { recursive = true }))
  end)

  it("S10: a cancelled read takes nothing, a file's neither", function()
    local text = [[
      local t = tty.stdin:read(5)
      await(task.yield())
      t:cancel()
      io.write(tostring(await(tty.stdin:read("a"))))
    ]]
    local output = await(process.run(child.interpreter(), { "-e", head .. text },
      { env = environment(), input = "one\ntwo\n" }))
    assert.are.equal("one\ntwo\n", output)
    local file = io.tmpfile()
    file:write("one\ntwo\n")
    file:seek("set", 0)
    output = await(process.run(child.interpreter(), { "-e", head .. text }, { env = environment(), stdin = file }))
    file:close()
    assert.are.equal("one\ntwo\n", output)
  end)

  it("an awaited write is out, whatever ends the program", function()
    local proc <close> = program([[
      await(tty.stdout:write(("x"):rep(1000000)))
      os.exit(0, false)
    ]], {})
    assert.are.equal(1000000, #await(proc.stdout:read("a")))
  end)

  it("a reader that went away is EPIPE, no signal", function()
    local proc <close> = program([[
      await(tty.stdin:read())
      local ok, err = task.pcall(await, tty.stdout:write(("x"):rep(100000)))
      await(tty.stderr:write(err.code))
    ]], {})
    await(proc.stdout:close())
    await(proc.stdin:write("go\n"))
    assert.are.equal("EPIPE", await(proc.stderr:read("a")))
    assert.are.same({ 0 }, { await(proc:wait()) })
  end)

  it("never leave O_NONBLOCK on what others share", function()
    local flags = [[
      local function nonblocking(fd)
        for line in io.lines("/proc/self/fdinfo/" .. fd) do
          local octal = line:match("^flags:%s+(%d+)")
          if octal then return tonumber(octal, 8) & 2048 ~= 0 end
        end
      end
      local t = tty.stdin:read("l")
      await(tty.stdout:write(""))
      await(task.yield())
      io.stderr:write(tostring(nonblocking(0)), " ", tostring(nonblocking(1)), "\n")
      await(t)
      io.stderr:write(tostring(nonblocking(0)), " ", tostring(nonblocking(1)), "\n")
    ]]
    local expected = "false false\nfalse false\n"
    local proc <close> = program(flags, {})
    await(proc.stdin:write("x\n"))
    assert.are.equal(expected, await(proc.stderr:read("a")))
    local master, slave = pair()
    local other <close> = program(flags, { stdin = slave, stdout = slave })
    await(slave:close())
    await(master:write("x\n"))
    assert.are.equal(expected, await(other.stderr:read("a")))
    await(master:close())
    local a, b = await(net.pair())
    local third <close> = program(flags, { stdin = b, stdout = b })
    await(b:close())
    await(a:write("x\n"))
    assert.are.equal(expected, await(third.stderr:read("a")))
    await(a:close())
  end)
end)

describe("tty.size", function()
  it("gives columns and rows", function()
    local master, slave = pair { columns = 91, rows = 17 }
    assert.are.same({ 91, 17 }, { tty.size(slave) })
    assert.are.same({ 91, 17 }, { tty.size(master) })
    local proc = program("print(tty.size())", { stdout = slave })
    assert.are.equal("91\t17\r", await(master:read()))
    await(proc:wait())
    await(proc:close())
    await(slave:close())
    await(master:close())
  end)

  it("S22: says that there is no terminal, and refuses what is none", function()
    local a, b = await(net.pair())
    local columns, err = tty.size(a)
    assert.is_nil(columns)
    assert.are.equal("ENOTTY", err.code)
    await(a:close())
    await(b:close())
    assert.has_error(function() tty.size("stdout") end, nil)
    assert.has_error(function() tty.raw("yes") end)
    assert.has_error(function() tty.pair { size = 3 } end)
    assert.are.equal("ENOTTY", select(2, try(tty.open("/dev/null"))).code)
    assert.are.equal("ENOENT", select(2, try(tty.open("/dev/none"))).code)
  end)
end)

describe("tty.raw", function()
  -- Whether the terminal is raw while a program runs that says "raw" and reads a key, and afterwards;
  -- what it wrote then.
  local function observe(text)
    local master, slave = pair()
    assert.is_nil(stty(slave):find("-icanon", 1, true))
    local proc = program(text, { stdin = slave, stdout = slave, stderr = slave })
    assert.are.equal("raw", await(master:read()))
    local while_running = stty(slave):find("-icanon", 1, true) ~= nil
    await(master:write("k"))
    await(proc:wait())
    local afterwards = stty(slave):find("-icanon", 1, true) ~= nil
    await(slave:close())
    local output = await(master:read("a"))
    await(proc:close())
    await(master:close())
    return while_running, afterwards, output
  end

  local start = [[
    local guard = tty.raw()
    await(tty.stdout:write("raw\n"))
    local key = await(tty.stdin:read(1))
  ]]

  it("reads keys at once; closing the guard puts the terminal back", function()
    local while_running, afterwards, output = observe(start
      .. "guard:close() await(tty.stdout:write('key ', key)) os.exit(0, false)")
    assert.is_true(while_running)
    assert.is_false(afterwards)
    assert.are.equal("key k", output)
  end)

  for name, ending in pairs {
    ["raw(false)"] = "tty.raw(false) os.exit(0, false)",
    ["the end of the program"] = "",
    ["an error"] = "error('boom')",
    ["os.exit"] = "os.exit(3, false)",
    ["an error in a task"] = "task.main(function() local t = task.spawn(error, 'boom') await(t) end)",
    ["the end of a scope"] = "do local _ <close> = guard end os.exit(0, false)",
  } do
    it("the terminal is as it was after " .. name, function()
      local while_running, afterwards = observe(start .. ending)
      assert.is_true(while_running)
      assert.is_false(afterwards)
    end)
  end

  it("holds while one of several guards does", function()
    local master, slave = pair()
    local one = assert(tty.raw(true, slave))
    local two = assert(tty.raw(true, slave))
    one:close()
    one:close()
    assert.is_truthy(stty(slave):find("-icanon", 1, true))
    two:close()
    assert.is_nil(stty(slave):find("-icanon", 1, true))
    await(slave:close())
    await(master:close())
  end)

  it("S22: says that there is no terminal", function()
    local output = await(process.run(child.interpreter(), { "-e", head .. "print(tty.raw())" },
      { env = environment() }))
    assert.are.equal("nil\traw: not a terminal (ENOTTY)\n", output)
  end)
end)
