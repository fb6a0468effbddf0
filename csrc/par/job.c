/* job.c - task.run: a function with its arguments goes to a worker, its results come back.
**
** The submitter's half (l_run, the operation's class) runs on its loop thread; the worker's half (the
** body of the job's coroutine task, at_job_start, at_job_tell) on the worker's. They meet only in
** at_job and in the pool's functions. A job is sent back exactly once, when its task has settled:
** returned, failed, or was stopped. */
#include <lualib.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/await.h"
#include "core/cancel.h"
#include "core/fault.h"
#include "core/sched.h"
#include "par/par.h"
#include "par/pool.h"

#define SPARE_BYTES 4096 /* larger messages are not kept */

static const char par_key = 'p', codec_key = 'c', body_key = 'b';

at_par *at_par_get(lua_State *L) {
  at_par *par;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &par_key);
  par = (at_par *)lua_touserdata(L, -1);
  lua_pop(L, 1);
  return par;
}

/* ---- the worker's half: the body of a job ---- */

static int ended_call(lua_State *L, int status, lua_KContext base) {
  (void)status;
  return lua_gettop(L) - (int)base;
}

/* [-0, +1, e] pushes the function "module.function" that `index` names. */
static void find_function(lua_State *L, int index) {
  const char *name = lua_tostring(L, index), *dot = strrchr(name, '.');
  luaL_checkstack(L, 4, "function");
  lua_getglobal(L, "require");
  lua_pushlstring(L, name, (size_t)(dot - name));
  lua_call(L, 1, 1); /* stack: ... module */
  if (lua_istable(L, -1)) lua_getfield(L, -1, dot + 1);
  else lua_pushnil(L);
  if (!lua_isfunction(L, -1)) {
    lua_pushlstring(L, name, (size_t)(dot - name));
    luaL_error(L, "module '%s' has no function '%s'", lua_tostring(L, -1), dot + 1);
  }
  lua_remove(L, -2);
}

/* stack: job. Reads the message and calls the function in it, which may wait. */
static int l_job_call(lua_State *L) {
  at_runtime *rt = at_runtime_get(L);
  at_worker *w = at_worker_self;
  at_job *job = (at_job *)lua_touserdata(L, 1);
  int n;
  at_flat_push(L, rt);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &codec_key);
  n = at_decode(L, w->codec, 3, &job->message); /* stack: job flat codec f args... */
  lua_remove(L, 3);
  if (lua_type(L, 3) == LUA_TSTRING) {
    find_function(L, 3);
    lua_replace(L, 3);
  }
  lua_callk(L, n, LUA_MULTRET, 1, ended_call);
  return ended_call(L, LUA_OK, 1);
}

/* stack: job role values... Writes the values into the job's message. */
static int l_job_encode(lua_State *L) {
  at_codec *c = at_worker_self->codec;
  at_job *job = (at_job *)lua_touserdata(L, 1);
  int role = (int)lua_tointeger(L, 2);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &codec_key);
  lua_replace(L, 2);
  at_message_move(&c->message, &job->message); /* its memory is used again */
  at_encode(L, c, 2, 3, role);
  at_message_move(&job->message, &c->message);
  return 0;
}

/* [-n, +(0|1), -] encodes the n values at the top; on failure leaves its error. */
static int encode(lua_State *L, at_job *job, int role, int n) {
  luaL_checkstack(L, 4, "job");
  lua_pushcfunction(L, l_job_encode);
  lua_pushlightuserdata(L, job);
  lua_pushinteger(L, role);
  lua_rotate(L, -(n + 3), 3);
  return lua_pcall(L, n + 2, 0, 0) == LUA_OK;
}

/* stack: fault. Leaves the error value and the traceback's text without the message. */
static int l_job_explain(lua_State *L) {
  static const char heading[] = "\nstack traceback:";
  size_t message, all;
  const char *text;
  lua_getiuservalue(L, 1, 1); /* stack: fault error */
  luaL_tolstring(L, 2, &message);
  at_fault_push_traceback(L, 1); /* stack: fault error message traceback */
  text = lua_tolstring(L, 4, &all);
  message += sizeof heading - 1;
  lua_pushfstring(L, "%s\n\t(in a job)", all > message ? text + message : "");
  if (lua_type(L, 2) == LUA_TSTRING && strstr(lua_tostring(L, 2), "a nil value (global '") != NULL) {
    lua_pushvalue(L, 2);
    lua_pushliteral(L, " (in a job: globals are the worker's own)");
    lua_concat(L, 2);
    lua_replace(L, 2);
  }
  lua_replace(L, 3);
  lua_settop(L, 3);
  return 2;
}

/* stack: ... error text. The error value cannot be copied: an error object speaks for it. */
static int l_job_substitute(lua_State *L) {
  const char *message = luaL_tolstring(L, 1, NULL);
  at_error_push(L, "EJOB", message, "run");
  return 1;
}

/* stack: job handler fault. Puts error and traceback into the job's message. */
static void fail(lua_State *L, at_runtime *rt, at_job *job) {
  at_fault *f = at_fault_test(L, -1);
  if (f != NULL) {
    at_fault_observe(rt, f);
    lua_pushcfunction(L, l_job_explain);
    lua_insert(L, -2);
    if (lua_pcall(L, 1, 2, 0) != LUA_OK) lua_pushliteral(L, ""); /* a message of its own */
  } else {
    lua_pushliteral(L, "");
  }
  lua_pushvalue(L, -2);
  lua_pushvalue(L, -2); /* stack: ... error text error text */
  job->outcome = AT_JOB_ERROR;
  if (encode(L, job, AT_ROLE_ERROR, 2)) return;
  lua_pop(L, 1);
  lua_pushcfunction(L, l_job_substitute);
  lua_pushvalue(L, -3);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) { /* stack: ... error text substitute */
    lua_insert(L, -2);
    if (encode(L, job, AT_ROLE_ERROR, 2)) return;
  }
  job->outcome = AT_JOB_FAILED;
  job->status = UV_ENOMEM;
}

/* stack: job handler results... | job handler fault */
static int ended_job(lua_State *L, int status, lua_KContext ctx) {
  at_runtime *rt = at_rt(L);
  at_job *job = (at_job *)lua_touserdata(L, 1);
  (void)ctx;
  if (lua_gethook(L) != NULL) lua_sethook(L, NULL, 0, 0); /* an interruption that came too late */
  at_worker_self->kills = 0;
  if (status == LUA_OK || status == LUA_YIELD) {
    job->outcome = AT_JOB_VALUES;
    if (encode(L, job, AT_ROLE_RESULT, lua_gettop(L) - 2)) return 0;
  }
  at_decode_end(L, at_worker_self->codec); /* if it was that which failed */
  if (!atomic_load(&job->cancelled)) {
    fail(L, rt, job);
  } else {
    at_fault *f = at_fault_test(L, -1);
    if (f != NULL) at_fault_observe(rt, f);
    job->outcome = AT_JOB_STOPPED;
  }
  return 0;
}

/* stack: job */
static int l_job_body(lua_State *L) {
  at_job *job = (at_job *)lua_touserdata(L, 1);
  if (atomic_load(&job->cancelled)) return 0;
  lua_pushcfunction(L, at_fault_handler);
  lua_pushcfunction(L, l_job_call);
  lua_pushvalue(L, 1);
  return ended_job(L, lua_pcallk(L, 1, LUA_MULTRET, 2, 0, ended_job), 0);
}

/* ---- the worker's half: starting, telling, sending back ---- */

static void link_job(at_worker *w, at_job *job) {
  job->next = w->jobs;
  job->prev = &w->jobs;
  if (w->jobs != NULL) w->jobs->prev = &job->next;
  w->jobs = job;
}

static void unlink_job(at_job *job) {
  *job->prev = job->next;
  if (job->next != NULL) job->next->prev = job->prev;
}

void at_job_end(at_job *job, int outcome, int status) {
  job->outcome = (unsigned char)outcome;
  job->status = status;
  at_pool_ended(job);
  if (job->pool->shared != NULL && at_worker_self != NULL && at_worker_self->pool == job->pool) {
    at_worker_self->last = job; /* sent when its thread has nothing more to do */
    atomic_store(&job->pool->closing, 1);
    return;
  }
  at_post(job->home, &job->mail);
}

/* The job's task has settled. */
static void on_settled(at_runtime *rt, at_waiter *waiter) {
  at_job *job = (at_job *)waiter->arg;
  (void)rt;
  unlink_job(job);
  at_job_end(job, job->outcome, job->status);
}

void at_job_drop(at_worker *w) {
  at_job *job;
  while ((job = w->jobs) != NULL) {
    unlink_job(job);
    at_waiter_unlink(w->rt, &job->waiter);
    at_job_end(job, AT_JOB_STOPPED, 0);
  }
}

/* stack: job */
static int l_job_start(lua_State *L) {
  at_job *job = (at_job *)lua_touserdata(L, 1);
  at_runtime *rt = at_worker_self->rt;
  at_coro *c;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &body_key);
  lua_insert(L, 1);
  c = at_sched_spawn(L, rt, 1, 0, 1);
  job->waiter.on = on_settled;
  job->waiter.arg = job;
  (void)at_waiter_link(rt, &c->task, &job->waiter); /* the first waiter: needs no memory */
  job->coro = c;
  return 0;
}

void at_job_start(at_worker *w, at_job *job) {
  lua_State *L = w->rt->L;
  lua_pushcfunction(L, l_job_start);
  lua_pushlightuserdata(L, job);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK) {
    link_job(w, job);
  } else {
    lua_pop(L, 1);
    at_job_end(job, AT_JOB_FAILED, UV_ENOMEM);
  }
}

/* stack: job. Cancels its task and what that owns. */
static int l_job_tell(lua_State *L) {
  at_job *job = (at_job *)lua_touserdata(L, 1);
  at_cancel_push_error(L, 0);
  (void)at_cancel_coro(L, at_worker_self->rt, job->coro);
  return 0;
}

void at_job_tell(at_worker *w, lua_State *L) {
  at_job *job;
  atomic_store(&w->cancels, 0);
  for (job = w->jobs; job != NULL; job = job->next) {
    if (job->told || !atomic_load(&job->cancelled)) continue;
    lua_pushcfunction(L, l_job_tell);
    lua_pushlightuserdata(L, job);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK) {
      job->told = 1;
    } else { /* no memory: again at the next signal */
      lua_pop(L, 1);
      atomic_store(&w->cancels, 1);
    }
  }
}

/* ---- the submitter's half ---- */

static void receive(at_runtime *rt, at_mail *mail) {
  at_job *job = (at_job *)(void *)((char *)mail - offsetof(at_job, mail));
  if (rt == NULL) {
    job->op.rt = NULL;
    job->op.class->release(&job->op);
    return;
  }
  if (job->counted) at_external_remove(rt);
  job->counted = 0;
  at_op_done(&job->op);
}

/* stack: message -> values */
static int l_decode(lua_State *L) {
  const at_message *message = (const at_message *)lua_touserdata(L, 1);
  at_par *par = at_par_get(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &codec_key);
  return at_decode(L, par->codec, 2, message);
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
  lua_pushcfunction(L, l_decode);
  lua_pushlightuserdata(L, &job->message);
  status = lua_pcall(L, 1, LUA_MULTRET, 0);
  at_decode_end(L, at_par_get(L)->codec);
  if (status == LUA_ERRMEM) return lua_error(L);
  if (status != LUA_OK) return AT_OP_FAILED;
  if (job->outcome == AT_JOB_VALUES) return lua_gettop(L) - base;
  at_fault_text(L, op->rt); /* stack: error */
  return AT_OP_FAILED;
}

static int job_cancel(at_op *op) {
  at_job *job = (at_job *)(void *)op;
  if (job->counted) at_external_remove(op->rt); /* nobody waits for it any more */
  job->counted = 0;
  return at_pool_cancel(job->pool, job);
}

/* Keeps the memory of a message that has been read. */
static void spare(at_par *par, at_message *m) {
  at_message_clear(m);
  if (m->capacity > SPARE_BYTES || par->spare_count == AT_PAR_SPARES) return;
  par->spares[par->spare_count++] = *m;
  memset(m, 0, sizeof *m);
}

static void close_single(at_pool *pool) {
  *pool->prev = pool->next;
  if (pool->next != NULL) pool->next->prev = pool->prev;
  at_pool_close(pool);
}

static void job_release(at_op *op) {
  at_job *job = (at_job *)(void *)op;
  if (op->rt != NULL && !op->rt->closing) {
    spare(job->par, &job->message);
    if (job->pool != NULL && job->pool->shared != NULL) close_single(job->pool);
  }
  at_message_free(&job->message);
  if (job->home != NULL) at_inbox_release(job->home);
  free(job);
}

static const at_opclass job_class = {"run", job_push, job_cancel, job_release, NULL, 0};

/* [-0, +0, m] the pool, started now if need be. */
static at_pool *pool_of(lua_State *L, at_par *par) {
  const char *path, *cpath;
  if (par->pool != NULL) return par->pool;
  luaL_checkstack(L, 4, "pool");
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, LUA_LOADLIBNAME) != LUA_TTABLE) {
    lua_pushnil(L);
    lua_pushnil(L);
  } else {
    lua_getfield(L, -1, "path");
    lua_getfield(L, -2, "cpath");
  }
  path = lua_tostring(L, -2);
  cpath = lua_tostring(L, -1);
  par->pool = at_pool_new(at_pool_default_size(), par->opener, path, cpath);
  lua_pop(L, 4);
  if (par->pool == NULL) luaL_error(L, "not enough memory");
  return par->pool;
}

/* [-0, +0, v] argument 1 is a function or "module.function" */
static void check_function(lua_State *L) {
  const char *name, *dot;
  if (lua_type(L, 1) != LUA_TSTRING) {
    if (!lua_isfunction(L, 1)) at_arg_type_error(L, 1, "function or \"module.function\"");
    return;
  }
  name = lua_tostring(L, 1);
  dot = strrchr(name, '.');
  if (dot == NULL || dot == name || dot[1] == '\0')
    luaL_argerror(L, 1, "expected \"module.function\"");
}

/* Checks and encodes the arguments 1 to n into the codec's message; returns what par keeps. */
static at_par *prepare(lua_State *L, at_runtime *rt) {
  at_par *par = at_par_get(L);
  check_function(L);
  if (rt->closing) luaL_error(L, "asynctask: the state is closing");
  if (par->codec->message.data == NULL && par->spare_count > 0)
    at_message_move(&par->codec->message, &par->spares[--par->spare_count]);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &codec_key);
  lua_insert(L, 1); /* stack: codec f args... */
  at_encode(L, par->codec, 1, 2, AT_ROLE_JOB);
  return par;
}

/* Hands the encoded job of the pending Task at the top to the pool. A pool for one job is taken in
** any case. */
static void submit(lua_State *L, at_runtime *rt, at_par *par, at_task *t, at_pool *pool) {
  at_job *job = (at_job *)at_op_alloc(L, rt, t, &job_class, sizeof *job);
  int status;
  if (job == NULL) {
    if (pool->shared != NULL) close_single(pool);
    return;
  }
  at_message_move(&job->message, &par->codec->message);
  job->par = par;
  job->pool = pool;
  job->mail.receive = receive;
  job->home = at_inbox_retain(rt->inbox);
  status = at_pool_submit(pool, job, par->worker != NULL && pool->shared == NULL);
  if (status < 0) {
    at_op_fail(L, &job->op, status);
    return;
  }
  job->counted = 1; /* it may have ended by now, but its mail is received on this thread */
  at_external_add(rt);
}

/* run(f | "module.function", ...) -> Task with the results of f, which a worker runs */
static int l_run(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_par *par = prepare(L, rt);
  at_pool *pool = pool_of(L, par);
  at_task *t = at_op_new(L, rt);
  if (!at_task_settled(t)) submit(L, rt, par, t, pool);
  return 1;
}

/* thread(f | "module.function", ...) -> Task, belonging to nobody, with the results of f, which runs
** on a thread of its own */
static int l_thread(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_par *par = prepare(L, rt);
  at_pool *shared = pool_of(L, par), *pool;
  at_task *t = at_op_new_always(L, rt);
  at_ring_remove((at_leaf *)t);
  lua_pushvalue(L, -1);
  at_unanchor(rt, at_anchor(L, rt)); /* there is a free slot now: nothing raises below */
  pool = at_pool_single(shared);
  if (pool == NULL) return luaL_error(L, "not enough memory");
  pool->next = par->singles;
  pool->prev = &par->singles;
  if (pool->next != NULL) pool->next->prev = &pool->next;
  par->singles = pool;
  submit(L, rt, par, t, pool);
  return 1;
}

/* ---- open, close ---- */

static void close_par(at_runtime *rt, at_closable *c) {
  at_par *par = (at_par *)(void *)c;
  (void)rt;
  while (par->singles != NULL) close_single(par->singles);
  if (par->worker == NULL && par->pool != NULL) at_pool_close(par->pool);
  par->pool = NULL;
  while (par->spare_count > 0) at_message_free(&par->spares[--par->spare_count]);
  at_codec_free(par->codec);
}

void at_par_open(lua_State *L, at_runtime *rt, lua_CFunction opener) {
  static const luaL_Reg functions[] = {{"run", l_run}, {"thread", l_thread}, {NULL, NULL}};
  luaL_Reg body[] = {{"body", l_job_body}, {NULL, NULL}};
  at_par *par = at_par_get(L);
  at_worker *w = at_worker_self;
  if (par == NULL) {
    par = (at_par *)lua_newuserdatauv(L, sizeof *par, 0);
    memset(par, 0, sizeof *par);
    par->closable.close = close_par;
    par->opener = opener;
    if (w != NULL && w->L == rt->main) {
      par->worker = w;
      par->pool = w->pool->shared != NULL ? w->pool->shared : w->pool;
    }
    par->codec = at_codec_new(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &codec_key);
    lua_newtable(L);
    at_runtime_setfuncs(L, rt, body);
    lua_getfield(L, -1, "body");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &body_key);
    lua_pop(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &par_key);
    at_closable_add(rt, &par->closable);
  }
  at_runtime_setfuncs(L, rt, functions);
}
