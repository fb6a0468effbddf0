/* op.h - operations: how the floors above the kernel make Tasks out of requests in C.
**
** A request is malloc'd memory that begins with an at_op. The recipe, which is the same everywhere:
**
**     at_task *t = at_op_new(L, rt);                 -- [+1] the Task, anchored while pending
**     myreq *r;
**     if (at_task_settled(t)) return 1;              -- its scope is cancelled: it never begins
**     r = at_op_alloc(L, rt, t, &my_class, sizeof *r);
**     if (r == NULL) return 1;                       -- out of memory: the Task has faulted
**     ... fill r; from here on nothing may raise until r is handed over ...
**     status = uv_something(..., callback);
**     if (status < 0) at_op_fail(L, &r->op, status); -- the Task faults; r is released
**     return 1;
**
** and in the uv callback (never raises, never calls Lua):
**
**     r->status = ...;
**     at_op_done(&r->op);        -- the Task settles at the next entry into Lua
**     at_sched_enter(r->op.rt);  -- that entry; leave it out when more completions follow at once
*/
#ifndef AT_CORE_OP_H
#define AT_CORE_OP_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

typedef struct at_opclass {
  const char *name; /* as in error objects and dumps: "open", "connect" */

  /* Under protection, on rt->L, after at_op_done: pushes the results and returns their number, or
  ** pushes an error and returns AT_OP_FAILED, or AT_OP_CANCELLED if the Task is to end cancelled. The
  ** request lives until release. May raise only for memory. The Task's user value (pushed by at_op_push_task + lua_getiuservalue) is the
  ** operation's to use until then. NULL: op->status < 0 is a fault named by at_op_push_error,
  ** anything else succeeds without values. */
  int (*push)(lua_State *L, at_op *op);

  /* The Task is being cancelled; it settles at once, whatever is returned. Returns 1 when nothing
  ** outside holds the request any more (it is released on return), or 0 when at_op_done will still
  ** be called for it (it is released then), or AT_OP_HAPPENED: as 0, and the Task succeeds without
  ** values, because what it is about has happened already. NULL: as if 0. No Lua. */
  int (*cancel)(at_op *op);

  /* Frees the request: closes what it holds (a descriptor that nobody can receive any more), lets
  ** anchors go with at_unanchor, frees the memory. Called once. NULL: free(op). No Lua. op->rt is
  ** NULL when the runtime is gone (at_unanchor accepts that). */
  void (*release)(at_op *op);

  /* What the operation works on, for error objects ("path", or "address" if `by_address`) and dumps:
  ** a string borrowed from the request. NULL: nothing. */
  const char *(*subject)(at_op *op);
  int by_address;
} at_opclass;

#define AT_OP_FAILED (-1)
#define AT_OP_CANCELLED (-2)
#define AT_OP_HAPPENED 2

struct at_op {
  const at_opclass *class;
  at_runtime *rt;
  at_task *task; /* borrowed, alive through `slot`; NULL once settled or cancelled */
  at_op *next;   /* in rt's list of ended operations */
  int slot;      /* anchor of the Task */
  int status;    /* 0 or a negative libuv status: the fault of the default push */
  unsigned char ended; /* in rt's list of ended operations: op.c releases it, cancelled or not */
};

/* [-0, +1, m] pushes a new pending Task, which belongs to the running scope from at_op_alloc (at_op_bind)
** on; in a scope that is being cancelled, one that is cancelled already. */
at_task *at_op_new(lua_State *L, at_runtime *rt);
/* The same for operations that run in cancelled scopes too: close, kill, unlock. */
at_task *at_op_new_always(lua_State *L, at_runtime *rt);

/* [-0, +0, m] the zeroed request of the Task at the top of the stack, or NULL after failing the
** Task with ENOMEM. */
void *at_op_alloc(lua_State *L, at_runtime *rt, at_task *t, const at_opclass *class, size_t size);

/* [-0, +0, m] the same for a request in zeroed memory of the caller's, which class->release gives
** back to the caller: what is recycled, or lies in a handle. */
void at_op_bind(lua_State *L, at_runtime *rt, at_task *t, const at_opclass *class, at_op *op);

/* [-0, +0, m] settles a just started operation with the status; the request is released. */
void at_op_fail(lua_State *L, at_op *op, int status);

/* [-1, +0, m] settles a pending operation with the error at the top; releases it. */
void at_op_raise(lua_State *L, at_op *op);

/* [-n, +0, m] settles a just started operation with the n values at the top; releases it. */
void at_op_succeed(lua_State *L, at_op *op, int n);

/* The C side has ended. Loop thread; no Lua. After a cancellation it releases, else it queues the
** Task for settling at the next at_sched_enter or turn. */
void at_op_done(at_op *op);

/* [-0, +1, -] pushes the operation's Task (op->task is not NULL). */
void at_op_push_task(lua_State *L, at_op *op);

/* [-0, +1, m] pushes the error object of a status: op = class name, path = subject. */
void at_op_push_error(lua_State *L, at_op *op, int status);

/* [-0, +0, -] true if an operation that started now would never begin (a cancelled scope). */
static inline int at_op_refused(const at_runtime *rt) {
  return (rt->current->task.flags & AT_F_CANCELLING) != 0;
}

/* sched.c settles the operations that have ended; protected. */
void at_op_drain(lua_State *L, at_runtime *rt);
/* [-0, +0, v] The same for who runs unprotected, or under a pcall of the user's that would take the error:
** an operation that there is no memory for faults, as in sched.c. */
void at_op_drain_protected(lua_State *L, at_runtime *rt);
/* The runtime closes: cancels what is pending, releases what has ended and was not settled. No Lua. */
void at_op_close(at_runtime *rt);
/* After at_op_drain raised (out of memory): the operation it was at faults with the message at the
** top; where not even the call could be made (`entered` 0), the first that has ended does. No
** allocation. */
void at_op_drain_failed(lua_State *L, at_runtime *rt, int entered);
/* cancel.c: the Task is cancelled by its owner or its holder. No Lua. */
void at_op_cancel(at_runtime *rt, at_task *t);

#pragma GCC visibility pop

#endif
