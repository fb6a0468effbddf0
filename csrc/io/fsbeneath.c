/* fsbeneath.c - opening a path that does not lead out of a directory: through "..", an absolute
** path or a link.
** Owns nothing. Pool threads, no Lua. Linux resolves it in one step (openat2 with RESOLVE_BENEATH,
** 5.6), so that nobody can change the way meanwhile. Elsewhere the real path is found first and
** opened then: links that somebody swaps between the two are not seen, but the last part is never
** followed. Leaving is EXDEV, as openat2 says. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define OPEN_FLAGS (O_CLOEXEC | O_NOCTTY)
#define TRIES 100 /* while somebody renames what is on the way */

#if defined(__linux__)
#include <sys/syscall.h>
#endif

#if defined(__linux__) && defined(SYS_openat2)

#include <linux/openat2.h>

/* A descriptor, or a negative status; UV_ENOSYS: the kernel or a sandbox does not have it. */
static int open_resolved(const char *directory, const char *path, int flags, int permissions) {
  struct open_how how;
  long fd;
  int status, tries = 0, root = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return -errno;
  memset(&how, 0, sizeof how);
  how.flags = (unsigned)flags;
  how.mode = flags & O_CREAT ? (unsigned)permissions : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  do { /* EAGAIN: something on the way was renamed meanwhile */
    fd = syscall(SYS_openat2, root, path, &how, sizeof how);
  } while (fd < 0 && (errno == EINTR || errno == EAGAIN) && ++tries < TRIES);
  status = fd < 0 ? -errno : (int)fd;
  (void)close(root); /* an O_PATH descriptor: nothing to lose */
  if (status == UV_EPERM) { /* a sandbox says this for calls that it does not know */
    memset(&how, 0, sizeof how);
    if (syscall(SYS_openat2, -1, "", &how, sizeof how) < 0 && errno == EPERM) return UV_ENOSYS;
  }
  return status;
}

#else

static int open_resolved(const char *directory, const char *path, int flags, int permissions) {
  (void)directory, (void)path, (void)flags, (void)permissions;
  return UV_ENOSYS;
}

#endif

/* Does the path stay below where it begins, if nothing in it is a link? */
static int stays(const char *path) {
  const char *p = path;
  int depth = 0;
  if (*p == '/') return 0;
  while (*p != '\0') {
    size_t n = strcspn(p, "/");
    if (n == 2 && p[0] == '.' && p[1] == '.') depth--;
    else if (n > 0 && !(n == 1 && p[0] == '.')) depth++;
    if (depth < 0) return 0;
    p += n;
    while (*p == '/') p++;
  }
  return 1;
}

/* root and path with a slash between; owned by the caller, or NULL. */
static char *join(const char *root, const char *path) {
  char *whole = malloc(strlen(root) + strlen(path) + 2);
  if (whole == NULL) return NULL;
  strcpy(whole, root);
  strcat(whole, "/");
  strcat(whole, path);
  return whole;
}

/* The real path of what is to be opened: for a file that is to be made, its directory's with the
** name. Owned by the caller; NULL with errno. */
static char *real_target(char *whole, int flags) {
  char *real = realpath(whole, NULL), *name, *parent, *made;
  if (real != NULL || errno != ENOENT || !(flags & O_CREAT)) return real;
  name = strrchr(whole, '/'); /* there is one: join put it there */
  if (name[1] == '\0' || strcmp(name, "/.") == 0 || strcmp(name, "/..") == 0) {
    errno = ENOENT;
    return NULL;
  }
  *name = '\0';
  parent = realpath(whole, NULL);
  if (parent == NULL) return NULL;
  made = join(parent, name + 1);
  if (made == NULL) errno = ENOMEM;
  free(parent);
  return made;
}

static int is_below(const char *real, const char *root) {
  size_t n = strlen(root);
  if (strcmp(root, "/") == 0) return 1;
  return strncmp(real, root, n) == 0 && (real[n] == '/' || real[n] == '\0');
}

/* The portable way. A descriptor, or a negative status. */
static int open_checked(const char *directory, const char *path, int flags, int permissions) {
  char *root = NULL, *whole = NULL, *real = NULL;
  int fd = UV_EXDEV;
  if (!stays(path)) return UV_EXDEV;
  root = realpath(directory, NULL);
  if (root == NULL) return -errno;
  whole = join(root, path);
  if (whole == NULL) {
    fd = UV_ENOMEM;
    goto done;
  }
  real = real_target(whole, flags);
  if (real == NULL) fd = -errno;
  else if (is_below(real, root)) {
    do {
      fd = open(real, flags | O_NOFOLLOW, (mode_t)permissions);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) fd = -errno;
  }
done:
  free(real);
  free(whole);
  free(root);
  return fd;
}

/* Where nobody writes to a FIFO, opening it for reading must not hang: a server opens what it is
** asked for. */
int at_fs_open_beneath(const char *directory, const char *path, int flags, int permissions,
                       struct stat *st) {
  int fd, wait = (flags & O_ACCMODE) != O_RDONLY;
  flags |= OPEN_FLAGS | (wait ? 0 : O_NONBLOCK);
  fd = open_resolved(directory, path, flags, permissions);
  if (fd == UV_ENOSYS) fd = open_checked(directory, path, flags, permissions);
  if (fd < 0) return fd;
  fd = at_fs_accept_fd(fd, st);
  if (fd >= 0 && !wait && !S_ISREG(st->st_mode))
    (void)fcntl(fd, F_SETFL, flags & ~(O_NONBLOCK | OPEN_FLAGS)); /* if not: reads say EAGAIN */
  return fd;
}
