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
#include "io/dns.h"
#include "io/file.h"
#include "io/fs.h"
#include "io/process.h"
#include "io/server.h"
#include "io/signal.h"
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

int luaopen_asynctask_core(lua_State *L) {
  at_runtime *rt = at_runtime_open(L);
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
  at_tcp_open(L, rt);
  at_server_open(L, rt);
  at_listen_open(L, rt);
  at_udp_open(L, rt);
  at_deposit_open(L, rt);
  at_dns_open(L, rt);
  lua_setfield(L, -2, "net");

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
  at_par_open(L, rt, luaopen_asynctask_core);
  at_carry_open(L, rt);
  at_sharedcancel_open(L, rt);
  lua_setfield(L, -2, "par");
  return 1;
}
