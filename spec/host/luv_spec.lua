-- asynctask and luv in one program, on luv's loop.

local child = require "spec.support.child"

local has_luv = pcall(require, "luv")

describe("asynctask.luv", function()
  -- What a program prints begins so, and it ends well.
  local function run(script, wanted)
    if not has_luv then
      pending("luv is not installed")
      return
    end
    local output, code = child.lua(script)
    assert.are.equal(wanted, output:sub(1, #wanted))
    assert.are.equal(0, code)
    return output:sub(#wanted + 1)
  end

  it("runs tasks inside uv.run, beside luv's callbacks, whose functions can be awaited", function()
    run([[
      local uv = require "asynctask.luv"
      local task = require "asynctask"
      local fs = require "asynctask.fs"
      local await = task.await
      local function stat(path)
        return task.from_callback(function(done) uv.fs_stat(path, done) end, { error_first = true })
      end
      local timer = uv.new_timer()
      local t = task.spawn(function()
        print(await(stat ".").type)
        print((select(2, task.try(stat "/no/such/file")):match "^ENOENT"))
        await(task.delay(0.02))
        print(await(fs.stat ".").type, await(task.run(function(a) return a + 1 end, 41)))
        timer:start(1, 0, function()
          timer:close()
          print "a timer of luv's"
          task.spawn(function()
            await(task.yield())
            print "a task that a callback spawned"
          end)
        end)
      end)
      uv.run()
      print(t:status())
    ]], "directory\nENOENT\ndirectory\t42\na timer of luv's\na task that a callback spawned\nsucceeded\n")
  end)

  it("goes on with a task that the last callback of luv's woke", function()
    run([[
      local uv = require "asynctask.luv"
      local task = require "asynctask"
      local source = task.source()
      task.spawn(function()
        print(task.await(source.task))
        task.await(task.delay(0.001))
        print "after that"
      end)
      local timer = uv.new_timer()
      timer:start(1, 0, function()
        timer:close()
        source:set_result("woken")
      end)
      uv.run()
    ]], "woken\nafter that\n")
  end)

  it("exchanges bytes: a server of luv's, a client of asynctask's", function()
    run([[
      local uv = require "asynctask.luv"
      local task = require "asynctask"
      local net = require "asynctask.net"
      local socket = require "asynctask.socket"
      local await = task.await
      local server = uv.new_tcp()
      server:bind("127.0.0.1", 0)
      server:listen(16, function()
        local client = uv.new_tcp()
        server:accept(client)
        client:read_start(function(_, data)
          if data then client:write(data:upper()) else client:close() end
        end)
      end)
      local port = server:getsockname().port
      task.spawn(function()
        local stream <close> = await(net.connect("127.0.0.1", port))
        await(stream:write "by net\n")
        print(await(stream:read()))
        local c = assert(socket.connect("127.0.0.1", port))
        c:send("by socket\n")
        print((c:receive()))
        c:close()
        server:close()
      end)
      uv.run()
    ]], "BY NET\nBY SOCKET\n")
  end)

  it("await on the main chunk says what to do, and uv.walk that it cannot be", function()
    run([[
      local uv = require "asynctask.luv"
      local task = require "asynctask"
      print(pcall(task.await, task.delay(0)))
      print(pcall(uv.walk, print))
      uv.run()
    ]], "false\tawait outside a task while the host runs the loop: spawn a task\n"
      .. "false\tuv.walk: there are handles of asynctask's on this loop, which luv would take for its own\n")
  end)

  it("S18: the state closes with work of both in flight", function()
    run([[
      local uv = require "asynctask.luv"
      local task = require "asynctask"
      local socket = require "asynctask.socket"
      local server = assert(socket.bind("127.0.0.1", 0))
      local timer = uv.new_timer()
      timer:start(60000, 0, print)
      task.spawn(function() server:accept() end)
      task.spawn(function() task.await(task.delay(60)) end)
      task.spawn(function() task.await(task.run(function() while true do end end)) end)
      local stop = uv.new_timer()
      stop:start(20, 0, function() stop:close() uv.stop() end)
      uv.run()
      print "closing"
    ]], "closing\n") -- and a report of what was pending
  end)

  it("refuses where asynctask has a loop already, and says what comes first", function()
    if not has_luv then
      pending("luv is not installed")
      return
    end
    local output = child.lua([[
      require "asynctask"
      print(pcall(require, "asynctask.luv"))
    ]])
    assert.matches("cannot attach to luv's loop: asynctask runs on a loop of its own already: "
      .. "require 'asynctask.luv' before anything else of it", output)
  end)

  it("says what to install where luv is missing", function()
    local output = child.lua([[
      package.preload.luv = function() error("not here", 0) end
      print(pcall(require, "asynctask.luv"))
    ]])
    assert.matches("luv is not installed %(Debian: lua%-luv; LuaRocks: luv%)", output)
  end)

  it("refuses what does not give its loop away", function()
    if not has_luv then
      pending("luv is not installed")
      return
    end
    local output = child.lua([[
      package.cpath = package.cpath:gsub("^", "./no/such/?.so;")
      local search = package.searchpath
      package.searchpath = function(name, path)
        return search(name == "luv" and "asynctask.core" or name, path)
      end
      print(pcall(require, "asynctask.luv"))
    ]])
    assert.matches("luv does not give its loop away", output)
  end)
end)
