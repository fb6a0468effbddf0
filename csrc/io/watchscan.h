/* watchscan.h - putting watches on a directory and what is below it (Linux): between watchtree.c, which
** knows the watches, and watchscan.c, which finds directories. */
#ifndef AT_IO_WATCHSCAN_H
#define AT_IO_WATCHSCAN_H

#include "core/blocking.h"
#include "io/watch.h"

#pragma GCC visibility push(hidden)

typedef struct at_scan_found {
  int wd;
  char *path; /* owned */
} at_scan_found;

/* One search. Loop thread first, for a bounded number of directories; then, if there are more, on a pool
** thread until it is through. */
typedef struct at_scan {
  at_work work;           /* without a Task: its release is the way back */
  at_watcher *watcher;    /* counted */
  struct at_scan *next;   /* in the list of those to come */
  int fd;                 /* of inotify; borrowed from the watcher */
  unsigned char recursive;
  unsigned char report;   /* what is found was not there before: events */
  unsigned char root;     /* the next directory is the watcher's root: its failure is the watcher's */
  atomic_uchar stopped;   /* the watcher was closed */
  char **todo;            /* owned: directories to watch */
  size_t todo_count, todo_capacity;
  at_scan_found *found;   /* owned: those that are watched now */
  size_t found_count, found_capacity;
  at_watch_queue events;
  int status;             /* out of memory, or the root's failure */
} at_scan;

/* A search of `path`, which it takes (NULL: out of memory). NULL: out of memory. */
at_scan *at_scan_new(at_watcher *w, int fd, char *path, int report);
void at_scan_free(at_scan *s);
/* Looks at so many directories at most; true if there are more. Any thread, one at a time. */
int at_scan_step(at_scan *s, int limit);

#pragma GCC visibility pop

#endif
