/* locals.c - task-local values (AsyncLocal, contextvars). A task's values are one table, variable to
** value, that is never changed once a task has it: `with` makes a copy with one more entry, so that
** inheriting costs an anchor and nothing leaks upward. Loop thread only. */
#include "core/locals.h"

#include "base/arg.h"
#include "core/await.h"
#include "core/cancel.h"

#define LOCAL_MT "asynctask.Local"

void at_locals_inherit(lua_State *L, at_runtime *rt, at_coro *c) {
  at_ext *e = at_ext_get(rt, c);
  if (e == NULL) luaL_error(L, "not enough memory");
  luaL_checkstack(L, 1, "task-local values");
  at_anchor_push(L, rt, rt->current->ext->locals);
  e->locals = at_anchor(L, rt);
}

/* local_value(default) -> variable */
static int l_local_value(lua_State *L) {
  lua_settop(L, 1);
  (void)lua_newuserdatauv(L, 0, 1);
  lua_insert(L, 1);
  lua_setiuservalue(L, 1, 1);
  luaL_setmetatable(L, LOCAL_MT);
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

void at_locals_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"local_value", l_local_value}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"get", l_local_get}, {"with", l_local_with}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, LOCAL_MT, methods, NULL);
}
