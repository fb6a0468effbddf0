/* filelines.c - asynctask.Lines, the iterator of file:lines() and fs.lines() (S26): callable, with
** next, close and <close>. Owns nothing but the formats; the file is its first user value (for
** fs.lines: opened by the first round, closed at the end), the path its second.
** Loop thread. A line that is in the file's buffer costs one call of a C function; the budget of the
** turn is charged for it, so that a loop over lines does not starve the rest. */
#include <fcntl.h>
#include <string.h>

#include "base/arg.h"
#include "core/await.h"
#include "core/sched.h"
#include "io/file.h"
#include "io/fs.h"

#define AT_LINES_MT "asynctask.Lines"

typedef struct lines {
  int count;
  unsigned char owns;     /* fs.lines: opens and closes the file */
  unsigned char closed;   /* no further rounds */
  at_item items[];        /* count as given, then count to work with */
} lines;

enum { VALUE_FILE = 1, VALUE_PATH };

/* [-0, +1, v] pushes an iterator with the formats from argument `first` on. */
static lines *push_lines(lua_State *L, int first) {
  int n = at_format_check(L, first);
  lines *s = lua_newuserdatauv(L, sizeof *s + 2 * (size_t)n * sizeof *s->items, 2);
  at_plan plan;
  memset(s, 0, sizeof *s);
  s->count = n;
  lua_insert(L, first); /* stack: ... lines formats... */
  at_format_plan(L, first + 1, &plan, s->items, n);
  lua_settop(L, first);
  luaL_setmetatable(L, AT_LINES_MT);
  return s;
}

/* [-0, +3, -] the four values of a generic `for`, the first being at the top */
static int four_values(lua_State *L) {
  lua_pushnil(L);
  lua_pushnil(L);
  lua_pushvalue(L, -3);
  return 4;
}

int l_file_lines(lua_State *L) {
  (void)at_file_check(L, 1);
  (void)push_lines(L, 2);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 2, VALUE_FILE);
  return four_values(L);
}

/* lines(path, formats...) -> iterator */
static int l_fs_lines(lua_State *L) {
  (void)at_arg_path(L, 1);
  push_lines(L, 2)->owns = 1;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 2, VALUE_PATH);
  return four_values(L);
}

static lines *check_lines(lua_State *L) { return luaL_checkudata(L, 1, AT_LINES_MT); }

/* The values are the last n; the end closes a file that is ours. */
static int deliver(lua_State *L, lines *s, int n) {
  if (!s->owns || !lua_isnil(L, -n)) return n;
  s->closed = 1;
  lua_getiuservalue(L, 1, VALUE_FILE);
  if (!at_file_check(L, -1)->closing) at_file_start_close(L, at_rt(L), lua_gettop(L));
  lua_pushnil(L);
  return 1;
}

static int arrived(lua_State *L, int status, lua_KContext base) {
  (void)status;
  return deliver(L, check_lines(L), lua_gettop(L) - (int)base);
}

/* Awaits the Task at the top, then goes on with k. stack: lines ... task */
static int await_top(lua_State *L, int results, lua_KFunction k) {
  int base;
  at_await_push(L, at_rt(L));
  lua_insert(L, -2);
  base = lua_gettop(L) - 2;
  lua_callk(L, 1, results, base, k);
  return k(L, LUA_OK, base);
}

/* A fresh plan over one of the two sets of items. */
static at_plan plan_of(lines *s, at_item *items) {
  at_plan plan = {.items = items, .count = s->count, .max = SIZE_MAX};
  return plan;
}

/* One round, the file being at the top: index 2. */
static int round_of(lua_State *L, at_runtime *rt, lines *s) {
  at_file *f = at_file_check(L, 2);
  at_plan plan = plan_of(s, s->items + s->count);
  int n;
  memcpy(plan.items, s->items, (size_t)s->count * sizeof *s->items);
  if (at_op_refused(rt) || !at_file_try_read(rt, f, &plan)) {
    plan = plan_of(s, s->items);
    at_file_start_read(L, rt, 2, &plan);
    return await_top(L, LUA_MULTRET, arrived);
  }
  n = at_file_take(L, f, &plan);
  if (rt->budget > 1) {
    rt->budget--;
    return deliver(L, s, n);
  }
  at_task_resolved(L, rt, n);
  return await_top(L, LUA_MULTRET, arrived); /* gives way */
}

/* stack: lines file */
static int opened(lua_State *L, int status, lua_KContext base) {
  lines *s = check_lines(L);
  (void)status, (void)base;
  if (s->closed) { /* closed while it was being opened */
    if (!at_file_check(L, 2)->closing) at_file_start_close(L, at_rt(L), 2);
    lua_pushnil(L);
    return 1;
  }
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 1, VALUE_FILE);
  return round_of(L, at_rt(L), s);
}

/* lines() -> values, waiting for them */
static int l_lines_call(lua_State *L) {
  at_runtime *rt = at_rt(L);
  lines *s = check_lines(L);
  lua_settop(L, 1);
  if (s->closed) {
    lua_pushnil(L);
    return 1;
  }
  if (lua_getiuservalue(L, 1, VALUE_FILE) == LUA_TUSERDATA) return round_of(L, rt, s);
  lua_pop(L, 1);
  lua_getiuservalue(L, 1, VALUE_PATH);
  at_fs_start_open(L, rt, NULL, lua_tostring(L, -1), O_RDONLY, 0);
  lua_remove(L, -2);
  return await_top(L, 1, opened);
}

/* lines:next() -> Task of values */
static int l_lines_next(lua_State *L) {
  at_runtime *rt = at_rt(L);
  lines *s = check_lines(L);
  lua_settop(L, 1);
  if (s->closed) {
    lua_pushnil(L);
    at_task_resolved(L, rt, 1);
  } else if (s->owns) { /* may have to open, read and close: a task of its own */
    (void)at_sched_spawn(L, rt, 0, 1, 0);
    return at_sched_spawned(L, rt);
  } else {
    at_plan plan = plan_of(s, s->items);
    lua_getiuservalue(L, 1, VALUE_FILE);
    at_file_start_read(L, rt, 2, &plan);
  }
  return 1;
}

/* [-0, +1, m] pushes the Task of the end of the iteration. */
static void start_close(lua_State *L, at_runtime *rt, lines *s) {
  s->closed = 1;
  if (s->owns && lua_getiuservalue(L, 1, VALUE_FILE) == LUA_TUSERDATA &&
      !at_file_check(L, -1)->closing)
    at_file_start_close(L, rt, lua_gettop(L));
  else
    at_task_resolved(L, rt, 0);
}

/* lines:close() -> Task */
static int l_lines_close(lua_State *L) {
  lines *s = check_lines(L);
  start_close(L, at_rt(L), s);
  return 1;
}

static int l_lines_scope_close(lua_State *L) {
  at_runtime *rt = at_rt(L);
  lines *s = check_lines(L);
  at_task *t;
  lua_settop(L, 1);
  if (s->closed) return 0;
  start_close(L, rt, s);
  t = lua_touserdata(L, -1);
  return t->state == AT_SUCCEEDED ? 0 : at_file_close_wait(L, rt);
}

void at_filelines_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"lines", l_fs_lines}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"next", l_lines_next}, {"close", l_lines_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {
      {"__call", l_lines_call}, {"__close", l_lines_scope_close}, {NULL, NULL}};
  at_runtime_class(L, rt, AT_LINES_MT, methods, meta);
  at_runtime_setfuncs(L, rt, functions);
}
