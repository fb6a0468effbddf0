/* pool.c - the queue of jobs that have not started, and the threads that take from it.
**
** One pool a root state, apart from the pool for blocking calls. Threads start when a job finds none
** idle, up to the size. Submitting and cancelling: loop threads of the root and of the workers;
** closing: the root's loop thread. No Lua here.
** Invariants: a worker in the idle list has announced itself and has not been nudged since; whoever
** takes it out of the list nudges it. A nudged worker that has other things to do passes the nudge
** on, so a job never waits behind running Lua code while another worker sleeps. */
#define _GNU_SOURCE
#include "par/pool.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FAIR_TAKE 16 /* every so many takes look at the root's queue first */

/* ---- lists of jobs; all under the mutex ---- */

static void list_append(at_joblist *list, at_job *job) {
  job->list = list;
  if (list->head == NULL) list->tail = &list->head;
  job->next = NULL;
  job->prev = list->tail;
  *list->tail = job;
  list->tail = &job->next;
}

static void list_push(at_joblist *list, at_job *job) {
  if (list->head == NULL) {
    list_append(list, job);
    return;
  }
  job->list = list;
  job->next = list->head;
  job->next->prev = &job->next;
  job->prev = &list->head;
  list->head = job;
}

static void list_remove(at_joblist *list, at_job *job) {
  *job->prev = job->next;
  if (job->next != NULL) job->next->prev = job->prev;
  else list->tail = job->prev;
}

static at_job *list_last(const at_joblist *list) {
  if (list->head == NULL) return NULL;
  return (at_job *)(void *)((char *)list->tail - offsetof(at_job, next));
}

static void queue_remove(at_pool *pool, at_job *job) {
  list_remove(job->list, job);
  atomic_fetch_sub(&pool->waiting, 1);
}

/* ---- waking ---- */

void at_pool_nudge(at_worker *w) {
  if (!atomic_exchange(&w->nudged, 1)) at_post(w->inbox, &w->nudge);
}

static at_worker *pop_idle(at_pool *pool) {
  at_worker *w = pool->idle;
  if (w != NULL) {
    pool->idle = w->next_idle;
    w->asleep = 0;
  }
  return w;
}

/* At most one worker is on its way to the queue at a time; whoever takes a job and leaves others there
** sends the next. So many small jobs do not wake everybody. Under the mutex; NULL: nobody is needed. */
static at_worker *call_worker(at_pool *pool) {
  at_worker *w = pool->coming ? NULL : pop_idle(pool);
  if (w != NULL) {
    pool->coming = 1;
    atomic_store(&w->coming, 1);
  }
  return w;
}

/* The worker has come to the queue, or will not. Under the mutex. */
static void arrived(at_worker *w) {
  if (!atomic_load(&w->coming)) return;
  atomic_store(&w->coming, 0);
  w->pool->coming = 0;
}

static void remove_idle(at_pool *pool, at_worker *w) {
  at_worker **link = &pool->idle;
  while (*link != w) link = &(*link)->next_idle;
  *link = w->next_idle;
  w->asleep = 0;
}

/* Nobody can go on without mail from outside. Exact, since a worker says that it wakes before it takes
** mail. Under the mutex. */
static int is_stuck(const at_pool *pool) {
  const at_worker *w;
  if (atomic_load(&pool->waiting) > 0 || pool->coming || pool->doomed > 0) return 0;
  for (w = pool->workers; w != NULL; w = w->next)
    if (!w->exited && (!w->asleep || !w->dead || at_inbox_waiting(w->inbox))) return 0;
  return 1;
}

static void send_home(at_pool *pool, at_mail *mail) {
  atomic_fetch_add(&pool->holders, 1);
  at_post(pool->home, mail);
}

int at_pool_sleep(at_worker *w, int dead, int leaf) {
  at_pool *pool = w->pool;
  int sleeps, stuck = 0;
  pthread_mutex_lock(&pool->mutex);
  sleeps = atomic_load(&pool->waiting) == 0 && !atomic_load(&pool->closing) &&
           !atomic_load(&w->cancels);
  if (sleeps) {
    arrived(w);
    w->asleep = 1;
    w->next_idle = pool->idle;
    pool->idle = w;
    w->registered = 1;
    w->dead = (unsigned char)dead;
    w->leaf = (unsigned char)leaf;
    stuck = dead && pool->jobs > 0 && is_stuck(pool);
  }
  pthread_mutex_unlock(&pool->mutex);
  if (stuck && pool->home != NULL && !atomic_exchange(&pool->hushed, 1)) send_home(pool, &pool->quiet);
  return sleeps;
}

void at_pool_waking(at_worker *w) {
  at_pool *pool = w->pool;
  pthread_mutex_lock(&pool->mutex);
  if (w->asleep) remove_idle(pool, w);
  pool->activity++;
  pthread_mutex_unlock(&pool->mutex);
}

int at_pool_stuck(at_pool *pool, int *jobs, unsigned *activity, int *leaves) {
  const at_worker *w;
  int stuck;
  pthread_mutex_lock(&pool->mutex);
  stuck = is_stuck(pool);
  *jobs += pool->jobs;
  *activity += pool->activity;
  for (w = pool->workers; w != NULL; w = w->next) *leaves += !w->exited && w->leaf;
  pthread_mutex_unlock(&pool->mutex);
  return stuck;
}

void at_pool_break(at_pool *pool, int leaves) {
  at_worker *w;
  pthread_mutex_lock(&pool->mutex);
  for (w = pool->workers; w != NULL; w = w->next) {
    if (w->exited || (leaves && !w->leaf)) continue;
    if (w->asleep) remove_idle(pool, w);
    atomic_store(&w->broken, 1);
    at_pool_nudge(w); /* a lock-free push: fine under the mutex */
  }
  pthread_mutex_unlock(&pool->mutex);
}

void at_pool_awake(at_worker *w, int busy) {
  at_pool *pool = w->pool;
  at_worker *other = NULL;
  if (!w->registered) return;
  w->registered = 0;
  pthread_mutex_lock(&pool->mutex);
  if (w->asleep) remove_idle(pool, w);
  if (busy) {
    arrived(w);
    if (atomic_load(&pool->waiting) > 0) other = call_worker(pool);
  }
  pthread_mutex_unlock(&pool->mutex);
  if (other != NULL) at_pool_nudge(other);
}

void at_pool_busy(at_worker *w) {
  at_pool *pool = w->pool;
  at_worker *other = NULL;
  if (!atomic_load_explicit(&w->coming, memory_order_relaxed)) return;
  pthread_mutex_lock(&pool->mutex);
  arrived(w);
  if (atomic_load(&pool->waiting) > 0) other = call_worker(pool);
  pthread_mutex_unlock(&pool->mutex);
  if (other != NULL) at_pool_nudge(other);
}

/* ---- threads ---- */

/* A cancellation is told before later mail is looked at: a value that is handed to a job after that is
** not the job's. */
static void on_nudge(at_runtime *rt, at_mail *mail) {
  at_worker *w = at_worker_self;
  (void)mail;
  if (rt == NULL) return;
  atomic_store(&w->nudged, 0);
  if (atomic_load(&w->cancels) && !atomic_load(&w->pool->closing)) at_job_tell(w, rt->L);
}

/* Under the mutex, so that the new thread finds itself in the list. */
static int add_worker(at_pool *pool) {
  at_worker *w = (at_worker *)calloc(1, sizeof *w);
  int status;
  if (w == NULL) return UV_ENOMEM;
  w->pool = pool;
  w->nudge.receive = on_nudge;
  w->next = pool->workers;
  status = at_worker_start(w);
  if (status < 0) {
    free(w);
    return status;
  }
  pool->workers = w;
  pool->alive++;
  return 0;
}

/* ---- jobs in and out ---- */

int at_pool_submit(at_pool *pool, at_job *job, int from) {
  at_worker *w = NULL;
  int status = 0;
  job->pool = pool;
  job->state = AT_JOB_QUEUED;
  pthread_mutex_lock(&pool->mutex);
  if (atomic_load(&pool->closing) || (pool->draining && from == AT_FROM_ROOT)) {
    status = UV_ECANCELED;
  } else {
    w = call_worker(pool);
    if (w == NULL && pool->alive < pool->size && pool->idle == NULL) {
      status = add_worker(pool);
      if (pool->alive > 0) status = 0; /* the others come to it */
    }
    if (status == 0) {
      if (from == AT_FROM_WORKER) list_push(&at_worker_self->nested, job);
      else list_append(&pool->queue, job);
      atomic_fetch_add(&pool->waiting, 1);
      pool->jobs++;
    }
  }
  pthread_mutex_unlock(&pool->mutex);
  if (w != NULL) at_pool_nudge(w);
  return status;
}

/* The oldest job in the own list of another worker. Under the mutex. */
static at_job *steal(const at_pool *pool) {
  const at_worker *w;
  for (w = pool->workers; w != NULL; w = w->next)
    if (w->nested.head != NULL) return list_last(&w->nested);
  return NULL;
}

at_job *at_pool_take(at_worker *w) {
  at_pool *pool = w->pool;
  at_worker *other = NULL;
  at_job *job;
  if (atomic_load_explicit(&pool->waiting, memory_order_relaxed) == 0) return NULL;
  pthread_mutex_lock(&pool->mutex);
  job = w->nested.head;
  if (job == NULL || (++pool->takes % FAIR_TAKE == 0 && pool->queue.head != NULL))
    job = pool->queue.head;
  if (job == NULL) job = steal(pool);
  if (job != NULL) {
    queue_remove(pool, job);
    job->state = AT_JOB_TAKEN;
    job->worker = w;
    arrived(w);
    if (atomic_load(&pool->waiting) > 0) other = call_worker(pool);
  }
  pthread_mutex_unlock(&pool->mutex);
  if (other != NULL) at_pool_nudge(other);
  return job;
}

/* Every worker leaves when it comes to it. Under the mutex. */
static void dismiss(at_pool *pool) {
  at_worker *w;
  atomic_store(&pool->closing, 1);
  for (w = pool->workers; w != NULL; w = w->next) {
    if (w->exited || w->inbox == NULL) continue;
    if (w->asleep) remove_idle(pool, w);
    at_pool_nudge(w); /* a lock-free push: fine under the mutex */
  }
}

/* One job less. Under the mutex. */
static void count_ended(at_pool *pool) {
  if (--pool->jobs == 0 && pool->draining) dismiss(pool);
}

/* Returns whether the owner is to be told that nobody is left. Under the mutex. */
static int is_gone(at_pool *pool) {
  if (!pool->draining || pool->alive > 0 || pool->jobs > 0 || pool->posted) return 0;
  pool->posted = 1;
  return 1;
}

void at_pool_ended(at_job *job) {
  at_pool *pool = job->pool;
  pthread_mutex_lock(&pool->mutex);
  if (job->state == AT_JOB_TAKEN) {
    if (atomic_load(&job->cancelled) && job->native == NULL) {
      job->worker->doomed--;
      pool->doomed--;
    }
    pool->completed++;
    count_ended(pool);
  }
  job->state = AT_JOB_ENDED;
  pthread_mutex_unlock(&pool->mutex);
}

int at_pool_cancel(at_pool *pool, at_job *job) {
  at_worker *w = NULL;
  int queued, asleep = 0, gone = 0;
  pthread_mutex_lock(&pool->mutex);
  queued = job->state == AT_JOB_QUEUED;
  if (queued) {
    queue_remove(pool, job);
    job->state = AT_JOB_ENDED;
    count_ended(pool);
    gone = is_gone(pool);
  } else if (job->state == AT_JOB_TAKEN && job->native != NULL) {
    atomic_store(&job->cancelled, 1); /* it looks itself: no signal could stop it */
  } else if (job->state == AT_JOB_TAKEN) {
    w = job->worker;
    asleep = w->asleep;
    if (asleep) remove_idle(pool, w);
    atomic_store(&job->cancelled, 1);
    atomic_store(&w->cancels, 1);
    w->doomed++;
    if (pool->doomed++ == 0 && at_interrupt_prepare(pool) == 0)
      pthread_cond_broadcast(&pool->changed);
  }
  pthread_mutex_unlock(&pool->mutex);
  if (gone) send_home(pool, &pool->gone);
  if (w != NULL) {
    at_pool_nudge(w);
    if (!asleep) at_interrupt_signal(w);
  }
  return queued;
}

/* ---- the end ---- */

/* Takes everything out of the queues. Under the mutex; the list is the caller's. */
static at_job *take_all(at_pool *pool) {
  at_job *all = NULL, *job;
  while ((job = pool->queue.head != NULL ? pool->queue.head : steal(pool)) != NULL) {
    queue_remove(pool, job);
    job->state = AT_JOB_ENDED;
    pool->jobs--;
    job->next = all;
    all = job;
  }
  return all;
}

static void end_all(at_job *job, int outcome, int status) {
  while (job != NULL) {
    at_job *next = job->next;
    at_job_end(job, outcome, status);
    job = next;
  }
}

void at_pool_exit(at_worker *w, int failed) {
  at_pool *pool = w->pool;
  at_job *lost = NULL;
  int gone;
  pthread_mutex_lock(&pool->mutex);
  if (w->asleep) remove_idle(pool, w);
  arrived(w);
  w->exited = 1;
  if (--pool->alive == 0 && failed) lost = take_all(pool);
  gone = is_gone(pool);
  pthread_cond_broadcast(&pool->changed);
  pthread_mutex_unlock(&pool->mutex);
  end_all(lost, AT_JOB_FAILED, UV_ENOMEM);
  if (gone) send_home(pool, &pool->gone);
}

static void wait_a_little(at_pool *pool, long milliseconds) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += milliseconds * 1000000L;
  if (until.tv_nsec >= 1000000000L) {
    until.tv_nsec -= 1000000000L;
    until.tv_sec++;
  }
  (void)pthread_cond_timedwait(&pool->changed, &pool->mutex, &until);
}

/* Interrupts again and again until every worker has left. Under the mutex. A C function that runs in
** a worker and does not return keeps us here: its thread uses our memory. */
static void wait_for_workers(at_pool *pool) {
  long pause = 1;
  while (pool->alive > 0) {
    at_worker *w;
    for (w = pool->workers; w != NULL; w = w->next) {
      int asleep = w->asleep;
      if (w->exited || w->inbox == NULL) continue;
      if (asleep) remove_idle(pool, w);
      at_pool_nudge(w); /* a lock-free push: fine under the mutex */
      if (!asleep) at_interrupt_signal(w);
    }
    wait_a_little(pool, pause);
    if (pause < 20) pause *= 2;
  }
}

void at_pool_drain(at_pool *pool) {
  int gone;
  pthread_mutex_lock(&pool->mutex);
  pool->draining = 1;
  if (pool->jobs == 0) dismiss(pool);
  gone = is_gone(pool);
  pthread_mutex_unlock(&pool->mutex);
  if (gone) send_home(pool, &pool->gone);
}

void at_pool_stir(at_pool *pool) {
  at_worker *w;
  pthread_mutex_lock(&pool->mutex);
  for (w = pool->workers; w != NULL; w = w->next)
    if (w->asleep) at_pool_nudge(w);
  pthread_mutex_unlock(&pool->mutex);
}

static void let_go(at_pool *pool) {
  if (atomic_fetch_sub(&pool->holders, 1) != 1) return;
  pthread_mutex_destroy(&pool->mutex);
  pthread_cond_destroy(&pool->changed);
  if (pool->home != NULL) at_inbox_release(pool->home);
  free(pool->path);
  free(pool->cpath);
  free(pool);
}

void at_pool_close(at_pool *pool) {
  at_job *dropped;
  at_worker *w;
  pthread_mutex_lock(&pool->mutex);
  atomic_store(&pool->closing, 1);
  dropped = take_all(pool);
  wait_for_workers(pool);
  pthread_cond_broadcast(&pool->changed); /* the reaper */
  pthread_mutex_unlock(&pool->mutex);
  end_all(dropped, AT_JOB_STOPPED, 0);
  if (pool->reaping) pthread_join(pool->reaper, NULL);
  while ((w = pool->workers) != NULL) {
    pool->workers = w->next;
    pthread_join(w->thread, NULL);
    if (w->inbox != NULL) at_inbox_release(w->inbox);
    free(w);
  }
  let_go(pool);
}

/* The last worker of a drained pool has left. */
static void on_gone(at_runtime *rt, at_mail *mail) {
  at_pool *pool = (at_pool *)(void *)((char *)mail - offsetof(at_pool, gone));
  if (rt != NULL) at_pools_gone(pool); /* else the state has closed, and this pool with it */
  let_go(pool);
}

/* The owner has been woken: it looks before it blocks again. */
static void on_quiet(at_runtime *rt, at_mail *mail) {
  at_pool *pool = (at_pool *)(void *)((char *)mail - offsetof(at_pool, quiet));
  (void)rt;
  atomic_store(&pool->hushed, 0);
  let_go(pool);
}

/* It is held for a few instructions: whoever finds it taken looks again before it sleeps. */
static void init_mutex(pthread_mutex_t *mutex) {
  pthread_mutexattr_t attr;
  (void)pthread_mutexattr_init(&attr);
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
  (void)pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
  pthread_mutex_init(mutex, &attr); /* cannot fail with these */
  (void)pthread_mutexattr_destroy(&attr);
}

at_pool *at_pool_new(int size, lua_CFunction opener, const char *path, const char *cpath) {
  at_pool *pool = (at_pool *)calloc(1, sizeof *pool);
  if (pool == NULL) return NULL;
  pool->path = path != NULL ? strdup(path) : NULL;
  pool->cpath = cpath != NULL ? strdup(cpath) : NULL;
  if ((path != NULL && pool->path == NULL) || (cpath != NULL && pool->cpath == NULL)) {
    free(pool->path);
    free(pool->cpath);
    free(pool);
    return NULL;
  }
  init_mutex(&pool->mutex);
  pthread_cond_init(&pool->changed, NULL);
  pool->size = size;
  pool->opener = opener;
  pool->gone.receive = on_gone;
  pool->quiet.receive = on_quiet;
  atomic_init(&pool->holders, 1);
  return pool;
}
