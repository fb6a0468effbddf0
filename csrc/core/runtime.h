/* runtime.h - the runtime of one lua_State: what the kernel's files share.
** One runtime a state, reached from C functions as their first upvalue. Everything here belongs to
** the loop thread, which is the thread that runs the state; only `inbox` is touched by others. */
#ifndef AT_CORE_RUNTIME_H
#define AT_CORE_RUNTIME_H

#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>
#include <uv.h>

typedef struct at_runtime at_runtime;
typedef struct at_task at_task;
typedef struct at_coro at_coro;
typedef struct at_op at_op;
typedef struct at_waiter at_waiter;
typedef struct at_inbox at_inbox;

/* Something to end in order when the runtime closes: a handle, a listener, a pool. */
typedef struct at_closable {
  struct at_closable *next, **prev; /* prev is NULL while it is not in the list */
  void (*close)(at_runtime *rt, struct at_closable *c); /* must not call Lua; removes nothing */
} at_closable;

/* What libuv holds pointers to. Malloc'd, so that it can outlive the state (S18). */
typedef struct at_loop {
  uv_loop_t loop;
  uv_prepare_t prepare;
  uv_idle_t idle;
  uv_timer_t timer;
  uv_timer_t tick; /* while the main chunk pumps: looks for Ctrl-C; unref'd */
} at_loop;

typedef struct at_timer_entry {
  uint64_t due; /* nanoseconds of at_timer_now */
  at_task *task;
} at_timer_entry;

struct at_runtime {
  lua_State *L;      /* where callbacks enter Lua, always under lua_pcall */
  lua_State *A;      /* never runs; its stack holds the anchor table at index 1 */
  lua_State *main;   /* the state's main thread */
  const void *task_mt; /* identity of the Task metatable */

  /* sched.c */
  at_coro *current;     /* the task that runs; &main_task->coro part on the main chunk, never NULL */
  lua_State *running;   /* the coroutine entered last: a task's, or a generator in it; NULL: none */
  at_coro *ready_head, *ready_tail;
  at_coro *handoff;     /* a child that the resumer has to start (deep spawns) */
  int nest;             /* nested starts on the C stack */
  int budget;           /* settled awaits left in this turn */
  unsigned char draining, in_uv_run, idle_on, closing, closed, pumping;
  at_task *turn;        /* what yield() returned in this turn, or NULL */
  at_op *done_head, *done_tail; /* operations whose C side has ended */
  at_waiter *notify_head, *notify_tail; /* waiters of tasks that settled, not yet told */
  unsigned char notifying;

  /* anchors (runtime.c) */
  int free_slot, slots; /* first free slot (0: none), slots in the table */

  /* copool.c */
  struct at_idle *idle_coros;
  int idle_count;
  at_coro **live; /* by coroutine number: the task on it, or NULL */
  int live_size, live_free;
  int live_count;

  /* timer.c */
  at_timer_entry *heap;
  int heap_size, heap_capacity;
  uint64_t now;   /* cached clock, nanoseconds */
  uint64_t armed; /* when the uv timer fires; 0: not armed */
  unsigned char virtual_clock;

  /* recycled records */
  struct at_ext *free_ext;
  at_waiter *free_waiters;

  /* fault.c */
  int unobserved; /* faulted tasks nobody has looked at yet */
  struct at_fault *raising; /* the fault that await raised last; weak: compared only */

  int externals; /* sources outside the loop that may still post; >0 keeps the loop alive */
  at_inbox *inbox; /* shared with other threads; counted */
  at_closable *closables;
  at_loop *uv; /* owned; NULL once closed */
  uv_loop_t *loop; /* &uv->loop, or the host's */
  at_coro *main_task; /* the main chunk as an owner and a scope; never resumed */
};

/* Fixed anchor slots. */
enum { AT_SLOT_SETTLED = 1, AT_SLOT_TURN, AT_SLOT_AWAIT, AT_SLOT_NAMES, AT_SLOT_ERRORS,
       AT_SLOT_HANDLER, AT_SLOT_REPORTS, AT_SLOT_LAST };

/* The runtime of the C function that runs (its first upvalue). */
#define at_rt(L) ((at_runtime *)lua_touserdata(L, lua_upvalueindex(1)))

/* [-0, +0, m] registers `functions` into the table at the top, with the upvalues that the kernel's
** functions expect: runtime, Task metatable. */
void at_runtime_setfuncs(lua_State *L, at_runtime *rt, const luaL_Reg *functions);

/* [-0, +0, m] makes (once) and fills the metatable `name` with methods (as __index) and
** metamethods, registered as above; sets __name. */
void at_runtime_class(lua_State *L, at_runtime *rt, const char *name, const luaL_Reg *methods,
                      const luaL_Reg *meta);

/* [-0, +1, e] pushes the runtime's userdata, making runtime and loop at the first call in a state. */
at_runtime *at_runtime_open(lua_State *L);

/* [-0, +0, -] the state's runtime, or NULL. */
at_runtime *at_runtime_get(lua_State *L);

/* [-1, +0, m] keeps the value at the top alive; the slot gives it back. Slots are above 0. */
int at_anchor(lua_State *L, at_runtime *rt);

/* [-0, +1, -] pushes the value in `slot`. The caller has stack space. */
void at_anchor_push(lua_State *L, at_runtime *rt, int slot);

/* [-1, +0, -] replaces the value in `slot` by the one at the top. */
void at_anchor_set(lua_State *L, at_runtime *rt, int slot);

/* Lets go; 0 is ignored. Needs no state: callable from a uv callback. */
void at_unanchor(at_runtime *rt, int slot);

/* Closables: closed newest first. Loop thread. */
void at_closable_add(at_runtime *rt, at_closable *c);
void at_closable_remove(at_closable *c);

/* Counts a source of events that libuv does not see. Loop thread. */
void at_external_add(at_runtime *rt);
void at_external_remove(at_runtime *rt);

/* Runs the loop: once and blocking, or without blocking. Nothing of Lua may be running. Returns
** false when nothing is left that could make progress. */
int at_runtime_pump(at_runtime *rt, int block);

#endif
