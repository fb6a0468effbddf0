/* parcel.c - what the jobs of one parallel loop share: encoded once, decoded once on each worker.
**
** A parcel is a counted message; a userdata holds it in the state that made it, and each worker keeps
** what it decoded in a table by the parcel's id, until the parcel is closed and the worker looks. Its
** limit is how the jobs of a loop tell each other, on all threads, where to stop. Also the error that
** parallel.stop raises. State's thread, but for at_parcel_release. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "par/pool.h"

#define PARCEL_MT "asynctask.Parcel"
#define STOP_MT "asynctask.Stop"
#define STIR_BYTES 65536 /* a closed parcel of that size is worth waking workers for */

static const char parcels_key = 'p', current_key = 'c';
static atomic_int closed_count;
static atomic_llong last_id;

void at_parcel_release(at_parcel *parcel) {
  if (atomic_fetch_sub(&parcel->refs, 1) != 1) return;
  at_message_free(&parcel->message);
  free(parcel);
}

/* [-0, +1, m] pushes an empty holder. */
static at_parcel **push_holder(lua_State *L) {
  at_parcel **box = (at_parcel **)lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, PARCEL_MT);
  return box;
}

at_parcel *at_parcel_check(lua_State *L, int index) {
  return *(at_parcel **)luaL_checkudata(L, index, PARCEL_MT);
}

/* ---- the worker's half ---- */

/* stack: ... values (n) -> ... table {values..., parcel=} */
static void pack(lua_State *L, at_parcel *parcel, int n) {
  lua_createtable(L, n, 1);
  lua_insert(L, -(n + 1));
  for (; n > 0; n--) lua_rawseti(L, -(n + 1), n);
  *push_holder(L) = parcel;
  atomic_fetch_add(&parcel->refs, 1);
  lua_setfield(L, -2, "parcel");
}

void at_parcel_push(lua_State *L, at_worker *w, at_parcel *parcel, int codec) {
  luaL_checkstack(L, 6, "parcel");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &parcels_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &parcels_key);
  }
  if (lua_rawgeti(L, -1, parcel->id) == LUA_TNIL) {
    lua_pop(L, 1);
    pack(L, parcel, at_decode(L, w->codec, codec, &parcel->message)); /* stack: parcels table */
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, parcel->id);
  }
  lua_remove(L, -2);
}

/* stack: */
static int l_sweep(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &parcels_key) != LUA_TTABLE) return 0;
  lua_pushnil(L);
  while (lua_next(L, 1)) { /* stack: parcels id table */
    lua_getfield(L, 3, "parcel");
    if (atomic_load(&at_parcel_check(L, 4)->closed)) {
      lua_pushnil(L);
      lua_rawseti(L, 1, lua_tointeger(L, 2)); /* a field that is there: next goes on */
    }
    lua_settop(L, 2);
  }
  return 0;
}

void at_parcel_sweep(lua_State *L, at_worker *w) {
  int now = atomic_load_explicit(&closed_count, memory_order_relaxed);
  if (now == w->parcels_seen) return;
  w->parcels_seen = now;
  lua_pushcfunction(L, l_sweep);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) { /* no memory: another time */
    lua_pop(L, 1);
    w->parcels_seen = now - 1;
  }
}

/* ---- Lua functions ---- */

/* parcel(f, ...) -> what jobs share: they get a table of these values */
static int l_parcel(lua_State *L) {
  at_par *par = at_par_get(L);
  at_parcel *parcel, **box;
  int n = lua_gettop(L);
  if (at_codec_is_nested(L)) return at_codec_apart(L);
  box = push_holder(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &at_par_codec_key);
  lua_rotate(L, 1, 2); /* stack: holder codec values... */
  at_encode(L, par->codec, 2, 3, AT_ROLE_JOB);
  parcel = (at_parcel *)calloc(1, sizeof *parcel);
  if (parcel == NULL) return luaL_error(L, "not enough memory");
  atomic_init(&parcel->refs, 1);
  atomic_init(&parcel->closed, 0);
  atomic_init(&parcel->limit, LUA_MAXINTEGER);
  parcel->id = (lua_Integer)atomic_fetch_add(&last_id, 1) + 1;
  at_message_move(&parcel->message, &par->codec->message);
  *box = parcel;
  lua_settop(L, 2 + n);
  lua_pushvalue(L, 1);
  return 1;
}

/* call(pool | nil, parcel, "module.function", ...) -> Task of module.function(table, ...) */
static int l_call(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_pool *pool;
  at_parcel *parcel;
  if (at_codec_is_nested(L)) return at_codec_apart(L);
  pool = at_pools_optional(L, 1);
  parcel = at_parcel_check(L, 2);
  lua_remove(L, 1);
  lua_pushvalue(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &current_key); /* lives at least until the job has been made */
  lua_remove(L, 1);
  return at_job_submit(L, rt, pool, parcel, 3);
}

/* p:limit() -> the last index that is still wanted */
static int l_parcel_limit(lua_State *L) {
  lua_pushinteger(L, atomic_load_explicit(&at_parcel_check(L, 1)->limit, memory_order_relaxed));
  return 1;
}

/* p:lower(index): nothing after the index is wanted */
static int l_parcel_lower(lua_State *L) {
  at_parcel *parcel = at_parcel_check(L, 1);
  lua_Integer wanted = luaL_checkinteger(L, 2), limit = atomic_load(&parcel->limit);
  while (wanted < limit && !atomic_compare_exchange_weak(&parcel->limit, &limit, wanted)) continue;
  return 0;
}

/* p:close(): nobody sends it any more; workers forget it */
static int l_parcel_close(lua_State *L) {
  at_parcel *parcel = at_parcel_check(L, 1);
  at_par *par = at_par_get(L);
  if (atomic_exchange(&parcel->closed, 1)) return 0;
  atomic_fetch_add(&closed_count, 1);
  if (parcel->message.size >= STIR_BYTES && par->pool != NULL) at_pool_stir(par->pool);
  return 0;
}

static int l_parcel_gc(lua_State *L) {
  at_parcel **box = (at_parcel **)luaL_checkudata(L, 1, PARCEL_MT);
  at_parcel *parcel = *box;
  *box = NULL;
  if (parcel != NULL) at_parcel_release(parcel);
  return 0;
}

/* ---- parallel.stop ---- */

/* stop(value): raises what ends a parallel loop */
static int l_stop(lua_State *L) {
  lua_settop(L, 1);
  (void)lua_newuserdatauv(L, 0, 1);
  luaL_setmetatable(L, STOP_MT);
  lua_insert(L, 1);
  lua_setiuservalue(L, 1, 1);
  return lua_error(L);
}

static int l_stop_tostring(lua_State *L) {
  lua_pushliteral(L, "parallel.stop outside of the function of a parallel loop");
  return 1;
}

int at_stop_push(lua_State *L) {
  if (luaL_testudata(L, -1, STOP_MT) == NULL) return 0;
  luaL_checkstack(L, 2, "stop");
  lua_pushnil(L);
  lua_getiuservalue(L, -2, 1);
  return 1;
}

void at_parcel_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"parcel", l_parcel}, {"call", l_call}, {"stop", l_stop}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"limit", l_parcel_limit}, {"lower", l_parcel_lower}, {"close", l_parcel_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_parcel_gc}, {NULL, NULL}};
  static const luaL_Reg stop[] = {{"__tostring", l_stop_tostring}, {NULL, NULL}};
  at_runtime_class(L, rt, PARCEL_MT, methods, meta);
  at_runtime_class(L, rt, STOP_MT, NULL, stop);
  at_runtime_setfuncs(L, rt, functions);
}
