/* module.c - asynctask.curl, which asynctask.http.client is built on (private): clients and their
** transfers as userdata. Loop thread. A client owns an engine; a transfer's object is one of those
** that count it. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "ext/curl/transfer.h"

#define HC_CLIENT "asynctask.curl.Client"
static const char HC_ANCHOR = 0;
#define HC_TRANSFER "asynctask.curl.Transfer"

ASYNCTASK_API int luaopen_asynctask_curl(lua_State *L);

typedef struct hc_client {
  hc_engine *engine; /* counted, owned; NULL once closed */
} hc_client;

typedef struct hc_box {
  hc_transfer *t; /* counted */
} hc_box;

/* ---- clients --------------------------------------------------------------------------------- */

static void on_runtime_close(void *data) {
  hc_engine *e = data;
  e->closer = NULL;
  hc_engine_shutdown(e);
}

/* client{cookies=, max_per_host=, max_connections=} -> Client */
static int l_curl_client(lua_State *L) {
  const asynctask_api *at = asynctask_import(L);
  hc_client *c;
  hc_engine *e;
  long host, total;
  int cookies;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_getfield(L, 1, "cookies");
  cookies = lua_toboolean(L, -1);
  lua_getfield(L, 1, "max_per_host");
  host = (long)luaL_optinteger(L, -1, 0);
  lua_getfield(L, 1, "max_connections");
  total = (long)luaL_optinteger(L, -1, 0);
  c = lua_newuserdatauv(L, sizeof *c, 0);
  c->engine = NULL;
  luaL_setmetatable(L, HC_CLIENT);
  if (at->loop(L) == NULL) return luaL_error(L, "the runtime of this state is closed");
  e = c->engine = hc_engine_new(at, at->loop(L), cookies);
  if (e == NULL) return luaL_error(L, "not enough memory");
  e->remote = at->remote_new(L);
  if (e->remote == NULL) return luaL_error(L, "not enough memory");
  (void)curl_multi_setopt(e->multi, CURLMOPT_MAX_HOST_CONNECTIONS, host);
  (void)curl_multi_setopt(e->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, total);
  if (total > 0) (void)curl_multi_setopt(e->multi, CURLMOPT_MAXCONNECTS, total);
  e->closer = at->on_close(L, on_runtime_close, e);
  return 1;
}

static hc_engine *client_at(lua_State *L, int index) {
  hc_client *c = luaL_checkudata(L, index, HC_CLIENT);
  if (c->engine == NULL || c->engine->multi == NULL) luaL_error(L, "the client is closed");
  return c->engine;
}

static int l_client_gc(lua_State *L) {
  hc_client *c = lua_touserdata(L, 1);
  hc_engine *e = c->engine;
  c->engine = NULL;
  if (e != NULL) hc_engine_disown(e);
  return 0;
}

/* client:close(): ends what runs, too */
static int l_client_close(lua_State *L) {
  hc_client *c = luaL_checkudata(L, 1, HC_CLIENT);
  hc_engine *e = c->engine;
  hc_transfer *t;
  if (e == NULL) return 0;
  hc_engine_enter(e);
  for (t = e->running; t != NULL; t = t->next)
    hc_transfer_fail(t, "ECANCELED", NULL, "the client was closed");
  hc_engine_leave(e);
  return l_client_gc(L);
}

/* client:running() -> how many transfers curl has */
static int l_client_running(lua_State *L) {
  hc_client *c = luaL_checkudata(L, 1, HC_CLIENT);
  lua_pushinteger(L, c->engine != NULL ? (lua_Integer)c->engine->nrunning : 0);
  return 1;
}

/* [-0, +1, m] a list of curl's cookie lines */
static int push_cookies(lua_State *L) {
  const struct curl_slist *line = lua_touserdata(L, 1);
  lua_Integer n = 0;
  lua_newtable(L);
  for (; line != NULL; line = line->next) {
    lua_pushstring(L, line->data);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* client:cookies([command]) -> list of lines as in cookie files; with a command of
** CURLOPT_COOKIELIST done first */
static int l_client_cookies(lua_State *L) {
  hc_engine *e = client_at(L, 1);
  const char *command = luaL_optstring(L, 2, NULL);
  struct curl_slist *list = NULL;
  CURL *easy;
  int status;
  lua_settop(L, 2);
  luaL_checkstack(L, 4, NULL);
  lua_pushcfunction(L, push_cookies);
  easy = curl_easy_init();
  if (easy == NULL) return luaL_error(L, "not enough memory");
  (void)curl_easy_setopt(easy, CURLOPT_SHARE, e->share);
  (void)curl_easy_setopt(easy, CURLOPT_COOKIEFILE, "");
  if (command != NULL) (void)curl_easy_setopt(easy, CURLOPT_COOKIELIST, command);
  (void)curl_easy_getinfo(easy, CURLINFO_COOKIELIST, &list);
  lua_pushlightuserdata(L, list);
  status = lua_pcall(L, 1, 1, 0);
  curl_slist_free_all(list);
  curl_easy_cleanup(easy);
  return status == LUA_OK ? 1 : lua_error(L);
}

/* ---- transfers ------------------------------------------------------------------------------- */

static void on_cancelled(void *data) { hc_transfer_kill(data); }
static void on_source_released(void *data) { hc_transfer_unref(data); }

static void on_feed_released(void *data) {
  hc_transfer *t = data;
  hc_transfer_kill(t); /* nobody will read the rest */
  hc_transfer_unref(t);
}

/* [-0, +1, m] the feed of the response's body: its reading side is pushed */
static void open_feed(lua_State *L, hc_transfer *t) {
  asynctask_feed_options o;
  memset(&o, 0, sizeof o);
  o.size = sizeof o;
  o.wanted = hc_receive_wanted;
  o.released = on_feed_released;
  o.data = t;
  t->feed = t->engine->at->feed_new(L, &o);
  hc_transfer_ref(t);
}

/* [-0, +1, m] the Task of the response */
static void open_source(lua_State *L, hc_transfer *t) {
  asynctask_source_options o;
  memset(&o, 0, sizeof o);
  o.size = sizeof o;
  o.name = "an HTTP request";
  o.cancelled = on_cancelled;
  o.released = on_source_released;
  o.data = t;
  o.local = 1;
  t->source = t->engine->at->source_new(L, &o);
  hc_transfer_ref(t);
}

/* client:start(options) -> Task of the response, Transfer, stream of its body (nil if whole) */
static int l_client_start(lua_State *L) {
  hc_engine *e = client_at(L, 1);
  hc_box *box;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  box = lua_newuserdatauv(L, sizeof *box, 0);
  box->t = NULL;
  luaL_setmetatable(L, HC_TRANSFER);
  box->t = hc_transfer_new(e);
  if (box->t == NULL) return luaL_error(L, "not enough memory");
  hc_options_apply(L, box->t, 2);
  if (box->t->whole) lua_pushnil(L);
  else open_feed(L, box->t);
  open_source(L, box->t);
  lua_insert(L, 3); /* stack: client options task transfer stream */
  if (e->at->source_wanted(box->t->source)) hc_transfer_start(box->t);
  else hc_transfer_drop(box->t); /* in a scope that is being cancelled */
  return 3;
}

static hc_transfer *transfer_at(lua_State *L, int index) {
  hc_box *box = luaL_checkudata(L, index, HC_TRANSFER);
  if (box->t == NULL) luaL_error(L, "the transfer is closed");
  return box->t;
}

static int l_transfer_gc(lua_State *L) {
  hc_box *box = lua_touserdata(L, 1);
  hc_transfer *t = box->t;
  box->t = NULL;
  if (t == NULL) return 0;
  if (t->upload && !t->ended)
    hc_transfer_fail(t, "ECANCELED", NULL, "the request's body was given up");
  if (t->source == NULL && t->feed == NULL && !t->over) hc_transfer_drop(t); /* it never began */
  hc_transfer_unref(t);
  return 0;
}

static void on_writer_released(void *data) { hc_transfer_unref(data); }

/* transfer:send(bytes) -> true, or a Task to wait for: there is room again, or it is over */
static int l_transfer_send(lua_State *L) {
  hc_transfer *t = transfer_at(L, 1);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  asynctask_source_options o;
  if (!hc_send_bytes(t, bytes, size)) return luaL_error(L, "not enough memory");
  if (!hc_send_full(t)) {
    lua_pushboolean(L, 1);
    return 1;
  }
  hc_send_wake(t);
  memset(&o, 0, sizeof o);
  o.size = sizeof o;
  o.name = "the sending of a request's body";
  o.released = on_writer_released;
  o.data = t;
  o.local = 1;
  t->writer = t->engine->at->source_new(L, &o);
  hc_transfer_ref(t);
  return 1;
}

static int l_transfer_finish(lua_State *L) {
  hc_send_end(transfer_at(L, 1));
  return 0;
}

/* transfer:cancel(): closes it at once */
static int l_transfer_cancel(lua_State *L) {
  hc_box *box = luaL_checkudata(L, 1, HC_TRANSFER);
  if (box->t != NULL) hc_transfer_kill(box->t);
  return 0;
}

/* transfer:over() -> whether nothing goes to and fro any more */
static int l_transfer_over(lua_State *L) {
  hc_transfer *t = transfer_at(L, 1);
  lua_pushboolean(L, t->over || t->doomed);
  return 1;
}

/* version() -> "7.88.1", {feature = true...} */
static int l_curl_version(lua_State *L) {
  const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);
  lua_pushstring(L, v->version);
  lua_createtable(L, 0, 4);
  lua_pushboolean(L, (v->features & CURL_VERSION_HTTP2) != 0);
  lua_setfield(L, -2, "http2");
  lua_pushboolean(L, (v->features & CURL_VERSION_LIBZ) != 0);
  lua_setfield(L, -2, "gzip");
  lua_pushboolean(L, (v->features & CURL_VERSION_BROTLI) != 0);
  lua_setfield(L, -2, "brotli");
  lua_pushboolean(L, (v->features & CURL_VERSION_ZSTD) != 0);
  lua_setfield(L, -2, "zstd");
  return 2;
}

/* Handles are closed, and curl's own threads may end, after the state has let go of this file. */
static void pin(void) {
  Dl_info info;
  if (dladdr((void *)&HC_ANCHOR, &info) != 0 && info.dli_fname != NULL)
    (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

static void new_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc) {
  luaL_newmetatable(L, name);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

int luaopen_asynctask_curl(lua_State *L) {
  static const luaL_Reg client[] = {{"start", l_client_start},
                                    {"close", l_client_close},
                                    {"running", l_client_running},
                                    {"cookies", l_client_cookies},
                                    {NULL, NULL}};
  static const luaL_Reg transfer[] = {{"send", l_transfer_send},
                                      {"finish", l_transfer_finish},
                                      {"cancel", l_transfer_cancel},
                                      {"over", l_transfer_over},
                                      {NULL, NULL}};
  static const luaL_Reg functions[] = {
    {"client", l_curl_client}, {"url", l_url_parse}, {"version", l_curl_version}, {NULL, NULL}};
  (void)asynctask_import(L);
  pin();
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
    return luaL_error(L, "libcurl does not start");
  new_class(L, HC_CLIENT, client, l_client_gc);
  new_class(L, HC_TRANSFER, transfer, l_transfer_gc);
  luaL_newlib(L, functions);
  return 1;
}
