/* combine.h - when_all, when_any, when_each: tasks out of tasks (S6, S7). */
#ifndef AT_CORE_COMBINE_H
#define AT_CORE_COMBINE_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

/* task.c, at the first read: makes the result of a combination that succeeded. [-0, +0, m] */
void at_combine_convert(lua_State *L, at_runtime *rt, at_task *t, int index);
/* task.c: pushes the error of a combination that faulted or was cancelled by a member. [-0, +1, m] */
void at_combine_push_error(lua_State *L, at_runtime *rt, at_task *t, int index);
/* [-0, +1, m] pushes the list of all errors of a settled combination, in argument order. */
void at_combine_push_errors(lua_State *L, at_runtime *rt, int index);

/* [-0, +0, m] adds when_all, when_any, each to the table at the top. */
void at_combine_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
