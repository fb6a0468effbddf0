/* chunks.c - the strict reading of the lines between chunks: hexadecimal digits, perhaps extensions
** (skipped, and bounded), CRLF; CRLF behind each piece; trailers, which head.c checks once they are whole.
** A machine of one byte at a time, since lines may come in any pieces. No Lua. */
#include "ext/http1/chunks.h"

#include <string.h>

#define MOST_DIGITS 15      /* of a size: the library adds them up */
#define MOST_EXTENSIONS 4096 /* bytes of them in one body */

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_LF, TRAILER_START, TRAILER, TRAILER_LF, END_LF, END };

void http1_chunks_begin(http1_chunks *c) {
  memset(c, 0, sizeof *c);
  c->state = SIZE;
  c->last = 1;
}

int http1_chunks_data(http1_chunks *c) { return c->state == DATA && !c->last ? 0 : -1; }

int http1_chunks_in_trailers(const http1_chunks *c) {
  return c->state == TRAILER_START || c->state == TRAILER || c->state == TRAILER_LF;
}

static int is_hex(unsigned char b) {
  return (b >= '0' && b <= '9') || ((b | 32) >= 'a' && (b | 32) <= 'f');
}

/* A byte of the line with the size. */
static int size_byte(http1_chunks *c, unsigned char b) {
  if (is_hex(b)) {
    if (++c->digits > MOST_DIGITS) return -1;
    if (b != '0') c->last = 0;
    return 0;
  }
  if (c->digits == 0) return -1;
  if (b == ';')
    c->state = EXTENSION;
  else if (b == '\r')
    c->state = SIZE_LF;
  else
    return -1;
  return 0;
}

static int is_control(unsigned char b) { return (b < 32 && b != '\t') || b == 127; }

static int one(http1_chunks *c, unsigned char b) {
  switch (c->state) {
    case SIZE: return size_byte(c, b);
    case EXTENSION:
      if (b == '\r')
        c->state = SIZE_LF;
      else if (is_control(b) || ++c->extensions > MOST_EXTENSIONS)
        return -1;
      return 0;
    case SIZE_LF:
      c->state = c->last ? TRAILER_START : DATA;
      return b == '\n' ? 0 : -1;
    case DATA: /* the piece is over */
      c->state = DATA_LF;
      return b == '\r' ? 0 : -1;
    case DATA_LF:
      c->state = SIZE;
      c->last = 1;
      c->digits = 0;
      return b == '\n' ? 0 : -1;
    case TRAILER_START:
      if (b == '\r') {
        c->state = END_LF;
        return 0;
      }
      c->state = TRAILER;
      c->trailers++;
      return is_control(b) || b == ' ' || b == '\t' ? -1 : 0;
    case TRAILER:
      c->trailers++;
      if (b == '\r') c->state = TRAILER_LF;
      return b != '\r' && is_control(b) ? -1 : 0;
    case TRAILER_LF:
      c->state = TRAILER_START;
      c->trailers++;
      return b == '\n' ? 0 : -1;
    case END_LF:
      c->state = END;
      return b == '\n' ? 0 : -1;
    default: return -1;
  }
}

int http1_chunks_check(http1_chunks *c, const char *bytes, size_t size) {
  size_t i;
  for (i = 0; i < size; i++)
    if (one(c, (unsigned char)bytes[i]) < 0) return -1;
  return 0;
}
