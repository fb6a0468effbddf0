/* refuse.c - the errors about values that cannot be copied: the path to the value, and what it is.
** Runs on the encoder's thread, in its state; holds nothing; runs no metamethod. */
#include <string.h>

#include "par/encoder.h"

#define STEPS_SHOWN 12 /* of a path */

/* [-0, +1, m] */
static void push_step(encoder *e, const step *s) {
  lua_State *L = e->L;
  switch (s->kind) {
    case STEP_ROOT:
    case STEP_DEEP:
      if (s->index < 0) lua_pushliteral(L, "a task-local value");
      else if (e->role == AT_ROLE_ERROR) lua_pushliteral(L, "the error value");
      else if (e->role == AT_ROLE_MESSAGE) lua_pushliteral(L, "the message");
      else if (e->role == AT_ROLE_RESULT) lua_pushfstring(L, "result %d", s->index + 1);
      else if (s->index > 0) lua_pushfstring(L, "argument %d", s->index + 1); /* as in the call */
      else lua_pushliteral(L, "the function");
      if (s->kind == STEP_DEEP) {
        lua_pushliteral(L, ", ...");
        lua_concat(L, 2);
      }
      break;
    case STEP_KEY: lua_pushliteral(L, "a key"); break;
    case STEP_CLASS: lua_pushfstring(L, "class \"%s\"", s->name); break;
    case STEP_DEFAULT: lua_pushliteral(L, "the default of a task-local variable"); break;
    case STEP_UPVALUE: lua_pushfstring(L, "upvalue \"%s\"", s->name); break;
    default:
      if (lua_type(L, s->index) == LUA_TSTRING)
        lua_pushfstring(L, "field \"%s\"", lua_tostring(L, s->index));
      else if (lua_isinteger(L, s->index))
        lua_pushfstring(L, "index %I", (LUAI_UACINT)lua_tointeger(L, s->index));
      else
        lua_pushfstring(L, "a field whose key is a %s", luaL_typename(L, s->index));
  }
}

/* [-0, +1, m] `argument 2, field "conn"`, or `upvalue "x" of the function`. */
static void push_path(encoder *e, const step *at) {
  lua_State *L = e->L;
  const step *steps[STEPS_SHOWN];
  int n = 0, i, skipped = 0;
  luaL_checkstack(L, STEPS_SHOWN * 2 + 8, "path");
  for (; at != NULL; at = at->outer) { /* innermost first; the middle of a long path is left out */
    if (n == STEPS_SHOWN) {
      memmove(&steps[STEPS_SHOWN / 2], &steps[STEPS_SHOWN / 2 + 1],
              (STEPS_SHOWN - STEPS_SHOWN / 2 - 1) * sizeof *steps);
      n--;
      skipped++;
    }
    steps[n++] = at;
  }
  i = n - 1;
  if (i > 0 && steps[i]->kind == STEP_ROOT && e->role == AT_ROLE_JOB && steps[i]->index == 0 &&
      steps[i - 1]->kind == STEP_UPVALUE) {
    lua_pushfstring(L, "upvalue \"%s\" of the function", steps[i - 1]->name);
    i -= 2;
  } else {
    push_step(e, steps[i--]);
  }
  for (; i >= 0; i--) {
    lua_pushstring(L, skipped && i == STEPS_SHOWN / 2 - 1 ? ", ..., " : ", ");
    push_step(e, steps[i]);
    lua_concat(L, 3);
  }
}

/* [-0, +1, m] the type's name, with the class where the metatable has one. */
static void push_what(lua_State *L, int index) {
  const char *name = NULL;
  int type = lua_type(L, index);
  if (lua_getmetatable(L, index)) {
    lua_pushliteral(L, "__name");
    if (lua_rawget(L, -2) == LUA_TSTRING) name = lua_tostring(L, -1);
    lua_pop(L, 2); /* the metatable holds the name while the value lives */
  }
  if (type == LUA_TTABLE)
    lua_pushfstring(L, name ? "a table with a metatable (%s)" : "a table with a metatable", name);
  else if (type == LUA_TUSERDATA)
    lua_pushfstring(L, name ? "a userdata (%s)" : "a userdata", name);
  else if (type == LUA_TLIGHTUSERDATA)
    lua_pushliteral(L, "a light userdata");
  else if (type == LUA_TTHREAD)
    lua_pushliteral(L, "a coroutine");
  else
    lua_pushliteral(L, "a C function that is in no loaded module");
}

void at_refuse(encoder *e, int index, const step *at) {
  lua_State *L = e->L;
  luaL_checkstack(L, 8, "error");
  push_path(e, at);
  push_what(L, index);
  luaL_error(L, "%s: cannot copy %s%s", lua_tostring(L, -2), lua_tostring(L, -1),
             lua_istable(L, index) ? "; parallel.class registers it" : "");
}
