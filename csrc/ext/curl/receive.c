/* receive.c - what comes: the head, line by line, and the body, decoded by curl. The body goes
** into a feed, whose reader slows curl down, or is kept whole up to a limit. Loop thread; the push
** functions run protected.
**
** Invariant: nothing that a peer sends grows without a limit: heads (informational ones and
** trailers included) have max_headers bytes, a body max_body. */
#include "ext/curl/transfer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* Notes the failure; the callback then returns a number that makes curl end the transfer. */
static size_t refuse(hc_transfer *t, const char *code, const char *message) {
  t->code = code;
  (void)snprintf(t->message, sizeof t->message, "%s", message);
  return CURL_READFUNC_ABORT; /* never the size of what came */
}

static const char *version_of(hc_transfer *t) {
  long version = 0;
  (void)curl_easy_getinfo(t->easy, CURLINFO_HTTP_VERSION, &version);
  switch (version) {
  case CURL_HTTP_VERSION_1_0:
    return "1.0";
  case CURL_HTTP_VERSION_2_0:
    return "2";
  case CURL_HTTP_VERSION_3:
    return "3";
  default:
    return "1.1";
  }
}

/* The head is complete: the one of the response, unless it is informational. */
static void end_head(hc_transfer *t) {
  long status = 0;
  (void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 100 && status < 200 && status != 101) return;
  t->status = (int)status;
  t->version = version_of(t);
  t->head_done = 1;
  if (status >= 300) hc_send_give_up(t);
  if (t->whole || t->told || t->source == NULL) return;
  t->told = 1;
  (void)t->engine->at->source_settle(t->source, hc_receive_push_head);
}

/* libcurl takes the last of several lengths, and what follows the body it then ends is the next response's
** (RFC 9112, 6.3). False: the line is a length that is none, or another one than before. */
static int length_agrees(hc_transfer *t, const char *line, size_t size) {
  static const char name[] = "content-length:";
  const char *end = line + size;
  uint64_t length = 0;
  if (size < sizeof name - 1 || strncasecmp(line, name, sizeof name - 1) != 0) return 1;
  line += sizeof name - 1;
  while (line < end && is_space(*line)) line++;
  while (end > line && is_space(end[-1])) end--;
  if (line == end || end - line > 18) return 0;
  for (; line < end; line++) {
    if (*line < '0' || *line > '9') return 0;
    length = length * 10 + (uint64_t)(*line - '0');
  }
  if (t->has_length && t->length != length) return 0;
  t->has_length = 1;
  t->length = length;
  return 1;
}

static size_t on_header(char *line, size_t one, size_t size, void *data) {
  hc_transfer *t = data;
  (void)one;
  t->last = hc_engine_now();
  t->header_bytes += size;
  if (t->header_bytes > t->max_headers)
    return refuse(t, "EMSGSIZE", "the response's headers are larger than max_headers");
  if (t->head_done) return size; /* trailers */
  if (size >= 5 && memcmp(line, "HTTP/", 5) == 0) {
    t->head.size = 0;
    t->has_length = 0;
  }
  if (!length_agrees(t, line, size)) return refuse(t, "EPROTO", "the response's Content-Length is not one number");
  if (!hc_bytes_add(&t->head, line, size)) return refuse(t, "ENOMEM", "not enough memory");
  if (size <= 2 && (line[0] == '\r' || line[0] == '\n')) end_head(t);
  return size;
}

static size_t on_body(char *bytes, size_t one, size_t size, void *data) {
  hc_transfer *t = data;
  int status;
  (void)one;
  if (t->held) { /* all of it comes again later */
    t->stopped = 1;
    return CURL_WRITEFUNC_PAUSE;
  }
  t->last = hc_engine_now();
  t->received += size;
  if (t->max_body != 0 && t->received > t->max_body)
    return refuse(t, "EMSGSIZE", "the response's body is larger than max_body");
  if (t->whole)
    return hc_bytes_add(&t->body, bytes, size) ? size : refuse(t, "ENOMEM", "not enough memory");
  if (t->feed == NULL) return refuse(t, "ECANCELED", "nobody reads the response");
  status = t->engine->at->feed_push(t->feed, bytes, size);
  if (status == UV_EPIPE) return refuse(t, "ECANCELED", "nobody reads the response");
  if (status < 0) return refuse(t, "ENOMEM", "not enough memory");
  t->held = status == 0;
  return size;
}

/* The feed's reader has room again. */
void hc_receive_wanted(void *data) {
  hc_transfer *t = data;
  t->held = 0;
  if (!t->stopped || t->over) return;
  t->stopped = 0;
  t->resume = 1;
  hc_engine_later(t->engine, t);
}

void hc_receive_setup(hc_transfer *t) {
  (void)curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header);
  (void)curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
  (void)curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body);
  (void)curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
}

/* ---- in Lua ---------------------------------------------------------------------------------- */

/* [-0, +0, m] Appends a line of the head to the list on top: name, value. A line that goes on (RFC
** 9112, 5.2) is added to the value before. Returns the new length. */
static lua_Integer add_line(lua_State *L, const char *line, const char *end, lua_Integer n) {
  const char *colon = memchr(line, ':', (size_t)(end - line)), *value = colon;
  while (end > line && is_space(end[-1])) end--;
  if (line < end && is_space(*line) && n >= 2) {
    while (line < end && is_space(*line)) line++;
    lua_rawgeti(L, -1, n);
    lua_pushliteral(L, " ");
    lua_pushlstring(L, line, (size_t)(end - line));
    lua_concat(L, 3);
    lua_rawseti(L, -2, n);
    return n;
  }
  if (value == NULL || value >= end) {
    if (value == NULL || value == line) return n; /* no header */
    value = end - 1;
  }
  do value++;
  while (value < end && is_space(*value));
  lua_pushlstring(L, line, (size_t)(colon - line));
  lua_rawseti(L, -2, n + 1);
  lua_pushlstring(L, value, (size_t)(value < end ? end - value : 0));
  lua_rawseti(L, -2, n + 2);
  return n + 2;
}

/* [-0, +4, m] status, version, {name, value, name, value...}, and the body if it is kept whole */
int hc_receive_push_head(lua_State *L, void *data) {
  hc_transfer *t = data;
  const char *at = t->head.data, *end = at + t->head.size;
  lua_Integer n = 0;
  luaL_checkstack(L, 8, "response");
  lua_pushinteger(L, t->status);
  lua_pushstring(L, t->version);
  lua_createtable(L, 16, 0);
  at = memchr(at, '\n', (size_t)(end - at)); /* behind the status line */
  while (at != NULL && ++at < end) {
    const char *next = memchr(at, '\n', (size_t)(end - at));
    n = add_line(L, at, next != NULL ? next : end, n);
    at = next;
  }
  if (!t->whole) return 3;
  lua_pushlstring(L, t->body.data != NULL ? t->body.data : "", t->body.size);
  return 4;
}
