/* luv.c - attaching to luv's loop: what asynctask.luv (Lua) calls before anything else of asynctask
** is loaded. Owns nothing. Calls the public API, and luv's luv_loop, which it looks up in the
** library that `require "luv"` has loaded. Loop thread only.
** Invariants: no loop is taken that another copy of libuv made (its structures may differ). */
#include <dlfcn.h>
#include <string.h>
#include <uv.h>

#include "asynctask.h"

ASYNCTASK_API int luaopen_asynctask_luv(lua_State *L);

/* [-0, +2, m] */
static int refuse(lua_State *L, const char *message) {
  lua_pushnil(L);
  lua_pushstring(L, message);
  return 2;
}

/* luv_loop of a shared object that is loaded already, or NULL; *same: its libuv is ours. */
static void *find(const char *path, int *same) {
  void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD), *f;
  if (library == NULL) return NULL;
  f = dlsym(library, "luv_loop");
  *same = dlsym(library, "uv_run") == (void *)uv_run;
  (void)dlclose(library); /* require has it loaded, for as long as the state lives */
  return f;
}

/* attach(path of luv's shared object) -> true, or nil and why not */
static int l_attach(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  asynctask_options options;
  uv_loop_t *(*loop_of)(lua_State *);
  int same = 0, status;
  void *f = find(path, &same);
  if (f == NULL)
    return refuse(L, "luv does not give its loop away: it is too old, or not the luv of this file");
  if (!same)
    return refuse(L, "luv has a libuv of its own in it: build it with the system's "
                     "(WITH_SHARED_LIBUV)");
  memcpy(&loop_of, &f, sizeof f); /* ISO C has no cast for it */
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.loop = loop_of(L);
  options.host_driven = 1;
  if (options.loop == NULL) return refuse(L, "luv has no loop in this state");
  status = asynctask_open(L, &options);
  if (status == UV_EBUSY)
    return refuse(L, "asynctask runs on a loop of its own already: require 'asynctask.luv' before "
                     "anything else of it");
  if (status < 0) return refuse(L, asynctask_strerror(status));
  lua_pushboolean(L, 1);
  return 1;
}

/* The value is the function `attach`. */
int luaopen_asynctask_luv(lua_State *L) {
  lua_pushcfunction(L, l_attach);
  return 1;
}
