/* cancel.c - scopes: what owns operations (S8) and what cancellations are aimed at (S9).
** Owns the at_ext records and the inner scopes' userdata. Calls op.c to stop operations; runs no Lua
** code. Loop thread only.
** Invariants: AT_F_CANCELLING of a task says whether a cancellation is visible from its innermost
** scope (none between hides behind a shield); cascades are iterative; an error aimed at several tasks
** is one object. */
#include "core/cancel.h"

#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/await.h"
#include "core/cancellation.h"
#include "core/group.h"
#include "core/op.h"
#include "core/sched.h"
#include "core/source.h"
#include "core/timer.h"

#define SCOPE_MT "asynctask.scope"

/* ---- rings of what an owner owns ---- */

at_leaf **at_scope_ring(at_runtime *rt) {
  at_coro *c = rt->current;
  return c->ext != NULL && c->ext->inner != NULL ? &c->ext->inner->owned : &c->owned;
}

void at_ring_add(at_leaf **ring, at_leaf *t) {
  t->next = *ring;
  t->prev = ring;
  if (*ring != NULL) (*ring)->prev = &t->next;
  *ring = t;
}

void at_ring_remove(at_leaf *t) {
  if (t->prev == NULL) return;
  *t->prev = t->next;
  if (t->next != NULL) t->next->prev = t->prev;
  t->prev = NULL;
  t->next = NULL;
}

void at_ring_pass(at_leaf **from, at_leaf **to) {
  at_leaf *t;
  while ((t = *from) != NULL) {
    at_ring_remove(t);
    if (to != NULL) at_ring_add(to, t);
  }
}

int at_ring_add_coro(at_runtime *rt, at_leaf **ring, at_coro *c) {
  at_ext *e = at_ext_get(rt, c);
  if (e == NULL) return UV_ENOMEM;
  at_ring_add(ring, &e->proxy);
  return 0;
}

/* ---- ext records ---- */

at_ext *at_ext_get(at_runtime *rt, at_coro *c) {
  at_ext *e = c->ext;
  if (e != NULL) return e;
  if (rt->closed) return NULL; /* nobody would free it */
  e = rt->free_ext;
  if (e != NULL)
    rt->free_ext = e->next;
  else if ((e = malloc(sizeof *e)) == NULL)
    return NULL;
  memset(e, 0, sizeof *e);
  e->task = c;
  e->proxy.task.kind = AT_PROXY;
  e->proxy.u.ext = e;
  c->ext = e;
  return e;
}

/* Takes a scope out of its task, wherever it is in the chain. */
static void leave(at_runtime *rt, at_scope *s, at_leaf **to) {
  at_timer_remove(rt, &s->deadline.task);
  at_cancellation_unlink(s);
  at_unanchor(rt, s->error);
  s->error = 0;
  s->task = NULL;
  at_ring_pass(&s->owned, to);
}

void at_ext_release(at_runtime *rt, at_coro *c) {
  at_ext *e = c->ext;
  at_scope *s, *outer;
  at_ring_pass(&c->owned, NULL);
  if (e == NULL) return;
  for (s = e->inner; s != NULL; s = outer) { /* left open by an abandoned generator */
    outer = s->outer;
    leave(rt, s, NULL);
  }
  at_ring_remove(&e->proxy);
  at_unanchor(rt, e->error);
  at_unanchor(rt, e->locals);
  c->ext = NULL;
  e->next = rt->free_ext;
  rt->free_ext = e;
}

/* ---- what is aimed at whom ---- */

static void recompute(at_coro *c) {
  const at_ext *e = c->ext;
  const at_scope *s;
  int cancelling = 0;
  for (s = e->inner; s != NULL; s = s->outer) {
    if (s->error != 0) cancelling = 1;
    if (s->kind == AT_SCOPE_SHIELD) break;
  }
  if (s == NULL && e->error != 0) cancelling = 1;
  if (cancelling)
    c->task.flags |= AT_F_CANCELLING;
  else
    c->task.flags &= (uint16_t)~AT_F_CANCELLING;
}

/* The anchor of the outermost cancellation that the innermost scope sees, or 0. */
static int aimed_slot(const at_coro *c) {
  const at_ext *e = c->ext;
  const at_scope *s;
  int slot = 0;
  if (e == NULL) return 0;
  for (s = e->inner; s != NULL; s = s->outer) {
    if (s->error != 0) slot = s->error;
    if (s->kind == AT_SCOPE_SHIELD) return slot;
  }
  return e->error != 0 ? e->error : slot;
}

int at_cancel_push_aimed(lua_State *L, at_runtime *rt, at_coro *c) {
  int slot = aimed_slot(c);
  if (slot == 0) return 0;
  at_anchor_push(L, rt, slot);
  return 1;
}

static int is_error_of(lua_State *L, at_runtime *rt, int index, int slot) {
  int same;
  if (slot == 0) return 0;
  index = lua_absindex(L, index);
  at_anchor_push(L, rt, slot);
  same = lua_rawequal(L, -1, index);
  lua_pop(L, 1);
  return same;
}

int at_cancel_is_aimed(lua_State *L, at_runtime *rt, int index) {
  const at_ext *e = rt->current->ext;
  const at_scope *s;
  if (e == NULL) return 0;
  for (s = e->inner; s != NULL; s = s->outer)
    if (is_error_of(L, rt, index, s->error)) return 1;
  return is_error_of(L, rt, index, e->error);
}

int at_scope_is_own(lua_State *L, at_runtime *rt, const at_scope *s, int index) {
  return is_error_of(L, rt, index, s->error);
}

int at_cancel_is_own(lua_State *L, at_runtime *rt, at_coro *c, int index) {
  return c->ext != NULL && is_error_of(L, rt, index, c->ext->error);
}

void at_cancel_push_error(lua_State *L, int reason) {
  if (reason != 0) reason = lua_absindex(L, reason);
  at_error_push(L, "ECANCELED", "operation cancelled", NULL);
  if (reason != 0 && !lua_isnoneornil(L, reason)) {
    lua_pushvalue(L, reason);
    lua_setfield(L, -2, "reason");
  }
}

/* ---- cancelling ---- */

/* A waiting task that sees a cancellation stops waiting. */
static void wake(at_runtime *rt, at_coro *c) {
  if ((c->task.flags & AT_F_CANCELLING) == 0) return;
  if (c == rt->main_task) {
    if (rt->in_uv_run && rt->pumping) uv_stop(rt->loop);
  } else if (c->task.flags & AT_F_HELD) {
    at_sched_release(rt, c); /* it will not begin */
  } else if (c->task.flags & AT_F_WAITING) {
    at_task_unwait_coro(rt, c);
    c->task.flags |= AT_F_WOKEN_CANCEL;
    at_sched_ready(rt, c);
  }
}

/* Aims the error at `error` at the whole task c; its owned work is for the caller's list. */
static int aim(lua_State *L, at_runtime *rt, at_coro *c, int error) {
  at_ext *e;
  if (at_task_settled(&c->task)) return 0;
  e = at_ext_get(rt, c);
  if (e == NULL) return luaL_error(L, "not enough memory");
  if (e->error != 0) return 0;
  lua_pushvalue(L, error);
  e->error = at_anchor(L, rt);
  recompute(c);
  wake(rt, c);
  return 1;
}

/* Cancels one task that is not a coroutine's. `error`: stack index, 0: made when it is read. */
static int cancel_leaf(lua_State *L, at_runtime *rt, at_task *t, int error) {
  int slot;
  if (at_task_settled(t) || (t->flags & AT_F_SHARED)) return 0;
  switch (t->kind) {
    case AT_DELAY:
      slot = at_leaf_of(t)->u.slot;
      at_timer_remove(rt, t);
      at_anchor_push(L, rt, slot);
      if (error != 0)
        lua_pushvalue(L, error);
      else
        lua_pushnil(L);
      at_task_cancelled(L, rt, -2);
      lua_pop(L, 1);
      at_unanchor(rt, slot);
      return 1;
    case AT_SOURCE:
      return at_source_cancel(L, rt, t, error);
    case AT_OP:
    case AT_COMBINE:
      if (at_leaf_of(t)->u.op == NULL) { /* made, and not bound to a request */
        at_task_settle(rt, t, AT_CANCELLED);
        return 1;
      }
      at_anchor_push(L, rt, at_leaf_of(t)->u.op->slot);
      lua_pushnil(L); /* lets go what the operation kept there */
      lua_setiuservalue(L, -2, 1);
      if (error != 0) {
        lua_pushvalue(L, error);
        lua_setiuservalue(L, -2, 1);
        t->flags |= AT_F_ERROR;
      }
      t->flags &= (uint16_t)~AT_F_LAZY;
      at_op_cancel(rt, t);
      lua_pop(L, 1);
      return t->state == AT_CANCELLED;
    default:
      return 0;
  }
}

/* Cancels everything in a ring; coroutine tasks go to the work list. */
static void cancel_ring(lua_State *L, at_runtime *rt, at_leaf **ring, int error, at_ext **work) {
  at_leaf *t;
  while ((t = *ring) != NULL) {
    if (t->task.kind == AT_PROXY) {
      at_ext *e = t->u.ext;
      int aimed = aim(L, rt, e->task, error); /* if it raises, t stays where its owner finds it */
      at_ring_remove(t);
      if (aimed) {
        e->next = *work;
        *work = e;
      }
      continue;
    }
    at_ring_remove(t);
    if (t->task.kind == AT_GROUP) {
      cancel_ring(L, rt, at_group_ring(t), error, work); /* a group is in no group's ring */
    } else {
      cancel_leaf(L, rt, &t->task, t->task.flags & AT_F_NOUV ? 0 : error);
    }
  }
}

/* Cancels what the scopes of e's task own, from the innermost that no shield hides out to `last`
** (NULL: the task itself), and what those tasks own in turn. */
static void cancel_owned(lua_State *L, at_runtime *rt, at_ext *e, at_scope *last, int error) {
  at_ext *work = NULL;
  do {
    at_scope *s, *first = e->inner, *end = last != NULL ? last->outer : NULL;
    for (s = e->inner; s != end; s = s->outer)
      if (s->kind == AT_SCOPE_SHIELD) first = s->outer;
    for (s = first; s != end; s = s->outer) cancel_ring(L, rt, &s->owned, error, &work);
    if (last == NULL) cancel_ring(L, rt, &e->task->owned, error, &work);
    last = NULL;
    e = work;
    if (work != NULL) work = work->next;
  } while (e != NULL);
}

void at_cancel_ring(lua_State *L, at_runtime *rt, at_leaf **ring, int error) {
  at_ext *work = NULL;
  luaL_checkstack(L, 10, "cancellation");
  cancel_ring(L, rt, ring, error, &work);
  while (work != NULL) {
    at_ext *e = work;
    work = e->next;
    cancel_owned(L, rt, e, NULL, error);
  }
}

int at_cancel_coro(lua_State *L, at_runtime *rt, at_coro *c) {
  int error = lua_gettop(L), done;
  luaL_checkstack(L, 10, "cancellation");
  at_op_drain_protected(L, rt); /* a completion that came first wins */
  done = aim(L, rt, c, error);
  if (done) cancel_owned(L, rt, c->ext, NULL, error);
  lua_settop(L, error - 1);
  return done;
}

int at_scope_cancel(lua_State *L, at_runtime *rt, at_scope *s) {
  int error = lua_gettop(L);
  at_coro *c = s->task;
  luaL_checkstack(L, 10, "cancellation");
  at_op_drain_protected(L, rt);
  if (c == NULL || s->error != 0) {
    lua_pop(L, 1);
    return 0;
  }
  lua_pushvalue(L, error);
  s->error = at_anchor(L, rt);
  recompute(c);
  wake(rt, c); /* from here on an error leaves a part of what it owns running, to end when it is left */
  cancel_owned(L, rt, c->ext, s, error);
  lua_settop(L, error - 1);
  return 1;
}

int at_cancel_task(lua_State *L, at_runtime *rt, at_task *t, int reason) {
  int top = lua_gettop(L), error = 0, done;
  luaL_checkstack(L, 10, "cancellation");
  if (rt->closing) return 0;
  at_op_drain_protected(L, rt);
  if (at_task_settled(t) || (t->flags & AT_F_SHARED)) return 0;
  if (reason != 0 && lua_isnoneornil(L, reason)) reason = 0;
  if (t->kind == AT_CORO || reason != 0) {
    at_cancel_push_error(L, reason);
    error = lua_gettop(L);
  }
  if (t->kind == AT_CORO)
    done = at_cancel_coro(L, rt, (at_coro *)t);
  else
    done = cancel_leaf(L, rt, t, error);
  lua_settop(L, top);
  return done;
}

/* ---- scopes ---- */

at_scope *at_scope_enter(lua_State *L, at_runtime *rt, int kind) {
  at_coro *c = rt->current;
  at_scope *s;
  at_ext *e;
  luaL_checkstack(L, 3, "scope");
  if (rt->closing) at_runtime_refuse(L, rt);
  s = lua_newuserdatauv(L, sizeof *s, 0);
  memset(s, 0, sizeof *s);
  luaL_setmetatable(L, SCOPE_MT);
  e = at_ext_get(rt, c);
  if (e == NULL) luaL_error(L, "not enough memory");
  s->deadline.task.kind = AT_DEADLINE;
  s->deadline.task.index = -1;
  s->kind = (uint8_t)kind;
  s->task = c;
  s->outer = e->inner;
  e->inner = s;
  recompute(c);
  return s;
}

void at_scope_leave(at_runtime *rt, at_scope *s) {
  at_coro *c = s->task;
  at_scope **link;
  if (c == NULL || rt->closed) return; /* closed: its task is gone */
  for (link = &c->ext->inner; *link != s; link = &(*link)->outer) continue;
  *link = s->outer;
  leave(rt, s, s->outer != NULL ? &s->outer->owned : &c->owned);
  recompute(c);
}

/* A generator was collected inside its scope. */
static int l_scope_gc(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_scope_leave(rt, lua_touserdata(L, 1));
  return 0;
}

void at_scope_expire(lua_State *L, at_runtime *rt, at_task *deadline) {
  at_scope *s = (at_scope *)deadline; /* its first member */
  luaL_checkstack(L, 6, "deadline");
  lua_pushliteral(L, "deadline");
  at_cancel_push_error(L, -1);
  lua_remove(L, -2);
  at_scope_cancel(L, rt, s);
}

/* The call in a scope ended. `scope` is its stack index; results or the error are above it. Raises
** what has to be raised, else returns the number of results. */
static int scope_ended(lua_State *L, int status, int scope) {
  at_runtime *rt = at_rt(L);
  at_scope *s = lua_touserdata(L, scope);
  int own;
  if (status == LUA_OK || status == LUA_YIELD) {
    at_scope_leave(rt, s);
    return lua_gettop(L) - scope;
  }
  own = s->kind == AT_SCOPE_DEADLINE && is_error_of(L, rt, -1, s->error);
  at_scope_leave(rt, s);
  if (own && !at_cancel_push_aimed(L, rt, rt->current))
    at_error_push(L, "ETIMEDOUT", "the deadline has passed", "timeout");
  return lua_error(L);
}

static int scope_k(lua_State *L, int status, lua_KContext scope) {
  return scope_ended(L, status, (int)scope);
}

int at_scope_call(lua_State *L, int scope) {
  int n = lua_gettop(L) - scope;
  at_flat_push(L, at_rt(L));
  lua_insert(L, scope + 1); /* stack: ... scope flat f args */
  return scope_ended(L, lua_pcallk(L, n, LUA_MULTRET, 0, scope, scope_k), scope);
}

/* stack: scope runtime */
static int l_expire(lua_State *L) {
  at_scope *s = lua_touserdata(L, 1);
  at_scope_expire(L, lua_touserdata(L, 2), &s->deadline.task);
  return 0;
}

/* A scope whose deadline has passed when it begins; left again if there is no memory to say so. [-0, +0, e] */
static void expire_now(lua_State *L, at_runtime *rt, at_scope *s) {
  luaL_checkstack(L, 3, "deadline");
  lua_pushcfunction(L, l_expire);
  lua_pushlightuserdata(L, s);
  lua_pushlightuserdata(L, rt);
  if (lua_pcall(L, 2, 0, 0) == LUA_OK) return;
  at_scope_leave(rt, s);
  (void)lua_error(L);
}

/* Calls the function at `f` with what is above it inside a scope of this kind. */
static int call_in_scope(lua_State *L, int f, int kind, long long ns) {
  at_runtime *rt = at_rt(L);
  at_scope *s = at_scope_enter(L, rt, kind);
  lua_insert(L, f);
  if (ns >= 0 && ns != INT64_MAX) {
    uint64_t due = ns == 0 ? 0 : at_timer_now(rt) + (uint64_t)ns;
    if (ns == 0) {
      expire_now(L, rt, s);
    } else if (at_timer_add(rt, &s->deadline.task, due) < 0) {
      at_scope_leave(rt, s);
      return luaL_error(L, "not enough memory");
    }
  }
  return at_scope_call(L, f);
}

/* with_timeout(seconds, f, ...) -> results of f; raises ETIMEDOUT past the deadline */
static int l_with_timeout(lua_State *L) {
  long long ns = at_arg_seconds(L, 1);
  at_arg_callable(L, 2);
  return call_in_scope(L, 2, AT_SCOPE_DEADLINE, ns);
}

/* shield(f, ...) -> results of f; cancellations from outside are held off meanwhile */
static int l_shield(lua_State *L) {
  at_arg_callable(L, 1);
  return call_in_scope(L, 1, AT_SCOPE_SHIELD, -1);
}

/* ---- pcall, cancelling ---- */

static int pcall_k(lua_State *L, int status, lua_KContext ctx) {
  at_runtime *rt = at_rt(L);
  (void)ctx;
  if (status == LUA_OK || status == LUA_YIELD) {
    lua_pushboolean(L, 1);
    lua_insert(L, 1);
    return lua_gettop(L);
  }
  if (at_cancel_is_aimed(L, rt, -1)) return lua_error(L);
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  return 2;
}

/* pcall(f, ...) -> true, results | false, error; lets cancellations aimed around it through */
static int l_pcall(lua_State *L) {
  at_runtime *rt = at_rt(L);
  luaL_checkany(L, 1);
  at_flat_push(L, rt);
  lua_insert(L, 1);
  return pcall_k(L, lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, 0, pcall_k), 0);
}

/* cancelling() -> the error aimed at the running scope, or nil */
static int l_cancelling(lua_State *L) {
  at_runtime *rt = at_rt(L);
  if (!at_cancel_push_aimed(L, rt, rt->current)) lua_pushnil(L);
  return 1;
}

/* is_cancelled(err) -> true if err is a cancellation */
static int l_is_cancelled(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, at_error_has_code(L, 1, "ECANCELED"));
  return 1;
}

void at_cancel_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"with_timeout", l_with_timeout}, {"shield", l_shield},         {"pcall", l_pcall},
      {"cancelling", l_cancelling},     {"is_cancelled", l_is_cancelled}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}

void at_cancel_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg meta[] = {{"__gc", l_scope_gc}, {NULL, NULL}};
  at_runtime_class(L, rt, SCOPE_MT, NULL, meta);
}
