/* wake_host.c - a host that sleeps in something which cannot watch a descriptor: an event queue with a lock
** and a condition, as many programs with a window have. Asynctask's wake callback puts an event into it. */
#include <asynctask.h>
#include <lualib.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

static const char script[] =
    "local task, net = require 'asynctask', require 'asynctask.net'\n"
    "local await = task.await\n"
    "local a, b = await(net.pair())\n"
    "local greeting = task.spawn(function() return await(b:read()) end)\n"
    "await(task.delay(0.02))\n"
    "await(a:write('hello\\n'))\n"
    "local sum = task.run(function(n) local s = 0 for i = 1, n do s = s + i end return s end, 1000)\n"
    "print(await(greeting), await(sum))\n";

/* The host's queue. There is only one kind of event here, so a flag is enough. */
typedef struct queue {
  pthread_mutex_t lock;
  pthread_cond_t filled;
  int event;    /* guarded by lock */
  int received; /* main thread */
} queue;

/* On whatever thread has something for the scripts. Calls neither Lua nor asynctask. */
static void wake(void *data) {
  queue *q = data;
  pthread_mutex_lock(&q->lock);
  q->event = 1;
  pthread_cond_signal(&q->filled);
  pthread_mutex_unlock(&q->lock);
}

/* Sleeps until an event comes, or for so many seconds; negative: without limit. */
static void wait_event(queue *q, double seconds) {
  struct timespec until;
  int timed_out = 0;
  clock_gettime(CLOCK_MONOTONIC, &until);
  if (seconds > 3600) seconds = 3600;
  if (seconds > 0) {
    double at = (double)until.tv_nsec + fmod(seconds, 1) * 1e9;
    until.tv_sec += (time_t)seconds + (at >= 1e9);
    until.tv_nsec = (long)(at >= 1e9 ? at - 1e9 : at);
  }
  pthread_mutex_lock(&q->lock);
  while (!q->event && !timed_out)
    timed_out = seconds < 0 ? pthread_cond_wait(&q->filled, &q->lock)
                            : pthread_cond_timedwait(&q->filled, &q->lock, &until);
  q->received += q->event;
  q->event = 0;
  pthread_mutex_unlock(&q->lock);
}

static void ended(lua_State *L, asynctask_state state, int n, void *running) {
  (void)n;
  if (L != NULL && state != ASYNCTASK_SUCCEEDED) printf("failed: %s\n", luaL_tolstring(L, -1, NULL));
  *(int *)running = 0;
}

int main(void) {
  static queue q = {.lock = PTHREAD_MUTEX_INITIALIZER};
  asynctask_options options = {.size = sizeof options, .host_driven = 1, .wake = wake, .wake_data = &q};
  pthread_condattr_t attributes;
  int running = 1, status;
  lua_State *L = luaL_newstate();
  if (L == NULL) return 1;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&q.filled, &attributes);
  luaL_openlibs(L);
  asynctask_preload(L);
  status = asynctask_open(L, &options);
  if (status == 0 && luaL_loadstring(L, script) == LUA_OK) {
    asynctask_spawn(L, 0);
    asynctask_on_settled(L, -1, ended, &running);
    lua_pop(L, 1);
    while (running && status >= 0) {
      wait_event(&q, asynctask_timeout(L)); /* 0 while more is ready: does not sleep then */
      status = asynctask_step(L, 0.005);
    }
  }
  lua_close(L); /* no wake comes after this: the queue may go */
  printf("woken: %s\n", q.received > 0 ? "yes" : "no");
  pthread_cond_destroy(&q.filled);
  pthread_condattr_destroy(&attributes);
  return running || status < 0;
}
