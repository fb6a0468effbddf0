/* embed_close.c - the end of a runtime: in order, with lua_close, on a loop of the host's, with everything under way,
** many times, beside a child process. Built and run by spec/host/embed_spec.lua. */
#include "embed.h"

#include <sys/wait.h>
#include <unistd.h>

/* ---- closing ---- */

static void close_with_grace(void) {
  lua_State *L = ready_state(NULL);
  double began = now();
  run_chunk(L, "cleaned = 0");
  spawn_chunk(L, "local _ <close> = setmetatable({}, {__close = function()\n"
                 "  task.shield(task.delay, 0.02) cleaned = cleaned + 1 end})\n"
                 "await(task.delay(1000))");
  EQUAL(0, asynctask_close(L, 100));
  CHECK(now() - began < 60); /* it does not wait longer than the tasks take */
  lua_getglobal(L, "cleaned");
  EQUAL(1, lua_tointeger(L, -1));
  lua_close(L);
}

static void close_without_grace(void) {
  lua_State *L = ready_state(NULL);
  run_chunk(L, "cleaned, late = 0, 0");
  spawn_chunk(L, "local _ <close> = setmetatable({}, {__close = function() cleaned = cleaned + 1 end})\n"
                 "await(task.delay(1000))");
  spawn_chunk(L, "local _ <close> = setmetatable({}, {__close = function()\n"
                 "  task.shield(task.delay, 1000) late = late + 1 end})\n"
                 "await(task.delay(1000))");
  EQUAL(0, asynctask_close(L, 0)); /* one turn: what needs no waiting is done, the rest is dropped */
  lua_getglobal(L, "cleaned");
  EQUAL(1, lua_tointeger(L, -1));
  lua_getglobal(L, "late");
  EQUAL(0, lua_tointeger(L, -1));
  lua_close(L);
}

static int order[4], closers, closed_handles;

static void closer(void *data) { order[closers++] = (int)(size_t)data; }

static void handle_closed(uv_handle_t *handle) {
  closed_handles++;
  free(handle);
}

static void close_handle(void *data) {
  closers++;
  uv_close(data, handle_closed);
}

static void close_calls(int in_order) {
  lua_State *L = ready_state(NULL);
  uv_timer_t *timer = malloc(sizeof *timer);
  asynctask_closer *second;
  closers = closed_handles = 0;
  CHECK(timer != NULL);
  asynctask_on_close(L, closer, (void *)1);
  second = asynctask_on_close(L, closer, (void *)2);
  asynctask_on_close(L, closer, (void *)3);
  asynctask_closer_remove(second);
  if (in_order) {
    EQUAL(0, asynctask_close(L, 0));
    EQUAL(2, closers);
  }
  if (!in_order) lua_close(L);
  EQUAL(2, closers);
  EQUAL(3, order[0]); /* newest first */
  EQUAL(1, order[1]);
  if (in_order) lua_close(L);
  EQUAL(2, closers); /* once */

  closers = 0;
  L = ready_state(NULL);
  uv_timer_init(asynctask_loop(L), timer);
  asynctask_on_close(L, close_handle, timer);
  if (in_order) {
    EQUAL(0, asynctask_close(L, 0));
    EQUAL(1, closed_handles); /* waited for */
  }
  lua_close(L);
  EQUAL(1, closers);
  EQUAL(1, closed_handles);
}

static void close_calls_closers(void) { close_calls(1); }
static void lua_close_calls_closers(void) { close_calls(0); }

static void settled_null(lua_State *L, asynctask_state state, int n, void *data) {
  (void)state;
  (void)n;
  CHECK(L == NULL);
  ++*(int *)data;
}

/* on_settled of a Task that never settles: its data comes back when the state goes. */
static void close_gives_data_back(void) {
  lua_State *L = ready_state(NULL);
  int calls = 0;
  spawn_chunk(L, "await(task.delay(1000))");
  asynctask_on_settled(L, -1, settled_null, &calls);
  asynctask_on_settled(L, -1, settled_null, &calls);
  lua_close(L);
  EQUAL(2, calls);
}

/* ---- a loop of the host's ---- */

static void host_loop(void) {
  uv_loop_t loop;
  asynctask_options options = {.size = sizeof options, .loop = &loop, .host_driven = 1};
  lua_State *L;
  CHECK(uv_loop_init(&loop) == 0);
  L = ready_state(&options);
  EQUAL(0, uv_run(&loop, UV_RUN_DEFAULT)); /* the runtime alone does not keep it alive */
  spawn_chunk(L, "local net = require 'asynctask.net' local a, b = await(net.pair())\n"
                 "await(task.delay(0.01)) await(a:write 'x\\n') return #await(b:read()) + await(task.run(function() return 1 end))");
  EQUAL(0, uv_run(&loop, UV_RUN_DEFAULT)); /* a task that waits does */
  EQUAL(ASYNCTASK_SUCCEEDED, asynctask_task_state(L, -1));
  EQUAL(1, asynctask_task_values(L, -1));
  EQUAL(2, lua_tointeger(L, -1));
  spawn_chunk(L, "await(task.delay(1000))");
  EQUAL(0, asynctask_close(L, 1000)); /* the loop is not run: grace is ignored */
  lua_close(L);
  uv_run(&loop, UV_RUN_NOWAIT);
  EQUAL(0, uv_loop_close(&loop));
}

/* Closed in the middle of everything, then the loop is closed. */
static void host_loop_in_flight(void) {
  int round;
  for (round = 0; round < 10; round++) {
    uv_loop_t loop;
    asynctask_options options = {.size = sizeof options, .loop = &loop, .host_driven = 1};
    lua_State *L;
    CHECK(uv_loop_init(&loop) == 0);
    L = ready_state(&options);
    run_chunk(L, "local net, fs = require 'asynctask.net', require 'asynctask.fs'\n"
                 "keep = { task.delay(50), fs.read_file '/etc/passwd', net.listen('127.0.0.1', 0), task.yield(),\n"
                 "  task.run(function() return 1 end), task.spawn(function() await(task.delay(50)) end) }");
    if (round % 2) uv_run(&loop, UV_RUN_NOWAIT);
    if (round % 3 == 0) EQUAL(0, asynctask_close(L, 0));
    lua_close(L);
    uv_run(&loop, UV_RUN_NOWAIT);
    EQUAL(0, uv_loop_close(&loop));
  }
}

/* ---- many ---- */

static void many_states(void) {
  int i;
  for (i = 0; i < 300; i++) {
    lua_State *L = i % 2 ? driven_state() : ready_state(NULL);
    spawn_chunk(L, "await(task.delay(100))");
    if (i % 3 == 0) EQUAL(0, asynctask_close(L, 0));
    lua_close(L);
  }
}

static void fork_and_exec(void) {
  lua_State *L = ready_state(NULL);
  int status;
  pid_t pid;
  EQUAL(55, integer_of(L, "return await(task.run(function() local s = 0 for i = 1, 10 do s = s + i end return s end))"));
  pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    execl("/bin/sh", "sh", "-c", "exit 7", (char *)NULL);
    _exit(1);
  }
  CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
  EQUAL(7, WEXITSTATUS(status));
  EQUAL(5, integer_of(L, "return await(task.run(function() return 5 end))"));
  lua_close(L);
}

static const test_case cases[] = {
    {"close_with_grace", close_with_grace},
    {"close_without_grace", close_without_grace},
    {"close_calls_closers", close_calls_closers},
    {"lua_close_calls_closers", lua_close_calls_closers},
    {"close_gives_data_back", close_gives_data_back},
    {"host_loop", host_loop},
    {"host_loop_in_flight", host_loop_in_flight},
    {"many_states", many_states},
    {"fork_and_exec", fork_and_exec},
    {NULL, NULL},
};

int main(int argc, char **argv) { return run_cases(cases, argc, argv); }
