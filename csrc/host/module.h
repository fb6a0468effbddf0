/* module.h - what luaopen and the C API share about the state that they open. */
#ifndef AT_HOST_MODULE_H
#define AT_HOST_MODULE_H

#include "core/runtime.h"

#pragma GCC visibility push(hidden)

/* [-0, +0, v] this copy of the library is the state's; raises if another one is. */
void at_module_claim(lua_State *L);

/* [-0, +0, m] true if another copy is. */
int at_module_is_other(lua_State *L);

/* runtime.c: [-0, +0, m] adds the functions of asynctask.loop to the table at the top. */
void at_hosting_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
