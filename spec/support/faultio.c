/* faultio.c - a library for LD_PRELOAD that makes the n-th system call of a kind fail, be short or be interrupted. A
** Lua program arms it through the same file: package.loadlib(file, "luaopen_faultio")(). Any thread may make the
** call; the counter is atomic.
** Only calls on sockets, files and directories, or that make such: libuv aborts by design when its own epoll, eventfd or
** pipe of signals fails. Calls that the C library makes inside itself are not seen. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FAIL, SHORT };

#define KINDS(X)                                                                                    \
  X(read) X(write) X(readv) X(writev) X(pread) X(pwrite) X(preadv2) X(recv) X(recvmsg) X(send) X(sendmsg) X(open)  \
  X(openat2) X(openat) X(socket) X(socketpair) X(pipe2) X(bind) X(listen) X(accept4) X(connect)     \
  X(getsockopt) X(setsockopt) X(getsockname) X(fcntl) X(fstat) X(lstat) X(stat) X(statx) X(fsync) X(fdatasync)   \
  X(ftruncate) X(rename) X(link) X(unlink) X(unlinkat) X(mkdir) X(mkdtemp) X(opendir) X(fdopendir) X(readdir)     \
  X(pwritev) X(sendto) X(recvfrom) X(fstatat) X(mkostemp) X(inotify_init1) X(inotify_add_watch) X(rmdir) X(copy_file_range) X(sendfile) X(fchmod) X(utimensat) X(dup) X(pthread_create) X(mmap)

#define NUMBER(name) K_##name,
enum kind { KINDS(NUMBER) K_COUNT };
#define NAME(name) #name,
static const char *const names[] = {KINDS(NAME) NULL};

static atomic_int armed = -1;    /* a kind, or -1 */
static atomic_long left;         /* calls before the one that fails */
static atomic_int fired, seen;
static int error_number, mode, sticky; /* written while nothing is armed */

/* A child process is left in peace: what fails there would not be counted here. */
static void disarm(void) { atomic_store(&armed, -1); }

__attribute__((constructor)) static void prepare(void) { (void)pthread_atfork(NULL, NULL, disarm); }

/* True if this call of the kind is the one. */
static int hit(enum kind kind) {
  if (atomic_load(&armed) != (int)kind) return 0;
  atomic_fetch_add(&seen, 1);
  if (atomic_fetch_sub(&left, 1) > 1) return 0;
  if (!sticky && atomic_exchange(&fired, 1)) return 0;
  atomic_store(&fired, 1);
  return 1;
}

static void *real(const char *name) {
  void *f = dlsym(RTLD_NEXT, name);
  if (f == NULL) f = dlsym(RTLD_DEFAULT, name);
  return f;
}

/* What calls on a descriptor may be made to fail on. */
static int ours(int fd) {
  struct stat st;
  int saved = errno, fits;
  fits = syscall(SYS_fstat, fd, &st) == 0 &&
         (S_ISSOCK(st.st_mode) || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
  errno = saved;
  return fits && fd > 2;
}

#define REAL(type, name, ...)                                                                       \
  static type (*next)(__VA_ARGS__);                                                                 \
  if (next == NULL) *(void **)&next = real(#name)

#define FAIL_IF(condition, kind, result)                                                            \
  if (atomic_load(&armed) == K_##kind && (condition) && hit(K_##kind)) {                           \
    errno = error_number;                                                                          \
    return result;                                                                                 \
  }

/* Calls that move bytes: a failure, or fewer bytes than asked for. */
#define MOVE(type, name, size, cut, call, ...)                                                      \
  type name(__VA_ARGS__);                                                                           \
  type name(__VA_ARGS__) {                                                                          \
    REAL(type, name, __VA_ARGS__);                                                                  \
    if (atomic_load(&armed) == K_##name && ours(fd) && hit(K_##name)) {                            \
      if (mode == FAIL) {                                                                           \
        errno = error_number;                                                                       \
        return -1;                                                                                  \
      }                                                                                             \
      if ((size) > 1) { cut; }                                                                      \
    }                                                                                               \
    return next call;                                                                               \
  }

MOVE(ssize_t, read, n, n = 1, (fd, p, n), int fd, void *p, size_t n)
MOVE(ssize_t, write, n, n = 1, (fd, p, n), int fd, const void *p, size_t n)
MOVE(ssize_t, pread, n, n = 1, (fd, p, n, at), int fd, void *p, size_t n, off_t at)
MOVE(ssize_t, pwrite, n, n = 1, (fd, p, n, at), int fd, const void *p, size_t n, off_t at)
MOVE(ssize_t, readv, n, n = 1, (fd, v, n), int fd, const struct iovec *v, int n)
MOVE(ssize_t, writev, n, n = 1, (fd, v, n), int fd, const struct iovec *v, int n)
MOVE(ssize_t, preadv2, n, n = 1, (fd, v, n, at, flags), int fd, const struct iovec *v, int n, off_t at, int flags)
MOVE(ssize_t, recv, n, n = 1, (fd, p, n, flags), int fd, void *p, size_t n, int flags)
MOVE(ssize_t, send, n, n = 1, (fd, p, n, flags), int fd, const void *p, size_t n, int flags)
MOVE(ssize_t, recvmsg, 0, (void)0, (fd, m, flags), int fd, struct msghdr *m, int flags)
MOVE(ssize_t, sendmsg, 0, (void)0, (fd, m, flags), int fd, const struct msghdr *m, int flags)
MOVE(ssize_t, pwritev, n, n = 1, (fd, v, n, at), int fd, const struct iovec *v, int n, off_t at)
MOVE(ssize_t, sendto, n, n = 1, (fd, p, n, f, a, l), int fd, const void *p, size_t n, int f, const struct sockaddr *a,
     socklen_t l)
MOVE(ssize_t, recvfrom, 0, (void)0, (fd, p, n, f, a, l), int fd, void *p, size_t n, int f, struct sockaddr *a, socklen_t *l)
MOVE(ssize_t, copy_file_range, n, n = 1, (fd, a, to, b, n, flags), int fd, off64_t *a, int to, off64_t *b,
     size_t n, unsigned flags)
MOVE(ssize_t, sendfile, n, n = 1, (to, fd, at, n), int to, int fd, off_t *at, size_t n)

/* Calls on a descriptor, and calls on none. */
#define ON_FD(type, name, failed, call, ...)                                                        \
  type name(__VA_ARGS__);                                                                           \
  type name(__VA_ARGS__) {                                                                          \
    REAL(type, name, __VA_ARGS__);                                                                  \
    FAIL_IF(ours(fd), name, failed)                                                                 \
    return next call;                                                                               \
  }
#define ANY(type, name, failed, call, ...)                                                          \
  type name(__VA_ARGS__);                                                                           \
  type name(__VA_ARGS__) {                                                                          \
    REAL(type, name, __VA_ARGS__);                                                                  \
    FAIL_IF(1, name, failed)                                                                        \
    return next call;                                                                               \
  }

ANY(int, socket, -1, (a, b, c), int a, int b, int c)
ANY(int, socketpair, -1, (a, b, c, v), int a, int b, int c, int v[2])
ANY(int, pipe2, -1, (v, flags), int v[2], int flags)
ON_FD(int, bind, -1, (fd, a, n), int fd, const struct sockaddr *a, socklen_t n)
ON_FD(int, listen, -1, (fd, n), int fd, int n)
ON_FD(int, accept4, -1, (fd, a, n, flags), int fd, struct sockaddr *a, socklen_t *n, int flags)
ON_FD(int, connect, -1, (fd, a, n), int fd, const struct sockaddr *a, socklen_t n)
ON_FD(int, getsockopt, -1, (fd, l, o, v, n), int fd, int l, int o, void *v, socklen_t *n)
ON_FD(int, setsockopt, -1, (fd, l, o, v, n), int fd, int l, int o, const void *v, socklen_t n)
ON_FD(int, getsockname, -1, (fd, a, n), int fd, struct sockaddr *a, socklen_t *n)
ON_FD(int, fstat, -1, (fd, st), int fd, struct stat *st)
ON_FD(int, fsync, -1, (fd), int fd)
ON_FD(int, fdatasync, -1, (fd), int fd)
ON_FD(int, ftruncate, -1, (fd, n), int fd, off_t n)
ON_FD(int, fchmod, -1, (fd, m), int fd, mode_t m)
ON_FD(int, dup, -1, (fd), int fd)
ON_FD(DIR *, fdopendir, NULL, (fd), int fd)
ANY(int, lstat, -1, (p, st), const char *p, struct stat *st)
ANY(int, stat, -1, (p, st), const char *p, struct stat *st)
ANY(int, statx, -1, (d, p, f, m, st), int d, const char *p, int f, unsigned m, struct statx *st)
ANY(int, fstatat, -1, (d, p, st, f), int d, const char *p, struct stat *st, int f)
ANY(int, mkostemp, -1, (p, f), char *p, int f)
ANY(int, inotify_init1, -1, (f), int f)
ANY(int, inotify_add_watch, -1, (d, p, m), int d, const char *p, uint32_t m)
ANY(int, rmdir, -1, (p), const char *p)
ANY(int, rename, -1, (a, b), const char *a, const char *b)
ANY(int, link, -1, (a, b), const char *a, const char *b)
ANY(int, unlink, -1, (p), const char *p)
ANY(int, unlinkat, -1, (d, p, f), int d, const char *p, int f)
ANY(int, mkdir, -1, (p, m), const char *p, mode_t m)
ANY(char *, mkdtemp, NULL, (p), char *p)
ANY(int, utimensat, -1, (d, p, t, f), int d, const char *p, const struct timespec t[2], int f)
ANY(DIR *, opendir, NULL, (p), const char *p)
ANY(struct dirent *, readdir, NULL, (d), DIR *d)
ANY(void *, mmap, (void *)-1, (a, n, p, f, fd, at), void *a, size_t n, int p, int f, int fd, off_t at)

int open(const char *path, int flags, ...);
int open(const char *path, int flags, ...) {
  REAL(int, open, const char *, int, ...);
  va_list list;
  mode_t m;
  va_start(list, flags);
  m = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(list, mode_t) : 0;
  va_end(list);
  FAIL_IF(1, open, -1)
  return next(path, flags, m);
}

int openat(int d, const char *path, int flags, ...);
int openat(int d, const char *path, int flags, ...) {
  REAL(int, openat, int, const char *, int, ...);
  va_list list;
  mode_t m;
  va_start(list, flags);
  m = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(list, mode_t) : 0;
  va_end(list);
  FAIL_IF(1, openat, -1)
  return next(d, path, flags, m);
}

int fcntl(int fd, int what, ...);
int fcntl(int fd, int what, ...) {
  REAL(int, fcntl, int, int, ...);
  va_list list;
  void *v;
  va_start(list, what);
  v = va_arg(list, void *);
  va_end(list);
  FAIL_IF(ours(fd), fcntl, -1)
  return next(fd, what, v);
}

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *v);
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *v) {
  REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  if (hit(K_pthread_create)) return error_number;
  return next(t, a, f, v);
}

/* openat2 and libuv's statx come through syscall(). */
long syscall(long number, ...) {
  REAL(long, syscall, long, ...);
  va_list list;
  long a[6];
  int i;
  va_start(list, number);
  for (i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  if (number == 437) FAIL_IF(1, openat2, -1)
  if (number == SYS_statx) FAIL_IF(1, statx, -1)
  if (number == SYS_copy_file_range) FAIL_IF(1, copy_file_range, -1)
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- for Lua --------------------------------------------------------------------------------- */

/* arm(kind, n, errno | "short", [sticky]): the n-th call from now on, and with sticky all after it */
static int l_arm(lua_State *L) {
  int kind = luaL_checkoption(L, 1, NULL, names);
  disarm();
  atomic_store(&left, (long)luaL_checkinteger(L, 2));
  mode = lua_type(L, 3) == LUA_TSTRING ? SHORT : FAIL;
  error_number = mode == FAIL ? (int)luaL_checkinteger(L, 3) : 0;
  sticky = lua_toboolean(L, 4);
  atomic_store(&fired, 0);
  atomic_store(&seen, 0);
  atomic_store(&armed, kind);
  return 0;
}

/* disarm() -> whether it fired, how many calls of the kind were seen */
static int l_disarm(lua_State *L) {
  disarm();
  lua_pushboolean(L, atomic_load(&fired));
  lua_pushinteger(L, atomic_load(&seen));
  return 2;
}

int luaopen_faultio(lua_State *L);
int luaopen_faultio(lua_State *L) {
  static const luaL_Reg functions[] = {{"arm", l_arm}, {"disarm", l_disarm}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}
