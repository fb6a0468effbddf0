/* fswalk.c - reading directories: the next batch of a stream, or of a tree (walked by way of the names of
** the directories on the way, each sorted, so that the order is defined). Owns what at_walker calls
** the running operation's. Pool threads, no Lua; closing: also the loop thread, when nothing runs.
** An entry that cannot be read carries its error; the walk ends only for its root, or for memory. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/fswalk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- memory ---- */

static void pop_frame(at_walker *w) {
  at_walk_frame *f = &w->frames[--w->frame_count];
  free(f->text);
  free(f->names);
}

void at_walk_clear(at_walker *w) {
  int i;
  for (i = 0; i < w->count; i++) free(w->batch[i].path);
  w->count = 0;
}

void at_walk_close(at_walker *w) {
  at_walk_clear(w);
  while (w->frame_count > 0) pop_frame(w);
  if (w->dir != NULL) (void)closedir(w->dir); /* for reading only */
  w->dir = NULL;
}

int at_walk_set_path(at_walker *w, size_t length, const char *text) {
  size_t more = strlen(text);
  if (length + more + 2 > w->capacity) {
    size_t capacity = (length + more + 2) * 2;
    char *path = realloc(w->path, capacity);
    if (path == NULL) return UV_ENOMEM;
    w->path = path;
    w->capacity = capacity;
  }
  if (length > 0 && w->path[length - 1] != '/') w->path[length++] = '/';
  memcpy(w->path + length, text, more + 1);
  w->length = length + more;
  return 0;
}

/* ---- pool threads ---- */

static int is_dots(const char *s) {
  return s[0] == '.' && (s[1] == '\0' || (s[1] == '.' && s[2] == '\0'));
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const at_walk_name *)a)->text, ((const at_walk_name *)b)->text);
}

/* Room for one more of `size` bytes each in a list of `count`; NULL: out of memory, nothing changed. */
static void *grow(void *list, size_t *capacity, size_t needed, size_t size) {
  if (needed <= *capacity) return list;
  list = realloc(list, (needed + needed / 2 + 16) * size);
  if (list != NULL) *capacity = needed + needed / 2 + 16;
  return list;
}

/* Takes the names of the open directory into the frame. */
static int read_names(DIR *dir, at_walk_frame *f) {
  size_t names_capacity = 0, text_capacity = 0, used = 0, i;
  struct dirent *e;
  while (errno = 0, (e = readdir(dir)) != NULL) {
    size_t size = strlen(e->d_name) + 1;
    at_walk_name *names;
    char *text;
    if (is_dots(e->d_name)) continue;
    names = grow(f->names, &names_capacity, f->count + 1, sizeof *names);
    if (names == NULL) return UV_ENOMEM;
    f->names = names;
    text = grow(f->text, &text_capacity, used + size, 1);
    if (text == NULL) return UV_ENOMEM;
    f->text = text;
    memcpy(text + used, e->d_name, size);
    names[f->count].at = used;
    names[f->count++].type = e->d_type;
    used += size;
  }
  if (errno != 0) return -errno;
  for (i = 0; i < f->count; i++) f->names[i].text = f->text + f->names[i].at;
  return 0;
}

/* Has the way down led through this directory before? (links are followed) */
static int is_cycle(const at_walker *w, const at_walk_frame *f) {
  int i;
  for (i = 0; i < w->frame_count; i++)
    if (w->frames[i].dev == f->dev && w->frames[i].ino == f->ino) return 1;
  return 0;
}

static int open_directory(const at_walker *w, int root, DIR **dir) {
  int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (w->follow || root ? 0 : O_NOFOLLOW);
  int fd = open(w->path, flags), status = 0;
  if (fd < 0) return -errno;
  *dir = fdopendir(fd);
  if (*dir == NULL) {
    status = -errno;
    (void)close(fd); /* for reading only */
  }
  return status;
}

/* Goes into the directory at the current path. */
static int push_frame(at_walker *w) {
  at_walk_frame *f;
  struct stat st;
  DIR *dir;
  int status;
  if (w->frame_count == w->frame_capacity) {
    int capacity = w->frame_capacity * 2 + 8;
    at_walk_frame *frames = realloc(w->frames, (size_t)capacity * sizeof *frames);
    if (frames == NULL) return UV_ENOMEM;
    w->frames = frames;
    w->frame_capacity = capacity;
  }
  f = &w->frames[w->frame_count];
  memset(f, 0, sizeof *f);
  status = open_directory(w, w->frame_count == 0, &dir);
  if (status < 0) return status;
  if (w->follow && fstat(dirfd(dir), &st) == 0) {
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    if (is_cycle(w, f)) status = UV_ELOOP;
  }
  f->length = w->length;
  w->frame_count++;
  if (status == 0) status = read_names(dir, f);
  (void)closedir(dir); /* for reading only */
  if (status < 0)
    pop_frame(w);
  else if (f->count > 1)
    qsort(f->names, f->count, sizeof *f->names, compare_names);
  return status;
}

static unsigned mode_of(unsigned char type) {
  switch (type) {
    case DT_REG: return S_IFREG;
    case DT_DIR: return S_IFDIR;
    case DT_LNK: return S_IFLNK;
    case DT_FIFO: return S_IFIFO;
    case DT_SOCK: return S_IFSOCK;
    case DT_CHR: return S_IFCHR;
    case DT_BLK: return S_IFBLK;
    default: return 0;
  }
}

/* Finds out what the entry is: by what the directory said, or by asking. */
static void look(const at_walker *w, at_walk_entry *e, int at, const char *path, unsigned char type) {
  int followed = w->follow && (type == DT_LNK || type == DT_UNKNOWN);
  e->st.st_mode = (mode_t)mode_of(type);
  if (!w->stat && !followed && type != DT_UNKNOWN) return;
  e->has_stat = fstatat(at, path, &e->st, w->follow ? 0 : AT_SYMLINK_NOFOLLOW) == 0 ||
                fstatat(at, path, &e->st, AT_SYMLINK_NOFOLLOW) == 0; /* a link to nowhere */
  if (e->has_stat) return;
  e->st.st_mode = (mode_t)mode_of(type);
  if (w->stat) e->error = -errno;
}

static at_walk_entry *add_entry(at_walker *w, const char *path, size_t at_name, int depth) {
  at_walk_entry *e = &w->batch[w->count];
  memset(e, 0, sizeof *e);
  e->path = strdup(path);
  if (e->path == NULL) return NULL;
  e->name = at_name;
  e->depth = depth;
  w->count++;
  return e;
}

/* Goes into the directory of the entry; children first: keeps what its second entry will say. */
static void descend(at_walker *w, at_walk_entry *e) {
  at_walk_frame *f;
  int status = push_frame(w);
  if (status < 0) {
    e->error = status;
    return;
  }
  f = &w->frames[w->frame_count - 1];
  f->name = e->name;
  f->st = e->st;
  f->has_stat = e->has_stat;
  if (w->post) e->phase = AT_WALK_IN;
}

/* The innermost directory has been read; children first, it is the next entry now. */
static int ascend(at_walker *w) {
  at_walk_frame f = w->frames[w->frame_count - 1];
  at_walk_entry *e;
  pop_frame(w);
  if (!w->post || w->frame_count == 0) return 0;
  w->path[f.length] = '\0';
  w->length = f.length;
  e = add_entry(w, w->path, f.name, w->frame_count);
  if (e == NULL) return UV_ENOMEM;
  e->st = f.st;
  e->has_stat = f.has_stat;
  e->phase = AT_WALK_OUT;
  return 0;
}

/* The next entry of the tree. */
static int step_tree(at_walker *w) {
  at_walk_frame *f = &w->frames[w->frame_count - 1];
  const at_walk_name *n;
  at_walk_entry *e;
  int status;
  if (f->next == f->count) return ascend(w);
  n = &f->names[f->next];
  status = at_walk_set_path(w, f->length, n->text);
  if (status < 0) return status;
  e = add_entry(w, w->path, w->length - strlen(n->text), w->frame_count);
  if (e == NULL) return UV_ENOMEM;
  f->next++;
  look(w, e, AT_FDCWD, w->path, n->type);
  if (S_ISDIR(e->st.st_mode) && w->frame_count < w->depth) descend(w, e);
  return 0;
}

/* The next entry of a stream. */
static int step_stream(at_walker *w) {
  struct dirent *d;
  at_walk_entry *e;
  errno = 0;
  d = readdir(w->dir);
  if (d == NULL) {
    w->finished = 1;
    return -errno;
  }
  if (is_dots(d->d_name)) return 0;
  e = add_entry(w, d->d_name, 0, 1);
  if (e == NULL) return UV_ENOMEM;
  look(w, e, dirfd(w->dir), d->d_name, d->d_type);
  return 0;
}

void at_walk_fill(at_walker *w, int prune) {
  int status = 0;
  if (prune >= 0)
    while (w->frame_count > prune) pop_frame(w);
  if (!w->started) {
    status = w->stream ? open_directory(w, 1, &w->dir) : push_frame(w);
    w->started = status == 0;
  }
  while (status == 0 && !w->finished && w->count < AT_WALK_BATCH) {
    if (w->stream)
      status = step_stream(w);
    else if (w->frame_count == 0)
      w->finished = 1;
    else
      status = step_tree(w);
  }
  if (status < 0) {
    w->finished = 1;
    w->failed = status;
  }
}
