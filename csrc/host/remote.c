/* remote.c - a runtime as others hold it: other threads that post to it, C code that calls Lua or has to hear
** of the end. The C API's section "other threads", asynctask_call and asynctask_on_close.
** Owns asynctask_remote (one a runtime, counted) and asynctask_closer. Loop thread, but for retain, release
** and post. Invariants: what was posted is called once, with the state or without; remote->rt is NULL once
** the runtime closes, and only the loop thread looks at it. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/fault.h"
#include "core/post.h"
#include "core/sched.h"
#include "core/timer.h"
#include "host/api.h"

typedef struct posted {
  at_mail mail;
  struct posted *next;
  asynctask_remote *remote; /* counted */
  void (*f)(lua_State *L, void *data);
  void *data;
} posted;

struct asynctask_remote {
  at_closable closable;
  at_deferred deferred;
  atomic_int refs;        /* the runtime's until it closes, those of users, what is posted */
  at_inbox *inbox;        /* counted */
  at_runtime *rt;
  posted *first, **last;  /* arrived, first in, first out; `last` is valid while there is a first */
};

static const char remote_key = 'r';

/* ---- life ---- */

asynctask_remote *asynctask_remote_retain(asynctask_remote *remote) {
  atomic_fetch_add_explicit(&remote->refs, 1, memory_order_relaxed);
  return remote;
}

void asynctask_remote_release(asynctask_remote *remote) {
  if (remote == NULL || atomic_fetch_sub_explicit(&remote->refs, 1, memory_order_acq_rel) != 1) return;
  at_inbox_release(remote->inbox);
  free(remote);
}

/* Without a state: whoever posted it frees what it is about. */
static void drop(posted *p) {
  p->f(NULL, p->data);
  asynctask_remote_release(p->remote);
  free(p);
}

static void on_closing(at_runtime *rt, at_closable *c) {
  asynctask_remote *remote = (asynctask_remote *)(void *)((char *)c - offsetof(asynctask_remote, closable));
  posted *p;
  at_sched_undefer(rt, &remote->deferred);
  remote->rt = NULL;
  while ((p = remote->first) != NULL) {
    remote->first = p->next;
    drop(p);
  }
  asynctask_remote_release(remote);
}

/* ---- calling ---- */

typedef struct call {
  void (*f)(lua_State *L, void *data);
  void *data;
  int begun;
} call;

/* stack: call */
static int l_call(lua_State *L) {
  call *c = lua_touserdata(L, 1);
  c->begun = 1;
  lua_settop(L, 0);
  c->f(L, c->data);
  return 0;
}

/* [-0, +0, -] calls it protected; its error is reported as that of a task that nobody looks at. False: there
** was no memory to begin with. */
static int call_protected(lua_State *L, at_runtime *rt, void (*f)(lua_State *L, void *data), void *data) {
  call c = {f, data, 0};
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 4)) return 0;
  lua_pushcfunction(L, at_fault_handler);
  lua_pushcfunction(L, l_call);
  lua_pushlightuserdata(L, &c);
  if (lua_pcall(L, 1, 0, top + 1) != LUA_OK && c.begun) at_fault_report(L, rt);
  lua_settop(L, top);
  return c.begun;
}

int asynctask_call(asynctask_remote *remote, void (*f)(lua_State *L, void *data), void *data) {
  at_runtime *rt = remote->rt;
  int draining, begun;
  if (rt == NULL) return UV_ECANCELED;
  if (rt->running != NULL) return UV_EBUSY;
  draining = rt->draining;
  rt->draining = 1; /* an await in it must not run the loop */
  begun = call_protected(rt->L, rt, f, data);
  rt->draining = (unsigned char)draining;
  if (!begun) return UV_ENOMEM;
  if (draining || remote->rt == NULL) return 0;
  if (at_sched_has_work(rt)) at_sched_wake(rt);
  at_timer_arm(rt);
  return 0;
}

/* ---- posting ---- */

/* In a turn, protected; each call is on its own. What it does not come to is done in the next turn. */
static void run_posted(lua_State *L, at_runtime *rt, at_deferred *d) {
  asynctask_remote *remote = (asynctask_remote *)(void *)((char *)d - offsetof(asynctask_remote, deferred));
  posted *p;
  while ((p = remote->first) != NULL) {
    posted taken = *p;
    remote->first = p->next;
    free(p);
    if (!call_protected(L, rt, taken.f, taken.data)) taken.f(NULL, taken.data);
    asynctask_remote_release(taken.remote); /* the runtime still counts */
    if (rt->deadline != 0 && at_sched_spent(rt)) break;
  }
  if (remote->first != NULL) at_sched_defer(rt, d);
}

static void receive(at_runtime *rt, at_mail *mail) {
  posted *p = (posted *)(void *)((char *)mail - offsetof(posted, mail));
  asynctask_remote *remote = p->remote;
  if (rt == NULL) {
    drop(p);
    return;
  }
  if (remote->first == NULL) remote->last = &remote->first;
  p->next = NULL;
  *remote->last = p;
  remote->last = &p->next;
  at_sched_defer(rt, &remote->deferred);
}

int asynctask_post(asynctask_remote *remote, void (*f)(lua_State *L, void *data), void *data) {
  posted *p = malloc(sizeof *p);
  if (p == NULL) return UV_ENOMEM;
  p->f = f;
  p->data = data;
  p->remote = asynctask_remote_retain(remote);
  p->mail.receive = receive;
  at_post(remote->inbox, &p->mail); /* p may be gone, and with it a reference: not ours */
  return 0;
}

/* ---- making ---- */

/* The runtime's, made now if need be. [-0, +0, m] */
static asynctask_remote *remote_of(lua_State *L, at_runtime *rt) {
  asynctask_remote **holder, *remote;
  luaL_checkstack(L, 3, "asynctask");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &remote_key) == LUA_TUSERDATA) {
    holder = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return *holder;
  }
  lua_pop(L, 1);
  holder = lua_newuserdatauv(L, sizeof(asynctask_remote *), 0);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &remote_key);
  remote = calloc(1, sizeof *remote);
  if (remote == NULL) {
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &remote_key);
    luaL_error(L, "not enough memory");
    return NULL;
  }
  *holder = remote;
  atomic_init(&remote->refs, 1);
  remote->rt = rt;
  remote->inbox = at_inbox_retain(rt->inbox);
  remote->deferred.run = run_posted;
  remote->closable.close = on_closing;
  at_closable_add(rt, &remote->closable);
  return remote;
}

/* stack: pointer to the result */
static int l_remote(lua_State *L) {
  *(asynctask_remote **)lua_touserdata(L, 1) = remote_of(L, at_api_runtime(L));
  return 0;
}

asynctask_remote *asynctask_remote_new(lua_State *L) {
  asynctask_remote *remote = NULL;
  if (!lua_checkstack(L, 4)) return NULL;
  lua_pushcfunction(L, l_remote);
  lua_pushlightuserdata(L, &remote);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    lua_pop(L, 1);
    return NULL;
  }
  return asynctask_remote_retain(remote);
}

void asynctask_hold(lua_State *L, int on) {
  at_runtime *rt = at_api_find(L);
  if (rt == NULL) return;
  if (on) {
    rt->holds++;
    at_external_add(rt);
  } else if (rt->holds > 0) {
    rt->holds--;
    at_external_remove(rt);
  }
}

/* ---- closers ---- */

struct asynctask_closer {
  at_closable closable;
  void (*f)(void *data);
  void *data;
};

static void on_close(at_runtime *rt, at_closable *c) {
  asynctask_closer *closer = (asynctask_closer *)(void *)c;
  void (*f)(void *data) = closer->f;
  void *data = closer->data;
  (void)rt;
  free(closer);
  f(data);
}

asynctask_closer *asynctask_on_close(lua_State *L, void (*f)(void *data), void *data) {
  at_runtime *rt = at_api_runtime(L);
  asynctask_closer *closer = malloc(sizeof *closer);
  if (closer == NULL) {
    luaL_error(L, "not enough memory");
    return NULL;
  }
  closer->closable.close = on_close;
  closer->f = f;
  closer->data = data;
  at_closable_add(rt, &closer->closable);
  return closer;
}

void asynctask_closer_remove(asynctask_closer *closer) {
  if (closer == NULL) return;
  at_closable_remove(&closer->closable);
  free(closer);
}
