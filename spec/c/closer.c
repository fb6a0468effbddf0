/* closer.c - a C module whose only function closes the runtime of the state while Lua still holds everything that it
** has opened: close([grace]) -> status. Built and loaded by spec/reliability/closed_spec.lua. */
#include <asynctask.h>
#include <lauxlib.h>

static const asynctask_api *at;

static int l_close(lua_State *L) {
  lua_pushinteger(L, at->close(L, luaL_optnumber(L, 1, 0)));
  return 1;
}

int luaopen_closer(lua_State *L);
int luaopen_closer(lua_State *L) {
  at = asynctask_import(L);
  lua_pushcfunction(L, l_close);
  return 1;
}
