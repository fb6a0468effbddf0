/* timer.h - delays and deadlines: one heap under one uv timer. Times are nanoseconds. */
#ifndef AT_CORE_TIMER_H
#define AT_CORE_TIMER_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

enum { AT_CLOCK_REAL, AT_CLOCK_VIRTUAL, AT_CLOCK_AUTO };

/* The loop would block: an automatic clock jumps to the next due time; says whether it did. */
int at_timer_jump(at_runtime *rt);
int at_timer_can_jump(const at_runtime *rt);

/* The clock, refreshed: monotonic, or the virtual one of tests. */
uint64_t at_timer_now(at_runtime *rt);
/* Puts a delay or deadline into the heap; 0 or UV_ENOMEM. No Lua. */
int at_timer_add(at_runtime *rt, at_task *t, uint64_t due);
void at_timer_remove(at_runtime *rt, at_task *t);
/* [-0, +0, m] settles what is due; protected. */
void at_timer_fire(lua_State *L, at_runtime *rt, int refresh);
/* True if the first entry is due by the cached clock. */
int at_timer_due(const at_runtime *rt);
void at_timer_arm(at_runtime *rt);
/* [-0, +0, m] adds delay, delay_until, now, clock, advance to the table at the top. */
void at_timer_functions(lua_State *L, at_runtime *rt);
void at_timer_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
