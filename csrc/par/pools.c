/* pools.c - task.pool: pools of one's own, as objects. Runs on the loop thread of the state that made one.
**
** A face is a userdata in front of an at_pool that the state owns. Closing drains the pool: when the
** last job has ended its threads leave, the last of them sends `gone`, and the pool is freed here. A
** face that is collected drains its pool, too. */
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "core/cancel.h"
#include "par/pool.h"

#define POOL_MT "asynctask.Pool"
#define THREADS_MAX 1024

typedef struct closer {
  at_op op;
  struct closer *next, **prev;
  at_par *par;
} closer;

typedef struct face {
  at_pool *pool; /* NULL: closed */
  closer *closers; /* operations that wait for that */
  unsigned char closing, finished;
} face;

enum { UV_NAME = 1 };

static const char submitting_key = 's'; /* in the registry: the face whose job is being copied */

static face *check(lua_State *L) {
  return (face *)luaL_checkudata(L, 1, POOL_MT);
}

at_pool *at_pools_optional(lua_State *L, int index) {
  if (lua_isnoneornil(L, index)) return NULL;
  return ((face *)luaL_checkudata(L, index, POOL_MT))->pool;
}

/* ---- closing ---- */

/* It counts no more as a source of events. */
static void forget(closer *c) {
  c->par->outstanding--;
  at_external_remove(c->op.rt);
}

static int closer_cancel(at_op *op) {
  closer *c = (closer *)(void *)op;
  if (op->rt->closing) return 1;
  *c->prev = c->next;
  if (c->next != NULL) c->next->prev = c->prev;
  forget(c);
  return 1;
}

static const at_opclass closer_class = {"close", NULL, closer_cancel, NULL, NULL, 0};

void at_pools_gone(at_pool *pool) {
  face *f = (face *)pool->face;
  closer *c;
  if (f != NULL) {
    f->pool = NULL;
    while ((c = f->closers) != NULL) {
      f->closers = c->next;
      if (c->next != NULL) c->next->prev = &f->closers;
      forget(c);
      at_op_done(&c->op);
    }
  }
  at_par_discard(pool);
}

void at_pools_forget(at_pool *pool) {
  face *f = (face *)pool->face;
  if (f == NULL) return;
  f->pool = NULL;
  f->closers = NULL;
  pool->face = NULL;
}

/* [-0, +0, m] cancels the tasks of this state's jobs in the pool. */
static void cancel_jobs(lua_State *L, at_runtime *rt, const at_pool *pool) {
  at_job *job;
  lua_Integer i, n = 0;
  lua_newtable(L);
  for (job = at_par_get(L)->mine; job != NULL; job = job->mine_next) {
    if (job->pool != pool || job->op.task == NULL) continue;
    at_op_push_task(L, &job->op);
    lua_rawseti(L, -2, ++n);
  }
  lua_pushliteral(L, "the pool is closed");
  for (i = 1; i <= n; i++) {
    lua_rawgeti(L, -2, i);
    (void)at_cancel_task(L, rt, at_task_test(L, rt, -1), lua_gettop(L) - 1);
    lua_pop(L, 1);
  }
  lua_pop(L, 2);
}

/* p:close([{cancel=}]) -> Task that settles when the last job has ended and the threads have left */
static int l_pool_close(lua_State *L) {
  static const char *const known[] = {"cancel", NULL};
  at_runtime *rt = at_rt(L);
  face *f = check(L);
  int cancels;
  at_task *t;
  closer *c;
  lua_settop(L, 2);
  (void)at_arg_options(L, 2, known);
  cancels = at_arg_field_boolean(L, 2, "cancel", 0);
  if (f->pool != NULL && cancels) cancel_jobs(L, rt, f->pool);
  t = at_op_new_always(L, rt);
  c = (closer *)at_op_alloc(L, rt, t, &closer_class, sizeof *c);
  if (c == NULL) return 1;
  lua_pushvalue(L, 1); /* the face lives as long as the Task */
  lua_setiuservalue(L, -2, 1);
  if (f->pool == NULL) {
    at_op_succeed(L, &c->op, 0);
    return 1;
  }
  c->next = f->closers;
  c->prev = &f->closers;
  if (c->next != NULL) c->next->prev = &c->next;
  f->closers = c;
  c->par = at_par_get(L);
  c->par->outstanding++;
  at_external_add(rt);
  f->closing = 1;
  at_pool_drain(f->pool);
  return 1;
}

static int l_pool_gc(lua_State *L) {
  at_runtime *rt = at_rt(L);
  face *f = check(L);
  if (f->pool == NULL || rt->closing || rt->closed) return 0;
  f->pool->face = NULL;
  at_pool_drain(f->pool);
  f->pool = NULL;
  return 0;
}

/* ---- the rest ---- */

/* p:run(f | "module.function", ...) -> Task with the results of f, which a thread of the pool runs */
static int l_pool_run(lua_State *L) {
  at_runtime *rt = at_rt(L);
  face *f = check(L);
  if (f->pool == NULL || f->closing) return luaL_error(L, "the pool is closed");
  if (at_codec_is_nested(L)) return at_codec_apart(L);
  lua_pushvalue(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &submitting_key); /* collected while the job is copied, it drains its pool */
  lua_remove(L, 1);
  (void)at_job_submit(L, rt, f->pool, NULL, 2);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &submitting_key);
  return 1;
}

static void set_integer(lua_State *L, const char *field, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, field);
}

/* p:stats() -> {name=, threads=, started=, idle=, queued=, running=, completed=} */
static int l_pool_stats(lua_State *L) {
  face *f = check(L);
  lua_Integer threads = 0, started = 0, idle = 0, queued = 0, running = 0, completed = 0;
  const at_worker *w;
  lua_createtable(L, 0, 8);
  if (f->pool != NULL) {
    at_pool *pool = f->pool;
    pthread_mutex_lock(&pool->mutex);
    threads = pool->size;
    started = pool->alive;
    for (w = pool->idle; w != NULL; w = w->next_idle) idle++;
    queued = atomic_load(&pool->waiting);
    running = pool->jobs - queued;
    completed = pool->completed;
    pthread_mutex_unlock(&pool->mutex);
  }
  set_integer(L, "threads", threads);
  set_integer(L, "started", started);
  set_integer(L, "idle", idle);
  set_integer(L, "queued", queued);
  set_integer(L, "running", running);
  set_integer(L, "completed", completed);
  lua_getiuservalue(L, 1, UV_NAME);
  lua_setfield(L, -2, "name");
  lua_pushboolean(L, f->pool == NULL || f->closing);
  lua_setfield(L, -2, "closed");
  return 1;
}

static int l_pool_tostring(lua_State *L) {
  (void)check(L);
  if (lua_getiuservalue(L, 1, UV_NAME) == LUA_TSTRING)
    lua_pushfstring(L, POOL_MT ": %s", lua_tostring(L, -1));
  else
    lua_pushfstring(L, POOL_MT ": %p", lua_topointer(L, 1));
  return 1;
}

/* pool([{threads=, name=, memory=, fresh=}]) -> Pool */
static int l_pool(lua_State *L) {
  static const char *const known[] = {"threads", "name", "memory", "fresh", NULL};
  at_runtime *rt = at_rt(L);
  at_par *par = at_par_get(L);
  int threads, fresh;
  lua_Integer memory;
  face *f;
  lua_settop(L, 1);
  if (rt->closing) return at_runtime_refuse(L, rt);
  (void)at_arg_options(L, 1, known);
  threads = (int)at_arg_field_integer(L, 1, "threads", at_pool_default_size(), 1, THREADS_MAX);
  memory = at_arg_field_integer(L, 1, "memory", 0, 1, LUA_MAXINTEGER);
  fresh = at_arg_field_boolean(L, 1, "fresh", 0);
  f = (face *)lua_newuserdatauv(L, sizeof *f, 1);
  memset(f, 0, sizeof *f);
  luaL_setmetatable(L, POOL_MT);
  if (lua_istable(L, 1) && lua_getfield(L, 1, "name") != LUA_TNIL) {
    if (lua_type(L, -1) != LUA_TSTRING) return luaL_argerror(L, 1, "option 'name': string expected");
    lua_setiuservalue(L, 2, UV_NAME);
  }
  lua_settop(L, 2);
  f->pool = at_par_new_pool(L, par, threads);
  f->pool->face = f;
  f->pool->fresh = (unsigned char)fresh;
  f->pool->memory = (size_t)memory;
  at_par_adopt(par, f->pool, rt->inbox);
  return 1;
}

int at_pool_default_size(void) {
  const char *text = getenv("ASYNCTASK_THREADS");
  long size = text != NULL ? strtol(text, NULL, 10) : 0;
  if (size <= 0) size = (long)uv_available_parallelism();
  return size > THREADS_MAX ? THREADS_MAX : (int)size;
}

at_pool *at_pool_single(at_pool *shared) {
  at_pool *pool = at_pool_new(1, shared->opener, shared->path, shared->cpath);
  if (pool == NULL) return NULL;
  pool->shared = shared;
  pool->preload = shared->preload;
  pool->fresh = shared->fresh;
  pool->memory = shared->memory;
  return pool;
}

/* threads() -> threads that the default pool has at most; in a job, its own pool */
static int l_threads(lua_State *L) {
  const at_par *par = at_par_get(L);
  lua_pushinteger(L, par->pool != NULL ? par->pool->size : at_pool_default_size());
  return 1;
}

void at_pools_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"pool", l_pool}, {"threads", l_threads}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"run", l_pool_run}, {"stats", l_pool_stats}, {"close", l_pool_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {
      {"__gc", l_pool_gc}, {"__tostring", l_pool_tostring}, {NULL, NULL}};
  at_runtime_class(L, rt, POOL_MT, methods, meta);
  at_runtime_setfuncs(L, rt, functions);
}
