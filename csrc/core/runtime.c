/* runtime.c - the runtime of one state: loop, anchors, closables, ordered teardown.
** Owns the runtime's userdata (made first, so finalized last), the two service threads and the
** malloc'd at_loop. Loop thread only.
** Invariant: thread A never runs; its stack holds the anchor table for ever, and writing to an existing
** slot allocates nothing, so at_unanchor works in any uv callback. */
#include "core/runtime.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "core/await.h"
#include "core/cancel.h"
#include "core/copool.h"
#include "core/fault.h"
#include "core/op.h"
#include "core/post.h"
#include "core/sched.h"
#include "core/task.h"
#include "core/timer.h"
#include "core/waker.h"

#define TICK_MS 50 /* how often a loop that runs for C code looks for an interrupt */
#define SPIN_MICROSECONDS 20 /* for an answer from another thread, before sleeping */

static const char registry_key = 'k';

/* ---- anchors ---- */

void at_fixed_push(lua_State *L, at_runtime *rt, int which) {
  lua_pushvalue(rt->A, which);
  lua_xmove(rt->A, L, 1);
}

/* The anchor table is a list of chunks, so that a hundred thousand anchors are never copied at once and
** the collector visits them piece by piece. Makes the chunk of `slot` A's current one; returns its key. */
static lua_Integer select_chunk(at_runtime *rt, int slot) {
  int chunk = (slot - 1) / AT_CHUNK;
  if (chunk != rt->chunk) {
    lua_rawgeti(rt->A, AT_A_ANCHORS, chunk + 1);
    lua_replace(rt->A, AT_A_CHUNK);
    rt->chunk = chunk;
  }
  return (slot - 1) % AT_CHUNK + 1;
}

/* Adds a chunk of free slots. It is complete before it is linked: an error leaves all as it was. */
static void grow_anchors(lua_State *L, at_runtime *rt) {
  int first, i;
  luaL_checkstack(L, 4, "anchors");
  at_fixed_push(L, rt, AT_A_ANCHORS);
  lua_createtable(L, AT_CHUNK, 0); /* may run a finalizer that comes by here: slots are counted afterwards */
  first = rt->slots + 1;
  for (i = 0; i < AT_CHUNK; i++) {
    lua_pushinteger(L, i + 1 < AT_CHUNK ? first + i + 1 : rt->free_slot);
    lua_rawseti(L, -2, i + 1);
  }
  lua_rawseti(L, -2, rt->slots / AT_CHUNK + 1);
  rt->slots += AT_CHUNK;
  rt->free_slot = first;
  lua_pop(L, 1);
}

int at_anchor(lua_State *L, at_runtime *rt) {
  int slot;
  if (rt->free_slot == 0) grow_anchors(L, rt);
  slot = rt->free_slot;
  lua_rawgeti(rt->A, AT_A_CHUNK, select_chunk(rt, slot));
  rt->free_slot = (int)lua_tointeger(rt->A, -1);
  lua_pop(rt->A, 1);
  at_anchor_set(L, rt, slot);
  return slot;
}

void at_anchor_push(lua_State *L, at_runtime *rt, int slot) {
  lua_rawgeti(rt->A, AT_A_CHUNK, select_chunk(rt, slot));
  lua_xmove(rt->A, L, 1);
}

void at_anchor_set(lua_State *L, at_runtime *rt, int slot) {
  lua_Integer key = select_chunk(rt, slot);
  lua_xmove(L, rt->A, 1);
  lua_rawseti(rt->A, AT_A_CHUNK, key);
}

void at_unanchor(at_runtime *rt, int slot) {
  lua_Integer key;
  if (rt == NULL || slot == 0) return;
  key = select_chunk(rt, slot);
  lua_pushinteger(rt->A, rt->free_slot);
  lua_rawseti(rt->A, AT_A_CHUNK, key);
  rt->free_slot = slot;
}

/* ---- closables, externals ---- */

void at_closable_add(at_runtime *rt, at_closable *c) {
  c->next = rt->closables;
  c->prev = &rt->closables;
  if (c->next != NULL) c->next->prev = &c->next;
  rt->closables = c;
}

void at_closable_remove(at_closable *c) {
  if (c->prev == NULL) return;
  *c->prev = c->next;
  if (c->next != NULL) c->next->prev = c->prev;
  c->prev = NULL;
}

void at_external_add(at_runtime *rt) {
  if (rt->externals++ == 0) at_inbox_ref(rt, 1);
}

int at_runtime_lonely(at_runtime *rt) {
  int alive;
  if (at_sched_has_work(rt) || rt->heap_size > 0 || rt->inbox == NULL) return 0;
  at_inbox_ref(rt, 0);
  alive = uv_loop_alive(rt->loop);
  if (rt->externals > 0) at_inbox_ref(rt, 1);
  return !alive && !at_inbox_waiting(rt->inbox);
}

void at_external_remove(at_runtime *rt) {
  if (--rt->externals == 0) at_inbox_ref(rt, 0);
}

/* ---- the loop ---- */

int at_runtime_pump(at_runtime *rt, int block) {
  int alive;
  if (rt->closing) return 0;
  if (block && rt->virtual_clock && !at_sched_has_work(rt) && at_timer_jump(rt)) return 1;
  if (block && rt->stalled != NULL && rt->externals > 0 && !at_sched_has_work(rt)) rt->stalled(rt);
  if (block && rt->externals > 0 && !at_sched_has_work(rt) && at_inbox_spin(rt, SPIN_MICROSECONDS)) {
    at_sched_enter(rt);
    block = 0;
  }
  at_timer_arm(rt);
  rt->in_uv_run = 1;
  alive = uv_run(rt->loop, block ? UV_RUN_ONCE : UV_RUN_NOWAIT);
  rt->in_uv_run = 0;
  return alive || at_sched_has_work(rt);
}

static void on_tick(uv_timer_t *handle) {
  at_runtime *rt = handle->data;
  if (lua_gethook(rt->main) != rt->hook) uv_stop(rt->loop);
}

void at_runtime_tick(at_runtime *rt, unsigned milliseconds) {
  if (rt->uv == NULL) return;
  (void)uv_timer_stop(&rt->uv->tick);
  if (milliseconds == 0) return;
  uv_update_time(rt->loop);
  (void)uv_timer_start(&rt->uv->tick, on_tick, milliseconds, milliseconds);
}

/* ---- a loop that the host drives ---- */

static uint64_t later(uint64_t now, double seconds) {
  if (!(seconds > 0)) return now;
  return seconds < (double)(UINT64_MAX - now) / 1e9 - 1 ? now + (uint64_t)(seconds * 1e9) : UINT64_MAX;
}

/* A turn that looks at what the system has to say in any case: uv_run does not if no handle counts as alive,
** but there may be mail. */
static void look(at_runtime *rt) {
  at_inbox_ref(rt, 1);
  (void)at_runtime_pump(rt, 0);
  if (rt->externals == 0) at_inbox_ref(rt, 0);
}

int at_runtime_step(at_runtime *rt, double budget) {
  if (rt->waker != NULL) at_waker_awake(rt);
  rt->spent = 0;
  rt->deadline = budget < 0 ? 0 : later(uv_hrtime(), budget);
  (void)at_timer_now(rt); /* the host may have slept exactly until a timer is due, which is finer than uv's */
  if (!at_sched_has_work(rt)) (void)at_timer_jump(rt);
  do {
    look(rt);
  } while (!rt->spent && at_sched_has_work(rt));
  rt->spent = 0;
  rt->deadline = 0;
  if (rt->waker != NULL) at_waker_asleep(rt);
  return at_sched_has_work(rt) || (rt->inbox != NULL && at_inbox_waiting(rt->inbox));
}

/* Milliseconds from now to `end`, rounded up; at most TICK_MS. */
static unsigned tick_until(uint64_t end) {
  uint64_t now = uv_hrtime();
  uint64_t ms = now >= end ? 0 : (end - now) / 1000000 + 1;
  return ms < TICK_MS ? (unsigned)ms : TICK_MS;
}

int at_runtime_run(at_runtime *rt, double seconds) {
  uint64_t end = seconds < 0 ? UINT64_MAX : later(uv_hrtime(), seconds);
  lua_Hook outer = rt->hook;
  int alive;
  unsigned ms;
  if (rt->waker != NULL) at_waker_awake(rt);
  rt->hook = lua_gethook(rt->main);
  do {
    ms = tick_until(end);
    if (rt->inbox != NULL && at_inbox_waiting(rt->inbox)) look(rt);
    if (ms > 0 && !at_sched_has_work(rt)) at_runtime_tick(rt, ms);
    alive = at_runtime_pump(rt, ms > 0);
    if (!alive) { /* as the main chunk does: abandoned sources fault their tasks */
      (void)lua_gc(rt->L, LUA_GCCOLLECT);
      alive = at_sched_has_work(rt);
    }
  } while (alive && ms > 0 && lua_gethook(rt->main) == rt->hook);
  at_runtime_tick(rt, 0);
  rt->hook = outer;
  if (rt->waker != NULL) at_waker_asleep(rt);
  return alive;
}

int at_runtime_once(at_runtime *rt, double seconds) {
  int alive;
  at_runtime_tick(rt, tick_until(later(uv_hrtime(), seconds)));
  alive = at_runtime_pump(rt, 1);
  at_runtime_tick(rt, 0);
  return alive;
}

/* Counting the inbox as alive tells a loop with nothing to wait for, which may sleep, from one that has to
** be run at once. */
static int uv_timeout(at_runtime *rt) {
  int ms;
  uv_update_time(rt->loop);
  at_inbox_ref(rt, 1);
  ms = uv_backend_timeout(rt->loop);
  if (rt->externals == 0) at_inbox_ref(rt, 0);
  return ms;
}

double at_runtime_timeout(at_runtime *rt) {
  double seconds, due;
  uint64_t now = at_timer_now(rt);
  if (at_sched_has_work(rt)) return 0;
  if (rt->virtual_clock && at_timer_can_jump(rt)) return 0;
  at_timer_arm(rt);
  seconds = uv_timeout(rt);
  if (seconds > 0) seconds /= 1000;
  if (rt->heap_size > 0 && !rt->virtual_clock && seconds != 0) {
    due = (double)(rt->heap[0].due - now) / 1e9; /* not due, or there were work */
    if (seconds < 0 || due < seconds) seconds = due;
  }
  return seconds;
}

int at_runtime_alive(at_runtime *rt) {
  return at_sched_has_work(rt) || rt->heap_size > 0 || uv_loop_alive(rt->loop);
}

static void on_check(uv_check_t *handle) {
  at_runtime *rt = handle->data;
  if (at_sched_has_work(rt)) at_sched_drain(rt);
}

void at_runtime_check(at_runtime *rt) {
  (void)uv_check_start(&rt->uv->check, on_check); /* fails without a callback only */
}

/* ---- opening and closing the loop ---- */

static void let_go(at_loop *uv) {
  if (--uv->refs == 0) free(uv);
}

static void on_handle_closed(uv_handle_t *handle) { let_go(handle->data); }

/* Nothing of it touches the runtime any more. */
static void close_handle(at_loop *uv, uv_handle_t *handle) {
  handle->data = uv;
  uv->refs++;
  uv_close(handle, on_handle_closed);
}

static void close_handles(at_loop *uv) {
  close_handle(uv, (uv_handle_t *)&uv->prepare);
  close_handle(uv, (uv_handle_t *)&uv->check);
  close_handle(uv, (uv_handle_t *)&uv->idle);
  close_handle(uv, (uv_handle_t *)&uv->timer);
  close_handle(uv, (uv_handle_t *)&uv->tick);
  close_handle(uv, (uv_handle_t *)&uv->collect);
}

static int loop_open(at_runtime *rt, uv_loop_t *host) {
  at_loop *uv = calloc(1, sizeof *uv);
  int status;
  if (uv == NULL) return UV_ENOMEM;
  uv->refs = 1;
  if (host == NULL) {
    status = uv_loop_init(&uv->loop);
    if (status < 0) {
      free(uv);
      return status;
    }
  }
  rt->uv = uv;
  rt->loop = host != NULL ? host : &uv->loop;
  rt->foreign = rt->host_driven = host != NULL;
  /* none of these can fail */
  (void)uv_prepare_init(rt->loop, &uv->prepare);
  (void)uv_check_init(rt->loop, &uv->check);
  (void)uv_idle_init(rt->loop, &uv->idle);
  (void)uv_timer_init(rt->loop, &uv->timer);
  (void)uv_timer_init(rt->loop, &uv->tick);
  (void)uv_timer_init(rt->loop, &uv->collect);
  uv->prepare.data = uv->check.data = uv->idle.data = rt;
  uv->timer.data = uv->tick.data = uv->collect.data = rt;
  uv_unref((uv_handle_t *)&uv->prepare);
  uv_unref((uv_handle_t *)&uv->check);
  uv_unref((uv_handle_t *)&uv->tick);
  uv_unref((uv_handle_t *)&uv->collect);
  return at_inbox_open(rt);
}

static void close_any(uv_handle_t *handle, void *arg) {
  (void)arg;
  if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

/* A loop of our own is run until all that was on it is closed, whoever put it there. The host's is left to
** the host: what it gives back is freed in the close callbacks. */
static void loop_close(at_runtime *rt) {
  at_loop *uv = rt->uv;
  rt->uv = NULL;
  if (rt->in_uv_run && !rt->foreign) return; /* os.exit(n, true) inside a callback: the process ends */
  close_handles(uv);
  if (!rt->foreign) {
    uv_walk(&uv->loop, close_any, NULL);
    while (uv_run(&uv->loop, UV_RUN_DEFAULT) != 0) continue;
    if (uv_loop_close(&uv->loop) != 0) return; /* a request of somebody's that never ends */
  }
  let_go(uv);
}

/* Closes everything that runs for the state; afterwards nothing of ours enters Lua. */
static void runtime_close(at_runtime *rt) {
  rt->closing = 1;
  if (rt->waker != NULL) at_waker_close(rt);
  at_op_close(rt);
  while (rt->closables != NULL) {
    at_closable *c = rt->closables;
    at_closable_remove(c);
    c->close(rt, c);
  }
  if (rt->inbox != NULL) at_inbox_close(rt);
  if (rt->uv != NULL) loop_close(rt);
  at_copool_close(rt);
  at_task_close(rt);
  rt->main_task = rt->current = (at_coro *)(rt + 1); /* for finalizers that still call the library */
  free(rt->heap);
  rt->heap = NULL;
  rt->heap_size = rt->heap_capacity = 0;
  rt->closed = 1;
}

void at_runtime_end(lua_State *L, at_runtime *rt) {
  at_fault_close(L, rt);
  rt->ended = 1;
  runtime_close(rt);
}

int at_runtime_refuse(lua_State *L, const at_runtime *rt) {
  return luaL_error(L, rt->ended ? "asynctask: the runtime of this state is closed"
                                 : "asynctask: the state is closing");
}

static int l_runtime_gc(lua_State *L) {
  at_runtime *rt = lua_touserdata(L, 1);
  if (rt->closed || rt->A == NULL) return 0;
  at_fault_close(L, rt);
  runtime_close(rt);
  return 0;
}

/* ---- opening ---- */

/* Keeps the library loaded for ever: its threads and other states may be in it (Lua unloads C
** modules at lua_close). */
static void pin_library(void) {
  Dl_info info;
  if (dladdr((const void *)&registry_key, &info) != 0 && info.dli_fname != NULL)
    (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE); /* no harm if static */
}

static void new_weak_table(lua_State *L, const char *mode) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushstring(L, mode);
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

/* Fills A's stack and the fixed slots. The runtime's userdata is at `self`. */
static void open_anchors(lua_State *L, at_runtime *rt, int self) {
  int slot;
  lua_createtable(L, 2, 0); /* keeps both threads alive */
  rt->L = lua_newthread(L);
  lua_rawseti(L, -2, 1);
  rt->A = lua_newthread(L);
  lua_rawseti(L, -2, 2);
  lua_setiuservalue(L, self, 1);
  if (!lua_checkstack(rt->A, 40) || !lua_checkstack(rt->L, 40)) luaL_error(L, "out of memory");
  lua_pushcfunction(rt->L, nothing); /* the record of one call stays: entering allocates nothing */
  if (lua_pcall(rt->L, 0, 0, 0) != LUA_OK) luaL_error(L, "out of memory");
  lua_newtable(L);
  lua_xmove(L, rt->A, 1); /* AT_A_ANCHORS */
  lua_pushnil(rt->A);     /* AT_A_CHUNK */
  rt->chunk = -1;
  grow_anchors(L, rt);
  for (slot = 1; slot < AT_SLOT_LAST; slot++) {
    if (slot == AT_SLOT_NAMES || slot == AT_SLOT_ERRORS || slot == AT_SLOT_WAITING)
      new_weak_table(L, "k");
    else if (slot == AT_SLOT_SOURCES)
      new_weak_table(L, "v");
    else if (slot == AT_SLOT_REPORTS || slot == AT_SLOT_NOTES)
      lua_newtable(L);
    else
      lua_pushboolean(L, 0);
    (void)at_anchor(L, rt); /* the first slots, in order */
  }
}

void at_runtime_setfuncs(lua_State *L, at_runtime *rt, const luaL_Reg *functions) {
  luaL_checkstack(L, 4, "registration");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key);
  if (lua_gettop(rt->A) >= AT_A_TASK_MT)
    at_fixed_push(L, rt, AT_A_TASK_MT);
  else
    lua_pushnil(L);
  luaL_setfuncs(L, functions, 2);
}

void at_runtime_class(lua_State *L, at_runtime *rt, const char *name, const luaL_Reg *methods,
                      const luaL_Reg *meta) {
  if (luaL_newmetatable(L, name)) {
    if (meta != NULL) at_runtime_setfuncs(L, rt, meta);
    lua_newtable(L);
    if (methods != NULL) at_runtime_setfuncs(L, rt, methods);
    lua_setfield(L, -2, "__index");
  }
  lua_pop(L, 1);
}

void at_runtime_push(lua_State *L) { lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key); }

at_runtime *at_runtime_get(lua_State *L) {
  at_runtime *rt;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key);
  rt = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return rt;
}

at_runtime *at_runtime_open(lua_State *L) {
  int status;
  return at_runtime_open_on(L, NULL, &status);
}

at_runtime *at_runtime_open_on(lua_State *L, uv_loop_t *loop, int *status) {
  at_runtime *rt;
  int self;
  *status = 0;
  luaL_checkstack(L, 10, "asynctask");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key) == LUA_TUSERDATA) {
    rt = lua_touserdata(L, -1);
    if (rt->closed) *status = UV_ECANCELED;
    if (rt->closed) luaL_error(L, "asynctask: the runtime of this state is closed");
    return rt;
  }
  lua_pop(L, 1);
  pin_library();
  rt = lua_newuserdatauv(L, sizeof *rt + sizeof(at_coro), 1); /* and the main chunk's after the close */
  memset(rt, 0, sizeof *rt + sizeof(at_coro));
  ((at_coro *)(rt + 1))->task.kind = AT_MAIN;
  rt->idle_first = rt->free_cell = -1;
  rt->budget = AT_TURN_BUDGET;
  self = lua_gettop(L);
  lua_createtable(L, 0, 2);
  lua_pushliteral(L, "asynctask.runtime");
  lua_setfield(L, -2, "__name");
  lua_pushcfunction(L, l_runtime_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, self);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  rt->main = lua_tothread(L, -1);
  lua_pop(L, 1);
  open_anchors(L, rt, self);
  *status = loop_open(rt, loop);
  if (*status == 0) *status = at_task_init(rt);
  if (*status < 0) luaL_error(L, "asynctask: cannot start a loop (%s)", uv_strerror(*status));
  lua_pushvalue(L, self);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &registry_key);
  at_error_open(L);
  at_task_open(L, rt);
  at_sched_open(L, rt);
  at_await_open(L, rt);
  at_cancel_open(L, rt);
  at_fault_open(L, rt);
  at_timer_open(L, rt);
  (void)uv_prepare_start(&rt->uv->prepare, at_sched_prepare);
  if (rt->foreign) at_runtime_check(rt);
  return rt;
}
