/* asynctask.h - the public C API of asynctask: tasks for Lua 5.4 on libuv. C and C++.
**
** Two kinds of program use it.
**
** A host that runs Lua links libasynctask.a (pkg-config: asynctask) and calls the functions below by
** their names:
**
**     lua_State *L = luaL_newstate();
**     luaL_openlibs(L);
**     asynctask_preload(L);                  -- require "asynctask" now works, without any file
**     asynctask_open(L, NULL);               -- optional: require does it, too
**
** A C module that Lua loads with require links nothing of ours. It asks for the table of the same
** functions, under the same names without the prefix, once in each state:
**
**     const asynctask_api *at = asynctask_import(L);      -- raises when asynctask is missing or too old
**     at->await(L, 0, continuation);
**
** Conventions. [-p, +r, e] is the manual's notation for what a function pops, pushes and raises (- never,
** m memory only, v on purpose). "Loop thread" is the thread that runs the state; only what is marked
** "any thread" may be called elsewhere. A status is 0 or a negative number: libuv's UV_E..., whose words
** asynctask_strerror gives. Times are in seconds. Strings that a function is given are copied.
** Structures that the caller fills begin with their size, so that later versions can add fields: set all
** the rest to 0. `data` that goes with a `released` (or with asynctask_settled) is taken in any case: when
** the function raises, `released` has been called. A state without a runtime, or whose runtime is closed,
** makes the functions that may raise do so. */
#ifndef ASYNCTASK_H
#define ASYNCTASK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" { /* Lua's headers do not say so themselves */
#endif

#include <lauxlib.h>
#include <lua.h>

/* Semantic versioning: what is declared here keeps its meaning within one major version; while that
** is 0, within one minor version. Functions are only ever added at the end of asynctask_api. */
#define ASYNCTASK_VERSION_MAJOR 0
#define ASYNCTASK_VERSION_MINOR 2
#define ASYNCTASK_VERSION_PATCH 0
#define ASYNCTASK_VERSION "0.2.0"
#define ASYNCTASK_VERSION_NUM                                                                      \
  (ASYNCTASK_VERSION_MAJOR * 10000 + ASYNCTASK_VERSION_MINOR * 100 + ASYNCTASK_VERSION_PATCH)

#if defined(__GNUC__)
#define ASYNCTASK_API __attribute__((visibility("default"))) extern
#else
#define ASYNCTASK_API extern
#endif

struct uv_loop_s;   /* libuv's uv_loop_t and uv_stream_t: for those who want them */
struct uv_stream_s;

typedef struct asynctask_remote asynctask_remote; /* a runtime, as other threads hold it */
typedef struct asynctask_source asynctask_source; /* a Task that C code settles */
typedef struct asynctask_writer asynctask_writer; /* values on their way into a state */
typedef struct asynctask_job asynctask_job;       /* a C function that runs on a pool thread */
typedef struct asynctask_feed asynctask_feed;     /* a readable stream whose bytes come from C */

/* ---- the runtime --------------------------------------------------------------------------------- */

/* [-0, +1, e] The open function of the module "asynctask.core". Attaches a runtime to the state the
** first time, with a loop of its own; starts no thread, changes no signal handler. The runtime belongs to
** the state and ends with lua_close. */
ASYNCTASK_API int luaopen_asynctask_core(lua_State *L);

/* [-0, +0, m] Makes `require "asynctask"` and all its modules work in this state without any file and
** without a dynamic loader: the C module and the Lua files, which are part of the library, are put into
** package.preload. Worker states of the state get them, too. Needs the package library to be open. */
ASYNCTASK_API void asynctask_preload(lua_State *L);

typedef struct asynctask_options {
  size_t size;                  /* sizeof (asynctask_options) */
  struct uv_loop_s *loop;       /* the host's loop, which lives longer than the state; NULL: a loop of its own */
  int host_driven;              /* true: the host runs the loop, with asynctask_step or (with `loop`, where it is
                                ** always true) uv_run; an await on the main chunk then raises at once instead of
                                ** running it */
  void (*wake)(void *data);     /* or NULL: called when there may be something to do before the time that
                                ** asynctask_timeout gave, for hosts that sleep in something that cannot
                                ** watch asynctask_fd. Any thread (one of the runtime's own watches the
                                ** descriptor for the host); must not call Lua nor asynctask, nor wait for the
                                ** thread that closes the state; calls before the next asynctask_step (with
                                ** `loop`: before its next turn) are merged into one */
  void *wake_data;
} asynctask_options;

/* [-0, +0, -] Attaches a runtime to the state. With a runtime attached already, changes host_driven and
** wake; UV_EBUSY if another loop is asked for then. 0, or a status. Protected: a memory error is
** UV_ENOMEM. `options` NULL: a loop of its own that the main chunk drives, or what there is already.
** UV_ECANCELED: the state had a runtime, which is closed. UV_EEXIST: another copy of the library has it.
**
** With a loop of the host's, tasks run inside the host's uv_run. The runtime's handles do not keep that
** loop alive unless a task waits for them. After lua_close or asynctask_close the host must let the loop
** run once more (uv_run with UV_RUN_NOWAIT) before uv_loop_close, so that libuv gives the handles back. There
** lua_close may be called in the host's callbacks; with a loop of its own, never inside the loop's run. */
ASYNCTASK_API int asynctask_open(lua_State *L, const asynctask_options *options);

/* [-0, +0, -] Ends the runtime in order while the state lives. Cancels all that runs and gives it `grace`
** seconds to clean up (0: one turn of the loop, without blocking), running the loop meanwhile; then what is left is
** dropped without running Lua, as lua_close does. Afterwards what needs a runtime raises an error; the state is otherwise
** whole. 0; UV_EBUSY inside a task; UV_ENOENT without a runtime. A host's own loop is not run: there
** `grace` is ignored and only what the ready queue can do at once is done. */
ASYNCTASK_API int asynctask_close(lua_State *L, double grace);

/* [-0, +0, -] Does what is ready, and looks at what the system has to say, without blocking: about
** `budget` seconds of work (kept to within one resume of a task; 0: one task; negative: until nothing is ready). 1:
** more is ready, call again soon. 0: nothing to do before asynctask_timeout or asynctask_fd says so. Or a
** status: UV_EBUSY when called from inside a task or a callback of the loop, UV_ENOENT without a runtime,
** UV_EINVAL when the loop is the host's (uv_run is its step). Errors of
** tasks are kept by their tasks (S15). */
ASYNCTASK_API int asynctask_step(lua_State *L, double budget);

/* [-0, +0, -] Runs the loop, sleeping in it, until nothing is left to wait for or `seconds` have passed
** (negative: no limit). 1: there is still something to wait for; 0: not; or a status as above. */
ASYNCTASK_API int asynctask_run(lua_State *L, double seconds);

/* [-0, +0, -] A descriptor for poll, epoll or kqueue that is readable when asynctask_step has something to
** do; -1 where the system's loop has none. The runtime's own: do not read or close it. */
ASYNCTASK_API int asynctask_fd(lua_State *L);

/* [-0, +0, -] How long the host may sleep: 0 not at all; seconds until the next timer; negative: until
** the descriptor is readable. To be asked just before it sleeps: Lua code that runs in between changes it. */
ASYNCTASK_API double asynctask_timeout(lua_State *L);

/* [-0, +0, -] True while a task is ready, or waits for something that can still happen; with a host's loop also
** while one of the host's handles does. */
ASYNCTASK_API int asynctask_alive(lua_State *L);

/* [-0, +0, -] The loop, for handles of your own (loop thread only); NULL without a runtime. Their callbacks
** may call what is marked [.., -] here and settle sources; to run Lua, they use asynctask_call. */
ASYNCTASK_API struct uv_loop_s *asynctask_loop(lua_State *L);

/* [-0, +0, -] Calls `f` protected, as a callback of the loop enters Lua: with a state whose stack has 20
** free slots. An error is reported like an unobserved fault (S15). 0, or UV_ECANCELED when the runtime is
** closed, UV_EBUSY inside a task (use a plain call there), UV_ENOMEM: `f` was not called. What it makes ready runs in the
** same turn of the loop; outside the loop's run, in the next step. An await in `f` raises. */
ASYNCTASK_API int asynctask_call(asynctask_remote *remote, void (*f)(lua_State *L, void *data), void *data);

typedef struct asynctask_closer asynctask_closer;

/* [-0, +0, m] Has `f` called when the runtime closes (newest first; loop thread, no Lua), for whoever owns
** handles on its loop or threads that post to it. Handles that `f` gives to uv_close are waited for when
** the loop is the runtime's own; with a host's loop their close callbacks come when the host runs it. */
ASYNCTASK_API asynctask_closer *asynctask_on_close(lua_State *L, void (*f)(void *data), void *data);
/* [-0, +0, -] Takes it back; not after `f` was called. Loop thread. */
ASYNCTASK_API void asynctask_closer_remove(asynctask_closer *closer);

/* ---- other threads ------------------------------------------------------------------------------- */

/* [-0, +0, -] A counted reference to the state's runtime; NULL without one, or without memory. It may
** outlive the state. */
ASYNCTASK_API asynctask_remote *asynctask_remote_new(lua_State *L);
/* Any thread. */
ASYNCTASK_API asynctask_remote *asynctask_remote_retain(asynctask_remote *remote);
ASYNCTASK_API void asynctask_remote_release(asynctask_remote *remote);

/* Any thread. Has `f` called on the loop thread, protected as by asynctask_call, soon and in the order of
** the posts of one thread. When the runtime closes first, or has no memory for the call, `f` is called with
** L == NULL, on any thread, to free what `data` is. 0, or UV_ENOMEM (f will not be called). Does not keep the loop alive: see
** asynctask_hold. */
ASYNCTASK_API int asynctask_post(asynctask_remote *remote, void (*f)(lua_State *L, void *data), void *data);

/* Loop thread. While held (counted), the loop counts as alive, and a wait is no deadlock: something on
** another thread may still post. */
ASYNCTASK_API void asynctask_hold(lua_State *L, int on);

/* ---- tasks --------------------------------------------------------------------------------------- */

typedef enum asynctask_state {
  ASYNCTASK_PENDING, ASYNCTASK_SUCCEEDED, ASYNCTASK_FAULTED, ASYNCTASK_CANCELLED,
  ASYNCTASK_NOT_A_TASK = -1
} asynctask_state;

/* Called once, on the loop thread, from the ready queue, when a Task has settled: with its n values on the
** stack (indices 1 to n, nothing below), or its error (n = 1). What it leaves on the stack is ignored. May
** raise: reported. `L` is a coroutine: it may spawn, but it is no place for asynctask_await. When the state
** closes first, or asynctask_on_settled raises, it is called with L == NULL (to free `data`). */
typedef void (*asynctask_settled)(lua_State *L, asynctask_state state, int n, void *data);

/* [-(nargs + 1), +1, m] task.spawn: runs the function below the arguments at once, until its first wait;
** pushes its Task. The Task belongs to nobody: nothing but asynctask_task_cancel cancels it. (Nested in
** twenty others that are at their first wait, it is started from the ready queue.) */
ASYNCTASK_API void asynctask_spawn(lua_State *L, int nargs);

/* [-0, +0, v] Has `f` called once the Task at `index` has settled, also if it has already; several in the
** order of the calls. Counts as a look at its fault, which is not reported then. */
ASYNCTASK_API void asynctask_on_settled(lua_State *L, int index, asynctask_settled f, void *data);

/* [-0, +0, -] The state of the Task at `index`; ASYNCTASK_NOT_A_TASK for another value. */
ASYNCTASK_API asynctask_state asynctask_task_state(lua_State *L, int index);

/* [-0, +n, v] Pushes the values of a Task that succeeded and returns their number; pushes the error of one
** that did not and returns -1; pushes nothing and returns -2 while it is pending. Raises for no Task. */
ASYNCTASK_API int asynctask_task_values(lua_State *L, int index);

/* [-0, +0, v] Cancels the Task, with the reason (or NULL). True if that took effect. Raises for no Task. */
ASYNCTASK_API int asynctask_task_cancel(lua_State *L, int index, const char *reason);

/* [-1, +n, v] Waits for the Task at the top, in a C function that Lua calls and that can yield:
**
**     static int after(lua_State *L, int status, lua_KContext before) {
**       int n = lua_gettop(L) - (int)before;       -- the values lie on top
**       ...
**     }
**     static int l_fetch(lua_State *L) {
**       int top = lua_gettop(L);
**       push_a_task(L);
**       return asynctask_await(L, top, after);
**     }
**
** Like lua_callk it does not return if the Task has to be waited for; k is called with ctx in any case,
** and what k returns is the function's result. Raises what await raises: the Task's error, the cancellation
** of the scope, a deadlock, or why it is not possible here. k may await again. */
ASYNCTASK_API int asynctask_await(lua_State *L, lua_KContext ctx, lua_KFunction k);

/* [-0, +1, m] Pushes an error object, a table: `code` ("ENOENT" and its like), `message` (NULL: the words of
** libuv's code of that name), `op` or NULL. Other fields, `path` or `address`, are set as in any table. */
ASYNCTASK_API void asynctask_push_error(lua_State *L, const char *code, const char *op, const char *message);

/* The words of a status: static. Any thread. */
ASYNCTASK_API const char *asynctask_strerror(int status);

/* ---- completion sources -------------------------------------------------------------------------- */

typedef struct asynctask_source_options {
  size_t size;
  const char *name;                /* of the Task in dumps and reports, or NULL */
  void (*cancelled)(void *data);   /* or NULL: the Task was cancelled, or the state closes (loop thread, no
                                   ** Lua): stop the work. At most once, and never after a settling was told 1 */
  void (*released)(void *data);    /* or NULL: called once, when the source is settled or cancelled and its last
                                   ** reference is gone: no other call with `data` follows. Any thread: the one
                                   ** that lets go of the source or closes the state. No Lua */
  void *data;
  int local;                       /* true: settled on the loop thread only. Cheaper; the loop stays alive only
                                   ** through your own handles */
} asynctask_source_options;

/* [-0, +1, m] Pushes a pending Task, which belongs to the running scope like any operation's, and
** returns its source: counted once for the caller, who settles it and releases it (any thread). In a scope
** that is being cancelled the Task is cancelled already, without a call of `cancelled`: do not begin the
** work when asynctask_source_wanted says so. Until it is settled or released the loop is alive, and a wait
** for it is no deadlock (unless local). `options`: or NULL. */
ASYNCTASK_API asynctask_source *asynctask_source_new(lua_State *L, const asynctask_source_options *options);

/* Any thread (a local source: loop thread). Settle it: 1 for the first, 0 for later ones and for those after
** a cancellation. The Task settles when the loop thread comes to it; a cancellation of the Task in between
** wins, and drops the result. A writer that is given is taken in any case (NULL: no values). Settling does not
** release. */
ASYNCTASK_API int asynctask_source_succeed(asynctask_source *s, asynctask_writer *values);
ASYNCTASK_API int asynctask_source_fail(asynctask_source *s, const char *code, const char *op, const char *message);
ASYNCTASK_API int asynctask_source_cancel(asynctask_source *s, const char *reason);

/* Any thread (a local source: loop thread). Settles it with what `push` leaves: it is called on the loop
** thread, protected, with the source's `data`, pushes values and returns their number, or pushes an error
** and returns -1; what it raises is the error, too. It may not await. Not called if the Task is cancelled
** before: what it would have handed on goes with `released`. */
ASYNCTASK_API int asynctask_source_settle(asynctask_source *s, int (*push)(lua_State *L, void *data));

/* Any thread. True while somebody could still receive a result: false once settled or cancelled. */
ASYNCTASK_API int asynctask_source_wanted(const asynctask_source *s);

/* Any thread. Counting. An unsettled source whose last reference goes faults its Task (EABANDONED). NULL is
** released without effect. */
ASYNCTASK_API asynctask_source *asynctask_source_retain(asynctask_source *s);
ASYNCTASK_API void asynctask_source_release(asynctask_source *s);

/* ---- values between threads ---------------------------------------------------------------------- */

/* Any thread; one thread at a time. A list of values, made without Lua. The first thing that goes wrong is
** remembered, and what is written after it ignored: memory that runs out faults the Task with ENOMEM, wrong
** use (a key that is nil or NaN, a table that was not ended ...) with EINVAL and words that say what. */
ASYNCTASK_API asynctask_writer *asynctask_writer_new(void); /* never NULL: one without memory remembers that */
ASYNCTASK_API void asynctask_writer_free(asynctask_writer *w); /* one that was not given away */
ASYNCTASK_API void asynctask_write_nil(asynctask_writer *w);
ASYNCTASK_API void asynctask_write_boolean(asynctask_writer *w, int value);
ASYNCTASK_API void asynctask_write_integer(asynctask_writer *w, lua_Integer value);
ASYNCTASK_API void asynctask_write_number(asynctask_writer *w, lua_Number value);
ASYNCTASK_API void asynctask_write_string(asynctask_writer *w, const char *bytes, size_t size);
/* A table: begin, then key, value, key, value ..., then end. Keys neither nil nor NaN. Nests up to 100 deep.
** Numbers that say how large it is are not needed. */
ASYNCTASK_API void asynctask_write_table(asynctask_writer *w);
ASYNCTASK_API void asynctask_write_end(asynctask_writer *w);

/* ---- jobs ---------------------------------------------------------------------------------------- */

typedef struct asynctask_job_options {
  size_t size;
  const char *name;            /* in dumps and errors, or NULL */
  void (*run)(asynctask_job *job, void *data);  /* on a pool thread: no Lua, no state. Required */
  void (*released)(void *data); /* or NULL: called once, last of all, whether it ran or not; any thread, no Lua */
  void *data;
  int blocking;                /* false: the pool for computing (task.run's; stacks of 4 MiB). true: the pool
                               ** for calls that block (stacks of 256 KiB), whose threads may outlive the state
                               ** and do not hold up the exit. Signals are blocked on both */
  int progress;                /* stack index of a function that gets what the job reports, or 0 */
} asynctask_job_options;

/* [-0, +1, v] Pushes the Task of a C function that runs on a pool thread. Cancelling one that has not started
** removes it; one that runs is told through asynctask_job_cancelled, and its result is dropped. Nothing can
** interrupt it: closing the state waits for those on the pool for computing, so they look now and then.
** The shared object that `run` is in stays loaded. */
ASYNCTASK_API void asynctask_job_submit(lua_State *L, const asynctask_job_options *options);

/* Inside `run`, on its thread. */
ASYNCTASK_API int asynctask_job_cancelled(const asynctask_job *job); /* nobody wants it any more: return */
ASYNCTASK_API asynctask_writer *asynctask_job_result(asynctask_job *job); /* of the values; the job's */
/* The Task faults; the first call counts, values are ignored then. `message` NULL: as for asynctask_push_error */
ASYNCTASK_API void asynctask_job_fail(asynctask_job *job, const char *code, const char *message);
/* Takes the values (NULL: none) and calls the function of `progress` with them, as a task, from the ready
** queue of the loop thread: in order, the last one before the job's Task settles. Reports that come faster
** than they are taken are merged: the newest counts. Written wrongly they fail the job (EINVAL). */
ASYNCTASK_API void asynctask_job_progress(asynctask_job *job, asynctask_writer *values);

/* ---- userdata between threads -------------------------------------------------------------------- */

typedef struct asynctask_transfer {
  size_t size;
  const char *name;     /* of the metatable (luaL_newmetatable), the type's name */
  /* [-0, +0, e] on the sending state: what the other side will get, usually a counted pointer. Runs no Lua
  ** code: it is called in the middle of copying. */
  void *(*detach)(lua_State *L, int index);
  /* [-0, +1, e] on the receiving state, which has perhaps never seen the type: makes the metatable if need
  ** be, pushes the userdata, which takes the pointer. When it raises it has not taken it: `drop` is called. */
  void (*attach)(lua_State *L, void *pointer);
  void (*drop)(void *pointer); /* or NULL: it was never received, or `share` gave others. Any thread, no Lua */
  /* or NULL: one more pointer to the same, NULL if there is no memory; any thread, no Lua. For what several
  ** jobs receive together, upvalues and arguments of asynctask.parallel. Without it the first gets it, and
  ** the copying to others raises. */
  void *(*share)(void *pointer);
} asynctask_transfer;

/* [-0, +0, v] From now on userdata with that metatable is copied to jobs, shared channels and back, by
** these functions, and from the states where it arrives. The structure and its functions live as long as
** the process: this call keeps the shared object loaded that `attach` is in. Registering again in a state
** replaces. */
ASYNCTASK_API void asynctask_transferable(lua_State *L, const asynctask_transfer *transfer);

/* ---- streams ------------------------------------------------------------------------------------- */

/* [-0, +1, m] Pushes a Stream (asynctask.net's) over a descriptor that can be polled: a connected stream
** socket, pipe, terminal. It takes the descriptor and makes it non-blocking. 0 and a Stream; or a status and
** nil, the descriptor still the caller's: UV_ENOTSUP for other sockets and for files. */
ASYNCTASK_API int asynctask_stream_fd(lua_State *L, int fd);
/* [-0, +1, m] The same for a libuv stream: over a copy of its descriptor (dup). The handle stays the
** caller's, who has stopped reading it and closes it: bytes that it has read already are the caller's. */
ASYNCTASK_API int asynctask_stream_uv(lua_State *L, struct uv_stream_s *handle);

typedef struct asynctask_feed_options {
  size_t size;
  size_t mark;                    /* bytes that wait to be read before push says hold; 0: 65536 */
  void (*wanted)(void *data);     /* or NULL: go on pushing (loop thread, no Lua; may push) */
  void (*released)(void *data);   /* or NULL: called once, last of all: the reader closed or was collected, the
                                  ** state closes, or the feed was released. Loop thread, no Lua. The feed takes
                                  ** no more bytes (push gives UV_EPIPE) */
  void *data;
} asynctask_feed_options;

/* [-0, +1, m] Pushes a readable stream (read read_some read_until lines close, as a Stream's) and returns its
** other end, counted once for the caller. Loop thread, all of them. */
ASYNCTASK_API asynctask_feed *asynctask_feed_new(lua_State *L, const asynctask_feed_options *options);
/* [-, -, -] Copies the bytes. 1: go on; 0: hold until `wanted`; or a status: UV_EPIPE, UV_ENOMEM (nothing taken). */
ASYNCTASK_API int asynctask_feed_push(asynctask_feed *feed, const char *bytes, size_t size);
/* The bytes end: reads give nil, or fault with the error, once what was pushed is read. */
ASYNCTASK_API void asynctask_feed_end(asynctask_feed *feed);
ASYNCTASK_API void asynctask_feed_fail(asynctask_feed *feed, const char *code, const char *op, const char *message);
/* The caller lets go; without an end before, reads fault with EABANDONED. Also after the state closed. */
ASYNCTASK_API void asynctask_feed_release(asynctask_feed *feed);

/* ---- for C modules that link nothing ------------------------------------------------------------- */

#define ASYNCTASK_API_KEY "asynctask.api.0" /* in the registry: a light userdata, const asynctask_api * */

typedef struct asynctask_api {
  int version;   /* ASYNCTASK_VERSION_NUM of the library */
  size_t size;   /* sizeof (asynctask_api) there */
  int (*open)(lua_State *L, const asynctask_options *options);
  int (*close)(lua_State *L, double grace);
  int (*step)(lua_State *L, double budget);
  int (*run)(lua_State *L, double seconds);
  int (*fd)(lua_State *L);
  double (*timeout)(lua_State *L);
  int (*alive)(lua_State *L);
  struct uv_loop_s *(*loop)(lua_State *L);
  int (*call)(asynctask_remote *remote, void (*f)(lua_State *L, void *data), void *data);
  asynctask_closer *(*on_close)(lua_State *L, void (*f)(void *data), void *data);
  void (*closer_remove)(asynctask_closer *closer);
  asynctask_remote *(*remote_new)(lua_State *L);
  asynctask_remote *(*remote_retain)(asynctask_remote *remote);
  void (*remote_release)(asynctask_remote *remote);
  int (*post)(asynctask_remote *remote, void (*f)(lua_State *L, void *data), void *data);
  void (*hold)(lua_State *L, int on);
  void (*spawn)(lua_State *L, int nargs);
  void (*on_settled)(lua_State *L, int index, asynctask_settled f, void *data);
  asynctask_state (*task_state)(lua_State *L, int index);
  int (*task_values)(lua_State *L, int index);
  int (*task_cancel)(lua_State *L, int index, const char *reason);
  int (*await)(lua_State *L, lua_KContext ctx, lua_KFunction k);
  void (*push_error)(lua_State *L, const char *code, const char *op, const char *message);
  const char *(*strerror)(int status);
  asynctask_source *(*source_new)(lua_State *L, const asynctask_source_options *options);
  int (*source_succeed)(asynctask_source *s, asynctask_writer *values);
  int (*source_fail)(asynctask_source *s, const char *code, const char *op, const char *message);
  int (*source_cancel)(asynctask_source *s, const char *reason);
  int (*source_settle)(asynctask_source *s, int (*push)(lua_State *L, void *data));
  int (*source_wanted)(const asynctask_source *s);
  asynctask_source *(*source_retain)(asynctask_source *s);
  void (*source_release)(asynctask_source *s);
  asynctask_writer *(*writer_new)(void);
  void (*writer_free)(asynctask_writer *w);
  void (*write_nil)(asynctask_writer *w);
  void (*write_boolean)(asynctask_writer *w, int value);
  void (*write_integer)(asynctask_writer *w, lua_Integer value);
  void (*write_number)(asynctask_writer *w, lua_Number value);
  void (*write_string)(asynctask_writer *w, const char *bytes, size_t size);
  void (*write_table)(asynctask_writer *w);
  void (*write_end)(asynctask_writer *w);
  void (*job_submit)(lua_State *L, const asynctask_job_options *options);
  int (*job_cancelled)(const asynctask_job *job);
  asynctask_writer *(*job_result)(asynctask_job *job);
  void (*job_fail)(asynctask_job *job, const char *code, const char *message);
  void (*job_progress)(asynctask_job *job, asynctask_writer *values);
  void (*transferable)(lua_State *L, const asynctask_transfer *transfer);
  int (*stream_fd)(lua_State *L, int fd);
  int (*stream_uv)(lua_State *L, struct uv_stream_s *handle);
  asynctask_feed *(*feed_new)(lua_State *L, const asynctask_feed_options *options);
  int (*feed_push)(asynctask_feed *feed, const char *bytes, size_t size);
  void (*feed_end)(asynctask_feed *feed);
  void (*feed_fail)(asynctask_feed *feed, const char *code, const char *op, const char *message);
  void (*feed_release)(asynctask_feed *feed);
} asynctask_api;

/* [-0, +0, v] The table, for C modules: asks the state to load "asynctask.core" if it has not yet. Raises a
** clear error when it is not there, or older than this header (another minor version while the major is 0).
** The table is constant, lives as long as the process, and is the same in every state that loaded the same
** library. Keep it in an upvalue or the state; in a static only if every thread that reads it is sure to
** find it written (states open on several threads at once). */
static inline const asynctask_api *asynctask_import(lua_State *L) {
  const asynctask_api *api;
  luaL_checkstack(L, 4, "asynctask");
  if (lua_getfield(L, LUA_REGISTRYINDEX, ASYNCTASK_API_KEY) != LUA_TLIGHTUSERDATA) {
    lua_pop(L, 1);
    if (lua_getglobal(L, "require") != LUA_TFUNCTION)
      luaL_error(L, "asynctask is not loaded in this state, and there is no 'require' to load it with");
    lua_pushliteral(L, "asynctask.core");
    if (lua_pcall(L, 1, 1, 0) != LUA_OK)
      luaL_error(L, "this module needs asynctask " ASYNCTASK_VERSION ": %s", luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
    lua_getfield(L, LUA_REGISTRYINDEX, ASYNCTASK_API_KEY);
  }
  api = (const asynctask_api *)lua_touserdata(L, -1);
  if (api == NULL)
    luaL_error(L, "this module needs asynctask " ASYNCTASK_VERSION "; the one that is loaded has no C API");
  if (api->version / 10000 != ASYNCTASK_VERSION_MAJOR ||
      (ASYNCTASK_VERSION_MAJOR == 0 && api->version / 100 != ASYNCTASK_VERSION_NUM / 100))
    luaL_error(L, "this module was built for asynctask " ASYNCTASK_VERSION ", but %d.%d.%d is loaded",
               api->version / 10000, api->version / 100 % 100, api->version % 100);
  if (api->size < sizeof(asynctask_api))
    luaL_error(L, "this module needs asynctask " ASYNCTASK_VERSION ", but the older %d.%d.%d is loaded",
               api->version / 10000, api->version / 100 % 100, api->version % 100);
  lua_pop(L, 1);
  return api;
}

#ifdef __cplusplus
}
#endif

#endif
