/* host.c - the smallest C host: links libasynctask.a, preloads asynctask into a state of its own, runs a script
** that awaits, on another thread too, and closes the state. Needs no file and no dynamic loader. Built and run
** by spec/host/rockspec_spec.lua and install_spec.lua. Exit code 0 when the script ended well. */
#include <asynctask.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

static const char script[] =
    "local task = require 'asynctask'\n"
    "local await = task.await\n"
    "await(task.delay(0.001))\n"
    "print(\"the host's script waited\")\n"
    "for _, name in ipairs {'fs', 'net', 'process', 'channel', 'sync', 'parallel', 'loop'} do\n"
    "  require('asynctask.' .. name)\n"
    "end\n"
    "local sum = await(task.run(function(n)\n"
    "  local inner, sync = require 'asynctask', require 'asynctask.sync'\n"
    "  inner.await(inner.delay(0.001))\n"
    "  return n + 1\n"
    "end, 41))\n"
    "assert(sum == 42)\n";

int main(void)
{
  lua_State *L = luaL_newstate();
  int failed;
  if (L == NULL) return 2;
  luaL_openlibs(L);
  asynctask_preload(L);
  failed = luaL_dostring(L, script);
  if (failed) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  return failed;
}
