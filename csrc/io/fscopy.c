/* fscopy.c - copying a file inside the kernel: a shared extent (reflink) where the file system has them,
** else copy_file_range, sendfile, and only then a buffer of our own. Owns nothing beyond the call.
** Pool threads, no Lua. Linux; elsewhere libuv's copyfile, which does the like.
** Invariant: a copy that fails or is cancelled leaves no new file behind. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/fs.h"
#include "io/fsverb.h"

#if defined(__linux__)

#include <sys/ioctl.h>
#include <sys/sendfile.h>

#ifndef FICLONE
#define FICLONE _IOW(0x94, 9, int)
#endif

#define PIECE (64 * 1024 * 1024) /* after which a cancellation is looked for */
#define BUFFER (256 * 1024)

/* Each moves bytes from one file's position to the other's: how many, 0 at the end, -1 with errno. */

static ssize_t by_range(int from, int to, char *buffer) {
  (void)buffer;
  return copy_file_range(from, NULL, to, NULL, PIECE, 0);
}

static ssize_t by_sendfile(int from, int to, char *buffer) {
  (void)buffer;
  return sendfile(to, from, NULL, PIECE);
}

static ssize_t by_buffer(int from, int to, char *buffer) {
  ssize_t size = read(from, buffer, BUFFER), at = 0;
  while (at < size) {
    ssize_t n = write(to, buffer + at, (size_t)(size - at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    at += n;
  }
  return size;
}

static ssize_t (*const ways[])(int, int, char *) = {by_range, by_sendfile, by_buffer};
enum { WAY_LAST = 2 };

/* This way cannot be used with these two files (another may). */
static int is_unable(int error) {
  return error == EXDEV || error == EINVAL || error == ENOSYS || error == EOPNOTSUPP ||
         error == EBADF || error == EPERM || error == ETXTBSY;
}

static int move_bytes(at_pathop *o, int from, int to) {
  char *buffer = NULL;
  int way = 0, moved = 0, status = 0;
  while (status == 0) {
    ssize_t n;
    if (atomic_load(&o->abandoned)) {
      status = UV_ECANCELED;
      break;
    }
    if (way == WAY_LAST && buffer == NULL && (buffer = malloc(BUFFER)) == NULL) return UV_ENOMEM;
    n = ways[way](from, to, buffer);
    if (n > 0) moved = 1;
    else if (n == 0 && (moved || way == WAY_LAST)) break;
    else if (way < WAY_LAST && (n == 0 || is_unable(errno))) way++; /* 0: /proc tells no size */
    else if (n < 0 && errno != EINTR) status = -errno;
  }
  free(buffer);
  return status;
}

/* Opens the target; *made says whether it is new. */
static int open_target(at_pathop *o, mode_t mode, int *made) {
  int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY;
  int fd = open(o->path2, flags | O_EXCL, mode);
  *made = fd >= 0;
  if (fd < 0 && errno == EEXIST && !(o->flags & UV_FS_COPYFILE_EXCL)) fd = open(o->path2, flags, mode);
  return fd < 0 ? -errno : fd;
}

static int fill(at_pathop *o, int from, int to, const struct stat *st) {
  struct stat target;
  if (fstat(to, &target) != 0) return -errno;
  if (target.st_dev == st->st_dev && target.st_ino == st->st_ino) return 0; /* itself */
  if (S_ISREG(target.st_mode)) {
    if (target.st_size > 0 && ftruncate(to, 0) != 0) return -errno;
    if (fchmod(to, st->st_mode & 07777) != 0 && errno != EPERM) return -errno; /* somebody else's */
    if (S_ISREG(st->st_mode) && ioctl(to, FICLONE, from) == 0) return 0;
  }
  return move_bytes(o, from, to);
}

void at_copy_run(at_work *w) {
  at_pathop *o = (at_pathop *)(void *)w;
  struct stat st;
  int made, status, to, from = at_fs_open_fd(o->path, O_RDONLY, 0, &st);
  if (from < 0) {
    w->op.status = from;
    return;
  }
  to = open_target(o, st.st_mode & 0777, &made);
  status = to < 0 ? to : fill(o, from, to, &st);
  (void)close(from); /* for reading only */
  if (to >= 0) {
    if (close(to) != 0 && errno != EINTR && status == 0) status = -errno;
    if (status < 0 && made) (void)unlink(o->path2); /* the first failure is the one to tell */
  }
  w->op.status = status;
}

#else

void at_copy_run(at_work *w) {
  at_pathop *o = (at_pathop *)(void *)w;
  uv_fs_t req;
  w->op.status = uv_fs_copyfile(NULL, &req, o->path, o->path2, o->flags, NULL);
  uv_fs_req_cleanup(&req);
}

#endif
