/* block.c - counted objects that threads share, the memory block, and spans of it in userdata. Owns
** the count and the bytes. Any thread; what takes a lua_State, on that state's.
** Invariant: whoever has a reference may make another; the last one to let go sees all that the others
** have written. */
#include "base/block.h"

#include <lauxlib.h>
#include <stdint.h>
#include <stdlib.h>

void at_shared_init(at_shared *s, void (*destroy)(at_shared *s)) {
  atomic_init(&s->refs, 1);
  s->destroy = destroy;
}

void *at_shared_retain(at_shared *s) {
  atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
  return s;
}

void at_shared_release(at_shared *s) {
  if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) s->destroy(s);
}

size_t at_shared_holders(const at_shared *s) {
  return atomic_load_explicit(&((at_shared *)(uintptr_t)s)->refs, memory_order_acquire);
}

static void destroy_block(at_shared *s) {
  at_block *b = (at_block *)(void *)s;
  free(b->bytes);
  free(b);
}

at_block *at_block_new(size_t size) {
  at_block *b = malloc(sizeof *b);
  if (b == NULL) return NULL;
  b->bytes = calloc(1, size > 0 ? size : 1);
  if (b->bytes == NULL) {
    free(b);
    return NULL;
  }
  b->size = size;
  at_shared_init(&b->shared, destroy_block);
  return b;
}

static const char mark = 'b';

void at_span_set(at_span *s, at_block *b, size_t offset, size_t size) {
  s->kind = &mark;
  s->block = at_shared_retain(&b->shared);
  s->bytes = b->bytes + offset;
  s->size = size;
}

void at_span_clear(at_span *s) {
  if (s->block != NULL) at_shared_release(&s->block->shared);
  s->block = NULL;
  s->bytes = NULL;
  s->size = 0;
}

at_span *at_span_test(lua_State *L, int index) {
  at_span *s;
  if (lua_type(L, index) != LUA_TUSERDATA || lua_rawlen(L, index) < sizeof *s) return NULL;
  s = lua_touserdata(L, index);
  return s->kind == &mark ? s : NULL;
}

const char *at_span_bytes(lua_State *L, int arg, size_t *size) {
  const at_span *s = at_span_test(L, arg);
  if (s == NULL) return luaL_checklstring(L, arg, size);
  *size = s->size;
  return s->bytes != NULL ? s->bytes : "";
}
