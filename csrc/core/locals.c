/* locals.c - task-local values (AsyncLocal, contextvars). A task's values are one table, variable to
** value, that is never changed once a task has it: `with` makes a copy with one more entry, so that
** inheriting costs an anchor and nothing leaks upward. Variables have numbers, by which other states
** know them (par copies the values to jobs). Loop thread only.
** Debugging (task.debug) stands on it: while it is on every task has such a table, so that the start of
** each child comes by here and is named by its place; while it is off that costs nothing. */
#include "core/locals.h"

#include <stdatomic.h>
#include <string.h>

#include "base/arg.h"
#include "core/await.h"
#include "core/cancel.h"
#include "core/copool.h"
#include "core/sched.h"

#define LOCAL_MT "asynctask.Local"

static const char debug_key = 0; /* registry: true while debugging is on */
static const char variables_key = 0; /* registry, weak values: number -> variable that has travelled */

static int debugging(lua_State *L) {
  int on;
  luaL_checkstack(L, 1, "debugging");
  on = lua_rawgetp(L, LUA_REGISTRYINDEX, &debug_key) != LUA_TNIL;
  lua_pop(L, 1);
  return on;
}

/* [-0, +0, m] the library itself starts the task at `task`, for one that has a name: passes it on. */
static void inherit_name(lua_State *L, at_runtime *rt, int task) {
  int base = lua_gettop(L);
  if (rt->current == rt->main_task) return;
  luaL_checkstack(L, 4, "name");
  at_anchor_push(L, rt, AT_SLOT_NAMES);
  lua_pushvalue(L, task);
  at_sched_push_task(L, rt, rt->current);
  if (lua_rawget(L, base + 1) != LUA_TNIL) lua_rawset(L, base + 1);
  lua_settop(L, base);
}

/* [-0, +0, m] names the new task at the top by the place of the call that starts it. */
static void name_by_place(lua_State *L, at_runtime *rt) {
  lua_Debug ar;
  int level, task = lua_gettop(L);
  for (level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0 || strstr(ar.source, "asynctask/") != NULL) continue;
    luaL_checkstack(L, 4, "name");
    at_anchor_push(L, rt, AT_SLOT_NAMES);
    lua_pushvalue(L, task);
    lua_pushfstring(L, "spawned at %s:%d", ar.short_src, ar.currentline);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    return;
  }
  inherit_name(L, rt, task);
}

void at_locals_inherit(lua_State *L, at_runtime *rt, at_coro *c) {
  at_ext *e = at_ext_get(rt, c);
  if (e == NULL) luaL_error(L, "not enough memory");
  luaL_checkstack(L, 1, "task-local values");
  at_anchor_push(L, rt, rt->current->ext->locals);
  e->locals = at_anchor(L, rt);
  if (debugging(L)) name_by_place(L, rt);
}

/* [-0, +0, m] gives a task that has no values an empty table of them. */
static void give_table(lua_State *L, at_runtime *rt, at_coro *c) {
  at_ext *e = at_ext_get(rt, c);
  if (e == NULL) luaL_error(L, "not enough memory");
  if (e->locals != 0) return;
  lua_newtable(L);
  e->locals = at_anchor(L, rt);
}

/* debug([on]) -> whether it was on; names tasks by the place of their start from now on */
static int l_debug(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int i, before = debugging(L), on = lua_isnone(L, 1) ? before : lua_toboolean(L, 1);
  if (on && !before) {
    give_table(L, rt, rt->main_task);
    for (i = 0; i < rt->cell_count; i++) {
      at_coro *c = at_cell_task(&rt->cells[i]);
      if (c != NULL && !at_task_settled(&c->task)) give_table(L, rt, c);
    }
  }
  if (on)
    lua_pushboolean(L, 1);
  else
    lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &debug_key);
  lua_pushboolean(L, before);
  return 1;
}

/* [-0, +1, m] pushes a variable: a userdata that holds its number, unique in the process. */
static void push_variable(lua_State *L, lua_Integer id) {
  *(lua_Integer *)lua_newuserdatauv(L, sizeof id, 1) = id;
  luaL_setmetatable(L, LOCAL_MT);
}

/* local_value(default) -> variable */
static int l_local_value(lua_State *L) {
  static atomic_llong last;
  lua_settop(L, 1);
  push_variable(L, (lua_Integer)atomic_fetch_add(&last, 1) + 1);
  lua_insert(L, 1);
  lua_setiuservalue(L, 1, 1);
  return 1;
}

/* get() -> the value in the running task, else the default */
static int l_local_get(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const at_ext *e = rt->current->ext;
  luaL_checkudata(L, 1, LOCAL_MT);
  if (e != NULL && e->locals != 0) {
    at_anchor_push(L, rt, e->locals);
    lua_pushvalue(L, 1);
    if (lua_rawget(L, -2) == LUA_TTABLE) { /* boxed, so that nil is a value */
      lua_rawgeti(L, -1, 1);
      return 1;
    }
  }
  lua_getiuservalue(L, 1, 1);
  return 1;
}

/* [-0, +1, m] pushes a copy of the running task's table. */
static void push_copy(lua_State *L, at_runtime *rt) {
  const at_ext *e = rt->current->ext;
  lua_newtable(L);
  if (e == NULL || e->locals == 0) return;
  at_anchor_push(L, rt, e->locals);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, -6);
  }
  lua_pop(L, 1);
}

/* stack: variable outer results... ; the values are what they were before */
static int with_k(lua_State *L, int status, lua_KContext ctx) {
  at_runtime *rt = at_rt(L);
  at_ext *e = rt->current->ext;
  (void)ctx;
  if (e != NULL && e->locals != 0) {
    if (lua_isnil(L, 2)) {
      at_unanchor(rt, e->locals);
      e->locals = 0;
      if (debugging(L)) give_table(L, rt, rt->current);
    } else {
      lua_pushvalue(L, 2);
      at_anchor_set(L, rt, e->locals);
    }
  }
  if (status != LUA_OK && status != LUA_YIELD) return lua_error(L);
  return lua_gettop(L) - 2;
}

/* with(value, f, ...) -> results of f, during which get() gives value */
static int l_local_with(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_ext *e;
  luaL_checkudata(L, 1, LOCAL_MT);
  luaL_checkany(L, 2);
  at_arg_callable(L, 3);
  push_copy(L, rt);
  lua_pushvalue(L, 1);
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 1);
  lua_rawset(L, -3); /* stack: variable value f args... table */
  e = at_ext_get(rt, rt->current);
  if (e == NULL) return luaL_error(L, "not enough memory");
  if (e->locals != 0)
    at_anchor_push(L, rt, e->locals);
  else
    lua_pushnil(L);
  lua_replace(L, 2);
  if (e->locals != 0)
    at_anchor_set(L, rt, e->locals);
  else
    e->locals = at_anchor(L, rt);
  at_flat_push(L, rt);
  lua_insert(L, 3); /* stack: variable outer flat f args... */
  return with_k(L, lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 0, 0, with_k), 0);
}

/* ---- to other states ---- */

/* [-0, +1, m] */
static void push_variables(lua_State *L) {
  luaL_checkstack(L, 5, "task-local values");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &variables_key) != LUA_TNIL) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &variables_key);
}

lua_Integer at_locals_id(lua_State *L, int index) {
  const lua_Integer *id = luaL_testudata(L, index, LOCAL_MT);
  if (id == NULL) return 0;
  index = lua_absindex(L, index);
  push_variables(L); /* it may come back */
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, *id);
  lua_pop(L, 1);
  return *id;
}

void at_locals_variable(lua_State *L, lua_Integer id, int *fresh) {
  push_variables(L);
  *fresh = lua_rawgeti(L, -1, id) == LUA_TNIL;
  if (*fresh) {
    lua_pop(L, 1);
    push_variable(L, id);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, id);
  }
  lua_remove(L, -2);
}

int at_locals_push(lua_State *L, at_runtime *rt) {
  const at_ext *e = rt->current->ext;
  if (e == NULL || e->locals == 0) return 0;
  luaL_checkstack(L, 1, "task-local values");
  at_anchor_push(L, rt, e->locals);
  return 1;
}

void at_locals_set(lua_State *L, at_runtime *rt) {
  at_ext *e = at_ext_get(rt, rt->current);
  if (e == NULL) luaL_error(L, "not enough memory");
  if (e->locals != 0)
    at_anchor_set(L, rt, e->locals);
  else
    e->locals = at_anchor(L, rt);
}

void at_locals_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"local_value", l_local_value}, {"debug", l_debug}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"get", l_local_get}, {"with", l_local_with}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, LOCAL_MT, methods, NULL);
}
