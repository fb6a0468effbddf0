/* codec.c - what both directions of copying share: messages, bytecode, and the names under which
** library functions and modules are known (S19).
**
** Messages and bytecode may be freed on any thread; the rest belongs to the state's thread. Names
** are kept in a table with weak keys and collected again when package.loaded has changed. */
#include "par/codec.h"

#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define CODE_MT "asynctask.code"

#define LARGE_BYTES 65536         /* from here on memory is kept in c->large */
#define LARGE_MAX (2 * 1024 * 1024) /* and no more than that */

static const char codec_key = 'c'; /* registry: the state's codec */

/* ---- bytecode and messages: any thread ---- */

void at_code_release(at_code *code) {
  if (atomic_fetch_sub_explicit(&code->refs, 1, memory_order_acq_rel) != 1) return;
  free(code->bytes);
  free(code);
}

void at_message_clear(at_message *m) {
  int i;
  for (i = 0; i < m->code_count; i++) at_code_release(m->codes[i]);
  for (i = 0; i < m->carried_count; i++) at_shared_release(m->carried[i].shared);
  m->code_count = m->carried_count = m->locals = m->keys = m->roots = 0;
  m->size = 0;
}

void at_message_free(at_message *m) {
  at_message_clear(m);
  free(m->data);
  free(m->codes);
  free(m->carried);
  memset(m, 0, sizeof *m);
}

void at_message_move(at_message *to, at_message *from) {
  at_message_free(to);
  *to = *from;
  memset(from, 0, sizeof *from);
}

void at_message_swap(at_message *a, at_message *b) {
  at_message other = *a;
  *a = *b;
  *b = other;
}

/* ---- the bytecode of a state's functions, remembered by function ---- */

int at_codec_no_memory(lua_State *L) {
  lua_pushliteral(L, "not enough memory");
  return lua_error(L);
}

static int l_code_gc(lua_State *L) {
  at_code **box = (at_code **)lua_touserdata(L, 1);
  if (*box != NULL) at_code_release(*box);
  *box = NULL;
  return 0;
}

static int write_code(lua_State *L, const void *bytes, size_t n, void *ud) {
  at_code *code = (at_code *)ud;
  (void)L;
  if (code->capacity - code->size < n) {
    size_t capacity = code->capacity * 2 + n + 200;
    char *p = (char *)realloc(code->bytes, capacity);
    if (p == NULL) return 1;
    code->bytes = p;
    code->capacity = capacity;
  }
  memcpy(code->bytes + code->size, bytes, n);
  code->size += n;
  return 0;
}

/* [-0, +1, m] pushes the holder of the bytecode of the Lua function at `index`. */
static at_code *dump(lua_State *L, int index) {
  static atomic_llong last_id;
  lua_Debug info;
  at_code *code, **box = (at_code **)lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  if (luaL_newmetatable(L, CODE_MT)) {
    lua_pushcfunction(L, l_code_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  *box = code = (at_code *)calloc(1, sizeof *code);
  if (code == NULL) at_codec_no_memory(L);
  atomic_init(&code->refs, 1);
  code->id = (lua_Integer)atomic_fetch_add(&last_id, 1) + 1;
  lua_pushvalue(L, index);
  if (lua_dump(L, write_code, code, 0) != 0) at_codec_no_memory(L);
  lua_getinfo(L, ">u", &info);
  code->upvalues = info.nups;
  return code;
}

at_code *at_code_remembered(lua_State *L, int codec, int index) {
  at_code **box;
  lua_getiuservalue(L, codec, AT_CODEC_CODES);
  lua_pushvalue(L, index);
  lua_rawget(L, -2);
  lua_replace(L, -2);
  box = (at_code **)lua_touserdata(L, -1);
  return box ? *box : NULL;
}

at_code *at_code_make(lua_State *L, int codec, int index) {
  at_code *code = dump(L, index); /* stack: holder */
  lua_getiuservalue(L, codec, AT_CODEC_CODES);
  lua_pushvalue(L, index);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  return code;
}

/* ---- the memory of messages ---- */

/* Fresh pages cost more than the copy: what the kernel would have to clear is taken from the last one. */
void at_codec_grow(lua_State *L, at_codec *c, size_t n) {
  at_message *m = &c->message;
  size_t capacity = m->capacity ? m->capacity * 2 : 256;
  char *data;
  if (n > (size_t)-1 / 4 - m->size) at_codec_no_memory(L);
  if (capacity < m->size + n) capacity = m->size + n;
  if (capacity >= LARGE_BYTES && c->large_capacity >= m->size + n) {
    data = c->large;
    capacity = c->large_capacity;
    memcpy(data, m->data, m->size);
    free(m->data);
    c->large = NULL;
    c->large_capacity = 0;
  } else {
    data = (char *)realloc(m->data, capacity);
    if (data == NULL) at_codec_no_memory(L);
  }
  m->data = data;
  m->capacity = capacity;
}

void at_codec_keep(at_codec *c, at_message *m) {
  if (c->closed || m->capacity < LARGE_BYTES || m->capacity > LARGE_MAX) return;
  if (m->capacity <= c->large_capacity) return;
  free(c->large);
  c->large = m->data;
  c->large_capacity = m->capacity;
  m->data = NULL;
  m->size = m->capacity = 0;
}

/* ---- messages written by finalizers ---- */

int at_codec_is_nested(lua_State *L) {
  int apart;
  if (lua_gc(L, LUA_GCCOUNT) >= 0) return 0; /* not in a finalizer */
  apart = at_codec_push(L)->apart;
  lua_pop(L, 1);
  return !apart;
}

int at_codec_apart(lua_State *L) {
  at_codec *c, outer;
  lua_Debug self;
  int status;
  luaL_checkstack(L, 4, "message");
  c = at_codec_push(L);
  lua_pop(L, 1);
  if (!lua_getstack(L, 0, &self) || !lua_getinfo(L, "f", &self)) return luaL_error(L, "no caller");
  lua_insert(L, 1);
  outer = *c; /* no finalizer runs inside one: one level is enough */
  memset(&c->message, 0, sizeof c->message);
  memset(&c->seen, 0, sizeof c->seen);
  memset(&c->keys, 0, sizeof c->keys);
  c->apart = 1;
  status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  c->apart = 0;
  at_message_free(&c->message);
  at_seen_free(&c->seen);
  c->message = outer.message;
  c->seen = outer.seen;
  c->keys = outer.keys;
  return status == LUA_OK ? lua_gettop(L) : lua_error(L);
}

/* ---- names ---- */

static void filter_add(at_codec *c, const void *p) {
  uint64_t h = at_seen_hash(p);
  c->filter[h >> 3 & 1023] |= (unsigned char)(1u << (h & 7));
  c->filter[h >> 43 & 1023] |= (unsigned char)(1u << (h >> 40 & 7));
}

int at_codec_maybe_named(const at_codec *c, const void *p) {
  uint64_t h = at_seen_hash(p);
  return (c->filter[h >> 3 & 1023] & (1u << (h & 7))) != 0 &&
         (c->filter[h >> 43 & 1023] & (1u << (h >> 40 & 7))) != 0;
}

/* Lua's own libraries: what a program has added to them in Lua is unknown to a fresh state. */
static int is_standard(const char *module) {
  static const char *const names[] = {LUA_GNAME,     LUA_COLIBNAME,   LUA_TABLIBNAME,
                                      LUA_IOLIBNAME, LUA_OSLIBNAME,   LUA_STRLIBNAME,
                                      LUA_UTF8LIBNAME, LUA_MATHLIBNAME, LUA_DBLIBNAME,
                                      LUA_LOADLIBNAME, NULL};
  int i;
  for (i = 0; names[i] != NULL; i++)
    if (strcmp(names[i], module) == 0) return 1;
  return 0;
}

/* A weak hash of which modules there are. [-0, +0, -]; the table of loaded modules is at the top. */
static size_t fingerprint(lua_State *L) {
  size_t print = 1;
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    print += (size_t)at_seen_hash(lua_topointer(L, -1)) | 1;
    lua_pop(L, 1);
  }
  return print;
}

/* Names the functions of the module at the top. Stack: names, ..., module name, module. Those of
** Lua's own libraries win over later ones, which often pass them on. [-0, +0, m] */
static void name_functions(lua_State *L, at_codec *c, int names, const char *module) {
  int standard = is_standard(module);
  lua_pushnil(L);
  while (lua_next(L, -2)) { /* stack: ... module key value */
    if (lua_type(L, -2) == LUA_TSTRING && lua_rawlen(L, -2) > 0 && lua_isfunction(L, -1) &&
        (!standard || lua_iscfunction(L, -1))) {
      lua_pushvalue(L, -1);
      if (lua_rawget(L, names) == LUA_TNIL || standard) {
        filter_add(c, lua_topointer(L, -2));
        lua_pushvalue(L, -2);
        lua_createtable(L, 2, 0);
        lua_pushstring(L, module);
        lua_rawseti(L, -2, 1);
        lua_pushvalue(L, -5);
        lua_rawseti(L, -2, 2);
        lua_rawset(L, names);
      }
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
}

/* Names what is in package.loaded (at the top); names is a new table. [-0, +0, m] */
static void name_modules(lua_State *L, at_codec *c, int names) {
  int loaded = lua_gettop(L);
  lua_pushnil(L);
  while (lua_next(L, loaded)) { /* stack: ... name module */
    if (lua_type(L, -2) == LUA_TSTRING && (lua_istable(L, -1) || lua_isfunction(L, -1))) {
      const char *module = lua_tostring(L, -2);
      filter_add(c, lua_topointer(L, -1));
      lua_pushvalue(L, -1);
      lua_pushvalue(L, -3);
      lua_rawset(L, names);
      if (lua_istable(L, -1)) name_functions(L, c, names, module);
    }
    lua_pop(L, 1);
  }
}

void at_codec_refresh(lua_State *L, at_codec *c, int codec, int force) {
  size_t print;
  c->named_fresh = 1;
  luaL_checkstack(L, 12, "names");
  lua_getiuservalue(L, codec, AT_CODEC_PACKAGE);
  if (!lua_istable(L, -1)) { /* a state without the package library: nothing has a name */
    lua_pop(L, 1);
    return;
  }
  print = fingerprint(L);
  if (print != c->named_print || force) { /* stack: loaded */
    lua_getiuservalue(L, codec, AT_CODEC_NAMES);
    lua_newtable(L);
    lua_getmetatable(L, -2);
    lua_setmetatable(L, -2);
    lua_remove(L, -2);
    lua_insert(L, -2); /* stack: names loaded */
    memset(c->filter, 0, sizeof c->filter);
    name_modules(L, c, lua_gettop(L) - 1);
    lua_insert(L, -2);
    lua_setiuservalue(L, codec, AT_CODEC_NAMES);
    c->named_print = print;
  }
  lua_pop(L, 1);
}

/* ---- open, free ---- */

/* [-0, +1, m] pushes a table with weak keys. */
static void push_weak(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

at_codec *at_codec_new(lua_State *L) {
  at_codec *c = (at_codec *)lua_newuserdatauv(L, sizeof *c, AT_CODEC_VALUES);
  memset(c, 0, sizeof *c);
  push_weak(L);
  lua_setiuservalue(L, -2, AT_CODEC_NAMES);
  push_weak(L);
  lua_setiuservalue(L, -2, AT_CODEC_CODES);
  lua_newtable(L);
  lua_setiuservalue(L, -2, AT_CODEC_LOADED);
  at_error_open(L);
  luaL_getmetatable(L, AT_ERROR_MT);
  lua_setiuservalue(L, -2, AT_CODEC_ERRORMT);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_setiuservalue(L, -2, AT_CODEC_PACKAGE);
  at_carry_push(L);
  lua_setiuservalue(L, -2, AT_CODEC_CLASSES);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &codec_key);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  c->globals = lua_topointer(L, -1);
  c->rt = at_runtime_get(L);
  lua_pop(L, 1);
  return c;
}

void at_codec_free(at_codec *c) {
  at_message_free(&c->message);
  free(c->large);
  c->large = NULL;
  c->large_capacity = 0;
  at_seen_free(&c->seen);
  c->closed = 1;
}

at_codec *at_codec_push(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &codec_key);
  return (at_codec *)lua_touserdata(L, -1);
}
