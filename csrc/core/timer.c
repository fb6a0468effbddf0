/* timer.c - delays and deadlines: a 4-ary heap of 16-byte entries under one uv timer.
** Owns the heap and the clock. May settle tasks and expire scopes. Loop thread only.
** Invariants: nothing fires early (dues are nanoseconds, the uv timer is armed with the ceiling in
** milliseconds and looks again when it fires); equal dues fire in the order of insertion. */
#include "core/timer.h"

#include <stdlib.h>

#include "base/arg.h"
#include "core/cancel.h"
#include "core/cancellation.h"
#include "core/op.h"
#include "core/sched.h"
#include "core/waker.h"

#define ARITY 4
#define RETRY_NS 10000000 /* a deadline for which there was no memory */

uint64_t at_timer_now(at_runtime *rt) {
  if (!rt->virtual_clock) rt->now = uv_hrtime();
  return rt->now;
}

/* ---- the heap ---- */

static int before(const at_timer_entry *a, const at_timer_entry *b) {
  if (a->due != b->due) return a->due < b->due;
  return (int32_t)(at_leaf_of(a->task)->u.tag - at_leaf_of(b->task)->u.tag) < 0;
}

static void place(at_runtime *rt, int i, at_timer_entry e) {
  rt->heap[i] = e;
  e.task->index = i;
}

static void sift_up(at_runtime *rt, int i, at_timer_entry e) {
  while (i > 0) {
    int parent = (i - 1) / ARITY;
    if (!before(&e, &rt->heap[parent])) break;
    place(rt, i, rt->heap[parent]);
    i = parent;
  }
  place(rt, i, e);
}

static void sift_down(at_runtime *rt, int i, at_timer_entry e) {
  for (;;) {
    int child = i * ARITY + 1, last = child + ARITY, least = child;
    if (child >= rt->heap_size) break;
    if (last > rt->heap_size) last = rt->heap_size;
    while (++child < last)
      if (before(&rt->heap[child], &rt->heap[least])) least = child;
    if (!before(&rt->heap[least], &e)) break;
    place(rt, i, rt->heap[least]);
    i = least;
  }
  place(rt, i, e);
}

int at_timer_add(at_runtime *rt, at_task *t, uint64_t due) {
  at_timer_entry e;
  if (rt->heap_size == rt->heap_capacity) {
    int capacity = rt->heap_capacity == 0 ? 64 : rt->heap_capacity * 2;
    at_timer_entry *heap = realloc(rt->heap, (size_t)capacity * sizeof *heap);
    if (heap == NULL) return UV_ENOMEM;
    rt->heap = heap;
    rt->heap_capacity = capacity;
  }
  at_leaf_of(t)->u.tag = rt->timer_tag++;
  e.due = due;
  e.task = t;
  sift_up(rt, rt->heap_size++, e);
  if (due <= rt->now)
    at_sched_wake(rt);
  else if (!rt->draining)
    at_timer_arm(rt);
  return 0;
}

void at_timer_remove(at_runtime *rt, at_task *t) {
  int i = t->index;
  at_timer_entry e;
  if (i < 0) return;
  t->index = -1;
  e = rt->heap[--rt->heap_size];
  if (e.task == t) return;
  if (i > 0 && before(&e, &rt->heap[(i - 1) / ARITY]))
    sift_up(rt, i, e);
  else
    sift_down(rt, i, e);
}

int at_timer_due(const at_runtime *rt) { return rt->heap_size > 0 && rt->heap[0].due <= rt->now; }

void at_timer_fire(lua_State *L, at_runtime *rt, int refresh) {
  if (refresh) (void)at_timer_now(rt);
  while (at_timer_due(rt)) {
    at_task *t = rt->heap[0].task;
    at_timer_remove(rt, t);
    if (t->kind == AT_DEADLINE || t->kind == AT_SOURCE_DEADLINE) {
      (void)at_timer_add(rt, t, rt->now + RETRY_NS); /* has room; for the case that this raises */
      if (t->kind == AT_DEADLINE)
        at_scope_expire(L, rt, t);
      else
        at_cancellation_expire(L, rt, t);
      at_timer_remove(rt, t);
    } else {
      int slot = at_leaf_of(t)->u.slot;
      at_task_settle(rt, t, AT_SUCCEEDED);
      at_unanchor(rt, slot);
    }
    if (rt->deadline != 0 && at_sched_spent(rt)) return; /* the rest is the next step's */
  }
}

/* ---- the uv timer ---- */

static void on_timer(uv_timer_t *handle) {
  at_runtime *rt = handle->data;
  rt->armed = 0;
  (void)at_timer_now(rt);
  if (at_timer_due(rt))
    at_sched_enter(rt);
  else
    at_timer_arm(rt);
}

void at_timer_arm(at_runtime *rt) {
  uint64_t due, now, ms;
  if (rt->uv == NULL || at_timer_due(rt)) return; /* due: at_sched_wake keeps the loop from blocking */
  if (rt->heap_size == 0 || rt->virtual_clock) {
    if (rt->armed != 0) {
      (void)uv_timer_stop(&rt->uv->timer);
      rt->armed = 0;
    }
    return;
  }
  due = rt->heap[0].due;
  if (rt->armed != 0 && rt->armed <= due) return; /* fires early enough, and looks again */
  uv_update_time(rt->loop);
  now = at_timer_now(rt);
  ms = due <= now ? 0 : (due - now) / 1000000 + ((due - now) % 1000000 != 0);
  if (uv_timer_start(&rt->uv->timer, on_timer, ms, 0) == 0) rt->armed = due == 0 ? 1 : due;
  if (rt->waker != NULL) at_waker_call(rt); /* earlier than what the host was told */
}

/* ---- delay ---- */

static uint64_t due_in(at_runtime *rt, long long ns) {
  uint64_t now;
  if (ns == 0) return ++rt->zero; /* always in the past, and in order */
  now = at_timer_now(rt);
  return (uint64_t)ns > UINT64_MAX - now ? UINT64_MAX : now + (uint64_t)ns;
}

/* [-0, +1, m] pushes a pending delay with `values` user values, due at `due`. */
static int push_delay(lua_State *L, at_runtime *rt, uint64_t due, int values) {
  at_task *t = at_task_new(L, rt, AT_DELAY, values);
  int status;
  lua_pushvalue(L, -1);
  at_leaf_of(t)->u.slot = at_anchor(L, rt);
  status = at_timer_add(rt, t, due);
  if (status < 0) {
    at_unanchor(rt, at_leaf_of(t)->u.slot);
    return luaL_error(L, "not enough memory");
  }
  at_ring_add(at_scope_ring(rt), at_leaf_of(t));
  return 1;
}

/* delay(seconds, ...) -> Task of the values */
static int l_delay(lua_State *L) {
  at_runtime *rt = at_rt(L);
  long long ns = at_arg_seconds(L, 1);
  int n = lua_gettop(L) - 1;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (n == 0) return push_delay(L, rt, due_in(rt, ns), 0);
  push_delay(L, rt, due_in(rt, ns), 1);
  lua_insert(L, 2); /* stack: seconds task values... */
  if (n > 1) at_task_pack(L, n);
  lua_setiuservalue(L, 2, 1);
  ((at_task *)lua_touserdata(L, 2))->flags |= n == 1 ? AT_F_ONE : AT_F_MANY;
  return 1;
}

/* due(seconds) -> when that is, in whole nanoseconds of the runtime's clock: exact, unlike now() */
static int l_due(lua_State *L) {
  at_runtime *rt = at_rt(L);
  long long ns = at_arg_seconds(L, 1);
  uint64_t now = at_timer_now(rt);
  lua_pushinteger(L, (uint64_t)ns > INT64_MAX - now ? LUA_MAXINTEGER : (lua_Integer)(now + (uint64_t)ns));
  return 1;
}

/* delay_until(seconds of the runtime's clock, as now() gives | whole nanoseconds, as due() gives) -> Task */
static int l_delay_until(lua_State *L) {
  at_runtime *rt = at_rt(L);
  long long ns = lua_isinteger(L, 1) ? lua_tointeger(L, 1) : at_arg_seconds(L, 1);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  return push_delay(L, rt, (uint64_t)ns, 0);
}

/* now() -> seconds on the runtime's monotonic clock */
static int l_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)at_timer_now(at_rt(L)) / 1e9);
  return 1;
}

int at_timer_can_jump(const at_runtime *rt) {
  return rt->virtual_clock == AT_CLOCK_AUTO && rt->heap_size > 0 && !uv_loop_alive(rt->loop);
}

/* A main chunk that would block with nothing but virtual delays ahead jumps to the first of them. */
int at_timer_jump(at_runtime *rt) {
  if (!at_timer_can_jump(rt)) return 0;
  if (rt->heap[0].due > rt->now) rt->now = rt->heap[0].due;
  at_sched_wake(rt);
  return 1;
}

/* [-0, +0, -] the clock jumps from one time to another: what was ahead stays as far ahead, what was due
** stays due. Keeps the order of the heap. */
static void rebase(at_runtime *rt, uint64_t from, uint64_t to) {
  int i;
  for (i = 0; i < rt->heap_size; i++) {
    uint64_t *due = &rt->heap[i].due;
    if (*due == UINT64_MAX) continue;
    if (*due > from)
      *due = *due - from + to;
    else if (*due > to)
      *due = to;
  }
}

/* clock("real" | "virtual" | "auto"): delays and deadlines that are pending go on with the time that is
** left to them */
static int l_clock(lua_State *L) {
  static const char *const modes[] = {"real", "virtual", "auto", NULL};
  at_runtime *rt = at_rt(L);
  int mode = luaL_checkoption(L, 1, NULL, modes);
  uint64_t before = at_timer_now(rt);
  rt->virtual_clock = (unsigned char)mode;
  rebase(rt, before, at_timer_now(rt));
  rt->armed = 0; /* whatever it was armed for */
  if (rt->uv != NULL) (void)uv_timer_stop(&rt->uv->timer);
  at_timer_arm(rt);
  return 0;
}

/* advance(nanoseconds of the clock) -> moves a virtual clock to the next due time, at most that far;
** says whether something became due */

static int l_advance(lua_State *L) {
  at_runtime *rt = at_rt(L);
  uint64_t target;
  if (!rt->virtual_clock) return luaL_error(L, "the clock is not virtual");
  target = (uint64_t)luaL_checkinteger(L, 1);
  if (rt->heap_size > 0 && rt->heap[0].due <= target) {
    if (rt->heap[0].due > rt->now) rt->now = rt->heap[0].due;
    at_sched_wake(rt);
    lua_pushboolean(L, 1);
  } else {
    if (target > rt->now) rt->now = target;
    lua_pushboolean(L, 0);
  }
  return 1;
}

void at_timer_open(lua_State *L, at_runtime *rt) {
  (void)L;
  (void)at_timer_now(rt);
}

void at_timer_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"delay", l_delay}, {"delay_until", l_delay_until},
                                       {"due", l_due},
                                       {"now", l_now},     {"clock", l_clock},
                                       {"advance", l_advance}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
