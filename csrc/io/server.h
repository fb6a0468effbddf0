/* server.h - listening sockets: class asynctask.Server, TCP or Unix. */
#ifndef AT_IO_SERVER_H
#define AT_IO_SERVER_H

#include "core/runtime.h"

#define AT_SERVER_MT "asynctask.Server"

typedef struct at_server at_server;

/* The userdata. */
typedef struct at_serverbox {
  at_server *server; /* counted; NULL before it listens */
} at_serverbox;

/* [-0, +1, m] pushes a Server without descriptor. */
at_serverbox *at_server_box(lua_State *L, at_runtime *rt);

/* Gives it the listening descriptor, and the path that is removed again when it closes (NULL: none).
** 0, or a status (the descriptor is still the caller's). No Lua. */
int at_server_take(at_runtime *rt, at_serverbox *box, int fd, const char *path);

/* [-0, +1, m] both at once. */
int at_server_push(lua_State *L, at_runtime *rt, int fd);

/* [-0, +0, v] the descriptor of the Server at `index`, -1 once it is stopped. */
int at_server_fd(lua_State *L, int index);

void at_server_open(lua_State *L, at_runtime *rt);

/* listen.c */
void at_listen_open(lua_State *L, at_runtime *rt);

#endif
