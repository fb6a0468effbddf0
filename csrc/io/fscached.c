/* fscached.c - cached files on the loop thread: openat2(RESOLVE_CACHED), statx, preadv2(RWF_NOWAIT).
** A trip to the pool costs about ten times what reading a small cached file does (measured). Linux;
** elsewhere every function says "ask the pool". Loop threads; no Lua.
** Invariants: nothing here waits for a disk or a peer: a path is first opened as O_PATH (which has no
** side effect on FIFOs and devices) and must be a regular file on a file system known to be local.
** What the kernel does not have is found at run time and remembered. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#endif

#define CHARGE_BYTES (16 * 1024) /* of reading cost about what one await that does not wait does */

int at_cached_allowed(const at_runtime *rt) { return rt->budget > 1; }

void at_cached_charge(at_runtime *rt, size_t bytes) {
  int cost = (int)(bytes / CHARGE_BYTES);
  rt->budget = rt->budget > cost + 1 ? rt->budget - cost : 1; /* the next await gives way */
}

#if defined(__linux__) && defined(SYS_openat2) && defined(RWF_NOWAIT) && defined(STATX_BASIC_STATS)

#include <linux/openat2.h>

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20 /* Linux 5.12 */
#endif

static atomic_int no_openat2; /* the kernel has no openat2, or no RESOLVE_CACHED */

/* A descriptor, or -1 with errno. Below `root`, unless that is AT_FDCWD. */
static int open_cached(int root, const char *path, int flags) {
  struct open_how how;
  long fd;
  memset(&how, 0, sizeof how);
  how.flags = (unsigned)(flags | O_CLOEXEC);
  how.resolve = RESOLVE_CACHED | (root == AT_FDCWD ? 0 : RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
  fd = syscall(SYS_openat2, root, path, &how, sizeof how);
  if (fd < 0 && (errno == ENOSYS || errno == EINVAL || errno == EPERM))
    atomic_store_explicit(&no_openat2, 1, memory_order_relaxed);
  return (int)fd;
}

/* File systems: a small table of verdicts by device, shared by all threads. A lost update costs a
** second question. */
enum { FS_UNKNOWN, FS_LOCAL, FS_OTHER };
#define DEVICES 32
static _Atomic(uint64_t) devices[DEVICES]; /* device number * 4 + verdict */

static int known_local(uint64_t type) {
  static const uint32_t local[] = {0xEF53 /* ext */,      0x58465342 /* xfs */, 0x9123683E /* btrfs */,
                                   0xF2F52010 /* f2fs */, 0x794C7630 /* overlay */};
  size_t i;
  for (i = 0; i < sizeof local / sizeof *local; i++)
    if ((uint32_t)type == local[i]) return 1;
  return 0;
}

static void device_set(uint64_t device, int verdict) {
  atomic_store_explicit(&devices[device % DEVICES], device * 4 + (unsigned)verdict,
                        memory_order_relaxed);
}

/* Is the file system of the descriptor one that serves from this machine's own cache? */
static int is_local(int fd, uint64_t device) {
  uint64_t entry = atomic_load_explicit(&devices[device % DEVICES], memory_order_relaxed);
  struct statfs fs;
  int verdict;
  if (entry / 4 == device && entry % 4 != FS_UNKNOWN) return entry % 4 == FS_LOCAL;
  verdict = fstatfs(fd, &fs) == 0 && known_local((uint64_t)fs.f_type) ? FS_LOCAL : FS_OTHER;
  device_set(device, verdict);
  return verdict == FS_LOCAL;
}

/* What is known about the descriptor without asking a server; 1, or 0. */
static int stat_cached(int fd, struct statx *sx) {
  int flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  if (statx(fd, "", flags, STATX_BASIC_STATS, sx) != 0) return 0;
  return is_local(fd, makedev(sx->stx_dev_major, sx->stx_dev_minor));
}

static struct timespec time_of(struct statx_timestamp t) {
  struct timespec ts = {.tv_sec = t.tv_sec, .tv_nsec = t.tv_nsec};
  return ts;
}

static void stat_from(const struct statx *sx, struct stat *st) {
  memset(st, 0, sizeof *st);
  st->st_dev = makedev(sx->stx_dev_major, sx->stx_dev_minor);
  st->st_rdev = makedev(sx->stx_rdev_major, sx->stx_rdev_minor);
  st->st_ino = sx->stx_ino;
  st->st_mode = sx->stx_mode;
  st->st_nlink = sx->stx_nlink;
  st->st_uid = sx->stx_uid;
  st->st_gid = sx->stx_gid;
  st->st_size = (off_t)sx->stx_size;
  st->st_blksize = (blksize_t)sx->stx_blksize;
  st->st_blocks = (blkcnt_t)sx->stx_blocks;
  st->st_atim = time_of(sx->stx_atime);
  st->st_mtim = time_of(sx->stx_mtime);
  st->st_ctim = time_of(sx->stx_ctime);
}

static int stat_at(int root, const char *path, int follow, struct stat *st) {
  struct statx sx;
  int known, fd = open_cached(root, path, O_PATH | (follow ? 0 : O_NOFOLLOW));
  if (fd < 0) return 0;
  known = stat_cached(fd, &sx);
  (void)close(fd); /* an O_PATH descriptor: nothing to lose */
  if (known) stat_from(&sx, st);
  return known;
}

int at_cached_stat(const char *path, int follow, struct stat *st) {
  if (atomic_load_explicit(&no_openat2, memory_order_relaxed)) return 0;
  return stat_at(AT_FDCWD, path, follow, st);
}

static int open_at(int root, const char *path, struct stat *st) {
  if (!stat_at(root, path, 1, st) || !S_ISREG(st->st_mode)) return -1;
  return open_cached(root, path, O_RDONLY | O_NONBLOCK); /* if it was swapped for a FIFO just now */
}

int at_cached_open(const char *beneath, const char *path, struct stat *st) {
  int root, fd;
  if (atomic_load_explicit(&no_openat2, memory_order_relaxed)) return -1;
  if (beneath == NULL) return open_at(AT_FDCWD, path, st);
  root = open_cached(AT_FDCWD, beneath, O_PATH | O_DIRECTORY);
  if (root < 0) return -1;
  fd = open_at(root, path, st);
  (void)close(root); /* an O_PATH descriptor: nothing to lose */
  return fd;
}

ssize_t at_cached_read(int fd, void *data, size_t size, int64_t at, unsigned char *able) {
  struct iovec piece = {.iov_base = data, .iov_len = size};
  ssize_t n = preadv2(fd, &piece, 1, (off_t)at, RWF_NOWAIT);
  if (n >= 0) return n;
  if (errno != EAGAIN && errno != EINTR) *able = 0;
  return -1;
}

#else

int at_cached_open(const char *beneath, const char *path, struct stat *st) {
  (void)beneath, (void)path, (void)st;
  return -1;
}

ssize_t at_cached_read(int fd, void *data, size_t size, int64_t at, unsigned char *able) {
  (void)fd, (void)data, (void)size, (void)at;
  *able = 0;
  return -1;
}

int at_cached_stat(const char *path, int follow, struct stat *st) {
  (void)path, (void)follow, (void)st;
  return 0;
}

#endif
