/* encoder.h - what encode.c is at, and the errors about what it cannot copy (refuse.c). */
#ifndef AT_PAR_ENCODER_H
#define AT_PAR_ENCODER_H

#include <string.h>

#include "par/codec.h"

enum step_kind { STEP_ROOT, STEP_DEEP, STEP_FIELD, STEP_KEY, STEP_UPVALUE, STEP_CLASS, STEP_DEFAULT };

/* Where we are, for errors; linked inward to outward through the C stack. */
typedef struct step {
  const struct step *outer;
  int kind;
  int index;        /* FIELD: where the key is on the Lua stack; ROOT, DEEP: which root, -1: a task-local value */
  const char *name; /* UPVALUE, CLASS */
} step;

typedef struct encoder {
  lua_State *L;
  at_codec *c;
  int codec;   /* stack index of the codec's userdata */
  int pending; /* stack index of the list of what is written later, or nil */
  lua_Integer pending_first, pending_last;
  int role, root, depth;
  int limit; /* stack index up to which there is room */
} encoder;

#define SLOTS 10 /* of the Lua stack: what a table, function or userdata needs until it asks again */

/* [-0, +0, m] room for SLOTS more. */
static inline void ensure(encoder *e) {
  int top = lua_gettop(e->L);
  int slots = e->limit == 0 ? 2 * SLOTS : 4 * SLOTS; /* most messages are flat */
  if (top + SLOTS <= e->limit) return;
  luaL_checkstack(e->L, slots, "values");
  e->limit = top + slots;
}

/* ---- bytes ---- */

/* [-0, +0, m] room for n more bytes. */
static inline char *reserve(encoder *e, size_t n) {
  at_message *m = &e->c->message;
  if (m->capacity - m->size < n) at_codec_grow(e->L, e->c, n);
  return m->data + m->size;
}

static inline void put_tag(encoder *e, int tag) {
  *reserve(e, 1) = (char)tag;
  e->c->message.size++;
}

/* A tag and a fixed number of bytes, in one piece. */
static inline void put(encoder *e, int tag, const void *bytes, size_t n) {
  char *p = reserve(e, n + 1);
  *p = (char)tag;
  memcpy(p + 1, bytes, n);
  e->c->message.size += n + 1;
}

/* The same with the length in a byte before them. */
static inline void put_short(encoder *e, int tag, const void *bytes, size_t n) {
  char *p = reserve(e, n + 2);
  p[0] = (char)tag;
  p[1] = (char)(unsigned char)n;
  memcpy(p + 2, bytes, n);
  e->c->message.size += n + 2;
}

static inline void put_bytes(encoder *e, const void *bytes, size_t n) {
  if (n > 0) memcpy(reserve(e, n), bytes, n);
  e->c->message.size += n;
}

static inline void put_u32(encoder *e, uint32_t v) { put_bytes(e, &v, sizeof v); }

/* [-0, +0, v] raises `argument 2, field "conn": cannot copy a userdata (FILE*)`. */
void at_refuse(encoder *e, int index, const step *at);

#endif
