/* embed_budget.c - a host that gives its scripts two milliseconds is held for that and one resume, whatever they
** have to do. What is asserted is how many resumes of a millisecond there are in one step, not how long it
** takes. Built and run by spec/host/embed_spec.lua. */
#include "embed.h"

static int resumes;

/* Computes for a millisecond, or longer where the machine is busy, never less. */
static int l_compute(lua_State *L) {
  double end = now() + 0.001;
  (void)L;
  resumes++;
  while (now() < end) continue;
  return 0;
}

/* A thousand tasks of a millisecond each, all ready at once: a step of two milliseconds begins two of them. A
** third may begin when the clock that is looked at lags by a little. */
static void budget_of(const char *wait) {
  lua_State *L = driven_state();
  char chunk[200];
  int steps = 0, total = 0, status = 1, most = 0;
  resumes = 0;
  lua_register(L, "compute", l_compute);
  snprintf(chunk, sizeof chunk, "for i = 1, 1000 do task.spawn(function() await(%s) compute() end) end return 0", wait);
  integer_of(L, chunk);
  EQUAL(0, resumes);
  rest(0.03); /* all are due */
  while (total < 1000) {
    resumes = 0;
    status = asynctask_step(L, 0.002);
    CHECK(status >= 0);
    if (resumes > most) most = resumes;
    total += resumes;
    CHECK(++steps < 10000);
    if (total < 1000) EQUAL(1, status); /* more is ready */
  }
  CHECK(most >= 1 && most <= 3);
  CHECK(steps >= 333);
  while ((status = asynctask_step(L, 0.002)) == 1) CHECK(++steps < 10000);
  EQUAL(0, status);
  EQUAL(0, asynctask_alive(L));
  EQUAL(0, integer_of(L, "return reports"));
  lua_close(L);
}

static void budget_ready(void) { budget_of("task.yield()"); }
static void budget_timers(void) { budget_of("task.delay(0.01)"); }

/* One task that gives way all the time must not hold the host either. */
static void budget_loop(void) {
  lua_State *L = driven_state();
  int i;
  lua_register(L, "compute", l_compute);
  spawn_chunk(L, "while true do await(task.yield()) compute() end");
  for (i = 0; i < 20; i++) {
    resumes = 0;
    EQUAL(1, asynctask_step(L, 0.002));
    CHECK(resumes <= 3);
  }
  lua_close(L);
}

static void budget_zero(void) {
  lua_State *L = driven_state();
  int steps = 0;
  lua_register(L, "compute", l_compute);
  integer_of(L, "for i = 1, 20 do task.spawn(function() await(task.yield()) compute() end) end return 0");
  resumes = 0;
  while (resumes < 20) {
    int before = resumes;
    CHECK(asynctask_step(L, 0) >= 0);
    CHECK(resumes <= before + 1); /* one task */
    CHECK(++steps < 1000);
  }
  lua_close(L);
}

static void budget_negative(void) {
  lua_State *L = driven_state();
  integer_of(L, "count = 0 for i = 1, 500 do task.spawn(function() await(task.yield()) count = count + 1 end) end return 0");
  EQUAL(0, asynctask_step(L, -1)); /* until nothing is ready */
  EQUAL(500, integer_of(L, "return count"));
  EQUAL(0, asynctask_step(L, -1));
  lua_close(L);
}

/* ---- what else runs in a step ---- */

/* Steps until `compute` was called `total` times, at most three times in each step. */
static void step_through(lua_State *L, int total) {
  int done = 0, steps = 0;
  while (done < total) {
    resumes = 0;
    CHECK(asynctask_step(L, 0.002) >= 0);
    CHECK(resumes <= 3);
    done += resumes;
    if (asynctask_timeout(L) != 0) rest(0.001);
    CHECK(++steps < 20000);
  }
  EQUAL(total, done);
}

static void compute_in_post(lua_State *L, void *data) {
  (void)data;
  if (L != NULL) l_compute(L);
}

static void budget_posts(void) {
  lua_State *L = driven_state();
  asynctask_remote *remote = asynctask_remote_new(L);
  int i;
  for (i = 0; i < 200; i++) EQUAL(0, asynctask_post(remote, compute_in_post, NULL));
  step_through(L, 200);
  asynctask_remote_release(remote);
  lua_close(L);
}

static void compute_when_settled(lua_State *L, asynctask_state state, int n, void *data) {
  (void)state;
  (void)n;
  (void)data;
  if (L != NULL) l_compute(L);
}

/* Callbacks of C for tasks that settle together. */
static void budget_settled(void) {
  lua_State *L = driven_state();
  int i;
  for (i = 0; i < 200; i++) {
    spawn_chunk(L, "await(task.yield())");
    asynctask_on_settled(L, -1, compute_when_settled, NULL);
    lua_pop(L, 1);
  }
  step_through(L, 200);
  lua_close(L);
}

/* Waiters and continuations of one task. */
static void budget_waiters(void) {
  lua_State *L = driven_state();
  lua_register(L, "compute", l_compute);
  integer_of(L, "local source = task.source()\n"
                "for i = 1, 100 do task.spawn(function() await(source.task) compute() end) end\n"
                "for i = 1, 100 do source.task:continue_with(compute) end\n"
                "source:set_result(1) return 0");
  step_through(L, 200);
  lua_close(L);
}

/* Sources that a thread has settled. */
static int push_computes(lua_State *L, void *data) {
  (void)data;
  l_compute(L);
  return 0;
}

static void *settle_all(void *data) {
  asynctask_source **sources = data;
  int i;
  for (i = 0; i < 100; i++) {
    EQUAL(1, asynctask_source_settle(sources[i], push_computes));
    asynctask_source_release(sources[i]);
  }
  return NULL;
}

static void budget_sources(void) {
  lua_State *L = driven_state();
  asynctask_source_options options = {.size = sizeof options};
  asynctask_source *sources[100];
  pthread_t thread;
  int i;
  CHECK(lua_checkstack(L, 120));
  for (i = 0; i < 100; i++) sources[i] = asynctask_source_new(L, &options);
  CHECK(pthread_create(&thread, NULL, settle_all, sources) == 0);
  EQUAL(0, pthread_join(thread, NULL));
  step_through(L, 100);
  lua_close(L);
}

/* Bytes that lie ready on a hundred sockets. */
static void budget_sockets(void) {
  lua_State *L = driven_state();
  lua_register(L, "compute", l_compute);
  resumes = 0;
  integer_of(L, "local net = require 'asynctask.net' ready = 0\n"
                "for i = 1, 100 do task.spawn(function() local a, b = await(net.pair())\n"
                "  await(a:write 'x\\n') ready = ready + 1 await(task.delay(0.05)) await(b:read()) compute() end) end return 0");
  step_through(L, 100);
  EQUAL(0, integer_of(L, "return reports"));
  lua_close(L);
}

/* A progress function, and what a job gives back. */
static void budget_jobs(void) {
  lua_State *L = driven_state();
  lua_register(L, "compute", l_compute);
  integer_of(L, "for i = 1, 100 do task.spawn(function() await(task.run(function() return 1 end)) compute() end) end return 0");
  step_through(L, 100);
  lua_close(L);
}

static const test_case cases[] = {
    {"budget_ready", budget_ready},
    {"budget_timers", budget_timers},
    {"budget_loop", budget_loop},
    {"budget_zero", budget_zero},
    {"budget_negative", budget_negative},
    {"budget_posts", budget_posts},
    {"budget_settled", budget_settled},
    {"budget_waiters", budget_waiters},
    {"budget_sources", budget_sources},
    {"budget_sockets", budget_sockets},
    {"budget_jobs", budget_jobs},
    {NULL, NULL},
};

int main(int argc, char **argv) { return run_cases(cases, argc, argv); }
