/* embed_work.c - tasks, sources, writers, jobs, transfers, streams and feeds of the public C API, used as the
** header says and as it says they must not be. Built and run by spec/host/embed_spec.lua. */
#include "embed.h"

#include <sys/socket.h>
#include <unistd.h>

static atomic_int released;
static int cancelled;

static void on_released(void *data) {
  (void)data;
  atomic_fetch_add(&released, 1);
}

static void on_cancelled(void *data) {
  (void)data;
  EQUAL(0, atomic_load(&released)); /* released is the last call of all */
  cancelled++;
}

/* [-0, +1, -] a source whose callbacks count. */
static asynctask_source *counted_source(lua_State *L) {
  asynctask_source_options options = {
      .size = sizeof options, .name = "counted", .cancelled = on_cancelled, .released = on_released};
  asynctask_source *s;
  atomic_store(&released, 0);
  cancelled = 0;
  s = asynctask_source_new(L, &options);
  CHECK(s != NULL);
  EQUAL(ASYNCTASK_PENDING, asynctask_task_state(L, -1));
  return s;
}

/* The code of the error at the top. */
static const char *code_at_top(lua_State *L) {
  const char *code;
  CHECK(lua_istable(L, -1));
  lua_getfield(L, -1, "code");
  code = lua_tostring(L, -1);
  lua_pop(L, 1);
  return code == NULL ? "" : code;
}

/* The Task at the top has faulted, or was cancelled, with that code. Pops it. */
static void expect_error(lua_State *L, asynctask_state state, const char *code) {
  EQUAL(state, asynctask_task_state(L, -1));
  EQUAL(-1, asynctask_task_values(L, -1));
  if (strcmp(code, code_at_top(L)) != 0) {
    fprintf(stderr, "the code is %s, not %s\n", code_at_top(L), code);
    exit(1);
  }
  lua_pop(L, 2);
}

/* Runs the loop until the Task at the top has settled. */
static void settle_top(lua_State *L) {
  double end = now() + 60;
  while (asynctask_task_state(L, -1) == ASYNCTASK_PENDING && now() < end) CHECK(asynctask_run(L, 0.01) >= 0);
  CHECK(asynctask_task_state(L, -1) != ASYNCTASK_PENDING);
}

/* ---- tasks ---- */

static int settled_states[8], settled_count, settled_values;

static void on_settled(lua_State *L, asynctask_state state, int n, void *data) {
  (void)data;
  if (L == NULL) return;
  settled_states[settled_count++] = (int)state;
  settled_values = n;
  EQUAL(1, lua_checkstack(L, 30));
  lua_pushliteral(L, "ignored");
  asynctask_spawn((luaL_loadstring(L, "started = (started or 0) + 1"), L), 0); /* it may spawn */
}

static void tasks(void) {
  lua_State *L = ready_state(NULL);
  int top = lua_gettop(L);
  settled_count = 0;
  lua_pushinteger(L, 5);
  EQUAL(ASYNCTASK_NOT_A_TASK, asynctask_task_state(L, -1));
  lua_pop(L, 1);
  EQUAL(ASYNCTASK_NOT_A_TASK, asynctask_task_state(L, 100)); /* none at all */

  spawn_chunk(L, "return 1, nil, 'three'");
  EQUAL(ASYNCTASK_SUCCEEDED, asynctask_task_state(L, -1));
  asynctask_on_settled(L, -1, on_settled, NULL); /* it has settled already */
  EQUAL(0, settled_count);                       /* never at once (S4) */
  EQUAL(3, asynctask_task_values(L, -1));
  EQUAL(1, lua_tointeger(L, -3));
  CHECK(lua_isnil(L, -2));
  CHECK(strcmp(lua_tostring(L, -1), "three") == 0);
  lua_settop(L, top);
  CHECK(asynctask_run(L, 0.01) >= 0);
  EQUAL(1, settled_count);
  EQUAL(ASYNCTASK_SUCCEEDED, settled_states[0]);
  EQUAL(3, settled_values);
  EQUAL(1, integer_of(L, "return started"));

  spawn_chunk(L, "error({ mine = 7 })");
  EQUAL(ASYNCTASK_FAULTED, asynctask_task_state(L, -1));
  asynctask_on_settled(L, -1, on_settled, NULL);
  EQUAL(-1, asynctask_task_values(L, -1));
  EQUAL(LUA_TNUMBER, lua_getfield(L, -1, "mine"));
  EQUAL(0, (lua_settop(L, top + 1), asynctask_task_cancel(L, -1, "late")));
  lua_settop(L, top);
  CHECK(asynctask_run(L, 0.01) >= 0);
  EQUAL(ASYNCTASK_FAULTED, settled_states[1]);
  EQUAL(1, settled_values);

  spawn_chunk(L, "await(task.delay(1000))");
  EQUAL(-2, asynctask_task_values(L, -1));
  EQUAL(top + 1, lua_gettop(L));
  asynctask_on_settled(L, -1, on_settled, NULL);
  EQUAL(1, asynctask_task_cancel(L, -1, "enough"));
  settle_top(L);
  EQUAL(0, asynctask_task_cancel(L, -1, NULL));
  CHECK(asynctask_run(L, 0.01) >= 0);
  EQUAL(ASYNCTASK_CANCELLED, settled_states[2]);
  EQUAL(3, settled_count);
  EQUAL(-1, asynctask_task_values(L, -1));
  EQUAL(LUA_TSTRING, lua_getfield(L, -1, "reason"));
  CHECK(strcmp(lua_tostring(L, -1), "enough") == 0);
  lua_settop(L, top);
  EQUAL(0, integer_of(L, "collectgarbage() collectgarbage() await(task.delay(0)) return reports")); /* all were observed */
  lua_close(L);
}

static int after(lua_State *L, int status, lua_KContext before) {
  int n = lua_gettop(L) - (int)before;
  CHECK(status == LUA_OK || status == LUA_YIELD);
  lua_pushinteger(L, n);
  lua_insert(L, (int)before + 1);
  return n + 1; /* how many there are, and they */
}

static int l_wait(lua_State *L) {
  lua_settop(L, 1);
  lua_pushvalue(L, 1);
  return asynctask_await(L, 1, after);
}

static void await_in_c(void) {
  lua_State *L = ready_state(NULL);
  lua_register(L, "wait", l_wait);
  EQUAL(3, integer_of(L, "local n, a, b, c = wait(task.delay(0.001, 1, nil, 3)) assert(a == 1 and b == nil and c == 3) return n"));
  EQUAL(0, integer_of(L, "return (wait(task.delay(0.001)))"));
  EQUAL(2, integer_of(L, "return (await(task.spawn(function() local n, a, b = wait(task.delay(0.001, 4, 5))\n"
                         "assert(a == 4 and b == 5) return n end)))"));
  EQUAL(1, integer_of(L, "return (await(task.spawn(wait, task.from_result 'x')))"));
  EQUAL(1, integer_of(L, "local e = {} local ok, got = pcall(wait, task.from_error(e)) return not ok and got == e and 1 or 0"));
  EQUAL(1, integer_of(L, "local e = {} local t = task.spawn(function() await(task.delay(0.001)) error(e) end)\n"
                         "return await(task.spawn(function() local ok, got = pcall(wait, t) return not ok and got == e and 1 or 0 end))"));
  EQUAL(1, integer_of(L, "local t = task.spawn(wait, task.delay(1000)) t:cancel('no') local _, e = t:try()\n"
                         "return e.code == 'ECANCELED' and e.reason == 'no' and 1 or 0"));
  EQUAL(1, integer_of(L, "local ok, e = pcall(wait, 5) return not ok and tostring(e):find 'bad argument' and 1 or 0"));
  EQUAL(1, integer_of(L, "return await(task.spawn(function()\n"
                         "local ok, e = pcall(table.sort, {2, 1}, function() wait(task.delay(0.001)) end)\n"
                         "return not ok and tostring(e):find 'cannot be suspended' and 1 or 0 end))"));
  lua_close(L);
}

static void error_objects(void) {
  lua_State *L = ready_state(NULL);
  int top = lua_gettop(L);
  asynctask_push_error(L, "ENOENT", "load", "no such level");
  CHECK(strcmp(luaL_tolstring(L, -1, NULL), "load: no such level (ENOENT)") == 0);
  lua_settop(L, top);
  asynctask_push_error(L, "ENOENT", NULL, NULL);
  CHECK(strcmp(luaL_tolstring(L, -1, NULL), "no such file or directory (ENOENT)") == 0);
  lua_settop(L, top);
  asynctask_push_error(L, "EMINE", "dig", NULL);
  CHECK(strcmp(code_at_top(L), "EMINE") == 0);
  lua_settop(L, top);
  CHECK(strcmp(asynctask_strerror(UV_ENOENT), "no such file or directory") == 0);
  CHECK(asynctask_strerror(0) != NULL && asynctask_strerror(-987654) != NULL && asynctask_strerror(77) != NULL);
  lua_close(L);
}

/* ---- sources and writers ---- */

typedef struct settler {
  asynctask_source *source;
  asynctask_writer *values;
  int result;
} settler;

static void *settle_on_thread(void *data) {
  settler *s = data;
  s->result = asynctask_source_succeed(s->source, s->values);
  asynctask_source_release(s->source);
  return NULL;
}

static void values_of_a_thread(void) {
  lua_State *L = ready_state(NULL);
  settler s = {.source = counted_source(L), .values = asynctask_writer_new()};
  asynctask_writer *w = s.values;
  pthread_t thread;
  int i;
  lua_setglobal(L, "t");
  asynctask_write_nil(w);
  asynctask_write_boolean(w, 7);
  asynctask_write_integer(w, LUA_MININTEGER);
  asynctask_write_number(w, 3);
  asynctask_write_string(w, "a\0b", 3);
  asynctask_write_string(w, "", 0);
  asynctask_write_table(w);
  asynctask_write_integer(w, 1);
  asynctask_write_table(w);
  asynctask_write_boolean(w, 0);
  asynctask_write_string(w, "inner", 5);
  asynctask_write_end(w);
  asynctask_write_number(w, 2);
  asynctask_write_string(w, "two", 3);
  asynctask_write_end(w);
  for (i = 0; i < 100; i++) asynctask_write_table(w), asynctask_write_string(w, "d", 1);
  asynctask_write_integer(w, 99);
  for (i = 0; i < 100; i++) asynctask_write_end(w);
  EQUAL(1, asynctask_alive(L)); /* unsettled: something may still come */
  CHECK(pthread_create(&thread, NULL, settle_on_thread, &s) == 0);
  EQUAL(8, integer_of(L,
                      "local r = table.pack(await(t))\n"
                      "assert(r[1] == nil and r[2] == true and r[3] == math.mininteger and r[4] == 3.0)\n"
                      "assert(math.type(r[4]) == 'float' and r[5] == 'a\\0b' and r[6] == '')\n"
                      "assert(r[7][1][false] == 'inner' and r[7][2] == 'two')\n"
                      "local d = r[8] for _ = 1, 99 do d = d.d end assert(d.d == 99)\n"
                      "return r.n"));
  EQUAL(0, pthread_join(thread, NULL));
  EQUAL(1, s.result);
  EQUAL(1, atomic_load(&released));
  EQUAL(0, cancelled);
  lua_close(L);
}

static asynctask_writer *one_integer(int n) {
  asynctask_writer *w = asynctask_writer_new();
  asynctask_write_integer(w, n);
  return w;
}

static void settled_once(void) {
  lua_State *L = ready_state(NULL);
  asynctask_source *s = counted_source(L);
  EQUAL(1, asynctask_source_wanted(s));
  EQUAL(1, asynctask_source_succeed(s, one_integer(1)));
  EQUAL(0, asynctask_source_wanted(s));
  EQUAL(0, asynctask_source_succeed(s, one_integer(2))); /* taken in any case */
  EQUAL(0, asynctask_source_succeed(s, NULL));
  EQUAL(0, asynctask_source_fail(s, "EIO", "x", "y"));
  EQUAL(0, asynctask_source_cancel(s, "late"));
  EQUAL(s == asynctask_source_retain(s), 1);
  asynctask_source_release(s);
  EQUAL(0, atomic_load(&released));
  asynctask_source_release(s);
  settle_top(L);
  EQUAL(1, asynctask_task_values(L, -1));
  EQUAL(1, lua_tointeger(L, -1));
  lua_settop(L, 0);
  EQUAL(0, integer_of(L, "collectgarbage() return reports"));
  EQUAL(1, atomic_load(&released));

  s = counted_source(L);
  EQUAL(1, asynctask_source_fail(s, "EIO", "measure", "the sensor is gone"));
  asynctask_source_release(s);
  settle_top(L);
  expect_error(L, ASYNCTASK_FAULTED, "EIO");

  s = counted_source(L);
  EQUAL(1, asynctask_source_cancel(s, "not today"));
  asynctask_source_release(s);
  settle_top(L);
  expect_error(L, ASYNCTASK_CANCELLED, "ECANCELED");

  s = counted_source(L);
  asynctask_source_release(s); /* nobody will settle it */
  settle_top(L);
  expect_error(L, ASYNCTASK_FAULTED, "EABANDONED");

  s = counted_source(L);
  EQUAL(1, asynctask_source_succeed(s, NULL)); /* no values */
  asynctask_source_release(s);
  settle_top(L);
  EQUAL(0, asynctask_task_values(L, -1));
  lua_close(L);
}

static void source_cancelled(void) {
  lua_State *L = ready_state(NULL);
  asynctask_source *s = counted_source(L);
  EQUAL(1, asynctask_task_cancel(L, -1, "changed my mind"));
  CHECK(asynctask_run(L, 0.001) >= 0);
  EQUAL(1, cancelled);
  EQUAL(0, asynctask_source_wanted(s));
  EQUAL(0, asynctask_source_succeed(s, one_integer(1)));
  EQUAL(0, atomic_load(&released));
  asynctask_source_release(s);
  settle_top(L);
  expect_error(L, ASYNCTASK_CANCELLED, "ECANCELED");
  lua_settop(L, 0);
  run_chunk(L, "collectgarbage()");
  EQUAL(1, cancelled);
  EQUAL(1, atomic_load(&released));
  lua_close(L);
}

static asynctask_source *made;

static int l_make(lua_State *L) {
  made = counted_source(L);
  return 1;
}

static int l_make_late(lua_State *L) {
  asynctask_source_options options = {.size = sizeof options, .cancelled = on_cancelled, .released = on_released};
  atomic_store(&released, 0);
  cancelled = 0;
  made = asynctask_source_new(L, &options);
  EQUAL(ASYNCTASK_CANCELLED, asynctask_task_state(L, -1)); /* the scope is being cancelled */
  EQUAL(0, asynctask_source_wanted(made));
  EQUAL(0, asynctask_source_succeed(made, NULL));
  asynctask_source_release(made);
  return 1;
}

/* The Task belongs to the scope that runs (S8). */
static void source_owned(void) {
  lua_State *L = ready_state(NULL);
  lua_register(L, "make", l_make);
  lua_register(L, "make_late", l_make_late);
  EQUAL(1, integer_of(L, "local ok, e = task.pcall(task.with_timeout, 0.01, make)\n"
                         "return not ok and e.code == 'ETIMEDOUT' and 1 or 0"));
  EQUAL(1, cancelled);
  EQUAL(0, asynctask_source_wanted(made));
  asynctask_source_release(made);
  EQUAL(1, integer_of(L, "local t = task.spawn(function() pcall(await, task.delay(1000)) make_late() end)\n"
                         "t:cancel() t:try() return t:status() == 'succeeded' and 1 or 0"));
  run_chunk(L, "collectgarbage()");
  EQUAL(1, atomic_load(&released));
  lua_close(L);
}

static void source_local(void) {
  lua_State *L = ready_state(NULL);
  asynctask_source_options options = {.size = sizeof options, .released = on_released, .local = 1};
  asynctask_source *s;
  atomic_store(&released, 0);
  s = asynctask_source_new(L, &options);
  EQUAL(0, asynctask_run(L, -1)); /* only handles of the caller's keep the loop alive */
  EQUAL(1, asynctask_source_succeed(s, one_integer(6)));
  asynctask_source_release(s);
  settle_top(L);
  EQUAL(1, asynctask_task_values(L, -1));
  EQUAL(6, lua_tointeger(L, -1));
  lua_settop(L, 0);
  run_chunk(L, "collectgarbage()");
  EQUAL(1, atomic_load(&released));

  s = counted_source(L);
  EQUAL(1, asynctask_run(L, 0.01)); /* of another thread, perhaps */
  asynctask_source_release(s);
  CHECK(asynctask_run(L, 0.01) >= 0);
  EQUAL(0, asynctask_alive(L));
  lua_close(L);
}

static int push_two(lua_State *L, void *data) {
  lua_pushinteger(L, *(int *)data);
  lua_pushliteral(L, "two");
  return 2;
}

static int push_failure(lua_State *L, void *data) {
  (void)data;
  asynctask_push_error(L, "EPROTO", "parse", NULL);
  return -1;
}

static int push_raises(lua_State *L, void *data) {
  (void)data;
  return luaL_error(L, "raised while pushing");
}

static void source_pushes(void) {
  lua_State *L = ready_state(NULL);
  int number = 12;
  asynctask_source_options options = {.size = sizeof options, .data = &number};
  asynctask_source *s = asynctask_source_new(L, &options);
  EQUAL(1, asynctask_source_settle(s, push_two));
  EQUAL(0, asynctask_source_settle(s, push_two));
  asynctask_source_release(s);
  settle_top(L);
  EQUAL(2, asynctask_task_values(L, -1));
  EQUAL(12, lua_tointeger(L, -2));
  lua_settop(L, 0);
  s = asynctask_source_new(L, &options);
  EQUAL(1, asynctask_source_settle(s, push_failure));
  asynctask_source_release(s);
  settle_top(L);
  expect_error(L, ASYNCTASK_FAULTED, "EPROTO");
  s = asynctask_source_new(L, &options);
  EQUAL(1, asynctask_source_settle(s, push_raises));
  asynctask_source_release(s);
  settle_top(L);
  EQUAL(ASYNCTASK_FAULTED, asynctask_task_state(L, -1));
  EQUAL(-1, asynctask_task_values(L, -1));
  CHECK(strstr(luaL_tolstring(L, -1, NULL), "raised while pushing") != NULL);
  lua_close(L);
}

/* Writers that were written wrongly: the Task settles, and nothing else happens. */
static void writer_misused(void) {
  int variant;
  for (variant = 0; variant < 8; variant++) {
    lua_State *L = ready_state(NULL);
    asynctask_source *s = counted_source(L);
    asynctask_writer *w = asynctask_writer_new();
    int i;
    switch (variant) {
      case 0: asynctask_write_end(w); break;
      case 1: asynctask_write_table(w); break;
      case 2: asynctask_write_table(w), asynctask_write_nil(w), asynctask_write_integer(w, 1), asynctask_write_end(w); break;
      case 3:
        asynctask_write_table(w), asynctask_write_number(w, (lua_Number)NAN), asynctask_write_integer(w, 1), asynctask_write_end(w);
        break;
      case 4: asynctask_write_table(w), asynctask_write_integer(w, 1), asynctask_write_end(w); break;
      case 5:
        for (i = 0; i < 5000; i++) asynctask_write_table(w), asynctask_write_integer(w, 1);
        break;
      case 6:
        for (i = 0; i < 101; i++) asynctask_write_table(w), asynctask_write_integer(w, 1);
        asynctask_write_integer(w, 1);
        for (i = 0; i < 101; i++) asynctask_write_end(w);
        break;
      case 7:
        for (i = 0; i < 100; i++) asynctask_write_end(w), asynctask_write_integer(w, i);
        break;
    }
    (void)asynctask_source_succeed(s, w);
    asynctask_source_release(s);
    settle_top(L);
    EQUAL(ASYNCTASK_FAULTED, asynctask_task_state(L, -1));
    lua_close(L);
    EQUAL(1, atomic_load(&released));
  }
  asynctask_writer_free(one_integer(1));
}

static void many_values(void) {
  lua_State *L = ready_state(NULL);
  asynctask_source *s = counted_source(L);
  asynctask_writer *w = asynctask_writer_new();
  int i;
  lua_setglobal(L, "t");
  for (i = 1; i <= 5000; i++) asynctask_write_integer(w, i);
  asynctask_write_table(w);
  for (i = 1; i <= 20000; i++) asynctask_write_integer(w, i), asynctask_write_string(w, "some text", 9);
  asynctask_write_end(w);
  EQUAL(1, asynctask_source_succeed(s, w));
  asynctask_source_release(s);
  EQUAL(25001, integer_of(L, "local r = table.pack(await(t)) assert(r[5000] == 5000) return r.n + #r[5001]"));
  lua_close(L);
}

static void *settle_and_go(void *data) {
  asynctask_source *s = data;
  if (asynctask_source_wanted(s)) (void)asynctask_source_succeed(s, one_integer(3));
  asynctask_source_release(s);
  return NULL;
}

/* A thread settles while the state is being closed. */
static void source_races_close(void) {
  int round;
  for (round = 0; round < 50; round++) {
    lua_State *L = ready_state(NULL);
    asynctask_source *s = counted_source(L);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, settle_and_go, s) == 0);
    if (round % 2) CHECK(asynctask_run(L, 0.0002) >= 0);
    if (round % 3 == 0) EQUAL(0, asynctask_close(L, 0));
    lua_close(L);
    EQUAL(0, pthread_join(thread, NULL));
    EQUAL(1, atomic_load(&released));
  }
}

/* A reference that outlives the state by far. */
static void source_outlives(void) {
  lua_State *L = ready_state(NULL);
  asynctask_source *s = counted_source(L);
  lua_close(L);
  EQUAL(0, asynctask_source_wanted(s));
  EQUAL(0, asynctask_source_succeed(s, one_integer(3)));
  EQUAL(0, asynctask_source_fail(s, "EIO", NULL, NULL));
  EQUAL(0, asynctask_source_settle(s, push_raises));
  EQUAL(0, atomic_load(&released));
  asynctask_source_release(s);
  EQUAL(1, atomic_load(&released));
}

/* ---- jobs ---- */

static atomic_int jobs_run, go;
static pthread_t loop_thread;

static void job_values(asynctask_job *job, void *data) {
  asynctask_writer *w = asynctask_job_result(job);
  (void)data;
  CHECK(!pthread_equal(loop_thread, pthread_self()));
  atomic_fetch_add(&jobs_run, 1);
  EQUAL(0, asynctask_job_cancelled(job));
  asynctask_write_integer(w, 20);
  asynctask_write_string(w, "x", 1);
}

static void job_fails(asynctask_job *job, void *data) {
  (void)data;
  asynctask_write_integer(asynctask_job_result(job), 1);
  asynctask_job_fail(job, "EDOM", "not a square");
}

static void job_waits(asynctask_job *job, void *data) {
  double end = now() + 60;
  (void)data;
  atomic_fetch_add(&jobs_run, 1);
  while (!asynctask_job_cancelled(job) && !atomic_load(&go) && now() < end) rest(0.001);
}

static void job_reports(asynctask_job *job, void *data) {
  int i;
  (void)data;
  for (i = 1; i <= 1000; i++) asynctask_job_progress(job, one_integer(i));
  asynctask_write_integer(asynctask_job_result(job), 1000);
}

static void submit(lua_State *L, void (*run)(asynctask_job *, void *), int blocking, int progress) {
  asynctask_job_options options = {.size = sizeof options, .name = "test", .run = run, .released = on_released,
                                   .blocking = blocking, .progress = progress};
  asynctask_job_submit(L, &options);
}

static void jobs(void) {
  int blocking;
  loop_thread = pthread_self();
  for (blocking = 0; blocking < 2; blocking++) {
    lua_State *L = ready_state(NULL);
    atomic_store(&released, 0);
    atomic_store(&jobs_run, 0);
    submit(L, job_values, blocking, 0);
    EQUAL(1, asynctask_alive(L));
    settle_top(L);
    EQUAL(2, asynctask_task_values(L, -1));
    EQUAL(20, lua_tointeger(L, -2));
    lua_settop(L, 0);
    submit(L, job_fails, blocking, 0);
    settle_top(L);
    expect_error(L, ASYNCTASK_FAULTED, "EDOM");
    run_chunk(L, "reported, last = 0, 0 function progress(n) assert(n > last) last = n reported = reported + 1 end");
    lua_getglobal(L, "progress");
    submit(L, job_reports, blocking, lua_gettop(L));
    settle_top(L);
    CHECK(asynctask_run(L, 0.01) >= 0);
    EQUAL(1, asynctask_task_values(L, -1));
    EQUAL(1000, lua_tointeger(L, -1));
    EQUAL(1000, integer_of(L, "return last")); /* the newest counts */
    CHECK(integer_of(L, "return reported") >= 1 && integer_of(L, "return reported") <= 1000);
    EQUAL(0, integer_of(L, "collectgarbage() return reports"));
    lua_close(L);
    EQUAL(3, atomic_load(&released));
    EQUAL(1, atomic_load(&jobs_run));
  }
}

static void job_progress_raises(void) {
  lua_State *L = ready_state(NULL);
  atomic_store(&released, 0);
  run_chunk(L, "function progress() error('raised in progress') end");
  lua_getglobal(L, "progress");
  submit(L, job_reports, 0, lua_gettop(L));
  settle_top(L);
  CHECK(asynctask_run(L, 0.01) >= 0);
  EQUAL(ASYNCTASK_SUCCEEDED, asynctask_task_state(L, -1));
  CHECK(integer_of(L, "collectgarbage() await(task.delay(0.001)) return reports") >= 1);
  lua_close(L);
  EQUAL(1, atomic_load(&released));
}

static void job_cancelled(void) {
  int blocking;
  for (blocking = 0; blocking < 2; blocking++) {
    lua_State *L = ready_state(NULL);
    int i, waiting = 64;
    double end = now() + 60;
    atomic_store(&released, 0);
    atomic_store(&jobs_run, 0);
    atomic_store(&go, 0);
    CHECK(lua_checkstack(L, 100));
    for (i = 0; i < waiting; i++) submit(L, job_waits, blocking, 0); /* more than there are threads */
    while (atomic_load(&jobs_run) == 0 && now() < end) rest(0.001);
    for (i = waiting; i >= 1; i--) EQUAL(1, asynctask_task_cancel(L, i, NULL));
    CHECK(asynctask_run(L, 0.01) >= 0);
    for (i = 1; i <= waiting; i++) EQUAL(ASYNCTASK_CANCELLED, asynctask_task_state(L, i));
    while (atomic_load(&released) < waiting && now() < end) CHECK(asynctask_run(L, 0.01) >= 0);
    EQUAL(waiting, atomic_load(&released));
    CHECK(atomic_load(&jobs_run) < waiting); /* those that had not started never did */
    lua_close(L);
    EQUAL(waiting, atomic_load(&released));
  }
}

/* The state goes while jobs run and wait to run. */
static void jobs_and_close(void) {
  int round;
  for (round = 0; round < 8; round++) {
    lua_State *L = ready_state(NULL);
    double end = now() + 60;
    int i;
    atomic_store(&released, 0);
    atomic_store(&jobs_run, 0);
    atomic_store(&go, 0);
    CHECK(lua_checkstack(L, 100));
    for (i = 0; i < 20; i++) submit(L, job_waits, round % 2, 0);
    if (round % 4 < 2)
      while (atomic_load(&jobs_run) == 0 && now() < end) rest(0.001);
    if (round >= 4) EQUAL(0, asynctask_close(L, 0));
    lua_close(L); /* tells them through job_cancelled */
    while (atomic_load(&released) < 20 && now() < end) rest(0.001);
    EQUAL(20, atomic_load(&released));
  }
}

static int l_submit_nothing(lua_State *L) {
  asynctask_job_options options = {.size = sizeof options};
  asynctask_job_submit(L, &options);
  return 1;
}

static void job_without_run(void) {
  lua_State *L = ready_state(NULL);
  lua_register(L, "submit_nothing", l_submit_nothing);
  EQUAL(1, integer_of(L, "return pcall(submit_nothing) and 0 or 1"));
  lua_close(L);
}

/* ---- userdata ---- */

typedef struct shared {
  atomic_int count;
  int number;
} shared;

static shared one_shared;

static void shared_attach(lua_State *L, void *pointer);

static int l_shared_gc(lua_State *L) {
  shared **p = luaL_checkudata(L, 1, "spec.shared");
  if (*p != NULL) atomic_fetch_sub(&(*p)->count, 1);
  *p = NULL;
  return 0;
}

static int l_shared_number(lua_State *L) {
  lua_pushinteger(L, (*(shared **)luaL_checkudata(L, 1, "spec.shared"))->number);
  return 1;
}

static void *shared_detach(lua_State *L, int index) {
  shared *p = *(shared **)luaL_checkudata(L, index, "spec.shared");
  if (p->number == 13) luaL_error(L, "this one stays");
  atomic_fetch_add(&p->count, 1);
  return p;
}

static void shared_drop(void *pointer) { atomic_fetch_sub(&((shared *)pointer)->count, 1); }

static void *shared_share(void *pointer) {
  atomic_fetch_add(&((shared *)pointer)->count, 1);
  return pointer;
}

static const asynctask_transfer shared_transfer = {
    .size = sizeof(asynctask_transfer), .name = "spec.shared", .detach = shared_detach, .attach = shared_attach,
    .drop = shared_drop, .share = shared_share};

static void shared_attach(lua_State *L, void *pointer) {
  shared **p;
  luaL_checkstack(L, 4, NULL);
  p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = NULL;
  if (luaL_newmetatable(L, "spec.shared")) {
    lua_pushcfunction(L, l_shared_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_shared_number);
    lua_setfield(L, -2, "__call");
    asynctask_transferable(L, &shared_transfer);
  }
  lua_setmetatable(L, -2);
  *p = pointer;
}

static void transfer(void) {
  lua_State *L = ready_state(NULL);
  one_shared.number = 8;
  atomic_store(&one_shared.count, 1);
  shared_attach(L, &one_shared);
  lua_setglobal(L, "u");
  EQUAL(8, integer_of(L, "return await(task.run(function(u) return u() end, u))"));
  EQUAL(16, integer_of(L, "local v, n = await(task.run(function(u) return u, u() end, u)) return v() + n"));
  EQUAL(8, integer_of(L, "local u = u return await(task.run(function() return u() end))")); /* an upvalue */
  EQUAL(8, integer_of(L, "local ch = require 'asynctask.channel'.shared(4) await(ch:send{ u }) return await(ch:receive())[1]()"));
  EQUAL(800, integer_of(L, "local u, sum, list = u, 0, {} for i = 1, 100 do list[i] = i end\n"
                           "for _, n in ipairs(await(require 'asynctask.parallel'.map(list, function() return u() end))) do\n"
                           "  sum = sum + n end return sum"));
  EQUAL(0, integer_of(L, "return pcall(task.run, print, u, io.stdout) and 1 or 0")); /* never received: dropped */
  EQUAL(0, integer_of(L, "local ch = require 'asynctask.channel'.shared(4) await(ch:send(u)) return 0"));
  one_shared.number = 13;
  EQUAL(1, integer_of(L, "local ok, e = pcall(task.run, print, u) return not ok and tostring(e):find 'this one stays' and 1 or 0"));
  run_chunk(L, "u = nil collectgarbage() collectgarbage()");
  lua_close(L);
  EQUAL(0, atomic_load(&one_shared.count)); /* every count was given back */
}

/* ---- streams ---- */

static void stream_fd(void) {
  lua_State *L = ready_state(NULL);
  int fds[2];
  FILE *file = tmpfile();
  char bytes[6] = "";
  CHECK(file != NULL && socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  EQUAL(0, asynctask_stream_fd(L, fds[0]));
  lua_setglobal(L, "s");
  EQUAL(6, write(fds[1], "hello\n", 6));
  EQUAL(5, integer_of(L, "await(s:write 'bye\\n') return #await(s:read())"));
  EQUAL(4, read(fds[1], bytes, 6));
  integer_of(L, "await(s:close())");
  EQUAL(0, read(fds[1], bytes, 6)); /* it took the descriptor, and closed it */
  close(fds[1]);

  CHECK(asynctask_stream_fd(L, fileno(file)) < 0); /* a file cannot be polled */
  CHECK(lua_isnil(L, -1));
  CHECK(fputs("still mine", file) >= 0);
  EQUAL(0, fclose(file));
  CHECK(asynctask_stream_fd(L, -1) < 0);
  CHECK(lua_isnil(L, -1));
  CHECK(asynctask_stream_fd(L, 987654) < 0);
  CHECK(lua_isnil(L, -1));
  EQUAL(3, lua_gettop(L));
  lua_close(L);
}

static void stream_uv(void) {
  lua_State *L = ready_state(NULL);
  uv_pipe_t *pipe = malloc(sizeof *pipe);
  int fds[2];
  CHECK(pipe != NULL && socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  uv_pipe_init(asynctask_loop(L), pipe, 0);
  EQUAL(0, uv_pipe_open(pipe, fds[0]));
  EQUAL(0, asynctask_stream_uv(L, (uv_stream_t *)pipe));
  lua_setglobal(L, "s");
  uv_close((uv_handle_t *)pipe, (uv_close_cb)free); /* the caller's; the stream has a copy */
  EQUAL(6, write(fds[1], "hello\n", 6));
  EQUAL(5, integer_of(L, "return #await(s:read())"));
  close(fds[1]);
  EQUAL(1, integer_of(L, "return await(s:read()) == nil and 1 or 0"));
  lua_close(L);
}

static int wanted;

static void on_wanted(void *data) {
  (void)data;
  wanted++;
}

static void feed(void) {
  lua_State *L = ready_state(NULL);
  asynctask_feed_options options = {.size = sizeof options, .mark = 10, .wanted = on_wanted, .released = on_released};
  asynctask_feed *f;
  wanted = 0;
  atomic_store(&released, 0);
  f = asynctask_feed_new(L, &options);
  lua_setglobal(L, "s");
  EQUAL(1, asynctask_feed_push(f, "one\n", 4));
  EQUAL(0, asynctask_feed_push(f, "two\nthree", 9)); /* past the mark: hold */
  EQUAL(0, wanted);
  EQUAL(3, integer_of(L, "return #await(s:read())"));
  EQUAL(3, integer_of(L, "return #await(s:read())"));
  CHECK(asynctask_run(L, 0.001) >= 0);
  EQUAL(1, wanted);
  asynctask_feed_end(f);
  CHECK(asynctask_feed_push(f, "x", 1) < 0); /* after the end */
  EQUAL(5, integer_of(L, "return #await(s:read())"));
  EQUAL(1, integer_of(L, "return await(s:read()) == nil and 1 or 0"));
  asynctask_feed_release(f);
  run_chunk(L, "await(s:close()) s = nil collectgarbage()");
  EQUAL(1, atomic_load(&released));

  f = asynctask_feed_new(L, &options); /* fails once what was pushed is read */
  lua_setglobal(L, "s");
  EQUAL(1, asynctask_feed_push(f, "a\n", 2));
  asynctask_feed_fail(f, "EPROTO", "decode", "bad block");
  EQUAL(1, integer_of(L, "assert(await(s:read()) == 'a') local ok, e = pcall(await, s:read()) return e.code == 'EPROTO' and 1 or 0"));
  asynctask_feed_release(f);
  run_chunk(L, "s = nil collectgarbage()");

  f = asynctask_feed_new(L, &options); /* the reader goes first */
  lua_setglobal(L, "s");
  run_chunk(L, "await(s:close()) s = nil collectgarbage() collectgarbage()");
  EQUAL(UV_EPIPE, asynctask_feed_push(f, "a", 1));
  asynctask_feed_release(f);

  atomic_store(&released, 0);
  f = asynctask_feed_new(L, &options); /* the state goes first */
  lua_close(L);
  EQUAL(1, atomic_load(&released));
  EQUAL(UV_EPIPE, asynctask_feed_push(f, "a", 1));
  asynctask_feed_end(f);
  asynctask_feed_release(f);
  EQUAL(1, atomic_load(&released));
}

/* ---- the table for modules ---- */

static int l_import(lua_State *L) {
  lua_pushinteger(L, asynctask_import(L)->version);
  return 1;
}

static int import_fails_with(lua_State *L, const char *words) {
  lua_pushcfunction(L, l_import);
  return lua_pcall(L, 0, 1, 0) != LUA_OK && strstr(luaL_tolstring(L, -1, NULL), words) != NULL;
}

static void import(void) {
  static asynctask_api fake = {.version = ASYNCTASK_VERSION_NUM + 100, .size = sizeof fake};
  lua_State *L = luaL_newstate();
  CHECK(L != NULL);
  CHECK(import_fails_with(L, "there is no 'require'"));
  luaL_openlibs(L);
  run_chunk(L, "package.path, package.cpath = '', ''");
  CHECK(import_fails_with(L, "this module needs asynctask " ASYNCTASK_VERSION));
  lua_pushlightuserdata(L, &fake);
  lua_setfield(L, LUA_REGISTRYINDEX, ASYNCTASK_API_KEY);
  CHECK(import_fails_with(L, "is loaded"));
  fake.version = ASYNCTASK_VERSION_NUM;
  fake.size = 8;
  CHECK(import_fails_with(L, "the older"));
  lua_close(L);

  L = bare_state(); /* loads it by itself */
  lua_register(L, "import", l_import);
  EQUAL(ASYNCTASK_VERSION_NUM, integer_of(L, "return import()"));
  EQUAL(ASYNCTASK_VERSION_NUM, integer_of(L, "return import()"));
  CHECK(asynctask_loop(L) != NULL);
  CHECK(lua_getfield(L, LUA_REGISTRYINDEX, ASYNCTASK_API_KEY) == LUA_TLIGHTUSERDATA);
  { /* no hole in it */
    const char *table = lua_touserdata(L, -1);
    const size_t first = offsetof(asynctask_api, open), step = sizeof(void (*)(void));
    size_t at;
    for (at = first; at < sizeof(asynctask_api); at += step) {
      void (*function)(void);
      memcpy(&function, table + at, sizeof function);
      CHECK(function != NULL);
    }
  }
  lua_close(L);
}

static const test_case cases[] = {
    {"tasks", tasks},
    {"await_in_c", await_in_c},
    {"error_objects", error_objects},
    {"values_of_a_thread", values_of_a_thread},
    {"settled_once", settled_once},
    {"source_cancelled", source_cancelled},
    {"source_owned", source_owned},
    {"source_local", source_local},
    {"source_pushes", source_pushes},
    {"writer_misused", writer_misused},
    {"many_values", many_values},
    {"source_races_close", source_races_close},
    {"source_outlives", source_outlives},
    {"jobs", jobs},
    {"job_progress_raises", job_progress_raises},
    {"job_cancelled", job_cancelled},
    {"jobs_and_close", jobs_and_close},
    {"job_without_run", job_without_run},
    {"transfer", transfer},
    {"stream_fd", stream_fd},
    {"stream_uv", stream_uv},
    {"feed", feed},
    {"import", import},
    {NULL, NULL},
};

int main(int argc, char **argv) { return run_cases(cases, argc, argv); }
