/* receiver.c - bytes from a stream's descriptor into its inlet. The one place that receives.
** Loop thread only; called from the poll callback.
** Invariants: with nobody reading the buffer holds at most AT_STREAM_MARK bytes; an empty buffer shows the
** scratch memory, which stream.c makes its own when the callback ends. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/stream.h"

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
  at_buffer *b = &s->in.buffer;
  size_t room = AT_STREAM_MARK;
  char *memory;
  ssize_t n;
  if (s->in.reader == NULL) room -= b->size; /* reading ahead: update stops at the mark */
  if (b->size == 0) {
    n = receive(s, at_stream_scratch(s), room);
    if (n > 0) at_buffer_borrow(b, at_stream_scratch(s), (size_t)n);
    return n;
  }
  memory = at_buffer_reserve(b, room);
  if (memory == NULL) return UV_ENOMEM;
  n = receive(s, memory, room);
  if (n > 0) at_buffer_commit(b, (size_t)n);
  return n;
}

void at_receiver_run(at_stream *s) {
  at_inlet *in = &s->in;
  ssize_t n;
  if (in->reader == NULL && in->buffer.size >= AT_STREAM_MARK) {
    in->wanted = 0; /* until the next read that has to wait */
    return;
  }
  n = fill(s);
  if (n == UV_EAGAIN || n == -EWOULDBLOCK) {
    if (s->handing != NULL) at_handle_answer(s);
    return;
  }
  if (n == 0) in->ended = 1;
  if (n < 0) in->status = (int)n;
  if (s->handing != NULL) at_handle_answer(s);
  at_reader_look(in);
}
