/* reader.c - reading from an inlet: what is asked for, the read that waits, how it is answered. Streams and
** feeds have one; who puts bytes into it is not known here. Calls base/format for what answers a read.
** Loop thread only.
** Invariants: bytes leave the buffer only while their values are pushed, so a read that is cancelled
** before has taken none (S10); one read waits at a time. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "core/task.h"
#include "io/inlet.h"
#include "io/stream.h"

#define AT_READ_SOME_MAX AT_STREAM_MARK

/* ---- the operation ---- */

/* [-0, +1, m] the error of a status; the userdata is at `box`. */
static void push_error(lua_State *L, at_inlet *in, int status, const char *op, int box) {
  if (status == AT_INLET_FAULT)
    in->class->push_fault(L, in, box);
  else
    at_stream_push_error(L, status, op);
}

/* The values that are found are on the stack: takes their bytes. No Lua. */
static void take(at_inlet *in, size_t size) {
  at_buffer_take(&in->buffer, size);
  if (in->held) in->class->drained(in);
}

static int reading_push(lua_State *L, at_op *op) {
  at_reading *r = (at_reading *)(void *)op;
  at_inlet *in = r->inlet;
  int n;
  if (op->status < 0) {
    at_op_push_task(L, op);
    lua_getiuservalue(L, -1, 1);
    push_error(L, in, op->status, op->class->name, lua_gettop(L));
    return AT_OP_FAILED;
  }
  n = at_format_push(L, &r->plan, in->buffer.bytes);
  take(in, r->plan.end);
  return n;
}

static int reading_cancel(at_op *op) {
  at_reading *r = (at_reading *)(void *)op;
  return !r->answered;
}

static void reading_release(at_op *op) {
  at_reading *r = (at_reading *)(void *)op;
  at_inlet *in = r->inlet;
  if (in == NULL) {
    free(r);
    return;
  }
  if (!r->lent) free(r);
  in->reader = NULL;
  in->class->end(in); /* may free `in` and its own one */
}

static const at_opclass read_class = {"read", reading_push, reading_cancel, reading_release,
                                      NULL, 0};

/* Ends the waiting read. No Lua. */
static void answer(at_inlet *in, int status) {
  at_reading *r = in->reader;
  r->answered = 1;
  r->op.status = status;
  at_op_done(&r->op);
}

void at_reader_end(at_inlet *in, int status) {
  if (at_inlet_waits(in)) answer(in, status);
}

void at_reader_look(at_inlet *in) {
  at_reading *r = in->reader;
  int status;
  if (r == NULL || r->answered) return;
  status = at_format_search(&r->plan, in->buffer.bytes, in->buffer.size, in->ended);
  if (status == 0) status = in->status;
  if (status != 0) answer(in, status < 0 ? status : 0);
}

/* ---- asking ---- */

/* The request of a read that has to wait, bound to the Task at the top: the inlet's own one if the
** plan fits in. NULL: out of memory, the Task has failed. */
static at_reading *request(lua_State *L, at_runtime *rt, at_inlet *in, at_task *t,
                           const at_plan *plan) {
  size_t items = (size_t)plan->count * sizeof(at_item);
  at_reading *r = &in->own;
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
static int wait(lua_State *L, at_runtime *rt, at_inlet *in, const at_plan *plan) {
  at_reading *r;
  at_task *t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  r = request(L, rt, in, t, plan);
  if (r == NULL) return 1;
  r->inlet = in;
  in->reader = r;
  in->wanted = 1;
  lua_pushvalue(L, 1); /* the Task keeps the stream alive */
  lua_setiuservalue(L, -2, 1);
  in->class->begin(in); /* may put bytes into it */
  return 1;
}

/* [-0, +1, m] a Task that failed; returns 1. */
static int failed(lua_State *L, at_runtime *rt, at_inlet *in, int status) {
  luaL_checkstack(L, 8, "stream");
  push_error(L, in, status, "read", 1);
  at_task_failed(L, rt);
  return 1;
}

/* Answers the plan from what is there, or waits. */
static int start(lua_State *L, at_runtime *rt, at_inlet *in, at_plan *plan) {
  int status, n;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (in == NULL) return failed(L, rt, NULL, UV_EBADF);
  if (in->reader != NULL) return failed(L, rt, in, UV_EBUSY);
  status = in->buffer.size == 0 && !in->ended && plan->items->format == AT_FORMAT_SOME
               ? 0 : at_format_search(plan, in->buffer.bytes, in->buffer.size, in->ended);
  if (status == 0 && in->status == 0) return wait(L, rt, in, plan);
  if (status <= 0) return failed(L, rt, in, status < 0 ? status : in->status);
  n = at_format_push(L, plan, in->buffer.bytes);
  take(in, plan->end);
  at_task_resolved(L, rt, n);
  return 1;
}

/* read(formats...) -> values; nil at the end */
int at_reader_read(lua_State *L, at_inlet *in) {
  at_item items[AT_FORMATS_MAX];
  at_plan plan;
  int count = at_format_check(L, 2);
  at_format_plan(L, 2, &plan, items, count);
  plan.max = AT_STREAM_LINE;
  return start(L, at_rt(L), in, &plan);
}

/* read_some([max]) -> what is there, at least a byte; nil at the end */
int at_reader_read_some(lua_State *L, at_inlet *in) {
  at_item item;
  at_plan plan;
  lua_Integer max = luaL_optinteger(L, 2, AT_READ_SOME_MAX);
  luaL_argcheck(L, max > 0, 2, "positive number of bytes expected");
  at_format_single(&plan, &item, AT_FORMAT_SOME, (size_t)max);
  return start(L, at_rt(L), in, &plan);
}

/* read_until(delimiter, {max=, keep=}) -> what stands before it */
int at_reader_read_until(lua_State *L, at_inlet *in) {
  static const char *const options[] = {"max", "keep", NULL};
  at_item item;
  at_plan plan;
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
  return start(L, at_rt(L), in, &plan);
}
