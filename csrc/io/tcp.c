/* tcp.c - connecting to one numeric address, TCP or Unix, and pairs. Which addresses a name has and
** in what order they are tried is the business of net.lua. Loop thread only.
** Invariant: until the connection stands, its stream is known to nobody but the operation, which
** aborts it when it ends otherwise: no descriptor is left. */
#include "io/tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/task.h"

/* A connection being made. The Task's user value is the stream's box. */
struct at_connecting {
  at_op op;
  at_stream *stream; /* counted; its `connecting` is NULL once the outcome is known */
  at_address address;
};

/* ---- arguments ---- */

int at_tcp_check_address(lua_State *L, int arg, at_address *a) {
  size_t size;
  const char *text;
  lua_Integer port;
  if (lua_istable(L, arg)) {
    if (lua_getfield(L, arg, "path") != LUA_TSTRING)
      luaL_argerror(L, arg, "host, or a table with a path expected");
    text = lua_tolstring(L, -1, &size);
    luaL_argcheck(L, size > 0, arg, "path is empty");
    luaL_argcheck(L, *text == '\0' || strlen(text) == size, arg, "path contains a zero byte");
    luaL_argcheck(L, at_address_path(a, text, size) == 0, arg, "path is too long");
    lua_pop(L, 1);
    return 1;
  }
  if (lua_type(L, arg) != LUA_TSTRING) at_arg_type_error(L, arg, "string");
  text = lua_tolstring(L, arg, &size);
  luaL_argcheck(L, size > 0, arg, "host is empty");
  luaL_argcheck(L, strlen(text) == size, arg, "host contains a zero byte");
  if (lua_type(L, arg + 1) != LUA_TNUMBER) at_arg_type_error(L, arg + 1, "port number");
  port = luaL_checkinteger(L, arg + 1);
  luaL_argcheck(L, port >= 0 && port <= 65535, arg + 1, "port is not between 0 and 65535");
  return at_address_parse(a, text, (int)port) == 0;
}

static void push_error(lua_State *L, int status, const char *op, const at_address *a) {
  luaL_checkstack(L, 8, "socket");
  at_error_push_uv(L, status, op, a->name.ss_family == AF_UNIX ? a->text : NULL);
  if (a->name.ss_family != AF_UNIX) at_error_set(L, "address", a->text);
}

int at_tcp_failed(lua_State *L, at_runtime *rt, int status, const char *op, const at_address *a) {
  push_error(L, status, op, a);
  at_task_failed(L, rt);
  return 1;
}

/* ---- the operation ---- */

static int connecting_push(lua_State *L, at_op *op) {
  struct at_connecting *c = (struct at_connecting *)(void *)op;
  if (op->status < 0) {
    push_error(L, op->status, "connect", &c->address);
    return AT_OP_FAILED;
  }
  at_op_push_task(L, op);
  lua_getiuservalue(L, -1, 1);
  return 1;
}

/* The outcome is known, or (status < 0) the stream is being closed. */
static void connected(at_stream *s, int status) {
  struct at_connecting *c = s->connecting;
  socklen_t size = sizeof status;
  if (status == 0 && getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &status, &size) != 0) status = errno;
  s->connecting = NULL;
  c->op.status = status > 0 ? -status : status;
  at_op_done(&c->op);
  if (status > 0) at_stream_abort(s);
}

static int connecting_cancel(at_op *op) {
  struct at_connecting *c = (struct at_connecting *)(void *)op;
  int known = c->stream->connecting == NULL;
  c->stream->connecting = NULL;
  at_stream_abort(c->stream);
  return !known;
}

static void connecting_release(at_op *op) {
  struct at_connecting *c = (struct at_connecting *)(void *)op;
  if (c->stream != NULL) {
    c->stream->waits--;
    at_stream_update(c->stream);
    at_stream_drop(c->stream);
  }
  free(c);
}

static const at_opclass connect_class = {"connect", connecting_push, connecting_cancel,
                                         connecting_release, NULL, 0};

/* How the socket is made. */
typedef struct dialling {
  at_address from; /* size 0: the system chooses */
  int local_port, nodelay, keepalive, fastopen;
} dialling;

/* Reads the options at `arg`. */
static void check_dialling(lua_State *L, int arg, dialling *d) {
  const char *from = NULL;
  d->local_port = (int)at_arg_field_integer(L, arg, "local_port", 0, 0, 65535);
  d->from.size = 0;
  d->nodelay = at_arg_field_boolean(L, arg, "nodelay", 1);
  d->fastopen = at_arg_field_boolean(L, arg, "fastopen", 0);
  d->keepalive = (int)at_arg_field_integer(L, arg, "keepalive", -1, 0, 32767);
  if (lua_istable(L, arg)) {
    lua_getfield(L, arg, "local_address");
    from = lua_tostring(L, -1); /* stays in the table */
    lua_pop(L, 1);
  }
  if (from != NULL && at_address_parse(&d->from, from, d->local_port) != 0)
    luaL_argerror(L, arg, "option 'local_address': numeric address expected");
}

/* Options before the connection; but for the address they are wishes. A status. */
static int prepare(int fd, const at_address *to, const dialling *d) {
  const at_address *from = &d->from;
  at_address any;
  if (to->name.ss_family == AF_UNIX) return 0;
  if (d->nodelay) (void)at_address_nodelay(fd, 1);
  if (d->keepalive >= 0) (void)at_address_keepalive(fd, 1, d->keepalive);
#ifdef TCP_FASTOPEN_CONNECT
  if (d->fastopen) (void)at_address_set(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
#endif
  if (from->size == 0) {
    if (d->local_port == 0) return 0;
    (void)at_address_parse(&any, to->name.ss_family == AF_INET6 ? "::" : "0.0.0.0", d->local_port);
    from = &any;
  }
  (void)at_address_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  return bind(fd, (const struct sockaddr *)&from->name, from->size) == 0 ? 0 : -errno;
}

/* A socket in the box that is connected (1), connecting (0), or a negative status. No Lua. */
static int begin(at_runtime *rt, at_streambox *box, const at_address *a, const dialling *d) {
  int done = 0, status, fd = at_address_socket(a->name.ss_family, SOCK_STREAM);
  if (fd < 0) return fd;
  status = prepare(fd, a, d);
  if (status == 0) {
    do {
      done = connect(fd, (const struct sockaddr *)&a->name, a->size) == 0;
    } while (!done && errno == EINTR);
    status = done || errno == EINPROGRESS ? 0 : -errno;
  }
  if (status == 0)
    status = at_stream_take(rt, box, fd,
                            a->name.ss_family == AF_UNIX ? AT_STREAM_UNIX : AT_STREAM_SOCKET);
  if (status == 0) return done;
  (void)close(fd);
  return status;
}

/* connect(host, port, options) or connect({path=}, nil, options): the addresses are numeric */
static int l_net_connect(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_address a;
  dialling d;
  at_streambox *box;
  struct at_connecting *c;
  at_task *t;
  int status;
  luaL_argcheck(L, at_tcp_check_address(L, 1, &a), 1, "numeric address expected");
  check_dialling(L, 3, &d);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  box = at_stream_box(L, rt); /* stack: ... box */
  status = begin(rt, box, &a, &d);
  if (status < 0) return at_tcp_failed(L, rt, status, "connect", &a);
  if (status == 1) {
    at_task_resolved(L, rt, 1);
    return 1;
  }
  t = at_op_new(L, rt);
  c = at_op_alloc(L, rt, t, &connect_class, sizeof *c);
  if (c == NULL) {
    at_stream_abort(box->stream);
    return 1;
  }
  lua_pushvalue(L, -2);
  lua_setiuservalue(L, -2, 1);
  c->address = a;
  c->stream = box->stream;
  at_stream_hold(c->stream);
  c->stream->waits++;
  c->stream->connecting = c;
  c->stream->connected = connected;
  at_stream_update(c->stream);
  return 1;
}

/* pair() -> two streams, connected to each other */
static int l_net_pair(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_streambox *one, *other;
  int fds[2], status;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  one = at_stream_box(L, rt);
  other = at_stream_box(L, rt);
#ifdef SOCK_CLOEXEC
  status = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0 ? 0 : -errno;
#else
  status = socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0 ? 0 : -errno;
#endif
  if (status < 0) return at_stream_failed(L, rt, status, "pair");
  status = at_stream_take(rt, one, fds[0], AT_STREAM_UNIX);
  if (status < 0) {
    (void)close(fds[0]);
    (void)close(fds[1]);
    return at_stream_failed(L, rt, status, "pair");
  }
  status = at_stream_take(rt, other, fds[1], AT_STREAM_UNIX);
  if (status < 0) {
    (void)close(fds[1]);
    at_stream_abort(one->stream);
    return at_stream_failed(L, rt, status, "pair");
  }
  at_task_resolved(L, rt, 2);
  return 1;
}

/* is_numeric(host): no name that has to be resolved */
static int l_net_is_numeric(lua_State *L) {
  at_address a;
  lua_pushboolean(L, at_address_parse(&a, luaL_checkstring(L, 1), 0) == 0);
  return 1;
}

/* [-0, +0, m] adds to core.net at the top */
void at_tcp_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"connect", l_net_connect},
                                       {"pair", l_net_pair},
                                       {"is_numeric", l_net_is_numeric},
                                       {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
