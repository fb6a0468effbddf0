/* values.c - asynctask_writer: values on their way into a state.
** Owns a buffer of tagged bytes; tables are written with their counts in front, which are known at their
** ends. The first thing that goes wrong (no memory, wrong use) is remembered and ends the writing.
** Writing: any thread, one at a time, no Lua. Pushing: the thread of the state, once. Pointers never leave
** the process, so the bytes are trusted. */
#include "host/values.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/error.h"

#define DEPTH_MAX 100
#define NO_TABLE SIZE_MAX

enum { TAG_NIL, TAG_FALSE, TAG_TRUE, TAG_INTEGER, TAG_NUMBER, TAG_STRING, TAG_TABLE };

/* In front of the items of a table. */
typedef struct header {
  uint64_t items;    /* keys and values */
  uint64_t sequence; /* keys 1, 2, 3 ... that came in order */
  size_t outer;      /* while it is open: offset of the header around it */
} header;

struct asynctask_writer {
  char *bytes; /* owned */
  size_t size, capacity;
  size_t open;       /* offset of the header of the innermost open table */
  int depth;         /* open tables */
  int count;         /* values outside of tables */
  int status;        /* 0, or what went wrong */
  const char *words; /* of UV_EINVAL; static */
};

/* Stands for a writer that there was no memory for. Never written to. */
static asynctask_writer no_memory = {NULL, 0, 0, NO_TABLE, 0, 0, UV_ENOMEM, NULL};

/* ---- writing ---- */

asynctask_writer *asynctask_writer_new(void) {
  asynctask_writer *w = calloc(1, sizeof *w);
  if (w == NULL) return &no_memory;
  w->open = NO_TABLE;
  return w;
}

void asynctask_writer_free(asynctask_writer *w) {
  if (w == NULL || w == &no_memory) return;
  free(w->bytes);
  free(w);
}

static void misuse(asynctask_writer *w, const char *words) {
  w->status = UV_EINVAL;
  w->words = words;
}

/* Room for n more bytes, or NULL. */
static char *reserve(asynctask_writer *w, size_t n) {
  if (w->capacity - w->size < n) {
    size_t capacity = w->capacity != 0 ? w->capacity * 2 : 64;
    char *bytes;
    if (n > SIZE_MAX / 4 - w->size) {
      w->status = UV_ENOMEM;
      return NULL;
    }
    if (capacity < w->size + n) capacity = w->size + n;
    bytes = realloc(w->bytes, capacity);
    if (bytes == NULL) {
      w->status = UV_ENOMEM;
      return NULL;
    }
    w->bytes = bytes;
    w->capacity = capacity;
  }
  return w->bytes + w->size;
}

static header header_at(const asynctask_writer *w, size_t offset) {
  header h;
  memcpy(&h, w->bytes + offset, sizeof h);
  return h;
}

static void header_set(asynctask_writer *w, size_t offset, const header *h) {
  memcpy(w->bytes + offset, h, sizeof *h);
}

/* A value begins: it is a key, the value of a key, or one of the list. False: not so. `key`: it can be
** one; `number`: it is this integer, or 0. */
static int begin(asynctask_writer *w, int key, lua_Integer number) {
  header h;
  if (w == NULL || w->status != 0) return 0;
  if (w->open == NO_TABLE) {
    if (w->count == INT_MAX) {
      misuse(w, "too many values");
      return 0;
    }
    w->count++;
    return 1;
  }
  h = header_at(w, w->open);
  if (h.items % 2 == 0) {
    if (!key) {
      misuse(w, "a key of a table is nil or NaN");
      return 0;
    }
    if (number > 0 && (uint64_t)number == h.sequence + 1) h.sequence++;
  }
  h.items++;
  header_set(w, w->open, &h);
  return 1;
}

static void put(asynctask_writer *w, int tag, const void *bytes, size_t n) {
  char *p = reserve(w, n + 1);
  if (p == NULL) return;
  *p = (char)tag;
  if (n > 0) memcpy(p + 1, bytes, n);
  w->size += n + 1;
}

void asynctask_write_nil(asynctask_writer *w) {
  if (begin(w, 0, 0)) put(w, TAG_NIL, NULL, 0);
}

void asynctask_write_boolean(asynctask_writer *w, int value) {
  if (begin(w, 1, 0)) put(w, value ? TAG_TRUE : TAG_FALSE, NULL, 0);
}

void asynctask_write_integer(asynctask_writer *w, lua_Integer value) {
  if (begin(w, 1, value)) put(w, TAG_INTEGER, &value, sizeof value);
}

void asynctask_write_number(asynctask_writer *w, lua_Number value) {
  if (begin(w, value == value, 0)) put(w, TAG_NUMBER, &value, sizeof value);
}

void asynctask_write_string(asynctask_writer *w, const char *bytes, size_t size) {
  if (!begin(w, 1, 0) || reserve(w, size) == NULL) return;
  put(w, TAG_STRING, &size, sizeof size);
  if (w->status != 0 || size == 0 || reserve(w, size) == NULL) return;
  memcpy(w->bytes + w->size, bytes, size);
  w->size += size;
}

void asynctask_write_table(asynctask_writer *w) {
  header h = {0, 0, 0};
  if (!begin(w, 1, 0)) return;
  if (w->depth == DEPTH_MAX) {
    misuse(w, "tables nested more than 100 deep");
    return;
  }
  h.outer = w->open;
  put(w, TAG_TABLE, &h, sizeof h);
  if (w->status != 0) return;
  w->open = w->size - sizeof h;
  w->depth++;
}

void asynctask_write_end(asynctask_writer *w) {
  header h;
  if (w == NULL || w->status != 0) return;
  if (w->open == NO_TABLE) {
    misuse(w, "the end of a table that was not begun");
    return;
  }
  h = header_at(w, w->open);
  if (h.items % 2 != 0) {
    misuse(w, "a key of a table without a value");
    return;
  }
  w->open = h.outer;
  w->depth--;
}

int at_values_finish(asynctask_writer *w) {
  if (w == NULL) return 0;
  if (w->status == 0 && w->open != NO_TABLE) misuse(w, "a table was begun and not ended");
  return w->status;
}

const char *at_values_words(const asynctask_writer *w) { return w->words; }

/* ---- pushing ---- */

static int hint(uint64_t n) { return n > INT_MAX / 2 ? INT_MAX / 2 : (int)n; }

/* [-0, +1, m] pushes the value at `p`, in at most DEPTH_MAX levels; returns where the next one is. */
static const char *push_value(lua_State *L, const char *p) {
  header h;
  lua_Integer integer;
  lua_Number number;
  size_t size;
  uint64_t i;
  luaL_checkstack(L, 4, "values");
  switch (*p++) {
    case TAG_NIL: lua_pushnil(L); return p;
    case TAG_FALSE: lua_pushboolean(L, 0); return p;
    case TAG_TRUE: lua_pushboolean(L, 1); return p;
    case TAG_INTEGER:
      memcpy(&integer, p, sizeof integer);
      lua_pushinteger(L, integer);
      return p + sizeof integer;
    case TAG_NUMBER:
      memcpy(&number, p, sizeof number);
      lua_pushnumber(L, number);
      return p + sizeof number;
    case TAG_STRING:
      memcpy(&size, p, sizeof size);
      lua_pushlstring(L, p + sizeof size, size);
      return p + sizeof size + size;
    default:
      memcpy(&h, p, sizeof h);
      p += sizeof h;
      lua_createtable(L, hint(h.sequence), hint(h.items / 2 - h.sequence));
      for (i = 0; i < h.items; i += 2) {
        p = push_value(L, p);
        p = push_value(L, p);
        lua_rawset(L, -3);
      }
      return p;
  }
}

int at_values_push(lua_State *L, const asynctask_writer *w) {
  const char *p;
  int i;
  if (w == NULL) return 0;
  luaL_checkstack(L, w->count, "too many values");
  for (i = 0, p = w->bytes; i < w->count; i++) p = push_value(L, p);
  return w->count;
}

void at_values_push_error(lua_State *L, const asynctask_writer *w, int status, const char *op) {
  if (status == UV_EINVAL && w != NULL && w->words != NULL)
    at_error_push(L, "EINVAL", w->words, op);
  else
    at_error_push_uv(L, status, op, NULL);
}
