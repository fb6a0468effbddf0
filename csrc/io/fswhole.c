/* fswhole.c - whole files in one operation: read_file, write_file, append_file. Each is one trip to
** the pool (open, read or write, close), or none: a small file whose data is in the system's cache is
** read at once on the loop thread. Owns nothing beyond the requests.
** Lua functions, push and release: loop thread; *_run: pool threads. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arg.h"
#include "io/fs.h"

#define PERMISSIONS 0666
#define PIECE (16 * 1024 * 1024) /* after which a cancellation is looked for */
#define GROW_FIRST 4096 /* for files that do not say their size */

typedef struct whole_op {
  at_work work;
  char *path, *data;        /* owned */
  size_t length, capacity;  /* of data */
  int flags, permissions;
  unsigned char atomic;
  atomic_uchar abandoned;   /* the Task was cancelled: stop at the next piece */
} whole_op;

#define op_of(o) ((whole_op *)(void *)(o))

/* ---- the work ---- */

/* Room for at least one byte more than there is. */
static int grow(whole_op *o, size_t hint) {
  size_t capacity = o->capacity == 0 ? hint : o->capacity + o->capacity / 2;
  char *data;
  if (o->length < o->capacity) return 0;
  data = realloc(o->data, capacity);
  if (data == NULL) return UV_ENOMEM;
  o->data = data;
  o->capacity = capacity;
  return 0;
}

/* Reads to the end, wherever that is by then: the size is a hint only. */
static int read_all(whole_op *o, int fd, const struct stat *st) {
  size_t hint = st->st_size > 0 ? (size_t)st->st_size + 1 : GROW_FIRST;
  while (!atomic_load(&o->abandoned)) {
    ssize_t n;
    int status = grow(o, hint);
    if (status < 0) return status;
    n = read(fd, o->data + o->length, o->capacity - o->length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) break;
    o->length += (size_t)n;
  }
  return 0;
}

static void read_run(at_work *w) {
  whole_op *o = op_of(w);
  struct stat st;
  int fd = at_fs_open_fd(o->path, O_RDONLY, 0, &st);
  if (fd < 0) {
    w->op.status = fd;
    return;
  }
  w->op.status = read_all(o, fd, &st);
  (void)close(fd); /* nothing was written */
}

static int write_all(whole_op *o, int fd) {
  size_t at = 0;
  while (at < o->length) {
    size_t left = o->length - at;
    ssize_t n = write(fd, o->data + at, o->atomic && left > PIECE ? PIECE : left);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    at += (size_t)n;
    if (o->atomic && atomic_load(&o->abandoned)) return UV_ECANCELED; /* else it is completed */
  }
  return 0;
}

static int close_written(int fd, int status) {
  return close(fd) != 0 && errno != EINTR && status == 0 ? -errno : status;
}

static void write_run(at_work *w) {
  whole_op *o = op_of(w);
  struct stat st;
  int fd = at_fs_open_fd(o->path, o->flags, o->permissions, &st);
  w->op.status = fd < 0 ? fd : close_written(fd, write_all(o, fd));
}

/* ---- atomically: a temporary file beside the old one takes its place ---- */

static atomic_uint names; /* given to temporary files so far */

/* A new file in the directory of `target`; its name is put into `name`. */
static int open_beside(const char *target, int permissions, char *name, size_t size) {
  const char *slash = strrchr(target, '/');
  int length = slash != NULL ? (int)(slash - target) + 1 : 0, tries, fd;
  for (tries = 0; tries < 100; tries++) {
    unsigned mixed = (unsigned)uv_hrtime() ^ (atomic_fetch_add(&names, 1) * 2654435761u);
    if (snprintf(name, size, "%.*s.lua-%x-%x", length, target, (unsigned)getpid(), mixed) >= (int)size)
      return UV_ENAMETOOLONG;
    fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, (mode_t)permissions);
    if (fd >= 0) return fd;
    if (errno != EEXIST) return -errno;
  }
  return UV_EEXIST;
}

/* Permissions and, where that is allowed, owner of the file that is replaced. */
static int take_after(int fd, const struct stat *st) {
  struct stat own;
  if (fstat(fd, &own) != 0) return -errno;
  if ((own.st_uid != st->st_uid || own.st_gid != st->st_gid) &&
      fchown(fd, st->st_uid, st->st_gid) != 0 && errno != EPERM)
    return -errno;
  return fchmod(fd, st->st_mode & 07777) != 0 ? -errno : 0;
}

/* The new name is stored, too, where directories can be. */
static void sync_directory(char *path) {
  char *slash = strrchr(path, '/');
  int fd;
  if (slash != NULL) slash[slash == path] = '\0';
  fd = open(slash != NULL ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  (void)fsync(fd); /* some file systems cannot; the file itself is stored */
  (void)close(fd);
}

static int replace(whole_op *o, char *target) {
  char name[4096 + 64];
  struct stat st;
  int exists = stat(target, &st) == 0, status, fd;
  if (exists && !S_ISREG(st.st_mode)) return S_ISDIR(st.st_mode) ? UV_EISDIR : UV_EINVAL;
  fd = open_beside(target, o->permissions, name, sizeof name);
  if (fd < 0) return fd;
  status = write_all(o, fd);
  if (status == 0 && exists) status = take_after(fd, &st);
  if (status == 0 && fsync(fd) != 0) status = -errno;
  status = close_written(fd, status);
  if (status == 0 && atomic_load(&o->abandoned)) status = UV_ECANCELED;
  if (status == 0 && rename(name, target) != 0) status = -errno;
  if (status < 0) (void)unlink(name); /* the first failure is the one to tell */
  else sync_directory(target);
  return status;
}

/* A link stays one: what it leads to is replaced. */
static void replace_run(at_work *w) {
  whole_op *o = op_of(w);
  char *target = realpath(o->path, NULL);
  if (target == NULL && errno == ENOENT) target = strdup(o->path);
  w->op.status = target != NULL ? replace(o, target) : -errno;
  free(target);
}

/* ---- the operation ---- */

static int op_cancel(at_op *op) {
  if (at_blocking_cancel(op)) return 1;
  atomic_store(&op_of(op)->abandoned, 1);
  return 0;
}

static void op_release(at_op *op) {
  free(op_of(op)->path);
  free(op_of(op)->data);
  free(op);
}

static const char *op_subject(at_op *op) { return op_of(op)->path; }

static int read_push(lua_State *L, at_op *op) {
  whole_op *o = op_of(op);
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  lua_pushlstring(L, o->length > 0 ? o->data : "", o->length);
  return 1;
}

static const at_opclass read_class = {"read_file", read_push, op_cancel, op_release, op_subject, 0};
static const at_opclass write_class = {"write_file", NULL, op_cancel, op_release, op_subject, 0};
static const at_opclass append_class = {"append_file", NULL, op_cancel, op_release, op_subject, 0};

/* [-0, +1, m] pushes the Task of a new operation; NULL: it has settled. */
static whole_op *new_op(lua_State *L, at_runtime *rt, const at_opclass *class, const char *path) {
  at_task *t = at_op_new(L, rt);
  whole_op *o;
  if (at_task_settled(t)) return NULL;
  o = at_op_alloc(L, rt, t, class, sizeof *o);
  if (o == NULL) return NULL;
  o->path = strdup(path);
  if (o->path != NULL) return o;
  at_op_fail(L, &o->work.op, UV_ENOMEM);
  return NULL;
}

static int submit(lua_State *L, at_runtime *rt, whole_op *o, void (*run)(at_work *)) {
  int status = at_blocking_submit(rt, &o->work, run);
  if (status < 0) at_op_fail(L, &o->work.op, status);
  return 1;
}

/* ---- Lua ---- */

/* [-0, +1|0, m] pushes the contents of a small file if all of it is in memory, else says 0. */
static int push_cached(lua_State *L, at_runtime *rt, const char *path) {
  char data[AT_CACHED_WHOLE + 1];
  unsigned char able = 1;
  struct stat st;
  ssize_t n = -1;
  int fd = at_cached_open(NULL, path, &st);
  if (fd < 0) return 0;
  if (st.st_size > 0 && st.st_size <= AT_CACHED_WHOLE) /* size 0 may be one that is not told */
    n = at_cached_read(fd, data, (size_t)st.st_size + 1, 0, &able);
  (void)close(fd); /* nothing was written */
  if (n != (ssize_t)st.st_size) return 0; /* in part only, or growing */
  at_cached_charge(rt, (size_t)n);
  lua_pushlstring(L, data, (size_t)n);
  return 1;
}

/* read_file(path) -> Task of a string */
static int l_fs_read_file(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  whole_op *o;
  if (!at_op_refused(rt) && at_cached_allowed(rt) && push_cached(L, rt, path)) {
    at_task_resolved(L, rt, 1);
    return 1;
  }
  o = new_op(L, rt, &read_class, path);
  return o == NULL ? 1 : submit(L, rt, o, read_run);
}

/* [-0, +1, m] the Task of a write of argument 2 */
static int start_write(lua_State *L, const at_opclass *class, int flags) {
  static const char *const known[] = {"permissions", "atomic", NULL};
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1), *data;
  size_t length;
  int permissions, atomic;
  whole_op *o;
  data = lua_tolstring(L, 2, &length);
  if (data == NULL) return at_arg_type_error(L, 2, "string");
  at_arg_options(L, 3, known);
  atomic = at_arg_field_boolean(L, 3, "atomic", 0);
  if (atomic && (flags & O_APPEND)) return at_arg_error(L, 3, "append_file is not atomic");
  permissions = (int)at_arg_field_integer(L, 3, "permissions", PERMISSIONS, 0, 07777);
  o = new_op(L, rt, class, path);
  if (o == NULL) return 1;
  o->data = malloc(length > 0 ? length : 1);
  if (o->data == NULL) {
    at_op_fail(L, &o->work.op, UV_ENOMEM);
    return 1;
  }
  memcpy(o->data, data, length);
  o->length = length;
  o->flags = flags;
  o->permissions = permissions;
  o->atomic = (unsigned char)atomic;
  return submit(L, rt, o, atomic ? replace_run : write_run);
}

/* write_file(path, data [, {permissions=, atomic=}]) -> Task */
static int l_fs_write_file(lua_State *L) {
  return start_write(L, &write_class, O_WRONLY | O_CREAT | O_TRUNC);
}

/* append_file(path, data [, {permissions=}]) -> Task */
static int l_fs_append_file(lua_State *L) {
  return start_write(L, &append_class, O_WRONLY | O_CREAT | O_APPEND);
}

void at_fswhole_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"read_file", l_fs_read_file},
                                       {"write_file", l_fs_write_file},
                                       {"append_file", l_fs_append_file},
                                       {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
