/* cancel.h - scopes: what owns operations and what cancellations are aimed at. */
#ifndef AT_CORE_CANCEL_H
#define AT_CORE_CANCEL_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

enum at_scope_kind { AT_SCOPE_PLAIN, AT_SCOPE_SHIELD, AT_SCOPE_DEADLINE };

/* An inner scope of a coroutine task or of the main chunk. Lives in a userdata on the stack of the
** function that made it. */
typedef struct at_scope {
  at_leaf deadline;       /* AT_DEADLINE: an entry of the timer heap */
  struct at_scope *outer; /* next scope of the same task, NULL: the task itself */
  at_coro *task;          /* whose scope it is; NULL once left */
  at_leaf *owned;
  int error;              /* anchor of the error aimed at it, 0: not cancelled */
  uint8_t kind;
  struct at_scope *linked_next, **linked_prev; /* scopes that one cancellation source cancels */
} at_scope;

/* The ring that a task made now belongs to. */
at_leaf **at_scope_ring(at_runtime *rt);
void at_ring_add(at_leaf **ring, at_leaf *t);
void at_ring_remove(at_leaf *t);
/* The owner ended: what is pending passes on (`to` NULL: to nobody). */
void at_ring_pass(at_leaf **from, at_leaf **to);
/* A coroutine task joins the ring; 0 or UV_ENOMEM. */
int at_ring_add_coro(at_runtime *rt, at_leaf **ring, at_coro *c);

/* [-0, +1, m] pushes a scope and enters it. */
at_scope *at_scope_enter(lua_State *L, at_runtime *rt, int kind);
void at_scope_leave(at_runtime *rt, at_scope *s);

/* [-1, +0, m] aims the error at the top at scope or task; says whether it took effect. */
int at_scope_cancel(lua_State *L, at_runtime *rt, at_scope *s);
int at_cancel_coro(lua_State *L, at_runtime *rt, at_coro *c);
/* [-0, +0, m] cancels any pending task with the reason at `reason` (0: none). */
int at_cancel_task(lua_State *L, at_runtime *rt, at_task *t, int reason);

/* [-0, +0, m] cancels all that a ring holds with the error at `error`. */
void at_cancel_ring(lua_State *L, at_runtime *rt, at_leaf **ring, int error);
/* [-0, +0, -] true if the value at `index` is the error aimed at this scope. */
int at_scope_is_own(lua_State *L, at_runtime *rt, const at_scope *s, int index);
/* [-n, +r, e] calls the function above the entered scope at index `scope` with what is above it, then
** leaves the scope; for `return at_scope_call(L, scope)`. */
int at_scope_call(lua_State *L, int scope);

/* [-0, +1, m] pushes a new ECANCELED error, its reason being the value at `reason` (0: none). */
void at_cancel_push_error(lua_State *L, int reason);

/* [-0, +(0|1), -] pushes the error aimed at the innermost scope of c, if there is one; says so. */
int at_cancel_push_aimed(lua_State *L, at_runtime *rt, at_coro *c);
/* [-0, +0, -] true if the value at `index` is aimed at a scope of the running task. */
int at_cancel_is_aimed(lua_State *L, at_runtime *rt, int index);

/* [-0, +0, -] true if the value at `index` is the error aimed at the whole task c. */
int at_cancel_is_own(lua_State *L, at_runtime *rt, at_coro *c, int index);

/* The deadline of a scope passed; protected, from timer.c. [-0, +0, m] */
void at_scope_expire(lua_State *L, at_runtime *rt, at_task *deadline);

/* A coroutine task ends: gives back what it has. No Lua. */
void at_ext_release(at_runtime *rt, at_coro *c);
at_ext *at_ext_get(at_runtime *rt, at_coro *c); /* NULL: out of memory */

/* [-0, +0, m] adds with_timeout, shield, pcall, cancelling, is_cancelled to the table at the top. */
void at_cancel_functions(lua_State *L, at_runtime *rt);
void at_cancel_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
