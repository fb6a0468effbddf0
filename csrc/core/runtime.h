/* runtime.h - the runtime of one lua_State: what the kernel's files share.
** One runtime a state, reached from C functions as their first upvalue. Everything here belongs to
** the loop thread, which is the thread that runs the state; only `inbox` is touched by others. */
#ifndef AT_CORE_RUNTIME_H
#define AT_CORE_RUNTIME_H

#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>
#include <uv.h>

#pragma GCC visibility push(hidden)

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

/* Work that needs Lua and was found out where there is none: done at the start of the next turn. */
typedef struct at_deferred {
  struct at_deferred *next;
  unsigned char queued;
  unsigned char retry; /* run may raise for memory: it is run again then */
  void (*run)(lua_State *L, at_runtime *rt, struct at_deferred *d); /* [-0, +0, m] protected */
} at_deferred;

/* What libuv holds pointers to. Malloc'd, so that it can outlive the state (S18): each handle and the
** runtime count for its life. */
typedef struct at_loop {
  uv_loop_t loop;     /* not used with a loop of the host's */
  int refs;
  uv_prepare_t prepare;
  uv_check_t check;   /* runs only where handles that are not ours can make tasks ready; unref'd */
  uv_idle_t idle;
  uv_timer_t timer;
  uv_timer_t tick;    /* while the main chunk pumps: looks for Ctrl-C; unref'd */
  uv_timer_t collect; /* while there are unobserved faults: collects garbage; unref'd */
  uint64_t collect_after; /* milliseconds; doubles */
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
  int loading;          /* number + 1 of a coroutine that is being loaded: a failed start left it */
  lua_State *loaded;    /* that coroutine */
  at_coro *loaded_task; /* its task at the top of it, while that may own an ext record; else NULL */
  int body;             /* what a body returned: enum at_body */
  int nest;             /* nested starts on the C stack */
  int budget;           /* settled awaits left in this turn */
  unsigned char draining, in_uv_run, idle_on, closing, closed, pumping;
  unsigned char quiet; /* reports nothing when it closes (workers) */
  unsigned char yielding; /* the yield under way is an await's (or a handoff), not the user's */
  unsigned char host_driven; /* the host runs the loop: the main chunk must not pump */
  unsigned char foreign; /* the loop is the host's: we never run it */
  unsigned char spent;   /* the budget of the step is used up: nothing is resumed any more */
  unsigned char ended;   /* closed while the state goes on */
  uint64_t deadline;     /* of the step's budget, by uv_hrtime; 0: none */
  struct at_waker *waker; /* waker.c; NULL: none was asked for */
  lua_Hook hook;   /* the main thread's when it began to pump: another one is an interrupt */
  at_task *wanted; /* what the main chunk pumps for */
  lua_State *generator; /* coroutine.c's innermost generator on the main chunk: it may pump, too */
  lua_State *executing; /* the innermost coroutine that runs now: what an interruption has to hit */
  unsigned char abandoned; /* par: interrupted for good; what was stopped is left as it is */
  void (*entered)(at_runtime *rt); /* par: called when the loop enters the scheduler; or NULL */
  void (*waking)(at_runtime *rt);  /* par: called before mail is taken; or NULL */
  void (*stalled)(at_runtime *rt); /* par: called before it blocks with external sources; or NULL */
  at_task *turn;        /* what yield() returned in this turn, or NULL */
  at_deferred *deferred; /* newest first */
  at_deferred *deferring; /* the one that runs, if it wants to run again should it raise */
  at_op *done_head, *done_tail; /* operations whose C side has ended */
  at_op *settling; /* the operation whose result is being converted */
  at_waiter *notify_head, *notify_tail; /* waiters of tasks that settled, not yet told */
  unsigned char notifying;

  /* anchors (runtime.c) */
  int chunk;            /* number of the chunk at AT_A_CHUNK, -1: none */
  int free_slot, slots; /* first free slot (0: none), slots in the table */

  /* copool.c */
  struct at_cell *cells; /* by number of coroutine */
  int cell_count, cell_capacity;
  int idle_first, idle_count; /* idle cells, linked; -1: none */
  int free_cell; /* cells without a coroutine, linked; -1: none */

  /* timer.c */
  at_timer_entry *heap;
  int heap_size, heap_capacity;
  uint64_t now;   /* cached clock, nanoseconds */
  uint64_t armed; /* when the uv timer fires; 0: not armed */
  uint64_t zero;  /* dues of zero delays: first in, first out */
  uint32_t timer_tag;
  unsigned char virtual_clock;

  /* recycled records */
  struct at_ext *free_ext;
  at_waiter *free_waiters;

  /* fault.c */
  int unobserved; /* faulted tasks nobody has looked at yet */
  at_coro *raising_in; /* the task that was given AT_SLOT_RAISING; weak: compared only */
  int reports;    /* collected faults that wait in AT_SLOT_REPORTS */
  int reported;   /* faults handed to the handler so far */

  unsigned select_turn; /* channel.select begins with another branch each time */
  int sources;   /* numbers given to sources */
  int holds;     /* of those, the ones that C code asked for */
  int externals; /* sources outside the loop that may still post; >0 keeps the loop alive */
  at_inbox *inbox; /* shared with other threads; counted */
  at_closable *closables;
  at_loop *uv; /* owned; NULL once closed */
  uv_loop_t *loop; /* &uv->loop, or the host's */
  at_coro *main_task; /* the main chunk as an owner and a scope; never resumed */
};

/* Fixed anchor slots, and what lies above the anchor table on A's stack. */
enum {
  AT_SLOT_SETTLED = 1, /* the settled Task without values */
  AT_SLOT_TURN,        /* what yield() returned in this turn */
  AT_SLOT_NAMES,       /* weak keys: task -> name */
  AT_SLOT_ERRORS,      /* weak keys: cancelled task without user value -> error */
  AT_SLOT_HANDLER,     /* of unobserved faults, or false */
  AT_SLOT_REPORTS,     /* list of collected faults */
  AT_SLOT_RAISING,     /* the fault that await raised last */
  AT_SLOT_TEXT,        /* a traceback to join to the next fault, or false */
  AT_SLOT_SOURCES,     /* weak values: number -> source */
  AT_SLOT_NOTES,       /* lua_State * -> what the handler of task bodies noted there last */
  AT_SLOT_WAITING,     /* weak keys: coroutine -> true while an await inside it waits */
  AT_SLOT_LAST
};
#define AT_CHUNK 256 /* slots in a chunk of the anchor table */
enum { AT_A_ANCHORS = 1, AT_A_CHUNK, AT_A_TASK_MT, AT_A_BODY, AT_A_CLOSED, AT_A_AWAIT, AT_A_FLAT, AT_A_LAST };

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

/* The same on a loop of the host's (NULL: its own). When it raises, `*status` says why if it was libuv. */
at_runtime *at_runtime_open_on(lua_State *L, uv_loop_t *loop, int *status);

/* [-0, +0, -] closes it while the state goes on. Not inside the loop's run. */
void at_runtime_end(lua_State *L, at_runtime *rt);

/* [-0, +0, v] raises: nothing can begin, the state or its runtime is closing. Returns 0. */
int at_runtime_refuse(lua_State *L, const at_runtime *rt);

/* [-0, +1, -] pushes the runtime's userdata (nil: there is none). */
void at_runtime_push(lua_State *L);

/* [-0, +0, -] the state's runtime, or NULL. */
at_runtime *at_runtime_get(lua_State *L);

/* [-1, +0, m] keeps the value at the top alive; the slot gives it back. Slots are above 0. */
int at_anchor(lua_State *L, at_runtime *rt);

/* [-0, +1, -] pushes the value in `slot`. The caller has stack space. */
void at_anchor_push(lua_State *L, at_runtime *rt, int slot);

/* [-1, +0, -] replaces the value in `slot` by the one at the top. */
void at_anchor_set(lua_State *L, at_runtime *rt, int slot);

/* [-0, +1, -] pushes one of the values that lie on A's stack. */
void at_fixed_push(lua_State *L, at_runtime *rt, int which);

/* Lets go; 0 is ignored. Needs no state: callable from a uv callback. */
void at_unanchor(at_runtime *rt, int slot);

/* Closables: closed newest first. Loop thread. */
void at_closable_add(at_runtime *rt, at_closable *c);
void at_closable_remove(at_closable *c);

/* Counts a source of events that libuv does not see. Loop thread. */
void at_external_add(at_runtime *rt);
void at_external_remove(at_runtime *rt);
/* Nothing but external sources could wake this runtime. Loop thread; no Lua. */
int at_runtime_lonely(at_runtime *rt);

/* Runs the loop: once and blocking, or without blocking. Nothing of Lua may be running. Returns
** false when nothing is left that could make progress. */
int at_runtime_pump(at_runtime *rt, int block);

/* One step of a loop that the host drives: never blocks; about so many seconds of work (0: one resume;
** negative: until nothing is ready). True if more is ready. */
int at_runtime_step(at_runtime *rt, double budget);

/* Runs the loop, sleeping in it, until nothing is left that could make progress, so many seconds have
** passed (negative: no limit) or the main thread was given another hook (an interrupt). False in the first
** case. */
int at_runtime_run(at_runtime *rt, double seconds);

/* One turn of the loop that ends after so many seconds at the latest. As at_runtime_pump. */
int at_runtime_once(at_runtime *rt, double seconds);

/* How many seconds the loop may sleep in its descriptor; negative: without end. */
double at_runtime_timeout(at_runtime *rt);

/* True if something could still happen. */
int at_runtime_alive(at_runtime *rt);

/* Tasks that handles of others make ready run in the same turn of the loop. */
void at_runtime_check(at_runtime *rt);

/* The loop's run ends every so many milliseconds at the latest, to look for an interrupt of the main thread
** (rt->hook); 0: no more. */
void at_runtime_tick(at_runtime *rt, unsigned milliseconds);

#pragma GCC visibility pop

#endif
