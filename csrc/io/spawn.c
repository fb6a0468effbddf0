/* spawn.c - the birth of a child process: its arguments, environment and descriptors. Calls
** process.c, and stream.c for our ends of its pipes. Loop thread only.
** Invariants: everything that may raise is done before there is a descriptor; pipes are real ones (a
** child may open /dev/stdin again), and no descriptor of ours is inherited but the three that were
** asked for. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/task.h"
#include "io/file.h"
#include "io/process.h"
#include "io/stream.h"

enum { ARG_COMMAND = 1, ARG_ARGS, ARG_ENV, ARG_CWD, ARG_UID, ARG_GID, ARG_DETACHED, ARG_STDIN,
       ARG_STDOUT, ARG_STDERR, ARG_STRINGS };

/* What becomes of one of the child's descriptors. */
typedef struct end {
  at_streambox *box; /* of our side of a pipe; NULL: no pipe */
  int fd;            /* what the child gets; -1: /dev/null */
  int ours;          /* our side of a pipe until its stream has it, else -1 */
} end;

/* ---- arguments ---- */

/* [-1, +0, v] keeps the string at the top in the table of strings; gives its bytes. */
static char *keep_string(lua_State *L, int arg, const char *what) {
  size_t size;
  const char *s;
  if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
    luaL_argerror(L, arg, lua_pushfstring(L, "%s is a %s", what, luaL_typename(L, -1)));
  s = lua_tolstring(L, -1, &size);
  if (strlen(s) != size) luaL_argerror(L, arg, lua_pushfstring(L, "%s contains a zero byte", what));
  luaL_ref(L, ARG_STRINGS);
  return (char *)(uintptr_t)s; /* libuv only reads it */
}

/* [-0, +1, v] pushes a userdata that holds the NULL-terminated list of the arguments. */
static char **push_args(lua_State *L) {
  lua_Integer n = lua_istable(L, ARG_ARGS) ? luaL_len(L, ARG_ARGS) : 0, i;
  char **args;
  luaL_argcheck(L, n < INT_MAX / 2, ARG_ARGS, "too many arguments");
  args = lua_newuserdatauv(L, (size_t)(n + 2) * sizeof *args, 0);
  lua_pushvalue(L, ARG_COMMAND);
  args[0] = keep_string(L, ARG_COMMAND, "command");
  for (i = 1; i <= n; i++) {
    lua_geti(L, ARG_ARGS, i);
    args[i] = keep_string(L, ARG_ARGS, "an argument");
  }
  args[n + 1] = NULL;
  return args;
}

/* [-0, +1, v] the same for "NAME=value"; NULL and nil where the child inherits ours. */
static char **push_env(lua_State *L) {
  size_t n = 0, i = 0;
  char **env;
  if (!lua_istable(L, ARG_ENV)) {
    lua_pushnil(L);
    return NULL;
  }
  for (lua_pushnil(L); lua_next(L, ARG_ENV); lua_pop(L, 1)) n++;
  env = lua_newuserdatauv(L, (n + 1) * sizeof *env, 0);
  for (lua_pushnil(L); lua_next(L, ARG_ENV); lua_pop(L, 1)) { /* stack: ... env name value */
    if (lua_type(L, -2) != LUA_TSTRING) luaL_argerror(L, ARG_ENV, "a variable's name is no string");
    lua_pushvalue(L, -2);
    (void)keep_string(L, ARG_ENV, "a variable's name");
    lua_pushvalue(L, -1);
    (void)keep_string(L, ARG_ENV, "a variable's value");
    lua_pushfstring(L, "%s=%s", lua_tostring(L, -2), lua_tostring(L, -1));
    env[i++] = keep_string(L, ARG_ENV, "a variable");
  }
  env[i] = NULL;
  return env;
}

/* ---- descriptors ---- */

/* [-0, +0, v] the descriptor of the open file or stream at `arg`. */
static int check_descriptor(lua_State *L, int arg) {
  int fd = -1;
  if (lua_isinteger(L, arg)) {
    lua_Integer n = lua_tointeger(L, arg);
    luaL_argcheck(L, n >= 0 && n <= INT_MAX, arg, "no descriptor");
    return (int)n;
  }
  if (luaL_testudata(L, arg, AT_STREAM_MT) != NULL) {
    at_stream *s = at_stream_open_one(lua_touserdata(L, arg));
    if (s != NULL) fd = s->fd;
  } else if (luaL_testudata(L, arg, AT_FILE_MT) != NULL) {
    at_file *f = at_file_check(L, arg);
    if (!f->closing) fd = f->fd;
  } else {
    luaL_Stream *f = luaL_testudata(L, arg, LUA_FILEHANDLE);
    if (f == NULL) at_arg_type_error(L, arg, "\"pipe\", \"inherit\", \"ignore\", a stream, a file or a descriptor");
    if (f->closef != NULL) {
      (void)fflush(f->f); /* what was written before comes before; a failure shows at its close */
      fd = fileno(f->f);
    }
  }
  if (fd < 0) luaL_argerror(L, arg, "it is closed");
  return fd;
}

/* [-0, +1, v] finds out what the child's descriptor i is to be; pushes the Stream, or false. */
static void check_end(lua_State *L, at_runtime *rt, int i, end *ends) {
  int arg = ARG_STDIN + i;
  const char *s = lua_type(L, arg) == LUA_TSTRING ? lua_tostring(L, arg) : "";
  end *e = &ends[i];
  e->box = NULL;
  e->fd = e->ours = -1;
  if (strcmp(s, "pipe") == 0) {
    e->box = at_stream_box(L, rt);
    return;
  }
  lua_pushboolean(L, 0);
  if (strcmp(s, "inherit") == 0)
    e->fd = i;
  else if (strcmp(s, "stdout") == 0 && i == 2)
    e->fd = ends[1].fd; /* of a pipe: when it is there */
  else if (strcmp(s, "ignore") != 0)
    e->fd = check_descriptor(L, arg);
}

static int open_pipe(int fds[2]) {
#ifdef __linux__
  return pipe2(fds, O_CLOEXEC) == 0 ? 0 : -errno;
#else
  if (pipe(fds) != 0) return -errno;
  (void)fcntl(fds[0], F_SETFD, FD_CLOEXEC);
  (void)fcntl(fds[1], F_SETFD, FD_CLOEXEC);
  return 0;
#endif
}

/* Makes the pipe of the child's descriptor i, if there is to be one. */
static int open_end(int i, end *e) {
  int fds[2], status;
  if (e->box == NULL) return 0;
  status = open_pipe(fds);
  if (status < 0) return status;
  e->fd = fds[i == 0 ? 0 : 1];
  e->ours = fds[i == 0 ? 1 : 0];
  return 0;
}

/* The child has its sides of the pipes, or there is no child. */
static void close_theirs(end *ends) {
  int i;
  for (i = 0; i < 3; i++)
    if (ends[i].box != NULL && ends[i].fd >= 0) (void)close(ends[i].fd);
}

static void close_ours(end *ends) {
  int i;
  for (i = 0; i < 3; i++) {
    if (ends[i].ours >= 0) (void)close(ends[i].ours);
    if (ends[i].box != NULL && ends[i].box->stream != NULL) at_stream_abort(ends[i].box->stream);
  }
}

/* ---- spawning ---- */

/* Pipes, process, streams. 0 or a status, and then there is nothing. No Lua. */
static int spawn(at_runtime *rt, at_processbox *box, uv_process_options_t *options, end *ends,
                 int join) {
  uv_stdio_container_t stdio[3];
  int i, status = 0;
  for (i = 0; i < 3 && status == 0; i++) status = open_end(i, &ends[i]);
  if (join) ends[2].fd = ends[1].fd;
  for (i = 0; i < 3; i++) {
    stdio[i].flags = ends[i].fd < 0 ? UV_IGNORE : UV_INHERIT_FD;
    stdio[i].data.fd = ends[i].fd;
  }
  options->stdio = stdio;
  options->stdio_count = 3;
  if (status == 0) status = at_process_start(rt, box, options);
  close_theirs(ends);
  for (i = 0; i < 3 && status == 0; i++) {
    if (ends[i].ours < 0) continue;
    status = at_stream_take(rt, ends[i].box, ends[i].ours, 0);
    if (status == 0) ends[i].ours = -1;
  }
  if (status == 0) return 0;
  close_ours(ends);
  if (box->process != NULL) (void)uv_process_kill(&box->process->handle, 9); /* reaped by itself */
  return status;
}

/* [-0, +1, m] pushes the error of a spawn. libuv does not say whether the directory or the command
** is what is missing. */
static void push_error(lua_State *L, int status) {
  const char *cwd = lua_tostring(L, ARG_CWD);
  struct stat st;
  int bad = 0;
  if (cwd != NULL && (status == UV_ENOENT || status == UV_ENOTDIR || status == UV_EACCES)) {
    if (stat(cwd, &st) != 0)
      bad = -errno;
    else if (!S_ISDIR(st.st_mode))
      bad = UV_ENOTDIR;
    else if (access(cwd, X_OK) != 0)
      bad = -errno;
  }
  if (bad < 0)
    at_error_push_uv(L, bad, "spawn", cwd);
  else
    at_error_push_uv(L, status, "spawn", lua_tostring(L, ARG_COMMAND));
}

/* environ() -> table of name to value */
int l_process_environ(lua_State *L) {
  char **entry = environ;
  lua_newtable(L);
  for (; entry != NULL && *entry != NULL; entry++) {
    const char *equals = strchr(*entry, '=');
    if (equals == NULL) continue;
    lua_pushlstring(L, *entry, (size_t)(equals - *entry));
    lua_pushstring(L, equals + 1);
    lua_rawset(L, -3);
  }
  return 1;
}

/* spawn(command, args, env, cwd, uid, gid, detached, stdin, stdout, stderr) -> handle, pid and the
** Streams of the pipes (or false each); or the Task of what it could not do */
int l_process_spawn(lua_State *L) {
  at_runtime *rt = at_rt(L);
  uv_process_options_t options;
  at_processbox *box;
  end ends[3];
  int i, status, join;
  memset(&options, 0, sizeof options);
  lua_settop(L, ARG_STDERR);
  luaL_checkstack(L, 20, "spawn");
  luaL_checktype(L, ARG_COMMAND, LUA_TSTRING);
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  lua_newtable(L); /* ARG_STRINGS */
  options.file = lua_tostring(L, ARG_COMMAND);
  options.args = push_args(L);
  options.env = push_env(L);
  options.cwd = luaL_optstring(L, ARG_CWD, NULL);
  if (lua_toboolean(L, ARG_DETACHED)) options.flags |= UV_PROCESS_DETACHED;
  if (!lua_isnil(L, ARG_UID)) {
    options.flags |= UV_PROCESS_SETUID;
    options.uid = (uv_uid_t)luaL_checkinteger(L, ARG_UID);
  }
  if (!lua_isnil(L, ARG_GID)) {
    options.flags |= UV_PROCESS_SETGID;
    options.gid = (uv_gid_t)luaL_checkinteger(L, ARG_GID);
  }
  box = at_process_box(L, rt);
  lua_pushnil(L); /* stack: ... box pid, then the streams */
  for (i = 0; i < 3; i++) check_end(L, rt, i, ends);
  join = lua_type(L, ARG_STDERR) == LUA_TSTRING && strcmp(lua_tostring(L, ARG_STDERR), "stdout") == 0;
  status = spawn(rt, box, &options, ends, join);
  if (status < 0) {
    push_error(L, status);
    at_task_failed(L, rt);
    return 1;
  }
  lua_pushinteger(L, box->process->pid);
  lua_replace(L, -5);
  return 5;
}
