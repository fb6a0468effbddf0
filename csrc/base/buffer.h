/* buffer.h - a queue of bytes: what has been read from a stream or a file and not yet taken.
** Bytes are contiguous, so that a parser sees one piece. Memory is its own, or borrowed for a while:
** a reader that finds its line in the scratch memory it was read into never copies it. */
#ifndef AT_BASE_BUFFER_H
#define AT_BASE_BUFFER_H

#include <stddef.h>

#pragma GCC visibility push(hidden)

typedef struct at_buffer {
  const char *bytes; /* the first byte not taken; in `memory`, or borrowed */
  size_t size;       /* bytes not taken */
  char *memory;      /* owned, or NULL */
  size_t capacity;
} at_buffer;

/* A zeroed at_buffer is an empty one. Frees the memory; the buffer is empty afterwards. */
void at_buffer_free(at_buffer *b);

/* Room for `room` bytes behind the last one: where to put them, or NULL (out of memory; nothing
** changed). Then at_buffer_commit says how many there are. */
char *at_buffer_reserve(at_buffer *b, size_t room);
void at_buffer_commit(at_buffer *b, size_t size);

/* 0, or UV_ENOMEM and nothing changed. */
int at_buffer_append(at_buffer *b, const char *bytes, size_t size);

/* An empty buffer shows bytes of somebody else's, until at_buffer_keep. */
void at_buffer_borrow(at_buffer *b, const char *bytes, size_t size);

/* Borrowed bytes that were not taken become its own: 0, or UV_ENOMEM (they are lost then). */
int at_buffer_keep(at_buffer *b);

/* Takes `size` bytes off the front. An empty buffer gives large memory back. */
void at_buffer_take(at_buffer *b, size_t size);

#pragma GCC visibility pop

#endif
