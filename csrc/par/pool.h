/* pool.h - worker threads and the jobs they run: what the files of jobs and pools share.
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

/* What many jobs share, encoded once: each worker decodes it once and keeps it until it is closed
** (asynctask.parallel). Counted; any thread. */
typedef struct at_parcel {
  atomic_int refs;
  atomic_int closed;      /* nobody sends it any more */
  _Atomic lua_Integer limit; /* what comes after this is not wanted any more */
  lua_Integer id;         /* unique in the process */
  at_message message;     /* not changed once made */
} at_parcel;

typedef struct at_joblist {
  struct at_job *head, **tail; /* tail is valid while there is a head */
} at_joblist;

typedef struct at_job {
  at_op op;            /* the submitter's */
  at_mail mail;        /* the way back */
  at_inbox *home;      /* counted; the submitter's */
  at_pool *pool;       /* outlives the job's time in it */
  struct at_par *par;  /* the submitter's; not looked at once its runtime is gone */
  at_message message;  /* function and arguments, then results or error and traceback */
  struct at_job *next, **prev; /* guarded by pool->mutex while queued; then the worker's */
  at_joblist *list;    /* guarded by pool->mutex: the one it is in while queued */
  struct at_job *mine_next, **mine_prev; /* the submitter's jobs */
  at_parcel *parcel;   /* counted, or NULL */
  void (*native)(struct at_job *job); /* of a job without Lua: what the worker's thread calls; or NULL */
  at_worker *worker;   /* guarded by pool->mutex: who took it */
  unsigned char state; /* guarded by pool->mutex */
  unsigned char counted;  /* submitter: counts as an external source */
  unsigned char single;   /* its pool is for it alone */
  unsigned char outcome;  /* worker */
  unsigned char told;     /* worker: its task has been cancelled */
  unsigned char stuck;    /* worker: stopped because nothing could wake it; message has the error */
  atomic_int cancelled;   /* nobody wants its result */
  int status;             /* worker: why, for AT_JOB_FAILED */
  at_coro *coro;          /* worker: its task */
  at_waiter waiter;       /* worker: waits for that */
} at_job;

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
  at_joblist nested;    /* guarded by pool->mutex: jobs that its jobs have started; it takes the
                        ** latest, others the oldest */
  unsigned char asleep; /* guarded by pool->mutex: in the list of idle workers */
  atomic_int coming;    /* written under pool->mutex: was woken for a job and has not looked yet */
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
  size_t used, limit;   /* bytes of its state; limit 0: none */
  size_t collected;     /* bytes that were left after the last collection before sleeping */
  unsigned char lenient; /* the limit does not hold: the kernel works */
  struct at_par *par;
  atomic_int broken;    /* nothing can wake its jobs: they are to fail */
  unsigned char dead;   /* guarded by pool->mutex: when it fell asleep only mail could wake it */
  unsigned char leaf;   /* guarded by pool->mutex: then a job of its waited for no other job */
  int parcels_seen;     /* count of closed parcels when it last looked */
};

struct at_pool {
  pthread_mutex_t mutex; /* held for a few instructions only */
  pthread_cond_t changed; /* a worker has exited, or the reaper has something to do */
  at_joblist queue;      /* guarded: from the root state, first in, first out */
  atomic_int waiting;    /* jobs in it and in the workers' own */
  int jobs;              /* guarded: queued or taken */
  lua_Integer completed; /* guarded: jobs that a worker took and that have ended */
  unsigned int takes;    /* guarded */
  at_worker *workers;    /* guarded */
  at_worker *idle;       /* guarded: asleep, latest first */
  int size, alive;       /* guarded: threads at most; not exited */
  int doomed;            /* guarded: sum over the workers */
  atomic_int closing;
  unsigned char draining; /* guarded: closes when no job is left; takes only what jobs start */
  unsigned char coming;   /* guarded: one of the workers is */
  unsigned char posted;   /* guarded: `gone` was sent */
  unsigned activity;      /* guarded: times that a worker has woken */
  atomic_int holders;     /* the owner, and mail on its way */
  atomic_int hushed;      /* `quiet` is on its way */
  unsigned char fresh;    /* each job has globals of its own */
  size_t memory;          /* bytes a worker's state may grow by; 0: no limit */
  at_mail gone;           /* tells the owner that the last worker of a drained pool has left */
  at_mail quiet;          /* tells the owner that no worker can go on by itself */
  at_inbox *home;         /* counted: the owner's */
  void *face;             /* pools.c; owner's loop thread */
  unsigned char reaping; /* guarded: the reaper's thread exists */
  pthread_t reaper;
  lua_CFunction opener;
  lua_CFunction preload; /* what the root state was preloaded with, or NULL; called first */
  char *path, *cpath;    /* owned; package.path and cpath of the root state, or NULL */
  at_pool *shared;       /* a pool for one job: where the jobs of that job go; else NULL */
  at_pool *next, **prev; /* a pool for one job: in the list of the at_par that owns it */
};

/* What par keeps for a state; a userdata in its registry, without a finalizer. */
#define AT_PAR_SPARES 1024

typedef struct at_par {
  at_closable closable;
  at_codec *codec;
  at_pool *pool;     /* the root's: owned; a worker's: its own pool */
  at_pool *owned;    /* pools for one job each, and those of task.pool */
  int outstanding;   /* external sources that jobs and pools are */
  at_job *mine;      /* jobs that this state has submitted and that have not been released */
  at_worker *worker; /* NULL: a root */
  lua_CFunction opener;
  at_job *spares;    /* owned; jobs that are over, used again with the memory of their messages */
  at_job *taken;     /* owned: of those, the one that is just being bound (more only after a lack of memory) */
  int spare_count;
} at_par;

/* In the registry of a state whose modules are preloaded: the function that does it, without arguments. */
#define AT_PAR_PRELOAD "asynctask.preload"

/* submit.c */
at_par *at_par_get(lua_State *L); /* [-0, +0, m] */
extern const char at_par_codec_key; /* of the codec's userdata in the registry */
/* [-n, +1, e] the Task of the job f, args... from stack index 1 to the top, which is run by `pool` (NULL:
** the default pool). `arg`: number of f among the arguments, for errors. */
int at_job_submit(lua_State *L, at_runtime *rt, at_pool *pool, at_parcel *parcel, int arg);
/* Hands a job whose operation has begun to the pool: 0, or a status (nothing was taken). Whatever becomes of
** it, its class's release lets go of job->home. Loop thread; no Lua. */
int at_job_hand_over(at_runtime *rt, at_par *par, at_pool *pool, at_job *job);
/* For at_opclass.cancel of a job. */
int at_job_cancel(at_op *op);
/* [-0, +0, m] the default pool, made now if need be; a new one, with package.path and cpath as they are. */
at_pool *at_par_pool(lua_State *L, at_par *par);
at_pool *at_par_new_pool(lua_State *L, at_par *par, int size);
/* A pool that this state owns. */
void at_par_adopt(at_par *par, at_pool *pool, at_inbox *inbox);
/* Ends the threads of an owned pool and frees it. */
void at_par_discard(at_pool *pool);

/* pools.c, parcel.c [-0, +0, m] add their functions to the table at the top. */
void at_pools_open(lua_State *L, at_runtime *rt);
int at_pool_default_size(void); /* of the cores that may be used, or ASYNCTASK_THREADS */
at_pool *at_pools_optional(lua_State *L, int index); /* [-0, +0, v] NULL for nil, or closed */
void at_pools_forget(at_pool *pool); /* its state closes: the object in front of it has none any more */
void at_pools_gone(at_pool *pool); /* a drained pool: its owner's loop thread; frees it */
void at_parcel_open(lua_State *L, at_runtime *rt);
/* [-0, +1, e] pushes the table of a parcel in this worker's state. */
void at_parcel_push(lua_State *L, at_worker *w, at_parcel *parcel, int codec);
/* [-0, +0, m] lets go of those that were closed. */
void at_parcel_sweep(lua_State *L, at_worker *w);
void at_parcel_release(at_parcel *parcel); /* any thread */
/* [-0, +(0|2), m] the error at the top is that of parallel.stop: pushes nil and its value, says so. */
int at_stop_push(lua_State *L);
/* [-0, +0, e] the parcel at `index`. */
at_parcel *at_parcel_check(lua_State *L, int index);

extern const at_opclass at_job_class;

/* job.c */
/* [-0, +0, m] what a state needs to run jobs. */
void at_job_open(lua_State *L, at_runtime *rt);
/* [-0, +0, -] starts a job on this worker. Never raises: a job that cannot start ends. */
void at_job_start(at_worker *w, at_job *job);
/* [-0, +0, -] tells cancelled jobs of this worker so, on state L. */
void at_job_tell(at_worker *w, lua_State *L);
/* True if a job of this worker waits for something other than a job. No Lua. */
int at_job_leaf(const at_worker *w);
/* [-0, +0, -] nothing can wake the jobs of this worker: they fail with a deadlock (those that wait for
** no job, if there are such). */
void at_job_break(at_worker *w);
/* [-0, +0, -] the worker leaves: its jobs are sent back as they are. */
void at_job_drop(at_worker *w);
/* Sends a job back. The worker's thread, or whoever took it out of the queue. No Lua. */
void at_job_end(at_job *job, int outcome, int status);

/* pool.c */
at_pool *at_pool_new(int size, lua_CFunction opener, const char *path, const char *cpath);
/* A pool for one job, after which it closes by itself (and is to be freed by at_pool_close, which
** does not wait then). Jobs of the job go to `shared`. */
at_pool *at_pool_single(at_pool *shared);
/* Where a job comes from: outside, a worker of this pool, a job's thread beside it. */
enum at_from { AT_FROM_ROOT, AT_FROM_WORKER, AT_FROM_SINGLE };
/* Hands a job over; 0, or a negative status when no thread could be started or the pool takes none any
** more (nothing was taken). */
int at_pool_submit(at_pool *pool, at_job *job, int from);
/* Nobody wants the job any more. 1: it has not started and is the caller's; 0: it will be sent. */
int at_pool_cancel(at_pool *pool, at_job *job);
at_job *at_pool_take(at_worker *w); /* NULL: none */
/* The job is the worker's no more. */
void at_pool_ended(at_job *job);
/* The worker is about to sleep; `dead`: only mail can wake it; `leaf`: a job of its waits for
** something other than a job. 0: it must not, there is something to do. */
int at_pool_sleep(at_worker *w, int dead, int leaf);
/* The worker is about to look into its inbox: it sleeps no more. */
void at_pool_waking(at_worker *w);
/* If no worker can go on without mail from outside: adds to `jobs` and `activity`, returns 1. */
int at_pool_stuck(at_pool *pool, int *jobs, unsigned *activity, int *leaves);
/* Jobs of such a pool fail (those of leaves only, or all). */
void at_pool_break(at_pool *pool, int leaves);
/* The worker runs again; `busy`: it has other things to do than to take a job. */
void at_pool_awake(at_worker *w, int busy);
/* The worker has other things to do than to take a job for which it was woken. */
void at_pool_busy(at_worker *w);
/* The worker's thread ends; `failed`: it never worked. */
void at_pool_exit(at_worker *w, int failed);
void at_pool_nudge(at_worker *w);
/* Closes when no job is left: then `gone` is received by the owner, who calls at_pool_close. */
void at_pool_drain(at_pool *pool);
/* Drops what is queued, interrupts what runs, joins the threads, frees the pool (once `gone` has been
** received, if it is on its way). */
void at_pool_close(at_pool *pool);
/* Wakes the workers that sleep, for what they do before they sleep. */
void at_pool_stir(at_pool *pool);

/* worker.c */
void *at_worker_main(void *worker);
/* Starts its thread; 0 or a negative status. Under pool->mutex. */
int at_worker_start(at_worker *w);
extern __thread at_worker *at_worker_self __attribute__((tls_model("initial-exec")));

/* interrupt.c */
/* Starts what is needed to signal; 0 or a negative status. Under pool->mutex. */
int at_interrupt_prepare(at_pool *pool);
/* Signals one worker once: what it runs looks whether it has to stop. Any thread. */
void at_interrupt_signal(at_worker *w);
/* [-0, +0, m] makes a worker's state fit to be interrupted. */
void at_interrupt_open(lua_State *L);

#endif
