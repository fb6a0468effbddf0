/* nomemory.c - a program with the library in it that runs a Lua file given as its argument. Its function
** `most(n)` has every allocation of Lua's fail that is larger than n bytes; 0: none. Built and run by
** spec/regress/cancel_settles_spec.lua. */
#include <asynctask.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

static size_t most;

static void *allocate(void *ud, void *p, size_t old, size_t size) {
  (void)ud;
  if (size == 0) {
    free(p);
    return NULL;
  }
  if (most > 0 && size > most && (p == NULL || size > old)) return NULL;
  return realloc(p, size);
}

static int l_most(lua_State *L) {
  most = (size_t)luaL_checkinteger(L, 1);
  return 0;
}

int main(int argc, char **argv) {
  lua_State *L = lua_newstate(allocate, NULL);
  int failed;
  if (L == NULL || argc < 2) return 2;
  luaL_openlibs(L);
  luaL_requiref(L, "asynctask.core", luaopen_asynctask_core, 0);
  lua_settop(L, 0);
  lua_register(L, "most", l_most);
  failed = luaL_dofile(L, argv[1]) != LUA_OK;
  if (failed) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  return failed;
}
