/* copool.h - coroutines that are reused from task to task. */
#ifndef AT_CORE_COPOOL_H
#define AT_CORE_COPOOL_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

#define AT_IDLE_LIMIT 1024 /* coroutines kept for reuse */

/* One for each coroutine that exists, by number. */
typedef struct at_cell {
  union {
    lua_State *idle; /* next >= -1 */
    at_coro *task;   /* next == AT_CELL_BUSY: the task that runs on it */
  } u;
  int slot; /* anchor of the coroutine */
  int next; /* idle: the next idle cell or -1; AT_CELL_BUSY; below that: no coroutine, the next such
            ** cell as AT_CELL_UNUSED - 1 - next */
} at_cell;

#define AT_CELL_BUSY (-2)
#define AT_CELL_UNUSED (-3)

/* [-0, +0, m] takes a coroutine (its number) whose stack holds the body function; its cell is busy
** with no task yet. */
int at_copool_take(lua_State *L, at_runtime *rt, lua_State **co);
/* Gives it back (reusable: finished, stack empty but for the body), or lets it go. No Lua. */
void at_copool_put(at_runtime *rt, int number, lua_State *co, int reusable);
void at_copool_close(at_runtime *rt);

#pragma GCC visibility pop

#endif
