/* fields.c - texts of HTTP for Lua: field lines as a table, percent escapes, queries and forms.
** Lua only; nothing is kept. */
#include <string.h>

#include "ext/http1/head.h"
#include "ext/http1/request.h"

/* ---- field lines ---- */

/* [-0, +1, m] */
static void push_lower(lua_State *L, const char *bytes, size_t size) {
  luaL_Buffer b;
  size_t i;
  char small[64], *to = small;
  if (size > sizeof small) to = luaL_buffinitsize(L, &b, size);
  for (i = 0; i < size; i++) {
    char c = bytes[i];
    to[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
  }
  if (to == small)
    lua_pushlstring(L, small, size);
  else
    luaL_pushresultsize(&b, size);
}

/* [-2, +0, m] map[name] = value, joined with what is there (RFC 9110, 5.3). */
static void join(lua_State *L, int map) {
  lua_pushvalue(L, -2);
  if (lua_rawget(L, map) == LUA_TNIL) { /* stack: name value nil */
    lua_pop(L, 1);
    lua_rawset(L, map);
    return;
  }
  lua_pushstring(L, strcmp(lua_tostring(L, -3), "cookie") == 0 ? "; " : ", ");
  lua_pushvalue(L, -3); /* stack: name value before glue value */
  lua_concat(L, 3);
  lua_remove(L, -2);
  lua_rawset(L, map);
}

/* [-0, +0, m] list[++n] = name, list[++n] = value, which are at the top. */
static void append(lua_State *L, int list, lua_Integer *n) {
  lua_pushvalue(L, -2);
  lua_rawseti(L, list, ++*n);
  lua_pushvalue(L, -1);
  lua_rawseti(L, list, ++*n);
}

void http1_fields_push(lua_State *L, const char *bytes, size_t size) {
  size_t at = 0, name, name_size, value, value_size;
  lua_Integer n = 0;
  int list;
  luaL_checkstack(L, 8, "http1");
  lua_createtable(L, 8, 1);
  list = lua_gettop(L);
  lua_createtable(L, 0, 4); /* stack: list map */
  while (http1_head_next(bytes, &at, size, &name, &name_size, &value, &value_size)) {
    push_lower(L, bytes + name, name_size);
    lua_pushlstring(L, bytes + value, value_size);
    append(L, list, &n);
    join(L, list + 1);
  }
  lua_rawseti(L, list, 0);
}

/* fields(head, first, last) -> { [0] = { name = value }, name, value, ... } with names in lower case */
static int l_http1_fields(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3);
  luaL_argcheck(L, first >= 1 && last >= first - 1 && (size_t)last <= size, 2, "range out of the string");
  http1_fields_push(L, bytes + first - 1, (size_t)(last - first + 1));
  return 1;
}

/* ---- percent escapes ---- */

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if ((c | 32) >= 'a' && (c | 32) <= 'f') return (c | 32) - 'a' + 10;
  return -1;
}

int http1_fields_decode(lua_State *L, const char *bytes, size_t size, int plus) {
  luaL_Buffer b;
  size_t i, n = 0;
  char *to;
  if (memchr(bytes, '%', size) == NULL && (!plus || memchr(bytes, '+', size) == NULL)) {
    lua_pushlstring(L, bytes, size);
    return 1;
  }
  to = luaL_buffinitsize(L, &b, size);
  for (i = 0; i < size; i++) {
    char c = bytes[i];
    if (c == '+' && plus) {
      c = ' ';
    } else if (c == '%') {
      int high = i + 2 < size ? hex(bytes[i + 1]) : -1, low = i + 2 < size ? hex(bytes[i + 2]) : -1;
      if (high < 0 || low < 0) {
        luaL_pushresultsize(&b, 0);
        lua_pop(L, 1);
        return 0;
      }
      c = (char)(high * 16 + low);
      i += 2;
    }
    to[n++] = c;
  }
  luaL_pushresultsize(&b, n);
  return 1;
}

/* decode(text [, plus]) -> text without escapes, or nil; `plus`: a plus is a space */
static int l_http1_decode(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  if (!http1_fields_decode(L, bytes, size, lua_toboolean(L, 2))) lua_pushnil(L);
  return 1;
}

static void push_or_raw(lua_State *L, const char *bytes, size_t size) {
  if (!http1_fields_decode(L, bytes, size, 1)) lua_pushlstring(L, bytes, size);
}

/* query(text) -> { [0] = { name = its first value }, name, value, ... }; broken escapes stay as they are */
static int l_http1_query(lua_State *L) {
  size_t size, at = 0;
  const char *bytes = luaL_checklstring(L, 1, &size);
  lua_Integer n = 0;
  int list;
  luaL_checkstack(L, 8, "http1");
  lua_createtable(L, 4, 1);
  list = lua_gettop(L);
  lua_newtable(L); /* stack: list map */
  for (; at < size; at++) {
    const char *amp = memchr(bytes + at, '&', size - at);
    size_t end = amp != NULL ? (size_t)(amp - bytes) : size;
    const char *eq = memchr(bytes + at, '=', end - at);
    size_t name_end = eq != NULL ? (size_t)(eq - bytes) : end;
    if (end > at) {
      push_or_raw(L, bytes + at, name_end - at);
      push_or_raw(L, eq != NULL ? eq + 1 : "", eq != NULL ? end - name_end - 1 : 0);
      append(L, list, &n);
      lua_pushvalue(L, -2);
      if (lua_rawget(L, list + 1) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_rawset(L, list + 1);
      } else {
        lua_pop(L, 3);
      }
    }
    at = end;
  }
  lua_rawseti(L, list, 0);
  return 1;
}

void http1_fields_open(lua_State *L) {
  static const luaL_Reg functions[] = {{"fields", l_http1_fields},
                                       {"decode", l_http1_decode},
                                       {"query", l_http1_query},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
