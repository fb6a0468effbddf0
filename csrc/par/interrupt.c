/* interrupt.c - stopping Lua code that runs (S20): a job that was cancelled, or whatever runs when the
** pool closes.
**
** A signal to the worker's own thread arms a count hook on the coroutine that it runs; the hook finds
** out whether that has to stop. If so it yields, past any pcall, to the scheduler, which resets the
** coroutine: its `<close>` handlers run, bounded. Where Lua cannot yield it raises a memory error,
** which no message handler sees, again and again until it is out. The second named exception to "no
** signal handlers": SIGURG, installed at the first interruption, chained to what was there.
** Signals: any thread. Handler and hook: the worker's thread. The reaper repeats signals until the
** cancelled jobs have ended, since one may come while something else runs. */
#define _GNU_SOURCE
#include <errno.h>
#include <lualib.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "core/coroutine.h"
#include "par/pool.h"

#define HANDLERS_NANOSECONDS 100000000 /* for the `<close>` handlers of one stopped task */
#define UNWIND_INSTRUCTIONS 10000      /* for those that run while a memory error unwinds */
#define PAUSE_MAX_MS 50
#define REAPER_STACK (64 * 1024)

/* ---- the hook ---- */

/* Raises LUA_ERRMEM: worker.c's allocator refuses such a size. [-0, +0, m] */
static void raise_memory_error(lua_State *L) {
  (void)lua_newuserdatauv(L, (size_t)1 << 61, 0);
}

static void on_count(lua_State *L, lua_Debug *ar) {
  at_worker *w = at_worker_self;
  at_runtime *rt = w->rt;
  at_coro *c = rt->current;
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  if (atomic_load(&w->pool->closing)) {
    rt->abandoned = 1;
  } else if (c->task.flags & AT_F_INTERRUPTED) { /* in the handlers of a task that was stopped */
    if (uv_hrtime() - w->kill_since < HANDLERS_NANOSECONDS) return;
    raise_memory_error(L);
  } else {
    if (atomic_load(&w->cancels)) at_job_tell(w, L);
    if (!(c->task.flags & AT_F_CANCELLING)) return;
  }
  if (L == rt->running && lua_isyieldable(L)) { /* and so can all that resumed it */
    c->task.flags |= AT_F_INTERRUPTED;
    w->kill_since = uv_hrtime();
    w->kills = 0;
    (void)lua_yield(L, 0);
    return;
  }
  lua_sethook(L, on_count, LUA_MASKCOUNT, w->kills++ == 0 ? UNWIND_INSTRUCTIONS : 1);
  if (rt->running != NULL && rt->running != L) lua_sethook(rt->running, on_count, LUA_MASKCOUNT, 1);
  raise_memory_error(L);
}

/* ---- the signal ---- */

static struct sigaction previous; /* guarded by install_mutex; read by the handler once installed */
static pthread_mutex_t install_mutex = PTHREAD_MUTEX_INITIALIZER;

/* lua_sethook may be called from a handler on the thread that runs the state. */
static void on_signal(int number, siginfo_t *info, void *context) {
  at_worker *w = at_worker_self;
  int saved = errno;
  if (w != NULL && atomic_load(&w->interruptible)) {
    lua_State *co = w->rt->executing;
    if (co != NULL) lua_sethook(co, on_count, LUA_MASKCOUNT, 1);
  }
  if (previous.sa_flags & SA_SIGINFO) {
    if (previous.sa_sigaction != NULL) previous.sa_sigaction(number, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(number);
  }
  errno = saved;
}

/* Installs the handler unless it is there; the host may have set one of its own meanwhile. */
static void install(void) {
  struct sigaction now, ours;
  pthread_mutex_lock(&install_mutex);
  if (sigaction(SIGURG, NULL, &now) == 0 &&
      !((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_signal)) {
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = on_signal;
    ours.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    previous = now;
    (void)sigaction(SIGURG, &ours, NULL); /* a valid number and handler: cannot fail */
  }
  pthread_mutex_unlock(&install_mutex);
}

void at_interrupt_signal(at_worker *w) {
  install();
  (void)pthread_kill(w->thread, SIGURG); /* a thread that has left and is not joined: no harm */
}

/* ---- the reaper ---- */

static void signal_doomed(at_pool *pool) {
  at_worker *w;
  for (w = pool->workers; w != NULL; w = w->next)
    if (w->doomed > 0 && !w->asleep && !w->exited) at_interrupt_signal(w);
}

static void *reaper_main(void *arg) {
  at_pool *pool = (at_pool *)arg;
  long pause = 1;
  pthread_mutex_lock(&pool->mutex);
  while (!atomic_load(&pool->closing)) {
    struct timespec until;
    if (pool->doomed == 0) {
      pause = 1;
      pthread_cond_wait(&pool->changed, &pool->mutex);
      continue;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += pause * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
      until.tv_nsec -= 1000000000L;
      until.tv_sec++;
    }
    if (pthread_cond_timedwait(&pool->changed, &pool->mutex, &until) != ETIMEDOUT) pause = 1;
    else if (pause < PAUSE_MAX_MS) pause *= 2;
    signal_doomed(pool);
  }
  pthread_mutex_unlock(&pool->mutex);
  return NULL;
}

int at_interrupt_prepare(at_pool *pool) {
  pthread_attr_t attr;
  sigset_t all, old;
  int error;
  if (pool->reaping) return 0;
  error = pthread_attr_init(&attr);
  if (error != 0) return -error;
  (void)pthread_attr_setstacksize(&attr, REAPER_STACK); /* else the default size */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  error = pthread_create(&pool->reaper, &attr, reaper_main, pool);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  (void)pthread_attr_destroy(&attr);
  pool->reaping = error == 0;
  return -error;
}

/* ---- a worker's state ---- */

static int l_no_sethook(lua_State *L) {
  return luaL_error(L, "debug.sethook cannot be used in a job");
}

/* Puts the functions of the table at the top into that of the loaded module `name`. */
static void replace_functions(lua_State *L, const char *name) {
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, name) == LUA_TTABLE) { /* stack: functions loaded module */
    lua_pushnil(L);
    while (lua_next(L, -4)) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -4);
    }
  }
  lua_pop(L, 3);
}

void at_interrupt_open(lua_State *L) {
  at_coroutine_push(L, at_runtime_get(L)); /* they say which coroutine runs */
  replace_functions(L, LUA_COLIBNAME);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, l_no_sethook);
  lua_setfield(L, -2, "sethook");
  replace_functions(L, LUA_DBLIBNAME);
}
