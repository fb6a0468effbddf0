/* request.c - the parser of one connection, for Lua: heads become requests, bodies strings.
** Owns the bytes of a head that has not come whole, and of trailers. No task, no stream: bytes come as
** strings. A raise leaves the parser as it was: memory is anchored in the userdata. */
#include "ext/http1/request.h"

#include <stdlib.h>
#include <string.h>

#include "ext/http1/chunks.h"
#include "ext/http1/head.h"
#include "ext/http1/parser.h"

enum { NO_BODY, WITH_LENGTH, CHUNKED, BROKEN };

typedef struct connection {
  http1_parser parser;
  http1_limits limits;
  http1_chunks chunks;
  uint64_t left;      /* bytes of a body with a length that have not come */
  char *kept;         /* owned: the beginning of a head; trailers */
  size_t size, capacity;
  unsigned char body; /* how the body that comes is framed */
  unsigned char begun; /* a part of a head has come */
  /* during a run over a chunked body */
  char *out;          /* borrowed: where pieces go */
  size_t out_size;
  const char *mark;   /* up to here the bytes are checked */
  int bad;
} connection;

/* [-0, +0, v] argument 1; upvalue 1 is its metatable. */
static connection *self(lua_State *L) {
  if (lua_getmetatable(L, 1) && lua_rawequal(L, -1, lua_upvalueindex(1))) {
    lua_pop(L, 1);
    return lua_touserdata(L, 1);
  }
  luaL_argerror(L, 1, "asynctask.http1.Parser expected");
  return NULL;
}

/* Keeps bytes: 0, or -1 (out of memory). */
static int keep(connection *c, const char *bytes, size_t size) {
  if (size > c->capacity - c->size) {
    size_t capacity = c->size + size + 512;
    char *kept = realloc(c->kept, capacity);
    if (kept == NULL) return -1;
    c->kept = kept;
    c->capacity = capacity;
  }
  if (size > 0) memcpy(c->kept + c->size, bytes, size);
  c->size += size;
  return 0;
}

static void forget(connection *c) {
  free(c->kept);
  c->kept = NULL;
  c->size = c->capacity = 0;
}

/* Argument 2, from position argument 3 on. */
static const char *input(lua_State *L, size_t *size, size_t *from) {
  const char *bytes = luaL_checklstring(L, 2, size);
  lua_Integer at = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, at >= 1 && (size_t)at <= *size + 1, 3, "position out of range");
  *from = (size_t)at - 1;
  *size -= *from;
  return bytes + *from;
}

/* [-0, +3, m] false, status, words */
static int refuse(lua_State *L, connection *c, int status, const char *why) {
  c->body = BROKEN;
  forget(c);
  lua_pushboolean(L, 0);
  lua_pushinteger(L, status);
  lua_pushstring(L, why);
  return 3;
}

/* ---- heads ---- */

/* What is refused before the head is whole: 0, or a status. */
static int over(const connection *c, const char *bytes, size_t size, const char **why) {
  const char *lf = memchr(bytes, '\n', size);
  size_t line = lf != NULL ? (size_t)(lf - bytes) : size;
  if (line > c->limits.line + 2) {
    *why = "the request line is too long";
    return 414;
  }
  if (size > c->limits.line + c->limits.fields_size + 4) {
    *why = "the headers are too large";
    return 431;
  }
  return 0;
}

/* Behind scheme and authority of an absolute target: the path. */
static void path_of(const char *target, size_t size, const char **path, size_t *path_size) {
  const char *colon, *slash, *query;
  *path = target;
  *path_size = size;
  if (*target != '/') {
    colon = memchr(target, ':', size);
    if (colon != NULL && target + size - colon > 3 && memcmp(colon, "://", 3) == 0) {
      const char *from = colon + 3, *end = target + size;
      query = memchr(from, '?', (size_t)(end - from));
      slash = memchr(from, '/', (size_t)((query != NULL ? query : end) - from));
      *path = slash != NULL ? slash : query != NULL ? query : end;
      *path_size = (size_t)(end - *path);
    }
  }
  query = memchr(*path, '?', *path_size);
  if (query != NULL) *path_size = (size_t)(query - *path);
}

/* [-0, +1, m] pushes the request of a head that lies in the string at `index`, `offset` behind its start: {string,
** first byte of the fields, last one, flags, method=, target=, path=}. 0: the path is broken (nothing pushed). */
static int push_request(lua_State *L, int index, size_t offset, const char *bytes, const http1_head *head) {
  const char *path;
  size_t path_size;
  path_of(bytes + head->target, head->target_size, &path, &path_size);
  lua_createtable(L, 4, 4);
  if (path_size == 0)
    lua_pushliteral(L, "/");
  else if (!http1_fields_decode(L, path, path_size, 0)) {
    lua_pop(L, 1);
    return 0;
  }
  lua_setfield(L, -2, "path");
  lua_pushlstring(L, bytes + head->method, head->method_size);
  lua_setfield(L, -2, "method");
  lua_pushlstring(L, bytes + head->target, head->target_size);
  lua_setfield(L, -2, "target");
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, 1);
  lua_pushinteger(L, (lua_Integer)(offset + head->fields + 1));
  lua_rawseti(L, -2, 2);
  lua_pushinteger(L, (lua_Integer)(offset + head->fields_end));
  lua_rawseti(L, -2, 3);
  lua_pushinteger(L, head->flags);
  lua_rawseti(L, -2, 4);
  lua_getiuservalue(L, 1, 1);
  lua_setmetatable(L, -2);
  return 1;
}

/* [-0, +n, m] the head is bytes[0, size) of the string at `index` + offset; `next`: position behind it. */
static int take_head(lua_State *L, connection *c, int index, size_t offset, const char *bytes, size_t size,
                     size_t next) {
  http1_head head;
  const char *why = "no path";
  int status = http1_head_read(bytes, size, &c->limits, &head, &why);
  if (status == 0 && ((head.flags & HTTP1_CHUNKED) != 0) != http1_parser_chunked(&c->parser)) {
    status = 400;
    why = "a Transfer-Encoding that is read in two ways";
  }
  if (status == 0 && !push_request(L, index, offset, bytes, &head)) {
    status = 400;
    why = "a broken percent escape in the path";
  }
  if (status != 0) return refuse(L, c, status, why);
  c->body = head.flags & HTTP1_CHUNKED ? CHUNKED : head.flags & HTTP1_BODY ? WITH_LENGTH : NO_BODY;
  c->left = head.length;
  c->begun = 0;
  if (c->body == CHUNKED) http1_chunks_begin(&c->chunks);
  forget(c);
  lua_pushinteger(L, (lua_Integer)next);
  lua_pushinteger(L, head.flags);
  lua_pushinteger(L, (lua_Integer)head.length);
  return 4;
}

/* head(parser, bytes [, from]) -> request, next, flags, length | nil: more is needed, all was taken |
** false, status, words: to be refused */
static int l_parser_head(lua_State *L) {
  connection *c = self(L);
  size_t size, from, taken;
  const char *bytes = input(L, &size, &from), *why = "no HTTP";
  int event, status;
  if (!c->begun) {
    http1_parser_begin(&c->parser);
    c->begun = 1;
    c->size = 0;
  }
  event = http1_parser_run(&c->parser, bytes, size, &taken);
  if (event == HTTP1_HEAD && c->size == 0)
    return take_head(L, c, 2, from, bytes, taken, from + taken + 1);
  if (event == HTTP1_DONE || event == HTTP1_BAD) return refuse(L, c, 400, why);
  if (keep(c, bytes, event == HTTP1_METHOD ? size : taken) < 0) return refuse(L, c, 503, "not enough memory");
  if (event == HTTP1_METHOD && http1_head_begins(c->kept, c->size)) return refuse(L, c, 501, "an unknown method");
  if (event == HTTP1_METHOD) return refuse(L, c, 400, why);
  status = over(c, c->kept, c->size, &why);
  if (status != 0) return refuse(L, c, status, why);
  if (event == HTTP1_MORE) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushlstring(L, c->kept, c->size);
  return take_head(L, c, lua_gettop(L), 0, lua_tostring(L, -1), c->size, from + taken + 1);
}

/* begun(parser) -> whether a part of a head has come */
static int l_parser_begun(lua_State *L) {
  connection *c = self(L);
  lua_pushboolean(L, c->begun);
  return 1;
}

/* ---- bodies ---- */

static void on_piece(void *data, const char *bytes, size_t size) {
  connection *c = data;
  if (c->bad) return;
  if (http1_chunks_check(&c->chunks, c->mark, (size_t)(bytes - c->mark)) < 0 ||
      http1_chunks_data(&c->chunks) < 0) {
    c->bad = 1;
    return;
  }
  memcpy(c->out + c->out_size, bytes, size);
  c->out_size += size;
  c->mark = bytes + size;
}

/* The bytes from `mark` on are no piece; those of trailers are kept. A status, or 0. */
static int check_rest(connection *c, const char *end) {
  for (; !c->bad && c->mark < end; c->mark++) {
    if (http1_chunks_check(&c->chunks, c->mark, 1) < 0) c->bad = 1;
    if (!c->bad && http1_chunks_in_trailers(&c->chunks) && c->chunks.trailers > c->size &&
        keep(c, c->mark, 1) < 0)
      return 503;
  }
  if (c->bad) return 400;
  return c->chunks.trailers > c->limits.fields_size ? 431 : 0;
}

/* [-0, +n, m] */
static int chunked(lua_State *L, connection *c, const char *bytes, size_t size, size_t from) {
  luaL_Buffer b;
  size_t taken;
  const char *why = "a chunked body that is broken";
  int event, status;
  c->out = luaL_buffinitsize(L, &b, size);
  c->out_size = 0;
  c->mark = bytes;
  c->bad = 0;
  c->parser.body = on_piece;
  c->parser.data = c;
  event = http1_parser_run(&c->parser, bytes, size, &taken);
  status = check_rest(c, bytes + taken);
  if (status == 0 && (event == HTTP1_BAD || event == HTTP1_METHOD || event == HTTP1_HEAD)) status = 400;
  if (status == 0 && event == HTTP1_DONE)
    status = http1_head_check_fields(c->kept, c->size, c->limits.fields, &why);
  if (status != 0) return refuse(L, c, status, why);
  luaL_pushresultsize(&b, c->out_size);
  lua_pushinteger(L, (lua_Integer)(from + taken + 1));
  lua_pushboolean(L, event == HTTP1_DONE);
  if (event == HTTP1_DONE) c->body = NO_BODY;
  return 3;
}

/* body(parser, bytes [, from]) -> piece (perhaps ""), next, whether the body has ended | false, status, words */
static int l_parser_body(lua_State *L) {
  connection *c = self(L);
  size_t size, from, all;
  const char *bytes = input(L, &size, &from);
  if (c->body == BROKEN) return refuse(L, c, 400, "a body that is broken");
  if (c->body == CHUNKED) return chunked(L, c, bytes, size, from);
  all = size;
  if (c->body == NO_BODY) size = 0;
  if (size > c->left) size = (size_t)c->left;
  if (size == all && from == 0)
    lua_pushvalue(L, 2);
  else
    lua_pushlstring(L, bytes, size);
  c->left -= size;
  if (c->left == 0) c->body = NO_BODY;
  lua_pushinteger(L, (lua_Integer)(from + size + 1));
  lua_pushboolean(L, c->body == NO_BODY);
  return 3;
}

/* trailers(parser) -> as fields(), of the chunked body that has ended */
static int l_parser_trailers(lua_State *L) {
  connection *c = self(L);
  http1_fields_push(L, c->kept, c->size);
  return 1;
}

/* ---- making ---- */

static size_t limit(lua_State *L, int arg) {
  lua_Integer n = luaL_checkinteger(L, arg);
  luaL_argcheck(L, n > 0 && n <= 1 << 30, arg, "limit out of range");
  return (size_t)n;
}

/* parser(meta of requests, bytes of a request line, bytes of fields, fields) -> parser */
static int l_parser_new(lua_State *L) {
  http1_limits limits;
  connection *c;
  luaL_checktype(L, 1, LUA_TTABLE);
  limits.line = limit(L, 2);
  limits.fields_size = limit(L, 3);
  limits.fields = limit(L, 4);
  c = lua_newuserdatauv(L, sizeof *c, 1);
  memset(c, 0, sizeof *c);
  c->limits = limits;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_setmetatable(L, -2);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

static int l_parser_gc(lua_State *L) {
  forget(lua_touserdata(L, 1));
  return 0;
}

void http1_request_open(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"parser", l_parser_new}, {"head", l_parser_head},         {"begun", l_parser_begun},
      {"body", l_parser_body},  {"trailers", l_parser_trailers}, {NULL, NULL}};
  http1_parser_open();
  lua_createtable(L, 0, 2); /* the metatable of parsers, an upvalue of each */
  lua_pushliteral(L, "asynctask.http1.Parser");
  lua_setfield(L, -2, "__name");
  lua_pushcfunction(L, l_parser_gc);
  lua_setfield(L, -2, "__gc");
  luaL_setfuncs(L, functions, 1);
}
