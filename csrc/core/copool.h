/* copool.h - coroutines that are reused from task to task. */
#ifndef AT_CORE_COPOOL_H
#define AT_CORE_COPOOL_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

#define AT_IDLE_LIMIT 1024 /* coroutines kept for reuse */

/* One for each number of a coroutine. */
typedef struct at_cell {
  uintptr_t ref; /* idle: the lua_State; busy: the at_coro with bit 0 set, 1 before it is known; else 0 */
  int slot;      /* anchor of the coroutine, or of the task that holds it */
  union {
    int next;       /* idle, or without a coroutine: the next such cell, -1 at the end */
    uint32_t since; /* busy: when the task was made, in milliseconds (wraps around) */
  };
} at_cell;

/* The task of a busy cell, or NULL. */
static inline at_coro *at_cell_task(const at_cell *cell) {
  return cell->ref & 1 ? (at_coro *)(cell->ref & ~(uintptr_t)1) : NULL;
}

/* [-0, +0, m] takes a coroutine (its number) whose stack holds the body function; its cell is busy
** with no task yet. */
int at_copool_take(lua_State *L, at_runtime *rt, lua_State **co);
/* Gives it back (reusable: finished, stack empty but for the body), or lets it go. No Lua. */
void at_copool_put(at_runtime *rt, int number, lua_State *co, int reusable);
void at_copool_close(at_runtime *rt);

#pragma GCC visibility pop

#endif
