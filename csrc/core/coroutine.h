/* coroutine.h - generators that let an await through (the module asynctask.coroutine). */
#ifndef AT_CORE_COROUTINE_H
#define AT_CORE_COROUTINE_H

#include "core/runtime.h"

#pragma GCC visibility push(hidden)

/* [-0, +1, m] pushes a table with create, resume, wrap, status, close that replace coroutine's. */
void at_coroutine_push(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
