/* submit.c - the submitter's half of a job: task.run, task.thread; and what par keeps for a state.
**
** A job is an operation of the submitter's; everything here runs on its loop thread, where the results
** are received. job.c is the worker's half. */
#include <lualib.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "core/cancel.h"
#include "core/fault.h"
#include "par/par.h"
#include "par/pool.h"

#define SPARE_BYTES 1024 /* larger messages are not kept */

const char at_par_codec_key = 'c';
static const char par_key = 'p';

at_par *at_par_get(lua_State *L) {
  at_par *par;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &par_key);
  par = (at_par *)lua_touserdata(L, -1);
  lua_pop(L, 1);
  return par;
}

/* ---- the job as an operation ---- */


/* It is no source of events any more. */
static void uncount(at_job *job) {
  if (!job->counted) return;
  job->counted = 0;
  job->par->outstanding--;
  at_external_remove(job->op.rt);
}

static void receive(at_runtime *rt, at_mail *mail) {
  at_job *job = (at_job *)(void *)((char *)mail - offsetof(at_job, mail));
  if (rt == NULL) {
    job->op.rt = NULL;
    job->op.class->release(&job->op);
    return;
  }
  uncount(job);
  at_op_done(&job->op);
}

/* stack: message -> values */
static int l_decode(lua_State *L) {
  const at_message *message = (const at_message *)lua_touserdata(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &at_par_codec_key);
  return at_decode(L, (at_codec *)lua_touserdata(L, 2), 2, message);
}

/* The results, or the error with the worker's traceback. */
static int job_push(lua_State *L, at_op *op) {
  at_job *job = (at_job *)(void *)op;
  int base = lua_gettop(L), status;
  if (job->outcome == AT_JOB_STOPPED) {
    at_cancel_push_error(L, 0);
    return AT_OP_FAILED;
  }
  if (job->outcome == AT_JOB_FAILED) {
    at_op_push_error(L, op, job->status);
    return AT_OP_FAILED;
  }
  if (job->outcome == AT_JOB_VALUES && job->message.roots == 0) return 0;
  lua_pushcfunction(L, l_decode);
  lua_pushlightuserdata(L, &job->message);
  status = lua_pcall(L, 1, LUA_MULTRET, 0);
  at_decode_end(L, job->par->codec);
  if (status == LUA_ERRMEM) return lua_error(L);
  if (status != LUA_OK) return AT_OP_FAILED;
  if (job->outcome == AT_JOB_VALUES) return lua_gettop(L) - base;
  at_fault_text(L, op->rt); /* stack: error */
  return AT_OP_FAILED;
}

int at_job_cancel(at_op *op) {
  at_job *job = (at_job *)(void *)op;
  uncount(job); /* nobody waits for it any more */
  if (op->rt->closing) return 0; /* the pool will send it back, and runs no code for it any more */
  return at_pool_cancel(job->pool, job);
}

/* Keeps a job that is over, and the memory of its message, for the next one; else frees them. */
static void spare(at_par *par, at_job *job) {
  at_message_clear(&job->message);
  at_codec_keep(par->codec, &job->message);
  if (job->message.capacity > SPARE_BYTES) at_message_free(&job->message);
  if (par->spare_count == AT_PAR_SPARES) {
    at_message_free(&job->message);
    free(job);
    return;
  }
  job->next = par->spares;
  par->spares = job;
  par->spare_count++;
}

/* Frees what was kept, all of it. */
static void free_list(at_job **list) {
  at_job *job;
  while ((job = *list) != NULL) {
    *list = job->next;
    at_message_free(&job->message);
    free(job);
  }
}

void at_par_adopt(at_par *par, at_pool *pool, at_inbox *inbox) {
  pool->home = at_inbox_retain(inbox);
  pool->next = par->owned;
  pool->prev = &par->owned;
  if (pool->next != NULL) pool->next->prev = &pool->next;
  par->owned = pool;
}

void at_par_discard(at_pool *pool) {
  *pool->prev = pool->next;
  if (pool->next != NULL) pool->next->prev = pool->prev;
  at_pool_close(pool);
}

static void link_mine(at_par *par, at_job *job) {
  job->mine_next = par->mine;
  job->mine_prev = &par->mine;
  if (par->mine != NULL) par->mine->mine_prev = &job->mine_next;
  par->mine = job;
}

static void unlink_mine(at_job *job) {
  if (job->mine_prev == NULL) return;
  *job->mine_prev = job->mine_next;
  if (job->mine_next != NULL) job->mine_next->mine_prev = job->mine_prev;
}

static void job_release(at_op *op) {
  at_job *job = (at_job *)(void *)op;
  int alive = op->rt != NULL && !op->rt->closing;
  if (job->parcel != NULL) at_parcel_release(job->parcel);
  if (job->home != NULL) at_inbox_release(job->home);
  if (alive) {
    unlink_mine(job);
    if (job->single) at_par_discard(job->pool);
    spare(job->par, job);
  } else {
    at_message_free(&job->message);
    free(job);
  }
}

const at_opclass at_job_class = {"run", job_push, at_job_cancel, job_release, NULL, 0};

at_pool *at_par_new_pool(lua_State *L, at_par *par, int size) {
  at_pool *pool;
  lua_CFunction preload;
  luaL_checkstack(L, 4, "pool");
  lua_getfield(L, LUA_REGISTRYINDEX, AT_PAR_PRELOAD);
  preload = lua_tocfunction(L, -1);
  lua_pop(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, LUA_LOADLIBNAME) != LUA_TTABLE) {
    lua_pushnil(L);
    lua_pushnil(L);
  } else {
    lua_getfield(L, -1, "path");
    lua_getfield(L, -2, "cpath");
  }
  pool = at_pool_new(size, par->opener, lua_tostring(L, -2), lua_tostring(L, -1));
  lua_pop(L, 4);
  if (pool == NULL) luaL_error(L, "not enough memory");
  pool->preload = preload;
  return pool;
}

at_pool *at_par_pool(lua_State *L, at_par *par) {
  if (par->pool == NULL) {
    par->pool = at_par_new_pool(L, par, at_pool_default_size());
    par->pool->home = at_inbox_retain(at_runtime_get(L)->inbox);
  }
  return par->pool;
}

/* [-0, +0, v] the value at stack index 1, argument `arg`, is a function or "module.function" */
static void check_function(lua_State *L, int arg) {
  const char *name, *dot;
  int i;
  if (lua_type(L, 1) != LUA_TSTRING) {
    if (lua_isfunction(L, 1)) return;
    for (i = 1; i < arg; i++) { /* it goes where the message looks for it */
      lua_pushnil(L);
      lua_insert(L, 1);
    }
    at_arg_type_error(L, arg, "function or \"module.function\"");
  }
  name = lua_tostring(L, 1);
  dot = strrchr(name, '.');
  if (dot == NULL || dot == name || dot[1] == '\0')
    luaL_argerror(L, arg, "expected \"module.function\"");
}

/* Checks and encodes the arguments 1 to n into the codec's message; returns what par keeps. */
static at_par *prepare(lua_State *L, at_runtime *rt, int arg) {
  at_codec *codec;
  check_function(L, arg);
  if (rt->closing) at_runtime_refuse(L, rt);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &at_par_codec_key);
  codec = (at_codec *)lua_touserdata(L, -1);
  lua_insert(L, 1); /* stack: codec f args... */
  at_encode(L, codec, 1, 2, AT_ROLE_JOB);
  return codec->par;
}

static int from(const at_par *par, const at_pool *pool) {
  if (par->worker == NULL || pool->shared != NULL) return AT_FROM_ROOT;
  return par->worker->pool == pool ? AT_FROM_WORKER : AT_FROM_SINGLE;
}

int at_job_hand_over(at_runtime *rt, at_par *par, at_pool *pool, at_job *job) {
  int status;
  job->par = par;
  job->pool = pool;
  job->mail.receive = receive;
  job->home = at_inbox_retain(rt->inbox);
  status = at_pool_submit(pool, job, from(par, pool));
  if (status < 0) return status;
  job->counted = 1; /* it may have ended by now, but its mail is received on this thread */
  par->outstanding++;
  at_external_add(rt);
  return 0;
}

/* [-0, +0, m] the request of the pending Task at the top, one that was kept if there is one; NULL: as
** at_op_alloc. A finalizer that runs meanwhile may come by here, too. */
static at_job *new_job(lua_State *L, at_runtime *rt, at_par *par, at_task *t) {
  at_job *job = par->spares, **link = &par->taken;
  at_message message;
  if (job == NULL) return (at_job *)at_op_alloc(L, rt, t, &at_job_class, sizeof *job);
  par->spares = job->next;
  par->spare_count--;
  message = job->message;
  memset(job, 0, sizeof *job);
  job->message = message;
  job->next = par->taken;
  par->taken = job;
  at_op_bind(L, rt, t, &at_job_class, &job->op); /* if it raises, par still has the job */
  while (*link != job) link = &(*link)->next;
  *link = job->next;
  job->next = NULL;
  return job;
}

/* Hands the encoded job of the pending Task at the top to the pool. A pool for one job is taken in
** any case. */
static void submit(lua_State *L, at_runtime *rt, at_par *par, at_task *t, at_pool *pool,
                   at_parcel *parcel) {
  at_job *job = new_job(L, rt, par, t);
  int status;
  if (job == NULL) {
    if (pool->shared != NULL) at_par_discard(pool);
    return;
  }
  if (pool->shared != NULL) at_ring_remove(at_leaf_of(t)); /* a thread belongs to nobody */
  at_message_swap(&job->message, &par->codec->message);
  job->par = par;
  job->pool = pool;
  job->single = pool->shared != NULL;
  job->parcel = parcel;
  if (parcel != NULL) atomic_fetch_add(&parcel->refs, 1);
  link_mine(par, job);
  status = at_job_hand_over(rt, par, pool, job);
  if (status < 0) at_op_fail(L, &job->op, status);
}

int at_job_submit(lua_State *L, at_runtime *rt, at_pool *pool, at_parcel *parcel, int arg) {
  at_par *par = prepare(L, rt, arg);
  at_task *t;
  if (pool == NULL) pool = at_par_pool(L, par);
  t = at_op_new(L, rt);
  if (!at_task_settled(t)) submit(L, rt, par, t, pool, parcel);
  return 1;
}

/* run(f | "module.function", ...) -> Task with the results of f, which a worker runs */
static int l_run(lua_State *L) {
  if (at_codec_is_nested(L)) return at_codec_apart(L);
  return at_job_submit(L, at_rt(L), NULL, NULL, 1);
}

/* thread(f | "module.function", ...) -> Task, belonging to nobody, with the results of f, which runs
** on a thread of its own */
static int l_thread(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_par *par;
  at_pool *shared, *pool;
  at_task *t;
  if (at_codec_is_nested(L)) return at_codec_apart(L);
  par = prepare(L, rt, 1);
  shared = at_par_pool(L, par);
  t = at_op_new_always(L, rt);
  lua_pushvalue(L, -1);
  at_unanchor(rt, at_anchor(L, rt)); /* there is a free slot now: nothing raises below */
  pool = at_pool_single(shared);
  if (pool == NULL) return luaL_error(L, "not enough memory");
  at_par_adopt(par, pool, rt->inbox);
  submit(L, rt, par, t, pool, NULL);
  return 1;
}

/* ---- open, close ---- */

/* Counts over all pools of a root; 0 if any could still go on. */
static int all_stuck(const at_par *par, int *jobs, unsigned *activity, int *leaves) {
  at_pool *pool;
  *jobs = *leaves = 0;
  *activity = 0;
  if (par->pool != NULL && !at_pool_stuck(par->pool, jobs, activity, leaves)) return 0;
  for (pool = par->owned; pool != NULL; pool = pool->next)
    if (!at_pool_stuck(pool, jobs, activity, leaves)) return 0;
  return 1;
}

/* S16 across threads: the main chunk waits for jobs only, and all of them for what nobody will do. What
** was the same twice was so in between, in all pools at once. */
static void on_stalled(at_runtime *rt) {
  at_par *par = at_par_get(rt->L);
  at_pool *pool;
  int jobs, leaves, jobs_again;
  unsigned activity, again;
  if (par->outstanding == 0 || par->outstanding != rt->externals || !at_runtime_lonely(rt)) return;
  if (!all_stuck(par, &jobs, &activity, &leaves) || jobs == 0) return;
  if (!all_stuck(par, &jobs_again, &again, &leaves) || again != activity || jobs_again != jobs) return;
  if (par->pool != NULL) at_pool_break(par->pool, leaves > 0);
  for (pool = par->owned; pool != NULL; pool = pool->next) at_pool_break(pool, leaves > 0);
}

static void close_par(at_runtime *rt, at_closable *c) {
  at_par *par = (at_par *)(void *)c;
  (void)rt;
  while (par->owned != NULL) {
    at_pools_forget(par->owned);
    at_par_discard(par->owned);
  }
  if (par->worker == NULL && par->pool != NULL) at_pool_close(par->pool);
  par->pool = NULL;
  free_list(&par->spares);
  free_list(&par->taken);
  par->spare_count = 0;
  at_codec_free(par->codec);
}

void at_par_open(lua_State *L, at_runtime *rt, lua_CFunction opener) {
  static const luaL_Reg functions[] = {{"run", l_run}, {"thread", l_thread}, {NULL, NULL}};
  at_par *par = at_par_get(L);
  at_worker *w = at_worker_self;
  if (par == NULL) {
    par = (at_par *)lua_newuserdatauv(L, sizeof *par, 0);
    memset(par, 0, sizeof *par);
    par->closable.close = close_par;
    par->opener = opener;
    if (w == NULL) rt->stalled = on_stalled;
    if (w != NULL && w->L == rt->main) {
      par->worker = w;
      par->pool = w->pool->shared != NULL ? w->pool->shared : w->pool;
    }
    par->codec = at_codec_new(L);
    par->codec->par = par;
    lua_rawsetp(L, LUA_REGISTRYINDEX, &at_par_codec_key);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &par_key);
    at_job_open(L, rt);
    at_closable_add(rt, &par->closable);
  }
  at_runtime_setfuncs(L, rt, functions);
  at_pools_open(L, rt);
  at_parcel_open(L, rt);
}
