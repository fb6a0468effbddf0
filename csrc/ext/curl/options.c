/* options.c - a table that asynctask.http.client made, as options of curl's easy handle. Loop
** thread, in Lua: may raise; what was acquired by then hangs on the transfer. */
#include "ext/curl/transfer.h"

#include <stdlib.h>
#include <string.h>

static void check(lua_State *L, CURLcode code, const char *field) {
  if (code != CURLE_OK) luaL_error(L, "%s: %s", field, curl_easy_strerror(code));
}

/* [-0, +0, e] a string, which curl copies */
static void text(lua_State *L, hc_transfer *t, int index, const char *field, CURLoption option) {
  if (lua_getfield(L, index, field) != LUA_TNIL)
    check(L, curl_easy_setopt(t->easy, option, luaL_checkstring(L, -1)), field);
  lua_pop(L, 1);
}

/* [-0, +0, e] seconds as milliseconds, rounded up; 0 when there are none, or no limit */
static uint64_t milliseconds(lua_State *L, int index, const char *field) {
  lua_Number s;
  lua_getfield(L, index, field);
  s = luaL_optnumber(L, -1, 0);
  lua_pop(L, 1);
  if (!(s > 0) || s > 1e9) return 0;
  return (uint64_t)(s * 1000) + 1;
}

static lua_Integer integer(lua_State *L, int index, const char *field, lua_Integer otherwise) {
  lua_Integer n;
  lua_getfield(L, index, field);
  n = luaL_optinteger(L, -1, otherwise);
  lua_pop(L, 1);
  return n;
}

static int flag(lua_State *L, int index, const char *field) {
  int on;
  lua_getfield(L, index, field);
  on = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return on;
}

static char *copy(lua_State *L, int index, const char *field) {
  char *s;
  lua_getfield(L, index, field);
  s = strdup(luaL_checkstring(L, -1));
  if (s == NULL) luaL_error(L, "not enough memory");
  lua_pop(L, 1);
  return s;
}

/* [-0, +0, e] a list of strings, added to *list */
static void strings(lua_State *L, int index, const char *field, struct curl_slist **list) {
  lua_Integer i;
  if (lua_getfield(L, index, field) == LUA_TTABLE)
    for (i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
      struct curl_slist *longer = curl_slist_append(*list, luaL_checkstring(L, -1));
      if (longer == NULL) luaL_error(L, "not enough memory");
      *list = longer;
      lua_pop(L, 1);
    }
  else lua_pushnil(L);
  lua_pop(L, 2);
}

/* [-0, +0, e] method and body */
static void request(lua_State *L, hc_transfer *t, int index) {
  const char *body;
  size_t size;
  int kind = lua_getfield(L, index, "body");
  check(L, curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, t->method), "method");
  if (kind == LUA_TSTRING) {
    body = lua_tolstring(L, -1, &size);
    check(L, curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size), "body");
    check(L, curl_easy_setopt(t->easy, CURLOPT_COPYPOSTFIELDS, body), "body");
  } else if (flag(L, index, "upload")) hc_send_setup(t, (curl_off_t)integer(L, index, "size", -1));
  else if (strcmp(t->method, "HEAD") == 0)
    check(L, curl_easy_setopt(t->easy, CURLOPT_NOBODY, 1L), "method");
  lua_pop(L, 1);
}

static void security(lua_State *L, hc_transfer *t, int index) {
  int skip = flag(L, index, "insecure_skip_verify");
  check(L, curl_easy_setopt(t->easy, CURLOPT_SSL_VERIFYPEER, skip ? 0L : 1L),
        "insecure_skip_verify");
  check(L, curl_easy_setopt(t->easy, CURLOPT_SSL_VERIFYHOST, skip ? 0L : 2L),
        "insecure_skip_verify");
  check(L, curl_easy_setopt(t->easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2), "TLS 1.2");
  text(L, t, index, "ca", CURLOPT_CAINFO);
  text(L, t, index, "ca_path", CURLOPT_CAPATH);
  text(L, t, index, "cert", CURLOPT_SSLCERT);
  text(L, t, index, "key", CURLOPT_SSLKEY);
  text(L, t, index, "key_password", CURLOPT_KEYPASSWD);
}

static void connection(lua_State *L, hc_transfer *t, int index) {
  static const char *const names[] = {"1.0", "1.1", "2", "2-direct", NULL};
  static const long versions[] = {CURL_HTTP_VERSION_1_0, CURL_HTTP_VERSION_1_1,
                                  CURL_HTTP_VERSION_2TLS, CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE};
  int which;
  lua_getfield(L, index, "http_version");
  which = luaL_checkoption(L, -1, "2", names);
  lua_pop(L, 1);
  check(L, curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION, versions[which]), "http_version");
  if (which >= 2 && flag(L, index, "wait_for_http2"))
    check(L, curl_easy_setopt(t->easy, CURLOPT_PIPEWAIT, 1L), "http_version");
  text(L, t, index, "proxy", CURLOPT_PROXY);
  check(L, curl_easy_setopt(t->easy, CURLOPT_NOPROXY, ""), "proxy");
  check(L, curl_easy_setopt(t->easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L), "proxy");
  text(L, t, index, "unix_socket", CURLOPT_UNIX_SOCKET_PATH);
  strings(L, index, "resolve", &t->resolve);
  if (t->resolve != NULL)
    check(L, curl_easy_setopt(t->easy, CURLOPT_RESOLVE, t->resolve), "resolve");
}

static void limits(lua_State *L, hc_transfer *t, int index) {
  uint64_t total = milliseconds(L, index, "timeout");
  t->connect = milliseconds(L, index, "connect_timeout");
  t->idle = milliseconds(L, index, "idle_timeout");
  t->deadline = total != 0 ? hc_engine_now() + total : 0;
  /* Curl's own begin while a request still waits for a connection, and 7.88 misses some. */
  check(L, curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, 1000000000L), "connect_timeout");
  t->max_headers = (size_t)integer(L, index, "max_headers", 262144);
  t->max_body = (uint64_t)integer(L, index, "max_body", 0);
}

void hc_options_apply(lua_State *L, hc_transfer *t, int index) {
  luaL_checkstack(L, 8, "options");
  t->method = copy(L, index, "method");
  t->url = copy(L, index, "address");
  text(L, t, index, "url", CURLOPT_URL);
#if LIBCURL_VERSION_NUM >= 0x075500
  check(L, curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https"), "protocols");
#else
  check(L, curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS)),
        "protocols");
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
  (void)curl_easy_setopt(t->easy, CURLOPT_QUICK_EXIT,
                         1L); /* does not wait for curl's own resolver */
#endif
  check(L, curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L), "signals");
  check(L, curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L), "redirects");
  check(L, curl_easy_setopt(t->easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED), "netrc");
  check(L, curl_easy_setopt(t->easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC), "user");
  if (!flag(L, index, "raw"))
    check(L, curl_easy_setopt(t->easy, CURLOPT_ACCEPT_ENCODING, ""), "encoding");
  if (t->engine->cookies) check(L, curl_easy_setopt(t->easy, CURLOPT_COOKIEFILE, ""), "cookies");
  text(L, t, index, "user", CURLOPT_USERNAME);
  text(L, t, index, "password", CURLOPT_PASSWORD);
  t->whole = flag(L, index, "whole") != 0;
  request(L, t, index);
  security(L, t, index);
  connection(L, t, index);
  limits(L, t, index);
  strings(L, index, "headers", &t->headers);
  if (t->headers != NULL)
    check(L, curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers), "headers");
  check(L, curl_easy_setopt(t->easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE), "headers");
}
