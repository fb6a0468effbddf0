/* host_hard.c - hard cases of hosts: a loop of the host's with everything in flight when the state closes, what
** runs in which turn of it, states opened and closed thousands of times, what is left of a state after
** asynctask_close, two copies of the library. Built and run by spec/host/hard_spec.lua, with the sanitizer that
** the suite runs under. */
#include "embed.h"

#include <dirent.h>
#include <dlfcn.h>
#include <poll.h>
#include <unistd.h>

static int open_descriptors(void) {
  DIR *d = opendir("/proc/self/fd");
  int n = 0;
  if (d == NULL) return -1;
  while (readdir(d) != NULL) n++;
  closedir(d);
  return n;
}

static long resident_kilobytes(void) {
  long pages = 0, ignored;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f == NULL) return 0;
  if (fscanf(f, "%ld %ld", &ignored, &pages) != 2) pages = 0;
  fclose(f);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* ---- everything in flight ---- */

#ifdef __SANITIZE_THREAD__ /* it delays the signal that stops a job */
#define FOR_EVER "task.run(function() local t = require 'asynctask' t.await(t.delay(400)) end)"
#else
#define FOR_EVER "task.run(function() while true do end end)"
#endif

static const char everything[] =
    "local net, fs, process = require 'asynctask.net', require 'asynctask.fs', require 'asynctask.process'\n"
    "local signal, channel, parallel = require 'asynctask.signal', require 'asynctask.channel', require 'asynctask.parallel'\n"
    "keep = {}\n"
    "local function start(f, ...) keep[#keep + 1] = task.spawn(f, ...) end\n"
    "start(function() await(task.delay(500)) end)\n"
    "start(function() fs.read_file('/etc/passwd'):await() await(task.delay(500)) end)\n"
    "start(function() local f = await(fs.open('/etc/passwd')) keep.f = f await(f:read 'l') keep.read = f:read 'a'\n"
    "  await(task.delay(500)) end)\n"
    "start(function() for e in fs.watch(DIR) do keep.event = e end end)\n"
    "start(function() local server = await(net.listen('127.0.0.1', 0)) keep.server = server\n"
    "  start(function() while true do keep[#keep + 1] = await(server:accept()) end end)\n"
    "  for i = 1, 3 do local c = await(net.connect('127.0.0.1', server:sockname().port)) keep[#keep + 1] = c\n"
    "    start(function() await(c:read 'l') end) start(function() await(c:write(('x'):rep(8000000))) end) end\n"
    "end)\n"
    "start(function() local s = await(net.listen {path = DIR .. '/socket'}) keep.unix = s await(s:accept()) end)\n"
    "start(function() local a, b = await(net.pair()) keep.a, keep.b = a, b keep.w = a:write(('y'):rep(8000000))\n"
    "  keep.closing = a:close() await(b:read_some()) await(task.delay(500)) end)\n"
    "start(function() local u = net.udp() keep.u = u await(u:bind('127.0.0.1', 0)) await(u:receive()) end)\n"
    "start(function() await(net.resolve 'localhost') await(task.delay(500)) end)\n"
    "start(function() keep.p = await(process.spawn{'sleep', '500'}) await(keep.p:wait()) end)\n"
    "start(function() keep.q = await(process.spawn{'cat', stdin = 'pipe', stdout = 'pipe'}) await(keep.q.stdout:read 'a') end)\n"
    "start(function() await(signal.wait 'SIGUSR1') end)\n"
    "start(function() for s in signal.each 'SIGUSR2' do keep.s = s end end)\n"
    "start(function() await(task.run(function() local t = require 'asynctask' t.await(t.delay(500)) end)) end)\n"
    "start(function() await(" FOR_EVER ") end)\n"
    "keep.thread = task.thread(function() local t = require 'asynctask' t.await(t.delay(500)) end)\n"
    "local shared = channel.shared(1)\n"
    "start(function() await(shared:receive()) end)\n"
    "start(function() await(task.run(function(c) require 'asynctask'.await(c:receive()) end, shared)) end)\n"
    "start(function() await(channel.new(0):receive()) end)\n"
    "start(function() parallel.range(1, 1000, function() local t = require 'asynctask' t.await(t.delay(1)) end) end)\n"
    "start(function() await(task.when_any(task.source(), task.delay(500))) end)\n"
    "start(function() task.with_timeout(500, function() await(task.delay(400)) end) end)\n";

static lua_State *busy_state(uv_loop_t *loop, const char *directory) {
  asynctask_options options = {.size = sizeof options, .loop = loop};
  lua_State *L = ready_state(&options);
  lua_pushstring(L, directory);
  lua_setglobal(L, "DIR");
  run_chunk(L, everything);
  return L;
}

static int left;

static void count_open(uv_handle_t *handle, void *arg) {
  (void)arg;
  if (!uv_is_closing(handle)) left++;
}

static void host_tick(uv_timer_t *timer) { ++*(int *)timer->data; }

/* The state closes at any moment; what is the host's goes on, and its loop can be closed. */
static void everything_in_flight(void) {
  char directory[] = "/tmp/asynctask-hard-XXXXXX";
  int round, fds;
  CHECK(mkdtemp(directory) != NULL);
  for (round = 0; round < 8; round++) {
    uv_loop_t loop;
    uv_timer_t timer;
    lua_State *L;
    int ticks = 0, turns;
    CHECK(uv_loop_init(&loop) == 0);
    CHECK(uv_timer_init(&loop, &timer) == 0);
    timer.data = &ticks;
    CHECK(uv_timer_start(&timer, host_tick, 1, 1) == 0);
    fds = open_descriptors();
    L = busy_state(&loop, directory);
    for (turns = round * round * 4; turns > 0; turns--) uv_run(&loop, UV_RUN_ONCE);
    if (round % 2 == 0) EQUAL(0, asynctask_close(L, 0));
    lua_close(L);
    left = 0;
    uv_walk(&loop, count_open, NULL);
    EQUAL(1, left); /* the host's timer */
    ticks = 0;
    for (turns = 0; turns < 3; turns++) uv_run(&loop, UV_RUN_ONCE);
    CHECK(ticks > 0);
    if (round > 0) EQUAL(fds, open_descriptors());
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    EQUAL(0, uv_loop_close(&loop));
  }
  CHECK(rmdir(directory) == 0); /* the Unix socket's path is gone, too */
}

/* The same on loops of their own, closed in order with some grace, and at once. */
static void everything_own_loop(void) {
  char directory[] = "/tmp/asynctask-hard-XXXXXX";
  int round, fds = 0;
  CHECK(mkdtemp(directory) != NULL);
  for (round = 0; round < 4; round++) {
    lua_State *L;
    if (round == 1) fds = open_descriptors();
    L = busy_state(NULL, directory);
    asynctask_run(L, 0.01 * round);
    if (round % 2 == 0) EQUAL(0, asynctask_close(L, 5));
    lua_close(L);
    if (round > 0) EQUAL(fds, open_descriptors());
  }
  CHECK(rmdir(directory) == 0);
}

/* ---- what runs in which turn of a host's loop ---- */

static lua_State *turn_state;
static int turn_number, ran_in, polls;
static asynctask_remote *turn_remote;

static void note_turn(uv_prepare_t *handle) {
  (void)handle;
  turn_number++;
}

static int l_here(lua_State *L) {
  (void)L;
  ran_in = turn_number;
  return 0;
}

static void settle_it(lua_State *L, void *data) {
  (void)data;
  run_chunk(L, "source:set_result(1)");
}

static void on_readable(uv_poll_t *handle, int status, int events) {
  char c;
  (void)status;
  (void)events;
  CHECK(read(*(int *)handle->data, &c, 1) == 1);
  polls++;
  if (turn_remote != NULL)
    EQUAL(0, asynctask_call(turn_remote, settle_it, NULL));
  else
    settle_it(turn_state, NULL); /* a host that knows nothing of us: a plain call */
}

/* A task that a callback of the host's makes ready runs in that turn; then the loop sleeps. */
static void same_turn(void) {
  uv_loop_t loop;
  asynctask_options options = {.size = sizeof options, .loop = &loop};
  uv_prepare_t prepare;
  uv_poll_t poll_handle;
  int ends[2], i;
  CHECK(uv_loop_init(&loop) == 0 && pipe(ends) == 0);
  turn_state = ready_state(&options);
  lua_register(turn_state, "here", l_here);
  CHECK(uv_prepare_init(&loop, &prepare) == 0 && uv_prepare_start(&prepare, note_turn) == 0);
  CHECK(uv_poll_init(&loop, &poll_handle, ends[0]) == 0);
  poll_handle.data = &ends[0];
  CHECK(uv_poll_start(&poll_handle, UV_READABLE, on_readable) == 0);
  for (i = 0; i < 2; i++) {
    int before;
    turn_remote = i ? asynctask_remote_new(turn_state) : NULL;
    spawn_chunk(turn_state, "source = task.source() await(source.task) here()");
    uv_run(&loop, UV_RUN_NOWAIT);
    ran_in = 0;
    before = turn_number;
    CHECK(write(ends[1], "x", 1) == 1);
    uv_run(&loop, UV_RUN_NOWAIT);
    EQUAL(i + 1, polls);
    EQUAL(before + 1, ran_in); /* not a turn later */
    uv_run(&loop, UV_RUN_NOWAIT);
    EQUAL(-1, uv_backend_timeout(&loop)); /* it may sleep */
    if (turn_remote != NULL) asynctask_remote_release(turn_remote);
  }
  uv_close((uv_handle_t *)&prepare, NULL);
  uv_close((uv_handle_t *)&poll_handle, NULL);
  lua_close(turn_state);
  uv_run(&loop, UV_RUN_DEFAULT);
  EQUAL(0, uv_loop_close(&loop));
  close(ends[0]);
  close(ends[1]);
}

/* S16, and what else is refused on a loop of the host's. */
static void host_loop_refusals(void) {
  uv_loop_t loop;
  asynctask_options options = {.size = sizeof options, .loop = &loop};
  lua_State *L;
  CHECK(uv_loop_init(&loop) == 0);
  L = ready_state(&options);
  EQUAL(1, integer_of(L, "local ok, e = pcall(await, task.delay(0.01))\n"
                         "return not ok and tostring(e):find('while the host runs the loop: spawn a task', 1, true) and 1 or 0"));
  EQUAL(1, integer_of(L, "local ok, e = pcall(require 'asynctask.loop'.step, 0) return not ok and e:find 'the host\\'s' and 1 or 0"));
  EQUAL(1, integer_of(L, "local ok, e = pcall(require 'asynctask.loop'.run, 0) return not ok and e:find 'the host\\'s' and 1 or 0"));
  EQUAL(1, integer_of(L, "return pcall(require 'asynctask.loop'.drive, false) and 0 or 1"));
  EQUAL(1, integer_of(L, "return pcall(task.with_timeout, 5, function() await(task.delay(0.01)) end) and 0 or 1"));
  EQUAL(UV_EINVAL, asynctask_run(L, 0));
  CHECK(asynctask_loop(L) == &loop);
  EQUAL(uv_backend_fd(&loop), asynctask_fd(L));
  EQUAL(3, integer_of(L, "local t = task.spawn(function() return 3 end) return (await(t))")); /* has settled */
  lua_close(L);
  uv_run(&loop, UV_RUN_NOWAIT);
  EQUAL(0, uv_loop_close(&loop));
}

/* ---- closing from the host's own callbacks ---- */

static void close_it(uv_timer_t *timer) {
  lua_close(timer->data);
  uv_close((uv_handle_t *)timer, NULL);
}

/* lua_close inside the host's uv_run, in a callback of the host's. */
static void closed_in_callback(void) {
  char directory[] = "/tmp/asynctask-hard-XXXXXX";
  uv_loop_t loop;
  uv_timer_t timer;
  CHECK(mkdtemp(directory) != NULL);
  CHECK(uv_loop_init(&loop) == 0 && uv_timer_init(&loop, &timer) == 0);
  timer.data = busy_state(&loop, directory);
  CHECK(uv_timer_start(&timer, close_it, 30, 0) == 0);
  EQUAL(0, uv_run(&loop, UV_RUN_DEFAULT));
  EQUAL(0, uv_loop_close(&loop));
  CHECK(rmdir(directory) == 0);
}

/* ---- again and again ---- */

static void open_and_close(int i) {
  asynctask_options options = {.size = sizeof options, .host_driven = 1};
  uv_loop_t loop;
  lua_State *L = bare_state();
  if (i % 3 == 2) {
    CHECK(uv_loop_init(&loop) == 0);
    options.loop = &loop;
  }
  CHECK(asynctask_open(L, &options) == 0);
  if (i % 10 == 0) run_chunk(L, "local task = require 'asynctask' task.on_unobserved(function() end)\n"
                                "task.spawn(function() task.await(task.delay(10)) end)");
  if (i % 2 == 0) EQUAL(0, asynctask_close(L, 0));
  lua_close(L);
  if (i % 3 == 2) {
    uv_run(&loop, UV_RUN_NOWAIT);
    EQUAL(0, uv_loop_close(&loop));
  }
}

/* ROUNDS states, one after the other: memory and descriptors stay as they are. */
static void again_and_again(void) {
  const char *text = getenv("ROUNDS");
  int rounds = text != NULL ? atoi(text) : 1000, i, fds = 0;
  long kilobytes = 0;
  for (i = 0; i < rounds + 200; i++) {
    if (i == 200) {
      fds = open_descriptors();
      kilobytes = resident_kilobytes();
    }
    open_and_close(i);
  }
  EQUAL(fds, open_descriptors());
  if (getenv("SANITIZED") == NULL && resident_kilobytes() > kilobytes + 1024) {
    fprintf(stderr, "grown from %ld KB to %ld KB\n", kilobytes, resident_kilobytes());
    exit(1);
  }
}

/* ---- after asynctask_close ---- */

/* Whatever the library offers raises, or answers; nothing crashes. */
static void use_after_close(void) {
  lua_State *L = ready_state(NULL);
  run_chunk(L, "mods = {} for _, n in ipairs{'fs', 'net', 'process', 'signal', 'channel', 'sync', 'parallel', 'array', 'loop', 'tty',\n"
               "  'testing', 'coroutine'} do mods[n] = require('asynctask.' .. n) end\n"
               "group = task.group() t = task.spawn(function() await(task.delay(9)) end) t2 = task.delay(8)\n"
               "ch, sh = mods.channel.new(1), mods.channel.shared(1) src = task.source() c = task.cancellation()\n"
               "m, ev, sem = mods.sync.mutex(), mods.sync.event(), mods.sync.semaphore(1)\n"
               "server = await(mods.net.listen('127.0.0.1', 0)) a, b = await(mods.net.pair())\n"
               "file = await(mods.fs.open('/etc/passwd')) v = task.local_value(1)\n"
               "job = " FOR_EVER " pool = task.pool{threads = 1}\n"
               "arr = mods.array.new and mods.array.new('i32', 4)");
  EQUAL(0, asynctask_close(L, 0));
  run_chunk(L, "local objects = {task, group, t, t2, ch, sh, src, c, m, ev, sem, server, a, b, file, v, job, pool}\n"
               "for _, mod in pairs(mods) do objects[#objects + 1] = mod end\n"
               "local dangerous = {main = true, install = true}\n"
               "for i = 1, 19 + 12 do local o = objects[i]\n"
               "  local methods = type(o) == 'table' and o or o and (getmetatable(o) or {}).__index\n"
               "  if type(methods) == 'table' then\n"
               "    local names = {} for name in pairs(methods) do names[#names + 1] = name end\n"
               "    for _, name in ipairs(names) do local f = methods[name]\n"
               "      if type(f) == 'function' and not dangerous[name] then\n"
               "        for _, args in ipairs{{}, {1}, {'/etc/passwd'}, {print}, {0.01, print}, {t}, {'127.0.0.1', 1}} do\n"
               "          pcall(f, o, table.unpack(args)) if type(o) == 'table' then pcall(f, table.unpack(args)) end\n"
               "        end end end end end\n"
               "collectgarbage()");
  EQUAL(1, integer_of(L, "local ok, e = pcall(task.delay, 1) return e:find('the runtime of this state is closed', 1, true) and 1 or 0"));
  EQUAL(1, integer_of(L, "local ok, e = pcall(task.spawn, print) return e:find('the runtime of this state is closed', 1, true) and 1 or 0"));
  EQUAL(UV_ECANCELED, asynctask_open(L, NULL));
  lua_close(L);
}

/* ---- two copies ---- */

typedef int (*opener)(lua_State *L);

static opener open_of(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  opener f;
  if (library == NULL) fprintf(stderr, "%s\n", dlerror());
  CHECK(library != NULL);
  *(void **)&f = dlsym(library, "luaopen_asynctask_core");
  CHECK(f != NULL);
  return f;
}

static lua_State *state_of(opener f) {
  lua_State *L = bare_state();
  luaL_requiref(L, "asynctask.core", f, 0);
  lua_pop(L, 1);
  run_chunk(L, "task = require 'asynctask' await = task.await");
  return L;
}

/* Two copies of core.so at different paths, in two states and in one; closed while the other is in use. */
static void two_copies(void) {
  opener one = open_of(getenv("COPY1")), other = open_of(getenv("COPY2"));
  lua_State *L, *M;
  CHECK(one != other && one != luaopen_asynctask_core);
  L = state_of(one);
  M = state_of(other);
  EQUAL(3, integer_of(L, "keep = task.delay(50) return await(task.run(function() return 3 end))"));
  EQUAL(4, integer_of(M, "return await(task.run(function() local t = require 'asynctask' t.await(t.delay(0.001)) return 4 end))"));
  lua_close(L);
  EQUAL(5, integer_of(M, "return await(task.delay(0.001, 5))"));
  /* In a state that has one, the other gives what the first has: one runtime, one loop. */
  run_chunk(M, "first = require 'asynctask.core'");
  lua_pushcfunction(M, one);
  CHECK(lua_pcall(M, 0, 1, 0) == LUA_OK);
  lua_setglobal(M, "second");
  EQUAL(6, integer_of(M, "return await(second.delay(0.001, 6))"));
  EQUAL(1, integer_of(M, "return first.is_task(second.delay(0)) and 1 or 0"));
  EQUAL(UV_EEXIST, asynctask_open(M, NULL)); /* the program's own copy does not take it over */
  EQUAL(UV_ENOENT, asynctask_step(M, 0));
  lua_close(M);
}

/* A host has the library linked in and attached; a script loads core.so: it gets the host's runtime. */
static void linked_and_loaded(void) {
  asynctask_options options = {.size = sizeof options, .host_driven = 1};
  lua_State *L = bare_state();
  EQUAL(0, asynctask_open(L, &options));
  luaL_requiref(L, "asynctask.core", open_of(getenv("COPY1")), 0);
  run_chunk(L, "task = require 'asynctask' await = task.await task.spawn(function() await(task.yield()) done = 1 end)");
  EQUAL(0, asynctask_step(L, -1));
  EQUAL(1, integer_of(L, "return done"));
  lua_close(L);
}

/* ---- states on several threads, with hosts' loops ---- */

static void *drive(void *arg) {
  uv_loop_t loop;
  asynctask_options options = {.size = sizeof options, .loop = &loop};
  lua_State *L;
  CHECK(uv_loop_init(&loop) == 0);
  if (arg != NULL) options.loop = NULL;
  L = ready_state(&options);
  spawn_chunk(L, "local net = require 'asynctask.net' local a, b = await(net.pair()) local n = 0\n"
                 "for i = 1, 50 do await(a:write(i .. '\\n')) n = n + tonumber(await(b:read 'l')) end\n"
                 "await(task.delay(0.001)) return n + await(task.run(function() return 1 end))");
  if (arg != NULL)
    EQUAL(0, asynctask_run(L, -1));
  else
    while (asynctask_task_state(L, -1) == ASYNCTASK_PENDING) uv_run(&loop, UV_RUN_ONCE);
  EQUAL(1, asynctask_task_values(L, -1));
  EQUAL(1276, lua_tointeger(L, -1));
  lua_close(L);
  uv_run(&loop, UV_RUN_NOWAIT);
  EQUAL(0, uv_loop_close(&loop));
  return NULL;
}

static void on_threads(void) {
  static int own;
  pthread_t threads[8];
  int round, i;
  for (round = 0; round < 3; round++) {
    for (i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, drive, i % 2 ? &own : NULL) == 0);
    for (i = 0; i < 8; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  }
}

/* ---- waking ---- */

static atomic_int wakes;

static void on_wake(void *data) { atomic_fetch_add((atomic_int *)data, 1); }

static int quiet_wakes(lua_State *L) {
  while (asynctask_step(L, -1) == 1) continue;
  rest(0.02);
  while (asynctask_step(L, -1) == 1) continue;
  return atomic_load(&wakes);
}

/* What becomes ready outside a step wakes the host once: work, an earlier timer, an operation that the loop has to
** hear of. Not so what happens in a step. */
static void wakes_of_the_loop_thread(void) {
  asynctask_options options = {.size = sizeof options, .host_driven = 1, .wake = on_wake, .wake_data = &wakes};
  lua_State *L = ready_state(&options);
  int before = quiet_wakes(L);
  run_chunk(L, "task.spawn(function() await(task.yield()) end) task.spawn(function() await(task.yield()) end)");
  EQUAL(before + 1, atomic_load(&wakes));
  before = quiet_wakes(L);
  run_chunk(L, "long = task.delay(1000)");
  EQUAL(before + 1, atomic_load(&wakes)); /* the host was told to sleep for ever */
  before = quiet_wakes(L);
  run_chunk(L, "task.delay(2000)");
  EQUAL(before, atomic_load(&wakes)); /* that is soon enough for it */
  run_chunk(L, "task.delay(5)");
  EQUAL(before + 1, atomic_load(&wakes));
  before = quiet_wakes(L);
  run_chunk(L, "task.spawn(function() local a, b = await(require 'asynctask.net'.pair()) keep = {a, b} await(b:read()) end)");
  EQUAL(before + 1, atomic_load(&wakes));
  before = quiet_wakes(L);
  options.wake = NULL;
  EQUAL(0, asynctask_open(L, &options)); /* no more */
  run_chunk(L, "task.spawn(function() await(task.yield()) end)");
  rest(0.01);
  EQUAL(before, atomic_load(&wakes));
  lua_close(L);
}

static const test_case cases[] = {
    {"everything_in_flight", everything_in_flight},
    {"everything_own_loop", everything_own_loop},
    {"same_turn", same_turn},
    {"host_loop_refusals", host_loop_refusals},
    {"closed_in_callback", closed_in_callback},
    {"again_and_again", again_and_again},
    {"use_after_close", use_after_close},
    {"two_copies", two_copies},
    {"linked_and_loaded", linked_and_loaded},
    {"on_threads", on_threads},
    {"wakes_of_the_loop_thread", wakes_of_the_loop_thread},
    {NULL, NULL},
};

int main(int argc, char **argv) { return run_cases(cases, argc, argv); }
