/* tcp.h - connecting, and pairs of connected streams. */
#ifndef AT_IO_TCP_H
#define AT_IO_TCP_H

#include "io/address.h"
#include "io/stream.h"

/* [-0, +0, v] the numeric address of arguments `arg` and `arg + 1` (host, port), or, when the first
** is a table, the Unix socket of its field `path`. Returns false if host is a name. */
int at_tcp_check_address(lua_State *L, int arg, at_address *a);

/* [-0, +1, m] pushes a Task that failed with the status, about the address; returns 1. */
int at_tcp_failed(lua_State *L, at_runtime *rt, int status, const char *op, const at_address *a);

void at_tcp_open(lua_State *L, at_runtime *rt);

#endif
