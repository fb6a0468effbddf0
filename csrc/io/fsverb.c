/* fsverb.c - what the operations on paths do: system calls that may block. Owns nothing.
** Pool threads, no Lua; at_fs_type: any. Each *_run sets the request's status to 0 or a negative uv
** code (libuv's codes are negated errno where errno exists).
** Copying is in fscopy.c, removing in fsremove.c, finding names in fsglob.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/fsverb.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/fs.h"

#define op_of(o) ((at_pathop *)(void *)(o))

const char *at_fs_type(unsigned mode) {
  switch (mode & S_IFMT) {
    case S_IFREG: return "file";
    case S_IFDIR: return "directory";
    case S_IFLNK: return "link";
    case S_IFIFO: return "fifo";
    case S_IFSOCK: return "socket";
    case S_IFCHR: return "char";
    case S_IFBLK: return "block";
    default: return "unknown";
  }
}

int at_fs_accept_fd(int fd, struct stat *st) {
  int status = 0;
  if (fstat(fd, st) != 0) status = -errno;
  else if (S_ISDIR(st->st_mode)) status = UV_EISDIR;
  if (status == 0) return fd;
  (void)close(fd); /* nothing was written */
  return status;
}

int at_fs_open_fd(const char *path, int flags, int permissions, struct stat *st) {
  int fd;
  do {
    fd = open(path, flags | O_CLOEXEC | O_NOCTTY, (mode_t)permissions);
  } while (fd < 0 && errno == EINTR);
  return fd < 0 ? -errno : at_fs_accept_fd(fd, st);
}

static void open_run(at_work *w) {
  at_pathop *o = op_of(w);
  int fd = o->beneath == NULL
               ? at_fs_open_fd(o->path, o->flags, o->permissions, &o->st)
               : at_fs_open_beneath(o->beneath, o->path, o->flags, o->permissions, &o->st);
  if (fd < 0) w->op.status = fd;
  else o->fd = fd;
}

static void stat_run(at_work *w) {
  at_pathop *o = op_of(w);
  if ((o->flags ? lstat : stat)(o->path, &o->st) != 0) w->op.status = -errno;
}

static void exists_run(at_work *w) {
  at_pathop *o = op_of(w);
  o->number = 1;
  if (stat(o->path, &o->st) == 0) return;
  o->number = 0;
  if (errno != ENOENT && errno != ENOTDIR) w->op.status = -errno;
}

static int is_directory(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* mkdir of every directory on the way; those that exist are fine. */
static int make_parents(char *path, mode_t mode) {
  char *p = path;
  int status = 0;
  while (status == 0 && p != NULL) {
    while (*p == '/') p++;
    p = strchr(p, '/');
    if (p != NULL) *p = '\0';
    if (mkdir(path, mode) != 0) {
      status = -errno;
      if (is_directory(path)) status = 0;
      else if (status == UV_EEXIST && p != NULL) status = UV_ENOTDIR;
    }
    if (p != NULL) *p = '/';
  }
  return status;
}

static void mkdir_run(at_work *w) {
  at_pathop *o = op_of(w);
  if (o->flags)
    w->op.status = make_parents(o->path, (mode_t)o->permissions);
  else if (mkdir(o->path, (mode_t)o->permissions) != 0)
    w->op.status = -errno;
}

static void rename_run(at_work *w) {
  if (rename(op_of(w)->path, op_of(w)->path2) != 0) w->op.status = -errno;
}

static void link_run(at_work *w) {
  if (link(op_of(w)->path, op_of(w)->path2) != 0) w->op.status = -errno;
}

static void symlink_run(at_work *w) {
  if (symlink(op_of(w)->path, op_of(w)->path2) != 0) w->op.status = -errno;
}

static void chmod_run(at_work *w) {
  if (chmod(op_of(w)->path, (mode_t)op_of(w)->permissions) != 0) w->op.status = -errno;
}

static void truncate_run(at_work *w) {
  if (truncate(op_of(w)->path, (off_t)op_of(w)->number) != 0) w->op.status = -errno;
}

static struct timespec time_of(double seconds) {
  struct timespec t = {.tv_sec = 0, .tv_nsec = UTIME_NOW};
  double whole = floor(seconds);
  if (isnan(seconds)) return t;
  t.tv_sec = (time_t)whole;
  t.tv_nsec = (long)((seconds - whole) * 1e9);
  if (t.tv_nsec > 999999999L) t.tv_nsec = 999999999L;
  return t;
}

static void utime_run(at_work *w) {
  at_pathop *o = op_of(w);
  struct timespec times[2] = {time_of(o->atime), time_of(o->mtime)};
  if (utimensat(AT_FDCWD, o->path, times, o->flags) != 0) w->op.status = -errno;
}

static void chown_run(at_work *w) {
  at_pathop *o = op_of(w);
  if (fchownat(AT_FDCWD, o->path, o->uid, o->gid, o->flags) != 0) w->op.status = -errno;
}

static void statfs_run(at_work *w) {
  at_pathop *o = op_of(w);
  uv_fs_t req;
  w->op.status = uv_fs_statfs(NULL, &req, o->path, NULL);
  if (w->op.status == 0) o->fs = *(uv_statfs_t *)req.ptr;
  uv_fs_req_cleanup(&req);
}

/* A file without a name; where the file system has none, one that loses it at once. */
static int open_nameless(const char *directory) {
  char *name;
  int fd = -1;
#ifdef O_TMPFILE
  fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) return -errno;
#endif
  name = malloc(strlen(directory) + sizeof "/lua-XXXXXX");
  if (name == NULL) return UV_ENOMEM;
  strcpy(name, directory);
  strcat(name, "/lua-XXXXXX");
  fd = mkostemp(name, O_CLOEXEC);
  if (fd < 0) fd = -errno;
  else (void)unlink(name); /* if it cannot be, it stays: no harm */
  free(name);
  return fd;
}

static void tmpfile_run(at_work *w) {
  at_pathop *o = op_of(w);
  int fd = open_nameless(o->path);
  if (fd < 0) {
    w->op.status = fd;
    return;
  }
  o->fd = fd;
  if (fstat(fd, &o->st) != 0) w->op.status = -errno;
}

/* realpath, readlink: a path as the result */
static void text_run(at_work *w) {
  at_pathop *o = op_of(w);
  uv_fs_t req;
  int status = o->flags ? uv_fs_readlink(NULL, &req, o->path, NULL)
                        : uv_fs_realpath(NULL, &req, o->path, NULL);
  if (status == 0 && (o->text = strdup(req.ptr)) == NULL) status = UV_ENOMEM;
  w->op.status = status;
  uv_fs_req_cleanup(&req);
}

static void mkdtemp_run(at_work *w) {
  at_pathop *o = op_of(w);
  o->text = strdup(o->path);
  if (o->text == NULL) w->op.status = UV_ENOMEM;
  else if (mkdtemp(o->text) == NULL) w->op.status = -errno;
  else o->made = 1;
}

void (*const at_verb_run[])(at_work *w) = {
    [AT_VERB_OPEN] = open_run,         [AT_VERB_STAT] = stat_run,
    [AT_VERB_LSTAT] = stat_run,        [AT_VERB_EXISTS] = exists_run,
    [AT_VERB_MKDIR] = mkdir_run,       [AT_VERB_REMOVE] = at_remove_run,
    [AT_VERB_RENAME] = rename_run,     [AT_VERB_LINK] = link_run,
    [AT_VERB_SYMLINK] = symlink_run,   [AT_VERB_CHMOD] = chmod_run,
    [AT_VERB_TRUNCATE] = truncate_run, [AT_VERB_UTIME] = utime_run,
    [AT_VERB_COPY] = at_copy_run,      [AT_VERB_REALPATH] = text_run,
    [AT_VERB_READLINK] = text_run,     [AT_VERB_MKDTEMP] = mkdtemp_run,
    [AT_VERB_CHOWN] = chown_run,       [AT_VERB_STATFS] = statfs_run,
    [AT_VERB_TMPFILE] = tmpfile_run,   [AT_VERB_GLOB] = at_glob_run};
