/* file.c - the open file: asynctask.File, the queue of its operations, closing.
** Owns the descriptor, the read-ahead buffer and the queue. Operations on one file run one after
** another in the order of their start; each is one trip to the pool, or none when the bytes are in
** the buffer or in the system's cache. Small writes that wait in a row share a trip.
** Loop thread; what operations do on pool threads is in filework.c: there the running one (with the
** writes that share its trip) has descriptor, position and buffer for itself.
** Invariants: the running operation is the head of the queue; the descriptor is closed by a close
** operation or when closing, the queue being empty; the next operation starts in release of the one
** before, that is after its result was taken from the buffer. */
#include "io/file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "core/await.h"
#include "core/cancel.h"

#define CHUNK_FIRST (16 * 1024)
#define MERGE_BYTES (1024 * 1024) /* of writes that share a trip, beyond the first */

#define op_of(o) ((at_fileop *)(void *)(o))

typedef struct file_box {
  at_file *file; /* counted; NULL: not made yet */
} file_box;

/* ---- the object ---- */

static void file_unref(at_file *f) {
  if (atomic_fetch_sub(&f->refs, 1) != 1) return;
  at_closable_remove(&f->closable); /* on another thread the state has closed: it is in no list */
  if (f->fd >= 0) (void)close(f->fd); /* the state closed with it open: nobody to tell */
  free(f->buf.data);
  free(f->path);
  free(f);
}

at_file *at_file_check(lua_State *L, int arg) {
  at_file *f = ((file_box *)luaL_checkudata(L, arg, AT_FILE_MT))->file;
  if (f == NULL) luaL_argerror(L, arg, "file was collected"); /* reached from a finalizer */
  return f;
}

/* ---- the queue ---- */

static void unlink_op(at_file *f, at_fileop *o) {
  if (o->prev != NULL) o->prev->next = o->next;
  else f->head = o->next;
  if (o->next != NULL) o->next->prev = o->prev;
  else f->tail = o->prev;
}

static void end_op(at_fileop *o) {
  o->ended = 1;
  at_op_done(&o->work.op);
}

/* The writes that wait behind this one go with it. Regular files only: elsewhere (a terminal, a
** device) what one call writes may have a meaning. */
static void gather(at_file *f, at_fileop *o) {
  at_fileop *last = o, *next = o->next;
  size_t bytes = 0;
  int more = AT_FILE_MERGED;
  if (!f->regular) return;
  while (next != NULL && next->kind == AT_FILE_WRITE && --more > 0 &&
         (bytes += next->length) <= MERGE_BYTES) {
    next->flight = 1;
    last->with = next;
    last = next;
    next = next->next;
  }
}

/* The trip is over, or never was: those that it has not written are as they were. */
static void scatter(at_fileop *o) {
  at_fileop *m, *next;
  for (m = o->with, o->with = NULL; m != NULL; m = next) {
    next = m->with;
    m->with = NULL;
    m->flight = 0;
  }
}

/* Starts the operation at the head: here and now if nothing can block, else in the pool. */
static void start_op(at_runtime *rt, at_file *f, at_fileop *o) {
  int status;
  f->running = o;
  if (o->written || o->work.op.task == NULL || /* with another's trip; cancelled meanwhile */
      (o->kind == AT_FILE_READ && at_file_read_cached(rt, f, &o->plan)) ||
      (o->kind == AT_FILE_SEEK && o->whence != SEEK_END)) {
    end_op(o);
    return;
  }
  if (o->kind == AT_FILE_WRITE) gather(f, o);
  o->submitted = 1;
  status = at_blocking_submit(rt, &o->work, at_file_run[o->kind]);
  if (status < 0) {
    scatter(o);
    o->submitted = 0;
    o->work.op.status = status;
    end_op(o);
  }
}

/* What comes next: an operation, or the end of a file that was closed without waiting for it. */
static void advance(at_runtime *rt, at_file *f) {
  if (f->running != NULL) return;
  if (f->head != NULL) {
    start_op(rt, f, f->head);
  } else if (f->closing && f->fd >= 0) {
    (void)close(f->fd); /* nobody waits for it */
    f->fd = -1;
  }
}

/* A read that was given up may still hold the file: it counts while another operation waits for it. */
static void count_waiting(at_file *f) {
  at_fileop *o = f->running;
  if (o != NULL && o->submitted && !o->ended && atomic_load(&o->abandoned))
    at_blocking_count(&o->work.op, o->next != NULL);
}

void at_file_enqueue(at_runtime *rt, at_file *f, at_fileop *o) {
  o->linked = 1;
  o->prev = f->tail;
  if (f->tail != NULL) f->tail->next = o;
  else f->head = o;
  f->tail = o;
  count_waiting(f);
  advance(rt, f);
}

int at_file_op_cancel(at_op *op) {
  at_fileop *o = op_of(op);
  if (o->ended || o->flight || o->written) return 0;
  if (o->kind == AT_FILE_CLOSE || o->kind == AT_FILE_UNLOCK) return 0;
  if (!o->submitted) return 1;
  if (at_blocking_cancel(op)) return 1;
  atomic_store(&o->abandoned, 1);
  count_waiting(o->file);
  return 0;
}

static void free_op(at_fileop *o) {
  at_file *f = o->file;
  free(o->data);
  free(o);
  file_unref(f);
}

/* The state is gone, this may be another thread: with the operation go those that shared its trip. */
static void free_trip(at_fileop *o) {
  while (o != NULL) {
    at_fileop *next = o->with;
    free_op(o);
    o = next;
  }
}

void at_file_op_release(at_op *op) {
  at_fileop *o = op_of(op);
  at_file *f = o->file;
  if (op->rt == NULL) {
    free_trip(o);
    return;
  }
  scatter(o);
  if (o->undo) at_file_undo_lock(o);
  atomic_fetch_add(&f->refs, 1); /* advance() may let other operations go */
  if (o->linked) unlink_op(f, o);
  if (f->running == o) f->running = NULL;
  if (!op->rt->closing) {
    count_waiting(f);
    advance(op->rt, f);
  }
  free_op(o);
  file_unref(f);
}

/* The state closes: what has not started never will. */
static void file_close_state(at_runtime *rt, at_closable *c) {
  at_file *f = (at_file *)(void *)((char *)c - offsetof(at_file, closable));
  at_fileop *o, *next;
  (void)rt;
  for (o = f->head; o != NULL; o = next) {
    next = o->next;
    if (o != f->running && !o->flight)
      at_op_done(&o->work.op); /* releases it: the runtime is closing */
  }
}

/* ---- closing ---- */

/* [-0, +0, m] a file that may block for ever (a FIFO): what waits for bytes is cancelled. */
static void cancel_reads(lua_State *L, at_runtime *rt, at_file *f) {
  at_fileop *o = f->head;
  luaL_checkstack(L, 4, "close");
  while (o != NULL) {
    if (o->kind == AT_FILE_READ && !o->ended && o->work.op.task != NULL) {
      at_op_push_task(L, &o->work.op);
      lua_pushliteral(L, "the file was closed");
      at_cancel_task(L, rt, o->work.op.task, lua_gettop(L));
      lua_pop(L, 2);
      o = f->head; /* the queue has changed */
    } else {
      o = o->next;
    }
  }
}

/* A read that may hang for ever and that nobody waits for. */
static int is_given_up(at_fileop *o) {
  return o != NULL && o->kind == AT_FILE_READ && atomic_load(&o->abandoned);
}

void at_file_start_close(lua_State *L, at_runtime *rt, int file) {
  at_file *f = at_file_check(L, file);
  at_fileop *o;
  if (!f->closing && !f->seekable) cancel_reads(L, rt, f);
  if (f->closing) {
    at_file_push_fault(L, rt, f, AT_FILE_CLOSE, "EBADF", "attempt to use a closed file");
    return;
  }
  if (f->head == NULL ? f->seekable && !f->writable : !f->seekable && is_given_up(f->running)) {
    f->closing = 1;
    advance(rt, f); /* closes now, or when the read lets go */
    at_task_resolved(L, rt, 0);
    return;
  }
  o = at_file_new_op(L, rt, file, AT_FILE_CLOSE, 0);
  if (o == NULL) return;
  if (f->closing) { /* a finalizer was faster */
    at_op_fail(L, &o->work.op, UV_EBADF);
    return;
  }
  f->closing = 1;
  at_file_enqueue(rt, f, o);
}

/* file:close() -> Task */
int l_file_close(lua_State *L) {
  (void)at_file_check(L, 1);
  at_file_start_close(L, at_rt(L), 1);
  return 1;
}

/* Continues __close: the wait for the close is over. stack: ... scope [error] */
static int close_waited(lua_State *L, int status, lua_KContext scope) {
  at_scope_leave(at_rt(L), (at_scope *)scope);
  return status == LUA_OK || status == LUA_YIELD ? 0 : lua_error(L);
}

int at_file_close_wait(lua_State *L, at_runtime *rt) {
  at_scope *s = at_scope_enter(L, rt, AT_SCOPE_SHIELD);
  int status;
  lua_insert(L, -2); /* stack: scope task */
  at_await_push(L, rt);
  lua_insert(L, -2);
  status = lua_pcallk(L, 1, 0, 0, (lua_KContext)s, close_waited);
  return close_waited(L, status, (lua_KContext)s);
}

static int l_file_scope_close(lua_State *L) {
  at_runtime *rt = at_rt(L);
  if (at_file_check(L, 1)->closing) return 0;
  lua_settop(L, 1);
  at_file_start_close(L, rt, 1);
  return at_file_close_wait(L, rt);
}

static int l_file_gc(lua_State *L) {
  file_box *box = lua_touserdata(L, 1);
  at_file *f = box->file;
  if (f == NULL) return 0;
  box->file = NULL;
  if (!f->closing) {
    f->closing = 1;
    lua_warning(L, "file ", 1);
    lua_warning(L, f->path, 1);
    lua_warning(L, " was collected without being closed", 0);
    advance(f->rt, f); /* what still runs was cancelled: the last of it closes */
  }
  file_unref(f);
  return 0;
}

static int l_file_tostring(lua_State *L) {
  at_file *f = at_file_check(L, 1);
  lua_pushfstring(L, f->closing ? "file (closed, %s)" : "file (%s)", f->path);
  return 1;
}

/* ---- making ---- */

at_file *at_file_push(lua_State *L, at_runtime *rt, const char *path) {
  file_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  at_file *f;
  box->file = NULL;
  luaL_setmetatable(L, AT_FILE_MT);
  f = calloc(1, sizeof *f);
  if (f != NULL && (f->path = strdup(path)) == NULL) {
    free(f);
    f = NULL;
  }
  if (f == NULL) luaL_error(L, "not enough memory");
  atomic_init(&f->refs, 1);
  f->rt = rt;
  f->fd = -1;
  f->closing = 1;
  f->chunk = CHUNK_FIRST;
  f->closable.close = file_close_state;
  at_closable_add(rt, &f->closable);
  box->file = f;
  return f;
}

void at_file_adopt(at_file *f, int fd, int flags, const struct stat *st) {
  f->readable = (flags & O_ACCMODE) != O_WRONLY;
  f->writable = (flags & O_ACCMODE) != O_RDONLY;
  f->append = (flags & O_APPEND) != 0;
  f->seekable = S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
  f->regular = f->nowait = S_ISREG(st->st_mode);
  f->fd = fd;
  f->closing = 0;
}

void at_file_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg meta[] = {{"__gc", l_file_gc},
                                  {"__close", l_file_scope_close},
                                  {"__tostring", l_file_tostring},
                                  {NULL, NULL}};
  at_runtime_class(L, rt, AT_FILE_MT, at_file_methods, meta);
  luaL_getmetatable(L, AT_FILE_MT);
  lua_getfield(L, -1, "__index"); /* to which the Lua face adds its own */
  lua_setfield(L, -3, "File");
  lua_pop(L, 1);
}
