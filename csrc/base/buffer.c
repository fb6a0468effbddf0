/* buffer.c - a queue of bytes. Owns its memory, calls nothing but malloc; no Lua; any thread, one at
** a time.
** Invariant: `bytes` points into `memory` or at borrowed memory, and size bytes follow it. */
#include "base/buffer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define AT_BUFFER_SMALL 4096 /* an empty buffer keeps this much */

static int borrowed(const at_buffer *b) {
  return b->size > 0 && (b->memory == NULL || b->bytes < b->memory ||
                         b->bytes >= b->memory + b->capacity);
}

void at_buffer_free(at_buffer *b) {
  free(b->memory);
  memset(b, 0, sizeof *b);
}

/* A capacity that holds `needed` bytes, doubling from what is there; 0: there is none. */
static size_t grown(const at_buffer *b, size_t needed) {
  size_t capacity = b->capacity < AT_BUFFER_SMALL / 2 ? AT_BUFFER_SMALL / 2 : b->capacity;
  while (capacity < needed) {
    if (capacity > (size_t)-1 / 2) return 0;
    capacity *= 2;
  }
  return capacity;
}

char *at_buffer_reserve(at_buffer *b, size_t room) {
  size_t needed = b->size + room, front;
  if (needed < room) return NULL;
  front = b->memory != NULL && !borrowed(b) && b->size > 0 ? (size_t)(b->bytes - b->memory) : 0;
  if (b->capacity >= needed) {
    if (borrowed(b) || (front > 0 && b->capacity - front < needed))
      memmove(b->memory, b->bytes, b->size);
    else if (b->size > 0)
      return b->memory + front + b->size;
  } else {
    size_t capacity = grown(b, needed);
    char *memory = capacity > 0 ? malloc(capacity) : NULL; /* owned by b from here on */
    if (memory == NULL) return NULL;
    if (b->size > 0) memcpy(memory, b->bytes, b->size);
    free(b->memory);
    b->memory = memory;
    b->capacity = capacity;
  }
  b->bytes = b->memory;
  return b->memory + b->size;
}

void at_buffer_commit(at_buffer *b, size_t size) {
  assert(b->bytes + b->size + size <= b->memory + b->capacity);
  b->size += size;
}

int at_buffer_append(at_buffer *b, const char *bytes, size_t size) {
  char *room;
  if (size == 0) return 0;
  room = at_buffer_reserve(b, size);
  if (room == NULL) return UV_ENOMEM;
  memcpy(room, bytes, size);
  b->size += size;
  return 0;
}

void at_buffer_borrow(at_buffer *b, const char *bytes, size_t size) {
  assert(b->size == 0);
  b->bytes = bytes;
  b->size = size;
}

int at_buffer_keep(at_buffer *b) {
  if (!borrowed(b)) return 0;
  if (at_buffer_reserve(b, 0) != NULL) return 0;
  b->size = 0;
  return UV_ENOMEM;
}

void at_buffer_take(at_buffer *b, size_t size) {
  assert(size <= b->size);
  b->bytes += size;
  b->size -= size;
  if (b->size > 0) return;
  b->bytes = b->memory;
  if (b->capacity > AT_BUFFER_SMALL) at_buffer_free(b);
}
