-- task.run: results, errors, waiting inside jobs, many at once, nested ones (S19, S21, S22, S25).

local child = require "spec.support.child"
local core = require "asynctask.core"
local task = require "asynctask"

local await, run = task.await, core.par.run
local interrupts = child.sanitizer() == "tsan" and pending or it -- ThreadSanitizer delays signals

describe("job", function()
  it("S3: gives every result, nil included", function()
    local got = table.pack(await(run(function(...) return ... end, nil, 1, nil)))
    assert.equal(3, got.n)
    assert.is_nil(got[1])
    assert.equal(1, got[2])
    assert.equal(0, select("#", await(run(function() end))))
  end)

  it("runs in a state of its own, on a thread of its own", function()
    local here = tostring(coroutine.running())
    assert.are_not.equal(here, await(run(function() return (tostring(_G)) end)))
    assert.are_not.equal(tostring(_G), await(run(function() return (tostring(_G)) end)))
  end)

  it("S22: takes a function of a module by name", function()
    assert.equal("ababab", await(run("string.rep", "ab", 3)))
    assert.equal(3, await(run("asynctask.core.post", function(a) return a end, 3)))
  end)

  it("S22: wrong arguments raise at once", function()
    local function message(...)
      local ok, err = pcall(run, ...)
      assert.is_false(ok)
      return err
    end
    assert.matches("bad argument #1 to '.-' %(function or \"module.function\" expected, got number%)", message(1))
    assert.matches("bad argument #1 to '.-' %(function or \"module.function\" expected, got no value%)", message())
    assert.matches("bad argument #1", message("nodot"))
    assert.matches("bad argument #1", message(".f"))
    assert.matches("bad argument #1", message("m."))
  end)

  it("S22: a module or function that is not there is the job's error", function()
    local ok, err = task.pcall(await, run("no.such.module.f"))
    assert.is_false(ok)
    assert.matches("module 'no.such.module' not found", err, 1, true)
    ok, err = task.pcall(await, run("string.nothing"))
    assert.is_false(ok)
    assert.matches("module 'string' has no function 'nothing'", err, 1, true)
  end)

  it("S3: error values come back as they are", function()
    local function raised(f, ...)
      local ok, err = task.pcall(await, run(f, ...))
      assert.is_false(ok)
      return err
    end
    assert.matches("job_spec.lua:%d+: boom$", raised(function() error "boom" end))
    assert.equal("plain", raised(function() error("plain", 0) end))
    assert.same({ code = 7, list = { 1 } }, raised(function() error { code = 7, list = { 1 } } end))
    assert.is_nil(raised(function() error() end))
    assert.equal(42, raised(function() error(42) end))
    local e = raised(function()
      local t, fs = require "asynctask", require "asynctask.fs"
      t.await(fs.read_file "/no/such/file")
    end)
    assert.equal("ENOENT", e.code)
    assert.equal("/no/such/file", e.path)
  end)

  it("S3: an error value that cannot be copied is replaced by an error object with its text", function()
    local t = run(function() error(setmetatable({}, { __tostring = function() return "my text" end })) end)
    local ok, err = task.pcall(await, t)
    assert.is_false(ok)
    assert.equal("EJOB", err.code)
    assert.matches("my text", tostring(err), 1, true)
  end)

  it("S3: the traceback shows where the worker was, and who awaited", function()
    local t = run(function()
      local function inner() error "deep" end
      inner()
    end)
    local waiter = task.spawn(function() await(t) end)
    assert.is_false((task.pcall(await, waiter)))
    local text = waiter:traceback()
    assert.matches("in function 'inner'", text, 1, true)
    assert.matches("in a job", text, 1, true)
    local _, n = text:gsub("job_spec.lua:%d+:", "")
    assert.is_true(n >= 3)
  end)

  it("S3: an uncaught error of a job prints the worker's frames", function()
    local output, code = child.lua [[
      local task = require "asynctask"
      local run = require "asynctask.core".par.run
      task.main(function()
        task.await(run(function()
          local function where_it_was() error "lost" end
          where_it_was()
        end))
      end)]]
    assert.equal(1, code)
    assert.matches("lost", output, 1, true)
    assert.matches("where_it_was", output, 1, true)
  end)

  it("S15: a job's fault that nobody looked at is reported", function()
    local output = child.lua [[
      local task = require "asynctask"
      local run = require "asynctask.core".par.run
      run(function() error "nobody looked" end)
      task.await(task.delay(0.05))
      collectgarbage() collectgarbage()
      task.await(task.yield())]]
    assert.matches("nobody looked", output, 1, true)
    local _, n = output:gsub("nobody looked", "")
    assert.is_true(n <= 2)
  end)

  it("S19: an error about a nil global says whose globals they are", function()
    local ok, err = task.pcall(await, run(function() return no_such_global() end)) -- luacheck: ignore
    assert.is_false(ok)
    assert.matches("attempt to call a nil value (global 'no_such_global')", err, 1, true)
    assert.matches("globals are the worker's own", err, 1, true)
  end)

  it("S25: a job that returns one Task is awaited in its place", function()
    assert.equal("later", await(run(function()
      return require "asynctask".delay(0.001, "later")
    end)))
  end)

  it("S21: 1,000 jobs in flight, results where they belong", function()
    local list = {}
    for i = 1, 1000 do list[i] = run(function(n) return n * n end, i) end
    local got = await(task.when_all(list))
    for i = 1, 1000 do assert.equal(i * i, got[i]) end
  end)

  it("S21: jobs await delays and files; their threads take other jobs meanwhile", function()
    local list = {}
    local start = os.time()
    for i = 1, 200 do
      list[i] = run(function(n)
        local t = require "asynctask"
        t.await(t.delay(0.05))
        return n
      end, i)
    end
    local got = await(task.when_all(list))
    for i = 1, 200 do assert.equal(i, got[i]) end
    assert.is_true(os.time() - start <= 5) -- one after another: 10 s and more
    local name = os.tmpname()
    local f = assert(io.open(name, "w"))
    f:write "from a file"
    f:close()
    local text = await(run(function(path)
      local t, fs = require "asynctask", require "asynctask.fs"
      return t.await(fs.read_file(path))
    end, name))
    os.remove(name)
    assert.equal("from a file", text)
  end)

  it("S21: nested jobs do not deadlock a pool of one thread", function()
    local output, code = child.lua([[
      local task = require "asynctask"
      local run = require "asynctask.core".par.run
      local function fib(n)
        local t = require "asynctask"
        local r = require "asynctask.core".par.run
        if n < 2 then return n end
        local a, b = t.await(t.when_all(r(fib, n - 1), r(fib, n - 2)))
        return a + b
      end
      print(task.await(run(fib, 12)))]], { env = { ASYNCTASK_THREADS = "1" }, timeout = 20 })
    assert.equal("144\n", output)
    assert.equal(0, code)
  end)

  it("S16: waiting for a job is no deadlock, and a job's own waiting neither", function()
    assert.equal("ok", await(run(function()
      local t = require "asynctask"
      local r = require "asynctask.core".par.run
      t.await(t.delay(0.005))
      return t.await(r(function() return "ok" end))
    end)))
  end)

  interrupts("a hundred long jobs do not delay a file read", function()
    local name = os.tmpname()
    local f = assert(io.open(name, "w"))
    f:write "quick"
    f:close()
    local fs = require "asynctask.fs"
    local list = {}
    for i = 1, 100 do
      list[i] = run(function()
        while true do end
      end)
    end
    await(task.delay(0.01))
    local text = task.with_timeout(5, fs.read_file, name)
    for i = 1, 100 do
      assert.equal("pending", list[i]:status())
      list[i]:cancel()
    end
    os.remove(name)
    assert.equal("quick", text)
  end)
end)
