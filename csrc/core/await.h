/* await.h - the ONLY lua_yield of the kernel (coroutine.c and par's interrupt hook are the named
** exceptions): await, and the calls that wait by themselves. */
#ifndef AT_CORE_AWAIT_H
#define AT_CORE_AWAIT_H

#include "core/task.h"

/* [-0, +1, -] pushes the function `await`, for lua_callk by C functions that have to wait. */
void at_await_push(lua_State *L, at_runtime *rt);

/* [-0, +0, -] true if an await here could suspend: L is what the scheduler entered last, and can
** yield. */
int at_await_can_yield(lua_State *L, const at_runtime *rt);

/* Calls the function below its n arguments at the top, unprotected, leaves its results from `base`
** up, and awaits in its place if they are exactly one Task (S25), then continues with k(L, LUA_OK,
** ctx). Used as a tail call: `return at_flat_call(L, rt, n, ctx, k)`. */
int at_flat_call(lua_State *L, at_runtime *rt, int n, lua_KContext ctx, lua_KFunction k);

void at_await_open(lua_State *L, at_runtime *rt);

#endif
