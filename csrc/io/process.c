/* process.c - the life of a child process: waiting for its end, signals to it, reaping. Over
** uv_process, which reaps from its SIGCHLD handler; what the host had installed for SIGCHLD before the
** first child is put back after the last. Loop thread only.
** Invariants: a child is reaped by exactly one: libuv, or, when the state closes, end_children or a
** thread of its own; no signal is sent to a number that was reaped; the handle keeps the loop alive
** only while somebody waits for it. */
#include "io/process.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#include "base/error.h"
#include "core/sched.h"
#include "io/signal.h"

#define AT_CLOSE_GRACE_MS 200 /* for children that run when their state closes, all together */
#define AT_CLOSE_KILL_MS 1000 /* for those that were killed: beyond this a thread waits for them */

/* A wait for the end. */
typedef struct at_exit {
  at_op op;
  at_process *process;          /* counted */
  struct at_exit *next, **prev; /* prev NULL: not in the list, it has ended */
} at_exit;

/* ---- life ---- */

static void drop(at_process *p) {
  if (--p->refs == 0) free(p);
}

static void on_closed(uv_handle_t *handle) {
  at_signal_give_back(SIGCHLD); /* libuv's own handler is gone with the last handle */
  drop(handle->data);
}

/* It was reaped, or is somebody else's to reap. */
static void end(at_process *p) {
  at_exit *e;
  p->running = 0;
  at_closable_remove(&p->closable);
  uv_close((uv_handle_t *)&p->handle, on_closed);
  while ((e = p->waiting) != NULL) {
    p->waiting = e->next;
    if (e->next != NULL) e->next->prev = &p->waiting;
    e->prev = NULL;
    at_op_done(&e->op);
  }
}

static void on_exit_status(uv_process_t *handle, int64_t code, int signal) {
  at_process *p = handle->data;
  at_runtime *rt = p->rt;
  p->code = (int)code;
  p->signal = signal;
  end(p);
  at_sched_enter(rt);
}

/* ---- the state closes ---- */

static void close_closable(at_runtime *rt, at_closable *c);

#define process_of(c) ((at_process *)(void *)((char *)(c)-offsetof(at_process, closable)))

/* Reaps it if it has ended. True if it needs no more care. */
static int reap(at_process *p) {
  pid_t got;
  if (!p->running) return 1;
  do {
    got = waitpid(p->pid, NULL, WNOHANG);
  } while (got < 0 && errno == EINTR);
  if (got == 0) return 0;
  end(p);
  return 1;
}

static void *wait_for_orphan(void *arg) {
  while (waitpid((pid_t)(intptr_t)arg, NULL, 0) < 0 && errno == EINTR) continue;
  return NULL;
}

/* Nobody here waits for it any more: a thread does, so that it leaves no zombie in a process that
** goes on. */
static void abandon(at_process *p) {
  pthread_attr_t attributes;
  pthread_t thread;
  sigset_t all, old;
  end(p);
  if (pthread_attr_init(&attributes) != 0) return;
  (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED); /* constants: */
  (void)pthread_attr_setstacksize(&attributes, 64 * 1024);                 /* cannot fail */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  (void)pthread_create(&thread, &attributes, wait_for_orphan, (void *)(intptr_t)p->pid);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  (void)pthread_attr_destroy(&attributes);
}

/* The next child that is not detached, from `c` on. */
static at_closable *next_child(at_closable *c) {
  while (c != NULL && (c->close != close_closable || process_of(c)->detached)) c = c->next;
  return c;
}

static void signal_children(at_process *p, at_closable *rest, int number) {
  at_closable *c;
  if (p->running) (void)uv_process_kill(&p->handle, number); /* ESRCH: it is a zombie */
  for (c = next_child(rest); c != NULL; c = next_child(c->next))
    (void)uv_process_kill(&process_of(c)->handle, number);
}

/* Reaps what ends within so many milliseconds. True if nothing is left. */
static int reap_children(at_runtime *rt, at_process *p, int milliseconds) {
  static const struct timespec pause = {0, 1000000};
  for (;; milliseconds--) {
    int left = !reap(p);
    at_closable *c = next_child(rt->closables), *next;
    for (; c != NULL; c = next) {
      next = next_child(c->next); /* reaping takes c out */
      left += !reap(process_of(c));
    }
    if (left == 0 || milliseconds <= 0) return left == 0;
    nanosleep(&pause, NULL);
  }
}

/* All children of the state end together: what they share is the grace. */
static void end_children(at_runtime *rt, at_process *p) {
  at_closable *c;
  signal_children(p, rt->closables, SIGTERM);
  if (reap_children(rt, p, AT_CLOSE_GRACE_MS)) return;
  signal_children(p, rt->closables, SIGKILL);
  if (reap_children(rt, p, AT_CLOSE_KILL_MS)) return;
  if (p->running) abandon(p);
  while ((c = next_child(rt->closables)) != NULL) abandon(process_of(c));
}

static void close_closable(at_runtime *rt, at_closable *c) {
  at_process *p = process_of(c);
  p->refs++;
  if (p->detached)
    abandon(p);
  else
    end_children(rt, p);
  drop(p);
}

/* ---- starting ---- */

at_processbox *at_process_box(lua_State *L, at_runtime *rt) {
  at_processbox *box;
  if (rt->closing) luaL_error(L, "asynctask: the runtime of this state is closed");
  box = lua_newuserdatauv(L, sizeof *box, 0);
  box->process = NULL;
  luaL_setmetatable(L, AT_PROCESS_MT);
  return box;
}

int at_process_start(at_runtime *rt, at_processbox *box, uv_process_options_t *options) {
  at_process *p = calloc(1, sizeof *p);
  int status;
  if (p == NULL) return UV_ENOMEM;
  options->exit_cb = on_exit_status;
  p->rt = rt;
  p->refs = 1;
  p->detached = (options->flags & UV_PROCESS_DETACHED) != 0;
  p->handle.data = p;
  at_signal_borrow(SIGCHLD);
  status = uv_spawn(rt->loop, &p->handle, options);
  if (status < 0) {
    uv_close((uv_handle_t *)&p->handle, on_closed);
    return status;
  }
  uv_unref((uv_handle_t *)&p->handle);
  p->pid = p->handle.pid;
  p->running = 1;
  p->refs++;
  p->closable.close = close_closable;
  at_closable_add(rt, &p->closable);
  box->process = p;
  return 0;
}

/* ---- waiting ---- */

/* [-0, +2, m] code nil, or nil and the name of the signal that ended it */
static int push_exit(lua_State *L, const at_process *p) {
  if (p->signal == 0) {
    lua_pushinteger(L, p->code);
    lua_pushnil(L);
  } else {
    lua_pushnil(L);
    at_signal_push_name(L, p->signal);
  }
  return 2;
}

static int exit_push(lua_State *L, at_op *op) {
  return push_exit(L, ((at_exit *)(void *)op)->process);
}

static int exit_cancel(at_op *op) {
  at_exit *e = (at_exit *)(void *)op;
  if (e->prev == NULL) return 0;
  *e->prev = e->next;
  if (e->next != NULL) e->next->prev = e->prev;
  return 1;
}

static void exit_release(at_op *op) {
  at_exit *e = (at_exit *)(void *)op;
  at_process *p = e->process;
  if (p != NULL) {
    if (--p->waits == 0 && p->running) uv_unref((uv_handle_t *)&p->handle);
    drop(p);
  }
  free(e);
}

static const at_opclass wait_class = {"wait", exit_push, exit_cancel, exit_release, NULL, 0};

static at_process *check_process(lua_State *L) {
  at_process *p = ((at_processbox *)luaL_checkudata(L, 1, AT_PROCESS_MT))->process;
  if (p == NULL) luaL_argerror(L, 1, "process was collected"); /* reached from a finalizer */
  return p;
}

/* wait() -> code, signal */
static int l_process_wait(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_process *p = check_process(L);
  at_exit *e;
  at_task *t;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (!p->running) {
    at_task_resolved(L, rt, push_exit(L, p));
    return 1;
  }
  t = at_op_new(L, rt);
  e = at_op_alloc(L, rt, t, &wait_class, sizeof *e);
  if (e == NULL) return 1;
  e->process = p;
  p->refs++;
  if (p->waits++ == 0) uv_ref((uv_handle_t *)&p->handle);
  e->next = p->waiting;
  if (e->next != NULL) e->next->prev = &e->next;
  e->prev = &p->waiting;
  p->waiting = e;
  return 1;
}

/* ---- signals to it ---- */

/* [-0, +0, v] a signal by name or number; SIGTERM if there is none */
static int check_number(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return SIGTERM;
  if (!lua_isinteger(L, arg)) return at_signal_check(L, arg);
  luaL_argcheck(L, lua_tointeger(L, arg) >= 0 && lua_tointeger(L, arg) < NSIG, arg, "no signal");
  return (int)lua_tointeger(L, arg);
}

/* kill(signal) -> whether it was still there to get it */
static int l_process_kill(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_process *p = check_process(L);
  int number = check_number(L, 2);
  int status = p->running ? uv_process_kill(&p->handle, number) : UV_ESRCH;
  if (status < 0 && status != UV_ESRCH) {
    at_error_push_uv(L, status, "kill", NULL);
    at_task_failed(L, rt);
    return 1;
  }
  lua_pushboolean(L, status == 0);
  at_task_resolved(L, rt, 1);
  return 1;
}

static int l_process_running(lua_State *L) {
  lua_pushboolean(L, check_process(L)->running);
  return 1;
}

/* A child whose handle was collected goes on, and is reaped. */
static int l_process_gc(lua_State *L) {
  at_processbox *box = lua_touserdata(L, 1);
  at_process *p = box->process;
  box->process = NULL;
  if (p != NULL) drop(p);
  return 0;
}

void at_process_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"spawn", l_process_spawn}, {"environ", l_process_environ}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"wait", l_process_wait},
                                     {"kill", l_process_kill},
                                     {"running", l_process_running},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_process_gc}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, AT_PROCESS_MT, methods, meta);
}
