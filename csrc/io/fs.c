/* fs.c - operations on paths: open, stat and what changes the tree; each one trip to the pool, or none
** where the answer is in memory. A verb is a row of a table: its name and what it gives; what it does
** is in fsverb.c. Owns nothing beyond the requests. Loop thread.
** Invariant: what an operation made and nobody received (a descriptor, a temporary directory) is
** let go in release (S10). */
#include "io/fs.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "io/file.h"
#include "io/fsverb.h"

#define PERMISSIONS 0666
#define DIRECTORY_PERMISSIONS 0777

#define op_of(o) ((at_pathop *)(void *)(o))

/* ---- stat ---- */

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
    default: return at_arg_error(L, arg, "invalid mode");
  }
  for (; *p != '\0'; p++) {
    if (*p == '+' && !plus) plus = 1;
    else if (*p == 'b' && !binary) binary = 1;
    else if (*p == 'x' && !exclusive && *mode != 'r') exclusive = 1;
    else return at_arg_error(L, arg, "invalid mode");
  }
  return (plus ? O_RDWR : access) | flags | (exclusive ? O_EXCL : 0);
}

/* ---- results ---- */

static int push_failure(lua_State *L, at_op *op) {
  at_op_push_error(L, op, op->status);
  if (op_of(op)->path2 != NULL) at_error_set(L, "to", op_of(op)->path2);
  return AT_OP_FAILED;
}

static int none_push(lua_State *L, at_op *op) { return op->status < 0 ? push_failure(L, op) : 0; }

static int open_push(lua_State *L, at_op *op) {
  at_pathop *o = op_of(op);
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

static int statfs_push(lua_State *L, at_op *op) {
  const uv_statfs_t *fs = &op_of(op)->fs;
  if (op->status < 0) return push_failure(L, op);
  lua_createtable(L, 0, 10);
  set_integer(L, "type", (lua_Integer)fs->f_type);
  set_integer(L, "bsize", (lua_Integer)fs->f_bsize);
  set_integer(L, "blocks", (lua_Integer)fs->f_blocks);
  set_integer(L, "bfree", (lua_Integer)fs->f_bfree);
  set_integer(L, "bavail", (lua_Integer)fs->f_bavail);
  set_integer(L, "files", (lua_Integer)fs->f_files);
  set_integer(L, "ffree", (lua_Integer)fs->f_ffree);
  set_integer(L, "size", (lua_Integer)(fs->f_blocks * fs->f_bsize));
  set_integer(L, "free", (lua_Integer)(fs->f_bfree * fs->f_bsize));
  set_integer(L, "available", (lua_Integer)(fs->f_bavail * fs->f_bsize));
  return 1;
}

static int glob_push(lua_State *L, at_op *op) {
  at_pathop *o = op_of(op);
  size_t i;
  if (op->status < 0) return push_failure(L, op);
  lua_createtable(L, (int)o->name_count, 0);
  for (i = 0; i < o->name_count; i++) {
    lua_pushstring(L, o->names[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static int op_cancel(at_op *op) {
  if (at_blocking_cancel(op)) return 1;
  atomic_store(&op_of(op)->abandoned, 1);
  return 0;
}

static void op_release(at_op *op) {
  at_pathop *o = op_of(op);
  while (o->name_count > 0) free(o->names[--o->name_count]);
  free(o->names);
  if (o->fd >= 0) (void)close(o->fd); /* nobody received it */
  if (o->made) (void)rmdir(o->text);
  free(o->path);
  free(o->path2);
  free(o->beneath);
  free(o->text);
  free(o);
}

static const char *op_subject(at_op *op) { return op_of(op)->path; }

/* ---- verbs ---- */

#define CLASS(name, push) {name, push, op_cancel, op_release, op_subject, 0}

static const at_opclass classes[] = {
    [AT_VERB_OPEN] = CLASS("open", open_push),
    [AT_VERB_STAT] = CLASS("stat", stat_push),
    [AT_VERB_LSTAT] = CLASS("lstat", stat_push),
    [AT_VERB_EXISTS] = CLASS("exists", exists_push),
    [AT_VERB_MKDIR] = CLASS("mkdir", none_push),
    [AT_VERB_REMOVE] = CLASS("remove", none_push),
    [AT_VERB_RENAME] = CLASS("rename", none_push),
    [AT_VERB_LINK] = CLASS("link", none_push),
    [AT_VERB_SYMLINK] = CLASS("symlink", none_push),
    [AT_VERB_CHMOD] = CLASS("chmod", none_push),
    [AT_VERB_TRUNCATE] = CLASS("truncate", none_push),
    [AT_VERB_UTIME] = CLASS("utime", none_push),
    [AT_VERB_COPY] = CLASS("copy", none_push),
    [AT_VERB_REALPATH] = CLASS("realpath", text_push),
    [AT_VERB_READLINK] = CLASS("readlink", text_push),
    [AT_VERB_MKDTEMP] = CLASS("mkdtemp", text_push),
    [AT_VERB_CHOWN] = CLASS("chown", none_push),
    [AT_VERB_STATFS] = CLASS("statfs", statfs_push),
    [AT_VERB_TMPFILE] = CLASS("tmpfile", open_push),
    [AT_VERB_GLOB] = CLASS("glob", glob_push),
};

/* [-0, +1, m] pushes the Task of a new operation; NULL: it has settled. */
static at_pathop *new_op(lua_State *L, at_runtime *rt, enum at_verb v, const char *path,
                       const char *path2) {
  at_task *t = at_op_new(L, rt);
  at_pathop *o;
  if (at_task_settled(t)) return NULL;
  o = at_op_alloc(L, rt, t, &classes[v], sizeof *o);
  if (o == NULL) return NULL;
  o->fd = -1;
  o->path = strdup(path);
  o->path2 = path2 != NULL ? strdup(path2) : NULL;
  if (o->path != NULL && (path2 == NULL || o->path2 != NULL)) return o;
  at_op_fail(L, &o->work.op, UV_ENOMEM);
  return NULL;
}

/* [-0, +0, m] hands it to the pool. The Task is at the top. */
static int submit(lua_State *L, at_runtime *rt, at_pathop *o, enum at_verb v) {
  int status = at_blocking_submit(rt, &o->work, at_verb_run[v]);
  if (status < 0) at_op_fail(L, &o->work.op, status);
  return 1;
}

/* [-0, +1, m] a verb that needs no more than its paths and flags */
static int start(lua_State *L, enum at_verb v, const char *path2, int flags, int permissions) {
  at_runtime *rt = at_rt(L);
  at_pathop *o = new_op(L, rt, v, lua_tostring(L, 1), path2);
  if (o == NULL) return 1;
  o->flags = flags;
  o->permissions = permissions;
  return submit(L, rt, o, v);
}

/* [-0, +1|0, m] opens a file whose name is in memory, for reading; pushes the Task, or says 0. */
static int open_cached(lua_State *L, at_runtime *rt, const char *beneath, const char *path) {
  struct stat st;
  at_file *f = at_file_push(L, rt, path); /* before there is a descriptor to lose */
  int fd = at_cached_open(beneath, path, &st);
  if (fd < 0) {
    lua_pop(L, 1);
    return 0;
  }
  at_file_adopt(f, fd, O_RDONLY, &st);
  at_task_resolved(L, rt, 1);
  return 1;
}

void at_fs_start_open(lua_State *L, at_runtime *rt, const char *beneath, const char *path,
                      int flags, int permissions) {
  at_pathop *o;
  if (flags == O_RDONLY && !at_op_refused(rt) && at_cached_allowed(rt) &&
      open_cached(L, rt, beneath, path))
    return;
  o = new_op(L, rt, AT_VERB_OPEN, path, NULL);
  if (o == NULL) return;
  if (beneath != NULL && (o->beneath = strdup(beneath)) == NULL) {
    at_op_fail(L, &o->work.op, UV_ENOMEM);
    return;
  }
  o->flags = flags;
  o->permissions = permissions;
  (void)submit(L, rt, o, AT_VERB_OPEN);
}

/* open(path [, mode [, {permissions=, beneath=}]]) -> Task of a File */
static int l_fs_open(lua_State *L) {
  static const char *const known[] = {"beneath", "permissions", NULL};
  const char *path = at_arg_path(L, 1), *beneath;
  int flags = at_fs_check_mode(L, 2), permissions;
  lua_settop(L, 3);
  at_arg_options(L, 3, known);
  beneath = at_arg_field_path(L, 3, "beneath"); /* stack: path mode options beneath? */
  permissions = (int)at_arg_field_integer(L, 3, "permissions", PERMISSIONS, 0, 07777);
  at_fs_start_open(L, at_rt(L), beneath, path, flags, permissions);
  return 1;
}

/* [-0, +1, m] stat and lstat, at once where the answer is in memory */
static int start_stat(lua_State *L, enum at_verb v) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  struct stat st;
  if (!at_op_refused(rt) && at_cached_allowed(rt) && at_cached_stat(path, v == AT_VERB_STAT, &st)) {
    at_fs_push_stat(L, &st);
    at_task_resolved(L, rt, 1);
    return 1;
  }
  return start(L, v, NULL, v == AT_VERB_LSTAT, 0);
}

static int l_fs_stat(lua_State *L) { return start_stat(L, AT_VERB_STAT); }
static int l_fs_lstat(lua_State *L) { return start_stat(L, AT_VERB_LSTAT); }

static int l_fs_exists(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  struct stat st;
  if (!at_op_refused(rt) && at_cached_allowed(rt) && at_cached_stat(path, 1, &st)) {
    lua_pushboolean(L, 1);
    at_task_resolved(L, rt, 1);
    return 1;
  }
  return start(L, AT_VERB_EXISTS, NULL, 0, 0);
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
  return start(L, AT_VERB_MKDIR, NULL, parents, permissions);
}

/* remove(path [, {recursive=}]) -> Task */
static int l_fs_remove(lua_State *L) {
  static const char *const known[] = {"recursive", NULL};
  (void)at_arg_path(L, 1);
  at_arg_options(L, 2, known);
  return start(L, AT_VERB_REMOVE, NULL, at_arg_field_boolean(L, 2, "recursive", 0), 0);
}

static int l_fs_rename(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, AT_VERB_RENAME, at_arg_path(L, 2), 0, 0);
}

static int l_fs_link(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, AT_VERB_LINK, at_arg_path(L, 2), 0, 0);
}

static int l_fs_symlink(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, AT_VERB_SYMLINK, at_arg_path(L, 2), 0, 0);
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
  return start(L, AT_VERB_COPY, to, flags, 0);
}

static int l_fs_chmod(lua_State *L) {
  lua_Integer mode;
  (void)at_arg_path(L, 1);
  mode = luaL_checkinteger(L, 2);
  luaL_argcheck(L, mode >= 0 && mode <= 07777, 2, "mode is not between 0 and 4095");
  return start(L, AT_VERB_CHMOD, NULL, 0, (int)mode);
}

/* truncate(path, size) -> Task */
static int l_fs_truncate(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  lua_Integer size = luaL_checkinteger(L, 2);
  at_pathop *o;
  luaL_argcheck(L, size >= 0, 2, "size must not be negative");
  o = new_op(L, rt, AT_VERB_TRUNCATE, path, NULL);
  if (o == NULL) return 1;
  o->number = size;
  return submit(L, rt, o, AT_VERB_TRUNCATE);
}

/* [-0, +0, v] nil is the present: NaN */
static double check_time(lua_State *L, int arg) {
  lua_Number t;
  if (lua_isnoneornil(L, arg)) return (double)NAN;
  t = luaL_checknumber(L, arg);
  luaL_argcheck(L, isfinite(t) && fabs(t) < 9e9, arg, "time is out of range");
  return t;
}

/* [-0, +0, v] flags of the *at calls for the option `follow` at `arg` */
static int check_follow(lua_State *L, int arg) {
  static const char *const known[] = {"follow", NULL};
  at_arg_options(L, arg, known);
  return at_arg_field_boolean(L, arg, "follow", 1) ? 0 : AT_SYMLINK_NOFOLLOW;
}

/* utime(path [, atime [, mtime [, {follow=}]]]) -> Task; seconds since the epoch */
static int l_fs_utime(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  double atime = check_time(L, 2), mtime = check_time(L, 3);
  int flags = check_follow(L, 4);
  at_pathop *o = new_op(L, rt, AT_VERB_UTIME, path, NULL);
  if (o == NULL) return 1;
  o->atime = atime;
  o->mtime = mtime;
  o->flags = flags;
  return submit(L, rt, o, AT_VERB_UTIME);
}

/* [-0, +0, v] nil is the one that it has: -1 */
static uint32_t check_id(lua_State *L, int arg) {
  lua_Integer id = luaL_optinteger(L, arg, -1);
  luaL_argcheck(L, (id >= 0 && id < UINT32_MAX) || lua_isnoneornil(L, arg), arg, "id is out of range");
  return (uint32_t)id;
}

/* chown(path, uid, gid [, {follow=}]) -> Task */
static int l_fs_chown(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  uint32_t uid = check_id(L, 2), gid = check_id(L, 3);
  int flags = check_follow(L, 4);
  at_pathop *o = new_op(L, rt, AT_VERB_CHOWN, path, NULL);
  if (o == NULL) return 1;
  o->uid = (uid_t)uid;
  o->gid = (gid_t)gid;
  o->flags = flags;
  return submit(L, rt, o, AT_VERB_CHOWN);
}

static int l_fs_statfs(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, AT_VERB_STATFS, NULL, 0, 0);
}

static int l_fs_glob(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, AT_VERB_GLOB, NULL, 0, 0);
}

/* threads([n]) -> n: at most so many threads for calls that block */
static int l_fs_threads(lua_State *L) {
  lua_Integer n = luaL_optinteger(L, 1, 0);
  luaL_argcheck(L, (n >= 1 && n <= AT_BLOCKING_MAX) || lua_isnoneornil(L, 1), 1,
                "number of threads is not between 1 and 256");
  lua_pushinteger(L, at_blocking_size((int)n));
  return 1;
}

static int l_fs_realpath(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, AT_VERB_REALPATH, NULL, 0, 0);
}

static int l_fs_readlink(lua_State *L) {
  (void)at_arg_path(L, 1);
  return start(L, AT_VERB_READLINK, NULL, 1, 0);
}

/* [-0, +1, m] pushes the directory for temporary files. */
static void push_tmpdir(lua_State *L) {
  char directory[1024];
  size_t size = sizeof directory;
  if (uv_os_tmpdir(directory, &size) != 0) strcpy(directory, "/tmp");
  lua_pushstring(L, directory);
}

/* mkdtemp([prefix]) -> Task of a path */
static int l_fs_mkdtemp(lua_State *L) {
  if (lua_isnoneornil(L, 1)) {
    push_tmpdir(L);
    lua_pushliteral(L, "/lua");
    lua_concat(L, 2);
  } else {
    (void)at_arg_path(L, 1);
    lua_pushvalue(L, 1);
  }
  lua_pushliteral(L, "-XXXXXX");
  lua_concat(L, 2);
  lua_insert(L, 1); /* start() takes the path from index 1 */
  return start(L, AT_VERB_MKDTEMP, NULL, 0, 0);
}

/* tmpfile([directory]) -> Task of a File that has no name */
static int l_fs_tmpfile(lua_State *L) {
  if (lua_isnoneornil(L, 1)) {
    push_tmpdir(L);
    lua_insert(L, 1);
  } else {
    (void)at_arg_path(L, 1);
  }
  return start(L, AT_VERB_TMPFILE, NULL, O_RDWR, 0);
}

void at_fs_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {
      {"open", l_fs_open},         {"stat", l_fs_stat},         {"lstat", l_fs_lstat},
      {"exists", l_fs_exists},     {"mkdir", l_fs_mkdir},       {"remove", l_fs_remove},
      {"rename", l_fs_rename},     {"link", l_fs_link},         {"symlink", l_fs_symlink},
      {"copy", l_fs_copy},         {"chmod", l_fs_chmod},       {"truncate", l_fs_truncate},
      {"utime", l_fs_utime},       {"realpath", l_fs_realpath}, {"readlink", l_fs_readlink},
      {"mkdtemp", l_fs_mkdtemp},   {"chown", l_fs_chown},       {"statfs", l_fs_statfs},
      {"tmpfile", l_fs_tmpfile},   {"glob", l_fs_glob},         {"threads", l_fs_threads},
      {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
