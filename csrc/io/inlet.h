/* inlet.h - where bytes are read: what reader.c needs of a stream or a feed, which embed one. Bytes that
** have come and were not taken, the one read that waits, how it ends. Whoever owns an inlet puts bytes
** into it (receiver.c from a descriptor, feed.c from C or Lua) and says so with at_reader_look.
** Loop thread only. */
#ifndef AT_IO_INLET_H
#define AT_IO_INLET_H

#include "base/buffer.h"
#include "base/format.h"
#include "core/op.h"

#pragma GCC visibility push(hidden)

#define AT_STREAM_MARK (64 * 1024) /* bytes that wait in each direction before it is held up */
#define AT_STREAM_LINE (16 * 1024 * 1024) /* a longer line is an error */
#define AT_INLET_FAULT (-100000) /* a status: class->push_fault has the error */

typedef struct at_inlet at_inlet;

/* What the owner does. No Lua but in push_fault. */
typedef struct at_inletclass {
  void (*begin)(at_inlet *in);   /* a read begins to wait: it counts for the owner's life; bytes are wanted */
  void (*end)(at_inlet *in);     /* it no longer does: the owner, and `in`, may be gone afterwards */
  void (*drained)(at_inlet *in); /* bytes were taken while in->held was set */
  /* [-0, +1, m] pushes the error of AT_INLET_FAULT; the userdata is at `box`. NULL: there is none. */
  void (*push_fault)(lua_State *L, at_inlet *in, int box);
} at_inletclass;

/* The read that waits. */
typedef struct at_reading {
  at_op op;
  at_inlet *inlet;        /* counted by its owner */
  at_plan plan;           /* its items and delimiter are here, or behind */
  unsigned char answered; /* at_op_done was called */
  unsigned char lent;     /* it is the inlet's own one */
  char delimiter[8];
  at_item items[2];
} at_reading;

struct at_inlet {
  const at_inletclass *class;
  at_buffer buffer;
  at_reading *reader;   /* the one read that waits, or NULL */
  int status;           /* why no more bytes come, or 0 */
  unsigned char wanted; /* the owner may put more into it */
  unsigned char ended;  /* no more bytes come: end of file */
  unsigned char held;   /* the owner wants to know of bytes that are taken */
  at_reading own;       /* serves most reads, so that they allocate nothing */
};

/* A read waits that has not been answered. */
static inline int at_inlet_waits(const at_inlet *in) {
  return in->reader != NULL && !in->reader->answered;
}

/* The methods, for the inlet of argument 1; NULL: it is closed. */
int at_reader_read(lua_State *L, at_inlet *in);
int at_reader_read_some(lua_State *L, at_inlet *in);
int at_reader_read_until(lua_State *L, at_inlet *in);

void at_reader_look(at_inlet *in);               /* bytes came, or the end, or a status: answers who waits */
void at_reader_end(at_inlet *in, int status);    /* the read that waits ends */

#pragma GCC visibility pop

#endif
