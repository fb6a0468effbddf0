/* watchscan.c - watches on a directory and what is below it (Linux): the watch first, then the names, so that
** nothing that comes into being meanwhile is missed (it may be told twice). Owns the search: directories
** to come, watches made, events to tell. Any thread, one at a time; no Lua.
** Links are not followed, except that the root may be one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#if defined(__linux__) && !defined(AT_WATCH_UV)

#include "io/watchscan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENTS (IN_ATTRIB | IN_CREATE | IN_MODIFY | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | \
                IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_EXCL_UNLINK)

at_scan *at_scan_new(at_watcher *w, int fd, char *path, int report) {
  at_scan *s = path != NULL ? calloc(1, sizeof *s) : NULL;
  char **todo = s != NULL ? malloc(sizeof *todo) : NULL;
  if (todo == NULL) {
    free(path);
    free(s);
    return NULL;
  }
  todo[0] = path;
  s->todo = todo;
  s->todo_count = s->todo_capacity = 1;
  s->watcher = w;
  atomic_fetch_add(&w->refs, 1);
  s->fd = fd;
  s->recursive = w->recursive;
  s->report = (unsigned char)report;
  return s;
}

void at_scan_free(at_scan *s) {
  while (s->todo_count > 0) free(s->todo[--s->todo_count]);
  while (s->found_count > 0) free(s->found[--s->found_count].path);
  free(s->todo);
  free(s->found);
  at_watch_clear(&s->events);
  at_watch_drop(s->watcher);
  free(s);
}

/* Takes the path. */
static int add_todo(at_scan *s, char *path) {
  if (path == NULL) return UV_ENOMEM;
  if (s->todo_count == s->todo_capacity) {
    size_t capacity = s->todo_capacity * 2 + 16;
    char **todo = realloc(s->todo, capacity * sizeof *todo);
    if (todo == NULL) {
      free(path);
      return UV_ENOMEM;
    }
    s->todo = todo;
    s->todo_capacity = capacity;
  }
  s->todo[s->todo_count++] = path;
  return 0;
}

/* Takes the path. */
static int add_found(at_scan *s, int wd, char *path) {
  if (s->found_count == s->found_capacity) {
    size_t capacity = s->found_capacity * 2 + 16;
    at_scan_found *found = realloc(s->found, capacity * sizeof *found);
    if (found == NULL) {
      free(path);
      return UV_ENOMEM;
    }
    s->found = found;
    s->found_capacity = capacity;
  }
  s->found[s->found_count].wd = wd;
  s->found[s->found_count++].path = path;
  return 0;
}

static int is_directory(int at, const struct dirent *e) {
  struct stat st;
  if (e->d_type != DT_UNKNOWN) return e->d_type == DT_DIR;
  return fstatat(at, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static int look_inside(at_scan *s, const char *path) {
  const struct dirent *e;
  int status = 0;
  DIR *dir = opendir(path);
  if (dir == NULL) return 0; /* it is watched, or has gone */
  while (status == 0 && (e = readdir(dir)) != NULL) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    if (s->report)
      status = at_watch_put(&s->events, AT_WATCH_CREATE, at_watch_join(path, e->d_name), NULL, 0);
    if (status == 0 && s->recursive && is_directory(dirfd(dir), e))
      status = add_todo(s, at_watch_join(path, e->d_name));
  }
  (void)closedir(dir); /* for reading only */
  return status;
}

/* Takes the path. */
static int watch_directory(at_scan *s, char *path) {
  int wd = inotify_add_watch(s->fd, path, EVENTS | (s->root ? 0 : IN_DONT_FOLLOW)), status = 0;
  if (wd < 0) {
    status = -errno;
    if (s->root) {
      free(path);
      return status;
    }
    if (status != UV_ENOENT && status != UV_ENOTDIR && status != UV_ELOOP) /* else it has gone */
      return at_watch_put(&s->events, AT_WATCH_ERROR, path, NULL, status);
    free(path);
    return 0;
  }
  s->root = 0;
  if (s->recursive || s->report) status = look_inside(s, path);
  if (status == 0) return add_found(s, wd, path);
  free(path);
  return status;
}

int at_scan_step(at_scan *s, int limit) {
  while (s->status == 0 && s->todo_count > 0 && !atomic_load(&s->stopped)) {
    if (limit-- == 0) return 1;
    s->status = watch_directory(s, s->todo[--s->todo_count]);
  }
  return 0;
}

#else
typedef int at_watchscan_unused; /* a file must not be empty */
#endif
