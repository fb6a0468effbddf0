/* address.c - socket addresses and options: into and out of Lua tables. Owns nothing; calls Lua and
** the system, never libuv's loop; any thread, on its own state. */
#include "io/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "base/error.h"

int at_address_parse(at_address *a, const char *host, int port) {
  memset(a, 0, sizeof *a);
  if (uv_ip4_addr(host, port, (struct sockaddr_in *)&a->name) == 0) {
    a->size = sizeof(struct sockaddr_in);
    (void)snprintf(a->text, sizeof a->text, "%s:%d", host, port);
    return 0;
  }
  if (uv_ip6_addr(host, port, (struct sockaddr_in6 *)&a->name) == 0) {
    a->size = sizeof(struct sockaddr_in6);
    (void)snprintf(a->text, sizeof a->text, "[%s]:%d", host, port);
    return 0;
  }
  return UV_EINVAL;
}

int at_address_path(at_address *a, const char *path, size_t size) {
  struct sockaddr_un *un = (struct sockaddr_un *)&a->name;
  memset(a, 0, sizeof *a);
  if (size >= sizeof un->sun_path) return UV_ENAMETOOLONG;
  un->sun_family = AF_UNIX;
  memcpy(un->sun_path, path, size);
  a->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (*path != '\0'));
  (void)snprintf(a->text, sizeof a->text, "%s%s", *path == '\0' ? "@" : "",
                 *path == '\0' ? path + 1 : path);
  return 0;
}

static void push_unix(lua_State *L, const struct sockaddr_un *un, socklen_t size) {
  size_t length = size > offsetof(struct sockaddr_un, sun_path)
                      ? size - offsetof(struct sockaddr_un, sun_path) : 0;
  if (length > 0 && un->sun_path[0] != '\0') length = strnlen(un->sun_path, length);
  lua_pushlstring(L, un->sun_path, length);
  lua_setfield(L, -2, "path");
}

void at_address_push(lua_State *L, const struct sockaddr_storage *name, socklen_t size) {
  char host[AT_ADDRESS_TEXT];
  int port, v6 = name->ss_family == AF_INET6;
  lua_createtable(L, 0, 3);
  if (name->ss_family == AF_UNIX) {
    push_unix(L, (const struct sockaddr_un *)name, size);
    return;
  }
  if (v6) {
    (void)uv_ip6_name((const struct sockaddr_in6 *)name, host, sizeof host); /* large enough */
    port = ntohs(((const struct sockaddr_in6 *)name)->sin6_port);
  } else {
    (void)uv_ip4_name((const struct sockaddr_in *)name, host, sizeof host);
    port = ntohs(((const struct sockaddr_in *)name)->sin_port);
  }
  lua_pushstring(L, host);
  lua_setfield(L, -2, "host");
  lua_pushinteger(L, port);
  lua_setfield(L, -2, "port");
  lua_pushstring(L, v6 ? "ipv6" : "ipv4");
  lua_setfield(L, -2, "family");
}

int at_address_push_name(lua_State *L, int fd, int peer) {
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  int failed;
  if (fd < 0) {
    lua_pushnil(L);
    at_error_push(L, "EBADF", "the socket is closed", peer ? "peername" : "sockname");
    return 2;
  }
  memset(&name, 0, sizeof name);
  failed = peer ? getpeername(fd, (struct sockaddr *)&name, &size)
                : getsockname(fd, (struct sockaddr *)&name, &size);
  if (failed != 0) {
    lua_pushnil(L);
    at_error_push_uv(L, -errno, peer ? "peername" : "sockname", NULL);
    return 2;
  }
  at_address_push(L, &name, size);
  return 1;
}

int at_address_set(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) == 0 ? 0 : -errno;
}

int at_address_get(int fd, int level, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  return getsockopt(fd, level, option, &value, &size) == 0 ? value : -errno;
}

int at_address_family(int fd) {
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  memset(&name, 0, sizeof name);
  return getsockname(fd, (struct sockaddr *)&name, &size) == 0 ? name.ss_family : AF_UNSPEC;
}

int at_address_nodelay(int fd, int on) { return at_address_set(fd, IPPROTO_TCP, TCP_NODELAY, on); }

int at_address_keepalive(int fd, int on, int seconds) {
  int status = at_address_set(fd, SOL_SOCKET, SO_KEEPALIVE, on);
#ifdef TCP_KEEPIDLE
  if (status == 0 && on && seconds > 0) status = at_address_set(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
#else
  (void)seconds;
#endif
  return status;
}

int at_address_socket(int family, int type) {
#ifdef SOCK_CLOEXEC
  int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  return fd < 0 ? -errno : fd;
#else
  int fd = socket(family, type, 0);
  if (fd < 0) return -errno;
  (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
  (void)fcntl(fd, F_SETFL, O_NONBLOCK);
#ifdef SO_NOSIGPIPE
  (void)at_address_set(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
  return fd;
#endif
}

int at_address_buffer_size(lua_State *L, int fd, int option, const char *op) {
  int size = 0, status = fd < 0 ? UV_EBADF : 0;
  if (!lua_isnoneornil(L, 2)) {
    lua_Integer wanted = luaL_checkinteger(L, 2);
    luaL_argcheck(L, wanted > 0 && wanted <= INT_MAX, 2, "number of bytes expected");
    if (status == 0) status = at_address_set(fd, SOL_SOCKET, option, (int)wanted);
  }
  if (status == 0) status = size = at_address_get(fd, SOL_SOCKET, option);
  if (status < 0) {
    lua_pushnil(L);
    at_error_push_uv(L, status, op, NULL);
    return 2;
  }
  lua_pushinteger(L, size);
  return 1;
}
