/* ending.c - what waits until all that was written is out: shutdown and close. Loop thread only.
** Invariants: a close always ends: with the last byte, with the failure of writing, when its Task
** is cancelled, or when the peer has taken nothing for AT_LINGER_MS; a shutdown that is cancelled
** before has not happened (S10). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "core/sched.h"
#include "core/task.h"
#include "io/stream.h"

#define AT_LINGER_MS 5000 /* a close gives up when the peer takes nothing for so long */

/* A shutdown or a close that waits for the queue. */
struct at_ending {
  at_op op;
  at_stream *stream; /* counted */
  struct at_ending *next, **prev; /* prev NULL: not in the list, it has ended */
};

/* Watches a close that waits. */
struct at_linger {
  uv_timer_t timer;
  at_stream *stream;  /* NULL once it is over */
  uint64_t sent;      /* when it was looked at last */
};

/* ---- the operations ---- */

static int push_outcome(lua_State *L, at_op *op) {
  if (op->status >= 0) return 0;
  at_stream_push_error(L, op->status, op->class->name);
  return AT_OP_FAILED;
}

static void take_out(struct at_ending *e) {
  *e->prev = e->next;
  if (e->next != NULL) e->next->prev = e->prev;
  e->prev = NULL;
}

/* The Task of a shutdown is cancelled: it did not happen. */
static int shutdown_cancel(at_op *op) {
  struct at_ending *e = (struct at_ending *)(void *)op;
  if (e->prev == NULL) return 0;
  take_out(e);
  if (e->stream->endings == NULL && !e->stream->closing) e->stream->shut = 0;
  return 1;
}

/* Nobody waits for the close any more: it happens at once. */
static int close_cancel(at_op *op) {
  struct at_ending *e = (struct at_ending *)(void *)op;
  if (e->prev == NULL) return 0;
  take_out(e);
  at_stream_abort(e->stream);
  return 1;
}

static void ending_release(at_op *op) {
  struct at_ending *e = (struct at_ending *)(void *)op;
  if (e->stream != NULL) {
    e->stream->waits--;
    at_stream_update(e->stream);
    at_stream_drop(e->stream);
  }
  free(e);
}

static const at_opclass shutdown_class = {"shutdown", push_outcome, shutdown_cancel,
                                          ending_release, NULL, 0};
static const at_opclass close_class = {"close", push_outcome, close_cancel, ending_release,
                                       NULL, 0};

/* All that waits for the queue: a close succeeds whatever became of it. */
static void settle_all(at_stream *s, int status) {
  struct at_ending *e;
  while ((e = s->endings) != NULL) {
    take_out(e);
    e->op.status = e->op.class == &close_class ? 0 : status;
    at_op_done(&e->op);
  }
}

/* What is only for writing, a pipe, is closed: there is nothing else to tell the reader with. Of
** terminals nothing can be shut. */
static int shut_now(at_stream *s) {
  if (!s->is_socket) {
    if (!s->closing && (fcntl(s->fd, F_GETFL) & O_ACCMODE) == O_WRONLY) at_stream_shut_pipe(s);
    return 0;
  }
  return shutdown(s->fd, SHUT_WR) != 0 && errno != ENOTCONN ? -errno : 0;
}

void at_ending_drained(at_stream *s) {
  if (s->endings == NULL && !s->closing) return;
  settle_all(s, s->out_status != 0 || !s->shut ? s->out_status : shut_now(s));
  if (s->closing) at_stream_abort(s);
}

/* ---- lingering ---- */

static void linger_closed(uv_handle_t *handle) { free(handle->data); }

static void stop_linger(at_stream *s) {
  struct at_linger *linger = s->linger;
  if (linger == NULL) return;
  s->linger = NULL;
  linger->stream = NULL;
  uv_close((uv_handle_t *)&linger->timer, linger_closed);
}

static void on_linger(uv_timer_t *timer) {
  struct at_linger *linger = timer->data;
  at_stream *s = linger->stream;
  if (s == NULL) return;
  if (linger->sent == s->sent) {
    at_runtime *rt = s->rt;
    at_stream_abort(s);
    at_sched_enter(rt);
  } else {
    linger->sent = s->sent;
  }
}

/* Begins to close with bytes in the queue. Without memory for the timer it closes at once. */
static void close_later(at_stream *s) {
  struct at_linger *linger = malloc(sizeof *linger); /* owned by s */
  if (linger == NULL) {
    at_stream_abort(s);
    return;
  }
  s->closing = 1;
  linger->stream = s;
  linger->sent = s->sent;
  (void)uv_timer_init(s->rt->loop, &linger->timer); /* cannot fail */
  linger->timer.data = linger;
  (void)uv_timer_start(&linger->timer, on_linger, AT_LINGER_MS, AT_LINGER_MS);
  uv_unref((uv_handle_t *)&linger->timer); /* the poll handle counts */
  s->linger = linger;
  at_reader_end(&s->in, UV_EBADF);
}

void at_ending_finish(at_stream *s) {
  if (s->closing) return;
  if (s->head == NULL)
    at_stream_abort(s);
  else
    close_later(s);
}

void at_ending_end(at_stream *s, int status) {
  stop_linger(s);
  settle_all(s, status);
}

/* ---- shutdown and close ---- */

/* The Task at the top waits for the queue. */
static int wait_drained(lua_State *L, at_runtime *rt, at_stream *s, at_task *t,
                        const at_opclass *class) {
  struct at_ending *e = at_op_alloc(L, rt, t, class, sizeof *e);
  if (e == NULL) return 1;
  e->stream = s;
  at_stream_hold(s);
  s->waits++;
  e->next = s->endings;
  e->prev = &s->endings;
  if (e->next != NULL) e->next->prev = &e->next;
  s->endings = e;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* shutdown(): no more will be written; reading goes on */
int l_stream_shutdown(lua_State *L) {
  at_streambox *box = at_stream_self(L);
  at_runtime *rt = lua_touserdata(L, lua_upvalueindex(1));
  at_stream *s = at_stream_open_one(box);
  int status;
  at_task *t;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (s == NULL) return at_stream_failed(L, rt, UV_EBADF, "shutdown");
  if (s->out_status != 0) return at_stream_failed(L, rt, s->out_status, "shutdown");
  if (s->head == NULL) {
    s->shut = 1;
    status = shut_now(s);
    if (status < 0) return at_stream_failed(L, rt, status, "shutdown");
    at_task_resolved(L, rt, 0);
    return 1;
  }
  t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  s->shut = 1;
  return wait_drained(L, rt, s, t, &shutdown_class);
}

/* close(): when what was written is out, at once if nothing is queued. Closing twice is fine. */
int l_stream_close(lua_State *L) {
  at_streambox *box = at_stream_self(L);
  at_runtime *rt = lua_touserdata(L, lua_upvalueindex(1));
  at_stream *s = box->stream;
  at_task *t;
  if (s != NULL && s->fd >= 0) at_ending_finish(s);
  if (s == NULL || s->fd < 0) {
    at_task_resolved(L, rt, 0);
    return 1;
  }
  t = at_op_new_always(L, rt);
  return wait_drained(L, rt, s, t, &close_class);
}
