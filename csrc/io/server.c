/* server.c - accepting from a listening socket (listen.c makes it). Owns the listening descriptor, its poll handle, and
** connections that nobody has taken yet. Which handlers run is the business of net.lua.
** Loop thread only. Invariants: the socket is polled only while an accept waits (the rest waits in
** the system's backlog); an accepted descriptor belongs to a stream, to an operation that ends, or
** to `held`, so that a cancelled accept loses none; when descriptors run out, accepts wait and are
** tried again after a pause. */
#include "io/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "core/sched.h"
#include "core/task.h"
#include "io/address.h"
#include "io/stream.h"

#define AT_ACCEPT_PAUSE_MS 50 /* after running out of descriptors */
#define AT_ACCEPT_TRIES 1000  /* broken connections skipped in one call */
#define AT_ACCEPT_BURST 64    /* connections accepted in one callback */

/* An accept that waits, or ends. */
typedef struct at_accepting {
  at_op op;
  struct at_accepting *next, **prev; /* prev NULL: not waiting */
  at_server *server;                 /* counted */
  int fd;                            /* owned; -1: none */
  unsigned char counted;             /* in server->ending */
} at_accepting;

struct at_server {
  uv_poll_t poll;
  uv_timer_t pause;
  at_closable closable;
  at_runtime *rt;
  int fd;          /* owned; -1 once closed */
  int refs;        /* two handles, the box, each operation */
  int status;      /* why accepting ended */
  int *held;       /* owned: accepted, and nobody has it */
  int held_count, held_size;
  int ending;      /* operations that have a descriptor and are not settled yet */
  at_accepting *first, **last; /* what waits, oldest first */
  unsigned char polling, paused;
  unsigned char kind; /* of the streams: AT_STREAM_SOCKET or AT_STREAM_UNIX */
  struct stat bound; /* of the Unix socket's path, which is removed again */
  char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* ---- life ---- */

static void drop(at_server *s) {
  if (--s->refs > 0) return;
  free(s->held);
  free(s);
}

static void on_closed(uv_handle_t *handle) { drop(handle->data); }

static void unlink_path(at_server *s) {
  struct stat now;
  if (s->path[0] == '\0' || lstat(s->path, &now) != 0) return;
  if (now.st_ino == s->bound.st_ino && now.st_dev == s->bound.st_dev) (void)unlink(s->path);
}

static void end_waiting(at_server *s, int status);

static void close_server(at_server *s) {
  if (s->fd < 0) return;
  s->refs++;
  at_closable_remove(&s->closable);
  uv_close((uv_handle_t *)&s->poll, on_closed);
  uv_close((uv_handle_t *)&s->pause, on_closed);
  unlink_path(s);
  (void)close(s->fd);
  s->fd = -1;
  while (s->held_count > 0) (void)close(s->held[--s->held_count]);
  end_waiting(s, UV_EBADF);
  drop(s);
}

static void close_closable(at_runtime *rt, at_closable *c) {
  (void)rt;
  close_server((at_server *)(void *)((char *)c - offsetof(at_server, closable)));
}

/* ---- accepting ---- */

/* Errors of the connection, not of the server: accept(2) says to try again. */
static int passing(int error) {
  switch (error) {
    case EINTR: case ECONNABORTED: case EPROTO: case ENETDOWN: case ENOPROTOOPT: case EHOSTDOWN:
    case EHOSTUNREACH: case ENETUNREACH: case EOPNOTSUPP:
#ifdef ENONET
    case ENONET:
#endif
      return 1;
    default: return 0;
  }
}

static int accept_once(int listener) {
#ifdef SOCK_CLOEXEC
  return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
#else
  int fd = accept(listener, NULL, NULL);
  if (fd >= 0) (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
#endif
}

/* Room in `held` for one more than it may come to hold. */
static int reserve(at_server *s) {
  int *held, needed = s->held_count + s->ending + 1;
  if (needed <= s->held_size) return 0;
  held = realloc(s->held, (size_t)needed * 2 * sizeof *held);
  if (held == NULL) return UV_ENOMEM;
  s->held = held;
  s->held_size = needed * 2;
  return 0;
}

/* A connection, UV_EAGAIN when there is none or no means to take it now, or a status that ends the
** server's accepting. */
static int take(at_server *s) {
  int fd, tries = 0;
  if (s->held_count > 0) return s->held[--s->held_count];
  if (s->paused) return UV_EAGAIN;
  if (reserve(s) < 0) return UV_ENOMEM;
  do {
    fd = accept_once(s->fd);
  } while (fd < 0 && passing(errno) && tries++ < AT_ACCEPT_TRIES);
  if (fd >= 0) return fd;
  if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
    s->paused = 1;
    return UV_EAGAIN;
  }
  return errno == EWOULDBLOCK || passing(errno) ? UV_EAGAIN : -errno;
}

static void unlink_waiting(at_accepting *a) {
  *a->prev = a->next;
  if (a->next != NULL)
    a->next->prev = a->prev;
  else
    a->server->last = a->prev;
  a->prev = NULL;
}

static void end_waiting(at_server *s, int status) {
  at_accepting *a;
  while ((a = s->first) != NULL) {
    unlink_waiting(a);
    a->op.status = status;
    at_op_done(&a->op);
  }
}

/* Gives the oldest accept its connection. */
static void hand_over(at_server *s, int fd) {
  at_accepting *a = s->first;
  unlink_waiting(a);
  a->fd = fd;
  a->counted = 1;
  s->ending++;
  at_op_done(&a->op);
}

static void on_poll(uv_poll_t *handle, int status, int events);
static void on_pause(uv_timer_t *timer);

static void update(at_server *s) {
  int wanted = s->first != NULL && !s->paused;
  if (s->fd < 0) return;
  if (wanted != s->polling) {
    s->polling = (unsigned char)wanted;
    if (wanted)
      (void)uv_poll_start(&s->poll, UV_READABLE, on_poll); /* fails for a closing handle only */
    else
      (void)uv_poll_stop(&s->poll);
  }
  if (s->paused && s->first != NULL && !uv_is_active((uv_handle_t *)&s->pause))
    (void)uv_timer_start(&s->pause, on_pause, AT_ACCEPT_PAUSE_MS, 0);
  if (s->first != NULL) {
    uv_ref((uv_handle_t *)&s->poll);
    uv_ref((uv_handle_t *)&s->pause);
  } else {
    uv_unref((uv_handle_t *)&s->poll);
    uv_unref((uv_handle_t *)&s->pause);
  }
}

/* Accepts for those that wait, then lets them run. */
static void serve_waiting(at_server *s) {
  at_runtime *rt = s->rt;
  int left = AT_ACCEPT_BURST;
  s->refs++;
  while (s->first != NULL && s->fd >= 0 && left-- > 0) {
    int fd = take(s);
    if (fd == UV_EAGAIN) break;
    if (fd < 0) {
      end_waiting(s, fd);
      break;
    }
    hand_over(s, fd);
  }
  at_sched_enter(rt);
  update(s);
  drop(s);
}

static void on_poll(uv_poll_t *handle, int status, int events) {
  at_server *s = handle->data;
  (void)events;
  if (status < 0) s->polling = 0; /* uv stopped it; accept says what it is */
  serve_waiting(s);
}

static void on_pause(uv_timer_t *timer) {
  at_server *s = timer->data;
  s->paused = 0;
  serve_waiting(s);
}

/* ---- the operation ---- */

static void push_error(lua_State *L, int status) {
  luaL_checkstack(L, 8, "server");
  if (status == UV_EBADF)
    at_error_push(L, "EBADF", "the server is closed", "accept");
  else
    at_error_push_uv(L, status, "accept", NULL);
}

static int accepting_push(lua_State *L, at_op *op) {
  at_accepting *a = (at_accepting *)(void *)op;
  at_streambox *box;
  if (op->status == 0) {
    box = at_stream_box(L, op->rt);
    op->status = at_stream_take(op->rt, box, a->fd, a->server->kind);
    if (op->status == 0) {
      a->fd = -1;
      return 1;
    }
  }
  push_error(L, op->status);
  return AT_OP_FAILED;
}

static int accepting_cancel(at_op *op) {
  at_accepting *a = (at_accepting *)(void *)op;
  if (a->prev == NULL) return 0;
  unlink_waiting(a);
  return 1;
}

/* Lets go of a connection that nobody received: it goes to the next one who asks. */
static void give_back(at_server *s, int fd) {
  if (s->fd < 0)
    (void)close(fd);
  else if (s->first != NULL)
    hand_over(s, fd);
  else
    s->held[s->held_count++] = fd; /* there is room: see reserve */
}

static void accepting_release(at_op *op) {
  at_accepting *a = (at_accepting *)(void *)op;
  at_server *s = a->server;
  if (s != NULL) {
    s->ending -= a->counted;
    if (a->fd >= 0) give_back(s, a->fd);
    update(s);
    drop(s);
  }
  free(a);
}

static const at_opclass accept_class = {"accept", accepting_push, accepting_cancel,
                                        accepting_release, NULL, 0};

/* [-0, +1, m] pushes a Stream of the connection; if that raises, the server has it back. */
static int push_accepted(lua_State *L, at_runtime *rt, at_server *s, int fd) {
  at_streambox *box;
  int status;
  s->held[s->held_count++] = fd;
  box = at_stream_box(L, rt);
  fd = s->held[--s->held_count];
  status = at_stream_take(rt, box, fd, s->kind);
  if (status == 0) {
    at_task_resolved(L, rt, 1);
    return 1;
  }
  (void)close(fd);
  push_error(L, status);
  at_task_failed(L, rt);
  return 1;
}

/* Waits for the next connection, behind those that wait already. */
static int wait(lua_State *L, at_runtime *rt, at_server *s) {
  at_accepting *a;
  at_task *t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  a = at_op_alloc(L, rt, t, &accept_class, sizeof *a);
  if (a == NULL) return 1;
  a->fd = -1;
  a->server = s;
  s->refs++;
  a->prev = s->last;
  *s->last = a;
  s->last = &a->next;
  update(s);
  lua_pushvalue(L, 1); /* the Task keeps the server alive */
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* accept() -> stream */
static int l_server_accept(lua_State *L) {
  at_serverbox *box = luaL_checkudata(L, 1, AT_SERVER_MT);
  at_runtime *rt = at_rt(L);
  at_server *s = box->server;
  int fd;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (s == NULL || s->fd < 0) {
    push_error(L, UV_EBADF);
    at_task_failed(L, rt);
    return 1;
  }
  fd = s->first == NULL ? take(s) : UV_EAGAIN;
  if (fd >= 0) return push_accepted(L, rt, s, fd);
  if (fd == UV_EAGAIN) return wait(L, rt, s);
  push_error(L, fd);
  at_task_failed(L, rt);
  return 1;
}

/* stop(): takes no more connections; what waits ends with EBADF */
static int l_server_stop(lua_State *L) {
  at_serverbox *box = luaL_checkudata(L, 1, AT_SERVER_MT);
  if (box->server != NULL) close_server(box->server);
  return 0;
}

static int l_server_stopped(lua_State *L) {
  at_serverbox *box = luaL_checkudata(L, 1, AT_SERVER_MT);
  lua_pushboolean(L, box->server == NULL || box->server->fd < 0);
  return 1;
}

static int l_server_sockname(lua_State *L) {
  at_serverbox *box = luaL_checkudata(L, 1, AT_SERVER_MT);
  return at_address_push_name(L, box->server == NULL ? -1 : box->server->fd, 0);
}

/* fd() -> integer, or nil once it is stopped */
static int l_server_fd(lua_State *L) {
  int fd = at_server_fd(L, 1);
  if (fd < 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, fd);
  return 1;
}

static int l_server_gc(lua_State *L) {
  at_serverbox *box = lua_touserdata(L, 1);
  at_server *s = box->server;
  if (s == NULL) return 0;
  box->server = NULL;
  close_server(s);
  drop(s);
  return 0;
}

/* ---- making ---- */

at_serverbox *at_server_box(lua_State *L, at_runtime *rt) {
  at_serverbox *box;
  if (rt->closing) luaL_error(L, "asynctask: the runtime of this state is closed");
  luaL_checkstack(L, 3, "server");
  box = lua_newuserdatauv(L, sizeof *box, 0);
  box->server = NULL;
  luaL_setmetatable(L, AT_SERVER_MT);
  return box;
}

int at_server_take(at_runtime *rt, at_serverbox *box, int fd, const char *path) {
  at_server *s = calloc(1, sizeof *s);
  int status;
  if (s == NULL) return UV_ENOMEM;
  status = uv_poll_init(rt->loop, &s->poll, fd);
  if (status < 0) {
    free(s);
    return status;
  }
  (void)uv_timer_init(rt->loop, &s->pause); /* cannot fail */
  uv_unref((uv_handle_t *)&s->poll);
  uv_unref((uv_handle_t *)&s->pause);
  s->poll.data = s->pause.data = s;
  s->rt = rt;
  s->fd = fd;
  s->kind = at_address_family(fd) == AF_UNIX ? AT_STREAM_UNIX : AT_STREAM_SOCKET;
  s->refs = 3;
  s->last = &s->first;
  if (path != NULL && *path != '\0' && lstat(path, &s->bound) == 0)
    memcpy(s->path, path, strlen(path) + 1);
  s->closable.close = close_closable;
  at_closable_add(rt, &s->closable);
  box->server = s;
  return 0;
}

int at_server_push(lua_State *L, at_runtime *rt, int fd) {
  return at_server_take(rt, at_server_box(L, rt), fd, NULL);
}

int at_server_fd(lua_State *L, int index) {
  at_serverbox *box = luaL_checkudata(L, index, AT_SERVER_MT);
  return box->server == NULL ? -1 : box->server->fd;
}

/* [-0, +0, m] core.net.Server is the metatable, to which net.lua adds serve and close. */
void at_server_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg methods[] = {{"accept", l_server_accept},
                                     {"stop", l_server_stop},
                                     {"stopped", l_server_stopped},
                                     {"fd", l_server_fd},
                                     {"sockname", l_server_sockname},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_server_gc}, {NULL, NULL}};
  at_runtime_class(L, rt, AT_SERVER_MT, methods, meta);
  luaL_getmetatable(L, AT_SERVER_MT);
  lua_setfield(L, -2, "Server");
}
