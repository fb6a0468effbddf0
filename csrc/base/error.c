/* error.c - error objects (S22). Owns the metatable AT_ERROR_MT. Any thread, on its own state.
** Invariant: reading an error object (tostring, `..`) never raises on a field of a wrong type. */
#include "base/error.h"

#include <lauxlib.h>
#include <string.h>
#include <uv.h>

void at_error_push(lua_State *L, const char *code, const char *message, const char *op) {
  luaL_checkstack(L, 3, "error object");
  lua_createtable(L, 0, 4);
  lua_pushstring(L, code);
  lua_setfield(L, -2, "code");
  lua_pushstring(L, message);
  lua_setfield(L, -2, "message");
  at_error_set(L, "op", op);
  luaL_setmetatable(L, AT_ERROR_MT);
}

void at_error_push_uv(lua_State *L, int status, const char *op, const char *path) {
  char code[64], message[160];
  uv_err_name_r(status, code, sizeof code);
  uv_strerror_r(status, message, sizeof message);
  at_error_push(L, code, message, op);
  at_error_set(L, "path", path);
}

void at_error_set(lua_State *L, const char *field, const char *value) {
  if (value == NULL) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, field);
}

int at_error_is(lua_State *L, int index) {
  int same;
  if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index)) return 0;
  luaL_getmetatable(L, AT_ERROR_MT);
  same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

int at_error_has_code(lua_State *L, int index, const char *code) {
  const char *have;
  int same;
  if (!at_error_is(L, index)) return 0;
  index = lua_absindex(L, index);
  lua_pushstring(L, "code");
  lua_rawget(L, index);
  have = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
  same = have != NULL && strcmp(have, code) == 0;
  lua_pop(L, 1);
  return same;
}

/* Adds field `name` of the table at 1 to the buffer between `before` and `after`; says if it did. */
static int add_field(lua_State *L, luaL_Buffer *b, const char *name, const char *before,
                     const char *after) {
  int type;
  lua_pushstring(L, name);
  type = lua_rawget(L, 1);
  if (type != LUA_TSTRING && type != LUA_TNUMBER) {
    lua_pop(L, 1);
    return 0;
  }
  lua_tostring(L, -1);
  luaL_addstring(b, before);
  lua_pushvalue(L, -1); /* luaL_addvalue wants the value on top of the buffer's own slots */
  lua_remove(L, -2);
  luaL_addvalue(b);
  luaL_addstring(b, after);
  return 1;
}

/* "open notes.txt: no such file or directory (ENOENT)" */
static int l_error_tostring(lua_State *L) {
  luaL_Buffer b;
  int head;
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_buffinit(L, &b);
  head = add_field(L, &b, "op", "", "");
  if (add_field(L, &b, "path", head ? " " : "", "") ||
      add_field(L, &b, "address", head ? " " : "", ""))
    head = 1;
  if (head) luaL_addstring(&b, ": ");
  if (!add_field(L, &b, "message", "", "")) luaL_addstring(&b, "error");
  add_field(L, &b, "code", " (", ")");
  add_field(L, &b, "reason", ": ", "");
  luaL_pushresult(&b);
  return 1;
}

static int l_error_concat(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  luaL_tolstring(L, 2, NULL);
  lua_concat(L, 2);
  return 1;
}

int l_error_new(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_getmetatable(L, 1)) return luaL_argerror(L, 1, "table with a metatable");
  lua_settop(L, 1);
  if (lua_getfield(L, 1, "message") == LUA_TNIL) {
    lua_pushliteral(L, "error");
    lua_setfield(L, 1, "message");
  }
  lua_settop(L, 1);
  luaL_setmetatable(L, AT_ERROR_MT);
  return 1;
}

void at_error_open(lua_State *L) {
  static const luaL_Reg meta[] = {
      {"__tostring", l_error_tostring}, {"__concat", l_error_concat}, {NULL, NULL}};
  if (luaL_newmetatable(L, AT_ERROR_MT)) luaL_setfuncs(L, meta, 0);
  lua_pop(L, 1);
}
