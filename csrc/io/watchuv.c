/* watchuv.c - watching where there is no inotify: libuv's uv_fs_event. Owns the handle. Loop thread.
** What it cannot tell: an overflow, and the two names of a rename (they come as remove and create).
** Whether a tree can be watched is the system's affair (macOS: yes): else the watch fails with ENOTSUP
** or ENOSYS. Also built on Linux with -DAT_WATCH_UV, to try it. */
#if !defined(__linux__) || defined(AT_WATCH_UV)

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/sched.h"
#include "io/watch.h"

typedef struct source {
  uv_fs_event_t handle;
  at_watcher *watcher; /* counted until the handle is closed */
  int directory;       /* the root is one */
} source;

static void on_change(uv_fs_event_t *handle, const char *name, int events, int status) {
  source *s = (source *)(void *)handle;
  at_watcher *w = s->watcher;
  struct stat st;
  char *path;
  int type = AT_WATCH_CHANGE;
  if (status < 0) {
    w->failed = status;
    w->ended = 1;
  } else {
    path = s->directory && name != NULL ? at_watch_join(w->root, name) : strdup(w->root);
    if ((events & UV_RENAME) && path != NULL)
      type = lstat(path, &st) == 0 ? AT_WATCH_CREATE : AT_WATCH_REMOVE;
    at_watch_event_add(w, type, path, NULL, 0);
  }
  if (at_watch_tell(w)) at_sched_enter(w->rt);
}

static void on_closed(uv_handle_t *handle) { at_watch_drop(((source *)(void *)handle)->watcher); }

int at_watchsys_start(at_watcher *w) {
  source *s = calloc(1, sizeof *s);
  struct stat st;
  int status;
  if (s == NULL) return UV_ENOMEM;
  s->watcher = w;
  status = uv_fs_event_init(w->rt->loop, &s->handle);
  if (status < 0) {
    free(s);
    return status;
  }
  w->sys = s;
  atomic_fetch_add(&w->refs, 1); /* the handle's */
  uv_unref((uv_handle_t *)&s->handle);
  s->directory = stat(w->root, &st) == 0 && S_ISDIR(st.st_mode);
#if defined(__linux__)
  if (w->recursive) return UV_ENOTSUP; /* libuv accepts the flag and does nothing */
#endif
  return uv_fs_event_start(&s->handle, on_change, w->root, w->recursive ? UV_FS_EVENT_RECURSIVE : 0);
}

void at_watchsys_ref(at_watcher *w, int on) {
  source *s = w->sys;
  if (on) uv_ref((uv_handle_t *)&s->handle);
  else uv_unref((uv_handle_t *)&s->handle);
}

void at_watchsys_stop(at_watcher *w) {
  source *s = w->sys;
  uv_close((uv_handle_t *)&s->handle, on_closed);
}

void at_watchsys_free(at_watcher *w) {
  free(w->sys);
  w->sys = NULL;
}

#else
typedef int at_watchuv_unused; /* a file must not be empty */
#endif
