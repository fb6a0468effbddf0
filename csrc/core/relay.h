/* relay.h - the ways out of a cancellation source's state: whoever has to hear of its cancellation
** elsewhere (par) hangs a relay on it. */
#ifndef AT_CORE_RELAY_H
#define AT_CORE_RELAY_H

#include "core/runtime.h"

#pragma GCC visibility push(hidden)

/* Carries one cancellation out. Malloc'd; owned by the list it is in. */
typedef struct at_relay {
  struct at_relay *next;
  unsigned char own; /* made for this source, not handed on by one that was collected */
  /* [-0, +0, -] it was cancelled, with the reason at the top; the relay, out of the list, frees itself. */
  void (*cancelled)(lua_State *L, struct at_relay *r);
  struct at_relay *(*again)(const struct at_relay *r); /* one more for a parent; NULL: not needed, no memory */
  int (*needed)(const struct at_relay *r);             /* somebody would hear of it */
  void (*drop)(struct at_relay *r);                    /* frees it, out of the list. No Lua */
} at_relay;

/* Those of one source. */
typedef struct at_relays {
  at_relay *first;
  size_t count, limit;
} at_relays;

void at_relays_add(at_relays *list, at_relay *r);
/* [-0, +0, m] the source was cancelled with the error object at the top. */
void at_relays_fire(lua_State *L, at_relays *list);
/* A source goes: a parent of it tells those it would have told. */
void at_relays_hand_on(const at_relays *list, at_relays *parent);
void at_relays_drop(at_relays *list);

#pragma GCC visibility pop

#endif
