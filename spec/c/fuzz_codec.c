/* fuzz_codec.c - a fuzz target for csrc/par's codec. The input's first byte chooses: values made of the
** rest go through a message and have to come out equal; or the rest stands in the place of a message's
** bytes, which may be refused but must not do harm. `make fuzz` builds and runs it (libFuzzer, ASan, UBSan). */
#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "asynctask.h"
#include "par/codec.h"

static lua_State *L;

/* What messages are made of: a function of (bytes) that gives values, and one that compares. */
static const char prelude[] =
  "local core = ...\n"
  "local array, shared, class = core.array, core.sharedchannel, core.par.class\n"
  "function require(name) error('module not found: ' .. tostring(name)) end\n"
  "local Class = { __name = 'Class' } Class.__index = Class class('Class', Class)\n"
  "local Derived = setmetatable({}, Class) Derived.__index = Derived class('Derived', Derived)\n"
  "local count = 0\n"
  "local function increment() count = count + 1 return count end\n"
  "local function current() return count end\n"
  "local fixed = { increment, current, string.format, math, print, array.new('i32', 4), shared.new(1),\n"
  "  core.cancellation(), core.local_value('default'), core.error { code = 'E', message = 'm' }, Class, _G }\n"
  "local made\n"
  "local function make(next, depth)\n"
  "  local kind = next()\n"
  "  local what = kind % 12\n"
  "  if what == 0 then return nil\n"
  "  elseif what == 1 then return kind > 127\n"
  "  elseif what == 2 then return kind - 128\n"
  "  elseif what == 3 then return next() << (next() % 64)\n"
  "  elseif what == 4 then return next() / (next() + 1)\n"
  "  elseif what == 5 then return string.rep(string.char(next()), next() * (kind > 127 and 1 or 40))\n"
  "  elseif what == 6 and #made > 0 then return made[next() % #made + 1]\n"
  "  elseif what == 7 then return fixed[next() % #fixed + 1]\n"
  "  elseif what == 8 then local up = make(next, depth + 1) return function() return up, count end\n"
  "  elseif depth > 150 then return 'deep' end\n"
  "  local t = {}\n"
  "  made[#made + 1] = t\n"
  "  for i = 1, next() % 4 do t[i] = make(next, depth + 1) end\n"
  "  for _ = 1, next() % 3 do\n"
  "    local k = make(next, depth + 1)\n"
  "    if k ~= nil and k == k then t[k] = make(next, depth + 1) end\n"
  "  end\n"
  "  if what == 10 then setmetatable(t, Class) elseif what == 11 then setmetatable(t, Derived) end\n"
  "  return t\n"
  "end\n"
  "local function values(bytes)\n"
  "  local at = 0\n"
  "  made = {}\n"
  "  local function next() at = at + 1 return bytes:byte(at) or 0 end\n"
  "  return make(next, 0), make(next, 0), make(next, 0)\n"
  "end\n"
  "local function same(a, b, seen)\n"
  "  if type(a) ~= type(b) or math.type(a) ~= math.type(b) then return false end\n"
  "  if type(a) == 'table' then\n"
  "    if seen[a] then return seen[a] == b end\n"
  "    seen[a] = b\n"
  "    if getmetatable(a) ~= getmetatable(b) then return false end\n"
  "    local n = 0\n"
  "    for k, v in next, a do\n"
  "      n = n + 1\n"
  "      if type(k) ~= 'table' and type(k) ~= 'function' and type(k) ~= 'userdata' and not same(v, rawget(b, k), seen)\n"
  "      then return false end\n"
  "    end\n"
  "    for _ in next, b do n = n - 1 end\n"
  "    return n == 0\n"
  "  elseif type(a) == 'function' then\n"
  "    for i = 1, 255 do\n"
  "      local name, v = debug.getupvalue(a, i)\n"
  "      local other, w = debug.getupvalue(b, i)\n"
  "      if name ~= other then return false end\n"
  "      if name == nil then return true end\n"
  "      if v ~= _G and type(v) ~= 'userdata' and not same(v, w, seen) then return false end\n"
  "    end\n"
  "  elseif type(a) == 'userdata' then\n"
  "    return getmetatable(a) == getmetatable(b)\n"
  "  end\n"
  "  return a == b\n"
  "end\n"
  "return values, function(a, b, c, d, e, f)\n"
  "  local seen = {}\n"
  "  return same(a, d, seen) and same(b, e, seen) and same(c, f, seen)\n"
  "end, function() return fixed, setmetatable({}, Derived), { { { 1, 2.5, 'three' } } }, same end\n";

/* Upvalues 1 to 3: values, same, samples. stack: codec bytes */
static void round_trip(at_codec *c) {
  at_message m = {0};
  int n;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, 2);
  lua_call(L, 1, 3); /* stack: codec bytes a b c */
  at_encode(L, c, 1, 3, AT_ROLE_RESULT);
  at_message_move(&m, &c->message);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 3);
  n = at_decode(L, c, 1, &m);
  if (n != 3) abort();
  at_message_free(&m);
  lua_call(L, 6, 1);
  if (!lua_toboolean(L, -1)) abort();
}

static at_message hostile; /* freed by whoever called, whatever was raised */

/* Carries and codes are real; the bytes are the fuzzer's, in memory of exactly their size. */
static void attack(at_codec *c, const char *bytes, size_t size) {
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_call(L, 0, 4);
  at_encode(L, c, 1, 3, AT_ROLE_RESULT);
  at_message_move(&hostile, &c->message);
  if (size > 2 && bytes[0] & 1) { /* a few bytes of a real message are changed */
    size_t i;
    for (i = 1; i + 2 < size; i += 3)
      hostile.data[((unsigned char)bytes[i] << 8 | (unsigned char)bytes[i + 1]) % hostile.size] = bytes[i + 2];
    bytes = hostile.data;
    size = hostile.size;
    hostile.data = malloc(size);
    memcpy(hostile.data, bytes, size);
    free((char *)(uintptr_t)bytes);
  } else {
    free(hostile.data);
    hostile.data = malloc(size > 0 ? size : 1);
    memcpy(hostile.data, bytes, size);
    hostile.size = hostile.capacity = size;
    hostile.roots = 2;
  }
  (void)at_decode(L, c, 1, &hostile);
}

/* stack: bytes */
static int l_run(lua_State *state) {
  size_t size;
  const char *bytes = lua_tolstring(L, 1, &size);
  at_codec *c = at_codec_push(L);
  (void)state;
  lua_insert(L, 1);
  if (bytes[0] & 1) round_trip(c);
  else attack(c, bytes + 1, size - 1);
  return 0;
}

static void open_state(void) {
  L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "asynctask.core", luaopen_asynctask_core, 0);
  if (luaL_loadstring(L, prelude) != LUA_OK) abort();
  lua_insert(L, -2);
  lua_call(L, 1, 3);
  lua_pushcclosure(L, l_run, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  at_codec *c;
  if (size < 2) return 0;
  if (L == NULL) open_state();
  c = at_codec_push(L);
  lua_pop(L, 1);
  lua_pushvalue(L, 1);
  lua_pushlstring(L, (const char *)data, size);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK && data[0] & 1) abort(); /* what was made can be copied */
  at_decode_end(L, c);
  at_message_free(&hostile);
  lua_settop(L, 1);
  lua_gc(L, LUA_GCSTEP, 10);
  return 0;
}
