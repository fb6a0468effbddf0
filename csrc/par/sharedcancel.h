/* sharedcancel.h - cancellation sources that are passed to other states. */
#ifndef AT_PAR_SHAREDCANCEL_H
#define AT_PAR_SHAREDCANCEL_H

#include "core/runtime.h"

#define AT_FEED_MT "asynctask.sharedcancel.feed"

/* [-0, +0, m] lets the codec carry them. */
void at_sharedcancel_open(lua_State *L, at_runtime *rt);

#endif
