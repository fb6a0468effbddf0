/* embed_sources.c - tasks, functions that wait, errors, completion sources and writers of the public C API, used as
** the header says and as it says they must not be. Built and run by spec/host/embed_spec.lua. */
#include "embed.h"

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
    {NULL, NULL},
};

int main(int argc, char **argv) { return run_cases(cases, argc, argv); }
