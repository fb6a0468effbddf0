/* threads.c - eight threads with a state each, and one more state on the main thread that collects what they
** find. The states do not know of each other; results travel as posts. */
#include <asynctask.h>
#include <lualib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS 8

/* On each thread: the chunk waits by itself, so the state needs no loop around it. */
static const char script[] =
    "local task, net = require 'asynctask', require 'asynctask.net'\n"
    "local await, number = task.await, ...\n"
    "local server = await(net.listen('127.0.0.1', 0))\n"
    "local serving = server:serve(function(stream)\n"
    "  await(stream:write(await(stream:read('n')) ^ 2 // 1 | 0, '\\n'))\n"
    "end)\n"
    "local stream <close> = await(net.connect('127.0.0.1', server:sockname().port))\n"
    "await(stream:write(number, '\\n'))\n"
    "local square = await(stream:read('n'))\n"
    "await(server:close())\n"
    "await(serving)\n"
    "return square\n";

typedef struct worker {
  pthread_t thread;
  asynctask_remote *home; /* the main thread's runtime, as other threads hold it */
  int number;
  lua_Integer result; /* written before the post, read after it */
} worker;

static lua_Integer total; /* main thread */

/* On the main thread, while it runs its loop. L == NULL: its state was closed first. */
static void arrive(lua_State *L, void *data) {
  worker *w = data;
  if (L == NULL) return;
  total += w->result;
  asynctask_hold(L, 0); /* one answer less to wait for */
}

static void *work(void *data) {
  worker *w = data;
  lua_State *L = luaL_newstate();
  w->result = -1000000; /* shows in the total that something went wrong */
  if (L != NULL) {
    luaL_openlibs(L);
    asynctask_preload(L);
    lua_settop(L, 0);
    if (luaL_loadstring(L, script) != LUA_OK || (lua_pushinteger(L, w->number), lua_pcall(L, 1, 1, 0)) != LUA_OK)
      fprintf(stderr, "thread %d: %s\n", w->number, luaL_tolstring(L, -1, NULL));
    else
      w->result = lua_tointeger(L, -1);
    lua_close(L);
  }
  asynctask_post(w->home, arrive, w);
  asynctask_remote_release(w->home);
  return NULL;
}

int main(void) {
  static worker workers[THREADS];
  int i, status;
  lua_State *L = luaL_newstate();
  if (L == NULL) return 1;
  luaL_openlibs(L);
  asynctask_preload(L);
  if (asynctask_open(L, NULL) != 0) return 1;
  for (i = 0; i < THREADS; i++) {
    workers[i].number = i + 1;
    workers[i].home = asynctask_remote_new(L); /* counted: the thread releases it */
    asynctask_hold(L, 1);                      /* the loop is alive until the answer has come */
    if (workers[i].home == NULL || pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) abort();
  }
  status = asynctask_run(L, -1); /* sleeps until the last hold is given back */
  for (i = 0; i < THREADS; i++) pthread_join(workers[i].thread, NULL);
  printf("the sum of the squares is %d\n", (int)total);
  lua_close(L);
  return status != 0;
}
