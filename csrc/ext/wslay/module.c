/* module.c - asynctask.wslay: the protocol of a WebSocket (session.c) and its handshake's values
** (handshake.c), as Lua sees them.
** Owns the userdata. No I/O and no waiting: lua/asynctask/http/websocket.lua has those. Loop
** thread.
** Invariant: no memory but the userdata's is held across a call that may raise. */
#include <lauxlib.h>
#include <lua.h>
#include <string.h>

#include "asynctask.h"
#include "ext/wslay/session.h"

#define SESSION "asynctask.wslay.Session"

static const char *const kinds[] = {"text", "binary", "ping", "pong", "close", NULL};

static ws_session *self(lua_State *L) { return luaL_checkudata(L, 1, SESSION); }

static int no_memory(lua_State *L) { return luaL_error(L, "not enough memory"); }

/* feed(bytes): what the peer has sent */
static int l_session_feed(lua_State *L) {
  size_t size;
  ws_session *s = self(L);
  const char *bytes = luaL_checklstring(L, 2, &size);
  if (ws_session_feed(s, bytes, size) != 0) return no_memory(L);
  return 0;
}

/* take() -> kind, bytes, code: the next thing that came; nothing when there is none */
static int l_session_take(lua_State *L) {
  ws_session *s = self(L);
  ws_event *e = s->head;
  if (e == NULL) return 0;
  lua_pushstring(L, kinds[e->kind]);
  lua_pushlstring(L, e->data != NULL ? e->data : "", e->size);
  if (e->kind == WS_CLOSE) lua_pushinteger(L, (lua_Integer)e->code);
  else lua_pushnil(L);
  ws_event_free(ws_session_take(s)); /* only now: pushing may raise */
  return 3;
}

static int l_session_send(lua_State *L) {
  size_t size;
  ws_session *s = self(L);
  ws_kind kind = (ws_kind)luaL_checkoption(L, 2, NULL, kinds);
  const char *bytes = luaL_checklstring(L, 3, &size);
  int sent;
  luaL_argcheck(L, kind != WS_CLOSE, 2, "closing has a method of its own");
  luaL_argcheck(L, kind < WS_PING || size <= 125, 3, "more than 125 bytes");
  sent = ws_session_send(s, kind, bytes, size);
  if (sent < 0) return no_memory(L);
  lua_pushboolean(L, sent);
  return 1;
}

/* close([code [, reason]]) -> whether it is the first one */
static int l_session_close(lua_State *L) {
  size_t size;
  ws_session *s = self(L);
  lua_Integer code = luaL_optinteger(L, 2, 0);
  const char *reason = luaL_optlstring(L, 3, "", &size);
  int sent;
  luaL_argcheck(L, code == 0 || (code >= 1000 && code < 5000), 2, "invalid code");
  luaL_argcheck(L, size <= 123, 3, "more than 123 bytes");
  sent = ws_session_close(s, (unsigned)code, reason, code == 0 ? 0 : size);
  if (sent < 0) return no_memory(L);
  lua_pushboolean(L, sent);
  return 1;
}

/* output() -> the frames that are to be sent, which are taken; nil when there are none */
static int l_session_output(lua_State *L) {
  ws_session *s = self(L);
  if (s->out.size == 0) return 0;
  lua_pushlstring(L, s->out.data, s->out.size);
  ws_session_sent(s);
  return 1;
}

/* state() -> close frame sent, close frame received, the code that answers a broken rule or nil,
** whether the peer is in the middle of a message */
static int l_session_state(lua_State *L) {
  ws_session *s = self(L);
  lua_pushboolean(L, s->ctx != NULL && wslay_event_get_close_sent(s->ctx));
  lua_pushboolean(L, s->peer_closed);
  if (s->failure != 0) lua_pushinteger(L, (lua_Integer)s->failure);
  else lua_pushnil(L);
  lua_pushboolean(L, ws_session_partial(s));
  return 4;
}

static int l_session_gc(lua_State *L) {
  ws_session_end(self(L));
  return 0;
}

/* session(server, max) -> session: the protocol of one side; max: bytes of a message that is
** received */
static int l_session_new(lua_State *L) {
  int server = lua_toboolean(L, 1);
  lua_Integer max = luaL_checkinteger(L, 2);
  ws_session *s;
  luaL_argcheck(L, max > 0, 2, "positive integer expected");
  s = lua_newuserdatauv(L, sizeof *s, 0);
  memset(s, 0, sizeof *s);
  luaL_setmetatable(L, SESSION);
  if (ws_session_begin(s, server, (uint64_t)max) != 0) return no_memory(L);
  return 1;
}

/* accept(key) -> what a server answers to the key */
static int l_wslay_accept(lua_State *L) {
  size_t size;
  const char *key = luaL_checklstring(L, 1, &size);
  char accept[WS_ACCEPT_SIZE];
  ws_handshake_accept(key, size, accept);
  lua_pushlstring(L, accept, sizeof accept);
  return 1;
}

/* key() -> a new key of a client */
static int l_wslay_key(lua_State *L) {
  char key[WS_KEY_SIZE];
  if (ws_handshake_key(key) != 0) return luaL_error(L, "the system gives no random bytes");
  lua_pushlstring(L, key, sizeof key);
  return 1;
}

ASYNCTASK_API int luaopen_asynctask_wslay(lua_State *L);

/* [-0, +1, m] the open function of the module */
int luaopen_asynctask_wslay(lua_State *L) {
  static const luaL_Reg methods[] = {{"feed", l_session_feed},     {"take", l_session_take},
                                     {"send", l_session_send},     {"close", l_session_close},
                                     {"output", l_session_output}, {"state", l_session_state},
                                     {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"session", l_session_new}, {"accept", l_wslay_accept}, {"key", l_wslay_key}, {NULL, NULL}};
  if (luaL_newmetatable(L, SESSION)) {
    lua_pushcfunction(L, l_session_gc);
    lua_setfield(L, -2, "__gc");
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
  }
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  return 1;
}
