/* fsglob.c - the names that a pattern matches: *, ?, [set] within one part of a path (fnmatch), ** for
** any number of directories. Owns the parts, the directories still to be searched, the names found.
** Pool threads, no Lua. Iterative: depth costs no stack, and one directory is open at a time.
** What cannot be searched matches nothing; want of memory or descriptors is an error. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/fsverb.h"

enum part_kind { PART_LITERAL, PART_MAGIC, PART_ANY, PART_DIRECTORY /* a slash at the end */ };

typedef struct part {
  char *text; /* in the copy of the pattern */
  enum part_kind kind;
} part;

/* A directory to search, from a part of the pattern on. */
typedef struct place {
  char *path; /* owned */
  int part;
} place;

typedef struct search {
  at_pathop *op;
  char *pattern; /* owned */
  part *parts;   /* owned */
  int count;
  place *places; /* owned */
  size_t place_count, place_capacity;
  size_t name_capacity;
} search;

/* ---- the pattern ---- */

static enum part_kind kind_of(const char *text) {
  if (*text == '\0') return PART_DIRECTORY;
  if (strcmp(text, "**") == 0) return PART_ANY;
  return strpbrk(text, "*?[") != NULL ? PART_MAGIC : PART_LITERAL;
}

static void unescape(char *text) {
  char *to = text;
  while (*text != '\0') {
    if (*text == '\\' && text[1] != '\0') text++;
    *to++ = *text++;
  }
  *to = '\0';
}

static void add_part(search *s, char *text) {
  part *p = &s->parts[s->count];
  p->text = text;
  p->kind = kind_of(text);
  if (p->kind == PART_LITERAL) unescape(text);
  if (p->kind == PART_ANY && s->count > 0 && s->parts[s->count - 1].kind == PART_ANY) return;
  s->count++;
}

static int parse(search *s, const char *pattern) {
  char *p;
  s->pattern = strdup(pattern);
  s->parts = calloc(strlen(pattern) + 1, sizeof *s->parts);
  if (s->pattern == NULL || s->parts == NULL) return UV_ENOMEM;
  for (p = s->pattern; *p == '/'; p++) continue;
  while (p != NULL && (*p != '\0' || s->count > 0)) {
    char *slash = strchr(p, '/');
    if (slash != NULL)
      while (*slash == '/') *slash++ = '\0';
    add_part(s, p);
    p = slash;
  }
  return 0;
}

/* ---- lists ---- */

static char *join(const char *path, const char *name) {
  size_t length = strlen(path), more = strlen(name);
  int slash = length > 0 && path[length - 1] != '/';
  char *joined = malloc(length + more + 2);
  if (joined == NULL) return NULL;
  memcpy(joined, path, length);
  if (slash) joined[length++] = '/';
  memcpy(joined + length, name, more + 1);
  return joined;
}

/* Both take the path, which may be NULL: no memory for it. */

static int add_place(search *s, char *path, int part_index) {
  if (path != NULL && s->place_count == s->place_capacity) {
    size_t capacity = s->place_capacity * 2 + 32;
    place *places = realloc(s->places, capacity * sizeof *places);
    if (places != NULL) {
      s->places = places;
      s->place_capacity = capacity;
    } else {
      free(path);
      path = NULL;
    }
  }
  if (path == NULL) return UV_ENOMEM;
  s->places[s->place_count].path = path;
  s->places[s->place_count++].part = part_index;
  return 0;
}

static int add_name(search *s, char *path) {
  at_pathop *o = s->op;
  if (path != NULL && o->name_count == s->name_capacity) {
    size_t capacity = s->name_capacity * 2 + 32;
    char **names = realloc(o->names, capacity * sizeof *names);
    if (names != NULL) {
      o->names = names;
      s->name_capacity = capacity;
    } else {
      free(path);
      path = NULL;
    }
  }
  if (path == NULL) return UV_ENOMEM;
  o->names[o->name_count++] = path;
  return 0;
}

static int compare(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In order, each once (several ** find things several times). */
static void sort_names(at_pathop *o) {
  size_t i, kept = 0;
  if (o->name_count < 2) return;
  qsort(o->names, o->name_count, sizeof *o->names, compare);
  for (i = 1; i < o->name_count; i++) {
    if (strcmp(o->names[kept], o->names[i]) == 0) free(o->names[i]);
    else o->names[++kept] = o->names[i];
  }
  o->name_count = kept + 1;
}

/* ---- searching ---- */

static int is_directory(int at, const char *name, unsigned char type, int follow) {
  struct stat st;
  if (type == DT_DIR) return 1;
  if (type != DT_UNKNOWN && (type != DT_LNK || !follow)) return 0;
  return fstatat(at, name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* One entry of the directory `path`, whose part has to match. */
static int visit(search *s, const char *path, int index, int at, const struct dirent *e) {
  const part *p = &s->parts[index];
  int last = index + 1 == s->count;
  if (p->kind == PART_ANY) { /* never through links: they may lead back */
    int status = 0;
    if (e->d_name[0] == '.') return 0;
    if (last) status = add_name(s, join(path, e->d_name));
    if (status == 0 && is_directory(at, e->d_name, e->d_type, 0))
      status = add_place(s, join(path, e->d_name), index);
    return status;
  }
  if (fnmatch(p->text, e->d_name, FNM_PERIOD) != 0) return 0;
  if (last) return add_name(s, join(path, e->d_name));
  if (!is_directory(at, e->d_name, e->d_type, 1)) return 0;
  return add_place(s, join(path, e->d_name), index + 1);
}

static int search_directory(search *s, const char *path, int index) {
  DIR *dir = opendir(*path != '\0' ? path : ".");
  const struct dirent *e;
  int status = 0;
  if (dir == NULL)
    return errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EIO ? -errno : 0;
  while (status == 0 && !atomic_load(&s->op->abandoned) && (errno = 0, e = readdir(dir)) != NULL)
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
      status = visit(s, path, index, dirfd(dir), e);
  (void)closedir(dir); /* for reading only */
  return status;
}

static int search_place(search *s, const place *from) {
  const part *p = &s->parts[from->part];
  int last = from->part + 1 == s->count, status = 0;
  struct stat st;
  char *path;
  switch (p->kind) {
    case PART_DIRECTORY:
      if (stat(from->path, &st) != 0 || !S_ISDIR(st.st_mode)) return 0;
      return add_name(s, join(from->path, ""));
    case PART_LITERAL:
      path = join(from->path, p->text);
      if (path == NULL) return UV_ENOMEM;
      if (!last) return add_place(s, path, from->part + 1);
      if (lstat(path, &st) == 0) return add_name(s, path);
      free(path);
      return 0;
    case PART_ANY: /* no directory at all, or more of them */
      if (!last) status = add_place(s, strdup(from->path), from->part + 1);
      return status < 0 ? status : search_directory(s, from->path, from->part);
    default:
      return search_directory(s, from->path, from->part);
  }
}

void at_glob_run(at_work *w) {
  at_pathop *o = (at_pathop *)(void *)w;
  search s = {.op = o};
  int status = parse(&s, o->path);
  if (status == 0 && s.count == 0) status = add_name(&s, strdup(o->path)); /* the root */
  else if (status == 0) status = add_place(&s, strdup(*o->path == '/' ? "/" : ""), 0);
  while (status == 0 && s.place_count > 0 && !atomic_load(&o->abandoned)) {
    place from = s.places[--s.place_count];
    status = search_place(&s, &from);
    free(from.path);
  }
  while (s.place_count > 0) free(s.places[--s.place_count].path);
  sort_names(o);
  free(s.places);
  free(s.parts);
  free(s.pattern);
  o->work.op.status = status;
}
