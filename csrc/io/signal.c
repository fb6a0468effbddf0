/* signal.c - waiting for signals, over uv_signal. Owns watches (a handle each) and the process-wide
** record of what was installed before the first watch of a signal, which libuv forgets: it is put
** back when the last one ends. Loop thread; the record is guarded by its mutex.
** Invariants: nothing is installed but while a watch lives; a handle keeps its loop alive only
** while an operation waits. */
#include "io/signal.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/op.h"
#include "core/sched.h"
#include "core/task.h"

typedef struct at_watch {
  uv_signal_t handle;
  at_closable closable;
  at_runtime *rt;
  struct at_arrival *waiting; /* the one operation that waits */
  int number;                 /* of the signal */
  int refs;                   /* the handle, the box, the operation */
  unsigned char background;   /* waiting for it does not keep the loop alive (S16) */
  int arrived;                /* since the last one was told */
  unsigned char closed;
} at_watch;

/* A wait for the next signal. */
typedef struct at_arrival {
  at_op op;
  at_watch *watch;    /* counted */
  unsigned char once; /* the watch ends with it */
  unsigned char told; /* at_op_done was called */
} at_arrival;

typedef struct at_watchbox {
  at_watch *watch; /* counted; NULL before it watches */
} at_watchbox;

/* ---- names ---- */

static const struct {
  const char *name;
  int number;
  int fatal; /* cannot be caught, or is a fault of the code that runs: not to be waited for */
} signals[] = {{"SIGHUP", SIGHUP, 0},   {"SIGINT", SIGINT, 0},     {"SIGQUIT", SIGQUIT, 0},
               {"SIGTERM", SIGTERM, 0}, {"SIGUSR1", SIGUSR1, 0},   {"SIGUSR2", SIGUSR2, 0},
               {"SIGALRM", SIGALRM, 0}, {"SIGCHLD", SIGCHLD, 0},   {"SIGCONT", SIGCONT, 0},
               {"SIGPIPE", SIGPIPE, 0}, {"SIGTSTP", SIGTSTP, 0},   {"SIGTTIN", SIGTTIN, 0},
               {"SIGTTOU", SIGTTOU, 0}, {"SIGURG", SIGURG, 0},     {"SIGWINCH", SIGWINCH, 0},
               {"SIGVTALRM", SIGVTALRM, 0}, {"SIGPROF", SIGPROF, 0}, {"SIGXCPU", SIGXCPU, 0},
               {"SIGXFSZ", SIGXFSZ, 0}, {"SIGIO", SIGIO, 0},       {"SIGKILL", SIGKILL, 1},
               {"SIGSTOP", SIGSTOP, 1}, {"SIGABRT", SIGABRT, 1},   {"SIGBUS", SIGBUS, 1},
               {"SIGFPE", SIGFPE, 1},   {"SIGILL", SIGILL, 1},     {"SIGSEGV", SIGSEGV, 1},
               {"SIGSYS", SIGSYS, 1},   {"SIGTRAP", SIGTRAP, 1}};
#define AT_SIGNAL_COUNT ((int)(sizeof signals / sizeof signals[0]))

void at_signal_push_name(lua_State *L, int number) {
  int i;
  for (i = 0; i < AT_SIGNAL_COUNT; i++)
    if (signals[i].number == number) {
      lua_pushstring(L, signals[i].name);
      return;
    }
  lua_pushfstring(L, "SIG%d", number);
}

/* [-0, +0, v] the place in the list of the signal that argument `arg` names. */
static int check_name(lua_State *L, int arg) {
  const char *name;
  int i;
  if (lua_type(L, arg) != LUA_TSTRING) at_arg_type_error(L, arg, "name of a signal");
  name = lua_tostring(L, arg);
  for (i = 0; i < AT_SIGNAL_COUNT; i++)
    if (strcmp(signals[i].name, name) == 0) return i;
  return luaL_argerror(L, arg, lua_pushfstring(L, "unknown signal '%s'", name));
}

int at_signal_check(lua_State *L, int arg) { return signals[check_name(L, arg)].number; }

/* [-0, +0, v] one that can be waited for */
static int check_signal(lua_State *L, int arg) {
  int i = check_name(L, arg);
  if (signals[i].fatal)
    luaL_argerror(L, arg, lua_pushfstring(L, "%s cannot be caught", signals[i].name));
  return signals[i].number;
}

/* ---- what was installed before ---- */

static struct {
  pthread_mutex_t mutex;
  int watches[NSIG];               /* guarded by mutex */
  struct sigaction before[NSIG];   /* guarded by mutex */
} record = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Both under the mutex. */
static void count_up(int number) {
  if (record.watches[number]++ == 0) (void)sigaction(number, NULL, &record.before[number]);
}

/* libuv leaves the default behind; if somebody else has installed something, that stays. */
static void count_down(int number) {
  struct sigaction now;
  if (--record.watches[number] == 0 && sigaction(number, NULL, &now) == 0 &&
      !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL)
    (void)sigaction(number, &record.before[number], NULL);
}

void at_signal_borrow(int number) {
  pthread_mutex_lock(&record.mutex);
  count_up(number);
  pthread_mutex_unlock(&record.mutex);
}

void at_signal_give_back(int number) {
  pthread_mutex_lock(&record.mutex);
  count_down(number);
  pthread_mutex_unlock(&record.mutex);
}

static int install(at_watch *w, uv_signal_cb callback) {
  int status;
  pthread_mutex_lock(&record.mutex);
  count_up(w->number);
  status = uv_signal_start(&w->handle, callback, w->number);
  if (status != 0) count_down(w->number);
  pthread_mutex_unlock(&record.mutex);
  return status;
}

static void uninstall(at_watch *w) {
  pthread_mutex_lock(&record.mutex);
  (void)uv_signal_stop(&w->handle); /* cannot fail for a handle that was started */
  count_down(w->number);
  pthread_mutex_unlock(&record.mutex);
}

/* ---- watches ---- */

static void drop(at_watch *w) {
  if (--w->refs == 0) free(w);
}

static void on_closed(uv_handle_t *handle) { drop(handle->data); }

static void tell(at_watch *w, int status) {
  at_arrival *a = w->waiting;
  if (a == NULL) return;
  w->waiting = NULL;
  w->arrived = 0;
  a->told = 1;
  a->op.status = status;
  at_op_done(&a->op);
}

static void close_watch(at_watch *w) {
  if (w->closed) return;
  w->closed = 1;
  w->refs++;
  at_closable_remove(&w->closable);
  uninstall(w);
  uv_close((uv_handle_t *)&w->handle, on_closed);
  tell(w, UV_EBADF);
  drop(w);
}

static void close_closable(at_runtime *rt, at_closable *c) {
  (void)rt;
  close_watch((at_watch *)(void *)((char *)c - offsetof(at_watch, closable)));
}

static void on_signal(uv_signal_t *handle, int number) {
  at_watch *w = handle->data;
  at_runtime *rt = w->rt;
  (void)number;
  w->arrived = 1;
  tell(w, 0);
  at_sched_enter(rt);
}

/* A watch with two references, the handle's and the caller's, or NULL and a status. No Lua. */
static at_watch *watch_new(at_runtime *rt, int number, int *status) {
  at_watch *w = calloc(1, sizeof *w);
  *status = UV_ENOMEM;
  if (w == NULL) return NULL;
  *status = uv_signal_init(rt->loop, &w->handle);
  if (*status < 0) {
    free(w);
    return NULL;
  }
  w->handle.data = w;
  w->rt = rt;
  w->number = number;
  w->refs = 2;
  *status = install(w, on_signal);
  if (*status < 0) {
    w->refs = 1;
    uv_close((uv_handle_t *)&w->handle, on_closed);
    return NULL;
  }
  uv_unref((uv_handle_t *)&w->handle);
  w->closable.close = close_closable;
  at_closable_add(rt, &w->closable);
  return w;
}

/* ---- the operation ---- */

static int arrival_push(lua_State *L, at_op *op) {
  at_arrival *a = (at_arrival *)(void *)op;
  if (op->status == UV_EBADF) {
    lua_pushnil(L); /* the watch was closed: the end */
    return 1;
  }
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  at_signal_push_name(L, a->watch->number);
  return 1;
}

static int arrival_cancel(at_op *op) {
  at_arrival *a = (at_arrival *)(void *)op;
  if (!a->told) {
    a->watch->waiting = NULL;
    return 1;
  }
  if (op->status == 0) a->watch->arrived = 1; /* nobody was told */
  return 0;
}

static void arrival_release(at_op *op) {
  at_arrival *a = (at_arrival *)(void *)op;
  at_watch *w = a->watch;
  if (w != NULL) {
    if (w->waiting == NULL && !w->closed) uv_unref((uv_handle_t *)&w->handle);
    if (a->once) close_watch(w);
    drop(w);
  }
  free(a);
}

static const at_opclass wait_class = {"signal.wait", arrival_push, arrival_cancel,
                                      arrival_release, NULL, 0};

static void attach(at_arrival *a, at_watch *w) {
  a->watch = w;
  w->waiting = a;
  if (!w->background) uv_ref((uv_handle_t *)&w->handle);
}

/* ---- Lua ---- */

/* wait(name) -> name */
static int l_signal_wait(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int number = check_signal(L, 1), status;
  at_arrival *a;
  at_watch *w;
  at_task *t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  a = at_op_alloc(L, rt, t, &wait_class, sizeof *a);
  if (a == NULL) return 1;
  w = watch_new(rt, number, &status);
  if (w == NULL) {
    at_op_fail(L, &a->op, status);
    return 1;
  }
  a->once = 1;
  attach(a, w); /* the caller's reference is the operation's */
  return 1;
}

/* watch(name [, background]): keeps what arrives between two waits. In the background, a wait for it is
** not something that could still wake the program (task.main's own watches). */
static int l_signal_watch(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int number = check_signal(L, 1), status;
  at_watchbox *box;
  if (rt->closing) return luaL_error(L, "asynctask: the runtime of this state is closed");
  lua_settop(L, 2);
  box = lua_newuserdatauv(L, sizeof *box, 0);
  box->watch = NULL;
  luaL_setmetatable(L, AT_SIGNAL_WATCH_MT);
  box->watch = watch_new(rt, number, &status);
  if (box->watch != NULL) {
    box->watch->background = (unsigned char)lua_toboolean(L, 2);
    return 1;
  }
  at_error_push_uv(L, status, "signal.each", NULL);
  return lua_error(L);
}

/* next() -> name, or nil once it is closed; several signals since the last one count as one */
static int l_watch_next(lua_State *L) {
  at_watchbox *box = luaL_checkudata(L, 1, AT_SIGNAL_WATCH_MT);
  at_runtime *rt = at_rt(L);
  at_watch *w = box->watch;
  at_arrival *a;
  at_task *t;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (w == NULL || w->closed) {
    lua_pushnil(L);
    at_task_resolved(L, rt, 1);
    return 1;
  }
  if (w->waiting != NULL) {
    at_error_push(L, "EBUSY", "another task is waiting for this signal here", "signal.each");
    at_task_failed(L, rt);
    return 1;
  }
  if (w->arrived) {
    w->arrived = 0;
    at_signal_push_name(L, w->number);
    at_task_resolved(L, rt, 1);
    return 1;
  }
  t = at_op_new(L, rt);
  a = at_op_alloc(L, rt, t, &wait_class, sizeof *a);
  if (a == NULL) return 1;
  w->refs++;
  attach(a, w);
  lua_pushvalue(L, 1); /* the Task keeps the watch alive */
  lua_setiuservalue(L, -2, 1);
  return 1;
}

static int l_watch_close(lua_State *L) {
  at_watchbox *box = luaL_checkudata(L, 1, AT_SIGNAL_WATCH_MT);
  if (box->watch != NULL) close_watch(box->watch);
  return 0;
}

static int l_watch_gc(lua_State *L) {
  at_watchbox *box = lua_touserdata(L, 1);
  at_watch *w = box->watch;
  if (w == NULL) return 0;
  box->watch = NULL;
  close_watch(w);
  drop(w);
  return 0;
}

/* [-0, +0, m] fills core.signal at the top */
void at_signal_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"wait", l_signal_wait}, {"watch", l_signal_watch}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"next", l_watch_next}, {"close", l_watch_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_watch_gc}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, AT_SIGNAL_WATCH_MT, methods, meta);
}
