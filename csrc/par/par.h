/* par.h - the parallel half's face to the host floor. */
#ifndef AT_PAR_PAR_H
#define AT_PAR_PAR_H

#include "core/runtime.h"

/* [-0, +0, m] adds run and thread to the table at the top. Workers open the module with `opener`, the function
** that the host floor exports to Lua. */
void at_par_open(lua_State *L, at_runtime *rt, lua_CFunction opener);

#endif
