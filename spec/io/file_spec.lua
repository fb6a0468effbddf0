-- The open file: formats, position, order of operations, closing, cancellation.
local task = require "asynctask"
local fs = require "asynctask.fs"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await, try = task.await, task.try

describe("file", function()
  local path, put, get, before, after = sandbox.new()
  before_each(before)
  after_each(after)

  -- The same reads through io and through us.
  local function agree(text, ...)
    put(text)
    local theirs = assert(io.open(path(), "rb"))
    local ours = await(fs.open(path()))
    local formats = table.pack(...)
    for round = 1, 8 do
      local want = table.pack(theirs:read(table.unpack(formats, 1, formats.n)))
      local have = table.pack(await(ours:read(table.unpack(formats, 1, formats.n))))
      assert.same(want, have, ("round %d of %q"):format(round, text:sub(1, 40)))
      for i = 1, want.n do
        assert.equal(math.type(want[i]), math.type(have[i]))
      end
    end
    theirs:close()
    await(ours:close())
  end

  describe("reading", function()
    local texts = {
      "",
      "\n",
      "one line without an end",
      "one\ntwo\n\nfour",
      "a\0b\nc\r\nd\n",
      ("x"):rep(70000) .. "\n" .. ("y"):rep(20000),
      "  12 0x1F -3.5e2 .5 1e 7 nonsense",
      "0x 0xg 1.5.2 +4 -",
      "9223372036854775807 9223372036854775808 0x10p4 1e400",
      ("7"):rep(250) .. " 1\n2",
      "   \n\t 5",
    }
    for _, formats in ipairs {
      {}, { "l" }, { "L" }, { "n" }, { "a" }, { 1 }, { 0 }, { 5, "l" }, { "*l", "*L" }, { "n", "n" },
      { "n", "a" }, { "l", 3, "n", "L" }, { "l", "l", "l", "l", "l", "l" }, { 100000 }, { "*a", "a" },
    } do
      it("S23: reads as io does: " .. table.concat(formats, " "), function()
        for _, text in ipairs(texts) do
          agree(text, table.unpack(formats))
        end
      end)
    end

    it("reads files larger than its buffer, by lines and by pieces", function()
      local lines = {}
      for i = 1, 60000 do
        lines[i] = ("line %d %s"):format(i, ("z"):rep(i % 50))
      end
      local text = table.concat(lines, "\n") .. "\n"
      put(text)
      local n = 0
      local f <close> = await(fs.open(path()))
      for line in f:lines() do
        n = n + 1
        assert(line == lines[n])
      end
      assert.equal(#lines, n)
      await(f:seek("set"))
      local pieces = {}
      for piece in f:lines(65536) do
        pieces[#pieces + 1] = piece
      end
      assert.equal(math.ceil(#text / 65536), #pieces)
      assert.is_true(table.concat(pieces) == text)
    end)

    it("reads what a file gained after its end was met", function()
      put("one\n")
      local f <close> = await(fs.open(path()))
      assert.equal("one", await(f:read()))
      assert.is_nil(await(f:read()))
      local more = assert(io.open(path(), "a"))
      more:write("two\n")
      more:close()
      assert.equal("two", await(f:read()))
    end)

    it("gives the end for a count larger than any memory", function()
      put("short")
      local f <close> = await(fs.open(path()))
      assert.equal("short", await(f:read(math.maxinteger)))
    end)

    it("survives finalizers that read from the file that is being read", function()
      local text = {}
      for i = 1, 3000 do
        text[i] = ("%d %s"):format(i, ("t"):rep(i % 300))
      end
      put(table.concat(text, "\n") .. "\n")
      local f <close> = await(fs.open(path()))
      local reads, armed = {}, true
      local function arm()
        setmetatable({}, { __gc = function()
          if armed then
            reads[#reads + 1] = f:read("L")
            arm()
          end
        end })
      end
      arm()
      local size, n = 0, 0
      while true do
        collectgarbage("step")
        local a, b = await(n % 2 == 0 and f:read("L") or f:read("L", "L"))
        n = n + 1
        size = size + #(a or "") + #(b or "")
        if not a then break end
      end
      armed = false
      for _, t in ipairs(reads) do
        size = size + #(await(t) or "")
      end
      assert.is_true(#reads > 10)
      assert.equal(#table.concat(text, "\n") + 1, size)
    end)

    it("checks formats at the call", function()
      put("")
      local f <close> = await(fs.open(path()))
      assert.error_matches(function() f:read("x") end, "bad argument #1 to 'read'")
      assert.error_matches(function() f:read(-1) end, "bad argument #1 to 'read'")
      assert.error_matches(function() f:read("l", {}) end, "bad argument #2 to 'read'")
      assert.error_matches(function() f:lines("x") end, "bad argument #1 to 'lines'")
    end)

    it("S22: faults with EBADF on a file that is open for writing only", function()
      local f <close> = await(fs.open(path(), "w"))
      local ok, err = try(f:read())
      assert.is_nil(ok)
      assert.equal("EBADF", err.code)
      assert.equal("read", err.op)
      assert.equal(path(), err.path)
    end)
  end)

  describe("writing", function()
    it("writes strings and numbers and gives the file", function()
      local f = await(fs.open(path(), "w"))
      assert.equal(f, await(f:write("a", 1, " ", 2.5, "\0z")))
      assert.equal(f, await(f:write()))
      await(f:close())
      assert.equal("a1 2.5\0z", get())
    end)

    it("keeps the pieces of two writers apart, in the order of their start", function()
      local f = await(fs.open(path(), "w"))
      local want, writes = {}, {}
      for i = 1, 200 do
        local piece = ("%03d"):format(i):rep(50) .. "\n"
        want[i] = piece
        writes[i] = f:write(piece)
      end
      await(task.when_all(writes))
      await(f:close())
      assert.equal(table.concat(want), get())
    end)

    it("writes before it closes", function()
      local f = await(fs.open(path(), "w"))
      local w = f:write(("x"):rep(100000))
      local c = f:close()
      await(c)
      assert.is_true(w:done())
      assert.equal(100000, #get())
    end)

    it("overwrites at the position that was read to, and appends wherever it was", function()
      put("one\ntwo\nthree\n")
      local f = await(fs.open(path(), "r+"))
      assert.equal("one", await(f:read()))
      await(f:write("TWO\n"))
      assert.equal("three", await(f:read()))
      await(f:close())
      assert.equal("one\nTWO\nthree\n", get())

      f = await(fs.open(path(), "a+"))
      assert.equal("one", await(f:read()))
      await(f:write("four\n"))
      assert.is_nil(await(f:read()))
      await(f:seek("set", 4))
      assert.equal("TWO", await(f:read()))
      await(f:close())
      assert.equal("one\nTWO\nthree\nfour\n", get())
    end)

    it("raises for what is no string or number", function()
      local f <close> = await(fs.open(path(), "w"))
      assert.error_matches(function() f:write("a", {}) end, "bad argument #2 to 'write'")
      assert.equal(0, await(f:stat()).size)
    end)

    it("S22: faults with ENOSPC on a full device", function()
      local f <close> = await(fs.open("/dev/full", "w"))
      local ok, err = try(f:write("x"))
      assert.is_nil(ok)
      assert.equal("ENOSPC", err.code)
      assert.equal("write", err.op)
    end)
  end)

  it("opens with the modes of io, and exclusively", function()
    put("old")
    await(await(fs.open(path(), "r+b")):close())
    assert.equal("old", get())
    local err = select(2, try(fs.open(path(), "wx")))
    assert.equal("EEXIST", err.code)
    await(await(fs.open(path("new"), "w+x")):close())
    assert.equal("", get("new"))
    await(await(fs.open(path(), "w")):close())
    assert.equal("", get())
    for _, mode in ipairs { "", "x", "rw", "r++", "rx", "wbb", " r" } do
      assert.error_matches(function() fs.open(path(), mode) end, "bad argument #2 to 'open' %(invalid mode%)")
    end
  end)

  it("makes files with the permissions asked for", function()
    await(await(fs.open(path(), "w", { permissions = tonumber("600", 8) })):close())
    assert.equal(tonumber("600", 8), await(fs.stat(path())).mode)
    assert.error_matches(function() fs.open(path(), "w", { mode = 1 }) end, "unknown option 'mode'")
  end)

  it("seeks inside and outside of what was read ahead", function()
    put(("0123456789"):rep(20000))
    local f <close> = await(fs.open(path()))
    assert.equal("0", await(f:read(1)))
    assert.equal(1, await(f:seek()))
    assert.equal(5, await(f:seek("cur", 4)))
    assert.equal("5", await(f:read(1)))
    assert.equal(199998, await(f:seek("end", -2)))
    assert.equal("89", await(f:read("a")))
    assert.equal(3, await(f:seek("set", 3)))
    assert.equal("3", await(f:read(1)))
    assert.equal(300000, await(f:seek("set", 300000)))
    assert.is_nil(await(f:read(1)))
    assert.equal("EINVAL", select(2, try(f:seek("set", -1))).code)
    assert.equal("EINVAL", select(2, try(f:seek("end", math.maxinteger))).code)
    assert.equal(300000, await(f:seek()))
    assert.error_matches(function() f:seek("middle") end, "bad argument #1 to 'seek'")
  end)

  it("truncates to a size or to the position, stores, tells its stat", function()
    put("one\ntwo\nthree\n")
    local f = await(fs.open(path(), "r+"))
    assert.equal("one", await(f:read()))
    assert.equal(f, await(f:truncate()))
    assert.equal(4, await(f:stat()).size)
    assert.equal(f, await(f:truncate(10)))
    assert.equal(f, await(f:sync()))
    assert.equal(f, await(f:datasync()))
    local st = await(f:stat())
    assert.equal(10, st.size)
    assert.equal("file", st.type)
    await(f:close())
    assert.equal("one\n\0\0\0\0\0\0", get())
  end)

  describe("lines", function()
    it("S26: is one callable object with next and close, and leaves the file open", function()
      put("one\ntwo\nthree\nfour\n")
      local f <close> = await(fs.open(path()))
      local it = f:lines()
      assert.equal("one", it())
      assert.equal("two", await(it:next()))
      for line in it do
        assert.equal("three", line)
        break
      end
      await(it:close())
      await(it:close())
      assert.is_nil(it())
      assert.is_nil(await(it:next()))
      assert.equal("four", await(f:read()))
    end)

    it("S26: fs.lines opens in the first round and closes at the end and on leaving the loop", function()
      put("1 2\n3 4\n")
      local sum = 0
      for a, b in fs.lines(path(), "n", "n") do
        sum = sum + a * b
      end
      assert.equal(14, sum)
      local it = fs.lines(path(), "L")
      assert.equal("1 2\n", await(it:next()))
      assert.equal("3 4\n", await(it:next()))
      assert.is_nil(await(it:next()))
      assert.is_nil(await(it:next()))
      local ok, err = pcall(function()
        for _ in fs.lines(path("missing")) do
          error("a line of a missing file")
        end
      end)
      assert.is_false(ok)
      assert.equal("ENOENT", err.code)
      -- left early, many times over: descriptors are given back
      local output, code = child.lua([[
        local fs = require "asynctask.fs"
        for i = 1, 200 do
          for line in fs.lines(arg[1]) do assert(line == "1 2") break end
          for line in fs.lines(arg[1]) do assert(line) end
        end
        print "fine" ]], { args = { path() }, before = "ulimit -n 40;" })
      assert.equal("fine\n", output)
      assert.equal(0, code)
    end)

    it("S2: a loop over buffered lines gives way to other tasks", function()
      put(("x\n"):rep(20000))
      local turns, done = 0, false
      local other = task.spawn(function()
        while not done do
          turns = turns + 1
          await(task.yield())
        end
      end)
      for _ in fs.lines(path()) do
        if turns > 5 then break end
      end
      done = true
      await(other)
      assert.is_true(turns > 5)
    end)
  end)

  describe("closing", function()
    it("S22: use after close and a second close fault with EBADF", function()
      put("text")
      local f = await(fs.open(path()))
      await(f:close())
      for _, op in ipairs { "read", "write", "seek", "close", "stat", "sync" } do
        local ok, err = try(f[op](f))
        assert.is_nil(ok)
        assert.equal("EBADF", err.code)
        assert.equal(op, err.op)
        assert.matches("closed file", tostring(err))
      end
      assert.matches("closed", tostring(f))
      local ok, err = pcall(f:lines())
      assert.is_false(ok)
      assert.equal("EBADF", err.code)
    end)

    it("S12: a <close> variable closes, after an error too, and not twice", function()
      put("text")
      local kept
      pcall(function()
        local f <close> = await(fs.open(path(), "r+"))
        kept = f
        error("out")
      end)
      assert.equal("EBADF", select(2, try(kept:read())).code)
      do
        local f <close> = await(fs.open(path()))
        await(f:close())
      end
    end)

    it("waits for the reads that were started before it", function()
      put(("y"):rep(3000000))
      local f = await(fs.open(path(), "r+"))
      local r1, r2 = f:read(2000000), f:read("a")
      await(f:close())
      assert.is_true(r1:done() and r2:done())
      assert.equal(2000000, #await(r1))
      assert.equal(1000000, #await(r2))
    end)

    it("S10: ends reads that wait on a FIFO, without waiting for the system", function()
      child.shell("mkfifo " .. child.quote(path("fifo")))
      local opening = fs.open(path("fifo"), "r+")
      local f = await(opening)
      local first, second = f:read(), f:read(10)
      await(task.yield())
      await(f:close())
      for _, t in ipairs { first, second } do
        local ok, err = try(t)
        assert.is_nil(ok)
        assert.equal("ECANCELED", err.code)
        assert.equal("the file was closed", err.reason)
      end
      -- the thread comes back when there is something to read
      local w = assert(io.open(path("fifo"), "r+"))
      w:write("x\n")
      w:close()
    end)

    it("is done by the collector, with a warning", function()
      local output, code = child.lua([[
        local task, fs = require "asynctask", require "asynctask.fs"
        warn "@on"
        for i = 1, 100 do
          task.await(fs.open(arg[1]))
          if i % 10 == 0 then collectgarbage() collectgarbage() end
        end
        print "fine" ]], { args = { put("text") }, before = "ulimit -n 40;" })
      assert.equal(0, code)
      assert.matches("fine", output)
      assert.matches("was collected without being closed", output)
    end)
  end)

  describe("cancelling", function()
    it("S10: what a cancelled read got stays in the buffer", function()
      child.shell("mkfifo " .. child.quote(path("fifo")))
      local f = await(fs.open(path("fifo"), "r+"))
      local w = assert(io.open(path("fifo"), "w"))
      w:write("half a ")
      w:flush()
      local r = f:read()
      local stopped, err = pcall(task.with_timeout, 0.02, await, r)
      assert.is_false(stopped)
      assert.equal("ETIMEDOUT", err.code)
      r:cancel("enough")
      assert.equal("cancelled", r:status())
      w:write("line\n")
      w:close()
      assert.equal("half a line", await(f:read()))
      await(f:close())
    end)

    it("S10: an operation that waits its turn never begins once it is cancelled", function()
      local f = await(fs.open(path(), "w"))
      local first = f:write(("x"):rep(1000000))
      local second = f:write("never")
      local third = f:write("y")
      second:cancel()
      await(first)
      await(third)
      await(f:close())
      assert.equal("cancelled", second:status())
      assert.equal(("x"):rep(1000000) .. "y", get())
    end)

    it("S10: in a cancelled scope a read never begins, and a close does", function()
      put("one\ntwo\n")
      local f = await(fs.open(path(), "r+"))
      local read, closed
      local t = task.spawn(function()
        local ok = pcall(await, task.delay(60))
        assert(not ok)
        read = f:read()
        closed = f:close()
        await(task.delay(60))
      end)
      t:cancel("stop")
      assert.is_nil((try(t)))
      assert.equal("cancelled", read:status())
      await(closed)
      assert.equal("EBADF", select(2, try(f:read())).code)
    end)
  end)

  it("S18: a state that closes with operations in flight ends at once", function()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      os.execute("mkfifo " .. arg[1] .. "/fifo")
      local files = {}
      for i = 1, 20 do
        local f = task.await(fs.open(arg[1] .. "/f" .. i, "w+"))
        files[i] = f
        for j = 1, 20 do f:write(("z"):rep(1000)) f:seek("set") f:read("a") end
        fs.read_file(arg[1] .. "/f" .. i)
      end
      local fifo = task.await(fs.open(arg[1] .. "/fifo", "r+"))
      fifo:read("a")
      fifo:read("a")
      fs.open(arg[1] .. "/fifo"):cancel()
      io.write "closing" ]], { args = { (path(""):gsub("/$", "")) }, timeout = 20 })
    assert.matches("^closing", output)
    assert.equal(0, code)
  end)
end)
