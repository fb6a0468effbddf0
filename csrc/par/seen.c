/* seen.c - the values and keys that one message has met: two hash tables with open addressing.
**
** They belong to a codec and are emptied for each message, at a cost that what they held has paid for.
** Plain memory; no Lua. */
#include "par/seen.h"

#include <stdlib.h>
#include <string.h>

#define PLACES_FIRST 64

struct at_seen_entry {
  const void *p;
  size_t number;
};

/* ---- values ---- */

/* What a place says of entry n (from 1) with this hash: entries are fewer than half of the places. */
static uint32_t word(const at_seen *s, uint64_t hash, size_t n) {
  return ((uint32_t)(hash >> 32) & ~(uint32_t)s->mask) | (uint32_t)n;
}

static void insert(at_seen *s, uint64_t hash, size_t n) {
  size_t i = hash & s->mask;
  while (s->index[i] != 0) i = (i + 1) & s->mask;
  s->index[i] = word(s, hash, n);
}

static int grow_entries(at_seen *s) {
  size_t capacity = s->capacity ? s->capacity * 2 : PLACES_FIRST / 2;
  struct at_seen_entry *entries =
      (struct at_seen_entry *)realloc(s->entries, capacity * sizeof *entries);
  if (entries == NULL) return 0;
  s->entries = entries;
  s->capacity = capacity;
  return 1;
}

/* Twice as many places are used. */
static int grow_index(at_seen *s) {
  size_t places = s->index == NULL ? PLACES_FIRST : (s->mask + 1) * 2, i;
  if (places > (size_t)1 << 31) return 0; /* the number of an entry has to fit */
  if (places > s->places) {
    uint32_t *index = (uint32_t *)calloc(places, sizeof *index);
    if (index == NULL) return 0;
    free(s->index);
    s->index = index;
    s->places = places;
  } else {
    memset(s->index, 0, (s->mask + 1) * sizeof *s->index);
  }
  s->mask = places - 1;
  for (i = 0; i < s->count; i++) insert(s, at_seen_hash(s->entries[i].p), i + 1);
  return 1;
}

size_t *at_seen_at(at_seen *s, const void *p, int *fresh) {
  uint64_t hash = at_seen_hash(p);
  uint32_t w, tags;
  size_t i;
  if ((s->count * 2 >= s->mask && !grow_index(s)) || (s->count == s->capacity && !grow_entries(s))) return NULL;
  tags = ~(uint32_t)s->mask;
  for (i = hash & s->mask; (w = s->index[i]) != 0; i = (i + 1) & s->mask) {
    struct at_seen_entry *e = &s->entries[(w & s->mask) - 1];
    if (((w ^ (uint32_t)(hash >> 32)) & tags) != 0 || e->p != p) continue;
    *fresh = 0;
    return &e->number;
  }
  *fresh = 1;
  s->entries[s->count].p = p;
  s->index[i] = word(s, hash, s->count + 1);
  return &s->entries[s->count++].number;
}

void at_seen_clear(at_seen *s) {
  if (s->count == 0) return;
  memset(s->index, 0, (s->mask + 1) * sizeof *s->index);
  s->mask = PLACES_FIRST - 1;
  s->count = 0;
}

void at_seen_free(at_seen *s) {
  free(s->entries);
  free(s->index);
  memset(s, 0, sizeof *s);
}

/* ---- keys ---- */

void at_keys_clear(at_keys *k) {
  if (k->count == 0) return;
  memset(k, 0, sizeof *k);
}
