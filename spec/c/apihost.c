/* apihost.c - a host that calls the C API by its names and knows libuv: what a C module cannot show. Prints
** "ok". Built with apimodule.c, which its scripts use, by spec/host/capi_host_spec.lua:
**     apihost [states]
** opens and closes so many states, each while everything is under way. */
#include <asynctask.h>
#include <lualib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

int luaopen_apimodule(lua_State *L);

#define CHECK(condition) check((condition) != 0, #condition, __LINE__)

static void check(int ok, const char *what, int line) {
  if (ok) return;
  fprintf(stderr, "apihost: line %d: %s\n", line, what);
  exit(1);
}

static lua_State *open_state(void) {
  lua_State *L = luaL_newstate();
  CHECK(L != NULL);
  luaL_openlibs(L);
  asynctask_preload(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_apimodule);
  lua_setfield(L, -2, "apimodule");
  lua_pop(L, 1);
  return L;
}

static void run(lua_State *L, const char *code) {
  if (luaL_dostring(L, code)) {
    fprintf(stderr, "apihost: %s\n", luaL_tolstring(L, -1, NULL));
    exit(1);
  }
}

static lua_Integer count(lua_State *L, const char *name) {
  lua_Integer n;
  lua_getglobal(L, "counts");
  lua_call(L, 0, 1);
  lua_getfield(L, -1, name);
  n = lua_tointeger(L, -1);
  lua_pop(L, 2);
  return n;
}

static const char prelude[] = "task, api = require 'asynctask', require 'apimodule'\n"
                              "channel, await = require 'asynctask.channel', task.await\n"
                              "counts = api.counts\n"
                              "task.on_unobserved(function() end)\n";

/* ---- a libuv handle as a stream ---- */

static void free_handle(uv_handle_t *handle) { free(handle); }

static void test_uv_stream(void) {
  lua_State *L = open_state();
  uv_pipe_t *pipe = malloc(sizeof *pipe);
  uv_loop_t *loop;
  int fds[2];
  run(L, prelude);
  loop = asynctask_loop(L);
  CHECK(loop != NULL && pipe != NULL);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  CHECK(uv_pipe_init(loop, pipe, 0) == 0 && asynctask_stream_uv(L, (uv_stream_t *)pipe) == UV_EBADF);
  CHECK(lua_isnil(L, -1));
  lua_pop(L, 1);
  CHECK(uv_pipe_open(pipe, fds[0]) == 0);
  CHECK(asynctask_stream_uv(L, (uv_stream_t *)pipe) == 0);
  uv_close((uv_handle_t *)pipe, free_handle);
  lua_setglobal(L, "one");
  CHECK(asynctask_stream_fd(L, fds[1]) == 0);
  lua_setglobal(L, "two");
  run(L, "await(one:write 'over the copy\\n') assert(await(two:read 'l') == 'over the copy')\n"
         "await(one:close()) assert(await(two:read 'l') == nil) await(two:close())");
  lua_close(L);
}

/* ---- a local source, settled by a callback of the loop ---- */

typedef struct ticking {
  uv_timer_t timer;
  asynctask_source *source;
  int cancelled, released;
} ticking;

static void on_tick(uv_timer_t *timer) {
  ticking *t = timer->data;
  asynctask_writer *w = asynctask_writer_new();
  asynctask_write_string(w, "tick", 4);
  CHECK(asynctask_source_wanted(t->source));
  CHECK(asynctask_source_succeed(t->source, w) == 1);
  CHECK(!asynctask_source_wanted(t->source));
  asynctask_source_release(t->source);
  t->source = NULL;
}

static void on_cancelled(void *data) { ((ticking *)data)->cancelled++; }
static void on_released(void *data) { ((ticking *)data)->released++; }

static void test_local_source(void) {
  lua_State *L = open_state();
  ticking t;
  asynctask_source_options options;
  memset(&t, 0, sizeof t);
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.name = "tick";
  options.cancelled = on_cancelled;
  options.released = on_released;
  options.data = &t;
  options.local = 1;
  run(L, prelude);
  CHECK(uv_timer_init(asynctask_loop(L), &t.timer) == 0);
  t.timer.data = &t;
  t.source = asynctask_source_new(L, &options);
  lua_setglobal(L, "tick");
  CHECK(uv_timer_start(&t.timer, on_tick, 1, 0) == 0);
  run(L, "assert(await(tick) == 'tick')");
  CHECK(t.source == NULL && t.released == 1 && t.cancelled == 0);
  uv_close((uv_handle_t *)&t.timer, NULL);
  t.source = asynctask_source_new(L, &options);
  lua_close(L); /* an unsettled one is cancelled, and lives on for its holder */
  CHECK(t.cancelled == 1 && t.released == 1);
  CHECK(!asynctask_source_wanted(t.source) && asynctask_source_succeed(t.source, NULL) == 0);
  CHECK(asynctask_source_fail(t.source, "EMINE", NULL, NULL) == 0);
  CHECK(asynctask_source_cancel(t.source, NULL) == 0);
  (void)asynctask_source_retain(t.source);
  asynctask_source_release(t.source);
  CHECK(t.released == 1);
  asynctask_source_release(t.source);
  CHECK(t.released == 2);
}

/* ---- sources of a state that is gone, settled by another thread ---- */

static void *settle_late(void *arg) {
  asynctask_source **sources = arg;
  int i;
  for (i = 0; i < 100; i++) {
    asynctask_writer *w = asynctask_writer_new();
    asynctask_write_integer(w, i);
    (void)asynctask_source_succeed(sources[i], w);
    asynctask_source_release(sources[i]);
  }
  return NULL;
}

static void test_late_settling(int rounds) {
  while (rounds-- > 0) {
    lua_State *L = open_state();
    asynctask_source *sources[100];
    pthread_t thread;
    int i;
    run(L, prelude);
    for (i = 0; i < 100; i++) {
      sources[i] = asynctask_source_new(L, NULL);
      lua_pop(L, 1);
    }
    CHECK(pthread_create(&thread, NULL, settle_late, sources) == 0);
    if (rounds % 3 == 0) run(L, "await(task.yield())");
    lua_close(L);
    pthread_join(thread, NULL);
  }
}

/* ---- outside of Lua, and without a runtime ---- */

static int wrong_call(lua_State *L) {
  switch (lua_tointeger(L, 1)) {
    case 1: (void)asynctask_source_new(L, NULL); break;
    case 2:
      lua_pushcfunction(L, wrong_call);
      asynctask_spawn(L, 0);
      break;
    case 3: (void)asynctask_task_values(L, 1); break;
    case 4: (void)asynctask_stream_fd(L, 0); break;
    case 5: (void)asynctask_feed_new(L, NULL); break;
    case 6: asynctask_job_submit(L, NULL); break;
    case 7: asynctask_on_settled(L, 1, NULL, NULL); break;
    default: (void)asynctask_await(L, 0, NULL);
  }
  return 0;
}

static void not_settled(lua_State *L, asynctask_state state, int n, void *data) {
  CHECK(L == NULL && state == ASYNCTASK_PENDING && n == 0);
  ++*(int *)data;
}

static int call_on_settled(lua_State *L) {
  asynctask_on_settled(L, 1, not_settled, lua_touserdata(L, 2));
  return 0;
}

static void expect_error(lua_State *L, const char *words) {
  int i;
  for (i = 1; i <= 8; i++) {
    if (i == 7) continue;
    lua_pushcfunction(L, wrong_call);
    lua_pushinteger(L, i);
    CHECK(lua_pcall(L, 1, 0, 0) == LUA_ERRRUN);
    if (strstr(lua_tostring(L, -1), words) == NULL) fprintf(stderr, "%d: %s\n", i, lua_tostring(L, -1));
    CHECK(strstr(lua_tostring(L, -1), words) != NULL);
    lua_pop(L, 1);
  }
}

static void test_without_runtime(void) {
  lua_State *L = open_state();
  int given_back = 0;
  CHECK(asynctask_task_state(L, 1) == ASYNCTASK_NOT_A_TASK);
  expect_error(L, "asynctask: this state has no runtime");
  lua_pushcfunction(L, call_on_settled);
  lua_pushboolean(L, 1);
  lua_pushlightuserdata(L, &given_back);
  CHECK(lua_pcall(L, 2, 0, 0) == LUA_ERRRUN && given_back == 1);
  lua_pop(L, 1);
  run(L, prelude);
  lua_pushcfunction(L, call_on_settled);
  lua_pushboolean(L, 1);
  lua_pushlightuserdata(L, &given_back);
  CHECK(lua_pcall(L, 2, 0, 0) == LUA_ERRRUN && given_back == 2);
  lua_pop(L, 1);
  CHECK(asynctask_close(L, 0) == 0);
  expect_error(L, "asynctask: the runtime of this state is closed");
  lua_close(L);
}

/* On the main thread of a state, outside of any function. */
static void test_outside(void) {
  lua_State *L = open_state();
  asynctask_source *s;
  int n;
  run(L, prelude);
  CHECK(luaL_loadstring(L, "return await(...), 2") == LUA_OK);
  s = asynctask_source_new(L, NULL);
  CHECK(asynctask_task_state(L, -1) == ASYNCTASK_PENDING);
  CHECK(asynctask_task_values(L, -1) == -2);
  asynctask_spawn(L, 1);
  CHECK(asynctask_source_succeed(s, NULL) == 1);
  asynctask_source_release(s);
  lua_pushvalue(L, -1);
  lua_setglobal(L, "t");
  run(L, "await(t)");
  CHECK(asynctask_task_state(L, -1) == ASYNCTASK_SUCCEEDED);
  n = asynctask_task_values(L, -1);
  CHECK(n == 2 && lua_isnil(L, -2) && lua_tointeger(L, -1) == 2);
  lua_pop(L, 3);
  asynctask_push_error(L, "ENOENT", NULL, NULL);
  CHECK(lua_getfield(L, -1, "message") == LUA_TSTRING);
  CHECK(strcmp(lua_tostring(L, -1), asynctask_strerror(UV_ENOENT)) == 0);
  lua_settop(L, 0);
  s = asynctask_source_new(L, NULL);
  CHECK(asynctask_task_cancel(L, -1, "why") == 1 && asynctask_task_cancel(L, -1, NULL) == 0);
  CHECK(!asynctask_source_wanted(s));
  asynctask_source_release(s);
  CHECK(asynctask_task_values(L, -1) == -1);
  lua_close(L);
}

/* ---- states that close while everything is under way ---- */

static const char everything[] =
    "keep = {}\n"
    "local function k(...) for _, v in ipairs{...} do keep[#keep + 1] = v end end\n"
    "k(api.crowd(2, 20))\n"
    "for i = 1, 3 do k(api.source('s')) k(api.source('l', true)) end\n"
    "for i = 1, 4 do k(api.job('sum', 1000, i % 2 == 0)) k(api.job('progress', 1000, i % 2 == 0, function() end)) end\n"
    "k(api.job('wait', 0, false)) k(api.job('wait', 0, true))\n"
    "local ch = channel.shared(3)\n"
    "k(ch) k(ch:send{api.counter(), api.counter 'Shy'})\n"
    "k(task.run(function(c) while true do c:add(1) end end, api.counter()))\n"
    "local s, f = api.feed(100) f:push 'bytes' k(s, f, s:read 'a')\n"
    "local a, b = api.pair() local x = api.stream_fd(a) k(x, api.stream_fd(b), x:read 'a')\n"
    "for _, t in ipairs(keep) do if task.is_task(t) then api.on_settled(t, function() end) end end\n"
    "k(api.spawn(function() api.await(task.delay(50)) end))\n";

static const char *const moments[] = {
    "", "await(task.yield())", "await(task.delay(0.001))",
    "for _, t in ipairs(keep) do if task.is_task(t) then t:cancel() end end", "keep = nil collectgarbage()",
    "await(task.delay(0.003)) collectgarbage()"};

static void test_closing(int states) {
  lua_State *last;
  int i, tries;
  for (i = 0; i < states; i++) {
    lua_State *L = open_state();
    run(L, prelude);
    run(L, everything);
    run(L, moments[(size_t)i % (sizeof moments / sizeof *moments)]);
    if (i % 4 == 3) CHECK(asynctask_close(L, 0) == 0);
    lua_close(L);
  }
  last = open_state();
  run(last, prelude);
  for (tries = 0; tries < 5000 && count(last, "alive") + count(last, "busy") + count(last, "counters") > 0; tries++)
    usleep(1000); /* threads of the blocking pool outlive their states */
  CHECK(count(last, "alive") == 0);
  CHECK(count(last, "counters") == 0);
  lua_close(last);
}

int main(int argc, char **argv) {
  int states = argc > 1 ? atoi(argv[1]) : 100;
  test_uv_stream();
  test_local_source();
  test_without_runtime();
  test_outside();
  test_late_settling(states);
  test_closing(states);
  puts("ok");
  return 0;
}
