/* socketoption.c - getoption and setoption of LuaSocket's objects: which options there are, for
** which kind of socket, and how their values look in Lua. Owns nothing. Loop thread only. Both
** functions are methods as they stand: wrong arguments are named as LuaSocket names them. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/arg.h"
#include "io/socket.h"

enum { BOOLEAN, INTEGER, LINGER, ERROR, INTERFACE, MEMBERSHIP, MEMBERSHIP6 };

#define TCP AT_SOCKET_TCP
#define UDP AT_SOCKET_UDP
#define US AT_SOCKET_UNIXSTREAM
#define UD AT_SOCKET_UNIXDGRAM

typedef struct option {
  const char *name;
  int level, option;
  unsigned char type, get, set; /* the kinds of socket that can */
} option;

static const option options[] = {
    {"keepalive", SOL_SOCKET, SO_KEEPALIVE, BOOLEAN, TCP, TCP | US},
    {"reuseaddr", SOL_SOCKET, SO_REUSEADDR, BOOLEAN, TCP | UDP, TCP | UDP | US | UD},
    {"reuseport", SOL_SOCKET, SO_REUSEPORT, BOOLEAN, TCP | UDP, TCP | UDP},
    {"dontroute", SOL_SOCKET, SO_DONTROUTE, BOOLEAN, UDP, UDP},
    {"broadcast", SOL_SOCKET, SO_BROADCAST, BOOLEAN, UDP, UDP},
    {"linger", SOL_SOCKET, SO_LINGER, LINGER, TCP, TCP | US},
    {"error", SOL_SOCKET, SO_ERROR, ERROR, TCP | UDP, 0},
    {"recv-buffer-size", SOL_SOCKET, SO_RCVBUF, INTEGER, TCP | UDP, TCP | UDP},
    {"send-buffer-size", SOL_SOCKET, SO_SNDBUF, INTEGER, TCP | UDP, TCP | UDP},
    {"tcp-nodelay", IPPROTO_TCP, TCP_NODELAY, BOOLEAN, TCP, TCP},
#ifdef TCP_KEEPIDLE
    {"tcp-keepidle", IPPROTO_TCP, TCP_KEEPIDLE, INTEGER, TCP, TCP},
#endif
#ifdef TCP_KEEPCNT
    {"tcp-keepcnt", IPPROTO_TCP, TCP_KEEPCNT, INTEGER, TCP, TCP},
#endif
#ifdef TCP_KEEPINTVL
    {"tcp-keepintvl", IPPROTO_TCP, TCP_KEEPINTVL, INTEGER, TCP, TCP},
#endif
#ifdef TCP_DEFER_ACCEPT
    {"tcp-defer-accept", IPPROTO_TCP, TCP_DEFER_ACCEPT, INTEGER, 0, TCP},
#endif
#ifdef TCP_FASTOPEN
    {"tcp-fastopen", IPPROTO_TCP, TCP_FASTOPEN, INTEGER, 0, TCP},
#endif
#ifdef TCP_FASTOPEN_CONNECT
    {"tcp-fastopen-connect", IPPROTO_TCP, TCP_FASTOPEN_CONNECT, INTEGER, 0, TCP},
#endif
    {"ip-multicast-if", IPPROTO_IP, IP_MULTICAST_IF, INTERFACE, UDP, UDP},
    {"ip-multicast-ttl", IPPROTO_IP, IP_MULTICAST_TTL, INTEGER, 0, UDP},
    {"ip-multicast-loop", IPPROTO_IP, IP_MULTICAST_LOOP, BOOLEAN, UDP, UDP},
    {"ip-add-membership", IPPROTO_IP, IP_ADD_MEMBERSHIP, MEMBERSHIP, 0, UDP},
    {"ip-drop-membership", IPPROTO_IP, IP_DROP_MEMBERSHIP, MEMBERSHIP, 0, UDP},
    {"ipv6-unicast-hops", IPPROTO_IPV6, IPV6_UNICAST_HOPS, INTEGER, UDP, UDP},
    {"ipv6-multicast-hops", IPPROTO_IPV6, IPV6_MULTICAST_HOPS, INTEGER, UDP, UDP},
    {"ipv6-multicast-loop", IPPROTO_IPV6, IPV6_MULTICAST_LOOP, BOOLEAN, UDP, UDP},
#ifdef IPV6_ADD_MEMBERSHIP
    {"ipv6-add-membership", IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, MEMBERSHIP6, 0, UDP},
    {"ipv6-drop-membership", IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, MEMBERSHIP6, 0, UDP},
#else
    {"ipv6-add-membership", IPPROTO_IPV6, IPV6_JOIN_GROUP, MEMBERSHIP6, 0, UDP},
    {"ipv6-drop-membership", IPPROTO_IPV6, IPV6_LEAVE_GROUP, MEMBERSHIP6, 0, UDP},
#endif
    {"ipv6-v6only", IPPROTO_IPV6, IPV6_V6ONLY, BOOLEAN, UDP, TCP | UDP},
    {NULL, 0, 0, 0, 0, 0}};

/* [-0, +0, v] the option named by argument 2. */
static const option *check_option(lua_State *L, const at_socketbox *box, int set) {
  const char *name = luaL_checkstring(L, 2);
  const option *o;
  for (o = options; o->name != NULL; o++)
    if (strcmp(o->name, name) == 0 && ((set ? o->set : o->get) & box->what)) return o;
  lua_pushfstring(L, "unsupported option `%s'", name);
  luaL_argerror(L, 2, lua_tostring(L, -1));
  return NULL; /* not reached */
}

static int failed(lua_State *L, const char *call) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s failed", call);
  return 2;
}

/* ---- reading ---- */

static int push_value(lua_State *L, const option *o, int fd) {
  union {
    int number;
    struct linger linger;
    struct in_addr address;
  } v;
  socklen_t size = o->type == LINGER      ? sizeof v.linger
                   : o->type == INTERFACE ? sizeof v.address
                                          : sizeof v.number;
  memset(&v, 0, sizeof v);
  if (getsockopt(fd, o->level, o->option, &v, &size) != 0) return failed(L, "getsockopt");
  switch (o->type) {
    case BOOLEAN: lua_pushboolean(L, v.number); break;
    case INTEGER: lua_pushnumber(L, v.number); break;
    case LINGER:
      lua_createtable(L, 0, 2);
      lua_pushboolean(L, v.linger.l_onoff);
      lua_setfield(L, -2, "on");
      lua_pushinteger(L, v.linger.l_linger);
      lua_setfield(L, -2, "timeout");
      break;
    case INTERFACE: {
      char text[INET_ADDRSTRLEN];
      lua_pushstring(L, inet_ntop(AF_INET, &v.address, text, sizeof text));
      break;
    }
    default: /* ERROR */
      if (v.number == 0)
        lua_pushnil(L);
      else
        at_socket_push_message(L, v.number);
  }
  return 1;
}

/* getoption(name) -> value, or nil and words: a method */
int l_socket_getoption(lua_State *L) {
  const at_socketbox *box = at_socket_check(L, 1);
  return push_value(L, check_option(L, box, 0), at_socket_fd(box));
}

/* ---- setting ---- */

static int set(lua_State *L, const option *o, int fd, const void *value, size_t size) {
  if (setsockopt(fd, o->level, o->option, value, (socklen_t)size) != 0)
    return failed(L, "setsockopt");
  lua_pushnumber(L, 1);
  return 1;
}

static int set_linger(lua_State *L, const option *o, int fd) {
  struct linger v;
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_getfield(L, 3, "on");
  luaL_argcheck(L, lua_isboolean(L, -1), 3, "boolean 'on' field expected");
  v.l_onoff = lua_toboolean(L, -1);
  lua_getfield(L, 3, "timeout");
  luaL_argcheck(L, lua_isnumber(L, -1), 3, "number 'timeout' field expected");
  v.l_linger = (int)lua_tonumber(L, -1);
  return set(L, o, fd, &v, sizeof v);
}

static int set_interface(lua_State *L, const option *o, int fd) {
  const char *text = luaL_checkstring(L, 3);
  struct in_addr v;
  v.s_addr = htonl(INADDR_ANY);
  luaL_argcheck(L, strcmp(text, "*") == 0 || inet_aton(text, &v) != 0, 3, "ip expected");
  return set(L, o, fd, &v, sizeof v);
}

static const char *address_field(lua_State *L, const char *field, const char *message) {
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_getfield(L, 3, field);
  luaL_argcheck(L, lua_isstring(L, -1), 3, message);
  return lua_tostring(L, -1);
}

static int set_membership(lua_State *L, const option *o, int fd) {
  const char *text = address_field(L, "multiaddr", "string 'multiaddr' field expected");
  struct ip_mreq v;
  luaL_argcheck(L, inet_aton(text, &v.imr_multiaddr) != 0, 3, "invalid 'multiaddr' ip address");
  text = address_field(L, "interface", "string 'interface' field expected");
  v.imr_interface.s_addr = htonl(INADDR_ANY);
  luaL_argcheck(L, strcmp(text, "*") == 0 || inet_aton(text, &v.imr_interface) != 0, 3,
                "invalid 'interface' ip address");
  return set(L, o, fd, &v, sizeof v);
}

static int set_membership6(lua_State *L, const option *o, int fd) {
  const char *text = address_field(L, "multiaddr", "string 'multiaddr' field expected");
  struct ipv6_mreq v;
  memset(&v, 0, sizeof v);
  luaL_argcheck(L, inet_pton(AF_INET6, text, &v.ipv6mr_multiaddr) == 1, 3,
                "invalid 'multiaddr' ip address");
  lua_getfield(L, 3, "interface");
  luaL_argcheck(L, lua_isnil(L, -1) || lua_isnumber(L, -1), 3, "number 'interface' field expected");
  v.ipv6mr_interface = (unsigned)lua_tonumber(L, -1);
  return set(L, o, fd, &v, sizeof v);
}

/* setoption(name, value) -> 1, or nil and words: a method */
int l_socket_setoption(lua_State *L) {
  const at_socketbox *box = at_socket_check(L, 1);
  const option *o = check_option(L, box, 1);
  int v, fd = at_socket_fd(box);
  switch (o->type) {
    case LINGER: return set_linger(L, o, fd);
    case INTERFACE: return set_interface(L, o, fd);
    case MEMBERSHIP: return set_membership(L, o, fd);
    case MEMBERSHIP6: return set_membership6(L, o, fd);
    case BOOLEAN:
      if (!lua_isboolean(L, 3)) at_arg_type_error(L, 3, "boolean");
      v = lua_toboolean(L, 3);
      break;
    default: v = (int)lua_tonumber(L, 3);
  }
  return set(L, o, fd, &v, sizeof v);
}
