-- Operations on paths that do more: atomic writes, copies, removal of trees, owners, times, glob, statfs, the
-- size of the pool.
local task = require "asynctask"
local fs = require "asynctask.fs"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await, try = task.await, task.try
local code_of = sandbox.code_of

describe("fs", function()
  local path, put, get, before, after = sandbox.new()
  before_each(before)
  after_each(after)

  local function names(dir)
    local list = {}
    for name in fs.dir(dir) do list[#list + 1] = name end
    table.sort(list)
    return list
  end

  describe("write_file atomically", function()
    it("replaces the file by another one, with its permissions, and leaves nothing beside it", function()
      put("old")
      await(fs.chmod(path(), tonumber("640", 8)))
      local old = await(fs.stat(path()))
      await(fs.write_file(path(), "new", { atomic = true }))
      local new = await(fs.stat(path()))
      assert.equal("new", get())
      assert.equal(old.mode, new.mode)
      assert.are_not.equal(old.ino, new.ino)
      assert.same({ "file" }, names(path(".")))
    end)

    it("makes a file, less the umask as any other", function()
      await(fs.write_file(path(), "x", { atomic = true }))
      await(fs.write_file(path("plain"), "x"))
      assert.equal(await(fs.stat(path("plain"))).mode, await(fs.stat(path())).mode)
      await(fs.write_file(path("secret"), "x", { atomic = true, permissions = tonumber("600", 8) }))
      assert.equal(tonumber("600", 8), await(fs.stat(path("secret"))).mode)
    end)

    it("goes through a link, which stays one", function()
      await(fs.mkdir(path("real")))
      put("old", "real/file")
      await(fs.symlink("real/file", path("link")))
      await(fs.write_file(path("link"), "new", { atomic = true }))
      assert.equal("new", get("real/file"))
      assert.equal("link", await(fs.lstat(path("link"))).type)
      assert.same({ "file" }, names(path("real")))
    end)

    it("shows readers the old contents or the new ones", function()
      local texts = { ("a"):rep(200000), ("b"):rep(100000) }
      put(texts[1])
      local done = false
      local writer = task.spawn(function()
        for i = 1, 20 do await(fs.write_file(path(), texts[i % 2 + 1], { atomic = true })) end
        done = true
      end)
      local reads = 0
      repeat
        local text = await(fs.read_file(path()))
        assert.is_true(text == texts[1] or text == texts[2])
        reads = reads + 1
        await(task.yield())
      until done
      await(writer)
      assert.is_true(reads > 1)
    end)

    it("S10: cancelled, it did not happen, and nothing is left beside it", function()
      put("old")
      for round = 1, 20 do
        local t = fs.write_file(path(), ("x"):rep(2000000), { atomic = true })
        if round > 5 then await(task.delay(0.0001 * round)) end
        local took = t:cancel()
        if not took then break end
      end
      -- those that still run end behind it
      local deadline = os.time() + 10
      repeat await(task.delay(0.002)) until #names(path(".")) == 1 or os.time() > deadline
      assert.same({ "file" }, names(path(".")))
      local text = get()
      assert.is_true(text == "old" or #text == 2000000)
    end)

    it("S22: replaces no directory and no device; a failure leaves nothing behind", function()
      await(fs.mkdir(path("dir")))
      assert.equal("EISDIR", (code_of(fs.write_file(path("dir"), "x", { atomic = true }))))
      assert.equal("EINVAL", (code_of(fs.write_file("/dev/null", "x", { atomic = true }))))
      assert.equal("ENOENT", (code_of(fs.write_file(path("no/file"), "x", { atomic = true }))))
      assert.same({ "dir" }, names(path(".")))
      assert.error_matches(function() fs.append_file(path(), "x", { atomic = true }) end, "not atomic")
      local output, code = child.lua([[
        local task, fs = require "asynctask", require "asynctask.fs"
        print(select(2, task.try(fs.write_file(arg[1], ("x"):rep(100000), { atomic = true }))).code) ]],
        { args = { put("old") }, before = "trap '' XFSZ; ulimit -f 8;" })
      assert.equal("EFBIG\n", output)
      assert.equal(0, code)
      assert.same({ "dir", "file" }, names(path(".")))
      assert.equal("old", get())
    end)
  end)

  describe("copy", function()
    it("copies contents and permissions, large files too", function()
      local text = ("0123456789abcdef"):rep(1000000)
      put(text)
      await(fs.chmod(path(), tonumber("750", 8)))
      await(fs.copy(path(), path("copy")))
      assert.is_true(get("copy") == text)
      assert.equal(tonumber("750", 8), await(fs.stat(path("copy"))).mode)
      put("short")
      await(fs.copy(path(), path("copy")))
      assert.equal("short", get("copy"))
    end)

    it("copies empty files, files that tell no size, onto devices, onto itself", function()
      put("")
      await(fs.copy(path(), path("copy")))
      assert.equal("", get("copy"))
      await(fs.copy("/proc/self/status", path("status")))
      assert.matches("^Name:", get("status"))
      put("text")
      await(fs.copy(path(), "/dev/null"))
      assert.equal("char", await(fs.stat("/dev/null")).type)
      await(fs.symlink("file", path("link")))
      await(fs.copy(path(), path("link")))
      assert.equal("text", get())
    end)

    it("S22: names both paths, and leaves no new file behind", function()
      local code, err = code_of(fs.copy(path("none"), path("to")))
      assert.equal("ENOENT", code)
      assert.equal(path("to"), err.to)
      assert.equal("EISDIR", (code_of(fs.copy(path("."), path("to")))))
      put("x")
      assert.equal("EISDIR", (code_of(fs.copy(path(), path(".")))))
      assert.equal("ENOSPC", (code_of(fs.copy(path(), "/dev/full"))))
      assert.is_false(await(fs.exists(path("to"))))
      local output = child.lua([[
        local task, fs = require "asynctask", require "asynctask.fs"
        print(select(2, task.try(fs.copy(arg[1], arg[1] .. "2"))).code) ]],
        { args = { put(("x"):rep(100000)) }, before = "trap '' XFSZ; ulimit -f 8;" })
      assert.equal("EFBIG\n", output)
      assert.is_false(await(fs.exists(path("file2"))))
    end)
  end)

  describe("remove recursively", function()
    it("removes a tree deeper than descriptors and stack would allow", function()
      -- built with relative paths: its absolute ones are too long
      local _, code = child.shell(("cd %s && for i in 1 2 3 4 5 6 7 8; do mkdir -p %s && cd %s; : > f; done")
        :format(child.quote(path(".")), ("d/"):rep(200), ("d/"):rep(200)))
      assert.equal(0, code)
      local output = child.lua([[
        local task, fs = require "asynctask", require "asynctask.fs"
        task.await(fs.remove(arg[1] .. "/d", { recursive = true }))
        print(task.await(fs.exists(arg[1] .. "/d"))) ]], { args = { path(".") }, before = "ulimit -n 60;" })
      assert.equal("false\n", output)
    end)

    it("removes wide trees, names of any bytes, FIFOs", function()
      await(fs.mkdir(path("tree")))
      for i = 1, 40 do
        await(fs.mkdir(path("tree/" .. i)))
        for j = 1, 40 do put("", "tree/" .. i .. "/\xff" .. j) end
      end
      child.shell("mkfifo " .. child.quote(path("tree/fifo")))
      await(fs.remove(path("tree"), { recursive = true }))
      assert.is_false(await(fs.exists(path("tree"))))
      assert.equal("ENOENT", (code_of(fs.remove(path("tree"), { recursive = true }))))
    end)

    it("does not follow a directory that is swapped for a link meanwhile", function()
      await(fs.mkdir(path("kept")))
      for i = 1, 50 do put("x", "kept/" .. i) end
      for _ = 1, 10 do
        await(fs.mkdir(path("tree/sub"), { parents = true }))
        for i = 1, 50 do put("x", "tree/sub/" .. i) end
        local t = fs.remove(path("tree"), { recursive = true })
        os.rename(path("tree/sub"), path("tree/moved"))
        local swapped = fs.symlink(path("kept"), path("tree/sub"))
        try(t)
        try(swapped)
        try(fs.remove(path("tree"), { recursive = true }))
        assert.equal(50, #names(path("kept")))
      end
    end)
  end)

  it("chown changes owner and group, and leaves what is nil", function()
    put("")
    local st = await(fs.stat(path()))
    await(fs.chown(path(), st.uid, st.gid))
    await(fs.chown(path(), nil, st.gid))
    await(fs.chown(path()))
    await(fs.symlink("nowhere", path("link")))
    assert.equal("ENOENT", (code_of(fs.chown(path("link"), st.uid))))
    await(fs.chown(path("link"), st.uid, st.gid, { follow = false }))
    if st.uid == 0 then
      await(fs.chown(path(), 12345, 54321))
      await(fs.chown(path("link"), 77, nil, { follow = false }))
      local changed = await(fs.stat(path()))
      assert.equal(12345, changed.uid)
      assert.equal(54321, changed.gid)
      assert.equal(77, await(fs.lstat(path("link"))).uid)
    else
      assert.equal("EPERM", (code_of(fs.chown(path(), 0))))
    end
    assert.error_matches(function() fs.chown(path(), -1) end, "bad argument #2 to 'chown'")
    assert.error_matches(function() fs.chown(path(), 1, 1, { folow = true }) end, "unknown option")
  end)

  it("utime keeps fractions, takes times before the epoch, nil as now, and links", function()
    put("")
    await(fs.utime(path(), 1.000000125, -1.75))
    local st = await(fs.stat(path()))
    assert.near(1.000000125, st.atime, 1e-9)
    assert.near(-1.75, st.mtime, 1e-9)
    await(fs.utime(path(), 5))
    st = await(fs.stat(path()))
    assert.equal(5.0, st.atime)
    assert.near(os.time(), st.mtime, 60)
    await(fs.symlink("file", path("link")))
    await(fs.utime(path("link"), 9, 9, { follow = false }))
    assert.equal(9.0, await(fs.lstat(path("link"))).mtime)
    assert.near(os.time(), await(fs.stat(path("link"))).mtime, 60)
  end)

  it("statfs tells the room there is", function()
    local s = await(fs.statfs(path(".")))
    assert.is_true(s.size >= s.free and s.free >= s.available and s.available >= 0)
    assert.equal(s.size, s.blocks * s.bsize)
    for _, field in ipairs { "type", "bsize", "blocks", "bfree", "bavail", "files", "ffree" } do
      assert.equal("integer", math.type(s[field]), field)
    end
    assert.equal("ENOENT", (code_of(fs.statfs(path("none")))))
  end)

  describe("glob", function()
    local function glob(pattern)
      local found = await(fs.glob(path(pattern)))
      for i, name in ipairs(found) do found[i] = name:sub(#path("") + 1) end
      return found
    end

    before_each(function()
      for _, d in ipairs { "a/deep/er", "b", ".hidden" } do await(fs.mkdir(path(d), { parents = true })) end
      for _, f in ipairs { "x.c", "y.c", "z.h", "a/one.c", "a/deep/two.c", "a/deep/er/three.c", "b/x.c",
        ".hidden/four.c", ".dot.c", "a*c", "\xff.c" } do put("", f) end
      await(fs.symlink("../a", path("b/link")))
    end)

    it("matches within one part of a path, in order", function()
      assert.same({ "x.c", "y.c", "\xff.c" }, glob("*.c"))
      assert.same({ "x.c", "y.c", "z.h" }, glob("[x-z].?"))
      assert.same({ "z.h" }, glob("[!xy].h"))
      assert.same({ ".dot.c" }, glob(".*.c"))
      assert.same({ "a/one.c", "b/x.c" }, glob("*/*.c"))
      assert.same({ "a*c" }, glob("a\\*c"))
      assert.same({ "x.c" }, glob("x.c"))
      assert.same({}, glob("none"))
      assert.same({}, glob("none/*/x"))
      assert.same({ "b/link/one.c" }, glob("b/link/*.c"))
    end)

    it("** matches any number of directories, not through links, not hidden ones", function()
      assert.same({ "a/deep/er/three.c", "a/deep/two.c", "a/one.c", "b/x.c", "x.c", "y.c", "\xff.c" },
        glob("**/*.c"))
      assert.same({ "a/deep/er/three.c", "a/deep/two.c" }, glob("a/**/deep/**/*.c"))
      assert.same({ "a/deep", "a/deep/er", "a/deep/er/three.c", "a/deep/two.c", "a/one.c" }, glob("a/**"))
      assert.same({ "a/deep/er/three.c" }, glob("**/**/three.c"))
    end)

    it("a slash at the end asks for directories", function()
      assert.same({ "a/", "b/" }, glob("*/"))
      assert.same({ "", "a/", "a/deep/", "a/deep/er/", "b/" }, glob("**/")) -- "": where it begins
    end)

    it("works from the current directory and from the root", function()
      local output = child.lua([[
        local task, fs = require "asynctask", require "asynctask.fs"
        print(table.concat(task.await(fs.glob "*.h"), " "), table.concat(task.await(fs.glob "**/two.c"), " "))
        print(table.concat(task.await(fs.glob "/pro[c]"), " "), table.concat(task.await(fs.glob "//"), " ")) ]],
        { directory = path(".") })
      assert.equal("z.h\ta/deep/two.c\n/proc\t//\n", output)
      assert.error_matches(function() fs.glob("") end, "path is empty")
      assert.error_matches(function() fs.glob("a\0") end, "zero byte")
    end)
  end)

  it("threads tells and sets the size of the pool for calls that block", function()
    local size = fs.threads()
    assert.equal("integer", math.type(size))
    assert.equal(2, fs.threads(2))
    assert.equal(2, fs.threads())
    local reads = {}
    for i = 1, 20 do reads[i] = fs.read_file("/proc/self/stat") end
    await(task.when_all(reads))
    assert.equal(size, fs.threads(size))
    assert.error_matches(function() fs.threads(0) end, "bad argument #1 to 'threads'")
    assert.error_matches(function() fs.threads(257) end, "bad argument #1 to 'threads'")
  end)
end)
