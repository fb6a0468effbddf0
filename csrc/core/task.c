/* task.c - the record of a Task: state, result, waiters. A task settles once.
** May call fault.c and the ready queue, never Lua code. Loop thread only.
** Invariants: settling runs no user code (waiters are queued, combinations are told through an
** iterative list, so that a chain of a million does not recurse); a settled task is in no ring, in no
** heap, and has no waiters; a pending one is anchored, or reachable from its source. */
#include "core/task.h"

#include <stdlib.h>
#include <string.h>

#include "core/cancel.h"
#include "core/combine.h"
#include "core/fault.h"
#include "core/op.h"
#include "core/sched.h"

/* ---- records ---- */

int at_task_init(at_runtime *rt) {
  rt->main_task = calloc(1, sizeof *rt->main_task);
  if (rt->main_task == NULL) return UV_ENOMEM;
  rt->main_task->task.kind = AT_MAIN;
  rt->current = rt->main_task;
  return 0;
}

void at_task_close(at_runtime *rt) {
  at_waiter *w, *next_w;
  at_ext *e, *next_e;
  for (w = rt->free_waiters; w != NULL; w = next_w) {
    next_w = w->next;
    free(w);
  }
  rt->free_waiters = NULL;
  if (rt->main_task != NULL && rt->main_task->ext != NULL) free(rt->main_task->ext);
  for (e = rt->free_ext; e != NULL; e = next_e) {
    next_e = e->next;
    free(e);
  }
  rt->free_ext = NULL;
  free(rt->main_task);
  rt->main_task = rt->current = NULL;
}

at_task *at_task_test(lua_State *L, at_runtime *rt, int index) {
  const void *mt;
  if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index)) return NULL;
  mt = lua_topointer(L, -1);
  lua_pop(L, 1);
  return mt == rt->task_mt ? lua_touserdata(L, index) : NULL;
}

at_task *at_task_check(lua_State *L, at_runtime *rt, int arg) {
  at_task *t = at_task_test(L, rt, arg);
  if (t == NULL) luaL_typeerror(L, arg, "Task");
  return t;
}

void at_task_prepare(lua_State *L, const at_runtime *rt, at_task *t, size_t size, int kind) {
  if (rt->closing) at_runtime_refuse(L, rt);
  memset(t, 0, size);
  t->kind = (uint8_t)kind;
  t->index = -1;
}

at_task *at_task_new(lua_State *L, at_runtime *rt, int kind, int values) {
  size_t size = kind == AT_CORO ? sizeof(at_coro) : sizeof(at_leaf);
  at_task *t = lua_newuserdatauv(L, size, values);
  at_task_prepare(L, rt, t, size, kind);
  if (values == 0) t->flags = AT_F_NOUV;
  at_fixed_push(L, rt, AT_A_TASK_MT);
  lua_setmetatable(L, -2);
  return t;
}

/* ---- waiters ---- */

static void list_append(at_task *t, at_waiter *w) {
  at_waiter *head = (at_waiter *)t->waiters;
  if (head == NULL) {
    w->prev = w->next = w;
    t->waiters = (uintptr_t)w;
  } else {
    w->prev = head->prev;
    w->next = head;
    head->prev->next = w;
    head->prev = w;
  }
}

static void list_remove(at_task *t, at_waiter *w) {
  if (w->next == w) {
    t->waiters = 0;
    return;
  }
  w->prev->next = w->next;
  w->next->prev = w->prev;
  if ((at_waiter *)t->waiters == w) t->waiters = (uintptr_t)w->next;
}

static at_waiter *take_waiter(at_runtime *rt) {
  at_waiter *w = rt->free_waiters;
  if (w == NULL) return calloc(1, sizeof *w);
  rt->free_waiters = w->next;
  memset(w, 0, sizeof *w);
  return w;
}

static void recycle_waiter(at_runtime *rt, at_waiter *w) {
  w->next = rt->free_waiters;
  rt->free_waiters = w;
}

/* Turns the inline waiter into a record, so that others can queue behind it. */
static int spill_inline(at_runtime *rt, at_task *t) {
  at_waiter *w;
  at_coro *c;
  if ((t->waiters & 1) == 0) return 0;
  if ((w = take_waiter(rt)) == NULL) return UV_ENOMEM;
  c = (at_coro *)(t->waiters & ~(uintptr_t)1);
  t->waiters = 0;
  w->task = t;
  w->arg = c;
  w->observes = (c->task.flags & AT_F_PEEK) == 0;
  c->link.awaiting = (uintptr_t)w | 1;
  list_append(t, w);
  return 0;
}

int at_waiter_link(at_runtime *rt, at_task *t, at_waiter *w) {
  int status = spill_inline(rt, t);
  if (status < 0) return status;
  w->task = t;
  w->queued = 0;
  list_append(t, w);
  return 0;
}

void at_waiter_unlink(at_runtime *rt, at_waiter *w) {
  if (w->task == NULL) return;
  if (w->queued) {
    if (w->prev != NULL)
      w->prev->next = w->next;
    else
      rt->notify_head = w->next;
    if (w->next != NULL)
      w->next->prev = w->prev;
    else
      rt->notify_tail = w->prev;
  } else {
    list_remove(w->task, w);
  }
  w->task = NULL;
}

int at_task_wait_coro(at_runtime *rt, at_task *t, at_coro *c) {
  at_waiter *w;
  if (t->waiters == 0) {
    t->waiters = (uintptr_t)c | 1;
    c->link.awaiting = (uintptr_t)t;
    return 0;
  }
  if (spill_inline(rt, t) < 0 || (w = take_waiter(rt)) == NULL) return UV_ENOMEM;
  w->task = t;
  w->arg = c;
  w->observes = (c->task.flags & AT_F_PEEK) == 0;
  list_append(t, w);
  c->link.awaiting = (uintptr_t)w | 1;
  return 0;
}

void at_task_unwait_coro(at_runtime *rt, at_coro *c) {
  if (c->link.awaiting & 1) {
    at_waiter *w = (at_waiter *)(c->link.awaiting & ~(uintptr_t)1);
    at_waiter_unlink(rt, w);
    recycle_waiter(rt, w);
  } else if (c->link.awaiting != 0) {
    ((at_task *)c->link.awaiting)->waiters = 0;
  }
  c->link.awaiting = 0;
}

at_task *at_task_awaited(const at_coro *c) {
  if ((c->task.flags & AT_F_WAITING) == 0 || c->link.awaiting == 0) return NULL;
  if (c->link.awaiting & 1) return ((at_waiter *)(c->link.awaiting & ~(uintptr_t)1))->task;
  return (at_task *)c->link.awaiting;
}

/* Does somebody who looks at faults wait for t? */
static int has_observer(const at_task *t) {
  const at_waiter *head, *w;
  if (t->waiters & 1)
    return (((at_coro *)(t->waiters & ~(uintptr_t)1))->task.flags & AT_F_PEEK) == 0;
  head = w = (const at_waiter *)t->waiters;
  if (head == NULL) return 0;
  do {
    if (w->observes) return 1;
    w = w->next;
  } while (w != head);
  return 0;
}

/* ---- settling ---- */

/* Tells the waiters in the notify list, those that this adds included. */
static void notify(at_runtime *rt) {
  at_waiter *w;
  rt->notifying = 1;
  while ((w = rt->notify_head) != NULL) {
    rt->notify_head = w->next;
    if (w->next != NULL)
      w->next->prev = NULL;
    else
      rt->notify_tail = NULL;
    w->task = NULL;
    w->queued = 0;
    if (w->on != NULL) {
      w->on(rt, w);
    } else {
      at_coro *c = w->arg;
      recycle_waiter(rt, w);
      at_sched_ready(rt, c);
    }
  }
  rt->notifying = 0;
}

void at_task_settle(at_runtime *rt, at_task *t, int state) {
  uintptr_t waiters = t->waiters;
  t->state = (uint8_t)state;
  if (t->kind != AT_CORO) at_ring_remove(at_leaf_of(t)); /* sched.c takes out coroutine tasks */
  if (t == rt->wanted && rt->in_uv_run) uv_stop(rt->loop);
  if (waiters == 0) return;
  t->waiters = 0;
  if (waiters & 1) {
    at_sched_ready(rt, (at_coro *)(waiters & ~(uintptr_t)1));
  } else {
    at_waiter *head = (at_waiter *)waiters, *tail = head->prev, *w;
    for (w = head; w != tail; w = w->next) w->queued = 1;
    tail->queued = 1;
    head->prev = rt->notify_tail;
    tail->next = NULL;
    if (rt->notify_tail != NULL)
      rt->notify_tail->next = head;
    else
      rt->notify_head = head;
    rt->notify_tail = tail;
    if (!rt->notifying) notify(rt);
  }
}

void at_task_pack(lua_State *L, int n) {
  int i;
  luaL_checkstack(L, 3, "results");
  lua_createtable(L, n, 1);
  lua_insert(L, -(n + 1));
  for (i = n; i >= 1; i--) lua_rawseti(L, -(i + 1), i);
  lua_pushinteger(L, n);
  lua_setfield(L, -2, "n");
}

int at_task_succeed(lua_State *L, at_runtime *rt, int index, int n) {
  at_task *t = lua_touserdata(L, index);
  if (at_task_settled(t)) {
    lua_pop(L, n);
    return 0;
  }
  index = lua_absindex(L, index);
  if (n == 0) {
    if ((t->flags & AT_F_NOUV) == 0) {
      lua_pushnil(L);
      lua_setiuservalue(L, index, 1);
    }
  } else if (n == 1) {
    lua_setiuservalue(L, index, 1);
    t->flags |= AT_F_ONE;
  } else {
    at_task_pack(L, n);
    lua_setiuservalue(L, index, 1);
    t->flags |= AT_F_MANY;
  }
  at_task_settle(rt, t, AT_SUCCEEDED);
  return 1;
}

int at_task_fault(lua_State *L, at_runtime *rt, int index) {
  at_task *t = lua_touserdata(L, index);
  at_fault *f;
  if (at_task_settled(t)) {
    lua_pop(L, 1);
    return 0;
  }
  index = lua_absindex(L, index);
  f = at_fault_test(L, -1);
  if (f == NULL) f = at_fault_new(L, rt, 0);
  at_fault_name(L, rt, index);
  if (has_observer(t)) at_fault_observe(rt, f);
  lua_setiuservalue(L, index, 1);
  t->flags |= AT_F_FAULT;
  at_task_settle(rt, t, AT_FAULTED);
  return 1;
}

int at_task_cancelled(lua_State *L, at_runtime *rt, int index) {
  at_task *t = lua_touserdata(L, index);
  if (at_task_settled(t)) {
    lua_pop(L, 1);
    return 0;
  }
  index = lua_absindex(L, index);
  if (t->flags & AT_F_NOUV) {
    if (!lua_isnil(L, -1)) {
      luaL_checkstack(L, 3, "cancellation");
      at_anchor_push(L, rt, AT_SLOT_ERRORS);
      lua_pushvalue(L, index);
      lua_pushvalue(L, -3);
      lua_rawset(L, -3);
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  } else {
    if (!lua_isnil(L, -1)) t->flags |= AT_F_ERROR;
    lua_setiuservalue(L, index, 1);
  }
  at_task_settle(rt, t, AT_CANCELLED);
  return 1;
}

/* ---- tasks that are born settled ---- */

void at_task_resolved(lua_State *L, at_runtime *rt, int n) {
  if (n == 0) {
    at_anchor_push(L, rt, AT_SLOT_SETTLED);
    return;
  }
  luaL_checkstack(L, 3, "task");
  at_task_new(L, rt, AT_OP, 1);
  lua_insert(L, -(n + 1));
  at_task_succeed(L, rt, -(n + 1), n);
}

void at_task_failed(lua_State *L, at_runtime *rt) {
  luaL_checkstack(L, 3, "task");
  at_task_new(L, rt, AT_OP, 1);
  lua_insert(L, -2);
  at_task_fault(L, rt, -2);
}

at_task *at_task_refused(lua_State *L, at_runtime *rt) {
  at_task *t;
  luaL_checkstack(L, 3, "task");
  t = at_task_new(L, rt, AT_OP, 1);
  if (!at_cancel_push_aimed(L, rt, rt->current)) lua_pushnil(L);
  at_task_cancelled(L, rt, -2);
  return t;
}

/* ---- reading ---- */

int at_task_push_results(lua_State *L, at_runtime *rt, at_task *t, int index) {
  lua_Integer n, i;
  int table;
  if (t->flags & AT_F_LAZY) at_combine_convert(L, rt, t, index);
  if (t->flags & AT_F_ONE) {
    lua_getiuservalue(L, index, 1);
    return 1;
  }
  if ((t->flags & AT_F_MANY) == 0) return 0;
  lua_getiuservalue(L, index, 1);
  table = lua_gettop(L);
  lua_getfield(L, table, "n");
  n = lua_tointeger(L, -1);
  lua_pop(L, 1);
  luaL_checkstack(L, (int)n + 1, "too many results");
  for (i = 1; i <= n; i++) lua_rawgeti(L, table, i);
  lua_remove(L, table);
  return (int)n;
}

void at_task_observe(lua_State *L, at_runtime *rt, at_task *t, int index) {
  at_fault *f;
  if ((t->flags & AT_F_FAULT) == 0) return;
  lua_getiuservalue(L, index, 1);
  if ((f = at_fault_test(L, -1)) != NULL) at_fault_observe(rt, f);
  lua_pop(L, 1);
}

/* The error of a cancelled task; made at the first look, then kept where there is room. */
static void push_cancel_error(lua_State *L, at_runtime *rt, at_task *t, int index) {
  index = lua_absindex(L, index);
  if (t->flags & AT_F_ERROR) {
    lua_getiuservalue(L, index, 1);
    return;
  }
  if ((t->flags & AT_F_NOUV) == 0) {
    at_cancel_push_error(L, 0);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, index, 1);
    t->flags |= AT_F_ERROR;
    return;
  }
  at_anchor_push(L, rt, AT_SLOT_ERRORS);
  lua_pushvalue(L, index);
  if (lua_rawget(L, -2) == LUA_TNIL) {
    lua_pop(L, 1);
    at_cancel_push_error(L, 0);
    lua_pushvalue(L, index);
    lua_pushvalue(L, -2);
    lua_rawset(L, -4);
  }
  lua_remove(L, -2);
}

void at_task_push_error(lua_State *L, at_runtime *rt, at_task *t, int index) {
  at_fault *f;
  luaL_checkstack(L, 6, "error of a task");
  if (t->state == AT_CANCELLED && (t->flags & AT_F_LAZY) == 0) {
    push_cancel_error(L, rt, t, index);
    return;
  }
  if (t->flags & AT_F_LAZY) {
    at_combine_push_error(L, rt, t, index);
    return;
  }
  lua_getiuservalue(L, index, 1);
  f = at_fault_test(L, -1);
  if (f == NULL) return; /* out of memory when it faulted: the bare error */
  at_fault_observe(rt, f);
  lua_pushvalue(L, -1);
  at_anchor_set(L, rt, AT_SLOT_RAISING);
  rt->raising_in = rt->current;
  lua_getiuservalue(L, -1, 1);
  lua_remove(L, -2);
}

void at_task_push_label(lua_State *L, at_runtime *rt, at_task *t, int index) {
  static const char *const kinds[] = {"operation", "delay",       "yield",     "combination",
                                      "source",    "task",        "main chunk", "deadline",  "deadline",
                                      "proxy",     "group"};
  index = lua_absindex(L, index);
  luaL_checkstack(L, 4, "label");
  at_anchor_push(L, rt, AT_SLOT_NAMES);
  lua_pushvalue(L, index);
  if (lua_rawget(L, -2) == LUA_TSTRING) {
    lua_remove(L, -2);
    lua_pushfstring(L, "%s '%s'", kinds[t->kind], lua_tostring(L, -1));
    lua_remove(L, -2);
    return;
  }
  lua_pop(L, 2);
  if ((t->kind == AT_OP || t->kind == AT_COMBINE) && !at_task_settled(t) &&
      at_leaf_of(t)->u.op != NULL) {
    at_op *op = at_leaf_of(t)->u.op;
    const char *subject = op->class->subject != NULL ? op->class->subject(op) : NULL;
    if (subject != NULL)
      lua_pushfstring(L, "%s %s", op->class->name, subject);
    else
      lua_pushstring(L, op->class->name);
  } else {
    lua_pushstring(L, kinds[t->kind]);
  }
}

void at_task_open(lua_State *L, at_runtime *rt) {
  at_task *t;
  luaL_newmetatable(L, AT_TASK_MT); /* methods.c fills it */
  rt->task_mt = lua_topointer(L, -1);
  lua_xmove(L, rt->A, 1); /* AT_A_TASK_MT */
  t = at_task_new(L, rt, AT_OP, 0);
  t->state = AT_SUCCEEDED;
  t->flags |= AT_F_SHARED;
  at_anchor_set(L, rt, AT_SLOT_SETTLED);
}
