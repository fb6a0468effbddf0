/* udp.c - the life of datagram sockets: made at the first use, bind, connect, close; the class. Owns the
** descriptor and its poll handle. Sending and receiving are in udpqueue.c, options in udpoption.c; names
** are resolved by udp.lua. Loop thread only. */
#include "io/udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/task.h"
#include "io/tcp.h"

/* ---- life ---- */

void at_udp_drop(at_udp *u) {
  at_datagram *d;
  if (--u->refs > 0) return;
  while ((d = u->held) != NULL) {
    u->held = d->next;
    free(d);
  }
  free(u);
}

static void on_closed(uv_handle_t *handle) { at_udp_drop(handle->data); }

static void close_udp(at_udp *u) {
  if (u->fd < 0) return;
  u->refs++;
  at_closable_remove(&u->closable);
  uv_close((uv_handle_t *)&u->poll, on_closed);
  (void)close(u->fd);
  u->fd = -1;
  at_udpqueue_end(u, UV_EBADF);
  at_udp_drop(u);
}

static void close_closable(at_runtime *rt, at_closable *c) {
  (void)rt;
  close_udp((at_udp *)(void *)((char *)c - offsetof(at_udp, closable)));
}

/* ---- making ---- */

at_udpbox *at_udp_self(lua_State *L) { return luaL_checkudata(L, 1, AT_UDP_MT); }

static at_udpbox *push_box(lua_State *L, at_runtime *rt) {
  at_udpbox *box;
  if (rt->closing) luaL_error(L, "asynctask: the runtime of this state is closed");
  luaL_checkstack(L, 3, "udp");
  box = lua_newuserdatauv(L, sizeof *box, 0);
  box->udp = NULL;
  box->closed = 0;
  luaL_setmetatable(L, AT_UDP_MT);
  return box;
}

/* Gives the box a descriptor. 0, or a status (it is the caller's). */
static int take(at_runtime *rt, at_udpbox *box, int fd) {
  at_udp *u = calloc(1, sizeof *u);
  int status;
  if (u == NULL) return UV_ENOMEM;
  status = uv_poll_init(rt->loop, &u->poll, fd);
  if (status < 0) {
    free(u);
    return status;
  }
  uv_unref((uv_handle_t *)&u->poll);
  u->poll.data = u;
  u->rt = rt;
  u->fd = fd;
  u->family = at_address_family(fd);
  u->refs = 2;
  u->last_receive = &u->receives;
  u->last_send = &u->sends;
  u->closable.close = close_closable;
  at_closable_add(rt, &u->closable);
  box->udp = u;
  return 0;
}

int at_udp_push(lua_State *L, at_runtime *rt, int fd) { return take(rt, push_box(L, rt), fd); }

int at_udp_fd(lua_State *L, int index) {
  at_udpbox *box = luaL_checkudata(L, index, AT_UDP_MT);
  return box->udp == NULL ? -1 : box->udp->fd;
}

/* The socket, made now for an address of this family if there is none. A status. */
int at_udp_ready(at_runtime *rt, at_udpbox *box, int family) {
  int fd, status;
  if (box->closed) return UV_EBADF;
  if (box->udp != NULL) return 0;
  fd = at_address_socket(family, SOCK_DGRAM);
  if (fd < 0) return fd;
  if (family == AF_INET6) (void)at_address_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0); /* a wish */
  status = take(rt, box, fd);
  if (status < 0) (void)close(fd);
  return status;
}

/* An IPv4 address for a socket of IPv6. */
void at_udp_map(const at_udp *u, at_address *a) {
  struct sockaddr_in v4;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a->name;
  if (u->family != AF_INET6 || a->name.ss_family != AF_INET) return;
  memcpy(&v4, &a->name, sizeof v4);
  memset(&a->name, 0, sizeof a->name);
  v6->sin6_family = AF_INET6;
  v6->sin6_port = v4.sin_port;
  memset(v6->sin6_addr.s6_addr + 10, 0xff, 2);
  memcpy(v6->sin6_addr.s6_addr + 12, &v4.sin_addr, 4);
  a->size = sizeof *v6;
}

/* ---- errors ---- */

int at_udp_failed(lua_State *L, at_runtime *rt, int status, const char *op, const at_address *a) {
  luaL_checkstack(L, 8, "udp");
  if (status == UV_EBADF)
    at_error_push(L, "EBADF", "the socket is closed", op);
  else
    at_error_push_uv(L, status, op, NULL);
  if (a != NULL) at_error_set(L, "address", a->text);
  at_task_failed(L, rt);
  return 1;
}

/* ---- bind, connect, close ---- */

static int options_before(int fd, lua_State *L, int arg) {
  int status = 0;
  if (at_arg_field_boolean(L, arg, "reuseaddr", 0))
    status = at_address_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
#ifdef SO_REUSEPORT
  if (status == 0 && at_arg_field_boolean(L, arg, "reuseport", 0))
    status = at_address_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
#endif
  if (status == 0 && at_address_family(fd) == AF_INET6)
    status = at_address_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, at_arg_field_boolean(L, arg, "ipv6only", 0));
  return status;
}

/* bind(host, port [, options]): the address is numeric */
static int l_udp_bind(lua_State *L) {
  at_udpbox *box = at_udp_self(L);
  at_runtime *rt = at_rt(L);
  at_address a;
  int status;
  luaL_argcheck(L, at_tcp_check_address(L, 2, &a), 2, "numeric address expected");
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  status = at_udp_ready(rt, box, a.name.ss_family);
  if (status == 0) status = options_before(box->udp->fd, L, 4);
  if (status == 0) at_udp_map(box->udp, &a);
  if (status == 0 && bind(box->udp->fd, (const struct sockaddr *)&a.name, a.size) != 0)
    status = -errno;
  if (status < 0) return at_udp_failed(L, rt, status, "bind", &a);
  box->udp->bound_size = sizeof box->udp->bound;
  if (getsockname(box->udp->fd, (struct sockaddr *)&box->udp->bound, &box->udp->bound_size) != 0)
    box->udp->bound_size = 0;
  at_task_resolved(L, rt, 0);
  return 1;
}

/* No longer connected: Linux then lets go of a port that it had chosen itself. A status. */
static int rebind(at_udp *u) {
  struct sockaddr_storage now;
  socklen_t size = sizeof now;
  memset(&now, 0, sizeof now);
  if (u->bound_size == 0 || getsockname(u->fd, (struct sockaddr *)&now, &size) != 0) return 0;
  if (((struct sockaddr_in *)&now)->sin_port != 0) return 0; /* sin6_port is at the same place */
  return bind(u->fd, (const struct sockaddr *)&u->bound, u->bound_size) == 0 ? 0 : -errno;
}

/* connect(host, port): sends go there, receives come from there only; connect(nil): no longer */
static int l_udp_connect(lua_State *L) {
  at_udpbox *box = at_udp_self(L);
  at_runtime *rt = at_rt(L);
  at_address a;
  int status;
  memset(&a, 0, sizeof a);
  a.name.ss_family = AF_UNSPEC;
  a.size = sizeof(struct sockaddr_in);
  if (!lua_isnoneornil(L, 2))
    luaL_argcheck(L, at_tcp_check_address(L, 2, &a), 2, "numeric address expected");
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  status = at_udp_ready(rt, box, a.name.ss_family == AF_UNSPEC ? AF_INET : a.name.ss_family);
  if (status == 0) at_udp_map(box->udp, &a);
  if (status == 0 && connect(box->udp->fd, (const struct sockaddr *)&a.name, a.size) != 0)
    status = -errno;
  if (status == 0 && a.name.ss_family == AF_UNSPEC) status = rebind(box->udp);
  if (status < 0) return at_udp_failed(L, rt, status, "connect", *a.text != '\0' ? &a : NULL);
  at_task_resolved(L, rt, 0);
  return 1;
}

static int l_udp_close(lua_State *L) {
  at_udpbox *box = at_udp_self(L);
  at_runtime *rt = at_rt(L);
  at_udp *u = box->udp;
  box->closed = 1;
  if (u != NULL) close_udp(u);
  at_task_resolved(L, rt, 0);
  return 1;
}

static int l_udp_gc(lua_State *L) {
  at_udpbox *box = lua_touserdata(L, 1);
  at_udp *u = box->udp;
  box->closed = 1;
  if (u == NULL) return 0;
  box->udp = NULL;
  close_udp(u);
  at_udp_drop(u);
  return 0;
}

/* udp() -> Udp without socket: what is done first chooses IPv4 or IPv6 */
static int l_net_udp(lua_State *L) {
  (void)push_box(L, at_rt(L));
  return 1;
}

/* [-0, +0, m] adds to core.net at the top; core.net.Udp is the metatable, to which udp.lua adds. */
void at_udp_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"udp", l_net_udp}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"bind", l_udp_bind},
                                     {"connect", l_udp_connect},
                                     {"send", l_udp_send},
                                     {"receive", l_udp_receive},
                                     {"try_receive", l_udp_try_receive},
                                     {"close", l_udp_close},
                                     {"sockname", l_udp_sockname},
                                     {"peername", l_udp_peername},
                                     {"fd", l_udp_get_fd},
                                     {"broadcast", l_udp_broadcast},
                                     {"ttl", l_udp_ttl},
                                     {"multicast_ttl", l_udp_multicast_ttl},
                                     {"multicast_loop", l_udp_multicast_loop},
                                     {"multicast_interface", l_udp_multicast_interface},
                                     {"join", l_udp_join},
                                     {"leave", l_udp_leave},
                                     {"send_buffer_size", l_udp_send_buffer_size},
                                     {"recv_buffer_size", l_udp_recv_buffer_size},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_udp_gc}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, AT_UDP_MT, methods, meta);
  luaL_getmetatable(L, AT_UDP_MT);
  lua_setfield(L, -2, "Udp");
}
