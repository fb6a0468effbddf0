/* runtime.c - the runtime of a state, for its host: open, close, drive. The C API's section of that name, and
** the same for Lua (asynctask.loop).
** Owns nothing: core/runtime.c does. Loop thread only. What the header calls [.., -] raises nothing here:
** what may raise is called protected. */
#include "core/cancel.h"
#include "core/copool.h"
#include "core/sched.h"
#include "core/timer.h"
#include "core/waker.h"
#include "host/api.h"
#include "host/module.h"

#define CLEAN_TURNS 100 /* of the ready queue, where the loop may not be run */

/* ---- attaching ---- */

typedef struct opening {
  const asynctask_options *given;
  int status;
} opening;

/* stack: opening */
static int l_open(lua_State *L) {
  opening *o = lua_touserdata(L, 1);
  asynctask_options options;
  at_runtime *rt = at_runtime_get(L);
  at_api_options(L, &options, sizeof options, o->given);
  if (rt != NULL && !rt->closed && options.loop != NULL && options.loop != rt->loop) {
    o->status = UV_EBUSY;
    return 0;
  }
  if (rt != NULL && o->given == NULL && !rt->closed) return 0;
  o->status = at_module_is_other(L) ? UV_EEXIST : 0;
  if (o->status < 0) return 0;
  at_module_claim(L);
  rt = at_runtime_open_on(L, options.loop, &o->status);
  at_api_open(L);
  rt->host_driven = rt->foreign || options.host_driven;
  o->status = at_waker_set(rt, options.wake, options.wake_data);
  return 0;
}

int asynctask_open(lua_State *L, const asynctask_options *options) {
  opening o = {options, 0};
  int status;
  if (!lua_checkstack(L, 4)) return UV_ENOMEM;
  lua_pushcfunction(L, l_open);
  lua_pushlightuserdata(L, &o);
  status = lua_pcall(L, 1, 0, 0);
  if (status == LUA_OK) return o.status;
  lua_pop(L, 1);
  if (o.status < 0) return o.status;
  return status == LUA_ERRMEM ? UV_ENOMEM : UV_EINVAL;
}

/* ---- driving ---- */

/* Something runs that the loop cannot be run from. */
static int is_busy(lua_State *L, const at_runtime *rt) {
  return rt->in_uv_run || rt->draining || rt->running != NULL || lua_gc(L, LUA_GCCOUNT) < 0;
}

/* The runtime whose loop the caller may run now, or NULL and why not. */
static at_runtime *drivable(lua_State *L, int *status) {
  at_runtime *rt = at_api_find(L);
  *status = rt == NULL ? UV_ENOENT : rt->foreign ? UV_EINVAL : is_busy(L, rt) ? UV_EBUSY : 0;
  return *status == 0 ? rt : NULL;
}

int asynctask_step(lua_State *L, double budget) {
  int status;
  at_runtime *rt = drivable(L, &status);
  return rt != NULL ? at_runtime_step(rt, budget) : status;
}

int asynctask_run(lua_State *L, double seconds) {
  int status;
  at_runtime *rt = drivable(L, &status);
  return rt != NULL ? at_runtime_run(rt, seconds) : status;
}

int asynctask_fd(lua_State *L) {
  const at_runtime *rt = at_api_find(L);
  return rt != NULL ? uv_backend_fd(rt->loop) : -1;
}

double asynctask_timeout(lua_State *L) {
  at_runtime *rt = at_api_find(L);
  return rt != NULL ? at_runtime_timeout(rt) : -1;
}

int asynctask_alive(lua_State *L) {
  at_runtime *rt = at_api_find(L);
  return rt != NULL && at_runtime_alive(rt);
}

struct uv_loop_s *asynctask_loop(lua_State *L) {
  at_runtime *rt = at_api_find(L);
  if (rt == NULL) return NULL;
  at_runtime_check(rt);
  return rt->loop;
}

/* ---- closing ---- */

static at_coro *live(const at_runtime *rt, int i) {
  at_coro *c = at_cell_task(&rt->cells[i]);
  return c != NULL && !at_task_settled(&c->task) ? c : NULL;
}

static int count_live(const at_runtime *rt) {
  int i, n = 0;
  for (i = 0; i < rt->cell_count; i++) n += live(rt, i) != NULL;
  return n;
}

/* stack: runtime. Cancels every task, and what the main chunk owns. */
static int l_cancel_all(lua_State *L) {
  at_runtime *rt = lua_touserdata(L, 1);
  int i;
  luaL_checkstack(L, LUA_MINSTACK, "close");
  lua_pushliteral(L, "the runtime closes");
  for (i = 0; i < rt->cell_count; i++) {
    at_coro *c = live(rt, i);
    if (c == NULL) continue;
    at_sched_push_task(L, rt, c);
    (void)at_cancel_task(L, rt, &c->task, 2);
    lua_settop(L, 2);
  }
  at_cancel_push_error(L, 2);
  at_cancel_ring(L, rt, &rt->main_task->owned, 3);
  return 0;
}

/* What was cancelled cleans up. */
static void clean_up(at_runtime *rt, double grace) {
  uint64_t end = uv_hrtime() + (uint64_t)(grace > 0 && grace < 1e9 ? grace * 1e9 : grace > 0 ? 1e18 : 0);
  int turns = CLEAN_TURNS;
  if (rt->foreign) {
    while (turns-- > 0 && at_sched_has_work(rt)) at_sched_drain(rt);
    return;
  }
  (void)at_runtime_pump(rt, 0);
  while (count_live(rt) > 0) {
    uint64_t now = uv_hrtime();
    double left = now < end ? (double)(end - now) / 1e9 : 0;
    if (left <= 0 || !at_runtime_alive(rt)) return;
    (void)at_runtime_once(rt, left);
  }
}

int asynctask_close(lua_State *L, double grace) {
  at_runtime *rt = at_api_find(L);
  if (rt == NULL) return UV_ENOENT;
  if (is_busy(L, rt)) return UV_EBUSY;
  if (lua_checkstack(L, 4)) {
    lua_pushcfunction(L, l_cancel_all);
    lua_pushlightuserdata(L, rt);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1); /* no memory: they end without being told */
    clean_up(rt, grace);
  }
  at_runtime_end(L, rt);
  return 0;
}

/* ---- asynctask.loop ---- */

/* [-0, +0, v] raises what a status means. */
static int refuse(lua_State *L, const char *name, int status) {
  switch (status) {
    case UV_EBUSY:
      return luaL_error(L, "loop.%s inside a task or a callback of the event loop, which runs already", name);
    case UV_EINVAL:
      return luaL_error(L, "loop.%s: the loop is the host's, which runs it", name);
    default: return luaL_error(L, "asynctask: the runtime of this state is closed");
  }
}

/* step(seconds of work) -> true if more is ready */
static int l_loop_step(lua_State *L) {
  lua_Number budget = luaL_optnumber(L, 1, -1);
  int status = asynctask_step(L, budget);
  if (status < 0) return refuse(L, "step", status);
  lua_pushboolean(L, status);
  return 1;
}

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

/* run([seconds]) -> true if there is still something to wait for */
static int l_loop_run(lua_State *L) {
  at_runtime *rt = at_api_find(L);
  lua_Hook hook = rt != NULL ? lua_gethook(rt->main) : NULL;
  int status = asynctask_run(L, luaL_optnumber(L, 1, -1));
  if (status < 0) return refuse(L, "run", status);
  if (lua_gethook(rt->main) != hook) { /* an interrupt: any call runs the hook */
    if (L != rt->main) return luaL_error(L, "interrupted!");
    lua_pushcfunction(L, nothing);
    lua_call(L, 0, 0);
  }
  lua_pushboolean(L, status);
  return 1;
}

/* fd() -> descriptor, or nil */
static int l_loop_fd(lua_State *L) {
  int fd = asynctask_fd(L);
  if (fd >= 0)
    lua_pushinteger(L, fd);
  else
    lua_pushnil(L);
  return 1;
}

/* timeout() -> seconds, or nil: until the descriptor is readable */
static int l_loop_timeout(lua_State *L) {
  double seconds = asynctask_timeout(L);
  if (seconds >= 0)
    lua_pushnumber(L, seconds);
  else
    lua_pushnil(L);
  return 1;
}

/* alive() -> whether something could still happen */
static int l_loop_alive(lua_State *L) {
  lua_pushboolean(L, asynctask_alive(L));
  return 1;
}

/* drive(on): the host drives the loop, so that an await on the main chunk raises -> how it was */
static int l_loop_drive(lua_State *L) {
  at_runtime *rt = at_api_runtime(L);
  int on;
  luaL_checktype(L, 1, LUA_TBOOLEAN);
  on = lua_toboolean(L, 1);
  if (!on && rt->foreign) return luaL_error(L, "loop.drive: the loop is the host's, which runs it");
  lua_pushboolean(L, rt->host_driven);
  rt->host_driven = (unsigned char)on;
  return 1;
}

void at_hosting_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"step", l_loop_step},       {"run", l_loop_run},     {"fd", l_loop_fd},
      {"timeout", l_loop_timeout}, {"alive", l_loop_alive}, {"drive", l_loop_drive},
      {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
