/* module.c - luaopen_asynctask_core: the table that the Lua face is built on. Registration only.
** Any thread, each on a state of its own. */
#include "asynctask.h"
#include "core/await.h"
#include "core/cancel.h"
#include "core/cancellation.h"
#include "core/channel.h"
#include "core/combine.h"
#include "core/coroutine.h"
#include "core/dump.h"
#include "core/fault.h"
#include "core/group.h"
#include "core/locals.h"
#include "core/methods.h"
#include "core/runtime.h"
#include "core/sched.h"
#include "core/source.h"
#include "core/timer.h"
#include "core/waitqueue.h"
#include "base/error.h"
#include "host/api.h"
#include "host/module.h"
#include "io/dns.h"
#include "io/feed.h"
#include "io/file.h"
#include "io/fs.h"
#include "io/process.h"
#include "io/server.h"
#include "io/signal.h"
#include "io/socket.h"
#include "io/stream.h"
#include "io/tcp.h"
#include "io/tty.h"
#include "io/udp.h"
#include "io/watch.h"
#include "par/array.h"
#include "par/codec.h"
#include "par/par.h"
#include "par/sharedcancel.h"
#include "par/sharedchannel.h"

static int open_core(lua_State *L);

static const char opener_key[] = "asynctask.opener"; /* in the registry: whose state it is */

/* [-0, +1, m] pushes the opener of the copy of the library that the state belongs to, or nil. True if that
** is another copy. */
static int push_other(lua_State *L) {
  luaL_checkstack(L, 4, "asynctask");
  (void)lua_getfield(L, LUA_REGISTRYINDEX, opener_key);
  return !lua_isnil(L, -1) && lua_tocfunction(L, -1) != open_core;
}

int at_module_is_other(lua_State *L) {
  int other = push_other(L);
  lua_pop(L, 1);
  return other;
}

void at_module_claim(lua_State *L) {
  if (push_other(L))
    luaL_error(L, "asynctask: another copy of the library is loaded in this state");
  lua_pushcfunction(L, open_core); /* not luaopen: a program may export that name, too */
  lua_setfield(L, LUA_REGISTRYINDEX, opener_key);
  lua_pop(L, 1);
}

/* A copy of the same version that the state belongs to gives what it has: a host has asynctask linked in, and
** Lua finds core.so. [-0, +1, e] */
static int open_other(lua_State *L) { /* stack: ... opener */
  const asynctask_api *api;
  lua_getfield(L, LUA_REGISTRYINDEX, ASYNCTASK_API_KEY);
  api = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (api == NULL || api->version != ASYNCTASK_VERSION_NUM || api->size != sizeof(asynctask_api))
    return luaL_error(L, "asynctask: another version of the library is loaded in this state");
  lua_call(L, 0, 1);
  return 1;
}

static int open_core(lua_State *L) {
  at_runtime *rt;
  if (push_other(L)) return open_other(L);
  lua_pop(L, 1);
  at_module_claim(L);
  rt = at_runtime_open(L);
  at_api_open(L);
  lua_newtable(L);
  at_await_functions(L, rt);
  at_sched_functions(L, rt);
  at_timer_functions(L, rt);
  at_cancel_functions(L, rt);
  at_source_functions(L, rt);
  at_combine_functions(L, rt);
  at_fault_functions(L, rt);
  at_dump_functions(L, rt);
  at_methods_functions(L, rt);
  at_group_functions(L, rt);
  at_cancellation_functions(L, rt);
  at_locals_functions(L, rt);
  at_coroutine_push(L, rt);
  lua_setfield(L, -2, "coroutine");
  lua_pushcfunction(L, l_error_new);
  lua_setfield(L, -2, "error");

  at_waitqueue_functions(L, rt);
  lua_newtable(L);
  at_channel_functions(L, rt);
  lua_setfield(L, -2, "channel");

  lua_newtable(L);
  at_fs_open(L, rt);
  at_fswhole_open(L, rt);
  at_fsdir_open(L, rt);
  at_file_open(L, rt);
  at_filelines_open(L, rt);
  at_filesome_open(L, rt);
  at_watch_open(L, rt);
  lua_setfield(L, -2, "fs");

  lua_newtable(L);
  at_stream_open(L, rt);
  at_feed_open(L, rt);
  at_tcp_open(L, rt);
  at_server_open(L, rt);
  at_listen_open(L, rt);
  at_udp_open(L, rt);
  at_deposit_open(L, rt);
  at_dns_open(L, rt);
  lua_setfield(L, -2, "net");

  lua_newtable(L);
  at_socket_open(L, rt);
  lua_setfield(L, -2, "socket");

  lua_newtable(L);
  at_signal_open(L, rt);
  lua_setfield(L, -2, "signal");

  lua_newtable(L);
  at_process_open(L, rt);
  lua_setfield(L, -2, "process");

  lua_newtable(L);
  at_tty_open(L, rt);
  lua_setfield(L, -2, "tty");

  lua_newtable(L);
  at_array_open(L, rt);
  lua_setfield(L, -2, "array");

  lua_newtable(L);
  at_sharedchannel_open(L, rt);
  lua_setfield(L, -2, "sharedchannel");

  lua_newtable(L);
  at_hosting_functions(L, rt);
  lua_setfield(L, -2, "loop");

  lua_newtable(L);
  at_par_open(L, rt, open_core);
  at_carry_open(L, rt);
  at_sharedcancel_open(L, rt);
  lua_setfield(L, -2, "par");
  return 1;
}

int luaopen_asynctask_core(lua_State *L) { return open_core(L); }
