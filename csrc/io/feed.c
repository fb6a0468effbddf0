/* feed.c - feeds: an inlet that C (feed.h) or Lua (push, finish) puts bytes into, and the class with the
** reading half of a Stream. Owns the malloc'd at_feed; calls reader.c. Loop thread only.
** Invariants: an at_feed lives until its userdata is collected, its producer has released it and no
** operation points to it; the hooks are called from here alone, `closed` once and last; bytes are in the
** order of the pushes, and a push has happened when it returns, whatever becomes of its Task. */
#include "io/feed.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "base/block.h"
#include "base/error.h"
#include "core/task.h"
#include "io/stream.h"

/* A push of Lua's that waits for its bytes to be read. */
typedef struct pushing {
  at_op op;
  at_feed *feed; /* counted */
  uint64_t end;  /* where they end, counted as feed->pushed is */
  struct pushing *next, **prev; /* prev NULL: not in the list, it has ended */
} pushing;

struct at_feed {
  at_inlet in;
  at_closable closable;
  at_feed_hooks hooks;
  void *data;        /* the hooks' */
  size_t mark;
  uint64_t pushed;   /* bytes that ever came */
  pushing *head, **tail; /* oldest first */
  int refs;          /* the box, the producer, each operation */
  unsigned char of_lua;    /* its producer is the box, and not C: Lua may push and finish */
  unsigned char closed;    /* no reads any more */
  unsigned char finished;  /* the end was told */
  char *fault;       /* owned: code, message and op, each with its zero; NULL: a Lua value, in the box */
};

/* The userdata; its user value is the error of finish. */
typedef struct feedbox {
  at_feed *feed; /* counted */
} feedbox;

static at_feed *of_inlet(at_inlet *in) {
  return (at_feed *)(void *)((char *)in - offsetof(at_feed, in));
}

/* ---- life ---- */

static void drop(at_feed *f) {
  if (--f->refs > 0) return;
  at_buffer_free(&f->in.buffer);
  free(f->fault);
  free(f);
}

static void take_out(pushing *p) {
  at_feed *f = p->feed;
  *p->prev = p->next;
  if (p->next != NULL)
    p->next->prev = p->prev;
  else
    f->tail = p->prev;
  p->prev = NULL;
}

/* The pushes whose bytes are read up to the mark, or all of them, end. */
static void settle_pushes(at_feed *f, int all, int status) {
  uint64_t taken = f->pushed - f->in.buffer.size;
  pushing *p;
  while ((p = f->head) != NULL && (all || p->end < taken + f->mark)) {
    take_out(p);
    p->op.status = status;
    at_op_done(&p->op);
  }
}

/* Tells the producer for the last time. */
static void dismiss(at_feed *f) {
  void (*closed)(void *data) = f->hooks.closed;
  memset(&f->hooks, 0, sizeof f->hooks);
  if (closed != NULL) closed(f->data);
}

/* Nobody reads any more: what waits ends, what was not read is gone. */
static void shut(at_feed *f) {
  if (f->closed) return;
  f->closed = 1;
  f->refs++;
  at_closable_remove(&f->closable);
  at_reader_end(&f->in, UV_EBADF);
  settle_pushes(f, 1, UV_EPIPE);
  at_buffer_free(&f->in.buffer);
  dismiss(f);
  drop(f);
}

static void close_closable(at_runtime *rt, at_closable *c) {
  (void)rt;
  shut((at_feed *)(void *)((char *)c - offsetof(at_feed, closable)));
}

/* ---- the inlet ---- */

static void want(at_feed *f) {
  if (f->hooks.wanted != NULL && !f->finished && !f->closed) f->hooks.wanted(f->data);
}

static void begin_reading(at_inlet *in) {
  at_feed *f = of_inlet(in);
  f->refs++;
  in->held = 0;
  settle_pushes(f, 1, 0); /* it wants more than there is */
  want(f);
}

static void end_reading(at_inlet *in) { drop(of_inlet(in)); }

static void drained(at_inlet *in) {
  at_feed *f = of_inlet(in);
  settle_pushes(f, 0, 0);
  if (in->buffer.size > f->mark / 2) return;
  in->held = f->head != NULL;
  want(f);
}

static void push_fault(lua_State *L, at_inlet *in, int box) {
  const char *code = of_inlet(in)->fault, *message, *op;
  if (code == NULL) {
    lua_getiuservalue(L, box, 1);
    return;
  }
  message = code + strlen(code) + 1;
  op = message + strlen(message) + 1;
  at_error_push(L, code, message, *op != '\0' ? op : NULL);
}

static const at_inletclass inlet_class = {begin_reading, end_reading, drained, push_fault};

/* ---- the producer's end ---- */

at_feed *at_feed_push_new(lua_State *L, at_runtime *rt, size_t mark, const at_feed_hooks *hooks, void *data) {
  feedbox *box;
  at_feed *f;
  if (rt->closing) luaL_error(L, "asynctask: the runtime of this state is closed");
  luaL_checkstack(L, 3, "feed");
  box = lua_newuserdatauv(L, sizeof *box, 1);
  box->feed = NULL;
  luaL_setmetatable(L, AT_BYTES_FEED_MT);
  box->feed = f = calloc(1, sizeof *f);
  if (f == NULL) luaL_error(L, "not enough memory");
  f->in.class = &inlet_class;
  f->refs = 2;
  f->mark = mark > 0 ? mark : AT_STREAM_MARK;
  f->tail = &f->head;
  if (hooks != NULL) f->hooks = *hooks;
  f->data = data;
  f->closable.close = close_closable;
  at_closable_add(rt, &f->closable);
  return f;
}

/* After bytes were appended: answers who waits. True while more is welcome. */
static int appended(at_feed *f, size_t size) {
  f->pushed += size;
  at_reader_look(&f->in);
  return at_inlet_waits(&f->in) || f->in.buffer.size < f->mark;
}

int at_feed_push(at_feed *f, const char *bytes, size_t size) {
  if (f->closed || f->finished) return UV_EPIPE;
  if (at_buffer_append(&f->in.buffer, bytes, size) < 0) return UV_ENOMEM;
  if (appended(f, size)) return 1;
  f->in.held = 1;
  return 0;
}

void at_feed_end(at_feed *f) {
  if (f->finished) return;
  f->finished = 1;
  if (f->in.status == 0) f->in.ended = 1;
  at_reader_look(&f->in);
}

void at_feed_fail(at_feed *f, const char *code, const char *op, const char *message) {
  size_t a = strlen(code) + 1, b = strlen(message) + 1, c = op != NULL ? strlen(op) + 1 : 1;
  if (f->finished) return;
  f->fault = malloc(a + b + c); /* owned by f */
  f->in.status = f->fault != NULL ? AT_INLET_FAULT : UV_ENOMEM;
  if (f->fault != NULL) {
    memcpy(f->fault, code, a);
    memcpy(f->fault + a, message, b);
    memcpy(f->fault + a + b, op != NULL ? op : "", c);
  }
  at_feed_end(f);
}

void at_feed_release(at_feed *f) {
  if (!f->closed) at_feed_fail(f, "EABANDONED", "read", "what this stream was fed by went away without telling its end");
  dismiss(f);
  drop(f);
}

/* ---- push ---- */

static int pushing_push(lua_State *L, at_op *op) {
  if (op->status >= 0) return 0;
  at_stream_push_error(L, op->status, op->class->name);
  return AT_OP_FAILED;
}

static int pushing_cancel(at_op *op) {
  pushing *p = (pushing *)(void *)op;
  if (p->prev == NULL) return 0;
  take_out(p); /* its bytes stay */
  return 1;
}

static void pushing_release(at_op *op) {
  pushing *p = (pushing *)(void *)op;
  if (p->feed != NULL) drop(p->feed);
  free(p);
}

static const at_opclass push_class = {"push", pushing_push, pushing_cancel, pushing_release, NULL, 0};

/* The bytes are there; the Task of whoever waits for them to be read. */
static int wait_read(lua_State *L, at_runtime *rt, at_feed *f) {
  at_task *t = at_op_new(L, rt);
  pushing *p = at_op_alloc(L, rt, t, &push_class, sizeof *p);
  if (p == NULL) return 1;
  p->feed = f;
  f->refs++;
  p->end = f->pushed;
  p->prev = f->tail;
  *f->tail = p;
  f->tail = &p->next;
  f->in.held = 1;
  lua_pushvalue(L, 1); /* the Task keeps the feed alive */
  lua_setiuservalue(L, -2, 1);
  return 1;
}

static at_feed *self(lua_State *L) { return ((feedbox *)luaL_checkudata(L, 1, AT_BYTES_FEED_MT))->feed; }

/* The feed, whose producer Lua must be: the reader of one of C's is no second one. */
static at_feed *producer(lua_State *L) {
  at_feed *f = self(L);
  luaL_argcheck(L, f == NULL || f->of_lua, 1, "the bytes of this feed come from C");
  return f;
}

/* Appends the strings at arguments 2..top. A status. */
static int append_arguments(lua_State *L, at_feed *f, size_t total) {
  int top = lua_gettop(L), arg;
  char *room = at_buffer_reserve(&f->in.buffer, total);
  if (room == NULL) return UV_ENOMEM;
  for (arg = 2; arg <= top; arg++) {
    size_t size;
    const char *bytes = at_span_bytes(L, arg, &size);
    memcpy(room, bytes, size);
    room += size;
  }
  at_buffer_commit(&f->in.buffer, total);
  return 0;
}

/* push(...) -> nothing, once less than the mark is left to be read up to its end */
static int l_feed_push(lua_State *L) {
  at_feed *f = producer(L);
  at_runtime *rt = at_rt(L);
  size_t total = 0;
  int top = lua_gettop(L), arg, status;
  for (arg = 2; arg <= top; arg++) {
    size_t size;
    (void)at_span_bytes(L, arg, &size);
    total += size;
  }
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (f == NULL || f->closed || f->finished) return at_stream_failed(L, rt, UV_EPIPE, "push");
  status = total > 0 ? append_arguments(L, f, total) : 0;
  if (status < 0) return at_stream_failed(L, rt, status, "push");
  if (!appended(f, total)) return wait_read(L, rt, f);
  at_task_resolved(L, rt, 0);
  return 1;
}

/* finish([err]): the end of the stream, or what reads fail with once all is read */
static int l_feed_finish(lua_State *L) {
  at_feed *f = producer(L);
  if (f == NULL || f->finished) return 0;
  lua_settop(L, 2);
  if (!lua_isnil(L, 2)) {
    lua_setiuservalue(L, 1, 1);
    f->in.status = AT_INLET_FAULT;
  }
  at_feed_end(f);
  return 0;
}

/* ---- the class ---- */

static at_inlet *inlet(lua_State *L) {
  at_feed *f = self(L);
  return f == NULL || f->closed ? NULL : &f->in;
}

static int l_feed_read(lua_State *L) { return at_reader_read(L, inlet(L)); }

static int l_feed_read_some(lua_State *L) { return at_reader_read_some(L, inlet(L)); }

static int l_feed_read_until(lua_State *L) { return at_reader_read_until(L, inlet(L)); }

/* close(): what was not read is dropped; the producer is told */
static int l_feed_close(lua_State *L) {
  at_feed *f = self(L);
  if (f != NULL) shut(f);
  at_task_resolved(L, at_rt(L), 0);
  return 1;
}

/* closed() -> boolean */
static int l_feed_closed(lua_State *L) {
  lua_pushboolean(L, inlet(L) == NULL);
  return 1;
}

/* wanted() -> boolean: a read waits for more than has been pushed */
static int l_feed_wanted(lua_State *L) {
  const at_inlet *in = inlet(L);
  lua_pushboolean(L, in != NULL && at_inlet_waits(in));
  return 1;
}

static int l_feed_tostring(lua_State *L) {
  at_feed *f = self(L);
  if (inlet(L) == NULL)
    lua_pushliteral(L, "asynctask.Feed (closed)");
  else
    lua_pushfstring(L, "asynctask.Feed: %p", (void *)f);
  return 1;
}

static int l_feed_gc(lua_State *L) {
  feedbox *box = luaL_checkudata(L, 1, AT_BYTES_FEED_MT);
  at_feed *f = box->feed;
  if (f == NULL) return 0;
  box->feed = NULL;
  shut(f);
  drop(f);
  return 0;
}

/* feed({mark=}) -> Feed, both ends in one */
static int l_net_feed(lua_State *L) {
  static const char *const options[] = {"mark", NULL};
  lua_Integer mark;
  at_feed *f;
  at_arg_options(L, 1, options);
  mark = at_arg_field_integer(L, 1, "mark", AT_STREAM_MARK, 1, INT64_MAX / 2);
  f = at_feed_push_new(L, at_rt(L), (size_t)mark, NULL, NULL);
  f->of_lua = 1;
  drop(f); /* Lua's producer is the box */
  return 1;
}

void at_feed_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"feed", l_net_feed}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"read", l_feed_read},
                                     {"read_some", l_feed_read_some},
                                     {"read_until", l_feed_read_until},
                                     {"close", l_feed_close},
                                     {"closed", l_feed_closed},
                                     {"wanted", l_feed_wanted},
                                     {"push", l_feed_push},
                                     {"finish", l_feed_finish},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_feed_gc}, {"__tostring", l_feed_tostring}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
  at_runtime_class(L, rt, AT_BYTES_FEED_MT, methods, meta);
  luaL_getmetatable(L, AT_BYTES_FEED_MT);
  lua_setfield(L, -2, "Feed");
}
