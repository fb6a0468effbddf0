/* sched.c - the ready queue, the start of tasks, the way from libuv into Lua. The only caller of
** lua_resume (coroutine.c and par's interruption are the named exceptions).
** Owns the queue and the runtime's notion of who runs. Loop thread only.
** Invariants: a task is in the queue at most once; uv callbacks enter Lua through at_sched_enter and
** nothing else, protected, on rt->L; a turn runs what was ready when it began. */
#include "core/sched.h"

#include "base/arg.h"
#include "core/await.h"
#include "core/cancel.h"
#include "core/copool.h"
#include "core/fault.h"
#include "core/locals.h"
#include "core/op.h"
#include "core/timer.h"
#include "core/waker.h"

/* ---- the queue ---- */

static void on_idle(uv_idle_t *handle) { (void)handle; /* its being active keeps poll from blocking */ }

void at_sched_wake(at_runtime *rt) {
  if (rt->draining || rt->idle_on || rt->uv == NULL) return;
  (void)uv_idle_start(&rt->uv->idle, on_idle);
  rt->idle_on = 1;
  if (rt->waker != NULL) at_waker_call(rt);
}

int at_sched_spent(at_runtime *rt) {
  if (!rt->spent && uv_hrtime() >= rt->deadline) rt->spent = 1;
  return rt->spent;
}

void at_sched_ready(at_runtime *rt, at_coro *c) {
  c->task.flags = (uint16_t)((c->task.flags & ~AT_F_WAITING) | AT_F_QUEUED);
  c->link.next = NULL;
  if (rt->ready_tail != NULL)
    rt->ready_tail->link.next = c;
  else
    rt->ready_head = c;
  rt->ready_tail = c;
  at_sched_wake(rt);
}

static at_coro *take_ready(at_runtime *rt) {
  at_coro *c = rt->ready_head;
  rt->ready_head = c->link.next;
  if (rt->ready_head == NULL) rt->ready_tail = NULL;
  c->task.flags &= (uint16_t)~AT_F_QUEUED;
  c->link.awaiting = 0;
  return c;
}

void at_sched_defer(at_runtime *rt, at_deferred *d) {
  if (d->queued) return;
  d->queued = 1;
  d->next = rt->deferred;
  rt->deferred = d;
  at_sched_wake(rt);
}

void at_sched_undefer(at_runtime *rt, at_deferred *d) {
  at_deferred **link = &rt->deferred;
  if (rt->deferring == d) rt->deferring = NULL;
  if (!d->queued) return;
  while (*link != d) link = &(*link)->next;
  *link = d->next;
  d->queued = 0;
}

int at_sched_has_work(const at_runtime *rt) {
  return rt->ready_head != NULL || rt->deferred != NULL || rt->done_head != NULL || rt->turn != NULL || rt->reports > 0 ||
         at_timer_due(rt);
}

/* ---- running a task ---- */

static void stray_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  luaL_where(L, 0); /* the function that yielded goes on right here */
  lua_pushliteral(L, "attempt to yield from a task: a task waits with 'await'; for generators inside "
                     "a task wrap a coroutine of their own");
  lua_concat(L, 2);
  (void)lua_error(L);
}

/* The task is in its first slice, at the top of whoever started it, or its coroutine's anchor holds it. */
void at_sched_push_task(lua_State *L, at_runtime *rt, at_coro *c) {
  if (c->task.flags & AT_F_ANCHORED) {
    at_anchor_push(L, rt, rt->cells[c->task.index].slot);
  } else {
    lua_State *from = c->link.from;
    lua_pushvalue(from, -1);
    if (from != L) lua_xmove(from, L, 1);
  }
}

/* [-0, +0, -] the task at L's top is about to outlive its first slice: it takes the place of its
** coroutine in the anchor table, and holds the coroutine in its user value until it has a result. */
static void anchor_task(lua_State *L, at_runtime *rt, at_coro *c) {
  lua_pushthread(c->co);
  lua_xmove(c->co, L, 1);
  lua_setiuservalue(L, -2, 1);
  lua_pushvalue(L, -1);
  at_anchor_set(L, rt, rt->cells[c->task.index].slot);
  c->task.flags |= AT_F_ANCHORED;
}

/* Is the fault at co's top what was aimed at the task itself? Then its error takes its place. */
static int replace_own(at_runtime *rt, at_coro *c, lua_State *co) {
  lua_getiuservalue(co, -1, 1);
  if (!at_cancel_is_own(co, rt, c, -1)) {
    lua_pop(co, 1);
    return 0;
  }
  at_fault_observe(rt, at_fault_test(co, -2));
  lua_replace(co, -2);
  return 1;
}

/* stack of from: task result */
static void finish_otherwise(at_runtime *rt, lua_State *from, at_coro *c, int how) {
  switch (how) {
    case AT_BODY_MANY:
      lua_setiuservalue(from, -2, 1);
      c->task.flags |= AT_F_MANY;
      at_task_settle(rt, &c->task, AT_SUCCEEDED);
      break;
    case AT_BODY_FAULT:
      (void)at_task_fault(from, rt, -2);
      break;
    case AT_BODY_DIED: /* the bare error */
      lua_setiuservalue(from, -2, 1);
      at_task_settle(rt, &c->task, AT_FAULTED);
      break;
    default:
      (void)at_task_cancelled(from, rt, -2);
  }
}

/* The body has returned its results (at co's top), or died outside its protection: no memory, no C
** stack, or somebody closed the coroutine. Settles; allocates nothing. */
static void finish(at_runtime *rt, lua_State *from, at_coro *c, lua_State *co, int results) {
  int how = rt->body, anchored = c->task.flags & AT_F_ANCHORED;
  if (anchored) {
    at_anchor_push(from, rt, rt->cells[c->task.index].slot); /* else it is at from's top */
    lua_pushthread(co);
    lua_xmove(co, from, 1);
    at_anchor_set(from, rt, rt->cells[c->task.index].slot);
    if (results == 0) {
      lua_pushnil(from);
      lua_setiuservalue(from, -2, 1);
    }
  }
  c->co = NULL;
  if (c->ext != NULL || c->owned != NULL) {
    if (how == AT_BODY_FAULT && replace_own(rt, c, co)) how = AT_BODY_CANCELLED;
    at_ext_release(rt, c);
  }
  if (results > 0) lua_xmove(co, from, 1);
  if (how == AT_BODY_VALUES) {
    if (results > 0) {
      lua_setiuservalue(from, -2, 1);
      c->task.flags |= AT_F_ONE;
    }
    at_task_settle(rt, &c->task, AT_SUCCEEDED);
  } else {
    rt->body = AT_BODY_VALUES;
    finish_otherwise(rt, from, c, how);
  }
  at_copool_put(rt, c->task.index, co, how < AT_BODY_DIED && lua_gettop(co) == 1);
  if (anchored) lua_pop(from, 1);
}

/* The coroutine ended with an error of lua_resume. */
static void died(at_runtime *rt, lua_State *from, at_coro *c, lua_State *co) {
  if (c->task.flags & AT_F_WAITING) at_task_unwait_coro(rt, c);
  if (lua_gettop(co) == 0) at_fixed_push(co, rt, AT_A_CLOSED); /* nothing may be raised in co */
  rt->body = AT_BODY_DIED;
  finish(rt, from, c, co, 1);
}

/* par's hook stopped the task: what it left open is closed, outermost coroutine last; then it counts
** as cancelled. Nothing of it runs if the state is about to close. */
static void killed(at_runtime *rt, lua_State *from, at_coro *c, lua_State *co) {
  if (rt->abandoned) {
    rt->ready_head = rt->ready_tail = NULL;
    return;
  }
  (void)lua_resetthread(co); /* errors of __close replace nobody's */
  lua_sethook(co, NULL, 0, 0);
  lua_settop(co, 0);
  if (!at_cancel_push_aimed(co, rt, c)) lua_pushnil(co);
  rt->body = AT_BODY_KILLED;
  finish(rt, from, c, co, 1);
}

/* Starts (with n arguments) or continues (n is 0) a task, and the children that it hands over because
** they are nested deeply: last in, first out, so that a spawn is hot at any depth. A task without an
** anchor is at from's top. The stack of `from` is as it was. */
static void run(at_runtime *rt, lua_State *from, at_coro *c, int n) {
  at_coro *outer = rt->current, *spawners = NULL;
  lua_State *outer_running = rt->running, *outer_executing = rt->executing;
  rt->nest++;
  for (;;) {
    lua_State *co = c->co;
    int results, status;
    rt->current = c;
    rt->running = rt->executing = co;
    if (n == 0) c->task.flags |= AT_F_RESUMED; /* for the await that it is in, not for a start */
    c->link.from = from;
    status = lua_resume(co, from, n, &results);
    n = 0;
    if (status == LUA_OK) {
      finish(rt, from, c, co, results - 1); /* what lies below the body counts, too */
    } else if (status != LUA_YIELD) {
      died(rt, from, c, co);
    } else if (c->task.flags & AT_F_INTERRUPTED) {
      killed(rt, from, c, co);
      if (rt->abandoned) break;
    } else if (!rt->yielding) {
      lua_pop(co, results);
      lua_sethook(co, stray_hook, LUA_MASKCOUNT, 1);
      continue;
    } else {
      rt->yielding = 0;
      if ((c->task.flags & AT_F_ANCHORED) == 0) anchor_task(from, rt, c);
      if (rt->handoff != NULL) {
        c->link.next = spawners;
        spawners = c;
        c = rt->handoff;
        rt->handoff = NULL;
        n = lua_gettop(c->co) - 2;
        continue;
      }
    }
    if (spawners == NULL) break;
    c = spawners;
    spawners = c->link.next;
  }
  rt->nest--;
  rt->current = outer;
  rt->running = outer_running;
  rt->executing = outer_executing;
}

/* ---- turns ---- */

static void begin_turn(lua_State *L, at_runtime *rt) {
  rt->budget = AT_TURN_BUDGET;
  if (rt->done_head != NULL) at_op_drain(L, rt);
  while (rt->deferred != NULL && !rt->spent) {
    at_deferred *d = rt->deferred;
    at_sched_undefer(rt, d);
    rt->deferring = d->retry ? d : NULL;
    d->run(L, rt, d);
    rt->deferring = NULL;
  }
  if (rt->turn != NULL) {
    at_task *t = rt->turn;
    rt->turn = NULL;
    at_task_settle(rt, t, AT_SUCCEEDED);
  }
  if (rt->heap_size > 0 && at_timer_due(rt)) at_timer_fire(L, rt, 0);
  if (rt->reports > 0) at_fault_flush(L, rt);
}

/* A task that was not started at once; cancelled meanwhile, it never begins. */
static void start_queued(at_runtime *rt, lua_State *L, at_coro *c) {
  lua_State *co = c->co;
  if (c->task.flags & AT_F_CANCELLING) {
    lua_settop(co, 1);
    (void)at_cancel_push_aimed(co, rt, c);
    rt->body = AT_BODY_CANCELLED;
    finish(rt, L, c, co, 1);
  } else {
    run(rt, L, c, lua_gettop(co) - 2);
  }
}

/* Runs turns until nothing is ready or enough was run for now. stack: runtime once */
static int l_turns(lua_State *L) {
  at_runtime *rt = lua_touserdata(L, 1);
  int once = lua_toboolean(L, 2), left = AT_DRAIN_LIMIT;
  rt->draining = 2; /* Lua has been entered */
  do {
    at_coro *c, *last;
    begin_turn(L, rt);
    last = rt->ready_tail;
    while ((c = rt->ready_head) != NULL) {
      (void)take_ready(rt);
      if (lua_status(c->co) == LUA_OK && lua_gettop(c->co) >= 4)
        start_queued(rt, L, c);
      else if (lua_status(c->co) != LUA_YIELD)
        died(rt, L, c, c->co);
      else
        run(rt, L, c, 0);
      left--;
      if (rt->deadline != 0 && at_sched_spent(rt)) return 0; /* the rest is the next step's */
      if (c == last) break;
    }
  } while (!rt->spent && !once && left > 0 && at_sched_has_work(rt) &&
           !(rt->wanted != NULL && at_task_settled(rt->wanted)));
  return 0;
}

static void enter(at_runtime *rt, int once) {
  lua_State *L = rt->L;
  at_coro *current = rt->current;
  int top, nest = rt->nest;
  if (rt->draining || rt->closing || rt->running != NULL || rt->spent) return;
  if (rt->entered != NULL) rt->entered(rt);
  top = lua_gettop(L);
  rt->draining = 1;
  lua_pushcfunction(L, l_turns);
  lua_pushlightuserdata(L, rt);
  lua_pushboolean(L, once);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) { /* no memory: whoever was being settled fails with that */
    rt->current = current;
    rt->running = rt->executing = NULL;
    rt->nest = nest;
    rt->notifying = 0;
    at_op_drain_failed(L, rt, rt->draining > 1);
    if (rt->deferring != NULL) { /* is done again, after a breath: there may be memory then */
      at_sched_defer(rt, rt->deferring);
      rt->deferring = NULL;
      uv_sleep(1);
    }
    lua_settop(L, top);
  }
  rt->draining = 0;
  if (rt->uv == NULL) return; /* the state was closed from inside */
  if (at_sched_has_work(rt)) {
    at_sched_wake(rt);
  } else if (rt->idle_on) {
    (void)uv_idle_stop(&rt->uv->idle);
    rt->idle_on = 0;
  }
  at_timer_arm(rt);
}

void at_sched_enter(at_runtime *rt) { enter(rt, 1); }

void at_sched_drain(at_runtime *rt) { enter(rt, 0); }

void at_sched_prepare(uv_prepare_t *handle) {
  at_runtime *rt = handle->data;
  if (rt->foreign && rt->waker != NULL) { /* no step says so */
    at_waker_awake(rt);
    at_waker_asleep(rt);
  }
  if (at_sched_has_work(rt))
    enter(rt, 0);
  else
    at_timer_arm(rt);
}

/* ---- starting ---- */

enum { START_QUEUED = 1, START_HELD = 2 };

/* A coroutine that holds handler, function and arguments, but no task that lives: an allocation failed. */
static void reclaim(at_runtime *rt) {
  int number = rt->loading - 1;
  lua_State *co = rt->loaded;
  if (rt->loaded_task != NULL) at_ext_release(rt, rt->loaded_task);
  rt->loaded_task = NULL;
  rt->loading = 0;
  lua_settop(co, 1);
  at_copool_put(rt, number, co, 1);
}

/* A new task, at L's top, gets the task-local values around it. Should that raise, reclaim() finds on co what
** it was given. [-0, +0, m] */
static void inherit(lua_State *L, at_runtime *rt, at_coro *c) {
  at_coro *outer = rt->loaded_task;
  lua_pushvalue(L, -1);
  lua_xmove(L, c->co, 1);
  rt->loaded_task = c;
  at_locals_inherit(L, rt, c);
  rt->loaded_task = outer;
  lua_pop(c->co, 1);
}

/* Moves handler, function and arguments to a coroutine, makes the task, starts it.
** stack: f args... -> task. `ring`: of its owner, or NULL; `mt`: index of the Task metatable, or 0. */
static at_coro *start(lua_State *L, at_runtime *rt, int n, at_leaf **ring, int how, int mt) {
  lua_State *co, *outer_loaded;
  at_coro *c;
  int number, outer = rt->loading;
  if (rt->closing) at_runtime_refuse(L, rt);
  if (outer != 0 && lua_gc(L, LUA_GCCOUNT) >= 0) { /* else: we are in a finalizer inside another start */
    reclaim(rt);
    outer = 0;
  }
  number = at_copool_take(L, rt, &co);
  if (n > 8 && !lua_checkstack(co, n + 12)) {
    at_copool_put(rt, number, co, 1);
    luaL_error(L, "too many arguments");
  }
  lua_pushvalue(co, 1);
  lua_pushcfunction(co, at_fault_handler);
  lua_xmove(L, co, n + 1);
  outer_loaded = rt->loaded;
  rt->loading = number + 1;
  rt->loaded = co;
  c = lua_newuserdatauv(L, sizeof *c, 1);
  at_task_prepare(L, rt, &c->task, sizeof *c, AT_CORO);
  if (mt != 0)
    lua_pushvalue(L, mt);
  else
    at_fixed_push(L, rt, AT_A_TASK_MT);
  lua_setmetatable(L, -2);
  c->task.index = number;
  c->co = co;
  if (rt->current->ext != NULL && rt->current->ext->locals != 0) inherit(L, rt, c);
  if (ring != NULL && at_ring_add_coro(rt, ring, c) < 0) luaL_error(L, "not enough memory"); /* no ext then */
  rt->loading = outer;
  rt->loaded = outer_loaded;
  rt->cells[number].ref = (uintptr_t)c | 1;
  rt->cells[number].since = (uint32_t)(rt->virtual_clock ? rt->now / 1000000 : uv_now(rt->loop));
  if (how == 0 && rt->nest < AT_NEST_LIMIT) {
    run(rt, L, c, n + 2);
    return c;
  }
  anchor_task(L, rt, c);
  if (how & START_HELD)
    c->task.flags |= AT_F_HELD;
  else if (!(how & START_QUEUED) && at_await_can_yield(L, rt))
    rt->handoff = c;
  else
    at_sched_ready(rt, c);
  return c;
}

/* stack: f args... -> cancelled task */
static at_coro *refuse(lua_State *L, at_runtime *rt, int n) {
  at_task_refused(L, rt);
  lua_replace(L, -(n + 2));
  lua_pop(L, n);
  return NULL;
}

at_coro *at_sched_spawn(lua_State *L, at_runtime *rt, int n, int owned, int queued) {
  luaL_checkstack(L, 8, "task");
  if (owned && at_op_refused(rt)) return refuse(L, rt, n);
  return start(L, rt, n, owned ? at_scope_ring(rt) : NULL, queued ? START_QUEUED : 0, 0);
}

at_coro *at_sched_spawn_in(lua_State *L, at_runtime *rt, int n, at_leaf **ring, int held) {
  luaL_checkstack(L, 8, "task");
  if (at_op_refused(rt)) return refuse(L, rt, n);
  return start(L, rt, n, ring, held ? START_HELD : 0, 0);
}

void at_sched_release(at_runtime *rt, at_coro *c) {
  if ((c->task.flags & AT_F_HELD) == 0) return;
  c->task.flags &= (uint16_t)~AT_F_HELD;
  at_sched_ready(rt, c);
}

int at_sched_spawned(lua_State *L, at_runtime *rt) {
  return rt->handoff != NULL ? at_await_handoff(L, rt) : 1;
}

/* ---- Lua functions ---- */

/* spawn(f, ...) -> Task that belongs to nobody, started at once */
static int l_spawn(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int n = lua_gettop(L) - 1;
  at_arg_callable(L, 1);
  (void)start(L, rt, n, NULL, 0, lua_upvalueindex(2));
  return at_sched_spawned(L, rt);
}

/* start(f, ...) -> Task that belongs to the running scope, started at once */
static int l_start(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_arg_callable(L, 1);
  (void)at_sched_spawn(L, rt, lua_gettop(L) - 1, 1, 0);
  return at_sched_spawned(L, rt);
}

/* post(f, ...) -> Task that belongs to the running scope, started from the ready queue */
static int l_post(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_arg_callable(L, 1);
  (void)at_sched_spawn(L, rt, lua_gettop(L) - 1, 1, 1);
  return 1;
}

static int l_async_call(lua_State *L) {
  at_runtime *rt = at_rt(L);
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_insert(L, 1);
  (void)at_sched_spawn(L, rt, lua_gettop(L) - 1, 1, 0);
  return at_sched_spawned(L, rt);
}

/* async(f) -> function that starts f with its arguments and returns the Task */
static int l_async(lua_State *L) {
  at_arg_callable(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, l_async_call, 3);
  return 1;
}

/* yield() -> Task that settles at the next turn; all who ask in one turn get the same */
static int l_yield(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_task *t = rt->turn == NULL ? at_task_new(L, rt, AT_TURN, 0) : NULL;
  if (rt->turn == NULL) { /* still: no finalizer that ran meanwhile has asked */
    t->flags |= AT_F_SHARED;
    lua_pushvalue(L, -1);
    at_anchor_set(L, rt, AT_SLOT_TURN);
    rt->turn = t;
    at_sched_wake(rt);
    return 1;
  }
  at_anchor_push(L, rt, AT_SLOT_TURN);
  return 1;
}

/* current() -> the Task that runs, or nil on the main chunk */
static int l_current(lua_State *L) {
  at_runtime *rt = at_rt(L);
  if (rt->current == rt->main_task)
    lua_pushnil(L);
  else
    at_sched_push_task(L, rt, rt->current);
  return 1;
}

void at_sched_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"spawn", l_spawn}, {"start", l_start},
                                       {"post", l_post},   {"async", l_async},
                                       {"yield", l_yield}, {"current", l_current},
                                       {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}

/* ---- the body of every task ---- */

/* stack: handler results... | handler fault. Says in rt->body what it returns. */
static int body_k(lua_State *L, int status, lua_KContext awaited) {
  int n = lua_gettop(L) - 1;
  if (status != LUA_OK && status != LUA_YIELD) {
    at_runtime *rt = at_rt(L);
    if (at_fault_test(L, -1) == NULL) at_fault_new(L, rt, 0); /* no handler ran: out of memory */
    rt->body = AT_BODY_FAULT;
    return 1;
  }
  if (n <= 1) {
    if (n == 1 && !awaited && lua_type(L, 2) == LUA_TUSERDATA &&
        at_task_test(L, at_rt(L), 2) != NULL) { /* S25 */
      at_await_push(L, at_rt(L));
      lua_insert(L, 2);
      return body_k(L, lua_pcallk(L, 1, LUA_MULTRET, 1, 1, body_k), 1);
    }
    return n;
  }
  at_task_pack(L, n);
  at_rt(L)->body = AT_BODY_MANY;
  return 1;
}

/* stack: handler f args... */
static int l_body(lua_State *L) {
  if (lua_tocfunction(L, 1) != at_fault_handler) /* a stranger resumed an idle coroutine */
    return luaL_error(L, "cannot resume dead coroutine");
  return body_k(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, body_k), 0);
}

void at_sched_open(lua_State *L, at_runtime *rt) {
  luaL_Reg body[] = {{"body", l_body}, {NULL, NULL}};
  lua_newtable(L);
  at_runtime_setfuncs(L, rt, body);
  lua_getfield(L, -1, "body");
  lua_xmove(L, rt->A, 1); /* AT_A_BODY */
  lua_pushliteral(L, "the coroutine of the task was closed by somebody else");
  lua_xmove(L, rt->A, 1); /* AT_A_CLOSED */
  lua_pop(L, 1);
}
