/* preload.c - asynctask without files: the C module and the Lua files of the library in package.preload.
** Owns nothing. The files are a table that tools/bundle.lua makes; where it was not linked (core.so, a build
** of the sources alone) only the C module is put there, and Lua finds the files as ever. Any state's thread. */
#include <lualib.h>
#include <string.h>

#include "host/bundle.h"
#include "host/api.h"
#include "par/pool.h"

/* The bundle's own takes its place. */
__attribute__((weak)) const at_bundled at_bundle[] = {{NULL, NULL, NULL, 0}};

/* stack: module's name, ":preload:"; upvalue: its file */
static int l_load(lua_State *L) {
  const at_bundled *file = lua_touserdata(L, lua_upvalueindex(1));
  lua_settop(L, 2);
  if (luaL_loadbufferx(L, file->text, file->size, file->chunk, "t") != LUA_OK) return lua_error(L);
  lua_insert(L, 1);
  lua_call(L, 2, LUA_MULTRET);
  return lua_gettop(L);
}

/* stack: nothing. What worker states are opened with, too. */
static int l_preload(lua_State *L) {
  const at_bundled *file;
  luaL_checkstack(L, 4, "asynctask");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_asynctask_core);
  lua_setfield(L, -2, "asynctask.core");
  for (file = at_bundle; file->name != NULL; file++) {
    lua_pushlightuserdata(L, (void *)(size_t)file); /* only read */
    lua_pushcclosure(L, l_load, 1);
    lua_setfield(L, -2, file->name);
  }
  lua_pushcfunction(L, l_preload);
  lua_setfield(L, LUA_REGISTRYINDEX, AT_PAR_PRELOAD);
  lua_pop(L, 1);
  return 0;
}

void asynctask_preload(lua_State *L) { (void)l_preload(L); }
