/* methods.c - the methods of Task that Lua sees. Reads and settles through task.c and cancel.c.
** Loop thread only. */
#include "core/methods.h"

#include "core/await.h"
#include "core/cancel.h"
#include "core/combine.h"
#include "core/fault.h"
#include "core/sched.h"

/* status() -> "pending" | "succeeded" | "faulted" | "cancelled" */
static int l_task_status(lua_State *L) {
  static const char *const names[] = {"pending", "succeeded", "faulted", "cancelled"};
  lua_pushstring(L, names[at_task_check(L, at_rt(L), 1)->state]);
  return 1;
}

/* done() -> whether it has settled */
static int l_task_done(lua_State *L) {
  lua_pushboolean(L, at_task_settled(at_task_check(L, at_rt(L), 1)));
  return 1;
}

/* result() -> the values; raises the error of one that failed, and for one that is pending */
static int l_task_result(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_task *t = at_task_check(L, rt, 1);
  if (!at_task_settled(t)) return luaL_error(L, "result of a task that is pending (await it)");
  if (t->state == AT_SUCCEEDED) return at_task_push_results(L, rt, t, 1);
  at_task_push_error(L, rt, t, 1);
  return lua_error(L);
}

/* error() -> the error, or nothing if it is pending or succeeded */
static int l_task_error(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_task *t = at_task_check(L, rt, 1);
  if (!at_task_settled(t) || t->state == AT_SUCCEEDED) return 0;
  at_task_push_error(L, rt, t, 1);
  return 1;
}

/* errors() -> list of all errors, in argument order for when_all */
static int l_task_errors(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_task *t = at_task_check(L, rt, 1);
  if (at_task_settled(t) && t->state != AT_SUCCEEDED && (t->flags & AT_F_LAZY)) {
    at_combine_push_errors(L, rt, 1);
    return 1;
  }
  lua_createtable(L, 1, 0);
  if (at_task_settled(t) && t->state != AT_SUCCEEDED) {
    at_task_push_error(L, rt, t, 1);
    lua_rawseti(L, -2, 1);
  }
  return 1;
}

/* cancel([reason]) -> whether it took effect */
static int l_task_cancel(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_task *t = at_task_check(L, rt, 1);
  lua_settop(L, 2);
  lua_pushboolean(L, at_cancel_task(L, rt, t, 2));
  return 1;
}

/* traceback() -> text: where the error was raised, and through which tasks it came; else nothing */
static int l_task_traceback(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_task *t = at_task_check(L, rt, 1);
  if ((t->flags & AT_F_LAZY) && t->state == AT_FAULTED) { /* that of the member it comes from */
    lua_getiuservalue(L, 1, 1);
    lua_rawgeti(L, -1, t->index + 1);
    t = lua_touserdata(L, -1);
    lua_replace(L, 1);
  }
  if ((t->flags & AT_F_FAULT) == 0) return 0;
  lua_getiuservalue(L, 1, 1);
  at_fault_push_traceback(L, -1);
  return 1;
}

/* name() -> the name given, or nil */
static int l_task_name(lua_State *L) {
  at_runtime *rt = at_rt(L);
  (void)at_task_check(L, rt, 1);
  at_anchor_push(L, rt, AT_SLOT_NAMES);
  lua_pushvalue(L, 1);
  lua_rawget(L, -2);
  return 1;
}

/* named(s) -> the task itself, which has the name from now on */
static int l_task_named(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_task *t = at_task_check(L, rt, 1);
  luaL_checktype(L, 2, LUA_TSTRING);
  if ((t->flags & AT_F_SHARED) == 0) {
    at_anchor_push(L, rt, AT_SLOT_NAMES);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_rawset(L, -3);
    if (t->flags & AT_F_FAULT) { /* named after it failed: the report knows the name, too */
      lua_getiuservalue(L, 1, 1);
      at_fault_name(L, rt, 1);
    }
  }
  lua_pushvalue(L, 1);
  return 1;
}

static int l_task_tostring(lua_State *L) {
  at_runtime *rt = at_rt(L);
  static const char *const names[] = {"pending", "succeeded", "faulted", "cancelled"};
  at_task *t = at_task_check(L, rt, 1);
  at_task_push_label(L, rt, t, 1);
  lua_pushfstring(L, "Task (%s, %s): %p", lua_tostring(L, -1), names[t->state], (void *)t);
  return 1;
}

/* is_task(v) */
static int l_is_task(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, at_task_test(L, at_rt(L), 1) != NULL);
  return 1;
}

/* owned(t) -> whether the running scope owns it */
static int l_owned(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_task *t = at_task_check(L, rt, 1);
  const at_leaf *o, *leaf = t->kind != AT_CORO ? at_leaf_of(t)
                            : ((at_coro *)t)->ext != NULL ? &((at_coro *)t)->ext->proxy
                                                          : NULL;
  for (o = *at_scope_ring(rt); o != NULL && o != leaf; o = o->next) continue;
  lua_pushboolean(L, o != NULL);
  return 1;
}

void at_methods_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"is_task", l_is_task}, {"owned", l_owned}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"status", l_task_status},       {"done", l_task_done},     {"result", l_task_result},
      {"error", l_task_error},         {"errors", l_task_errors}, {"cancel", l_task_cancel},
      {"traceback", l_task_traceback}, {"name", l_task_name},     {"named", l_task_named},
      {"await", l_await},              {"try", l_try},            {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__tostring", l_task_tostring}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_fixed_push(L, rt, AT_A_TASK_MT);
  if (lua_getfield(L, -1, "__index") == LUA_TNIL) {
    lua_pop(L, 1);
    at_runtime_setfuncs(L, rt, meta);
    lua_newtable(L);
    at_runtime_setfuncs(L, rt, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__index");
  }
  lua_setfield(L, -3, "Task"); /* the table of methods: the face adds its own */
  lua_pop(L, 1);
}
