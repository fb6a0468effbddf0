-- fs.watch: what is told, of trees, of what belongs together, of overflow.
local task = require "asynctask"
local fs = require "asynctask.fs"
local core = require "asynctask.core"
local child = require "spec.support.child"
local sandbox = require "spec.support.sandbox"

local await, try = task.await, task.try
local code_of = sandbox.code_of

describe("watch", function()
  local path, put, _, before, after = sandbox.new()
  before_each(function()
    before()
    await(fs.mkdir(path("w")))
  end)
  after_each(after)

  local function text_of(event)
    local base = path("")
    local from = event.from and " from " .. event.from:sub(#base + 1) or ""
    return event.type .. " " .. event.path:sub(#base + 1) .. from
  end

  -- The events up to the creation of a file named "end" in the directory, without repetitions.
  local function until_end(it, dir)
    await(fs.write_file(path((dir or "w") .. "/end"), ""))
    local list = {}
    for event in it do
      local text = text_of(event)
      if text:find("/end$") then break end
      if text ~= list[#list] then list[#list + 1] = text end
    end
    return list
  end

  it("S26: gives what is made, changed, renamed and removed in a directory, from the call on", function()
    put("old", "w/there")
    local it = fs.watch(path("w"))
    put("text", "w/new")
    put("more", "w/there")
    await(fs.rename(path("w/new"), path("w/newer")))
    await(fs.remove(path("w/newer")))
    await(fs.mkdir(path("w/sub")))
    put("unseen", "w/sub/file")
    await(fs.rename(path("w/there"), path("away")))
    await(fs.rename(path("away"), path("w/back")))
    assert.same({ "create w/new", "change w/new", "change w/there", "rename w/newer from w/new", "remove w/newer",
      "create w/sub", "remove w/there", "create w/back" }, (function()
      local list = until_end(it)
      if list[2] ~= "change w/new" then table.insert(list, 2, "change w/new") end -- merged into the creation
      return list
    end)())
  end)

  it("S26: next is a Task, many at once; close ends it", function()
    local it = fs.watch(path("w"))
    local first, second = it:next(), it:next()
    put("", "w/a")
    put("", "w/b")
    assert.equal("create w/a", text_of(await(first)))
    assert.equal("create w/b", text_of(await(second)))
    local waiting = it:next()
    await(it:close())
    assert.is_nil((await(waiting)))
    assert.is_nil(it())
    assert.is_nil((await(it:next())))
  end)

  it("S10: a round that was cancelled loses no event", function()
    local it <close> = fs.watch(path("w"))
    for i = 1, 20 do
      local t = it:next()
      if i % 2 == 0 then await(task.yield()) end
      put("", "w/" .. i)
      if i % 3 == 0 then await(task.yield()) end
      t:cancel()
      local event = try(t)
      if not event then event = it() end
      assert.equal("create w/" .. i, text_of(event))
    end
  end)

  it("watches a tree, with what is made in it later", function()
    await(fs.mkdir(path("w/a/b"), { parents = true }))
    await(fs.mkdir(path("other/deep"), { parents = true }))
    put("", "other/deep/file")
    local it = fs.watch(path("w"), { recursive = true })
    put("", "w/a/b/file")
    await(fs.mkdir(path("w/new/deeper/deepest"), { parents = true }))
    put("", "w/new/deeper/deepest/file")
    local seen = {}
    local function wait_for(text)
      for event in function() return await(it:next()) end do
        seen[text_of(event)] = true
        if seen[text] then return end
      end
    end
    wait_for("create w/new/deeper/deepest/file")
    assert.is_true(seen["create w/a/b/file"] and seen["create w/new/deeper/deepest"])
    -- moved into the tree, inside it, and out of it
    await(fs.rename(path("other"), path("w/moved")))
    wait_for("create w/moved/deep/file")
    put("", "w/moved/deep/second")
    wait_for("create w/moved/deep/second")
    await(fs.rename(path("w/moved"), path("w/a/again")))
    wait_for("rename w/a/again from w/moved")
    put("", "w/a/again/deep/third")
    wait_for("create w/a/again/deep/third")
    await(fs.rename(path("w/a/again"), path("other")))
    wait_for("remove w/a/again")
    put("", "other/deep/unseen")
    put("", "w/last")
    seen = {}
    wait_for("create w/last")
    assert.same({ ["create w/last"] = true }, seen)
    await(fs.remove(path("w/new"), { recursive = true }))
    wait_for("remove w/new")
    assert.is_true(seen["remove w/new/deeper/deepest/file"])
    await(it:close())
  end)

  it("watches a large tree, whose search goes on in the pool", function()
    for i = 1, 20 do
      for j = 1, 30 do await(fs.mkdir(path(("w/%d/%d"):format(i, j)), { parents = true })) end
    end
    local it <close> = fs.watch(path("w"), { recursive = true })
    local seen, n = {}, 0
    local reader = task.spawn(function()
      repeat
        local event = it()
        if event.type == "create" and not seen[event.path] then
          seen[event.path] = true
          n = n + 1
        end
      until n == 21
    end)
    await(task.delay(0.05)) -- a directory that is not watched yet is none of its own making
    for i = 1, 20 do put("", ("w/%d/%d/file"):format(i, i)) end
    await(fs.mkdir(path("w/20/30/x")))
    await(reader:timeout(10))
  end)

  it("watches a file, whatever takes its place", function()
    put("one", "w/file")
    put("", "w/beside")
    local it <close> = fs.watch(path("w/file"))
    put("two", "w/file")
    put("x", "w/beside")
    local event = it()
    assert.same({ type = "change", path = path("w/file") }, event)
    await(fs.write_file(path("w/file"), "three", { atomic = true }))
    repeat event = it() until event.type ~= "change" or await(fs.read_file(path("w/file"))) == "three"
    assert.equal(path("w/file"), event.path)
    await(fs.remove(path("w/file")))
    repeat event = it() until event.type == "remove"
    put("", "w/file")
    assert.equal("create", it().type)
  end)

  it("ends when the directory itself goes", function()
    local it = fs.watch(path("w"), { recursive = true })
    await(fs.remove(path("w")))
    assert.same({ type = "remove", path = path("w") }, it())
    assert.is_nil(it())
  end)

  describe("with debounce", function()
    local function rest(it)
      local event = await(it:next():timeout(10))
      return text_of(event)
    end

    it("sees each way of saving as one change", function()
      put("old", "w/file")
      local it <close> = fs.watch(path("w"), { debounce = 0.05 })
      -- a temporary file takes its place
      await(fs.write_file(path("w/file"), "new", { atomic = true }))
      assert.equal("change w/file", rest(it))
      -- the old one becomes a backup, which goes at last
      await(fs.rename(path("w/file"), path("w/file~")))
      put("newer", "w/file")
      await(fs.remove(path("w/file~")))
      assert.equal("change w/file", rest(it))
      -- the backup stays
      await(fs.rename(path("w/file"), path("w/file~")))
      put("newest", "w/file")
      assert.equal("change w/file", rest(it))
      assert.matches("w/file~", rest(it))
      -- written piece by piece
      local f <close> = await(fs.open(path("w/file"), "w"))
      for _ = 1, 5 do
        await(f:write("piece"))
        await(task.delay(0.005))
      end
      assert.equal("change w/file", rest(it))
      -- what comes and goes is nothing
      put("", "w/temporary")
      await(fs.remove(path("w/temporary")))
      put("", "w/real")
      assert.equal("create w/real", rest(it))
      await(fs.rename(path("w/real"), path("w/name")))
      assert.equal("rename w/name from w/real", rest(it))
      await(fs.remove(path("w/name")))
      assert.equal("remove w/name", rest(it))
    end)

    it("S10: keeps what it has seen when a round is cancelled", function()
      local it <close> = fs.watch(path("w"), { debounce = 0.03 })
      put("", "w/first")
      local t = it:next()
      await(task.delay(0.01))
      t:cancel()
      assert.is_nil((try(t)))
      put("", "w/second")
      assert.equal("create w/first", rest(it))
      assert.equal("create w/second", rest(it))
    end)

    it("tells of a file that never rests all the same", function()
      local it <close> = fs.watch(path("w"), { debounce = 0.02 })
      local done = false
      local writer = task.spawn(function()
        while not done do
          await(fs.append_file(path("w/log"), "x"))
          await(task.delay(0.004))
        end
      end)
      local began = core.now()
      assert.matches("w/log$", rest(it))
      done = true
      assert.is_true(core.now() - began < 5)
      await(writer)
    end)
  end)

  it("tells of an overflow, and goes on", function()
    local limit = io.open("/proc/sys/fs/inotify/max_queued_events")
    local most = limit and limit:read("n") or 16384
    if limit then limit:close() end
    if most > 20000 then
      pending("the system's queue is longer than this can fill")
      return
    end
    local it <close> = fs.watch(path("w"), { recursive = true })
    -- while nobody turns the loop; what follows the same again would be merged
    assert.equal(0, select(2, child.shell(("cd %s && for i in $(seq 1 %d); do echo >>a; echo >>b; done; mkdir sub")
      :format(child.quote(path("w")), most // 2 + 1))))
    local seen
    for event in function() return await(it:next()) end do
      if event.type == "overflow" then
        seen = event
        break
      end
    end
    assert.equal(path("w"), seen.path)
    -- a directory that was missed is watched now
    put("", "w/sub/file")
    for event in function() return await(it:next()) end do
      if event.path == path("w/sub/file") then break end
    end
  end)

  it("S16: keeps nothing alive but while somebody waits", function()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      local it = fs.watch(arg[1])
      local s = task.source()
      print(pcall(task.await, s.task)) ]], { args = { path("w") }, timeout = 10 })
    assert.matches("^false.*deadlock", output)
    assert.equal(0, code)
  end)

  it("S18: a state that closes while it watches ends at once", function()
    for i = 1, 20 do
      for j = 1, 30 do await(fs.mkdir(path(("w/%d/%d"):format(i, j)), { parents = true })) end
    end
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      for i = 1, 5 do
        fs.watch(arg[1], { recursive = true }):next()
        fs.watch(arg[1], { recursive = i % 2 == 0, debounce = 1 }):next()
        fs.watch(arg[1])
      end
      os.execute("touch " .. arg[1] .. "/file")
      if arg[2] == "turn" then task.await(task.yield()) end
      io.write "closing" ]], { args = { path("w"), "turn" }, timeout = 20 })
    assert.matches("closing", output)
    assert.equal(0, code)
  end)

  it("S22: faults for what is not there; wrong arguments raise at the call", function()
    local it = fs.watch(path("none"))
    local code, err = code_of(it:next())
    assert.equal("ENOENT", code)
    assert.equal("watch", err.op)
    assert.equal(path("none"), err.path)
    assert.is_nil(it())
    assert.error_matches(function() fs.watch() end, "bad argument #1 to 'watch' %(string expected, got no value%)")
    assert.error_matches(function() fs.watch(path("w"), { debounce = "1" }) end, "number expected")
    assert.error_matches(function() fs.watch(path("w"), { debounce = -1 }) end, "must be a number of seconds")
    assert.error_matches(function() fs.watch(path("w"), { rec = true }) end, "unknown option 'rec'")
  end)
end)
