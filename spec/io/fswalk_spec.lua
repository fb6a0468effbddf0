-- The iterators walk and dir: order, errors of single entries, streams that are not held in memory.
local task = require "asynctask"
local fs = require "asynctask.fs"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await = task.await

describe("walk", function()
  local path, put, _, before, after = sandbox.new()
  before_each(before)
  after_each(after)

  local function tree()
    for _, d in ipairs { "b/x/y", "a/empty", "c" } do await(fs.mkdir(path(d), { parents = true })) end
    for _, f in ipairs { "b/2", "b/1", "b/x/deep", "top", "a/one", "b/x/y/z" } do put(f, f) end
    await(fs.symlink("..", path("c/up")))
  end

  local function visit(options)
    local seen = {}
    for p, entry in fs.walk(path("."):sub(1, -3), options) do
      assert.equal(p:match("[^/]+$"), entry.name)
      assert.is_nil(entry.entering)
      seen[#seen + 1] = p:sub(#path(".") - 1 + 1) .. ":" .. entry.depth
    end
    return seen
  end

  it("visits what is in a directory before it, if asked", function()
    tree()
    assert.same({ "a/empty:2", "a/one:2", "a:1", "b/1:2", "b/2:2", "b/x/deep:3", "b/x/y/z:4", "b/x/y:3", "b/x:2",
      "b:1", "c/up:2", "c:1", "top:1" }, visit { order = "post" })
    assert.same({ "a/empty:2", "a/one:2", "a:1", "b/1:2", "b/2:2", "b/x:2", "b:1", "c/up:2", "c:1", "top:1" },
      visit { order = "post", depth = 2 })
    for _, entry in fs.walk(path("b"), { order = "post", stat = true }) do
      assert.is_number(entry.mtime)
    end
  end)

  it("filters a directory before what is in it, in either order", function()
    tree()
    local asked = {}
    local function filter(p, entry)
      asked[#asked + 1] = p:sub(#path(".") - 1 + 1)
      return entry.name ~= "x" and entry.name ~= "a"
    end
    assert.same({ "b/1:2", "b/2:2", "b:1", "c/up:2", "c:1", "top:1" }, visit { order = "post", filter = filter })
    assert.same({ "a", "b", "b/1", "b/2", "b/x", "c", "c/up", "top" }, asked)
    assert.same({ "b:1", "b/1:2", "b/2:2", "c:1", "c/up:2", "top:1" }, visit { filter = filter })
  end)

  it("prunes trees larger than a batch, children first", function()
    await(fs.mkdir(path("big/sub"), { parents = true }))
    for i = 1, 700 do put("", ("big/sub/%04d"):format(i)) end
    for i = 1, 300 do put("", ("big/%04d"):format(i)) end
    put("", "last")
    assert.equal(1003, #visit { order = "post" })
    assert.same({ "last:1" }, visit { order = "post", filter = function(_, e) return e.name ~= "big" end })
    assert.equal(302, #visit { order = "post", filter = function(_, e) return e.name ~= "sub" end })
  end)

  it("a tree may be removed behind its back: children first", function()
    tree()
    for p, entry in fs.walk(path("b"), { order = "post" }) do
      await(fs.remove(p))
      assert.is_nil(entry.error)
    end
    await(fs.remove(path("b")))
  end)

  it("reports an entry that cannot be read, and goes on", function()
    tree()
    local script = [[
      local fs = require "asynctask.fs"
      for p, entry in fs.walk(arg[1], { order = arg[2] }) do
        print(p:sub(#arg[1] + 2), entry.error and entry.error.code)
      end ]]
    -- as somebody for whom permissions count
    local before_it = "chmod 0 " .. child.quote(path("b/x")) .. ";"
    local uid = child.shell("id -u")
    if uid ~= "0\n" then
      local output = child.lua(script, { args = { path("b"), "pre" }, before = before_it })
      assert.equal("1\tnil\n2\tnil\nx\tEACCES\n", output)
      child.shell("chmod 700 " .. child.quote(path("b/x")))
    end
    -- too few descriptors to go into it
    local seen = 0
    for p in fs.walk(path("b")) do
      seen = seen + 1
      if p == path("b/1") then break end
    end
    assert.equal(1, seen)
    -- a path that is too long to be opened
    local long = ("n"):rep(200)
    local half = (long .. "/"):rep(11)
    local _, code = child.shell(("cd %s && mkdir -p a/%s b/%s && mv b/%s a/%s && rm -r b")
      :format(child.quote(path("c")), half, half, long, half))
    assert.equal(0, code)
    put("", "d")
    for _, order in ipairs { "pre", "post" } do
      local last
      local failed = 0
      for p, entry in fs.walk(path("."), { order = order }) do
        if entry.error then
          failed = failed + 1
          assert.equal("ENAMETOOLONG", entry.error.code)
          assert.equal(p, entry.error.path)
        end
        last = p
      end
      assert.equal(1, failed)
      assert.matches("top$", last)
    end
  end)

  it("takes names of any bytes", function()
    put("", "\xff\xfe\n")
    put("", "\xc3\xa4")
    assert.same({ "\xc3\xa4:1", "\xff\xfe\n:1" }, visit())
  end)

  it("S22: checks the order at the call", function()
    assert.error_matches(function() fs.walk(path("."), { order = "up" }) end, "invalid value 'up'")
    assert.error_matches(function() fs.walk(path("."), { order = true }) end, "invalid value 'true'")
  end)

  it("dir does not hold a large directory in memory", function()
    await(fs.mkdir(path("many")))
    local _, code = child.shell(("cd %s && seq -f '" .. ("long"):rep(25) .. "-%%g' 1 20000 | xargs touch")
      :format(child.quote(path("many"))))
    assert.equal(0, code)
    local output = child.lua([[
      local fs = require "asynctask.fs"
      local function peak()
        for line in io.lines "/proc/self/status" do
          local kb = line:match("^VmHWM:%s+(%d+)")
          if kb then return tonumber(kb) end
        end
      end
      for _ in fs.dir(arg[1]) do break end
      collectgarbage "generational"
      local before, n = peak(), 0
      for _ in fs.dir(arg[1]) do n = n + 1 end
      print(n, peak() - before < 1500) ]], { args = { path("many") } })
    if child.sanitizer() then output = output:gsub("false", "true") end
    assert.equal("20000\ttrue\n", output)
  end)

  it("S18: a state that closes in the middle of a walk ends at once", function()
    tree()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      for _ = 1, 20 do
        local it = fs.walk(arg[1], { order = "post", stat = true })
        it:next()
        fs.dir(arg[1]):next()
        fs.glob(arg[1] .. "/**")
        fs.copy(arg[1] .. "/top", arg[1] .. "/copy")
      end
      io.write "closing" ]], { args = { path(".") }, timeout = 20 })
    assert.matches("closing", output)
    assert.equal(0, code)
  end)
end)
