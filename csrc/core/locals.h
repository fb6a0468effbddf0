/* locals.h - task-local values: inherited at spawn, never leaking upward. */
#ifndef AT_CORE_LOCALS_H
#define AT_CORE_LOCALS_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

/* [-0, +0, m] a new task (at the top or not) has the values of the one that runs. */
void at_locals_inherit(lua_State *L, at_runtime *rt, at_coro *c);

/* [-0, +0, m] adds local_value to the table at the top. */
void at_locals_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
