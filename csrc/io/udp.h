/* udp.h - datagrams: class asynctask.Udp. What udp.c (life, bind, connect), udpqueue.c (send, receive) and
** udpoption.c share. Loop thread only. */
#ifndef AT_IO_UDP_H
#define AT_IO_UDP_H

#include <sys/socket.h>
#include <uv.h>

#include "core/op.h"
#include "io/address.h"

#define AT_UDP_MT "asynctask.Udp"

typedef struct at_udp at_udp;

typedef struct at_datagram {
  struct at_datagram *next;
  struct sockaddr_storage from;
  socklen_t from_size;
  size_t size;
  char bytes[];
} at_datagram;

struct at_udp {
  uv_poll_t poll;
  at_closable closable;
  at_runtime *rt;
  int fd;          /* owned; -1 once closed */
  int family;
  int refs;        /* the handle, the box, each operation */
  int events;      /* what is polled for */
  struct sockaddr_storage bound; /* to what bind has bound it */
  socklen_t bound_size;          /* 0: it has not */
  at_datagram *held;  /* owned: oldest first */
  struct at_udpwait *receives, **last_receive; /* what waits, oldest first */
  struct at_udpwait *sends, **last_send;
};

/* The userdata. */
typedef struct at_udpbox {
  at_udp *udp; /* counted; NULL before the first use, and once it is closed */
  unsigned char closed;
} at_udpbox;

/* [-0, +1, m] pushes the Udp of a descriptor. 0, or a status (it is still the caller's). */
int at_udp_push(lua_State *L, at_runtime *rt, int fd);

/* [-0, +0, v] the descriptor of the Udp at `index`, -1 when it has none. */
int at_udp_fd(lua_State *L, int index);

/* [-0, +0, v] the box at argument 1 of a method. */
at_udpbox *at_udp_self(lua_State *L);

/* The socket, made now for an address of this family if there is none. A status. No Lua. */
int at_udp_ready(at_runtime *rt, at_udpbox *box, int family);

/* Makes an IPv4 address one for a socket of IPv6. */
void at_udp_map(const at_udp *u, at_address *a);

/* [-0, +1, m] pushes a Task that failed with the status (about the address, or NULL); returns 1. */
int at_udp_failed(lua_State *L, at_runtime *rt, int status, const char *op, const at_address *a);

/* Counting, for operations. */
void at_udp_drop(at_udp *u);

void at_udp_open(lua_State *L, at_runtime *rt);

/* udpqueue.c */
int l_udp_send(lua_State *L);
int l_udp_receive(lua_State *L);
int l_udp_try_receive(lua_State *L);
void at_udpqueue_end(at_udp *u, int status); /* ends what waits */

/* udpoption.c: methods */
int l_udp_broadcast(lua_State *L);
int l_udp_ttl(lua_State *L);
int l_udp_multicast_ttl(lua_State *L);
int l_udp_multicast_loop(lua_State *L);
int l_udp_multicast_interface(lua_State *L);
int l_udp_join(lua_State *L);
int l_udp_leave(lua_State *L);
int l_udp_send_buffer_size(lua_State *L);
int l_udp_recv_buffer_size(lua_State *L);
int l_udp_sockname(lua_State *L);
int l_udp_peername(lua_State *L);
int l_udp_get_fd(lua_State *L);

#endif
