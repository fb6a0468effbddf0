/* embed.h - what the tests of the public C API share: checks, states, chunks, a clock, a table of cases. The
** programs see asynctask.h only, and take the names of the cases that they run as arguments. */
#ifndef SPEC_C_EMBED_H
#define SPEC_C_EMBED_H

#include <asynctask.h>
#include <lualib.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                              \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

/* Both are shown when they differ. */
#define EQUAL(expected, actual)                                                                    \
  do {                                                                                             \
    long long e_ = (long long)(expected), a_ = (long long)(actual);                                \
    if (e_ != a_) {                                                                                \
      fprintf(stderr, "%s:%d: %s is %lld, not %lld (%s)\n", __FILE__, __LINE__, #actual, a_, e_,   \
              #expected);                                                                          \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

typedef struct test_case {
  const char *name;
  void (*run)(void);
} test_case;

static inline int run_cases(const test_case *cases, int argc, char **argv) {
  int i, ran = 0;
  for (; cases->name != NULL; cases++)
    for (i = 1; i < argc; i++)
      if (strcmp(argv[i], cases->name) == 0) cases->run(), ran++;
  puts(ran == argc - 1 && ran > 0 ? "ok" : "no such case");
  return !(ran == argc - 1 && ran > 0);
}

static inline double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void rest(double seconds) {
  struct timespec t = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
  nanosleep(&t, NULL);
}

/* A state that finds asynctask, without a runtime. */
static inline lua_State *bare_state(void) {
  lua_State *L = luaL_newstate();
  CHECK(L != NULL);
  luaL_openlibs(L);
  asynctask_preload(L);
  EQUAL(0, lua_gettop(L));
  return L;
}

/* Runs a chunk; what it returns is on the stack then. */
static inline void run_chunk(lua_State *L, const char *chunk) {
  if (luaL_dostring(L, chunk) != LUA_OK) {
    fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
    exit(1);
  }
}

/* Runs a chunk that returns one integer (nil: 0). */
static inline long long integer_of(lua_State *L, const char *chunk) {
  long long result;
  int top = lua_gettop(L);
  run_chunk(L, chunk);
  result = lua_tointeger(L, top + 1);
  lua_settop(L, top);
  return result;
}

/* A state with `task` and `await` as globals; reports of faults are counted in `reports`. */
static inline lua_State *ready_state(const asynctask_options *options) {
  lua_State *L = bare_state();
  EQUAL(0, asynctask_open(L, options));
  run_chunk(L, "task = require 'asynctask' await = task.await reports = 0\n"
               "task.on_unobserved(function() reports = reports + 1 end)");
  return L;
}

static inline lua_State *driven_state(void) {
  asynctask_options options = {.size = sizeof options, .host_driven = 1};
  return ready_state(&options);
}

/* Spawns a chunk as a task; its Task is on the stack then. */
static inline void spawn_chunk(lua_State *L, const char *chunk) {
  CHECK(luaL_loadstring(L, chunk) == LUA_OK);
  asynctask_spawn(L, 0);
}

/* The code of the error at the top. */
static inline const char *code_at_top(lua_State *L) {
  const char *code;
  CHECK(lua_istable(L, -1));
  lua_getfield(L, -1, "code");
  code = lua_tostring(L, -1);
  lua_pop(L, 1);
  return code == NULL ? "" : code;
}

/* The Task at the top has faulted, or was cancelled, with that code. Pops it. */
static inline void expect_error(lua_State *L, asynctask_state state, const char *code) {
  EQUAL(state, asynctask_task_state(L, -1));
  EQUAL(-1, asynctask_task_values(L, -1));
  if (strcmp(code, code_at_top(L)) != 0) {
    fprintf(stderr, "the code is %s, not %s\n", code_at_top(L), code);
    exit(1);
  }
  lua_pop(L, 2);
}

/* Runs the loop until the Task at the top has settled. */
static inline void settle_top(lua_State *L) {
  double end = now() + 60;
  while (asynctask_task_state(L, -1) == ASYNCTASK_PENDING && now() < end) CHECK(asynctask_run(L, 0.01) >= 0);
  CHECK(asynctask_task_state(L, -1) != ASYNCTASK_PENDING);
}

static inline asynctask_writer *one_integer(int n) {
  asynctask_writer *w = asynctask_writer_new();
  asynctask_write_integer(w, n);
  return w;
}

#endif
