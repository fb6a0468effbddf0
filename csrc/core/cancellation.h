/* cancellation.h - cancellation sources: one call that cancels many scopes (CancellationTokenSource). */
#ifndef AT_CORE_CANCELLATION_H
#define AT_CORE_CANCELLATION_H

#include "core/cancel.h"

#pragma GCC visibility push(hidden)

/* A scope was left: its source forgets it. No Lua. */
void at_cancellation_unlink(at_scope *s);

/* [-0, +0, m] a source's own deadline passed; protected, from timer.c. */
void at_cancellation_expire(lua_State *L, at_runtime *rt, at_task *deadline);

/* [-0, +0, m] adds cancellation to the table at the top. */
void at_cancellation_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
