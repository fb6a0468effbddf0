/* arg.c - argument checks that the auxiliary library lacks. Owns nothing; any thread, on its own
** state. Every function either returns a valid value or raises an error that names the argument. */
#include "base/arg.h"

#include <lauxlib.h>
#include <limits.h>
#include <math.h>
#include <string.h>

/* [-0, +1, m] pushes the field name under which a loaded module has the function that runs (level
** 0), or nil. */
static void push_function_name(lua_State *L, lua_Debug *ar) {
  int top = lua_gettop(L) + 1;
  lua_pushnil(L); /* stack: ... result function loaded module-name module field value */
  lua_getinfo(L, "f", ar);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (lua_pushnil(L); lua_next(L, top + 2); lua_pop(L, 1)) {
    if (!lua_istable(L, -1)) continue;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      if (lua_type(L, -2) != LUA_TSTRING || !lua_rawequal(L, -1, top + 1)) continue;
      lua_pushvalue(L, -2);
      lua_replace(L, top);
      lua_settop(L, top);
      return;
    }
  }
  lua_settop(L, top);
}

int at_arg_error(lua_State *L, int arg, const char *message) {
  lua_Debug ar;
  if (!lua_getstack(L, 0, &ar)) return luaL_argerror(L, arg, message);
  lua_getinfo(L, "n", &ar);
  if (ar.name != NULL) return luaL_argerror(L, arg, message);
  luaL_checkstack(L, 10, "argument error");
  push_function_name(L, &ar); /* called by pcall and the like: Lua would give the module's name, too */
  if (lua_isnil(L, -1)) return luaL_argerror(L, arg, message);
  return luaL_error(L, "bad argument #%d to '%s' (%s)", arg, lua_tostring(L, -1), message);
}

int at_arg_type_error(lua_State *L, int arg, const char *what) {
  const char *got;
  if (luaL_getmetafield(L, arg, "__name") == LUA_TSTRING)
    got = lua_tostring(L, -1);
  else
    got = luaL_typename(L, arg);
  return at_arg_error(L, arg, lua_pushfstring(L, "%s expected, got %s", what, got));
}

const char *at_arg_path(lua_State *L, int arg) {
  size_t length;
  const char *path;
  if (lua_type(L, arg) != LUA_TSTRING) at_arg_type_error(L, arg, "string");
  path = lua_tolstring(L, arg, &length);
  if (length == 0) at_arg_error(L, arg, "path is empty");
  if (strlen(path) != length) at_arg_error(L, arg, "path contains a zero byte");
  return path;
}

void at_arg_callable(lua_State *L, int arg) {
  if (lua_isfunction(L, arg)) return;
  if (luaL_getmetafield(L, arg, "__call") == LUA_TNIL) at_arg_type_error(L, arg, "function");
  lua_pop(L, 1);
}

long long at_arg_seconds(lua_State *L, int arg) {
  lua_Number seconds;
  if (lua_type(L, arg) != LUA_TNUMBER) at_arg_type_error(L, arg, "number of seconds");
  seconds = lua_tonumber(L, arg);
  if (isnan(seconds)) at_arg_error(L, arg, "seconds expected, got NaN");
  if (seconds < 0) at_arg_error(L, arg, "seconds must not be negative");
  if (seconds >= 9.2e9) return INT64_MAX;
  return (long long)ceil(seconds * 1e9);
}

int at_arg_options(lua_State *L, int arg, const char *const known[]) {
  if (lua_isnoneornil(L, arg)) return 0;
  if (!lua_istable(L, arg)) return at_arg_type_error(L, arg, "table of options");
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    const char *const *k = known;
    if (lua_type(L, -2) != LUA_TSTRING)
      return at_arg_error(
          L, arg, lua_pushfstring(L, "option names are strings, got a %s", luaL_typename(L, -2)));
    while (*k != NULL && strcmp(*k, lua_tostring(L, -2)) != 0) k++;
    if (*k == NULL)
      return at_arg_error(L, arg, lua_pushfstring(L, "unknown option '%s'", lua_tostring(L, -2)));
  }
  return 1;
}

/* Raises for a field of the wrong type. */
static int field_error(lua_State *L, int arg, const char *field, const char *what) {
  return at_arg_error(L, arg,
                       lua_pushfstring(L, "option '%s': %s expected, got %s", field, what,
                                       luaL_typename(L, -1)));
}

lua_Integer at_arg_field_integer(lua_State *L, int arg, const char *field, lua_Integer fallback,
                                 lua_Integer min, lua_Integer max) {
  lua_Integer value;
  int ok;
  if (!lua_istable(L, arg)) return fallback;
  if (lua_getfield(L, arg, field) != LUA_TNIL) {
    value = lua_tointegerx(L, -1, &ok);
    if (!ok || lua_type(L, -1) != LUA_TNUMBER) return field_error(L, arg, field, "integer");
    if (value < min || value > max)
      return at_arg_error(L, arg,
                           lua_pushfstring(L, "option '%s': %I is not between %I and %I", field,
                                           (LUAI_UACINT)value, (LUAI_UACINT)min, (LUAI_UACINT)max));
    fallback = value;
  }
  lua_pop(L, 1);
  return fallback;
}

int at_arg_field_boolean(lua_State *L, int arg, const char *field, int fallback) {
  if (!lua_istable(L, arg)) return fallback;
  if (lua_getfield(L, arg, field) != LUA_TNIL) {
    if (!lua_isboolean(L, -1)) return field_error(L, arg, field, "boolean");
    fallback = lua_toboolean(L, -1);
  }
  lua_pop(L, 1);
  return fallback;
}

const char *at_arg_field_path(lua_State *L, int arg, const char *field) {
  size_t length;
  const char *path;
  if (!lua_istable(L, arg)) lua_pushnil(L);
  else lua_getfield(L, arg, field);
  if (lua_isnil(L, -1)) return NULL;
  if (lua_type(L, -1) != LUA_TSTRING) field_error(L, arg, field, "string");
  path = lua_tolstring(L, -1, &length);
  if (length == 0 || strlen(path) != length)
    at_arg_error(L, arg,
                 lua_pushfstring(L, "option '%s': path %s", field,
                                 length == 0 ? "is empty" : "contains a zero byte"));
  return path;
}
