/* tasks.c - Tasks for C: spawn, on_settled, reading, cancelling, awaiting.
** Owns the record of an on_settled, which is in the runtime's list of closables until its function is
** called. Calls the kernel. Loop thread only.
** Invariant: the function of an on_settled is called once: by a task of its own, or, when the runtime
** closes before that, without a state. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/await.h"
#include "core/cancel.h"
#include "core/fault.h"
#include "core/sched.h"
#include "host/api.h"

/* [-0, +0, v] */
static at_task *check(lua_State *L, at_runtime *rt, int index, const char *function) {
  at_task *t = at_task_test(L, rt, index);
  if (t == NULL) luaL_error(L, "%s: Task expected, got %s", function, luaL_typename(L, index));
  return t;
}

/* ---- spawn ---- */

/* A start that would have to be handed to the resumer is queued: C code cannot yield here. */
void asynctask_spawn(lua_State *L, int nargs) {
  at_runtime *rt = at_api_runtime(L);
  (void)at_sched_spawn(L, rt, nargs, 0, rt->nest >= AT_NEST_LIMIT);
}

/* ---- on_settled ---- */

/* Those whose Tasks have settled, first in, first out. One a state; a userdata in its registry. */
typedef struct queue {
  at_deferred deferred;
  struct settled *head, **tail; /* tail is valid while there is a head */
} queue;

static const char queue_key = 'q';

typedef struct settled {
  at_closable closable;
  at_waiter waiter; /* linked while its `task` is not NULL */
  struct settled *next; /* in the queue */
  queue *queue;
  at_runtime *rt;
  int slot; /* anchor of the Task */
  asynctask_settled f;
  void *data;
} settled;

static void enqueue(at_runtime *rt, settled *s) {
  queue *q = s->queue;
  if (q->head == NULL) q->tail = &q->head;
  s->next = NULL;
  *q->tail = s;
  q->tail = &s->next;
  at_sched_defer(rt, &q->deferred);
}

static void on_told(at_runtime *rt, at_waiter *w) { enqueue(rt, w->arg); }

static void on_closing(at_runtime *rt, at_closable *c) {
  settled *s = (settled *)(void *)((char *)c - offsetof(settled, closable));
  at_waiter_unlink(rt, &s->waiter);
  s->queue->head = NULL; /* nothing is started any more */
  at_unanchor(rt, s->slot);
  s->f(NULL, ASYNCTASK_PENDING, 0, s->data);
  free(s);
}

/* [-1, +n, m] replaces a settled Task by its values or its error; returns their number. */
static int unpack(lua_State *L, at_runtime *rt) {
  int index = lua_gettop(L), n = 1;
  at_task *t = lua_touserdata(L, index);
  if (t->state == AT_SUCCEEDED) {
    t->flags |= AT_F_OBSERVED;
    n = at_task_push_results(L, rt, t, index);
  } else {
    at_task_push_error(L, rt, t, index);
  }
  lua_remove(L, index);
  return n;
}

/* stack: task runtime */
static int l_unpack(lua_State *L) {
  at_runtime *rt = lua_touserdata(L, 2);
  lua_settop(L, 1);
  return unpack(L, rt);
}

/* stack: record. The body of the task that calls the function. */
static int l_settled(lua_State *L) {
  settled *s = lua_touserdata(L, 1);
  at_runtime *rt = s->rt;
  asynctask_settled f = s->f;
  asynctask_state state;
  void *data = s->data;
  lua_settop(L, 0);
  lua_pushcfunction(L, l_unpack);
  at_anchor_push(L, rt, s->slot);
  state = (asynctask_state)((at_task *)lua_touserdata(L, -1))->state;
  lua_pushlightuserdata(L, rt);
  if (lua_pcall(L, 2, LUA_MULTRET, 0) != LUA_OK) state = ASYNCTASK_FAULTED; /* no memory */
  at_closable_remove(&s->closable);
  at_unanchor(rt, s->slot);
  free(s);
  f(L, state, lua_gettop(L), data);
  return 0;
}

/* Raises only for memory, and is run again then. */
static void start(lua_State *L, at_runtime *rt, at_deferred *d) {
  queue *q = (queue *)(void *)((char *)d - offsetof(queue, deferred));
  luaL_checkstack(L, 4, "callback");
  while (q->head != NULL) {
    lua_pushcfunction(L, l_settled);
    lua_pushlightuserdata(L, q->head);
    (void)at_sched_spawn(L, rt, 1, 0, 1);
    q->head = q->head->next;
    lua_pop(L, 1);
  }
}

void at_tasks_open(lua_State *L) {
  queue *q;
  luaL_checkstack(L, 2, "asynctask");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &queue_key) == LUA_TNIL) {
    q = lua_newuserdatauv(L, sizeof *q, 0);
    memset(q, 0, sizeof *q);
    q->deferred.run = start;
    q->deferred.retry = 1;
    lua_rawsetp(L, LUA_REGISTRYINDEX, &queue_key);
  }
  lua_pop(L, 1);
}

typedef struct request {
  asynctask_settled f;
  void *data;
} request;

/* What is to be called was not taken. */
static void give_back(void *data) {
  request *r = data;
  r->f(NULL, ASYNCTASK_PENDING, 0, r->data);
}

/* stack: request task */
static int l_on_settled(lua_State *L) {
  const request *r = lua_touserdata(L, 1);
  at_runtime *rt = at_api_runtime(L);
  at_task *t = check(L, rt, 2, "asynctask_on_settled");
  settled *s;
  queue *q;
  int slot;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &queue_key);
  q = lua_touserdata(L, -1);
  lua_pushvalue(L, 2);
  slot = at_anchor(L, rt); /* may raise: nothing is held yet */
  s = calloc(1, sizeof *s);
  if (s != NULL) {
    s->waiter.on = on_told;
    s->waiter.arg = s;
    s->waiter.observes = 1;
  }
  if (s == NULL || (!at_task_settled(t) && at_waiter_link(rt, t, &s->waiter) < 0)) {
    at_unanchor(rt, slot);
    free(s);
    return luaL_error(L, "not enough memory");
  }
  s->queue = q;
  s->rt = rt;
  s->slot = slot;
  s->f = r->f;
  s->data = r->data;
  s->closable.close = on_closing;
  at_closable_add(rt, &s->closable);
  if (at_task_settled(t)) {
    at_task_observe(L, rt, t, 2);
    enqueue(rt, s);
  }
  return 0;
}

void asynctask_on_settled(lua_State *L, int index, asynctask_settled f, void *data) {
  request r = {f, data};
  at_api_take(L, l_on_settled, &r, index, give_back, &r);
  lua_pop(L, 1);
}

/* ---- reading and cancelling ---- */

asynctask_state asynctask_task_state(lua_State *L, int index) {
  at_runtime *rt = lua_checkstack(L, 2) ? at_runtime_get(L) : NULL;
  at_task *t = rt != NULL ? at_task_test(L, rt, index) : NULL;
  return t != NULL ? (asynctask_state)t->state : ASYNCTASK_NOT_A_TASK;
}

int asynctask_task_values(lua_State *L, int index) {
  at_runtime *rt = at_api_runtime(L);
  at_task *t = check(L, rt, index, "asynctask_task_values");
  if (!at_task_settled(t)) return -2;
  lua_pushvalue(L, index);
  if (t->state == AT_SUCCEEDED) return unpack(L, rt);
  (void)unpack(L, rt);
  return -1;
}

int asynctask_task_cancel(lua_State *L, int index, const char *reason) {
  at_runtime *rt = at_api_runtime(L);
  at_task *t = check(L, rt, index, "asynctask_task_cancel");
  int top = lua_gettop(L), done;
  if (reason != NULL) lua_pushstring(L, reason);
  done = at_cancel_task(L, rt, t, reason != NULL ? top + 1 : 0);
  lua_settop(L, top);
  return done;
}

/* ---- awaiting ---- */

int asynctask_await(lua_State *L, lua_KContext ctx, lua_KFunction k) {
  at_await_push(L, at_api_runtime(L));
  lua_insert(L, -2);
  lua_callk(L, 1, LUA_MULTRET, ctx, k);
  return k(L, LUA_OK, ctx);
}
