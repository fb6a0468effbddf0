/* sharedchannel.c - channel.shared: channels between tasks on any threads. Values travel as messages of
** the codec. The userdata (one a state) holds the channel, a counted object; those who wait are requests,
** told by mail to their own runtimes, so no loop ever blocks. Each state's own thread.
** Invariants: a parcel that was handed to a receiver who is cancelled before it got it goes back to the
** front; a sender whose value was taken has sent, even if it is cancelled then (S10). */
#include "par/sharedchannel.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "par/sharedqueue.h"

#define SHARED_MT "asynctask.SharedChannel"
#define STASH_MT "asynctask.sharedchannel.stash"

static const char boxes_key = 'b', stash_key = 's';

/* Parcels that would be lost if the allocations that come next raised. */
typedef struct stash {
  parcel *first;
} stash;

/* ---- parcels ---- */

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
    at_sharedqueue_free(p);
  }
  return 0;
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
    at_sharedqueue_leave(r->sends ? &c->senders : &c->receivers, r);
  } else if (!r->sends && r->parcel != NULL) {
    told = at_sharedqueue_put(c, r->parcel, 1);
    r->parcel = NULL;
  }
  pthread_mutex_unlock(&c->mutex);
  at_sharedqueue_unwait(op->rt, r);
  at_sharedqueue_tell(NULL, told);
  return waited ? 1 : happened ? AT_OP_HAPPENED : 0;
}

static void request_release(at_op *op) {
  request *r = (request *)(void *)op;
  channel *c = r->channel;
  if (c != NULL) {
    if (op->rt != NULL) at_sharedqueue_unwait(op->rt, r);
    if (r->parcel != NULL && r->sends) at_sharedqueue_free(r->parcel);
    if (r->parcel != NULL && !r->sends) at_sharedqueue_give_back(c, r->parcel);
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
  at_sharedqueue_free(r->parcel);
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
  r->mail.receive = at_sharedqueue_arrive;
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
  at_sharedqueue_wait(list, r);
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
    at_sharedqueue_free(p);
    return 1;
  }
  pthread_mutex_lock(&c->mutex);
  outcome = at_sharedqueue_can_put(c);
  if (outcome == BLOCKED) {
    r->parcel = p;
    wait_in(b, &c->senders, r);
    return 1;
  }
  told = outcome == DONE ? at_sharedqueue_put(c, p, 0) : NULL;
  pthread_mutex_unlock(&c->mutex);
  at_sharedqueue_tell(rt, told);
  r->outcome = (unsigned char)outcome;
  if (outcome == CLOSED) at_sharedqueue_free(p);
  at_op_done(&r->op);
  return 1;
}

static int send_now(at_runtime *rt, channel *c, parcel *p) {
  request *told = NULL;
  int outcome;
  pthread_mutex_lock(&c->mutex);
  outcome = at_sharedqueue_can_put(c);
  if (outcome == DONE) told = at_sharedqueue_put(c, p, 0);
  pthread_mutex_unlock(&c->mutex);
  at_sharedqueue_tell(rt, told);
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
  if (at_codec_is_nested(L)) return at_codec_apart(L);
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
      at_sharedqueue_free(p);
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
  if (at_codec_is_nested(L)) return at_codec_apart(L);
  check_value(L);
  p = pack(L);
  outcome = send_now(at_rt(L), b->channel, p);
  if (outcome != DONE) at_sharedqueue_free(p);
  lua_pushboolean(L, outcome == DONE);
  return 1;
}

/* [-0, +(0|1), m] DONE: *status says whether the value or an error was pushed. */
static int receive_now(lua_State *L, at_runtime *rt, channel *c, int *status) {
  request *told;
  parcel *p = NULL;
  int outcome;
  pthread_mutex_lock(&c->mutex);
  outcome = at_sharedqueue_get(c, &p, &told);
  pthread_mutex_unlock(&c->mutex);
  if (outcome != DONE) return outcome;
  at_sharedqueue_tell(rt, told);
  *status = at_carry_decode(L, &p->message);
  if (*status == LUA_ERRMEM) {
    at_sharedqueue_give_back(c, p);
    lua_error(L);
  }
  at_sharedqueue_free(p);
  return DONE;
}

/* The channel was empty: a second look, with a request at hand. */
static int receive_slowly(lua_State *L, at_runtime *rt, box *b) {
  channel *c = b->channel;
  request *r = new_request(L, rt, b, &receive_class), *told;
  int outcome;
  if (r == NULL) return 1;
  pthread_mutex_lock(&c->mutex);
  outcome = at_sharedqueue_get(c, &r->parcel, &told);
  if (outcome == BLOCKED) {
    wait_in(b, &c->receivers, r);
    return 1;
  }
  pthread_mutex_unlock(&c->mutex);
  at_sharedqueue_tell(rt, told);
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

/* close([err]): senders fail, receivers get what is left, then nil, or err */
static int l_sharedchannel_close(lua_State *L) {
  box *b = check(L);
  channel *c = b->channel;
  parcel *error = NULL;
  request *told = NULL;
  if (at_codec_is_nested(L)) return at_codec_apart(L);
  lua_settop(L, 2);
  if (!lua_isnil(L, 2)) error = pack(L);
  pthread_mutex_lock(&c->mutex);
  if (!c->closed) {
    c->closed = 1;
    c->error = error;
    error = NULL;
    told = at_sharedqueue_take_all(c);
  }
  pthread_mutex_unlock(&c->mutex);
  at_sharedqueue_free(error);
  at_sharedqueue_tell(at_rt(L), told);
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
  c = at_sharedqueue_new((size_t)capacity);
  if (c == NULL) at_codec_no_memory(L);
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
  static const at_carrier carrier = {give, take, 0};
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
