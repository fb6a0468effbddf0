-- The public C API from a host's side, used rightly and wrongly: spec/c/embed_*.c, linked
-- with the library under test and nothing else of the checkout. Each case is a process of its own.

local child = require("spec.support.child")

local quote = child.quote

local FLAGS = {
  asan = "-fsanitize=address,undefined -fno-sanitize-recover=all",
  tsan = "-fsanitize=thread",
}

local CASES = {
  embed_drive = {
    { "without_runtime", "a state without a runtime: every call says so, none attaches one" },
    { "after_close", "S18: after a close what needs a runtime raises, a second one is ENOENT, the state lives" },
    { "open_again", "open changes who drives, and refuses another loop with EBUSY" },
    { "step_in_task", "step, run and close inside a task are EBUSY" },
    { "step_in_callback", "step and run inside a callback of the loop, or a post, are EBUSY" },
    { "step_never_blocks", "step never sleeps, whatever the budget" },
    { "descriptor", "the descriptor is readable when there is something to do, the timeout says when there will be" },
    { "wake_callback", "wake is called once for posts between two steps, and for the system's news" },
    { "run_bounds", "run ends when nothing is left, or after its seconds" },
    { "hold", "hold is counted; S16: without it a wait is a deadlock" },
    { "hold_is_no_deadlock", "S16: a wait while held is none: a post ends it" },
    { "posts_in_order", "posts of a thread are called in order, later" },
    { "remote_outlives", "S18: a post after the close is called with NULL" },
    { "post_races_close", "S18: each post is called once, also while the state is being closed" },
    { "errors_in_callbacks", "S15: errors in calls, posts and settled callbacks are reported" },
  },
  embed_close = {
    { "close_with_grace", "close waits for clean-up within its grace, and not longer than that takes" },
    { "close_without_grace", "close without grace drops what would have to wait" },
    { "close_calls_closers", "asynctask_close calls closers once, newest first, and waits for their handles" },
    { "lua_close_calls_closers", "S18: lua_close does so, too" },
    { "close_gives_data_back", "S18: settled callbacks that never came are called with NULL" },
    { "host_loop", "a host's loop: alive only while a task waits, whole after the close" },
    { "host_loop_in_flight", "S18: a host's loop, closed with operations in flight" },
    { "many_states", "S18: hundreds of states, one after the other" },
    { "fork_and_exec", "fork and exec in a host whose pool is running" },
  },
  embed_budget = {
    { "budget_ready", "a step of 2 ms begins at most 3 of 1,000 ready tasks that compute 1 ms each" },
    { "budget_timers", "a step of 2 ms begins at most 3 of 1,000 tasks whose timers are due" },
    { "budget_loop", "a task that gives way and computes without end does not hold the host" },
    { "budget_zero", "a budget of 0 runs one task" },
    { "budget_negative", "a negative budget runs until nothing is ready" },
    { "budget_posts", "posts of other threads count" },
    { "budget_settled", "C callbacks of tasks that settle together count" },
    { "budget_waiters", "waiters and continuations of one task count" },
    { "budget_sources", "sources that a thread has settled count" },
    { "budget_sockets", "readers of sockets that are ready together count" },
    { "budget_jobs", "waiters of jobs that have ended together count" },
  },
  embed_hostile = {
    { "close_in_callbacks", "asynctask_close in a post, a call or a settled callback is EBUSY" },
    { "call_inside", "asynctask_call in a task or in itself calls, or says that it did not" },
    { "await_in_callbacks", "S17: an await in a callback raises, which is reported" },
    { "spawn_in_callbacks", "a callback may spawn" },
    { "posts_without_end", "a post that posts again does not hold the host" },
    { "closers_try", "closers cannot step, run or close what closes" },
    { "not_a_task", "values that are no Task or function raise" },
    { "old_structures", "a shorter structure of an older header is not read beyond its size" },
    { "on_coroutines", "what takes a state takes its coroutines" },
    { "nested_states", "a task of one state steps another state" },
    { "source_storm", "threads settle, cancel and release the same sources while the state cancels and closes" },
    { "unload", "S18: a module stays loaded while its jobs run, though its state is gone" },
  },
  embed_sources = {
    { "tasks", "spawn, states, values, cancelling, and being called when a task settles" },
    { "await_in_c", "S3, S9, S16, S17: a C function that waits" },
    { "error_objects", "S22: error objects and the words of a status" },
    { "values_of_a_thread", "a source settled from a thread, with every kind of value" },
    { "settled_once", "a source settles once; the rest is told by 0" },
    { "source_cancelled", "S10: a cancelled source is told, and takes no result" },
    { "source_owned", "S8: a source's task belongs to the scope that made it" },
    { "source_local", "a local source does not keep the loop alive, another does" },
    { "source_pushes", "a source settled with what a function pushes, or raises" },
    { "writer_misused", "a writer that was used wrongly faults its task" },
    { "many_values", "thousands of values, and a large table" },
    { "source_races_close", "S18: a thread settles while the state closes" },
    { "source_outlives", "S18: a source outlives its state" },
  },
  embed_jobs = {
    { "jobs", "jobs on both pools: values, failures, progress" },
    { "job_progress_raises", "S15: an error in a progress function is reported" },
    { "job_cancelled", "S20: cancelled jobs are told, or never start" },
    { "jobs_and_close", "S18: the state closes while jobs run and wait" },
    { "job_without_run", "a job without a function raises" },
    { "transfer", "S19: userdata goes to jobs, channels and back, each count once" },
    { "stream_fd", "a stream over a descriptor" },
    { "stream_uv", "a stream over a copy of a libuv handle's descriptor" },
    { "feed", "a feed: mark, end, failure, either side first" },
    { "import", "asynctask_import loads the library, or says what is wrong" },
  },
}

for program, cases in pairs(CASES) do
  describe("asynctask.h: " .. program, function()
    local dir

    setup(function()
      local output, code = child.shell("mktemp -d")
      assert(code == 0, output)
      dir = output:match("^[^\n]+")
      output, code = child.shell(("cd %s && gcc -g -O1 %s -std=gnu11 -Wall -Wextra -Wshadow -Werror -Icsrc/include "
        .. "$(pkg-config --cflags lua5.4 libuv) spec/c/%s.c -o %s/%s %s/libasynctask.a "
        .. "$(pkg-config --libs lua5.4 libuv) -pthread -ldl -lm"):format(quote(child.root),
        FLAGS[child.sanitizer()] or "", program, dir, program, quote(child.build)))
      assert(code == 0, output)
      output, code = child.shell(("cd %s && gcc -g -O1 %s -std=gnu11 -Wall -Wextra -Werror -fPIC -shared "
        .. "-Icsrc/include $(pkg-config --cflags lua5.4) spec/c/embed_busy.c -o %s/busy.so"):format(quote(child.root),
        FLAGS[child.sanitizer()] or "", dir))
      assert(code == 0, output)
    end)

    teardown(function()
      child.shell("rm -rf " .. quote(dir))
    end)

    for _, case in ipairs(cases) do
      it(case[2], function()
        -- libuv closes descriptors behind ThreadSanitizer's back: see spec/support/preload.c
        local preload = child.sanitizer() == "tsan" and "LD_PRELOAD=" .. quote(child.build .. "/preload.so") or ""
        local output, code = child.shell(("unset LUA_PATH LUA_CPATH LUA_PATH_5_4 LUA_CPATH_5_4; cd / && "
          .. "EMBED_MODULES=%s timeout 100 env %s %s/%s %s 2>%s/err || tail -40 %s/err"):format(dir, preload, dir,
          program, case[1], dir, dir))
        assert.equal("ok\n", output) -- reports of tasks that were left pending are in the other file
        assert.equal(0, code)
      end)
    end

    it("has a spec for every case", function()
      local f = assert(io.open(child.root .. "/spec/c/" .. program .. ".c"))
      local text, count = f:read("a"), 0
      f:close()
      for name in text:gmatch('\n    {"([%w_]+)", ') do
        count = count + 1
        local found = false
        for _, case in ipairs(cases) do found = found or case[1] == name end
        assert.is_true(found, name)
      end
      assert.equal(#cases, count)
    end)
  end)
end
