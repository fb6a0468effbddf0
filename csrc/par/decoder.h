/* decoder.h - what decode.c is at, and how it reads: no byte that is not there. */
#ifndef AT_PAR_DECODER_H
#define AT_PAR_DECODER_H

#include <string.h>

#include "par/codec.h"

#define SLOTS 12 /* of the Lua stack */
#define DEPTH_MAX (3 * AT_CODEC_DEPTH + 8) /* more than encode.c ever writes */

typedef struct decoder {
  lua_State *L;
  at_codec *c;
  const at_message *m;
  const char *p, *end;
  int depth;
  int codec;   /* stack index of the codec's userdata */
  int refs;    /* stack index of a table offset -> value, or nil */
  int pending; /* stack index of the list of tables and functions that are filled later, or nil */
  int keys, key_count; /* stack index of the first of m->keys, and how many have come */
  int limit;   /* stack index up to which there is room */
  lua_Integer pending_first, pending_last;
} decoder;

static inline int corrupt(decoder *d) {
  return luaL_error(d->L, "corrupt message");
}

/* [-0, +0, v] at least n more bytes. */
static inline void need(decoder *d, size_t n) {
  if ((size_t)(d->end - d->p) < n) corrupt(d);
}

/* [-0, +0, m] room for SLOTS more: what a value takes until another one below it asks again. */
static inline void ensure(decoder *d) {
  int top = lua_gettop(d->L);
  if (top + SLOTS <= d->limit) return;
  luaL_checkstack(d->L, 4 * SLOTS, "values");
  d->limit = top + 4 * SLOTS;
}

static inline void deeper(decoder *d) {
  if (++d->depth > DEPTH_MAX) corrupt(d);
}

static inline void take(decoder *d, void *to, size_t n) {
  need(d, n);
  memcpy(to, d->p, n);
  d->p += n;
}

static inline uint32_t take_u32(decoder *d) {
  uint32_t v;
  take(d, &v, sizeof v);
  return v;
}

static inline uint64_t take_u64(decoder *d) {
  uint64_t v;
  take(d, &v, sizeof v);
  return v;
}

static inline unsigned char take_u8(decoder *d) {
  need(d, 1);
  return (unsigned char)*d->p++;
}

#endif
