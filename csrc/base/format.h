/* format.h - what a read asks for ("l" "L" "n" "a", counts, delimiters) and whether the bytes that
** have arrived answer it. Searching takes no bytes and keeps its place, so that it can be repeated
** as more arrive and given up at any time; the bytes are taken when the values have been made. */
#ifndef AT_BASE_FORMAT_H
#define AT_BASE_FORMAT_H

#include <lua.h>
#include <stddef.h>

#pragma GCC visibility push(hidden)

#define AT_FORMATS_MAX 64 /* formats in one call */

enum at_format { AT_FORMAT_LINE, AT_FORMAT_LINE_KEEP, AT_FORMAT_NUMBER, AT_FORMAT_ALL,
                 AT_FORMAT_COUNT, AT_FORMAT_SOME, AT_FORMAT_UNTIL, AT_FORMAT_UNTIL_KEEP };

typedef struct at_item {
  size_t limit;         /* COUNT, SOME: bytes wanted at most */
  size_t start, length; /* of the value found, in bytes from the front */
  unsigned char format; /* enum at_format */
  unsigned char fails;  /* found that there is none: nil, and the later ones are not looked for */
} at_item;

typedef struct at_plan {
  at_item *items;
  int count;
  int found;             /* items that are answered */
  size_t end;            /* bytes that these take */
  size_t seen;           /* bytes behind them that were searched in vain */
  size_t max;            /* of a line, or of what stands before a delimiter */
  const char *delimiter; /* borrowed; UNTIL only */
  size_t delimiter_size;
} at_plan;

/* [-0, +0, v] checks the formats at arguments first..top as io does (none: "l"); returns how many
** there are. */
int at_format_check(lua_State *L, int first);

/* [-0, +0, -] the plan of checked formats; `items` has room for at_format_check's number. */
void at_format_plan(lua_State *L, int first, at_plan *plan, at_item *items, int count);

/* A plan of one item. */
void at_format_single(at_plan *plan, at_item *item, int format, size_t limit);

/* 1: answered; 0: needs more bytes; UV_EMSGSIZE: more than plan->max bytes without the end of the
** line. `ended`: no more bytes will come (then never 0). No Lua. */
int at_format_search(at_plan *plan, const char *bytes, size_t size, int ended);

/* [-0, +n, m] pushes the n values of an answered plan (the caller has room for two); plan->end bytes
** may then be taken. */
int at_format_push(lua_State *L, const at_plan *plan, const char *bytes);

#pragma GCC visibility pop

#endif
