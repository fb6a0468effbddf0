/* module.c - a C module for other people's programs that uses asynctask and links nothing of it: the
** functions come from the table that asynctask_import finds in the state.
**
**     module.length(task)              waits for a Task, gives the length of its first value
**     module.measure(seconds)          a Task that a thread of the module's own settles
**     module.primes(n, progress)       a Task of a job on the pool: how many primes there are below n
**
** The thread of `measure` may outlive the state, so this object is linked with -z nodelete. */
#include <asynctask.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

int luaopen_module(lua_State *L);

/* Each function has the table as its first upvalue. */
static const asynctask_api *api_of(lua_State *L) { return lua_touserdata(L, lua_upvalueindex(1)); }

/* ---- a function that waits ---- */

/* Here the function goes on, whether it had to wait or not. stack: task value... */
static int measured_length(lua_State *L, int status, lua_KContext before) {
  (void)status;
  if (lua_gettop(L) == (int)before) return luaL_error(L, "the task has no value");
  lua_pushinteger(L, luaL_len(L, (int)before + 1));
  return 1;
}

static int l_length(lua_State *L) {
  lua_settop(L, 1);
  lua_pushvalue(L, 1); /* stack: task task */
  return api_of(L)->await(L, 1, measured_length);
}

/* ---- a completion source and a thread ---- */

typedef struct sensor {
  const asynctask_api *at;
  asynctask_source *source; /* the thread's: it releases it */
  struct timespec until;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int stop; /* guarded by lock */
} sensor;

static struct timespec in_seconds(double seconds) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  seconds += (double)t.tv_nsec / 1e9;
  t.tv_sec += (time_t)seconds;
  t.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9);
  return t;
}

/* Loop thread: the Task was cancelled. */
static void sensor_cancelled(void *data) {
  sensor *s = data;
  pthread_mutex_lock(&s->lock);
  s->stop = 1;
  pthread_cond_signal(&s->changed);
  pthread_mutex_unlock(&s->lock);
}

/* The last call of all: the thread has released the source, or could not be started. */
static void sensor_released(void *data) {
  sensor *s = data;
  pthread_cond_destroy(&s->changed);
  pthread_mutex_destroy(&s->lock);
  free(s);
}

/* The thread: waits, and settles the Task with a table. No Lua here. */
static void *sensor_run(void *data) {
  sensor *s = data;
  const asynctask_api *at = s->at;
  asynctask_source *source = s->source;
  int timed_out = 0, stop;
  pthread_mutex_lock(&s->lock);
  while (!s->stop && !timed_out) timed_out = pthread_cond_timedwait(&s->changed, &s->lock, &s->until);
  stop = s->stop;
  pthread_mutex_unlock(&s->lock);
  if (!stop) {
    asynctask_writer *w = at->writer_new();
    at->write_table(w);
    at->write_string(w, "value", 5);
    at->write_number(w, 21.5);
    at->write_string(w, "unit", 4);
    at->write_string(w, "degrees", 7);
    at->write_end(w);
    at->source_succeed(source, w); /* takes w, also when nobody wants it any more */
  }
  at->source_release(source);
  return NULL;
}

static int l_measure(lua_State *L) {
  lua_Number seconds = luaL_checknumber(L, 1);
  asynctask_source_options options = {.size = sizeof options, .name = "measure"};
  sensor *s;
  pthread_condattr_t clock;
  pthread_t thread;
  luaL_argcheck(L, seconds >= 0 && seconds < 1e6, 1, "out of range");
  s = calloc(1, sizeof *s);
  if (s == NULL) return luaL_error(L, "not enough memory");
  s->at = api_of(L);
  s->until = in_seconds(seconds);
  pthread_mutex_init(&s->lock, NULL);
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_cond_init(&s->changed, &clock);
  pthread_condattr_destroy(&clock);
  options.cancelled = sensor_cancelled;
  options.released = sensor_released;
  options.data = s;
  s->source = s->at->source_new(L, &options); /* stack: seconds task. Takes s, also when it raises */
  if (!s->at->source_wanted(s->source)) { /* the scope is being cancelled: nothing is begun */
    s->at->source_release(s->source);
  } else if (pthread_create(&thread, NULL, sensor_run, s) == 0) {
    pthread_detach(thread);
  } else {
    s->at->source_fail(s->source, "EAGAIN", "measure", NULL);
    s->at->source_release(s->source);
  }
  return 1;
}

/* ---- a job ---- */

typedef struct count {
  const asynctask_api *at;
  lua_Integer below;
} count;

static int is_prime(lua_Integer n) {
  lua_Integer d;
  for (d = 2; d * d <= n; d++)
    if (n % d == 0) return 0;
  return n >= 2;
}

/* On a pool thread: no Lua. */
static void count_run(asynctask_job *job, void *data) {
  const count *c = data;
  lua_Integer i, found = 0;
  for (i = 0; i < c->below; i++) {
    if (i % 1000 == 0) {
      asynctask_writer *done = c->at->writer_new();
      if (c->at->job_cancelled(job)) {
        c->at->writer_free(done);
        return; /* nobody gets a result */
      }
      c->at->write_integer(done, i);
      c->at->job_progress(job, done); /* takes `done` */
    }
    found += is_prime(i);
  }
  c->at->write_integer(c->at->job_result(job), found);
}

static int l_primes(lua_State *L) {
  asynctask_job_options options = {.size = sizeof options, .name = "primes", .run = count_run, .released = free};
  count *c;
  lua_Integer below = luaL_checkinteger(L, 1);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
    options.progress = 2;
  }
  c = malloc(sizeof *c);
  if (c == NULL) return luaL_error(L, "not enough memory");
  c->at = api_of(L);
  c->below = below;
  options.data = c; /* the job's from here on */
  c->at->job_submit(L, &options);
  return 1;
}

static const luaL_Reg functions[] = {
    {"length", l_length},
    {"measure", l_measure},
    {"primes", l_primes},
    {NULL, NULL},
};

int luaopen_module(lua_State *L) {
  const asynctask_api *at = asynctask_import(L); /* loads asynctask if need be, or says what is wrong */
  luaL_newlibtable(L, functions);
  lua_pushlightuserdata(L, (void *)at); /* stack: module api */
  luaL_setfuncs(L, functions, 1);
  return 1;
}
