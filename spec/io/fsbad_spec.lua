-- A bad world: full disks, no descriptors, files that shrink, FIFOs and devices, strange names, closing and
-- cancelling at the wrong moment.
local task = require "asynctask"
local fs = require "asynctask.fs"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await, try = task.await, task.try
local code_of = sandbox.code_of

describe("fs in a bad world", function()
  local path, put, get, before, after = sandbox.new()
  before_each(before)
  after_each(after)

  it("a full disk faults what does not fit, and takes more when there is room", function()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      local await, try = task.await, task.try
      local name = arg[1] .. "/file"
      local f = await(fs.open(name, "w"))
      print(select(2, try(f:write(("x"):rep(3000000)))).code)
      print(select(2, try(fs.write_file(arg[1] .. "/other", ("x"):rep(3000000)))).code)
      print(select(2, try(fs.write_file(name, ("x"):rep(3000000), { atomic = true }))).code)
      print(select(2, try(fs.copy("/proc/self/exe", arg[1] .. "/copy"))).code)
      await(f:truncate(0))
      await(f:seek("set"))
      await(fs.remove(arg[1] .. "/other"))
      await(f:write("fits"))
      await(f:close())
      print(await(fs.read_file(name)))
      local names = {}
      for n in fs.dir(arg[1]) do names[#names + 1] = n end
      print(table.concat(names, " ")) ]], {
      args = { path("small") },
      before = ("mkdir %s; mount -t tmpfs -o size=1m none %s 2>/dev/null || { echo no mount; exit 3; };")
        :format(child.quote(path("small")), child.quote(path("small"))),
    })
    child.shell("umount " .. child.quote(path("small")))
    if code == 3 then
      pending("mounting a small file system needs root")
      return
    end
    assert.equal("ENOSPC\nENOSPC\nENOSPC\nENOSPC\nfits\nfile\n", output)
    assert.equal(0, code)
  end)

  it("a limit of the file size faults with EFBIG and ends nothing", function()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      print(select(2, task.try(fs.write_file(arg[1], ("x"):rep(100000)))).code)
      local f = task.await(fs.open(arg[1], "w"))
      print(select(2, task.try(f:write_at(90000, "x"))).code)
      print(task.try(f:write "fits") == f)
      task.await(f:close()) ]], { args = { path() }, before = "ulimit -f 8;" })
    assert.equal("EFBIG\nEFBIG\ntrue\n", output)
    assert.equal(0, code) -- SIGXFSZ did not come
  end)

  it("no descriptors left is EMFILE for each operation, and all works again afterwards", function()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      local await, try = task.await, task.try
      local name = arg[1] .. "/file"
      await(fs.write_file(name, "works"))
      await(fs.mkdir(arg[1] .. "/dir/sub", { parents = true }))
      local files, err = {}, nil
      repeat
        local f
        f, err = try(fs.open(name, "r+"))
        files[#files + 1] = f
      until err
      local function code(t) return select(2, try(t)).code end
      print(code(fs.read_file(name)), code(fs.write_file(name, "x")), code(fs.copy(name, name .. "2")))
      print(code(fs.write_file(name, "x", { atomic = true })), code(fs.tmpfile()), code(fs.glob(arg[1] .. "/*")))
      print(code(fs.walk(arg[1]):next()), code(fs.dir(arg[1]):next()), code(fs.watch(arg[1]):next()))
      print(code(fs.remove(arg[1] .. "/dir", { recursive = true })))
      print(select(2, pcall(fs.lines(name))).code)
      for _, f in ipairs(files) do await(f:close()) end
      print(await(fs.read_file(name)), #await(fs.glob(arg[1] .. "/*")))
      for _ = 1, 100 do await(fs.copy(name, name .. "2")) end
      await(fs.remove(arg[1] .. "/dir", { recursive = true })) ]],
      { args = { path(".") }, before = "ulimit -n 40;" })
    assert.equal("EMFILE\tEMFILE\tEMFILE\nEMFILE\tEMFILE\tEMFILE\nEMFILE\tEMFILE\tEMFILE\nEMFILE\nEMFILE\n"
      .. "works\t2\n", output)
    assert.equal(0, code)
  end)

  it("a file that shrinks while it is read ends where it ends", function()
    put(("0123456789"):rep(100000))
    local f <close> = await(fs.open(path()))
    assert.equal("0123456789", await(f:read(10)))
    await(fs.truncate(path(), 20))
    local rest = await(f:read("a")) -- what was read ahead, if any, and not a byte of nothing
    assert.equal(("0123456789"):rep(100000):sub(11, 10 + #rest), rest)
    assert.is_nil(await(f:read(1)))
    assert.is_nil(await(f:read_at(20, 10)))
    assert.equal("9", await(f:read_at(19, 10)))
    for i = 1, 12 do
      put(("x"):rep(3000000))
      local t = fs.read_file(path())
      if i % 2 == 0 then await(task.delay(0.0001 * i)) end
      await(fs.truncate(path(), 1000))
      local text = await(t)
      assert.is_true(#text >= 1000 and #text <= 3000000)
      -- the system may read zeros where it is being cut off just then
      assert.equal("", (text:gsub("[x\0]", "")))
      assert.equal(("x"):rep(1000), text:sub(1, 1000))
    end
  end)

  it("a file that grows while it is read is read to where the end is met", function()
    local f = await(fs.open(path(), "w"))
    await(f:write(("x"):rep(100000)))
    local t = fs.read_file(path())
    for _ = 1, 20 do await(f:write(("x"):rep(50000))) end
    local text = await(t)
    assert.is_true(#text >= 100000 and #text <= 1100000)
    await(f:close())
  end)

  it("devices: endless, empty, full", function()
    local zero <close> = await(fs.open("/dev/zero"))
    assert.equal(("\0"):rep(100000), await(zero:read(100000)))
    assert.equal("ESPIPE", (code_of(zero:seek("set", 3))))
    local null <close> = await(fs.open("/dev/null", "r+"))
    assert.is_nil(await(null:read()))
    assert.equal(null, await(null:write("gone")))
    local full <close> = await(fs.open("/dev/full", "r+"))
    assert.equal("ENOSPC", (code_of(full:write("x"))))
    assert.equal("ENOSPC", (code_of(full:write("x", "y"))))
  end)

  it("FIFOs: a writer without reader is EPIPE and no signal", function()
    child.shell("mkfifo " .. child.quote(path("fifo")))
    local reading = fs.open(path("fifo"))
    local w = await(fs.open(path("fifo"), "w"))
    local r = await(reading)
    await(w:write("line\n"))
    assert.equal("line", await(r:read()))
    await(r:close())
    assert.equal("EPIPE", (code_of(w:write("x"))))
    await(w:close())
  end)

  it("a file system that hangs stops neither sockets nor files nor the exit", function()
    child.shell("mkfifo " .. child.quote(path("fifo")))
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      local net = require "asynctask.net"
      local await = task.await
      fs.threads(4)
      for i = 1, 20 do
        fs.open(arg[1])
        fs.read_file(arg[1])
        fs.copy(arg[1], arg[1] .. "copy" .. i)
      end
      local a, b = await(net.pair())
      await(a:write "ping\n")
      assert(await(b:read()) == "ping")
      for i = 1, 20 do await(fs.write_file(arg[1] .. "file", i)) end
      assert(await(fs.read_file(arg[1] .. "file")) == "20")
      io.write "works" ]], { args = { path("fifo") }, timeout = 20 })
    assert.matches("works", output)
    assert.equal(0, code)
  end)

  it("names that are no text of any encoding", function()
    local name = "\xff\xfe\x80 \n'\"\\*?[\t"
    await(fs.write_file(path(name), "x"))
    assert.equal("x", await(fs.read_file(path(name))))
    assert.is_true(await(fs.exists(path(name))))
    await(fs.rename(path(name), path(name .. "2")))
    await(fs.symlink(name .. "2", path("link")))
    assert.equal(name .. "2", await(fs.readlink(path("link"))))
    assert.equal(await(fs.realpath(path("."))) .. "/" .. name .. "2", await(fs.realpath(path("link"))))
    local _, err = code_of(fs.read_file(path(name)))
    assert.equal(path(name), err.path)
    for entry in fs.dir(path(".")) do assert.is_true(entry == "link" or entry == name .. "2") end
  end)

  it("a zero byte in any path is an error at the call", function()
    for _, name in ipairs { "open", "read_file", "lines", "stat", "lstat", "exists", "dir", "walk", "glob", "mkdir",
      "remove", "readlink", "realpath", "mkdtemp", "tmpfile", "statfs", "watch" } do
      assert.error_matches(function() fs[name]("a\0b") end, "bad argument #1 to .*zero byte")
    end
    for _, name in ipairs { "rename", "copy", "link", "symlink" } do
      assert.error_matches(function() fs[name]("a\0b", "c") end, "zero byte")
      assert.error_matches(function() fs[name]("a", "b\0c") end, "bad argument #2 to .*zero byte")
    end
    assert.error_matches(function() fs.write_file("a\0b", "x") end, "zero byte")
    assert.error_matches(function() fs.chmod("a\0b", 1) end, "zero byte")
    assert.error_matches(function() fs.chown("a\0b", 1) end, "zero byte")
    assert.error_matches(function() fs.utime("a\0b") end, "zero byte")
    assert.error_matches(function() fs.truncate("a\0b", 1) end, "zero byte")
  end)

  it("closing during a read waits for it; closing twice and using it after are EBADF", function()
    put(("y"):rep(4000000))
    local f = await(fs.open(path(), "r+"))
    local r, w = f:read("a"), f:write("z")
    local c = f:close()
    assert.equal("EBADF", (code_of(f:close())))
    assert.equal("EBADF", (code_of(f:read())))
    assert.equal(4000000, #await(r))
    await(w)
    await(c)
    assert.equal(4000001, #get())
    for _, op in ipairs { "read_at", "write_at" } do
      local code, err = code_of(f[op](f, 0, 1))
      assert.equal("EBADF", code)
      assert.equal(op, err.op)
    end
  end)

  it("S10: cancelling at any moment keeps order and bytes", function()
    local text = {}
    for i = 1, 20000 do text[i] = ("line %06d\n"):format(i) end
    put(table.concat(text))
    local f <close> = await(fs.open(path()))
    local got = {}
    for i = 1, 400 do
      local t = f:read("L", 100, "L")
      if i % 3 == 0 then t:cancel() end
      if i % 7 == 0 then await(task.yield()) end
      local a, b, c = try(t)
      if a then got[#got + 1] = a .. b .. c end
    end
    local all = table.concat(got)
    assert.equal(table.concat(text):sub(1, #all), all)
  end)

  it("S10: a cancelled copy or removal stops, and what was cancelled leaves no new file", function()
    put(("x"):rep(20000000))
    for round = 1, 10 do
      local t = fs.copy(path(), path("copy" .. round))
      await(task.delay(0.0005))
      t:cancel()
      try(t)
    end
    local deadline, left = os.time() + 10
    repeat
      await(task.delay(0.005))
      left = 0
      for name in fs.dir(path(".")) do
        local st = name:find("^copy") and try(fs.stat(path(name)))
        if st and st.size < 20000000 then left = left + 1 end
      end
    until left == 0 or os.time() > deadline
    assert.equal(0, left)
  end)

  it("no permission is EACCES", function()
    local output = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      local function code(t) return select(2, task.try(t)).code end
      print(code(fs.write_file("/proc/sys/kernel/osrelease", "x")))
      print(code(fs.write_file("/proc/none", "x", { atomic = true })) ~= nil) ]])
    assert.equal("EACCES\ntrue\n", output)
    if child.shell("id -u") ~= "0\n" then
      put("")
      await(fs.chmod(path(), 0))
      assert.equal("EACCES", (code_of(fs.read_file(path()))))
      assert.equal("EACCES", (code_of(fs.copy(path(), path("copy")))))
    end
  end)
end)
