-- Specs of the end of a state (S18): at any moment, no crash, no Lua code for what was left.

local child = require "spec.support.child"

local head = "local task = require 'asynctask'\nlocal await, spawn = task.await, task.spawn\n"

local function run(script)
  return child.lua(head .. script, { timeout = 20 })
end

-- The output without the list of tasks that were left (S24).
local function said(output)
  return (output:gsub("asynctask: tasks still pending.*", ""))
end

describe("closing the state", function()
  it("S18: with pending delays", function()
    local output, code = run [[
      for i = 1, 100 do task.delay(60 + i) end
      local t = spawn(function() await(task.delay(60)) print("must not run") end)
      print("end")
    ]]
    assert.are.equal("end\n", said(output))
    assert.are.equal(0, code)
  end)

  it("S18: by os.exit inside a task", function()
    local output, code = run [[
      task.delay(60)
      spawn(function() await(task.delay(60)) print("must not run") end)
      await(spawn(function()
        await(task.yield())
        print("going")
        os.exit(3, true)
      end))
    ]]
    assert.are.equal("going\n", said(output))
    assert.are.equal(3, code)
  end)

  it("S18: by os.exit in a task's first slice, and nested in others", function()
    local output, code = run [[
      local function deep(n)
        if n == 0 then os.exit(4, true) end
        await(spawn(deep, n - 1))
      end
      spawn(deep, 50)
    ]]
    assert.are.equal("", said(output))
    assert.are.equal(4, code)
  end)

  it("S18: by os.exit in a timer's turn, a continuation and a report", function()
    for _, script in ipairs({
      [[task.delay(0.001):continue_with(function() os.exit(5, true) end) await(task.delay(60))]],
      [[task.from_result():continue_with(function() os.exit(5, true) end) await(task.delay(60))]],
      [[task.on_unobserved(function() os.exit(5, true) end)
        spawn(error, "x") collectgarbage() collectgarbage() await(task.delay(60))]],
      [[local co = require "asynctask.coroutine"
        await(spawn(function() co.wrap(function() await(task.yield()) os.exit(5, true) end)() end))]],
      [[task.with_timeout(60, function() await(task.yield()) os.exit(5, true) end)]],
    }) do
      local output, code = run(script .. "\n")
      assert.are.equal(5, code, script .. "\n" .. output)
    end
  end)

  it("S18: by os.exit without closing", function()
    local _, code = run [[
      spawn(function() await(task.delay(60)) end)
      await(spawn(function() await(task.yield()) os.exit(6) end))
    ]]
    assert.are.equal(6, code)
  end)

  it("S18: by an error of the script", function()
    local output, code = run [[
      task.delay(60)
      spawn(function()
        local _ <close> = setmetatable({}, { __close = function() print("must not run") end })
        await(task.delay(60))
      end)
      error("script failed")
    ]]
    assert.are.equal(1, code)
    assert.matches("script failed", output)
    assert.not_matches("must not run", output)
  end)

  it("S18: runs no Lua code for what was left: no handler, no continuation, no on_cancel", function()
    local output, code = run [[
      local s = task.source(function() print("on_cancel") end)
      s.task:continue_with(function() print("continuation") end)
      task.source().task:continue_with(function() print("abandoned") end)
      spawn(function()
        local _ <close> = setmetatable({}, { __close = function() print("close") end })
        pcall(await, s.task)
        print("went on")
      end)
      task.yield():continue_with(function() print("yielded") end)
    ]]
    assert.are.equal("", said(output))
    assert.are.equal(0, code)
  end)

  it("S18: with finalizers that use the library", function()
    local output, code = run [[
      keep = setmetatable({}, { __gc = function()
        for _, f in ipairs({
          function() return spawn(function() await(task.delay(1)) end) end,
          function() return await(task.delay(1)) end,
          function() return task.delay(1) end,
          function() return task.when_all(task.yield()) end,
          function() return task.source():set_result(1) end,
          function() return task.with_timeout(1, function() end) end,
          function() return left:cancel() end,
          function() return left:status() end,
          function() return task.tasks() end,
        }) do pcall(f) end
        print("finalized")
      end })
      left = spawn(function() await(task.delay(60)) end)
    ]]
    assert.are.equal("finalized\n", said(output))
    assert.are.equal(0, code)
  end)

  it("S18: with a finalizer made before the library was loaded", function()
    local output, code = child.lua([[
      keep = setmetatable({}, { __gc = function()
        local task = package.loaded.asynctask
        pcall(task.spawn, function() task.await(task.delay(1)) end)
        pcall(task.delay, 1)
        pcall(task.await, left)
        pcall(left.cancel, left)
        pcall(left.status, left)
        print("finalized")
      end })
      local task = require "asynctask"
      left = task.spawn(function() task.await(task.delay(60)) end)
    ]], { timeout = 20 })
    assert.matches("finalized\n$", output)
    assert.are.equal(0, code)
  end)

  it("S18: with files, sockets and blocking calls under way", function()
    local output, code = run [[
      local fs, net = require "asynctask.fs", require "asynctask.net"
      local fifo = os.tmpname()
      os.remove(fifo)
      os.execute("mkfifo " .. fifo)
      fs.read_file(fifo)
      local server = await(net.listen("127.0.0.1", 0))
      spawn(function() while true do await(server:accept()) end end)
      local c = await(net.connect("127.0.0.1", await(task.from_result(server:sockname().port))))
      spawn(function() await(c:read(10)) print("must not run") end)
      await(task.yield())
      os.remove(fifo)
      print("end")
    ]]
    assert.are.equal("end\n", said(output))
    assert.are.equal(0, code)
  end)

  it("S18: 200 times in a row at different moments", function()
    local output, code = run [[
      local lua, n = arg[-1], 0
      local core = require "asynctask.core"
      for round = 1, 40 do
        local ticks = 0
        local t = spawn(function()
          for i = 1, round do
            await(i % 2 == 0 and task.delay(0) or task.yield())
            ticks = ticks + 1
          end
        end)
        if round % 3 == 0 then t:cancel() task.try(t) else await(t) end
        n = n + ticks
      end
      spawn(function() await(task.delay(0.0001)) os.exit(n > 0 and 8 or 1, true) end)
      await(task.delay(60))
    ]]
    assert.are.equal("", said(output))
    assert.are.equal(8, code)
  end)

  it("S18: while the main chunk's coroutine waits in a plain pcall", function()
    local output, code = run [[
      pcall(function()
        local _ <close> = setmetatable({}, { __close = function() print("must not run") end })
        spawn(function() await(task.yield()) os.exit(2, true) end)
        await(task.delay(60))
      end)
    ]]
    assert.are.equal(2, code)
    assert.not_matches("PANIC", output)
  end)
end)
