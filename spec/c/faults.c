/* faults.c - memory that runs out at every possible moment. Runs each scenario with an allocation that
** fails: the n-th and all after it, the n-th alone (Lua's memory), the n-th of the library's own; n = 1,
** 2, 3 ... until the scenario passes untouched. After each fault there is an error that says so, and the
** same scenario passes in the same state. Built and run by spec/host/faults_spec.lua, with
**     faults [runs [scenario [mode [n]]]]
** With FAULTS_API the scenarios are those of the C API, apiscenarios.h, whose functions are called through
** apimodule.c.
** `runs` bounds how many n a scenario is tried with in each mode, evenly spread; 0: all. */
#include <asynctask.h>
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SPIN 20000 /* failures in one run: a loop that tries again without a pause */
#define HEALS 0.1  /* seconds after the first failure there is memory again */

enum mode { STICKY, ONCE, LIBRARY, MODES };
static const char *const mode_names[] = {"sticky", "once", "library"};

static struct {
  enum mode mode;
  int on;
  long count, at, failed;
  double first; /* time of the first failure */
} fault;

static __thread int on_loop_thread;
static const char *running = "";

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static void complain(const char *what, const char *detail) {
  fprintf(stderr, "faults: %s, %s, allocation %ld: %s%s%s\n", running, mode_names[fault.mode], fault.at,
          what, detail != NULL ? ": " : "", detail != NULL ? detail : "");
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fails(void) {
  if (!fault.on) return 0;
  fault.count++;
  if (fault.mode == STICKY ? fault.count < fault.at : fault.count != fault.at) return 0;
  if (fault.failed == 0) fault.first = now();
  if (fault.failed > 0 && now() > fault.first + HEALS) return 0;
  if (++fault.failed > SPIN) {
    fault.on = 0;
    complain("tries again for ever", NULL);
  }
  return 1;
}

static void *allocate(void *ud, void *p, size_t old, size_t size) {
  (void)ud;
  if (size == 0) {
    free(p);
    return NULL;
  }
  if (fault.mode != LIBRARY && on_loop_thread && (p == NULL || size > old) && fails()) return NULL;
  return __real_realloc(p, size);
}

/* What the library allocates itself; the linker puts these in the place of malloc and its kin. */
static int library_fails(void) { return fault.mode == LIBRARY && on_loop_thread && fails(); }
void *__wrap_malloc(size_t size) { return library_fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t n, size_t size) { return library_fails() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return library_fails() ? NULL : __real_realloc(p, size); }

#ifdef FAULTS_API
int luaopen_apimodule(lua_State *L);
#endif

/* Each is the body of a function on the main chunk; it returns true if all went well. */
static const struct {
  const char *name, *body;
} scenarios[] = {
#ifdef FAULTS_API
#include "apiscenarios.h"
#else
    {"spawn", "local t = spawn(function(...) await(task.yield()) return select('#', ...), ... end, 1, 2, 3)\n"
              "local n, a, b, c = await(t)\n"
              "local d = await(spawn(function() return await(spawn(function() return await(task.delay(0, 7)) end)) end))\n"
              "return n == 3 and c == 3 and d == 7 and await(task.async(function(x) return x end)(5)) == 5"},
    {"fan", "local list = {}\n"
            "for i = 1, 40 do list[i] = spawn(function() await(task.yield()) return i end) end\n"
            "local sum = 0\n"
            "for _, v in ipairs(await(task.when_all(list))) do sum = sum + v end\n"
            "return sum == 820"},
    {"deep", "local function deep(n) if n == 0 then return 0 end return 1 + await(spawn(deep, n - 1)) end\n"
             "return await(spawn(deep, 60)) == 60"},
    {"errors", "local inner = spawn(function() await(task.yield()) error({code = 'EMINE'}) end)\n"
               "local outer = spawn(function() await(inner) end)\n"
               "local _, e = task.try(outer)\n"
               "if e and e.code == 'EMINE' and outer:traceback() then return true end\n"
               "return nil, e"},
    {"cancel", "local closed = 0\n"
               "local t = spawn(function()\n"
               "  local _ <close> = setmetatable({}, {__close = function() closed = closed + 1 end})\n"
               "  local u <const> = task.when_all(task.delay(50), task.delay(60), task.source().task)\n"
               "  await(u)\n"
               "end)\n"
               "t:cancel('enough')\n"
               "local _, e = task.try(t)\n"
               "if e and e.code == 'ECANCELED' and closed == 1 then return true end\n"
               "return nil, e"},
    {"deadline", "local ok, e = task.pcall(task.with_timeout, 0.002, function()\n"
                 "  await(task.when_any(task.delay(50), task.delay(60))) end)\n"
                 "local ok2, e2 = task.pcall(function() await(task.delay(50):timeout(0.001)) end)\n"
                 "if not ok and e.code == 'ETIMEDOUT' and not ok2 and e2.code == 'ETIMEDOUT' then return true end\n"
                 "return nil, not (type(e) == 'table' and e.code == 'ETIMEDOUT') and e or e2"},
    {"combine", "local a, b = task.delay(0.001, 1), task.delay(0.002, 2)\n"
                "local first = await(task.when_any(a, b))\n"
                "local n = 0\n"
                "for t in task.when_each{a, b, task.from_result(3), task.yield()} do await(t) n = n + 1 end\n"
                "local x, y = await(task.when_all(a, b))\n"
                "return first == a and n == 4 and x == 1 and y == 2 and await(task.race(task.delay(9), task.delay(0, 6))) == 6"},
    {"group", "local sum = 0\n"
              "task.with_group({limit = 2}, function(g)\n"
              "  for i = 1, 6 do g:spawn(function() await(task.delay(0.0001 * i)) sum = sum + i end) end\n"
              "end)\n"
              "local ok, e = task.pcall(task.with_group, function(g)\n"
              "  g:spawn(function() await(task.delay(50)) end)\n"
              "  g:spawn(function() await(task.yield()) error('fault', 0) end)\n"
              "  await(task.delay(50))\n"
              "end)\n"
              "if sum == 21 and not ok and e == 'fault' then return true end\n"
              "return nil, e"},
    {"channel", "local c, got = channel.new(2), 0\n"
                "local p = spawn(function() for i = 1, 10 do await(c:send(i)) end c:close() end)\n"
                "for v in c:each() do got = got + v end\n"
                "await(p)\n"
                "local d, e = channel.new(), channel.new()\n"
                "local s = spawn(function() return select(2, await(channel.select(d, e))) end)\n"
                "await(e:send('x'))\n"
                "return got == 55 and await(s) == 'x'"},
    {"locks", "local m, n = sync.mutex(), 0\n"
              "local sem, ev, l = sync.semaphore(1), sync.event(), sync.latch(2)\n"
              "local list = {}\n"
              "for i = 1, 4 do list[i] = spawn(function()\n"
              "  local g <close> = await(m:lock())\n"
              "  local v = n await(task.yield()) n = v + 1\n"
              "end) end\n"
              "spawn(function() await(ev:wait()) l:count_down() end)\n"
              "ev:set() l:count_down()\n"
              "await(l:wait()) await(task.when_all(list))\n"
              "return n == 4"},
    {"source", "local told\n"
               "local s = task.source(function(r) told = r end)\n"
               "local t = s.task:continue_with(function(x) return x.state end)\n"
               "s:set_result(1, 2)\n"
               "await(t)\n"
               "local s2 = task.source(function(r) told = r end)\n"
               "s2.task:cancel('why') await(task.yield()) await(task.yield())\n"
               "local a, b = await(s.task)\n"
               "local lost = spawn(function() local t2 = task.source().task collectgarbage() return await(t2) end)\n"
               "local _, e = task.try(lost)\n"
               "if b == 2 and told == 'why' and e and e.code == 'EABANDONED' then return true end\n"
               "return nil, type(e) == 'table' and e.code == 'EABANDONED' and 'not enough memory' or e"},
    {"cancellation", "local c = task.cancellation()\n"
                     "local d, seen = task.cancellation(c), 0\n"
                     "d:on_cancel(function() seen = seen + 1 end)\n"
                     "local t = spawn(function() d:with(function() await(task.delay(50)) end) end)\n"
                     "c:cancel_after(0.001)\n"
                     "local _, e = task.try(t)\n"
                     "await(task.yield()) await(task.yield())\n"
                     "if e and e.code == 'ECANCELED' and seen == 1 then return true end\n"
                     "return nil, type(e) == 'table' and e.code == 'ECANCELED' and 'not enough memory' or e"},
    {"locals", "local v = task.local_value('a')\n"
               "local x, y = v:with('b', function()\n"
               "  local t = spawn(function() await(task.yield()) return v:get() end)\n"
               "  return await(t), await(task.async(function() return v:get() end)())\n"
               "end)\n"
               "return x == 'b' and y == 'b' and v:get() == 'a'"},
    {"map", "local r = await(task.map({1, 2, 3, 4, 5}, function(i) await(task.yield()) return i * i end, {limit = 2}))\n"
            "return r[5] == 25"},
    {"files", "local name = os.tmpname()\n"
              "local _ <close> = setmetatable({}, {__close = function() os.remove(name) end})\n"
              "await(fs.write_file(name, 'one\\ntwo\\n'))\n"
              "local text, n = await(fs.read_file(name)), 0\n"
              "for line in fs.lines(name) do n = n + #line end\n"
              "local f <close> = await(fs.open(name))\n"
              "local l = await(f:read('l'))\n"
              "local _, e = task.try(fs.read_file(name .. '.not'))\n"
              "if text == 'one\\ntwo\\n' and n == 6 and l == 'one' and e.code == 'ENOENT' then return true end\n"
              "return nil, e"},
    {"echo", "local server <close> = await(net.listen('127.0.0.1', 0))\n"
             "local port = server:sockname().port\n"
             "local serving = server:serve(function(s) await(s:write(await(s:read('l')), '!\\n')) end)\n"
             "local c <close> = await(net.connect('127.0.0.1', port))\n"
             "local answer = task.with_timeout(0.5, function() await(c:write('hello\\n')) return await(c:read('l')) end)\n"
             "await(c:close()) await(server:close()) await(serving)\n"
             "return answer == 'hello!'"},
    {"socket", "local server = assert(socket.bind('127.0.0.1', 0))\n"
               "local _, port = server:getsockname()\n"
               "local serving = spawn(function()\n"
               "  local s = assert(server:accept())\n"
               "  s:send(assert(s:receive()) .. '!\\n') s:close()\n"
               "end)\n"
               "local c = assert(socket.connect('127.0.0.1', port))\n"
               "c:settimeout(0.2) c:send('hello\\n')\n"
               "local readable = socket.select({c}, nil, 0.2)\n"
               "local answer = readable[c] and c:receive()\n"
               "c:close() server:close()\n"
               "if not answer then return nil, 'the server had no memory' end\n"
               "local _, e = task.try(serving)\n"
               "if e then return nil, e end\n"
               "return answer == 'hello!'"},
    {"trees", "local dir = await(fs.mkdtemp())\n"
              "local _ <close> = setmetatable({}, {__close = function() os.execute('rm -rf ' .. dir) end})\n"
              "await(fs.mkdir(dir .. '/a/b', {parents = true}))\n"
              "await(fs.write_file(dir .. '/a/b/c', 'text', {atomic = true}))\n"
              "await(fs.append_file(dir .. '/a/b/c', '\\nmore\\n'))\n"
              "await(fs.copy(dir .. '/a/b/c', dir .. '/a/d'))\n"
              "local n = 0\n"
              "for _, e in fs.walk(dir) do if e.error then error(e.error, 0) end n = n + 1 end\n"
              "local m = #await(fs.glob(dir .. '/**/c'))\n"
              "for _, e in fs.dir(dir .. '/a') do n = n + 1 end\n"
              "local f <close> = await(fs.open(dir .. '/a/d', 'r+'))\n"
              "await(f:write('TEXT')) await(f:seek('set', 0))\n"
              "local x, y = await(f:read('l', 'n'))\n"
              "await(fs.remove(dir .. '/a', {recursive = true}))\n"
              "return n == 6 and m <= 1 and x == 'TEXT'"},
    {"datagrams", "local a <close> = await(net.udp('127.0.0.1', 0))\n"
                  "local b <close> = await(net.udp('127.0.0.1', 0))\n"
                  "local t = b:receive()\n"
                  "await(a:send('ping', '127.0.0.1', b:sockname().port))\n"
                  "local data = task.with_timeout(0.5, function() return await(t) end)\n"
                  "return data == 'ping'"},
    {"handles", "local a, b = await(net.pair())\n"
                "local _ <close> = a\n"
                "local _ <close> = b\n"
                "local server <close> = await(net.listen('127.0.0.1', 0))\n"
                "local t = b:receive_handle()\n"
                "await(a:send_handle(server))\n"
                "local other <close> = task.with_timeout(0.5, function() return await(t) end)\n"
                "await(a:shutdown())\n"
                "return other:sockname().port == server:sockname().port and await(b:read('a')) == ''"},
    {"watch", "local dir = await(fs.mkdtemp())\n"
              "local _ <close> = setmetatable({}, {__close = function() os.execute('rm -rf ' .. dir) end})\n"
              "local w <close> = fs.watch(dir)\n"
              "local tree <close> = fs.watch(dir, {recursive = true})\n"
              "await(fs.mkdir(dir .. '/sub'))\n"
              "local e = task.with_timeout(0.5, function() return await(w:next()) end)\n"
              "local f = task.with_timeout(0.5, function() return await(tree:next()) end)\n"
              "if e.error or f.error then return nil, e.error or f.error end\n"
              "return e.type == 'overflow' or f.type == 'overflow' or e.type == 'create' and f.type == 'create'"},
    {"children", "local out = await(process.run('cat', {}, {input = 'text', timeout = 0.5}))\n"
                 "return out == 'text'"},
    {"jobs", "local pool = task.pool{threads = 1}\n"
             "local c, token = channel.shared(1), task.cancellation()\n"
             "local _ <close> = setmetatable({}, {__close = function() c:close() await(pool:close()) end})\n"
             "local t = pool:run(function(ch, x) return require('asynctask').await(ch:receive()), x:is_cancelled() end, c, token)\n"
             "await(c:send({1, 'two', {3}}))\n"
             "local list, cancelled = task.with_timeout(0.5, function() return await(t) end)\n"
             "local a = array.new('f64', 4)\n"
             "a[1] = 5\n"
             "local v = await(pool:run(function(x) return x[1] end, a))\n"
             "return list[3][1] == 3 and cancelled == false and v == 5"},
#endif
};

static const char prelude[] =
    "task, fs, net = require 'asynctask', require 'asynctask.fs', require 'asynctask.net'\n"
    "channel, sync = require 'asynctask.channel', require 'asynctask.sync'\n"
    "socket, process = require 'asynctask.socket', require 'asynctask.process'\n"
    "array = require 'asynctask.array'\n"
    "await, spawn = task.await, task.spawn\n"
    "task.on_unobserved(function() end)\n"
    "warn('@off')\n"
    /* what a fault left behind ends, and everything is collected */
    "function recover()\n"
    "  collectgarbage()\n" /* a scope that could not even be left */
    "  for _ = 1, 10 do\n"
    "    for _, e in ipairs(task.tasks()) do e.task:cancel() end\n"
    "    await(task.delay(#task.tasks() > 0 and 0.01 or 0)) collectgarbage() await(task.yield())\n" /* children end */
    "  end\n"
    "  if #task.tasks() > 0 then error('tasks that do not end:\\n' .. task.dump()) end\n"
    "end\n";

static lua_State *open_state(const char *body) {
  lua_State *L = lua_newstate(allocate, NULL);
  if (L == NULL) complain("no state", NULL);
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_asynctask_core);
  lua_setfield(L, -2, "asynctask.core");
#ifdef FAULTS_API
  lua_pushcfunction(L, luaopen_apimodule);
  lua_setfield(L, -2, "apimodule");
#endif
  lua_pop(L, 1);
  if (luaL_dostring(L, prelude) || luaL_loadstring(L, body)) complain("setup", lua_tostring(L, -1));
  lua_setglobal(L, "scenario");
  return L;
}

/* What may come out of a faulted run: true, or an error that says that there was no memory. */
static void judge(lua_State *L, int status) {
  const char *text;
  if (status == LUA_OK && lua_toboolean(L, -2)) return;
  lua_getglobal(L, "tostring");
  lua_pushvalue(L, -2);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) complain("an error without text", NULL);
  text = lua_tostring(L, -1);
  if (fault.mode == LIBRARY && strstr(text, "ECONN") != NULL) return; /* the peer had no memory */
  if (strstr(text, "memory") == NULL && strstr(text, "ENOMEM") == NULL && strstr(text, "stack overflow") == NULL &&
      strstr(text, "deadlock") == NULL) /* a task that nobody looks at had no memory */
    complain(status == LUA_OK ? "a wrong result" : "another error", text);
}

static void call_global(lua_State *L, const char *name, int results) {
  lua_getglobal(L, name);
  if (lua_pcall(L, 0, results, 0) != LUA_OK) complain(name, luaL_tolstring(L, -1, NULL));
}

/* Returns whether an allocation failed. */
static int once(const char *body, enum mode mode, long at) {
  lua_State *L;
  int status;
  alarm(getenv("FAULTS_ABORT") ? 5 : 30);
  fault.mode = mode;
  fault.at = at;
  fault.count = fault.failed = 0;
  L = open_state(body);
  luaL_checkstack(L, 40, NULL);
  lua_getglobal(L, "scenario");
  fault.on = 1;
  status = lua_pcall(L, 0, 2, 0);
  fault.on = 0;
  judge(L, status);
  if (fault.failed == 0 && (status != LUA_OK || !lua_toboolean(L, -2))) complain("fails untouched", NULL);
  lua_settop(L, 0);
  call_global(L, "recover", 0);
  call_global(L, "scenario", 2);
  if (!lua_toboolean(L, -2)) complain("does not pass afterwards", luaL_tolstring(L, -1, NULL));
  lua_close(L);
  alarm(0);
  return fault.failed > 0;
}

/* How many allocations the scenario makes. */
static long count(const char *body, enum mode mode) {
  once(body, mode, 1L << 60);
  return fault.count;
}

static void on_alarm(int number) {
  static const char text[] = " hangs\n";
  char line[200];
  int n = snprintf(line, sizeof line, "faults: %s %s %ld%s", running, mode_names[fault.mode], fault.at, text);
  (void)number;
  if (write(2, line, (size_t)n) < 0) _exit(4);
  if (getenv("FAULTS_ABORT") != NULL) abort();
  _exit(3);
}

int main(int argc, char **argv) {
  long runs = argc > 1 ? atol(argv[1]) : 0, total = 0;
  size_t i;
  int mode;
  on_loop_thread = 1;
  signal(SIGALRM, on_alarm);
  for (i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
    running = scenarios[i].name;
    if (argc > 2 && strcmp(argv[2], "all") != 0 && strcmp(argv[2], running) != 0) continue;
    for (mode = 0; mode < MODES; mode++) {
      long n, step;
      if (argc > 3 && strcmp(argv[3], mode_names[mode]) != 0) continue;
      if (argc > 4) {
        once(scenarios[i].body, (enum mode)mode, atol(argv[4]));
        continue;
      }
      n = count(scenarios[i].body, (enum mode)mode);
      step = runs > 0 && n > runs ? n / runs : 1;
      if (getenv("FAULTS_VERBOSE") != NULL) fprintf(stderr, "%s %s %ld\n", running, mode_names[mode], n);
      for (n = 1; once(scenarios[i].body, (enum mode)mode, n) || step > 1; n += step) {
        total++;
        if (fault.failed == 0) break;
      }
    }
  }
  printf("ok %ld\n", total);
  return 0;
}
