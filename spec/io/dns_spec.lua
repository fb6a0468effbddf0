-- Slow lookups, with a getaddrinfo of our own: they hold up neither files nor the end of the program.

local child = require "spec.support.child"

local library = os.tmpname()
local built = not child.sanitizer() and select(2, child.shell(("cc -shared -fPIC -o %s %s"):format(library,
  child.quote(child.root .. "/spec/c/slow_names.c")))) == 0
local it = built and it or pending -- luacheck: ignore

local function run(source)
  return child.lua([[
    local task, net, fs = require "asynctask", require "asynctask.net", require "asynctask.fs"
    local await, try = task.await, task.try
    local core = require "asynctask.core"
    local list = {}
  ]] .. source, { env = { LD_PRELOAD = library }, timeout = 20 })
end

describe("slow lookups", function()
  teardown(function() os.remove(library) end)

  it("do not starve files", function()
    local output, code = run [[
      for i = 1, 60 do list[i] = net.resolve("name" .. i) end
      local began = core.now()
      for _ = 1, 20 do await(fs.remove(await(fs.mkdtemp()))) end
      print(core.now() - began < 0.3, list[60]:status())
      local all = await(task.when_all(list))
      print(#all, all[60][1].host)
    ]]
    assert.are.equal("true\tpending\n60\t127.0.0.1\n", output)
    assert.are.equal(0, code)
  end)

  it("S10: those that wait for their turn can be cancelled, those that hang are left behind", function()
    local output, code = run [[
      for i = 1, 40 do list[i] = net.resolve("hang") end
      local waiting = net.resolve("name")
      local t = task.spawn(function() return task.with_timeout(0.05, await, waiting) end)
      print(select(2, try(t)).code)
      for _, lookup in ipairs(list) do lookup:cancel() end
      print(list[1]:status(), list[40]:status())
      local stream, err = try(net.connect("hang", 1, { timeout = 0.05 }))
      print(stream, err.code)
      print(#await(net.resolve("name"))) -- behind more hanging ones than there are turns
      await(task.delay(0.01))
    ]]
    assert.are.equal("ETIMEDOUT\ncancelled\tcancelled\nnil\tETIMEDOUT\n1\n", output)
    assert.are.equal(0, code)
  end)
end)
