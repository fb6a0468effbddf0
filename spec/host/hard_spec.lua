-- Hard cases of hosts: spec/c/host_hard.c, linked with the library under test. Each case is a process of its own.

local child = require "spec.support.child"

local quote = child.quote

local FLAGS = {
  asan = "-fsanitize=address,undefined -fno-sanitize-recover=all",
  tsan = "-fsanitize=thread",
}

local CASES = {
  { "everything_in_flight", "S18: a host's loop is left whole, whatever was in flight when the state closed" },
  { "everything_own_loop", "S18: so is a loop of its own, with grace and without" },
  { "closed_in_callback", "S18: the state closes in a callback of the host's loop" },
  { "same_turn", "what a host's callback makes ready runs in the same turn of its loop, which then sleeps" },
  { "host_loop_refusals", "S16: on a host's loop the main chunk cannot wait, step or run" },
  { "again_and_again", "S18: thousands of states leave no memory and no descriptor behind" },
  { "use_after_close", "S18: after asynctask_close everything raises or answers, nothing crashes" },
  { "two_copies", "two copies of the module, in two states and in one" },
  { "linked_and_loaded", "a host that links the library shares its runtime with the module that a script loads" },
  { "on_threads", "states on eight threads, on loops of their own and of the host's" },
  { "wakes_of_the_loop_thread", "wake is called once for what becomes ready outside a step" },
}

describe("hard cases", function()
  local dir

  --- Runs a command in which @dir, @build and @root stand for these.
  local function shell(command)
    local values = { dir = quote(dir), build = quote(child.build), root = quote(child.root) }
    return child.shell((command:gsub("@(%l+)", values)))
  end

  setup(function()
    dir = child.shell("mktemp -d"):match("^[^\n]+")
    local output, code = shell("cd @root && gcc -g -O1 " .. (FLAGS[child.sanitizer()] or "") .. [[ -std=gnu11 \
      -D_GNU_SOURCE -Wall -Wextra -Wshadow -Werror -rdynamic -Icsrc/include $(pkg-config --cflags lua5.4 libuv) \
      spec/c/host_hard.c -o @dir/hard @build/libasynctask.a $(pkg-config --libs lua5.4 libuv) -pthread -ldl -lm &&
      mkdir @dir/one @dir/two && cp @build/asynctask/core.so @dir/one && cp @build/asynctask/core.so @dir/two]])
    assert(code == 0, output)
  end)

  teardown(function()
    child.shell("rm -rf " .. quote(dir))
  end)

  for _, case in ipairs(CASES) do
    it(case[2], function()
      -- libuv closes descriptors behind ThreadSanitizer's back: see spec/support/preload.c
      local preload = child.sanitizer() == "tsan" and "PRELOAD=@build/preload.so; " or ""
      local output, code = shell(preload .. ("ROUNDS=%d %s; c=%s"):format(child.sanitizer() and 600 or 10000,
        child.sanitizer() and "SANITIZED=1" or "", case[1]) .. [==[; export ROUNDS SANITIZED
        unset LUA_PATH LUA_CPATH LUA_PATH_5_4 LUA_CPATH_5_4; cd /
        export COPY1=@dir/one/core.so COPY2=@dir/two/core.so
        timeout 100 env ${PRELOAD:+LD_PRELOAD=$PRELOAD} @dir/hard $c 2>@dir/err >@dir/out; code=$?
        grep -v '^asynctask: tasks still pending\|^[[:space:]]*task' @dir/err; tail -n 1 @dir/out; exit $code]==])
      assert.equal("ok\n", output)
      assert.equal(0, code)
    end)
  end
end)
