/* sharedchannel.c - channel.shared: channels between tasks on any threads. Values travel as messages of
** the codec. The channel is a counted object with a mutex, held for a few instructions; those who wait
** are requests in its lists, and are told by mail to their own runtimes, so no loop ever blocks.
** Invariants: receivers wait only while nothing lies in the channel and no sender waits; senders wait only
** while it is full. Whoever takes a request out of a list decides its outcome, under the mutex, and posts
** its mail after. A parcel that was handed to a receiver who is cancelled before it got it goes back to
** the front; a sender whose value was taken has sent, even if it is cancelled then (S10). */
#include "par/sharedchannel.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "core/op.h"
#include "core/post.h"
#include "par/codec.h"

#define SHARED_MT "asynctask.SharedChannel"
#define STASH_MT "asynctask.sharedchannel.stash"

static const char boxes_key = 'b', stash_key = 's';

enum outcome { BLOCKED, DONE, CLOSED };

/* A value on its way. */
typedef struct parcel {
  struct parcel *next;
  at_message message;
} parcel;

typedef struct request {
  at_op op;
  at_mail mail;            /* the way home */
  at_inbox *home;          /* counted */
  struct channel *channel; /* counted */
  struct request *prev, *next; /* guarded by channel->mutex: the list it waits in, then those to be told */
  parcel *parcel;          /* owned; guarded: what it brings, or was handed */
  unsigned char sends;
  unsigned char waiting;   /* guarded: in a list */
  unsigned char outcome;   /* guarded until its mail has come */
  unsigned char counted;   /* loop thread: counts as an external source */
  struct box *box;         /* loop thread: borrowed while it is in the box's list */
  struct request *near_next, **near_prev; /* loop thread */
} request;

typedef struct waiters {
  request *head, *tail;
} waiters;

typedef struct channel {
  at_shared shared;
  pthread_mutex_t mutex;
  size_t capacity;
  size_t count;            /* guarded, as is all below */
  parcel *first, *last;
  waiters receivers, senders;
  size_t requests;         /* alive: each is a holder */
  unsigned char closed;
  parcel *error;           /* owned; set when it is closed, then never changed; NULL: none */
} channel;

/* The userdata: one for each channel in each state. */
typedef struct box {
  channel *channel; /* counted */
  request *near;    /* requests of this state that wait */
} box;

/* Parcels that would be lost if the allocations that come next raised. */
typedef struct stash {
  parcel *first;
} stash;

/* ---- parcels ---- */

static void free_parcel(parcel *p) {
  if (p == NULL) return;
  at_message_free(&p->message);
  free(p);
}

/* [-1, +0, v] a parcel of the value at the top. From here on nothing may raise until it has an owner. */
static parcel *pack(lua_State *L) {
  at_codec *c;
  parcel *p;
  luaL_checkstack(L, 4, "message");
  c = at_codec_push(L);
  lua_insert(L, -2); /* stack: codec value */
  at_encode(L, c, lua_gettop(L) - 1, lua_gettop(L), AT_ROLE_MESSAGE);
  p = calloc(1, sizeof *p);
  if (p == NULL) at_codec_no_memory(L);
  at_message_move(&p->message, &c->message);
  lua_pop(L, 2);
  return p;
}

static stash *stash_of(lua_State *L) {
  stash *s;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &stash_key);
  s = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return s;
}

static void stash_put(stash *s, parcel *p) {
  p->next = s->first;
  s->first = p;
}

static void stash_take(stash *s, parcel *p) {
  parcel **link = &s->first;
  while (*link != p) link = &(*link)->next;
  *link = p->next;
  p->next = NULL;
}

static int l_stash_gc(lua_State *L) {
  stash *s = lua_touserdata(L, 1);
  while (s->first != NULL) {
    parcel *p = s->first;
    s->first = p->next;
    free_parcel(p);
  }
  return 0;
}

/* ---- the lists; under the mutex ---- */

static void list_add(waiters *list, request *r) {
  r->prev = list->tail;
  r->next = NULL;
  if (list->tail != NULL)
    list->tail->next = r;
  else
    list->head = r;
  list->tail = r;
  r->waiting = 1;
}

static void list_remove(waiters *list, request *r) {
  if (r->prev != NULL)
    r->prev->next = r->next;
  else
    list->head = r->next;
  if (r->next != NULL)
    r->next->prev = r->prev;
  else
    list->tail = r->prev;
  r->prev = r->next = NULL;
  r->waiting = 0;
}

/* The first of the list leaves it; NULL: nobody waits. */
static request *list_take(waiters *list, int outcome) {
  request *r = list->head;
  if (r == NULL) return NULL;
  list_remove(list, r);
  r->outcome = (unsigned char)outcome;
  return r;
}

/* A parcel comes in: to a receiver, who is to be told, or to an end of the queue. */
static request *put(channel *c, parcel *p, int front) {
  request *r = list_take(&c->receivers, DONE);
  if (r != NULL) {
    r->parcel = p;
    return r;
  }
  p->next = front ? c->first : NULL;
  if (front)
    c->first = p;
  else if (c->last != NULL)
    c->last->next = p;
  else
    c->first = p;
  if (p->next == NULL) c->last = p;
  c->count++;
  return NULL;
}

static parcel *take_first(channel *c) {
  parcel *p = c->first;
  c->first = p->next;
  if (c->first == NULL) c->last = NULL;
  c->count--;
  p->next = NULL;
  return p;
}

/* DONE: *p comes out. *told: a sender who is to be told, or NULL. */
static int get(channel *c, parcel **p, request **told) {
  request *s;
  *told = NULL;
  if (c->count > 0) {
    *p = take_first(c);
    if (c->count >= c->capacity || (s = list_take(&c->senders, DONE)) == NULL) return DONE;
    (void)put(c, s->parcel, 0);
  } else if ((s = list_take(&c->senders, DONE)) != NULL) {
    *p = s->parcel;
  } else {
    return c->closed ? CLOSED : BLOCKED;
  }
  s->parcel = NULL;
  *told = s;
  return DONE;
}

static int can_put(const channel *c) {
  if (c->closed) return CLOSED;
  return c->receivers.head != NULL || c->count < c->capacity ? DONE : BLOCKED;
}

/* ---- telling ---- */

/* Loop thread: it waits no longer. */
static void leave_near(at_runtime *rt, request *r) {
  if (r->box != NULL) {
    *r->near_prev = r->near_next;
    if (r->near_next != NULL) r->near_next->near_prev = r->near_prev;
    r->box = NULL;
  }
  if (r->counted) at_external_remove(rt);
  r->counted = 0;
}

static void arrive(at_runtime *rt, at_mail *mail) {
  request *r = (request *)(void *)((char *)mail - offsetof(request, mail));
  if (rt == NULL) {
    r->op.rt = NULL;
    r->op.class->release(&r->op);
    return;
  }
  leave_near(rt, r);
  at_op_done(&r->op);
}

/* Outside the mutex: those of the list learn their outcome. `rt` is the caller's, or NULL. */
static void tell(at_runtime *rt, request *r) {
  while (r != NULL) {
    request *next = r->next;
    r->next = NULL;
    if (rt != NULL && r->op.rt == rt)
      arrive(rt, &r->mail);
    else
      at_post(r->home, &r->mail);
    r = next;
  }
}

/* Nobody got it: it is the next one to be received. Any thread. */
static void give_back(channel *c, parcel *p) {
  request *r;
  pthread_mutex_lock(&c->mutex);
  r = put(c, p, 1);
  pthread_mutex_unlock(&c->mutex);
  tell(NULL, r);
}

/* ---- the operations ---- */

static int request_cancel(at_op *op) {
  request *r = (request *)(void *)op, *told = NULL;
  channel *c = r->channel;
  int waited, happened;
  pthread_mutex_lock(&c->mutex);
  waited = r->waiting;
  happened = r->sends && r->outcome == DONE;
  if (waited) {
    list_remove(r->sends ? &c->senders : &c->receivers, r);
  } else if (!r->sends && r->parcel != NULL) {
    told = put(c, r->parcel, 1);
    r->parcel = NULL;
  }
  pthread_mutex_unlock(&c->mutex);
  leave_near(op->rt, r);
  tell(NULL, told);
  return waited ? 1 : happened ? AT_OP_HAPPENED : 0;
}

static void request_release(at_op *op) {
  request *r = (request *)(void *)op;
  channel *c = r->channel;
  if (c != NULL) {
    if (op->rt != NULL) leave_near(op->rt, r);
    if (r->parcel != NULL && r->sends) free_parcel(r->parcel);
    if (r->parcel != NULL && !r->sends) give_back(c, r->parcel);
    pthread_mutex_lock(&c->mutex);
    c->requests--;
    pthread_mutex_unlock(&c->mutex);
    at_shared_release(&c->shared);
    at_inbox_release(r->home);
  }
  free(r);
}

/* [-0, +1, m] pushes the error of sending to a closed channel. */
static void push_closed(lua_State *L) { at_error_push(L, "EPIPE", "the channel is closed", "send"); }

static int send_push(lua_State *L, at_op *op) {
  if (((request *)(void *)op)->outcome == DONE) return 0;
  push_closed(L);
  return AT_OP_FAILED;
}

/* [-0, +1, m] pushes what a closed and drained channel gives: nil, or (returns 1) its error. */
static int push_end(lua_State *L, const channel *c) {
  if (c->error == NULL) {
    lua_pushnil(L);
    return 0;
  }
  if (at_carry_decode(L, &c->error->message) == LUA_ERRMEM) lua_error(L);
  return 1;
}

static int receive_push(lua_State *L, at_op *op) {
  request *r = (request *)(void *)op;
  int status;
  if (r->outcome == CLOSED) return push_end(L, r->channel) ? AT_OP_FAILED : 1;
  status = at_carry_decode(L, &r->parcel->message);
  if (status == LUA_ERRMEM) return lua_error(L); /* it goes back to the channel */
  free_parcel(r->parcel);
  r->parcel = NULL;
  return status == LUA_OK ? 1 : AT_OP_FAILED;
}

static const at_opclass send_class = {"send", send_push, request_cancel, request_release, NULL, 0};
static const at_opclass receive_class = {"receive", receive_push, request_cancel, request_release, NULL, 0};

/* ---- boxes ---- */

static box *check(lua_State *L) { return luaL_checkudata(L, 1, SHARED_MT); }

/* True if somebody else may come: another state, or a message on its way. Under the mutex. */
static int has_others(const channel *c) { return at_shared_holders(&c->shared) > c->requests + 1; }

static void count_request(request *r) {
  if (!r->counted) at_external_add(r->op.rt);
  r->counted = 1;
}

/* [-0, +1, m] a pending Task for the box at index 1, with a request that is in no list yet. NULL: it has
** settled. */
static request *new_request(lua_State *L, at_runtime *rt, box *b, const at_opclass *class) {
  at_task *t = at_op_new(L, rt);
  request *r;
  if (at_task_settled(t)) return NULL;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  r = at_op_alloc(L, rt, t, class, sizeof *r);
  if (r == NULL) return NULL;
  r->mail.receive = arrive;
  r->channel = at_shared_retain(&b->channel->shared);
  r->home = at_inbox_retain(rt->inbox);
  r->sends = class == &send_class;
  pthread_mutex_lock(&r->channel->mutex);
  r->channel->requests++;
  pthread_mutex_unlock(&r->channel->mutex);
  return r;
}

/* The request waits; unlocks the mutex. */
static void wait_in(box *b, waiters *list, request *r) {
  channel *c = b->channel;
  int others = has_others(c);
  list_add(list, r);
  pthread_mutex_unlock(&c->mutex);
  r->box = b;
  r->near_next = b->near;
  r->near_prev = &b->near;
  if (b->near != NULL) b->near->near_prev = &r->near_next;
  b->near = r;
  if (others) count_request(r);
}

/* ---- methods ---- */

/* The channel was full: a second look, with a request at hand. stack: box value task */
static int send_slowly(lua_State *L, at_runtime *rt, box *b, parcel *p) {
  channel *c = b->channel;
  stash *s = stash_of(L);
  request *r, *told;
  int outcome;
  stash_put(s, p);
  r = new_request(L, rt, b, &send_class);
  stash_take(s, p);
  if (r == NULL) {
    free_parcel(p);
    return 1;
  }
  pthread_mutex_lock(&c->mutex);
  outcome = can_put(c);
  if (outcome == BLOCKED) {
    r->parcel = p;
    wait_in(b, &c->senders, r);
    return 1;
  }
  told = outcome == DONE ? put(c, p, 0) : NULL;
  pthread_mutex_unlock(&c->mutex);
  tell(rt, told);
  r->outcome = (unsigned char)outcome;
  if (outcome == CLOSED) free_parcel(p);
  at_op_done(&r->op);
  return 1;
}

static int send_now(at_runtime *rt, channel *c, parcel *p) {
  request *told = NULL;
  int outcome;
  pthread_mutex_lock(&c->mutex);
  outcome = can_put(c);
  if (outcome == DONE) told = put(c, p, 0);
  pthread_mutex_unlock(&c->mutex);
  tell(rt, told);
  return outcome;
}

static void check_value(lua_State *L) {
  luaL_checkany(L, 2);
  luaL_argcheck(L, !lua_isnil(L, 2), 2, "a message must not be nil");
  lua_settop(L, 2);
}

/* send(value) -> Task of nothing; waits while the channel is full */
static int l_sharedchannel_send(lua_State *L) {
  at_runtime *rt = at_rt(L);
  box *b = check(L);
  parcel *p;
  check_value(L);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  lua_pushvalue(L, 2);
  p = pack(L);
  switch (send_now(rt, b->channel, p)) {
    case DONE: at_task_resolved(L, rt, 0); return 1;
    case CLOSED:
      free_parcel(p);
      push_closed(L);
      at_task_failed(L, rt);
      return 1;
    default: return send_slowly(L, rt, b, p);
  }
}

/* try_send(value) -> whether it was taken; never waits */
static int l_sharedchannel_try_send(lua_State *L) {
  box *b = check(L);
  parcel *p;
  int outcome;
  check_value(L);
  p = pack(L);
  outcome = send_now(at_rt(L), b->channel, p);
  if (outcome != DONE) free_parcel(p);
  lua_pushboolean(L, outcome == DONE);
  return 1;
}

/* [-0, +(0|1), m] DONE: *status says whether the value or an error was pushed. */
static int receive_now(lua_State *L, at_runtime *rt, channel *c, int *status) {
  request *told;
  parcel *p = NULL;
  int outcome;
  pthread_mutex_lock(&c->mutex);
  outcome = get(c, &p, &told);
  pthread_mutex_unlock(&c->mutex);
  if (outcome != DONE) return outcome;
  tell(rt, told);
  *status = at_carry_decode(L, &p->message);
  if (*status == LUA_ERRMEM) {
    give_back(c, p);
    lua_error(L);
  }
  free_parcel(p);
  return DONE;
}

/* The channel was empty: a second look, with a request at hand. */
static int receive_slowly(lua_State *L, at_runtime *rt, box *b) {
  channel *c = b->channel;
  request *r = new_request(L, rt, b, &receive_class), *told;
  int outcome;
  if (r == NULL) return 1;
  pthread_mutex_lock(&c->mutex);
  outcome = get(c, &r->parcel, &told);
  if (outcome == BLOCKED) {
    wait_in(b, &c->receivers, r);
    return 1;
  }
  pthread_mutex_unlock(&c->mutex);
  tell(rt, told);
  r->outcome = (unsigned char)outcome;
  at_op_done(&r->op);
  return 1;
}

/* receive() -> Task of the next value; of nil when the channel is closed and drained */
static int l_sharedchannel_receive(lua_State *L) {
  at_runtime *rt = at_rt(L);
  box *b = check(L);
  int status = LUA_OK;
  lua_settop(L, 1);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  switch (receive_now(L, rt, b->channel, &status)) {
    case BLOCKED: return receive_slowly(L, rt, b);
    case CLOSED: status = push_end(L, b->channel) ? LUA_ERRRUN : LUA_OK; break;
    default: break;
  }
  if (status == LUA_OK)
    at_task_resolved(L, rt, 1);
  else
    at_task_failed(L, rt);
  return 1;
}

/* try_receive() -> value, or nil and "empty" or "closed"; never waits */
static int l_sharedchannel_try_receive(lua_State *L) {
  box *b = check(L);
  int status = LUA_OK, outcome;
  lua_settop(L, 1);
  outcome = receive_now(L, at_rt(L), b->channel, &status);
  if (outcome == DONE) return status == LUA_OK ? 1 : lua_error(L);
  lua_pushnil(L);
  lua_pushstring(L, outcome == CLOSED ? "closed" : "empty");
  return 2;
}

/* Everybody who waits: one list, linked by next. Under the mutex. */
static request *take_all(channel *c) {
  request *told = NULL, **link = &told, *r;
  while ((r = list_take(&c->senders, CLOSED)) != NULL || (r = list_take(&c->receivers, CLOSED)) != NULL) {
    *link = r;
    link = &r->next;
  }
  return told;
}

/* close([err]): senders fail, receivers get what is left, then nil, or err */
static int l_sharedchannel_close(lua_State *L) {
  box *b = check(L);
  channel *c = b->channel;
  parcel *error = NULL;
  request *told = NULL;
  lua_settop(L, 2);
  if (!lua_isnil(L, 2)) error = pack(L);
  pthread_mutex_lock(&c->mutex);
  if (!c->closed) {
    c->closed = 1;
    c->error = error;
    error = NULL;
    told = take_all(c);
  }
  pthread_mutex_unlock(&c->mutex);
  free_parcel(error);
  tell(at_rt(L), told);
  return 0;
}

static int l_sharedchannel_len(lua_State *L) {
  channel *c = check(L)->channel;
  size_t n;
  pthread_mutex_lock(&c->mutex);
  n = c->count;
  pthread_mutex_unlock(&c->mutex);
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

static int l_sharedchannel_is_closed(lua_State *L) {
  channel *c = check(L)->channel;
  int closed;
  pthread_mutex_lock(&c->mutex);
  closed = c->closed;
  pthread_mutex_unlock(&c->mutex);
  lua_pushboolean(L, closed);
  return 1;
}

/* ---- making, going, travelling ---- */

static void destroy(at_shared *s) {
  channel *c = (channel *)(void *)s;
  while (c->first != NULL) free_parcel(take_first(c));
  free_parcel(c->error);
  pthread_mutex_destroy(&c->mutex);
  free(c);
}

/* [-0, +1, m] pushes a box without channel. */
static box *push_box(lua_State *L) {
  box *b = lua_newuserdatauv(L, sizeof *b, 0);
  memset(b, 0, sizeof *b);
  luaL_setmetatable(L, SHARED_MT);
  return b;
}

/* [-0, +0, m] the box at the top is this state's for its channel. */
static void remember(lua_State *L, const box *b) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &boxes_key);
  lua_pushvalue(L, -2);
  lua_rawsetp(L, -2, b->channel);
  lua_pop(L, 1);
}

/* new(capacity) -> channel */
static int l_new(lua_State *L) {
  lua_Integer capacity = luaL_optinteger(L, 1, 0);
  box *b;
  channel *c;
  luaL_argcheck(L, capacity >= 0, 1, "capacity must not be negative");
  b = push_box(L);
  c = calloc(1, sizeof *c);
  if (c == NULL) at_codec_no_memory(L);
  at_shared_init(&c->shared, destroy);
  (void)pthread_mutex_init(&c->mutex, NULL); /* cannot fail for a plain one */
  c->capacity = (size_t)capacity;
  b->channel = c;
  remember(L, b);
  return 1;
}

static int l_box_gc(lua_State *L) {
  box *b = lua_touserdata(L, 1);
  if (b->channel != NULL) at_shared_release(&b->channel->shared);
  b->channel = NULL;
  return 0;
}

/* Somebody else will have it: those who wait here do not wait in vain. */
static at_shared *give(lua_State *L, int index, void *bytes) {
  box *b = lua_touserdata(L, index);
  request *r;
  (void)bytes;
  for (r = b->near; r != NULL; r = r->near_next) count_request(r);
  return &b->channel->shared;
}

/* [-0, +0, e] the methods in Lua are there, too: a job may not have loaded the module. */
static void load_methods(lua_State *L) {
  static const char module[] = "asynctask.channel";
  int top = lua_gettop(L);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, module) == LUA_TNIL && lua_getglobal(L, "require") == LUA_TFUNCTION) {
    lua_pushstring(L, module);
    lua_call(L, 1, 0);
  }
  lua_settop(L, top);
}

static int take(lua_State *L, at_shared *s, const void *bytes) {
  channel *c = (channel *)(void *)s;
  box *b;
  (void)bytes;
  luaL_checkstack(L, 6, "channel");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &boxes_key);
  if (lua_rawgetp(L, -1, c) == LUA_TUSERDATA) {
    lua_remove(L, -2);
    return 1;
  }
  lua_pop(L, 2);
  load_methods(L);
  b = push_box(L);
  b->channel = at_shared_retain(s);
  remember(L, b);
  return 1;
}

void at_sharedchannel_open(lua_State *L, at_runtime *rt) {
  static const at_carrier carrier = {give, take};
  static const luaL_Reg functions[] = {{"new", l_new}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"send", l_sharedchannel_send},
                                     {"receive", l_sharedchannel_receive},
                                     {"try_send", l_sharedchannel_try_send},
                                     {"try_receive", l_sharedchannel_try_receive},
                                     {"close", l_sharedchannel_close},
                                     {"is_closed", l_sharedchannel_is_closed},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__len", l_sharedchannel_len}, {"__gc", l_box_gc}, {NULL, NULL}};
  static const luaL_Reg stash_meta[] = {{"__gc", l_stash_gc}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, SHARED_MT, methods, meta);
  at_runtime_class(L, rt, STASH_MT, NULL, stash_meta);
  luaL_getmetatable(L, SHARED_MT);
  at_carry_class(L, &carrier);
  lua_setfield(L, -2, "SharedChannel");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &boxes_key) == LUA_TNIL) {
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &boxes_key);
    ((stash *)lua_newuserdatauv(L, sizeof(stash), 0))->first = NULL;
    luaL_setmetatable(L, STASH_MT);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &stash_key);
  }
  lua_pop(L, 1);
}
