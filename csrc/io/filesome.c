/* filesome.c - what streams read and io's files do not: file:read_some and file:read_until, so that
** code which takes a stream takes a File, too. Loop thread; the reading itself is filework.c's. */
#include <stdint.h>
#include <string.h>

#include "base/arg.h"
#include "core/task.h"
#include "io/file.h"

#define READ_SOME_MAX (64 * 1024)
#define UNTIL_MAX (16 * 1024 * 1024)

/* [-0, +1, m] pushes the Task of a read of one item, whose delimiter is copied. */
static int start_read(lua_State *L, at_runtime *rt, at_file *f, at_plan *plan) {
  size_t behind = (plan->delimiter_size + sizeof(at_item) - 1) / sizeof(at_item);
  at_fileop *o;
  if (at_op_refused(rt) || f->closing || !f->readable) {
    plan->count = 0; /* it says what is wrong, in its words */
    at_file_start_read(L, rt, 1, plan);
    return 1;
  }
  o = at_file_new_op(L, rt, 1, AT_FILE_READ, 1 + (int)behind);
  if (o == NULL) return 1;
  o->items[0] = plan->items[0];
  o->plan = *plan;
  o->plan.items = o->items;
  if (plan->delimiter_size > 0) {
    memcpy(o->items + 1, plan->delimiter, plan->delimiter_size);
    o->plan.delimiter = (const char *)(o->items + 1);
  }
  at_file_enqueue(rt, f, o);
  return 1;
}

/* file:read_some([max]) -> what is there, at least a byte; nil at the end */
static int l_file_read_some(lua_State *L) {
  at_file *f = at_file_check(L, 1);
  lua_Integer max = luaL_optinteger(L, 2, READ_SOME_MAX);
  at_item item;
  at_plan plan;
  luaL_argcheck(L, max > 0, 2, "positive number of bytes expected");
  at_format_single(&plan, &item, AT_FORMAT_SOME, (size_t)max);
  return start_read(L, at_rt(L), f, &plan);
}

/* file:read_until(delimiter, {max=, keep=}) -> what stands before it */
static int l_file_read_until(lua_State *L) {
  static const char *const options[] = {"max", "keep", NULL};
  at_file *f = at_file_check(L, 1);
  at_item item;
  at_plan plan;
  size_t size;
  const char *delimiter;
  luaL_checktype(L, 2, LUA_TSTRING);
  delimiter = lua_tolstring(L, 2, &size);
  luaL_argcheck(L, size > 0, 2, "delimiter is empty");
  luaL_argcheck(L, size < 64 * 1024, 2, "delimiter is too long");
  at_arg_options(L, 3, options);
  at_format_single(&plan, &item, at_arg_field_boolean(L, 3, "keep", 0) ? AT_FORMAT_UNTIL_KEEP
                                                                        : AT_FORMAT_UNTIL, 0);
  plan.max = (size_t)at_arg_field_integer(L, 3, "max", UNTIL_MAX, 1, INT64_MAX);
  plan.delimiter = delimiter;
  plan.delimiter_size = size;
  return start_read(L, at_rt(L), f, &plan);
}

/* [-0, +0, m] adds to the methods of files */
void at_filesome_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg methods[] = {
      {"read_some", l_file_read_some}, {"read_until", l_file_read_until}, {NULL, NULL}};
  luaL_getmetatable(L, AT_FILE_MT);
  lua_getfield(L, -1, "__index");
  at_runtime_setfuncs(L, rt, methods);
  lua_pop(L, 2);
}
