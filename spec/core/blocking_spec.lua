-- The pool for calls that block, seen through files: the open of a FIFO without a writer never returns.
local task = require "asynctask"
local fs = require "asynctask.fs"
local child = require "spec.support.child"

local await, try = task.await, task.try

describe("blocking", function()
  local dir

  before_each(function()
    dir = await(fs.mkdtemp())
    child.shell("mkfifo " .. child.quote(dir .. "/fifo"))
  end)

  after_each(function()
    await(fs.remove(dir, { recursive = true }))
  end)

  it("runs thousands of calls with a handful of threads", function()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      local stats = {}
      for i = 1, 3000 do stats[i] = fs.lstat("/proc/self/status") end
      for _, st in ipairs(task.await(task.when_all(stats))) do assert(st.type == "file") end
      local threads = tonumber(task.await(fs.read_file("/proc/self/status")):match("Threads:%s*(%d+)"))
      print(threads <= 18)]])
    assert.equal("true\n", output)
    assert.equal(0, code)
  end)

  it("starts no thread before there is work", function()
    local output = child.lua([[
      require "asynctask" require "asynctask.fs"
      for line in io.lines "/proc/self/status" do
        if line:match "^Threads:" then print(line:match "%d+") end
      end]])
    assert.equal("1\n", output)
  end)

  it("goes on when every thread hangs, and gives the threads back", function()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      local await = task.await
      local function threads()
        return tonumber(await(fs.read_file("/proc/self/status")):match("Threads:%s*(%d+)"))
      end
      local hung = {}
      for i = 1, 60 do hung[i] = fs.read_file(arg[1] .. "/fifo") end
      assert(threads() > 16)
      -- one writer that comes and goes after all have opened ends them all
      local w = await(fs.open(arg[1] .. "/fifo", "w"))
      local more = {}
      for i = 1, 60 do more[i] = fs.exists("/proc/self/fd") end
      await(task.when_all(more))
      await(w:close())
      local turns = 0
      repeat
        turns = turns + 1
        await(task.delay(0.005))
        await(fs.exists("/proc/self"))
      until threads() <= 18 or turns > 1000
      print(threads() <= 18)
      for i = 1, 60 do assert(await(hung[i]) == "") end]], { args = { dir }, timeout = 30 })
    assert.equal("true\n", output)
    assert.equal(0, code)
  end)

  it("S10: takes work that waits for a thread out of the queue", function()
    local output, code = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      for i = 1, 30 do fs.open(arg[1] .. "/fifo") end
      local writes = {}
      for i = 1, 100 do writes[i] = fs.write_file(arg[1] .. "/never", "x") end
      for i = 100, 1, -2 do writes[i]:cancel() end
      for i = 1, 100, 2 do writes[i]:cancel() end
      -- later work of the same queue has run: so would have what was before it
      assert(#task.await(fs.read_file("/proc/self/stat")) > 0)
      print(task.await(fs.exists(arg[1] .. "/never")))]], { args = { dir }, timeout = 30 })
    assert.equal("false\n", output)
    assert.equal(0, code)
  end)

  it("S16: a call that was cancelled and hangs is nothing to wait for", function()
    local output = child.lua([[
      local task, fs = require "asynctask", require "asynctask.fs"
      local t = fs.read_file(arg[1] .. "/fifo")
      task.try(t:timeout(0.05))
      local source = task.source()
      print(pcall(task.await, source.task))]], { args = { dir }, timeout = 20 })
    assert.matches("^false\t.*deadlock", output)
  end)

  it("S16: a call that another thread will end is no deadlock", function()
    local t = fs.read_file(dir .. "/fifo")
    local w = fs.write_file(dir .. "/fifo", "from a thread")
    assert.equal("from a thread", await(t))
    assert.is_nil((try(w)))
  end)
end)
