/* combine.c - when_all, when_any, when_each. A combination is an operation whose request holds one
** waiter for each member; it settles in C, without Lua, and makes its result at the first read.
** Members are kept alive by the list in the combination's user value; while it is pending it is
** linked to them, afterwards nothing of it stays with those that go on. Loop thread only.
** The list: [1..n] the members, [n+1..2n] their keys, `n`; `varargs` if they were arguments. */
#include "core/combine.h"

#include <stdlib.h>
#include <string.h>

#include "core/op.h"

#define EACH_MT "asynctask.Each"

typedef struct member {
  at_waiter waiter; /* first member; `arg` is the combination */
  at_task *task;    /* borrowed from the list */
} member;

typedef struct combination {
  at_op op;
  int any;     /* when_any; else when_all */
  int pending; /* members that have not settled */
  int n;
  member members[];
} combination;

/* ---- the list of members ---- */

static int bad_member(lua_State *L, int arg, int value, int key) {
  const char *name = luaL_tolstring(L, key, NULL);
  return luaL_argerror(
      L, arg, lua_pushfstring(L, "Task expected at '%s', got %s", name, luaL_typename(L, value)));
}

/* Appends member and key at the top to the list at `list`. [-2] */
static void add_member(lua_State *L, int list, int n) {
  lua_rawseti(L, list, -n); /* the key, until n is known */
  lua_rawseti(L, list, n);
}

/* [-0, +1, v] pushes the list for the arguments of when_*; stores the number of members. */
static int push_list(lua_State *L, at_runtime *rt, int *varargs) {
  int top = lua_gettop(L), n = 0, i, list, single;
  single = top == 1 && lua_istable(L, 1);
  *varargs = !single;
  lua_createtable(L, 2 * top, 2);
  list = lua_gettop(L);
  if (single) {
    int length = (int)lua_rawlen(L, 1);
    for (i = 1; i <= length; i++) {
      lua_rawgeti(L, 1, i);
      lua_pushinteger(L, i);
      if (at_task_test(L, rt, -2) == NULL) bad_member(L, 1, -2, -1);
      add_member(L, list, ++n);
    }
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
      if (lua_isinteger(L, -2) && lua_tointeger(L, -2) >= 1 && lua_tointeger(L, -2) <= length)
        continue;
      if (lua_type(L, -2) == LUA_TSTRING && strcmp(lua_tostring(L, -2), "n") == 0 &&
          lua_isinteger(L, -1))
        continue; /* table.pack */
      if (at_task_test(L, rt, -1) == NULL) bad_member(L, 1, -1, -2);
      lua_pushvalue(L, -1);
      lua_pushvalue(L, -3);
      add_member(L, list, ++n);
    }
    lua_pushinteger(L, length);
    lua_setfield(L, list, "length");
  } else {
    for (i = 1; i <= top; i++) {
      at_task_check(L, rt, i);
      lua_pushvalue(L, i);
      lua_pushinteger(L, i);
      add_member(L, list, ++n);
    }
  }
  for (i = 1; i <= n; i++) { /* the keys to their place */
    lua_rawgeti(L, list, -i);
    lua_rawseti(L, list, n + i);
    lua_pushnil(L);
    lua_rawseti(L, list, -i);
  }
  lua_pushinteger(L, n);
  lua_setfield(L, list, "n");
  lua_pushboolean(L, *varargs);
  lua_setfield(L, list, "varargs");
  return n;
}

static int list_integer(lua_State *L, int list, const char *field) {
  int value;
  lua_getfield(L, list, field);
  value = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return value;
}

/* ---- settling ---- */

static void unlink_all(combination *c) {
  int i;
  for (i = 0; i < c->n; i++) at_waiter_unlink(c->op.rt, &c->members[i].waiter);
}

/* The first member in argument order with this state, or -1. */
static int find_state(const combination *c, int state) {
  int i;
  for (i = 0; i < c->n; i++)
    if (c->members[i].task->state == state) return i;
  return -1;
}

/* All that decides is known: settles the Task and lets the request go. */
static void conclude(combination *c, int winner) {
  at_runtime *rt = c->op.rt;
  at_task *t = c->op.task;
  int state = AT_SUCCEEDED, slot = c->op.slot;
  if (!c->any) {
    winner = find_state(c, AT_FAULTED);
    if (winner >= 0) {
      state = AT_FAULTED;
    } else if ((winner = find_state(c, AT_CANCELLED)) >= 0) {
      state = AT_CANCELLED;
    }
  }
  unlink_all(c);
  t->index = winner;
  t->flags |= AT_F_LAZY;
  at_leaf_of(t)->u.op = NULL;
  free(c);
  at_task_settle(rt, t, state);
  at_unanchor(rt, slot);
}

static void on_member(at_runtime *rt, at_waiter *w) {
  combination *c = w->arg;
  (void)rt;
  if (c->any)
    conclude(c, (int)((member *)w - c->members));
  else if (--c->pending == 0)
    conclude(c, -1);
}

static int cancel_combination(at_op *op) {
  unlink_all((combination *)op);
  return 1;
}

static const at_opclass all_class = {"when_all", NULL, cancel_combination, NULL, NULL, 0};
static const at_opclass any_class = {"when_any", NULL, cancel_combination, NULL, NULL, 0};

/* stack: ... list -> task. Links the members in argument order. */
static int combine(lua_State *L, at_runtime *rt, int any, int n) {
  int list = lua_gettop(L), i, first = -1;
  at_task *t = at_op_new(L, rt);
  combination *c;
  if (at_task_settled(t)) return 1;
  t->kind = AT_COMBINE;
  lua_pushvalue(L, list);
  lua_setiuservalue(L, -2, 1);
  c = at_op_alloc(L, rt, t, any ? &any_class : &all_class,
                  sizeof *c + (size_t)n * sizeof c->members[0]);
  if (c == NULL) return 1;
  c->any = any;
  c->n = n;
  for (i = 0; i < n; i++) {
    member *m = &c->members[i];
    lua_rawgeti(L, list, i + 1);
    m->task = lua_touserdata(L, -1);
    lua_pop(L, 1);
    m->waiter.on = on_member;
    m->waiter.arg = c;
    if (at_task_settled(m->task)) {
      if (first < 0) first = i;
    } else if (at_waiter_link(rt, m->task, &m->waiter) == 0) {
      c->pending++;
    } else {
      unlink_all(c);
      at_op_fail(L, &c->op, UV_ENOMEM);
      return 1;
    }
  }
  if (any ? first >= 0 : c->pending == 0) conclude(c, first);
  return 1;
}

/* when_all(t...) | when_all{...} -> Task */
static int l_when_all(lua_State *L) {
  int varargs, n = push_list(L, at_rt(L), &varargs);
  return combine(L, at_rt(L), 0, n);
}

/* when_any(t...) | when_any{...} -> Task of the first settled task and its key */
static int l_when_any(lua_State *L) {
  int varargs, n = push_list(L, at_rt(L), &varargs);
  if (n == 0) return luaL_argerror(L, 1, "at least one Task expected");
  return combine(L, at_rt(L), 1, n);
}

/* ---- reading the result ---- */

/* [-0, +1, m] pushes the first value of member i (1-based) of the list, or nil. */
static void push_first_value(lua_State *L, at_runtime *rt, int list, int i) {
  int base = lua_gettop(L), n;
  lua_rawgeti(L, list, i);
  n = at_task_push_results(L, rt, lua_touserdata(L, -1), base + 1);
  if (n == 0) lua_pushnil(L);
  lua_replace(L, base + 1);
  if (n > 1) {
    lua_pushvalue(L, base + 2);
    lua_replace(L, base + 1);
  }
  lua_settop(L, base + 1);
}

static void convert_any(lua_State *L, at_task *t, int list, int n) {
  lua_createtable(L, 2, 1);
  lua_rawgeti(L, list, t->index + 1);
  lua_rawseti(L, -2, 1);
  lua_rawgeti(L, list, n + t->index + 1);
  lua_rawseti(L, -2, 2);
  lua_pushinteger(L, 2);
  lua_setfield(L, -2, "n");
  t->flags |= AT_F_MANY;
}

static void convert_all(lua_State *L, at_runtime *rt, at_task *t, int list, int n) {
  int i, varargs, length;
  lua_getfield(L, list, "varargs");
  varargs = lua_toboolean(L, -1);
  lua_pop(L, 1);
  length = varargs ? n : list_integer(L, list, "length");
  lua_createtable(L, length, 1);
  for (i = 1; i <= n; i++) {
    if (varargs)
      lua_pushinteger(L, i);
    else
      lua_rawgeti(L, list, n + i);
    push_first_value(L, rt, list, i);
    lua_rawset(L, -3);
  }
  if (varargs || length > 0 || n == 0) {
    lua_pushinteger(L, length);
    lua_setfield(L, -2, "n");
  }
  t->flags |= varargs ? AT_F_MANY : AT_F_ONE;
}

void at_combine_convert(lua_State *L, at_runtime *rt, at_task *t, int index) {
  int list, n;
  index = lua_absindex(L, index);
  luaL_checkstack(L, 10, "result");
  lua_getiuservalue(L, index, 1);
  list = lua_gettop(L);
  n = list_integer(L, list, "n");
  if (t->index >= 0)
    convert_any(L, t, list, n);
  else
    convert_all(L, rt, t, list, n);
  lua_setiuservalue(L, index, 1);
  t->flags &= (uint16_t)~AT_F_LAZY;
  lua_settop(L, list - 1);
}

void at_combine_push_errors(lua_State *L, at_runtime *rt, int index) {
  int list, n, i, count = 0;
  luaL_checkstack(L, 8, "errors");
  lua_getiuservalue(L, index, 1);
  list = lua_gettop(L);
  n = list_integer(L, list, "n");
  lua_newtable(L);
  for (i = 1; i <= n; i++) {
    at_task *m;
    lua_rawgeti(L, list, i);
    m = lua_touserdata(L, -1);
    if (m->state == AT_FAULTED || m->state == AT_CANCELLED) {
      at_task_push_error(L, rt, m, lua_gettop(L));
      lua_rawseti(L, -3, ++count);
    }
    lua_pop(L, 1);
  }
  lua_remove(L, list);
}

void at_combine_push_error(lua_State *L, at_runtime *rt, at_task *t, int index) {
  int list, n, i;
  lua_getiuservalue(L, index, 1);
  list = lua_gettop(L);
  n = list_integer(L, list, "n");
  for (i = 1; i <= n; i++) { /* whoever looks at the combination has looked at its members */
    lua_rawgeti(L, list, i);
    at_task_observe(L, rt, lua_touserdata(L, -1), lua_gettop(L));
    lua_pop(L, 1);
  }
  lua_rawgeti(L, list, t->index + 1);
  at_task_push_error(L, rt, lua_touserdata(L, -1), lua_gettop(L));
  lua_replace(L, list);
  lua_settop(L, list);
}

/* ---- when_each: the members in the order of settling ---- */

typedef struct each {
  at_runtime *rt;
  member *members; /* owned */
  int *order;      /* owned: members that have settled, first come first */
  int n, head, tail;
  int given;   /* members that next() has given or is about to give */
  at_op *next; /* the pending next(), or NULL */
} each;

typedef struct next_request {
  at_op op;
  each *owner; /* borrowed: the Task's user value keeps it */
  int member;
} next_request;

static int push_next(lua_State *L, at_op *op) {
  next_request *r = (next_request *)op;
  int n;
  if (r->member < 0) return 0;
  n = r->owner->n;
  lua_getiuservalue(L, -1, 1); /* the each */
  lua_getiuservalue(L, -1, 1); /* its list */
  lua_rawgeti(L, -1, r->member + 1);
  lua_rawgeti(L, -2, n + r->member + 1);
  return 2;
}

static int cancel_next(at_op *op) {
  ((next_request *)op)->owner->next = NULL;
  return 1;
}

static const at_opclass next_class = {"when_each", push_next, cancel_next, NULL, NULL, 0};

static void on_each(at_runtime *rt, at_waiter *w) {
  each *e = w->arg;
  int i = (int)((member *)w - e->members);
  (void)rt;
  if (e->next != NULL) {
    next_request *r = (next_request *)e->next;
    e->next = NULL;
    e->given++;
    r->member = i;
    at_op_done(&r->op);
  } else {
    e->order[e->tail++] = i;
  }
}

/* each(t...) | each{...} -> iterator object with next() and close() */
static int l_each(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int varargs, i, n = push_list(L, rt, &varargs), list = lua_gettop(L);
  each *e;
  if (rt->closing) return at_runtime_refuse(L, rt);
  e = lua_newuserdatauv(L, sizeof *e, 1);
  memset(e, 0, sizeof *e);
  e->rt = rt;
  luaL_setmetatable(L, EACH_MT);
  lua_pushvalue(L, list);
  lua_setiuservalue(L, -2, 1);
  e->members = calloc((size_t)n + 1, sizeof *e->members);
  e->order = calloc((size_t)n + 1, sizeof *e->order);
  if (e->members == NULL || e->order == NULL) return luaL_error(L, "not enough memory");
  for (i = 0; i < n; i++) {
    member *m = &e->members[i];
    lua_rawgeti(L, list, i + 1);
    m->task = lua_touserdata(L, -1);
    lua_pop(L, 1);
    m->waiter.on = on_each;
    m->waiter.arg = e;
    if (at_task_settled(m->task))
      e->order[e->tail++] = i;
    else if (at_waiter_link(rt, m->task, &m->waiter) < 0)
      return luaL_error(L, "not enough memory");
    e->n = i + 1;
  }
  return 1;
}

/* next() -> Task of (task, key), of nothing at the end */
static int l_each_next(lua_State *L) {
  at_runtime *rt = at_rt(L);
  each *e = luaL_checkudata(L, 1, EACH_MT);
  next_request *r;
  at_task *t;
  if (e->next != NULL) return luaL_error(L, "next() of when_each is already waited for");
  t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  r = at_op_alloc(L, rt, t, &next_class, sizeof *r);
  if (r == NULL) return 1;
  r->owner = e;
  r->member = -1;
  if (e->head < e->tail) {
    e->given++;
    r->member = e->order[e->head++];
    at_op_done(&r->op);
  } else if (e->given < e->n) {
    e->next = &r->op; /* some member is pending */
  } else {
    at_op_done(&r->op); /* the end */
  }
  return 1;
}

static int l_each_close(lua_State *L) {
  each *e = luaL_checkudata(L, 1, EACH_MT);
  int i;
  if (e->members != NULL && !e->rt->closed)
    for (i = 0; i < e->n; i++) at_waiter_unlink(e->rt, &e->members[i].waiter);
  free(e->members);
  free(e->order);
  e->members = NULL;
  e->order = NULL;
  e->n = e->head = e->tail = e->given = 0;
  return 0;
}

void at_combine_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"when_all", l_when_all}, {"when_any", l_when_any}, {"each", l_each}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"next", l_each_next}, {"close", l_each_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_each_close}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, EACH_MT, methods, meta);
}
