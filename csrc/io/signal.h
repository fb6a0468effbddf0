/* signal.h - signals of the process: waiting for them, their names, what was installed before. */
#ifndef AT_IO_SIGNAL_H
#define AT_IO_SIGNAL_H

#include "core/runtime.h"

#define AT_SIGNAL_WATCH_MT "asynctask.signal.Watch"

/* [-0, +0, v] the number of the signal that argument `arg` names. */
int at_signal_check(lua_State *L, int arg);

/* [-0, +1, m] pushes the name of a signal ("SIG40" for one without). */
void at_signal_push_name(lua_State *L, int number);

/* libuv is about to handle this signal by itself, or no longer does: as for a watch, what was
** installed before the first is put back after the last. Counted; any thread. No Lua. */
void at_signal_borrow(int number);
void at_signal_give_back(int number);

void at_signal_open(lua_State *L, at_runtime *rt);

#endif
