/* embed_jobs.c - jobs, userdata between threads, streams, feeds and the table for modules of the public C API, used
** as the header says and as it says they must not be. Built and run by spec/host/embed_spec.lua. */
#include "embed.h"

#include <sys/socket.h>
#include <unistd.h>

static atomic_int released;

static void on_released(void *data) {
  (void)data;
  atomic_fetch_add(&released, 1);
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
