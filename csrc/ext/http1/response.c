/* response.c - heads of responses, with small bodies behind them: one string to write.
** Owns, in each state, a piece of memory that heads are put together in, and the date of this second.
** Invariants: what is sent has no CR, LF, NUL in a name or value (an error, not a repair: RFC 9112, 11.1); the
** fields that frame a message are set here alone. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "ext/http1/head.h"
#include "ext/http1/request.h"

#define SMALL_BODY 8192 /* a larger one is written beside its head */

/* Bits of the argument `mode`. */
enum {
  CLOSE = 1,    /* the connection ends after it */
  OLD = 2,      /* the client speaks HTTP/1.0 */
  HEADLESS = 4, /* the request is HEAD */
  STREAM = 8    /* the body comes in pieces */
};

/* Bits of the second result. */
enum { CLOSES = 1, BODY_APART = 2, IN_CHUNKS = 4, NO_BODY = 8 };

typedef struct composer {
  char *bytes; /* owned */
  size_t size, capacity;
  time_t second; /* of `date` */
  char date[40];
} composer;

/* What the headers that were given say. */
typedef struct given {
  unsigned char date, type, length, closes;
  lua_Integer size; /* with length */
} given;

/* ---- memory ---- */

static char *room(lua_State *L, composer *c, size_t size) {
  if (size > c->capacity - c->size) {
    size_t capacity = (c->size + size) * 2;
    char *bytes = realloc(c->bytes, capacity);
    if (bytes == NULL) luaL_error(L, "not enough memory");
    c->bytes = bytes;
    c->capacity = capacity;
  }
  return c->bytes + c->size;
}

static void add(lua_State *L, composer *c, const char *bytes, size_t size) {
  char *to = room(L, c, size);
  if (size > 0) memcpy(to, bytes, size);
  c->size += size;
}

#define add_literal(L, c, words) add(L, c, "" words, sizeof(words) - 1)

static void add_integer(lua_State *L, composer *c, lua_Integer n) {
  char digits[24], *at = digits + sizeof digits;
  do {
    *--at = (char)('0' + n % 10);
    n /= 10;
  } while (n > 0);
  add(L, c, at, (size_t)(digits + sizeof digits - at));
}

static int l_composer_gc(lua_State *L) {
  composer *c = lua_touserdata(L, 1);
  free(c->bytes);
  c->bytes = NULL;
  c->size = c->capacity = 0;
  return 0;
}

/* ---- words ---- */

static const char *reason(lua_Integer status) {
  switch (status) {
#define CASE(number, words) case number: return words
    CASE(100, "Continue"); CASE(101, "Switching Protocols"); CASE(103, "Early Hints");
    CASE(200, "OK"); CASE(201, "Created"); CASE(202, "Accepted");
    CASE(203, "Non-Authoritative Information"); CASE(204, "No Content"); CASE(205, "Reset Content");
    CASE(206, "Partial Content"); CASE(300, "Multiple Choices"); CASE(301, "Moved Permanently");
    CASE(302, "Found"); CASE(303, "See Other"); CASE(304, "Not Modified"); CASE(307, "Temporary Redirect");
    CASE(308, "Permanent Redirect"); CASE(400, "Bad Request"); CASE(401, "Unauthorized");
    CASE(402, "Payment Required"); CASE(403, "Forbidden"); CASE(404, "Not Found");
    CASE(405, "Method Not Allowed"); CASE(406, "Not Acceptable"); CASE(407, "Proxy Authentication Required");
    CASE(408, "Request Timeout"); CASE(409, "Conflict"); CASE(410, "Gone"); CASE(411, "Length Required");
    CASE(412, "Precondition Failed"); CASE(413, "Content Too Large"); CASE(414, "URI Too Long");
    CASE(415, "Unsupported Media Type"); CASE(416, "Range Not Satisfiable"); CASE(417, "Expectation Failed");
    CASE(421, "Misdirected Request"); CASE(422, "Unprocessable Content"); CASE(423, "Locked");
    CASE(424, "Failed Dependency"); CASE(425, "Too Early"); CASE(426, "Upgrade Required");
    CASE(428, "Precondition Required"); CASE(429, "Too Many Requests");
    CASE(431, "Request Header Fields Too Large"); CASE(451, "Unavailable For Legal Reasons");
    CASE(500, "Internal Server Error"); CASE(501, "Not Implemented"); CASE(502, "Bad Gateway");
    CASE(503, "Service Unavailable"); CASE(504, "Gateway Timeout"); CASE(505, "HTTP Version Not Supported");
    CASE(507, "Insufficient Storage"); CASE(511, "Network Authentication Required");
#undef CASE
    default: return "";
  }
}

/* IMF-fixdate (RFC 9110, 5.6.7); not strftime, whose words depend on the locale. */
static void write_date(composer *c, time_t now) {
  static const char days[] = "SunMonTueWedThuFriSat";
  static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  struct tm t;
  char *at = c->date;
  int i;
  gmtime_r(&now, &t);
  memcpy(at, days + t.tm_wday * 3, 3);
  memcpy(at + 3, ", ", 2);
  at[5] = (char)('0' + t.tm_mday / 10);
  at[6] = (char)('0' + t.tm_mday % 10);
  at[7] = ' ';
  memcpy(at + 8, months + t.tm_mon * 3, 3);
  at[11] = ' ';
  for (i = 0; i < 4; i++) {
    static const int powers[] = {1000, 100, 10, 1};
    at[12 + i] = (char)('0' + (t.tm_year + 1900) / powers[i] % 10);
  }
  at[16] = ' ';
  for (i = 0; i < 3; i++) {
    int n = i == 0 ? t.tm_hour : i == 1 ? t.tm_min : t.tm_sec;
    at[17 + i * 3] = (char)('0' + n / 10);
    at[18 + i * 3] = (char)('0' + n % 10);
    at[19 + i * 3] = i < 2 ? ':' : ' ';
  }
  memcpy(at + 26, "GMT", 4);
  c->second = now;
}

/* 29 bytes */
static const char *date(composer *c) {
  time_t now = time(NULL);
  if (now != c->second) write_date(c, now);
  return c->date;
}

/* ---- headers ---- */

/* [-0, +0, v] `name` is shown without what makes it bad. */
static int bad(lua_State *L, const char *name, size_t size, const char *words) {
  char shown[41];
  size_t i;
  for (i = 0; i < size && i < sizeof shown - 1; i++)
    shown[i] = (unsigned char)name[i] < 32 || name[i] == 127 ? '?' : name[i];
  shown[i] = '\0';
  lua_pushfstring(L, "bad response header '%s': %s", shown, words);
  return lua_error(L);
}

static int same(const char *bytes, size_t size, const char *word) {
  return strlen(word) == size && strncasecmp(bytes, word, size) == 0;
}

/* Fields that have a meaning here. True: it is not sent as it is. */
static int notice(lua_State *L, given *g, const char *name, size_t name_size, const char *value, size_t size) {
  switch (name_size) {
    case 4:
      if (same(name, 4, "date")) g->date = 1;
      return 0;
    case 10:
      if (!same(name, 10, "connection")) return 0;
      if (same(value, size, "close")) g->closes = 1;
      return same(value, size, "close") || same(value, size, "keep-alive");
    case 12:
      if (same(name, 12, "content-type")) g->type = 1;
      return 0;
    case 14: {
      size_t i;
      if (!same(name, 14, "content-length")) return 0;
      if (g->length) bad(L, name, name_size, "given twice");
      g->length = 1;
      g->size = 0;
      for (i = 0; i < size && i < 18 && value[i] >= '0' && value[i] <= '9'; i++)
        g->size = g->size * 10 + (value[i] - '0');
      if (size == 0 || i < size) bad(L, name, name_size, "no length");
      return 1;
    }
    case 17:
      if (same(name, 17, "transfer-encoding")) bad(L, name, name_size, "the server sets it by itself");
      return 0;
    default: return 0;
  }
}

/* One field: the name at index `n`, a string or number as value at the top. */
static void add_field(lua_State *L, composer *c, given *g, int n) {
  size_t name_size, size;
  const char *name = lua_tolstring(L, n, &name_size), *value;
  if (!http1_head_is_token(name, name_size)) bad(L, name, name_size, "no name of a header");
  if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
    bad(L, name, name_size, "a string, a number or a list of these expected");
  if (lua_type(L, -1) == LUA_TNUMBER) {
    lua_pushvalue(L, -1); /* not in place: a table that is being traversed holds it */
    value = lua_tolstring(L, -1, &size);
    lua_replace(L, -2);
  } else {
    value = lua_tolstring(L, -1, &size);
  }
  if (!http1_head_is_value(value, size)) bad(L, name, name_size, "its value has a control character");
  if (notice(L, g, name, name_size, value, size)) return;
  add(L, c, name, name_size);
  add_literal(L, c, ": ");
  add(L, c, value, size);
  add_literal(L, c, "\r\n");
}

/* The fields of the table at `index`: names with a value or a list of values; or, where it has a [0] (a Headers
** object), name, value, name, value ... */
static void add_fields(lua_State *L, composer *c, given *g, int index) {
  lua_Integer i;
  luaL_checkstack(L, 8, "http1");
  if (lua_rawgeti(L, index, 0) == LUA_TTABLE) {
    int name = lua_gettop(L) + 1;
    for (i = 1; lua_rawgeti(L, index, i) == LUA_TSTRING; i += 2) {
      lua_rawgeti(L, index, i + 1);
      add_field(L, c, g, name);
      lua_settop(L, name - 1);
    }
    lua_pop(L, 2);
    return;
  }
  lua_pop(L, 1);
  lua_pushnil(L);
  while (lua_next(L, index)) { /* stack: name value */
    int name = lua_gettop(L) - 1;
    if (lua_type(L, name) != LUA_TSTRING)
      luaL_error(L, "bad response headers: the name of one is a %s", luaL_typename(L, name));
    if (lua_istable(L, -1)) {
      for (i = 1; lua_rawgeti(L, name + 1, i) != LUA_TNIL; i++) {
        add_field(L, c, g, name);
        lua_settop(L, name + 1);
      }
    } else {
      add_field(L, c, g, name);
    }
    lua_settop(L, name);
  }
}

/* ---- the functions ---- */

static void add_status(lua_State *L, composer *c, lua_Integer status) {
  const char *words = reason(status);
  c->size = 0;
  add_literal(L, c, "HTTP/1.1 ");
  add_integer(L, c, status);
  add_literal(L, c, " ");
  add(L, c, words, strlen(words));
  add_literal(L, c, "\r\n");
}

/* Which fields frame the body, and the bits of the second result. */
static int add_framing(lua_State *L, composer *c, const given *g, lua_Integer status, int mode, int has_body,
                       size_t size) {
  int result = g->closes || mode & CLOSE ? CLOSES : 0;
  if (status == 204 || status == 304 || status < 200) {
    if (g->length && status == 304) {
      add_literal(L, c, "Content-Length: ");
      add_integer(L, c, g->size);
      add_literal(L, c, "\r\n");
    }
    return result | NO_BODY;
  }
  if (mode & HEADLESS) result |= NO_BODY;
  if (mode & STREAM && !g->length) {
    if (mode & OLD) return result | CLOSES;
    add_literal(L, c, "Transfer-Encoding: chunked\r\n");
    return result | IN_CHUNKS;
  }
  if (g->length && !(mode & STREAM) && (lua_Integer)size != g->size && (has_body || !(mode & HEADLESS)))
    bad(L, "content-length", 14, "not the size of the body");
  add_literal(L, c, "Content-Length: ");
  add_integer(L, c, g->length ? g->size : (lua_Integer)size);
  add_literal(L, c, "\r\n");
  return result;
}

/* response(status, headers or nil, body or nil, mode) -> head, perhaps with the body; bits; length that was given */
static int l_http1_response(lua_State *L) {
  composer *c = lua_touserdata(L, lua_upvalueindex(1));
  lua_Integer status = luaL_checkinteger(L, 1);
  int mode = (int)luaL_checkinteger(L, 4), result, has_body = !lua_isnoneornil(L, 3);
  size_t size = 0;
  const char *body = luaL_optlstring(L, 3, "", &size);
  given g = {0, 0, 0, 0, 0};
  if (status < 200 || status > 599)
    luaL_error(L, "bad response status %I: one between 200 and 599 expected", (LUAI_UACINT)status);
  if (!lua_isnil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  add_status(L, c, status);
  if (!lua_isnil(L, 2)) add_fields(L, c, &g, 2);
  if (!g.date) {
    add_literal(L, c, "Date: ");
    add(L, c, date(c), 29);
    add_literal(L, c, "\r\n");
  }
  if (!g.type && size > 0) add_literal(L, c, "Content-Type: text/plain; charset=utf-8\r\n");
  result = add_framing(L, c, &g, status, mode, has_body, size);
  if (result & CLOSES)
    add_literal(L, c, "Connection: close\r\n");
  else if (mode & OLD)
    add_literal(L, c, "Connection: keep-alive\r\n");
  add_literal(L, c, "\r\n");
  if (size > 0 && !(result & NO_BODY)) {
    if (size <= SMALL_BODY)
      add(L, c, body, size);
    else
      result |= BODY_APART;
  }
  lua_pushlstring(L, c->bytes, c->size);
  lua_pushinteger(L, result);
  if (g.length)
    lua_pushinteger(L, g.size);
  else
    lua_pushnil(L);
  return 3;
}

/* interim(status, headers or nil) -> a head of 1xx */
static int l_http1_interim(lua_State *L) {
  composer *c = lua_touserdata(L, lua_upvalueindex(1));
  lua_Integer status = luaL_checkinteger(L, 1);
  given g = {0, 0, 0, 0, 0};
  luaL_argcheck(L, status >= 100 && status <= 199, 1, "status between 100 and 199 expected");
  add_status(L, c, status);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    add_fields(L, c, &g, 2);
  }
  add_literal(L, c, "\r\n");
  lua_pushlstring(L, c->bytes, c->size);
  return 1;
}

/* last_chunk(trailers or nil) -> the end of a chunked body */
static int l_http1_last_chunk(lua_State *L) {
  composer *c = lua_touserdata(L, lua_upvalueindex(1));
  given g = {0, 0, 0, 0, 0};
  c->size = 0;
  add_literal(L, c, "0\r\n");
  if (!lua_isnoneornil(L, 1)) {
    luaL_checktype(L, 1, LUA_TTABLE);
    add_fields(L, c, &g, 1);
    if (g.length) bad(L, "content-length", 14, "no trailer");
  }
  add_literal(L, c, "\r\n");
  lua_pushlstring(L, c->bytes, c->size);
  return 1;
}

/* date([time]) -> the text of an HTTP date; now without an argument */
static int l_http1_date(lua_State *L) {
  composer *c = lua_touserdata(L, lua_upvalueindex(1));
  if (lua_isnoneornil(L, 1)) {
    lua_pushlstring(L, date(c), 29);
    return 1;
  } else {
    lua_Integer at = luaL_checkinteger(L, 1);
    composer other;
    luaL_argcheck(L, at >= 0 && at < 253402300800, 1, "time out of range");
    write_date(&other, (time_t)at);
    lua_pushlstring(L, other.date, 29);
    return 1;
  }
}

void http1_response_open(lua_State *L) {
  static const luaL_Reg functions[] = {{"response", l_http1_response},
                                       {"interim", l_http1_interim},
                                       {"last_chunk", l_http1_last_chunk},
                                       {"date", l_http1_date},
                                       {NULL, NULL}};
  composer *c = lua_newuserdatauv(L, sizeof *c, 0);
  memset(c, 0, sizeof *c);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, l_composer_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  luaL_setfuncs(L, functions, 1);
}
