/* deposit.c - descriptors on their way to another runtime of this process. Owns copies of them until
** they are collected, or their deposit is closed or garbage.
** A list under one mutex; any thread. Invariant: a token is used once, so a thread that comes too late
** gets an error and never another's descriptor that has the same number by then. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "core/task.h"
#include "io/server.h"
#include "io/stream.h"

#define AT_DEPOSIT_MT "asynctask.Deposit"

typedef struct entry {
  struct entry *next;
  lua_Integer token;
  int fd; /* owned */
} entry;

typedef struct deposit {
  lua_Integer token; /* 0: none any more */
} deposit;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static entry *entries;        /* guarded by mutex */
static lua_Integer last_token; /* guarded by mutex */

/* The descriptor, which is the caller's now, or UV_EBADF. */
static int collect(lua_Integer token) {
  entry **link, *e;
  int fd = UV_EBADF;
  pthread_mutex_lock(&mutex);
  for (link = &entries; (e = *link) != NULL && e->token != token; link = &e->next) continue;
  if (e != NULL) {
    fd = e->fd;
    *link = e->next;
  }
  pthread_mutex_unlock(&mutex);
  free(e);
  return fd;
}

/* A token, or a negative status. */
static lua_Integer put(int fd) {
  lua_Integer token;
  entry *e = malloc(sizeof *e); /* the list's */
  if (e == NULL) return UV_ENOMEM;
  e->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (e->fd < 0) {
    int status = -errno;
    free(e);
    return status;
  }
  pthread_mutex_lock(&mutex);
  token = e->token = ++last_token;
  e->next = entries;
  entries = e;
  pthread_mutex_unlock(&mutex);
  return token;
}

static int l_deposit_close(lua_State *L) {
  deposit *d = luaL_checkudata(L, 1, AT_DEPOSIT_MT);
  int fd = d->token != 0 ? collect(d->token) : -1;
  d->token = 0;
  if (fd >= 0) (void)close(fd);
  return 0;
}

static int l_deposit_token(lua_State *L) {
  lua_pushinteger(L, ((deposit *)luaL_checkudata(L, 1, AT_DEPOSIT_MT))->token);
  return 1;
}

/* deposit(fd) -> Deposit with a copy of the descriptor; nil, error */
static int l_net_deposit(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  deposit *d;
  lua_Integer token;
  if (at_rt(L)->closing) return luaL_error(L, "asynctask: the runtime of this state is closed");
  d = lua_newuserdatauv(L, sizeof *d, 0);
  d->token = 0;
  luaL_setmetatable(L, AT_DEPOSIT_MT);
  token = put(fd);
  if (token > 0) {
    d->token = token;
    return 1;
  }
  lua_pushnil(L);
  at_error_push_uv(L, (int)token, "deposit", NULL);
  return 2;
}

/* collect(token) -> the Stream, Server or Udp of it */
static int l_net_collect(lua_State *L) {
  at_runtime *rt = at_rt(L);
  lua_Integer token = luaL_checkinteger(L, 1);
  int fd, status;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  luaL_checkstack(L, 8, "collect");
  (void)lua_newuserdatauv(L, 64, 0); /* [+1] an allocation that fails does so here, not below */
  fd = collect(token);
  status = fd < 0 ? fd : at_handle_push(L, rt, fd);
  if (status < 0) {
    if (fd >= 0) (void)close(fd);
    return at_stream_failed(L, rt, status, "collect");
  }
  at_task_resolved(L, rt, 1);
  return 1;
}

/* [-0, +0, m] adds to core.net at the top */
void at_deposit_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"deposit", l_net_deposit}, {"collect", l_net_collect}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"token", l_deposit_token}, {"close", l_deposit_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_deposit_close}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, AT_DEPOSIT_MT, methods, meta);
}
