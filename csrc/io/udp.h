/* udp.h - datagrams: class asynctask.Udp. */
#ifndef AT_IO_UDP_H
#define AT_IO_UDP_H

#include "core/runtime.h"

#define AT_UDP_MT "asynctask.Udp"

/* [-0, +1, m] pushes the Udp of a descriptor. 0, or a status (it is still the caller's). */
int at_udp_push(lua_State *L, at_runtime *rt, int fd);

/* [-0, +0, v] the descriptor of the Udp at `index`, -1 when it has none. */
int at_udp_fd(lua_State *L, int index);

void at_udp_open(lua_State *L, at_runtime *rt);

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
