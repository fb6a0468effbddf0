/* reader.c - reading from a stream: what is asked for, the read that waits, the bytes that come.
** Calls base/format for what answers a read. Loop thread only.
** Invariants: bytes leave the buffer only while their values are pushed, so a read that is cancelled
** before has taken none (S10); one read waits at a time; with nobody reading the buffer holds at
** most AT_STREAM_MARK bytes. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/format.h"
#include "core/task.h"
#include "io/stream.h"

#define AT_READ_SOME_MAX AT_STREAM_MARK

/* ---- the operation ---- */

static int reading_push(lua_State *L, at_op *op) {
  at_reading *r = (at_reading *)(void *)op;
  at_stream *s = r->stream;
  int n;
  if (op->status < 0) {
    at_stream_push_error(L, op->status, op->class->name);
    return AT_OP_FAILED;
  }
  n = at_format_push(L, &r->plan, s->in.bytes);
  at_buffer_take(&s->in, r->plan.end);
  return n;
}

static int reading_cancel(at_op *op) {
  at_reading *r = (at_reading *)(void *)op;
  return !r->answered;
}

static void reading_release(at_op *op) {
  at_reading *r = (at_reading *)(void *)op;
  at_stream *s = r->stream;
  if (s == NULL) {
    free(r);
    return;
  }
  if (!r->lent) free(r);
  s->reader = NULL;
  s->waits--;
  at_stream_update(s);
  at_stream_drop(s); /* may free s and its own one */
}

static const at_opclass read_class = {"read", reading_push, reading_cancel, reading_release,
                                      NULL, 0};

/* Ends the waiting read. No Lua. */
static void answer(at_stream *s, int status) {
  at_reading *r = s->reader;
  r->answered = 1;
  r->op.status = status;
  at_op_done(&r->op);
}

void at_reader_end(at_stream *s, int status) {
  if (s->reader != NULL && !s->reader->answered) answer(s, status);
}

/* ---- bytes come ---- */

/* One call into the system: bytes, 0 at the end, or a negative status. */
static ssize_t receive(at_stream *s, char *memory, size_t size) {
  ssize_t n;
  do {
    if (s->is_unix)
      n = at_handle_recv(s, memory, size);
    else
      n = s->is_socket ? recv(s->fd, memory, size, MSG_DONTWAIT) : read(s->fd, memory, size);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && errno == EIO && isatty(s->fd)) return 0; /* nobody has the other side any more */
  return n < 0 ? -errno : n;
}

/* Reads once into the buffer, or shows the scratch memory through it. */
static ssize_t fill(at_stream *s) {
  size_t room = AT_STREAM_MARK;
  char *memory;
  ssize_t n;
  if (s->reader == NULL) room -= s->in.size; /* reading ahead: update stops at the mark */
  if (s->in.size == 0) {
    n = receive(s, at_stream_scratch(s), room);
    if (n > 0) at_buffer_borrow(&s->in, at_stream_scratch(s), (size_t)n);
    return n;
  }
  memory = at_buffer_reserve(&s->in, room);
  if (memory == NULL) return UV_ENOMEM;
  n = receive(s, memory, room);
  if (n > 0) at_buffer_commit(&s->in, (size_t)n);
  return n;
}

void at_reader_receive(at_stream *s) {
  at_reading *r = s->reader;
  ssize_t n;
  int status;
  if (r == NULL && s->in.size >= AT_STREAM_MARK) {
    s->reading = 0; /* until the next read that has to wait */
    return;
  }
  n = fill(s);
  if (n == UV_EAGAIN || n == -EWOULDBLOCK) {
    if (s->handing != NULL) at_handle_answer(s);
    return;
  }
  if (n == 0) s->ended = 1;
  if (n < 0) s->in_status = (int)n;
  if (s->handing != NULL) at_handle_answer(s);
  if (r == NULL || r->answered) return;
  status = n < 0 ? (int)n : at_format_search(&r->plan, s->in.bytes, s->in.size, s->ended);
  if (status != 0) answer(s, status < 0 ? status : 0);
}

/* ---- asking ---- */

/* The request of a read that has to wait, bound to the Task at the top: the stream's own one if the
** plan fits in. NULL: out of memory, the Task has failed. */
static at_reading *request(lua_State *L, at_runtime *rt, at_stream *s, at_task *t,
                           const at_plan *plan) {
  size_t items = (size_t)plan->count * sizeof(at_item);
  at_reading *r = &s->own;
  char *delimiter = r->delimiter;
  if (plan->count <= (int)(sizeof r->items / sizeof *r->items) &&
      plan->delimiter_size <= sizeof r->delimiter) {
    memset(r, 0, sizeof *r);
    at_op_bind(L, rt, t, &read_class, &r->op);
    r->lent = 1;
    r->plan = *plan;
    r->plan.items = r->items;
  } else {
    r = at_op_alloc(L, rt, t, &read_class, sizeof *r + items + plan->delimiter_size);
    if (r == NULL) return NULL;
    r->plan = *plan;
    r->plan.items = (at_item *)(r + 1);
    delimiter = (char *)(r + 1) + items;
  }
  memcpy(r->plan.items, plan->items, items);
  if (plan->delimiter_size > 0) memcpy(delimiter, plan->delimiter, plan->delimiter_size);
  r->plan.delimiter = delimiter;
  return r;
}

/* A read that has to wait. Stack: stream ... */
static int wait(lua_State *L, at_runtime *rt, at_stream *s, const at_plan *plan) {
  at_reading *r;
  at_task *t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  r = request(L, rt, s, t, plan);
  if (r == NULL) return 1;
  r->stream = s;
  at_stream_hold(s);
  s->reader = r;
  s->waits++;
  s->reading = 1;
  at_stream_update(s);
  lua_pushvalue(L, 1); /* the Task keeps the stream alive */
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* Answers the plan from what is there, or waits. */
static int start(lua_State *L, at_runtime *rt, at_streambox *box, at_plan *plan) {
  at_stream *s = at_stream_open_one(box);
  int status, n;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (s == NULL) return at_stream_failed(L, rt, UV_EBADF, "read");
  if (s->reader != NULL) return at_stream_failed(L, rt, UV_EBUSY, "read");
  status = s->in.size == 0 && !s->ended && plan->items->format == AT_FORMAT_SOME
               ? 0 : at_format_search(plan, s->in.bytes, s->in.size, s->ended);
  if (status == 0 && s->in_status == 0) return wait(L, rt, s, plan);
  if (status <= 0) return at_stream_failed(L, rt, status < 0 ? status : s->in_status, "read");
  n = at_format_push(L, plan, s->in.bytes);
  at_buffer_take(&s->in, plan->end);
  at_task_resolved(L, rt, n);
  return 1;
}

/* read(formats...) -> values; nil at the end */
int l_stream_read(lua_State *L) {
  at_item items[AT_FORMATS_MAX];
  at_plan plan;
  at_streambox *box = at_stream_self(L);
  int count = at_format_check(L, 2);
  at_format_plan(L, 2, &plan, items, count);
  plan.max = AT_STREAM_LINE;
  return start(L, at_rt(L), box, &plan);
}

/* read_some([max]) -> what is there, at least a byte; nil at the end */
int l_stream_read_some(lua_State *L) {
  at_item item;
  at_plan plan;
  at_streambox *box = at_stream_self(L);
  lua_Integer max = luaL_optinteger(L, 2, AT_READ_SOME_MAX);
  luaL_argcheck(L, max > 0, 2, "positive number of bytes expected");
  at_format_single(&plan, &item, AT_FORMAT_SOME, (size_t)max);
  return start(L, at_rt(L), box, &plan);
}

/* read_until(delimiter, {max=, keep=}) -> what stands before it */
int l_stream_read_until(lua_State *L) {
  static const char *const options[] = {"max", "keep", NULL};
  at_item item;
  at_plan plan;
  at_streambox *box = at_stream_self(L);
  size_t size, max;
  const char *delimiter;
  int keep;
  luaL_checktype(L, 2, LUA_TSTRING);
  delimiter = lua_tolstring(L, 2, &size);
  luaL_argcheck(L, size > 0, 2, "delimiter is empty");
  at_arg_options(L, 3, options);
  max = (size_t)at_arg_field_integer(L, 3, "max", AT_STREAM_LINE, 1, INT64_MAX);
  keep = at_arg_field_boolean(L, 3, "keep", 0);
  at_format_single(&plan, &item, keep ? AT_FORMAT_UNTIL_KEEP : AT_FORMAT_UNTIL, 0);
  plan.max = max;
  plan.delimiter = delimiter;
  plan.delimiter_size = size;
  return start(L, at_rt(L), box, &plan);
}
