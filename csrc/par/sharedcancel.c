/* sharedcancel.c - cancellation sources passed to other states. What is passed is an origin, a counted
** object: the source's relay holds it and tells it of the cancellation; in the other state a source of its
** own is fed by it, by mail. One way only: cancelling the copy does not cancel the original.
** Invariants: a feed is in its origin's list until the cancellation, then its mail is posted, once; the
** feed is held by its source and by that mail. Relays and feeds belong to their states' threads. */
#include "par/sharedcancel.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/cancellation.h"
#include "core/post.h"
#include "core/sched.h"
#include "par/codec.h"

/* Plain values as they are; others as their text. */
typedef struct reason {
  int type; /* of Lua; LUA_TNIL: none */
  int is_integer, boolean;
  lua_Integer integer;
  lua_Number number;
  char *text; /* owned */
  size_t size;
} reason;

typedef struct origin {
  at_shared shared;
  pthread_mutex_t mutex;
  struct feed *feeds; /* guarded */
  size_t relays;      /* guarded: holders among the relays */
  int cancelled;      /* guarded */
  reason why;         /* set before `cancelled`, then never changed */
} origin;

typedef struct relay {
  at_relay head;
  origin *origin; /* counted */
} relay;

typedef struct feed {
  at_feed head;
  at_mail mail;
  at_deferred deferred;
  atomic_int refs;
  at_runtime *rt;      /* the state's */
  at_inbox *home;      /* counted */
  origin *origin;      /* counted */
  const void *source;  /* loop thread; NULL once it is collected */
  unsigned char deferring; /* loop thread: the mail has come, and its reference is the deferred work's */
  struct feed *next, **prev; /* guarded by origin->mutex; prev NULL: in no list */
} feed;

/* ---- reasons ---- */

/* [-0, +0, -] the reason at the top; without memory, none. Runs no metamethod. */
static void take_reason(lua_State *L, reason *why) {
  const char *text;
  memset(why, 0, sizeof *why);
  why->type = lua_type(L, -1);
  switch (why->type) {
    case LUA_TNIL: break;
    case LUA_TBOOLEAN: why->boolean = lua_toboolean(L, -1); break;
    case LUA_TNUMBER:
      why->is_integer = lua_isinteger(L, -1);
      why->integer = lua_tointeger(L, -1);
      why->number = lua_tonumber(L, -1);
      break;
    default:
      text = why->type == LUA_TSTRING ? lua_tolstring(L, -1, &why->size) : luaL_typename(L, -1);
      if (why->type != LUA_TSTRING) why->size = strlen(text);
      why->type = LUA_TSTRING;
      why->text = malloc(why->size + 1);
      if (why->text == NULL) why->type = LUA_TNIL;
      else memcpy(why->text, text, why->size);
  }
}

/* [-0, +1, m] */
static void push_reason(lua_State *L, const reason *why) {
  switch (why->type) {
    case LUA_TBOOLEAN: lua_pushboolean(L, why->boolean); break;
    case LUA_TNUMBER:
      if (why->is_integer) lua_pushinteger(L, why->integer);
      else lua_pushnumber(L, why->number);
      break;
    case LUA_TSTRING: lua_pushlstring(L, why->text, why->size); break;
    default: lua_pushnil(L);
  }
}

/* ---- the origin ---- */

static void destroy(at_shared *s) {
  origin *o = (origin *)(void *)s;
  free(o->why.text);
  pthread_mutex_destroy(&o->mutex);
  free(o);
}

static void feed_release(feed *f) {
  if (atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1) return;
  at_inbox_release(f->home);
  at_shared_release(&f->origin->shared);
  free(f);
}

/* [-0, +0, -] cancels it, with the reason at the top, once. */
static void origin_cancel(lua_State *L, origin *o) {
  reason why;
  feed *told = NULL;
  take_reason(L, &why);
  pthread_mutex_lock(&o->mutex);
  if (!o->cancelled) {
    o->why = why;
    why.text = NULL;
    o->cancelled = 1;
    told = o->feeds;
    o->feeds = NULL;
    for (feed *f = told; f != NULL; f = f->next) {
      f->prev = NULL;
      atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
    }
  }
  pthread_mutex_unlock(&o->mutex);
  free(why.text);
  while (told != NULL) {
    feed *next = told->next; /* nobody else looks at it now */
    at_post(told->home, &told->mail);
    told = next;
  }
}

/* ---- the way out: relays ---- */

static const at_relay relay_head;

static relay *new_relay(origin *o, int own) {
  relay *r = calloc(1, sizeof *r);
  if (r == NULL) return NULL;
  r->head = relay_head;
  r->head.own = (unsigned char)own;
  r->origin = at_shared_retain(&o->shared);
  pthread_mutex_lock(&o->mutex);
  o->relays++;
  pthread_mutex_unlock(&o->mutex);
  return r;
}

static void relay_drop(at_relay *head) {
  relay *r = (relay *)(void *)head;
  pthread_mutex_lock(&r->origin->mutex);
  r->origin->relays--;
  pthread_mutex_unlock(&r->origin->mutex);
  at_shared_release(&r->origin->shared);
  free(r);
}

static void relay_cancelled(lua_State *L, at_relay *head) {
  origin_cancel(L, ((relay *)(void *)head)->origin);
  relay_drop(head);
}

/* Feeds and messages on their way hold it, too. */
static int relay_needed(const at_relay *head) {
  origin *o = ((const relay *)(const void *)head)->origin;
  size_t relays;
  int cancelled;
  pthread_mutex_lock(&o->mutex);
  relays = o->relays;
  cancelled = o->cancelled;
  pthread_mutex_unlock(&o->mutex);
  return !cancelled && at_shared_holders(&o->shared) > relays;
}

static at_relay *relay_again(const at_relay *head) {
  relay *r = relay_needed(head) ? new_relay(((const relay *)(const void *)head)->origin, 0) : NULL;
  return r != NULL ? &r->head : NULL;
}

static const at_relay relay_head = {NULL, 0, relay_cancelled, relay_again, relay_needed, relay_drop};

/* ---- the way in: feeds ---- */

/* The source has been collected, or its state goes. */
static void feed_drop(at_runtime *rt, at_feed *head) {
  feed *f = (feed *)(void *)head;
  f->source = NULL;
  pthread_mutex_lock(&f->origin->mutex);
  if (f->prev != NULL) {
    *f->prev = f->next;
    if (f->next != NULL) f->next->prev = f->prev;
    f->prev = NULL;
  }
  pthread_mutex_unlock(&f->origin->mutex);
  if (f->deferring) {
    if (!rt->closed) at_sched_undefer(rt, &f->deferred);
    f->deferring = 0;
    feed_release(f);
  }
  feed_release(f);
}

static void cancel_source(lua_State *L, at_runtime *rt, at_deferred *d) {
  feed *f = (feed *)(void *)((char *)d - offsetof(feed, deferred));
  luaL_checkstack(L, 4, "cancellation");
  at_cancellation_push(L, rt, f->source); /* not collected, else the feed was dropped */
  push_reason(L, &f->origin->why);        /* may raise: then the source's end lets go */
  f->deferring = 0;
  if (lua_isnil(L, -2)) lua_pop(L, 1);
  else at_cancellation_cancel(L, rt, -2);
  lua_pop(L, 1);
  feed_release(f);
}

static void receive(at_runtime *rt, at_mail *mail) {
  feed *f = (feed *)(void *)((char *)mail - offsetof(feed, mail));
  if (rt == NULL || f->source == NULL) {
    feed_release(f);
    return;
  }
  f->deferring = 1;
  at_sched_defer(rt, &f->deferred);
}

/* ---- the codec's ---- */

/* The origin of the source at `index`, made when it travels for the first time. */
static at_shared *give(lua_State *L, int index, void *bytes) {
  at_relay *known = at_cancellation_relay(L, index);
  origin *o;
  relay *r;
  (void)bytes;
  if (known != NULL) return &((relay *)(void *)known)->origin->shared;
  o = calloc(1, sizeof *o);
  if (o == NULL) at_codec_no_memory(L);
  at_shared_init(&o->shared, destroy);
  (void)pthread_mutex_init(&o->mutex, NULL); /* cannot fail for a plain one */
  r = new_relay(o, 1);
  at_shared_release(&o->shared);
  if (r == NULL) at_codec_no_memory(L);
  if (at_cancellation_reason(L, index)) {
    origin_cancel(L, o);
    lua_pop(L, 1);
  }
  at_cancellation_follow(L, index, &r->head); /* one that is cancelled keeps it for the next time */
  return &o->shared;
}

/* [-0, +1, m] */
static int take(lua_State *L, at_shared *s, const void *bytes) {
  at_runtime *rt = at_runtime_get(L);
  origin *o = (origin *)(void *)s;
  feed **holder, *f;
  int cancelled;
  (void)bytes;
  luaL_checkstack(L, 8, "cancellation");
  holder = lua_newuserdatauv(L, sizeof *holder, 0); /* frees it if what comes next raises */
  *holder = NULL;
  luaL_setmetatable(L, AT_FEED_MT);
  f = calloc(1, sizeof *f);
  if (f == NULL) at_codec_no_memory(L);
  atomic_init(&f->refs, 1);
  f->head.drop = feed_drop;
  f->mail.receive = receive;
  f->deferred.run = cancel_source;
  f->rt = rt;
  f->home = at_inbox_retain(rt->inbox);
  f->origin = at_shared_retain(s);
  *holder = f;
  at_cancellation_new(L, rt, &f->head);
  *holder = NULL;
  f->source = lua_touserdata(L, -1);
  lua_remove(L, -2);
  pthread_mutex_lock(&o->mutex);
  cancelled = o->cancelled;
  if (!cancelled) {
    f->next = o->feeds;
    f->prev = &o->feeds;
    if (o->feeds != NULL) o->feeds->prev = &f->next;
    o->feeds = f;
  }
  pthread_mutex_unlock(&o->mutex);
  if (cancelled) {
    push_reason(L, &o->why);
    at_cancellation_cancel(L, rt, -2);
  }
  return 1;
}

static int l_holder_gc(lua_State *L) {
  feed **holder = lua_touserdata(L, 1);
  if (*holder != NULL) feed_release(*holder);
  *holder = NULL;
  return 0;
}

void at_sharedcancel_open(lua_State *L, at_runtime *rt) {
  static const at_carrier carrier = {give, take, 0};
  static const luaL_Reg meta[] = {{"__gc", l_holder_gc}, {NULL, NULL}};
  at_runtime_class(L, rt, AT_FEED_MT, NULL, meta);
  luaL_getmetatable(L, AT_CANCELLATION_MT);
  at_carry_class(L, &carrier);
  lua_pop(L, 1);
}
