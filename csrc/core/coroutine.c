/* coroutine.c - resume and wrap that let an await inside a generator through (S17): the generator
** suspends for the await, its resumer yields outward in turn, until the scheduler gets control; on the
** way back each level resumes the next. A named exception to "only sched resumes, only await yields".
** Also what keeps rt->executing true for coroutines that a job makes.
** Loop thread only. Invariant: AT_SLOT_WAITING holds the generators that wait for a task. */
#include "core/coroutine.h"

#include "base/arg.h"
#include "core/task.h"

/* [-0, +1, -] pushes the coroutine as a value. */
static void push_thread(lua_State *L, lua_State *co) {
  luaL_checkstack(co, 1, "coroutine");
  lua_pushthread(co);
  lua_xmove(co, L, 1);
}

static int is_waiting(lua_State *L, at_runtime *rt, lua_State *co) {
  int waiting;
  at_anchor_push(L, rt, AT_SLOT_WAITING);
  push_thread(L, co);
  lua_rawget(L, -2);
  waiting = lua_toboolean(L, -1);
  lua_pop(L, 2);
  return waiting;
}

static void set_waiting(lua_State *L, at_runtime *rt, lua_State *co, int waiting) {
  at_anchor_push(L, rt, AT_SLOT_WAITING);
  push_thread(L, co);
  if (waiting)
    lua_pushboolean(L, 1);
  else
    lua_pushnil(L);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

static lua_State *check(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  if (co == NULL) at_arg_type_error(L, 1, "coroutine");
  return co;
}

enum { FAILED = -1, AWAITS = -2, KILLED = -3 };

/* Resumes co with the n values at its top. Returns the number of values it yielded or returned (at
** L's top), FAILED (the error at L's top), or L has to yield outward: AWAITS, or KILLED when par
** stopped the task (co's pending variables are closed). */
static int step(lua_State *L, at_runtime *rt, lua_State *co, int n) {
  lua_State *running = rt->running, *executing = rt->executing, *generator = rt->generator;
  int status, results;
  if (running == L && lua_isyieldable(L)) rt->running = co;
  if (running == NULL && (L == rt->main || L == generator)) rt->generator = co;
  rt->executing = co;
  status = lua_resume(co, L, n, &results);
  rt->generator = generator;
  rt->running = running;
  rt->executing = executing;
  if (status == LUA_YIELD && rt->yielding) return AWAITS;
  if (status == LUA_YIELD && (rt->current->task.flags & AT_F_INTERRUPTED)) {
    if (!rt->abandoned) {
      lua_sethook(co, NULL, 0, 0);
      (void)lua_resetthread(co); /* errors of __close replace nobody's */
    }
    if (lua_isyieldable(L)) return KILLED;
    lua_pushliteral(L, "interrupted");
    return FAILED;
  }
  if (status == LUA_OK || status == LUA_YIELD) {
    if (!lua_checkstack(L, results + 1)) {
      lua_pop(co, results);
      lua_pushliteral(L, "too many results to resume");
      return FAILED;
    }
    lua_xmove(co, L, results);
    return results;
  }
  lua_xmove(co, L, 1);
  return FAILED;
}

/* Why co cannot be resumed, or NULL. */
static const char *obstacle(lua_State *L, at_runtime *rt, lua_State *co) {
  if (is_waiting(L, rt, co)) return "cannot resume a coroutine that waits for a task";
  if (lua_status(co) == LUA_OK && lua_gettop(co) == 0) return "cannot resume dead coroutine";
  return NULL;
}

static int resume_k(lua_State *L, int status, lua_KContext is_wrap);

/* stack: coroutine results...|error */
static int deliver(lua_State *L, at_runtime *rt, lua_State *co, int n, int is_wrap) {
  if (n == AWAITS) {
    set_waiting(L, rt, co, 1);
    return lua_yieldk(L, 0, is_wrap, resume_k); /* rt->yielding stays set for the next level */
  }
  if (n == KILLED) return lua_yield(L, 0);
  if (!is_wrap) {
    lua_pushboolean(L, n != FAILED);
    if (n == FAILED) n = 1;
    lua_insert(L, -(n + 1));
    return n + 1;
  }
  if (n != FAILED) return n;
  if (lua_status(co) != LUA_OK && lua_status(co) != LUA_YIELD) {
    if (lua_resetthread(co) != LUA_OK && lua_gettop(co) > 0) { /* closes pending variables */
      lua_xmove(co, L, 1); /* the error of a __close, or the same one again */
    }
  }
  if (lua_type(L, -1) == LUA_TSTRING) { /* as coroutine.wrap does: adds where it was called */
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int resume_k(lua_State *L, int status, lua_KContext is_wrap) {
  at_runtime *rt = at_rt(L);
  lua_State *co = is_wrap ? lua_tothread(L, lua_upvalueindex(3)) : lua_tothread(L, 1);
  (void)status;
  if (L != rt->running || (rt->current->task.flags & AT_F_RESUMED) == 0)
    return lua_yieldk(L, 0, is_wrap, resume_k); /* a stray resume: goes on waiting */
  set_waiting(L, rt, co, 0);
  return deliver(L, rt, co, step(L, rt, co, 0), (int)is_wrap);
}

/* stack: [coroutine] args... with the arguments from `first` on */
static int resume(lua_State *L, lua_State *co, int first, int is_wrap) {
  at_runtime *rt = at_rt(L);
  int n = lua_gettop(L) - first + 1;
  const char *why = obstacle(L, rt, co);
  if (why == NULL && !lua_checkstack(co, n)) why = "too many arguments to resume";
  if (why != NULL) {
    lua_pushstring(L, why);
    return deliver(L, rt, co, FAILED, is_wrap);
  }
  lua_xmove(L, co, n);
  return deliver(L, rt, co, step(L, rt, co, n), is_wrap);
}

/* resume(co, ...) as coroutine.resume */
static int l_resume(lua_State *L) {
  lua_State *co = check(L);
  return resume(L, co, 2, 0);
}

static int l_wrap_call(lua_State *L) {
  return resume(L, lua_tothread(L, lua_upvalueindex(3)), 1, 1);
}

/* wrap(f) as coroutine.wrap */
static int l_wrap(lua_State *L) {
  lua_State *co;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(2));
  co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, l_wrap_call, 3);
  return 1;
}

/* status(co) as coroutine.status; "normal" for one that waits for a task: it is not to be resumed */
static int l_status(lua_State *L) {
  lua_State *co = check(L);
  lua_Debug ar;
  if (is_waiting(L, at_rt(L), co))
    lua_pushliteral(L, "normal");
  else if (L == co)
    lua_pushliteral(L, "running");
  else if (lua_status(co) == LUA_YIELD)
    lua_pushliteral(L, "suspended");
  else if (lua_status(co) != LUA_OK)
    lua_pushliteral(L, "dead");
  else if (lua_getstack(co, 0, &ar))
    lua_pushliteral(L, "normal");
  else if (lua_gettop(co) == 0)
    lua_pushliteral(L, "dead");
  else
    lua_pushliteral(L, "suspended");
  return 1;
}

/* close(co) as coroutine.close; refuses one that waits for a task */
static int l_close(lua_State *L) {
  lua_State *co = check(L);
  lua_Debug ar;
  if (is_waiting(L, at_rt(L), co))
    return luaL_error(L, "cannot close a coroutine that waits for a task (cancel the task)");
  if (L == co || (lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar)))
    return luaL_error(L, "cannot close a running coroutine");
  if (lua_resetthread(co) == LUA_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushboolean(L, 0);
  lua_xmove(co, L, 1);
  return 2;
}

void at_coroutine_push(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"resume", l_resume}, {"wrap", l_wrap},
                                       {"status", l_status}, {"close", l_close},
                                       {NULL, NULL}};
  lua_newtable(L);
  at_runtime_setfuncs(L, rt, functions);
}
