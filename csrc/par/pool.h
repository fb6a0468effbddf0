/* pool.h - worker threads and the jobs they run: what pool.c, worker.c, job.c and interrupt.c share.
**
** A job is the request of an operation (its at_op part belongs to the submitter's loop thread). It is
** queued in the pool, taken by one worker, started there as a coroutine task, and posted back to the
** submitter's inbox when it has ended. Between being taken and being posted it is the worker's. */
#ifndef AT_PAR_POOL_H
#define AT_PAR_POOL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/op.h"
#include "core/post.h"
#include "par/codec.h"

typedef struct at_pool at_pool;
typedef struct at_worker at_worker;

enum at_job_state { AT_JOB_QUEUED, AT_JOB_TAKEN, AT_JOB_ENDED };
enum at_job_outcome { AT_JOB_STOPPED, AT_JOB_VALUES, AT_JOB_ERROR, AT_JOB_FAILED };

typedef struct at_job {
  at_op op;            /* the submitter's */
  at_mail mail;        /* the way back */
  at_inbox *home;      /* counted; the submitter's */
  at_pool *pool;       /* outlives the job's time in it */
  struct at_par *par;  /* the submitter's; not looked at once its runtime is gone */
  at_message message;  /* function and arguments, then results or error and traceback */
  struct at_job *next, **prev; /* guarded by pool->mutex while queued; then the worker's */
  at_worker *worker;   /* guarded by pool->mutex: who took it */
  unsigned char state; /* guarded by pool->mutex */
  unsigned char counted;  /* submitter: counts as an external source */
  unsigned char outcome;  /* worker */
  unsigned char told;     /* worker: its task has been cancelled */
  atomic_int cancelled;   /* nobody wants its result */
  int status;             /* worker: why, for AT_JOB_FAILED */
  at_coro *coro;          /* worker: its task */
  at_waiter waiter;       /* worker: waits for that */
} at_job;

typedef struct at_joblist {
  at_job *head, **tail;
} at_joblist;

struct at_worker {
  at_pool *pool;
  at_worker *next;      /* all workers; guarded by pool->mutex */
  at_worker *next_idle; /* guarded by pool->mutex */
  pthread_t thread;
  at_inbox *inbox;      /* counted by the pool; set once, under pool->mutex, before others need it */
  at_mail nudge;        /* in flight while `nudged` */
  atomic_int nudged;
  atomic_int cancels;   /* there are jobs to be told */
  int doomed;           /* guarded by pool->mutex: cancelled jobs that have not ended */
  unsigned char asleep; /* guarded by pool->mutex: in the list of idle workers */
  unsigned char exited; /* guarded by pool->mutex */
  /* the worker's own */
  unsigned char registered; /* has announced that it is idle */
  lua_State *L;
  at_runtime *rt;
  at_codec *codec;
  at_job *jobs;         /* started and not ended */
  at_job *last;         /* of a pool for one job: that, sent back when the state is gone */
  atomic_int interruptible; /* for the signal's handler: rt may be looked at */
  int kills;            /* attempts to stop what runs now */
  uint64_t kill_since;
};

struct at_pool {
  pthread_mutex_t mutex; /* held for a few instructions only */
  pthread_cond_t changed; /* a worker has exited, or the reaper has something to do */
  at_joblist queue;      /* guarded: from the root state, first in, first out */
  at_joblist nested;     /* guarded: from jobs, last in, first out */
  atomic_int waiting;    /* jobs in both */
  unsigned int takes;    /* guarded */
  at_worker *workers;    /* guarded */
  at_worker *idle;       /* guarded: asleep, latest first */
  int size, alive;       /* guarded: threads at most; not exited */
  int doomed;            /* guarded: sum over the workers */
  atomic_int closing;
  unsigned char reaping; /* guarded: the reaper's thread exists */
  pthread_t reaper;
  lua_CFunction opener;
  char *path, *cpath;    /* owned; package.path and cpath of the root state, or NULL */
  at_pool *shared;       /* a pool for one job: where the jobs of that job go; else NULL */
  at_pool *next, **prev; /* a pool for one job: in the list of the at_par that owns it */
};

/* What par keeps for a state; a userdata in its registry, without a finalizer. */
#define AT_PAR_SPARES 64

typedef struct at_par {
  at_closable closable;
  at_codec *codec;
  at_pool *pool;     /* the root's: owned; a worker's: its own pool */
  at_pool *singles;  /* owned: pools for one job each */
  at_worker *worker; /* NULL: a root */
  lua_CFunction opener;
  at_message spares[AT_PAR_SPARES]; /* owned; empty ones whose memory is used again */
  int spare_count;
} at_par;

/* job.c. [-0, +0, m] */
at_par *at_par_get(lua_State *L);
/* [-0, +0, -] starts a job on this worker. Never raises: a job that cannot start ends. */
void at_job_start(at_worker *w, at_job *job);
/* [-0, +0, -] tells cancelled jobs of this worker so, on state L. */
void at_job_tell(at_worker *w, lua_State *L);
/* [-0, +0, -] the worker leaves: its jobs are sent back as they are. */
void at_job_drop(at_worker *w);
/* Sends a job back. The worker's thread, or whoever took it out of the queue. No Lua. */
void at_job_end(at_job *job, int outcome, int status);

/* pool.c */
at_pool *at_pool_new(int size, lua_CFunction opener, const char *path, const char *cpath);
/* A pool for one job, after which it closes by itself (and is to be freed by at_pool_close, which
** does not wait then). Jobs of the job go to `shared`. */
at_pool *at_pool_single(at_pool *shared);
int at_pool_default_size(void);
/* Hands a job over; 0, or a negative status when no thread could be started (nothing was taken). */
int at_pool_submit(at_pool *pool, at_job *job, int nested);
/* Nobody wants the job any more. 1: it has not started and is the caller's; 0: it will be sent. */
int at_pool_cancel(at_pool *pool, at_job *job);
at_job *at_pool_take(at_worker *w); /* NULL: none */
/* The job is the worker's no more. */
void at_pool_ended(at_job *job);
/* The worker is about to sleep. 0: it must not, there is something to do. */
int at_pool_sleep(at_worker *w);
/* The worker runs again; `busy`: it has other things to do than to take a job. */
void at_pool_awake(at_worker *w, int busy);
/* The worker's thread ends; `failed`: it never worked. */
void at_pool_exit(at_worker *w, int failed);
void at_pool_nudge(at_worker *w);
/* Drops what is queued, interrupts what runs, joins the threads, frees the pool. */
void at_pool_close(at_pool *pool);

/* worker.c */
void *at_worker_main(void *worker);
extern __thread at_worker *at_worker_self __attribute__((tls_model("initial-exec")));

/* interrupt.c */
/* Starts what is needed to signal; 0 or a negative status. Under pool->mutex. */
int at_interrupt_prepare(at_pool *pool);
/* Signals one worker once: what it runs looks whether it has to stop. Any thread. */
void at_interrupt_signal(at_worker *w);
/* [-0, +0, m] makes a worker's state fit to be interrupted. */
void at_interrupt_open(lua_State *L);

#endif
