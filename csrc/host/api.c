/* api.c - the table of the C API's functions, for C modules that link nothing of ours, and what the files
** of its body share. Holds constants, and what was pinned last; any thread, each on a state of its own.
** Invariant: the table is initialised by name, so a function whose type is not the header's does not
** compile. */
#include "host/api.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"

static const asynctask_api table = {
    .version = ASYNCTASK_VERSION_NUM,
    .size = sizeof(asynctask_api),
    .open = asynctask_open,
    .close = asynctask_close,
    .step = asynctask_step,
    .run = asynctask_run,
    .fd = asynctask_fd,
    .timeout = asynctask_timeout,
    .alive = asynctask_alive,
    .loop = asynctask_loop,
    .call = asynctask_call,
    .on_close = asynctask_on_close,
    .closer_remove = asynctask_closer_remove,
    .remote_new = asynctask_remote_new,
    .remote_retain = asynctask_remote_retain,
    .remote_release = asynctask_remote_release,
    .post = asynctask_post,
    .hold = asynctask_hold,
    .spawn = asynctask_spawn,
    .on_settled = asynctask_on_settled,
    .task_state = asynctask_task_state,
    .task_values = asynctask_task_values,
    .task_cancel = asynctask_task_cancel,
    .await = asynctask_await,
    .push_error = asynctask_push_error,
    .strerror = asynctask_strerror,
    .source_new = asynctask_source_new,
    .source_succeed = asynctask_source_succeed,
    .source_fail = asynctask_source_fail,
    .source_cancel = asynctask_source_cancel,
    .source_settle = asynctask_source_settle,
    .source_wanted = asynctask_source_wanted,
    .source_retain = asynctask_source_retain,
    .source_release = asynctask_source_release,
    .writer_new = asynctask_writer_new,
    .writer_free = asynctask_writer_free,
    .write_nil = asynctask_write_nil,
    .write_boolean = asynctask_write_boolean,
    .write_integer = asynctask_write_integer,
    .write_number = asynctask_write_number,
    .write_string = asynctask_write_string,
    .write_table = asynctask_write_table,
    .write_end = asynctask_write_end,
    .job_submit = asynctask_job_submit,
    .job_cancelled = asynctask_job_cancelled,
    .job_result = asynctask_job_result,
    .job_fail = asynctask_job_fail,
    .job_progress = asynctask_job_progress,
    .transferable = asynctask_transferable,
    .stream_fd = asynctask_stream_fd,
    .stream_uv = asynctask_stream_uv,
    .feed_new = asynctask_feed_new,
    .feed_push = asynctask_feed_push,
    .feed_end = asynctask_feed_end,
    .feed_fail = asynctask_feed_fail,
    .feed_release = asynctask_feed_release,
};

void at_api_open(lua_State *L) {
  luaL_checkstack(L, 2, "asynctask");
  lua_pushlightuserdata(L, (void *)(size_t)&table); /* only read */
  lua_setfield(L, LUA_REGISTRYINDEX, ASYNCTASK_API_KEY);
  at_tasks_open(L);
}

/* ---- the runtime of a state ---- */

at_runtime *at_api_find(lua_State *L) {
  at_runtime *rt = lua_checkstack(L, 1) ? at_runtime_get(L) : NULL;
  return rt == NULL || rt->closing ? NULL : rt;
}

at_runtime *at_api_runtime(lua_State *L) {
  at_runtime *rt;
  luaL_checkstack(L, 4, "asynctask");
  rt = at_runtime_get(L);
  if (rt == NULL) luaL_error(L, "asynctask: this state has no runtime");
  if (rt->closing) luaL_error(L, "asynctask: the runtime of this state is closed");
  return rt;
}

/* ---- what C code hands over ---- */

void at_api_options(lua_State *L, void *to, size_t size, const void *from) {
  size_t given = size;
  memset(to, 0, size);
  if (from == NULL) return;
  memcpy(&given, from, sizeof given);
  if (given < sizeof given) luaL_error(L, "asynctask: options without their size");
  memcpy(to, from, given < size ? given : size);
}

void at_api_take(lua_State *L, lua_CFunction f, void *ctx, int index, void (*released)(void *data),
                 void *data) {
  int status = LUA_ERRMEM;
  if (index != 0) index = lua_absindex(L, index);
  if (lua_checkstack(L, 4)) {
    lua_pushcfunction(L, f);
    lua_pushlightuserdata(L, ctx);
    if (index != 0)
      lua_pushvalue(L, index);
    else
      lua_pushnil(L);
    status = lua_pcall(L, 2, 1, 0);
    if (status == LUA_OK) return;
  }
  if (released != NULL) released(data);
  if (status == LUA_ERRMEM) luaL_error(L, "not enough memory");
  lua_error(L);
}

void at_api_pin(const void *function) {
  static _Atomic(const void *) last; /* mostly the same one again */
  Dl_info info;
  if (atomic_load_explicit(&last, memory_order_relaxed) == function) return;
  if (dladdr(function, &info) != 0 && info.dli_fname != NULL)
    (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE); /* no harm if static */
  atomic_store_explicit(&last, function, memory_order_relaxed);
}

/* ---- errors ---- */

#define ROW(code, words) {"" #code, UV_##code, words},
static const struct {
  const char *code;
  int status;
  const char *words;
} codes[] = {UV_ERRNO_MAP(ROW)};
#undef ROW

#define CODES (sizeof codes / sizeof codes[0])

const char *at_api_words(const char *code) {
  size_t i;
  for (i = 0; i < CODES; i++)
    if (strcmp(codes[i].code, code) == 0) return codes[i].words;
  return NULL;
}

const char *asynctask_strerror(int status) {
  size_t i;
  if (status == 0) return "no error";
  for (i = 0; i < CODES; i++)
    if (codes[i].status == status) return codes[i].words;
  return "unknown error";
}

void asynctask_push_error(lua_State *L, const char *code, const char *op, const char *message) {
  if (code == NULL) code = "UNKNOWN";
  if (message == NULL) message = at_api_words(code);
  at_error_push(L, code, message != NULL ? message : "error", op);
}
