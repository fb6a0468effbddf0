-- fs.open with `beneath`: no path leads out of the directory, in the one step that Linux has and in the way of
-- the other systems.

local task = require "asynctask"
local fs = require "asynctask.fs"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await = task.await
local path, put, get, before, after = sandbox.new()
local code_of = sandbox.code_of

-- Ways out of the directory, and what they fail with.
local OUT = {
  ["../secret"] = "EXDEV", ["sub/../../secret"] = "EXDEV", ["/etc/passwd"] = "EXDEV", ["link"] = "EXDEV",
  ["absolute"] = "EXDEV", ["up/secret"] = "EXDEV", [".."] = "EXDEV", ["missing"] = "ENOENT", ["sub"] = "EISDIR",
  ["hello/x"] = "ENOTDIR", ["loop"] = "ELOOP",
}

local function read(name, mode)
  local file <close> = await(fs.open(name, mode or "r", { beneath = path "root" }))
  return await(file:read("a"))
end

describe("fs.open beneath a directory", function()
  before_each(function()
    before()
    await(fs.mkdir(path "root/sub", { parents = true }))
    put("secret", "secret")
    put("hello", "root/hello")
    put("deep", "root/sub/deep")
    for name, target in pairs { link = "../secret", absolute = path "secret", up = "..", loop = "loop",
      inside = "sub/deep", ["sub/back"] = "../hello" } do
      await(fs.symlink(target, path("root/" .. name)))
    end
  end)
  after_each(after)

  it("opens what is in it, through links that stay inside and '..' too", function()
    assert.are.equal("hello", read "hello")
    assert.are.equal("deep", read "sub/deep")
    assert.are.equal("hello", read "sub/../hello")
    assert.are.equal("hello", read "./sub//back")
    assert.are.equal("deep", read "inside")
  end)

  for name, code in pairs(OUT) do
    it(("refuses '%s' with %s, where data is cached and in the pool"):format(name, code), function()
      for _, mode in ipairs { "r", "r+" } do
        local got, err = code_of(fs.open(name, mode, { beneath = path "root" }))
        assert.are.equal(code, got)
        assert.are.equal(name, err.path)
      end
    end)
  end

  it("makes files in it, and nothing outside", function()
    await(await(fs.open("sub/new", "w", { beneath = path "root", permissions = 384 })):close())
    assert.are.equal("", get "root/sub/new")
    assert.are.equal(384, await(fs.stat(path "root/sub/new")).mode)
    assert.are.equal("EXDEV", (code_of(fs.open("../new", "w", { beneath = path "root" }))))
    assert.are.equal("EXDEV", (code_of(fs.open("up/new", "w", { beneath = path "root" }))))
    assert.is_false(await(fs.exists(path "new")))
  end)

  it("does not wait for the writer of a FIFO", function()
    assert.are.equal(0, select(2, child.shell("mkfifo " .. child.quote(path "root/fifo"))))
    local file <close> = await(fs.open("fifo", "r", { beneath = path "root" }))
    assert.are.equal("fifo", await(file:stat()).type)
  end)

  it("S22: checks the option", function()
    assert.has_error(function() fs.open("x", "r", { beneath = 1 }) end,
      "bad argument #3 to 'open' (option 'beneath': string expected, got number)")
    assert.has_error(function() fs.open("x", "r", { beneath = "" }) end,
      "bad argument #3 to 'open' (option 'beneath': path is empty)")
    assert.has_error(function() fs.open("x", "r", { beneath = "a\0b" }) end,
      "bad argument #3 to 'open' (option 'beneath': path contains a zero byte)")
    assert.are.equal("ENOENT", (code_of(fs.open("hello", "r", { beneath = path "none" }))))
    assert.are.equal("ENOTDIR", (code_of(fs.open("hello", "r", { beneath = path "secret" }))))
  end)

  it("refuses the same where there is no openat2, by the real path", function()
    local has = select(2, child.shell "strace -V") == 0
    if not has or child.sanitizer() then
      pending("strace is not installed, or the build has a sanitizer")
    end
    local script = put(([[
      local task = require "asynctask"
      local fs = require "asynctask.fs"
      local await, try = task.await, task.try
      for _, name in ipairs { "hello", "sub/deep", "sub/../hello", "./sub//back", "inside", "../secret",
        "sub/../../secret", "/etc/passwd", "link", "absolute", "up/secret", "..", "missing", "sub",
        "hello/x", "loop" } do
        local file, err = try(fs.open(name, "r", { beneath = %q }))
        print(name, file and await(file:read "a") or err.code)
        if file then await(file:close()) end
      end
      await(await(fs.open("sub/new", "w", { beneath = %q })):close())
      print("up/new", select(2, try(fs.open("up/new", "w", { beneath = %q }))).code)
    ]]):format(path "root", path "root", path "root"), "script.lua")
    local output, code = child.shell(("cd %s && unset LUA_PATH_5_4 LUA_CPATH_5_4; LUA_PATH=%s LUA_CPATH=%s exec "
      .. "timeout 60 strace -f -o /dev/null -e inject=openat2:error=ENOSYS %s %s"):format(child.quote(child.root),
      child.quote(package.path), child.quote(package.cpath), child.interpreter(), child.quote(script)))
    if output:find("ptrace", 1, true) then
      pending("this system lets nobody trace")
    end
    assert.are.equal(0, code, output)
    local wanted = { hello = "hello", ["sub/deep"] = "deep", ["sub/../hello"] = "hello", ["./sub//back"] = "hello",
      inside = "deep", ["up/new"] = "EXDEV" }
    local seen = 0
    for name, result in output:gmatch("(%S+)\t(%S+)\n") do
      assert.are.equal(wanted[name] or OUT[name], result, name)
      seen = seen + 1
    end
    assert.are.equal(17, seen)
    assert.are.equal("", get "root/sub/new")
    assert.is_false(await(fs.exists(path "new")))
  end)
end)
