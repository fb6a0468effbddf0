-- The programs in examples/ that work on files: grep.lua and tail.lua.

local child = require("spec.support.child")
local fs = require("asynctask.fs")
local sandbox = require("spec.support.sandbox")
local task = require("asynctask")

local await = task.await

describe("examples/grep.lua", function()
  local path, put, _, before, after = sandbox.new()
  before_each(before)
  after_each(after)

  local function grep(...)
    return child.lua(child.root .. "/examples/grep.lua", { args = { ... }, directory = path(".") })
  end

  it("finds what grep finds in a tree, in order", function()
    for i = 1, 100 do
      await(fs.mkdir(path(("t/%02d/sub"):format(i % 10)), { parents = true }))
      put(("line one\nneedle %d\n\nlast needle"):format(i), ("t/%02d/sub/%03d.txt"):format(i % 10, i))
    end
    put("needle\0needle", "t/binary")
    put("", "t/empty")
    await(fs.mkdir(path("t/.git")))
    put("needle", "t/.git/config")
    local output, code = grep("needle", "t", "3")
    assert.are.equal(0, code, output)
    local expected = child.shell(("cd %s && find t -name '*.txt' | LC_ALL=C sort | xargs grep -n needle")
      :format(child.quote(path("."))))
    assert.are.equal(expected, output)
  end)

  it("searches one file; exits with 1 when nothing was found, with 2 for a bad pattern", function()
    put("alpha\nbeta 12\n")
    assert.are.equal("file:2:beta 12\n", (grep("%d+", "file")))
    local output, code = grep("gamma", "file")
    assert.are.equal("", output)
    assert.are.equal(1, code)
    assert.are.equal(2, select(2, grep("%", "file")))
  end)

  it("tells of a path that is missing", function()
    local output, code = grep("x", "missing")
    assert.are.equal(1, code)
    assert.matches("stat missing: no such file or directory (ENOENT)", output, 1, true)
  end)
end)

describe("examples/tail.lua", function()
  local path, put, get, before, after = sandbox.new()
  before_each(before)
  after_each(after)

  it("shows the last lines, follows what is appended, cut off and rotated, and ends with the file", function()
    local lines = {}
    for i = 1, 20000 do lines[i] = "old " .. i .. "\n" end
    put(table.concat(lines), "log")
    local script = [[
      exec 2>&1
      %s %s/examples/tail.lua log 2 >out 2>&1 &
      wait_for() { n=0; until grep -q "$1" out; do sleep 0.02; n=$((n+1)); [ $n -lt 500 ] || exit 9; done; }
      wait_for "old 20000"
      echo appended >>log
      wait_for appended
      echo new-begin >log
      wait_for new-begin
      mv log log.1
      echo late >>log.1
      echo rotated >log
      wait_for rotated
      rm log
      wait
    ]]
    local env = ("export LUA_PATH=%s LUA_CPATH=%s; cd %s && "):format(
      child.quote(child.root .. "/lua/?.lua;" .. child.root .. "/lua/?/init.lua;;"),
      child.quote(child.build .. "/?.so;;"), child.quote(path(".")))
    local preload = os.getenv("ASYNCTASK_PRELOAD")
    local lua = "timeout 30 " .. (preload and "env LD_PRELOAD=" .. child.quote(preload) .. " " or "")
      .. child.interpreter()
    local output, code = child.shell(env .. script:format(lua, child.quote(child.root)))
    assert.are.equal(0, code, output)
    local out = get("out")
    assert.matches("^old 19999\nold 20000\nappended\n", out)
    assert.matches("\nnew%-begin\nlate\nrotated\n", out)
    assert.matches("stat log: no such file or directory %(ENOENT%)\n$", out)
  end)

  it("exits with 1 for a file that is missing", function()
    local output, code = child.lua(child.root .. "/examples/tail.lua", { args = { path("none") } })
    assert.are.equal(1, code)
    assert.matches("open .*none: no such file or directory", output)
  end)
end)
