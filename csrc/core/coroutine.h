/* coroutine.h - generators that let an await through (the module asynctask.coroutine). */
#ifndef AT_CORE_COROUTINE_H
#define AT_CORE_COROUTINE_H

#include "core/runtime.h"

/* [-0, +1, m] pushes a table with create, resume, wrap, status, close that replace coroutine's. */
void at_coroutine_push(lua_State *L, at_runtime *rt);

#endif
