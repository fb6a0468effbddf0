/* fsremove.c - removing a path, with what is in it if asked. Owns the open directories on the way down.
** Pool threads, no Lua. Depth costs neither stack nor descriptors: beyond OPEN_LEVELS the outer
** directories are closed and found again by "..", which must then be the very same ones.
** Invariant: works on descriptors, never by way of a link: a directory that somebody swaps for a link
** meanwhile is not followed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/fs.h"
#include "io/fsverb.h"

#define OPEN_LEVELS 32
#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

typedef struct level {
  DIR *dir;   /* owned; NULL: closed for the time being */
  char *name; /* owned: in the level above */
  dev_t dev;
  ino_t ino;
  int removed; /* something, since it was read from the start */
} level;

typedef struct way {
  level *levels; /* owned */
  int depth, capacity;
} way;

static level *top(way *w) { return &w->levels[w->depth - 1]; }

/* Where the names of the innermost level's entry lie: the level above, or the current directory. */
static int above(const way *w) {
  return w->depth < 2 ? AT_FDCWD : dirfd(w->levels[w->depth - 2].dir);
}

static void close_level(level *l) {
  if (l->dir != NULL) (void)closedir(l->dir); /* for reading only */
  l->dir = NULL;
}

static void drop(way *w) {
  level *l = top(w);
  close_level(l);
  free(l->name);
  w->depth--;
}

static int reserve(way *w) {
  int capacity = w->capacity * 2 + 16;
  level *levels;
  if (w->depth < w->capacity) return 0;
  levels = realloc(w->levels, (size_t)capacity * sizeof *levels);
  if (levels == NULL) return UV_ENOMEM;
  w->levels = levels;
  w->capacity = capacity;
  return 0;
}

/* The descriptor becomes the stream of the level; closed on failure. */
static int adopt(level *l, int fd) {
  struct stat st;
  int status = 0;
  if (fstat(fd, &st) != 0) status = -errno;
  else if (l->ino != 0 && (st.st_dev != l->dev || st.st_ino != l->ino)) status = UV_ENOENT; /* moved */
  else if ((l->dir = fdopendir(fd)) == NULL) status = -errno;
  if (status < 0) {
    (void)close(fd); /* for reading only */
    return status;
  }
  l->dev = st.st_dev;
  l->ino = st.st_ino;
  return 0;
}

/* Goes into the directory `name` of `at`. */
static int enter(way *w, int at, const char *name) {
  level *l;
  int fd, status = reserve(w);
  if (status < 0) return status;
  fd = openat(at, name, DIRECTORY);
  if (fd < 0) return -errno;
  l = &w->levels[w->depth];
  memset(l, 0, sizeof *l);
  status = adopt(l, fd);
  if (status < 0) return status;
  w->depth++;
  l->name = strdup(name);
  if (l->name == NULL) return UV_ENOMEM;
  if (w->depth > OPEN_LEVELS) close_level(&w->levels[w->depth - 1 - OPEN_LEVELS]);
  return 0;
}

/* Sees to it that the level above is open. */
static int reopen_above(way *w) {
  level *l;
  int fd;
  if (w->depth < 2 || w->levels[w->depth - 2].dir != NULL) return 0;
  l = &w->levels[w->depth - 2];
  fd = openat(dirfd(top(w)->dir), "..", DIRECTORY);
  return fd < 0 ? -errno : adopt(l, fd);
}

/* The innermost level has been read to its end: goes. */
static int leave(way *w) {
  level *l = top(w);
  int status = reopen_above(w);
  if (status < 0) return status;
  if (unlinkat(above(w), l->name, AT_REMOVEDIR) == 0) {
    drop(w);
    if (w->depth > 0) top(w)->removed = 1;
    return 0;
  }
  if ((errno != ENOTEMPTY && errno != EEXIST) || !l->removed) return -errno;
  l->removed = 0;
  rewinddir(l->dir); /* reading past what was being removed has skipped something */
  return 0;
}

static int remove_entry(way *w, const struct dirent *e) {
  level *l = top(w);
  int at = dirfd(l->dir), status;
  if (e->d_type != DT_DIR) {
    if (unlinkat(at, e->d_name, 0) == 0 || errno == ENOENT) {
      l->removed = 1;
      return 0;
    }
    if (errno != EISDIR && errno != EPERM) return -errno;
  }
  status = enter(w, at, e->d_name);
  if (status == UV_ENOENT) return 0;
  if (status == UV_ENOTDIR || status == UV_ELOOP) /* it was swapped just now */
    status = unlinkat(at, e->d_name, 0) == 0 || errno == ENOENT ? 0 : -errno;
  return status;
}

static int remove_tree(at_pathop *o) {
  way w = {NULL, 0, 0};
  int status = enter(&w, AT_FDCWD, o->path);
  while (status == 0 && w.depth > 0) {
    const struct dirent *e;
    errno = 0;
    e = readdir(top(&w)->dir);
    if (atomic_load(&o->abandoned)) status = UV_ECANCELED;
    else if (e == NULL) status = errno != 0 ? -errno : leave(&w);
    else if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
      status = remove_entry(&w, e);
  }
  while (w.depth > 0) drop(&w);
  free(w.levels);
  return status;
}

void at_remove_run(at_work *w) {
  at_pathop *o = (at_pathop *)(void *)w;
  if (unlink(o->path) == 0) return;
  if (errno != EISDIR && errno != EPERM) w->op.status = -errno;
  else if (o->flags) w->op.status = remove_tree(o);
  else if (rmdir(o->path) != 0) w->op.status = -errno;
}
