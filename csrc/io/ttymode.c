/* ttymode.c - modes and sizes of terminals. A terminal belongs to the whole process and to others
** besides: how it was is remembered once, before the first guard makes it raw, and put back when the last
** guard is closed or collected, when its state closes, and at exit(3). (A signal that ends the process
** leaves it raw: nothing of ours runs then.)
** Any thread; the record is guarded by its mutex. Invariant: `descriptor` is a terminal in raw mode, or
** -1. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/error.h"
#include "io/stream.h"
#include "io/tty.h"

static struct {
  pthread_mutex_t mutex;
  int descriptor;        /* guarded by mutex; owned: nobody else can close it */
  int guards;            /* guarded by mutex */
  int at_exit;           /* guarded by mutex: exit will call put_back_at_exit */
  struct termios before; /* guarded by mutex */
} record = {.mutex = PTHREAD_MUTEX_INITIALIZER, .descriptor = -1};

/* The userdata. */
typedef struct at_raw {
  at_closable closable;
  int holds; /* counted in record.guards */
} at_raw;

/* tcsetattr, in the background too (there SIGTTOU would stop the process). */
static int set_mode(int fd, const struct termios *mode) {
  sigset_t ttou, old;
  int status;
  sigemptyset(&ttou);
  sigaddset(&ttou, SIGTTOU);
  pthread_sigmask(SIG_BLOCK, &ttou, &old);
  do {
    status = tcsetattr(fd, TCSANOW, mode) == 0 ? 0 : -errno;
  } while (status == -EINTR);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return status;
}

/* Under the mutex. */
static void put_back(void) {
  if (record.descriptor < 0) return;
  (void)set_mode(record.descriptor, &record.before); /* the terminal may be gone */
  (void)close(record.descriptor);
  record.descriptor = -1;
}

/* No lock is waited for: a thread may hold it while the process ends. */
static void put_back_at_exit(void) {
  if (pthread_mutex_trylock(&record.mutex) != 0) return;
  put_back();
  pthread_mutex_unlock(&record.mutex);
}

/* The terminal becomes raw as in cfmakeraw(3). Under the mutex. 0 or a status. */
static int make_raw(int fd) {
  struct termios mode;
  int status;
  if (tcgetattr(fd, &record.before) != 0) return -errno;
  record.descriptor = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (record.descriptor < 0) return -errno;
  mode = record.before;
  cfmakeraw(&mode);
  status = set_mode(record.descriptor, &mode);
  if (status < 0) put_back();
  if (status == 0 && !record.at_exit) record.at_exit = atexit(put_back_at_exit) == 0;
  return status;
}

static int take(int fd) {
  int status = 0;
  pthread_mutex_lock(&record.mutex);
  if (record.guards == 0) status = make_raw(fd);
  if (status == 0) record.guards++;
  pthread_mutex_unlock(&record.mutex);
  return status;
}

static void let_go(at_raw *raw) {
  if (!raw->holds) return;
  raw->holds = 0;
  at_closable_remove(&raw->closable);
  pthread_mutex_lock(&record.mutex);
  if (--record.guards == 0) put_back();
  pthread_mutex_unlock(&record.mutex);
}

static void close_closable(at_runtime *rt, at_closable *c) {
  (void)rt;
  let_go((at_raw *)(void *)((char *)c - offsetof(at_raw, closable)));
}

/* ---- Lua ---- */

/* A terminal among the standard descriptors, input first; or -1. */
static int find_terminal(void) {
  int fd;
  for (fd = 0; fd < 3; fd++)
    if (isatty(fd)) return fd;
  return -1;
}

/* The terminal of the Stream at `arg`, or the one found. */
static int check_terminal(lua_State *L, int arg) {
  at_streambox *box;
  at_stream *s;
  if (lua_isnoneornil(L, arg)) return find_terminal();
  if (lua_isinteger(L, arg)) return (int)lua_tointeger(L, arg);
  box = luaL_testudata(L, arg, AT_STREAM_MT);
  if (box == NULL) return -1; /* a file */
  s = at_stream_open_one(box);
  return s == NULL ? -1 : s->fd;
}

static int push_no(lua_State *L, int status, const char *op) {
  lua_pushnil(L);
  if (status == UV_ENOTTY)
    at_error_push(L, "ENOTTY", "not a terminal", op);
  else
    at_error_push_uv(L, status, op, NULL);
  return 2;
}

/* raw() -> guard; nil, error where there is no terminal */
int l_tty_raw(lua_State *L) {
  at_runtime *rt = at_rt(L);
  int fd = check_terminal(L, 1), status;
  at_raw *raw;
  if (rt->closing) return luaL_error(L, "asynctask: the runtime of this state is closed");
  raw = lua_newuserdatauv(L, sizeof *raw, 0);
  raw->holds = 0;
  luaL_setmetatable(L, AT_TTY_RAW_MT);
  status = fd < 0 ? UV_ENOTTY : take(fd);
  if (status < 0) return push_no(L, status, "raw");
  raw->holds = 1;
  raw->closable.close = close_closable;
  at_closable_add(rt, &raw->closable);
  return 1;
}

static int l_raw_close(lua_State *L) {
  let_go(luaL_checkudata(L, 1, AT_TTY_RAW_MT));
  return 0;
}

/* size() -> columns, rows; nil, error */
int l_tty_size(lua_State *L) {
  struct winsize size;
  int fd = check_terminal(L, 1), given = !lua_isnoneornil(L, 1);
  if (!given && isatty(1)) fd = 1; /* where one writes */
  if (fd < 0) return push_no(L, UV_ENOTTY, "size");
  if (ioctl(fd, TIOCGWINSZ, &size) != 0) return push_no(L, -errno, "size");
  lua_pushinteger(L, size.ws_col);
  lua_pushinteger(L, size.ws_row);
  return 2;
}

/* resize(stream, columns, rows) -> true; nil, error */
int l_tty_resize(lua_State *L) {
  struct winsize size = {0, 0, 0, 0};
  lua_Integer columns = luaL_checkinteger(L, 2), rows = luaL_checkinteger(L, 3);
  int fd = check_terminal(L, 1);
  luaL_argcheck(L, columns > 0 && columns <= 65535, 2, "no number of columns");
  luaL_argcheck(L, rows > 0 && rows <= 65535, 3, "no number of rows");
  size.ws_col = (unsigned short)columns;
  size.ws_row = (unsigned short)rows;
  if (fd < 0) return push_no(L, UV_ENOTTY, "resize");
  if (ioctl(fd, TIOCSWINSZ, &size) != 0) return push_no(L, -errno, "resize");
  lua_pushboolean(L, 1);
  return 1;
}

void at_ttymode_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg methods[] = {{"close", l_raw_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_raw_close}, {"__close", l_raw_close}, {NULL, NULL}};
  at_runtime_class(L, rt, AT_TTY_RAW_MT, methods, meta);
}
