/* socketcall.c - the system's calls for sockets, none of which blocks. Owns nothing. Loop thread
** only. Results, everywhere: what the call gave; or false when it would have to wait (then `ready`,
** and once more); or nil and LuaSocket's words. A socket without descriptor is "closed" to what
** sends, receives, connects and accepts. Addresses are the strings that `addresses` makes. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "io/address.h"
#include "io/socket.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* at_address_socket has set SO_NOSIGPIPE */
#endif

#define AT_SOCKET_PIECE (64 * 1024) /* the most that one call receives */

/* ---- results ---- */

static int again(lua_State *L) {
  lua_pushboolean(L, 0);
  return 1;
}

static int closed(lua_State *L) {
  lua_pushnil(L);
  lua_pushliteral(L, "closed");
  return 2;
}

static int would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

static int failed(lua_State *L, int error) {
  return would_block(error) ? again(L) : at_socket_failed(L, error);
}

static int succeeded(lua_State *L) {
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- addresses ---- */

static const char *family_name(int family) {
  switch (family) {
    case AF_INET: return "inet";
    case AF_INET6: return "inet6";
    default: return "unix";
  }
}

static int check_family(lua_State *L, int arg) {
  static const char *const names[] = {"inet", "inet6", "unix", "unspec", NULL};
  static const int families[] = {AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC};
  return families[luaL_checkoption(L, arg, "unspec", names)];
}

#define AT_SOCKET_ADDRESSES 8 /* more than a numeric host has */

/* Copies of numeric addresses: nothing may raise while getaddrinfo's list is held. */
typedef struct at_found {
  int count;
  struct sockaddr_storage names[AT_SOCKET_ADDRESSES];
  socklen_t sizes[AT_SOCKET_ADDRESSES];
} at_found;

/* An error of getaddrinfo. No Lua. */
static int find(at_found *found, const char *host, const char *port, const struct addrinfo *hints) {
  struct addrinfo *list = NULL, *a;
  int error = getaddrinfo(host, port, hints, &list);
  found->count = 0;
  if (error != 0) return error;
  for (a = list; a != NULL && found->count < AT_SOCKET_ADDRESSES; a = a->ai_next) {
    if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
    memcpy(&found->names[found->count], a->ai_addr, a->ai_addrlen);
    found->sizes[found->count++] = a->ai_addrlen;
  }
  freeaddrinfo(list);
  return 0;
}

/* addresses(host | nil, port, family, datagram) -> list of families and addresses in turn, for a
** numeric host (nil: every interface) and port; false when a name would have to be looked up */
int l_socket_addresses(lua_State *L) {
  const char *host = luaL_optstring(L, 1, NULL), *port = luaL_checkstring(L, 2);
  struct addrinfo hints;
  at_found found;
  int error, i;
  memset(&hints, 0, sizeof hints);
  hints.ai_family = check_family(L, 3);
  hints.ai_socktype = lua_toboolean(L, 4) ? SOCK_DGRAM : SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | (host == NULL ? AI_PASSIVE : 0);
  luaL_checkstack(L, 8, "addresses");
  error = find(&found, host, port, &hints);
  if (error == EAI_NONAME) return again(L);
  if (error == EAI_SYSTEM) return at_socket_failed(L, errno);
  if (error != 0) {
    lua_pushnil(L);
    lua_pushstring(L, gai_strerror(error));
    return 2;
  }
  lua_createtable(L, 2 * found.count, 0);
  for (i = 0; i < found.count; i++) {
    lua_pushstring(L, family_name(found.names[i].ss_family));
    lua_rawseti(L, -2, 2 * i + 1);
    lua_pushlstring(L, (const char *)&found.names[i], found.sizes[i]);
    lua_rawseti(L, -2, 2 * i + 2);
  }
  return 1;
}

/* [-0, +0, v] the address in the string at `arg`; a path when the socket is a Unix one. Its size,
** or 0 for a path that is too long. */
static socklen_t check_address(lua_State *L, int arg, int what, struct sockaddr_storage *out) {
  size_t size;
  const char *bytes = luaL_checklstring(L, arg, &size);
  struct sockaddr_un *un = (struct sockaddr_un *)out;
  memset(out, 0, sizeof *out);
  if (what == AT_SOCKET_TCP || what == AT_SOCKET_UDP) {
    luaL_argcheck(L, size <= sizeof *out, arg, "address expected");
    memcpy(out, bytes, size);
    return (socklen_t)size;
  }
  size = strlen(bytes); /* a zero byte ends it, as for LuaSocket */
  if (size >= sizeof un->sun_path) return 0;
  un->sun_family = AF_UNIX;
  memcpy(un->sun_path, bytes, size);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
}

static int too_long(lua_State *L) {
  lua_pushnil(L);
  lua_pushliteral(L, "path too long");
  return 2;
}

/* [-0, +n, m] pushes host and port (an integer), or a path; the number. */
static int push_address(lua_State *L, const struct sockaddr_storage *name, socklen_t size) {
  char host[NI_MAXHOST], port[8];
  int error;
  if (name->ss_family == AF_UNIX || name->ss_family == AF_UNSPEC) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)name;
    lua_pushstring(L, size > offsetof(struct sockaddr_un, sun_path) ? un->sun_path : "");
    return 1;
  }
  error = getnameinfo((const struct sockaddr *)name, size, host, sizeof host, port, sizeof port,
                      NI_NUMERICHOST | NI_NUMERICSERV);
  if (error != 0) {
    lua_pushnil(L);
    lua_pushstring(L, gai_strerror(error));
    return 2;
  }
  lua_pushstring(L, host);
  lua_pushinteger(L, strtol(port, NULL, 10));
  return 2;
}

static int push_name(lua_State *L, int peer) {
  int failure, fd = at_socket_fd(at_socket_check(L, 1));
  struct sockaddr_storage name[2]; /* the second: a zero behind the longest path */
  socklen_t size = sizeof name[0];
  memset(name, 0, sizeof name);
  failure = peer ? getpeername(fd, (struct sockaddr *)name, &size)
                 : getsockname(fd, (struct sockaddr *)name, &size);
  return failure != 0 ? at_socket_failed(L, errno) : push_address(L, name, size);
}

/* sockname(socket) -> host, port; or the path */
int l_socket_sockname(lua_State *L) { return push_name(L, 0); }

int l_socket_peername(lua_State *L) { return push_name(L, 1); }

/* hostname() -> the machine's */
int l_socket_hostname(lua_State *L) {
  char name[257];
  memset(name, 0, sizeof name);
  if (gethostname(name, sizeof name - 1) != 0) return at_socket_failed(L, errno);
  lua_pushstring(L, name);
  return 1;
}

/* ---- making ---- */

/* create(socket, family) -> true; what it had is closed before */
int l_socket_create(lua_State *L) {
  at_socketbox *box = at_socket_check(L, 1);
  int family = check_family(L, 2), status;
  int stream = box->what == AT_SOCKET_TCP || box->what == AT_SOCKET_UNIXSTREAM;
  int fd;
  luaL_argcheck(L, box->socket == NULL, 1, "socket has a descriptor");
  fd = at_address_socket(family, stream ? SOCK_STREAM : SOCK_DGRAM);
  if (fd < 0) return at_socket_failed(L, -fd);
  if (family == AF_INET6) /* as LuaSocket's: a wish */
    (void)at_address_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  status = at_socket_take(at_rt(L), box, fd);
  if (status == 0) return succeeded(L);
  (void)close(fd);
  return at_socket_failed(L, -status);
}

/* bind(socket, address) -> true */
int l_socket_bind(lua_State *L) {
  at_socketbox *box = at_socket_check(L, 1);
  struct sockaddr_storage name;
  socklen_t size = check_address(L, 2, box->what, &name);
  if (size == 0) return too_long(L);
  if (bind(at_socket_fd(box), (const struct sockaddr *)&name, size) == 0) return succeeded(L);
  return at_socket_failed(L, errno);
}

/* listen(socket, backlog) -> true */
int l_socket_listen(lua_State *L) {
  int fd = at_socket_fd(at_socket_check(L, 1));
  return listen(fd, (int)luaL_checknumber(L, 2)) != 0 ? at_socket_failed(L, errno) : succeeded(L);
}

/* connect(socket, address | nil) -> true; false: it has begun; nil: no longer, of datagrams */
int l_socket_connect(lua_State *L) {
  at_socketbox *box = at_socket_check(L, 1);
  int failure, fd = at_socket_fd(box);
  struct sockaddr_storage name;
  socklen_t size = sizeof(struct sockaddr_in6);
  memset(&name, 0, sizeof name); /* AF_UNSPEC */
  if (!lua_isnoneornil(L, 2)) {
    size = check_address(L, 2, box->what, &name);
    if (size == 0) return too_long(L);
  }
  if (fd < 0) return closed(L);
  do {
    failure = connect(fd, (const struct sockaddr *)&name, size);
  } while (failure != 0 && errno == EINTR);
  if (failure == 0) return succeeded(L);
  return errno == EINPROGRESS ? again(L) : failed(L, errno);
}

/* connected(socket) -> true; false: not yet */
int l_socket_connected(lua_State *L) {
  struct pollfd p;
  char byte;
  p.fd = at_socket_fd(at_socket_check(L, 1));
  p.events = POLLIN | POLLOUT;
  p.revents = 0;
  if (p.fd < 0) return closed(L);
  if (poll(&p, 1, 0) <= 0) return again(L);
  if ((p.revents & (POLLIN | POLLERR)) && recv(p.fd, &byte, 0, MSG_DONTWAIT) != 0)
    return at_socket_failed(L, errno);
  return succeeded(L);
}

/* A connection's descriptor, closed on exec and non-blocking, or -1. */
static int accept_one(int listening) {
#ifdef SOCK_CLOEXEC
  return accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
  int fd = accept(listening, NULL, NULL);
  if (fd < 0) return -1;
  (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
  (void)fcntl(fd, F_SETFL, O_NONBLOCK);
#ifdef SO_NOSIGPIPE
  (void)at_address_set(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
  return fd;
#endif
}

/* accept(server, socket) -> true; the socket, which has no descriptor, has the connection's then */
int l_socket_accept(lua_State *L) {
  int status, listening = at_socket_fd(at_socket_check(L, 1)), fd;
  at_socketbox *box = at_socket_check(L, 2);
  luaL_argcheck(L, box->socket == NULL, 2, "socket has a descriptor");
  if (listening < 0) return closed(L);
  do {
    fd = accept_one(listening);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return errno == ECONNABORTED ? again(L) : failed(L, errno);
  status = at_socket_take(at_rt(L), box, fd);
  if (status == 0) return succeeded(L);
  (void)close(fd);
  return at_socket_failed(L, -status);
}

/* ---- bytes ---- */

/* recv(socket, max) -> bytes, "" at the end of a stream */
int l_socket_recv(lua_State *L) {
  at_socketbox *box = at_socket_check(L, 1);
  int stream = box->what == AT_SOCKET_TCP || box->what == AT_SOCKET_UNIXSTREAM;
  lua_Number wanted = luaL_checknumber(L, 2);
  size_t max = wanted < 0 ? 0 : wanted < AT_SOCKET_PIECE ? (size_t)wanted : AT_SOCKET_PIECE;
  int fd = at_socket_fd(box);
  char bytes[AT_SOCKET_PIECE];
  ssize_t n;
  if (fd < 0) return closed(L);
  do {
    n = recv(fd, bytes, max, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return failed(L, errno);
  if (n == 0 && stream && max > 0) return closed(L);
  lua_pushlstring(L, bytes, (size_t)n);
  return 1;
}

/* recvfrom(socket, max) -> datagram, host, port; or datagram, path */
int l_socket_recvfrom(lua_State *L) {
  int fd = at_socket_fd(at_socket_check(L, 1));
  lua_Number wanted = luaL_checknumber(L, 2);
  size_t max = wanted < 0 ? 0 : wanted < AT_SOCKET_PIECE ? (size_t)wanted : AT_SOCKET_PIECE;
  struct sockaddr_storage name[2];
  socklen_t size = sizeof name[0];
  char bytes[AT_SOCKET_PIECE];
  ssize_t n;
  if (fd < 0) return closed(L);
  memset(name, 0, sizeof name);
  do {
    n = recvfrom(fd, bytes, max, MSG_DONTWAIT, (struct sockaddr *)name, &size);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return failed(L, errno);
  lua_pushlstring(L, bytes, (size_t)n);
  return 1 + push_address(L, name, size);
}

/* send(socket, data, first, last) -> how many bytes were taken, at least one (none: false) */
int l_socket_send(lua_State *L) {
  int fd = at_socket_fd(at_socket_check(L, 1));
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size);
  lua_Integer first = luaL_checkinteger(L, 3), last = luaL_checkinteger(L, 4);
  ssize_t n;
  luaL_argcheck(L, first >= 1 && first <= last + 1 && last <= (lua_Integer)size, 3,
                "out of the data");
  if (fd < 0) return closed(L);
  do {
    n = send(fd, data + first - 1, (size_t)(last - first + 1), MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return failed(L, errno);
  lua_pushinteger(L, n);
  return 1;
}

/* sendto(socket, data, address) -> how many bytes */
int l_socket_sendto(lua_State *L) {
  at_socketbox *box = at_socket_check(L, 1);
  int fd = at_socket_fd(box);
  size_t length;
  const char *data = luaL_checklstring(L, 2, &length);
  struct sockaddr_storage name;
  socklen_t size = check_address(L, 3, box->what, &name);
  ssize_t n;
  if (size == 0) return too_long(L);
  if (fd < 0) return closed(L);
  do {
    n = sendto(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&name,
               size);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return failed(L, errno);
  lua_pushinteger(L, n);
  return 1;
}

/* shutdown(socket, how): "receive", "send" or "both"; says nothing, as LuaSocket's */
int l_socket_shutdown(lua_State *L) {
  static const char *const names[] = {"receive", "send", "both", NULL};
  static const int hows[] = {SHUT_RD, SHUT_WR, SHUT_RDWR};
  int fd = at_socket_fd(at_socket_check(L, 1));
  (void)shutdown(fd, hows[luaL_checkoption(L, 2, "both", names)]); /* LuaSocket's is silent, too */
  return 0;
}
