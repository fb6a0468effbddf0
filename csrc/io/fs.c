/* fs.c - operations on paths: open, stat and what changes the tree; each one trip to the pool.
** A verb is a row of a table: its name, its work, what it gives. Owns nothing beyond the requests.
** Lua functions, push and release: loop thread; *_run: pool threads (libuv's synchronous calls).
** Invariant: what an operation made and nobody received (a descriptor, a temporary directory) is
** let go in release (S10). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "io/file.h"

#define PERMISSIONS 0666
#define DIRECTORY_PERMISSIONS 0777

typedef struct path_op {
  at_work work;
  char *path, *path2;  /* owned; path2 or NULL */
  int flags;           /* open flags; options of the verb */
  int permissions;
  int64_t number;
  double atime, mtime;
  int fd;              /* open: -1 when there is none */
  int made;            /* mkdtemp: exists and was not handed out */
  char *text;          /* owned: a path that is the result */
  struct stat st;
} path_op;

#define op_of(o) ((path_op *)(void *)(o))

/* ---- stat ---- */

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

static void set_integer(lua_State *L, const char *name, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

static void set_time(lua_State *L, const char *name, const struct timespec *t) {
  lua_pushnumber(L, (lua_Number)t->tv_sec + (lua_Number)t->tv_nsec * 1e-9);
  lua_setfield(L, -2, name);
}

void at_fs_push_stat(lua_State *L, const struct stat *st) {
  luaL_checkstack(L, 3, "stat");
  lua_createtable(L, 0, 14);
  lua_pushstring(L, at_fs_type(st->st_mode));
  lua_setfield(L, -2, "type");
  set_integer(L, "size", (lua_Integer)st->st_size);
  set_integer(L, "mode", (lua_Integer)(st->st_mode & 07777));
#ifdef __APPLE__
  set_time(L, "atime", &st->st_atimespec);
  set_time(L, "mtime", &st->st_mtimespec);
  set_time(L, "ctime", &st->st_ctimespec);
#else
  set_time(L, "atime", &st->st_atim);
  set_time(L, "mtime", &st->st_mtim);
  set_time(L, "ctime", &st->st_ctim);
#endif
  set_integer(L, "dev", (lua_Integer)st->st_dev);
  set_integer(L, "ino", (lua_Integer)st->st_ino);
  set_integer(L, "nlink", (lua_Integer)st->st_nlink);
  set_integer(L, "uid", (lua_Integer)st->st_uid);
  set_integer(L, "gid", (lua_Integer)st->st_gid);
  set_integer(L, "rdev", (lua_Integer)st->st_rdev);
  set_integer(L, "blksize", (lua_Integer)st->st_blksize);
  set_integer(L, "blocks", (lua_Integer)st->st_blocks);
}

/* ---- open ---- */

int at_fs_check_mode(lua_State *L, int arg) {
  const char *mode = luaL_optstring(L, arg, "r"), *p = mode;
  int access, flags = 0, plus = 0, binary = 0, exclusive = 0;
  switch (*p++) {
    case 'r': access = O_RDONLY; break;
    case 'w': access = O_WRONLY; flags = O_CREAT | O_TRUNC; break;
    case 'a': access = O_WRONLY; flags = O_CREAT | O_APPEND; break;
    default: return luaL_argerror(L, arg, "invalid mode");
  }
  for (; *p != '\0'; p++) {
    if (*p == '+' && !plus) plus = 1;
    else if (*p == 'b' && !binary) binary = 1;
    else if (*p == 'x' && !exclusive && *mode != 'r') exclusive = 1;
    else return luaL_argerror(L, arg, "invalid mode");
  }
  return (plus ? O_RDWR : access) | flags | (exclusive ? O_EXCL : 0);
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
  path_op *o = op_of(w);
  int fd = at_fs_open_fd(o->path, o->flags, o->permissions, &o->st);
  if (fd < 0) w->op.status = fd;
  else o->fd = fd;
}

/* ---- what the verbs do (pool threads) ---- */

static void stat_run(at_work *w) {
  path_op *o = op_of(w);
  if ((o->flags ? lstat : stat)(o->path, &o->st) != 0) w->op.status = -errno;
}

static void exists_run(at_work *w) {
  path_op *o = op_of(w);
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
  path_op *o = op_of(w);
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
  path_op *o = op_of(w);
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
  path_op *o = op_of(w);
  uv_fs_t req;
  w->op.status = uv_fs_utime(NULL, &req, o->path, o->atime, o->mtime, NULL);
  uv_fs_req_cleanup(&req);
}

static void copy_run(at_work *w) {
  path_op *o = op_of(w);
  uv_fs_t req;
  w->op.status = uv_fs_copyfile(NULL, &req, o->path, o->path2, o->flags, NULL);
  uv_fs_req_cleanup(&req);
}

/* realpath, readlink: a path as the result */
static void text_run(at_work *w) {
  path_op *o = op_of(w);
  uv_fs_t req;
  int status = o->flags ? uv_fs_readlink(NULL, &req, o->path, NULL)
                        : uv_fs_realpath(NULL, &req, o->path, NULL);
  if (status == 0 && (o->text = strdup(req.ptr)) == NULL) status = UV_ENOMEM;
  w->op.status = status;
  uv_fs_req_cleanup(&req);
}

static void mkdtemp_run(at_work *w) {
  path_op *o = op_of(w);
  o->text = strdup(o->path);
  if (o->text == NULL) w->op.status = UV_ENOMEM;
  else if (mkdtemp(o->text) == NULL) w->op.status = -errno;
  else o->made = 1;
}

/* ---- results ---- */

static int push_failure(lua_State *L, at_op *op) {
  at_op_push_error(L, op, op->status);
  if (op_of(op)->path2 != NULL) at_error_set(L, "to", op_of(op)->path2);
  return AT_OP_FAILED;
}

static int none_push(lua_State *L, at_op *op) { return op->status < 0 ? push_failure(L, op) : 0; }

static int open_push(lua_State *L, at_op *op) {
  path_op *o = op_of(op);
  if (op->status < 0) return push_failure(L, op);
  at_file_adopt(at_file_push(L, op->rt, o->path), o->fd, o->flags, &o->st);
  o->fd = -1; /* the File's now */
  return 1;
}

static int stat_push(lua_State *L, at_op *op) {
  if (op->status < 0) return push_failure(L, op);
  at_fs_push_stat(L, &op_of(op)->st);
  return 1;
}

static int exists_push(lua_State *L, at_op *op) {
  if (op->status < 0) return push_failure(L, op);
  lua_pushboolean(L, op_of(op)->number != 0);
  return 1;
}

static int text_push(lua_State *L, at_op *op) {
  if (op->status < 0) return push_failure(L, op);
  lua_pushstring(L, op_of(op)->text);
  op_of(op)->made = 0; /* the receiver's now */
  return 1;
}

static void op_release(at_op *op) {
  path_op *o = op_of(op);
  if (o->fd >= 0) (void)close(o->fd); /* nobody received it */
  if (o->made) (void)rmdir(o->text);
  free(o->path);
  free(o->path2);
  free(o->text);
  free(o);
}

static const char *op_subject(at_op *op) { return op_of(op)->path; }

/* ---- verbs ---- */

enum verb {
  V_OPEN, V_STAT, V_LSTAT, V_EXISTS, V_MKDIR, V_REMOVE, V_RENAME, V_LINK, V_SYMLINK, V_CHMOD,
  V_TRUNCATE, V_UTIME, V_COPY, V_REALPATH, V_READLINK, V_MKDTEMP
};

#define CLASS(name, push) {name, push, at_blocking_cancel, op_release, op_subject, 0}

static const struct verb_row {
  at_opclass class;
  void (*run)(at_work *w);
} verbs[] = {
    [V_OPEN] = {CLASS("open", open_push), open_run},
    [V_STAT] = {CLASS("stat", stat_push), stat_run},
    [V_LSTAT] = {CLASS("lstat", stat_push), stat_run},
    [V_EXISTS] = {CLASS("exists", exists_push), exists_run},
    [V_MKDIR] = {CLASS("mkdir", none_push), mkdir_run},
    [V_REMOVE] = {CLASS("remove", none_push), remove_run},
    [V_RENAME] = {CLASS("rename", none_push), rename_run},
    [V_LINK] = {CLASS("link", none_push), link_run},
    [V_SYMLINK] = {CLASS("symlink", none_push), symlink_run},
    [V_CHMOD] = {CLASS("chmod", none_push), chmod_run},
    [V_TRUNCATE] = {CLASS("truncate", none_push), truncate_run},
    [V_UTIME] = {CLASS("utime", none_push), utime_run},
    [V_COPY] = {CLASS("copy", none_push), copy_run},
    [V_REALPATH] = {CLASS("realpath", text_push), text_run},
    [V_READLINK] = {CLASS("readlink", text_push), text_run},
    [V_MKDTEMP] = {CLASS("mkdtemp", text_push), mkdtemp_run},
};

/* [-0, +1, m] pushes the Task of a new operation; NULL: it has settled. */
static path_op *new_op(lua_State *L, at_runtime *rt, enum verb v, const char *path,
                       const char *path2) {
  at_task *t = at_op_new(L, rt);
  path_op *o;
  if (at_task_settled(t)) return NULL;
  o = at_op_alloc(L, rt, t, &verbs[v].class, sizeof *o);
  if (o == NULL) return NULL;
  o->fd = -1;
  o->path = strdup(path);
  o->path2 = path2 != NULL ? strdup(path2) : NULL;
  if (o->path != NULL && (path2 == NULL || o->path2 != NULL)) return o;
  at_op_fail(L, &o->work.op, UV_ENOMEM);
  return NULL;
}

/* [-0, +0, m] hands it to the pool. The Task is at the top. */
static int submit(lua_State *L, at_runtime *rt, path_op *o, enum verb v) {
  int status = at_blocking_submit(rt, &o->work, verbs[v].run);
  if (status < 0) at_op_fail(L, &o->work.op, status);
  return 1;
}

/* [-0, +1, m] a verb that needs no more than its paths and flags */
static int start(lua_State *L, enum verb v, const char *path2, int flags, int permissions) {
  at_runtime *rt = at_rt(L);
  path_op *o = new_op(L, rt, v, lua_tostring(L, 1), path2);
  if (o == NULL) return 1;
  o->flags = flags;
  o->permissions = permissions;
  return submit(L, rt, o, v);
}

/* [-0, +1|0, m] opens a file whose name is in memory, for reading; pushes the Task, or says 0. */
static int open_cached(lua_State *L, at_runtime *rt, const char *path) {
  struct stat st;
  at_file *f = at_file_push(L, rt, path); /* before there is a descriptor to lose */
  int fd = at_cached_open(path, &st);
  if (fd < 0) {
    lua_pop(L, 1);
    return 0;
  }
  at_file_adopt(f, fd, O_RDONLY, &st);
  at_task_resolved(L, rt, 1);
  return 1;
}

void at_fs_start_open(lua_State *L, at_runtime *rt, const char *path, int flags, int permissions) {
  path_op *o;
  if (flags == O_RDONLY && !at_op_refused(rt) && at_cached_allowed(rt) && open_cached(L, rt, path))
    return;
  o = new_op(L, rt, V_OPEN, path, NULL);
  if (o == NULL) return;
  o->flags = flags;
  o->permissions = permissions;
  (void)submit(L, rt, o, V_OPEN);
}

/* open(path [, mode [, {permissions=}]]) -> Task of a File */
static int l_fs_open(lua_State *L) {
  static const char *const known[] = {"permissions", NULL};
  const char *path = at_arg_path(L, 1);
  int flags = at_fs_check_mode(L, 2), permissions;
  at_arg_options(L, 3, known);
  permissions = (int)at_arg_field_integer(L, 3, "permissions", PERMISSIONS, 0, 07777);
  at_fs_start_open(L, at_rt(L), path, flags, permissions);
  return 1;
}

/* [-0, +1, m] stat and lstat, at once where the answer is in memory */
static int start_stat(lua_State *L, enum verb v) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  struct stat st;
  if (!at_op_refused(rt) && at_cached_allowed(rt) && at_cached_stat(path, v == V_STAT, &st)) {
    at_fs_push_stat(L, &st);
    at_task_resolved(L, rt, 1);
    return 1;
  }
  return start(L, v, NULL, v == V_LSTAT, 0);
}

static int l_fs_stat(lua_State *L) { return start_stat(L, V_STAT); }
static int l_fs_lstat(lua_State *L) { return start_stat(L, V_LSTAT); }

static int l_fs_exists(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  struct stat st;
  if (!at_op_refused(rt) && at_cached_allowed(rt) && at_cached_stat(path, 1, &st)) {
    lua_pushboolean(L, 1);
    at_task_resolved(L, rt, 1);
    return 1;
  }
  return start(L, V_EXISTS, NULL, 0, 0);
}

/* mkdir(path [, {parents=, permissions=}]) -> Task */
static int l_fs_mkdir(lua_State *L) {
  static const char *const known[] = {"parents", "permissions", NULL};
  int parents, permissions;
  (void)at_arg_path(L, 1);
  at_arg_options(L, 2, known);
  parents = at_arg_field_boolean(L, 2, "parents", 0);
  permissions =
      (int)at_arg_field_integer(L, 2, "permissions", DIRECTORY_PERMISSIONS, 0, 07777);
  return start(L, V_MKDIR, NULL, parents, permissions);
}

/* remove(path [, {recursive=}]) -> Task */
static int l_fs_remove(lua_State *L) {
  static const char *const known[] = {"recursive", NULL};
  (void)at_arg_path(L, 1);
  at_arg_options(L, 2, known);
  return start(L, V_REMOVE, NULL, at_arg_field_boolean(L, 2, "recursive", 0), 0);
}

static int l_fs_rename(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, V_RENAME, at_arg_path(L, 2), 0, 0);
}

static int l_fs_link(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, V_LINK, at_arg_path(L, 2), 0, 0);
}

static int l_fs_symlink(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, V_SYMLINK, at_arg_path(L, 2), 0, 0);
}

/* copy(from, to [, {exclusive=}]) -> Task */
static int l_fs_copy(lua_State *L) {
  static const char *const known[] = {"exclusive", NULL};
  const char *to;
  int flags = UV_FS_COPYFILE_FICLONE;
  (void)at_arg_path(L, 1);
  to = at_arg_path(L, 2);
  at_arg_options(L, 3, known);
  if (at_arg_field_boolean(L, 3, "exclusive", 0)) flags |= UV_FS_COPYFILE_EXCL;
  return start(L, V_COPY, to, flags, 0);
}

static int l_fs_chmod(lua_State *L) {
  lua_Integer mode;
  (void)at_arg_path(L, 1);
  mode = luaL_checkinteger(L, 2);
  luaL_argcheck(L, mode >= 0 && mode <= 07777, 2, "mode is not between 0 and 4095");
  return start(L, V_CHMOD, NULL, 0, (int)mode);
}

/* truncate(path, size) -> Task */
static int l_fs_truncate(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  lua_Integer size = luaL_checkinteger(L, 2);
  path_op *o;
  luaL_argcheck(L, size >= 0, 2, "size must not be negative");
  o = new_op(L, rt, V_TRUNCATE, path, NULL);
  if (o == NULL) return 1;
  o->number = size;
  return submit(L, rt, o, V_TRUNCATE);
}

static double check_time(lua_State *L, int arg) {
  lua_Number t = luaL_checknumber(L, arg);
  luaL_argcheck(L, isfinite(t) && fabs(t) < 9e9, arg, "time is out of range");
  return t;
}

/* utime(path, atime, mtime) -> Task; seconds since the epoch */
static int l_fs_utime(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  double atime = check_time(L, 2), mtime = check_time(L, 3);
  path_op *o = new_op(L, rt, V_UTIME, path, NULL);
  if (o == NULL) return 1;
  o->atime = atime;
  o->mtime = mtime;
  return submit(L, rt, o, V_UTIME);
}

static int l_fs_realpath(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, V_REALPATH, NULL, 0, 0);
}

static int l_fs_readlink(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, V_READLINK, NULL, 1, 0);
}

/* mkdtemp([prefix]) -> Task of a path */
static int l_fs_mkdtemp(lua_State *L) {
  char directory[1024];
  size_t size = sizeof directory;
  if (lua_isnoneornil(L, 1)) {
    if (uv_os_tmpdir(directory, &size) != 0) strcpy(directory, "/tmp");
    lua_pushfstring(L, "%s/lua", directory);
  } else {
    (void)at_arg_path(L, 1);
    lua_pushvalue(L, 1);
  }
  lua_pushliteral(L, "-XXXXXX");
  lua_concat(L, 2);
  lua_insert(L, 1); /* start() takes the path from index 1 */
  return start(L, V_MKDTEMP, NULL, 0, 0);
}

void at_fs_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"open", l_fs_open},         {"stat", l_fs_stat},         {"lstat", l_fs_lstat},
      {"exists", l_fs_exists},     {"mkdir", l_fs_mkdir},       {"remove", l_fs_remove},
      {"rename", l_fs_rename},     {"link", l_fs_link},         {"symlink", l_fs_symlink},
      {"copy", l_fs_copy},         {"chmod", l_fs_chmod},       {"truncate", l_fs_truncate},
      {"utime", l_fs_utime},       {"realpath", l_fs_realpath}, {"readlink", l_fs_readlink},
      {"mkdtemp", l_fs_mkdtemp},   {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_file_open(L, rt);
  at_filelines_open(L, rt);
  at_fswhole_open(L, rt);
  at_fsdir_open(L, rt);
}
