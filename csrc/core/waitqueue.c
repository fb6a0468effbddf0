/* waitqueue.c - a number of permits and a queue of tasks that wait for one, first in first out: the
** one mechanism under asynctask.sync. A waiter that is cancelled leaves the queue; a permit goes to the
** next waiter, or is kept. Loop thread only. Invariant: nobody waits while there is a permit, except
** behind one who wants more than there are. */
#include "core/waitqueue.h"

#include <string.h>

#include "core/op.h"
#include "core/sched.h"

#define QUEUE_MT "asynctask.WaitQueue"

typedef struct queue {
  at_deferred deferred; /* first member: a grant that was found out without Lua */
  at_runtime *rt;
  lua_Integer permits, count;
  struct waiting *head, *tail;
} queue;

typedef struct waiting {
  at_op op;
  queue *queue; /* borrowed: the Task's user value {queue, value} keeps it */
  lua_Integer wants;
  struct waiting *prev, *next;
} waiting;

static queue *check(lua_State *L) { return luaL_checkudata(L, 1, QUEUE_MT); }

static void remove_waiting(waiting *w) {
  queue *q = w->queue;
  if (w->prev != NULL)
    w->prev->next = w->next;
  else
    q->head = w->next;
  if (w->next != NULL)
    w->next->prev = w->prev;
  else
    q->tail = w->prev;
  q->count--;
}

/* [-0, +0, m] a value that is a table (a guard) learns at the grant, and only then, what it holds: its
** field `queue` is set to the queue at index `self`. The value is at the top. */
static void activate(lua_State *L, int self) {
  if (!lua_istable(L, -1)) return;
  lua_pushliteral(L, "queue");
  lua_pushvalue(L, self);
  lua_rawset(L, -3);
}

/* [-0, +0, -] the guard at the top holds nothing after all. */
static void deactivate(lua_State *L) {
  if (!lua_istable(L, -1)) return;
  lua_pushliteral(L, "queue");
  lua_pushnil(L);
  lua_rawset(L, -3);
}

/* [-0, +0, m] takes the first waiter out and settles its Task with its value, for `permits`. What may
** raise, or run a finalizer that comes by here, is done first. */
static void deliver(lua_State *L, queue *q, lua_Integer permits) {
  waiting *w = q->head;
  int base = lua_gettop(L), n;
  const at_task *t;
  luaL_checkstack(L, 8, "grant");
  at_op_push_task(L, &w->op);
  t = lua_touserdata(L, -1);
  lua_getiuservalue(L, -1, 1);
  lua_rawgeti(L, -1, 1);
  n = lua_rawgeti(L, -2, 2) != LUA_TNIL;
  activate(L, base + 3); /* stack: task list queue value */
  if (at_task_settled(t)) {
    if (t->state == AT_CANCELLED) deactivate(L);
  } else {
    q->permits -= permits;
    remove_waiting(w);
    if (n == 0) lua_pop(L, 1);
    at_op_succeed(L, &w->op, n);
  }
  lua_settop(L, base);
}

/* Gives permits to those at the head, as far as they reach. */
static void grant(lua_State *L, queue *q) {
  while (q->head != NULL && q->head->wants <= q->permits) deliver(L, q, q->head->wants);
}

static void grant_deferred(lua_State *L, at_runtime *rt, at_deferred *d) {
  (void)rt;
  grant(L, (queue *)d);
}

/* The head may have wanted more than there is, and those behind it less. */
static int cancel_waiting(at_op *op) {
  waiting *w = (waiting *)op;
  queue *q = w->queue;
  remove_waiting(w);
  if (q->head != NULL && q->head->wants <= q->permits && !q->rt->closing)
    at_sched_defer(q->rt, &q->deferred);
  return 1;
}

static const at_opclass class = {"acquire", NULL, cancel_waiting, NULL, NULL, 0};

/* acquire([guard [, wants]]) -> Task of guard once `wants` (1) permits are taken */
static int l_queue_acquire(lua_State *L) {
  at_runtime *rt = at_rt(L);
  queue *q = check(L);
  lua_Integer wants = luaL_optinteger(L, 3, 1);
  waiting *w;
  at_task *t;
  lua_settop(L, 2);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (q->head == NULL && wants <= q->permits) {
    activate(L, 1);
    if (!lua_isnil(L, 2)) lua_pushvalue(L, 2);
    at_task_resolved(L, rt, lua_gettop(L) - 2); /* stack: queue guard task */
    if (q->head == NULL && wants <= q->permits) { /* still: no finalizer that ran meanwhile took them */
      q->permits -= wants;
      return 1;
    }
    lua_settop(L, 2);
    deactivate(L);
  }
  t = at_op_new(L, rt);
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 2);
  lua_setiuservalue(L, -2, 1);
  w = at_op_alloc(L, rt, t, &class, sizeof *w);
  if (w == NULL) return 1;
  w->queue = q;
  w->wants = wants;
  w->prev = q->tail;
  if (q->tail != NULL)
    q->tail->next = w;
  else
    q->head = w;
  q->tail = w;
  q->count++;
  return 1;
}

/* try_acquire([wants]) -> whether the permits were taken; never waits, never overtakes */
static int l_queue_try_acquire(lua_State *L) {
  queue *q = check(L);
  lua_Integer wants = luaL_optinteger(L, 2, 1);
  int ok = q->head == NULL && wants <= q->permits;
  if (ok) q->permits -= wants;
  lua_pushboolean(L, ok);
  return 1;
}

/* release([n]): n (1) more permits, first to those who wait */
static int l_queue_release(lua_State *L) {
  queue *q = check(L);
  q->permits += luaL_optinteger(L, 2, 1);
  grant(L, q);
  return 0;
}

/* wake_all() -> number of waiters; each goes on, the permits stay as they are */
static int l_queue_wake_all(lua_State *L) {
  queue *q = check(L);
  lua_Integer n = q->count, i;
  for (i = 0; i < n && q->head != NULL; i++) deliver(L, q, 0); /* a finalizer may have woken some */
  lua_pushinteger(L, i);
  return 1;
}

static int l_queue_permits(lua_State *L) {
  lua_pushinteger(L, check(L)->permits);
  return 1;
}

static int l_queue_len(lua_State *L) {
  lua_pushinteger(L, check(L)->count);
  return 1;
}

static int l_queue_gc(lua_State *L) {
  queue *q = lua_touserdata(L, 1);
  if (q->rt != NULL && !q->rt->closed) at_sched_undefer(q->rt, &q->deferred);
  return 0;
}

/* waitqueue([permits]) -> queue */
static int l_waitqueue(lua_State *L) {
  lua_Integer permits = luaL_optinteger(L, 1, 0);
  queue *q = lua_newuserdatauv(L, sizeof *q, 0);
  memset(q, 0, sizeof *q);
  q->deferred.run = grant_deferred;
  q->deferred.retry = 1;
  q->rt = at_rt(L);
  q->permits = permits;
  luaL_setmetatable(L, QUEUE_MT);
  return 1;
}

void at_waitqueue_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"waitqueue", l_waitqueue}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"acquire", l_queue_acquire}, {"try_acquire", l_queue_try_acquire},
      {"release", l_queue_release}, {"wake_all", l_queue_wake_all},
      {"permits", l_queue_permits}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__len", l_queue_len}, {"__gc", l_queue_gc}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, QUEUE_MT, methods, meta);
}
