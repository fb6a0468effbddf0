/* file.c - the open file: asynctask.File, the queue of its operations, their work.
** Owns the descriptor, the read-ahead buffer and the queue. Operations on one file run one after
** another in the order of their start; each is one trip to the pool, or none when the bytes are in
** the buffer or in the system's cache.
** Loop thread; what operations do on pool threads is in filework.c: there the running one has
** descriptor, position and buffer for itself.
** Invariants: the running operation is the head of the queue; the descriptor is closed by a close
** operation or when closing, the queue being empty; the next operation starts in release of the one
** before, that is after its result was taken from the buffer. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/await.h"
#include "core/cancel.h"
#include "io/fs.h"

#define CHUNK_FIRST (16 * 1024)
#define KEEP_CAPACITY (1024 * 1024) /* a larger buffer is let go once it is empty */

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

/* Starts the operation at the head: here and now if nothing can block, else in the pool. */
static void start_op(at_runtime *rt, at_file *f, at_fileop *o) {
  int status;
  f->running = o;
  if ((o->kind == AT_FILE_READ && at_file_read_cached(rt, f, &o->plan)) ||
      (o->kind == AT_FILE_SEEK && o->whence != SEEK_END)) {
    end_op(o);
    return;
  }
  o->submitted = 1;
  status = at_blocking_submit(rt, &o->work, at_file_run[o->kind]);
  if (status < 0) {
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

static void enqueue(at_runtime *rt, at_file *f, at_fileop *o) {
  o->linked = 1;
  o->prev = f->tail;
  if (f->tail != NULL) f->tail->next = o;
  else f->head = o;
  f->tail = o;
  count_waiting(f);
  advance(rt, f);
}

static int op_cancel(at_op *op) {
  at_fileop *o = op_of(op);
  if (o->ended || o->kind == AT_FILE_CLOSE) return 0;
  if (!o->submitted) return 1;
  if (at_blocking_cancel(op)) return 1;
  atomic_store(&o->abandoned, 1);
  count_waiting(o->file);
  return 0;
}

static void op_release(at_op *op) {
  at_fileop *o = op_of(op);
  at_file *f = o->file;
  if (op->rt != NULL) { /* else another thread may be here, and the queue is dead */
    if (o->linked) unlink_op(f, o);
    if (f->running == o) f->running = NULL;
    if (!op->rt->closing) {
      count_waiting(f);
      advance(op->rt, f);
    }
  }
  free(o->data);
  free(o);
  file_unref(f);
}

/* The state closes: what has not started never will. */
static void file_close_state(at_runtime *rt, at_closable *c) {
  at_file *f = (at_file *)(void *)((char *)c - offsetof(at_file, closable));
  at_fileop *o, *next;
  (void)rt;
  for (o = f->head; o != NULL; o = next) {
    next = o->next;
    if (o != f->running) at_op_done(&o->work.op); /* releases it: the runtime is closing */
  }
}

static const char *op_subject(at_op *op) { return op_of(op)->file->path; }

/* ---- results ---- */

static const char *bytes_of(const at_filebuf *b) { return b->data != NULL ? b->data + b->start : ""; }

/* Bytes were taken: an empty buffer begins again, a very large one is let go. */
static void tidy(at_filebuf *b) {
  if (b->start < b->end) return;
  b->start = b->end = 0;
  if (b->capacity <= KEEP_CAPACITY) return;
  free(b->data);
  b->data = NULL;
  b->capacity = 0;
}

/* Takes the bytes first: pushing may run a finalizer that reads from this very file. (The value has
** been copied by then; short of memory, it is lost.) */
int at_file_take(lua_State *L, at_file *f, const at_plan *plan) {
  const char *bytes = bytes_of(&f->buf);
  int n;
  f->buf.start += plan->end;
  n = at_format_push(L, plan, bytes);
  tidy(&f->buf);
  return n;
}

/* Whatever a finalizer starts now waits in the queue. */
static int read_push(lua_State *L, at_op *op) {
  at_fileop *o = op_of(op);
  at_filebuf *b = &o->file->buf;
  int n;
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  n = at_format_push(L, &o->plan, bytes_of(b));
  b->start += o->plan.end;
  tidy(b);
  return n;
}

static int write_push(lua_State *L, at_op *op) {
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  at_op_push_task(L, op);
  lua_getiuservalue(L, -1, 1); /* the File */
  return 1;
}

static int seek_push(lua_State *L, at_op *op) {
  at_fileop *o = op_of(op);
  int64_t to = op->status < 0 ? op->status : at_file_seek_to(o->file, o->whence, o->value, o->st.st_size);
  if (to < 0) {
    at_op_push_error(L, op, (int)to);
    return AT_OP_FAILED;
  }
  lua_pushinteger(L, (lua_Integer)to);
  return 1;
}

static int stat_push(lua_State *L, at_op *op) {
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  at_fs_push_stat(L, &op_of(op)->st);
  return 1;
}

static const at_opclass classes[] = {
    [AT_FILE_READ] = {"read", read_push, op_cancel, op_release, op_subject, 0},
    [AT_FILE_WRITE] = {"write", write_push, op_cancel, op_release, op_subject, 0},
    [AT_FILE_CLOSE] = {"close", NULL, op_cancel, op_release, op_subject, 0},
    [AT_FILE_SEEK] = {"seek", seek_push, op_cancel, op_release, op_subject, 0},
    [AT_FILE_TRUNCATE] = {"truncate", write_push, op_cancel, op_release, op_subject, 0},
    [AT_FILE_SYNC] = {"sync", write_push, op_cancel, op_release, op_subject, 0},
    [AT_FILE_DATASYNC] = {"datasync", write_push, op_cancel, op_release, op_subject, 0},
    [AT_FILE_STAT] = {"stat", stat_push, op_cancel, op_release, op_subject, 0},
};

/* ---- starting operations ---- */

/* [-0, +1, m] pushes a Task that faulted. */
static void push_fault(lua_State *L, at_runtime *rt, const at_file *f, int kind, const char *code,
                       const char *message) {
  at_error_push(L, code, message, classes[kind].name);
  at_error_set(L, "path", f->path);
  at_task_failed(L, rt);
}

/* [-0, +1|0, m] pushes a Task and returns 1 if the operation cannot begin. */
static int push_refusal(lua_State *L, at_runtime *rt, const at_file *f, int kind) {
  if (at_op_refused(rt))
    at_task_refused(L, rt);
  else if (f->closing)
    push_fault(L, rt, f, kind, "EBADF", "attempt to use a closed file");
  else if (kind == AT_FILE_READ && !f->readable)
    push_fault(L, rt, f, kind, "EBADF", "file is not open for reading");
  else if ((kind == AT_FILE_WRITE || kind == AT_FILE_TRUNCATE) && !f->writable)
    push_fault(L, rt, f, kind, "EBADF", "file is not open for writing");
  else if ((kind == AT_FILE_SEEK || kind == AT_FILE_TRUNCATE) && !f->seekable)
    push_fault(L, rt, f, kind, "ESPIPE", "file has no position (a pipe, a terminal, a device)");
  else
    return 0;
  return 1;
}

/* [-0, +1, m] pushes the Task of a new operation, not queued yet; NULL: the Task has settled. */
static at_fileop *new_op(lua_State *L, at_runtime *rt, int file, int kind, int items) {
  at_file *f = at_file_check(L, file);
  at_task *t = kind == AT_FILE_CLOSE ? at_op_new_always(L, rt) : at_op_new(L, rt);
  at_fileop *o;
  if (at_task_settled(t)) return NULL;
  o = at_op_alloc(L, rt, t, &classes[kind], sizeof *o + (size_t)items * sizeof *o->items);
  if (o == NULL) return NULL;
  o->kind = (unsigned char)kind;
  o->file = f;
  atomic_fetch_add(&f->refs, 1);
  lua_pushvalue(L, file); /* the File lives while its Task is pending */
  lua_setiuservalue(L, -2, 1);
  return o;
}

int at_file_try_read(at_runtime *rt, at_file *f, at_plan *plan) {
  if (f->head != NULL || f->closing || !f->readable || plan->count > 1) return 0;
  return at_file_read_cached(rt, f, plan);
}

void at_file_start_read(lua_State *L, at_runtime *rt, int file, const at_plan *plan) {
  at_file *f = at_file_check(L, file);
  at_fileop *o;
  if (push_refusal(L, rt, f, AT_FILE_READ)) return;
  o = new_op(L, rt, file, AT_FILE_READ, plan->count);
  if (o == NULL) return;
  memcpy(o->items, plan->items, (size_t)plan->count * sizeof *o->items);
  o->plan = *plan;
  o->plan.items = o->items;
  enqueue(rt, f, o);
}

/* file:read(formats...) -> Task of values */
static int l_file_read(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_file *f = at_file_check(L, 1);
  int n = at_format_check(L, 2), first = 2;
  at_item few[AT_FORMATS_FEW], *items = few;
  at_plan plan;
  if (n > AT_FORMATS_FEW) {
    items = lua_newuserdatauv(L, (size_t)n * sizeof *items, 0);
    lua_insert(L, 2); /* stack: file items formats... */
    first = 3;
  }
  at_format_plan(L, first, &plan, items, n);
  if (push_refusal(L, rt, f, AT_FILE_READ)) return 1;
  if (at_file_try_read(rt, f, &plan)) {
    at_task_resolved(L, rt, at_file_take(L, f, &plan));
    return 1;
  }
  at_format_plan(L, first, &plan, items, n);
  at_file_start_read(L, rt, 1, &plan);
  return 1;
}

/* file:write(...) -> Task of the file */
static int l_file_write(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_file *f = at_file_check(L, 1);
  int arg, top = lua_gettop(L);
  size_t total = 0, length;
  at_fileop *o;
  for (arg = 2; arg <= top; arg++) {
    (void)luaL_checklstring(L, arg, &length);
    total += length;
  }
  if (push_refusal(L, rt, f, AT_FILE_WRITE)) return 1;
  o = new_op(L, rt, 1, AT_FILE_WRITE, 0);
  if (o == NULL) return 1;
  o->data = malloc(total > 0 ? total : 1);
  if (o->data == NULL) {
    at_op_fail(L, &o->work.op, UV_ENOMEM);
    return 1;
  }
  for (arg = 2; arg <= top; arg++) { /* all are strings by now: nothing raises */
    const char *s = lua_tolstring(L, arg, &length);
    memcpy(o->data + o->length, s, length);
    o->length += length;
  }
  enqueue(rt, f, o);
  return 1;
}

/* file:seek([whence [, offset]]) -> Task of the position */
static int l_file_seek(lua_State *L) {
  static const char *const names[] = {"set", "cur", "end", NULL};
  static const int values[] = {SEEK_SET, SEEK_CUR, SEEK_END};
  at_runtime *rt = at_rt(L);
  at_file *f = at_file_check(L, 1);
  int whence = values[luaL_checkoption(L, 2, "cur", names)];
  lua_Integer offset = luaL_optinteger(L, 3, 0);
  at_fileop *o;
  if (push_refusal(L, rt, f, AT_FILE_SEEK)) return 1;
  o = new_op(L, rt, 1, AT_FILE_SEEK, 0);
  if (o == NULL) return 1;
  o->whence = whence;
  o->value = offset;
  enqueue(rt, f, o);
  return 1;
}

/* [-0, +1, m] an operation without arguments of its own */
static int start_plain(lua_State *L, int kind, int64_t value) {
  at_runtime *rt = at_rt(L);
  at_file *f = at_file_check(L, 1);
  at_fileop *o;
  if (push_refusal(L, rt, f, kind)) return 1;
  o = new_op(L, rt, 1, kind, 0);
  if (o == NULL) return 1;
  o->value = value;
  enqueue(rt, f, o);
  return 1;
}

/* file:truncate([size]) -> Task of the file */
static int l_file_truncate(lua_State *L) {
  lua_Integer size = luaL_optinteger(L, 2, -1);
  luaL_argcheck(L, size >= 0 || lua_isnoneornil(L, 2), 2, "size must not be negative");
  return start_plain(L, AT_FILE_TRUNCATE, size);
}

/* file:sync(), file:datasync() -> Task of the file */
static int l_file_sync(lua_State *L) { return start_plain(L, AT_FILE_SYNC, 0); }
static int l_file_datasync(lua_State *L) { return start_plain(L, AT_FILE_DATASYNC, 0); }

/* file:stat() -> Task of a table */
static int l_file_stat(lua_State *L) { return start_plain(L, AT_FILE_STAT, 0); }

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
    push_fault(L, rt, f, AT_FILE_CLOSE, "EBADF", "attempt to use a closed file");
    return;
  }
  if (f->head == NULL ? f->seekable && !f->writable : !f->seekable && is_given_up(f->running)) {
    f->closing = 1;
    advance(rt, f); /* closes now, or when the read lets go */
    at_task_resolved(L, rt, 0);
    return;
  }
  o = new_op(L, rt, file, AT_FILE_CLOSE, 0);
  if (o == NULL) return;
  if (f->closing) { /* a finalizer was faster */
    at_op_fail(L, &o->work.op, UV_EBADF);
    return;
  }
  f->closing = 1;
  enqueue(rt, f, o);
}

/* file:close() -> Task */
static int l_file_close(lua_State *L) {
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
  f->nowait = S_ISREG(st->st_mode);
  f->fd = fd;
  f->closing = 0;
}

void at_file_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg methods[] = {
      {"read", l_file_read},         {"write", l_file_write},       {"lines", l_file_lines},
      {"seek", l_file_seek},         {"truncate", l_file_truncate}, {"sync", l_file_sync},
      {"datasync", l_file_datasync}, {"stat", l_file_stat},         {"close", l_file_close},
      {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_file_gc},
                                  {"__close", l_file_scope_close},
                                  {"__tostring", l_file_tostring},
                                  {NULL, NULL}};
  at_runtime_class(L, rt, AT_FILE_MT, methods, meta);
}
