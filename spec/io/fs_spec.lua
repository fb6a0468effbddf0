-- Operations on paths, whole files, directories; a bad world.
local task = require "asynctask"
local fs = require "asynctask.fs"
local child = require "spec.support.child"

local await, try = task.await, task.try

describe("fs", function()
  local dir

  before_each(function()
    dir = await(fs.mkdtemp())
  end)

  after_each(function()
    await(fs.remove(dir, { recursive = true }))
  end)

  local function path(name)
    return dir .. "/" .. (name or "file")
  end

  local function put(text, name)
    local f = assert(io.open(path(name), "wb"))
    assert(f:write(text))
    assert(f:close())
    return path(name)
  end

  local function get(name)
    local f = assert(io.open(path(name), "rb"))
    local text = f:read("a")
    f:close()
    return text
  end

  local function code_of(t)
    local ok, err = try(t)
    assert.is_nil(ok)
    assert.is_string(err.op)
    return err.code, err
  end

  describe("read_file", function()
    it("reads empty, small and large files", function()
      for _, size in ipairs { 0, 1, 4096, 65535, 65536, 65537, 3000000 } do
        local text = ("0123456789abcdef"):rep(size // 16 + 1):sub(1, size)
        put(text)
        assert.is_true(await(fs.read_file(path())) == text)
      end
    end)

    it("reads files that do not tell their size", function()
      local text = await(fs.read_file("/proc/self/status"))
      assert.matches("^Name:.-\n.*VmRSS", text)
      assert.equal("", await(fs.read_file("/dev/null")))
    end)

    it("reads names of any bytes, and zero bytes in the text", function()
      put("a\0b", "\xff\xfe name\n")
      assert.equal("a\0b", await(fs.read_file(path("\xff\xfe name\n"))))
    end)

    it("sees a file change between reads", function()
      for i = 1, 20 do
        put(("x"):rep(i * 100))
        assert.equal(i * 100, #await(fs.read_file(path())))
      end
    end)

    it("reads 200 files at once", function()
      local reads = {}
      for i = 1, 200 do
        put(("%d"):format(i), "f" .. i)
        reads[i] = fs.read_file(path("f" .. i))
      end
      local texts = await(task.when_all(reads))
      for i = 1, 200 do
        assert.equal(tostring(i), texts[i])
      end
    end)

    it("reads a FIFO to its end", function()
      child.shell("mkfifo " .. child.quote(path("fifo")))
      local t = fs.read_file(path("fifo"))
      local w = fs.write_file(path("fifo"), ("q"):rep(200000))
      assert.equal(200000, #await(t))
      await(w)
    end)
  end)

  it("writes, replaces and appends", function()
    assert.equal(0, select("#", await(fs.write_file(path(), "first, longer"))))
    await(fs.write_file(path(), "second"))
    assert.equal("second", get())
    await(fs.append_file(path(), " and\0third"))
    await(fs.append_file(path("new"), 42))
    assert.equal("second and\0third", get())
    assert.equal("42", get("new"))
    await(fs.write_file(path("secret"), "", { permissions = tonumber("400", 8) }))
    assert.equal(tonumber("400", 8), await(fs.stat(path("secret"))).mode)
  end)

  describe("stat", function()
    it("tells type, size, mode and times", function()
      put("12345")
      await(fs.utime(path(), 1000000000.25, 1234567890.5))
      await(fs.chmod(path(), tonumber("640", 8)))
      await(fs.symlink("file", path("link")))
      await(fs.link(path(), path("second")))
      local st = await(fs.stat(path("link")))
      assert.equal("file", st.type)
      assert.equal(5, st.size)
      assert.equal(tonumber("640", 8), st.mode)
      assert.equal(2, st.nlink)
      assert.near(1234567890.5, st.mtime, 1e-3)
      assert.near(1000000000.25, st.atime, 1e-3)
      assert.near(os.time(), st.ctime, 60)
      assert.equal("link", await(fs.lstat(path("link"))).type)
      assert.equal("directory", await(fs.stat(dir)).type)
      assert.equal("char", await(fs.stat("/dev/null")).type)
      assert.equal("file", await(fs.readlink(path("link"))))
      assert.equal(await(fs.realpath(path())), await(fs.realpath(path("link"))))
      -- the same through the descriptor, which takes another way
      local f <close> = await(fs.open(path()))
      assert.same(st, await(f:stat()))
    end)

    it("knows what exists", function()
      put("")
      assert.is_true(await(fs.exists(path())))
      assert.is_true(await(fs.exists(dir)))
      assert.is_false(await(fs.exists(path("missing"))))
      assert.is_false(await(fs.exists(path("file/below"))))
    end)
  end)

  it("changes the tree", function()
    await(fs.mkdir(path("a")))
    assert.equal("EEXIST", (code_of(fs.mkdir(path("a")))))
    assert.equal("ENOENT", (code_of(fs.mkdir(path("x/y")))))
    await(fs.mkdir(path("a/b/c"), { parents = true }))
    await(fs.mkdir(path("a/b/c/"), { parents = true }))
    put("text", "a/b/c/file")
    assert.equal("ENOTDIR", (code_of(fs.mkdir(path("a/b/c/file/d"), { parents = true }))))
    assert.equal("EEXIST", (code_of(fs.mkdir(path("a/b/c/file"), { parents = true }))))
    await(fs.rename(path("a/b/c/file"), path("a/moved")))
    await(fs.copy(path("a/moved"), path("a/copied")))
    assert.equal("text", get("a/copied"))
    assert.equal("EEXIST", (code_of(fs.copy(path("a/moved"), path("a/copied"), { exclusive = true }))))
    local _, err = code_of(fs.rename(path("none"), path("to")))
    assert.equal(path("none"), err.path)
    assert.equal(path("to"), err.to)
    await(fs.truncate(path("a/copied"), 2))
    assert.equal("te", get("a/copied"))
    assert.equal("ENOTEMPTY", (code_of(fs.remove(path("a")))))
    await(fs.remove(path("a/moved")))
    assert.equal("ENOENT", (code_of(fs.remove(path("a/moved")))))
    await(fs.mkdir(path("empty")))
    await(fs.remove(path("empty")))
    assert.is_false(await(fs.exists(path("empty"))))
  end)

  it("removes a tree without going through links", function()
    await(fs.mkdir(path("kept")))
    put("precious", "kept/file")
    await(fs.mkdir(path("tree/deep/er"), { parents = true }))
    for i = 1, 50 do
      put("", "tree/deep/er/" .. i)
    end
    await(fs.symlink("../kept", path("tree/link")))
    await(fs.symlink(path("kept"), path("tree/deep/link")))
    await(fs.remove(path("tree"), { recursive = true }))
    assert.is_false(await(fs.exists(path("tree"))))
    assert.equal("precious", get("kept/file"))
    await(fs.symlink("kept", path("link")))
    await(fs.remove(path("link"), { recursive = true }))
    assert.equal("precious", get("kept/file"))
  end)

  it("makes temporary directories of new names", function()
    local a, b = await(fs.mkdtemp(path("t"))), await(fs.mkdtemp(path("t")))
    assert.not_equal(a, b)
    assert.equal(1, a:find(path("t"), 1, true))
    assert.equal("directory", await(fs.stat(a)).type)
    assert.equal(tonumber("700", 8), await(fs.stat(a)).mode)
  end)

  describe("walk", function()
    local function tree()
      for _, d in ipairs { "b", "b/x", "a", "a/empty", "c" } do
        await(fs.mkdir(path(d)))
      end
      for _, f in ipairs { "b/2", "b/1", "b/x/deep", "top", "a/one" } do
        put(f, f)
      end
      await(fs.symlink("..", path("c/up")))
    end

    local function visit(...)
      local seen = {}
      for p, entry in fs.walk(...) do
        assert.equal(p:match("[^/]+$"), entry.name)
        seen[#seen + 1] = p:sub(#dir + 2) .. ":" .. entry.type .. ":" .. entry.depth
      end
      return seen
    end

    it("visits parents first, names in order, links not followed", function()
      tree()
      assert.same({
        "a:directory:1", "a/empty:directory:2", "a/one:file:2", "b:directory:1", "b/1:file:2", "b/2:file:2",
        "b/x:directory:2", "b/x/deep:file:3", "c:directory:1", "c/up:link:2", "top:file:1",
      }, visit(dir))
      assert.same(visit(dir), visit(dir .. "/"))
    end)

    it("stops at a depth, leaves out what a filter refuses, gives stats", function()
      tree()
      assert.same({ "a:directory:1", "b:directory:1", "c:directory:1", "top:file:1" }, visit(dir, { depth = 1 }))
      assert.same({
        "a:directory:1", "a/empty:directory:2", "a/one:file:2", "c:directory:1", "c/up:link:2", "top:file:1",
      }, visit(dir, { filter = function(_, entry) return entry.name ~= "b" end }))
      for p, entry in fs.walk(dir, { stat = true }) do
        if entry.type == "file" then
          assert.equal(#p - #dir - 1, entry.size)
        end
        assert.is_number(entry.mtime)
      end
    end)

    it("follows links if asked, and names a cycle", function()
      tree()
      local cycles = 0
      for p, entry in fs.walk(dir, { follow = true }) do
        if entry.error then
          cycles = cycles + 1
          assert.equal("ELOOP", entry.error.code)
          assert.equal(path("c/up"), p)
          assert.equal("directory", entry.type)
        end
      end
      assert.equal(1, cycles)
    end)

    it("prunes a tree larger than a batch", function()
      await(fs.mkdir(path("big/sub"), { parents = true }))
      for i = 1, 700 do
        put("", ("big/sub/%04d"):format(i))
        put("", ("big/%04d"):format(i))
      end
      put("", "last")
      local all, seen = 0, {}
      for _ in fs.walk(dir) do
        all = all + 1
      end
      assert.equal(1403, all)
      for p in fs.walk(dir, { filter = function(_, e) return e.name ~= "big" end }) do
        seen[#seen + 1] = p
      end
      assert.same({ path("last") }, seen)
      local n = 0
      for _ in fs.walk(dir, { filter = function(_, e) return e.name ~= "sub" end }) do
        n = n + 1
      end
      assert.equal(702, n)
    end)

    it("S26: next gives Tasks, many at once; close ends it", function()
      tree()
      local it = fs.walk(dir)
      local rounds = {}
      for i = 1, 4 do
        rounds[i] = it:next()
      end
      local names = {}
      for i = 1, 4 do
        names[i] = await(rounds[i]):sub(#dir + 2)
      end
      assert.same({ "a", "a/empty", "a/one", "b" }, names)
      await(it:close())
      assert.is_nil(it())
      assert.is_nil(await(it:next()))
    end)

    it("S10: a round that was cancelled loses no entry", function()
      tree()
      local it = fs.walk(dir)
      local t = it:next()
      t:cancel()
      assert.equal("ECANCELED", select(2, try(t)).code)
      assert.equal("cancelled", t:status())
      local first = it()
      assert.equal(path("a"), first)
      local n = 1
      for _ in it do
        n = n + 1
      end
      assert.equal(11, n)
    end)

    it("raises for a root that is missing or no directory, once", function()
      put("")
      local it = fs.walk(path("missing"))
      local ok, err = pcall(it)
      assert.is_false(ok)
      assert.equal("ENOENT", err.code)
      assert.equal("walk", err.op)
      assert.equal(path("missing"), err.path)
      assert.is_nil(it())
      assert.equal("ENOTDIR", (code_of(fs.walk(path()):next())))
    end)

    it("checks its arguments at the call", function()
      assert.error_matches(function() fs.walk() end, "bad argument #1 to 'walk' %(string expected, got no value%)")
      assert.error_matches(function() fs.walk("a\0b") end, "zero byte")
      assert.error_matches(function() fs.walk(dir, 1) end, "bad argument #2 to 'walk'")
      assert.error_matches(function() fs.walk(dir, { dept = 1 }) end, "unknown option 'dept'")
      assert.error_matches(function() fs.walk(dir, { depth = 1.5 }) end, "integer expected")
      assert.error_matches(function() fs.walk(dir, { depth = 0 }) end, "at least 1")
    end)
  end)

  it("dir streams the names of one directory", function()
    local want, seen = {}, {}
    for i = 1, 600 do
      put("", tostring(i))
      want[tostring(i)] = "file"
    end
    await(fs.mkdir(path("sub")))
    want.sub = "directory"
    for name, entry in fs.dir(dir) do
      assert.is_nil(seen[name])
      seen[name] = entry.type
    end
    assert.same(want, seen)
    for name, entry in fs.dir(dir, { stat = true }) do
      assert.is_number(entry.size, name)
      break
    end
    assert.equal("ENOENT", (code_of(fs.dir(path("missing")):next())))
  end)

  describe("a bad world", function()
    it("S22: names what failed, with code, op and path", function()
      local code, err = code_of(fs.open(path("missing")))
      assert.equal("ENOENT", code)
      assert.equal("open", err.op)
      assert.equal(path("missing"), err.path)
      assert.equal(("open %s: no such file or directory (ENOENT)"):format(path("missing")), tostring(err))
      assert.equal("ENOENT", (code_of(fs.read_file(path("missing")))))
      assert.equal("ENOENT", (code_of(fs.stat(path("missing")))))
      assert.equal("ENOENT", (code_of(fs.write_file(path("missing/file"), "x"))))
    end)

    it("takes no directory for a file", function()
      assert.equal("EISDIR", (code_of(fs.read_file(dir))))
      assert.equal("EISDIR", (code_of(fs.open(dir))))
      assert.equal("EISDIR", (code_of(fs.open(dir, "w"))))
      assert.equal("EISDIR", (code_of(fs.write_file(dir, "x"))))
      put("")
      assert.equal("ENOTDIR", (code_of(fs.read_file(path("file/below")))))
    end)

    it("is told of names that are too long and of links that lead nowhere", function()
      assert.equal("ENAMETOOLONG", (code_of(fs.open(path(("n"):rep(300))))))
      await(fs.symlink("loop", path("loop")))
      assert.equal("ELOOP", (code_of(fs.read_file(path("loop")))))
      await(fs.symlink("nowhere", path("dangling")))
      assert.equal("ENOENT", (code_of(fs.read_file(path("dangling")))))
    end)

    it("is told when it has no permission", function()
      -- not even root may write this one (Linux)
      if await(fs.exists("/proc/sys/kernel/osrelease")) then
        assert.equal("EACCES", (code_of(fs.write_file("/proc/sys/kernel/osrelease", "x"))))
        assert.equal("EACCES", (code_of(fs.open("/proc/sys/kernel/osrelease", "r+"))))
      end
      if child.shell("id -u") ~= "0\n" then
        put("")
        await(fs.chmod(path(), 0))
        assert.equal("EACCES", (code_of(fs.read_file(path()))))
      end
    end)

    it("S22: wrong arguments raise at the call", function()
      assert.error_matches(function() fs.read_file() end,
        "bad argument #1 to 'read_file' %(string expected, got no value%)")
      assert.error_matches(function() fs.read_file(nil) end,
        "bad argument #1 to 'read_file' %(string expected, got nil%)")
      assert.error_matches(function() fs.read_file(12) end,
        "bad argument #1 to 'read_file' %(string expected, got number%)")
      assert.equal("bad argument #1 to 'read_file' (string expected, got nil)",
        select(2, pcall(fs.read_file, nil)))
      assert.error_matches(function() fs.read_file("") end, "path is empty")
      assert.error_matches(function() fs.read_file("a\0b") end, "zero byte")
      assert.error_matches(function() fs.open("a\0b", "w") end, "zero byte")
      assert.error_matches(function() fs.write_file(path()) end, "bad argument #2 to 'write_file'")
      assert.error_matches(function() fs.rename(path(), "") end, "bad argument #2 to 'rename'")
      assert.error_matches(function() fs.mkdir(path(), { parent = true }) end, "unknown option 'parent'")
      assert.error_matches(function() fs.mkdir(path(), { parents = 1 }) end, "boolean expected")
      assert.error_matches(function() fs.truncate(path(), -1) end, "bad argument #2 to 'truncate'")
    end)

    it("survives a full device and no descriptors left, and works again afterwards", function()
      assert.equal("ENOSPC", (code_of(fs.write_file("/dev/full", "x"))))
      local output, code = child.lua([[
        local task, fs = require "asynctask", require "asynctask.fs"
        local await, try = task.await, task.try
        local files, err = {}, nil
        repeat
          local f
          f, err = try(fs.open(arg[1], "r+"))
          files[#files + 1] = f
        until err
        print(err.code, err.op, #files > 5)
        print(select(2, try(fs.read_file(arg[1]))).code)
        for _, f in ipairs(files) do await(f:close()) end
        print(await(fs.read_file(arg[1]))) ]],
        { args = { put("works") }, before = "ulimit -n 40;" })
      assert.equal("EMFILE\topen\ttrue\nEMFILE\nworks\n", output)
      assert.equal(0, code)
    end)

    it("a FIFO that nobody writes to holds up neither files nor timers nor the exit", function()
      child.shell("mkfifo " .. child.quote(path("fifo")))
      local output, code = child.lua([[
        local task, fs = require "asynctask", require "asynctask.fs"
        for i = 1, 40 do fs.open(arg[1] .. "/fifo") end
        local other = fs.read_file("/proc/self/stat")
        task.await(task.delay(0.01))
        assert(#task.await(other) > 0)
        local t = fs.read_file(arg[1] .. "/fifo")
        assert(task.try(t:timeout(0.01)) == nil)
        assert(t:status() == "cancelled")
        io.write "out" ]], { args = { dir }, timeout = 20 })
      assert.matches("^out", output)
      assert.equal(0, code)
    end)
  end)

  it("S10: a file whose open was cancelled is closed", function()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      local await = task.await
      for i = 1, 100 do
        local t = fs.open(arg[1], "r+")
        t:cancel()
        assert(t:status() == "cancelled")
        local u = fs.open(arg[1], "r+")
        await(task.yield())
        u:cancel()
      end
      print "fine" ]], { args = { put("text") }, before = "ulimit -n 60;" })
    assert.equal("fine\n", output)
    assert.equal(0, code)
  end)

  it("S10: nothing begins in a cancelled scope", function()
    local t = task.spawn(function()
      pcall(await, task.delay(60))
      fs.write_file(path("never"), "x")
      await(fs.write_file(path("never"), "x"))
    end)
    t:cancel()
    assert.is_nil((try(t)))
    assert.is_false(await(fs.exists(path("never"))))
  end)
end)
