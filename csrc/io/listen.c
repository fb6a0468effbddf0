/* listen.c - listening sockets: bound to an address, or inherited as descriptors. Owns nothing; hands
** descriptors to server.c. Loop thread only. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/task.h"
#include "io/server.h"
#include "io/tcp.h"

#define AT_LISTEN_FIRST 3 /* SD_LISTEN_FDS_START of sd_listen_fds(3) */

typedef struct listen_options {
  int backlog, reuseport, ipv6only, fastopen;
} listen_options;

/* Options of a TCP socket before it is bound. */
static int prepare(int fd, int family, const listen_options *o) {
  int status = at_address_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  (void)at_address_nodelay(fd, 1); /* a wish; what is accepted inherits it */
  if (status == 0 && o->reuseport) {
#ifdef SO_REUSEPORT
    status = at_address_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
#else
    status = UV_ENOTSUP;
#endif
  }
  if (status == 0 && family == AF_INET6)
    status = at_address_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, o->ipv6only);
#ifdef TCP_FASTOPEN
  if (o->fastopen > 0) (void)at_address_set(fd, IPPROTO_TCP, TCP_FASTOPEN, o->fastopen); /* a wish */
#endif
  return status;
}

/* A listening descriptor, or a negative status. No Lua. */
static int listen_on(const at_address *a, const listen_options *o) {
  int family = a->name.ss_family, status = 0, fd = at_address_socket(family, SOCK_STREAM);
  if (fd < 0) return fd;
  if (family != AF_UNIX) status = prepare(fd, family, o);
  if (status == 0 && bind(fd, (const struct sockaddr *)&a->name, a->size) != 0) status = -errno;
  if (status == 0 && listen(fd, o->backlog) != 0) status = -errno;
  if (status == 0) return fd;
  (void)close(fd);
  return status;
}

/* listen(host, port, options) or listen({path=}, nil, options): the address is numeric */
static int l_net_listen(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_serverbox *box;
  listen_options o;
  at_address a;
  const char *path;
  int fd, status;
  luaL_argcheck(L, at_tcp_check_address(L, 1, &a), 1, "numeric address expected");
  o.backlog = (int)at_arg_field_integer(L, 3, "backlog", 511, 1, 65535);
  o.reuseport = at_arg_field_boolean(L, 3, "reuseport", 0);
  o.ipv6only = at_arg_field_boolean(L, 3, "ipv6only", 0);
  o.fastopen = (int)at_arg_field_integer(L, 3, "fastopen", 0, 0, 65535);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  box = at_server_box(L, rt); /* stack: ... box */
  path = a.name.ss_family == AF_UNIX ? ((const struct sockaddr_un *)&a.name)->sun_path : NULL;
  fd = listen_on(&a, &o);
  status = fd < 0 ? fd : at_server_take(rt, box, fd, path);
  if (status < 0) {
    if (fd >= 0) (void)close(fd);
    return at_tcp_failed(L, rt, status, "listen", &a);
  }
  at_task_resolved(L, rt, 1);
  return 1;
}

/* The descriptor if it listens; else a negative status. */
static int listening(int fd) {
  int listens = at_address_get(fd, SOL_SOCKET, SO_ACCEPTCONN);
  if (listens < 0) return listens;
  if (listens == 0 || at_address_get(fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM) return UV_EINVAL;
  return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? fd : -errno;
}

/* listen_fd(fd) -> server of a descriptor that listens already; it belongs to the server from then on */
static int l_net_listen_fd(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int fd = (int)luaL_checkinteger(L, 1), status;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  status = listening(fd);
  if (status >= 0) status = at_server_push(L, rt, fd);
  if (status < 0) {
    at_error_push_uv(L, status, "listen", NULL);
    at_task_failed(L, rt);
    return 1;
  }
  at_task_resolved(L, rt, 1);
  return 1;
}

/* inherited() -> how many descriptors the service manager has passed, from 3 on, and their names. They
** are closed on exec from now on. 0 when they are meant for another process. */
static int l_net_inherited(lua_State *L) {
  const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
  const char *names = getenv("LISTEN_FDNAMES");
  char *end = NULL;
  long count = fds != NULL ? strtol(fds, &end, 10) : 0, i;
  if (pid == NULL || strtol(pid, NULL, 10) != (long)getpid() || count < 0 || count > 65535) count = 0;
  for (i = 0; i < count; i++)
    if (fcntl(AT_LISTEN_FIRST + (int)i, F_SETFD, FD_CLOEXEC) != 0) count = i; /* it is not there */
  lua_pushinteger(L, count);
  lua_pushstring(L, count > 0 ? names : NULL);
  return 2;
}

/* [-0, +0, m] adds to core.net at the top */
void at_listen_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"listen", l_net_listen},
                                       {"listen_fd", l_net_listen_fd},
                                       {"inherited", l_net_inherited},
                                       {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
