/* socket.c - the life of a socket: userdata, descriptor, closing, giving away. Owns the malloc'd
** at_socket; calls the kernel and socketready.c. Loop thread only.
** Invariants: an at_socket has had one descriptor and dies with it; it lives until its handle's
** close callback has run, its box has let go and no operation points to it. The classes that Lua
** sees ("tcp{client}"...) are metatables made by `class`; C knows a box by its mark. */
#include "io/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/error.h"
#include "core/task.h"
#include "io/stream.h"

static const char kind = 'k'; /* its address is what a box holds */

/* ---- life ---- */

void at_socket_drop(at_socket *s) {
  if (--s->refs == 0) free(s);
}

static void on_closed(uv_handle_t *handle) { at_socket_drop(handle->data); }

/* Ends the socket, of which the caller holds a reference. Returns its descriptor, which is the
** caller's then. No Lua. */
static int end(at_socket *s) {
  int fd = s->fd;
  s->fd = -1;
  at_closable_remove(&s->closable);
  if (s->polled)
    uv_close((uv_handle_t *)&s->poll, on_closed); /* the handle's reference goes there */
  else
    s->refs--;
  at_socketready_end(s);
  return fd;
}

static void close_closable(at_runtime *rt, at_closable *c) {
  at_socket *s = (at_socket *)(void *)((char *)c - offsetof(at_socket, closable));
  (void)rt;
  s->refs++;
  (void)close(end(s)); /* whatever it says, the descriptor is gone */
  at_socket_drop(s);
}

/* Takes the descriptor out of the box: -1 when it has none. No Lua. */
static int detach(at_socketbox *box) {
  at_socket *s = box->socket;
  int fd = -1;
  if (s == NULL) return -1;
  box->socket = NULL;
  if (s->fd >= 0) fd = end(s);
  at_socket_drop(s);
  return fd;
}

int at_socket_fd(const at_socketbox *box) { return box->socket == NULL ? -1 : box->socket->fd; }

int at_socket_take(at_runtime *rt, at_socketbox *box, int fd) {
  at_socket *s;
  if (rt->closing) return UV_ECANCELED;
  s = calloc(1, sizeof *s);
  if (s == NULL) return UV_ENOMEM;
  s->rt = rt;
  s->fd = fd;
  s->refs = 2; /* the box, the handle that is or is to be */
  s->closable.close = close_closable;
  at_closable_add(rt, &s->closable);
  box->socket = s;
  return 0;
}

/* ---- the userdata ---- */

at_socketbox *at_socket_test(lua_State *L, int index) {
  at_socketbox *box = lua_touserdata(L, index);
  if (box == NULL || lua_rawlen(L, index) != sizeof *box || box->kind != &kind) return NULL;
  return box;
}

at_socketbox *at_socket_check(lua_State *L, int arg) {
  at_socketbox *box = at_socket_test(L, arg);
  if (box == NULL) luaL_argerror(L, arg, "socket expected");
  return box;
}

static int l_box_gc(lua_State *L) {
  at_socketbox *box = lua_touserdata(L, 1);
  int fd;
  if (at_socket_test(L, 1) == NULL) return 0;
  box->kind = NULL;
  fd = detach(box);
  if (fd >= 0) (void)close(fd);
  return 0;
}

/* class(name) -> metatable of a kind of sockets */
static int l_socket_class(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_createtable(L, 0, 5);
  lua_pushvalue(L, 1);
  lua_setfield(L, -2, "__name");
  lua_pushcfunction(L, l_box_gc);
  lua_setfield(L, -2, "__gc");
  return 1;
}

/* new(metatable, what, state) -> socket without descriptor; `state` is Lua's */
static int l_socket_new(lua_State *L) {
  static const char *const names[] = {"tcp", "udp", "unixstream", "unixdgram", NULL};
  at_socketbox *box;
  int what;
  luaL_checktype(L, 1, LUA_TTABLE);
  what = 1 << luaL_checkoption(L, 2, NULL, names);
  luaL_checkany(L, 3);
  if (at_rt(L)->closing) return luaL_error(L, "asynctask: the runtime of this state is closed");
  box = lua_newuserdatauv(L, sizeof *box, 1);
  box->kind = &kind;
  box->socket = NULL;
  box->what = what;
  lua_pushvalue(L, 1);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* state(value) -> the state of a socket; nil if it is none */
static int l_socket_state(lua_State *L) {
  if (at_socket_test(L, 1) == NULL)
    lua_pushnil(L);
  else
    lua_getiuservalue(L, 1, 1);
  return 1;
}

/* retype(socket, metatable): a master becomes a client */
static int l_socket_retype(lua_State *L) {
  (void)at_socket_check(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_setmetatable(L, 1);
  return 0;
}

/* ---- descriptors ---- */

/* close(socket); never waits */
static int l_socket_close(lua_State *L) {
  int fd = detach(at_socket_check(L, 1));
  if (fd >= 0) (void)close(fd);
  return 0;
}

/* getfd() -> number, -1 when there is none: as LuaSocket's method */
static int l_socket_getfd(lua_State *L) {
  lua_pushnumber(L, at_socket_fd(at_socket_check(L, 1)));
  return 1;
}

/* setfd(number): what it had before stays open and is whoever's; a negative one: none */
static int l_socket_setfd(lua_State *L) {
  at_socketbox *box = at_socket_check(L, 1);
  int fd = (int)luaL_checknumber(L, 2), status;
  (void)detach(box); /* LuaSocket's rule: it is forgotten, not closed */
  if (fd < 0) return 0;
  /* fails for what is no descriptor: the calls say so */
  (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  status = at_socket_take(at_rt(L), box, fd);
  if (status < 0) return luaL_error(L, "setfd: %s", uv_strerror(status));
  return 0;
}

/* stream(socket) -> Stream that has its descriptor, which the socket has no more; nil, error */
static int l_socket_stream(lua_State *L) {
  at_socketbox *box = at_socket_check(L, 1);
  at_runtime *rt = at_rt(L);
  at_streambox *stream = at_stream_box(L, rt);
  int kind_of = box->what == AT_SOCKET_TCP ? AT_STREAM_SOCKET : AT_STREAM_UNIX;
  int fd = detach(box);
  int status = fd < 0 ? UV_EBADF : at_stream_take(rt, stream, fd, kind_of);
  if (status == 0) return 1;
  if (fd >= 0) (void)close(fd);
  lua_pushnil(L);
  at_stream_push_error(L, status, "stream");
  return 2;
}

/* duplicate(fd) -> socket for waiting only, of a copy of somebody's descriptor; nil: it is none */
static int l_socket_duplicate(lua_State *L) {
  at_socketbox *box;
  int fd;
  luaL_checktype(L, 1, LUA_TTABLE);
  fd = (int)luaL_checknumber(L, 2);
  lua_settop(L, 1);
  box = lua_newuserdatauv(L, sizeof *box, 1);
  box->kind = &kind;
  box->socket = NULL;
  box->what = 0;
  lua_pushvalue(L, 1);
  lua_setmetatable(L, -2);
  fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (fd >= 0 && at_socket_take(at_rt(L), box, fd) == 0) return 1;
  if (fd >= 0) (void)close(fd);
  lua_pushnil(L);
  return 1;
}

/* gettime() -> seconds since 1970, a float */
static int l_socket_gettime(lua_State *L) {
  struct timeval now;
  (void)gettimeofday(&now, NULL); /* cannot fail */
  lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_usec / 1e6);
  return 1;
}

/* ---- words ---- */

void at_socket_push_message(lua_State *L, int error) {
  char text[256];
  switch (error) {
    case EADDRINUSE: lua_pushliteral(L, "address already in use"); return;
    case EISCONN: lua_pushliteral(L, "already connected"); return;
    case EACCES: lua_pushliteral(L, "permission denied"); return;
    case ECONNREFUSED: lua_pushliteral(L, "connection refused"); return;
    case EPIPE:
    case ECONNABORTED:
    case ECONNRESET: lua_pushliteral(L, "closed"); return;
    case ETIMEDOUT: lua_pushliteral(L, "timeout"); return;
    default: break;
  }
#if defined(__GLIBC__) && defined(_GNU_SOURCE)
  lua_pushstring(L, strerror_r(error, text, sizeof text)); /* GNU's: may be text of its own */
#else
  if (strerror_r(error, text, sizeof text) != 0) text[0] = '\0';
  lua_pushstring(L, text);
#endif
}

int at_socket_failed(lua_State *L, int error) {
  lua_pushnil(L);
  at_socket_push_message(L, error);
  return 2;
}

void at_socket_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"class", l_socket_class},       {"new", l_socket_new},
      {"state", l_socket_state},       {"retype", l_socket_retype},
      {"close", l_socket_close},       {"getfd", l_socket_getfd},
      {"setfd", l_socket_setfd},       {"stream", l_socket_stream},
      {"duplicate", l_socket_duplicate}, {"gettime", l_socket_gettime},
      {"ready", l_socket_ready},       {"ready_any", l_socket_ready_any},
      {"poll", l_socket_poll},         {"addresses", l_socket_addresses},
      {"create", l_socket_create},     {"bind", l_socket_bind},
      {"listen", l_socket_listen},     {"connect", l_socket_connect},
      {"connected", l_socket_connected}, {"accept", l_socket_accept},
      {"recv", l_socket_recv},         {"recvfrom", l_socket_recvfrom},
      {"send", l_socket_send},         {"sendto", l_socket_sendto},
      {"shutdown", l_socket_shutdown}, {"sockname", l_socket_sockname},
      {"peername", l_socket_peername}, {"hostname", l_socket_hostname},
      {"getoption", l_socket_getoption}, {"setoption", l_socket_setoption},
      {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
