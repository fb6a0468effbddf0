/* loop_owner.c - a host that owns the loop: a game whose every frame gives its scripts two milliseconds. */
#include <asynctask.h>
#include <lualib.h>
#include <stdio.h>
#include <time.h>

static const char script[] =
    "local task = require 'asynctask'\n"
    "local function guard(name, seconds)\n"
    "  for round = 1, 3 do\n"
    "    task.await(task.delay(seconds))\n"
    "    print(name .. ' gate, round ' .. round)\n"
    "  end\n"
    "  return 3\n"
    "end\n"
    "return task.await(task.when_all(task.spawn(guard, 'north', 0.05), task.spawn(guard, 'south', 0.08)))\n";

/* Called once the script has ended, in a step; with L == NULL when the state was closed before that. */
static void ended(lua_State *L, asynctask_state state, int n, void *running) {
  if (L == NULL) return;
  if (state == ASYNCTASK_SUCCEEDED)
    printf("the script returned %d values, the last one is %d\n", n, (int)lua_tointeger(L, -1));
  else
    printf("the script failed: %s\n", luaL_tolstring(L, -1, NULL));
  *(int *)running = 0;
}

int main(void) {
  const struct timespec rest = {.tv_nsec = 1000000000 / 60};
  asynctask_options options = {.size = sizeof options, .host_driven = 1};
  int running = 1, frames = 0, status = 0;
  lua_State *L = luaL_newstate();
  if (L == NULL) return 1;
  luaL_openlibs(L);
  asynctask_preload(L); /* require "asynctask" needs no file from now on */
  status = asynctask_open(L, &options);

  if (status == 0 && luaL_loadstring(L, script) == LUA_OK) {
    asynctask_spawn(L, 0); /* runs until its first wait; pushes its Task */
    asynctask_on_settled(L, -1, ended, &running);
    lua_pop(L, 1);
    while (running && status >= 0) {
      status = asynctask_step(L, 0.002); /* 1: more is ready; it can wait for the next frame */
      frames++;                          /* ... draw ... */
      nanosleep(&rest, NULL);
    }
  }
  if (status < 0) printf("asynctask: %s\n", asynctask_strerror(status));
  printf("%d frames\n", frames);
  asynctask_close(L, 0.1); /* optional: lua_close ends what still runs, too, without running it */
  lua_close(L);
  return running || status < 0;
}
