/* host.c - the smallest C host: links libasynctask.a, preloads the module into a state of its own,
** runs a script that awaits, and closes the state. Built and run by spec/host/rockspec_spec.lua.
** Exit code 0 when the script ended well. */
#include <asynctask.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

static const char script[] = "local task = require 'asynctask'\n"
                             "task.await(task.delay(0.001))\n"
                             "print(\"the host's script waited\")\n";

int main(void)
{
  lua_State *L = luaL_newstate();
  int failed;
  if (L == NULL) return 2;
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_asynctask_core);
  lua_setfield(L, -2, "asynctask.core");
  lua_pop(L, 1);
  failed = luaL_dostring(L, script);
  if (failed) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  return failed;
}
