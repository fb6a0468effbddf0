/* arg.h - argument checks that the auxiliary library lacks. Each raises as Lua's own library does:
** `bad argument #1 to 'open' (string expected, got nil)`, and names the field for options. */
#ifndef AT_BASE_ARG_H
#define AT_BASE_ARG_H

#include <lua.h>
#include <stddef.h>

#pragma GCC visibility push(hidden)

/* [-0, +0, v] a string without embedded zero bytes, not empty. Numbers are not accepted. */
const char *at_arg_path(lua_State *L, int arg);

/* [-0, +0, v] anything that can be called: a function, or a value with __call. */
void at_arg_callable(lua_State *L, int arg);

/* [-0, +0, v] a duration in seconds as nanoseconds, rounded up: not NaN, not negative;
** infinity and more than 292 years give INT64_MAX. */
long long at_arg_seconds(lua_State *L, int arg);

/* [-0, +0, v] raises as luaL_argerror does, but names the function without its module where it was
** called by pcall: `bad argument #1 to 'read_file' (path is empty)`. Never returns. */
int at_arg_error(lua_State *L, int arg, const char *message);

/* [-0, +0, v] raises `bad argument #arg (what expected, got type)`. Never returns. */
int at_arg_type_error(lua_State *L, int arg, const char *what);

/* [-0, +0, v] checks that `arg` is nil or a table of options whose keys are all in `known`
** (NULL-terminated); an unknown key is an error that names it. Returns 1 if there is a table. */
int at_arg_options(lua_State *L, int arg, const char *const known[]);

/* [-0, +0, v] an integer field of the options table `arg` (or none) within [min, max]. */
lua_Integer at_arg_field_integer(lua_State *L, int arg, const char *field, lua_Integer fallback,
                                 lua_Integer min, lua_Integer max);

/* [-0, +1, v] a path (as at_arg_path) in a field of the options table `arg`; pushes it, or nil.
** NULL: there is none. */
const char *at_arg_field_path(lua_State *L, int arg, const char *field);

/* [-0, +0, v] a boolean field of the options table `arg` (or none). */
int at_arg_field_boolean(lua_State *L, int arg, const char *field, int fallback);

#pragma GCC visibility pop

#endif
