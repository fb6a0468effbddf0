/* worker.c - the thread of one worker: its lua_State, its runtime, and what it does next.
**
** Owns the state and runs everything in it; nobody else touches it. In order: what is ready, then a
** new job, then it sleeps in its loop, where a nudge (mail to its inbox), a timer or I/O wakes it.
** While jobs wait in an await the worker takes further ones (S21). */
#define _GNU_SOURCE
#include <lualib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/sched.h"
#include "par/pool.h"

#define STACK_BYTES (4 * 1024 * 1024)
#define LOOK_NANOSECONDS 100000 /* at the loop, between jobs that do not wait */
#define TIDY_BYTES (1024 * 1024) /* of garbage that an idle worker may keep */
#define ALLOC_MAX ((size_t)1 << 60) /* interrupt.c asks for more to raise a memory error */

__thread at_worker *at_worker_self;

/* Lua takes no more than the limit while a job's code runs; the kernel may. */
static void *allocate(void *ud, void *block, size_t old, size_t size) {
  at_worker *w = (at_worker *)ud;
  void *p;
  if (block == NULL) old = 0;
  if (size == 0) {
    free(block);
    w->used -= old;
    return NULL;
  }
  if (size >= ALLOC_MAX) return NULL;
  if (w->limit != 0 && size > old && w->used + (size - old) > w->limit && !w->lenient &&
      w->rt->running != NULL)
    return NULL;
  p = block == NULL ? malloc(size) : realloc(block, size);
  if (p != NULL) w->used += size - old;
  return p;
}

/* ---- opening ---- */

static void set_package(lua_State *L, const char *field, const char *value) {
  if (value == NULL) return;
  lua_getglobal(L, LUA_LOADLIBNAME);
  lua_pushstring(L, value);
  lua_setfield(L, -2, field);
  lua_pop(L, 1);
}

/* stack: worker */
static int l_worker_open(lua_State *L) {
  at_worker *w = (at_worker *)lua_touserdata(L, 1);
  luaL_openlibs(L);
  set_package(L, "path", w->pool->path);
  set_package(L, "cpath", w->pool->cpath);
  if (w->pool->preload != NULL) {
    lua_pushcfunction(L, w->pool->preload);
    lua_call(L, 0, 0);
  }
  luaL_requiref(L, "asynctask.core", w->pool->opener, 0);
  w->rt = at_runtime_get(L);
  w->par = at_par_get(L);
  w->codec = w->par->codec;
  w->rt->quiet = 1;
  at_interrupt_open(L);
  return 0;
}

static int open_state(at_worker *w) {
  w->L = lua_newstate(allocate, w);
  if (w->L == NULL) return UV_ENOMEM;
  lua_pushcfunction(w->L, l_worker_open);
  lua_pushlightuserdata(w->L, w);
  if (lua_pcall(w->L, 1, 0, 0) == LUA_OK) {
    if (w->pool->memory != 0) w->limit = w->used + w->pool->memory;
    return 0;
  }
  lua_close(w->L);
  return UV_ENOMEM;
}

/* ---- running ---- */

/* The loop has woken it: before anything runs it takes itself out of the list of idle workers. */
static void on_enter(at_runtime *rt) {
  at_worker *w = at_worker_self;
  if (w != NULL && w->registered) at_pool_awake(w, at_sched_has_work(rt));
}

static void on_waking(at_runtime *rt) {
  at_worker *w = at_worker_self;
  (void)rt;
  if (w != NULL && w->registered) at_pool_waking(w);
}

/* With jobs that wait for jobs only: the one that counts for itself is the pool. */
static int is_dead(const at_worker *w) {
  return w->par->owned == NULL && w->rt->externals == 1 + w->par->outstanding &&
         at_runtime_lonely(w->rt);
}

static void look_at_loop(at_worker *w, uint64_t *looked) {
  uint64_t now = uv_hrtime();
  if (now - *looked < LOOK_NANOSECONDS) return;
  *looked = now;
  (void)at_runtime_pump(w->rt, 0);
}

/* What jobs have left goes before the thread sleeps, when that is much. A finalizer may raise nothing. */
static void tidy(at_worker *w) {
  at_parcel_sweep(w->rt->L, w);
  if (w->used <= 2 * w->collected + TIDY_BYTES) return;
  (void)lua_gc(w->L, LUA_GCCOLLECT);
  w->collected = w->used;
}

static void sleep_in_loop(at_worker *w) {
  int dead;
  tidy(w);
  if (at_sched_has_work(w->rt)) return; /* of a finalizer */
  dead = is_dead(w);
  if (!at_pool_sleep(w, dead, dead && at_job_leaf(w))) return;
  (void)at_runtime_pump(w->rt, 1); /* spins a little first */
  at_pool_awake(w, 0);
}

static void work(at_worker *w) {
  uint64_t looked = uv_hrtime();
  while (!atomic_load_explicit(&w->pool->closing, memory_order_relaxed)) {
    at_job *job;
    if (atomic_load_explicit(&w->cancels, memory_order_relaxed)) at_job_tell(w, w->rt->L);
    if (atomic_load_explicit(&w->broken, memory_order_relaxed)) at_job_break(w);
    (void)at_inbox_poll(w->rt);
    if (at_sched_has_work(w->rt)) {
      at_pool_busy(w);
      at_sched_enter(w->rt);
    }
    job = at_pool_take(w);
    if (job != NULL) {
      at_parcel_sweep(w->rt->L, w);
      at_job_start(w, job);
      at_sched_enter(w->rt);
    } else if (!at_sched_has_work(w->rt)) {
      sleep_in_loop(w);
    }
    look_at_loop(w, &looked);
  }
}

/* The pool closes: the jobs that were started are sent back, the state goes. */
static void leave(at_worker *w) {
  sigset_t interruption;
  sigemptyset(&interruption);
  sigaddset(&interruption, SIGURG);
  pthread_sigmask(SIG_BLOCK, &interruption, NULL); /* the handler must not find a state that goes */
  atomic_store(&w->interruptible, 0); /* finalizers run without hooks: none could stop them */
  w->rt->entered = w->rt->waking = NULL;
  at_job_drop(w);
  lua_close(w->L);
}

void *at_worker_main(void *worker) {
  at_worker *w = (at_worker *)worker;
  int status;
  at_worker_self = w;
  status = open_state(w);
  if (status == 0) {
    pthread_mutex_lock(&w->pool->mutex);
    w->inbox = at_inbox_retain(w->rt->inbox);
    pthread_mutex_unlock(&w->pool->mutex);
    atomic_store(&w->interruptible, 1);
    w->rt->entered = on_enter;
    w->rt->waking = on_waking;
    at_external_add(w->rt); /* its loop lives as long as the pool */
    work(w);
    leave(w);
  }
  at_worker_self = NULL;
  if (w->last != NULL) at_post(w->last->home, &w->last->mail);
  at_pool_exit(w, status != 0);
  return NULL;
}

/* ---- its thread ---- */

/* Workers take no signal but the interrupting one, and those that a fault of their own raises. */
static void worker_mask(sigset_t *set) {
  static const int open[] = {SIGURG, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
  size_t i;
  sigfillset(set);
  for (i = 0; i < sizeof open / sizeof *open; i++) sigdelset(set, open[i]);
}

int at_worker_start(at_worker *w) {
  pthread_attr_t attr;
  sigset_t mask, old;
  int error = pthread_attr_init(&attr);
  if (error != 0) return -error;
  (void)pthread_attr_setstacksize(&attr, STACK_BYTES); /* else the default size */
  worker_mask(&mask);
  pthread_sigmask(SIG_SETMASK, &mask, &old);
  error = pthread_create(&w->thread, &attr, at_worker_main, w);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  (void)pthread_attr_destroy(&attr);
  return -error;
}
