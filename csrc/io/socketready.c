/* socketready.c - waiting for sockets: `ready` for one, `ready_any` for several, `poll`, which asks
** and does not wait. Owns the requests; an entry belongs to its request and is in the list of its
** socket while it waits. Loop thread only.
** Invariants: a request has ended or all its entries are in lists; nothing is read or written here,
** so a wait that is cancelled has taken nothing (S10). */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "core/sched.h"
#include "core/task.h"
#include "io/socket.h"

typedef struct at_ready {
  at_op op;
  int count; /* entries whose socket is set */
  at_readyentry entries[];
} at_ready;

/* ---- lists ---- */

static void on_poll(uv_poll_t *handle, int status, int events);

/* Polls for what is waited for. */
static void update(at_socket *s) {
  const at_readyentry *e;
  int events = 0;
  if (s->fd < 0 || !s->polled) return;
  for (e = s->entries; e != NULL; e = e->next) events |= e->events;
  if (events != s->events) {
    s->events = events;
    if (events == 0)
      (void)uv_poll_stop(&s->poll); /* cannot fail */
    else
      (void)uv_poll_start(&s->poll, events, on_poll); /* fails for a closing handle only */
  }
  if (events != 0)
    uv_ref((uv_handle_t *)&s->poll);
  else
    uv_unref((uv_handle_t *)&s->poll);
}

static void link_entry(at_readyentry *e) {
  at_socket *s = e->socket;
  e->next = s->entries;
  e->prev = &s->entries;
  if (e->next != NULL) e->next->prev = &e->next;
  s->entries = e;
}

static void unlink_entry(at_readyentry *e) {
  if (e->prev == NULL) return;
  *e->prev = e->next;
  if (e->next != NULL) e->next->prev = e->prev;
  e->prev = NULL;
}

/* The request waits no longer. */
static void leave(at_ready *r) {
  int i;
  for (i = 0; i < r->count; i++) {
    if (r->entries[i].prev == NULL) continue;
    unlink_entry(&r->entries[i]);
    update(r->entries[i].socket);
  }
}

/* `status` 1: ready, 0: closed. No Lua. */
static void finish(at_ready *r, int status) {
  leave(r);
  r->op.status = status;
  at_op_done(&r->op);
}

void at_socketready_end(at_socket *s) {
  while (s->entries != NULL) finish(s->entries->owner, 0);
}

/* uv reports an error of the descriptor as a status and stops polling: whoever waits tries its
** call, which says what it is. */
static void on_poll(uv_poll_t *handle, int status, int events) {
  at_socket *s = handle->data;
  at_runtime *rt = s->rt;
  at_readyentry *e;
  if (status < 0) {
    events = UV_READABLE | UV_WRITABLE;
    s->events = 0;
  }
  s->refs++;
  do { /* finishing one request takes all its entries out of the list */
    for (e = s->entries; e != NULL && (e->events & events) == 0;) e = e->next;
    if (e != NULL) finish(e->owner, 1);
  } while (e != NULL);
  at_sched_enter(rt);
  update(s);
  at_socket_drop(s);
}

/* ---- the operation ---- */

static int ready_push(lua_State *L, at_op *op) {
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  lua_pushboolean(L, op->status);
  return 1;
}

static int ready_cancel(at_op *op) {
  at_ready *r = (at_ready *)(void *)op;
  if (r->count > 0 && r->entries[0].prev == NULL) return 0; /* it has ended, and is told soon */
  leave(r);
  return 1;
}

static void ready_release(at_op *op) {
  at_ready *r = (at_ready *)(void *)op;
  int i;
  for (i = 0; i < r->count; i++) at_socket_drop(r->entries[i].socket);
  free(r);
}

static const at_opclass class = {"socket", ready_push, ready_cancel, ready_release, NULL, 0};

/* [-0, +1, m] pushes the Task of a request with room for n entries; NULL: it has settled. */
static at_ready *begin(lua_State *L, at_runtime *rt, int n) {
  at_task *t = at_op_new(L, rt);
  if (at_task_settled(t)) return NULL;
  return at_op_alloc(L, rt, t, &class, sizeof(at_ready) + (size_t)n * sizeof(at_readyentry));
}

/* The handle, at the first wait. 0 or a status. */
static int watch(at_socket *s) {
  int status;
  if (s->polled) return 0;
  status = uv_poll_init(s->rt->loop, &s->poll, s->fd);
  if (status < 0) return status;
  s->poll.data = s;
  s->polled = 1;
  uv_unref((uv_handle_t *)&s->poll);
  return 0;
}

/* Adds the socket to the request. 0 or a status; UV_EBADF: it is closed. */
static int add(at_ready *r, const at_socketbox *box, int events) {
  at_readyentry *e = &r->entries[r->count];
  at_socket *s = box->socket;
  int status = s == NULL || s->fd < 0 ? UV_EBADF : watch(s);
  if (status < 0) return status;
  e->owner = r;
  e->events = events;
  e->socket = s;
  s->refs++;
  r->count++;
  link_entry(e);
  update(s);
  return 0;
}

/* Events as text: "r", "w" or "rw". */
static int check_events(lua_State *L, int arg) {
  const char *text = luaL_checkstring(L, arg);
  int events = 0;
  for (; *text != '\0'; text++) {
    luaL_argcheck(L, *text == 'r' || *text == 'w', arg, "events expected");
    events |= *text == 'r' ? UV_READABLE : UV_WRITABLE;
  }
  luaL_argcheck(L, events != 0, arg, "events expected");
  return events;
}

/* Ends a request that could not wait; its Task is at the top. */
static int refuse(lua_State *L, at_ready *r, int status) {
  leave(r);
  if (status == UV_EBADF) {
    lua_pushboolean(L, 0);
    at_op_succeed(L, &r->op, 1);
  } else {
    at_op_fail(L, &r->op, status);
  }
  return 1;
}

/* ready(socket, events) -> true once a call may succeed or fail, false when it is closed */
int l_socket_ready(lua_State *L) {
  const at_socketbox *box = at_socket_check(L, 1);
  int status, events = check_events(L, 2);
  at_ready *r;
  lua_settop(L, 1);
  r = begin(L, at_rt(L), 1);
  if (r == NULL) return 1;
  status = add(r, box, events);
  if (status < 0) return refuse(L, r, status);
  lua_pushvalue(L, 1); /* the Task keeps the socket alive */
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* ready_any(sockets, events) -> true once one of them is; the lists go together */
int l_socket_ready_any(lua_State *L) {
  at_ready *r;
  int i, n;
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  n = (int)lua_rawlen(L, 1);
  luaL_argcheck(L, n > 0, 1, "list is empty");
  luaL_argcheck(L, lua_rawlen(L, 2) == (size_t)n, 2, "list of another length");
  for (i = 1; i <= n; i++) { /* nothing raises once the request is there */
    lua_rawgeti(L, 1, i);
    lua_rawgeti(L, 2, i);
    luaL_argcheck(L, at_socket_test(L, -2) != NULL, 1, "list of sockets expected");
    (void)check_events(L, -1);
    lua_pop(L, 2);
  }
  lua_settop(L, 2);
  r = begin(L, at_rt(L), n);
  if (r == NULL) return 1;
  for (i = 1; i <= n; i++) {
    int status;
    lua_rawgeti(L, 1, i);
    lua_rawgeti(L, 2, i);
    status = add(r, at_socket_test(L, -2), check_events(L, -1));
    lua_pop(L, 2);
    if (status < 0) return refuse(L, r, status);
  }
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* ---- asking ---- */

/* poll(descriptors, events) -> list of events as text, false where there are none; nil, words when
** one is no descriptor. Does not wait. */
int l_socket_poll(lua_State *L) {
  struct pollfd *list;
  int i, n, got;
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  n = (int)lua_rawlen(L, 1);
  list = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *list, 0);
  for (i = 0; i < n; i++) {
    int events;
    lua_rawgeti(L, 1, i + 1);
    lua_rawgeti(L, 2, i + 1);
    list[i].fd = (int)luaL_checknumber(L, -2);
    events = check_events(L, -1);
    list[i].events = 0;
    if (events & UV_READABLE) list[i].events |= POLLIN;
    if (events & UV_WRITABLE) list[i].events |= POLLOUT;
    list[i].revents = 0;
    lua_pop(L, 2);
  }
  do {
    got = poll(list, (nfds_t)n, 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return at_socket_failed(L, errno);
  lua_createtable(L, n, 0);
  for (i = 0; i < n; i++) {
    int r = list[i].events & POLLIN && list[i].revents & (POLLIN | POLLHUP | POLLERR);
    int w = list[i].events & POLLOUT && list[i].revents & (POLLOUT | POLLERR);
    if (list[i].revents & POLLNVAL) return at_socket_failed(L, EBADF);
    if (r || w)
      lua_pushstring(L, r && w ? "rw" : r ? "r" : "w");
    else
      lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}
