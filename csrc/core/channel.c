/* channel.c - channels: rendezvous and bounded, first come first served, and select over several.
** A channel is a userdata: its values are in a table (user value 1) used as a ring, those who wait are
** branches of requests in two intrusive lists. Loop thread only.
** Invariants: receivers wait only while the ring is empty and no sender waits; senders wait only while
** the ring is full; a request that settles leaves every list at once, so that a value is handed to
** exactly one receiver, and a cancelled one takes none (S10). */
#include "core/channel.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "core/op.h"

#define CHANNEL_MT "asynctask.Channel"

enum { UV_VALUES = 1, UV_ERROR };
enum overflow { WAIT, DROP_OLDEST, DROP_NEWEST, RAISE };

typedef struct branch {
  struct branch *prev, *next; /* in the channel's list of those who wait */
  struct channel *channel;    /* borrowed: the Task's user value keeps it; NULL: in no list */
  struct request *request;
  unsigned char sends;
} branch;

/* send: user value {channel, value}; receive: the channel; select: {channel, value|nil, ...}. */
typedef struct request {
  at_op op;
  unsigned char is_select;
  int n;
  branch branches[];
} request;

typedef struct waiters {
  branch *head, *tail;
} waiters;

typedef struct channel {
  lua_Integer capacity, first, count; /* the ring: keys first .. first + count - 1 */
  waiters receivers, senders;
  unsigned char overflow, closed, failed; /* failed: closed with an error */
} channel;

static channel *check(lua_State *L, int arg) { return luaL_checkudata(L, arg, CHANNEL_MT); }

/* ---- those who wait ---- */

static void list_add(waiters *list, branch *b) {
  b->prev = list->tail;
  b->next = NULL;
  if (list->tail != NULL)
    list->tail->next = b;
  else
    list->head = b;
  list->tail = b;
}

static void list_remove(branch *b) {
  waiters *list;
  if (b->channel == NULL) return;
  list = b->sends ? &b->channel->senders : &b->channel->receivers;
  if (b->prev != NULL)
    b->prev->next = b->next;
  else
    list->head = b->next;
  if (b->next != NULL)
    b->next->prev = b->prev;
  else
    list->tail = b->prev;
  b->channel = NULL;
}

static void leave_all(request *r) {
  int i;
  for (i = 0; i < r->n; i++) list_remove(&r->branches[i]);
}

static int cancel_request(at_op *op) {
  leave_all((request *)op);
  return 1;
}

static const at_opclass send_class = {"send", NULL, cancel_request, NULL, NULL, 0};
static const at_opclass receive_class = {"receive", NULL, cancel_request, NULL, NULL, 0};
static const at_opclass select_class = {"select", NULL, cancel_request, NULL, NULL, 0};

/* Settles the request that a branch belongs to; for a receiving branch with the value at the top, which
** is popped. `self` is the index of the channel. */
static void settle(lua_State *L, branch *b, int self) {
  request *r = b->request;
  int sends = b->sends, results = 0, is_select = r->is_select;
  self = lua_absindex(L, self);
  leave_all(r);
  if (is_select) {
    lua_pushvalue(L, self);
    results = 1;
    if (!sends) {
      lua_insert(L, -2); /* channel value */
      results = 2;
    }
  } else if (!sends) {
    results = 1;
  }
  at_op_succeed(L, &r->op, results);
}

/* [-0, +1, m] pushes the value that a waiting sender brings. */
static void push_offer(lua_State *L, const branch *b) {
  at_op_push_task(L, &b->request->op);
  lua_getiuservalue(L, -1, 1);
  lua_rawgeti(L, -1, 2 * (b - b->request->branches) + 2);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* ---- the ring ---- */

/* [-1, +0, m] */
static void ring_put(lua_State *L, channel *c, int self) {
  lua_getiuservalue(L, self, UV_VALUES);
  lua_insert(L, -2);
  lua_rawseti(L, -2, c->first + c->count);
  c->count++;
  lua_pop(L, 1);
}

/* [-0, +1, m] takes the oldest value; a waiting sender fills the place. */
static void ring_take(lua_State *L, channel *c, int self) {
  lua_getiuservalue(L, self, UV_VALUES);
  lua_rawgeti(L, -1, c->first);
  lua_pushnil(L);
  lua_rawseti(L, -3, c->first);
  c->first++;
  c->count--;
  lua_remove(L, -2);
  if (c->senders.head != NULL) {
    branch *b = c->senders.head;
    push_offer(L, b);
    ring_put(L, c, self);
    settle(L, b, self);
  }
}

/* ---- what can be done at once ---- */

enum outcome { DONE, BLOCKED, CLOSED };

/* Sends the value at `value`. */
static int send_now(lua_State *L, channel *c, int self, int value) {
  if (c->closed) return CLOSED;
  if (c->receivers.head != NULL) {
    lua_pushvalue(L, value);
    settle(L, c->receivers.head, self);
    return DONE;
  }
  if (c->count < c->capacity) {
    lua_pushvalue(L, value);
    ring_put(L, c, self);
    return DONE;
  }
  switch (c->overflow) {
    case DROP_OLDEST:
      ring_take(L, c, self);
      lua_pop(L, 1);
      lua_pushvalue(L, value);
      ring_put(L, c, self);
      return DONE;
    case DROP_NEWEST:
      return DONE;
    default:
      return BLOCKED;
  }
}

/* Receives: DONE with the value pushed. */
static int receive_now(lua_State *L, channel *c, int self) {
  if (c->count > 0) {
    ring_take(L, c, self);
    return DONE;
  }
  if (c->senders.head != NULL) { /* rendezvous */
    branch *b = c->senders.head;
    push_offer(L, b);
    settle(L, b, self);
    return DONE;
  }
  return c->closed ? CLOSED : BLOCKED;
}

/* [-0, +1, m] pushes the error of sending to a closed channel. */
static void push_closed(lua_State *L) { at_error_push(L, "EPIPE", "the channel is closed", "send"); }

/* ---- waiting ---- */

/* Links a branch of the request to a channel. */
static void wait_for(request *r, int i, channel *c, int sends) {
  branch *b = &r->branches[i];
  b->request = r;
  b->channel = c;
  b->sends = (unsigned char)sends;
  list_add(sends ? &c->senders : &c->receivers, b);
}

/* stack: ... keep -> task. A pending request; `keep` is what its Task's user value holds. NULL: it has
** settled (refused, out of memory) */
static request *new_request(lua_State *L, at_runtime *rt, const at_opclass *class, int n) {
  at_task *t = at_op_new(L, rt);
  request *r;
  lua_insert(L, -2);
  if (at_task_settled(t)) {
    lua_pop(L, 1);
    return NULL;
  }
  lua_setiuservalue(L, -2, 1);
  r = at_op_alloc(L, rt, t, class, sizeof *r + (size_t)n * sizeof r->branches[0]);
  if (r != NULL) r->n = n;
  return r;
}

/* send(value) -> Task of nothing; waits while the channel is full */
static int l_channel_send(lua_State *L) {
  at_runtime *rt = at_rt(L);
  channel *c = check(L, 1);
  request *r;
  luaL_checkany(L, 2);
  luaL_argcheck(L, !lua_isnil(L, 2), 2, "a message must not be nil");
  lua_settop(L, 2);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  switch (send_now(L, c, 1, 2)) {
    case DONE:
      at_task_resolved(L, rt, 0);
      return 1;
    case CLOSED:
      push_closed(L);
      at_task_failed(L, rt);
      return 1;
    default:
      break;
  }
  if (c->overflow == RAISE) {
    at_error_push(L, "ENOBUFS", "the channel is full", "send");
    at_task_failed(L, rt);
    return 1;
  }
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 2);
  r = new_request(L, rt, &send_class, 1);
  if (r != NULL) wait_for(r, 0, c, 1);
  return 1;
}

/* stack: channel ... ; pushes a Task for a channel that is closed and drained */
static int closed_task(lua_State *L, at_runtime *rt, const channel *c) {
  if (c->failed) {
    lua_getiuservalue(L, 1, UV_ERROR);
    at_task_failed(L, rt);
  } else {
    lua_pushnil(L);
    at_task_resolved(L, rt, 1);
  }
  return 1;
}

/* receive() -> Task of the next value; of nil when the channel is closed and drained */
static int l_channel_receive(lua_State *L) {
  at_runtime *rt = at_rt(L);
  channel *c = check(L, 1);
  request *r;
  lua_settop(L, 1);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  switch (receive_now(L, c, 1)) {
    case DONE:
      at_task_resolved(L, rt, 1);
      return 1;
    case CLOSED:
      return closed_task(L, rt, c);
    default:
      break;
  }
  lua_pushvalue(L, 1);
  r = new_request(L, rt, &receive_class, 1);
  if (r != NULL) wait_for(r, 0, c, 0);
  return 1;
}

/* try_send(value) -> whether it was taken; never waits */
static int l_channel_try_send(lua_State *L) {
  channel *c = check(L, 1);
  luaL_checkany(L, 2);
  luaL_argcheck(L, !lua_isnil(L, 2), 2, "a message must not be nil");
  lua_settop(L, 2);
  lua_pushboolean(L, send_now(L, c, 1, 2) == DONE);
  return 1;
}

/* try_receive() -> value, or nil and "empty" or "closed"; never waits */
static int l_channel_try_receive(lua_State *L) {
  channel *c = check(L, 1);
  int outcome;
  lua_settop(L, 1);
  outcome = receive_now(L, c, 1);
  if (outcome == DONE) return 1;
  lua_pushnil(L);
  lua_pushstring(L, outcome == CLOSED ? "closed" : "empty");
  return 2;
}

/* close([err]): senders fail, receivers get what is left, then nil, or err */
static int l_channel_close(lua_State *L) {
  channel *c = check(L, 1);
  lua_settop(L, 2);
  if (c->closed) return 0;
  c->closed = 1;
  c->failed = !lua_isnil(L, 2);
  lua_setiuservalue(L, 1, UV_ERROR);
  while (c->senders.head != NULL) {
    request *r = c->senders.head->request;
    leave_all(r);
    push_closed(L);
    at_op_raise(L, &r->op);
  }
  while (c->receivers.head != NULL) {
    branch *b = c->receivers.head;
    if (c->failed) {
      request *r = b->request;
      leave_all(r);
      lua_getiuservalue(L, 1, UV_ERROR);
      at_op_raise(L, &r->op);
    } else {
      lua_pushnil(L);
      settle(L, b, 1);
    }
  }
  return 0;
}

static int l_channel_len(lua_State *L) {
  lua_pushinteger(L, check(L, 1)->count);
  return 1;
}

static int l_channel_is_closed(lua_State *L) {
  lua_pushboolean(L, check(L, 1)->closed);
  return 1;
}

/* ---- select ---- */

/* The argument `i` of select: leaves channel and value (or nil) in the list at `list`. */
static void add_branch(lua_State *L, int i, int list) {
  if (lua_istable(L, i)) {
    lua_rawgeti(L, i, 1);
    lua_rawgeti(L, i, 2);
    if (luaL_testudata(L, -2, "asynctask.SharedChannel") != NULL)
      luaL_argerror(L, i, "a shared channel cannot be selected: send to it in a task of its own");
    if (luaL_testudata(L, -2, CHANNEL_MT) == NULL || lua_isnil(L, -1))
      luaL_argerror(L, i, "{channel, value} expected");
  } else {
    if (lua_isuserdata(L, i) && luaL_testudata(L, i, "asynctask.SharedChannel") != NULL)
      luaL_argerror(L, i, "a shared channel cannot be selected: receive from it in a task of its own");
    (void)check(L, i);
    lua_pushvalue(L, i);
    lua_pushnil(L);
  }
  lua_rawseti(L, list, 2 * i);
  lua_rawseti(L, list, 2 * i - 1);
}

/* Tries branch i (1-based) of the list at the top. Returns the number of results pushed, 0 if it would
** wait, or AT_OP_FAILED with an error pushed. */
static int try_branch(lua_State *L, int list, int i) {
  channel *c;
  int self, outcome;
  lua_rawgeti(L, list, 2 * i - 1);
  self = lua_gettop(L);
  c = lua_touserdata(L, self);
  if (lua_rawgeti(L, list, 2 * i) == LUA_TNIL) {
    lua_pop(L, 1);
    outcome = receive_now(L, c, self);
    if (outcome == DONE) return 2;
    if (outcome == CLOSED) {
      if (c->failed) {
        lua_getiuservalue(L, self, UV_ERROR);
        return AT_OP_FAILED;
      }
      lua_pushnil(L);
      return 2;
    }
  } else {
    outcome = send_now(L, c, self, self + 1);
    lua_settop(L, self);
    if (outcome == DONE) return 1;
    if (outcome == CLOSED) {
      push_closed(L);
      return AT_OP_FAILED;
    }
  }
  lua_settop(L, self - 1);
  return 0;
}

/* select(ch, ..., {ch, value}, ...) -> Task of the channel and, for a receive, the value. Begins with
** another branch each time, so that none is starved. */
static int l_select(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int n = lua_gettop(L), list, i, results;
  request *r;
  luaL_argcheck(L, n >= 1, 1, "channel expected");
  luaL_checkstack(L, LUA_MINSTACK, "select");
  lua_createtable(L, 2 * n, 0);
  list = n + 1;
  for (i = 1; i <= n; i++) add_branch(L, i, list);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  rt->select_turn++;
  for (i = 0; i < n; i++) {
    results = try_branch(L, list, (int)((rt->select_turn + (unsigned)i) % (unsigned)n) + 1);
    if (results == 0) continue;
    if (results == AT_OP_FAILED)
      at_task_failed(L, rt);
    else
      at_task_resolved(L, rt, results);
    return 1;
  }
  lua_pushvalue(L, list);
  r = new_request(L, rt, &select_class, n);
  if (r == NULL) return 1;
  r->is_select = 1;
  for (i = 0; i < n; i++) {
    int sends;
    lua_rawgeti(L, list, 2 * i + 1);
    sends = lua_rawgeti(L, list, 2 * i + 2) != LUA_TNIL;
    wait_for(r, i, lua_touserdata(L, -2), sends);
    lua_pop(L, 2);
  }
  return 1;
}

/* new(capacity, overflow) -> channel; overflow "wait", "drop_oldest", "drop_newest" or "error" */
static int l_new(lua_State *L) {
  static const char *const modes[] = {"wait", "drop_oldest", "drop_newest", "error", NULL};
  lua_Integer capacity = luaL_optinteger(L, 1, 0);
  int overflow = luaL_checkoption(L, 2, "wait", modes);
  channel *c;
  luaL_argcheck(L, capacity >= 0, 1, "capacity must not be negative");
  luaL_argcheck(L, capacity > 0 || overflow != DROP_OLDEST, 2, "drop_oldest needs a capacity");
  c = lua_newuserdatauv(L, sizeof *c, 2);
  memset(c, 0, sizeof *c);
  c->capacity = capacity;
  c->first = 1;
  c->overflow = (unsigned char)overflow;
  luaL_setmetatable(L, CHANNEL_MT);
  lua_newtable(L);
  lua_setiuservalue(L, -2, UV_VALUES);
  return 1;
}

void at_channel_functions(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"new", l_new}, {"select", l_select}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"send", l_channel_send},
                                     {"receive", l_channel_receive},
                                     {"try_send", l_channel_try_send},
                                     {"try_receive", l_channel_try_receive},
                                     {"close", l_channel_close},
                                     {"is_closed", l_channel_is_closed},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__len", l_channel_len}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, CHANNEL_MT, methods, meta);
  luaL_getmetatable(L, CHANNEL_MT);
  lua_setfield(L, -2, "Channel");
}
