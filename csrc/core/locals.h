/* locals.h - task-local values: inherited at spawn, never leaking upward. */
#ifndef AT_CORE_LOCALS_H
#define AT_CORE_LOCALS_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

/* [-0, +0, m] the new task at the top has the values of the one that runs; while
** debugging is on (task.debug) it is named by the place of the call. */
void at_locals_inherit(lua_State *L, at_runtime *rt, at_coro *c);

/* For values on their way to another state, where a variable is known by its number. */
/* [-0, +0, m] the number of the variable at `index`; 0: it is none. */
lua_Integer at_locals_id(lua_State *L, int index);
/* [-0, +1, m] pushes this state's variable of that number, made now if need be; `fresh`: its default
** (user value 1) is to be set. */
void at_locals_variable(lua_State *L, lua_Integer id, int *fresh);
/* [-0, +(0|1), -] pushes the values of the running task (variable -> {value}); 0: it has none. */
int at_locals_push(lua_State *L, at_runtime *rt);
/* [-1, +0, m] the table at the top is the values of the running task. */
void at_locals_set(lua_State *L, at_runtime *rt);

/* [-0, +0, m] adds local_value, debug to the table at the top. */
void at_locals_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
