/* stream.c - the life of a stream: descriptor, poll handle, counting, closing; its class.
** Owns the malloc'd at_stream; calls the kernel, receiver.c, writer.c, ending.c. Loop thread only.
** Invariants: an at_stream lives until its handle's close callback has run, its userdata is
** collected and no operation points to it; it is polled only for what somebody wants; the handle
** counts for the loop's life only while an operation waits or bytes are queued. */
#include "io/stream.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "core/sched.h"
#include "core/task.h"
#include "io/address.h"

struct at_scratch {
  int refs; /* the registry's userdata, each stream */
  char bytes[AT_STREAM_MARK];
};

static const char scratch_key = 's';
static const char kind = 'k'; /* its address is what a box holds */

/* ---- shared memory ---- */

static void scratch_drop(at_scratch *scratch) {
  if (scratch != NULL && --scratch->refs == 0) free(scratch);
}

static int l_scratch_gc(lua_State *L) {
  at_scratch **holder = lua_touserdata(L, 1);
  scratch_drop(*holder);
  *holder = NULL;
  return 0;
}

char *at_stream_scratch(at_stream *s) { return s->scratch->bytes; }

/* ---- life ---- */

void at_stream_hold(at_stream *s) { s->refs++; }

void at_stream_drop(at_stream *s) {
  if (--s->refs > 0) return;
  at_buffer_free(&s->in.buffer);
  scratch_drop(s->scratch);
  free(s);
}

at_stream *at_stream_open_one(const at_streambox *box) {
  at_stream *s = box->stream;
  return s == NULL || s->closing ? NULL : s;
}

/* ---- polling ---- */

static void on_poll(uv_poll_t *handle, int status, int events);

void at_stream_update(at_stream *s) {
  int events = 0;
  if (s->fd < 0 || s->in_poll) return;
  if (s->connecting != NULL || s->head != NULL) events |= UV_WRITABLE;
  if (s->in.wanted && !s->in.ended && s->in.status == 0 && s->handle_count < AT_STREAM_HANDLES)
    events |= UV_READABLE;
  if (events != s->events) {
    s->events = (unsigned char)events;
    if (events == 0)
      (void)uv_poll_stop(&s->poll); /* cannot fail */
    else
      (void)uv_poll_start(&s->poll, events, on_poll); /* fails for a closing handle only */
  }
  if (s->waits > 0 || s->head != NULL)
    uv_ref((uv_handle_t *)&s->poll);
  else
    uv_unref((uv_handle_t *)&s->poll);
}

/* uv reports an error on the descriptor as UV_EBADF and stops polling: the calls themselves say
** what it is. */
static void on_poll(uv_poll_t *handle, int status, int events) {
  at_stream *s = handle->data;
  at_runtime *rt = s->rt;
  at_stream_hold(s);
  s->in_poll = 1;
  if (status < 0) {
    events = s->events;
    s->events = 0;
  }
  if (s->connecting != NULL) {
    s->connected(s, 0);
  } else {
    if ((events & UV_WRITABLE) && s->fd >= 0) at_writer_flush(s);
    if ((events & UV_READABLE) && s->fd >= 0) at_receiver_run(s);
  }
  at_sched_enter(rt);
  s->in_poll = 0;
  if (s->fd >= 0) {
    if (at_buffer_keep(&s->in.buffer) < 0) s->in.status = UV_ENOMEM;
    at_stream_update(s);
  }
  at_stream_drop(s);
}

/* ---- reading ---- */

static at_stream *of_inlet(at_inlet *in) {
  return (at_stream *)(void *)((char *)in - offsetof(at_stream, in));
}

static void begin_reading(at_inlet *in) {
  at_stream *s = of_inlet(in);
  at_stream_hold(s);
  s->waits++;
  at_stream_update(s);
}

static void end_reading(at_inlet *in) {
  at_stream *s = of_inlet(in);
  s->waits--;
  at_stream_update(s);
  at_stream_drop(s);
}

static const at_inletclass inlet_class = {begin_reading, end_reading, NULL, NULL};

/* ---- closing ---- */

static void on_closed(uv_handle_t *handle) { at_stream_drop(handle->data); }

void at_stream_abort(at_stream *s) {
  int fd = s->fd;
  s->closing = 1;
  if (fd < 0) return;
  at_stream_hold(s);
  s->fd = -1;
  at_closable_remove(&s->closable);
  uv_close((uv_handle_t *)&s->poll, on_closed);
  (void)close(fd); /* whatever it says, the descriptor is gone */
  if (s->connecting != NULL) s->connected(s, UV_EBADF);
  at_reader_end(&s->in, UV_EBADF);
  at_writer_end(s, UV_EBADF);
  at_handle_end(s, UV_EBADF);
  at_ending_end(s, UV_EBADF);
  at_stream_drop(s);
}

void at_stream_shut_pipe(at_stream *s) {
  int fd = s->fd;
  s->fd = -1;
  s->in.ended = 1;
  at_closable_remove(&s->closable);
  uv_close((uv_handle_t *)&s->poll, on_closed);
  (void)close(fd);
}

static void close_closable(at_runtime *rt, at_closable *c) {
  at_stream *s = (at_stream *)(void *)((char *)c - offsetof(at_stream, closable));
  (void)rt;
  at_stream_abort(s);
}

/* ---- making ---- */

at_streambox *at_stream_box(lua_State *L, at_runtime *rt) {
  at_streambox *box;
  if (rt->closing) luaL_error(L, "asynctask: the runtime of this state is closed");
  luaL_checkstack(L, 3, "stream");
  box = lua_newuserdatauv(L, sizeof *box, 0);
  box->stream = NULL;
  box->kind = &kind;
  luaL_setmetatable(L, AT_STREAM_MT);
  return box;
}

int at_stream_take(at_runtime *rt, at_streambox *box, int fd, int what) {
  at_stream *s = calloc(1, sizeof *s);
  int status;
  if (s == NULL) return UV_ENOMEM;
  status = uv_poll_init(rt->loop, &s->poll, fd);
  if (status < 0) {
    free(s);
    return status;
  }
  uv_unref((uv_handle_t *)&s->poll);
  s->in.class = &inlet_class;
  s->poll.data = s;
  s->rt = rt;
  s->box = box;
  s->fd = fd;
  s->refs = 2;
  s->mark = AT_STREAM_MARK;
  s->is_socket = what != AT_STREAM_FILE;
  s->is_unix = what == AT_STREAM_UNIX;
  lua_rawgetp(rt->A, LUA_REGISTRYINDEX, &scratch_key);
  s->scratch = *(at_scratch **)lua_touserdata(rt->A, -1);
  lua_pop(rt->A, 1);
  s->scratch->refs++;
  s->closable.close = close_closable;
  at_closable_add(rt, &s->closable);
  box->stream = s;
  return 0;
}

/* ---- errors ---- */

void at_stream_push_error(lua_State *L, int status, const char *op) {
  switch (status) {
    case UV_EBADF: at_error_push(L, "EBADF", "the stream is closed", op); break;
    case UV_EBUSY: at_error_push(L, "EBUSY", "another task is reading this stream", op); break;
    case UV_ENOTSUP:
      at_error_push(L, "ENOTSUP", "handles of this kind, or over this kind of stream, are not sent", op);
      break;
    case UV_EMSGSIZE:
      at_error_push(L, "EMSGSIZE", "no end within the most bytes that were to be looked at", op);
      break;
    default: at_error_push_uv(L, status, op, NULL);
  }
}

int at_stream_failed(lua_State *L, at_runtime *rt, int status, const char *op) {
  luaL_checkstack(L, 8, "stream");
  at_stream_push_error(L, status, op);
  at_task_failed(L, rt);
  return 1;
}

/* ---- the class ---- */

/* Cheaper than comparing metatables: no other memory can hold the kind, a collected box lost it. (Light
** userdata has length 0, and what has a length and is no userdata gives no pointer.) */
at_streambox *at_stream_self(lua_State *L) {
  at_streambox *box = lua_touserdata(L, 1);
  if (box != NULL && lua_rawlen(L, 1) == sizeof *box && box->kind == &kind) return box;
  return luaL_checkudata(L, 1, AT_STREAM_MT); /* raises */
}

static at_inlet *inlet(lua_State *L) {
  at_stream *s = at_stream_open_one(at_stream_self(L));
  return s == NULL ? NULL : &s->in;
}

static int l_stream_read(lua_State *L) { return at_reader_read(L, inlet(L)); }

static int l_stream_read_some(lua_State *L) { return at_reader_read_some(L, inlet(L)); }

static int l_stream_read_until(lua_State *L) { return at_reader_read_until(L, inlet(L)); }

/* sockname() -> {host=, port=} or {path=}; nil, error when it has none. */
static int l_stream_sockname(lua_State *L) {
  at_stream *s = at_stream_self(L)->stream;
  return at_address_push_name(L, s == NULL ? -1 : s->fd, 0);
}

static int l_stream_peername(lua_State *L) {
  at_stream *s = at_stream_self(L)->stream;
  return at_address_push_name(L, s == NULL ? -1 : s->fd, 1);
}

/* [-0, +1 or 2, m] true, or nil and the error of a getter or setter. */
static int push_outcome(lua_State *L, int status, const char *op) {
  if (status == 0) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  at_stream_push_error(L, status, op);
  return 2;
}

static int on_argument(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return 1;
  luaL_checktype(L, arg, LUA_TBOOLEAN);
  return lua_toboolean(L, arg);
}

/* nodelay([on]) */
static int l_stream_nodelay(lua_State *L) {
  at_stream *s = at_stream_open_one(at_stream_self(L));
  int on = on_argument(L, 2);
  return push_outcome(L, s == NULL ? UV_EBADF : at_address_nodelay(s->fd, on), "nodelay");
}

/* keepalive([on [, seconds]]) */
static int l_stream_keepalive(lua_State *L) {
  at_stream *s = at_stream_open_one(at_stream_self(L));
  int on = on_argument(L, 2);
  lua_Number seconds = luaL_optnumber(L, 3, 0);
  luaL_argcheck(L, seconds >= 0 && seconds <= 32767, 3, "seconds out of range");
  return push_outcome(L, s == NULL ? UV_EBADF : at_address_keepalive(s->fd, on, (int)ceil(seconds)),
                      "keepalive");
}

/* send_buffer_size([bytes]) -> bytes, of the system's buffer; it may take more than was asked for */
static int l_stream_send_buffer_size(lua_State *L) {
  at_stream *s = at_stream_open_one(at_stream_self(L));
  return at_address_buffer_size(L, s == NULL ? -1 : s->fd, SO_SNDBUF, "send_buffer_size");
}

static int l_stream_recv_buffer_size(lua_State *L) {
  at_stream *s = at_stream_open_one(at_stream_self(L));
  return at_address_buffer_size(L, s == NULL ? -1 : s->fd, SO_RCVBUF, "recv_buffer_size");
}

/* fd() -> integer, or nil once closed */
static int l_stream_fd(lua_State *L) {
  at_stream *s = at_stream_self(L)->stream;
  if (s == NULL || s->fd < 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, s->fd);
  return 1;
}

static int l_stream_tostring(lua_State *L) {
  at_streambox *box = luaL_checkudata(L, 1, AT_STREAM_MT);
  if (at_stream_open_one(box) == NULL)
    lua_pushliteral(L, "asynctask.Stream (closed)");
  else
    lua_pushfstring(L, "asynctask.Stream: %p", (void *)box->stream);
  return 1;
}

static int l_stream_gc(lua_State *L) {
  at_streambox *box = luaL_checkudata(L, 1, AT_STREAM_MT);
  at_stream *s = box->stream;
  box->kind = NULL;
  if (s == NULL) return 0;
  box->stream = NULL;
  s->box = NULL;
  if (s->fd >= 0) at_ending_finish(s);
  at_stream_drop(s);
  return 0;
}

/* [-0, +0, m] core.net.Stream is the metatable: the Lua face adds lines and __close. */
void at_stream_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg methods[] = {{"read", l_stream_read},
                                     {"read_some", l_stream_read_some},
                                     {"read_until", l_stream_read_until},
                                     {"write", l_stream_write},
                                     {"shutdown", l_stream_shutdown},
                                     {"close", l_stream_close},
                                     {"sockname", l_stream_sockname},
                                     {"peername", l_stream_peername},
                                     {"nodelay", l_stream_nodelay},
                                     {"keepalive", l_stream_keepalive},
                                     {"send_buffer_size", l_stream_send_buffer_size},
                                     {"recv_buffer_size", l_stream_recv_buffer_size},
                                     {"send_handle", l_stream_send_handle},
                                     {"receive_handle", l_stream_receive_handle},
                                     {"fd", l_stream_fd},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {
      {"__gc", l_stream_gc}, {"__tostring", l_stream_tostring}, {NULL, NULL}};
  at_scratch **holder;
  at_runtime_class(L, rt, AT_STREAM_MT, methods, meta);
  luaL_getmetatable(L, AT_STREAM_MT);
  lua_setfield(L, -2, "Stream");

  holder = lua_newuserdatauv(L, sizeof *holder, 0);
  *holder = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, l_scratch_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  *holder = malloc(sizeof **holder);
  if (*holder == NULL) luaL_error(L, "not enough memory");
  (*holder)->refs = 1;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &scratch_key);
}
