/* writer.c - writing to a stream: at once where the system takes it, else through a bounded queue.
** Owns the queue's chunks. Loop thread only.
** Invariants: whole writes leave in the order they were made; a write's Task settles when fewer
** than AT_STREAM_MARK bytes up to its end are still queued, so that many writers hold at most one
** such write each; a write that is cancelled has left nothing (S10), or the stream is closed;
** writing to a peer that went away is EPIPE, never a signal. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/block.h"
#include "core/task.h"
#include "io/stream.h"

#define AT_WRITE_VECTORS 64 /* strings, or chunks, in one call */
#define AT_WRITE_ROUNDS 16  /* calls before other handles get their turn */
#define AT_CHUNK_SMALL 4096 /* small writes share a chunk of this size */

/* A piece of the queue. */
typedef struct at_chunk {
  struct at_chunk *next;
  struct at_writing *writing; /* the write that waits for it, or NULL */
  uint64_t end;               /* where it ends, counted as s->queued is */
  size_t size, done, capacity;
  int handle;                 /* owned; -1: none. With one, the chunk is a byte of its own */
  char bytes[];
} at_chunk;

/* A write that waits. */
struct at_writing {
  at_op op;
  at_stream *stream;   /* counted */
  at_chunk *chunk;     /* NULL once it left the queue, or ended */
  unsigned char begun; /* a part of it went out before the rest was queued */
};

/* ---- into the system ---- */

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* those systems have SO_NOSIGPIPE */
#endif

/* SIGPIPE held back while a batch goes to what is no socket. (Not for a whole turn of the loop: programs
** that Lua code starts meanwhile would inherit the mask.) */
typedef struct hold {
  sigset_t before;
  unsigned char held, blocked, pending; /* blocked, pending: it was so before */
} hold;

static void hold_sigpipe(const at_stream *s, hold *h) {
  sigset_t one;
  h->held = !s->is_socket;
  if (!h->held) return;
  sigemptyset(&one);
  sigaddset(&one, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &one, &h->before);
  h->blocked = sigismember(&h->before, SIGPIPE) == 1;
  h->pending = h->blocked && sigpending(&one) == 0 && sigismember(&one, SIGPIPE) == 1;
}

/* Takes away what the batch raised. */
static void release_sigpipe(const hold *h, int status) {
  static const struct timespec none = {0, 0};
  sigset_t one;
  if (!h->held) return;
  if (status == UV_EPIPE && !h->pending) {
    sigemptyset(&one);
    sigaddset(&one, SIGPIPE);
    while (sigtimedwait(&one, NULL, &none) < 0 && errno == EINTR) continue;
  }
  if (!h->blocked) pthread_sigmask(SIG_SETMASK, &h->before, NULL);
}

/* Bytes taken, 0 if the system takes none now, or a negative status. SIGPIPE is held back. */
static ssize_t put(at_stream *s, struct iovec *vectors, int count) {
  ssize_t n;
  do {
    if (!s->is_socket) {
      n = writev(s->fd, vectors, count);
    } else if (count == 1) {
      n = send(s->fd, vectors->iov_base, vectors->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
      struct msghdr message = {.msg_iov = vectors, .msg_iovlen = (size_t)count};
      n = sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return n;
  return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
}

/* The same for a byte that carries a descriptor. */
static ssize_t put_handle(at_stream *s, at_chunk *chunk) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec vector = {.iov_base = chunk->bytes, .iov_len = 1};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  struct cmsghdr *head;
  ssize_t n;
  memset(&control, 0, sizeof control);
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(head), &chunk->handle, sizeof(int));
  do {
    n = sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return n;
  return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
}

static void free_chunk(at_chunk *chunk) {
  if (chunk->handle >= 0) (void)close(chunk->handle);
  free(chunk);
}

/* ---- the operations ---- */

static int push_outcome(lua_State *L, at_op *op) {
  if (op->status >= 0) return 0;
  at_stream_push_error(L, op->status, op->class->name);
  return AT_OP_FAILED;
}

static void end_writing(at_chunk *chunk, int status) {
  struct at_writing *w = chunk->writing;
  if (w == NULL) return;
  chunk->writing = NULL;
  w->chunk = NULL;
  w->op.status = status;
  at_op_done(&w->op);
}

/* Takes an untouched chunk out of the queue. */
static void unlink_chunk(at_stream *s, at_chunk *chunk) {
  at_chunk **link = &s->head, *before = NULL, *later;
  while (*link != chunk) {
    before = *link;
    link = &before->next;
  }
  for (later = chunk->next; later != NULL; later = later->next) later->end -= chunk->size;
  *link = chunk->next;
  if (s->tail == chunk) s->tail = before;
  s->queued -= chunk->size;
  free_chunk(chunk);
}

static int writing_cancel(at_op *op) {
  struct at_writing *w = (struct at_writing *)(void *)op;
  at_chunk *chunk = w->chunk;
  if (chunk == NULL) return 0;
  chunk->writing = NULL;
  w->chunk = NULL;
  if (w->begun || chunk->done > 0) {
    at_stream_abort(w->stream);
  } else {
    unlink_chunk(w->stream, chunk);
    at_writer_flush(w->stream);
  }
  return 1;
}

static void writing_release(at_op *op) {
  struct at_writing *w = (struct at_writing *)(void *)op;
  if (w->stream != NULL) {
    w->stream->waits--;
    at_stream_update(w->stream);
    at_stream_drop(w->stream);
  }
  free(w);
}

static const at_opclass write_class = {"write", push_outcome, writing_cancel, writing_release,
                                       NULL, 0};
/* ---- the queue ---- */

static void drop_chunks(at_stream *s, int status) {
  at_chunk *chunk;
  while ((chunk = s->head) != NULL) {
    s->head = chunk->next;
    end_writing(chunk, status);
    free_chunk(chunk);
  }
  s->tail = NULL;
}

void at_writer_end(at_stream *s, int status) {
  if (s->out_status == 0) s->out_status = status;
  drop_chunks(s, status);
}

/* n bytes have left the queue. */
static void advance(at_stream *s, size_t n) {
  at_chunk *chunk;
  s->sent += n;
  while ((chunk = s->head) != NULL && n >= chunk->size - chunk->done) {
    n -= chunk->size - chunk->done;
    s->head = chunk->next;
    if (s->head == NULL) s->tail = NULL;
    end_writing(chunk, 0);
    free_chunk(chunk);
  }
  if (chunk != NULL) chunk->done += n;
  for (; chunk != NULL && chunk->end - s->sent < s->mark; chunk = chunk->next)
    end_writing(chunk, 0);
}

void at_writer_flush(at_stream *s) {
  int rounds = 0;
  hold sigpipe;
  hold_sigpipe(s, &sigpipe);
  while (s->head != NULL && rounds++ < AT_WRITE_ROUNDS) {
    struct iovec vectors[AT_WRITE_VECTORS];
    at_chunk *chunk = s->head;
    ssize_t n;
    int count = 0;
    for (; chunk != NULL && chunk->handle < 0 && count < AT_WRITE_VECTORS; chunk = chunk->next, count++) {
      vectors[count].iov_base = chunk->bytes + chunk->done;
      vectors[count].iov_len = chunk->size - chunk->done;
    }
    n = count > 0 ? put(s, vectors, count) : put_handle(s, chunk);
    if (n == 0) break;
    if (n < 0) {
      s->out_status = (int)n;
      drop_chunks(s, (int)n);
      break;
    }
    advance(s, (size_t)n);
  }
  release_sigpipe(&sigpipe, s->out_status);
  if (s->head == NULL) at_ending_drained(s);
}

/* Room for `size` bytes at the end of the queue, or NULL: a chunk of its own, or shared. */
static char *enqueue(at_stream *s, size_t size, int own) {
  at_chunk *chunk = s->tail;
  if (own || chunk == NULL || chunk->writing != NULL || chunk->capacity - chunk->size < size) {
    size_t capacity = own || size > AT_CHUNK_SMALL ? size : AT_CHUNK_SMALL;
    chunk = malloc(sizeof *chunk + capacity); /* owned by the queue */
    if (chunk == NULL) return NULL;
    memset(chunk, 0, sizeof *chunk);
    chunk->capacity = capacity;
    chunk->handle = -1;
    if (s->tail != NULL)
      s->tail->next = chunk;
    else
      s->head = chunk;
    s->tail = chunk;
  }
  s->queued += size;
  chunk->size += size;
  chunk->end = s->queued;
  return chunk->bytes + chunk->size - size;
}

int at_writer_handle(at_stream *s, int handle) {
  char *room = enqueue(s, 1, 1);
  if (room == NULL) {
    (void)close(handle);
    return UV_ENOMEM;
  }
  *room = '\0';
  s->tail->handle = handle;
  at_writer_flush(s);
  return s->out_status;
}

/* ---- write ---- */

/* The strings at arguments first..top as vectors, without their first `skip` bytes; at most
** AT_WRITE_VECTORS. Returns how many; `next` is the argument behind them. */
static int gather(lua_State *L, int first, size_t skip, struct iovec *vectors, int *next) {
  int top = lua_gettop(L), count = 0;
  for (; first <= top && count < AT_WRITE_VECTORS; first++) {
    size_t size;
    const char *bytes = at_span_bytes(L, first, &size);
    if (skip >= size) {
      skip -= size;
      continue;
    }
    vectors[count].iov_base = (char *)(uintptr_t)bytes + skip; /* only read from */
    vectors[count++].iov_len = size - skip;
    skip = 0;
  }
  *next = first;
  return count;
}

/* Writes what the system takes now. The bytes taken, or a negative status. */
static int write_now(lua_State *L, at_stream *s, size_t total, size_t *sent) {
  struct iovec vectors[AT_WRITE_VECTORS];
  ssize_t n = 0;
  hold sigpipe;
  *sent = 0;
  hold_sigpipe(s, &sigpipe);
  while (*sent < total) {
    int next, count = 1;
    if (*sent == 0 && lua_gettop(L) == 2) { /* most are so */
      vectors->iov_base = (char *)(uintptr_t)at_span_bytes(L, 2, &vectors->iov_len); /* only read from */
    } else {
      count = gather(L, 2, *sent, vectors, &next);
    }
    n = put(s, vectors, count);
    if (n <= 0) break;
    *sent += (size_t)n;
  }
  release_sigpipe(&sigpipe, (int)n);
  return n < 0 ? (int)n : 0;
}

/* Copies the arguments without their first `skip` bytes. */
static void copy_rest(lua_State *L, size_t skip, char *to) {
  int top = lua_gettop(L), arg;
  for (arg = 2; arg <= top; arg++) {
    size_t size;
    const char *bytes = at_span_bytes(L, arg, &size);
    if (skip >= size) {
      skip -= size;
      continue;
    }
    memcpy(to, bytes + skip, size - skip);
    to += size - skip;
    skip = 0;
  }
}

/* The rest of a write is queued. Its Task: settled while the queue is short. */
static int queue_rest(lua_State *L, at_runtime *rt, at_stream *s, size_t sent, size_t rest) {
  int waits = s->queued + rest - s->sent >= s->mark;
  struct at_writing *w;
  at_task *t;
  char *room = enqueue(s, rest, waits);
  if (room == NULL) {
    if (sent > 0) at_stream_abort(s); /* half of it is gone: no next write may follow */
    return at_stream_failed(L, rt, UV_ENOMEM, "write");
  }
  copy_rest(L, sent, room);
  at_stream_update(s);
  if (!waits) {
    at_task_resolved(L, rt, 0);
    return 1;
  }
  t = at_op_new(L, rt); /* if it raises, the bytes go out all the same */
  w = at_op_alloc(L, rt, t, &write_class, sizeof *w);
  if (w == NULL) return 1;
  w->stream = s;
  at_stream_hold(s);
  s->waits++;
  w->begun = sent > 0;
  w->chunk = s->tail;
  w->chunk->writing = w;
  lua_pushvalue(L, 1); /* the Task keeps the stream alive */
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* write(...) -> nothing, once it is out or few bytes are queued */
int l_stream_write(lua_State *L) {
  at_streambox *box = at_stream_self(L);
  at_runtime *rt = lua_touserdata(L, lua_upvalueindex(1));
  at_stream *s;
  size_t total = 0, sent = 0;
  int top = lua_gettop(L), arg, status = 0;
  for (arg = 2; arg <= top; arg++) {
    size_t size;
    (void)at_span_bytes(L, arg, &size);
    total += size;
  }
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  s = at_stream_open_one(box);
  if (s == NULL) return at_stream_failed(L, rt, UV_EBADF, "write");
  if (s->out_status == 0 && s->shut) status = UV_EPIPE;
  if (s->out_status != 0) status = s->out_status;
  if (status == 0 && s->head == NULL) {
    status = write_now(L, s, total, &sent);
    if (status < 0) s->out_status = status;
  }
  if (status < 0) return at_stream_failed(L, rt, status, "write");
  if (sent < total) return queue_rest(L, rt, s, sent, total - sent);
  at_task_resolved(L, rt, 0);
  return 1;
}
