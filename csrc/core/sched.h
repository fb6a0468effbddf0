/* sched.h - the ready queue, and the way from libuv's callbacks into Lua. */
#ifndef AT_CORE_SCHED_H
#define AT_CORE_SCHED_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

#define AT_NEST_LIMIT 20     /* nested starts on one C stack */
#define AT_TURN_BUDGET 400   /* settled awaits in a row before a task gives way */
#define AT_DRAIN_LIMIT 1000  /* resumes before the loop looks at the world again */

/* How a body ended: its values, one table of them, its fault; or it did not get that far. */
enum at_body {
  AT_BODY_VALUES,
  AT_BODY_MANY,
  AT_BODY_FAULT,
  AT_BODY_CANCELLED,
  AT_BODY_DIED,
  AT_BODY_KILLED
};

/* Appends to the ready queue. No Lua. */
void at_sched_ready(at_runtime *rt, at_coro *c);

/* The entry from a uv callback: settles what has ended, then runs one turn. Never raises. Does
** nothing when Lua is being run already (whoever runs it will come to the queue). */
void at_sched_enter(at_runtime *rt);

/* True if tasks are ready, operations have ended or a turn is due. */
int at_sched_has_work(const at_runtime *rt);

/* [-(n+1), +1, m] starts a coroutine task with the function and n arguments at the top; pushes it.
** Returns it; `owned`: it belongs to the running scope; `queued`: from the queue, not at once.
** May leave rt->handoff set: then the caller, a C function of a task, has to yield to its resumer
** (at_sched_handoff says so). */
at_coro *at_sched_spawn(lua_State *L, at_runtime *rt, int n, int owned, int queued);

/* The same, owned by the ring, and started only by at_sched_release (or to be cancelled) if `held`. */
at_coro *at_sched_spawn_in(lua_State *L, at_runtime *rt, int n, struct at_leaf **ring, int held);

/* l_ functions that start tasks end with `return at_sched_spawned(L, rt)`: the task is at the top. */
int at_sched_spawned(lua_State *L, at_runtime *rt);

/* [-0, +1, -] pushes the userdata of a live coroutine task. */
void at_sched_push_task(lua_State *L, at_runtime *rt, at_coro *c);

/* As at_sched_enter, but turn after turn until nothing is ready or enough was run. */
void at_sched_drain(at_runtime *rt);

/* [-0, +0, m] adds spawn, start, post, async, yield, current to the table at the top. */
void at_sched_functions(lua_State *L, at_runtime *rt);

/* A step has a budget and it is used up. Only while rt->deadline is not 0. */
int at_sched_spent(at_runtime *rt);

/* The prepare handle's callback: drains before the loop polls. */
void at_sched_prepare(uv_prepare_t *handle);
/* Queues work for the next turn, once. No Lua. */
void at_sched_defer(at_runtime *rt, at_deferred *d);
/* Forgets it: its memory goes away. */
void at_sched_undefer(at_runtime *rt, at_deferred *d);

/* A task made by at_sched_spawn_held may start. No Lua. */
void at_sched_release(at_runtime *rt, at_coro *c);

/* Makes sure that the loop does not block while there is work. No Lua. */
void at_sched_wake(at_runtime *rt);

void at_sched_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
