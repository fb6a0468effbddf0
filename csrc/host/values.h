/* values.h - what an asynctask_writer holds: a list of values, made without Lua on any thread and made
** into Lua values once, on the thread of the state that gets them. */
#ifndef AT_HOST_VALUES_H
#define AT_HOST_VALUES_H

#include "asynctask.h"

#pragma GCC visibility push(hidden)

/* Ends the writing. 0, UV_ENOMEM, or UV_EINVAL: it was used wrongly. NULL is an empty list. */
int at_values_finish(asynctask_writer *w);

/* What was wrong, for UV_EINVAL. Static. */
const char *at_values_words(const asynctask_writer *w);

/* [-0, +n, m] pushes the values of a finished writer and returns their number. */
int at_values_push(lua_State *L, const asynctask_writer *w);

/* [-0, +1, m] pushes the error object of a writer whose status is `status`. */
void at_values_push_error(lua_State *L, const asynctask_writer *w, int status, const char *op);

#pragma GCC visibility pop

#endif
