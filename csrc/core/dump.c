/* dump.c - seeing what a runtime does: live tasks, what each waits for, and where.
** Reads the kernel's records and the stacks of suspended coroutines; changes nothing. Loop thread. */
#include "core/dump.h"

#include <string.h>

#include "core/copool.h"
#include "core/op.h"
#include "core/sched.h"
#include "core/timer.h"

#define DEPTH_MAX 30   /* of the tree: what lies deeper is not indented any more */
#define MEMBERS_MAX 20 /* of one combination that are shown */

/* [-0, +1, m] pushes "file:line" of the innermost Lua function of a coroutine (of one that has not
** started, where its function is defined), or "?". */
static void push_place(lua_State *L, lua_State *co) {
  lua_Debug ar;
  int level;
  if (co != NULL && !lua_getstack(co, 0, &ar) && lua_gettop(co) >= 4 && lua_isfunction(co, 4) &&
      !lua_iscfunction(co, 4)) { /* stack of co: body body handler f args... */
    lua_pushvalue(co, 4);
    lua_getinfo(co, ">S", &ar);
    lua_pushfstring(L, "%s:%d", ar.short_src, ar.linedefined);
    return;
  }
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

/* [-0, +1, m] pushes what a pending task is: its name, or "a delay", "connect 127.0.0.1:80". */
static void push_label(lua_State *L, at_runtime *rt, at_task *t) {
  if (t->kind == AT_CORO) {
    at_sched_push_task(L, rt, (at_coro *)t);
  } else if ((t->kind == AT_OP || t->kind == AT_COMBINE) && at_leaf_of(t)->u.op != NULL) {
    at_op_push_task(L, at_leaf_of(t)->u.op);
  } else {
    lua_pushstring(L, t->kind == AT_DELAY ? "a delay" : t->kind == AT_SOURCE ? "a source" : "a task");
    return;
  }
  at_task_push_label(L, rt, t, -1);
  lua_remove(L, -2);
}

/* [-0, +1, m] pushes what a task waits for: "delay", "connect 127.0.0.1:80", "task 'x'". */
static void push_awaited(lua_State *L, at_runtime *rt, const at_coro *c) {
  at_task *t = at_task_awaited(c);
  if (c->task.flags & AT_F_QUEUED) {
    lua_pushliteral(L, "its turn");
  } else if (c->task.flags & AT_F_HELD) {
    lua_pushliteral(L, "its place in a group");
  } else if (t == NULL) {
    lua_pushliteral(L, "nothing (it runs)");
  } else {
    push_label(L, rt, t);
  }
}

static at_coro *live(const at_runtime *rt, int i) {
  at_coro *c = at_cell_task(&rt->cells[i]);
  return c != NULL && !at_task_settled(&c->task) ? c : NULL;
}

/* Milliseconds since a live task was made; 0 if the clock was changed meanwhile. */
static uint32_t age(at_runtime *rt, const at_coro *c) {
  uint64_t now = (rt->virtual_clock ? at_timer_now(rt) : uv_hrtime()) / 1000000;
  uint32_t ms = (uint32_t)now - rt->cells[c->task.index].since;
  return ms > INT32_MAX ? 0 : ms;
}

/* ---- the tree ---- */

typedef struct tree {
  lua_State *L;
  at_runtime *rt;
  int lines, seen, awaited; /* indices of tables: the text; tasks in it; tasks that others wait for */
} tree;

/* [-1, +0, m] appends the text at the top. */
static void add_line(tree *d, int depth) {
  lua_State *L = d->L;
  luaL_Buffer b;
  int i;
  luaL_buffinit(L, &b);
  for (i = 0; i <= depth; i++) luaL_addchar(&b, '\t');
  luaL_pushresult(&b);
  lua_insert(L, -2);
  lua_concat(L, 2);
  lua_rawseti(L, d->lines, (lua_Integer)lua_rawlen(L, d->lines) + 1);
}

static int test_and_set(const tree *d, int table, const at_coro *c) {
  int set = lua_rawgeti(d->L, table, c->task.index) != LUA_TNIL;
  lua_pop(d->L, 1);
  lua_pushboolean(d->L, 1);
  lua_rawseti(d->L, table, c->task.index);
  return set;
}

/* [-0, +(0|1), -] pushes the list of members of a combination that is pending: says so. */
static int push_members(const tree *d, at_task *t) {
  if (t->kind != AT_COMBINE || at_leaf_of(t)->u.op == NULL) return 0;
  at_op_push_task(d->L, at_leaf_of(t)->u.op);
  lua_getiuservalue(d->L, -1, 1);
  lua_remove(d->L, -2);
  if (lua_istable(d->L, -1)) return 1;
  lua_pop(d->L, 1);
  return 0;
}

/* [-0, +1, -] pushes member i of the list at the top: a pending one, or nil; NULL at the end. */
static at_task *push_member(const tree *d, int i, int *end) {
  at_task *t;
  lua_rawgeti(d->L, -1, i);
  t = at_task_test(d->L, d->rt, -1);
  lua_pop(d->L, 1);
  *end = t == NULL;
  return t != NULL && !at_task_settled(t) ? t : NULL;
}

/* Somebody waits for t: those it stands for are no roots. */
static void mark(const tree *d, at_task *t, int depth) {
  at_task *member;
  int i, end = 0;
  luaL_checkstack(d->L, 6, "dump");
  if (t->kind == AT_CORO) {
    (void)test_and_set(d, d->awaited, (at_coro *)t);
  } else if (depth < DEPTH_MAX && push_members(d, t)) {
    for (i = 1; member = push_member(d, i, &end), !end; i++)
      if (member != NULL) mark(d, member, depth + 1);
    lua_pop(d->L, 1);
  }
}

static void add_task(tree *d, at_coro *c, int depth);

/* The pending members of the combination t, if it is one. */
static void add_members(tree *d, at_task *t, int depth) {
  at_task *member;
  int i, shown = 0, end = 0;
  luaL_checkstack(d->L, LUA_MINSTACK, "dump");
  if (depth >= DEPTH_MAX || !push_members(d, t)) return;
  for (i = 1; member = push_member(d, i, &end), !end; i++) {
    if (member == NULL) continue;
    if (++shown > MEMBERS_MAX) {
      lua_pushliteral(d->L, "...");
      add_line(d, depth);
      break;
    }
    if (member->kind == AT_CORO) {
      add_task(d, (at_coro *)member, depth);
    } else {
      push_label(d->L, d->rt, member);
      add_line(d, depth);
      add_members(d, member, depth + 1);
    }
  }
  lua_pop(d->L, 1);
}

/* A line for the task, and below it what it waits for. */
static void add_task(tree *d, at_coro *c, int depth) {
  lua_State *L = d->L;
  for (;;) {
    at_task *t = at_task_awaited(c);
    push_label(L, d->rt, &c->task);
    if (test_and_set(d, d->seen, c)) {
      lua_pushliteral(L, " (see above)");
      lua_concat(L, 2);
      add_line(d, depth);
      return;
    }
    lua_pushliteral(L, " waits for ");
    push_awaited(L, d->rt, c);
    lua_pushliteral(L, " at ");
    push_place(L, c->co);
    lua_pushfstring(L, " (%d.%d s)", (int)(age(d->rt, c) / 1000), (int)(age(d->rt, c) % 1000 / 100));
    lua_concat(L, 6);
    add_line(d, depth);
    if (depth < DEPTH_MAX) depth++;
    if (t == NULL) return;
    if (t->kind != AT_CORO) {
      add_members(d, t, depth);
      return;
    }
    c = (at_coro *)t;
  }
}

/* The tasks that nobody waits for, each with what it waits for; then those that wait in a circle. */
static void add_all(tree *d) {
  int i, circles;
  for (i = 0; i < d->rt->cell_count; i++) {
    const at_coro *c = live(d->rt, i);
    at_task *t = c != NULL ? at_task_awaited(c) : NULL;
    if (t != NULL) mark(d, t, 0);
  }
  for (circles = 0; circles <= 1; circles++)
    for (i = 0; i < d->rt->cell_count; i++) {
      at_coro *c = live(d->rt, i);
      int skip;
      if (c == NULL) continue;
      skip = lua_rawgeti(d->L, circles ? d->seen : d->awaited, i) != LUA_TNIL;
      lua_pop(d->L, 1);
      if (!skip) add_task(d, c, 0);
    }
}

int at_dump_left(const at_runtime *rt) {
  int i;
  for (i = 0; i < rt->cell_count; i++) {
    const at_coro *c = live(rt, i);
    if (c != NULL && (c->ext == NULL || c->ext->error == 0)) return 1;
  }
  return 0;
}

void at_dump_push(lua_State *L, at_runtime *rt) {
  tree d;
  luaL_Buffer b;
  lua_Integer i, n;
  luaL_checkstack(L, LUA_MINSTACK, "dump");
  d.L = L;
  d.rt = rt;
  lua_newtable(L);
  d.lines = lua_gettop(L);
  lua_newtable(L);
  d.seen = d.lines + 1;
  lua_newtable(L);
  d.awaited = d.lines + 2;
  add_all(&d);
  n = (lua_Integer)lua_rawlen(L, d.lines);
  luaL_buffinit(L, &b);
  for (i = 1; i <= n; i++) {
    lua_rawgeti(L, d.lines, i);
    luaL_addvalue(&b);
    luaL_addchar(&b, '\n');
  }
  luaL_pushresult(&b);
  lua_replace(L, d.lines);
  lua_settop(L, d.lines);
}

/* dump() -> text */
static int l_dump(lua_State *L) {
  at_dump_push(L, at_rt(L));
  return 1;
}

/* tasks() -> list of {task=, name=, state=, age=, waits_for=, where=} */
static int l_tasks(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int i, n = 0;
  lua_newtable(L);
  for (i = 0; i < rt->cell_count; i++) {
    at_coro *c = live(rt, i);
    if (c == NULL) continue;
    lua_createtable(L, 0, 6);
    at_sched_push_task(L, rt, c);
    at_task_push_label(L, rt, &c->task, -1);
    lua_setfield(L, -3, "name");
    lua_setfield(L, -2, "task");
    lua_pushstring(L, c == rt->current                ? "running"
                      : c->task.flags & AT_F_QUEUED   ? "ready"
                      : c->task.flags & (AT_F_WAITING | AT_F_HELD) ? "waiting"
                                                      : "running");
    lua_setfield(L, -2, "state");
    lua_pushnumber(L, (lua_Number)age(rt, c) / 1000);
    lua_setfield(L, -2, "age");
    push_awaited(L, rt, c);
    lua_setfield(L, -2, "waits_for");
    push_place(L, c->co);
    lua_setfield(L, -2, "where");
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* A handle that libuv has to close or that keeps the loop alive, but for the runtime's own. */
typedef struct counting {
  const at_runtime *rt;
  int handles;
} counting;

static void count_handle(uv_handle_t *handle, void *arg) {
  counting *count = arg;
  const at_runtime *rt = count->rt;
  const char *first = (const char *)rt->uv;
  const char *h = (const char *)handle;
  if (h >= first && h < first + sizeof *rt->uv) return;
  if (handle->type == UV_ASYNC || handle->data == rt->inbox) return;
  count->handles++;
}

/* census() -> {tasks=, operations=, timers=, externals=, handles=}: what is alive now */
static int l_census(lua_State *L) {
  at_runtime *rt = at_rt(L);
  counting count = {rt, 0};
  int i, tasks = 0;
  for (i = 0; i < rt->cell_count; i++) tasks += live(rt, i) != NULL && live(rt, i) != rt->current;
  if (rt->uv != NULL && !rt->foreign) uv_walk(rt->loop, count_handle, &count); /* else the host's are there, too */
  lua_createtable(L, 0, 5);
  lua_pushinteger(L, tasks);
  lua_setfield(L, -2, "tasks");
  lua_pushinteger(L, rt->externals);
  lua_setfield(L, -2, "externals");
  lua_pushinteger(L, rt->heap_size);
  lua_setfield(L, -2, "timers");
  lua_pushinteger(L, count.handles);
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
