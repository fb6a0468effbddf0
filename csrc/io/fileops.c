/* fileops.c - the operations of an open file as Lua sees them: arguments, what may begin, results.
** Owns nothing: an operation is the queue's (file.c) once it is enqueued.
** Loop thread. What cannot begin is a Task that faulted; what is in memory, one that has settled. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/block.h"
#include "base/error.h"
#include "io/file.h"
#include "io/fs.h"

#define KEEP_CAPACITY (1024 * 1024) /* a larger buffer is let go once it is empty */

#define POSITION_MAX ((lua_Integer)1 << 60) /* behind the end of any file; the system refuses sums beyond */

#define op_of(o) ((at_fileop *)(void *)(o))

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

/* nil at the end, as for read */
static int read_at_push(lua_State *L, at_op *op) {
  at_fileop *o = op_of(op);
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  if (o->length == 0) lua_pushnil(L);
  else lua_pushlstring(L, o->data, o->value == 0 ? 0 : o->length); /* of a count of 0: one was tried */
  return 1;
}

/* whether it is held; from here on it is not given back by itself */
static int lock_push(lua_State *L, at_op *op) {
  at_fileop *o = op_of(op);
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  lua_pushboolean(L, o->undo);
  if (o->undo) o->file->locked = (unsigned char)o->whence;
  o->undo = 0;
  return 1;
}

#define CLASS(name, push) {name, push, at_file_op_cancel, at_file_op_release, op_subject, 0}

static const at_opclass classes[] = {
    [AT_FILE_READ] = CLASS("read", read_push),
    [AT_FILE_WRITE] = CLASS("write", write_push),
    [AT_FILE_READ_AT] = CLASS("read_at", read_at_push),
    [AT_FILE_WRITE_AT] = CLASS("write_at", write_push),
    [AT_FILE_CLOSE] = CLASS("close", NULL),
    [AT_FILE_SEEK] = CLASS("seek", seek_push),
    [AT_FILE_TRUNCATE] = CLASS("truncate", write_push),
    [AT_FILE_SYNC] = CLASS("sync", write_push),
    [AT_FILE_DATASYNC] = CLASS("datasync", write_push),
    [AT_FILE_STAT] = CLASS("stat", stat_push),
    [AT_FILE_LOCK] = CLASS("lock", lock_push),
    [AT_FILE_UNLOCK] = CLASS("unlock", write_push),
};

/* ---- starting operations ---- */

void at_file_push_fault(lua_State *L, at_runtime *rt, const at_file *f, int kind,
                        const char *code, const char *message) {
  at_error_push(L, code, message, classes[kind].name);
  at_error_set(L, "path", f->path);
  at_task_failed(L, rt);
}

/* What an operation needs of its file. */
enum { NEEDS_READING = 1, NEEDS_WRITING = 2, NEEDS_POSITION = 4, RELEASES = 8 };

static const unsigned char needs[] = {
    [AT_FILE_READ] = NEEDS_READING,
    [AT_FILE_WRITE] = NEEDS_WRITING,
    [AT_FILE_READ_AT] = NEEDS_READING | NEEDS_POSITION,
    [AT_FILE_WRITE_AT] = NEEDS_WRITING | NEEDS_POSITION,
    [AT_FILE_CLOSE] = RELEASES,
    [AT_FILE_SEEK] = NEEDS_POSITION,
    [AT_FILE_TRUNCATE] = NEEDS_WRITING | NEEDS_POSITION,
    [AT_FILE_STAT] = 0,
    [AT_FILE_UNLOCK] = RELEASES, /* begins in a cancelled scope, too (S10) */
};

/* [-0, +1|0, m] pushes a Task and returns 1 if the operation cannot begin. */
static int push_refusal(lua_State *L, at_runtime *rt, const at_file *f, int kind) {
  int need = needs[kind];
  if (!(need & RELEASES) && at_op_refused(rt))
    at_task_refused(L, rt);
  else if (f->closing)
    at_file_push_fault(L, rt, f, kind, "EBADF", "attempt to use a closed file");
  else if ((need & NEEDS_READING) && !f->readable)
    at_file_push_fault(L, rt, f, kind, "EBADF", "file is not open for reading");
  else if ((need & NEEDS_WRITING) && !f->writable)
    at_file_push_fault(L, rt, f, kind, "EBADF", "file is not open for writing");
  else if ((need & NEEDS_POSITION) && !f->seekable)
    at_file_push_fault(L, rt, f, kind, "ESPIPE",
                       "file has no position (a pipe, a terminal, a device)");
  else if (kind == AT_FILE_WRITE_AT && f->append)
    at_file_push_fault(L, rt, f, kind, "EINVAL", "file is open for appending");
  else
    return 0;
  return 1;
}

at_fileop *at_file_new_op(lua_State *L, at_runtime *rt, int file, int kind, int items) {
  at_file *f = at_file_check(L, file);
  at_task *t = needs[kind] & RELEASES ? at_op_new_always(L, rt) : at_op_new(L, rt);
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
  o = at_file_new_op(L, rt, file, AT_FILE_READ, plan->count);
  if (o == NULL) return;
  memcpy(o->items, plan->items, (size_t)plan->count * sizeof *o->items);
  o->plan = *plan;
  o->plan.items = o->items;
  at_file_enqueue(rt, f, o);
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

/* [-0, +1, m] the Task of a write of the arguments from `first` on */
static int start_write(lua_State *L, int kind, int first, int64_t at) {
  at_runtime *rt = at_rt(L);
  at_file *f = at_file_check(L, 1);
  int arg, top = lua_gettop(L);
  size_t total = 0, length;
  at_fileop *o;
  for (arg = first; arg <= top; arg++) {
    (void)at_span_bytes(L, arg, &length);
    total += length;
  }
  if (push_refusal(L, rt, f, kind)) return 1;
  o = at_file_new_op(L, rt, 1, kind, 0);
  if (o == NULL) return 1;
  o->value = at;
  o->data = malloc(total > 0 ? total : 1);
  if (o->data == NULL) {
    at_op_fail(L, &o->work.op, UV_ENOMEM);
    return 1;
  }
  for (arg = first; arg <= top; arg++) { /* all are strings by now: nothing raises */
    const char *s = at_span_bytes(L, arg, &length);
    memcpy(o->data + o->length, s, length);
    o->length += length;
  }
  at_file_enqueue(rt, f, o);
  return 1;
}

/* file:write(...) -> Task of the file */
static int l_file_write(lua_State *L) { return start_write(L, AT_FILE_WRITE, 2, 0); }

/* file:write_at(offset, ...) -> Task of the file */
static int l_file_write_at(lua_State *L) {
  lua_Integer at = luaL_checkinteger(L, 2);
  luaL_argcheck(L, at >= 0, 2, "offset must not be negative");
  return start_write(L, AT_FILE_WRITE_AT, 3, at);
}

/* Reads cached bytes: how many, or -1: ask the pool. */
static ssize_t read_at_cached(at_file *f, char *data, size_t size, int64_t at) {
  size_t have = 0;
  while (have < size) {
    ssize_t n = at_cached_read(f->fd, data + have, size - have, at + (int64_t)have, &f->nowait);
    if (n < 0) return -1; /* in part only */
    if (n == 0) break;
    have += (size_t)n;
  }
  return (ssize_t)have;
}

/* [-0, +1|0, m] pushes the settled Task of a read of bytes that are in memory, else says 0. */
static int push_read_at(lua_State *L, at_runtime *rt, at_file *f, int64_t at, size_t count) {
  luaL_Buffer b;
  ssize_t n;
  char *data;
  if (f->head != NULL || !f->nowait || count > AT_CACHED_PIECE || !at_cached_allowed(rt)) return 0;
  data = luaL_buffinitsize(L, &b, count > 0 ? count : 1);
  n = read_at_cached(f, data, count > 0 ? count : 1, at);
  if (n < 0) {
    luaL_pushresultsize(&b, 0);
    lua_pop(L, 1);
    return 0;
  }
  at_cached_charge(rt, (size_t)n);
  luaL_pushresultsize(&b, count > 0 ? (size_t)n : 0);
  if (n == 0) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  at_task_resolved(L, rt, 1);
  return 1;
}

/* file:read_at(offset, count) -> Task of a string, or nil at the end */
static int l_file_read_at(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_file *f = at_file_check(L, 1);
  lua_Integer at = luaL_checkinteger(L, 2), count = luaL_checkinteger(L, 3);
  at_fileop *o;
  luaL_argcheck(L, at >= 0, 2, "offset must not be negative");
  luaL_argcheck(L, count >= 0, 3, "count must not be negative");
  if (count > POSITION_MAX) count = POSITION_MAX;
  lua_settop(L, 1);
  if (push_refusal(L, rt, f, AT_FILE_READ_AT)) return 1;
  if (at > POSITION_MAX) {
    lua_pushnil(L);
    at_task_resolved(L, rt, 1);
    return 1;
  }
  if (push_read_at(L, rt, f, at, (size_t)count)) return 1;
  o = at_file_new_op(L, rt, 1, AT_FILE_READ_AT, 0);
  if (o == NULL) return 1;
  o->offset = at;
  o->value = count;
  at_file_enqueue(rt, f, o);
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
  o = at_file_new_op(L, rt, 1, AT_FILE_SEEK, 0);
  if (o == NULL) return 1;
  o->whence = whence;
  o->value = offset;
  at_file_enqueue(rt, f, o);
  return 1;
}

/* [-0, +1, m] an operation without arguments of its own */
static int start_plain(lua_State *L, int kind, int64_t value) {
  at_runtime *rt = at_rt(L);
  at_file *f = at_file_check(L, 1);
  at_fileop *o;
  if (push_refusal(L, rt, f, kind)) return 1;
  o = at_file_new_op(L, rt, 1, kind, 0);
  if (o == NULL) return 1;
  o->value = value;
  at_file_enqueue(rt, f, o);
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

/* file:try_lock(shared) -> Task of true or false: f:lock() of the Lua face tries again and again, so
** that no thread hangs in it and the queue goes on */
static int l_file_try_lock(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_file *f = at_file_check(L, 1);
  int shared = lua_toboolean(L, 2);
  at_fileop *o;
  if (push_refusal(L, rt, f, AT_FILE_LOCK)) return 1;
  o = at_file_new_op(L, rt, 1, AT_FILE_LOCK, 0);
  if (o == NULL) return 1;
  o->whence = shared ? AT_LOCK_SHARED : AT_LOCK_EXCLUSIVE;
  at_file_enqueue(rt, f, o);
  return 1;
}

/* file:unlock() -> Task of the file */
static int l_file_unlock(lua_State *L) { return start_plain(L, AT_FILE_UNLOCK, 0); }

const luaL_Reg at_file_methods[] = {
    {"read", l_file_read},         {"write", l_file_write},       {"lines", l_file_lines},
    {"read_at", l_file_read_at},   {"write_at", l_file_write_at}, {"seek", l_file_seek},
    {"truncate", l_file_truncate}, {"sync", l_file_sync},         {"datasync", l_file_datasync},
    {"stat", l_file_stat},         {"close", l_file_close},       {"try_lock", l_file_try_lock},
    {"unlock", l_file_unlock},     {NULL, NULL}};
