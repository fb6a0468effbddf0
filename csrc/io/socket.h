/* socket.h - sockets as the system has them, for LuaSocket's API: a descriptor, calls that never
** block, and Tasks that say when a call may be tried again. What socket.c (life), socketready.c
** (waiting), socketcall.c (the calls) and socketoption.c share. Loop thread only.
**
** Streams (io/stream.h) read ahead and queue what is written; LuaSocket's results need neither: its
** `send` says how many bytes the system took. What is asked of it, when, is Lua's
** (lua/asynctask/socket). */
#ifndef AT_IO_SOCKET_H
#define AT_IO_SOCKET_H

#include <uv.h>

#include "core/op.h"

/* What a socket is: decides which options it has. */
enum { AT_SOCKET_TCP = 1, AT_SOCKET_UDP = 2, AT_SOCKET_UNIXSTREAM = 4, AT_SOCKET_UNIXDGRAM = 8 };

/* One socket that an operation waits for. */
typedef struct at_readyentry {
  struct at_readyentry *next, **prev; /* in the socket's list; prev NULL: not in it */
  struct at_ready *owner;
  struct at_socket *socket; /* counted */
  int events;
} at_readyentry;

/* A descriptor. */
typedef struct at_socket {
  uv_poll_t poll;
  at_closable closable;
  at_runtime *rt;
  int fd;      /* owned; -1 once closed or given away */
  int refs;    /* the box, the handle, each entry */
  int events;  /* what is polled for */
  unsigned char polled; /* the handle was made: at the first wait */
  at_readyentry *entries;
} at_socket;

/* The userdata. */
typedef struct at_socketbox {
  const void *kind; /* socket.c's mark until it is collected */
  at_socket *socket; /* counted; NULL: no descriptor */
  int what;
} at_socketbox;

/* [-0, +0, v] the box at argument `arg`; raises "socket expected". */
at_socketbox *at_socket_check(lua_State *L, int arg);
/* [-0, +0, -] the box at `index`, or NULL. */
at_socketbox *at_socket_test(lua_State *L, int index);

/* The descriptor of a box, -1: none. */
int at_socket_fd(const at_socketbox *box);

/* Gives the box, which has none, a descriptor. 0, or a status (it is the caller's). No Lua. */
int at_socket_take(at_runtime *rt, at_socketbox *box, int fd);

void at_socket_drop(at_socket *s);

/* [-0, +1, -] pushes LuaSocket's words for an errno. */
void at_socket_push_message(lua_State *L, int error);
/* [-0, +2, m] pushes nil and the words; returns 2. */
int at_socket_failed(lua_State *L, int error);

/* socketready.c */
void at_socketready_end(at_socket *s); /* closed: what waits for it ends */
int l_socket_ready(lua_State *L);
int l_socket_ready_any(lua_State *L);
int l_socket_poll(lua_State *L);

/* socketcall.c */
int l_socket_addresses(lua_State *L);
int l_socket_create(lua_State *L);
int l_socket_bind(lua_State *L);
int l_socket_listen(lua_State *L);
int l_socket_connect(lua_State *L);
int l_socket_connected(lua_State *L);
int l_socket_accept(lua_State *L);
int l_socket_recv(lua_State *L);
int l_socket_recvfrom(lua_State *L);
int l_socket_send(lua_State *L);
int l_socket_sendto(lua_State *L);
int l_socket_shutdown(lua_State *L);
int l_socket_sockname(lua_State *L);
int l_socket_peername(lua_State *L);
int l_socket_hostname(lua_State *L);

/* socketoption.c: methods of LuaSocket's objects */
int l_socket_getoption(lua_State *L);
int l_socket_setoption(lua_State *L);

/* [-0, +0, m] adds the functions to core.socket, the table at the top. */
void at_socket_open(lua_State *L, at_runtime *rt);

#endif
