/* block.h - what several threads hold together: counted objects, and the memory block among them.
** The last holder frees, on whatever thread it is. What is in a block is not guarded: its users agree. */
#ifndef AT_BASE_BLOCK_H
#define AT_BASE_BLOCK_H

#include <lua.h>
#include <stdatomic.h>
#include <stddef.h>

#pragma GCC visibility push(hidden)

/* The first member of a counted object. */
typedef struct at_shared {
  atomic_size_t refs;
  void (*destroy)(struct at_shared *s); /* the last holder has let go; any thread, no Lua */
} at_shared;

/* One holder: the caller. */
void at_shared_init(at_shared *s, void (*destroy)(at_shared *s));
void *at_shared_retain(at_shared *s); /* returns s */
void at_shared_release(at_shared *s);
/* Holders, as they were a moment ago. */
size_t at_shared_holders(const at_shared *s);

/* A block of bytes, aligned for every type, zeroed at first. */
typedef struct at_block {
  at_shared shared;
  size_t size;
  char *bytes; /* owned */
} at_block;

at_block *at_block_new(size_t size); /* NULL: no memory */

/* The head of a userdata that shows bytes of a block: arrays, which io takes in place of strings. */
typedef struct at_span {
  const void *kind; /* block.c's mark: says that it is one */
  at_block *block;  /* counted; NULL: none */
  char *bytes;      /* in the block */
  size_t size;
} at_span;

/* Makes the zeroed span one that shows these bytes of b, which it retains. */
void at_span_set(at_span *s, at_block *b, size_t offset, size_t size);
void at_span_clear(at_span *s); /* lets go; a span still, of nothing */

/* [-0, +0, -] the span that the userdata at `index` begins with, or NULL. */
at_span *at_span_test(lua_State *L, int index);
/* [-0, +0, v] the bytes of a string, a number or a span at argument `arg`: valid while that is on the
** stack. Those of a span may change meanwhile. */
const char *at_span_bytes(lua_State *L, int arg, size_t *size);

#pragma GCC visibility pop

#endif
