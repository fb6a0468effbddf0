/* source.c - completion sources (TaskCompletionSource), and tasks that are born settled.
** A source is a userdata (user values: task, on_cancel) that its task finds by number in a table with
** weak values, so that a source that nobody holds can be collected: then its task faults (S14).
** Loop thread only. */
#include "core/source.h"

#include "base/arg.h"
#include "base/error.h"
#include "core/cancel.h"
#include "core/op.h"
#include "core/sched.h"

#define SOURCE_MT "asynctask.Source"

typedef struct source {
  at_task *task; /* borrowed: user value 1 */
  int number;    /* key in AT_SLOT_SOURCES */
} source;

static source *check(lua_State *L) { return luaL_checkudata(L, 1, SOURCE_MT); }

/* source([on_cancel]) -> source */
static int l_source(lua_State *L) {
  at_runtime *rt = at_rt(L);
  source *s;
  lua_settop(L, 1);
  if (!lua_isnil(L, 1)) at_arg_callable(L, 1);
  s = lua_newuserdatauv(L, sizeof *s, 2);
  s->task = NULL;
  s->number = 0;
  luaL_setmetatable(L, SOURCE_MT);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 2, 2);
  if (at_op_refused(rt)) {
    s->task = at_task_refused(L, rt);
    lua_setiuservalue(L, 2, 1);
    return 1;
  }
  s->task = at_task_new(L, rt, AT_SOURCE, 1);
  lua_setiuservalue(L, 2, 1);
  at_anchor_push(L, rt, AT_SLOT_SOURCES);
  s->number = ++rt->sources;
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, s->number);
  at_leaf_of(s->task)->u.slot = s->number;
  at_ring_add(at_scope_ring(rt), at_leaf_of(s->task));
  lua_settop(L, 2);
  return 1;
}

/* The task has settled: forgets the number. stack: source ... task */
static void forget(lua_State *L, at_runtime *rt, source *s) {
  if (s->number == 0) return;
  at_anchor_push(L, rt, AT_SLOT_SOURCES);
  lua_pushnil(L);
  lua_rawseti(L, -2, s->number);
  lua_pop(L, 1);
  s->number = 0;
}

/* set_result(...) -> whether it took effect */
static int l_source_set_result(lua_State *L) {
  at_runtime *rt = at_rt(L);
  source *s = check(L);
  int n = lua_gettop(L) - 1, done;
  lua_getiuservalue(L, 1, 1);
  lua_insert(L, 2); /* stack: source task values... */
  done = at_task_succeed(L, rt, 2, n);
  forget(L, rt, s);
  lua_pushboolean(L, done);
  return 1;
}

/* set_error(e) -> whether it took effect */
static int l_source_set_error(lua_State *L) {
  at_runtime *rt = at_rt(L);
  source *s = check(L);
  int done;
  lua_settop(L, 2);
  lua_getiuservalue(L, 1, 1);
  lua_insert(L, 2);
  done = at_task_fault(L, rt, 2);
  forget(L, rt, s);
  lua_pushboolean(L, done);
  return 1;
}

/* set_cancelled(reason) -> whether it took effect; on_cancel does not run */
static int l_source_set_cancelled(lua_State *L) {
  at_runtime *rt = at_rt(L);
  source *s = check(L);
  int done;
  lua_settop(L, 2);
  lua_getiuservalue(L, 1, 1);
  at_cancel_push_error(L, 2);
  done = at_task_cancelled(L, rt, 3);
  forget(L, rt, s);
  lua_pushboolean(L, done);
  return 1;
}

static int l_source_index(lua_State *L) {
  const char *key;
  (void)check(L);
  key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  if (key[0] == 't' && lua_rawlen(L, 2) == 4 && key[1] == 'a' && key[2] == 's' && key[3] == 'k') {
    lua_getiuservalue(L, 1, 1);
    return 1;
  }
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(3)); /* the methods */
  return 1;
}

/* stack: task runtime */
static int l_abandon(lua_State *L) {
  at_error_push(L, "EABANDONED", "the completion source was collected before it settled its task",
                NULL);
  (void)at_task_fault(L, lua_touserdata(L, 2), 1);
  return 0;
}

/* Collected unsettled: the task faults with EABANDONED; without memory for that, with that. */
static int l_source_gc(lua_State *L) {
  at_runtime *rt = at_rt(L);
  source *s = lua_touserdata(L, 1);
  if (rt->closing || s->task == NULL || at_task_settled(s->task)) return 0;
  lua_pushcfunction(L, l_abandon);
  lua_getiuservalue(L, 1, 1);
  lua_pushlightuserdata(L, rt);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) { /* stack: source message */
    lua_getiuservalue(L, 1, 1);
    lua_insert(L, 2);
    if (!at_task_settled(s->task)) {
      lua_setiuservalue(L, 2, 1);
      at_task_settle(rt, s->task, AT_FAULTED);
    }
  }
  lua_settop(L, 1);
  forget(L, rt, s);
  return 0;
}

int at_source_cancel(lua_State *L, at_runtime *rt, at_task *t, int error) {
  int top = lua_gettop(L);
  luaL_checkstack(L, 6, "cancellation");
  at_anchor_push(L, rt, AT_SLOT_SOURCES);
  if (lua_rawgeti(L, -1, at_leaf_of(t)->u.slot) != LUA_TUSERDATA) { /* being collected: its __gc settles it */
    lua_settop(L, top);
    return 0;
  }
  forget(L, rt, lua_touserdata(L, -1));
  lua_getiuservalue(L, -1, 1);
  if (error != 0)
    lua_pushvalue(L, error);
  else
    lua_pushnil(L);
  (void)at_task_cancelled(L, rt, -2);
  lua_getiuservalue(L, -2, 2); /* stack: ... source task on_cancel */
  if (!lua_isnil(L, -1)) {
    if (error != 0 && at_error_is(L, error))
      lua_getfield(L, error, "reason");
    else
      lua_pushnil(L);
    (void)at_sched_spawn(L, rt, 1, 0, 1);
  }
  lua_settop(L, top);
  return 1;
}

/* from_result(...) -> Task that has succeeded */
static int l_from_result(lua_State *L) {
  at_task_resolved(L, at_rt(L), lua_gettop(L));
  return 1;
}

/* from_error(e) -> Task that has faulted */
static int l_from_error(lua_State *L) {
  lua_settop(L, 1);
  at_task_failed(L, at_rt(L));
  return 1;
}

/* from_cancelled(reason) -> Task that was cancelled */
static int l_from_cancelled(lua_State *L) {
  at_runtime *rt = at_rt(L);
  lua_settop(L, 1);
  at_task_new(L, rt, AT_OP, 1);
  at_cancel_push_error(L, 1);
  (void)at_task_cancelled(L, rt, 2);
  return 1;
}

void at_source_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"source", l_source},
                                       {"from_result", l_from_result},
                                       {"from_error", l_from_error},
                                       {"from_cancelled", l_from_cancelled},
                                       {NULL, NULL}};
  static const luaL_Reg methods[] = {{"set_result", l_source_set_result},
                                     {"set_error", l_source_set_error},
                                     {"set_cancelled", l_source_set_cancelled},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_source_gc}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, SOURCE_MT, methods, meta);
  luaL_getmetatable(L, SOURCE_MT);
  at_runtime_push(L);
  at_fixed_push(L, rt, AT_A_TASK_MT);
  lua_getfield(L, -3, "__index");
  if (lua_istable(L, -1)) {
    lua_pushcclosure(L, l_source_index, 3);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
  } else {
    lua_pop(L, 4);
  }
}
