/* channel.h - channels between the tasks of one state: values by reference, with backpressure. */
#ifndef AT_CORE_CHANNEL_H
#define AT_CORE_CHANNEL_H

#include "core/runtime.h"

#pragma GCC visibility push(hidden)

/* [-0, +0, m] adds new, select, Channel (its metatable) to the table at the top. */
void at_channel_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
