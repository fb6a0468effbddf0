/* embed_drive.c - the runtime as a host drives it, and as a host that does everything wrong drives it: step,
** run, descriptor, timeout, wake, posts, errors. Built and run by spec/host/embed_spec.lua. */
#include "embed.h"

#include <poll.h>

/* ---- a state without a runtime, and after it ---- */

static void nothing(lua_State *L, void *data) {
  (void)L;
  ++*(int *)data;
}

static void without_runtime(void) {
  lua_State *L = bare_state();
  EQUAL(UV_ENOENT, asynctask_step(L, 0.01));
  EQUAL(UV_ENOENT, asynctask_run(L, 0.01));
  EQUAL(UV_ENOENT, asynctask_close(L, 0));
  EQUAL(-1, asynctask_fd(L));
  CHECK(asynctask_timeout(L) < 0);
  EQUAL(0, asynctask_alive(L));
  CHECK(asynctask_loop(L) == NULL);
  CHECK(asynctask_remote_new(L) == NULL);
  EQUAL(0, lua_gettop(L));
  lua_close(L);
}

static void after_close(void) {
  lua_State *L = ready_state(NULL);
  int calls = 0;
  asynctask_remote *remote = asynctask_remote_new(L);
  CHECK(remote != NULL);
  spawn_chunk(L, "await(task.delay(1000))");
  lua_setglobal(L, "pending");
  EQUAL(0, asynctask_close(L, 0));
  EQUAL(UV_ENOENT, asynctask_close(L, 0));
  EQUAL(UV_ENOENT, asynctask_step(L, 0));
  EQUAL(UV_ENOENT, asynctask_run(L, 0));
  EQUAL(0, asynctask_alive(L));
  CHECK(asynctask_loop(L) == NULL);
  CHECK(asynctask_remote_new(L) == NULL);
  EQUAL(UV_ECANCELED, asynctask_call(remote, nothing, &calls));
  EQUAL(0, calls);
  EQUAL(1, integer_of(L, "return pcall(task.delay, 1) and 0 or 1"));
  EQUAL(1, integer_of(L, "return pcall(await, pending) and 0 or 1"));
  EQUAL(1, integer_of(L, "return pcall(task.spawn, print) and 0 or 1"));
  EQUAL(1, integer_of(L, "return pcall(task.run, print) and 0 or 1"));
  run_chunk(L, "pcall(require, 'asynctask.net')"); /* no crash */
  EQUAL(6, integer_of(L, "local n = 0 for w in ('the rest of the state works'):gmatch '%a+' do n = n + 1 end return n"));
  run_chunk(L, "collectgarbage()");
  asynctask_remote_release(remote);
  lua_close(L);
}

static void open_again(void) {
  asynctask_options options = {.size = sizeof options, .host_driven = 1};
  uv_loop_t one, other;
  lua_State *L = ready_state(NULL);
  CHECK(uv_loop_init(&one) == 0 && uv_loop_init(&other) == 0);
  EQUAL(0, integer_of(L, "await(task.delay(0)) return 0"));
  EQUAL(0, asynctask_open(L, &options)); /* changes who drives */
  EQUAL(1, integer_of(L, "return pcall(await, task.delay(0)) and 0 or 1"));
  options.host_driven = 0;
  EQUAL(0, asynctask_open(L, &options));
  EQUAL(0, integer_of(L, "await(task.delay(0)) return 0"));
  options.loop = &one;
  EQUAL(UV_EBUSY, asynctask_open(L, &options)); /* another loop is refused, nothing has changed */
  EQUAL(0, integer_of(L, "await(task.delay(0)) return 0"));
  lua_close(L);

  options.host_driven = 1;
  L = ready_state(&options);
  EQUAL(0, asynctask_open(L, &options)); /* the same */
  options.loop = &other;
  EQUAL(UV_EBUSY, asynctask_open(L, &options));
  CHECK(asynctask_loop(L) == &one);
  EQUAL(UV_EINVAL, asynctask_step(L, 0)); /* uv_run is its step */
  lua_close(L);
  uv_run(&one, UV_RUN_NOWAIT);
  EQUAL(0, uv_loop_close(&one));
  EQUAL(0, uv_loop_close(&other));
}

/* ---- from where it is not allowed ---- */

static int statuses[8];

static int l_statuses(lua_State *L) {
  statuses[0] = asynctask_step(L, 0.01);
  statuses[1] = asynctask_run(L, 0.01);
  statuses[2] = asynctask_close(L, 0);
  return 0;
}

static void step_in_task(void) {
  lua_State *L = driven_state();
  lua_register(L, "statuses", l_statuses);
  spawn_chunk(L, "statuses() await(task.yield()) statuses() return 5");
  EQUAL(UV_EBUSY, statuses[0]); /* a task runs until its first wait at once */
  EQUAL(UV_EBUSY, statuses[1]);
  EQUAL(UV_EBUSY, statuses[2]);
  memset(statuses, 0, sizeof statuses);
  EQUAL(0, asynctask_step(L, -1));
  EQUAL(UV_EBUSY, statuses[0]);
  EQUAL(UV_EBUSY, statuses[1]);
  EQUAL(UV_EBUSY, statuses[2]);
  EQUAL(ASYNCTASK_SUCCEEDED, asynctask_task_state(L, -1));
  lua_close(L);
}

static void in_callback(uv_timer_t *timer) {
  statuses[3] = asynctask_step(timer->data, 0.01);
  statuses[4] = asynctask_run(timer->data, 0.01);
  uv_close((uv_handle_t *)timer, NULL);
}

static void in_post(lua_State *L, void *data) {
  (void)data;
  statuses[5] = asynctask_step(L, 0.01);
  statuses[6] = asynctask_run(L, 0.01);
}

static void step_in_callback(void) {
  lua_State *L = driven_state();
  static uv_timer_t timer;
  asynctask_remote *remote = asynctask_remote_new(L);
  uv_timer_init(asynctask_loop(L), &timer);
  timer.data = L;
  uv_timer_start(&timer, in_callback, 0, 0);
  EQUAL(0, asynctask_post(remote, in_post, NULL));
  CHECK(asynctask_run(L, 0.05) >= 0);
  EQUAL(UV_EBUSY, statuses[3]);
  EQUAL(UV_EBUSY, statuses[4]);
  EQUAL(UV_EBUSY, statuses[5]);
  EQUAL(UV_EBUSY, statuses[6]);
  asynctask_remote_release(remote);
  lua_close(L);
}

/* A step never sleeps, whatever its budget. */
static void step_never_blocks(void) {
  lua_State *L = driven_state();
  double began = now();
  spawn_chunk(L, "await(task.delay(60))");
  EQUAL(0, asynctask_step(L, 30));
  EQUAL(0, asynctask_step(L, -1));
  CHECK(now() - began < 20);
  lua_close(L);
}

/* ---- descriptor, timeout, wake ---- */

static void *post_later(void *remote) {
  static int calls;
  rest(0.02);
  CHECK(asynctask_post(remote, nothing, &calls) == 0);
  return NULL;
}

static int readable(int fd, int milliseconds) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  return poll(&p, 1, milliseconds) == 1;
}

static void descriptor(void) {
  lua_State *L = driven_state();
  asynctask_remote *remote = asynctask_remote_new(L);
  pthread_t thread;
  int fd = asynctask_fd(L);
  double seconds;
  CHECK(fd >= 0);
  while (asynctask_step(L, 0.01) == 1) continue;
  CHECK(asynctask_timeout(L) < 0);
  EQUAL(0, asynctask_alive(L));
  CHECK(!readable(fd, 0));

  spawn_chunk(L, "await(task.delay(100))");
  seconds = asynctask_timeout(L);
  CHECK(seconds > 90 && seconds <= 100);
  EQUAL(1, asynctask_alive(L));

  CHECK(pthread_create(&thread, NULL, post_later, remote) == 0);
  CHECK(readable(fd, 30000)); /* another thread's post */
  EQUAL(0, pthread_join(thread, NULL));
  CHECK(asynctask_step(L, 0.01) >= 0);
  CHECK(!readable(fd, 0)); /* what was there is done */

  spawn_chunk(L, "local a, b = await(require 'asynctask.net'.pair())\n"
                 "task.spawn(function() await(task.delay(0.02)) await(a:write 'x\\n') end)\n"
                 "return await(b:read())");
  while (asynctask_task_state(L, -1) == ASYNCTASK_PENDING) {
    seconds = asynctask_timeout(L);
    CHECK(seconds >= 0);
    (void)readable(fd, (int)(seconds * 1000) + 1);
    CHECK(asynctask_step(L, 0.01) >= 0);
  }
  EQUAL(ASYNCTASK_SUCCEEDED, asynctask_task_state(L, -1));

  spawn_chunk(L, "await(task.yield())");
  CHECK(asynctask_timeout(L) == 0);
  asynctask_remote_release(remote);
  lua_close(L);
}

static atomic_int wakes;

static void wake(void *data) {
  (void)data;
  atomic_fetch_add(&wakes, 1);
}

static void wake_callback(void) {
  asynctask_options options = {.size = sizeof options, .host_driven = 1, .wake = wake};
  lua_State *L = ready_state(&options);
  asynctask_remote *remote = asynctask_remote_new(L);
  pthread_t thread;
  int i, calls = 0, before;
  double end;
  while (asynctask_step(L, 0.01) == 1) continue;
  rest(0.02);
  while (asynctask_step(L, 0.01) == 1) continue;
  before = atomic_load(&wakes);
  CHECK(pthread_create(&thread, NULL, post_later, remote) == 0);
  for (end = now() + 30; atomic_load(&wakes) == before && now() < end;) rest(0.001);
  EQUAL(before + 1, atomic_load(&wakes));
  EQUAL(0, pthread_join(thread, NULL));
  for (i = 0; i < 100; i++) EQUAL(0, asynctask_post(remote, nothing, &calls));
  rest(0.02);
  EQUAL(before + 1, atomic_load(&wakes)); /* merged until the next step */
  while (calls < 100) CHECK(asynctask_step(L, 0.01) >= 0);

  /* The system's news wake, too: bytes on a socket. */
  spawn_chunk(L, "local net = require 'asynctask.net' local a, b = await(net.pair()) peer = a\n"
                 "return await(b:read())");
  while (asynctask_step(L, 0.01) == 1) continue;
  before = atomic_load(&wakes);
  spawn_chunk(L, "await(peer:write 'hello\\n')");
  for (end = now() + 30; asynctask_task_state(L, -2) == ASYNCTASK_PENDING && now() < end;) {
    if (asynctask_timeout(L) != 0 && atomic_load(&wakes) == before) {
      rest(0.001);
      continue;
    }
    before = atomic_load(&wakes);
    CHECK(asynctask_step(L, 0.01) >= 0);
  }
  EQUAL(ASYNCTASK_SUCCEEDED, asynctask_task_state(L, -2));
  asynctask_remote_release(remote);
  lua_close(L);
  before = atomic_load(&wakes);
  rest(0.01);
  EQUAL(before, atomic_load(&wakes)); /* none after the close */
}

/* ---- run, hold, posts ---- */

static void run_bounds(void) {
  lua_State *L = ready_state(NULL);
  double began;
  EQUAL(0, asynctask_run(L, -1)); /* nothing to wait for */
  spawn_chunk(L, "await(task.delay(0.01)) done = 1");
  EQUAL(0, asynctask_run(L, -1));
  EQUAL(1, integer_of(L, "return done"));
  spawn_chunk(L, "await(task.delay(100))");
  began = now();
  EQUAL(1, asynctask_run(L, 0.03));
  CHECK(now() - began >= 0.029 && now() - began < 50);
  EQUAL(1, asynctask_run(L, 0));
  lua_close(L);
}

static void hold(void) {
  lua_State *L = ready_state(NULL);
  asynctask_remote *remote = asynctask_remote_new(L);
  pthread_t thread;
  asynctask_hold(L, 1);
  asynctask_hold(L, 1);
  EQUAL(1, asynctask_alive(L));
  EQUAL(1, asynctask_run(L, 0.01));
  asynctask_hold(L, 0);
  EQUAL(1, asynctask_run(L, 0.01)); /* counted */
  CHECK(pthread_create(&thread, NULL, post_later, remote) == 0);
  EQUAL(1, asynctask_run(L, 0.05));
  EQUAL(0, pthread_join(thread, NULL));
  asynctask_hold(L, 0);
  EQUAL(0, asynctask_alive(L));
  EQUAL(0, asynctask_run(L, -1));
  EQUAL(1, integer_of(L, "local s = task.source() local ok, e = pcall(await, s.task)\n"
                         "return not ok and tostring(e):find 'deadlock' and 1 or 0"));
  asynctask_remote_release(remote);
  lua_close(L);
}

static void settle_global(lua_State *L, void *data) {
  (void)data;
  CHECK(L != NULL);
  run_chunk(L, "held:set_result(42)");
}

static void *settle_later(void *remote) {
  rest(0.02);
  CHECK(asynctask_post(remote, settle_global, NULL) == 0);
  return NULL;
}

/* A wait on the main chunk, while held, is no deadlock: the post ends it. */
static void hold_is_no_deadlock(void) {
  lua_State *L = ready_state(NULL);
  asynctask_remote *remote = asynctask_remote_new(L);
  pthread_t thread;
  asynctask_hold(L, 1);
  CHECK(pthread_create(&thread, NULL, settle_later, remote) == 0);
  EQUAL(42, integer_of(L, "held = task.source() return (await(held.task))"));
  EQUAL(0, pthread_join(thread, NULL));
  asynctask_remote_release(remote);
  lua_close(L);
}

static int order[64], ordered;

static void note(lua_State *L, void *data) {
  if (L != NULL) {
    CHECK(lua_checkstack(L, 1));
    order[ordered++] = *(int *)data;
  }
  free(data);
}

static void posts_in_order(void) {
  lua_State *L = driven_state();
  asynctask_remote *remote = asynctask_remote_new(L);
  int i;
  ordered = 0;
  for (i = 0; i < 64; i++) {
    int *n = malloc(sizeof *n);
    CHECK(n != NULL);
    *n = i;
    EQUAL(0, asynctask_post(remote, note, n));
  }
  EQUAL(0, ordered); /* never at once */
  while (ordered < 64) CHECK(asynctask_step(L, 0.01) >= 0);
  for (i = 0; i < 64; i++) EQUAL(i, order[i]);
  asynctask_remote_release(remote);
  lua_close(L);
}

static void null_state(lua_State *L, void *data) {
  CHECK(L == NULL);
  ++*(int *)data;
}

/* Posts that came too late, and those that were under way when the state was closed. */
static void remote_outlives(void) {
  lua_State *L = ready_state(NULL);
  asynctask_remote *remote = asynctask_remote_new(L), *second = asynctask_remote_retain(remote);
  int calls = 0;
  EQUAL(0, asynctask_post(remote, null_state, &calls));
  lua_close(L);
  EQUAL(1, calls);
  EQUAL(0, asynctask_post(remote, null_state, &calls));
  EQUAL(2, calls);
  EQUAL(UV_ECANCELED, asynctask_call(remote, nothing, &calls));
  EQUAL(2, calls);
  asynctask_remote_release(remote);
  EQUAL(0, asynctask_post(second, null_state, &calls));
  EQUAL(3, calls);
  asynctask_remote_release(second);
}

typedef struct racer {
  asynctask_remote *remote;
  atomic_int calls;
} racer;

static void race_call(lua_State *L, void *data) {
  (void)L;
  atomic_fetch_add(&((racer *)data)->calls, 1);
}

static void *race_posts(void *data) {
  racer *r = data;
  int i;
  for (i = 0; i < 50; i++) CHECK(asynctask_post(r->remote, race_call, r) == 0);
  asynctask_remote_release(r->remote);
  return NULL;
}

/* Each post is called exactly once, whoever wins. */
static void post_races_close(void) {
  int round;
  for (round = 0; round < 20; round++) {
    lua_State *L = ready_state(NULL);
    racer r = {.remote = asynctask_remote_new(L)};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, race_posts, &r) == 0);
    if (round % 2) CHECK(asynctask_run(L, 0.0001) >= 0);
    lua_close(L);
    EQUAL(0, pthread_join(thread, NULL));
    EQUAL(50, atomic_load(&r.calls));
  }
}

/* ---- errors in callbacks ---- */

static void raise_error(lua_State *L, void *data) {
  (void)data;
  if (L != NULL) luaL_error(L, "raised in a callback");
}

static void raise_settled(lua_State *L, asynctask_state state, int n, void *data) {
  (void)state;
  (void)n;
  raise_error(L, data);
}

static void stack_free(lua_State *L, void *data) {
  int i;
  for (i = 0; i < 20; i++) lua_pushinteger(L, i);
  ++*(int *)data;
}

static void errors_in_callbacks(void) {
  lua_State *L = ready_state(NULL);
  asynctask_remote *remote = asynctask_remote_new(L);
  int calls = 0, top = lua_gettop(L);
  EQUAL(0, asynctask_call(remote, raise_error, NULL)); /* it was called */
  EQUAL(0, asynctask_post(remote, raise_error, NULL));
  EQUAL(0, asynctask_post(remote, stack_free, &calls));
  spawn_chunk(L, "return 1");
  asynctask_on_settled(L, -1, raise_settled, NULL);
  lua_pop(L, 1);
  EQUAL(top, lua_gettop(L));
  CHECK(asynctask_run(L, 0.02) >= 0);
  EQUAL(0, asynctask_call(remote, stack_free, &calls));
  EQUAL(2, calls);
  EQUAL(top, lua_gettop(L));
  EQUAL(3, integer_of(L, "collectgarbage() await(task.delay(0.001)) return reports"));
  asynctask_remote_release(remote);
  lua_close(L);
}

static const test_case cases[] = {
    {"without_runtime", without_runtime},
    {"after_close", after_close},
    {"open_again", open_again},
    {"step_in_task", step_in_task},
    {"step_in_callback", step_in_callback},
    {"step_never_blocks", step_never_blocks},
    {"descriptor", descriptor},
    {"wake_callback", wake_callback},
    {"run_bounds", run_bounds},
    {"hold", hold},
    {"hold_is_no_deadlock", hold_is_no_deadlock},
    {"posts_in_order", posts_in_order},
    {"remote_outlives", remote_outlives},
    {"post_races_close", post_races_close},
    {"errors_in_callbacks", errors_in_callbacks},
    {NULL, NULL},
};

int main(int argc, char **argv) { return run_cases(cases, argc, argv); }
