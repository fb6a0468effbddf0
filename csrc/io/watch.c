/* watch.c - asynctask.Watcher: what changed below a path, as batches of events. Owns the queue of events and
** the one operation that waits for them; the system's half (watch.h) fills the queue.
** Loop thread, but for freeing. Events are taken from the queue only when they are handed to Lua, so a
** cancelled read loses none (S10). A queue that nobody reads is bounded: what no longer fits is
** dropped, and told as an overflow. */
#include "io/watch.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "base/error.h"

#define EVENTS_MAX 65536
#define BATCH 1024

struct at_watchop {
  at_op op;
  at_watcher *watcher; /* counted */
  unsigned char told;  /* at_op_done was called */
};

typedef struct watcher_box {
  at_watcher *watcher; /* counted; NULL before it watches, and once it was collected */
} watcher_box;

#define op_of(o) ((at_watchop *)(void *)(o))

static const char *const type_names[] = {"create", "change", "remove", "rename", "overflow", "error"};

/* ---- the queue ---- */

char *at_watch_join(const char *dir, const char *name) {
  size_t length = strlen(dir), more = strlen(name);
  char *path = malloc(length + more + 2);
  if (path == NULL) return NULL;
  memcpy(path, dir, length);
  if (length > 0 && path[length - 1] != '/') path[length++] = '/';
  memcpy(path + length, name, more + 1);
  return path;
}

static int reserve(at_watch_queue *q) {
  size_t capacity = q->capacity * 2 + 16;
  at_watch_event *events;
  if (q->start + q->count < q->capacity) return 0;
  if (q->start > q->count) {
    memcpy(q->events, q->events + q->start, q->count * sizeof *q->events);
    q->start = 0;
    return 0;
  }
  events = realloc(q->events, capacity * sizeof *events);
  if (events == NULL) return UV_ENOMEM;
  q->events = events;
  q->capacity = capacity;
  return 0;
}

int at_watch_put(at_watch_queue *q, int type, char *path, char *from, int status) {
  at_watch_event *e;
  if (path == NULL || reserve(q) < 0) {
    free(path);
    free(from);
    return UV_ENOMEM;
  }
  e = &q->events[q->start + q->count++];
  e->path = path;
  e->from = from;
  e->type = type;
  e->status = status;
  return 0;
}

static void take(at_watch_queue *q, size_t n) {
  for (; n > 0; n--, q->count--, q->start++) {
    free(q->events[q->start].path);
    free(q->events[q->start].from);
  }
  if (q->count == 0) q->start = 0;
}

void at_watch_clear(at_watch_queue *q) {
  take(q, q->count);
  free(q->events);
  memset(q, 0, sizeof *q);
}

/* The last event says as much already. */
static int is_repeated(const at_watch_queue *q, int type, const char *path) {
  const at_watch_event *last;
  if (q->count == 0 || path == NULL) return 0;
  last = &q->events[q->start + q->count - 1];
  if (type == AT_WATCH_OVERFLOW) return last->type == AT_WATCH_OVERFLOW;
  return type == AT_WATCH_CHANGE && strcmp(last->path, path) == 0 &&
         (last->type == AT_WATCH_CHANGE || last->type == AT_WATCH_CREATE);
}

void at_watch_event_add(at_watcher *w, int type, char *path, char *from, int status) {
  if (w->queue.count >= EVENTS_MAX && type != AT_WATCH_OVERFLOW) {
    free(path);
    free(from);
    type = AT_WATCH_OVERFLOW;
    path = strdup(w->root);
    from = NULL;
    status = 0;
  }
  if (is_repeated(&w->queue, type, path)) {
    free(path);
    free(from);
  } else if (at_watch_put(&w->queue, type, path, from, status) < 0) {
    w->failed = UV_ENOMEM; /* an event is lost: that is told, and it ends */
    w->ended = 1;
  }
}

/* ---- the object ---- */

void at_watch_drop(at_watcher *w) {
  if (atomic_fetch_sub(&w->refs, 1) != 1) return;
  at_watchsys_free(w);
  at_watch_clear(&w->queue);
  free(w->root);
  free(w);
}

int at_watch_tell(at_watcher *w) {
  at_watchop *o = w->waiting;
  if (o == NULL || (w->queue.count == 0 && !w->ended && !w->closed)) return 0;
  w->waiting = NULL;
  o->told = 1;
  at_op_done(&o->op);
  return 1;
}

static void close_watcher(at_watcher *w) {
  if (w->closed) return;
  w->closed = 1;
  at_closable_remove(&w->closable);
  if (w->sys != NULL) at_watchsys_stop(w);
  at_watch_tell(w);
}

static void close_closable(at_runtime *rt, at_closable *c) {
  (void)rt;
  close_watcher((at_watcher *)(void *)((char *)c - offsetof(at_watcher, closable)));
}

/* A watcher with one reference, the caller's; NULL: out of memory. What it cannot watch is kept for
** the first read. */
static at_watcher *watcher_new(at_runtime *rt, const char *root, int recursive) {
  at_watcher *w = calloc(1, sizeof *w);
  if (w == NULL) return NULL;
  w->root = strdup(root);
  if (w->root == NULL) {
    free(w);
    return NULL;
  }
  atomic_init(&w->refs, 1);
  w->rt = rt;
  w->recursive = (unsigned char)recursive;
  w->closable.close = close_closable;
  at_closable_add(rt, &w->closable);
  w->failed = at_watchsys_start(w);
  w->ended = w->failed < 0;
  return w;
}

/* ---- the operation ---- */

/* [-0, +1, m] */
static void push_error(lua_State *L, int status, const char *path) {
  at_error_push_uv(L, status, "watch", path);
  if (status == UV_ENOSPC) at_error_set(L, "message", "the system's limit of watches is reached");
  if (status == UV_EMFILE) at_error_set(L, "message", "a limit of watchers or open files is reached");
}

/* [-0, +1, m] */
static void push_event(lua_State *L, const at_watch_event *e) {
  lua_createtable(L, 0, 3);
  lua_pushstring(L, type_names[e->type]);
  lua_setfield(L, -2, "type");
  lua_pushstring(L, e->path);
  lua_setfield(L, -2, "path");
  if (e->from != NULL) {
    lua_pushstring(L, e->from);
    lua_setfield(L, -2, "from");
  }
  if (e->status < 0) {
    push_error(L, e->status, e->path);
    lua_setfield(L, -2, "error");
  }
}

/* [-0, +2|1, m] pushes the next events as a list, and how many they are; nil: there are none. */
static int push_batch(lua_State *L, at_watcher *w) {
  at_watch_queue *q = &w->queue;
  size_t i, n = q->count < BATCH ? q->count : BATCH;
  luaL_checkstack(L, 8, "events");
  if (n == 0 || w->closed) {
    lua_pushnil(L);
    return 1;
  }
  w->busy = 1; /* for finalizers that run meanwhile */
  lua_createtable(L, (int)n, 0);
  for (i = 0; i < n; i++) {
    push_event(L, &q->events[q->start + i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  take(q, n);
  w->busy = 0;
  lua_pushinteger(L, (lua_Integer)n);
  return 2;
}

static int read_push(lua_State *L, at_op *op) {
  at_watcher *w = op_of(op)->watcher;
  if (op->status == 0 && w->queue.count == 0 && w->failed < 0 && !w->closed) {
    op->status = w->failed;
    w->failed = 0;
  }
  if (op->status < 0) {
    push_error(L, op->status, w->root);
    return AT_OP_FAILED;
  }
  return push_batch(L, w);
}

static int op_cancel(at_op *op) {
  at_watchop *o = op_of(op);
  if (o->told) return 0;
  o->watcher->waiting = NULL;
  return 1;
}

static void op_release(at_op *op) {
  at_watchop *o = op_of(op);
  at_watcher *w = o->watcher;
  if (w != NULL) {
    if (op->rt != NULL && w->waiting == NULL && !w->closed && w->sys != NULL) at_watchsys_ref(w, 0);
    at_watch_drop(w);
  }
  free(o);
}

static const char *op_subject(at_op *op) {
  return op_of(op)->watcher != NULL ? op_of(op)->watcher->root : NULL;
}

static const at_opclass read_class = {"watch", read_push, op_cancel, op_release, op_subject, 0};

/* ---- Lua ---- */

static at_watcher *check_watcher(lua_State *L) {
  at_watcher *w = ((watcher_box *)luaL_checkudata(L, 1, AT_WATCHER_MT))->watcher;
  if (w == NULL) luaL_argerror(L, 1, "watcher was collected");
  return w;
}

/* watcher(path, recursive) -> watcher, watching from now on */
static int l_fs_watcher(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  watcher_box *box;
  if (rt->closing) return luaL_error(L, "asynctask: the runtime of this state is closed");
  lua_settop(L, 2);
  box = lua_newuserdatauv(L, sizeof *box, 0);
  box->watcher = NULL;
  luaL_setmetatable(L, AT_WATCHER_MT);
  box->watcher = watcher_new(rt, path, lua_toboolean(L, 2));
  return box->watcher != NULL ? 1 : luaL_error(L, "not enough memory");
}

/* watcher:read() -> Task of a list of events and their number; nil at the end. One at a time */
static int l_watcher_read(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_watcher *w = check_watcher(L);
  at_watchop *o;
  at_task *t;
  if (w->waiting != NULL) return luaL_error(L, "watcher is being read");
  t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  o = at_op_alloc(L, rt, t, &read_class, sizeof *o);
  if (o == NULL) return 1;
  if (w->waiting != NULL) { /* a finalizer was faster */
    at_op_fail(L, &o->op, UV_EBUSY);
    return 1;
  }
  o->watcher = w;
  atomic_fetch_add(&w->refs, 1);
  w->waiting = o;
  lua_pushvalue(L, 1); /* the Task keeps the watcher */
  lua_setiuservalue(L, -2, 1);
  if (!at_watch_tell(w)) at_watchsys_ref(w, 1);
  return 1;
}

/* watcher:take() -> a list and its length, or nil: what there is, without waiting */
static int l_watcher_take(lua_State *L) {
  at_watcher *w = check_watcher(L);
  if (w->waiting != NULL || w->busy) {
    lua_pushnil(L);
    return 1;
  }
  return push_batch(L, w);
}

static int l_watcher_close(lua_State *L) {
  at_watcher *w = check_watcher(L);
  close_watcher(w); /* the queue stays until nobody can be looking at it */
  return 0;
}

static int l_watcher_gc(lua_State *L) {
  watcher_box *box = lua_touserdata(L, 1);
  at_watcher *w = box->watcher;
  if (w == NULL) return 0;
  box->watcher = NULL;
  close_watcher(w);
  at_watch_drop(w);
  return 0;
}

void at_watch_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"watcher", l_fs_watcher}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"read", l_watcher_read},
                                     {"take", l_watcher_take},
                                     {"close", l_watcher_close},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_watcher_gc}, {NULL, NULL}};
  at_runtime_class(L, rt, AT_WATCHER_MT, methods, meta);
  at_runtime_setfuncs(L, rt, functions);
}
