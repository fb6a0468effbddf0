/* group.c - the mechanism of groups: who belongs to one, how many run, the first fault. The policy of
** leaving one (wait, raise) is Lua's (asynctask/group.lua).
** A group owns its members through a ring of its own, so that g:cancel spares the body; a leaf of the
** kind AT_GROUP stands for that ring where the group was made, so that cancelling there reaches the
** members. A scope, entered when the group is made, is what a fault interrupts the body through.
** Loop thread only. Invariants: a member record exists while its task is pending or its fault is kept;
** the group is anchored while it has records, and so while anybody waits for the last member. */
#include "core/group.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "core/cancel.h"
#include "core/op.h"
#include "core/sched.h"

#define GROUP_MT "asynctask.Group"

enum { UV_SCOPE = 1, UV_ON_ERROR };

typedef struct member {
  at_waiter waiter; /* first member; `arg` is the record itself */
  struct group *group;
  at_task *task;
  int slot;            /* anchor of the task */
  unsigned char counts;  /* towards the limit */
  unsigned char handler; /* a call of on_error: leaving waits for it, its faults are its own */
  struct member *next, *prev; /* in one list of the group */
} member;

typedef struct members {
  member *head, *tail;
} members;

/* A wait for the last member. */
typedef struct idler {
  at_op op;
  struct group *group; /* borrowed: a group that somebody waits for has members */
} idler;

typedef struct group {
  at_leaf leaf; /* first member: AT_GROUP, in the ring of the scope around */
  at_deferred deferred;
  at_closable closable; /* in the runtime's list while there are records */
  at_runtime *rt;
  at_leaf *ring;
  members pending; /* tasks that run, calls of on_error */
  members held;    /* tasks that wait for their start */
  members faults;  /* faulted, in the order of settling */
  at_op *idle;     /* those who wait for the last member: a list through next */
  lua_Integer limit;
  int live, running, self;           /* pending members; those that count; anchor of the group */
  int handling;                      /* calls of on_error under way */
  unsigned char has_handler, left, failed, dead; /* dead: collected, or the state closes */
} group;

at_leaf **at_group_ring(at_leaf *leaf) { return &((group *)leaf)->ring; }

static group *check(lua_State *L) { return luaL_checkudata(L, 1, GROUP_MT); }

/* ---- members ---- */

static void forget(at_runtime *rt, member *m) {
  at_unanchor(rt, m->slot);
  free(m);
}

static void add(members *list, member *m) {
  m->prev = list->tail;
  m->next = NULL;
  if (list->tail != NULL)
    list->tail->next = m;
  else
    list->head = m;
  list->tail = m;
}

static void take_out(members *list, member *m) {
  if (m->prev != NULL)
    m->prev->next = m->next;
  else
    list->head = m->next;
  if (m->next != NULL)
    m->next->prev = m->prev;
  else
    list->tail = m->prev;
}

/* Starts tasks that were held back, as many as the limit allows. */
static void start_held(group *g) {
  while (g->running < g->limit && g->held.head != NULL) {
    member *m = g->held.head;
    take_out(&g->held, m);
    add(&g->pending, m);
    m->counts = 1;
    g->running++;
    at_sched_release(g->rt, (at_coro *)m->task);
  }
}

static void keep_fault(group *g, member *m) {
  add(&g->faults, m);
  at_sched_defer(g->rt, &g->deferred);
}

/* Nothing is pending any more? Then those who wait are told. */
static void look_around(group *g) {
  at_op *op, *next;
  if (g->live > 0 || g->handling > 0 || (g->has_handler && g->faults.head != NULL)) return;
  for (op = g->idle; op != NULL; op = next) {
    next = op->next;
    at_op_done(op);
  }
  g->idle = NULL;
  if (g->faults.head != NULL) return;
  at_closable_remove(&g->closable);
  at_unanchor(g->rt, g->self);
  g->self = 0;
}

static void on_member(at_runtime *rt, at_waiter *w) {
  member *m = w->arg;
  group *g = m->group;
  if (m->handler) {
    g->handling--;
    take_out(&g->pending, m);
    forget(rt, m);
    look_around(g);
    return;
  }
  take_out(m->counts ? &g->pending : &g->held, m);
  g->running -= m->counts;
  g->live--;
  if (m->task->state == AT_FAULTED)
    keep_fault(g, m);
  else
    forget(rt, m);
  start_held(g);
  look_around(g);
}

/* [-0, +0, m] a record for the task at the top, which is pending or has faulted; not linked yet. */
static member *new_member(lua_State *L, at_runtime *rt, group *g) {
  member *m;
  int slot;
  lua_pushvalue(L, -1);
  slot = at_anchor(L, rt);
  m = calloc(1, sizeof *m);
  if (m == NULL) {
    at_unanchor(rt, slot);
    luaL_error(L, "not enough memory");
  }
  m->group = g;
  m->task = lua_touserdata(L, -1);
  m->slot = slot;
  m->waiter.on = on_member;
  m->waiter.arg = m;
  return m;
}

/* The task at the top becomes a member. stack: group ... task */
static void join(lua_State *L, at_runtime *rt, group *g, int held) {
  at_task *t = lua_touserdata(L, -1);
  member *m;
  luaL_checkstack(L, 4, "group");
  if (at_task_settled(t) && t->state != AT_FAULTED) return;
  if (g->self == 0) {
    lua_pushvalue(L, 1);
    g->self = at_anchor(L, rt);
    at_closable_add(rt, &g->closable);
  }
  m = new_member(L, rt, g);
  if (at_task_settled(t)) {
    keep_fault(g, m);
    return;
  }
  if (at_waiter_link(rt, t, &m->waiter) < 0) {
    forget(rt, m);
    luaL_error(L, "not enough memory");
  }
  g->live++;
  m->counts = !held;
  g->running += m->counts;
  add(held ? &g->held : &g->pending, m);
}

/* ---- faults ---- */

/* Hands a fault to the group's handler, as a task. stack: ... group */
static void call_handler(lua_State *L, at_runtime *rt, group *g, const member *m) {
  member *call;
  lua_getiuservalue(L, -1, UV_ON_ERROR);
  at_anchor_push(L, rt, m->slot);
  at_task_push_error(L, rt, m->task, lua_gettop(L));
  lua_insert(L, -2); /* stack: ... group handler error task */
  (void)at_sched_spawn(L, rt, 2, 0, 1);
  call = new_member(L, rt, g);
  call->handler = 1;
  if (at_waiter_link(rt, call->task, &call->waiter) < 0) {
    forget(rt, call);
    lua_pop(L, 1);
    return;
  }
  g->handling++;
  add(&g->pending, call);
  lua_pop(L, 1);
}

/* The first fault: the others are cancelled, the body is interrupted. stack: ... group */
static void fail(lua_State *L, at_runtime *rt, group *g) {
  int self = lua_gettop(L);
  lua_pushliteral(L, "a member of the group failed");
  at_cancel_push_error(L, -1);
  at_cancel_ring(L, rt, &g->ring, lua_gettop(L));
  if (!g->left && lua_getiuservalue(L, self, UV_SCOPE) == LUA_TUSERDATA) {
    lua_pushvalue(L, -2);
    (void)at_scope_cancel(L, rt, lua_touserdata(L, -2));
  }
  g->failed = 1; /* all is done: no need to come again */
  lua_settop(L, self);
}

static void act_on_faults(lua_State *L, at_runtime *rt, at_deferred *d) {
  group *g = (group *)((char *)d - offsetof(group, deferred));
  luaL_checkstack(L, LUA_MINSTACK, "group");
  at_anchor_push(L, rt, g->self);
  if (!g->has_handler) {
    if (!g->failed) fail(L, rt, g);
  } else {
    while (g->faults.head != NULL) {
      member *m = g->faults.head;
      take_out(&g->faults, m);
      call_handler(L, rt, g, m);
      forget(rt, m);
    }
    look_around(g);
  }
  lua_pop(L, 1);
}

/* ---- the end ---- */

static void forget_all(at_runtime *rt, members *list) {
  member *m;
  while ((m = list->head) != NULL) {
    take_out(list, m);
    at_waiter_unlink(rt, &m->waiter); /* pending only when the state closes */
    forget(rt, m);
  }
}

static void end(group *g) {
  g->dead = 1;
  at_closable_remove(&g->closable);
  at_sched_undefer(g->rt, &g->deferred);
  forget_all(g->rt, &g->pending);
  forget_all(g->rt, &g->held);
  forget_all(g->rt, &g->faults);
}

/* The state closes, and nothing finalizes a group that was made meanwhile. */
static void on_close(at_runtime *rt, at_closable *c) {
  (void)rt;
  end((group *)((char *)c - offsetof(group, closable)));
}

/* ---- Lua ---- */

/* group(limit | nil, on_error | nil) -> group; its scope is entered */
static int l_group(lua_State *L) {
  at_runtime *rt = at_rt(L);
  group *g;
  lua_Integer limit = luaL_optinteger(L, 1, LUA_MAXINTEGER);
  luaL_argcheck(L, limit >= 1, 1, "limit must be positive");
  if (rt->closing) return at_runtime_refuse(L, rt);
  lua_settop(L, 2);
  g = lua_newuserdatauv(L, sizeof *g, 2);
  memset(g, 0, sizeof *g);
  g->leaf.task.kind = AT_GROUP;
  g->deferred.run = act_on_faults;
  g->deferred.retry = 1;
  g->closable.close = on_close;
  g->rt = rt;
  g->limit = limit;
  g->has_handler = !lua_isnil(L, 2);
  luaL_setmetatable(L, GROUP_MT);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 3, UV_ON_ERROR);
  at_ring_add(at_scope_ring(rt), &g->leaf);
  (void)at_scope_enter(L, rt, AT_SCOPE_PLAIN);
  lua_setiuservalue(L, 3, UV_SCOPE);
  return 1;
}

static group *check_open(lua_State *L) {
  group *g = check(L);
  if (g->dead) at_runtime_refuse(L, g->rt);
  if (g->left && g->live == 0 && g->handling == 0) luaL_error(L, "the group has been left");
  return g;
}

/* stack: group f args... -> task */
static int start_counted(lua_State *L) {
  at_runtime *rt = at_rt(L);
  group *g = lua_touserdata(L, 1);
  (void)at_sched_spawn_in(L, rt, lua_gettop(L) - 2, &g->ring, 0);
  return 1;
}

/* Starts a member where there is a limit: it counts before it runs, so that what it starts in its first
** slice finds the place taken; protected, so that the place is given back. stack: group f args... */
static int spawn_limited(lua_State *L, at_runtime *rt, group *g) {
  int n = lua_gettop(L), status;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushcclosure(L, start_counted, 2);
  lua_insert(L, 2);
  lua_pushvalue(L, 1);
  lua_insert(L, 3); /* stack: group start group f args... */
  g->running++;
  status = lua_pcall(L, n, 1, 0);
  g->running--;
  if (status != LUA_OK) {
    start_held(g);
    return lua_error(L);
  }
  join(L, rt, g, 0);
  start_held(g);
  return at_sched_spawned(L, rt);
}

/* spawn(f, ...) -> Task, a member; held back while `limit` members run */
static int l_group_spawn(lua_State *L) {
  at_runtime *rt = at_rt(L);
  group *g = check_open(L);
  int held = g->running >= g->limit;
  at_arg_callable(L, 2);
  if (g->failed) {
    at_task_refused(L, rt);
    return 1;
  }
  if (g->limit != LUA_MAXINTEGER && !held) return spawn_limited(L, rt, g);
  (void)at_sched_spawn_in(L, rt, lua_gettop(L) - 2, &g->ring, held);
  join(L, rt, g, held);
  return at_sched_spawned(L, rt);
}

/* The record of a pending task that is a member of some group, or NULL. */
static member *find(const at_task *t) {
  at_waiter *head, *w;
  if (t->waiters == 0 || (t->waiters & 1)) return NULL;
  head = w = (at_waiter *)t->waiters;
  do {
    if (w->on == on_member && !((member *)w->arg)->handler) return w->arg;
    w = w->next;
  } while (w != head);
  return NULL;
}

/* A pending member goes to another group. No Lua. */
static void move_away(at_runtime *rt, member *m) {
  group *g = m->group;
  at_waiter_unlink(rt, &m->waiter);
  take_out(m->counts ? &g->pending : &g->held, m);
  g->running -= m->counts;
  g->live--;
  if (!m->counts) at_sched_release(rt, (at_coro *)m->task);
  forget(rt, m);
  start_held(g);
  look_around(g);
}

/* add(t) -> t, a member from now on, whoever owned it before */
static int l_group_add(lua_State *L) {
  at_runtime *rt = at_rt(L);
  group *g = check_open(L);
  at_task *t = at_task_check(L, rt, 2);
  lua_settop(L, 2);
  if (t->flags & AT_F_SHARED) return 1;
  if (!at_task_settled(t)) {
    member *m = find(t);
    if (m != NULL && m->group == g) return 1;
    if (m != NULL) move_away(rt, m);
    if (t->kind == AT_CORO) {
      at_ext *e = at_ext_get(rt, (at_coro *)t);
      if (e == NULL) return luaL_error(L, "not enough memory");
      at_ring_remove(&e->proxy);
      at_ring_add(&g->ring, &e->proxy);
    } else {
      at_ring_remove(at_leaf_of(t));
      at_ring_add(&g->ring, at_leaf_of(t));
    }
  }
  join(L, rt, g, 0);
  if (g->failed) (void)at_cancel_task(L, rt, t, 0);
  return 1;
}

/* cancel(reason): the members, not the body */
static int l_group_cancel(lua_State *L) {
  at_runtime *rt = at_rt(L);
  group *g = check(L);
  lua_settop(L, 2);
  at_op_drain_protected(L, rt);
  at_cancel_push_error(L, 2);
  at_cancel_ring(L, rt, &g->ring, 3);
  return 0;
}

static int cancel_idle(at_op *op) {
  at_op **link = &((idler *)op)->group->idle;
  while (*link != op) link = &(*link)->next;
  *link = op->next;
  return 1;
}

/* idle() -> Task that settles when no member is pending */
static int l_group_idle(lua_State *L) {
  static const at_opclass class = {"group", NULL, cancel_idle, NULL, NULL, 0};
  at_runtime *rt = at_rt(L);
  group *g = check(L);
  at_task *t;
  idler *i;
  if (g->live == 0 && g->handling == 0 && (!g->has_handler || g->faults.head == NULL)) {
    at_task_resolved(L, rt, 0);
    return 1;
  }
  t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  i = at_op_alloc(L, rt, t, &class, sizeof *i);
  if (i == NULL) return 1;
  i->group = g;
  i->op.next = g->idle;
  g->idle = &i->op;
  return 1;
}

/* leave(err) -> whether err is the group's own interruption of the body; the scope is left */
static int l_group_leave(lua_State *L) {
  at_runtime *rt = at_rt(L);
  group *g = check(L);
  int own = 0;
  lua_settop(L, 2);
  if (!g->left && lua_getiuservalue(L, 1, UV_SCOPE) == LUA_TUSERDATA) {
    at_scope *s = lua_touserdata(L, -1);
    own = s->task != NULL && at_scope_is_own(L, rt, s, 2);
    at_scope_leave(rt, s);
  }
  g->left = 1;
  lua_pushboolean(L, own);
  return 1;
}

/* fault() -> the first member that faulted, or nil */
static int l_group_fault(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const group *g = check(L);
  if (g->has_handler || g->faults.head == NULL)
    lua_pushnil(L);
  else
    at_anchor_push(L, rt, g->faults.head->slot);
  return 1;
}

/* errors() -> list of the errors of the members that faulted, in the order of settling */
static int l_group_errors(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const group *g = check(L);
  const member *m;
  int i = 0;
  lua_newtable(L);
  for (m = g->has_handler ? NULL : g->faults.head; m != NULL; m = m->next) {
    at_anchor_push(L, rt, m->slot);
    at_task_push_error(L, rt, m->task, lua_gettop(L));
    lua_rawseti(L, -3, ++i);
    lua_pop(L, 1);
  }
  return 1;
}

/* count() -> pending members */
static int l_group_count(lua_State *L) {
  lua_pushinteger(L, check(L)->live);
  return 1;
}

/* limit() -> members that run at once, or nil */
static int l_group_limit(lua_State *L) {
  lua_Integer limit = check(L)->limit;
  if (limit == LUA_MAXINTEGER)
    lua_pushnil(L);
  else
    lua_pushinteger(L, limit);
  return 1;
}

/* orphaned() -> whether the __close that asks was called by nobody: its thread is being closed (lua_close
** closes what is open on the main chunk), and there is no waiting any more */
static int l_group_orphaned(lua_State *L) {
  lua_Debug ar;
  (void)check(L);
  lua_pushboolean(L, !lua_getstack(L, 2, &ar));
  return 1;
}

/* release(): the faults have been raised; lets the group be collected */
static int l_group_release(lua_State *L) {
  at_runtime *rt = at_rt(L);
  group *g = check(L);
  if (g->live > 0 || g->handling > 0 || g->self == 0) return 0;
  at_sched_undefer(rt, &g->deferred);
  at_closable_remove(&g->closable);
  at_unanchor(rt, g->self);
  g->self = 0;
  return 0;
}

static int l_group_gc(lua_State *L) {
  group *g = lua_touserdata(L, 1);
  if (g->rt == NULL || g->rt->closed) return 0;
  at_ring_remove(&g->leaf);
  end(g);
  return 0;
}

void at_group_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"group", l_group}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"spawn", l_group_spawn},   {"add", l_group_add},     {"cancel", l_group_cancel},
      {"idle", l_group_idle},     {"leave", l_group_leave}, {"fault", l_group_fault},
      {"errors", l_group_errors}, {"count", l_group_count}, {"release", l_group_release},
      {"limit", l_group_limit},   {"orphaned", l_group_orphaned},
      {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_group_gc}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, GROUP_MT, methods, meta);
  luaL_getmetatable(L, GROUP_MT);
  lua_setfield(L, -2, "Group");
}
