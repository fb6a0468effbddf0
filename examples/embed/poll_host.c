/* poll_host.c - a host with a poll loop of its own: it reads lines from standard input, and a script
** answers each of them through a socket. The host sleeps in poll only; asynctask_fd says that there is
** something to do for the scripts, asynctask_timeout how long there is not. */
#include <asynctask.h>
#include <errno.h>
#include <lualib.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The chunk itself must not wait: the host drives the loop. It starts tasks and defines functions. */
static const char script[] =
    "local task, net = require 'asynctask', require 'asynctask.net'\n"
    "local await = task.await\n"
    "local listening = task.spawn(function()\n"
    "  local server = await(net.listen('127.0.0.1', 0))\n"
    "  server:serve(function(stream)\n"
    "    for line in stream:lines() do await(stream:write(line:upper(), '\\n')) end\n"
    "  end)\n"
    "  return server\n"
    "end)\n"
    "function ask(line)\n"
    "  local server = await(listening)\n"
    "  local stream <close> = await(net.connect('127.0.0.1', server:sockname().port))\n"
    "  await(stream:write(line, '\\n'))\n"
    "  print('answer: ' .. await(stream:read()))\n"
    "end\n";

typedef struct host {
  lua_State *L;
  int asking; /* tasks that have not settled */
  int ended;  /* standard input has */
  char line[256];
  size_t length;
} host;

static void answered(lua_State *L, asynctask_state state, int n, void *data) {
  host *h = data;
  (void)n;
  h->asking--;
  if (L != NULL && state != ASYNCTASK_SUCCEEDED) printf("failed: %s\n", luaL_tolstring(L, -1, NULL));
}

static void ask(host *h) {
  lua_getglobal(h->L, "ask");
  lua_pushlstring(h->L, h->line, h->length);
  asynctask_spawn(h->L, 1); /* stack: task */
  h->asking++;
  asynctask_on_settled(h->L, -1, answered, h);
  lua_pop(h->L, 1);
  h->length = 0;
}

/* Called when standard input is readable. Lines longer than the buffer are cut. */
static void take_input(host *h) {
  char bytes[256];
  ssize_t i, n = read(STDIN_FILENO, bytes, sizeof bytes);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) h->ended = 1;
  for (i = 0; i < n; i++) {
    if (bytes[i] == '\n')
      ask(h);
    else if (h->length < sizeof h->line)
      h->line[h->length++] = bytes[i];
  }
}

/* What poll takes: milliseconds, rounded up, or -1. A timer may be due in a year. */
static int milliseconds(double seconds) {
  if (seconds < 0) return -1;
  return seconds > 3600 ? 3600 * 1000 : (int)ceil(seconds * 1000);
}

int main(void) {
  asynctask_options options = {.size = sizeof options, .host_driven = 1};
  int status;
  host h = {.L = luaL_newstate()};
  if (h.L == NULL) return 1;
  luaL_openlibs(h.L);
  asynctask_preload(h.L);
  status = asynctask_open(h.L, &options);
  if (status == 0 && luaL_dostring(h.L, script) != LUA_OK) {
    printf("%s\n", lua_tostring(h.L, -1));
    return 1;
  }
  while (status >= 0 && (!h.ended || h.asking > 0)) {
    struct pollfd fds[2] = {
        {.fd = asynctask_fd(h.L), .events = POLLIN},
        {.fd = h.ended ? -1 : STDIN_FILENO, .events = POLLIN}, /* poll passes over -1 */
    };
    if (poll(fds, 2, milliseconds(asynctask_timeout(h.L))) < 0 && errno != EINTR) break;
    if (fds[1].revents != 0) take_input(&h);
    status = asynctask_step(h.L, 0.005);
  }
  if (status < 0) printf("asynctask: %s\n", asynctask_strerror(status));
  status = asynctask_close(h.L, 1.0); /* the server has a second to end */
  printf("closed: %s\n", asynctask_strerror(status));
  lua_close(h.L);
  return status != 0;
}
