/* methods.h - the methods of Task that Lua sees. */
#ifndef AT_CORE_METHODS_H
#define AT_CORE_METHODS_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

/* [-0, +0, m] adds is_task, owned, Task (the table of methods) to the table at the top. */
void at_methods_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
