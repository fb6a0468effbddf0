/* encode.c - writes values into a message (S19). Runs on the sender's thread, in its state.
**
** Tables and functions are written where they are met first and referred to by that place after.
** Nesting goes down by bounded C recursion; what lies deeper is put on a list and written after the
** roots, so any depth works. Everything malloc'd hangs on the codec: raising leaks nothing.
** Runs no metamethod and no code of the user's. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "core/locals.h"
#include "par/encoder.h"

static void encode_value(encoder *e, int index, const step *at);

/* ---- strings and numbers ---- */

static void encode_string(encoder *e, int index) {
  size_t n;
  const char *s = lua_tolstring(e->L, index, &n);
  if (n < 256) {
    put_short(e, AT_T_SHORT, s, n);
  } else {
    uint64_t length = n;
    reserve(e, n + sizeof length + 1);
    put(e, AT_T_STRING, &length, sizeof length);
    put_bytes(e, s, n);
  }
}

static void encode_number(encoder *e, int index) {
  if (lua_isinteger(e->L, index)) {
    int64_t v = lua_tointeger(e->L, index);
    if (v >= -128 && v <= 127) {
      signed char small = (signed char)v;
      put(e, AT_T_INT8, &small, 1);
    } else {
      put(e, AT_T_INT, &v, sizeof v);
    }
  } else {
    lua_Number v = lua_tonumber(e->L, index);
    put(e, AT_T_FLOAT, &v, sizeof v);
  }
}

/* ---- references and names ---- */

/* [-0, +0, m] if p was met before, refers to it and returns 1; else remembers that it is here. */
static int refer(encoder *e, const void *p) {
  at_message *m = &e->c->message;
  int fresh;
  size_t *place = at_seen_at(&e->c->seen, p, &fresh);
  uint64_t offset;
  if (place == NULL) at_codec_no_memory(e->L);
  if (fresh) {
    *place = m->size;
    return 0;
  }
  offset = *place;
  m->data[offset] = (char)((unsigned char)m->data[offset] | AT_T_SHARED);
  put(e, AT_T_REF, &offset, sizeof offset);
  return 1;
}

/* [-0, +0, m] writes the name of the value at `index`, if it has one. */
static int write_name(encoder *e, int index, const void *p) {
  lua_State *L = e->L;
  size_t n;
  const char *s;
  if (!e->c->named_fresh) at_codec_refresh(L, e->c, e->codec, 0);
  if (!at_codec_maybe_named(e->c, p)) return 0;
  lua_getiuservalue(L, e->codec, AT_CODEC_NAMES);
  lua_pushvalue(L, index);
  switch (lua_rawget(L, -2)) {
    case LUA_TNIL: lua_pop(L, 2); return 0;
    case LUA_TSTRING: lua_pushliteral(L, ""); break; /* stack: names module "" */
    default:
      lua_rawgeti(L, -1, 1);
      lua_rawgeti(L, -2, 2);
      lua_remove(L, -3); /* stack: names module field */
  }
  put_tag(e, AT_T_NAMED);
  s = lua_tolstring(L, -2, &n);
  put_u32(e, (uint32_t)n);
  put_bytes(e, s, n);
  s = lua_tolstring(L, -1, &n);
  put_u32(e, (uint32_t)n);
  put_bytes(e, s, n);
  lua_pop(L, 3);
  return 1;
}

/* [-0, +0, m] the value at `index` is written after the roots. */
static void write_later(encoder *e, int index) {
  lua_State *L = e->L;
  if (lua_isnil(L, e->pending)) {
    lua_newtable(L);
    lua_replace(L, e->pending);
  }
  lua_pushvalue(L, index);
  lua_rawseti(L, e->pending, ++e->pending_last);
  lua_pushinteger(L, e->root);
  lua_rawseti(L, e->pending, ++e->pending_last);
}

/* ---- tables ---- */

/* A key that this message had before is a number. */
static void encode_key(encoder *e, int index) {
  at_message *m = &e->c->message;
  at_key *key;
  size_t n;
  const char *s = lua_tolstring(e->L, index, &n);
  if (n > AT_KEY_BYTES || n == 0 || m->size > UINT32_MAX / 2) {
    encode_string(e, index);
    return;
  }
  key = at_keys_at(&e->c->keys, m->data, s, n);
  if (key->size != 0) {
    put(e, AT_T_KEY, &key->number, 1);
  } else if (m->keys == AT_KEYS_MAX) {
    put_short(e, AT_T_SHORT, s, n);
  } else {
    put_short(e, AT_T_NEWKEY, s, n);
    key->bytes = s;
    key->offset = (uint32_t)(m->size - n);
    key->size = (unsigned char)n;
    key->number = (unsigned char)m->keys++;
    e->c->keys.count++;
  }
}

/* Is the key at `index` the next item? A number among the keys is an integer if it can be one. */
static inline int is_next(lua_State *L, int index, lua_Integer items) {
  int is_integer;
  return lua_tointegerx(L, index, &is_integer) == items + 1 && is_integer;
}

/* The counts, the items 1 to n as long as they come in order, and the other pairs. */
static void encode_body(encoder *e, int index, const step *at) {
  lua_State *L = e->L;
  size_t head = e->c->message.size;
  lua_Integer items = 0;
  uint64_t pairs = 0;
  int key = lua_gettop(L) + 1, type;
  uint32_t counts[2] = {0, 0};
  step field = {at, STEP_FIELD, key, NULL}, of_key = {at, STEP_KEY, 0, NULL};
  put_bytes(e, counts, sizeof counts);
  lua_pushnil(L);
  while (lua_next(L, index)) { /* stack: ... key value */
    type = lua_type(L, key);
    if (pairs == 0 && type == LUA_TNUMBER && is_next(L, key, items)) {
      items++;
    } else {
      if (type == LUA_TSTRING) encode_key(e, key);
      else encode_value(e, key, &of_key);
      pairs++;
    }
    encode_value(e, key + 1, &field);
    lua_settop(L, key);
  }
  if (items > UINT32_MAX || pairs > UINT32_MAX) luaL_error(L, "table too large to be copied");
  counts[0] = (uint32_t)items;
  counts[1] = (uint32_t)pairs;
  memcpy(e->c->message.data + head, counts, sizeof counts);
}

/* [-0, +(0|1), m] what the metatable (or class) at the top is known as: pushes its name or carrier. */
static int push_class(encoder *e) {
  lua_getiuservalue(e->L, e->codec, AT_CODEC_CLASSES);
  lua_pushvalue(e->L, -2);
  if (lua_rawget(e->L, -2) != LUA_TNIL) {
    lua_remove(e->L, -2);
    return 1;
  }
  lua_pop(e->L, 2);
  return 0;
}

/* Writes the metatable at `index`, by its name if it is a registered class (else it is met in one). Its
** body follows at once, or, deep down, after the roots. */
static void encode_class(encoder *e, int index, const step *at) {
  lua_State *L = e->L;
  const void *p = lua_topointer(L, index);
  size_t n = 0, how_at;
  const char *name = "";
  step inside = {at, STEP_CLASS, 0, NULL};
  unsigned char how = AT_CLASS_NAMED;
  ensure(e);
  if (refer(e, p)) return;
  if (e->depth > 2 * AT_CODEC_DEPTH) luaL_error(L, "classes nested too deeply to be copied");
  lua_pushvalue(L, index);
  if (push_class(e)) {
    lua_replace(L, -2);
    if (lua_type(L, -1) == LUA_TSTRING) name = lua_tolstring(L, -1, &n);
  }
  inside.name = name; /* stack: ... name, which keeps it */
  put_tag(e, AT_T_CLASS);
  put_u32(e, (uint32_t)n);
  put_bytes(e, name, n);
  how_at = e->c->message.size;
  put_bytes(e, &how, 1);
  if (!write_name(e, index, p)) {
    int meta = lua_getmetatable(L, index);
    how = (unsigned char)((meta ? AT_CLASS_META : 0) | (e->depth >= AT_CODEC_DEPTH ? AT_CLASS_LATER : 0));
    e->c->message.data[how_at] = (char)how;
    e->depth++;
    if (meta) encode_class(e, lua_gettop(L), &inside);
    if (how & AT_CLASS_LATER) write_later(e, index);
    else encode_body(e, index, &inside);
    e->depth--;
    if (meta) lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* [-0, +(0|1), v] what the table at `index` is beside its contents: 0, AT_T_ERROR, or AT_T_CLASSED with
** the metatable pushed. */
static int table_kind(encoder *e, int index, const step *at) {
  lua_State *L = e->L;
  int same;
  if (!lua_getmetatable(L, index)) return 0;
  lua_getiuservalue(L, e->codec, AT_CODEC_ERRORMT);
  same = lua_rawequal(L, -1, -2);
  lua_pop(L, 1);
  if (same) {
    lua_pop(L, 1);
    return AT_T_ERROR;
  }
  if (!push_class(e)) at_refuse(e, index, at);
  lua_pop(L, 1);
  return AT_T_CLASSED;
}

/* True if the table at `index` is itself a registered class. */
static int is_class(encoder *e, int index) {
  if (e->c->class_count == 0) return 0;
  lua_pushvalue(e->L, index);
  if (!push_class(e)) {
    lua_pop(e->L, 1);
    return 0;
  }
  lua_pop(e->L, 2);
  return 1;
}

static void encode_table(encoder *e, int index, const step *at) {
  lua_State *L = e->L;
  const void *p = lua_topointer(L, index);
  int kind, later = e->depth >= AT_CODEC_DEPTH;
  ensure(e);
  if (p == e->c->globals) {
    put_tag(e, AT_T_GLOBALS);
    return;
  }
  if (is_class(e, index)) {
    encode_class(e, index, at);
    return;
  }
  if (write_name(e, index, p) || refer(e, p)) return;
  kind = table_kind(e, index, at);
  put_tag(e, (later ? AT_T_LATER : AT_T_TABLE) | kind);
  if (later) write_later(e, index);
  e->depth++;
  if (kind == AT_T_CLASSED) {
    encode_class(e, lua_gettop(L), at);
    lua_pop(L, 1);
  }
  if (!later) encode_body(e, index, at);
  e->depth--;
}

/* ---- functions ---- */

/* [-0, +0, m] the message refers to the bytecode; returns its index there. */
static uint32_t add_code(encoder *e, at_code *code) {
  at_message *m = &e->c->message;
  if (m->code_count == m->code_capacity) {
    int capacity = m->code_capacity ? m->code_capacity * 2 : 2;
    at_code **codes = (at_code **)realloc(m->codes, (size_t)capacity * sizeof *codes);
    if (codes == NULL) at_codec_no_memory(e->L);
    m->codes = codes;
    m->code_capacity = capacity;
  }
  atomic_fetch_add_explicit(&code->refs, 1, memory_order_relaxed);
  m->codes[m->code_count] = code;
  return (uint32_t)m->code_count++;
}

/* Globals are the receiver's own, whatever table stands for them here (test frameworks and sandboxes
** put in one of theirs). The value of the upvalue `name` is at the top. */
static int is_globals(const encoder *e, const char *name) {
  return lua_topointer(e->L, -1) == e->c->globals || strcmp(name, "_ENV") == 0;
}

/* True if the function has no state of its own: no upvalues but the globals. */
static int is_plain(const encoder *e, int index) {
  const char *name;
  int i, plain = 1;
  for (i = 1; plain && (name = lua_getupvalue(e->L, index, i)) != NULL; i++) {
    plain = is_globals(e, name);
    lua_pop(e->L, 1);
  }
  return plain;
}

/* The function, whose tag is at `offset`, is at `index`. Upvalues that were met in another function
** of this message are joined with those. */
static void encode_upvalues(encoder *e, int index, size_t offset, const step *at) {
  lua_State *L = e->L;
  const char *name;
  int i, fresh;
  for (i = 1; (name = lua_getupvalue(L, index, i)) != NULL; i++) {
    step upvalue = {at, STEP_UPVALUE, 0, name};
    size_t *place = at_seen_at(&e->c->seen, lua_upvalueid(L, index, i), &fresh);
    if (place == NULL) at_codec_no_memory(L);
    if (fresh) {
      *place = offset << 8 | (size_t)(i - 1);
      put_tag(e, AT_T_NEWUP);
      if (is_globals(e, name)) put_tag(e, AT_T_GLOBALS);
      else encode_value(e, lua_gettop(L), &upvalue);
    } else {
      char *data = e->c->message.data;
      uint64_t other = *place >> 8;
      char number = (char)(*place & 255);
      data[other] = (char)((unsigned char)data[other] | AT_T_SHARED);
      put(e, AT_T_SAMEUP, &other, sizeof other);
      put_bytes(e, &number, 1);
    }
    lua_pop(L, 1);
  }
}

static void encode_function(encoder *e, int index, const step *at) {
  lua_State *L = e->L;
  const void *p = lua_topointer(L, index);
  at_code *code;
  size_t offset;
  unsigned char how[2];
  ensure(e);
  if (lua_iscfunction(L, index)) {
    if (write_name(e, index, p)) return;
    at_codec_refresh(L, e->c, e->codec, 1);
    if (!write_name(e, index, p)) at_refuse(e, index, at);
    return;
  }
  code = at_code_remembered(L, e->codec, index); /* stack: holder or nil */
  if (code == NULL) {
    lua_pop(L, 1);
    if (write_name(e, index, p)) return;
    code = at_code_make(L, e->codec, index);
  }
  offset = e->c->message.size;
  if (refer(e, p)) {
    lua_pop(L, 1);
    return;
  }
  how[0] = code->upvalues == 0 || is_plain(e, index) ? 1 : e->depth >= AT_CODEC_DEPTH ? 2 : 0;
  how[1] = code->upvalues;
  put_tag(e, AT_T_FUNC);
  put_u32(e, add_code(e, code));
  put_bytes(e, how, sizeof how);
  lua_pop(L, 1);
  if (how[0] == 2) {
    write_later(e, index);
  } else if (how[0] == 0) {
    e->depth++;
    encode_upvalues(e, index, offset, at);
    e->depth--;
  }
}

/* ---- userdata ---- */

/* Task-local variables are known by their numbers. */
static void encode_local(encoder *e, int index, lua_Integer id, const step *at) {
  uint64_t number = (uint64_t)id;
  step inside = {at, STEP_DEFAULT, 0, NULL};
  if (refer(e, lua_topointer(e->L, index))) return;
  put(e, AT_T_LOCAL, &number, sizeof number);
  lua_getiuservalue(e->L, index, 1);
  e->depth++;
  encode_value(e, lua_gettop(e->L), &inside);
  e->depth--;
  lua_pop(e->L, 1);
}

static void encode_userdata(encoder *e, int index, const step *at) {
  lua_State *L = e->L;
  const at_carrier *carrier;
  char bytes[AT_CARRY_BYTES] = {0};
  at_shared *shared;
  lua_Integer id;
  ensure(e);
  if (!lua_getmetatable(L, index)) at_refuse(e, index, at);
  if (!push_class(e)) {
    lua_pop(L, 1);
    id = at_locals_id(L, index);
    if (id == 0) at_refuse(e, index, at);
    encode_local(e, index, id, at);
    return;
  }
  carrier = (const at_carrier *)lua_touserdata(L, -1); /* stack: metatable carrier */
  lua_pop(L, 2);
  if (carrier == NULL) at_refuse(e, index, at); /* a class of tables */
  if (refer(e, lua_topointer(L, index))) return;
  at_carry_reserve(L, &e->c->message);
  (void)reserve(e, 1 + sizeof(uint32_t) + sizeof bytes); /* nothing raises once there is something to give back */
  shared = carrier->give(L, index, bytes);
  put_tag(e, AT_T_CARRIED);
  put_u32(e, at_carry_add(L, &e->c->message, carrier, shared));
  put_bytes(e, bytes, sizeof bytes);
}

/* ---- any value ---- */

static void encode_value(encoder *e, int index, const step *at) {
  switch (lua_type(e->L, index)) {
    case LUA_TNIL: put_tag(e, AT_T_NIL); break;
    case LUA_TBOOLEAN: put_tag(e, lua_toboolean(e->L, index) ? AT_T_TRUE : AT_T_FALSE); break;
    case LUA_TNUMBER: encode_number(e, index); break;
    case LUA_TSTRING: encode_string(e, index); break;
    case LUA_TTABLE: encode_table(e, index, at); break;
    case LUA_TFUNCTION: encode_function(e, index, at); break;
    case LUA_TUSERDATA: encode_userdata(e, index, at); break;
    default: at_refuse(e, index, at);
  }
}

/* Writes the bodies of what was too deep; each may put more on the list. */
static void encode_pending(encoder *e) {
  lua_State *L = e->L;
  int top = lua_gettop(L);
  while (e->pending_first <= e->pending_last) {
    step at = {NULL, STEP_DEEP, 0, NULL};
    int fresh;
    ensure(e);
    lua_rawgeti(L, e->pending, e->pending_first); /* stack: ... value */
    lua_rawgeti(L, e->pending, e->pending_first + 1);
    at.index = e->root = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_rawseti(L, e->pending, e->pending_first);
    e->pending_first += 2;
    if (lua_istable(L, -1)) encode_body(e, top + 1, &at);
    else
      encode_upvalues(e, top + 1, *at_seen_at(&e->c->seen, lua_topointer(L, -1), &fresh), &at);
    lua_settop(L, top);
  }
}

/* The values of the running task's variables: variable, value, ... */
static void encode_locals(encoder *e) {
  lua_State *L = e->L;
  step at = {NULL, STEP_ROOT, -1, NULL};
  if (!at_locals_push(L, e->c->rt)) return;
  e->root = -1;
  ensure(e);
  lua_pushnil(L);
  while (lua_next(L, -2)) { /* stack: ... values variable box */
    encode_value(e, lua_gettop(L) - 1, &at);
    lua_rawgeti(L, -1, 1);
    encode_value(e, lua_gettop(L), &at);
    lua_pop(L, 2);
    e->c->message.locals++;
  }
  lua_pop(L, 1);
}

void at_encode(lua_State *L, at_codec *c, int codec, int first, int role) {
  encoder e = {L, c, codec, 0, 1, 0, role, 0, 0, 0};
  int last = lua_gettop(L), i;
  if (c->closed) luaL_error(L, "asynctask: the runtime of this state is closed");
  ensure(&e);
  at_message_clear(&c->message);
  at_keys_clear(&c->keys);
  at_seen_clear(&c->seen);
  c->named_fresh = 0;
  lua_pushnil(L);
  e.pending = lua_gettop(L);
  for (i = first; i <= last; i++) {
    step at = {NULL, STEP_ROOT, i - first, NULL};
    e.root = i - first;
    encode_value(&e, i, &at);
  }
  if (role == AT_ROLE_JOB) encode_locals(&e);
  encode_pending(&e);
  c->message.roots = last - first + 1;
  lua_settop(L, last);
}
