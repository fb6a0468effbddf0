/* relay.c - the list of relays of a cancellation source. Owns the relays that are in it; calls them.
** Loop thread only. Invariant: the list is in proportion to the relays that somebody needs, so that a
** source that lives for a million jobs does not grow. */
#include "core/relay.h"

#define RELAYS_FEW 16 /* more are looked through for those that nobody needs */

static void prune(at_relays *list) {
  at_relay **link = &list->first, *r;
  while ((r = *link) != NULL) {
    if (r->needed(r)) {
      link = &r->next;
      continue;
    }
    *link = r->next;
    list->count--;
    r->drop(r);
  }
  list->limit = list->count * 2 + RELAYS_FEW;
}

void at_relays_add(at_relays *list, at_relay *r) {
  if (list->count >= list->limit) prune(list);
  r->next = list->first;
  list->first = r;
  list->count++;
}

void at_relays_fire(lua_State *L, at_relays *list) {
  at_relay *r;
  if (list->first == NULL) return;
  luaL_checkstack(L, 2, "cancellation");
  lua_pushliteral(L, "reason");
  lua_rawget(L, -2);
  while ((r = list->first) != NULL) {
    list->first = r->next;
    list->count--;
    r->cancelled(L, r);
  }
  lua_pop(L, 1);
}

void at_relays_hand_on(const at_relays *list, at_relays *parent) {
  const at_relay *r;
  for (r = list->first; r != NULL; r = r->next) {
    at_relay *again = r->again(r);
    if (again != NULL) at_relays_add(parent, again);
  }
}

void at_relays_drop(at_relays *list) {
  at_relay *r;
  while ((r = list->first) != NULL) {
    list->first = r->next;
    r->drop(r);
  }
  list->count = 0;
}
