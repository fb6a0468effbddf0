-- Cancellation at every await: each operation that waits, cancelled before it starts, while it waits, in the turn in
-- which it completes, and after. There is exactly one outcome, and what was not received is still there (S10).

local task = require "asynctask"
local channel = require "asynctask.channel"
local core = require "asynctask.core"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"
local signal = require "asynctask.signal"
local sync = require "asynctask.sync"
local certificates = require "spec.support.certificates"
local sandbox = require "spec.support.sandbox"
require "asynctask.net.stream"

local has_tls, tls = pcall(require, "asynctask.tls")
local has_http, http = pcall(require, "asynctask.http")
local has_client = has_http and pcall(require, "asynctask.curl")
local has_websocket, websocket = pcall(require, "asynctask.http.websocket")

local await, try = task.await, task.try

local path, put, _, before_each_file, after_each_file = sandbox.new()

-- A path that no other has.
local made = 0
local function another(name)
  made = made + 1
  return path(name .. made)
end

-- An operation: open() gives a context; start(c) the Task; complete(c) brings about what it waits for, and gives what
-- `start` will then give; `kept` says that a second start(c) gives it when the first was cancelled; close(c).
local operations = {
  ["delay"] = {
    open = function() return {} end,
    start = function() return task.delay(0.002, "slept") end,
    complete = function() return "slept" end,
    kept = true,
  },
  ["a source's task"] = {
    open = function() return { source = task.source() } end,
    start = function(c) return task.async(await)(c.source.task) end,
    complete = function(c)
      c.source:set_result "settled"
      return "settled"
    end,
    kept = true,
  },
  ["when_all"] = {
    open = function() return { source = task.source() } end,
    start = function(c) return task.when_all(c.source.task) end,
    complete = function(c)
      c.source:set_result "all"
      return "all"
    end,
    kept = true,
  },
  ["when_any"] = {
    open = function() return { source = task.source() } end,
    start = function(c)
      return task.async(function() return await((await(task.when_any { c.source.task }))) end)()
    end,
    complete = function(c)
      c.source:set_result "any"
      return "any"
    end,
    kept = true,
  },
  ["channel receive"] = {
    open = function() return { channel = channel.new(1) } end,
    start = function(c) return c.channel:receive() end,
    complete = function(c)
      await(c.channel:send "message")
      return "message"
    end,
    kept = true,
  },
  ["channel send"] = {
    open = function()
      local c = { channel = channel.new(1) }
      await(c.channel:send "first")
      return c
    end,
    start = function(c) return c.channel:send "second" end,
    complete = function(c) assert(await(c.channel:receive()) == "first") end,
    after = function(c, happened)
      if happened then
        assert.equal("second", c.channel:try_receive())
      else
        assert.is_nil(c.channel:try_receive())
      end
    end,
  },
  ["select"] = {
    open = function() return { channel = channel.new(1) } end,
    start = function(c)
      return task.async(function() return select(2, await(channel.select(c.channel))) end)()
    end,
    complete = function(c)
      await(c.channel:send "chosen")
      return "chosen"
    end,
    kept = true,
  },
  ["receive from a shared channel"] = {
    open = function() return { channel = channel.shared(1) } end,
    start = function(c) return c.channel:receive() end,
    complete = function(c)
      await(c.channel:send "across")
      return "across"
    end,
    kept = true,
    close = function(c) c.channel:close() end,
  },
  ["send to a shared channel"] = {
    open = function()
      local c = { channel = channel.shared(1) }
      await(c.channel:send "first")
      return c
    end,
    start = function(c) return c.channel:send "second" end,
    complete = function(c) assert(await(c.channel:receive()) == "first") end,
    after = function(c, happened)
      if happened then
        assert.equal("second", (await(c.channel:receive())))
      else
        assert.is_nil(c.channel:try_receive())
      end
    end,
    close = function(c) c.channel:close() end,
  },
  ["feed read"] = {
    open = function() return { feed = core.net.feed() } end,
    start = function(c) return c.feed:read "l" end,
    complete = function(c)
      await(c.feed:push "a line\n")
      return "a line"
    end,
    kept = true,
    close = function(c) await(c.feed:close()) end,
  },
  ["feed push"] = { -- only the waiting is cancelled: the bytes are there
    open = function() return { feed = core.net.feed { mark = 4 } } end,
    start = function(c) return c.feed:push "12345678" end,
    complete = function(c)
      c.feed:finish()
      c.read = await(c.feed:read "a")
    end,
    after = function(c) assert.is_true(c.read == "12345678" or c.read == "") end,
    close = function(c) await(c.feed:close()) end,
  },
  ["task.every"] = {
    open = function() return { ticks = task.every(0.002) } end,
    start = function(c) return task.async(function() return type(c.ticks()) end)() end,
    complete = function() return "number" end,
    kept = true,
  },
  ["process.run"] = {
    open = function()
      local c = { name = another "fifo" }
      assert(os.execute("mkfifo " .. c.name))
      c.pipe = assert(io.open(c.name, "r+")) -- does not wait for the other side
      return c
    end,
    start = function(c)
      return process.run("sh", { "-c", "read line < $0; echo $line", c.name }, { check = true })
    end,
    complete = function(c)
      assert(c.pipe:write "done\n")
      assert(c.pipe:flush())
      return "done\n"
    end,
    close = function(c) c.pipe:close() end,
  },
  ["fs.watch"] = {
    open = function()
      local directory = another "watched"
      await(fs.mkdir(directory))
      return { directory = directory, watch = fs.watch(directory) }
    end,
    start = function(c) return task.async(function() return await(c.watch:next()).path:match "[^/]+$" end)() end,
    complete = function(c)
      await(fs.write_file(c.directory .. "/new", ""))
      return "new"
    end,
    kept = true,
    close = function(c) c.watch:close() end,
  },
  ["mutex"] = {
    open = function()
      local c = { mutex = sync.mutex() }
      c.guard = await(c.mutex:lock())
      return c
    end,
    start = function(c)
      return task.async(function()
        local guard = await(c.mutex:lock())
        guard:release()
        return "held"
      end)()
    end,
    complete = function(c)
      c.guard:release()
      return "held"
    end,
    kept = true,
  },
  ["semaphore"] = {
    open = function()
      local c = { semaphore = sync.semaphore(1) }
      c.guard = await(c.semaphore:acquire())
      return c
    end,
    start = function(c)
      return task.async(function()
        local guard = await(c.semaphore:acquire())
        guard:release()
        return "permitted"
      end)()
    end,
    complete = function(c)
      c.guard:release()
      return "permitted"
    end,
    kept = true,
  },
  ["event"] = {
    open = function() return { event = sync.event() } end,
    start = function(c) return c.event:wait() end,
    complete = function(c) c.event:set() end,
    kept = true,
  },
  ["latch"] = {
    open = function() return { latch = sync.latch(1) } end,
    start = function(c) return c.latch:wait() end,
    complete = function(c) c.latch:count_down() end,
    kept = true,
  },
  ["stream read"] = {
    open = function()
      local c = {}
      c.a, c.b = await(net.pair())
      return c
    end,
    start = function(c) return c.b:read "l" end,
    complete = function(c)
      await(c.a:write "a line\n")
      return "a line"
    end,
    kept = true,
    close = function(c)
      await(c.a:close())
      await(c.b:close())
    end,
  },
  ["stream read_some"] = {
    open = function()
      local c = {}
      c.a, c.b = await(net.pair())
      return c
    end,
    start = function(c) return c.b:read_some() end,
    complete = function(c)
      await(c.a:write "bytes")
      return "bytes"
    end,
    kept = true,
    close = function(c)
      await(c.a:close())
      await(c.b:close())
    end,
  },
  ["datagram"] = {
    open = function() return { a = await(net.udp("127.0.0.1", 0)), b = await(net.udp("127.0.0.1", 0)) } end,
    start = function(c) return c.b:receive() end,
    complete = function(c)
      await(c.a:send("datagram", "127.0.0.1", c.b:sockname().port))
      return "datagram"
    end,
    kept = true,
    close = function(c)
      await(c.a:close())
      await(c.b:close())
    end,
  },
  ["accept"] = {
    open = function() return { server = await(net.listen("127.0.0.1", 0)) } end,
    start = function(c)
      return task.async(function()
        local s <close> = await(c.server:accept())
        return await(s:read "l")
      end)()
    end,
    complete = function(c)
      c.client = await(net.connect("127.0.0.1", c.server:sockname().port))
      await(c.client:write "hello\n")
      return "hello"
    end,
    close = function(c)
      if c.client then
        await(c.client:close())
      end
      await(c.server:close())
    end,
  },
  ["read_file"] = {
    open = function() return { name = put "contents" } end,
    start = function(c) return fs.read_file(c.name) end,
    complete = function() return "contents" end,
    kept = true,
  },
  ["file read"] = {
    open = function()
      put "one\ntwo\n"
      return { file = await(fs.open(path())) }
    end,
    start = function(c) return c.file:read "l" end,
    complete = function() return "one" end,
    kept = true,
    close = function(c) await(c.file:close()) end,
  },
  ["process wait"] = {
    open = function() return { process = await(process.spawn("cat")) } end,
    start = function(c) return c.process:wait() end,
    complete = function(c)
      await(c.process.stdin:close())
      return 0
    end,
    kept = true,
    close = function(c) await(c.process:close { grace = 0 }) end,
  },
  ["job"] = {
    open = function() return { channel = channel.shared(1) } end,
    start = function(c)
      return task.run(function(ch) return require("asynctask").await(ch:receive()) end, c.channel)
    end,
    complete = function(c)
      await(c.channel:send "to the job")
      return "to the job"
    end,
    close = function(c) c.channel:close() end,
  },
  ["signal"] = {
    open = function() return { watch = signal.each "SIGUSR2" } end, -- so that it never ends this process
    start = function() return signal.wait "SIGUSR2" end,
    complete = function()
      os.execute("kill -USR2 " .. io.open("/proc/self/stat"):read("n"))
      return "SIGUSR2"
    end,
    close = function(c)
      await(c.watch:next())
      c.watch:close()
    end,
  },
}

-- What needs libraries of others.

if has_tls then
  operations["tls read"] = {
    open = function()
      local file, a, b = certificates.make(), await(net.pair())
      local serving = tls.wrap(b, { context = await(tls.context {
        server = true, cert = file "server.pem", key = file "server.key",
      }) })
      local client = tls.wrap(a, { context = await(tls.context { ca = file "ca.pem" }), server_name = "localhost" })
      return { client = await(client), server = await(serving) }
    end,
    start = function(c) return c.client:read "l" end,
    complete = function(c)
      await(c.server:write "a line\n")
      return "a line"
    end,
    kept = true,
    close = function(c) await(task.when_all(c.client:close(), c.server:close())) end,
  }
end

if has_client then
  operations["http.get_string"] = {
    open = function()
      local c = { go_on = sync.event() }
      c.server = await(net.listen("127.0.0.1", 0))
      c.url = ("http://127.0.0.1:%d/"):format(c.server:sockname().port)
      c.serving = c.server:serve(function(stream)
        await(stream:read_until "\r\n\r\n")
        await(c.go_on:wait())
        await(stream:write "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody")
      end, { on_error = function() end }) -- a client that hangs up is none
      return c
    end,
    start = function(c) return http.get_string(c.url) end,
    complete = function(c)
      c.go_on:set()
      return "body"
    end,
    kept = true, -- asked again, it is answered again
    close = function(c)
      c.go_on:set()
      await(http.close())
      await(c.server:close())
      try(c.serving)
    end,
  }
end

if has_websocket then
  operations["websocket receive"] = {
    open = function()
      local a, b = await(net.pair())
      return { server = websocket.over(a, true, {}), client = websocket.over(b, false, {}) }
    end,
    start = function(c) return c.server:receive() end,
    complete = function(c)
      await(c.client:send "message")
      return "message"
    end,
    kept = true,
    close = function(c) await(task.when_all(c.server:close(), c.client:close())) end,
  }
end

local names = {}
for name in pairs(operations) do
  names[#names + 1] = name
end
table.sort(names)

-- What a Task ended with: "succeeded" and its value, or "cancelled".
local function outcome(t)
  local value, err = try(t)
  if t:status() == "succeeded" then
    return "succeeded", value
  end
  assert.is_true(task.is_cancelled(err), tostring(err))
  return "cancelled"
end

local function case(name, f)
  local op = operations[name]
  local c = op.open()
  local ok, err = pcall(f, op, c)
  if op.close then
    op.close(c)
  end
  assert(ok, err)
end

-- What it would have given is there for the next one.
local function check_kept(op, c, wanted, happened)
  if op.after then
    op.after(c, happened)
  elseif op.kept and not happened then
    assert.equal(wanted, (task.with_timeout(5, op.start, c)))
  end
end

for _, name in ipairs(names) do
  describe("S10: " .. name, function()
    before_each(before_each_file)
    after_each(after_each_file)

    it("cancelled before it starts: never begins", function()
      case(name, function(op, c)
        local cancelled = task.cancellation()
        cancelled:cancel()
        local state = "not reached"
        pcall(function()
          cancelled:with(function() state = op.start(c):status() end)
        end)
        assert.equal("cancelled", state)
        check_kept(op, c, op.complete(c), false)
      end)
    end)

    it("cancelled while it waits: is cancelled, and takes nothing", function()
      case(name, function(op, c)
        local t = op.start(c)
        if t:done() then -- it need not wait: then it is over
          assert.equal(op.complete(c), await(t))
          return
        end
        assert.is_true(t:cancel())
        assert.equal("cancelled", (outcome(t)))
        check_kept(op, c, op.complete(c), false)
      end)
    end)

    it("cancelled in the turn in which it completes: one outcome, nothing lost", function()
      case(name, function(op, c)
        local t = op.start(c)
        local wanted = op.complete(c)
        local took = t:cancel()
        local state, value = outcome(t)
        assert.is_true(took or state == "succeeded") -- a function that has what it awaited may return it all the same
        if state == "succeeded" then
          assert.equal(wanted, value)
        end
        check_kept(op, c, wanted, state == "succeeded")
      end)
    end)

    it("cancelled by another of its kind that completed with it: one outcome, nothing lost", function()
      case(name, function(op, c)
        local other = op.open()
        local ok, err = pcall(function()
          local t, u = op.start(other), op.start(c)
          local canceller = task.spawn(function()
            try(t)
            u:cancel()
          end)
          op.complete(other)
          local wanted = op.complete(c)
          await(canceller)
          local state, value = outcome(u)
          if state == "succeeded" then
            assert.equal(wanted, value)
          end
          check_kept(op, c, wanted, state == "succeeded")
        end)
        if op.close then
          op.close(other)
        end
        assert(ok, err)
      end)
    end)

    it("cancelled after: keeps its value", function()
      case(name, function(op, c)
        local t = op.start(c)
        local wanted = op.complete(c)
        assert.equal(wanted, (await(t)))
        assert.is_false(t:cancel())
        assert.equal("succeeded", t:status())
        assert.equal(wanted, (await(t)))
      end)
    end)
  end)
end
