/* cancellation.h - cancellation sources: one call that cancels many scopes (CancellationTokenSource). */
#ifndef AT_CORE_CANCELLATION_H
#define AT_CORE_CANCELLATION_H

#include "core/cancel.h"
#include "core/relay.h"

#pragma GCC visibility push(hidden)

#define AT_CANCELLATION_MT "asynctask.Cancellation"

/* What cancels a source from outside; told when the source is collected, on any account. No Lua. */
typedef struct at_feed {
  void (*drop)(at_runtime *rt, struct at_feed *f);
} at_feed;

/* [-0, +1, m] pushes a new source. */
void at_cancellation_new(lua_State *L, at_runtime *rt, at_feed *feed);
/* [-0, +1, -] pushes the source that lies at this address, or nil if it was collected. */
void at_cancellation_push(lua_State *L, at_runtime *rt, const void *source);
/* [-1, +0, m] cancels the source at `index` with the reason at the top. */
void at_cancellation_cancel(lua_State *L, at_runtime *rt, int index);
/* [-0, +(0|1), -] true if the source at `index` is cancelled: then its reason is pushed. */
int at_cancellation_reason(lua_State *L, int index);
/* [-0, +0, -] the source's own relay, or NULL. */
at_relay *at_cancellation_relay(lua_State *L, int index);
/* [-0, +0, -] adds a relay to the source at `index`, which owns it. */
void at_cancellation_follow(lua_State *L, int index, at_relay *r);

/* A scope was left: its source forgets it. No Lua. */
void at_cancellation_unlink(at_scope *s);

/* [-0, +0, m] a source's own deadline passed; protected, from timer.c. */
void at_cancellation_expire(lua_State *L, at_runtime *rt, at_task *deadline);

/* [-0, +0, m] adds cancellation to the table at the top. */
void at_cancellation_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
