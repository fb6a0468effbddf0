/* await.c - waiting. The only caller of lua_yield in the kernel (coroutine.c and par's interruption
** are the named exceptions): await, try, wait, the handoff of deep spawns; and the main chunk's way
** of waiting, which runs the loop.
** Loop thread only. Invariants: a suspended task is either in the ready queue or waits for exactly one
** task, and goes on only when the scheduler has woken it (AT_F_RESUMED); nothing is raised while the
** loop runs. */
#include "core/await.h"

#include <string.h>

#include "base/error.h"
#include "core/cancel.h"
#include "core/dump.h"
#include "core/fault.h"
#include "core/op.h"
#include "core/sched.h"

#define TICK_MS 50 /* how often the pumping main chunk looks for an interrupt */

enum { MODE_AWAIT, MODE_TRY, MODE_WAIT }; /* raise; nil, err; nothing */

void at_await_push(lua_State *L, at_runtime *rt) { at_fixed_push(L, rt, AT_A_AWAIT); }

void at_flat_push(lua_State *L, at_runtime *rt) { at_fixed_push(L, rt, AT_A_FLAT); }

/* ---- why an await is not possible ---- */

/* The name of the C function nearest to the top that Lua cannot yield across, or NULL. */
static const char *blocker(lua_State *L) {
  lua_Debug ar;
  int level;
  for (level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sn", &ar);
    if (strcmp(ar.what, "C") == 0 && ar.name != NULL && strcmp(ar.name, "await") != 0 &&
        strcmp(ar.name, "pcall") != 0 && strcmp(ar.name, "xpcall") != 0)
      return ar.name;
  }
  return NULL;
}

static int refuse(lua_State *L, at_runtime *rt) {
  const char *name;
  if (L != rt->running)
    return luaL_error(L, "await inside a coroutine that is not a task's: use the functions of "
                         "'asynctask.coroutine' for generators, or task.spawn for work of its own");
  name = blocker(L);
  if (name != NULL && strcmp(name, "require") == 0)
    return luaL_error(L, "await while a module is loaded by 'require', which cannot be suspended: "
                         "await in a function that the module returns, or load it with 'dofile'");
  lua_pushfstring(L, name != NULL ? "'%s'" : "a function of C", name);
  return luaL_error(L, "await inside a function called by %s, which cannot be suspended: await "
                       "before the call, and hand it plain values", lua_tostring(L, -1));
}

/* ---- giving the outcome ---- */

static int outcome(lua_State *L, at_runtime *rt, at_task *t, int mode) {
  if (mode == MODE_WAIT) return 0;
  if (t->state == AT_SUCCEEDED) {
    t->flags |= AT_F_OBSERVED;
    return at_task_push_results(L, rt, t, 1);
  }
  if (mode == MODE_TRY) {
    lua_pushnil(L);
    at_task_push_error(L, rt, t, 1);
    return 2;
  }
  at_task_push_error(L, rt, t, 1);
  return lua_error(L);
}

static int raise_aimed(lua_State *L, at_runtime *rt) {
  if (!at_cancel_push_aimed(L, rt, rt->current)) at_cancel_push_error(L, 0);
  return lua_error(L);
}

/* ---- suspending ---- */

static int await_k(lua_State *L, int status, lua_KContext ctx);

/* A continuation finds the runtime in its context, with the mode in the low bits: an upvalue costs more. */
#define runtime_of(ctx) ((at_runtime *)((uintptr_t)(ctx) & ~(uintptr_t)3))
#define mode_of(ctx) ((int)((uintptr_t)(ctx)&3))

static int suspend(lua_State *L, at_runtime *rt, int mode, lua_KFunction k) {
  rt->current->task.flags &= (uint16_t)~AT_F_RESUMED;
  rt->yielding = 1;
  return lua_yieldk(L, 0, (lua_KContext)((uintptr_t)rt | (uintptr_t)mode), k);
}

/* Has the scheduler woken this coroutine? Somebody's stray resume has not. */
static int woken(lua_State *L, at_runtime *rt) {
  at_coro *c = rt->current;
  if (L != rt->running || (c->task.flags & AT_F_RESUMED) == 0) return 0;
  c->task.flags &= (uint16_t)~AT_F_RESUMED;
  return 1;
}

static int raise_k(lua_State *L, int status, lua_KContext ctx) {
  at_runtime *rt = runtime_of(ctx);
  (void)status;
  if (!woken(L, rt)) return lua_yieldk(L, 0, ctx, raise_k);
  return raise_aimed(L, rt);
}

/* Raises the cancellation, after letting others run (S9). */
static int cancelled(lua_State *L, at_runtime *rt) {
  if (at_await_can_yield(L, rt)) {
    at_sched_ready(rt, rt->current);
    return suspend(L, rt, 0, raise_k);
  }
  if (rt->running == NULL && !rt->in_uv_run && !rt->draining && !rt->host_driven) {
    at_sched_enter(rt);
    (void)at_runtime_pump(rt, 0);
  }
  return raise_aimed(L, rt);
}

/* A budget that was spent is a cancellation point only where no value would be lost. */
static int budget_k(lua_State *L, int status, lua_KContext ctx) {
  at_runtime *rt = runtime_of(ctx);
  at_task *t = lua_touserdata(L, 1);
  (void)status;
  if (!woken(L, rt)) return lua_yieldk(L, 0, ctx, budget_k);
  if (at_op_refused(rt) && ((t->flags & AT_F_OBSERVED) || t->kind != AT_OP))
    return raise_aimed(L, rt);
  return outcome(L, rt, t, mode_of(ctx));
}

/* stack: task. Woken: by what it awaited, or by a cancellation. */
static int await_k(lua_State *L, int status, lua_KContext ctx) {
  at_runtime *rt = runtime_of(ctx);
  at_task *t = lua_touserdata(L, 1);
  at_coro *c = rt->current;
  (void)status;
  if (!woken(L, rt)) return lua_yieldk(L, 0, ctx, await_k);
  c->task.flags &= (uint16_t)~AT_F_PEEK;
  if (c->task.flags & AT_F_WOKEN_CANCEL) {
    c->task.flags &= (uint16_t)~AT_F_WOKEN_CANCEL;
    if (!at_task_settled(t) || t->state == AT_CANCELLED) return raise_aimed(L, rt);
  } else if (t->kind == AT_TURN && at_op_refused(rt)) {
    return raise_aimed(L, rt);
  }
  return outcome(L, rt, t, mode_of(ctx));
}

static int handoff_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  if (!woken(L, runtime_of(ctx))) return lua_yieldk(L, 0, ctx, handoff_k);
  return 1;
}

int at_await_handoff(lua_State *L, at_runtime *rt) { return suspend(L, rt, 0, handoff_k); }

/* ---- the main chunk ---- */

static int noop(lua_State *L) {
  (void)L;
  return 0;
}

static int deadlock(lua_State *L, at_runtime *rt, at_task *t) {
  lua_pushliteral(L, "deadlock: the main chunk waits for ");
  at_task_push_label(L, rt, t, 1);
  lua_pushliteral(L, ", and nothing is left that could settle it\n");
  at_dump_push(L, rt);
  lua_concat(L, 4);
  luaL_where(L, 1);
  lua_insert(L, -2);
  lua_concat(L, 2);
  return lua_error(L);
}

/* Runs the loop until the task at 1 settles. Raises only when the loop is at rest. */
static int pump(lua_State *L, at_runtime *rt, at_task *t, int mode) {
  at_task *outer = rt->wanted;
  int alive = 1, interrupted = 0, ticking = 0;
  if (rt->ended) return at_runtime_refuse(L, rt);
  if (rt->closing) return luaL_error(L, "await: the state is closing");
  if (lua_gc(L, LUA_GCCOUNT) < 0) return luaL_error(L, "await inside a finalizer (__gc)");
  if (rt->in_uv_run || rt->draining)
    return luaL_error(L, "await inside a callback of the event loop: spawn a task that awaits");
  if (rt->host_driven)
    return luaL_error(L, "await outside a task while the host runs the loop: spawn a task");
  lua_pushvalue(L, 1);
  rt->wanted = t;
  rt->pumping++;
  rt->hook = lua_gethook(rt->main);
  while (!at_task_settled(t) && alive && !interrupted && !at_op_refused(rt)) {
    if (at_sched_has_work(rt)) at_sched_drain(rt);
    if (at_task_settled(t) || at_op_refused(rt)) break;
    if (!ticking && !at_sched_has_work(rt)) {
      at_runtime_tick(rt, TICK_MS);
      ticking = 1;
    }
    alive = at_runtime_pump(rt, 1);
    if (!alive && !at_task_settled(t)) { /* an abandoned source faults its task (S14) rather than hang it */
      (void)lua_gc(L, LUA_GCCOLLECT);
      alive = at_sched_has_work(rt);
    }
    interrupted = lua_gethook(rt->main) != rt->hook;
  }
  if (ticking) at_runtime_tick(rt, 0);
  rt->pumping--;
  rt->wanted = outer;
  lua_settop(L, 1);
  if (interrupted && L != rt->main) return luaL_error(L, "interrupted!"); /* main's hook stays armed */
  if (interrupted) { /* the interrupt is a hook on this thread: any call runs it */
    lua_pushcfunction(L, noop);
    lua_call(L, 0, 0);
  }
  if (at_task_settled(t) && !(t->state == AT_CANCELLED && at_op_refused(rt)))
    return outcome(L, rt, t, mode);
  if (at_op_refused(rt)) return raise_aimed(L, rt);
  if (interrupted) return pump(L, rt, t, mode); /* a hook that did not raise */
  return deadlock(L, rt, t);
}

/* ---- await ---- */

/* stack: task */
static int await_settled(lua_State *L, at_runtime *rt, at_task *t, int mode) {
  if (t->state == AT_CANCELLED && at_op_refused(rt)) return cancelled(L, rt);
  if (--rt->budget < 0) {
    rt->budget = AT_TURN_BUDGET;
    if (at_await_can_yield(L, rt)) {
      at_sched_ready(rt, rt->current);
      return suspend(L, rt, mode, budget_k);
    }
    if (rt->running == NULL && !rt->in_uv_run && !rt->draining && !rt->host_driven) {
      at_sched_enter(rt);
      (void)at_runtime_pump(rt, 0);
      if (at_op_refused(rt) && ((t->flags & AT_F_OBSERVED) || t->kind != AT_OP))
        return raise_aimed(L, rt);
    }
  }
  return outcome(L, rt, t, mode);
}

static int await_task(lua_State *L, at_runtime *rt, at_task *t, int mode) {
  at_coro *c = rt->current;
  if (at_task_settled(t)) return await_settled(L, rt, t, mode);
  if (!at_await_can_yield(L, rt)) {
    if (rt->running != NULL || (L != rt->main && L != rt->generator && lua_isyieldable(L)))
      return refuse(L, rt);
    if (at_op_refused(rt)) return cancelled(L, rt);
    return pump(L, rt, t, mode);
  }
  if (at_op_refused(rt)) return cancelled(L, rt);
  if (t == &c->task) return luaL_error(L, "a task cannot await itself");
  if (mode == MODE_WAIT) c->task.flags |= AT_F_PEEK;
  if (t->kind == AT_TURN) {
    at_sched_ready(rt, c);
  } else {
    if (at_task_wait_coro(rt, t, c) < 0) {
      c->task.flags &= (uint16_t)~AT_F_PEEK;
      return luaL_error(L, "not enough memory");
    }
    c->task.flags |= AT_F_WAITING;
  }
  return suspend(L, rt, mode, await_k);
}

/* The argument is not a Task: a value whose metatable has __await gives one. */
static at_task *convert(lua_State *L, at_runtime *rt) {
  lua_settop(L, 1);
  if (luaL_getmetafield(L, 1, "__await") == LUA_TNIL) luaL_typeerror(L, 1, "Task");
  lua_insert(L, 1);
  lua_call(L, 1, 1);
  if (at_task_test(L, rt, 1) == NULL)
    luaL_error(L, "'__await' must return a Task, got %s", luaL_typename(L, 1));
  return lua_touserdata(L, 1);
}

static int await_mode(lua_State *L, int mode) {
  at_runtime *rt = at_rt(L);
  at_task *t = lua_touserdata(L, 1);
  if (t == NULL || !lua_getmetatable(L, 1) || lua_topointer(L, -1) != rt->task_mt)
    t = convert(L, rt);
  lua_settop(L, 1);
  return await_task(L, rt, t, mode);
}

/* await(t) -> values of t; raises its error */
int l_await(lua_State *L) { return await_mode(L, MODE_AWAIT); }

/* try(t) -> values of t, or nil and its error */
int l_try(lua_State *L) { return await_mode(L, MODE_TRY); }

/* wait(t): until t has settled, whatever its outcome, which does not count as seen */
static int l_wait(lua_State *L) { return await_mode(L, MODE_WAIT); }

/* ---- S25 ---- */

static int flat_k(lua_State *L, int status, lua_KContext ctx) {
  at_runtime *rt = at_rt(L);
  at_task *t;
  (void)status;
  (void)ctx;
  if (lua_gettop(L) != 1 || (t = at_task_test(L, rt, 1)) == NULL) return lua_gettop(L);
  return await_task(L, rt, t, MODE_AWAIT);
}

/* flat(f, ...) -> results of f, or those of the one Task that it returns */
static int l_flat(lua_State *L) {
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, flat_k);
  return flat_k(L, LUA_OK, 0);
}

void at_await_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"await", l_await}, {"try", l_try}, {"wait", l_wait}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}

void at_await_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg fixed[] = {{"await", l_await}, {"flat", l_flat}, {NULL, NULL}};
  lua_newtable(L);
  at_runtime_setfuncs(L, rt, fixed);
  lua_getfield(L, -1, "await");
  lua_xmove(L, rt->A, 1); /* AT_A_AWAIT */
  lua_getfield(L, -1, "flat");
  lua_xmove(L, rt->A, 1); /* AT_A_FLAT */
  lua_pop(L, 1);
}
