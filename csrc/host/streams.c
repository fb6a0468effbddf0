/* streams.c - what C code hands over as a stream: descriptors, libuv's streams, bytes.
** Owns nothing: the streams of io do. Loop thread only.
** Invariant: a descriptor is taken at the very end, when nothing can raise any more. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/api.h"
#include "io/feed.h"
#include "io/stream.h"

/* The kind of stream that a descriptor can be, or a status. */
static int kind_of(int fd) {
  struct stat what;
  struct sockaddr_storage address;
  socklen_t size;
  int value;
  if (fstat(fd, &what) != 0) return -errno;
  if (S_ISFIFO(what.st_mode) || S_ISCHR(what.st_mode)) return AT_STREAM_FILE;
  if (!S_ISSOCK(what.st_mode)) return UV_ENOTSUP;
  size = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &size) != 0) return -errno;
  if (value != SOCK_STREAM) return UV_ENOTSUP;
  size = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && value != 0) return UV_ENOTSUP;
  size = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &size) != 0) return -errno;
  return address.ss_family == AF_UNIX ? AT_STREAM_UNIX : AT_STREAM_SOCKET;
}

/* [-1, +1, -] replaces the box at the top by nil if the status says that it has no stream. */
static int settle(lua_State *L, int status) {
  if (status >= 0) return 0;
  lua_pop(L, 1);
  lua_pushnil(L);
  return status;
}

/* stack: name of the class's metatable */
static int l_load_face(lua_State *L) {
  luaL_getmetatable(L, lua_tostring(L, 1));
  if (lua_getfield(L, -1, "__close") != LUA_TNIL) return 0;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "asynctask.net");
  lua_call(L, 1, 0);
  return 0;
}

/* [-0, +0, m] the Lua half of a class (lines, <close>) is loaded, if it can be found. */
static void load_face(lua_State *L, const char *class) {
  luaL_checkstack(L, 3, "stream");
  lua_pushcfunction(L, l_load_face);
  lua_pushstring(L, class);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1); /* without it reading and writing work */
}

int asynctask_stream_fd(lua_State *L, int fd) {
  at_runtime *rt = at_api_runtime(L);
  at_streambox *box;
  int kind;
  load_face(L, AT_STREAM_MT);
  box = at_stream_box(L, rt);
  kind = kind_of(fd);
  return settle(L, kind < 0 ? kind : at_stream_take(rt, box, fd, kind));
}

int asynctask_stream_uv(lua_State *L, struct uv_stream_s *handle) {
  at_runtime *rt = at_api_runtime(L);
  at_streambox *box;
  uv_os_fd_t fd;
  int status, copy;
  load_face(L, AT_STREAM_MT);
  box = at_stream_box(L, rt);
  status = uv_fileno((uv_handle_t *)handle, &fd);
  if (status < 0) return settle(L, status);
  status = kind_of(fd);
  if (status < 0) return settle(L, status);
  copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return settle(L, -errno);
  status = at_stream_take(rt, box, copy, status);
  if (status < 0) (void)close(copy);
  return settle(L, status);
}

/* ---- feeds ---- */

typedef struct making {
  asynctask_feed_options options;
  at_feed *feed;
} making;

/* stack: making */
static int l_make(lua_State *L) {
  making *m = lua_touserdata(L, 1);
  at_feed_hooks hooks = {m->options.wanted, m->options.released};
  load_face(L, AT_BYTES_FEED_MT);
  m->feed = at_feed_push_new(L, at_api_runtime(L), m->options.mark, &hooks, m->options.data);
  return 1;
}

asynctask_feed *asynctask_feed_new(lua_State *L, const asynctask_feed_options *options) {
  making m;
  at_api_options(L, &m.options, sizeof m.options, options);
  at_api_take(L, l_make, &m, 0, m.options.released, m.options.data);
  return (asynctask_feed *)m.feed;
}

/* An asynctask_feed is an at_feed by another name. */
static at_feed *feed_of(asynctask_feed *feed) { return (at_feed *)feed; }

int asynctask_feed_push(asynctask_feed *feed, const char *bytes, size_t size) {
  return at_feed_push(feed_of(feed), bytes, size);
}

void asynctask_feed_end(asynctask_feed *feed) { at_feed_end(feed_of(feed)); }

void asynctask_feed_fail(asynctask_feed *feed, const char *code, const char *op, const char *message) {
  if (code == NULL) code = "UNKNOWN";
  if (message == NULL) message = at_api_words(code);
  at_feed_fail(feed_of(feed), code, op, message != NULL ? message : "error");
}

void asynctask_feed_release(asynctask_feed *feed) {
  if (feed != NULL) at_feed_release(feed_of(feed));
}
