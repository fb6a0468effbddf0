/* numbers.c - the ten types of elements: their bits, atomic access, and arithmetic over runs of them.
** Owns nothing; any thread. Elements are naturally aligned. Every access but that of sort is atomic, so
** that threads that meet in an element see one value or the other, and never a mixture. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "par/array.h"

#define SMALL 48 /* sorted by insertion */

static const struct {
  const char *name;
  unsigned char size, is_signed, is_float;
} types[AT_NUMBERS] = {{"i8", 1, 1, 0}, {"i16", 2, 1, 0}, {"i32", 4, 1, 0}, {"i64", 8, 1, 0},
                       {"u8", 1, 0, 0}, {"u16", 2, 0, 0}, {"u32", 4, 0, 0}, {"u64", 8, 0, 0},
                       {"f32", 4, 1, 1}, {"f64", 8, 1, 1}};

size_t at_number_size(int type) { return types[type].size; }

int at_number_is_float(int type) { return types[type].is_float; }

/* ---- bits and values ---- */

static double as_double(int type, uint64_t bits) {
  if (type == AT_F32) {
    uint32_t half = (uint32_t)bits;
    float f;
    memcpy(&f, &half, sizeof f);
    return (double)f;
  } else {
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
  }
}

static uint64_t from_double(int type, double d) {
  uint64_t bits = 0;
  if (type == AT_F32) {
    float f = (float)d;
    uint32_t half;
    memcpy(&half, &f, sizeof half);
    bits = half;
  } else {
    memcpy(&bits, &d, sizeof bits);
  }
  return bits;
}

/* Integers as Lua has them: u64 above 2^63 are negative. */
static lua_Integer as_integer(int type, uint64_t bits) {
  switch (type) {
    case AT_I8: return (int8_t)bits;
    case AT_I16: return (int16_t)bits;
    case AT_I32: return (int32_t)bits;
    default: return (lua_Integer)bits;
  }
}

static int fits(int type, lua_Integer v) {
  int width = types[type].size * 8;
  if (width == 64) return 1;
  if (types[type].is_signed) return v >= -((lua_Integer)1 << (width - 1)) && v < (lua_Integer)1 << (width - 1);
  return v >= 0 && v < (lua_Integer)1 << width;
}

uint64_t at_number_bits(lua_State *L, int index, int type) {
  lua_Integer v;
  int is_integer;
  if (lua_type(L, index) != LUA_TNUMBER)
    luaL_error(L, "number expected for an element of type %s, got %s", types[type].name, luaL_typename(L, index));
  if (types[type].is_float) return from_double(type, lua_tonumber(L, index));
  v = lua_tointegerx(L, index, &is_integer);
  if (!is_integer || !fits(type, v))
    luaL_error(L, "%s does not fit into an element of type %s", luaL_tolstring(L, index, NULL), types[type].name);
  return types[type].size == 8 ? (uint64_t)v : (uint64_t)v & (((uint64_t)1 << types[type].size * 8) - 1);
}

void at_number_push(lua_State *L, int type, uint64_t bits) {
  if (types[type].is_float)
    lua_pushnumber(L, as_double(type, bits));
  else
    lua_pushinteger(L, as_integer(type, bits));
}

/* ---- one element ---- */

static uint64_t load(const char *p, int size, int order) {
  switch (size) {
    case 1: return __atomic_load_n((const uint8_t *)p, order);
    case 2: return __atomic_load_n((const uint16_t *)(const void *)p, order);
    case 4: return __atomic_load_n((const uint32_t *)(const void *)p, order);
    default: return __atomic_load_n((const uint64_t *)(const void *)p, order);
  }
}

uint64_t at_number_load(const char *p, int type) { return load(p, types[type].size, __ATOMIC_ACQUIRE); }

void at_number_store(char *p, int type, uint64_t bits) {
  switch (types[type].size) {
    case 1: __atomic_store_n((uint8_t *)p, (uint8_t)bits, __ATOMIC_RELEASE); break;
    case 2: __atomic_store_n((uint16_t *)(void *)p, (uint16_t)bits, __ATOMIC_RELEASE); break;
    case 4: __atomic_store_n((uint32_t *)(void *)p, (uint32_t)bits, __ATOMIC_RELEASE); break;
    default: __atomic_store_n((uint64_t *)(void *)p, bits, __ATOMIC_RELEASE);
  }
}

uint64_t at_number_add(char *p, int type, uint64_t n) {
  switch (types[type].size) {
    case 1: return __atomic_add_fetch((uint8_t *)p, (uint8_t)n, __ATOMIC_SEQ_CST);
    case 2: return __atomic_add_fetch((uint16_t *)(void *)p, (uint16_t)n, __ATOMIC_SEQ_CST);
    case 4: return __atomic_add_fetch((uint32_t *)(void *)p, (uint32_t)n, __ATOMIC_SEQ_CST);
    default: return __atomic_add_fetch((uint64_t *)(void *)p, n, __ATOMIC_SEQ_CST);
  }
}

uint64_t at_number_exchange(char *p, int type, uint64_t bits) {
  switch (types[type].size) {
    case 1: return __atomic_exchange_n((uint8_t *)p, (uint8_t)bits, __ATOMIC_SEQ_CST);
    case 2: return __atomic_exchange_n((uint16_t *)(void *)p, (uint16_t)bits, __ATOMIC_SEQ_CST);
    case 4: return __atomic_exchange_n((uint32_t *)(void *)p, (uint32_t)bits, __ATOMIC_SEQ_CST);
    default: return __atomic_exchange_n((uint64_t *)(void *)p, bits, __ATOMIC_SEQ_CST);
  }
}

/* On failure *expected is what was found. */
#define COMPARE_EXCHANGE(T)                                                                      \
  do {                                                                                           \
    T want = (T)*expected;                                                                       \
    int done = __atomic_compare_exchange_n((T *)(void *)p, &want, (T)bits, 0, __ATOMIC_SEQ_CST,  \
                                           __ATOMIC_SEQ_CST);                                    \
    *expected = want;                                                                            \
    return done;                                                                                 \
  } while (0)

int at_number_compare_exchange(char *p, int type, uint64_t *expected, uint64_t bits) {
  switch (types[type].size) {
    case 1: COMPARE_EXCHANGE(uint8_t);
    case 2: COMPARE_EXCHANGE(uint16_t);
    case 4: COMPARE_EXCHANGE(uint32_t);
    default: COMPARE_EXCHANGE(uint64_t);
  }
}

/* ---- many ---- */

#define STORE_ALL(T)                                                                             \
  do {                                                                                           \
    T *q = (T *)(void *)p;                                                                       \
    for (i = 0; i < n; i++) __atomic_store_n(&q[i], (T)bits, __ATOMIC_RELAXED);                  \
  } while (0)

void at_number_fill(char *p, size_t n, int type, uint64_t bits) {
  size_t i;
  switch (types[type].size) {
    case 1: STORE_ALL(uint8_t); break;
    case 2: STORE_ALL(uint16_t); break;
    case 4: STORE_ALL(uint32_t); break;
    default: STORE_ALL(uint64_t);
  }
}

#define ADD_ALL(T, U)                                                                            \
  do {                                                                                           \
    const U *q = (const U *)(const void *)p;                                                     \
    for (i = 0; i < n; i++) total += (uint64_t)(lua_Integer)(T)__atomic_load_n(&q[i], __ATOMIC_RELAXED); \
  } while (0)

void at_number_sum(lua_State *L, const char *p, size_t n, int type) {
  uint64_t total = 0;
  double real = 0;
  size_t i, size = types[type].size;
  switch (type) {
    case AT_I8: ADD_ALL(int8_t, uint8_t); break;
    case AT_I16: ADD_ALL(int16_t, uint16_t); break;
    case AT_I32: ADD_ALL(int32_t, uint32_t); break;
    case AT_U8: ADD_ALL(uint8_t, uint8_t); break;
    case AT_U16: ADD_ALL(uint16_t, uint16_t); break;
    case AT_U32: ADD_ALL(uint32_t, uint32_t); break;
    case AT_I64: case AT_U64: ADD_ALL(uint64_t, uint64_t); break;
    default:
      for (i = 0; i < n; i++) real += as_double(type, load(p + i * size, (int)size, __ATOMIC_RELAXED));
      lua_pushnumber(L, real);
      return;
  }
  lua_pushinteger(L, (lua_Integer)total);
}

size_t at_number_extreme(const char *p, size_t n, int type, int sign) {
  size_t i, best = n, size = types[type].size;
  uint64_t least = 0;
  double real = 0;
  for (i = 0; i < n; i++) {
    uint64_t bits = load(p + i * size, (int)size, __ATOMIC_RELAXED);
    if (types[type].is_float) {
      double d = as_double(type, bits);
      if (isnan(d) || (best != n && (sign < 0 ? d >= real : d <= real))) continue;
      real = d;
    } else {
      if (types[type].is_signed) bits = (uint64_t)as_integer(type, bits) ^ ((uint64_t)1 << 63);
      if (best != n && (sign < 0 ? bits >= least : bits <= least)) continue;
      least = bits;
    }
    best = i;
  }
  return best;
}

/* ---- sorting: by the digits of keys whose order as unsigned numbers is that of the values ---- */

static uint64_t get(const char *p, size_t size) {
  uint64_t bits = 0;
  switch (size) { /* this machine's order of bytes, whatever it is */
    case 1: return *(const uint8_t *)p;
    case 2: { uint16_t v; memcpy(&v, p, 2); return v; }
    case 4: { uint32_t v; memcpy(&v, p, 4); return v; }
    default: memcpy(&bits, p, 8); return bits;
  }
}

static void set(char *p, size_t size, uint64_t bits) {
  switch (size) {
    case 1: *(uint8_t *)p = (uint8_t)bits; break;
    case 2: { uint16_t v = (uint16_t)bits; memcpy(p, &v, 2); break; }
    case 4: { uint32_t v = (uint32_t)bits; memcpy(p, &v, 4); break; }
    default: memcpy(p, &bits, 8);
  }
}

/* Negative floats are stored with all bits turned, so that they order among themselves. */
static uint64_t to_key(int type, uint64_t bits) {
  uint64_t top = (uint64_t)1 << (types[type].size * 8 - 1);
  if (types[type].is_float) {
    if (isnan(as_double(type, bits))) return 2 * top - 1;
    return bits & top ? ~bits & (2 * top - 1) : bits | top;
  }
  return types[type].is_signed ? bits ^ top : bits;
}

static uint64_t from_key(int type, uint64_t key) {
  uint64_t top = (uint64_t)1 << (types[type].size * 8 - 1);
  if (types[type].is_float) {
    if (key == 2 * top - 1) return from_double(type, (double)NAN);
    return key & top ? key ^ top : ~key & (2 * top - 1);
  }
  return types[type].is_signed ? key ^ top : key;
}

static void sort_small(char *p, size_t n, int type, size_t size) {
  size_t i, j;
  for (i = 1; i < n; i++) {
    uint64_t bits = get(p + i * size, size), key = to_key(type, bits);
    for (j = i; j > 0 && to_key(type, get(p + (j - 1) * size, size)) > key; j--)
      memcpy(p + j * size, p + (j - 1) * size, size);
    set(p + j * size, size, bits);
  }
}

/* One pass over `digit`; true if it has moved them to `to`. */
static int pass(const char *from, char *to, size_t n, size_t size, int digit) {
  size_t counts[256] = {0}, at = 0, i;
  for (i = 0; i < n; i++) counts[get(from + i * size, size) >> digit * 8 & 255]++;
  if (counts[get(from, size) >> digit * 8 & 255] == n) return 0; /* all have the same */
  for (i = 0; i < 256; i++) {
    size_t count = counts[i];
    counts[i] = at;
    at += count;
  }
  for (i = 0; i < n; i++) {
    uint64_t key = get(from + i * size, size);
    set(to + counts[key >> digit * 8 & 255]++ * size, size, key);
  }
  return 1;
}

int at_number_sort(char *p, size_t n, int type) {
  size_t size = types[type].size, i;
  char *spare, *from = p, *to;
  int digit;
  if (n <= SMALL) {
    sort_small(p, n, type, size);
    return 0;
  }
  spare = to = malloc(n * size);
  if (spare == NULL) return UV_ENOMEM;
  for (i = 0; i < n; i++) set(p + i * size, size, to_key(type, get(p + i * size, size)));
  for (digit = 0; digit < (int)size; digit++) {
    char *other = from;
    if (!pass(from, to, n, size, digit)) continue;
    from = to;
    to = other;
  }
  for (i = 0; i < n; i++) set(p + i * size, size, from_key(type, get(from + i * size, size)));
  free(spare);
  return 0;
}
