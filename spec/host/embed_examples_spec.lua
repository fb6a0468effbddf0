-- The programs in examples/embed, as a reader builds them: with their own Makefile, against an installation in a
-- temporary directory, and with whatever sanitizer the suite runs under.

local child = require("spec.support.child")

local quote = child.quote

local FLAGS = {
  asan = "-fsanitize=address,undefined -fno-sanitize-recover=all",
  tsan = "-fsanitize=thread",
}

--- The command that runs make on the build under test as it is: nothing of it is made again.
local function make_install(prefix)
  local olds = {}
  for _, name in ipairs({ "config", "libasynctask.a", "asynctask/core.so", "asynctask/curl.so", "asynctask/http1.so",
    "asynctask/openssl.so", "asynctask/wslay.so" }) do
    olds[#olds + 1] = "-o " .. quote(child.build .. "/" .. name)
  end
  return ("make -s -C %s BUILD=%s PREFIX=%s %s install"):format(quote(child.root), quote(child.build), prefix,
    table.concat(olds, " "))
end

describe("examples/embed", function()
  local dir, prefix

  --- Builds targets of the examples' Makefile into the directory.
  local function build(targets)
    local flags = FLAGS[child.sanitizer()] or ""
    local output, code = child.shell(("make -s -C %s/examples/embed OUT=%s PKG_CONFIG_PATH=%s/lib/pkgconfig "
      .. "CFLAGS='-O1 -g -Wall -Wextra -Werror %s' LDFLAGS='%s' %s"):format(quote(child.root), dir, prefix, flags,
      flags, targets))
    assert.equal(0, code, output)
    assert.equal("", output)
  end

  --- Runs one, far away from the checkout: all that it needs is in it. ThreadSanitizer has to see the descriptors
  --- that libuv closes by a plain system call: preload.c shows them.
  local function run(command)
    local preload = child.sanitizer() == "tsan" and "LD_PRELOAD=" .. quote(child.build .. "/preload.so") or ""
    return child.shell(("unset LUA_PATH LUA_CPATH LUA_PATH_5_4 LUA_CPATH_5_4; cd / && "
      .. "TSAN_OPTIONS=halt_on_error=1 timeout 60 env %s %s/%s"):format(preload, dir, command))
  end

  setup(function()
    local output, code = child.shell("mktemp -d")
    assert(code == 0, output)
    dir = output:match("^[^\n]+")
    prefix = dir .. "/prefix"
    output, code = child.shell(make_install(prefix))
    assert(code == 0, output)
    build("hosts module")
  end)

  teardown(function()
    child.shell("rm -rf " .. quote(dir))
  end)

  it("loop_owner gives its scripts two milliseconds in every frame", function()
    local output, code = run("loop_owner")
    assert.equal(0, code, output)
    for round = 1, 3 do
      assert.is_truthy(output:find("north gate, round " .. round .. "\n", 1, true), output)
      assert.is_truthy(output:find("south gate, round " .. round .. "\n", 1, true), output)
    end
    local frames = output:match("the script returned 2 values, the last one is 3\n(%d+) frames\n$")
    assert.is_true(tonumber(frames or 0) >= 3, output) -- sixteen on a machine with nothing else to do
  end)

  it("poll_host answers the lines that it polls for beside asynctask's descriptor", function()
    local output, code = child.shell(("{ echo one; sleep 0.05; echo two; echo three; } | timeout 60 %s/poll_host")
      :format(dir))
    assert.equal(0, code, output)
    for _, word in ipairs({ "ONE", "TWO", "THREE" }) do
      assert.is_truthy(output:find("answer: " .. word .. "\n", 1, true), output)
    end
    assert.is_truthy(output:find("\nclosed: no error\n$"), output)
    assert.is_falsy(output:find("failed"), output)
  end)

  it("wake_host sleeps in a condition and is woken by the callback", function()
    local output, code = run("wake_host")
    assert.equal("hello\t500500\nwoken: yes\n", output)
    assert.equal(0, code)
  end)

  it("uv_host runs tasks in the host's uv_run, and gets its loop back whole", function()
    local output, code = run("uv_host")
    local ticks = output:match("^hello from the script\n(%d+) ticks, loop closed: yes\n$")
    assert.is_true(tonumber(ticks or 0) >= 2, output)
    assert.equal(0, code)
  end)

  it("threads runs eight states on eight threads, which post to a ninth", function()
    local output, code = run("threads")
    assert.equal("the sum of the squares is 204\n", output)
    assert.equal(0, code)
  end)

  it("smooth_glib draws while a script downloads and computes", function()
    local _, missing = child.shell("pkg-config --exists glib-2.0")
    if missing ~= 0 then pending("GLib is not installed (libglib2.0-dev)") end
    if child.sanitizer() == "tsan" then pending("GLib is not built for ThreadSanitizer") end
    build("glib")
    local output, code = run("smooth_glib " .. quote(child.root .. "/examples/embed/smooth.lua"))
    assert.equal(0, code, output)
    assert.is_truthy(output:find("downloaded 32 MiB, 33860 primes, thought %d+, progress yes\n"), output)
    local count, median, worst = output:match("(%d+) frames, every 10 ms: median ([%d.]+) ms, worst ([%d.]+) ms")
    assert.is_truthy(count, output)
    assert.is_true(tonumber(count) >= 20, output)
    assert.is_true(tonumber(median) < 100, output) -- 11 to 15 on a machine with nothing else to do
    assert.is_true(tonumber(worst) < 5000, output)
    -- What the scripts take from a frame: the budget and one resume, in time of the processor.
    local longest = output:match("the longest step took ([%d.]+) ms of the processor, the budget is 4 ms\n")
    assert.is_true(tonumber(longest) < (child.sanitizer() and 60 or 15), output)
  end)

  it("module waits in C, settles from a thread and computes in a job, and links nothing of asynctask", function()
    local linked, found = child.shell(("nm -D --undefined-only %s/module.so | grep -E 'asynctask|uv_'"):format(dir))
    assert.equal("", linked)
    assert.equal(1, found)
    local output, code = child.lua(child.root .. "/examples/embed/module.lua", {
      env = { LUA_CPATH_5_4 = dir .. "/?.so;" .. child.build .. "/?.so;;" },
    })
    assert.equal(0, code, output)
    assert.equal(table.concat({
      "length\t7",
      "length in a task\t3",
      "its error\tno such text",
      "measured\t21.5\tdegrees",
      "deadline\tfalse\ttimeout: the deadline has passed (ETIMEDOUT)",
      "primes\t17984",
      "progress came in order\ttrue",
      "this thread went on\ttrue",
      "cancelled\tnil\toperation cancelled (ECANCELED): changed my mind",
      "in a job\t168\t21.5",
      "",
    }, "\n"), output)
  end)

  it("S18: a module is not unloaded under its own job, which the end of the state does not wait for", function()
    local output, code = child.shell(("mkdir -p %s/plain && cd %s && gcc -std=gnu11 -g -O1 %s -fPIC -shared -pthread "
      .. "-Icsrc/include $(pkg-config --cflags lua5.4) -o %s/plain/module.so examples/embed/module.c"):format(dir,
      quote(child.root), FLAGS[child.sanitizer()] or "", dir))
    assert.equal(0, code, output)
    output, code = child.lua([[
      local task, module = require "asynctask", require "module"
      for i = 1, 4 do _G["job" .. i] = module.primes(1 << 40) end
      task.await(task.delay(0.02))
      print "leaving"
    ]], { env = { LUA_CPATH_5_4 = dir .. "/plain/?.so;" .. child.build .. "/?.so;;" } })
    assert.equal("leaving\n", output)
    assert.equal(0, code)
  end)
end)
