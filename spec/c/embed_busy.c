/* embed_busy.c - a C module whose job outlives the state that loaded it: the case "unload" of embed_hostile.c.
** An ordinary module: nothing keeps its shared object loaded but asynctask. */
#include <asynctask.h>
#include <stdlib.h>
#include <time.h>

int luaopen_busy(lua_State *L);

static void run(asynctask_job *job, void *data) {
  const struct timespec moment = {.tv_nsec = 1000000};
  int i;
  (void)data;
  (void)job;
  for (i = 0; i < 30; i++) nanosleep(&moment, NULL); /* does not look: the state closes meanwhile */
}

static int l_start(lua_State *L) {
  const asynctask_api *at = asynctask_import(L);
  asynctask_job_options options = {.size = sizeof options, .run = run, .released = free, .data = malloc(1)};
  options.blocking = lua_toboolean(L, 1);
  at->job_submit(L, &options);
  return 1;
}

int luaopen_busy(lua_State *L) {
  lua_pushcfunction(L, l_start);
  return 1;
}
