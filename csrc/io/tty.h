/* tty.h - the terminal and the standard descriptors. */
#ifndef AT_IO_TTY_H
#define AT_IO_TTY_H

#include "core/runtime.h"

#define AT_TTY_RAW_MT "asynctask.tty.Raw"

/* ttymode.c */
int l_tty_raw(lua_State *L);
int l_tty_size(lua_State *L);
int l_tty_resize(lua_State *L);
/* [-0, +0, m] makes the class of the guards. */
void at_ttymode_open(lua_State *L, at_runtime *rt);

/* [-0, +0, m] fills core.tty at the top; needs the classes of streams and files. */
void at_tty_open(lua_State *L, at_runtime *rt);

#endif
