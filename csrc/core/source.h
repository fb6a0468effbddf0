/* source.h - completion sources: a Task settled by whoever holds the source. */
#ifndef AT_CORE_SOURCE_H
#define AT_CORE_SOURCE_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

/* [-0, +0, m] cancels a source's task; its on_cancel runs from the ready queue. */
int at_source_cancel(lua_State *L, at_runtime *rt, at_task *t, int error);

/* [-0, +0, m] adds source, from_result, from_error, from_cancelled to the table at the top. */
void at_source_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
