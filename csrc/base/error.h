/* error.h - error objects (S22): tables with `code`, `message`, `op` and where it applies `path`,
** `address` or `reason`. Base floor: Lua, uv status codes and errno only. */
#ifndef AT_BASE_ERROR_H
#define AT_BASE_ERROR_H

#include <lua.h>

#pragma GCC visibility push(hidden)

#define AT_ERROR_MT "asynctask.error"

/* [-0, +1, m] pushes an error object with this code ("ECANCELED"), message and op (NULL: none). */
void at_error_push(lua_State *L, const char *code, const char *message, const char *op);

/* [-0, +1, m] pushes an error object for a negative libuv status. `path` may be NULL. */
void at_error_push_uv(lua_State *L, int status, const char *op, const char *path);

/* [-0, +0, m] sets a string field of the error object at the top; a NULL value sets nothing. */
void at_error_set(lua_State *L, const char *field, const char *value);

/* [-0, +0, -] true if the value at `index` is an error object. */
int at_error_is(lua_State *L, int index);

/* [-0, +0, -] true if the value at `index` is an error object with this code. Runs no metamethod. */
int at_error_has_code(lua_State *L, int index, const char *code);

/* [-0, +0, m] creates the metatable; idempotent. */
void at_error_open(lua_State *L);

/* error{...} -> error object */
int l_error_new(lua_State *L);

#pragma GCC visibility pop

#endif
