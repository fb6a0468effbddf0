/* watchtree.c - inotify (Linux): which directory each watch is for, and what its events mean. Owns the
** descriptor of inotify, its poll handle, the paths by watch, the search under way (watchscan.c).
** Loop thread. While a search is on a pool thread nothing is read: the kernel keeps the events.
** Invariants: the descriptor is closed with the last reference, so that no search meets another one's;
** the handle keeps its loop alive only while an operation waits. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#if defined(__linux__) && !defined(AT_WATCH_UV)

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/sched.h"
#include "io/watchscan.h"

#define SCAN_AT_ONCE 256 /* directories that are searched on the loop thread */
#define READS_A_TURN 8
#define BUFFER (32 * 1024)

typedef struct tree {
  uv_poll_t poll;
  at_watcher *watcher; /* counted until the handle is closed */
  int fd;              /* owned */
  int root_wd;
  char *only;          /* owned: the root is a file of this name in the directory that is watched */
  char **paths;        /* owned, each: by watch */
  int path_capacity;
  at_scan *scan;       /* on a pool thread */
  at_scan *next;       /* to come after it: a list */
  struct {             /* the first half of a rename */
    char *path;        /* owned; NULL: none */
    uint32_t cookie;
    int directory;
  } moved;
  unsigned char waited; /* an operation waits */
  unsigned char exists; /* `only` does, as far as was told */
} tree;

static tree *tree_of(const at_watcher *w) { return w->sys; }

/* ---- paths by watch ---- */

/* Takes the path. */
static int set_path(tree *t, int wd, char *path) {
  if (wd >= t->path_capacity) {
    int capacity = wd + wd / 2 + 16;
    char **paths = realloc(t->paths, (size_t)capacity * sizeof *paths);
    if (paths == NULL) {
      free(path);
      return UV_ENOMEM;
    }
    memset(paths + t->path_capacity, 0, (size_t)(capacity - t->path_capacity) * sizeof *paths);
    t->paths = paths;
    t->path_capacity = capacity;
  }
  free(t->paths[wd]);
  t->paths[wd] = path;
  return 0;
}

/* What follows the directory in the path: "" or "/...", or NULL if it lies elsewhere. */
static const char *below(const char *path, const char *dir) {
  size_t length = strlen(dir);
  if (strncmp(path, dir, length) != 0) return NULL;
  return path[length] == '\0' || path[length] == '/' ? path + length : NULL;
}

/* A directory has left the tree: its watches, too. */
static void forget(tree *t, const char *dir) {
  int wd;
  for (wd = 0; wd < t->path_capacity; wd++) {
    if (t->paths[wd] == NULL || below(t->paths[wd], dir) == NULL) continue;
    (void)inotify_rm_watch(t->fd, wd); /* IN_IGNORED frees nothing any more */
    free(t->paths[wd]);
    t->paths[wd] = NULL;
  }
}

/* A directory has another name now. False if it was not watched under the old one. */
static int rename_below(tree *t, const char *from, const char *to) {
  int wd, known = 0;
  for (wd = 0; wd < t->path_capacity; wd++) {
    const char *rest = t->paths[wd] != NULL ? below(t->paths[wd], from) : NULL;
    char *path;
    if (rest == NULL) continue;
    known |= *rest == '\0';
    path = malloc(strlen(to) + strlen(rest) + 1);
    if (path == NULL) continue; /* told under its old name */
    strcpy(path, to);
    strcat(path, rest);
    free(t->paths[wd]);
    t->paths[wd] = path;
  }
  return known;
}

/* ---- searches ---- */

static void on_poll(uv_poll_t *handle, int status, int events);
static void start_scan(at_watcher *w, at_scan *s);

/* What it found becomes ours. */
static void finish_scan(at_watcher *w, at_scan *s) {
  tree *t = tree_of(w);
  at_watch_queue *q = &s->events;
  size_t i;
  for (i = 0; i < s->found_count; i++) {
    if (set_path(t, s->found[i].wd, s->found[i].path) < 0) s->status = UV_ENOMEM;
    s->found[i].path = NULL;
  }
  for (; q->count > 0; q->start++, q->count--) {
    at_watch_event *e = &q->events[q->start];
    at_watch_event_add(w, e->type, e->path, NULL, e->status);
  }
  if (s->status < 0) {
    w->failed = s->status;
    w->ended = 1;
  }
}

static void scan_run(at_work *work) { (void)at_scan_step((at_scan *)(void *)work, -1); }

/* The way back from the pool; without a runtime on a pool thread. */
static void scan_release(at_op *op) {
  at_scan *s = (at_scan *)(void *)op, *next;
  at_watcher *w = s->watcher;
  tree *t = tree_of(w);
  if (op->rt != NULL && !op->rt->closing && !w->closed) {
    t->scan = NULL;
    finish_scan(w, s);
    while (t->scan == NULL && (next = t->next) != NULL) {
      t->next = next->next;
      start_scan(w, next);
    }
    if (t->scan == NULL) (void)uv_poll_start(&t->poll, UV_READABLE, on_poll); /* fails if closing */
    if (at_watch_tell(w)) at_sched_enter(op->rt);
  }
  at_scan_free(s);
}

static const at_opclass scan_class = {"watch", NULL, at_blocking_cancel, scan_release, NULL, 0};

/* Takes the search: here if it is small, else goes on with it in the pool. */
static void start_scan(at_watcher *w, at_scan *s) {
  tree *t = tree_of(w);
  if (t->scan != NULL) {
    s->next = t->next;
    t->next = s;
    return;
  }
  if (!at_scan_step(s, SCAN_AT_ONCE)) {
    finish_scan(w, s);
    at_scan_free(s);
    return;
  }
  s->work.op.class = &scan_class;
  s->work.op.rt = w->rt;
  if (at_blocking_submit(w->rt, &s->work, scan_run) < 0) {
    (void)at_scan_step(s, -1); /* no thread to be had: here, then */
    finish_scan(w, s);
    at_scan_free(s);
    return;
  }
  t->scan = s;
  (void)uv_poll_stop(&t->poll); /* cannot fail */
  at_blocking_count(&s->work.op, t->waited);
}

static void scan(at_watcher *w, const char *path, int report) {
  at_scan *s = at_scan_new(w, tree_of(w)->fd, strdup(path), report);
  if (s != NULL) {
    start_scan(w, s);
    return;
  }
  w->failed = UV_ENOMEM;
  w->ended = 1;
}

/* ---- events ---- */

static void tell(at_watcher *w, int type, char *path) { at_watch_event_add(w, type, path, NULL, 0); }

static void end_watch(at_watcher *w) {
  tell(w, AT_WATCH_REMOVE, strdup(w->root));
  w->ended = 1;
}

/* The name of a directory's entry as the user knows it; NULL: not one that is watched for. */
static char *path_of(const at_watcher *w, const tree *t, const struct inotify_event *e) {
  if (t->only != NULL) return strcmp(t->only, e->name) == 0 ? strdup(w->root) : NULL;
  return at_watch_join(t->paths[e->wd], e->name);
}

/* The second half of a rename did not come: it has left the tree. */
static void flush_moved(at_watcher *w, tree *t) {
  char *path = t->moved.path;
  if (path == NULL) return;
  t->moved.path = NULL;
  if (t->moved.directory && w->recursive) forget(t, path);
  t->exists = 0;
  tell(w, AT_WATCH_REMOVE, path);
}

static void on_moved_to(at_watcher *w, tree *t, const struct inotify_event *e, char *path) {
  int directory = (e->mask & IN_ISDIR) != 0 && w->recursive;
  char *from = t->moved.path;
  if (from == NULL || t->moved.cookie != e->cookie) {
    flush_moved(w, t);
    tell(w, t->only != NULL && t->exists ? AT_WATCH_CHANGE : AT_WATCH_CREATE, strdup(path));
    if (directory) scan(w, path, 1);
    t->exists = 1;
    free(path);
    return;
  }
  t->moved.path = NULL;
  at_watch_event_add(w, AT_WATCH_RENAME, strdup(path), from, 0);
  if (directory && !rename_below(t, from, path)) scan(w, path, 1); /* moved before we came to see it */
  free(path);
}

/* An entry of a directory that is watched. */
static void on_entry(at_watcher *w, tree *t, const struct inotify_event *e) {
  char *path = path_of(w, t, e);
  if (!(e->mask & IN_MOVED_TO)) flush_moved(w, t);
  if (path == NULL && t->only == NULL) {
    w->failed = UV_ENOMEM;
    w->ended = 1;
  }
  if (path == NULL) return;
  if (e->mask & IN_MOVED_FROM) {
    t->moved.path = path;
    t->moved.cookie = e->cookie;
    t->moved.directory = (e->mask & IN_ISDIR) != 0;
  } else if (e->mask & IN_MOVED_TO) {
    on_moved_to(w, t, e, path);
  } else if (e->mask & IN_CREATE) {
    tell(w, AT_WATCH_CREATE, strdup(path));
    if ((e->mask & IN_ISDIR) && w->recursive) scan(w, path, 1);
    t->exists = 1;
    free(path);
  } else {
    if (e->mask & IN_DELETE) t->exists = 0;
    tell(w, e->mask & IN_DELETE ? AT_WATCH_REMOVE : AT_WATCH_CHANGE, path);
  }
}

static void on_event(at_watcher *w, tree *t, const struct inotify_event *e) {
  if (w->ended) return;
  if (e->mask & IN_Q_OVERFLOW) {
    flush_moved(w, t);
    tell(w, AT_WATCH_OVERFLOW, strdup(w->root));
    if (w->recursive) scan(w, w->root, 0); /* directories that were missed */
    return;
  }
  if (e->wd < 0 || e->wd >= t->path_capacity || t->paths[e->wd] == NULL) return;
  if (e->mask & IN_IGNORED) {
    free(t->paths[e->wd]);
    t->paths[e->wd] = NULL;
  } else if (e->wd == t->root_wd && (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT))) {
    flush_moved(w, t);
    end_watch(w);
  } else if (e->len > 0) {
    on_entry(w, t, e);
  }
}

/* Reads what there is, within bounds; true if all was read. */
static int read_events(at_watcher *w, tree *t) {
  char buffer[BUFFER] __attribute__((aligned(__alignof__(struct inotify_event))));
  int reads;
  for (reads = 0; reads < READS_A_TURN && t->scan == NULL; reads++) {
    ssize_t n = read(t->fd, buffer, sizeof buffer), at = 0;
    if (n <= 0) return 1;
    while (at < n) {
      const struct inotify_event *e = (const struct inotify_event *)(const void *)(buffer + at);
      on_event(w, t, e);
      at += (ssize_t)(sizeof *e + e->len);
    }
  }
  return 0;
}

static void on_poll(uv_poll_t *handle, int status, int events) {
  tree *t = (tree *)(void *)handle;
  at_watcher *w = t->watcher;
  (void)events;
  if (status < 0) {
    w->failed = status;
    w->ended = 1;
  } else if (read_events(w, t)) {
    flush_moved(w, t); /* both halves of a rename come together */
  }
  if (w->ended) (void)uv_poll_stop(handle); /* cannot fail */
  if (at_watch_tell(w)) at_sched_enter(w->rt);
}

/* ---- start and stop ---- */

/* A file is watched by way of its directory: whatever takes its place is seen, too. */
static int split_file(at_watcher *w, tree *t, char **directory) {
  const char *slash = strrchr(w->root, '/');
  struct stat st;
  if (stat(w->root, &st) != 0) return -errno;
  if (S_ISDIR(st.st_mode)) {
    *directory = strdup(w->root);
    return *directory != NULL ? 0 : UV_ENOMEM;
  }
  w->recursive = 0;
  t->exists = 1;
  t->only = strdup(slash != NULL ? slash + 1 : w->root);
  *directory = slash == NULL ? strdup(".")
                             : strndup(w->root, (size_t)(slash - w->root) + (slash == w->root));
  return t->only != NULL && *directory != NULL ? 0 : UV_ENOMEM;
}

/* Takes the directory. */
static int watch_root(at_watcher *w, tree *t, char *directory) {
  at_scan *s = at_scan_new(w, t->fd, directory, 0);
  if (s == NULL) return UV_ENOMEM;
  s->root = 1;
  start_scan(w, s);
  t->root_wd = 1; /* the first watch of a descriptor */
  return w->failed;
}

static void on_closed(uv_handle_t *handle) { at_watch_drop(((tree *)(void *)handle)->watcher); }

int at_watchsys_start(at_watcher *w) {
  char *directory = NULL;
  tree *t = calloc(1, sizeof *t);
  int status;
  if (t == NULL) return UV_ENOMEM;
  t->fd = -1;
  t->watcher = w;
  w->sys = t;
  status = split_file(w, t, &directory);
  if (status == 0 && (t->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) < 0) status = -errno;
  if (status == 0) status = uv_poll_init(w->rt->loop, &t->poll, t->fd);
  if (status < 0) {
    free(directory);
    at_watchsys_free(w);
    return status;
  }
  atomic_fetch_add(&w->refs, 1); /* the handle's */
  uv_unref((uv_handle_t *)&t->poll);
  status = watch_root(w, t, directory);
  if (status == 0 && t->scan == NULL) status = uv_poll_start(&t->poll, UV_READABLE, on_poll);
  return status;
}

void at_watchsys_ref(at_watcher *w, int on) {
  tree *t = tree_of(w);
  t->waited = (unsigned char)on;
  if (t->scan != NULL) at_blocking_count(&t->scan->work.op, on);
  if (on) uv_ref((uv_handle_t *)&t->poll);
  else uv_unref((uv_handle_t *)&t->poll);
}

void at_watchsys_stop(at_watcher *w) {
  tree *t = tree_of(w);
  at_scan *s = t->scan;
  while (t->next != NULL) {
    at_scan *next = t->next->next;
    at_scan_free(t->next);
    t->next = next;
  }
  t->scan = NULL;
  if (s != NULL) {
    atomic_store(&s->stopped, 1);
    if (at_blocking_cancel(&s->work.op)) at_scan_free(s);
  }
  uv_close((uv_handle_t *)&t->poll, on_closed);
}

void at_watchsys_free(at_watcher *w) {
  tree *t = tree_of(w);
  if (t == NULL) return;
  w->sys = NULL;
  while (t->path_capacity > 0) free(t->paths[--t->path_capacity]);
  free(t->paths);
  free(t->moved.path);
  free(t->only);
  if (t->fd >= 0) (void)close(t->fd); /* nothing was written */
  free(t);
}

#else
typedef int at_watchtree_unused; /* a file must not be empty */
#endif
