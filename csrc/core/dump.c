/* dump.c - seeing what a runtime does: live tasks, what each waits for, and where.
** Reads the kernel's records and the stacks of suspended coroutines; changes nothing. Loop thread. */
#include "core/dump.h"

#include <string.h>

#include "core/copool.h"
#include "core/op.h"
#include "core/sched.h"
#include "core/timer.h"

/* [-0, +1, m] pushes "file:line" of the innermost Lua function of a coroutine, or "?". */
static void push_place(lua_State *L, lua_State *co) {
  lua_Debug ar;
  int level;
  for (level = 0; co != NULL && lua_getstack(co, level, &ar); level++) {
    lua_getinfo(co, "Sl", &ar);
    if (ar.currentline > 0 && strncmp(ar.source, "@", 1) == 0 &&
        strstr(ar.source, "asynctask/") == NULL) {
      lua_pushfstring(L, "%s:%d", ar.short_src, ar.currentline);
      return;
    }
  }
  lua_pushliteral(L, "?");
}

/* [-0, +1, m] pushes what a task waits for: "delay", "connect 127.0.0.1:80", "task 'x'". */
static void push_awaited(lua_State *L, at_runtime *rt, const at_coro *c) {
  at_task *t = at_task_awaited(c);
  if (c->task.flags & AT_F_QUEUED) {
    lua_pushliteral(L, "its turn");
  } else if (t == NULL) {
    lua_pushliteral(L, "nothing (it runs)");
  } else if (t->kind == AT_CORO) {
    at_sched_push_task(L, rt, (at_coro *)t);
    at_task_push_label(L, rt, t, -1);
    lua_remove(L, -2);
  } else if ((t->kind == AT_OP || t->kind == AT_COMBINE) && at_leaf_of(t)->u.op != NULL) {
    at_op_push_task(L, at_leaf_of(t)->u.op);
    at_task_push_label(L, rt, t, -1);
    lua_remove(L, -2);
  } else {
    lua_pushstring(L, t->kind == AT_DELAY ? "a delay" : t->kind == AT_SOURCE ? "a source" : "a task");
  }
}

static at_coro *live(const at_runtime *rt, int i) {
  at_coro *c = at_cell_task(&rt->cells[i]);
  return c != NULL && !at_task_settled(&c->task) ? c : NULL;
}

void at_dump_push(lua_State *L, at_runtime *rt) {
  luaL_Buffer b;
  int i;
  luaL_checkstack(L, LUA_MINSTACK, "dump");
  luaL_buffinit(L, &b);
  for (i = 0; i < rt->cell_count; i++) {
    at_coro *c = live(rt, i);
    if (c == NULL) continue;
    luaL_addstring(&b, "\t");
    at_sched_push_task(L, rt, c);
    at_task_push_label(L, rt, &c->task, -1);
    lua_remove(L, -2);
    luaL_addvalue(&b);
    luaL_addstring(&b, " waits for ");
    push_awaited(L, rt, c);
    luaL_addvalue(&b);
    luaL_addstring(&b, " at ");
    push_place(L, c->co);
    luaL_addvalue(&b);
    luaL_addstring(&b, "\n");
  }
  luaL_pushresult(&b);
}

/* dump() -> text */
static int l_dump(lua_State *L) {
  at_dump_push(L, at_rt(L));
  return 1;
}

/* tasks() -> list of {task=, name=, state=, waits_for=, where=} */
static int l_tasks(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int i, n = 0;
  lua_newtable(L);
  for (i = 0; i < rt->cell_count; i++) {
    at_coro *c = live(rt, i);
    if (c == NULL) continue;
    lua_createtable(L, 0, 5);
    at_sched_push_task(L, rt, c);
    at_task_push_label(L, rt, &c->task, -1);
    lua_setfield(L, -3, "name");
    lua_setfield(L, -2, "task");
    lua_pushstring(L, c == rt->current                ? "running"
                      : c->task.flags & AT_F_QUEUED   ? "ready"
                      : c->task.flags & AT_F_WAITING  ? "waiting"
                                                      : "running");
    lua_setfield(L, -2, "state");
    push_awaited(L, rt, c);
    lua_setfield(L, -2, "waits_for");
    push_place(L, c->co);
    lua_setfield(L, -2, "where");
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* A handle that libuv has to close or that keeps the loop alive, but for the runtime's own. */
static void count_handle(uv_handle_t *handle, void *arg) {
  at_runtime *rt = handle->loop->data;
  const char *first = (const char *)rt->uv;
  const char *h = (const char *)handle;
  if (h >= first && h < first + sizeof *rt->uv) return;
  if (handle->type == UV_ASYNC || handle->data == rt->inbox) return;
  ++*(int *)arg;
}

/* census() -> {tasks=, operations=, timers=, externals=, handles=}: what is alive now */
static int l_census(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int i, tasks = 0, handles = 0;
  for (i = 0; i < rt->cell_count; i++) tasks += live(rt, i) != NULL && live(rt, i) != rt->current;
  if (rt->uv != NULL) uv_walk(rt->loop, count_handle, &handles);
  lua_createtable(L, 0, 5);
  lua_pushinteger(L, tasks);
  lua_setfield(L, -2, "tasks");
  lua_pushinteger(L, rt->externals);
  lua_setfield(L, -2, "externals");
  lua_pushinteger(L, rt->heap_size);
  lua_setfield(L, -2, "timers");
  lua_pushinteger(L, handles);
  lua_setfield(L, -2, "handles");
  lua_pushinteger(L, rt->unobserved);
  lua_setfield(L, -2, "unobserved");
  return 1;
}

/* ready() -> whether anything but the caller could run now */
static int l_ready(lua_State *L) {
  const at_runtime *rt = at_rt(L);
  lua_pushboolean(L, rt->ready_head != NULL || rt->done_head != NULL || rt->deferred != NULL ||
                         at_timer_due(rt));
  return 1;
}

static void set_integer(lua_State *L, const char *field, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, field);
}

/* stats() -> {tasks=, coroutines=, idle_coroutines=, delays=, external_operations=, unobserved=,
** reported=} */
static int l_stats(lua_State *L) {
  const at_runtime *rt = at_rt(L);
  int i, tasks = 0, coroutines = 0;
  for (i = 0; i < rt->cell_count; i++) {
    tasks += live(rt, i) != NULL;
    coroutines += rt->cells[i].ref != 0;
  }
  lua_createtable(L, 0, 8);
  set_integer(L, "tasks", tasks);
  set_integer(L, "coroutines", coroutines);
  set_integer(L, "idle_coroutines", rt->idle_count);
  set_integer(L, "delays", rt->heap_size);
  set_integer(L, "external_operations", rt->externals);
  set_integer(L, "unobserved", rt->unobserved);
  set_integer(L, "reported", rt->reported);
  return 1;
}

void at_dump_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"dump", l_dump}, {"tasks", l_tasks}, {"census", l_census}, {"ready", l_ready}, {"stats", l_stats}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
