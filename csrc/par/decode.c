/* decode.c - makes the values of a message in the receiver's state. Runs on its thread.
**
** The message is from encode.c of this process and belongs to the caller, so raising (out of memory, a
** module that cannot be loaded) leaks nothing. Every byte is checked all the same: what encode.c cannot
** have written raises. Recursion is bounded; what lies deeper comes on a list after the roots. May
** call `require`. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "core/locals.h"
#include "par/decoder.h"

#define PAUSE_BYTES 16384 /* messages for which the collector waits */
#define LOADED_MAX 256 /* functions remembered; beyond that all are forgotten */

static void decode_value(decoder *d);

/* [-0, +0, m] the table at `list` (made now if nil) gets the value at the top under n. */
static void list_set(lua_State *L, int list, lua_Integer n) {
  if (lua_isnil(L, list)) {
    lua_newtable(L);
    lua_replace(L, list);
  }
  lua_pushvalue(L, -1);
  lua_rawseti(L, list, n);
}

/* [-0, +0, m] the value at the top is referred to later. */
static void share(decoder *d, int tag, size_t offset) {
  if (tag & AT_T_SHARED) list_set(d->L, d->refs, (lua_Integer)offset);
}

/* [-0, +0, m] the value at the top is filled later. */
static void fill_later(decoder *d) {
  list_set(d->L, d->pending, ++d->pending_last);
}

/* [-0, +1, v] the value whose tag is at `offset`. */
static void push_ref(decoder *d, uint64_t offset) {
  if (lua_isnil(d->L, d->refs) || lua_rawgeti(d->L, d->refs, (lua_Integer)offset) == LUA_TNIL) corrupt(d);
}

/* ---- keys ---- */

/* [-0, +1, m] a key that others may refer to. */
static void decode_new_key(decoder *d) {
  size_t n = take_u8(d);
  if (d->key_count == d->m->keys) corrupt(d);
  need(d, n);
  lua_pushlstring(d->L, d->p, n);
  d->p += n;
  lua_copy(d->L, -1, d->keys + d->key_count++);
}

/* [-0, +1, v] */
static inline void decode_key(decoder *d) {
  int n = take_u8(d);
  if (n >= d->key_count) corrupt(d);
  lua_pushvalue(d->L, d->keys + n);
}

/* ---- tables ---- */

static int hint(uint32_t n) {
  return n > INT_MAX / 2 ? INT_MAX / 2 : (int)n;
}

/* [-0, +0, m] fills the table at the top. */
static void decode_items(decoder *d, uint32_t items, uint32_t pairs) {
  lua_State *L = d->L;
  int table = lua_gettop(L);
  uint32_t i;
  for (i = 1; i <= items; i++) {
    decode_value(d);
    lua_rawseti(L, table, (lua_Integer)i);
  }
  for (i = 0; i < pairs; i++) {
    if (d->p < d->end && *d->p == AT_T_KEY) {
      d->p++;
      decode_key(d);
    } else {
      decode_value(d);
    }
    decode_value(d);
    lua_rawset(L, table);
  }
}

static void be_error_object(decoder *d, int tag) {
  if (!(tag & AT_T_ERROR)) return;
  lua_getiuservalue(d->L, d->codec, AT_CODEC_ERRORMT);
  lua_setmetatable(d->L, -2);
}

/* [-0, +0, e] gives the table at the top the metatable that comes next, if it has one. */
static void be_classed(decoder *d, int tag) {
  if (!(tag & AT_T_CLASSED)) return;
  decode_value(d);
  if (!lua_istable(d->L, -1)) corrupt(d);
  lua_setmetatable(d->L, -2);
}

/* The counts of a body: no more than there can be. */
static void take_counts(decoder *d, uint32_t *items, uint32_t *pairs) {
  *items = take_u32(d);
  *pairs = take_u32(d);
  need(d, (size_t)*items + 2 * (size_t)*pairs);
}

static void decode_table(decoder *d, int tag, size_t offset) {
  uint32_t items, pairs;
  deeper(d);
  if (tag & AT_T_CLASSED) {
    lua_newtable(d->L);
    share(d, tag, offset);
    be_classed(d, tag);
    take_counts(d, &items, &pairs);
  } else {
    take_counts(d, &items, &pairs);
    lua_createtable(d->L, hint(items), hint(pairs));
    share(d, tag, offset);
    be_error_object(d, tag);
  }
  decode_items(d, items, pairs);
  d->depth--;
}

/* ---- classes and userdata ---- */

/* [-0, +0, e] fills the new metatable at the top. */
static void decode_class_body(decoder *d, int how) {
  uint32_t items, pairs;
  be_classed(d, how & AT_CLASS_META ? AT_T_CLASSED : 0);
  if (how & AT_CLASS_LATER) {
    fill_later(d);
  } else {
    take_counts(d, &items, &pairs);
    decode_items(d, items, pairs);
  }
}

/* Pushes this state's class of the name that comes. One that it has not, it gets. */
static void decode_class(decoder *d, int tag, size_t offset) {
  lua_State *L = d->L;
  uint32_t n = take_u32(d);
  int how, known, name;
  need(d, n);
  lua_pushlstring(L, d->p, n);
  d->p += n;
  how = take_u8(d);
  deeper(d);
  name = lua_gettop(L);
  lua_getiuservalue(L, d->codec, AT_CODEC_CLASSES);
  lua_pushvalue(L, name);
  known = lua_rawget(L, -2) == LUA_TTABLE && n > 0;
  lua_remove(L, -2); /* stack: name class|nil */
  if (how == AT_CLASS_NAMED) {
    decode_value(d); /* loads the module, which may register it */
    if (!lua_istable(L, -1)) corrupt(d);
  } else {
    lua_newtable(L);
    if (known) lua_pushvalue(L, -2);
    share(d, tag, offset);
    if (known) lua_pop(L, 1);
    decode_class_body(d, how);
  } /* stack: name class|nil sent */
  if (known) {
    lua_pop(L, 1);
  } else {
    lua_replace(L, -2);
    if (n > 0) {
      lua_pushvalue(L, name);
      lua_pushvalue(L, -2);
      at_carry_register(L, d->c, d->codec);
    }
  }
  lua_remove(L, name);
  if (how == AT_CLASS_NAMED) share(d, tag, offset);
  d->depth--;
}

static void decode_carried(decoder *d, int tag, size_t offset) {
  char bytes[AT_CARRY_BYTES];
  const at_carried *carried;
  uint32_t i = take_u32(d);
  take(d, bytes, sizeof bytes);
  if (i >= (uint32_t)d->m->carried_count) corrupt(d);
  carried = &d->m->carried[i];
  if (!carried->carrier->take(d->L, carried->shared, bytes)) corrupt(d);
  share(d, tag, offset);
}

static void decode_local(decoder *d, int tag, size_t offset) {
  int fresh;
  at_locals_variable(d->L, (lua_Integer)take_u64(d), &fresh);
  share(d, tag, offset);
  deeper(d);
  decode_value(d);
  if (fresh) lua_setiuservalue(d->L, -2, 1);
  else lua_pop(d->L, 1);
  d->depth--;
}

/* ---- functions ---- */

typedef struct piece {
  const char *bytes;
  size_t size;
} piece;

static const char *read_code(lua_State *L, void *ud, size_t *size) {
  piece *piece_ = (piece *)ud;
  (void)L;
  *size = piece_->size;
  piece_->size = 0;
  return piece_->bytes;
}

/* [-0, +1, e] */
static void load_code(lua_State *L, const at_code *code) {
  piece rest = {code->bytes, code->size};
  if (lua_load(L, read_code, &rest, "=(job)", "b") != LUA_OK) lua_error(L);
}

/* [-0, +1, e] a function without state: loaded once, then remembered. */
static void push_plain(decoder *d, const at_code *code, int upvalues) {
  lua_State *L = d->L;
  int i;
  lua_getiuservalue(L, d->codec, AT_CODEC_LOADED);
  if (lua_rawgeti(L, -1, code->id) == LUA_TNIL) {
    lua_pop(L, 1);
    load_code(L, code); /* stack: loaded function */
    for (i = 1; i <= upvalues; i++) {
      lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
      if (lua_setupvalue(L, -2, i) == NULL) corrupt(d);
    }
    if (++d->c->loaded_count > LOADED_MAX) {
      lua_newtable(L);
      lua_copy(L, -1, -3);
      lua_setiuservalue(L, d->codec, AT_CODEC_LOADED);
      d->c->loaded_count = 1;
    }
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, code->id);
  }
  lua_replace(L, -2);
}

/* [-0, +0, e] reads the upvalues of the function at the top. */
static void decode_upvalues(decoder *d, int upvalues) {
  lua_State *L = d->L;
  int function = lua_gettop(L), i;
  for (i = 1; i <= upvalues; i++) {
    if (take_u8(d) == AT_T_NEWUP) {
      decode_value(d);
      if (lua_setupvalue(L, function, i) == NULL) corrupt(d);
    } else {
      uint64_t other = take_u64(d);
      int number = take_u8(d);
      push_ref(d, other);
      if (!lua_isfunction(L, -1) || lua_iscfunction(L, -1) || lua_upvalueid(L, -1, number + 1) == NULL ||
          lua_upvalueid(L, function, i) == NULL)
        corrupt(d);
      lua_upvaluejoin(L, function, i, -1, number + 1);
      lua_pop(L, 1);
    }
  }
}

static void decode_function(decoder *d, int tag, size_t offset) {
  const at_code *code;
  uint32_t n = take_u32(d);
  int how = take_u8(d), upvalues = take_u8(d);
  if (n >= (uint32_t)d->m->code_count) corrupt(d);
  code = d->m->codes[n];
  deeper(d);
  if (how == 1) push_plain(d, code, upvalues);
  else load_code(d->L, code);
  share(d, tag, offset);
  if (how == 0) decode_upvalues(d, upvalues);
  else if (how == 2) fill_later(d);
  d->depth--;
}

/* ---- names ---- */

/* [-1, +1, e] replaces the module's name at the top by the module. */
static void load_module(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, -2);
  if (lua_rawget(L, -2) == LUA_TNIL) { /* stack: name loaded nil */
    lua_pop(L, 2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    lua_pushliteral(L, "require");
    lua_rawget(L, -2);
    lua_replace(L, -2);
    lua_insert(L, -2);
    lua_call(L, 1, 1); /* stack: module */
  } else {
    lua_replace(L, -3);
    lua_pop(L, 1);
  }
}

static void decode_named(decoder *d) {
  lua_State *L = d->L;
  uint32_t n = take_u32(d);
  const char *module = d->p;
  uint32_t m;
  need(d, n);
  lua_pushlstring(L, module, n);
  d->p += n;
  load_module(L);
  m = take_u32(d);
  if (m == 0) return;
  need(d, m);
  lua_pushlstring(L, d->p, m);
  d->p += m;
  if (lua_istable(L, -2)) lua_gettable(L, -2); /* stack: module value */
  if (!lua_isfunction(L, -1)) {
    lua_pushlstring(L, module, n);
    lua_pushlstring(L, d->p - m, m);
    luaL_error(L, "no function '%s.%s' in the receiving state", lua_tostring(L, -2),
               lua_tostring(L, -1));
  }
  lua_remove(L, -2);
}

/* ---- any value ---- */

static void decode_string(decoder *d, size_t n) {
  need(d, n);
  lua_pushlstring(d->L, d->p, n);
  d->p += n;
}

/* [-0, +1, e] a value that may hold others. */
static void decode_large(decoder *d, int tag, size_t offset) {
  lua_State *L = d->L;
  ensure(d);
  switch (tag & AT_T_MASK) {
    case AT_T_TABLE: decode_table(d, tag, offset); break;
    case AT_T_LATER:
      lua_newtable(L);
      share(d, tag, offset);
      be_error_object(d, tag);
      fill_later(d);
      deeper(d);
      be_classed(d, tag);
      d->depth--;
      break;
    case AT_T_FUNC: decode_function(d, tag, offset); break;
    case AT_T_NAMED: decode_named(d); break;
    case AT_T_CARRIED: decode_carried(d, tag, offset); break;
    case AT_T_LOCAL: decode_local(d, tag, offset); break;
    case AT_T_CLASS: decode_class(d, tag, offset); break;
    default: corrupt(d);
  }
}

/* [-0, +1, e] there is room for a few values. */
static void decode_value(decoder *d) {
  lua_State *L = d->L;
  size_t offset = (size_t)(d->p - d->m->data);
  int tag = take_u8(d);
  int64_t integer;
  lua_Number number;
  switch (tag & AT_T_MASK) {
    case AT_T_NIL: lua_pushnil(L); break;
    case AT_T_FALSE: lua_pushboolean(L, 0); break;
    case AT_T_TRUE: lua_pushboolean(L, 1); break;
    case AT_T_INT8: lua_pushinteger(L, (signed char)take_u8(d)); break;
    case AT_T_INT:
      take(d, &integer, sizeof integer);
      lua_pushinteger(L, (lua_Integer)integer);
      break;
    case AT_T_FLOAT:
      take(d, &number, sizeof number);
      lua_pushnumber(L, number);
      break;
    case AT_T_SHORT: decode_string(d, take_u8(d)); break;
    case AT_T_STRING: decode_string(d, (size_t)take_u64(d)); break;
    case AT_T_NEWKEY: decode_new_key(d); break;
    case AT_T_KEY: decode_key(d); break;
    case AT_T_REF: push_ref(d, take_u64(d)); break;
    case AT_T_GLOBALS: lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS); break;
    default: decode_large(d, tag, offset);
  }
}

/* [-0, +1, e] pushes the table of task-local values. */
static void decode_locals(decoder *d) {
  lua_State *L = d->L;
  int i;
  lua_createtable(L, 0, hint((uint32_t)d->m->locals));
  for (i = 0; i < d->m->locals; i++) {
    decode_value(d);
    if (at_locals_id(L, -1) == 0) corrupt(d);
    lua_createtable(L, 1, 0);
    decode_value(d);
    lua_rawseti(L, -2, 1);
    lua_rawset(L, -3);
  }
}

/* Fills what was too deep, in the order of appearance; each may put more on the list. */
static void decode_pending(decoder *d) {
  lua_State *L = d->L;
  int top = lua_gettop(L);
  while (d->pending_first <= d->pending_last) {
    lua_rawgeti(L, d->pending, d->pending_first); /* stack: ... value */
    lua_pushnil(L);
    lua_rawseti(L, d->pending, d->pending_first++);
    if (lua_istable(L, -1)) {
      uint32_t items, pairs;
      take_counts(d, &items, &pairs);
      decode_items(d, items, pairs);
    } else {
      lua_Debug info;
      lua_pushvalue(L, -1);
      lua_getinfo(L, ">u", &info);
      decode_upvalues(d, info.nups);
    }
    lua_settop(L, top);
  }
}

void at_decode_end(lua_State *L, at_codec *c) {
  if (!c->paused) return;
  c->paused = 0;
  lua_gc(L, LUA_GCRESTART);
}

int at_decode(lua_State *L, at_codec *c, int codec, const at_message *m) {
  decoder d = {L, c, m, m->data, m->data + m->size, 0, codec, 0, 0, 0, 0, 0, 1, 0};
  int top = lua_gettop(L), roots = 0;
  if (m->roots == 0 && m->size == 0) return 0;
  d.refs = top + 1;
  d.pending = top + 2;
  d.keys = top + 3;
  d.limit = top + 2 + m->keys + m->roots + SLOTS;
  luaL_checkstack(L, d.limit - top, "values");
  if (m->size >= PAUSE_BYTES && lua_gc(L, LUA_GCISRUNNING)) {
    lua_gc(L, LUA_GCSTOP); /* everything that is made now is in use */
    c->paused = 1;
  }
  lua_settop(L, top + 2 + m->keys); /* nils */
  for (; roots < m->roots; roots++) decode_value(&d);
  if (m->locals > 0) decode_locals(&d);
  decode_pending(&d);
  if (m->locals > 0) at_locals_set(L, at_runtime_get(L));
  if (roots > 0) lua_rotate(L, top + 1, roots);
  lua_settop(L, top + roots);
  at_decode_end(L, c);
  return roots;
}
