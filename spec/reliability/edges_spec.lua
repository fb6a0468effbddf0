-- What `make coverage` showed that no other spec reached, and the system allows everybody to reach.

local task = require "asynctask"
local channel = require "asynctask.channel"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"
local socket = require "asynctask.socket"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await, try = task.await, task.try
local path, put, _, before, after = sandbox.new()

local function is_root()
  return (child.shell "id -u") == "0\n"
end

-- A file from the library that makes system calls fail: `body` runs with the n-th call of `kind` failing.
local function with_fault(kind, error_number, body)
  local library = os.tmpname()
  finally(function() os.remove(library) end)
  local output, code = child.shell(("cd %s && ${CC:-gcc} -O1 -shared -fPIC $(pkg-config --cflags lua5.4) -o %s "
    .. "spec/support/faultio.c -ldl"):format(child.quote(child.root), child.quote(library)))
  assert.equal(0, code, output)
  local preload = os.getenv "ASYNCTASK_PRELOAD"
  return child.lua(([[
    local fault = assert(package.loadlib(%q, "luaopen_faultio"))()
    local task, fs = require "asynctask", require "asynctask.fs"
    local function arm() fault.arm(%q, 1, %d, true) end
    local await, try = task.await, task.try
    %s
  ]]):format(library, kind, error_number, body), {
    env = { LD_PRELOAD = preload and preload .. " " .. library or library },
  })
end

describe("kinds of files", function()
  before_each(before)
  after_each(after)

  it("have a name each, in stat and in walk", function()
    local directory = path "kinds"
    await(fs.mkdir(directory))
    put("text", "kinds/file")
    assert(os.execute("mkfifo " .. directory .. "/fifo"))
    await(fs.symlink("nowhere", directory .. "/link"))
    await(fs.mkdir(directory .. "/sub"))
    local server <close> = await(net.listen { path = directory .. "/socket" })
    local seen = {}
    for _, entry in fs.walk(directory) do
      seen[entry.name] = entry.type
    end
    assert.same({ file = "file", fifo = "fifo", link = "link", sub = "directory", socket = "socket" }, seen)
    assert.equal("socket", await(fs.stat(directory .. "/socket")).type)
    assert.equal("fifo", await(fs.stat(directory .. "/fifo")).type)
    assert.equal("char", await(fs.stat "/dev/null").type)
    assert.is_truthy(server)
  end)

  it("devices, too", function()
    if not is_root() then
      pending "only root makes devices"
    end
    local directory = path "devices"
    await(fs.mkdir(directory))
    local _, code = child.shell(("cd %s && mknod b b 7 200 && mknod c c 1 3"):format(directory))
    if code ~= 0 then
      pending "no devices can be made here"
    end
    local seen = {}
    for _, entry in fs.walk(directory) do
      seen[entry.name] = entry.type
    end
    assert.same({ b = "block", c = "char" }, seen)
    assert.equal("block", await(fs.stat(directory .. "/b")).type)
  end)

  it("a file without a name has one for a moment where the file system knows none", function()
    local output, code = with_fault("open", 95, [[ -- EOPNOTSUPP, as such file systems say
      arm()
      local f = await(fs.tmpfile())
      fault.disarm()
      await(f:write "text")
      await(f:seek("set", 0))
      print(await(f:read "a"))
      local listing = io.popen("readlink /proc/" .. io.open "/proc/self/stat":read "n" .. "/fd/*"):read "a"
      print(listing:find "/lua%-%w+ %(deleted%)" ~= nil)
    ]])
    assert.equal("text\ntrue\n", output)
    assert.equal(0, code)
  end)
end)

describe("datagrams", function()
  it("reach a group of IPv6, over an interface by its name", function()
    local ok, a = pcall(function() return await(net.udp("::1", 0)) end)
    if not ok then
      pending "no IPv6 here"
    end
    local port = a:sockname().port
    if not a:join("ff02::4242", "lo") then
      await(a:close())
      pending "no multicast on lo here"
    end
    assert.is_true(a:multicast_interface "lo")
    assert.is_true(a:multicast_loop(true))
    assert.is_true(a:multicast_ttl(1))
    assert.is_true(a:leave("ff02::4242", "lo"))
    local left, err = a:leave("ff02::4242", "lo")
    assert.is_nil(left)
    assert.equal("EADDRNOTAVAIL", err.code)
    assert.is_number(port)
    await(a:close())
  end)

  it("have buffers whose sizes are told and set", function()
    local a <close> = await(net.udp("127.0.0.1", 0))
    assert.is_true(a:send_buffer_size() > 0)
    assert.is_truthy(a:send_buffer_size(65536))
    assert.is_true(a:send_buffer_size() >= 65536)
    assert.is_truthy(a:recv_buffer_size(65536))
  end)

  it("two sockets may share a port", function()
    local a <close> = await(net.udp("127.0.0.1", 0, { reuseport = true }))
    local b <close> = await(net.udp("127.0.0.1", a:sockname().port, { reuseport = true }))
    assert.equal(a:sockname().port, b:sockname().port)
  end)

  it("try_receive gives what is there, and what a wait left", function()
    local a <close> = await(net.udp("127.0.0.1", 0))
    local b <close> = await(net.udp("127.0.0.1", 0))
    local port = b:sockname().port
    assert.is_nil(b:try_receive())
    await(a:send("one", "127.0.0.1", port))
    local data, from = b:try_receive()
    assert.equal("one", data)
    assert.equal(a:sockname().port, from.port)
    local waiting = b:receive()
    await(a:send("two", "127.0.0.1", port))
    assert.is_nil(b:try_receive()) -- it is for the one that waits
    assert.equal("two", (await(waiting)))
  end)
end)

describe("options of asynctask.socket", function()
  it("join and leave a group of IPv6", function()
    local s = socket.udp6()
    if not s or not s:setsockname("::1", 0) then
      pending "no IPv6 here"
    end
    local joined, problem = s:setoption("ipv6-add-membership", { multiaddr = "ff02::4242", interface = 1 })
    assert.is_truthy(joined, problem)
    assert.is_truthy(s:setoption("ipv6-drop-membership", { multiaddr = "ff02::4242", interface = 1 }))
    assert.is_nil((s:setoption("ipv6-drop-membership", { multiaddr = "ff02::4242", interface = 1 })))
    assert.error_matches(function() s:setoption("ipv6-add-membership", { multiaddr = "x" }) end, "multiaddr")
    assert.error_matches(function()
      s:setoption("ipv6-add-membership", { multiaddr = "ff02::4242", interface = "lo" })
    end, "interface")
    s:close()
  end)
end)

describe("processes", function()
  it("run as another user and group", function()
    if not is_root() then
      pending "only root changes to others"
    end
    assert.equal("65534 65533\n", (await(process.run("sh", { "-c", "echo $(id -u) $(id -g)" },
      { uid = 65534, gid = 65533, check = true }))))
  end)
end)

describe("a reason for cancelling", function()
  it("of each kind goes to a job as it is, others by the name of their type", function()
    for _, case in ipairs { { true, true }, { false, false }, { 4.5, 4.5 }, { 7, 7 }, { "text", "text" },
      { {}, "table" }, { nil, nil } } do
      local c, ready = task.cancellation(), channel.shared()
      local job = task.run(function()
        local t = require "asynctask"
        local _, err = t.pcall(function()
          c:with(function()
            t.await(ready:send(true))
            t.await(t.delay(30))
          end)
        end)
        return err.reason
      end)
      await(ready:receive())
      c:cancel(case[1])
      local reason = await(job)
      assert.equal(case[2], reason)
      assert.equal(math.type(case[2]), math.type(reason))
    end
  end)
end)

describe("locks", function()
  it("S10: a guard that came as its waiter was cancelled is passed on", function()
    local sync = require "asynctask.sync"
    local m = sync.mutex()
    local guard = await(m:lock())
    local first, second = m:lock(), m:lock()
    local got
    local canceller = task.spawn(function()
      got = await(first)
      second:cancel()
    end)
    local third = m:lock()
    guard:release()
    await(canceller)
    got:release()
    local passed = await(third:timeout(5))
    assert.is_true(task.is_cancelled(select(2, try(second))))
    passed:release()
    await(m:lock()):release()
  end)
end)

describe("when_all", function()
  it("takes tables of table.pack, whose n is no task", function()
    local list = await(task.when_all(table.pack(task.from_result(1), task.from_result(2))))
    assert.same({ 1, 2, n = 2 }, list)
    local first = task.from_result(3)
    assert.equal(first, (await(task.when_any(table.pack(first)))))
  end)
end)
