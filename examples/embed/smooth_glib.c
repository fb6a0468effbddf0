/* smooth_glib.c - a GLib main loop, as programs with a window have, that stays smooth while a script downloads
** and computes. Frames are drawn 100 times a second; the scripts get what is left, in steps of at most four
** milliseconds, from a GSource that watches asynctask's descriptor.
**     build/smooth_glib smooth.lua */
#include <asynctask.h>
#include <glib.h>
#include <lualib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BUDGET 0.004
#define FRAME_MS 10
#define MOST 100000

typedef struct script_source { /* GLib's structure first: it allocates all of it */
  GSource source;
  lua_State *L;
  gpointer watch;
  double longest; /* milliseconds of processor time in one step */
} script_source;

typedef struct window {
  GMainLoop *loop;
  gint64 last; /* when the last frame was drawn, in microseconds */
  double frames[MOST]; /* milliseconds from each frame to the next */
  int count;
  int failed;
} window;

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Before GLib sleeps: is there something to do, and if not, for how long not? */
static gboolean prepare(GSource *source, gint *milliseconds) {
  double seconds = asynctask_timeout(((script_source *)source)->L);
  *milliseconds = seconds < 0 ? -1 : seconds > 3600 ? 3600000 : (gint)ceil(seconds * 1000);
  return seconds == 0;
}

/* After it has slept. */
static gboolean check(GSource *source) {
  script_source *s = (script_source *)source;
  return g_source_query_unix_fd(source, s->watch) != 0 || asynctask_timeout(s->L) == 0;
}

static double processor_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* this thread's: what else the machine does is not in it */
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer data) {
  script_source *s = (script_source *)source;
  double began = processor_ms();
  int status = asynctask_step(s->L, BUDGET);
  (void)callback;
  (void)data;
  s->longest = fmax(s->longest, processor_ms() - began);
  return status >= 0 ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static GSourceFuncs functions = {.prepare = prepare, .check = check, .dispatch = dispatch};

static gboolean draw(gpointer data) {
  window *w = data;
  gint64 now = g_get_monotonic_time();
  if (w->count < MOST) w->frames[w->count++] = (double)(now - w->last) / 1000;
  w->last = now;
  return G_SOURCE_CONTINUE;
}

static void ended(lua_State *L, asynctask_state state, int n, void *data) {
  window *w = data;
  (void)n;
  if (L == NULL) return;
  w->failed = state != ASYNCTASK_SUCCEEDED;
  if (w->failed) printf("the script failed: %s\n", luaL_tolstring(L, -1, NULL));
  g_main_loop_quit(w->loop);
}

static void start(lua_State *L, const char *file, window *w) {
  if (luaL_loadfile(L, file) != LUA_OK) {
    printf("%s\n", lua_tostring(L, -1));
    exit(1);
  }
  asynctask_spawn(L, 0);
  asynctask_on_settled(L, -1, ended, w);
  lua_pop(L, 1);
}

int main(int argc, char **argv) {
  static window w;
  asynctask_options options = {.size = sizeof options, .host_driven = 1};
  GSource *source = g_source_new(&functions, sizeof(script_source));
  script_source *script = (script_source *)source;
  lua_State *L = luaL_newstate();
  if (L == NULL) return 1;
  luaL_openlibs(L);
  asynctask_preload(L);
  if (asynctask_open(L, &options) != 0) return 1;
  script->L = L;
  script->watch = g_source_add_unix_fd(source, asynctask_fd(L), G_IO_IN);
  g_source_set_priority(source, G_PRIORITY_DEFAULT_IDLE); /* frames go first */
  g_source_attach(source, NULL);

  w.loop = g_main_loop_new(NULL, FALSE);
  w.last = g_get_monotonic_time();
  g_timeout_add(FRAME_MS, draw, &w);
  start(L, argc > 1 ? argv[1] : "smooth.lua", &w);
  g_main_loop_run(w.loop);

  printf("the longest step took %.1f ms of the processor, the budget is %.0f ms\n", script->longest, BUDGET * 1e3);
  g_source_destroy(source); /* before the state goes: it looks at it */
  g_source_unref(source);
  g_main_loop_unref(w.loop);
  asynctask_close(L, 1.0);
  lua_close(L);
  if (w.count == 0) return 1;
  qsort(w.frames, (size_t)w.count, sizeof w.frames[0], compare);
  printf("%d frames, every %d ms: median %.1f ms, worst %.1f ms\n", w.count, FRAME_MS, w.frames[w.count / 2],
         w.frames[w.count - 1]);
  return w.failed;
}
