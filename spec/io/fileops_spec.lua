-- Reading and writing elsewhere in a file, locks, writes that share a trip, files without a name.
local task = require "asynctask"
local fs = require "asynctask.fs"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await, try = task.await, task.try
local code_of = sandbox.code_of

describe("file", function()
  local path, put, get, before, after = sandbox.new()
  before_each(before)
  after_each(after)

  describe("read_at", function()
    it("gives bytes from anywhere, and leaves position and buffer as they are", function()
      put("one\ntwo\nthree\n")
      local f <close> = await(fs.open(path()))
      assert.equal("one", await(f:read()))
      assert.equal("three\n", await(f:read_at(8, 6)))
      assert.equal("three\n", await(f:read_at(8, 600)))
      assert.equal("on", await(f:read_at(0, 2)))
      assert.is_nil(await(f:read_at(14, 1)))
      assert.is_nil(await(f:read_at(1000, 5)))
      assert.equal("", await(f:read_at(13, 0)))
      assert.is_nil(await(f:read_at(14, 0)))
      assert.equal("two", await(f:read()))
    end)

    it("reads large pieces, and to the end for any count", function()
      local text = ("0123456789abcdef"):rep(100000)
      put(text)
      local f <close> = await(fs.open(path()))
      assert.is_true(await(f:read_at(0, 1500000)) == text:sub(1, 1500000))
      assert.is_true(await(f:read_at(1000, math.maxinteger)) == text:sub(1001))
      assert.is_nil(await(f:read_at(math.maxinteger, math.maxinteger)))
    end)

    it("reads files that do not tell their size", function()
      local f <close> = await(fs.open("/proc/self/status"))
      assert.equal("Name:", await(f:read_at(0, 5)))
      assert.is_true(#await(f:read_at(0, 1000000)) > 100)
    end)

    it("comes after the writes that were started before it", function()
      local f <close> = await(fs.open(path(), "w+"))
      f:write("abc")
      assert.equal("bc", await(f:read_at(1, 10)))
    end)

    it("S22: needs a file that is read and has a position; checks its arguments at the call", function()
      local f <close> = await(fs.open(path(), "w"))
      assert.equal("EBADF", (code_of(f:read_at(0, 1))))
      local null <close> = await(fs.open("/dev/null", "r"))
      local code, err = code_of(null:read_at(0, 1))
      assert.equal("ESPIPE", code)
      assert.equal("read_at", err.op)
      assert.error_matches(function() f:read_at(-1, 1) end, "bad argument #1 to 'read_at'")
      assert.error_matches(function() f:read_at(0, -1) end, "bad argument #2 to 'read_at'")
      assert.error_matches(function() f:read_at(0) end, "bad argument #2 to 'read_at'")
    end)
  end)

  describe("write_at", function()
    it("writes anywhere and leaves the position as it is", function()
      put("one\ntwo\nthree\n")
      local f = await(fs.open(path(), "r+"))
      assert.equal("one", await(f:read()))
      assert.equal(f, await(f:write_at(4, "T", 0)))
      assert.equal(f, await(f:write_at(20, "far")))
      assert.equal("T0o", await(f:read())) -- not what was read ahead
      await(f:close())
      assert.equal("one\nT0o\nthree\n\0\0\0\0\0\0far", get())
    end)

    it("S22: refuses a file that is open for appending", function()
      local f <close> = await(fs.open(path(), "a"))
      assert.equal("EINVAL", (code_of(f:write_at(0, "x"))))
      assert.error_matches(function() f:write_at(-1, "x") end, "bad argument #1 to 'write_at'")
      assert.error_matches(function() f:write_at(0, {}) end, "bad argument #2 to 'write_at'")
    end)
  end)

  describe("writes that wait in a row", function()
    it("share trips and keep their order, whatever their sizes", function()
      local f = await(fs.open(path(), "w"))
      local want, writes = {}, {}
      for i = 1, 500 do
        local piece = tostring(i):rep(i % 7 == 0 and 30000 or i % 5)
        want[i] = piece
        writes[i] = f:write(piece)
        if i % 100 == 50 then writes[#writes + 1] = f:seek() end
      end
      for _, t in ipairs(writes) do await(t) end
      await(f:close())
      assert.is_true(table.concat(want) == get())
    end)

    it("are appended where others append, too", function()
      put("begin ")
      local f = await(fs.open(path(), "a+"))
      for i = 1, 9 do f:write(i) end
      await(f:sync())
      assert.equal("begin 123456789", await(f:read_at(0, 100)))
      assert.equal(15, await(f:seek()))
      await(f:close())
    end)

    it("S10: one that was cancelled before its trip began is left out, the others are written", function()
      local f = await(fs.open(path(), "w"))
      local first = f:write(("x"):rep(3000000)) -- on its way: the others wait
      local writes = {}
      for i = 1, 9 do writes[i] = f:write(i) end
      for i = 2, 8, 2 do writes[i]:cancel() end
      await(f:close())
      assert.is_true(first:done())
      assert.equal("13579", get():sub(3000001))
      for i = 2, 8, 2 do assert.equal("cancelled", writes[i]:status()) end
    end)

    it("S10: any may be cancelled at any time: each is whole, or not there", function()
      for round = 1, 60 do
        local f = await(fs.open(path(), "w"))
        local writes = {}
        for i = 1, 9 do writes[i] = f:write(i) end
        if round % 3 == 0 then await(task.yield()) end
        for i = 1 + round % 2, 9, 2 do writes[i]:cancel() end
        await(f:close())
        local text = get()
        local last = "0"
        for digit in text:gmatch(".") do
          assert.is_true(digit > last)
          last = digit
        end
        for i = 1, 9 do
          if writes[i]:status() == "succeeded" then assert.is_truthy(text:find(i, 1, true)) end
        end
      end
    end)

    it("S22: each is told its own failure", function()
      local output, code = child.lua([[
        local task, fs = require "asynctask", require "asynctask.fs"
        local f = task.await(fs.open(arg[1], "w"))
        local writes = { f:write(("a"):rep(3000)) }
        for i = 2, 6 do writes[i] = f:write(("b"):rep(300)) end
        for i, t in ipairs(writes) do
          local ok, err = task.try(t)
          print(i, ok and "written" or err.code)
        end
        print(task.await(f:seek("end")))
        task.await(f:close()) ]], { args = { path() }, before = "trap '' XFSZ; ulimit -f 8;" })
      local written, failed, size = 0, 0, tonumber(output:match("(%d+)\n$"))
      for outcome in output:gmatch("%d\t(%a+)\n") do
        if outcome == "written" then written = written + 1 else failed = failed + 1 end
      end
      assert.equal(0, code, output)
      assert.equal(6, written + failed, output)
      assert.is_true(failed >= 1 and size <= 4096 or failed == 0 and size == 4500, output)
    end)

    it("S18: a state that closes meanwhile ends at once", function()
      for _ = 1, 5 do
        local output, code = child.lua([[
          local task, fs = require "asynctask", require "asynctask.fs"
          for i = 1, 10 do
            local f = task.await(fs.open(arg[1] .. i, "w"))
            for j = 1, 200 do
              local t = f:write(("z"):rep(j * 50))
              if j % 9 == 0 then t:cancel() end
            end
          end
          io.write "closing" ]], { args = { path() }, timeout = 20 })
        assert.matches("^closing", output)
        assert.equal(0, code)
      end
    end)
  end)

  describe("lock", function()
    it("keeps other openings of the file out until it is unlocked", function()
      put("")
      local a, b = await(fs.open(path(), "r+")), await(fs.open(path(), "r"))
      assert.equal(a, await(a:lock()))
      assert.is_false(await(b:lock("exclusive", { wait = false })))
      assert.is_false(await(b:lock("shared", { wait = false })))
      local waiting = b:lock()
      await(task.delay(0.005))
      assert.is_false(waiting:done())
      assert.equal(a, await(a:unlock()))
      assert.equal(b, await(waiting))
      assert.is_false(await(a:lock("shared", { wait = false })))
      await(b:close()) -- unlocks
      assert.equal(a, await(a:lock("exclusive", { wait = false })))
      await(a:close())
    end)

    it("is shared by readers", function()
      put("")
      local a, b = await(fs.open(path())), await(fs.open(path()))
      await(a:lock("shared"))
      await(b:lock("shared"))
      assert.is_false(await(a:lock("exclusive", { wait = false })))
      await(b:unlock())
      assert.equal(a, await(a:lock("exclusive", { wait = false })))
      await(a:close())
      await(b:close())
    end)

    it("holds against other processes", function()
      put("")
      local f <close> = await(fs.open(path()))
      await(f:lock())
      local script = [[
        local task, fs = require "asynctask", require "asynctask.fs"
        local f <close> = task.await(fs.open(arg[1]))
        print(task.await(f:lock("exclusive", { wait = false })) == f) ]]
      assert.equal("false\n", (child.lua(script, { args = { path() } })))
      await(f:unlock())
      assert.equal("true\n", (child.lua(script, { args = { path() } })))
    end)

    it("S10: a lock not got is not held; unlock works in a cancelled scope", function()
      put("")
      local a, b = await(fs.open(path())), await(fs.open(path()))
      await(a:lock())
      local waiting = b:lock()
      await(task.yield())
      waiting:cancel()
      assert.is_nil((try(waiting)))
      local t = task.spawn(function()
        pcall(await, task.delay(60))
        a:unlock()
        await(task.delay(60))
      end)
      t:cancel()
      assert.is_nil((try(t)))
      assert.is_truthy(await(a:stat())) -- after the unlock
      for _ = 1, 20 do
        local got = b:lock()
        got:cancel() -- whether it was on its way or not
      end
      assert.is_truthy(await(b:stat()))
      assert.equal(a, await(a:lock("exclusive", { wait = false })))
      await(a:close())
      await(b:close())
    end)

    it("S22: checks its arguments at the call; a closed file faults", function()
      local f = await(fs.open(path(), "w"))
      assert.error_matches(function() f:lock("both") end, "bad argument #1 to 'lock'")
      assert.error_matches(function() f:lock("shared", { wait = 1 }) end, "boolean expected")
      await(f:close())
      assert.equal("EBADF", (code_of(f:lock())))
      assert.equal("EBADF", (code_of(f:unlock())))
    end)
  end)

  it("tmpfile has no name, and goes when it is closed", function()
    await(fs.mkdir(path("tmp")))
    local f = await(fs.tmpfile(path("tmp")))
    await(f:write("hidden ", 1))
    await(f:seek("set"))
    assert.equal("hidden 1", await(f:read("a")))
    assert.is_nil(fs.dir(path("tmp"))())
    assert.equal(0, await(f:stat()).nlink)
    assert.equal(tonumber("600", 8), await(f:stat()).mode)
    await(f:close())
    local other <close> = await(fs.tmpfile())
    assert.equal("file", await(other:stat()).type)
    assert.equal("ENOENT", (code_of(fs.tmpfile(path("missing")))))
    assert.error_matches(function() fs.tmpfile(1) end, "bad argument #1 to 'tmpfile'")
  end)
end)
