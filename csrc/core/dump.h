/* dump.h - seeing: who waits for what, and where. */
#ifndef AT_CORE_DUMP_H
#define AT_CORE_DUMP_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

/* [-0, +1, m] pushes a text with a line for each live coroutine task: what it is, what it waits for, the
** line of Lua that waits, its age; and indented below it, what it waits for. */
void at_dump_push(lua_State *L, at_runtime *rt);

/* True if a task is pending that nobody has cancelled. */
int at_dump_left(const at_runtime *rt);

/* [-0, +0, m] adds tasks, dump, census to the table at the top. */
void at_dump_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
