/* asynctask.h - the public C API of asynctask: tasks for Lua 5.4 on libuv.
**
** For hosts that link the library (libasynctask.a, pkg-config: asynctask) and put the module into
** their states themselves:
**
**     luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
**     lua_pushcfunction(L, luaopen_asynctask_core);
**     lua_setfield(L, -2, "asynctask.core");
**     lua_pop(L, 1);
**
** after which require "asynctask" works as soon as package.path leads to the Lua files. A host that
** leaves loading to require needs nothing from this header. Safe to include from C++. */
#ifndef ASYNCTASK_H
#define ASYNCTASK_H

#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Semantic versioning: what is declared here keeps its meaning within one major version; while that
** is 0, within one minor version. */
#define ASYNCTASK_VERSION_MAJOR 0
#define ASYNCTASK_VERSION_MINOR 1
#define ASYNCTASK_VERSION_PATCH 0
#define ASYNCTASK_VERSION "0.1.0"
#define ASYNCTASK_VERSION_NUM                                                                      \
  (ASYNCTASK_VERSION_MAJOR * 10000 + ASYNCTASK_VERSION_MINOR * 100 + ASYNCTASK_VERSION_PATCH)

#if defined(__GNUC__)
#define ASYNCTASK_API __attribute__((visibility("default"))) extern
#else
#define ASYNCTASK_API extern
#endif

/* [-0, +1, e] the open function of the module "asynctask.core". Attaches a runtime to the state the
** first time; starts no thread, changes no signal handler. The runtime belongs to the state and ends
** with lua_close. Call it on the thread that runs the state. */
ASYNCTASK_API int luaopen_asynctask_core(lua_State *L);

#ifdef __cplusplus
}
#endif

#endif
