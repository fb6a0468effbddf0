-- Specs of asynctask.process. Children are sh and its kin; whether one is left is looked up in /proc.

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"
local child = require "spec.support.child"

local await, try, spawn = task.await, task.try, task.spawn

-- The pid of this process.
local function self_pid()
  local f <close> = assert(io.open("/proc/self/stat"))
  return f:read("n")
end

-- Children of this process that exist, zombies included: pid -> state.
local function children()
  local list = {}
  local pipe <close> = assert(io.popen("echo $$; exec cat /proc/[0-9]*/stat 2>/dev/null"))
  local mine, asked = self_pid(), pipe:read("n", "l")
  for line in pipe:lines() do
    local pid, state, parent = line:match("^(%d+) %(.*%) (%a) (%d+)")
    if tonumber(parent) == mine and tonumber(pid) ~= asked then
      list[tonumber(pid)] = state
    end
  end
  return list
end

local function exists(pid)
  local f = io.open(("/proc/%d/stat"):format(pid))
  if f then
    f:close()
  end
  return f ~= nil
end

local function shell(script)
  return "sh", { "-c", script }
end

describe("process.run", function()
  it("gives output, errors and the exit code", function()
    local output, errors, code, signal = await(process.run(shell "echo out; echo err >&2; exit 3"))
    assert.are.same({ "out\n", "err\n", 3 }, { output, errors, code })
    assert.is_nil(signal)
  end)

  it("passes arguments as they are, never through a shell", function()
    local words = { "$HOME", "a b", "*", ";ls", "'\"\\", "", "\n", 12 }
    local output = await(process.run("printf", { "<%s>", table.unpack(words) }))
    assert.are.equal("<" .. table.concat(words, "><") .. ">", output)
  end)

  it("feeds input and takes output at once, more than pipes hold", function()
    local text = ("0123456789abcde\n"):rep(100000)
    local output, errors, code = await(process.run("sh", { "-c", "tee /dev/stderr" }, { input = text }))
    assert.are.equal(0, code)
    assert.is_true(output == text)
    assert.is_true(errors == text)
  end)

  it("does not mind a child that does not read its input", function()
    local output, _, code = await(process.run("echo", { "done" }, { input = ("x"):rep(1000000) }))
    assert.are.same({ "done\n", 0 }, { output, code })
  end)

  it("gives the child an empty input when there is none", function()
    local output = await(process.run("cat"))
    assert.are.equal("", output)
  end)

  it("check makes a fault of an exit code, with all that is known", function()
    local command, args = shell "echo half; echo 'no such thing' >&2; exit 4"
    local output, err = try(process.run(command, args, { check = true }))
    assert.is_nil(output)
    assert.are.equal("EEXIT", err.code)
    assert.are.same({ 4, "half\n", "no such thing\n", "run", "sh" },
      { err.status, err.output, err.errors, err.op, err.path })
    assert.are.equal("run sh: exit code 4: no such thing (EEXIT)", tostring(err))
    assert.are.equal(0, select(3, await(process.run("true", {}, { check = true }))))
  end)

  it("tells a signal from an exit code", function()
    local _, _, code, signal = await(process.run(shell "kill -TERM $$"))
    assert.is_nil(code)
    assert.are.equal("SIGTERM", signal)
    local _, err = try(process.run("sh", { "-c", "kill -9 $$" }, { check = true }))
    assert.are.equal("SIGKILL", err.signal)
  end)

  it("S11: past the timeout the child is gone and reaped", function()
    local before = task.stats and os.time()
    local output, err = try(process.run("sleep", { 60 }, { timeout = 0.05 }))
    assert.is_nil(output)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.are.same({}, children())
    assert.is_true(os.time() - before < 30)
  end)

  it("bounds what it keeps", function()
    local output, err = try(process.run("yes", {}, { max = 100000 }))
    assert.is_nil(output)
    assert.are.equal("EMSGSIZE", err.code)
    assert.are.equal("run yes: more than 100000 bytes on standard output (EMSGSIZE)", tostring(err))
    assert.are.same({}, children())
  end)

  it("S8: cancelled, it ends its child", function()
    local t = process.run("sleep", { 60 })
    await(task.yield())
    assert.is_truthy(next(children()))
    t:cancel()
    local _, err = try(t)
    assert.is_true(task.is_cancelled(err))
    assert.are.same({}, children())
  end)

  it("S8: cancelled at once, it leaves nothing", function()
    for _ = 1, 20 do
      local t = process.run("sleep", { 60 }, { input = ("x"):rep(200000) })
      t:cancel()
      assert.is_true(task.is_cancelled(select(2, try(t))))
    end
    assert.are.same({}, children())
  end)

  it("joins standard error to standard output", function()
    local output, errors = await(process.run("sh", { "-c", "echo a; echo b >&2; echo c" }, { stderr = "stdout" }))
    assert.are.equal("a\nb\nc\n", output)
    assert.is_nil(errors)
  end)

  it("sets directory and environment", function()
    local output = await(process.run("pwd", {}, { cwd = "/" }))
    assert.are.equal("/\n", output)
    output = await(process.run("env", {}, { env = { ONE = "1", TWO = "zwei =" } }))
    local lines = {}
    for line in output:gmatch("[^\n]+") do
      lines[#lines + 1] = line
    end
    table.sort(lines)
    assert.are.same({ "ONE=1", "TWO=zwei =" }, lines)
    local env = process.environ()
    assert.are.equal(os.getenv("PATH"), env.PATH)
    env.ADDED = "yes"
    assert.are.equal("yes\n", (await(process.run("sh", { "-c", "echo $ADDED" }, { env = env }))))
  end)

  it("runs many at once, and leaves no zombie", function()
    local numbers = {}
    local count = child.sanitizer() and 20 or 200 -- a fork copies the tables of its shadow memory
    for i = 1, count do
      numbers[i] = i
    end
    local outputs = task.map(numbers, function(i)
      return (await(process.run("echo", { i })))
    end)
    outputs = task.is_task(outputs) and await(outputs) or outputs
    for i = 1, count do
      assert.are.equal(i .. "\n", outputs[i])
    end
    assert.are.same({}, children())
  end)
end)

describe("process.spawn", function()
  it("gives streams, a number, and a wait for the end", function()
    local proc = await(process.spawn("cat"))
    assert.are.equal("integer", math.type(proc.pid))
    assert.is_true(exists(proc.pid))
    await(proc.stdin:write("one\n"))
    assert.are.equal("one", await(proc.stdout:read()))
    await(proc.stdin:close())
    assert.is_nil(await(proc.stdout:read()))
    local one, two = proc:wait(), proc:wait()
    assert.are.equal(0, (await(one)))
    assert.are.equal(0, (await(two)))
    assert.are.same({ 0 }, { await(proc:wait()) })
    assert.is_false(exists(proc.pid))
    await(proc:close())
  end)

  it("more than a pipe holds on both outputs", function()
    local proc <close> = await(process.spawn("sh", { "-c",
      "head -c 1000000 /dev/zero & head -c 1000000 /dev/zero >&2; wait" }))
    local output, errors = await(task.when_all(proc.stdout:read("a"), proc.stderr:read("a")))
    assert.are.equal(1000000, #output)
    assert.are.equal(1000000, #errors)
    assert.are.equal(0, (await(proc:wait())))
  end)

  it("is told by a number which signal to send", function()
    local proc <close> = await(process.spawn("sleep", { 60 }))
    assert.is_true(await(proc:kill(0)))
    assert.is_true(await(proc:kill(9)))
    assert.are.same({ nil, "SIGKILL" }, { await(proc:wait()) })
  end)

  it("writing to a child that closed its input is EPIPE, no signal", function()
    local proc <close> = await(process.spawn("sh", { "-c", "exec <&-; echo closed; sleep 60" }))
    assert.are.equal("closed", await(proc.stdout:read()))
    local ok, err = task.pcall(await, proc.stdin:write(("x"):rep(100000)))
    assert.is_false(ok)
    assert.are.equal("EPIPE", err.code)
    local again = select(2, task.pcall(await, proc.stdin:write("x")))
    assert.are.equal("EPIPE", again.code)
  end)

  it("shutdown of its input is the end that the child reads", function()
    local proc <close> = await(process.spawn("cat"))
    await(proc.stdin:write("all"))
    await(proc.stdin:shutdown())
    assert.are.equal("all", await(proc.stdout:read("a")))
    assert.are.equal("EPIPE", select(2, task.pcall(await, proc.stdin:write("x"))).code)
    assert.are.equal(0, (await(proc:wait())))
  end)

  it("closing ends the child, and kills one that ignores SIGTERM", function()
    local polite = await(process.spawn("sleep", { 60 }))
    await(polite:close())
    assert.are.same({ nil, "SIGTERM" }, { await(polite:wait()) })
    local proc = await(process.spawn("sh", { "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done" }))
    assert.are.equal("ready", await(proc.stdout:read()))
    await(proc:close { grace = 0.05 })
    assert.are.same({ nil, "SIGKILL" }, { await(proc:wait()) })
    assert.is_false(exists(proc.pid))
    assert.is_nil(proc.stdout:fd())
    await(proc:close())
  end)

  it("S12: ends with its scope, in a cancelled one too", function()
    local pid
    local t = spawn(function()
      local proc <close> = await(process.spawn("sleep", { 60 }))
      pid = proc.pid
      await(proc:wait())
    end)
    assert.is_true(exists(pid))
    t:cancel()
    try(t)
    assert.is_false(exists(pid))
  end)

  it("S10: a cancelled wait does nothing to the child", function()
    local proc <close> = await(process.spawn("cat"))
    local t = proc:wait()
    t:cancel()
    await(proc.stdin:write("still here\n"))
    assert.are.equal("still here", await(proc.stdout:read()))
  end)

  it("S10: begins nothing in a cancelled scope", function()
    local before = children()
    local started
    local t = spawn(function()
      pcall(await, task.delay(60))
      started = process.spawn("sleep", { 60 })
      await(started)
    end)
    t:cancel()
    try(t)
    assert.are.equal("cancelled", started:status())
    assert.are.same(before, children())
  end)

  it("kill sends any signal, in cancelled scopes too, and none to who has ended", function()
    local proc = await(process.spawn("sleep", { 60 }))
    local t = spawn(function()
      pcall(await, task.delay(60))
      return proc:kill("SIGHUP")
    end)
    t:cancel()
    try(t)
    assert.are.same({ nil, "SIGHUP" }, { await(proc:wait()) })
    assert.is_false(await(proc:kill()))
    assert.has_error(function() proc:kill("SIGNOTHING") end)
    assert.has_error(function() proc:kill(1000) end)
    assert.has_error(function() proc:kill({}) end)
    await(proc:close())
  end)

  it("S22: names the command, or the directory, that is not there", function()
    local proc, err = try(process.spawn("surely-no-such-command"))
    assert.is_nil(proc)
    assert.are.same({ "ENOENT", "spawn", "surely-no-such-command" }, { err.code, err.op, err.path })
    err = select(2, try(process.spawn("ls", {}, { cwd = "/no/such/place" })))
    assert.are.same({ "ENOENT", "/no/such/place" }, { err.code, err.path })
    err = select(2, try(process.spawn("ls", {}, { cwd = "/dev/null" })))
    assert.are.same({ "ENOTDIR", "/dev/null" }, { err.code, err.path })
    err = select(2, try(process.spawn("/dev/null")))
    assert.are.same({ "EACCES", "/dev/null" }, { err.code, err.path })
    assert.are.same({}, children())
  end)

  it("S22: says what is wrong with its arguments", function()
    for _, case in ipairs {
      { { 5 }, "bad argument #1 to 'spawn' (string expected, got number)" },
      { { "" }, "bad argument #1 to 'spawn' (command is empty)" },
      { { "a\0b" }, "bad argument #1 to 'spawn' (command contains a zero byte)" },
      { { "ls", "-l" }, "bad argument #2 to 'spawn' (table of arguments expected, got string)" },
      { { "ls", { "-l", {} } }, "bad argument #2 to 'spawn' (argument 2 is a table)" },
      { { "ls", { "\0" } }, "bad argument #2 to 'spawn' (argument 1 contains a zero byte)" },
      { { "ls", {}, 1 }, "bad argument #3 to 'spawn' (table of options expected, got number)" },
      { { "ls", {}, { dir = "/" } }, "bad argument #3 to 'spawn' (unknown option 'dir')" },
      { { "ls", {}, { env = { 1 } } },
        "bad argument #3 to 'spawn' (option 'env': names of variables expected, got table)" },
      { { "ls", {}, { stdin = "file" } },
        "bad argument #3 to 'spawn' (option 'stdin': \"pipe\", \"inherit\" or \"ignore\" expected, got 'file')" },
    } do
      local ok, err = pcall(function() process.spawn(table.unpack(case[1])) end)
      assert.is_false(ok)
      assert.is_truthy(err:find(case[2], 1, true), err)
      assert.is_truthy(err:find("process_spec.lua", 1, true), err)
    end
    assert.has_error(function() process.run("ls", {}, { input = "x", stdin = "inherit" }) end)
  end)

  it("takes files, streams and descriptors", function()
    local dir = await(fs.mkdtemp())
    await(fs.write_file(dir .. "/in", "from a file\n"))
    local input <close> = await(fs.open(dir .. "/in"))
    local output = assert(io.open(dir .. "/out", "w"))
    output:write("before\n")
    local proc = await(process.spawn("cat", {}, { stdin = input, stdout = output, stderr = "ignore" }))
    assert.is_nil(proc.stdin)
    assert.is_nil(proc.stdout)
    assert.are.equal(0, (await(proc:wait())))
    output:close()
    assert.are.equal("before\nfrom a file\n", await(fs.read_file(dir .. "/out")))
    local a, b = await(net.pair())
    proc = await(process.spawn("echo", { "to a socket" }, { stdout = a:fd() }))
    await(a:close())
    assert.are.equal("to a socket\n", await(b:read("a")))
    await(b:close())
    await(proc:wait())
    await(proc:close())
    await(fs.remove(dir, { recursive = true }))
    assert.has_error(function() process.spawn("cat", {}, { stdin = b }) end)
  end)

  it("its pipes can be opened again by name", function()
    local output = await(process.run("sh", { "-c", "cat /dev/stdin >/dev/stdout" }, { input = "through" }))
    assert.are.equal("through", output)
  end)

  it("children inherit none of our descriptors", function()
    local dir = await(fs.mkdtemp())
    local file <close> = await(fs.open(dir .. "/f", "w"))
    local server <close> = await(net.listen("127.0.0.1", 0))
    local client <close> = await(net.connect("127.0.0.1", server:sockname().port))
    local other <close> = await(process.spawn("cat"))
    assert.is_truthy(client:fd() and other.stdin:fd() and other.stdout:fd() and other.stderr:fd())
    local output = await(process.run("sh", { "-c", "for f in /proc/self/fd/*; do readlink $f; done" }))
    assert.is_truthy(output:find("pipe:", 1, true))
    assert.is_nil(output:find("socket:", 1, true), output)
    assert.is_nil(output:find(dir, 1, true), output)
    local _, pipes = output:gsub("pipe:", "")
    assert.is_true(pipes <= 3, output)
    await(fs.remove(dir, { recursive = true }))
    assert.is_truthy(file)
  end)

  it("leaves no descriptor behind", function()
    local function count()
      local n = 0
      for _ in fs.dir("/proc/self/fd") do
        n = n + 1
      end
      return n
    end
    await(process.run("true"))
    local before = count()
    for _ = 1, 5 do
      await(process.run("true", {}, { input = "x" }))
      try(process.spawn("surely-no-such-command"))
    end
    collectgarbage()
    collectgarbage()
    await(task.delay(0.001))
    assert.are.equal(before, count())
  end)

  it("a detached child is in a session of its own", function()
    local proc <close> = await(process.spawn("sh",
      { "-c", "read -r a b c d e f rest </proc/self/stat; echo $f" }, { detached = true }))
    assert.are.equal(proc.pid, await(proc.stdout:read("n")))
  end)

  it("a child whose process nobody keeps goes on and is reaped", function()
    local pid
    do
      pid = await(process.spawn("sh", { "-c", "read x; exit 0" }, { stdin = "pipe" })).pid
    end
    collectgarbage()
    collectgarbage()
    -- its input is collected with it: that ends it
    for _ = 1, 1000 do
      if not exists(pid) then
        break
      end
      await(task.delay(0.002))
    end
    assert.is_false(exists(pid))
  end)

  it("S16: a child that runs keeps nobody waiting who does not wait for it", function()
    local proc <close> = await(process.spawn("sleep", { 60 }))
    local ok, err = pcall(await, task.source().task)
    assert.is_false(ok)
    assert.is_truthy(proc)
    assert.is_truthy(tostring(err):find("EABANDONED", 1, true) or tostring(err):find("deadlock", 1, true))
  end)

  it("the host's SIGCHLD is as before when the last child has ended", function()
    local function caught()
      for line in io.lines("/proc/self/status") do
        local mask = line:match("^SigCgt:%s+(%x+)")
        if mask then
          return tonumber(mask:sub(-8), 16) >> 16 & 1 == 1
        end
      end
    end
    await(task.delay(0.001))
    assert.is_false(caught())
    local proc = await(process.spawn("cat"))
    assert.is_true(caught())
    await(proc:close())
    await(task.delay(0.001))
    assert.is_false(caught())
  end)

  it("works where the host ignores SIGCHLD", function()
    local _, code = child.lua([[
      local task = require "asynctask"
      local process = require "asynctask.process"
      local _, _, code = task.await(process.run("sh", { "-c", "exit 7" }))
      os.exit(code)
    ]], { before = "trap '' CHLD;", timeout = 20 })
    assert.are.equal(7, code)
  end)

  it("a broken pipe leaves no signal behind, and the mask as it was", function()
    local function state()
      local text = ""
      for line in io.lines("/proc/thread-self/status") do
        if line:find("^SigPnd") or line:find("^ShdPnd") or line:find("^SigBlk") then
          text = text .. line .. "\n"
        end
      end
      return text
    end
    local before = state()
    local proc <close> = await(process.spawn("true"))
    await(proc:wait())
    for _ = 1, 3 do
      assert.are.equal("EPIPE", select(2, task.pcall(await, proc.stdin:write("x"))).code)
    end
    assert.are.equal(before, state())
  end)

  it("works in jobs", function()
    local output = await(task.run(function()
      local p = require "asynctask.process"
      return (require "asynctask".await(p.run("echo", { "from a job" })))
    end))
    assert.are.equal("from a job\n", output)
  end)
end)

describe("a state that closes", function()
  it("S18: ends its children and reaps them", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local process = require "asynctask.process"
      local one = task.await(process.spawn("sleep", { 60 }))
      local two = task.await(process.spawn("sh", { "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done" }))
      local three = task.await(process.spawn("sleep", { 60 }))
      task.await(two.stdout:read())
      task.spawn(function() task.await(three:wait()) end)
      print(one.pid, two.pid, three.pid)
    ]])
    assert.are.equal(0, code, output)
    local pids = {}
    for pid in output:match("^[%d\t]+"):gmatch("%d+") do
      pids[#pids + 1] = tonumber(pid)
    end
    assert.are.equal(3, #pids, output)
    for _, pid in ipairs(pids) do
      assert.is_false(exists(pid))
    end
  end)

  it("leaves detached children alone", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local process = require "asynctask.process"
      local proc = task.await(process.spawn("sleep", { 60 },
        { detached = true, stdin = "ignore", stdout = "ignore", stderr = "ignore" }))
      print(proc.pid)
    ]])
    assert.are.equal(0, code, output)
    local pid = tonumber(output:match("%d+"))
    assert.is_true(exists(pid))
    os.execute("kill -9 " .. pid)
  end)
end)
