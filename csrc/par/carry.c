/* carry.c - what the codec carries beyond plain values: classes registered by name, and userdata whose
** shared part several states hold. Owns the table of both in each state (in the registry). The rest of
** the codec looks things up in it. Any state's own thread. */
#include <stdlib.h>

#include "base/arg.h"
#include "core/runtime.h"
#include "par/codec.h"

static const char classes_key = 'k';

void at_carry_push(lua_State *L) {
  luaL_checkstack(L, 4, "classes");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &classes_key) != LUA_TNIL) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &classes_key);
}

void at_carry_class(lua_State *L, const at_carrier *carrier) {
  at_carry_push(L);
  lua_pushvalue(L, -2);
  lua_pushlightuserdata(L, (void *)(size_t)carrier); /* never written to */
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

void at_carry_reserve(lua_State *L, at_message *m) {
  int capacity = m->carried_capacity ? m->carried_capacity * 2 : 2;
  at_carried *carried;
  if (m->carried_count < m->carried_capacity) return;
  carried = (at_carried *)realloc(m->carried, (size_t)capacity * sizeof *carried);
  if (carried == NULL) at_codec_no_memory(L);
  m->carried = carried;
  m->carried_capacity = capacity;
}

uint32_t at_carry_add(lua_State *L, at_message *m, const at_carrier *carrier, at_shared *s) {
  at_carry_reserve(L, m);
  m->carried[m->carried_count].carrier = carrier;
  m->carried[m->carried_count].shared = carrier->gives ? s : (at_shared *)at_shared_retain(s);
  return (uint32_t)m->carried_count++;
}

/* stack: message -> values */
static int l_decode(lua_State *L) {
  const at_message *m = (const at_message *)lua_touserdata(L, 1);
  at_codec *c = at_codec_push(L);
  return at_decode(L, c, 2, m);
}

int at_carry_decode(lua_State *L, const at_message *m) {
  int status;
  luaL_checkstack(L, 4, "message");
  lua_pushcfunction(L, l_decode);
  lua_pushlightuserdata(L, (void *)(size_t)m); /* only read */
  status = lua_pcall(L, 1, LUA_MULTRET, 0);
  if (status == LUA_OK) return status;
  at_decode_end(L, at_codec_push(L));
  lua_pop(L, 1);
  return status;
}

void at_carry_register(lua_State *L, at_codec *c, int codec) { /* stack: ... name metatable */
  luaL_checkstack(L, 5, "class");
  lua_getiuservalue(L, codec, AT_CODEC_CLASSES);
  lua_pushvalue(L, -3);
  if (lua_rawget(L, -2) == LUA_TTABLE) { /* another one had the name */
    lua_pushnil(L);
    lua_rawset(L, -3);
  } else {
    lua_pop(L, 1);
    c->class_count++;
  }
  lua_pushvalue(L, -2);
  lua_pushvalue(L, -4);
  lua_rawset(L, -3); /* metatable -> name */
  lua_insert(L, -3); /* stack: ... classes name metatable */
  lua_rawset(L, -3); /* name -> metatable */
  lua_pop(L, 1);
}

/* class(name, metatable) -> metatable: tables with this metatable are copied to other states, where
** the class of that name is their metatable; a state that has none gets a copy of this one */
static int l_class(lua_State *L) {
  size_t n;
  at_codec *c;
  if (lua_type(L, 1) != LUA_TSTRING) at_arg_type_error(L, 1, "string");
  (void)lua_tolstring(L, 1, &n);
  luaL_argcheck(L, n > 0 && n < 256, 1, "1 to 255 characters expected");
  if (!lua_istable(L, 2)) at_arg_type_error(L, 2, "metatable");
  lua_settop(L, 2);
  at_carry_push(L);
  lua_pushvalue(L, 2);
  luaL_argcheck(L, lua_rawget(L, 3) != LUA_TLIGHTUSERDATA, 2, "the metatable of a class of asynctask's");
  lua_settop(L, 2);
  c = at_codec_push(L);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  at_carry_register(L, c, 3);
  lua_settop(L, 2);
  return 1;
}

void at_carry_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"class", l_class}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
