/* format.c - the read formats of io over bytes that arrive in pieces. Owns nothing; any thread.
** Invariant: searching looks at every byte a bounded number of times however small the pieces are,
** and only plan->found, end and seen change until the plan is answered.
** Follows the Lua 5.4 manual, file:read, and its numerals (section 3.1). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif

#include "base/format.h"

#include <lauxlib.h>
#include <stdint.h>
#include <string.h>
#include <uv.h>

#define AT_NUMERAL_MAX 200 /* as in io: longer ones are no numerals */

/* ---- arguments ---- */

/* The format of a name as io knows them: "l", "*l", "line"; -1: none. */
static int by_name(const char *name) {
  if (*name == '*') name++;
  switch (*name) {
    case 'l': return AT_FORMAT_LINE;
    case 'L': return AT_FORMAT_LINE_KEEP;
    case 'n': return AT_FORMAT_NUMBER;
    case 'a': return AT_FORMAT_ALL;
    default: return -1;
  }
}

int at_format_check(lua_State *L, int first) {
  int top = lua_gettop(L), arg;
  if (top < first) return 1;
  if (top - first >= AT_FORMATS_MAX) return luaL_error(L, "too many formats in one read");
  for (arg = first; arg <= top; arg++) {
    if (lua_type(L, arg) == LUA_TNUMBER) {
      if (luaL_checkinteger(L, arg) < 0) return luaL_argerror(L, arg, "negative count");
    } else if (lua_type(L, arg) != LUA_TSTRING) {
      return luaL_argerror(L, arg,
                           lua_pushfstring(L, "format or count expected, got %s",
                                           luaL_typename(L, arg)));
    } else if (by_name(lua_tostring(L, arg)) < 0) {
      return luaL_argerror(L, arg, lua_pushfstring(L, "invalid format '%s'", lua_tostring(L, arg)));
    }
  }
  return top - first + 1;
}

static void plan_init(at_plan *plan, at_item *items, int count) {
  memset(plan, 0, sizeof *plan);
  memset(items, 0, (size_t)count * sizeof *items);
  plan->items = items;
  plan->count = count;
  plan->max = SIZE_MAX;
}

void at_format_plan(lua_State *L, int first, at_plan *plan, at_item *items, int count) {
  int i;
  plan_init(plan, items, count);
  for (i = 0; i < count; i++) {
    int arg = first + i;
    if (lua_type(L, arg) == LUA_TNUMBER) {
      items[i].format = AT_FORMAT_COUNT;
      items[i].limit = (size_t)lua_tointeger(L, arg);
    } else {
      items[i].format = (unsigned char)(lua_isnone(L, arg) ? AT_FORMAT_LINE
                                                           : by_name(lua_tostring(L, arg)));
    }
  }
}

void at_format_single(at_plan *plan, at_item *item, int format, size_t limit) {
  plan_init(plan, item, 1);
  item->format = (unsigned char)format;
  item->limit = limit;
}

/* ---- numerals ---- */

typedef struct numeral {
  const char *bytes;
  size_t size, at;
  int ended;   /* no more bytes will come */
  int starved; /* the next byte decides and is not there yet */
  int bad;     /* too long */
} numeral;

/* Takes the next byte if it is in `set`. */
static int take(numeral *n, const char *set) {
  if (n->at == n->size) {
    if (!n->ended) n->starved = 1;
    return 0;
  }
  if (n->bytes[n->at] == '\0' || strchr(set, n->bytes[n->at]) == NULL) return 0;
  if (n->at == AT_NUMERAL_MAX) {
    n->bad = 1;
    return 0;
  }
  n->at++;
  return 1;
}

static int take_digits(numeral *n, int hex) {
  const char *set = hex ? "0123456789abcdefABCDEF" : "0123456789";
  int count = 0;
  while (take(n, set)) count++;
  return count;
}

/* Reads the longest prefix of a numeral; true if it is a whole one. */
static int take_numeral(numeral *n) {
  int hex = 0, digits = 0;
  take(n, "+-");
  if (take(n, "0")) {
    if (take(n, "xX"))
      hex = 1;
    else
      digits = 1;
  }
  digits += take_digits(n, hex);
  if (take(n, ".")) digits += take_digits(n, hex);
  if (digits > 0 && take(n, hex ? "pP" : "eE")) {
    take(n, "+-");
    digits = take_digits(n, 0);
  }
  return digits > 0 && !n->bad;
}

/* ---- searching ---- */

static int is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The current item has the value of `length` bytes at `start`; the next one begins at `end`. */
static int answer(at_plan *plan, size_t start, size_t length, size_t end) {
  at_item *item = &plan->items[plan->found];
  item->start = start;
  item->length = length;
  plan->end = end;
  plan->seen = 0;
  return 1;
}

/* The current item fails, which ends the plan; the bytes up to `end` are taken all the same. */
static int fail(at_plan *plan, size_t end) {
  plan->items[plan->found].fails = 1;
  plan->count = plan->found + 1;
  plan->end = end;
  return 1;
}

/* What is left once no more bytes come: a last value, or none. */
static int rest(at_plan *plan, size_t size) {
  if (size == plan->end) return fail(plan, plan->end);
  return answer(plan, plan->end, size - plan->end, size);
}

static int search_number(at_plan *plan, const char *bytes, size_t size, int ended) {
  numeral n = {0};
  size_t start = plan->end + plan->seen;
  int whole;
  while (start < size && is_space(bytes[start])) start++;
  plan->seen = start - plan->end;
  if (plan->seen > plan->max) return UV_EMSGSIZE;
  n.bytes = bytes + start;
  n.size = size - start;
  n.ended = ended;
  whole = take_numeral(&n);
  if (n.starved) return 0;
  if (!whole) return fail(plan, start + n.at);
  return answer(plan, start, n.at, start + n.at);
}

/* A line, or what stands before the delimiter: `size` bytes have come, the mark ends it. */
static int search_mark(at_plan *plan, const char *bytes, size_t size, int ended, const char *mark,
                       size_t mark_size, int keep) {
  size_t from = plan->end + plan->seen, length;
  const char *at = mark_size == 1 ? memchr(bytes + from, *mark, size - from)
                                  : memmem(bytes + from, size - from, mark, mark_size);
  if (at != NULL) {
    length = (size_t)(at - bytes) - plan->end;
    if (length > plan->max) return UV_EMSGSIZE;
    return answer(plan, plan->end, length + (keep ? mark_size : 0),
                  plan->end + length + mark_size);
  }
  length = size - plan->end;
  plan->seen = length >= mark_size ? length - (mark_size - 1) : 0;
  if (plan->seen > plan->max) return UV_EMSGSIZE;
  return ended ? rest(plan, size) : 0;
}

static int search_item(at_plan *plan, const char *bytes, size_t size, int ended) {
  const at_item *item = &plan->items[plan->found];
  size_t have = size - plan->end;
  int keep = item->format == AT_FORMAT_LINE_KEEP || item->format == AT_FORMAT_UNTIL_KEEP;
  switch (item->format) {
    case AT_FORMAT_LINE:
    case AT_FORMAT_LINE_KEEP:
      return search_mark(plan, bytes, size, ended, "\n", 1, keep);
    case AT_FORMAT_UNTIL:
    case AT_FORMAT_UNTIL_KEEP:
      return search_mark(plan, bytes, size, ended, plan->delimiter, plan->delimiter_size, keep);
    case AT_FORMAT_NUMBER: return search_number(plan, bytes, size, ended);
    case AT_FORMAT_ALL: return ended ? answer(plan, plan->end, have, size) : 0;
    case AT_FORMAT_SOME:
      if (have == 0) return ended ? fail(plan, plan->end) : 0;
      if (have > item->limit) have = item->limit;
      return answer(plan, plan->end, have, plan->end + have);
    default: /* COUNT: of 0 asks whether there is more */
      if (have > 0 && have >= item->limit)
        return answer(plan, plan->end, item->limit, plan->end + item->limit);
      return ended ? rest(plan, size) : 0;
  }
}

int at_format_search(at_plan *plan, const char *bytes, size_t size, int ended) {
  if (size == 0) bytes = ""; /* no arithmetic on NULL */
  while (plan->found < plan->count) {
    int status = search_item(plan, bytes, size, ended);
    if (status <= 0) return status;
    plan->found++;
  }
  return 1;
}

/* ---- values ---- */

int at_format_push(lua_State *L, const at_plan *plan, const char *bytes) {
  int i;
  if (plan->count > 2) luaL_checkstack(L, plan->count, "too many formats");
  for (i = 0; i < plan->count; i++) {
    const at_item *item = &plan->items[i];
    if (item->fails) {
      lua_pushnil(L);
    } else if (item->format == AT_FORMAT_NUMBER) {
      char text[AT_NUMERAL_MAX + 1];
      memcpy(text, bytes + item->start, item->length);
      text[item->length] = '\0';
      if (lua_stringtonumber(L, text) == 0) lua_pushnil(L);
    } else {
      lua_pushlstring(L, item->length > 0 ? bytes + item->start : "", item->length);
    }
  }
  return plan->count;
}
