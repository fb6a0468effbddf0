/* signal.h - waiting for signals of the process. */
#ifndef AT_IO_SIGNAL_H
#define AT_IO_SIGNAL_H

#include "core/runtime.h"

#define AT_SIGNAL_WATCH_MT "asynctask.signal.Watch"

void at_signal_open(lua_State *L, at_runtime *rt);

#endif
