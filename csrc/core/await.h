/* await.h - the ONLY lua_yield of the kernel (coroutine.c and par's interrupt hook are the named
** exceptions): await, and the calls that wait by themselves. */
#ifndef AT_CORE_AWAIT_H
#define AT_CORE_AWAIT_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

/* [-0, +1, -] pushes the function `await`, for lua_callk by C functions that have to wait. */
void at_await_push(lua_State *L, at_runtime *rt);

/* [-0, +0, -] true if an await here could suspend: L is what the scheduler entered last, and can
** yield. */
static inline int at_await_can_yield(lua_State *L, const at_runtime *rt) {
  return L == rt->running && lua_isyieldable(L);
}

/* [-0, +1, -] pushes a function `flat(f, ...)` that calls f and, if it returns exactly one value, a
** Task, awaits that in its place (S25). */
void at_flat_push(lua_State *L, at_runtime *rt);

/* sched.c: yields to the resumer, which starts rt->handoff and comes back. The task is at the top. */
int at_await_handoff(lua_State *L, at_runtime *rt);

int l_await(lua_State *L); /* also methods of Task */
int l_try(lua_State *L);

/* [-0, +0, m] adds await, try, wait to the table at the top. */
void at_await_functions(lua_State *L, at_runtime *rt);
void at_await_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
