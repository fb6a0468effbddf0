/* request.h - the Lua classes and functions of the module, for module.c. */
#ifndef HTTP1_REQUEST_H
#define HTTP1_REQUEST_H

#include "asynctask.h"

#pragma GCC visibility push(hidden)

/* [-0, +0, m] Each adds its functions to the table at the top. */
void http1_request_open(lua_State *L);  /* request.c: parser, head, body, trailers */
void http1_fields_open(lua_State *L);   /* fields.c: fields, decode, query */
void http1_response_open(lua_State *L); /* response.c: response, interim */

/* [-0, +1, m] fields.c: the table of checked field lines: name, value, name, value ...; and values by name. */
void http1_fields_push(lua_State *L, const char *bytes, size_t size);

/* [-0, +1, m] fields.c: pushes the bytes without their percent escapes. 0: an escape is broken (nothing pushed). */
int http1_fields_decode(lua_State *L, const char *bytes, size_t size, int plus);

#pragma GCC visibility pop

#endif
