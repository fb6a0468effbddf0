/* fault.c - what a faulted task keeps, and the report of faults that nobody looked at (S15).
** Owns the at_fault userdata, the one kind of object here with a finalizer: tasks have none. Loop
** thread only.
** Invariant: rt->unobserved is the number of faults that nobody has looked at. */
#include "core/fault.h"

#include <stdio.h>
#include <string.h>

#include "base/arg.h"
#include "core/dump.h"
#include "core/sched.h"

#define FAULT_MT "asynctask.fault"
#define FRAMES_MAX 22
#define CHAIN_MAX 40 /* faults of one chain that a traceback shows */
#define STEP_KB 64 /* of a collection that a step with a budget does at once */
#define COLLECT_FIRST_MS 1000
#define COLLECT_LAST_MS 60000

enum { UV_ERROR = 1, UV_CAUSE, UV_NAME, UV_TEXT }; /* user values */

at_fault *at_fault_test(lua_State *L, int index) {
  at_fault *f = NULL;
  if (lua_type(L, index) == LUA_TUSERDATA && lua_getmetatable(L, index)) {
    luaL_getmetatable(L, FAULT_MT);
    if (lua_rawequal(L, -1, -2)) f = lua_touserdata(L, index < 0 ? index - 2 : index);
    lua_pop(L, 2);
  }
  return f;
}

/* ---- frames ---- */

static int count_frames(lua_State *L) {
  lua_Debug ar;
  int n = 0;
  while (n < FRAMES_MAX && lua_getstack(L, n + 1, &ar)) n++;
  return n;
}

static void copy_frame(lua_State *L, lua_Debug *ar, at_frame *frame) {
  lua_getinfo(L, "Sln", ar);
  (void)snprintf(frame->source, sizeof frame->source, "%s", ar->short_src);
  (void)snprintf(frame->name, sizeof frame->name, "%s", ar->name != NULL ? ar->name : "");
  frame->line = ar->currentline;
}

/* Our own Lua files and nameless C functions are of no use to the reader. */
static int shown(const at_frame *frame) {
  if (frame->line < 0) return frame->name[0] != '\0';
  return strstr(frame->source, "lua/asynctask/") == NULL && strstr(frame->source, "/asynctask/") == NULL;
}

/* ---- making ---- */

static void watch(at_runtime *rt);

/* [-0, +1, m] pushes what may become the fault of the error at the top: the frames of L, or none, and
** the fault that it goes on from. Without a metatable: nothing is counted or reported yet. */
static at_fault *note(lua_State *L, at_runtime *rt, int with_frames) {
  at_fault *f;
  lua_Debug ar;
  int i, n = 0, error, frames = with_frames ? count_frames(L) : 0;
  luaL_checkstack(L, 8, "fault");
  error = lua_gettop(L);
  f = lua_newuserdatauv(L, sizeof *f + (size_t)frames * sizeof f->frames[0], 4);
  f->rt = rt;
  f->observed = 0;
  f->count = 0;
  for (i = 0; i < frames && lua_getstack(L, i + 1, &ar); i++) {
    copy_frame(L, &ar, &f->frames[n]);
    if (shown(&f->frames[n])) n++;
  }
  f->count = n;
  lua_pushvalue(L, error);
  lua_setiuservalue(L, -2, UV_ERROR);
  at_anchor_push(L, rt, AT_SLOT_RAISING);
  if (with_frames && rt->raising_in == rt->current && at_fault_test(L, -1) != NULL) {
    lua_getiuservalue(L, -1, UV_ERROR);
    if (lua_rawequal(L, -1, error)) {
      lua_pushvalue(L, -2);
      lua_setiuservalue(L, -4, UV_CAUSE);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return f;
}

/* [-2, +1, m] the note at the top becomes the fault of the error below it. From here on it reports. */
static at_fault *publish(lua_State *L, at_runtime *rt) {
  at_fault *f = lua_touserdata(L, -1);
  luaL_setmetatable(L, FAULT_MT);
  rt->unobserved++;
  watch(rt);
  lua_replace(L, -2);
  return f;
}

/* [-0, +(0|1), m] the note that the handler of a body left for the error at the top: pushes it. */
static int take_note(lua_State *L, at_runtime *rt) {
  at_anchor_push(L, rt, AT_SLOT_NOTES);
  if (lua_rawgetp(L, -1, L) != LUA_TUSERDATA) {
    lua_pop(L, 2);
    return 0;
  }
  lua_pushnil(L);
  lua_rawsetp(L, -3, L);
  lua_remove(L, -2);
  lua_getiuservalue(L, -1, UV_ERROR); /* stack: error note error of the note */
  if (lua_rawequal(L, -1, -3)) {
    lua_pop(L, 1);
    return 1;
  }
  lua_pop(L, 2);
  return 0;
}

/* Called by the body of a task itself? Then the note of its handler is for this error. */
static int in_body(lua_State *L) {
  lua_Debug ar;
  return lua_getstack(L, 0, &ar) && !lua_getstack(L, 1, &ar);
}

at_fault *at_fault_new(lua_State *L, at_runtime *rt, int with_frames) {
  luaL_checkstack(L, 8, "fault");
  if (!with_frames && in_body(L) && take_note(L, rt)) return publish(L, rt);
  (void)note(L, rt, with_frames);
  at_anchor_push(L, rt, AT_SLOT_TEXT);
  if (lua_isstring(L, -1)) {
    lua_setiuservalue(L, -2, UV_TEXT);
    lua_pushboolean(L, 0);
    at_anchor_set(L, rt, AT_SLOT_TEXT);
  } else {
    lua_pop(L, 1);
  }
  return publish(L, rt);
}

at_fault *at_fault_noted(lua_State *L, at_runtime *rt) {
  luaL_checkstack(L, 8, "fault");
  if (!take_note(L, rt)) (void)note(L, rt, 0);
  return publish(L, rt);
}

void at_fault_text(lua_State *L, at_runtime *rt) { at_anchor_set(L, rt, AT_SLOT_TEXT); }

/* The error stays what it is: <close> handlers, and who called `load`, see what the handler returns. */
int at_fault_handler(lua_State *L) {
  at_runtime *rt = at_runtime_get(L);
  if (rt == NULL || rt->closing) return 1;
  lua_settop(L, 1);
  luaL_checkstack(L, 10, "fault");
  at_anchor_push(L, rt, AT_SLOT_NOTES);
  lua_pushvalue(L, 1);
  (void)note(L, rt, 1); /* stack: error notes error note */
  lua_rawsetp(L, 2, L);
  lua_settop(L, 1);
  return 1;
}

void at_fault_name(lua_State *L, at_runtime *rt, int index) {
  index = lua_absindex(L, index);
  luaL_checkstack(L, 3, "fault");
  at_anchor_push(L, rt, AT_SLOT_NAMES);
  lua_pushvalue(L, index);
  if (lua_rawget(L, -2) == LUA_TSTRING)
    lua_setiuservalue(L, -3, UV_NAME);
  else
    lua_pop(L, 1);
  lua_pop(L, 1);
}

void at_fault_observe(at_runtime *rt, at_fault *f) {
  if (f->observed) return;
  f->observed = 1;
  if (rt->unobserved > 0) rt->unobserved--;
}

/* ---- the traceback ---- */

static void add_frames(lua_State *L, luaL_Buffer *b, const at_fault *f) {
  int i;
  for (i = 0; i < f->count; i++) {
    const at_frame *frame = &f->frames[i];
    if (frame->line < 0)
      lua_pushfstring(L, "\n\t[C]: in function '%s'", frame->name);
    else if (frame->name[0] != '\0')
      lua_pushfstring(L, "\n\t%s:%d: in function '%s'", frame->source, frame->line, frame->name);
    else
      lua_pushfstring(L, "\n\t%s:%d: in a function", frame->source, frame->line);
    luaL_addvalue(b);
  }
}

/* Pushes the fault at `index` and those it came from, outermost first; returns their number. Of a very
** long chain the outer part and the origin. */
static int push_chain(lua_State *L, int index) {
  int n = 1;
  lua_pushvalue(L, index);
  for (;;) {
    lua_getiuservalue(L, -1, UV_CAUSE);
    if (at_fault_test(L, -1) == NULL) {
      lua_pop(L, 1);
      return n;
    }
    if (n < CHAIN_MAX)
      n++;
    else
      lua_replace(L, -2);
  }
}

/* Adds what one fault has to show; says whether it had anything. stack index of the fault: `at` */
static int add_fault(lua_State *L, luaL_Buffer *b, int at, int first) {
  const at_fault *f = lua_touserdata(L, at);
  int has_text = lua_getiuservalue(L, at, UV_TEXT) == LUA_TSTRING;
  int has_name = lua_getiuservalue(L, at, UV_NAME) == LUA_TSTRING;
  const char *text = has_text ? lua_tostring(L, -2) : NULL;
  const char *name = has_name ? lua_tostring(L, -1) : NULL; /* both stay alive in the fault */
  lua_pop(L, 2);
  if (text == NULL && name == NULL && f->count == 0) return 0;
  if (!first) luaL_addstring(b, "\n\t(awaited by)");
  if (text != NULL) luaL_addstring(b, text);
  add_frames(L, b, f);
  if (name != NULL) {
    luaL_addstring(b, "\n\t(in task '");
    luaL_addstring(b, name);
    luaL_addstring(b, "')");
  }
  return 1;
}

void at_fault_push_traceback(lua_State *L, int index) {
  luaL_Buffer b;
  int base = lua_gettop(L), n, i, first = 1;
  index = lua_absindex(L, index);
  luaL_checkstack(L, CHAIN_MAX + LUA_MINSTACK, "traceback");
  lua_getiuservalue(L, index, UV_ERROR);
  luaL_tolstring(L, -1, NULL);
  lua_replace(L, base + 1);
  n = push_chain(L, index);
  luaL_buffinit(L, &b);
  lua_pushvalue(L, base + 1);
  luaL_addvalue(&b);
  luaL_addstring(&b, "\nstack traceback:");
  for (i = n; i >= 1; i--) {
    if (add_fault(L, &b, base + 1 + i, first)) first = 0;
    if (i == n && n == CHAIN_MAX) luaL_addstring(&b, "\n\t...");
  }
  luaL_pushresult(&b);
  lua_replace(L, base + 1);
  lua_settop(L, base + 1);
}

/* ---- reports ---- */

/* False: not all of it. A step with a budget collects a little, and only when it has nothing else to do. */
static int collect(at_runtime *rt) {
  if (rt->deadline == 0) {
    (void)lua_gc(rt->L, LUA_GCCOLLECT);
    return 1;
  }
  return !at_sched_has_work(rt) && !at_sched_spent(rt) && lua_gc(rt->L, LUA_GCSTEP, STEP_KB);
}

/* While there are unobserved faults an idle loop collects now and then, so that a server reports. */
static void on_collect(uv_timer_t *handle) {
  at_runtime *rt = handle->data;
  at_loop *uv = rt->uv;
  if (rt->draining || rt->running != NULL || uv == NULL) return;
  if (!collect(rt)) {
    (void)uv_timer_start(&uv->collect, on_collect, 1, 0);
    return;
  }
  if (rt->unobserved > 0 && rt->uv != NULL) {
    uv->collect_after *= 2;
    if (uv->collect_after > COLLECT_LAST_MS) uv->collect_after = COLLECT_LAST_MS;
    (void)uv_timer_start(&uv->collect, on_collect, uv->collect_after, 0);
  }
  at_sched_enter(rt);
}

static void watch(at_runtime *rt) {
  if (rt->uv == NULL || uv_is_active((uv_handle_t *)&rt->uv->collect)) return;
  rt->uv->collect_after = COLLECT_FIRST_MS;
  (void)uv_timer_start(&rt->uv->collect, on_collect, COLLECT_FIRST_MS, 0);
}

static int l_fault_gc(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_fault *f = lua_touserdata(L, 1);
  if (f->observed || rt->closed) return 0;
  at_anchor_push(L, rt, AT_SLOT_REPORTS);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, rt->reports + 1);
  rt->reports++;
  at_sched_wake(rt);
  return 0;
}

/* stack: error runtime */
static int l_fault_report(lua_State *L) {
  at_runtime *rt = lua_touserdata(L, 2);
  at_fault *f;
  lua_settop(L, 1);
  f = at_fault_noted(L, rt);
  f->observed = 1; /* it is in the list, and still counts as unobserved */
  at_anchor_push(L, rt, AT_SLOT_REPORTS);
  lua_insert(L, -2);
  lua_rawseti(L, -2, rt->reports + 1);
  rt->reports++;
  at_sched_wake(rt);
  return 0;
}

void at_fault_report(lua_State *L, at_runtime *rt) {
  if (rt->closing || !lua_checkstack(L, 4)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushcfunction(L, l_fault_report);
  lua_insert(L, -2);
  lua_pushlightuserdata(L, rt);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) lua_pop(L, 1); /* no memory for a report */
}

/* stack: reports -> reports; pushes error, traceback, name of report i */
static void push_report(lua_State *L, int i) {
  lua_rawgeti(L, -1, i);
  lua_getiuservalue(L, -1, UV_ERROR);
  at_fault_push_traceback(L, -2);
  lua_getiuservalue(L, -3, UV_NAME);
  lua_remove(L, -4);
}

static void print_report(lua_State *L) {
  const char *name = lua_tostring(L, -1), *text = lua_tostring(L, -2);
  if (name != NULL)
    lua_writestringerror("asynctask: unobserved error in task '%s': ", name);
  else
    lua_writestringerror("asynctask: %s: ", "unobserved error in a task");
  lua_writestringerror("%s\n", text);
}

/* [-0, +0, m] moves the reports aside: what comes during the flush waits for the next. */
static int take_reports(lua_State *L, at_runtime *rt) {
  int n;
  lua_newtable(L); /* may collect, which adds reports */
  n = rt->reports;
  at_anchor_push(L, rt, AT_SLOT_REPORTS);
  lua_insert(L, -2);
  at_anchor_set(L, rt, AT_SLOT_REPORTS);
  rt->reports = 0;
  rt->reported += n;
  return n;
}

void at_fault_flush(lua_State *L, at_runtime *rt) {
  int i, n, base = lua_gettop(L);
  luaL_checkstack(L, LUA_MINSTACK, "report");
  n = take_reports(L, rt);
  for (i = 1; i <= n; i++) {
    at_anchor_push(L, rt, AT_SLOT_HANDLER);
    if (lua_isfunction(L, -1)) {
      lua_pushvalue(L, base + 1);
      push_report(L, i); /* stack: reports handler reports error traceback name */
      lua_pop(L, 1);
      lua_remove(L, -3);
      (void)at_sched_spawn(L, rt, 2, 0, 1);
    } else {
      lua_pop(L, 1);
      push_report(L, i);
      print_report(L);
    }
    lua_settop(L, base + 1);
  }
  lua_settop(L, base);
}

/* stack: handler|false reports runtime */
static int l_report_all(lua_State *L) {
  at_runtime *rt = lua_touserdata(L, 3);
  int i, n = rt->reports;
  lua_settop(L, 2);
  for (i = 1; i <= n; i++) {
    push_report(L, i); /* stack: handler reports error traceback name */
    if (lua_isfunction(L, 1)) {
      lua_pop(L, 1);
      lua_pushvalue(L, 1);
      lua_insert(L, -3);
      lua_call(L, 2, 0);
    } else {
      print_report(L);
    }
    lua_settop(L, 2);
  }
  if (!at_dump_left(rt)) return 0;
  at_dump_push(L, rt);
  lua_writestringerror("asynctask: tasks still pending when the state closed:\n%s",
                       lua_tostring(L, -1));
  return 0;
}

void at_fault_close(lua_State *L, at_runtime *rt) {
  if (rt->quiet || rt->main_task == NULL) return;
  if (!lua_checkstack(L, 6)) return;
  lua_pushcfunction(L, l_report_all);
  at_anchor_push(L, rt, AT_SLOT_HANDLER);
  at_anchor_push(L, rt, AT_SLOT_REPORTS);
  lua_pushlightuserdata(L, rt);
  if (lua_pcall(L, 3, 0, 0) != LUA_OK) lua_pop(L, 1); /* a handler's error has nowhere to go */
}

/* on_unobserved(f | nil) -> previous handler; f(err, traceback) */
static int l_on_unobserved(lua_State *L) {
  at_runtime *rt = at_rt(L);
  lua_settop(L, 1);
  if (!lua_isnil(L, 1)) luaL_checktype(L, 1, LUA_TFUNCTION);
  at_anchor_push(L, rt, AT_SLOT_HANDLER);
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  lua_pushvalue(L, 1);
  at_anchor_set(L, rt, AT_SLOT_HANDLER);
  return 1;
}

/* unobserved() -> faults nobody has looked at, since the runtime began */
static int l_unobserved(lua_State *L) {
  lua_pushinteger(L, at_rt(L)->unobserved);
  return 1;
}

void at_fault_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"on_unobserved", l_on_unobserved}, {"unobserved", l_unobserved}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}

void at_fault_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg meta[] = {{"__gc", l_fault_gc}, {NULL, NULL}};
  at_runtime_class(L, rt, FAULT_MT, NULL, meta);
}
