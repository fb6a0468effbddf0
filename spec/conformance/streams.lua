-- What every kind of stream does, as a function that describes it for one kind:
--
--     require("spec.conformance.streams")(_ENV, "TCP", function() return a, b end, options)
--
-- `make()` gives two streams of which each reads what the other writes; it runs in a task or on the main
-- chunk and may await. Options for kinds that can do less:
--     one_way = true     b reads what a writes, and nothing flows back (pipes)
--     no_shutdown = true the end of one direction cannot be told without closing (terminals)
--     text = true        bytes are not all passed on as they are: no binary, no large amounts (terminals)
--     cannot_write = true  b has no write
--     is_open = f(s)     whether a stream is open; else one is that has a descriptor, s:fd()

local task = require "asynctask"

local await, try, spawn = task.await, task.try, task.spawn

-- busted's describe and it are globals of the spec's own environment.
return function(_ENV, name, make, options) -- luacheck: ignore 212
  options = options or {}

  -- a, b and what closes them when the scope is left.
  local function pair()
    local a, b = make()
    return a, b, setmetatable({}, { __close = function()
      await(a:close())
      await(b:close())
    end })
  end

  local both_ways = options.one_way and pending or it
  local with_shutdown = options.no_shutdown and pending or it
  local binary = options.text and pending or it

  local is_open = options.is_open or function(s)
    return s:fd() ~= nil
  end

  -- Tells the reader that nothing more comes.
  local function finish(a)
    return options.no_shutdown and a:close() or a:shutdown()
  end

  describe("a stream, " .. name .. ",", function()
    it("passes lines on in order", function()
      local a, b, _ <close> = pair()
      await(a:write("one\ntwo\n", 3, "\n"))
      assert.are.equal("one", await(b:read()))
      assert.are.equal("two\n", await(b:read("L")))
      assert.are.equal(3, await(b:read("n")))
      assert.are.equal("\n", await(b:read(1)))
    end)

    it("ends a waiting read when the bytes come", function()
      local a, b, _ <close> = pair()
      local t = b:read("l", "l")
      assert.are.equal("pending", t:status())
      await(a:write("first\n"))
      await(a:write("second\n"))
      assert.are.same({ "first", "second" }, { await(t) })
    end)

    it("reads what is there, counts, delimiters", function()
      local a, b, _ <close> = pair()
      await(a:write("head: body;rest\n"))
      assert.are.equal("head", await(b:read_until(": ")))
      assert.are.equal("body;", await(b:read_until(";", { keep = true })))
      assert.are.equal("re", await(b:read_some(2)))
      assert.are.equal("st", await(b:read(2)))
      assert.are.equal("\n", await(b:read_some()))
    end)

    it("bounds a delimiter that never comes, and loses nothing", function()
      local a, b, _ <close> = pair()
      await(a:write(("x"):rep(50), "\n"))
      local data, err = try(b:read_until(";", { max = 20 }))
      assert.is_nil(data)
      assert.are.equal("EMSGSIZE", err.code)
      assert.are.equal(("x"):rep(50), await(b:read("l")))
    end)

    it("gives nil at the end, and what was left before", function()
      local a, b, _ <close> = pair()
      await(a:write("left\nover"))
      await(finish(a))
      local list = {}
      for line in b:lines() do
        list[#list + 1] = line
      end
      assert.are.same({ "left", "over" }, list)
      assert.is_nil(await(b:read("l")))
      assert.is_nil(await(b:read_some()))
      assert.are.equal("", await(b:read("a")))
    end)

    it("S10: a cancelled read has taken nothing", function()
      local a, b, _ <close> = pair()
      local t = b:read(6)
      await(a:write("abc"))
      assert.are.equal("pending", t:status())
      t:cancel()
      await(a:write("def"))
      assert.are.equal("abcdef", await(b:read(6)))
    end)

    it("refuses a second reader", function()
      local a, b, _ <close> = pair()
      local first = b:read("l")
      local line, err = try(b:read("l"))
      assert.is_nil(line)
      assert.are.equal("EBUSY", err.code)
      await(a:write("for the first\n"))
      assert.are.equal("for the first", await(first))
    end)

    binary("keeps every byte of a large message, and holds its writer up", function()
      local a, b, _ <close> = pair()
      local piece = {}
      for i = 0, 255 do
        piece[#piece + 1] = string.char(i)
      end
      local text = table.concat(piece):rep(64 * 1024) -- 16 MiB
      local sent = a:write(text)
      assert.are.equal("pending", sent:status())
      assert.are.equal(#text, #await(b:read(#text - 1)) + #await(b:read(1)))
      await(sent)
      local again = a:write(text)
      assert.is_true(await(b:read(#text)) == text)
      await(again)
    end)

    binary("writes of several tasks leave whole and in order", function()
      local a, b, _ <close> = pair()
      local writers = {}
      for i = 1, 8 do
        writers[i] = spawn(function()
          await(a:write(("%d"):format(i):rep(100000), "\n"))
        end)
      end
      for i = 1, 8 do
        assert.is_true(await(b:read("l")) == ("%d"):format(i):rep(100000))
      end
      await(task.when_all(writers))
    end)

    both_ways("flows both ways", function()
      local a, b, _ <close> = pair()
      await(a:write("there\n"))
      await(b:write("and back\n"))
      assert.are.equal("there", await(b:read()))
      assert.are.equal("and back", await(a:read()))
    end)

    both_ways("ends in one direction and goes on in the other", function()
      if options.no_shutdown then
        return
      end
      local a, b, _ <close> = pair()
      await(a:write("question"))
      await(a:shutdown())
      assert.are.equal("question", await(b:read("a")))
      await(b:write("answer"))
      await(b:shutdown())
      assert.are.equal("answer", await(a:read("a")))
    end)

    with_shutdown("refuses to write after shutdown, with EPIPE", function()
      local a, _, _ <close> = pair()
      await(a:shutdown())
      local ok, err = task.pcall(await, a:write("too late"))
      assert.is_false(ok)
      assert.are.equal("EPIPE", err.code)
    end)

    with_shutdown("shutdown waits for what was written", function()
      if options.text then
        return
      end
      local a, b, _ <close> = pair()
      local text = ("y"):rep(16 * 1024 * 1024)
      local sent, shut = a:write(text), a:shutdown()
      assert.are.equal("pending", shut:status())
      assert.are.equal(#text, #await(b:read("a")))
      await(sent)
      await(shut)
    end)

    it("S22: a closed one says so, to whoever waits and to whoever comes", function()
      local a, b, _ <close> = pair()
      local t = b:read("l")
      await(b:close())
      await(b:close())
      local line, err = try(t)
      assert.is_nil(line)
      assert.are.equal("EBADF", err.code)
      line, err = try(b:read("l"))
      assert.is_nil(line)
      assert.are.equal("EBADF", err.code)
      assert.is_false(is_open(b))
      assert.is_true(is_open(a))
      if not options.cannot_write then
        assert.is_false((task.pcall(await, b:write("x"))))
      end
    end)

    it("a peer that went away is EPIPE or ECONNRESET, never a signal", function()
      if options.text then
        return
      end
      local a, b, _ <close> = pair()
      await(b:close())
      local code
      for _ = 1, 100 do
        local ok, err = task.pcall(await, a:write(("z"):rep(100000)))
        if not ok then
          code = err.code
          break
        end
      end
      assert.is_truthy(code == "EPIPE" or code == "ECONNRESET", tostring(code))
    end)

    it("S12: closes at the end of a scope, in a cancelled one too", function()
      local a, b = make()
      local t = spawn(function()
        local _ <close> = b
        await(b:read("l"))
      end)
      t:cancel()
      try(t)
      assert.is_false(is_open(b))
      await(a:close())
    end)

    binary("pipes what comes to another stream, and its end", function()
      local a, b, _ <close> = pair()
      local c, d, _ <close> = pair()
      local text = ("0123456789abcdef"):rep(64 * 1024)
      local moved = b:pipe_to(c)
      local sent = spawn(function()
        await(a:write(text))
        await(finish(a))
      end)
      assert.is_true(await(d:read("a")) == text)
      assert.are.equal(#text, await(moved))
      await(sent)
    end)
  end)
end
