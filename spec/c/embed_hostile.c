/* embed_hostile.c - a host, and a C module, that call the public C API where they should not, from where they
** may, and in combinations: each call gives a status or raises, nothing is lost, nothing crashes. Built and run by
** spec/host/embed_spec.lua. */
#include "embed.h"

/* ---- callbacks that do more than they should ---- */

static int close_status, run_status, call_status;
static asynctask_remote *home;

static void count_call(lua_State *L, void *data) {
  CHECK(L != NULL);
  ++*(int *)data;
}

static void close_inside(lua_State *L, void *data) {
  (void)data;
  if (L != NULL) close_status = asynctask_close(L, 0);
}

static void close_settled(lua_State *L, asynctask_state state, int n, void *data) {
  (void)state;
  (void)n;
  (void)data;
  if (L == NULL) return;
  close_status = asynctask_close(L, 0);
  run_status = asynctask_run(L, 0);
}

/* The runtime does not go away under what it is running. */
static void close_in_callbacks(void) {
  lua_State *L = ready_state(NULL);
  home = asynctask_remote_new(L);
  close_status = 0;
  EQUAL(0, asynctask_post(home, close_inside, NULL));
  CHECK(asynctask_run(L, 0.01) >= 0);
  EQUAL(UV_EBUSY, close_status);
  close_status = 0;
  spawn_chunk(L, "return 1");
  asynctask_on_settled(L, -1, close_settled, NULL);
  CHECK(asynctask_run(L, 0.01) >= 0);
  EQUAL(UV_EBUSY, close_status);
  EQUAL(UV_EBUSY, run_status);
  close_status = 0;
  EQUAL(0, asynctask_call(home, close_inside, NULL));
  EQUAL(UV_EBUSY, close_status);
  EQUAL(3, integer_of(L, "return await(task.delay(0.001, 3))"));
  asynctask_remote_release(home);
  lua_close(L);
}

static int l_call_inside(lua_State *L) {
  int calls = 0;
  (void)L;
  call_status = asynctask_call(home, count_call, &calls);
  EQUAL(call_status == 0, calls);
  return 0;
}

static void call_twice(lua_State *L, void *data) {
  int calls = 0;
  CHECK(L != NULL);
  call_status = asynctask_call(home, count_call, &calls);
  EQUAL(call_status == 0, calls);
  ++*(int *)data;
}

/* asynctask_call inside a task, and inside itself: called, or a status; never both, never a crash. */
static void call_inside(void) {
  lua_State *L = ready_state(NULL);
  int calls = 0;
  home = asynctask_remote_new(L);
  lua_register(L, "call_inside", l_call_inside);
  spawn_chunk(L, "call_inside() await(task.yield()) call_inside()");
  CHECK(asynctask_run(L, 0.01) >= 0);
  EQUAL(0, asynctask_call(home, call_twice, &calls));
  EQUAL(1, calls);
  EQUAL(2, integer_of(L, "return await(task.delay(0.001, 2))"));
  EQUAL(0, integer_of(L, "return reports"));
  asynctask_remote_release(home);
  lua_close(L);
}

static void awaits(lua_State *L, void *data) {
  (void)data;
  if (L == NULL) return;
  lua_getglobal(L, "await");
  lua_getglobal(L, "task");
  lua_getfield(L, -1, "delay");
  lua_pushinteger(L, 1000);
  lua_call(L, 1, 1);
  lua_remove(L, -2);
  lua_call(L, 1, 0); /* raises: this is no task */
  CHECK(!"reached");
}

static void awaits_settled(lua_State *L, asynctask_state state, int n, void *data) {
  (void)state;
  (void)n;
  awaits(L, data);
}

static void await_in_callbacks(void) {
  lua_State *L = ready_state(NULL);
  home = asynctask_remote_new(L);
  EQUAL(0, asynctask_call(home, awaits, NULL));
  EQUAL(0, asynctask_post(home, awaits, NULL));
  spawn_chunk(L, "return 1");
  asynctask_on_settled(L, -1, awaits_settled, NULL);
  CHECK(asynctask_run(L, 0.01) >= 0);
  EQUAL(3, integer_of(L, "collectgarbage() await(task.delay(0.001)) return reports"));
  asynctask_remote_release(home);
  lua_close(L);
}

static void spawns(lua_State *L, void *data) {
  if (L == NULL) return;
  spawn_chunk(L, "await(task.delay(0.001)) spawned = (spawned or 0) + 1");
  ++*(int *)data;
}

static void spawn_in_callbacks(void) {
  lua_State *L = ready_state(NULL);
  int calls = 0;
  home = asynctask_remote_new(L);
  EQUAL(0, asynctask_call(home, spawns, &calls));
  EQUAL(0, asynctask_post(home, spawns, &calls));
  EQUAL(0, asynctask_run(L, 10));
  EQUAL(2, calls);
  EQUAL(2, integer_of(L, "return spawned"));
  asynctask_remote_release(home);
  lua_close(L);
}

/* A post that posts: each in a turn of its own, none for ever in one step. */
static int chain;

static void post_again(lua_State *L, void *data) {
  if (L == NULL) return;
  chain++;
  EQUAL(0, asynctask_post(data, post_again, data));
}

static void posts_without_end(void) {
  lua_State *L = driven_state();
  int i, before;
  home = asynctask_remote_new(L);
  EQUAL(0, asynctask_post(home, post_again, home));
  for (i = 0; i < 20; i++) {
    before = chain;
    CHECK(asynctask_step(L, 0.001) >= 0);
    CHECK(chain < before + 100000); /* it came back */
  }
  CHECK(chain > 0);
  lua_close(L);
  asynctask_remote_release(home);
}

/* ---- where a closer does things ---- */

static int closer_calls;

static void closer_tries(void *data) {
  lua_State *L = data;
  closer_calls++;
  CHECK(asynctask_step(L, 0) < 0);
  CHECK(asynctask_run(L, 0) < 0);
  CHECK(asynctask_close(L, 0) < 0);
}

static void closers_try(void) {
  lua_State *L = ready_state(NULL);
  closer_calls = 0;
  asynctask_on_close(L, closer_tries, L);
  EQUAL(0, asynctask_close(L, 0));
  EQUAL(1, closer_calls);
  lua_close(L);
  L = ready_state(NULL);
  asynctask_on_close(L, closer_tries, L);
  lua_close(L);
  EQUAL(2, closer_calls);
}

/* ---- wrong arguments ---- */

static int l_spawn_nothing(lua_State *L) {
  lua_settop(L, 0);
  lua_pushinteger(L, 5);
  asynctask_spawn(L, 0);
  return 1;
}

static int l_settled_of_nothing(lua_State *L) {
  lua_settop(L, 0);
  lua_pushinteger(L, 5);
  asynctask_on_settled(L, 1, awaits_settled, NULL);
  return 0;
}

static int l_values_of_nothing(lua_State *L) {
  lua_settop(L, 0);
  lua_pushinteger(L, 5);
  (void)asynctask_task_values(L, 1);
  return 0;
}

static void not_a_task(void) {
  lua_State *L = ready_state(NULL);
  lua_register(L, "spawn_nothing", l_spawn_nothing);
  lua_register(L, "settled_of_nothing", l_settled_of_nothing);
  lua_register(L, "values_of_nothing", l_values_of_nothing);
  /* as task.spawn does: raises, or a Task that has faulted; no crash */
  EQUAL(1, integer_of(L, "local ok, t = pcall(spawn_nothing)\n"
                         "return (not ok or t:try() == nil) and 1 or 0"));
  EQUAL(1, integer_of(L, "return pcall(settled_of_nothing) and 0 or 1"));
  EQUAL(1, integer_of(L, "return pcall(values_of_nothing) and 0 or 1"));
  lua_close(L);
}

/* A caller that was compiled with an older header: its structures are shorter, and what lies behind is not read. */
static void old_structures(void) {
  struct {
    asynctask_options options;
  } *o = malloc(offsetof(asynctask_options, wake)); /* not a byte more: a sanitizer sees a read beyond it */
  lua_State *L = bare_state();
  CHECK(o != NULL);
  memset(o, 0, offsetof(asynctask_options, wake));
  o->options.size = offsetof(asynctask_options, wake);
  o->options.host_driven = 1;
  EQUAL(0, asynctask_open(L, &o->options));
  free(o);
  EQUAL(1, integer_of(L, "local task = require 'asynctask' return pcall(task.await, task.delay(0)) and 0 or 1"));
  lua_close(L);
}

/* ---- other states, other coroutines ---- */

/* What takes a state takes any of its coroutines. */
static void on_coroutines(void) {
  lua_State *L = driven_state(), *co = lua_newthread(L);
  EQUAL(0, asynctask_step(co, 0.001));
  CHECK(asynctask_loop(co) == asynctask_loop(L));
  spawn_chunk(co, "await(task.delay(0.001)) return 9");
  lua_xmove(co, L, 1);
  CHECK(asynctask_run(co, 10) >= 0);
  EQUAL(1, asynctask_task_values(L, -1));
  EQUAL(9, lua_tointeger(L, -1));
  EQUAL(0, asynctask_close(co, 0));
  lua_close(L);
}

static lua_State *other;

static int l_step_other(lua_State *L) {
  lua_pushinteger(L, asynctask_step(other, -1));
  return 1;
}

/* A task of one state steps another: they do not know of each other. */
static void nested_states(void) {
  lua_State *L = ready_state(NULL);
  other = driven_state();
  lua_register(L, "step_other", l_step_other);
  spawn_chunk(other, "for i = 1, 3 do await(task.yield()) end return 7");
  EQUAL(0, integer_of(L, "return await(task.spawn(function() await(task.yield())\n"
                         "for i = 1, 10 do step_other() await(task.yield()) end return step_other() end))"));
  EQUAL(1, asynctask_task_values(other, -1));
  EQUAL(7, lua_tointeger(other, -1));
  lua_close(other);
  EQUAL(3, integer_of(L, "return await(task.delay(0.001, 3))"));
  lua_close(L);
}

/* ---- everybody settles everything ---- */

#define SOURCES 40
#define SETTLERS 3

typedef struct storm {
  asynctask_source *sources[SOURCES];
  atomic_int wins[SOURCES], releases, cancels;
  asynctask_remote *remote;
  atomic_int calls;
} storm;

static storm weather;

static void storm_released(void *data) {
  (void)data;
  atomic_fetch_add(&weather.releases, 1);
}

static void storm_cancelled(void *data) {
  (void)data;
  atomic_fetch_add(&weather.cancels, 1);
}

static int storm_push(lua_State *L, void *data) {
  (void)data;
  lua_pushinteger(L, 1);
  return 1;
}

static void storm_call(lua_State *L, void *data) {
  (void)L;
  (void)data;
  atomic_fetch_add(&weather.calls, 1);
}

/* Each thread has a reference to each source, settles them in an order of its own and lets go. */
static void *settle_somehow(void *seed) {
  unsigned random = (unsigned)(size_t)seed * 7919 + 1;
  int i, result = 0;
  for (i = 0; i < SOURCES; i++) {
    int at = (i * 7 + (int)(size_t)seed * 11) % SOURCES; /* 7 and 40 have no common factor */
    asynctask_source *s = weather.sources[at];
    asynctask_writer *w;
    random = random * 1103515245u + 12345u;
    switch (random >> 16 & 7) {
      case 0: result = asynctask_source_fail(s, "EIO", "storm", NULL); break;
      case 1: result = asynctask_source_cancel(s, "storm"); break;
      case 2: result = asynctask_source_settle(s, storm_push); break;
      case 3: result = 0; break; /* forgets it */
      case 4: EQUAL(0, asynctask_post(weather.remote, storm_call, NULL)); /* fall through */
      default:
        w = asynctask_writer_new();
        asynctask_write_table(w);
        asynctask_write_integer(w, at);
        asynctask_write_string(w, "x", 1);
        asynctask_write_end(w);
        result = asynctask_source_succeed(s, w);
    }
    if (result) {
      atomic_fetch_add(&weather.wins[at], 1);
      EQUAL(0, asynctask_source_wanted(s));
    }
    asynctask_source_release(s);
  }
  return NULL;
}

static void source_storm(void) {
  int round, i, k;
  for (round = 0; round < 30; round++) {
    lua_State *L = ready_state(NULL);
    asynctask_source_options options = {.size = sizeof options, .cancelled = storm_cancelled,
                                        .released = storm_released};
    pthread_t threads[SETTLERS];
    memset(&weather, 0, sizeof weather);
    weather.remote = asynctask_remote_new(L);
    CHECK(lua_checkstack(L, SOURCES + 20));
    for (i = 0; i < SOURCES; i++) {
      weather.sources[i] = asynctask_source_new(L, &options);
      for (k = 1; k < SETTLERS; k++) asynctask_source_retain(weather.sources[i]);
    }
    for (k = 0; k < SETTLERS; k++)
      CHECK(pthread_create(&threads[k], NULL, settle_somehow, (void *)(size_t)(round * SETTLERS + k)) == 0);
    for (i = 1; i <= SOURCES; i += 3) (void)asynctask_task_cancel(L, i, "meanwhile");
    if (round % 3 == 0) CHECK(asynctask_run(L, -1) >= 0);
    if (round % 3 == 1) EQUAL(0, asynctask_close(L, 0));
    lua_close(L);
    for (k = 0; k < SETTLERS; k++) EQUAL(0, pthread_join(threads[k], NULL));
    for (i = 0; i < SOURCES; i++) CHECK(atomic_load(&weather.wins[i]) <= 1);
    EQUAL(SOURCES, atomic_load(&weather.releases));
    CHECK(atomic_load(&weather.cancels) <= SOURCES);
    asynctask_remote_release(weather.remote);
  }
}

/* ---- a module goes while its job runs ---- */

/* Its directory is in the environment. */
static void unload(void) {
  const char *directory = getenv("EMBED_MODULES");
  int round;
  CHECK(directory != NULL);
  for (round = 0; round < 6; round++) {
    lua_State *L = ready_state(NULL);
    lua_pushfstring(L, "%s/?.so", directory);
    lua_setglobal(L, "modules");
    lua_pushboolean(L, round % 2);
    lua_setglobal(L, "blocking");
    run_chunk(L, "package.cpath = modules local busy = require 'busy'\n"
                 "for i = 1, 4 do _G['job' .. i] = busy(blocking) end await(task.delay(0.005))");
    lua_close(L); /* unloads what nobody holds */
    rest(0.05);
  }
}

static const test_case cases[] = {
    {"close_in_callbacks", close_in_callbacks},
    {"call_inside", call_inside},
    {"await_in_callbacks", await_in_callbacks},
    {"spawn_in_callbacks", spawn_in_callbacks},
    {"posts_without_end", posts_without_end},
    {"closers_try", closers_try},
    {"not_a_task", not_a_task},
    {"old_structures", old_structures},
    {"on_coroutines", on_coroutines},
    {"nested_states", nested_states},
    {"source_storm", source_storm},
    {"unload", unload},
    {NULL, NULL},
};

int main(int argc, char **argv) { return run_cases(cases, argc, argv); }
