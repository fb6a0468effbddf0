/* watch.h - watching directories: what watch.c (the object and its queue of events) and the system's half
** share: watchtree.c and watchscan.c on Linux (inotify), watchuv.c elsewhere (uv_fs_event). */
#ifndef AT_IO_WATCH_H
#define AT_IO_WATCH_H

#include <stdatomic.h>

#include "core/op.h"

#pragma GCC visibility push(hidden)

#define AT_WATCHER_MT "asynctask.Watcher"

enum at_watch_type {
  AT_WATCH_CREATE, AT_WATCH_CHANGE, AT_WATCH_REMOVE, AT_WATCH_RENAME, AT_WATCH_OVERFLOW,
  AT_WATCH_ERROR
};

typedef struct at_watch_event {
  char *path, *from; /* owned; from: of a rename, or NULL */
  int type, status;  /* status: of an error */
} at_watch_event;

/* Events in order; a zeroed one is empty. */
typedef struct at_watch_queue {
  at_watch_event *events; /* owned */
  size_t start, count, capacity; /* events[start .. start + count) */
} at_watch_queue;

typedef struct at_watchop at_watchop;

typedef struct at_watcher {
  at_runtime *rt;
  at_closable closable;
  atomic_int refs;       /* the userdata, the operation, the system's half */
  at_watchop *waiting;   /* the one operation that waits for events */
  at_watch_queue queue;
  char *root;            /* owned: as it was given */
  void *sys;             /* owned by the system's half */
  int failed;            /* why there is nothing to come; told once */
  unsigned char recursive;
  unsigned char ended;   /* no further events */
  unsigned char closed;
  unsigned char busy;    /* its events are being handed to Lua */
} at_watcher;

/* ---- watch.c ---- */

/* Appends; takes path and from, also on failure (UV_ENOMEM). Any thread that owns the queue. */
int at_watch_put(at_watch_queue *q, int type, char *path, char *from, int status);
void at_watch_clear(at_watch_queue *q);

/* An event of the watcher: put into its queue, merged or dropped. Takes path and from. Loop thread. */
void at_watch_event_add(at_watcher *w, int type, char *path, char *from, int status);
/* Tells the waiting operation if there is something to tell; true if it did. No Lua. */
int at_watch_tell(at_watcher *w);
void at_watch_drop(at_watcher *w);

/* "dir" and "name" as a path; NULL: out of memory. */
char *at_watch_join(const char *dir, const char *name);

/* ---- the system's half ---- */

/* Begins to watch w->root; 0 or a status. The reference it takes goes when it is stopped. */
int at_watchsys_start(at_watcher *w);
void at_watchsys_stop(at_watcher *w);
/* Whether it keeps the loop alive: while an operation waits. */
void at_watchsys_ref(at_watcher *w, int on);
/* Frees w->sys; the last reference is gone. Any thread. */
void at_watchsys_free(at_watcher *w);

/* [-0, +0, m] adds its functions to the table at the top. */
void at_watch_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
