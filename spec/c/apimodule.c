/* apimodule.c - a C module that uses asynctask by its public header alone: links nothing of ours, gets the
** table with asynctask_import. Built and loaded by spec/host/capi_*_spec.lua, which say what is expected.
** Counts how often its callbacks were called, and what data lives. */
#include <asynctask.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const asynctask_api *at;
static atomic_int cancelled_calls, released_calls, wanted_calls, closed_calls, alive, ran;

/* ---- tasks ---- */

static int l_spawn(lua_State *L) {
  at->spawn(L, lua_gettop(L) - 1);
  return 1;
}

typedef struct callback {
  int ref;
} callback;

static void on_settled(lua_State *L, asynctask_state state, int n, void *data) {
  callback *c = data;
  int ref = c->ref;
  free(c);
  atomic_fetch_sub(&alive, 1);
  if (L == NULL) {
    atomic_fetch_add(&closed_calls, 1);
    return;
  }
  luaL_checkstack(L, 3, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  luaL_unref(L, LUA_REGISTRYINDEX, ref);
  lua_pushinteger(L, state);
  lua_rotate(L, 1, 2);
  lua_call(L, n + 1, 0);
}

/* on_settled(value, f): f(state, ...) */
static int l_on_settled(lua_State *L) {
  callback *c;
  int ref;
  lua_settop(L, 2);
  ref = luaL_ref(L, LUA_REGISTRYINDEX);
  c = malloc(sizeof *c);
  if (c == NULL) return luaL_error(L, "not enough memory");
  c->ref = ref;
  atomic_fetch_add(&alive, 1);
  at->on_settled(L, 1, on_settled, c); /* takes it, whether it raises or not */
  return 0;
}

static int l_state(lua_State *L) {
  lua_settop(L, 1);
  lua_pushinteger(L, at->task_state(L, 1));
  return 1;
}

/* values(task) -> n, ... */
static int l_values(lua_State *L) {
  int n;
  lua_settop(L, 1);
  n = at->task_values(L, 1);
  lua_pushinteger(L, n);
  lua_replace(L, 1);
  return lua_gettop(L);
}

static int l_cancel(lua_State *L) {
  lua_pushboolean(L, at->task_cancel(L, 1, luaL_optstring(L, 2, NULL)));
  return 1;
}

static int awaited(lua_State *L, int status, lua_KContext before) {
  int n = lua_gettop(L) - (int)before;
  (void)status;
  lua_pushinteger(L, n);
  lua_insert(L, (int)before + 1);
  return n + 1;
}

/* await(task) -> n, ... */
static int l_await(lua_State *L) {
  lua_settop(L, 1);
  lua_pushvalue(L, 1);
  return at->await(L, 1, awaited);
}

static int again(lua_State *L, int status, lua_KContext left) {
  (void)status;
  lua_settop(L, 1);
  if (left == 0) return 1;
  lua_pushvalue(L, 1);
  return at->await(L, left - 1, again);
}

/* await_often(task, n): waits n times for it */
static int l_await_often(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 2);
  return again(L, LUA_OK, (lua_KContext)n);
}

static int l_error(lua_State *L) {
  at->push_error(L, luaL_optstring(L, 1, NULL), luaL_optstring(L, 2, NULL), luaL_optstring(L, 3, NULL));
  return 1;
}

static int l_strerror(lua_State *L) {
  lua_pushstring(L, at->strerror((int)luaL_checkinteger(L, 1)));
  return 1;
}

/* ---- sources ---- */

typedef struct box {
  asynctask_source *s; /* counted; NULL: released */
} box;

static void on_cancelled(void *data) {
  (void)data;
  atomic_fetch_add(&cancelled_calls, 1);
}

static void on_released(void *data) {
  atomic_fetch_add(&released_calls, 1);
  atomic_fetch_sub(&alive, 1);
  free(data);
}

static void *new_data(lua_State *L) {
  void *data = malloc(16);
  if (data == NULL) luaL_error(L, "not enough memory");
  atomic_fetch_add(&alive, 1);
  return data;
}

/* source(name, is_local) -> task, source */
static int l_source(lua_State *L) {
  asynctask_source_options options = {sizeof options, NULL, on_cancelled, on_released, NULL, 0};
  box *b;
  options.name = luaL_optstring(L, 1, NULL);
  options.local = lua_toboolean(L, 2);
  lua_settop(L, 2);
  b = lua_newuserdatauv(L, sizeof *b, 0);
  b->s = NULL;
  luaL_setmetatable(L, "apimodule.Source");
  options.data = new_data(L);
  b->s = at->source_new(L, &options);
  lua_insert(L, -2);
  return 2;
}

static box *check(lua_State *L) { return luaL_checkudata(L, 1, "apimodule.Source"); }

static void write_value(lua_State *L, asynctask_writer *w, int index) {
  size_t n;
  const char *s;
  index = lua_absindex(L, index);
  luaL_checkstack(L, 6, NULL);
  switch (lua_type(L, index)) {
    case LUA_TBOOLEAN: at->write_boolean(w, lua_toboolean(L, index)); break;
    case LUA_TNUMBER:
      if (lua_isinteger(L, index)) at->write_integer(w, lua_tointeger(L, index));
      else at->write_number(w, lua_tonumber(L, index));
      break;
    case LUA_TSTRING:
      s = lua_tolstring(L, index, &n);
      at->write_string(w, s, n);
      break;
    case LUA_TTABLE:
      at->write_table(w);
      lua_pushnil(L);
      while (lua_next(L, index)) {
        write_value(L, w, -2);
        write_value(L, w, -1);
        lua_pop(L, 1);
      }
      at->write_end(w);
      break;
    default: at->write_nil(w);
  }
}

/* s:succeed(...) */
static int l_succeed(lua_State *L) {
  box *b = check(L);
  asynctask_writer *w = NULL;
  int i, n = lua_gettop(L);
  if (n > 1) w = at->writer_new();
  for (i = 2; i <= n; i++) write_value(L, w, i);
  lua_pushboolean(L, at->source_succeed(b->s, w));
  return 1;
}

static int l_fail(lua_State *L) {
  box *b = check(L);
  lua_pushboolean(L, at->source_fail(b->s, luaL_optstring(L, 2, NULL), luaL_optstring(L, 3, NULL),
                                     luaL_optstring(L, 4, NULL)));
  return 1;
}

static int l_source_cancel(lua_State *L) {
  box *b = check(L);
  lua_pushboolean(L, at->source_cancel(b->s, luaL_optstring(L, 2, NULL)));
  return 1;
}

static int push_two(lua_State *L, void *data) {
  lua_pushlightuserdata(L, data);
  lua_pushliteral(L, "two");
  return 2;
}

static int push_error(lua_State *L, void *data) {
  (void)data;
  at->push_error(L, "EMINE", "push", "an error of mine");
  return -1;
}

static int push_raises(lua_State *L, void *data) {
  (void)data;
  return luaL_error(L, "push raises");
}

static int push_lies(lua_State *L, void *data) {
  (void)data;
  lua_pushinteger(L, 1);
  return 5;
}

static int push_many(lua_State *L, void *data) {
  int i;
  (void)data;
  luaL_checkstack(L, 500, NULL);
  for (i = 1; i <= 500; i++) lua_pushinteger(L, i);
  return 500;
}

static int push_calls(lua_State *L, void *data) {
  (void)data;
  lua_getglobal(L, "api_push");
  lua_call(L, 0, LUA_MULTRET);
  return lua_gettop(L);
}

/* s:settle("two" | "error" | "raises" | "lies" | "many" | "calls": the global api_push) */
static int l_settle(lua_State *L) {
  static const char *const names[] = {"two", "error", "raises", "lies", "many", "calls", NULL};
  static int (*const functions[])(lua_State *, void *) = {push_two, push_error, push_raises, push_lies,
                                                          push_many, push_calls};
  box *b = check(L);
  lua_pushboolean(L, at->source_settle(b->s, functions[luaL_checkoption(L, 2, NULL, names)]));
  return 1;
}

static int l_wanted(lua_State *L) {
  lua_pushboolean(L, at->source_wanted(check(L)->s));
  return 1;
}

static int l_retain(lua_State *L) {
  (void)at->source_retain(check(L)->s);
  return 0;
}

/* s:release([keep]): `keep`: one of several references */
static int l_release(lua_State *L) {
  box *b = check(L);
  at->source_release(b->s);
  if (lua_type(L, 2) != LUA_TBOOLEAN) b->s = NULL;
  return 0;
}

/* Writer calls in any order: write("table", "nil", 1, ...) -> Task. Names stand for calls. */
static int l_write(lua_State *L) {
  asynctask_source_options options = {sizeof options, "written", NULL, NULL, NULL, 1};
  int i, n = lua_gettop(L);
  asynctask_source *s = at->source_new(L, &options);
  asynctask_writer *w = at->writer_new();
  for (i = 1; i <= n; i++) {
    const char *name = lua_type(L, i) == LUA_TSTRING ? lua_tostring(L, i) : "";
    if (strcmp(name, "table") == 0) at->write_table(w);
    else if (strcmp(name, "end") == 0) at->write_end(w);
    else if (strcmp(name, "nil") == 0) at->write_nil(w);
    else if (strcmp(name, "nan") == 0) at->write_number(w, (lua_Number)0.0 / (lua_Number)0.0 * 1.0);
    else write_value(L, w, i);
  }
  (void)at->source_succeed(s, w);
  at->source_release(s);
  return 1;
}

/* ---- sources, from threads ---- */

typedef struct crew {
  int count;
  asynctask_source *sources[]; /* each counted */
} crew;

static atomic_int busy; /* threads that have not ended */

static void *crew_main(void *arg) {
  crew *c = arg;
  int i;
  for (i = 0; i < c->count; i++) {
    asynctask_source *s = c->sources[i];
    asynctask_writer *w;
    switch (i % 5) {
      case 0:
        w = at->writer_new();
        at->write_integer(w, i);
        at->write_string(w, "some text", 9);
        (void)at->source_succeed(s, w);
        break;
      case 1: (void)at->source_fail(s, "EMINE", NULL, "mine"); break;
      case 2: (void)at->source_succeed(s, NULL); break;
      case 3: (void)at->source_cancel(s, "enough"); break;
      default: break; /* abandoned */
    }
    if (at->source_wanted(s) && i % 5 != 4) abort();
    at->source_release(s);
  }
  free(c);
  atomic_fetch_sub(&busy, 1);
  return NULL;
}

static void start_thread(void *(*body)(void *), void *arg) {
  pthread_t thread;
  atomic_fetch_add(&busy, 1);
  if (pthread_create(&thread, NULL, body, arg) != 0) abort();
  pthread_detach(thread);
}

static void pause_a_little(void) {
  struct timespec t = {0, 200000};
  nanosleep(&t, NULL);
}

/* join(): until all threads have ended */
static int l_join(lua_State *L) {
  (void)L;
  while (atomic_load(&busy) > 0) pause_a_little();
  return 0;
}

/* crowd(threads, count) -> list of Tasks: each thread settles `count` sources */

static int l_crowd(lua_State *L) {
  lua_Integer threads = luaL_checkinteger(L, 1), count = luaL_checkinteger(L, 2), i, k;
  asynctask_source_options options = {sizeof options, "crowd", on_cancelled, on_released, NULL, 0};
  lua_settop(L, 2);
  lua_createtable(L, (int)(threads * count), 0);
  for (i = 0; i < threads; i++) {
    crew *c = malloc(sizeof *c + (size_t)count * sizeof c->sources[0]);
    if (c == NULL) abort();
    c->count = (int)count;
    for (k = 0; k < count; k++) {
      options.data = new_data(L);
      c->sources[k] = at->source_new(L, &options);
      lua_rawseti(L, 3, i * count + k + 1);
    }
    start_thread(crew_main, c);
  }
  return 1;
}

/* Two threads settle the same source at the same time: exactly one is told that it did. */
typedef struct duel {
  asynctask_source *s;
  atomic_int *go;
  int won;
} duel;

static void *duel_main(void *arg) {
  duel *d = arg;
  while (!atomic_load(d->go)) continue;
  d->won = at->source_succeed(d->s, NULL);
  at->source_release(d->s);
  return NULL;
}

/* duels(n) -> how many were won by exactly one */
static int l_duels(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1), fair = 0;
  while (n-- > 0) {
    pthread_t a, b;
    atomic_int go;
    duel one, two;
    atomic_init(&go, 0);
    one.s = two.s = at->source_new(L, NULL);
    (void)at->source_retain(one.s);
    one.go = two.go = &go;
    if (pthread_create(&a, NULL, duel_main, &one) != 0 || pthread_create(&b, NULL, duel_main, &two) != 0) abort();
    atomic_store(&go, 1);
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    fair += one.won + two.won == 1;
    lua_pop(L, 1);
  }
  lua_pushinteger(L, fair);
  return 1;
}

/* ---- jobs ---- */

enum { JOB_SUM, JOB_FAIL, JOB_TWICE, JOB_PROGRESS, JOB_WAIT, JOB_MISUSE, JOB_NOTHING, JOB_BAD_PROGRESS };

typedef struct work {
  int kind, n;
} work;

static void run(asynctask_job *job, void *data) {
  work *w = data;
  lua_Integer sum = 0;
  int i;
  asynctask_writer *news;
  atomic_fetch_add(&ran, 1);
  switch (w->kind) {
    case JOB_SUM:
      for (i = 1; i <= w->n; i++) sum += i;
      at->write_integer(at->job_result(job), sum);
      at->write_string(at->job_result(job), "sum", 3);
      break;
    case JOB_FAIL: at->job_fail(job, "EMINE", "the job failed"); break;
    case JOB_TWICE:
      at->write_integer(at->job_result(job), 1);
      at->job_fail(job, "ENOENT", NULL);
      at->job_fail(job, "EAGAIN", NULL);
      break;
    case JOB_PROGRESS:
      for (i = 1; i <= w->n; i++) {
        news = at->writer_new();
        at->write_integer(news, i);
        at->write_table(news);
        at->write_end(news);
        at->job_progress(job, news);
      }
      at->write_integer(at->job_result(job), w->n);
      break;
    case JOB_WAIT:
      while (!at->job_cancelled(job)) pause_a_little();
      at->job_progress(job, at->writer_new());
      at->write_integer(at->job_result(job), 1);
      break;
    case JOB_MISUSE: at->write_table(at->job_result(job)); break;
    case JOB_BAD_PROGRESS:
      news = at->writer_new();
      at->write_end(news);
      at->job_progress(job, news);
      break;
    default: break;
  }
}

/* job(kind, n, blocking, progress, name) -> Task */
static int l_job(lua_State *L) {
  static const char *const kinds[] = {"sum", "fail", "twice", "progress", "wait", "misuse", "nothing",
                                      "bad progress", NULL};
  asynctask_job_options options = {sizeof options, NULL, run, on_released, NULL, 0, 0};
  int kind = luaL_checkoption(L, 1, NULL, kinds), n = (int)luaL_optinteger(L, 2, 0);
  work *w;
  lua_settop(L, 5);
  options.blocking = lua_toboolean(L, 3);
  options.progress = lua_isnil(L, 4) ? 0 : 4;
  options.name = luaL_optstring(L, 5, NULL);
  options.data = w = new_data(L);
  w->kind = kind;
  w->n = n;
  at->job_submit(L, &options);
  return 1;
}

/* A job without a function: raises, and lets go of the data. */
static int l_empty_job(lua_State *L) {
  asynctask_job_options options = {sizeof options, NULL, NULL, on_released, NULL, 0, 0};
  options.data = new_data(L);
  at->job_submit(L, &options);
  return 1;
}

/* ---- userdata that travels ---- */

typedef struct counter {
  atomic_int refs, value;
} counter;

static atomic_int counters, detached, attached, dropped, shares;
static atomic_int attach_fails;

static void counter_release(counter *c) {
  if (atomic_fetch_sub(&c->refs, 1) != 1) return;
  atomic_fetch_sub(&counters, 1);
  free(c);
}

static int l_counter_gc(lua_State *L) {
  counter **b = lua_touserdata(L, 1);
  if (*b != NULL) counter_release(*b);
  *b = NULL;
  return 0;
}

static counter *check_counter(lua_State *L) { return *(counter **)lua_touserdata(L, 1); }

static int l_counter_add(lua_State *L) {
  counter *c = check_counter(L);
  lua_pushinteger(L, atomic_fetch_add(&c->value, (int)luaL_checkinteger(L, 2)) + luaL_checkinteger(L, 2));
  return 1;
}

static int l_counter_value(lua_State *L) {
  lua_pushinteger(L, atomic_load(&check_counter(L)->value));
  return 1;
}

static void counter_metatable(lua_State *L, const char *name) {
  static const luaL_Reg methods[] = {{"add", l_counter_add}, {"value", l_counter_value}, {NULL, NULL}};
  (void)luaL_newmetatable(L, name);
  if (lua_getfield(L, -1, "__gc") == LUA_TNIL) {
    luaL_newlib(L, methods);
    lua_setfield(L, -3, "__index");
    lua_pushcfunction(L, l_counter_gc); /* the last one: with it, all is there */
    lua_setfield(L, -3, "__gc");
  }
  lua_pop(L, 1);
}

static void push_counter(lua_State *L, counter *c, const char *name) {
  counter **b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = NULL;
  counter_metatable(L, name);
  lua_setmetatable(L, -2);
  *b = c;
}

static void *detach(lua_State *L, int index) {
  counter *c = *(counter **)lua_touserdata(L, index);
  if (atomic_load(&c->value) < 0) luaL_error(L, "a negative counter stays here");
  atomic_fetch_add(&c->refs, 1);
  atomic_fetch_add(&detached, 1);
  return c;
}

static void attach(lua_State *L, void *pointer) {
  if (atomic_load(&attach_fails)) luaL_error(L, "attach fails");
  push_counter(L, pointer, "apimodule.Counter");
  atomic_fetch_add(&attached, 1);
}

static void attach_shy(lua_State *L, void *pointer) {
  push_counter(L, pointer, "apimodule.Shy");
  atomic_fetch_add(&attached, 1);
}

static void drop(void *pointer) {
  atomic_fetch_add(&dropped, 1);
  counter_release(pointer);
}

static void *share(void *pointer) {
  atomic_fetch_add(&((counter *)pointer)->refs, 1);
  atomic_fetch_add(&shares, 1);
  return pointer;
}

static const asynctask_transfer shared = {sizeof shared, "apimodule.Counter", detach, attach, drop, share};
/* As a module writes it that was built before there was `share`. */
static const asynctask_transfer shy = {offsetof(asynctask_transfer, share), "apimodule.Shy", detach, attach_shy,
                                       drop, NULL};
static const asynctask_transfer broken = {sizeof broken, NULL, detach, attach, drop, NULL};

/* counter([class]) -> userdata of class "Counter", "Shy" or "Home" (which does not travel) */
static int l_counter(lua_State *L) {
  counter *c;
  lua_pushfstring(L, "apimodule.%s", luaL_optstring(L, 1, "Counter"));
  push_counter(L, NULL, lua_tostring(L, -1)); /* first: it may raise */
  c = malloc(sizeof *c);
  if (c == NULL) return luaL_error(L, "not enough memory");
  atomic_init(&c->refs, 1);
  atomic_init(&c->value, 0);
  atomic_fetch_add(&counters, 1);
  *(counter **)lua_touserdata(L, -1) = c;
  return 1;
}

static int l_attach_fails(lua_State *L) {
  atomic_store(&attach_fails, lua_toboolean(L, 1));
  return 0;
}

/* broken_transfer([ours]): one that is not complete, or of a class of asynctask's */
static int l_broken_transfer(lua_State *L) {
  static const asynctask_transfer ours = {sizeof ours, "asynctask.Task", detach, attach, drop, NULL};
  at->transferable(L, lua_toboolean(L, 1) ? &ours : &broken);
  return 0;
}

/* ---- streams ---- */

static int l_stream_fd(lua_State *L) {
  int status = at->stream_fd(L, (int)luaL_checkinteger(L, 1));
  lua_pushinteger(L, status);
  return 2;
}

/* pair() -> two descriptors */
static int l_pair(lua_State *L) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return luaL_error(L, "no pair");
  lua_pushinteger(L, fds[0]);
  lua_pushinteger(L, fds[1]);
  return 2;
}

/* socket(kind): an unconnected "datagram" socket, or one that listens */
static int l_socket(lua_State *L) {
  int datagram = strcmp(luaL_checkstring(L, 1), "datagram") == 0;
  int fd = socket(AF_INET, datagram ? SOCK_DGRAM : SOCK_STREAM, 0);
  if (fd < 0 || (!datagram && listen(fd, 1) != 0)) return luaL_error(L, "no socket");
  lua_pushinteger(L, fd);
  return 1;
}

static int l_close(lua_State *L) {
  lua_pushboolean(L, close((int)luaL_checkinteger(L, 1)) == 0);
  return 1;
}

typedef struct feedbox {
  asynctask_feed *f;
} feedbox;

static void on_wanted(void *data) {
  (void)data;
  atomic_fetch_add(&wanted_calls, 1);
}

/* feed([mark]) -> stream, feed */
static int l_feed(lua_State *L) {
  asynctask_feed_options options = {sizeof options, (size_t)luaL_optinteger(L, 1, 0), on_wanted, on_released, NULL};
  feedbox *b;
  lua_settop(L, 1);
  b = lua_newuserdatauv(L, sizeof *b, 0);
  b->f = NULL;
  luaL_setmetatable(L, "apimodule.Feed");
  options.data = new_data(L);
  b->f = at->feed_new(L, &options);
  lua_insert(L, -2);
  return 2;
}

static feedbox *check_feed(lua_State *L) { return luaL_checkudata(L, 1, "apimodule.Feed"); }

static int l_feed_push(lua_State *L) {
  size_t n;
  feedbox *b = check_feed(L);
  const char *s = luaL_checklstring(L, 2, &n);
  lua_pushinteger(L, at->feed_push(b->f, s, n));
  return 1;
}

static int l_feed_finish(lua_State *L) {
  at->feed_end(check_feed(L)->f);
  return 0;
}

static int l_feed_fail(lua_State *L) {
  at->feed_fail(check_feed(L)->f, luaL_optstring(L, 2, NULL), luaL_optstring(L, 3, NULL), luaL_optstring(L, 4, NULL));
  return 0;
}

static int l_feed_release(lua_State *L) {
  feedbox *b = check_feed(L);
  at->feed_release(b->f);
  b->f = NULL;
  return 0;
}

/* ---- what happened ---- */

static void set_count(lua_State *L, const char *name, atomic_int *count) {
  lua_pushinteger(L, atomic_load(count));
  lua_setfield(L, -2, name);
}

/* import(version, size): asynctask_import, where such a table is found; NULL if 0 */
static int l_import(lua_State *L) {
  static asynctask_api other;
  const asynctask_api *mine;
  lua_settop(L, 2);
  lua_getfield(L, LUA_REGISTRYINDEX, ASYNCTASK_API_KEY);
  other.version = (int)luaL_checkinteger(L, 1);
  other.size = (size_t)luaL_checkinteger(L, 2);
  lua_pushlightuserdata(L, other.version == 0 ? NULL : &other);
  lua_setfield(L, LUA_REGISTRYINDEX, ASYNCTASK_API_KEY);
  mine = asynctask_import(L);
  lua_pushboolean(L, mine == &other);
  return 1;
}

/* restore(): the table that this module found */
static int l_restore(lua_State *L) {
  lua_pushlightuserdata(L, (void *)(size_t)at);
  lua_setfield(L, LUA_REGISTRYINDEX, ASYNCTASK_API_KEY);
  lua_pushinteger(L, at->version);
  lua_pushinteger(L, (lua_Integer)at->size);
  return 2;
}

/* counts([reset]) -> table */
static int l_counts(lua_State *L) {
  int reset = lua_toboolean(L, 1);
  lua_newtable(L);
  set_count(L, "cancelled", &cancelled_calls);
  set_count(L, "released", &released_calls);
  set_count(L, "wanted", &wanted_calls);
  set_count(L, "closed", &closed_calls);
  set_count(L, "alive", &alive);
  set_count(L, "busy", &busy);
  set_count(L, "ran", &ran);
  set_count(L, "counters", &counters);
  set_count(L, "detached", &detached);
  set_count(L, "attached", &attached);
  set_count(L, "dropped", &dropped);
  set_count(L, "shares", &shares);
  if (reset) {
    atomic_store(&cancelled_calls, 0);
    atomic_store(&released_calls, 0);
    atomic_store(&wanted_calls, 0);
    atomic_store(&ran, 0);
    atomic_store(&detached, 0);
    atomic_store(&attached, 0);
    atomic_store(&dropped, 0);
    atomic_store(&shares, 0);
  }
  return 1;
}

int luaopen_apimodule(lua_State *L);

int luaopen_apimodule(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"spawn", l_spawn},       {"on_settled", l_on_settled}, {"state", l_state},
      {"values", l_values},     {"cancel", l_cancel},         {"await", l_await},
      {"await_often", l_await_often}, {"error", l_error},     {"strerror", l_strerror},
      {"source", l_source},     {"write", l_write},           {"crowd", l_crowd},
      {"duels", l_duels},       {"job", l_job},               {"empty_job", l_empty_job},
      {"counter", l_counter},   {"attach_fails", l_attach_fails}, {"broken_transfer", l_broken_transfer},
      {"stream_fd", l_stream_fd}, {"pair", l_pair},           {"socket", l_socket},
      {"close", l_close},       {"feed", l_feed},             {"counts", l_counts},
      {"join", l_join},         {"import", l_import},     {"restore", l_restore},
      {NULL, NULL}};
  static const luaL_Reg source_methods[] = {
      {"succeed", l_succeed}, {"fail", l_fail},     {"cancel", l_source_cancel}, {"settle", l_settle},
      {"wanted", l_wanted},   {"retain", l_retain}, {"release", l_release},      {NULL, NULL}};
  static const luaL_Reg feed_methods[] = {{"push", l_feed_push},   {"finish", l_feed_finish},
                                          {"fail", l_feed_fail},   {"release", l_feed_release},
                                          {NULL, NULL}};
  const asynctask_api *found = asynctask_import(L);
  if (at != found) at = found; /* the first state: no thread of ours reads it yet */
  luaL_newmetatable(L, "apimodule.Source");
  luaL_newlib(L, source_methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, l_release);
  lua_setfield(L, -2, "__gc");
  luaL_newmetatable(L, "apimodule.Feed");
  luaL_newlib(L, feed_methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, l_feed_release);
  lua_setfield(L, -2, "__gc");
  at->transferable(L, &shared);
  at->transferable(L, &shy);
  luaL_newlib(L, functions);
  return 1;
}
