-- S18: the runtime of a state is closed (by a C module) while Lua still holds all that it has opened, with operations
-- under way: handles and threads end then; whatever is called afterwards is a clean error; lua_close comes last.

local child = require "spec.support.child"
local cc = require "spec.support.cc"

-- Runs a program in a process of its own that may `require "closer"`. What it prints is expected.
local function run(body)
  local directory = cc.module "closer"
  local output, code = child.lua(([[
    package.cpath = %q .. "/?.so;" .. package.cpath
    local task = require "asynctask"
    local core = require "asynctask.core"
    local await, spawn = task.await, task.spawn
    task.on_unobserved(function() end)
    local close = require "closer"
    local function descriptors()
      local n = 0
      for _ in io.popen("ls /proc/" .. io.open("/proc/self/stat"):read("n") .. "/fd"):lines() do n = n + 1 end
      return n
    end
    -- Each function is called, and raises, returns or gives a Task; nothing else can be seen.
    local function clean(...)
      for _, f in ipairs { ... } do
        local ok, err = pcall(f)
        if not ok and type(err) ~= "string" and type(err) ~= "table" then error("not an error: " .. type(err)) end
      end
    end
    %s
    print "ok"
  ]]):format(directory, body))
  assert.equal("ok\n0", output .. code)
end

describe("S18: a runtime that is closed while its handles are held:", function()
  it("streams, servers and datagrams", function()
    run [[
      local net = require "asynctask.net"
      local a, b = await(net.pair())
      local server = await(net.listen("127.0.0.1", 0))
      local u, v = await(net.udp("127.0.0.1", 0)), await(net.udp("127.0.0.1", 0))
      local port = server:sockname().port
      local reading, receiving, accepting = b:read(), u:receive(), server:accept()
      local feed = core.net.feed()
      local fed = feed:read "l"
      assert(close() == 0)
      for _, t in ipairs { reading, receiving, accepting, fed } do assert(t:status() ~= "succeeded") end
      clean(function() return a:write "x" end, function() return b:read() end, function() return u:receive() end,
        function() return u:try_receive() end, function() return v:send("x", "127.0.0.1", 9) end,
        function() return u:sockname() end, function() return server:accept() end, function() return a:close() end,
        function() return u:close() end, function() return server:close() end, function() return net.pair() end,
        function() return net.udp() end, function() return net.listen("127.0.0.1", 0) end,
        function() return net.connect("127.0.0.1", port) end, function() return feed:push "x" end,
        function() return core.net.feed() end, function() return core.net.deposit(0) end)
    ]]
  end)

  it("sockets of asynctask.socket", function()
    run [[
      local socket = require "asynctask.socket"
      local server = assert(socket.bind("127.0.0.1", 0))
      local _, port = server:getsockname()
      local c = assert(socket.connect("127.0.0.1", port))
      local udp = assert(socket.udp())
      local waiting = spawn(function() return c:receive() end)
      await(task.yield())
      assert(waiting:status() == "pending")
      assert(close() == 0)
      clean(function() return c:receive() end, function() return c:send "x" end, function() return server:accept() end,
        function() return udp:receive() end, function() return socket.tcp() end, function() return c:close() end,
        function() return socket.select({ server }, nil, 0) end, function() return server:close() end)
    ]]
  end)

  it("files, watches and processes", function()
    run [[
      local fs, process, signal = require "asynctask.fs", require "asynctask.process", require "asynctask.signal"
      local dir = await(fs.mkdtemp())
      await(fs.mkdir(dir .. "/sub"))
      local file = await(fs.open(dir .. "/f", "w+"))
      await(file:write "text")
      local watch, tree = fs.watch(dir), fs.watch(dir, { recursive = true })
      local changed = watch:next()
      local usr = core.signal.watch "SIGUSR1"
      local arriving, once = usr:next(), signal.wait "SIGUSR2"
      local p = await(process.spawn "cat")
      local walk, state, first = fs.walk(dir)
      local ended = p:wait()
      assert(close() == 0)
      for _, t in ipairs { changed, arriving, once, ended } do assert(t:status() ~= "succeeded") end
      os.execute("rm -rf " .. dir)
      clean(function() return file:read "a" end, function() return file:write "x" end,
        function() return file:close() end,
        function() return watch:next() end, function() return tree:close() end, function() return fs.watch(dir) end,
        function() return usr:next() end, function() return core.signal.watch "SIGUSR1" end,
        function() return signal.wait "SIGUSR1" end, function() return p:wait() end, function() return p:kill() end,
        function() return process.spawn "cat" end, function() return walk(state, first) end,
        function() return fs.read_file "/etc/passwd" end, function() return fs.stat "/" end,
        function() return fs.lines(dir) end, function() return fs.open(dir) end)
    ]]
  end)

  it("pools, jobs and shared channels", function()
    run [[
      local channel = require "asynctask.channel"
      local shared, pool = channel.shared(1), task.pool { threads = 1 }
      local receiving = shared:receive()
      local running = pool:run(function(c)
        local t = require "asynctask"
        return t.await(c:receive())
      end, channel.shared(1))
      assert(close() == 0)
      assert(receiving:status() ~= "succeeded" and running:status() ~= "succeeded")
      clean(function() return shared:receive() end, function() return shared:send(1) end,
        function() return shared:try_receive() end, function() return shared:close() end,
        function() return pool:run(function() end) end, function() return pool:close() end,
        function() return task.run(function() end) end, function() return task.pool { threads = 1 } end,
        function() return channel.shared(1) end)
    ]]
  end)

  it("tasks, groups, sources, locks and clocks", function()
    run [[
      local channel, sync = require "asynctask.channel", require "asynctask.sync"
      local source, c, mutex = task.source(), channel.new(1), sync.mutex()
      local closed = 0
      local t = spawn(function()
        local _ <close> = setmetatable({}, { __close = function() closed = closed + 1 end })
        await(source.task)
      end)
      local guard = await(mutex:lock())
      local list = { c:receive(), mutex:lock(), task.delay(50), task.when_all(source.task),
        task.when_any { source.task } }
      await(task.yield())
      local token = task.cancellation()
      token:cancel_after(30)
      assert(close() == 0)
      assert(closed == 1, "the task's __close has not run")
      for _, u in ipairs(list) do assert(u:status() ~= "succeeded") end
      for _, u in ipairs(list) do clean(function() return u:cancel() end, function() return await(u) end) end
      clean(function() return spawn(function() end) end, function() return await(t) end,
        function() return t:cancel() end, function() return source:set_result(1) end,
        function() return c:send(1) end, function() return guard:release() end,
        function() return task.delay(0) end, function() return await(task.delay(0)) end,
        function() return token:cancel() end, function() return task.with_group(function() end) end,
        function() return task.source() end,
        function() return task.with_timeout(1, function() end) end, function() return task.tasks() end,
        function() return task.dump() end, function() return close() end)
    ]]
  end)
end)
