/* tty.c - the standard descriptors as streams, terminals by name, pairs of terminals. Calls stream.c and
** file.c. Loop thread only.
** Invariant: the descriptors 0, 1 and 2 are shared with other processes, which would trip over
** O_NONBLOCK: it is never left on them. Terminals and pipes are opened once more, which gives a
** description of our own; sockets need no flag; whatever is left (regular files, devices, what cannot
** be opened again) is a File, read and written by the pool for blocking calls. */
#include "io/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "io/file.h"
#include "io/stream.h"

static const char *const names[] = {"stdin", "stdout", "stderr"};

/* [-0, +2, m] */
static int push_no(lua_State *L, int status, const char *op, const char *path) {
  lua_pushnil(L);
  at_error_push_uv(L, status, op, path);
  return 2;
}

/* ---- the standard descriptors ---- */

/* A description of our own of what is open there, non-blocking; -1 if there is none to be had. */
static int open_again(int fd, const struct stat *st) {
  char path[256];
  struct stat got;
  int again;
  if (S_ISFIFO(st->st_mode)) {
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  } else {
#ifdef TIOCGPTN
    unsigned number;
    if (ioctl(fd, TIOCGPTN, &number) == 0) return -1; /* a master: opening would make a new one */
#endif
    if (ttyname_r(fd, path, sizeof path) != 0) return -1;
  }
  again = open(path, (fd == 0 ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (again < 0) return -1;
  if (fstat(again, &got) == 0 && got.st_mode == st->st_mode && got.st_rdev == st->st_rdev &&
      got.st_ino == st->st_ino)
    return again;
  (void)close(again);
  return -1;
}

/* A socket is read and written without waiting whatever its flags are: they stay as they were. */
static int take_socket(at_runtime *rt, at_streambox *box, int fd) {
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 3), flags = fcntl(fd, F_GETFL), status;
  if (own < 0 || flags < 0) return -errno;
  status = at_stream_take(rt, box, own, AT_STREAM_SOCKET);
  if (status < 0)
    (void)close(own);
  else
    (void)fcntl(fd, F_SETFL, flags);
  return status;
}

/* Makes the stream of a terminal, pipe or socket. 1, 0 if it has to be a File, or a status. */
static int take_standard(at_runtime *rt, at_streambox *box, int fd, const struct stat *st) {
  int own, status;
  if (S_ISSOCK(st->st_mode)) {
    status = take_socket(rt, box, fd);
    return status < 0 ? status : 1;
  }
  if (!S_ISFIFO(st->st_mode) && !isatty(fd)) return 0;
  own = open_again(fd, st);
  if (own < 0) return 0;
  status = at_stream_take(rt, box, own, AT_STREAM_FILE);
  if (status < 0) (void)close(own);
  return status < 0 ? status : 1;
}

/* [-0, +1 or 2, m] the File of a standard descriptor. It has no position of its own: what is
** written goes where the other processes' output ends. */
static int push_file(lua_State *L, at_runtime *rt, int fd) {
  at_file *f = at_file_push(L, rt, names[fd]);
  struct stat st = {.st_mode = S_IFIFO};
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (own < 0) return push_no(L, -errno, "open", names[fd]);
  at_file_adopt(f, own, fd == 0 ? O_RDONLY : O_WRONLY, &st);
  return 1;
}

/* standard(fd) -> Stream or File; nil, error */
static int l_tty_standard(lua_State *L) {
  at_runtime *rt = at_rt(L);
  lua_Integer fd = luaL_checkinteger(L, 1);
  at_streambox *box;
  struct stat st;
  int status;
  luaL_argcheck(L, fd >= 0 && fd <= 2, 1, "no standard descriptor");
  box = at_stream_box(L, rt);
  if (fstat((int)fd, &st) != 0) return push_no(L, -errno, "open", names[fd]);
  status = take_standard(rt, box, (int)fd, &st);
  if (status < 0) return push_no(L, status, "open", names[fd]);
  if (status == 0) return push_file(L, rt, (int)fd);
  box->stream->mark = 1; /* an awaited write is out: nothing is lost when the process exits */
  return 1;
}

/* ---- terminals ---- */

/* open(path) -> Stream of the terminal (or serial line) of that name; nil, error */
static int l_tty_open(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  at_streambox *box = at_stream_box(L, rt);
  int fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), status;
  if (fd < 0) return push_no(L, -errno, "open", path);
  status = isatty(fd) ? at_stream_take(rt, box, fd, AT_STREAM_FILE) : -errno;
  if (status == 0) return 1;
  (void)close(fd);
  return push_no(L, status, "open", path);
}

/* Both sides of a new pair. 0 or a status. No Lua. */
static int open_pair(int *master, int *slave, char *path, size_t size) {
  int status;
  *slave = -1;
  *master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (*master < 0) return -errno;
  if (grantpt(*master) == 0 && unlockpt(*master) == 0 && ptsname_r(*master, path, size) == 0)
    *slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (*slave >= 0) return 0;
  status = -errno;
  (void)close(*master);
  return status;
}

static void set_raw(int fd) {
  struct termios mode;
  if (tcgetattr(fd, &mode) != 0) return; /* it was opened this moment: does not happen */
  cfmakeraw(&mode);
  (void)tcsetattr(fd, TCSANOW, &mode);
}

/* pair(raw) -> our side, the terminal, its name; nil, error */
static int l_tty_pair(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int raw = lua_toboolean(L, 1), master, slave, status;
  char path[128];
  at_streambox *one, *other;
  lua_settop(L, 1);
  one = at_stream_box(L, rt);
  other = at_stream_box(L, rt);
  status = open_pair(&master, &slave, path, sizeof path);
  if (status < 0) return push_no(L, status, "pair", NULL);
  if (raw) set_raw(slave);
  status = at_stream_take(rt, one, master, AT_STREAM_FILE);
  if (status < 0) (void)close(master);
  if (status == 0) status = at_stream_take(rt, other, slave, AT_STREAM_FILE);
  if (status == 0) {
    lua_pushstring(L, path);
    return 3;
  }
  (void)close(slave);
  if (one->stream != NULL) at_stream_abort(one->stream);
  return push_no(L, status, "pair", NULL);
}

void at_tty_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"standard", l_tty_standard}, {"open", l_tty_open},
                                       {"pair", l_tty_pair},         {"raw", l_tty_raw},
                                       {"size", l_tty_size},         {"resize", l_tty_resize},
                                       {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_ttymode_open(L, rt);
}
