/* server.h - listening sockets: class asynctask.Server, TCP or Unix. */
#ifndef AT_IO_SERVER_H
#define AT_IO_SERVER_H

#include "core/runtime.h"

#define AT_SERVER_MT "asynctask.Server"

void at_server_open(lua_State *L, at_runtime *rt);

#endif
