/* sharedchannel.h - channels between the tasks of all states of the process. */
#ifndef AT_PAR_SHAREDCHANNEL_H
#define AT_PAR_SHAREDCHANNEL_H

#include "core/runtime.h"

/* [-0, +0, m] adds new, SharedChannel (its metatable) to the table at the top. */
void at_sharedchannel_open(lua_State *L, at_runtime *rt);

#endif
