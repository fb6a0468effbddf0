/* transfer.c - other people's userdata on their way between states: the codec's carrier for them.
** Owns a table, in each state's registry, of the metatables that can travel, and the parcels: counted
** pointers that a message holds until the receiver has taken them. Encoding and decoding: the thread of the
** state; letting go of a parcel: any thread, no Lua. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/block.h"
#include "host/api.h"
#include "par/codec.h"

static const char transfers_key = 't';

/* What one message carries. */
typedef struct parcel {
  at_shared shared;
  const asynctask_transfer *transfer;
  void *pointer;    /* owned until `taken` */
  atomic_int taken;
} parcel;

static const at_carrier carrier;

static void destroy(at_shared *shared) {
  parcel *p = (parcel *)(void *)shared;
  if (!atomic_load(&p->taken) && p->transfer->drop != NULL) p->transfer->drop(p->pointer);
  free(p);
}

/* True if the structure has a function to share a pointer, which came later than the others. */
static int shares(const asynctask_transfer *t) {
  return t->size >= offsetof(asynctask_transfer, share) + sizeof t->share && t->share != NULL;
}

/* ---- what a state knows ---- */

/* [-0, +1, m] pushes the table metatable -> transfer. */
static void push_transfers(lua_State *L) {
  luaL_checkstack(L, 4, "transfer");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &transfers_key) != LUA_TNIL) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &transfers_key);
}

/* [-0, +0, m] userdata with the metatable at the top travel so. */
static void add(lua_State *L, const asynctask_transfer *t) {
  push_transfers(L);
  lua_pushvalue(L, -2);
  lua_pushlightuserdata(L, (void *)(size_t)t); /* only read */
  lua_rawset(L, -3);
  lua_pop(L, 1);
  at_carry_class(L, &carrier);
}

void asynctask_transferable(lua_State *L, const asynctask_transfer *transfer) {
  (void)at_api_runtime(L);
  if (transfer->size < offsetof(asynctask_transfer, share) || transfer->name == NULL ||
      transfer->detach == NULL || transfer->attach == NULL)
    luaL_error(L, "asynctask_transferable: name, detach and attach are needed");
  if (strncmp(transfer->name, "asynctask.", 10) == 0)
    luaL_error(L, "asynctask_transferable: '%s' is a class of asynctask's", transfer->name);
  at_api_pin((const void *)(size_t)transfer->attach);
  (void)luaL_newmetatable(L, transfer->name); /* or the one that there is */
  add(L, transfer);
  lua_pop(L, 1);
}

/* ---- the codec's ---- */

/* [-0, +0, e] */
static at_shared *give(lua_State *L, int index, void *bytes) {
  const asynctask_transfer *t;
  parcel *p;
  void *pointer;
  (void)bytes;
  push_transfers(L);
  lua_getmetatable(L, index);
  lua_rawget(L, -2);
  t = lua_touserdata(L, -1);
  lua_pop(L, 2);
  pointer = t->detach(L, index);
  p = calloc(1, sizeof *p);
  if (p == NULL) {
    if (t->drop != NULL) t->drop(pointer);
    at_codec_no_memory(L);
  }
  at_shared_init(&p->shared, destroy);
  p->transfer = t;
  p->pointer = pointer;
  return &p->shared;
}

/* stack: transfer pointer -> userdata */
static int l_attach(lua_State *L) {
  const asynctask_transfer *t = lua_touserdata(L, 1);
  void *pointer = lua_touserdata(L, 2);
  lua_settop(L, 0);
  t->attach(L, pointer);
  if (lua_type(L, -1) != LUA_TUSERDATA) luaL_error(L, "attach of '%s' must push a userdata", t->name);
  if (lua_getmetatable(L, -1)) {
    add(L, t); /* it can travel on */
    lua_pop(L, 1);
  }
  return 1;
}

/* [-0, +1, e] */
static int take(lua_State *L, at_shared *shared, const void *bytes) {
  parcel *p = (parcel *)(void *)shared;
  const asynctask_transfer *t = p->transfer;
  void *pointer = p->pointer;
  int status;
  (void)bytes;
  luaL_checkstack(L, 4, "transfer");
  if (shares(t)) {
    pointer = t->share(pointer);
    if (pointer == NULL) at_codec_no_memory(L);
  } else if (atomic_exchange(&p->taken, 1)) {
    luaL_error(L, "a userdata (%s) that several threads should receive, and only one can", t->name);
  }
  lua_pushcfunction(L, l_attach);
  lua_pushlightuserdata(L, (void *)(size_t)t);
  lua_pushlightuserdata(L, pointer);
  status = lua_pcall(L, 2, 1, 0);
  if (status == LUA_OK) return 1;
  if (t->drop != NULL) t->drop(pointer);
  return lua_error(L);
}

static const at_carrier carrier = {give, take, 1};
