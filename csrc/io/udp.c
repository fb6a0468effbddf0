/* udp.c - datagram sockets: bind, connect, send, receive. Owns the descriptor, its poll handle, and
** datagrams that were received and nobody has taken. Options are in udpoption.c; names are resolved
** by udp.lua. Loop thread only.
** Invariants: the system is asked for a datagram only while a receive waits (the rest waits in its
** buffer, which drops what is too much); receives are served first in, first out; a received datagram
** belongs to an operation that ends or to `held`, so a cancelled receive loses none (S10); a send that
** is cancelled before its turn has sent nothing. */
#include "io/udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/sched.h"
#include "core/task.h"
#include "io/address.h"
#include "io/tcp.h"

#define AT_UDP_SIZE 65536 /* more than any datagram has */
#define AT_UDP_BURST 64   /* datagrams in one callback */

/* Defined where the system knows them; on Linux nothing can raise SIGPIPE here anyway. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

typedef struct at_udp at_udp;

typedef struct datagram {
  struct datagram *next;
  struct sockaddr_storage from;
  socklen_t from_size;
  size_t size;
  char bytes[];
} datagram;

/* A send or a receive that waits, or ends. */
typedef struct pending {
  at_op op;
  struct pending *next, **prev; /* prev NULL: not waiting */
  at_udp *udp;                  /* counted */
  struct pending ***last;       /* the end of the list that it is in */
  datagram *data;               /* owned: received, or to be sent (then from: whereto) */
} pending;

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
  datagram *held;  /* owned: oldest first */
  pending *receives, **last_receive; /* what waits, oldest first */
  pending *sends, **last_send;
};

typedef struct udpbox {
  at_udp *udp; /* counted; NULL before the first use, and once it is closed */
  unsigned char closed;
} udpbox;

/* ---- life ---- */

static void drop(at_udp *u) {
  datagram *d;
  if (--u->refs > 0) return;
  while ((d = u->held) != NULL) {
    u->held = d->next;
    free(d);
  }
  free(u);
}

static void on_closed(uv_handle_t *handle) { drop(handle->data); }

static void unlink_pending(pending *p) {
  *p->prev = p->next;
  if (p->next != NULL)
    p->next->prev = p->prev;
  else
    *p->last = p->prev;
  p->prev = NULL;
}

static void end(pending *p, int status) {
  unlink_pending(p);
  p->op.status = status;
  at_op_done(&p->op);
}

static void close_udp(at_udp *u) {
  if (u->fd < 0) return;
  u->refs++;
  at_closable_remove(&u->closable);
  uv_close((uv_handle_t *)&u->poll, on_closed);
  (void)close(u->fd);
  u->fd = -1;
  while (u->receives != NULL) end(u->receives, UV_EBADF);
  while (u->sends != NULL) end(u->sends, UV_EBADF);
  drop(u);
}

static void close_closable(at_runtime *rt, at_closable *c) {
  (void)rt;
  close_udp((at_udp *)(void *)((char *)c - offsetof(at_udp, closable)));
}

/* ---- the system ---- */

/* 0 and a datagram, or a negative status. */
static int receive(at_udp *u, datagram **out) {
  struct sockaddr_storage from;
  socklen_t from_size = sizeof from;
  datagram *d;
  char scratch[AT_UDP_SIZE]; /* on the stack: a thread-local one would not fit beside par's */
  ssize_t n;
  memset(&from, 0, sizeof from);
  do {
    n = recvfrom(u->fd, scratch, sizeof scratch, MSG_DONTWAIT, (struct sockaddr *)&from, &from_size);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  d = malloc(sizeof *d + (size_t)n); /* the operation's */
  if (d == NULL) return UV_ENOMEM;
  d->next = NULL;
  d->from = from;
  d->from_size = from_size;
  d->size = (size_t)n;
  memcpy(d->bytes, scratch, (size_t)n);
  *out = d;
  return 0;
}

static int put(at_udp *u, const void *bytes, size_t size, const struct sockaddr_storage *to,
               socklen_t to_size) {
  ssize_t n;
  do {
    n = sendto(u->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL,
               to_size > 0 ? (const struct sockaddr *)to : NULL, to_size);
  } while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : 0;
}

static int full(int status) { return status == -EAGAIN || status == -EWOULDBLOCK || status == -ENOBUFS; }

/* ---- polling ---- */

static void on_poll(uv_poll_t *handle, int status, int events);

static void update(at_udp *u) {
  int events = (u->receives != NULL ? UV_READABLE : 0) | (u->sends != NULL ? UV_WRITABLE : 0);
  if (u->fd < 0) return;
  if (events != u->events) {
    u->events = events;
    if (events == 0)
      (void)uv_poll_stop(&u->poll); /* cannot fail */
    else
      (void)uv_poll_start(&u->poll, events, on_poll); /* fails for a closing handle only */
  }
  if (events != 0)
    uv_ref((uv_handle_t *)&u->poll);
  else
    uv_unref((uv_handle_t *)&u->poll);
}

/* Ends the oldest receive with a datagram. */
static void hand_over(at_udp *u, datagram *d) {
  u->receives->data = d;
  end(u->receives, 0);
}

static void receive_waiting(at_udp *u) {
  int left = AT_UDP_BURST;
  while (u->receives != NULL && left-- > 0) {
    datagram *d = NULL;
    int status = receive(u, &d);
    if (status == 0)
      hand_over(u, d);
    else if (full(status))
      return;
    else
      end(u->receives, status); /* an error of the socket is told once, as it is by the system */
  }
}

static void send_waiting(at_udp *u) {
  while (u->sends != NULL) {
    datagram *d = u->sends->data;
    int status = put(u, d->bytes, d->size, &d->from, d->from_size);
    if (full(status)) return;
    end(u->sends, status);
  }
}

static void on_poll(uv_poll_t *handle, int status, int events) {
  at_udp *u = handle->data;
  if (status < 0) { /* uv stopped it; the calls say what it is */
    events = u->events;
    u->events = 0;
  }
  u->refs++;
  if (events & UV_WRITABLE) send_waiting(u);
  if (events & UV_READABLE) receive_waiting(u);
  at_sched_enter(u->rt);
  update(u);
  drop(u);
}

/* ---- making ---- */

static udpbox *check(lua_State *L) { return luaL_checkudata(L, 1, AT_UDP_MT); }

static udpbox *push_box(lua_State *L, at_runtime *rt) {
  udpbox *box;
  if (rt->closing) luaL_error(L, "asynctask: the runtime of this state is closed");
  luaL_checkstack(L, 3, "udp");
  box = lua_newuserdatauv(L, sizeof *box, 0);
  box->udp = NULL;
  box->closed = 0;
  luaL_setmetatable(L, AT_UDP_MT);
  return box;
}

/* Gives the box a descriptor. 0, or a status (it is the caller's). */
static int take(at_runtime *rt, udpbox *box, int fd) {
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
  udpbox *box = luaL_checkudata(L, index, AT_UDP_MT);
  return box->udp == NULL ? -1 : box->udp->fd;
}

/* The socket, made now for an address of this family if there is none. A status. */
static int ready(at_runtime *rt, udpbox *box, int family) {
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
static void map(const at_udp *u, at_address *a) {
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

static int failed(lua_State *L, at_runtime *rt, int status, const char *op, const at_address *a) {
  luaL_checkstack(L, 8, "udp");
  if (status == UV_EBADF)
    at_error_push(L, "EBADF", "the socket is closed", op);
  else
    at_error_push_uv(L, status, op, NULL);
  if (a != NULL) at_error_set(L, "address", a->text);
  at_task_failed(L, rt);
  return 1;
}

/* ---- the operations ---- */

static int pending_push(lua_State *L, at_op *op) {
  pending *p = (pending *)(void *)op;
  luaL_checkstack(L, 8, "udp");
  if (op->status < 0) {
    if (op->status == UV_EBADF)
      at_error_push(L, "EBADF", "the socket is closed", op->class->name);
    else
      at_error_push_uv(L, op->status, op->class->name, NULL);
    return AT_OP_FAILED;
  }
  if (p->last != &p->udp->last_receive) return 0;
  lua_pushlstring(L, p->data->bytes, p->data->size);
  at_address_push(L, &p->data->from, p->data->from_size);
  free(p->data);
  p->data = NULL;
  return 2;
}

static int pending_cancel(at_op *op) {
  pending *p = (pending *)(void *)op;
  if (p->prev == NULL) return 0;
  unlink_pending(p);
  return 1;
}

static void pending_release(at_op *op) {
  pending *p = (pending *)(void *)op;
  at_udp *u = p->udp;
  if (u != NULL) {
    if (p->data != NULL && p->last == &u->last_receive && u->fd >= 0) { /* nobody got it */
      datagram *d = p->data;
      p->data = NULL;
      if (u->receives != NULL) {
        hand_over(u, d);
      } else {
        d->next = u->held;
        u->held = d;
      }
    }
    update(u);
    drop(u);
  }
  free(p->data);
  free(p);
}

static const at_opclass receive_class = {"receive", pending_push, pending_cancel, pending_release,
                                         NULL, 0};
static const at_opclass send_class = {"send", pending_push, pending_cancel, pending_release, NULL, 0};

/* Waits in the list, with the datagram (taken, or freed if it fails). The Task keeps the socket alive. */
static int wait(lua_State *L, at_runtime *rt, at_udp *u, const at_opclass *class, pending ***last,
                datagram *d) {
  at_task *t = at_op_new(L, rt);
  pending *p = at_task_settled(t) ? NULL : at_op_alloc(L, rt, t, class, sizeof *p);
  if (p == NULL) {
    free(d);
    return 1;
  }
  p->udp = u;
  u->refs++;
  p->data = d;
  p->last = last;
  p->prev = *last;
  **last = p;
  *last = &p->next;
  update(u);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* receive() -> data, {host=, port=} */
static int l_udp_receive(lua_State *L) {
  udpbox *box = check(L);
  at_runtime *rt = at_rt(L);
  at_udp *u;
  datagram *d;
  int status;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  status = ready(rt, box, AF_INET);
  if (status < 0) return failed(L, rt, status, "receive", NULL);
  u = box->udp;
  d = u->held;
  if (d == NULL) return wait(L, rt, u, &receive_class, &u->last_receive, NULL);
  lua_pushlstring(L, d->bytes, d->size);
  at_address_push(L, &d->from, d->from_size);
  u->held = d->next;
  free(d);
  at_task_resolved(L, rt, 2);
  return 1;
}

/* try_receive() -> data, {host=, port=}; nil when there is none now, nil and the error otherwise */
static int l_udp_try_receive(lua_State *L) {
  udpbox *box = check(L);
  at_runtime *rt = at_rt(L);
  at_udp *u;
  datagram *d = NULL;
  int status = ready(rt, box, AF_INET);
  if (status == 0 && box->udp->held == NULL) {
    u = box->udp;
    status = u->receives != NULL ? UV_EAGAIN : receive(u, &d);
    if (status == 0) u->held = d; /* nothing was held */
  }
  if (status < 0) {
    lua_pushnil(L);
    if (full(status)) return 1;
    at_error_push_uv(L, status, "receive", NULL);
    return 2;
  }
  u = box->udp;
  d = u->held;
  lua_pushlstring(L, d->bytes, d->size);
  at_address_push(L, &d->from, d->from_size);
  u->held = d->next;
  free(d);
  return 2;
}

/* The datagram waits until the system takes it. */
static int send_later(lua_State *L, at_runtime *rt, at_udp *u, const char *bytes, size_t size,
                      const at_address *to) {
  datagram *d;
  (void)lua_newuserdatauv(L, 0, 0); /* [+1] memory for what follows may run out here, not later */
  lua_pop(L, 1);
  d = malloc(sizeof *d + size); /* wait takes it */
  if (d == NULL) return failed(L, rt, UV_ENOMEM, "send", to);
  memcpy(d->bytes, bytes, size);
  d->size = size;
  d->from_size = 0;
  if (to != NULL) {
    d->from = to->name;
    d->from_size = to->size;
  }
  return wait(L, rt, u, &send_class, &u->last_send, d);
}

/* send(data [, host, port]): the address is numeric; none for a connected socket */
static int l_udp_send(lua_State *L) {
  udpbox *box = check(L);
  at_runtime *rt = at_rt(L);
  at_address a, *to = NULL;
  size_t size;
  const char *bytes;
  int status;
  luaL_checktype(L, 2, LUA_TSTRING);
  bytes = lua_tolstring(L, 2, &size);
  if (!lua_isnoneornil(L, 3)) {
    luaL_argcheck(L, at_tcp_check_address(L, 3, &a), 3, "numeric address expected");
    to = &a;
  }
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  status = ready(rt, box, to != NULL ? a.name.ss_family : AF_INET);
  if (status < 0) return failed(L, rt, status, "send", to);
  if (to != NULL) map(box->udp, to);
  status = box->udp->sends != NULL ? UV_EAGAIN
                                   : put(box->udp, bytes, size, to != NULL ? &a.name : NULL,
                                         to != NULL ? a.size : 0);
  if (full(status)) return send_later(L, rt, box->udp, bytes, size, to);
  if (status < 0) return failed(L, rt, status, "send", to);
  at_task_resolved(L, rt, 0);
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
  udpbox *box = check(L);
  at_runtime *rt = at_rt(L);
  at_address a;
  int status;
  luaL_argcheck(L, at_tcp_check_address(L, 2, &a), 2, "numeric address expected");
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  status = ready(rt, box, a.name.ss_family);
  if (status == 0) status = options_before(box->udp->fd, L, 4);
  if (status == 0) map(box->udp, &a);
  if (status == 0 && bind(box->udp->fd, (const struct sockaddr *)&a.name, a.size) != 0)
    status = -errno;
  if (status < 0) return failed(L, rt, status, "bind", &a);
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
  udpbox *box = check(L);
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
  status = ready(rt, box, a.name.ss_family == AF_UNSPEC ? AF_INET : a.name.ss_family);
  if (status == 0) map(box->udp, &a);
  if (status == 0 && connect(box->udp->fd, (const struct sockaddr *)&a.name, a.size) != 0)
    status = -errno;
  if (status == 0 && a.name.ss_family == AF_UNSPEC) status = rebind(box->udp);
  if (status < 0) return failed(L, rt, status, "connect", *a.text != '\0' ? &a : NULL);
  at_task_resolved(L, rt, 0);
  return 1;
}

static int l_udp_close(lua_State *L) {
  udpbox *box = check(L);
  at_runtime *rt = at_rt(L);
  at_udp *u = box->udp;
  box->closed = 1;
  if (u != NULL) close_udp(u);
  at_task_resolved(L, rt, 0);
  return 1;
}

static int l_udp_gc(lua_State *L) {
  udpbox *box = lua_touserdata(L, 1);
  at_udp *u = box->udp;
  box->closed = 1;
  if (u == NULL) return 0;
  box->udp = NULL;
  close_udp(u);
  drop(u);
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
