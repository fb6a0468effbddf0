-- Cancelling settles first what has ended (S4: a completion that came first wins). That went wrong twice: in a
-- step whose budget was spent only one operation was settled, and the others were cancelled; and where there
-- was no memory for a result, the error went to the user's pcall around `cancel`, and the Task never settled.

local child = require "spec.support.child"

describe("cancelling an operation that has ended", function()
  it("S10: leaves it its result, also where the budget of a step is spent", function()
    local output, code = child.lua [[
      local task, core, loop = require "asynctask", require "asynctask.core", require "asynctask.loop"
      loop.drive(true)
      local a, b, c = core.net.feed(), core.net.feed(), core.net.feed()
      local t = task.spawn(function()
        task.await(task.yield())
        local r, s, u = a:read(1), b:read(1), c:read(1)
        a:push "a"; b:push "b"; c:push "c"
        local before = core.now()
        while core.now() - before < 0.002 do end
        print(u:cancel(), r:status(), s:status(), u:status(), u:result())
      end)
      while not t:done() do loop.step(0.001) end
    ]]
    assert.equal("false\tsucceeded\tsucceeded\tsucceeded\tc\n", output)
    assert.equal(0, code)
  end)

  it("S4: faults it where there is no memory for its result, whoever catches errors around", function()
    local program = require("spec.support.cc").program "nomemory"
    local file = os.tmpname()
    finally(function() os.remove(file) end)
    local f = assert(io.open(file, "w"))
    f:write [[
      local task, core = require "asynctask", require "asynctask.core"
      local feed, other = core.net.feed(), task.delay(100)
      local r, bytes = feed:read(100000), ("x"):rep(100000)
      task.await(task.spawn(function()
        task.await(task.yield())
        feed:push(bytes)
        collectgarbage()
        most(50000)
        local ok, cancelled = pcall(other.cancel, other)
        most(0)
        print(ok, cancelled, other:status(), r:status(), r:error())
      end))
    ]]
    f:close()
    local path = child.root .. "/lua/?.lua;" .. child.root .. "/lua/?/init.lua"
    local output, code = child.shell(("LUA_PATH=%s timeout 20 %s %s"):format(child.quote(path), child.quote(program),
      child.quote(file)))
    assert.equal("true\ttrue\tcancelled\tfaulted\tnot enough memory\n", output)
    assert.equal(0, code)
  end)
end)
