/* fuzz_format.c - a fuzz target for base/format.c and base/buffer.c: whatever the pieces in which
** bytes arrive, a plan is answered as it is when all are there at once; bytes past the end of the
** input are never read. Build and run:
**   clang -g -O1 -fsanitize=fuzzer,address,undefined -Icsrc $(pkg-config --cflags lua5.4) \
**     spec/c/fuzz_format.c csrc/base/format.c csrc/base/buffer.c -llua5.4 -luv -o /tmp/fuzz
**   /tmp/fuzz -max_total_time=30 -max_len=300 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/format.h"

#define ITEMS 4

/* The input's first bytes say what is asked for. */
static size_t make_plan(at_plan *plan, at_item *items, const uint8_t *data, size_t size) {
  int count = 1 + data[0] % ITEMS, i;
  at_format_single(plan, items, AT_FORMAT_LINE, 0);
  memset(items, 0, ITEMS * sizeof *items);
  plan->count = count;
  plan->max = data[1] % 4 == 0 ? data[1] : SIZE_MAX;
  plan->delimiter = (const char *)data + 2;
  plan->delimiter_size = 1 + data[0] / ITEMS % 3;
  for (i = 0; i < count && 5 + (size_t)i < size; i++) {
    items[i].format = data[5 + i] % 8;
    items[i].limit = data[5 + i] / 8;
    if (items[i].format == AT_FORMAT_SOME) items[i].format = AT_FORMAT_COUNT; /* depends on pieces */
  }
  return 5 + ITEMS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  at_item whole_items[ITEMS], items[ITEMS];
  at_plan whole, plan;
  at_buffer b = {0};
  size_t head, at;
  char *bytes;
  int expected, status = 0, ended = 0;
  if (size < 5 + ITEMS + 1) return 0;
  head = make_plan(&whole, whole_items, data, size);
  (void)make_plan(&plan, items, data, size);
  size -= head;
  bytes = malloc(size); /* of exactly this size: a byte too far is found */
  memcpy(bytes, data + head, size);
  expected = at_format_search(&whole, bytes, size, 1);

  for (at = 0; status == 0; ) {
    size_t piece = 1 + data[at % 5] % 7;
    if (at == size) ended = 1;
    if (piece > size - at) piece = size - at;
    if (b.size == 0 && data[3] % 2 && piece > 0)
      at_buffer_borrow(&b, bytes + at, piece);
    else
      (void)at_buffer_append(&b, bytes + at, piece);
    at += piece;
    status = at_format_search(&plan, b.bytes, b.size, ended);
    if (at_buffer_keep(&b) < 0) abort();
    if (status == 0 && ended) abort();
  }
  if (status != expected) abort();
  if (status == 1 && (plan.end != whole.end || plan.count != whole.count ||
                      memcmp(items, whole_items, sizeof items) != 0))
    abort();
  if (status == 1) {
    if (plan.end > b.size || memcmp(b.bytes, bytes, b.size) != 0) abort();
    at_buffer_take(&b, plan.end);
  }
  at_buffer_free(&b);
  free(bytes);
  return 0;
}
