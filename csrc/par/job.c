/* job.c - the worker's half of a job: the body of its coroutine task, starting, telling, sending back.
**
** Runs on the worker's thread; submit.c is the other half. They meet only in at_job and in the pool's
** functions. A job is sent back exactly once, when its task has settled: returned, failed, or was
** stopped. */
#include <lualib.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "core/await.h"
#include "core/cancel.h"
#include "core/dump.h"
#include "core/fault.h"
#include "core/sched.h"
#include "par/pool.h"

#define CHAIN_MAX 100 /* tasks that wait for each other which are looked at */

static const char body_key = 'b';

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

/* [-0, +1, m] pushes globals of this job's own: a copy of the worker's, which are seen through it. */
static void push_globals(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS); /* stack: own metatable globals */
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -6);
  }
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, LUA_GNAME);
}

/* [-0, +0, m] forgets the functions that were loaded: their globals are another job's. */
static void forget_functions(lua_State *L, at_codec *c, int codec) {
  lua_newtable(L);
  lua_setiuservalue(L, codec, AT_CODEC_LOADED);
  c->loaded_count = 0;
}

/* stack: globals codec job. What a fresh job is made of: its functions have globals of their own. The
** caller puts back what were the globals. */
static int l_decode_fresh(lua_State *L) {
  at_worker *w = at_worker_self;
  at_job *job = (at_job *)lua_touserdata(L, 3);
  lua_pushvalue(L, 1);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  forget_functions(L, w->codec, 2);
  return at_decode(L, w->codec, 2, &job->message);
}

/* stack: job flat codec -> and what the message holds; returns their number. [-0, +n, e] */
static int decode_fresh(lua_State *L, at_job *job) {
  int status;
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS); /* stack: job flat codec globals */
  lua_pushcfunction(L, l_decode_fresh);
  push_globals(L);
  lua_pushvalue(L, 3);
  lua_pushlightuserdata(L, job);
  status = lua_pcall(L, 3, LUA_MULTRET, 0);
  lua_pushvalue(L, 4);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  forget_functions(L, at_worker_self->codec, 3);
  lua_remove(L, 4);
  if (status != LUA_OK) lua_error(L);
  return lua_gettop(L) - 3;
}

/* stack: job. Reads the message and calls the function in it, which may wait. */
static int l_job_call(lua_State *L) {
  at_worker *w = at_worker_self;
  at_job *job = (at_job *)lua_touserdata(L, 1);
  int n;
  at_flat_push(L, w->rt);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &at_par_codec_key);
  if (w->pool->fresh && job->parcel == NULL) n = decode_fresh(L, job);
  else n = at_decode(L, w->codec, 3, &job->message); /* stack: job flat codec f args... */
  if (job->parcel != NULL) {
    at_parcel_push(L, w, job->parcel, 3);
    lua_insert(L, 5); /* stack: job flat codec f parcel args... */
    n++;
  }
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
  lua_rawgetp(L, LUA_REGISTRYINDEX, &at_par_codec_key);
  lua_replace(L, 2);
  at_message_swap(&c->message, &job->message); /* its memory is used again */
  at_encode(L, c, 2, 3, role);
  at_message_swap(&job->message, &c->message);
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

/* stack: job handler error. Puts error and traceback into the job's message. */
static void fail(lua_State *L, at_runtime *rt, at_job *job) {
  at_fault_observe(rt, at_fault_noted(L, rt));
  lua_pushcfunction(L, l_job_explain);
  lua_insert(L, -2);
  if (lua_pcall(L, 1, 2, 0) != LUA_OK) lua_pushliteral(L, ""); /* a message of its own */
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

/* stack: memory. The worker's state may not grow any more. */
static int l_job_too_large(lua_State *L) {
  char text[80];
  (void)snprintf(text, sizeof text, "the job needs more than its %zu bytes of memory",
                 (size_t)lua_tointeger(L, 1));
  at_error_push(L, "ENOMEM", text, "run");
  return 1;
}

/* stack: job handler error. If it is that of a job that wants more than it may, says so. */
static void explain_limit(lua_State *L, const at_worker *w, int status) {
  if (w->pool->memory == 0 || status != LUA_ERRMEM) return;
  lua_pushcfunction(L, l_job_too_large);
  lua_pushinteger(L, (lua_Integer)w->pool->memory);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) lua_replace(L, -2);
  else lua_pop(L, 1);
}

/* stack: job handler results... | job handler error */
static int end_job(lua_State *L, at_runtime *rt, at_job *job, int status) {
  at_worker *w = at_worker_self;
  if (lua_gethook(L) != NULL) lua_sethook(L, NULL, 0, 0); /* an interruption that came too late */
  w->kills = 0;
  job->outcome = AT_JOB_FAILED; /* if there is no memory for anything else */
  job->status = UV_ENOMEM;
  if (status == LUA_OK || status == LUA_YIELD) {
    int n = lua_gettop(L) - 2;
    if (n == 0) at_message_clear(&job->message);
    if (n == 0 || encode(L, job, AT_ROLE_RESULT, n)) {
      job->outcome = AT_JOB_VALUES;
      return 0;
    }
  } else {
    explain_limit(L, w, status);
  }
  at_decode_end(L, w->codec); /* if it was that which failed */
  if (job->stuck) job->outcome = AT_JOB_ERROR;
  else if (atomic_load(&job->cancelled)) job->outcome = AT_JOB_STOPPED;
  else if (at_stop_push(L)) job->outcome = encode(L, job, AT_ROLE_RESULT, 2) ? AT_JOB_VALUES : AT_JOB_FAILED;
  else fail(L, rt, job);
  return 0;
}

static int ended_job(lua_State *L, int status, lua_KContext ctx) {
  (void)ctx;
  at_worker_self->lenient = 1;
  (void)end_job(L, at_rt(L), (at_job *)lua_touserdata(L, 1), status);
  at_worker_self->lenient = 0;
  return 0;
}

/* stack: job */
static int l_job_body(lua_State *L) {
  at_job *job = (at_job *)lua_touserdata(L, 1);
  if (atomic_load(&job->cancelled)) return 0;
  at_worker_self->lenient = 0;
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
  if (job->native != NULL) { /* nothing can interrupt it */
    job->native(job);
    at_job_end(job, AT_JOB_VALUES, 0);
    return;
  }
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

/* ---- deadlock ---- */

/* stack: job. Its error is written, then it is cancelled: what it holds is let go. */
static int l_job_break(lua_State *L) {
  at_runtime *rt = at_worker_self->rt;
  at_job *job = (at_job *)lua_touserdata(L, 1);
  lua_pushliteral(L, "deadlock: the job waits, and nothing is left that could wake it\n");
  at_dump_push(L, rt);
  lua_concat(L, 2);
  lua_pushliteral(L, ""); /* no traceback */
  if (!encode(L, job, AT_ROLE_ERROR, 2)) return lua_error(L);
  job->stuck = 1;
  job->told = 1;
  at_cancel_push_error(L, 0);
  (void)at_cancel_coro(L, rt, job->coro);
  return 0;
}

/* Does it wait for a job, itself or through tasks of this worker? Then it has that job's error to come. */
static int waits_for_job(const at_job *job) {
  const at_coro *c = job->coro;
  at_task *t;
  int steps;
  for (steps = 0; steps < CHAIN_MAX && (t = at_task_awaited(c)) != NULL; steps++) {
    if (t->kind == AT_COMBINE) return 1; /* perhaps */
    if (t->kind == AT_OP) {
      at_op *op = at_leaf_of(t)->u.op;
      return op != NULL && op->class == &at_job_class;
    }
    if (t->kind != AT_CORO) return 0;
    c = (const at_coro *)t;
  }
  return 0;
}

int at_job_leaf(const at_worker *w) {
  const at_job *job;
  for (job = w->jobs; job != NULL; job = job->next)
    if (!waits_for_job(job)) return 1;
  return 0;
}

/* Breaks those that wait for no job, or `all`; returns how many. */
static int break_jobs(at_worker *w, int all) {
  lua_State *L = w->rt->L;
  at_job *job;
  int n = 0;
  for (job = w->jobs; job != NULL; job = job->next) {
    if (job->told || (!all && waits_for_job(job))) continue;
    lua_pushcfunction(L, l_job_break);
    lua_pushlightuserdata(L, job);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1); /* no memory: the owner finds it stuck again */
    n++;
  }
  return n;
}

void at_job_break(at_worker *w) {
  atomic_store(&w->broken, 0);
  if (break_jobs(w, 0) == 0) (void)break_jobs(w, 1);
}

void at_job_open(lua_State *L, at_runtime *rt) {
  luaL_Reg body[] = {{"body", l_job_body}, {NULL, NULL}};
  lua_newtable(L);
  at_runtime_setfuncs(L, rt, body);
  lua_getfield(L, -1, "body");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &body_key);
  lua_pop(L, 1);
}
