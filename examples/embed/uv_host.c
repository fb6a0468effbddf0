/* uv_host.c - a host that has a libuv loop already: tasks run inside its uv_run, beside its own handles. */
#include <asynctask.h>
#include <lualib.h>
#include <stdio.h>
#include <uv.h>

static const char script[] =
    "local task, net = require 'asynctask', require 'asynctask.net'\n"
    "local await = task.await\n"
    "local server = await(net.listen('127.0.0.1', 0))\n"
    "local serving = server:serve(function(stream) await(stream:write('hello from the script\\n')) end)\n"
    "local stream <close> = await(net.connect('127.0.0.1', server:sockname().port))\n"
    "print(await(stream:read()))\n"
    "await(task.delay(0.1))\n"
    "await(server:close())\n"
    "await(serving)\n";

typedef struct host {
  uv_loop_t loop;
  uv_timer_t timer; /* something of the host's own */
  int ticks;
} host;

static void tick(uv_timer_t *timer) {
  host *h = timer->data;
  h->ticks++;
}

/* Called once the script has ended. The timer is all that keeps the loop alive then. */
static void ended(lua_State *L, asynctask_state state, int n, void *data) {
  host *h = data;
  (void)n;
  if (L != NULL && state != ASYNCTASK_SUCCEEDED) printf("failed: %s\n", luaL_tolstring(L, -1, NULL));
  uv_close((uv_handle_t *)&h->timer, NULL);
}

int main(void) {
  static host h;
  asynctask_options options = {.size = sizeof options, .loop = &h.loop, .host_driven = 1};
  int status;
  lua_State *L = luaL_newstate();
  if (L == NULL || uv_loop_init(&h.loop) != 0) return 1;
  uv_timer_init(&h.loop, &h.timer);
  h.timer.data = &h;
  uv_timer_start(&h.timer, tick, 10, 10);

  luaL_openlibs(L);
  asynctask_preload(L);
  status = asynctask_open(L, &options); /* the loop is borrowed: it has to outlive the state */
  if (status != 0 || luaL_loadstring(L, script) != LUA_OK) {
    printf("cannot start: %s\n", asynctask_strerror(status));
    return 1;
  }
  asynctask_spawn(L, 0);
  asynctask_on_settled(L, -1, ended, &h);
  lua_pop(L, 1);
  uv_run(&h.loop, UV_RUN_DEFAULT); /* asynctask_step is for loops that are not the host's */

  lua_close(L);
  uv_run(&h.loop, UV_RUN_NOWAIT); /* libuv gives the runtime's handles back */
  status = uv_loop_close(&h.loop);
  printf("%d ticks, loop closed: %s\n", h.ticks, status == 0 ? "yes" : uv_strerror(status));
  return status != 0;
}
