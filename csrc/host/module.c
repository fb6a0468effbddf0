/* module.c - luaopen_asynctask_core: the table that the Lua face is built on. Registration only.
** Any thread, each on a state of its own. */
#include "asynctask.h"
#include "core/await.h"
#include "core/cancel.h"
#include "core/combine.h"
#include "core/coroutine.h"
#include "core/dump.h"
#include "core/fault.h"
#include "core/methods.h"
#include "core/runtime.h"
#include "core/sched.h"
#include "core/source.h"
#include "core/timer.h"
#include "base/error.h"

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
  at_coroutine_push(L, rt);
  lua_setfield(L, -2, "coroutine");
  lua_pushcfunction(L, l_error_new);
  lua_setfield(L, -2, "error");
  return 1;
}
