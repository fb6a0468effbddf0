/* seen.h - what one message has met: values that may be met again (shared, or in a cycle), and keys. */
#ifndef AT_PAR_SEEN_H
#define AT_PAR_SEEN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A set of pointers, each with a number. The entries lie in the order in which they came, which is how
** memory likes them; what is looked up at random is an index of four bytes a place. */
typedef struct at_seen {
  struct at_seen_entry *entries; /* owned */
  uint32_t *index;               /* owned; 0, or upper bits of the hash and the number of an entry, from 1 */
  size_t count, capacity;        /* of entries */
  size_t mask, places;           /* places in use - 1 (beyond them all are 0), and all there are */
} at_seen;

/* NULL: out of memory. `*fresh` says if the pointer is new; set the number then. Good until the next call. */
size_t *at_seen_at(at_seen *s, const void *p, int *fresh);
void at_seen_clear(at_seen *s);
void at_seen_free(at_seen *s);

static inline uint64_t at_seen_hash(const void *p) {
  uint64_t x = (uint64_t)(uintptr_t)p;
  x ^= x >> 32;
  x *= UINT64_C(0x9E3779B97F4A7C15);
  return x ^ x >> 32;
}

#define AT_KEYS_MAX 60    /* in one message: a slot of the receiver's Lua stack each */
#define AT_KEY_BYTES 40   /* what Lua interns: the same bytes are at the same place */
#define AT_KEY_PLACES 128 /* a power of two */

/* Keys by the place of their bytes in the sender's memory. A string may have been collected since, and
** another be there: the bytes in the message decide. */
typedef struct at_key {
  const char *bytes;    /* the sender's: compared, not read */
  uint32_t offset;      /* of the bytes in the message */
  unsigned char size;   /* 0: nothing here */
  unsigned char number;
} at_key;

typedef struct at_keys {
  int count;
  at_key at[AT_KEY_PLACES];
} at_keys;

/* The key with these bytes, or the free place where it belongs. `data`: the message. */
static inline at_key *at_keys_at(at_keys *k, const char *data, const char *bytes, size_t size) {
  uintptr_t p = (uintptr_t)bytes;
  size_t i = (p >> 4 ^ p >> 11) & (AT_KEY_PLACES - 1);
  at_key *key;
  while ((key = &k->at[i])->size != 0) {
    if (key->bytes == bytes && key->size == size && memcmp(data + key->offset, bytes, size) == 0) break;
    i = (i + 1) & (AT_KEY_PLACES - 1);
  }
  return key;
}

void at_keys_clear(at_keys *k);

#endif
