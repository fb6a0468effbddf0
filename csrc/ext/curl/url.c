/* url.c - URLs, as curl reads them (RFC 3986 and what browsers do): split, and resolved against
** another. One parser for what Lua decides by (credentials, hosts, redirects) and for what curl
** connects to. */
#include "ext/curl/transfer.h"

#include <string.h>

typedef struct hc_url {
  CURLU *u;
  char *part;
} hc_url;

#define HC_URL "asynctask.curl.URL"

static int l_url_gc(lua_State *L) {
  hc_url *h = lua_touserdata(L, 1);
  if (h->part != NULL) curl_free(h->part);
  if (h->u != NULL) curl_url_cleanup(h->u);
  h->part = NULL;
  h->u = NULL;
  return 0;
}

/* [-0, +0, m] field = part, in the table on top, when there is one */
static void set(lua_State *L, hc_url *h, CURLUPart part, const char *field, unsigned flags) {
  if (curl_url_get(h->u, part, &h->part, flags) != CURLUE_OK || h->part == NULL) return;
  lua_pushstring(L, h->part);
  lua_setfield(L, -2, field);
  curl_free(h->part);
  h->part = NULL;
}

/* url(text [, base]) -> {url= (with neither credentials nor fragment), scheme=, host=, port=,
** ...}, or nil, words */
int l_url_parse(lua_State *L) {
  const char *text = luaL_checkstring(L, 1), *base = luaL_optstring(L, 2, NULL);
  CURLUcode code;
  hc_url *h;
  lua_settop(L, 2);
  h = lua_newuserdatauv(L, sizeof *h, 0);
  memset(h, 0, sizeof *h);
  if (luaL_newmetatable(L, HC_URL)) {
    lua_pushcfunction(L, l_url_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  h->u = curl_url();
  if (h->u == NULL) return luaL_error(L, "not enough memory");
  code =
    base != NULL ? curl_url_set(h->u, CURLUPART_URL, base, CURLU_NON_SUPPORT_SCHEME) : CURLUE_OK;
  if (code == CURLUE_OK)
    code = curl_url_set(h->u, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME | CURLU_URLENCODE);
  if (code != CURLUE_OK) {
    lua_pushnil(L);
    lua_pushstring(L, curl_url_strerror(code));
    return 2;
  }
  lua_createtable(L, 0, 8);
  set(L, h, CURLUPART_SCHEME, "scheme", 0);
  set(L, h, CURLUPART_HOST, "host", 0);
  set(L, h, CURLUPART_PORT, "port", CURLU_DEFAULT_PORT);
  set(L, h, CURLUPART_PATH, "path", 0);
  set(L, h, CURLUPART_QUERY, "query", 0);
  set(L, h, CURLUPART_FRAGMENT, "fragment", 0);
  set(L, h, CURLUPART_USER, "user", CURLU_URLDECODE);
  set(L, h, CURLUPART_PASSWORD, "password", CURLU_URLDECODE);
  (void)curl_url_set(h->u, CURLUPART_USER, NULL, 0);
  (void)curl_url_set(h->u, CURLUPART_PASSWORD, NULL, 0);
  (void)curl_url_set(h->u, CURLUPART_FRAGMENT, NULL, 0);
  set(L, h, CURLUPART_URL, "url", 0);
  return 1;
}
