/* array.c - asynctask.array: arrays of numbers that several states see without a copy. The userdata holds
** a reference to a block and shows a part of it; the block goes with its last holder, on any thread.
** Each userdata belongs to its state's thread; elements may be met by several (numbers.c). */
#include "par/array.h"

#include <string.h>
#include <uv.h>

#include "base/arg.h"
#include "par/codec.h"

#define TOLD_BYTES 4096 /* larger blocks count for the collector's pace */

static const char *const names[] = {"i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64", NULL};

at_array *at_array_check(lua_State *L, int arg) {
  at_span *s = at_span_test(L, arg);
  if (s == NULL || lua_rawlen(L, arg) != sizeof(at_array)) at_arg_type_error(L, arg, "array");
  return (at_array *)(void *)s;
}

static int check_type(lua_State *L, int arg) {
  const char *name = lua_type(L, arg) == LUA_TSTRING ? lua_tostring(L, arg) : NULL;
  int i;
  if (name == NULL) at_arg_type_error(L, arg, "type of elements, such as \"f64\",");
  for (i = 0; names[i] != NULL; i++)
    if (strcmp(names[i], name) == 0) return i;
  return at_arg_error(L, arg, lua_pushfstring(L, "no type of elements '%s'", name));
}

static lua_Integer check_integer(lua_State *L, int arg) {
  int is_integer;
  lua_Integer i = lua_tointegerx(L, arg, &is_integer);
  if (lua_type(L, arg) != LUA_TNUMBER) at_arg_type_error(L, arg, "integer");
  if (!is_integer) at_arg_error(L, arg, "number has no integer representation");
  return i;
}

/* [-0, +1, m] pushes an array without a block. */
static at_array *push_empty(lua_State *L, int type) {
  at_array *a = lua_newuserdatauv(L, sizeof *a, 0);
  memset(a, 0, sizeof *a);
  a->type = (unsigned char)type;
  luaL_setmetatable(L, AT_ARRAY_MT);
  return a;
}

at_array *at_array_new(lua_State *L, int type, size_t length) {
  size_t size = at_number_size(type);
  at_array *a = push_empty(L, type);
  at_block *b;
  if (length > (size_t)-1 / 16) luaL_error(L, "not enough memory");
  b = at_block_new(length * size);
  if (b == NULL) {
    lua_gc(L, LUA_GCCOLLECT);
    b = at_block_new(length * size);
  }
  if (b == NULL) luaL_error(L, "not enough memory");
  at_span_set(&a->span, b, 0, length * size);
  a->length = length;
  at_shared_release(&b->shared);
  if (length * size >= TOLD_BYTES) lua_gc(L, LUA_GCSTEP, (int)(length * size / 1024 & 0xfffff));
  return a;
}

static char *at(const at_array *a, size_t i) { return a->span.bytes + i * at_number_size(a->type); }

/* [-0, +0, v] the place of the element whose number is at `index`. */
static char *element(lua_State *L, const at_array *a, int index) {
  int is_integer;
  lua_Integer i = lua_tointegerx(L, index, &is_integer);
  if (!is_integer || lua_type(L, index) != LUA_TNUMBER)
    luaL_error(L, "an array has integer indices (got %s)", luaL_tolstring(L, index, NULL));
  if (i < 1 || (lua_Unsigned)i > a->length)
    luaL_error(L, "index %I is out of bounds (1 to %I)", (LUAI_UACINT)i, (LUAI_UACINT)a->length);
  return at(a, (size_t)i - 1);
}

/* ---- making ---- */

/* new(type, length [, value]) -> array of zeros, or of value */
static int l_new(lua_State *L) {
  int type = check_type(L, 1);
  lua_Integer n = check_integer(L, 2);
  uint64_t bits = 0;
  at_array *a;
  if (n < 0) at_arg_error(L, 2, "length must not be negative");
  if (!lua_isnoneornil(L, 3)) bits = at_number_bits(L, 3, type);
  a = at_array_new(L, type, (size_t)n);
  if (bits != 0) at_number_fill(a->span.bytes, a->length, type, bits);
  return 1;
}

/* [-0, +0, v] writes the numbers of the list at `list` into a, which has their length. */
static void set_list(lua_State *L, at_array *a, int list) {
  size_t i;
  for (i = 0; i < a->length; i++) {
    if (lua_geti(L, list, (lua_Integer)i + 1) != LUA_TNUMBER)
      luaL_error(L, "index %I of the list: number expected, got %s", (LUAI_UACINT)i + 1, luaL_typename(L, -1));
    if (i >= a->length) break; /* a metamethod has got at it */
    at_number_store(at(a, i), a->type, at_number_bits(L, -1, a->type));
    lua_pop(L, 1);
  }
}

/* from_list(type, list) -> array of its numbers */
static int l_from_list(lua_State *L) {
  int type = check_type(L, 1);
  if (!lua_istable(L, 2)) at_arg_type_error(L, 2, "list");
  set_list(L, at_array_new(L, type, (size_t)luaL_len(L, 2)), 2);
  return 1;
}

/* from_string(type, bytes) -> array of the elements that lie in the string */
static int l_from_string(lua_State *L) {
  int type = check_type(L, 1);
  size_t n, size = at_number_size(type);
  const char *s;
  at_array *a;
  if (lua_type(L, 2) != LUA_TSTRING) at_arg_type_error(L, 2, "string");
  s = lua_tolstring(L, 2, &n);
  if (n % size != 0)
    at_arg_error(L, 2, lua_pushfstring(L, "%I bytes are no whole number of %s", (LUAI_UACINT)n, names[type]));
  a = at_array_new(L, type, n / size);
  if (n > 0) memcpy(a->span.bytes, s, n);
  return 1;
}

/* ---- elements ---- */

/* array[i], or a method */
static int l_array_index(lua_State *L) {
  at_array *a = at_array_check(L, 1);
  if (lua_type(L, 2) == LUA_TNUMBER) {
    at_number_push(L, a->type, at_number_load(element(L, a, 2), a->type));
    return 1;
  }
  lua_settop(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  return 1;
}

/* array[i] = number */
static int l_array_newindex(lua_State *L) {
  at_array *a = at_array_check(L, 1);
  char *p = element(L, a, 2);
  at_number_store(p, a->type, at_number_bits(L, 3, a->type));
  return 0;
}

static void check_integers(lua_State *L, const at_array *a) {
  if (at_number_is_float(a->type)) at_arg_error(L, 1, "array of integers expected");
}

/* add(i, n) -> the new value; atomic, wraps around */
static int l_array_add(lua_State *L) {
  at_array *a = at_array_check(L, 1);
  char *p = element(L, a, 2);
  check_integers(L, a);
  at_number_push(L, a->type, at_number_add(p, a->type, (uint64_t)(lua_isnoneornil(L, 3) ? 1 : check_integer(L, 3))));
  return 1;
}

/* exchange(i, value) -> the old value; atomic */
static int l_array_exchange(lua_State *L) {
  at_array *a = at_array_check(L, 1);
  char *p = element(L, a, 2);
  check_integers(L, a);
  at_number_push(L, a->type, at_number_exchange(p, a->type, at_number_bits(L, 3, a->type)));
  return 1;
}

/* compare_exchange(i, expected, value) -> whether it was expected and is value now, what was found; atomic */
static int l_array_compare_exchange(lua_State *L) {
  at_array *a = at_array_check(L, 1);
  char *p = element(L, a, 2);
  uint64_t expected, bits;
  check_integers(L, a);
  expected = at_number_bits(L, 3, a->type);
  bits = at_number_bits(L, 4, a->type);
  lua_pushboolean(L, at_number_compare_exchange(p, a->type, &expected, bits));
  at_number_push(L, a->type, expected);
  return 2;
}

/* ---- many elements ---- */

static int l_array_len(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)at_array_check(L, 1)->length);
  return 1;
}

/* type() -> "f64" */
static int l_array_type(lua_State *L) {
  lua_pushstring(L, names[at_array_check(L, 1)->type]);
  return 1;
}

/* slice(first [, last]) -> the elements from first to last, seen through an array of their own */
static int l_array_slice(lua_State *L) {
  at_array *a = at_array_check(L, 1), *part;
  lua_Integer n = (lua_Integer)a->length, first = check_integer(L, 2);
  lua_Integer last = lua_isnoneornil(L, 3) ? n : check_integer(L, 3);
  if (first < 0) first += n + 1;
  if (last < 0) last += n + 1;
  if (first < 1 || first > n + 1 || last > n || last < first - 1)
    luaL_error(L, "slice %I to %I is out of bounds (1 to %I)", (LUAI_UACINT)first, (LUAI_UACINT)last, (LUAI_UACINT)n);
  part = push_empty(L, a->type);
  part->length = (size_t)(last - first + 1);
  if (a->span.block == NULL) return 1;
  at_span_set(&part->span, a->span.block, (size_t)(at(a, (size_t)first - 1) - a->span.block->bytes),
              part->length * at_number_size(a->type));
  return 1;
}

/* fill(value) -> the array */
static int l_array_fill(lua_State *L) {
  at_array *a = at_array_check(L, 1);
  at_number_fill(a->span.bytes, a->length, a->type, at_number_bits(L, 2, a->type));
  lua_settop(L, 1);
  return 1;
}

/* copy() -> a new array of the same elements */
static int l_array_copy(lua_State *L) {
  at_array *a = at_array_check(L, 1), *copy = at_array_new(L, a->type, a->length);
  if (a->span.size > 0) memcpy(copy->span.bytes, a->span.bytes, a->span.size);
  return 1;
}

static void check_length(lua_State *L, size_t n, size_t wanted) {
  if (n != wanted)
    at_arg_error(L, 2, lua_pushfstring(L, "length is %I, that of the array %I", (LUAI_UACINT)n, (LUAI_UACINT)wanted));
}

/* assign(array | list | string) -> the array, whose elements are those now; as many, of the same type */
static int l_array_assign(lua_State *L) {
  at_array *a = at_array_check(L, 1);
  size_t n;
  lua_settop(L, 2);
  if (lua_istable(L, 2)) {
    check_length(L, (size_t)luaL_len(L, 2), a->length);
    set_list(L, a, 2);
  } else if (lua_type(L, 2) == LUA_TSTRING) {
    const char *s = lua_tolstring(L, 2, &n);
    check_length(L, n, a->span.size);
    if (n > 0) memcpy(a->span.bytes, s, n);
  } else {
    const at_array *from = at_array_check(L, 2);
    check_length(L, from->length, a->length);
    if (from->type != a->type) at_arg_error(L, 2, "array of the same type expected");
    if (a->span.size > 0) memmove(a->span.bytes, from->span.bytes, a->span.size);
  }
  lua_settop(L, 1);
  return 1;
}

/* sum() -> number */
static int l_array_sum(lua_State *L) {
  const at_array *a = at_array_check(L, 1);
  at_number_sum(L, a->span.bytes, a->length, a->type);
  return 1;
}

static int extreme(lua_State *L, int sign) {
  const at_array *a = at_array_check(L, 1);
  size_t i = at_number_extreme(a->span.bytes, a->length, a->type, sign);
  if (i == a->length) return luaL_pushfail(L), 1;
  at_number_push(L, a->type, at_number_load(at(a, i), a->type));
  lua_pushinteger(L, (lua_Integer)i + 1);
  return 2;
}

/* min() -> the least element, its index; nil: there is none (NaN does not count) */
static int l_array_min(lua_State *L) { return extreme(L, -1); }

static int l_array_max(lua_State *L) { return extreme(L, 1); }

/* sort() -> the array, ascending, NaN last */
static int l_array_sort(lua_State *L) {
  at_array *a = at_array_check(L, 1);
  if (at_number_sort(a->span.bytes, a->length, a->type) < 0) luaL_error(L, "not enough memory");
  lua_settop(L, 1);
  return 1;
}

/* to_string() -> the bytes of the elements */
static int l_array_to_string(lua_State *L) {
  const at_array *a = at_array_check(L, 1);
  lua_pushlstring(L, a->span.size > 0 ? a->span.bytes : "", a->span.size);
  return 1;
}

/* to_list() -> table of the elements */
static int l_array_to_list(lua_State *L) {
  const at_array *a = at_array_check(L, 1);
  size_t i;
  lua_createtable(L, a->length > INT32_MAX / 2 ? INT32_MAX / 2 : (int)a->length, 0);
  for (i = 0; i < a->length; i++) {
    at_number_push(L, a->type, at_number_load(at(a, i), a->type));
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* stack: array index */
static int next(lua_State *L) {
  const at_array *a = at_array_check(L, 1);
  lua_Integer i = check_integer(L, 2);
  if (i < 0 || (lua_Unsigned)i >= a->length) return luaL_pushfail(L), 1;
  lua_pushinteger(L, i + 1);
  at_number_push(L, a->type, at_number_load(at(a, (size_t)i), a->type));
  return 2;
}

static int l_array_pairs(lua_State *L) {
  (void)at_array_check(L, 1);
  lua_pushcfunction(L, next);
  lua_pushvalue(L, 1);
  lua_pushinteger(L, 0);
  return 3;
}

static int l_array_tostring(lua_State *L) {
  const at_array *a = at_array_check(L, 1);
  lua_pushfstring(L, "array of %I %s: %p", (LUAI_UACINT)a->length, names[a->type], (const void *)a->span.bytes);
  return 1;
}

/* Two arrays that show the same elements. */
static int l_array_eq(lua_State *L) {
  const at_array *a = at_array_check(L, 1), *b = at_array_check(L, 2);
  lua_pushboolean(L, a->span.block == b->span.block && a->span.bytes == b->span.bytes && a->length == b->length &&
                         a->type == b->type);
  return 1;
}

static int l_array_gc(lua_State *L) {
  at_array *a = at_array_check(L, 1);
  a->length = 0;
  at_span_clear(&a->span);
  return 0;
}

/* ---- to other states ---- */

typedef struct view {
  uint64_t offset, length, type;
} view;

static at_shared *give(lua_State *L, int index, void *bytes) {
  const at_array *a = lua_touserdata(L, index);
  view v;
  if (a->span.block == NULL) luaL_error(L, "an array that was collected cannot be copied");
  v.offset = (uint64_t)(a->span.bytes - a->span.block->bytes);
  v.length = a->length;
  v.type = a->type;
  memcpy(bytes, &v, sizeof v);
  return &a->span.block->shared;
}

static int take(lua_State *L, at_shared *s, const void *bytes) {
  at_block *b = (at_block *)(void *)s;
  at_array *a;
  size_t size;
  view v;
  memcpy(&v, bytes, sizeof v);
  if (v.type >= AT_NUMBERS) return 0;
  size = at_number_size((int)v.type);
  if (v.offset % size != 0 || v.offset > b->size || v.length > (b->size - v.offset) / size) return 0;
  a = push_empty(L, (int)v.type);
  at_span_set(&a->span, b, (size_t)v.offset, (size_t)v.length * size);
  a->length = (size_t)v.length;
  return 1;
}

void at_array_open(lua_State *L, at_runtime *rt) {
  static const at_carrier carrier = {give, take, 0};
  static const luaL_Reg functions[] = {
      {"new", l_new}, {"from_list", l_from_list}, {"from_string", l_from_string}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"add", l_array_add}, {"exchange", l_array_exchange}, {"compare_exchange", l_array_compare_exchange},
      {"type", l_array_type}, {"slice", l_array_slice}, {"fill", l_array_fill}, {"copy", l_array_copy},
      {"assign", l_array_assign}, {"sum", l_array_sum}, {"min", l_array_min}, {"max", l_array_max},
      {"sort", l_array_sort}, {"to_string", l_array_to_string}, {"to_list", l_array_to_list}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__newindex", l_array_newindex}, {"__len", l_array_len},
                                  {"__pairs", l_array_pairs}, {"__tostring", l_array_tostring},
                                  {"__eq", l_array_eq}, {"__gc", l_array_gc}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, AT_ARRAY_MT, methods, meta);
  luaL_getmetatable(L, AT_ARRAY_MT);
  lua_getfield(L, -1, "__index");
  if (lua_istable(L, -1)) {
    lua_pushcclosure(L, l_array_index, 1);
    lua_setfield(L, -2, "__index");
  } else {
    lua_pop(L, 1);
  }
  at_carry_class(L, &carrier);
  lua_pop(L, 1);
}
