-- examples/run_parallel.lua: commands in parallel, with a limit.

local child = require "spec.support.child"
local fs = require "asynctask.fs"
local process = require "asynctask.process"

local await = require "asynctask".await

local function run(args, opts)
  opts = opts or {}
  opts.env = process.environ()
  opts.env.LUA_PATH_5_4, opts.env.LUA_CPATH_5_4 = nil, nil
  opts.env.LUA_PATH = ("%s/lua/?.lua;%s/lua/?/init.lua;;"):format(child.root, child.root)
  opts.env.LUA_CPATH = child.build .. "/?.so;;"
  opts.env.LD_PRELOAD = os.getenv("ASYNCTASK_PRELOAD")
  local script = child.root .. "/examples/run_parallel.lua"
  return await(process.run(child.interpreter(), { script, table.unpack(args) }, opts))
end

describe("examples/run_parallel.lua", function()
  it("prints what each command said, in one piece, and exits with 0", function()
    local output, errors, code = run { "-j", 2, "echo one; echo two", "printf three" }
    assert.are.same({ 0, "" }, { code, errors })
    assert.matches("[1] echo one; echo two: ok\none\ntwo\n", output, 1, true)
    assert.matches("[2] printf three: ok\nthree\n", output, 1, true)
    assert.matches("2 commands, 0 failed\n$", output)
  end)

  it("tells failures, and exits with 1", function()
    local output, _, code = run { "exit 3", "kill -9 $$", "true" }
    assert.are.equal(1, code)
    assert.matches("[1] exit 3: exit 3\n", output, 1, true)
    assert.matches("[2] kill -9 $$: SIGKILL\n", output, 1, true)
    assert.matches("[3] true: ok\n", output, 1, true)
    assert.matches("3 commands, 2 failed\n$", output)
  end)

  it("runs no more at once than it may", function()
    local dir = await(fs.mkdtemp())
    -- each says how many run beside it
    local command = ("touch %s/$$; ls %s | wc -l; sleep 0.02; rm %s/$$"):format(dir, dir, dir)
    local commands = {}
    for i = 1, 6 do
      commands[i] = command
    end
    local output = run { "-j", 2, table.unpack(commands) }
    local most = 0
    for n in output:gmatch("\n(%d+)\n") do
      most = math.max(most, tonumber(n))
    end
    assert.is_true(most >= 1 and most <= 2, output)
    await(fs.remove(dir, { recursive = true }))
  end)

  it("reads commands from standard input", function()
    local output, _, code = run({ "-j", 3 }, { input = "echo a\necho b\n" })
    assert.are.equal(0, code)
    assert.matches("[1] echo a: ok\na\n", output, 1, true)
    assert.matches("[2] echo b: ok\nb\n", output, 1, true)
  end)

  it("ends what takes too long", function()
    local output, _, code = run { "-t", 0.1, "exec sleep 60", "echo fine" }
    assert.are.equal(1, code)
    assert.matches("ETIMEDOUT", output, 1, true)
    assert.matches("[2] echo fine: ok\nfine\n", output, 1, true)
  end)

  it("says how it is to be used", function()
    local _, errors, code = run { "-j", "many" }
    assert.are.equal(2, code)
    assert.matches("-j takes a number", errors, 1, true)
  end)
end)
