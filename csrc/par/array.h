/* array.h - typed arrays over shared blocks: the userdata, for array.c and its arithmetic in numbers.c. */
#ifndef AT_PAR_ARRAY_H
#define AT_PAR_ARRAY_H

#include "base/block.h"
#include "core/runtime.h"

#define AT_ARRAY_MT "asynctask.Array"

enum at_number { AT_I8, AT_I16, AT_I32, AT_I64, AT_U8, AT_U16, AT_U32, AT_U64, AT_F32, AT_F64, AT_NUMBERS };

typedef struct at_array {
  at_span span; /* first member */
  size_t length; /* elements */
  unsigned char type; /* enum at_number */
} at_array;

/* [-0, +0, v] the array at argument `arg`. */
at_array *at_array_check(lua_State *L, int arg);
/* [-0, +1, v] pushes a new array of zeros. */
at_array *at_array_new(lua_State *L, int type, size_t length);

/* numbers.c: elements as their bits, and whole runs of them. One element is read and written in one
** piece, whatever other threads do (acquire, release). */
size_t at_number_size(int type);
int at_number_is_float(int type);
/* [-0, +0, v] the bits of the number at `index`, which must fit. */
uint64_t at_number_bits(lua_State *L, int index, int type);
/* [-0, +1, -] */
void at_number_push(lua_State *L, int type, uint64_t bits);
uint64_t at_number_load(const char *p, int type);
void at_number_store(char *p, int type, uint64_t bits);
/* Sequentially consistent; integers only. */
uint64_t at_number_add(char *p, int type, uint64_t n); /* the new value */
uint64_t at_number_exchange(char *p, int type, uint64_t bits); /* the old value */
int at_number_compare_exchange(char *p, int type, uint64_t *expected, uint64_t bits);

void at_number_fill(char *p, size_t n, int type, uint64_t bits);
/* [-0, +1, -] pushes the sum: integers wrap around, floats are added in order. */
void at_number_sum(lua_State *L, const char *p, size_t n, int type);
/* Where the least (sign -1) or greatest (1) element is that is a number; n: nowhere. */
size_t at_number_extreme(const char *p, size_t n, int type, int sign);
/* Ascending, NaN last. 0, or UV_ENOMEM and nothing changed. */
int at_number_sort(char *p, size_t n, int type);

/* [-0, +0, m] adds new, from_list, from_string, types to the table at the top. */
void at_array_open(lua_State *L, at_runtime *rt);

#endif
