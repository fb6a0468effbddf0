/* task.h - the record of a Task: its state, its result and who waits for it. Settles once.
** A Task is a userdata with one metatable and one of two layouts, which both begin with an at_task:
** at_leaf (an operation, a delay, a combination, a source's task) and at_coro (a coroutine task).
** The records are small on purpose: garbage collection paces itself by bytes. */
#ifndef AT_CORE_TASK_H
#define AT_CORE_TASK_H

#include "core/runtime.h"

#pragma GCC visibility push(hidden)

#define AT_TASK_MT "asynctask.Task"

enum at_kind {
  AT_OP,
  AT_DELAY,
  AT_TURN,
  AT_COMBINE,
  AT_SOURCE,
  AT_CORO,
  AT_MAIN,     /* the main chunk's record: no userdata */
  AT_DEADLINE, /* of a scope: no userdata */
  AT_SOURCE_DEADLINE, /* of a cancellation source: no userdata */
  AT_PROXY,    /* stands for an owned coroutine task in its owner's ring: no userdata */
  AT_GROUP     /* stands for a group's members in the ring of the scope around it: no userdata */
};
enum at_state { AT_PENDING, AT_SUCCEEDED, AT_FAULTED, AT_CANCELLED };

enum at_flags {
  AT_F_OBSERVED = 1 << 0,   /* somebody awaited it or read its error */
  AT_F_ONE = 1 << 1,        /* the user value is the only result */
  AT_F_MANY = 1 << 2,       /* the user value is a table of results with n */
  AT_F_LAZY = 1 << 3,       /* a combination whose result is made at the first read */
  AT_F_HELD = 1 << 3,       /* the same bit, of a coroutine task: not started yet, on purpose */
  AT_F_FAULT = 1 << 4,      /* the user value is an at_fault */
  AT_F_SHARED = 1 << 5,     /* the settled singleton or a turn: never changed by its users */
  AT_F_NOUV = 1 << 6,       /* has no user value */
  AT_F_ERROR = 1 << 7,      /* cancelled, and the user value is the error */
  /* coroutine tasks */
  AT_F_WAITING = 1 << 8,    /* suspended by an await */
  AT_F_QUEUED = 1 << 9,     /* in the ready queue */
  AT_F_CANCELLING = 1 << 10, /* a cancellation is aimed at the scope that runs */
  AT_F_WOKEN_CANCEL = 1 << 11, /* woken by a cancellation, not by what it awaited */
  AT_F_RESUMED = 1 << 12,   /* the scheduler has woken it: the await may go on */
  AT_F_PEEK = 1 << 13,      /* its wait does not count as looking at a fault */
  AT_F_INTERRUPTED = 1 << 14, /* par: being killed */
  AT_F_ANCHORED = 1 << 15   /* has been suspended: its coroutine's anchor holds it, and it the coroutine */
};

struct at_task {
  uint8_t kind, state;
  uint16_t flags;
  int32_t index; /* delays: place in the heap, -1: out of it; combinations: the winner; coroutine
                 ** tasks: number of the coroutine */
  uintptr_t waiters; /* 0, an at_coro with bit 0 set (the only waiter), or an at_waiter list head */
};

typedef struct at_leaf {
  at_task task;
  struct at_leaf *next, **prev; /* in the ring of its owner; prev NULL: owned by nobody */
  union {
    at_op *op; /* AT_OP, AT_COMBINE: malloc'd, owned until it is released */
    struct {
      int slot;     /* AT_DELAY: anchor while pending; AT_SOURCE: its number */
      uint32_t tag; /* AT_DELAY, AT_DEADLINE: order of insertion */
    };
    struct at_ext *ext; /* AT_PROXY */
  } u;
} at_leaf;

/* The leaf that a task is; not for coroutine tasks. */
#define at_leaf_of(t) ((at_leaf *)(t))

/* What few coroutine tasks need: malloc'd and recycled. */
typedef struct at_ext {
  at_leaf proxy;          /* in its owner's ring, if it has an owner */
  struct at_scope *inner; /* innermost scope, NULL: the task itself */
  int error;              /* anchor of the error aimed at the whole task, 0: not cancelled */
  struct at_ext *next;    /* free list, or the work list of a cancellation */
  at_coro *task;
  int locals;             /* anchor of the table of task-local values, 0: none */
} at_ext;

struct at_coro {
  at_task task;
  lua_State *co; /* NULL once settled, and on the main chunk */
  union {
    at_coro *next;      /* while AT_F_QUEUED: ready queue */
    lua_State *from;    /* while it runs: who resumed it */
    uintptr_t awaiting; /* while AT_F_WAITING: at_task, or with bit 0 the at_waiter it waits through */
  } link;
  at_leaf *owned; /* ring of what belongs to the task itself */
  at_ext *ext;    /* NULL for most */
};

/* A waiter that is not one coroutine alone. Recycled. */
struct at_waiter {
  at_waiter *prev, *next;
  at_task *task; /* borrowed: whoever waits keeps it alive; NULL once told */
  void (*on)(at_runtime *rt, at_waiter *w); /* C only, no Lua; NULL: `arg` is a coroutine to wake */
  void *arg;
  unsigned char queued; /* in the runtime's notify list */
  unsigned char observes; /* delivers a fault to somebody who looks at it */
};

#define at_task_settled(t) ((t)->state != AT_PENDING)

/* [-0, +0, -] the task at `index`, or NULL. */
at_task *at_task_test(lua_State *L, at_runtime *rt, int index);
/* [-0, +0, v] the task at argument `arg`; raises otherwise. */
at_task *at_task_check(lua_State *L, at_runtime *rt, int arg);

/* [-0, +1, m] pushes a new pending task without owner; `values` user values (0 or 1). */
at_task *at_task_new(lua_State *L, at_runtime *rt, int kind, int values);

/* [-0, +0, v] fills the record of a new userdata; raises if the state is closing. */
void at_task_prepare(lua_State *L, const at_runtime *rt, at_task *t, size_t size, int kind);
/* [-n, +1, m] packs n results into the table of AT_F_MANY. */
void at_task_pack(lua_State *L, int n);

/* [-n, +1, m] pushes a settled task with the n values at the top (none: the shared one). */
void at_task_resolved(lua_State *L, at_runtime *rt, int n);
/* [-1, +1, m] pushes a task that faulted with the error at the top. */
void at_task_failed(lua_State *L, at_runtime *rt);
/* [-0, +1, m] pushes a task that was cancelled before it began. */
at_task *at_task_refused(lua_State *L, at_runtime *rt);

/* Settling. `index` is where the task userdata is on L's stack. Each does nothing but pop when the
** task has settled before. Waiters are queued, nothing is run. */
int at_task_succeed(lua_State *L, at_runtime *rt, int index, int n); /* [-n, +0, m] */
int at_task_fault(lua_State *L, at_runtime *rt, int index);          /* [-1, +0, m] */
int at_task_cancelled(lua_State *L, at_runtime *rt, int index);      /* [-1, +0, m] error or nil */

/* The C half of settling, for tasks whose result is in place: state, ring, waiters. No Lua. */
void at_task_settle(at_runtime *rt, at_task *t, int state);

/* [-0, +n, m] pushes the results of a task that succeeded; marks it observed. */
int at_task_push_results(lua_State *L, at_runtime *rt, at_task *t, int index);
/* [-0, +1, m] pushes the error of a task that faulted or was cancelled; marks it observed. */
void at_task_push_error(lua_State *L, at_runtime *rt, at_task *t, int index);

/* A waiter whose memory belongs to the caller (combinations). 0 or UV_ENOMEM. */
int at_waiter_link(at_runtime *rt, at_task *t, at_waiter *w);
void at_waiter_unlink(at_runtime *rt, at_waiter *w);
int at_task_wait_coro(at_runtime *rt, at_task *t, at_coro *c); /* 0 or UV_ENOMEM */
void at_task_unwait_coro(at_runtime *rt, at_coro *c);
at_task *at_task_awaited(const at_coro *c);

/* [-0, +0, -] calls the fault of a faulted task looked at. */
void at_task_observe(lua_State *L, at_runtime *rt, at_task *t, int index);

/* [-0, +1, m] pushes a short text about what the task is: its name, or its kind. */
void at_task_push_label(lua_State *L, at_runtime *rt, at_task *t, int index);

/* The runtime's own records: the main chunk's, free lists. No Lua. */
int at_task_init(at_runtime *rt);
void at_task_close(at_runtime *rt);

/* [-0, +0, m] metatable and the fixed tasks. */
void at_task_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
