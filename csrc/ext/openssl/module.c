/* module.c - asynctask.openssl: contexts and connections of TLS, as Lua sees them. Owns the userdata. No I/O and no
** waiting: lua/asynctask/tls/ has those. Loop thread.
** Conventions: what the world may refuse gives nil, message, reason, kind ("protocol", "certificate", "memory");
** wrong arguments raise. Invariant: no memory but the userdata's is held across a call that may raise. */
#include <lauxlib.h>
#include <lua.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include "asynctask.h"
#include "ext/openssl/tls.h"

#define CONTEXT "asynctask.openssl.Context"
#define CONNECTION "asynctask.openssl.Connection"

typedef struct contextbox {
  tls_context *context; /* counted; NULL: none yet */
} contextbox;

typedef struct connectionbox {
  tls_connection *connection; /* owned; NULL: none yet */
} connectionbox;

/* ---- outcomes ---- */

/* [-0, +4, m] */
static int push_failure(lua_State *L, const tls_failure *f) {
  static const char *const kinds[] = {"protocol", "certificate", "memory"};
  luaL_checkstack(L, 8, "failure");
  lua_pushnil(L);
  lua_pushstring(L, f->message);
  lua_pushstring(L, f->reason);
  lua_pushstring(L, kinds[f->kind]);
  return 4;
}

static int failed(lua_State *L) {
  tls_failure f;
  tls_failure_get(&f);
  return push_failure(L, &f);
}

static int connection_failed(lua_State *L, tls_connection *n) {
  tls_failure f;
  if (n->no_memory) {
    ERR_clear_error();
    tls_failure_memory(&f);
  } else {
    tls_failure_of(&f, n->ssl);
  }
  return push_failure(L, &f);
}

static int outcome(lua_State *L, int ok) {
  if (!ok) return failed(L);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- contexts ---- */

static tls_context *context_at(lua_State *L, int arg) {
  contextbox *box = luaL_checkudata(L, arg, CONTEXT);
  luaL_argcheck(L, box->context != NULL, arg, "context is gone");
  ERR_clear_error();
  return box->context;
}

/* context(server) -> context */
static int l_openssl_context(lua_State *L) {
  int server = lua_toboolean(L, 1);
  contextbox *box = lua_newuserdatauv(L, sizeof *box, 0);
  box->context = NULL;
  luaL_setmetatable(L, CONTEXT);
  ERR_clear_error();
  box->context = tls_context_new(server);
  return box->context != NULL ? 1 : failed(L);
}

static int l_context_gc(lua_State *L) {
  contextbox *box = luaL_checkudata(L, 1, CONTEXT);
  tls_context_drop(box->context);
  box->context = NULL;
  return 0;
}

static int l_context_certificate(lua_State *L) {
  size_t size;
  const char *pem = luaL_checklstring(L, 2, &size);
  return outcome(L, tls_context_certificate(context_at(L, 1), pem, size));
}

static int l_context_key(lua_State *L) {
  size_t size;
  const char *pem = luaL_checklstring(L, 2, &size);
  const char *password = luaL_optstring(L, 3, NULL);
  return outcome(L, tls_context_key(context_at(L, 1), pem, size, password));
}

static int l_context_trust(lua_State *L) {
  size_t size;
  const char *pem = luaL_checklstring(L, 2, &size);
  return outcome(L, tls_context_trust(context_at(L, 1), pem, size));
}

static int l_context_trust_directory(lua_State *L) {
  return outcome(L, tls_context_trust_directory(context_at(L, 1), luaL_checkstring(L, 2)));
}

static int l_context_trust_system(lua_State *L) { return outcome(L, tls_context_trust_system(context_at(L, 1))); }

/* versions(lowest, highest): "1.2", "1.3", or nil */
static int l_context_versions(lua_State *L) {
  static const char *const names[] = {"any", "1.2", "1.3", NULL};
  static const int versions[] = {0, TLS1_2_VERSION, TLS1_3_VERSION};
  int lowest = versions[luaL_checkoption(L, 2, "any", names)];
  int highest = versions[luaL_checkoption(L, 3, "any", names)];
  return outcome(L, tls_context_versions(context_at(L, 1), lowest, highest));
}

static int l_context_ciphers(lua_State *L) {
  return outcome(L, tls_context_ciphers(context_at(L, 1), luaL_checkstring(L, 2)));
}

static int l_context_ciphersuites(lua_State *L) {
  return outcome(L, tls_context_ciphersuites(context_at(L, 1), luaL_checkstring(L, 2)));
}

/* The names of ALPN in the wire's form, which a string has already; NULL for none. */
static const unsigned char *alpn_at(lua_State *L, int arg, unsigned *size) {
  size_t length;
  const char *names = luaL_optlstring(L, arg, NULL, &length);
  luaL_argcheck(L, names == NULL || (length > 0 && length < 65536), arg, "wrong length");
  *size = names != NULL ? (unsigned)length : 0;
  return (const unsigned char *)names;
}

static int l_context_alpn(lua_State *L) {
  unsigned size;
  const unsigned char *names = alpn_at(L, 2, &size);
  luaL_argcheck(L, names != NULL, 2, "string expected");
  return outcome(L, tls_context_alpn(context_at(L, 1), names, size));
}

/* ask(must) */
static int l_context_ask(lua_State *L) {
  tls_context_ask(context_at(L, 1), lua_toboolean(L, 2) ? 2 : 1);
  return 0;
}

/* tickets(keys) */
static int l_context_tickets(lua_State *L) {
  size_t size;
  tls_context *c = context_at(L, 1);
  const char *keys = luaL_checklstring(L, 2, &size);
  luaL_argcheck(L, size == tls_context_ticket_size(c), 2, "wrong length");
  return outcome(L, tls_context_tickets(c, (const unsigned char *)keys, size));
}

/* ticket_keys() -> random keys, for contexts that are to resume each other's sessions */
static int l_context_ticket_keys(lua_State *L) {
  unsigned char keys[256];
  size_t size = tls_context_ticket_size(context_at(L, 1));
  if (size > sizeof keys || RAND_bytes(keys, (int)size) != 1) return failed(L);
  lua_pushlstring(L, (const char *)keys, size);
  OPENSSL_cleanse(keys, sizeof keys);
  return 1;
}

static int l_context_no_sessions(lua_State *L) {
  tls_context_no_sessions(context_at(L, 1));
  return 0;
}

/* name(name, other) */
static int l_context_name(lua_State *L) {
  tls_context *other = context_at(L, 3);
  return outcome(L, tls_context_name(context_at(L, 1), luaL_checkstring(L, 2), other));
}

/* sessions() -> how many a client keeps */
static int l_context_sessions(lua_State *L) {
  const tls_context *c = context_at(L, 1);
  lua_pushinteger(L, c->sessions != NULL ? (lua_Integer)tls_sessions_count(c->sessions) : 0);
  return 1;
}

/* ---- connections ---- */

static connectionbox *push_connection(lua_State *L) {
  connectionbox *box = lua_newuserdatauv(L, sizeof *box, 0);
  box->connection = NULL;
  luaL_setmetatable(L, CONNECTION);
  return box;
}

/* client(name | nil, verify, key | nil, alpn | nil) -> connection */
static int l_context_client(lua_State *L) {
  tls_context *c = context_at(L, 1);
  tls_client client;
  connectionbox *box;
  client.name = luaL_optstring(L, 2, NULL);
  client.verify = lua_toboolean(L, 3);
  client.key = luaL_optstring(L, 4, NULL);
  client.alpn = alpn_at(L, 5, &client.alpn_size);
  luaL_argcheck(L, !c->server, 1, "context of a server");
  box = push_connection(L);
  box->connection = tls_connection_client(c, &client);
  return box->connection != NULL ? 1 : failed(L);
}

/* server() -> connection */
static int l_context_server(lua_State *L) {
  tls_context *c = context_at(L, 1);
  connectionbox *box;
  luaL_argcheck(L, c->server, 1, "context of a client");
  box = push_connection(L);
  box->connection = tls_connection_server(c);
  return box->connection != NULL ? 1 : failed(L);
}

static int l_connection_gc(lua_State *L) {
  connectionbox *box = luaL_checkudata(L, 1, CONNECTION);
  tls_connection_free(box->connection);
  box->connection = NULL;
  return 0;
}

static tls_connection *self(lua_State *L) {
  connectionbox *box = luaL_checkudata(L, 1, CONNECTION);
  luaL_argcheck(L, box->connection != NULL, 1, "connection is gone");
  return box->connection;
}

/* handshake([bytes]) -> true: done; false: needs bytes of the peer; nil, ... */
static int l_connection_handshake(lua_State *L) {
  tls_connection *n = self(L);
  size_t size;
  const char *bytes = luaL_optlstring(L, 2, "", &size);
  int result = tls_connection_handshake(n, bytes, size);
  if (result < 0) return connection_failed(L, n);
  lua_pushboolean(L, result);
  return 1;
}

/* receive(bytes) -> plaintext | nil, "open" | "more" | "closed" | "failed", message, reason, kind */
static int l_connection_receive(lua_State *L) {
  static const char *const states[] = {"open", "more", "closed", "failed"};
  tls_connection *n = self(L);
  size_t size, count;
  const char *bytes = luaL_checklstring(L, 2, &size), *plain;
  unsigned char no_memory;
  int state = tls_connection_receive(n, bytes, size, &plain, &count);
  no_memory = n->no_memory;
  n->no_memory = 1; /* should a push raise, plaintext is lost: nothing may follow */
  if (count > 0) lua_pushlstring(L, plain, count);
  else lua_pushnil(L);
  n->no_memory = no_memory;
  lua_pushstring(L, states[state]);
  if (state != TLS_FAILED) return 2;
  (void)connection_failed(L, n);
  lua_remove(L, -4);
  return 5;
}

/* [-0, +(0|1), m] what is to be sent, if there is something */
static int push_output(lua_State *L, tls_connection *n) {
  if (n->out.size == 0) return 0;
  lua_pushlstring(L, n->out.data, n->out.size);
  tls_connection_sent(n);
  return 1;
}

/* send(bytes [, first, last]) -> bytes for the peer, those of earlier calls that nobody took before them */
static int l_connection_send(lua_State *L) {
  tls_connection *n = self(L);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  lua_Integer first = luaL_optinteger(L, 3, 1), last = luaL_optinteger(L, 4, (lua_Integer)size);
  luaL_argcheck(L, first >= 1 && first <= last + 1, 3, "out of range");
  luaL_argcheck(L, (lua_Unsigned)last <= size, 4, "out of range");
  if (!tls_connection_send(n, bytes + first - 1, (size_t)(last - first + 1))) return connection_failed(L, n);
  if (push_output(L, n) == 0) lua_pushliteral(L, "");
  return 1;
}

/* output() -> bytes for the peer, or nil */
static int l_connection_output(lua_State *L) { return push_output(L, self(L)); }

/* shutdown() -> bytes for the peer that say that no more will come, or nil */
static int l_connection_shutdown(lua_State *L) {
  tls_connection *n = self(L);
  tls_connection_shutdown(n);
  return push_output(L, n);
}

static int l_connection_alpn(lua_State *L) {
  const unsigned char *name;
  unsigned size;
  SSL_get0_alpn_selected(self(L)->ssl, &name, &size);
  if (size == 0) return 0;
  lua_pushlstring(L, (const char *)name, size);
  return 1;
}

static int l_connection_version(lua_State *L) {
  lua_pushstring(L, SSL_get_version(self(L)->ssl));
  return 1;
}

static int l_connection_cipher(lua_State *L) {
  lua_pushstring(L, SSL_get_cipher_name(self(L)->ssl));
  return 1;
}

static int l_connection_session_reused(lua_State *L) {
  lua_pushboolean(L, SSL_session_reused(self(L)->ssl));
  return 1;
}

/* server_name() -> the name that the client asked for, or nil */
static int l_connection_server_name(lua_State *L) {
  lua_pushstring(L, SSL_get_servername(self(L)->ssl, TLSEXT_NAMETYPE_host_name));
  return 1;
}

static int l_connection_peer_certificate(lua_State *L) {
  tls_certificate_push(L, self(L)->ssl);
  return 1;
}

/* ---- the module ---- */

static void make_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc) {
  if (luaL_newmetatable(L, name)) {
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__gc");
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
  }
  lua_pop(L, 1);
}

ASYNCTASK_API int luaopen_asynctask_openssl(lua_State *L);

/* [-0, +1, m] the open function of the module */
int luaopen_asynctask_openssl(lua_State *L) {
  static const luaL_Reg context[] = {{"certificate", l_context_certificate},
                                     {"key", l_context_key},
                                     {"trust", l_context_trust},
                                     {"trust_directory", l_context_trust_directory},
                                     {"trust_system", l_context_trust_system},
                                     {"versions", l_context_versions},
                                     {"ciphers", l_context_ciphers},
                                     {"ciphersuites", l_context_ciphersuites},
                                     {"alpn", l_context_alpn},
                                     {"ask", l_context_ask},
                                     {"tickets", l_context_tickets},
                                     {"ticket_keys", l_context_ticket_keys},
                                     {"no_sessions", l_context_no_sessions},
                                     {"name", l_context_name},
                                     {"sessions", l_context_sessions},
                                     {"client", l_context_client},
                                     {"server", l_context_server},
                                     {NULL, NULL}};
  static const luaL_Reg connection[] = {{"handshake", l_connection_handshake},
                                        {"receive", l_connection_receive},
                                        {"send", l_connection_send},
                                        {"output", l_connection_output},
                                        {"shutdown", l_connection_shutdown},
                                        {"alpn", l_connection_alpn},
                                        {"version", l_connection_version},
                                        {"cipher", l_connection_cipher},
                                        {"session_reused", l_connection_session_reused},
                                        {"server_name", l_connection_server_name},
                                        {"peer_certificate", l_connection_peer_certificate},
                                        {NULL, NULL}};
  static const luaL_Reg functions[] = {{"context", l_openssl_context}, {NULL, NULL}};
  make_class(L, CONTEXT, context, l_context_gc);
  make_class(L, CONNECTION, connection, l_connection_gc);
  tls_certificate_open(L);
  luaL_newlib(L, functions);
  lua_pushstring(L, OpenSSL_version(OPENSSL_VERSION));
  lua_setfield(L, -2, "library");
  return 1;
}
