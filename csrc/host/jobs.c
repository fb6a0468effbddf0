/* jobs.c - C functions that run on a pool thread as Tasks.
** Owns asynctask_job: a job of par's pool, or a work of the blocking pool, with what goes in and comes out.
** Submitting, results, progress: loop thread. run, and what it calls: the pool's thread, without Lua.
** Invariants: what the pool's thread writes is published by the mail that brings the job back; `news`, the
** report of progress that was not yet taken, is exchanged, and whoever puts one where none was posts the
** mail for it; the job is freed when neither its operation nor that mail holds it. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/blocking.h"
#include "core/sched.h"
#include "host/api.h"
#include "host/values.h"
#include "par/pool.h"

struct asynctask_job {
  union {
    at_op op;
    at_job pool;
    at_work blocking;
  } request;
  asynctask_job_options options;
  atomic_int holders;   /* the operation; the mail about progress */
  atomic_int cancelled;
  unsigned char ran;    /* the pool's thread */
  unsigned char failed; /* the pool's thread: by asynctask_job_fail */
  asynctask_writer *result; /* the pool's thread; owned */
  char *code, *message; /* the pool's thread; owned as one, or NULL: there was no memory */
  /* progress; the function is the user value of the Task */
  at_inbox *inbox;      /* counted; NULL: nobody wants to hear of it */
  at_mail mail;
  at_deferred deferred; /* loop thread */
  _Atomic(asynctask_writer *) news; /* owned */
  asynctask_writer *taken; /* loop thread; owned: being delivered */
  char name[];
};

/* ---- life ---- */

static asynctask_job *job_of(at_op *op) { return (asynctask_job *)(void *)op; }

static void drop(asynctask_job *j) {
  if (atomic_fetch_sub_explicit(&j->holders, 1, memory_order_acq_rel) != 1) return;
  asynctask_writer_free(j->result);
  asynctask_writer_free(atomic_load(&j->news));
  asynctask_writer_free(j->taken);
  free(j->code);
  if (j->inbox != NULL) at_inbox_release(j->inbox);
  if (j->options.released != NULL) j->options.released(j->options.data);
  free(j);
}

static void on_release(at_op *op) {
  asynctask_job *j = job_of(op);
  if (op->rt != NULL) at_sched_undefer(op->rt, &j->deferred); /* else that is over */
  if (!j->options.blocking && j->request.pool.home != NULL) at_inbox_release(j->request.pool.home);
  drop(j);
}

static int on_cancel(at_op *op) {
  asynctask_job *j = job_of(op);
  atomic_store(&j->cancelled, 1);
  return j->options.blocking ? at_blocking_cancel(op) : at_job_cancel(op);
}

static const char *subject(at_op *op) {
  asynctask_job *j = job_of(op);
  return j->name[0] != '\0' ? j->name : NULL;
}

/* ---- progress: loop thread ---- */

/* [-0, +0, m] has the function called with the latest report, if there is one. Run again if it raises. */
static void deliver(lua_State *L, at_runtime *rt, at_deferred *d) {
  asynctask_job *j = (asynctask_job *)(void *)((char *)d - offsetof(asynctask_job, deferred));
  if (j->taken == NULL) j->taken = atomic_exchange(&j->news, NULL);
  if (j->taken == NULL || j->request.op.task == NULL) return;
  luaL_checkstack(L, 4, "progress");
  at_op_push_task(L, &j->request.op);
  lua_getiuservalue(L, -1, 1);
  (void)at_sched_spawn(L, rt, at_values_push(L, j->taken), 0, 1);
  lua_pop(L, 2);
  asynctask_writer_free(j->taken);
  j->taken = NULL;
}

static void receive(at_runtime *rt, at_mail *mail) {
  asynctask_job *j = (asynctask_job *)(void *)((char *)mail - offsetof(asynctask_job, mail));
  if (rt != NULL && j->request.op.task != NULL) at_sched_defer(rt, &j->deferred);
  drop(j);
}

/* ---- the result: loop thread ---- */

/* [-0, +n, m] the values, or the error. What was reported last comes before. */
static int on_push(lua_State *L, at_op *op) {
  asynctask_job *j = job_of(op);
  const char *name = subject(op);
  int status;
  deliver(L, op->rt, &j->deferred);
  if (!j->ran) { /* there was no thread for it */
    status = op->status < 0 ? op->status : UV_ENOMEM;
    at_error_push_uv(L, status, name, NULL);
    return AT_OP_FAILED;
  }
  if (j->failed) {
    const char *code = j->code != NULL ? j->code : "ENOMEM";
    const char *words = j->message != NULL ? j->message : at_api_words(code);
    at_error_push(L, code, words != NULL ? words : "error", name);
    return AT_OP_FAILED;
  }
  status = at_values_finish(j->result);
  if (status == 0) return at_values_push(L, j->result);
  at_values_push_error(L, j->result, status, name);
  return AT_OP_FAILED;
}

static const at_opclass class = {"job", on_push, on_cancel, on_release, subject, 0};

/* ---- submitting ---- */

static void execute(asynctask_job *j) {
  if (asynctask_job_cancelled(j)) return;
  j->ran = 1;
  j->options.run(j, j->options.data);
}

static void run_native(at_job *job) { execute(job_of(&job->op)); }
static void run_blocking(at_work *work) { execute(job_of(&work->op)); }

/* [-0, +0, m] the job of the pending Task at the top; the rest cannot raise. */
static asynctask_job *allocate(lua_State *L, at_runtime *rt, at_task *t, const asynctask_job_options *options) {
  const char *name = options->name != NULL ? options->name : "";
  size_t n = strlen(name) + 1;
  asynctask_job *j = at_op_alloc(L, rt, t, &class, sizeof *j + n);
  if (j == NULL) {
    at_task_observe(L, rt, t, -1);
    luaL_error(L, "not enough memory");
  }
  memcpy(j->name, name, n);
  j->options = *options;
  j->mail.receive = receive;
  j->deferred.run = deliver;
  j->deferred.retry = 1;
  atomic_init(&j->holders, 1);
  return j;
}

/* stack: options function|nil */
static int l_submit(lua_State *L) {
  const asynctask_job_options *options = lua_touserdata(L, 1);
  at_runtime *rt = at_api_runtime(L);
  at_par *par = at_par_get(L);
  at_pool *pool = NULL;
  asynctask_job *j;
  at_task *t;
  int status;
  if (options->run == NULL) return luaL_error(L, "asynctask_job_submit: no function to run");
  if (!lua_isnil(L, 2)) at_arg_callable(L, 2);
  at_api_pin((const void *)(size_t)options->run);
  if (!options->blocking) pool = at_par_pool(L, par);
  t = at_op_new(L, rt);
  if (at_task_settled(t)) {
    if (options->released != NULL) options->released(options->data);
    return 1;
  }
  j = allocate(L, rt, t, options);
  if (!lua_isnil(L, 2)) {
    j->inbox = at_inbox_retain(rt->inbox);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, 1);
  }
  if (options->blocking) {
    status = at_blocking_submit(rt, &j->request.blocking, run_blocking);
  } else {
    j->request.pool.native = run_native;
    status = at_job_hand_over(rt, par, pool, &j->request.pool);
  }
  if (status < 0) {
    j->request.op.status = status;
    at_op_done(&j->request.op);
  }
  return 1;
}

void asynctask_job_submit(lua_State *L, const asynctask_job_options *options) {
  asynctask_job_options known;
  at_api_options(L, &known, sizeof known, options);
  at_api_take(L, l_submit, &known, known.progress, known.released, known.data);
}

/* ---- inside `run` ---- */

int asynctask_job_cancelled(const asynctask_job *job) {
  asynctask_job *j = (asynctask_job *)(size_t)job;
  return atomic_load(&j->cancelled) ||
         (!j->options.blocking && atomic_load(&j->request.pool.pool->closing));
}

asynctask_writer *asynctask_job_result(asynctask_job *job) {
  if (job->result == NULL) job->result = asynctask_writer_new();
  return job->result;
}

void asynctask_job_fail(asynctask_job *job, const char *code, const char *message) {
  size_t n, m = message != NULL ? strlen(message) + 1 : 0;
  if (job->failed) return;
  job->failed = 1;
  if (code == NULL) code = "UNKNOWN";
  n = strlen(code) + 1;
  job->code = malloc(n + m);
  if (job->code == NULL) return;
  memcpy(job->code, code, n);
  if (m > 0) job->message = memcpy(job->code + n, message, m);
}

/* Values that were written wrongly fail the job; what there is no memory for is not reported. */
void asynctask_job_progress(asynctask_job *job, asynctask_writer *values) {
  asynctask_writer *old;
  int status = at_values_finish(values);
  if (values == NULL) values = asynctask_writer_new();
  if (status == UV_EINVAL) asynctask_job_fail(job, "EINVAL", at_values_words(values));
  if (status != 0 || at_values_finish(values) != 0 || job->inbox == NULL || asynctask_job_cancelled(job)) {
    asynctask_writer_free(values);
    return;
  }
  old = atomic_exchange(&job->news, values);
  if (old != NULL) { /* its mail is on the way, or has come and was not looked at yet */
    asynctask_writer_free(old);
    return;
  }
  atomic_fetch_add_explicit(&job->holders, 1, memory_order_relaxed);
  at_post(job->inbox, &job->mail);
}
