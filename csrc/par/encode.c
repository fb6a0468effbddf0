/* encode.c - writes values into a message (S19). Runs on the sender's thread, in its state.
**
** Tables and functions are written where they are met first and referred to by that place after.
** Nesting goes down by bounded C recursion; what lies deeper is put on a list and written after the
** roots, so any depth works. Everything malloc'd hangs on the codec: raising leaks nothing.
** Runs no metamethod and no code of the user's. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "par/codec.h"

#define DEPTH_MAX 60    /* C recursion; a level takes some 300 bytes and 4 slots of the Lua stack */
#define STEPS_SHOWN 12  /* of a path in an error */

enum step_kind { STEP_ROOT, STEP_DEEP, STEP_FIELD, STEP_KEY, STEP_UPVALUE };

/* Where we are, for errors; linked inward to outward through the C stack. */
typedef struct step {
  const struct step *outer;
  int kind;
  int index;        /* FIELD: where the key is on the Lua stack; ROOT, DEEP: which root */
  const char *name; /* UPVALUE */
} step;

typedef struct encoder {
  lua_State *L;
  at_codec *c;
  int codec;   /* stack index of the codec's userdata */
  int pending; /* stack index of the list of what is written later, or nil */
  lua_Integer pending_first, pending_last;
  int role, root, depth;
} encoder;

static void encode_value(encoder *e, int index, const step *at);

/* ---- bytes ---- */

/* [-0, +0, m] room for n more bytes. */
static char *reserve(encoder *e, size_t n) {
  at_message *m = &e->c->message;
  if (m->capacity - m->size < n) {
    size_t capacity = m->capacity ? m->capacity * 2 : 256;
    char *data;
    if (n > (size_t)-1 / 4 - m->size) at_codec_no_memory(e->L);
    if (capacity < m->size + n) capacity = m->size + n;
    data = (char *)realloc(m->data, capacity);
    if (data == NULL) at_codec_no_memory(e->L);
    m->data = data;
    m->capacity = capacity;
  }
  return m->data + m->size;
}

static void put_tag(encoder *e, int tag) {
  *reserve(e, 1) = (char)tag;
  e->c->message.size++;
}

/* A tag and a fixed number of bytes, in one piece. */
static void put(encoder *e, int tag, const void *bytes, size_t n) {
  char *p = reserve(e, n + 1);
  *p = (char)tag;
  memcpy(p + 1, bytes, n);
  e->c->message.size += n + 1;
}

static void put_bytes(encoder *e, const void *bytes, size_t n) {
  memcpy(reserve(e, n), bytes, n);
  e->c->message.size += n;
}

static void put_u32(encoder *e, uint32_t v) {
  put_bytes(e, &v, sizeof v);
}

static void put_u64(encoder *e, uint64_t v) {
  put_bytes(e, &v, sizeof v);
}

/* ---- refusals ---- */

/* [-0, +1, m] */
static void push_step(encoder *e, const step *s) {
  lua_State *L = e->L;
  switch (s->kind) {
    case STEP_ROOT:
    case STEP_DEEP:
      if (e->role == AT_ROLE_ERROR) lua_pushliteral(L, "the error value");
      else if (e->role == AT_ROLE_RESULT) lua_pushfstring(L, "result %d", s->index + 1);
      else if (s->index > 0) lua_pushfstring(L, "argument %d", s->index);
      else lua_pushliteral(L, "the function");
      if (s->kind == STEP_DEEP) {
        lua_pushliteral(L, ", ...");
        lua_concat(L, 2);
      }
      break;
    case STEP_KEY: lua_pushliteral(L, "a key"); break;
    case STEP_UPVALUE: lua_pushfstring(L, "upvalue \"%s\"", s->name); break;
    default:
      if (lua_type(L, s->index) == LUA_TSTRING)
        lua_pushfstring(L, "field \"%s\"", lua_tostring(L, s->index));
      else if (lua_isinteger(L, s->index))
        lua_pushfstring(L, "index %I", (LUAI_UACINT)lua_tointeger(L, s->index));
      else
        lua_pushfstring(L, "a field whose key is a %s", luaL_typename(L, s->index));
  }
}

/* [-0, +1, m] `argument 2, field "conn"`, or `upvalue "x" of the function`. */
static void push_path(encoder *e, const step *at) {
  lua_State *L = e->L;
  const step *steps[STEPS_SHOWN];
  int n = 0, i, skipped = 0;
  luaL_checkstack(L, STEPS_SHOWN * 2 + 8, "path");
  for (; at != NULL; at = at->outer) { /* innermost first; the middle of a long path is left out */
    if (n == STEPS_SHOWN) {
      memmove(&steps[STEPS_SHOWN / 2], &steps[STEPS_SHOWN / 2 + 1],
              (STEPS_SHOWN - STEPS_SHOWN / 2 - 1) * sizeof *steps);
      n--;
      skipped++;
    }
    steps[n++] = at;
  }
  i = n - 1;
  if (i > 0 && steps[i]->kind == STEP_ROOT && e->role == AT_ROLE_JOB && steps[i]->index == 0 &&
      steps[i - 1]->kind == STEP_UPVALUE) {
    lua_pushfstring(L, "upvalue \"%s\" of the function", steps[i - 1]->name);
    i -= 2;
  } else {
    push_step(e, steps[i--]);
  }
  for (; i >= 0; i--) {
    lua_pushstring(L, skipped && i == STEPS_SHOWN / 2 - 1 ? ", ..., " : ", ");
    push_step(e, steps[i]);
    lua_concat(L, 3);
  }
}

/* [-0, +1, m] the type's name, with the class where the metatable has one. */
static void push_what(lua_State *L, int index) {
  const char *name = NULL;
  int type = lua_type(L, index);
  if (lua_getmetatable(L, index)) {
    lua_pushliteral(L, "__name");
    if (lua_rawget(L, -2) == LUA_TSTRING) name = lua_tostring(L, -1);
    lua_pop(L, 2); /* the metatable holds the name while the value lives */
  }
  if (type == LUA_TTABLE)
    lua_pushfstring(L, name ? "a table with a metatable (%s)" : "a table with a metatable", name);
  else if (type == LUA_TUSERDATA)
    lua_pushfstring(L, name ? "a userdata (%s)" : "a userdata", name);
  else if (type == LUA_TLIGHTUSERDATA)
    lua_pushliteral(L, "a light userdata");
  else if (type == LUA_TTHREAD)
    lua_pushliteral(L, "a coroutine");
  else
    lua_pushliteral(L, "a C function that is in no loaded module");
}

/* [-0, +0, v] */
static void refuse(encoder *e, int index, const step *at) {
  lua_State *L = e->L;
  luaL_checkstack(L, 8, "error");
  push_path(e, at);
  push_what(L, index);
  luaL_error(L, "%s: cannot copy %s", lua_tostring(L, -2), lua_tostring(L, -1));
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
  luaL_checkstack(L, 4, "name");
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
  luaL_checkstack(L, 3, "list");
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

/* The counts, the items 1 to n as long as they come in order, and the other pairs. */
static void encode_body(encoder *e, int index, const step *at) {
  lua_State *L = e->L;
  size_t head = e->c->message.size;
  lua_Integer items = 0;
  uint64_t pairs = 0;
  int key = lua_gettop(L) + 1;
  uint32_t counts[2];
  step field = {at, STEP_FIELD, key, NULL}, of_key = {at, STEP_KEY, 0, NULL};
  put_u64(e, 0);
  lua_pushnil(L);
  while (lua_next(L, index)) { /* stack: ... key value */
    if (pairs == 0 && lua_isinteger(L, key) && lua_tointeger(L, key) == items + 1) {
      items++;
    } else {
      encode_value(e, key, &of_key);
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

static int is_error_object(encoder *e, int index) {
  int same;
  if (!lua_getmetatable(e->L, index)) return 0;
  lua_getiuservalue(e->L, e->codec, AT_CODEC_ERRORMT);
  same = lua_rawequal(e->L, -1, -2);
  lua_pop(e->L, 2);
  return same ? 1 : -1;
}

static void encode_table(encoder *e, int index, const step *at) {
  const void *p = lua_topointer(e->L, index);
  int error, flag;
  luaL_checkstack(e->L, 8, "table");
  if (p == e->c->globals) {
    put_tag(e, AT_T_GLOBALS);
    return;
  }
  if (write_name(e, index, p) || refer(e, p)) return;
  error = is_error_object(e, index);
  if (error < 0) refuse(e, index, at);
  flag = error ? AT_T_ERROR : 0;
  if (e->depth >= DEPTH_MAX) {
    put_tag(e, AT_T_LATER | flag);
    write_later(e, index);
    return;
  }
  put_tag(e, AT_T_TABLE | flag);
  e->depth++;
  encode_body(e, index, at);
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
  lua_Debug info;
  size_t offset;
  unsigned char how[2];
  luaL_checkstack(L, 10, "function");
  if (lua_iscfunction(L, index)) {
    if (write_name(e, index, p)) return;
    at_codec_refresh(L, e->c, e->codec, 1);
    if (!write_name(e, index, p)) refuse(e, index, at);
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
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &info);
  how[0] = is_plain(e, index) ? 1 : e->depth >= DEPTH_MAX ? 2 : 0;
  how[1] = info.nups;
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

/* ---- any value ---- */

static void encode_string(encoder *e, int index) {
  size_t n;
  const char *s = lua_tolstring(e->L, index, &n);
  if (n < 256) {
    char *p = reserve(e, n + 2);
    p[0] = AT_T_SHORT;
    p[1] = (char)(unsigned char)n;
    memcpy(p + 2, s, n);
    e->c->message.size += n + 2;
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

static void encode_value(encoder *e, int index, const step *at) {
  switch (lua_type(e->L, index)) {
    case LUA_TNIL: put_tag(e, AT_T_NIL); break;
    case LUA_TBOOLEAN: put_tag(e, lua_toboolean(e->L, index) ? AT_T_TRUE : AT_T_FALSE); break;
    case LUA_TNUMBER: encode_number(e, index); break;
    case LUA_TSTRING: encode_string(e, index); break;
    case LUA_TTABLE: encode_table(e, index, at); break;
    case LUA_TFUNCTION: encode_function(e, index, at); break;
    default: refuse(e, index, at);
  }
}

/* Writes the bodies of what was too deep; each may put more on the list. */
static void encode_pending(encoder *e) {
  lua_State *L = e->L;
  int top = lua_gettop(L);
  while (e->pending_first <= e->pending_last) {
    step at = {NULL, STEP_DEEP, 0, NULL};
    int fresh;
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

void at_encode(lua_State *L, at_codec *c, int codec, int first, int role) {
  encoder e = {L, c, codec, 0, 1, 0, role, 0, 0};
  int last = lua_gettop(L), i;
  luaL_checkstack(L, 10, "values");
  at_message_clear(&c->message);
  at_seen_clear(&c->seen);
  c->named_fresh = 0;
  lua_pushnil(L);
  e.pending = lua_gettop(L);
  for (i = first; i <= last; i++) {
    step at = {NULL, STEP_ROOT, i - first, NULL};
    e.root = i - first;
    encode_value(&e, i, &at);
  }
  encode_pending(&e);
  c->message.roots = last - first + 1;
  lua_settop(L, last);
}
