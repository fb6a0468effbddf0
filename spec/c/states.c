/* states.c - several states in one process: interleaved on one thread, one on each of several threads,
** opened and closed many times, closed with work in flight. Built and run by spec/host/states_spec.lua,
** which looks at the exit code and at what the sanitizer says. */
#include <asynctask.h>
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                              \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

static lua_State *open_state(void) {
  lua_State *L = luaL_newstate();
  CHECK(L != NULL);
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_asynctask_core);
  lua_setfield(L, -2, "asynctask.core");
  lua_pop(L, 1);
  return L;
}

/* Runs a chunk that returns one integer. */
static long run(lua_State *L, const char *chunk) {
  long result;
  if (luaL_dostring(L, chunk)) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    exit(1);
  }
  result = (long)lua_tointeger(L, -1);
  lua_settop(L, 0);
  return result;
}

static const char setup[] = "task = require 'asynctask'; count = 0\n"
                            "function tick() task.spawn(function()\n"
                            "  for _ = 1, 3 do task.await(task.yield()); count = count + 1 end\n"
                            "end) end";

/* Two states take turns; neither sees the other's tasks, and one outlives the other. */
static void interleaved(void) {
  lua_State *a = open_state(), *b = open_state();
  int i;
  run(a, setup);
  run(b, setup);
  for (i = 0; i < 10; i++) {
    run(a, "tick()");
    run(b, "tick(); tick()");
    CHECK(run(a, "task.await(task.delay(0.001)); return count") == 3 * (i + 1));
    CHECK(run(b, "task.await(task.delay(0.001)); return count") == 6 * (i + 1));
  }
  CHECK(run(a, "return #task.tasks()") == 0);
  run(b, "task.on_unobserved(function() end); task.spawn(function() task.await(task.delay(100)) end)");
  lua_close(a);
  CHECK(run(b, "return #task.tasks()") == 1);
  CHECK(run(b, "return task.await(task.delay(0.001, 7))") == 7);
  lua_close(b);
}

static const char busy[] =
    "local task, fs, net = require 'asynctask', require 'asynctask.fs', require 'asynctask.net'\n"
    "local await = task.await\n"
    "local server = await(net.listen('127.0.0.1', 0))\n"
    "local serving = server:serve(function(s) await(s:write(await(s:read('l')))) end)\n"
    "local n = 0\n"
    "for i = 1, 20 do\n"
    "  local c <close> = await(net.connect('127.0.0.1', server:sockname().port))\n"
    "  await(c:write('x' .. i .. '\\n')); if await(c:read('a')) == 'x' .. i then n = n + 1 end\n"
    "end\n"
    "await(server:close())\n"
    "await(serving)\n"
    "n = n + #await(task.map({1, 2, 3}, function(i) return await(task.delay(0.001 * i, i)) end))\n"
    "return n";

static void *on_thread(void *L) {
  CHECK(run(L, busy) == 23);
  return NULL;
}

/* Opened and closed here, so that ThreadSanitizer sees an order between the uses of a descriptor: libuv
** closes its own by a plain system call, which the sanitizer does not know. */
static void threads(int rounds) {
  lua_State *L[4];
  pthread_t t[4];
  int i;
  while (rounds-- > 0) {
    for (i = 0; i < 4; i++) L[i] = open_state();
    for (i = 0; i < 4; i++) CHECK(pthread_create(&t[i], NULL, on_thread, L[i]) == 0);
    for (i = 0; i < 4; i++) CHECK(pthread_join(t[i], NULL) == 0);
    for (i = 0; i < 4; i++) lua_close(L[i]);
  }
}

/* Closed in the middle of everything. */
static const char in_flight[] =
    "local task, fs, net = require 'asynctask', require 'asynctask.fs', require 'asynctask.net'\n"
    "local core = require 'asynctask.core'\n"
    "task.on_unobserved(function() end)\n"
    "keep = { task.delay(50), fs.read_file('/etc/passwd'), task.when_all(task.delay(60)),\n"
    "  task.source(), net.resolve('localhost'), net.listen('127.0.0.1', 0), task.yield(),\n"
    "  task.run(function() return 1 end) }\n"
    "for i = 1, 5 do keep[#keep + 1] = task.spawn(function()\n"
    "  local x <close> = setmetatable({}, { __close = function() error('ran after the close') end })\n"
    "  task.await(task.delay(50)) end):named('left on purpose') end\n"
    "return 1";

static void many(int rounds) {
  int i;
  for (i = 0; i < rounds; i++) {
    lua_State *L = open_state();
    CHECK(run(L, in_flight) == 1);
    lua_close(L);
  }
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 20;
  interleaved();
  threads(rounds / 4 + 1);
  many(rounds);
  puts("ok");
  return 0;
}
