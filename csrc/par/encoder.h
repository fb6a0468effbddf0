/* encoder.h - what encode.c is at, and the errors about what it cannot copy (refuse.c). */
#ifndef AT_PAR_ENCODER_H
#define AT_PAR_ENCODER_H

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
} encoder;

/* [-0, +0, v] raises `argument 2, field "conn": cannot copy a userdata (FILE*)`. */
void at_refuse(encoder *e, int index, const step *at);

#endif
