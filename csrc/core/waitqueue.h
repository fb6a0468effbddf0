/* waitqueue.h - permits and those who wait for them: what locks are made of. */
#ifndef AT_CORE_WAITQUEUE_H
#define AT_CORE_WAITQUEUE_H

#include "core/runtime.h"

#pragma GCC visibility push(hidden)

/* [-0, +0, m] adds waitqueue to the table at the top. */
void at_waitqueue_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
