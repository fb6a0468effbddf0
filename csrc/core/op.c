/* op.c - operations: requests in C that settle a Task when they end.
** A request is owned by the kernel from at_op_alloc on, by whoever completes it after it was handed
** over, and by the kernel again from at_op_done on. Loop thread only.
** Invariant: op->task is NULL exactly when the Task no longer waits for the request. */
#include "core/op.h"

#include <stdlib.h>

#include "base/error.h"
#include "core/cancel.h"
#include "core/fault.h"
#include "core/sched.h"
#include "core/waker.h"

static at_task *new_task(lua_State *L, at_runtime *rt) {
  luaL_checkstack(L, 4, "operation");
  return at_task_new(L, rt, AT_OP, 1);
}

at_task *at_op_new(lua_State *L, at_runtime *rt) {
  if (at_op_refused(rt)) return at_task_refused(L, rt);
  return new_task(L, rt);
}

at_task *at_op_new_always(lua_State *L, at_runtime *rt) { return new_task(L, rt); }

/* The request becomes that of the Task, which is anchored in `slot`: only now may a ring point to it. */
static void attach(at_op *op, at_runtime *rt, at_task *t, const at_opclass *class, int slot) {
  op->class = class;
  op->rt = rt;
  op->task = t;
  op->slot = slot;
  at_leaf_of(t)->u.op = op;
  at_ring_add(at_scope_ring(rt), at_leaf_of(t));
  if (rt->waker != NULL) at_waker_call(rt); /* the loop has to hear of what begins */
}

void *at_op_alloc(lua_State *L, at_runtime *rt, at_task *t, const at_opclass *class, size_t size) {
  at_op *op;
  int slot;
  lua_pushvalue(L, -1);
  slot = at_anchor(L, rt); /* may raise: nothing is held yet, the task is in no ring */
  op = calloc(1, size);
  if (op == NULL) {
    at_unanchor(rt, slot);
    at_error_push_uv(L, UV_ENOMEM, class->name, NULL);
    at_task_fault(L, rt, -2);
    return NULL;
  }
  attach(op, rt, t, class, slot);
  return op;
}

void at_op_bind(lua_State *L, at_runtime *rt, at_task *t, const at_opclass *class, at_op *op) {
  int slot;
  lua_pushvalue(L, -1);
  slot = at_anchor(L, rt); /* may raise: the request is untouched */
  attach(op, rt, t, class, slot);
}

static void release(at_op *op) {
  if (op->class->release != NULL)
    op->class->release(op);
  else
    free(op);
}

/* The Task has settled: request and Task part. */
static void detach(at_op *op) {
  at_leaf_of(op->task)->u.op = NULL;
  op->task = NULL;
  at_unanchor(op->rt, op->slot);
  op->slot = 0;
  release(op);
}

void at_op_push_task(lua_State *L, at_op *op) { at_anchor_push(L, op->rt, op->slot); }

void at_op_push_error(lua_State *L, at_op *op, int status) {
  const char *subject = op->class->subject != NULL ? op->class->subject(op) : NULL;
  at_error_push_uv(L, status, op->class->name, op->class->by_address ? NULL : subject);
  if (op->class->by_address) at_error_set(L, "address", subject);
}

void at_op_fail(lua_State *L, at_op *op, int status) {
  luaL_checkstack(L, 8, "operation");
  at_op_push_task(L, op);
  at_op_push_error(L, op, status);
  at_task_fault(L, op->rt, -2);
  lua_pop(L, 1);
  detach(op);
}

void at_op_raise(lua_State *L, at_op *op) {
  luaL_checkstack(L, 4, "operation");
  at_op_push_task(L, op);
  lua_insert(L, -2);
  at_task_fault(L, op->rt, -2);
  lua_pop(L, 1);
  detach(op);
}

void at_op_succeed(lua_State *L, at_op *op, int n) {
  luaL_checkstack(L, 4, "operation");
  at_op_push_task(L, op);
  lua_insert(L, -(n + 1));
  at_task_succeed(L, op->rt, -(n + 1), n);
  lua_pop(L, 1);
  detach(op);
}

void at_op_done(at_op *op) {
  at_runtime *rt = op->rt;
  if (op->task == NULL || rt == NULL || rt->closing) {
    if (op->task != NULL) {
      at_leaf_of(op->task)->u.op = NULL;
      op->task = NULL;
    }
    release(op);
    return;
  }
  op->ended = 1;
  op->next = NULL;
  if (rt->done_tail != NULL)
    rt->done_tail->next = op;
  else
    rt->done_head = op;
  rt->done_tail = op;
  at_sched_wake(rt);
}

/* Converts the C result of one ended operation and settles its Task. */
static void settle(lua_State *L, at_runtime *rt, at_op *op) {
  int base = lua_gettop(L), n;
  luaL_checkstack(L, 10, "operation");
  at_op_push_task(L, op);
  if (op->class->push != NULL) {
    n = op->class->push(L, op);
  } else if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    n = AT_OP_FAILED;
  } else {
    n = 0;
  }
  if (op->task == NULL) { /* what push called has cancelled it */
    lua_settop(L, base);
    release(op);
    return;
  }
  if (n == AT_OP_FAILED)
    at_task_fault(L, rt, base + 1);
  else if (n == AT_OP_CANCELLED)
    at_task_cancelled(L, rt, base + 1);
  else
    at_task_succeed(L, rt, base + 1, n);
  lua_settop(L, base);
  detach(op);
}

/* The conversion ran out of memory: the Task gets the bare message, which allocates nothing. */
void at_op_drain_failed(lua_State *L, at_runtime *rt, int entered) {
  at_op *op = rt->settling;
  if (op == NULL && !entered) { /* there was no memory for the call: the next one must not wait */
    op = rt->done_head;
    if (op == NULL) return;
    rt->done_head = op->next;
    if (rt->done_head == NULL) rt->done_tail = NULL;
    if (op->task == NULL) {
      release(op);
      return;
    }
  }
  if (op == NULL) return;
  rt->settling = NULL;
  if (op->task == NULL) { /* what push called has cancelled it */
    release(op);
    return;
  }
  at_op_push_task(L, op); /* stack: message task */
  lua_pushvalue(L, -2);
  lua_setiuservalue(L, -2, 1);
  lua_pop(L, 1);
  at_task_settle(rt, op->task, AT_FAULTED);
  detach(op);
}

/* A conversion may call code of a C module's, which may come by here again (to cancel a Task). */
void at_op_drain(lua_State *L, at_runtime *rt) {
  at_op *op, *outer = rt->settling;
  while ((op = rt->done_head) != NULL) {
    rt->done_head = op->next;
    if (rt->done_head == NULL) rt->done_tail = NULL;
    if (op->task == NULL) { /* cancelled after it had ended */
      release(op);
      continue;
    }
    rt->settling = op;
    settle(L, rt, op);
    rt->settling = outer;
    if (rt->deadline != 0 && at_sched_spent(rt)) return; /* the rest is the next step's */
  }
}

/* A drain within a call of Lua's, which may be protected by the user. */
typedef struct draining {
  at_runtime *rt;
  int entered;
} draining;

/* stack: draining */
static int l_drain(lua_State *L) {
  draining *d = lua_touserdata(L, 1);
  d->entered = 1;
  at_op_drain(L, d->rt);
  return 0;
}

void at_op_drain_protected(lua_State *L, at_runtime *rt) {
  at_op *outer = rt->settling;
  draining d = {rt, 0};
  luaL_checkstack(L, 4, "operation");
  while (rt->done_head != NULL) {
    d.entered = 0;
    rt->settling = NULL;
    lua_pushcfunction(L, l_drain);
    lua_pushlightuserdata(L, &d);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK) continue; /* all, or one: the budget of the step is spent */
    at_op_drain_failed(L, rt, d.entered);
    lua_pop(L, 1);
  }
  rt->settling = outer;
}

/* Every pending operation is anchored: cancels those that the state leaves behind. */
static void cancel_pending(at_runtime *rt) {
  int slot;
  for (slot = AT_SLOT_LAST; slot <= rt->slots; slot++) {
    at_task *t;
    at_anchor_push(rt->A, rt, slot);
    if ((t = at_task_test(rt->A, rt, -1)) != NULL && !at_task_settled(t) &&
        (t->kind == AT_OP || t->kind == AT_COMBINE) && at_leaf_of(t)->u.op != NULL)
      at_op_cancel(rt, t);
    lua_pop(rt->A, 1);
  }
}

void at_op_close(at_runtime *rt) {
  at_op *op;
  cancel_pending(rt);
  while ((op = rt->done_head) != NULL) {
    rt->done_head = op->next;
    if (op->task != NULL) at_leaf_of(op->task)->u.op = NULL;
    op->task = NULL;
    release(op);
  }
  rt->done_tail = NULL;
}

void at_op_cancel(at_runtime *rt, at_task *t) {
  at_op *op = at_leaf_of(t)->u.op;
  int slot = op->slot;
  int answer = !op->ended && op->class->cancel != NULL ? op->class->cancel(op) : 0;
  at_leaf_of(t)->u.op = NULL;
  op->task = NULL;
  op->slot = 0;
  if (answer != 0 && answer != AT_OP_HAPPENED) release(op);
  if (answer == AT_OP_HAPPENED) t->flags &= (uint16_t)~AT_F_ERROR;
  at_task_settle(rt, t, answer == AT_OP_HAPPENED ? AT_SUCCEEDED : AT_CANCELLED);
  at_unanchor(rt, slot);
}
