/* api.h - what the files of the C API share. */
#ifndef AT_HOST_API_H
#define AT_HOST_API_H

#include "asynctask.h"
#include "core/runtime.h"

#pragma GCC visibility push(hidden)

/* [-0, +0, v] the state's runtime; raises if it has none, or had one. */
at_runtime *at_api_runtime(lua_State *L);

/* [-0, +0, -] the state's runtime if it works, or NULL. */
at_runtime *at_api_find(lua_State *L);

/* [-0, +0, v] copies as much of the caller's structure as it and we know; the rest is zero. `from` NULL:
** all of it. Both begin with their size. */
void at_api_options(lua_State *L, void *to, size_t size, const void *from);

/* [-0, +1, m] calls f(ctx, value at `index`, or nil if 0) protected and pushes its result. If it raises,
** `released` (or NULL) is called with `data` before the error goes on: what C code hands over is taken in
** any case. */
void at_api_take(lua_State *L, lua_CFunction f, void *ctx, int index, void (*released)(void *data),
                 void *data);

/* [any thread] The shared object that a function of the caller's is in stays loaded for as long as the process
** lives: threads may run it after its state has let it go. */
void at_api_pin(const void *function);

/* The words of the code of a libuv status ("ENOENT"); NULL: it is none. Static. */
const char *at_api_words(const char *code);

/* [-0, +0, m] puts the function table into the registry, and what the functions need beside it. */
void at_api_open(lua_State *L);

/* tasks.c: [-0, +0, m] */
void at_tasks_open(lua_State *L);

#pragma GCC visibility pop

#endif
