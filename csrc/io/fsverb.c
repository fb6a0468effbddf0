/* fsverb.c - what the operations on paths do: system calls that may block. Owns nothing.
** Pool threads, no Lua; at_fs_type: any. Each *_run sets the request's status to 0 or a negative uv
** code (libuv's codes are negated errno where errno exists).
** Invariant: removing a tree works on descriptors, never by way of a link. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/fsverb.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

int at_fs_open_fd(const char *path, int flags, int permissions, struct stat *st) {
  int fd, status = 0;
  do {
    fd = open(path, flags | O_CLOEXEC | O_NOCTTY, (mode_t)permissions);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return -errno;
  if (fstat(fd, st) != 0) status = -errno;
  else if (S_ISDIR(st->st_mode)) status = UV_EISDIR;
  if (status == 0) return fd;
  (void)close(fd); /* nothing was written */
  return status;
}

static void open_run(at_work *w) {
  at_pathop *o = op_of(w);
  int fd = at_fs_open_fd(o->path, o->flags, o->permissions, &o->st);
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

/* Removes what is in the directory `fd`, which it closes. Works on descriptors: a directory that is
** swapped for a link meanwhile is not followed. */
static int remove_inside(int fd) {
  DIR *dir = fdopendir(fd);
  struct dirent *e;
  int status = 0;
  if (dir == NULL) {
    status = -errno;
    (void)close(fd); /* for reading only */
    return status;
  }
  while (status == 0 && (errno = 0, e = readdir(dir)) != NULL) {
    int inner;
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    if (unlinkat(dirfd(dir), e->d_name, 0) == 0 || errno == ENOENT) continue;
    if (errno != EISDIR && errno != EPERM) {
      status = -errno;
      break;
    }
    inner = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    status = inner < 0 ? -errno : remove_inside(inner);
    if (status == 0 && unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) != 0) status = -errno;
  }
  if (status == 0 && errno != 0) status = -errno;
  (void)closedir(dir); /* for reading only */
  return status;
}

static void remove_run(at_work *w) {
  at_pathop *o = op_of(w);
  int fd;
  if (unlink(o->path) == 0) return;
  if (errno != EISDIR && errno != EPERM) {
    w->op.status = -errno;
    return;
  }
  if (o->flags) {
    fd = open(o->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    w->op.status = fd < 0 ? -errno : remove_inside(fd);
    if (w->op.status < 0) return;
  }
  if (rmdir(o->path) != 0) w->op.status = -errno;
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

static void utime_run(at_work *w) {
  at_pathop *o = op_of(w);
  uv_fs_t req;
  w->op.status = uv_fs_utime(NULL, &req, o->path, o->atime, o->mtime, NULL);
  uv_fs_req_cleanup(&req);
}

static void copy_run(at_work *w) {
  at_pathop *o = op_of(w);
  uv_fs_t req;
  w->op.status = uv_fs_copyfile(NULL, &req, o->path, o->path2, o->flags, NULL);
  uv_fs_req_cleanup(&req);
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
    [AT_VERB_MKDIR] = mkdir_run,       [AT_VERB_REMOVE] = remove_run,
    [AT_VERB_RENAME] = rename_run,     [AT_VERB_LINK] = link_run,
    [AT_VERB_SYMLINK] = symlink_run,   [AT_VERB_CHMOD] = chmod_run,
    [AT_VERB_TRUNCATE] = truncate_run, [AT_VERB_UTIME] = utime_run,
    [AT_VERB_COPY] = copy_run,         [AT_VERB_REALPATH] = text_run,
    [AT_VERB_READLINK] = text_run,     [AT_VERB_MKDTEMP] = mkdtemp_run};
