/* chunks.h - what stands between the pieces of a chunked body, checked as RFC 9112, 7.1 asks. The library
** finds the pieces; this sees all other bytes, in order. No Lua. */
#ifndef HTTP1_CHUNKS_H
#define HTTP1_CHUNKS_H

#include <stddef.h>

#pragma GCC visibility push(hidden)

typedef struct http1_chunks {
  unsigned char state;
  unsigned char last;    /* the size of this chunk is 0 so far */
  unsigned digits;       /* of the size */
  size_t extensions;     /* bytes of chunk extensions, of all chunks */
  size_t trailers;       /* bytes of the trailers */
} http1_chunks;

/* The start of a body. */
void http1_chunks_begin(http1_chunks *c);

/* A piece of the body has come: it must stand behind a size. 0, or -1. */
int http1_chunks_data(http1_chunks *c);

/* Bytes that are no piece. 0, or -1. */
int http1_chunks_check(http1_chunks *c, const char *bytes, size_t size);

/* Whether the next of these bytes belongs to the trailers. */
int http1_chunks_in_trailers(const http1_chunks *c);

#pragma GCC visibility pop

#endif
