/* udpoption.c - options of datagram sockets: broadcast, hops, multicast. Owns nothing. Each method gives
** true, or nil and an error object. Loop thread only. */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

#include "base/error.h"
#include "io/address.h"
#include "io/udp.h"

/* [-0, +1 or 2, m] */
static int outcome(lua_State *L, int status, const char *op) {
  if (status >= 0) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  if (status == UV_EBADF)
    at_error_push(L, "EBADF", "the socket is closed, or has not been bound", op);
  else
    at_error_push_uv(L, status, op, NULL);
  return 2;
}

static int is_v6(int fd) { return at_address_family(fd) == AF_INET6; }

/* Sets what has one name for IPv4 and another for IPv6. */
static int set_either(int fd, int v4, int v6, int value) {
  if (fd < 0) return UV_EBADF;
  return is_v6(fd) ? at_address_set(fd, IPPROTO_IPV6, v6, value)
                   : at_address_set(fd, IPPROTO_IP, v4, value);
}

static int on_argument(lua_State *L) {
  if (lua_isnoneornil(L, 2)) return 1;
  luaL_checktype(L, 2, LUA_TBOOLEAN);
  return lua_toboolean(L, 2);
}

static int hops_argument(lua_State *L) {
  lua_Integer hops = luaL_checkinteger(L, 2);
  luaL_argcheck(L, hops >= 0 && hops <= 255, 2, "number of hops between 0 and 255 expected");
  return (int)hops;
}

/* broadcast([on]) */
int l_udp_broadcast(lua_State *L) {
  int fd = at_udp_fd(L, 1), on = on_argument(L);
  return outcome(L, fd < 0 ? UV_EBADF : at_address_set(fd, SOL_SOCKET, SO_BROADCAST, on), "broadcast");
}

/* ttl(hops) */
int l_udp_ttl(lua_State *L) {
  int fd = at_udp_fd(L, 1), hops = hops_argument(L);
  return outcome(L, set_either(fd, IP_TTL, IPV6_UNICAST_HOPS, hops), "ttl");
}

/* multicast_ttl(hops) */
int l_udp_multicast_ttl(lua_State *L) {
  int fd = at_udp_fd(L, 1), hops = hops_argument(L);
  return outcome(L, set_either(fd, IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS, hops), "multicast_ttl");
}

/* multicast_loop([on]) */
int l_udp_multicast_loop(lua_State *L) {
  int fd = at_udp_fd(L, 1), on = on_argument(L);
  return outcome(L, set_either(fd, IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP, on), "multicast_loop");
}

/* An interface: its name ("lo"), or for IPv4 an address of it. A status. */
static int parse_interface(const char *text, int v6, struct ip_mreqn *request) {
  at_address a;
  unsigned index;
  request->imr_ifindex = 0;
  request->imr_address.s_addr = INADDR_ANY;
  if (text == NULL) return 0;
  index = if_nametoindex(text);
  if (index != 0) {
    request->imr_ifindex = (int)index;
    return 0;
  }
  if (v6 || at_address_parse(&a, text, 0) != 0 || a.name.ss_family != AF_INET) return UV_ENODEV;
  request->imr_address = ((struct sockaddr_in *)&a.name)->sin_addr;
  return 0;
}

/* multicast_interface(name or address) */
int l_udp_multicast_interface(lua_State *L) {
  int fd = at_udp_fd(L, 1), status = fd < 0 ? UV_EBADF : 0;
  const char *text = luaL_checkstring(L, 2);
  struct ip_mreqn request;
  memset(&request, 0, sizeof request);
  if (status == 0) status = parse_interface(text, is_v6(fd), &request);
  if (status == 0 && is_v6(fd)) {
    status = at_address_set(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, request.imr_ifindex);
  } else if (status == 0) {
    if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request) != 0) status = -errno;
  }
  return outcome(L, status, "multicast_interface");
}

static int membership(int fd, const at_address *group, const char *interface, int join) {
  struct ip_mreqn request;
  int v6 = group->name.ss_family == AF_INET6, status;
  memset(&request, 0, sizeof request);
  status = parse_interface(interface, v6, &request);
  if (status < 0) return status;
  if (v6) {
    struct ipv6_mreq six;
    six.ipv6mr_multiaddr = ((const struct sockaddr_in6 *)&group->name)->sin6_addr;
    six.ipv6mr_interface = (unsigned)request.imr_ifindex;
    return setsockopt(fd, IPPROTO_IPV6, join ? IPV6_ADD_MEMBERSHIP : IPV6_DROP_MEMBERSHIP, &six,
                      sizeof six) == 0 ? 0 : -errno;
  }
  request.imr_multiaddr = ((const struct sockaddr_in *)&group->name)->sin_addr;
  return setsockopt(fd, IPPROTO_IP, join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, &request,
                    sizeof request) == 0 ? 0 : -errno;
}

static int change(lua_State *L, int join) {
  int fd = at_udp_fd(L, 1);
  const char *group = luaL_checkstring(L, 2), *interface = luaL_optstring(L, 3, NULL);
  at_address a;
  luaL_argcheck(L, at_address_parse(&a, group, 0) == 0, 2, "numeric address of a group expected");
  return outcome(L, fd < 0 ? UV_EBADF : membership(fd, &a, interface, join), join ? "join" : "leave");
}

/* join(group [, interface]) */
int l_udp_join(lua_State *L) { return change(L, 1); }

/* leave(group [, interface]) */
int l_udp_leave(lua_State *L) { return change(L, 0); }

int l_udp_send_buffer_size(lua_State *L) {
  return at_address_buffer_size(L, at_udp_fd(L, 1), SO_SNDBUF, "send_buffer_size");
}

int l_udp_recv_buffer_size(lua_State *L) {
  return at_address_buffer_size(L, at_udp_fd(L, 1), SO_RCVBUF, "recv_buffer_size");
}

int l_udp_sockname(lua_State *L) { return at_address_push_name(L, at_udp_fd(L, 1), 0); }

int l_udp_peername(lua_State *L) { return at_address_push_name(L, at_udp_fd(L, 1), 1); }

int l_udp_get_fd(lua_State *L) {
  int fd = at_udp_fd(L, 1);
  if (fd < 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, fd);
  return 1;
}
