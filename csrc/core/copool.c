/* copool.c - coroutines are reused, not made, for each task: making one costs 150 ns, taking an idle
** one 3. Owns the cells. Every coroutine is anchored for its whole life, so a task that runs to its
** end without waiting touches no anchor. Loop thread only.
** Invariant: an idle coroutine has status LUA_OK and nothing but the body function on its stack. */
#include "core/copool.h"

#include <stdlib.h>

/* A cell that is not used, or -1: out of memory. */
static int new_cell(at_runtime *rt) {
  int i;
  if (rt->cell_count == rt->cell_capacity) {
    int capacity = rt->cell_capacity == 0 ? 64 : rt->cell_capacity * 2;
    at_cell *cells = realloc(rt->cells, (size_t)capacity * sizeof *cells);
    if (cells == NULL) return -1;
    rt->cells = cells;
    rt->cell_capacity = capacity;
  }
  i = rt->cell_count++;
  rt->cells[i].ref = 0;
  return i;
}

int at_copool_take(lua_State *L, at_runtime *rt, lua_State **co) {
  int number, slot;
  lua_State *thread;
  while ((number = rt->idle_first) >= 0) {
    at_cell *cell = &rt->cells[number];
    rt->idle_first = cell->next;
    rt->idle_count--;
    *co = (lua_State *)cell->ref;
    cell->ref = 1;
    if (lua_status(*co) == LUA_OK && lua_gettop(*co) == 1) return number;
    at_copool_put(rt, number, *co, 0); /* somebody who kept the thread resumed or closed it */
  }
  luaL_checkstack(L, 2, "coroutine");
  thread = lua_newthread(L);
  slot = at_anchor(L, rt);
  number = rt->free_cell;
  if (number >= 0) {
    rt->free_cell = rt->cells[number].next;
  } else if ((number = new_cell(rt)) < 0) {
    at_unanchor(rt, slot);
    luaL_error(L, "not enough memory");
  }
  rt->cells[number].ref = 1;
  rt->cells[number].slot = slot;
  at_fixed_push(thread, rt, AT_A_BODY);
  *co = thread;
  return number;
}

void at_copool_put(at_runtime *rt, int number, lua_State *co, int reusable) {
  at_cell *cell = &rt->cells[number];
  if (reusable && rt->idle_count < AT_IDLE_LIMIT) {
    cell->ref = (uintptr_t)co;
    cell->next = rt->idle_first;
    rt->idle_first = number;
    rt->idle_count++;
    return;
  }
  at_unanchor(rt, cell->slot);
  cell->ref = 0;
  cell->next = rt->free_cell;
  rt->free_cell = number;
}

void at_copool_close(at_runtime *rt) {
  int i;
  for (i = 0; i < rt->cell_count; i++) { /* tasks that the state leaves behind */
    at_coro *c = at_cell_task(&rt->cells[i]);
    if (c == NULL || c->ext == NULL) continue;
    free(c->ext);
    c->ext = NULL;
  }
  if (rt->loaded_task != NULL) free(rt->loaded_task->ext); /* its start failed */
  free(rt->cells);
  rt->cells = NULL;
  rt->cell_count = rt->cell_capacity = 0;
  rt->idle_first = -1;
}
