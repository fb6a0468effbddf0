/* arg.c - argument checks that the auxiliary library lacks. Owns nothing; any thread, on its own
** state. Every function either returns a valid value or raises an error that names the argument. */
#include "base/arg.h"

#include <lauxlib.h>
#include <limits.h>
#include <math.h>
#include <string.h>

int at_arg_type_error(lua_State *L, int arg, const char *what) {
  const char *got;
  if (luaL_getmetafield(L, arg, "__name") == LUA_TSTRING)
    got = lua_tostring(L, -1);
  else
    got = luaL_typename(L, arg);
  return luaL_argerror(L, arg, lua_pushfstring(L, "%s expected, got %s", what, got));
}

const char *at_arg_path(lua_State *L, int arg) {
  size_t length;
  const char *path;
  if (lua_type(L, arg) != LUA_TSTRING) at_arg_type_error(L, arg, "string");
  path = lua_tolstring(L, arg, &length);
  if (length == 0) luaL_argerror(L, arg, "path is empty");
  if (strlen(path) != length) luaL_argerror(L, arg, "path contains a zero byte");
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
  if (isnan(seconds)) luaL_argerror(L, arg, "seconds expected, got NaN");
  if (seconds < 0) luaL_argerror(L, arg, "seconds must not be negative");
  if (seconds >= 9.2e9) return INT64_MAX;
  return (long long)ceil(seconds * 1e9);
}

int at_arg_options(lua_State *L, int arg, const char *const known[]) {
  if (lua_isnoneornil(L, arg)) return 0;
  if (!lua_istable(L, arg)) return at_arg_type_error(L, arg, "table of options");
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    const char *const *k = known;
    if (lua_type(L, -2) != LUA_TSTRING)
      return luaL_argerror(
          L, arg, lua_pushfstring(L, "option names are strings, got a %s", luaL_typename(L, -2)));
    while (*k != NULL && strcmp(*k, lua_tostring(L, -2)) != 0) k++;
    if (*k == NULL)
      return luaL_argerror(L, arg, lua_pushfstring(L, "unknown option '%s'", lua_tostring(L, -2)));
  }
  return 1;
}

/* Raises for a field of the wrong type. */
static int field_error(lua_State *L, int arg, const char *field, const char *what) {
  return luaL_argerror(L, arg,
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
      return luaL_argerror(L, arg,
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
