/* cancellation.c - cancellation sources: cancel, cancel_after, linked sources, scopes that a source
** cancels, callbacks.
** A source is a userdata; it holds its callbacks (user value 2) and knows scopes and linked sources
** through intrusive lists, which each leaves by itself: a source that lives for a million operations
** does not grow. A source keeps its parents alive (what lies between a root and a child may be named
** nowhere else); parents keep those children only that somebody has registered a callback with. Loop
** thread only. */
#include "core/cancellation.h"

#include <string.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/await.h"
#include "core/sched.h"
#include "core/timer.h"

#define CANCELLATION_MT AT_CANCELLATION_MT
#define REGISTRATION_MT "asynctask.Registration"

enum { UV_ERROR = 1, UV_CALLBACKS, UV_LINKS, UV_KEPT, UV_LAST = UV_KEPT };

/* A child hangs in its parent's list through a link, which is part of the child's user value 3. */
typedef struct tie {
  struct tie *next, **prev;
  struct cancellation *child;
} tie;

typedef struct cancellation {
  at_leaf deadline; /* kind AT_SOURCE_DEADLINE; first member */
  at_runtime *rt;
  tie *children;
  at_scope *scopes;
  at_relays relays; /* to other states */
  at_feed *feed;    /* borrowed until it is dropped: from another state */
  unsigned char cancelled;
  unsigned char told; /* and everybody has been told: else the next cancel() goes on with that */
  int self;  /* anchor while a deadline is pending or a cancellation is under way */
  int holds; /* registrations, and children that are kept: above 0 its parents keep it */
} cancellation;

static cancellation *check(lua_State *L) { return luaL_checkudata(L, 1, CANCELLATION_MT); }

static void unlink_child(tie *l) {
  if (l->prev == NULL) return;
  *l->prev = l->next;
  if (l->next != NULL) l->next->prev = l->prev;
  l->prev = NULL;
}

void at_cancellation_unlink(at_scope *s) {
  if (s->linked_prev == NULL) return;
  *s->linked_prev = s->linked_next;
  if (s->linked_next != NULL) s->linked_next->linked_prev = s->linked_prev;
  s->linked_prev = NULL;
}

static void link_scope(cancellation *c, at_scope *s) {
  s->linked_next = c->scopes;
  s->linked_prev = &c->scopes;
  if (c->scopes != NULL) c->scopes->linked_prev = &s->linked_next;
  c->scopes = s;
}

static void stop_deadline(cancellation *c) {
  if (c->rt->closed) return; /* the timers are gone */
  at_timer_remove(c->rt, &c->deadline.task);
  at_unanchor(c->rt, c->self);
  c->self = 0;
}

/* ---- who keeps whom ---- */

/* [-0, +0, m] the parent at the top keeps, or no longer keeps, the source at `child`. */
static void keep(lua_State *L, int child, int on) {
  if (lua_getiuservalue(L, -1, UV_KEPT) != LUA_TTABLE) {
    lua_pop(L, 1);
    if (!on) return;
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, -3, UV_KEPT);
  }
  lua_pushvalue(L, child);
  if (on)
    lua_pushboolean(L, 1);
  else
    lua_pushnil(L);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Counts it; says whether it was the first reason (or the last). */
static int count_hold(cancellation *c, int on) {
  if (!on && c->holds == 0) return 0; /* was cancelled meanwhile */
  c->holds += on ? 1 : -1;
  return c->holds == (on ? 1 : 0);
}

/* [-0, +0, m] one reason more (or less) to keep the source at the top; the first (the last) is handed on to
** its parents. */
static void hold(lua_State *L, int on) {
  int source = lua_gettop(L), work = source + 1, i;
  luaL_checkstack(L, LUA_MINSTACK, "cancellation");
  if (!count_hold(lua_touserdata(L, source), on)) return;
  lua_newtable(L);
  lua_pushvalue(L, source);
  lua_rawseti(L, work, 1);
  for (i = 1; lua_rawgeti(L, work, i) != LUA_TNIL; i++) {
    lua_getiuservalue(L, work + 1, UV_LINKS); /* stack: source work child links */
    for (lua_pushnil(L); lua_next(L, work + 2); lua_pop(L, 1)) {
      if (lua_type(L, -2) != LUA_TLIGHTUSERDATA) continue; /* a tie, not a parent */
      keep(L, work + 1, on);
      if (!count_hold(lua_touserdata(L, -1), on)) continue;
      lua_pushvalue(L, -1);
      lua_rawseti(L, work, (lua_Integer)lua_rawlen(L, work) + 1);
    }
    lua_settop(L, work);
  }
  lua_settop(L, source);
}

/* ---- cancelling ---- */

/* Starts the callbacks in the order of registration, with the reason. stack: ... source error */
static void start_callbacks(lua_State *L, at_runtime *rt) {
  int i, n, error = lua_gettop(L), list;
  lua_getiuservalue(L, error - 1, UV_CALLBACKS);
  list = lua_gettop(L);
  if (lua_istable(L, list)) {
    lua_getfield(L, list, "last");
    n = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    for (i = 1; i <= n; i++) {
      if (lua_rawgeti(L, list, i) == LUA_TNIL) {
        lua_pop(L, 1);
        continue;
      }
      lua_pushnil(L); /* once only, should one of them raise */
      lua_rawseti(L, list, i);
      lua_getfield(L, error, "reason");
      (void)at_sched_spawn(L, rt, 1, 0, 1);
      lua_pop(L, 1);
    }
    lua_pushnil(L);
    lua_setiuservalue(L, error - 1, UV_CALLBACKS);
  }
  lua_settop(L, error);
}

/* [-0, +0, m] adds the sources linked to c to the list at `work`, each once. */
static void add_children(lua_State *L, at_runtime *rt, const cancellation *c, int work) {
  const tie *l;
  for (l = c->children; l != NULL; l = l->next) { /* nothing here collects */
    if (l->child->told || lua_rawgetp(L, work, l->child) != LUA_TNIL) {
      if (!l->child->told) lua_pop(L, 1);
      continue;
    }
    lua_pop(L, 1);
    at_anchor_push(L, rt, AT_SLOT_SOURCES);
    lua_rawgetp(L, -1, l->child); /* weak: nil while it is being collected */
    lua_remove(L, -2);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      continue;
    }
    lua_rawseti(L, work, (lua_Integer)lua_rawlen(L, work) + 1);
    lua_pushboolean(L, 1);
    lua_rawsetp(L, work, l->child);
  }
}

/* Cancels the source at the top's second place with the error at the top; children are collected in
** the list at `work`. May be done again after it raised. stack: ... source error */
static void cancel_one(lua_State *L, at_runtime *rt, cancellation *c, int work) {
  int error = lua_gettop(L);
  if (c->cancelled) {
    lua_getiuservalue(L, error - 1, UV_ERROR);
    lua_replace(L, error);
  }
  c->cancelled = 1;
  lua_pushvalue(L, error);
  lua_setiuservalue(L, error - 1, UV_ERROR);
  while (c->scopes != NULL) {
    at_scope *s = c->scopes;
    lua_pushvalue(L, error);
    (void)at_scope_cancel(L, rt, s);
    at_cancellation_unlink(s);
  }
  at_relays_fire(L, &c->relays);
  start_callbacks(L, rt);
  add_children(L, rt, c, work);
  if (c->holds > 0) { /* the children are in the list, and this one is done */
    c->holds = 1;
    lua_pushvalue(L, error - 1);
    hold(L, 0);
    lua_pop(L, 1);
  }
  lua_pushnil(L);
  lua_setiuservalue(L, error - 1, UV_KEPT);
}

/* Cancels the source at `index` and those linked to it with the error at the top. [-1] */
static int cancel_all(lua_State *L, at_runtime *rt, int index) {
  int error = lua_gettop(L), work, i;
  luaL_checkstack(L, LUA_MINSTACK, "cancellation");
  if (((cancellation *)lua_touserdata(L, index))->told) {
    lua_pop(L, 1);
    return 0;
  }
  lua_newtable(L);
  work = lua_gettop(L);
  lua_pushvalue(L, index);
  lua_rawseti(L, work, 1);
  for (i = 1; lua_rawgeti(L, work, i) != LUA_TNIL; i++) {
    cancellation *c = lua_touserdata(L, -1);
    lua_pushvalue(L, error);
    if (!c->told) cancel_one(L, rt, c, work);
    lua_settop(L, work);
  }
  for (i = 1; lua_rawgeti(L, work, i) != LUA_TNIL; i++) { /* all have been told; nothing raises here */
    cancellation *c = lua_touserdata(L, -1);
    c->told = 1;
    stop_deadline(c);
    while (c->children != NULL) unlink_child(c->children);
    lua_pop(L, 1);
  }
  lua_settop(L, error - 1);
  return 1;
}

/* cancel(reason) -> whether it took effect */
static int l_cancellation_cancel(lua_State *L) {
  cancellation *c = check(L);
  lua_settop(L, 2);
  if (c->told) {
    lua_pushboolean(L, 0);
    return 1;
  }
  at_cancel_push_error(L, 2);
  lua_pushboolean(L, cancel_all(L, at_rt(L), 1));
  return 1;
}

/* cancel_after(seconds): replaces an earlier deadline of the source */
static int l_cancellation_cancel_after(lua_State *L) {
  at_runtime *rt = at_rt(L);
  cancellation *c = check(L);
  long long ns = at_arg_seconds(L, 2);
  if (c->cancelled) return 0;
  if (rt->closing) return at_runtime_refuse(L, rt);
  stop_deadline(c);
  if (ns == INT64_MAX) return 0;
  lua_pushvalue(L, 1);
  c->self = at_anchor(L, rt);
  if (at_timer_add(rt, &c->deadline.task, at_timer_now(rt) + (uint64_t)ns) < 0) {
    stop_deadline(c);
    return luaL_error(L, "not enough memory");
  }
  return 0;
}

void at_cancellation_expire(lua_State *L, at_runtime *rt, at_task *deadline) {
  cancellation *c = (cancellation *)deadline; /* its first member */
  luaL_checkstack(L, 6, "deadline");
  at_anchor_push(L, rt, c->self);
  lua_pushliteral(L, "deadline");
  at_cancel_push_error(L, -1);
  lua_remove(L, -2);
  (void)cancel_all(L, rt, lua_gettop(L) - 1);
  lua_pop(L, 1);
}

/* ---- making, asking ---- */

/* Links the new source at `child` to the parent at `parent`. links: its table of links */
static void link_parent(lua_State *L, cancellation *c, int parent, int links) {
  cancellation *p = lua_touserdata(L, parent);
  tie *l = lua_newuserdatauv(L, sizeof *l, 0);
  l->prev = NULL; /* in no list, should one of these raise */
  lua_rawseti(L, links, (lua_Integer)lua_rawlen(L, links) + 1);
  lua_pushvalue(L, parent);
  lua_rawsetp(L, links, l);
  l->child = c;
  l->next = p->children;
  l->prev = &p->children;
  if (p->children != NULL) p->children->prev = &l->next;
  p->children = l;
}

/* [-0, +2, m] pushes a source and its table of links. */
static cancellation *push_new(lua_State *L, at_runtime *rt) {
  cancellation *c = lua_newuserdatauv(L, sizeof *c, UV_LAST);
  int self = lua_gettop(L);
  memset(c, 0, sizeof *c);
  c->deadline.task.kind = AT_SOURCE_DEADLINE;
  c->deadline.task.index = -1;
  c->rt = rt;
  luaL_setmetatable(L, CANCELLATION_MT);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, self, UV_LINKS);
  at_anchor_push(L, rt, AT_SLOT_SOURCES);
  lua_pushvalue(L, self);
  lua_rawsetp(L, -2, c);
  lua_pop(L, 1);
  return c;
}

/* cancellation(parent...) -> source, cancelled with the first of its parents */
static int l_cancellation(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int n = lua_gettop(L), i, self = n + 1, links = n + 2;
  cancellation *c;
  for (i = 1; i <= n; i++) luaL_checkudata(L, i, CANCELLATION_MT);
  c = push_new(L, rt);
  for (i = 1; i <= n; i++) {
    const cancellation *p = lua_touserdata(L, i);
    if (p->cancelled && !c->cancelled) {
      lua_getiuservalue(L, i, UV_ERROR);
      (void)cancel_all(L, rt, self);
    } else if (!c->cancelled) {
      link_parent(L, c, i, links);
    }
  }
  lua_settop(L, self);
  return 1;
}

void at_cancellation_new(lua_State *L, at_runtime *rt, at_feed *feed) {
  cancellation *c;
  luaL_checkstack(L, 8, "cancellation");
  c = push_new(L, rt);
  lua_pop(L, 1);
  c->feed = feed;
}

void at_cancellation_push(lua_State *L, at_runtime *rt, const void *source) {
  at_anchor_push(L, rt, AT_SLOT_SOURCES);
  lua_rawgetp(L, -1, source);
  lua_remove(L, -2);
}

void at_cancellation_cancel(lua_State *L, at_runtime *rt, int index) {
  index = lua_absindex(L, index);
  luaL_checkstack(L, 8, "cancellation");
  at_cancel_push_error(L, lua_isnil(L, -1) ? 0 : lua_gettop(L));
  (void)cancel_all(L, rt, index);
  lua_pop(L, 1);
}

int at_cancellation_reason(lua_State *L, int index) {
  if (!((const cancellation *)lua_touserdata(L, index))->cancelled) return 0;
  lua_getiuservalue(L, index, UV_ERROR);
  lua_pushliteral(L, "reason");
  lua_rawget(L, -2);
  lua_remove(L, -2);
  return 1;
}

at_relay *at_cancellation_relay(lua_State *L, int index) {
  at_relay *r = ((cancellation *)lua_touserdata(L, index))->relays.first;
  while (r != NULL && !r->own) r = r->next;
  return r;
}

void at_cancellation_follow(lua_State *L, int index, at_relay *r) {
  at_relays_add(&((cancellation *)lua_touserdata(L, index))->relays, r);
}

static int l_cancellation_is_cancelled(lua_State *L) {
  lua_pushboolean(L, check(L)->cancelled);
  return 1;
}

/* check(): raises the cancellation if there is one */
static int l_cancellation_check(lua_State *L) {
  if (!check(L)->cancelled) return 0;
  lua_getiuservalue(L, 1, UV_ERROR);
  return lua_error(L);
}

/* with(f, ...) -> results of f, run in a scope that this source cancels */
static int l_cancellation_with(lua_State *L) {
  at_runtime *rt = at_rt(L);
  cancellation *c = check(L);
  at_scope *s;
  at_arg_callable(L, 2);
  s = at_scope_enter(L, rt, AT_SCOPE_PLAIN);
  lua_insert(L, 2); /* stack: source scope f args... */
  if (c->cancelled) {
    lua_getiuservalue(L, 1, UV_ERROR);
    (void)at_scope_cancel(L, rt, s);
  } else {
    link_scope(c, s);
  }
  return at_scope_call(L, 2);
}

/* ---- callbacks ---- */

/* on_cancel(f) -> registration; f(reason) is started from the ready queue, once */
static int l_cancellation_on_cancel(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const cancellation *c = check(L);
  lua_Integer *number;
  at_arg_callable(L, 2);
  lua_settop(L, 2);
  number = lua_newuserdatauv(L, sizeof *number, 1);
  *number = 0;
  luaL_setmetatable(L, REGISTRATION_MT);
  if (c->cancelled) {
    lua_pushvalue(L, 2);
    lua_getiuservalue(L, 1, UV_ERROR);
    lua_getfield(L, -1, "reason");
    lua_remove(L, -2);
    (void)at_sched_spawn(L, rt, 1, 0, 1);
    lua_pop(L, 1);
    return 1;
  }
  if (lua_getiuservalue(L, 1, UV_CALLBACKS) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, UV_CALLBACKS);
  }
  lua_getfield(L, -1, "last");
  *number = lua_tointeger(L, -1) + 1;
  lua_pop(L, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, 4, *number);
  lua_pushinteger(L, *number);
  lua_setfield(L, 4, "last");
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 3, 1);
  lua_pushvalue(L, 1);
  hold(L, 1);
  lua_settop(L, 3);
  return 1;
}

/* close(): the callback will not be started any more */
static int l_registration_close(lua_State *L) {
  lua_Integer *number = luaL_checkudata(L, 1, REGISTRATION_MT);
  lua_Integer closed = *number;
  if (closed == 0) return 0;
  *number = 0;
  lua_settop(L, 1);
  lua_getiuservalue(L, 1, 1);
  lua_pushnil(L);
  lua_setiuservalue(L, 1, 1);
  if (lua_getiuservalue(L, -1, UV_CALLBACKS) != LUA_TTABLE) return 0; /* cancelled: it was started */
  lua_pushnil(L);
  lua_rawseti(L, -2, closed);
  if (lua_getfield(L, -1, "last") && lua_tointeger(L, -1) == closed) {
    lua_pushinteger(L, closed - 1);
    lua_setfield(L, -3, "last");
  }
  lua_settop(L, 2); /* stack: registration source */
  hold(L, 0);
  return 0;
}

static int l_cancellation_gc(lua_State *L) {
  cancellation *c = lua_touserdata(L, 1);
  if (c->feed != NULL) c->feed->drop(c->rt, c->feed);
  c->feed = NULL;
  if (c->rt == NULL || c->rt->closed) {
    at_relays_drop(&c->relays);
    return 0;
  }
  at_timer_remove(c->rt, &c->deadline.task);
  while (c->children != NULL) unlink_child(c->children);
  while (c->scopes != NULL) at_cancellation_unlink(c->scopes);
  if (lua_getiuservalue(L, 1, UV_LINKS) == LUA_TTABLE) {
    int i;
    for (i = 1; lua_rawgeti(L, 2, i) == LUA_TUSERDATA; i++) {
      tie *l = lua_touserdata(L, -1);
      unlink_child(l);
      if (c->relays.first != NULL && lua_rawgetp(L, 2, l) == LUA_TUSERDATA) {
        cancellation *parent = lua_touserdata(L, -1);
        if (!parent->cancelled) at_relays_hand_on(&c->relays, &parent->relays);
      }
      lua_settop(L, 2);
    }
  }
  at_relays_drop(&c->relays);
  return 0;
}

void at_cancellation_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"cancellation", l_cancellation}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"cancel", l_cancellation_cancel},
                                     {"cancel_after", l_cancellation_cancel_after},
                                     {"is_cancelled", l_cancellation_is_cancelled},
                                     {"check", l_cancellation_check},
                                     {"with", l_cancellation_with},
                                     {"on_cancel", l_cancellation_on_cancel},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_cancellation_gc}, {NULL, NULL}};
  static const luaL_Reg registration[] = {{"close", l_registration_close}, {NULL, NULL}};
  static const luaL_Reg registration_meta[] = {{"__close", l_registration_close}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, CANCELLATION_MT, methods, meta);
  at_runtime_class(L, rt, REGISTRATION_MT, registration, registration_meta);
}
