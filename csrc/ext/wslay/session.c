/* session.c - one WebSocket's protocol on wslay's event interface, over buffers: no I/O, no Lua,
** no clock.
** Owns the wslay context, the queue of events and the bytes to send. Loop thread.
** Invariants: bytes that are fed are used up before the call returns; `out` holds whole frames
** only. wslay keeps the rules of RFC 6455 (masks, lengths, fragments, UTF-8); added here are what
** 1.1.1 lets through or answers otherwise: a close frame of one byte, the codes 1012 to 1014, a
** broken frame (answered with 1002). Messages are put together here, so that memory grows with
** what came, not with what a header promised. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ext/wslay/session.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

#define KEPT (64 * 1024) /* bytes of a buffer that are kept when it is empty */

#define session_of(p) ((ws_session *)(p))

/* ---- bytes ---- */

static int append(ws_bytes *b, const void *data, size_t size) {
  if (size == 0) return 0;
  if (b->capacity - b->size < size) {
    size_t capacity = b->capacity < 256 ? 256 : b->capacity;
    char *grown;
    while (capacity - b->size < size) capacity *= 2;
    grown = realloc(b->data, capacity);
    if (grown == NULL) return -1;
    b->data = grown;
    b->capacity = capacity;
  }
  memcpy(b->data + b->size, data, size);
  b->size += size;
  return 0;
}

static void release(ws_bytes *b) {
  free(b->data);
  memset(b, 0, sizeof *b);
}

static unsigned code_of(const ws_bytes *b) {
  return (unsigned)(uint8_t)b->data[0] << 8 | (unsigned)(uint8_t)b->data[1];
}

/* ---- events ---- */

void ws_event_free(ws_event *e) {
  free(e->data);
  free(e);
}

ws_event *ws_session_take(ws_session *s) {
  ws_event *e = s->head;
  if (e == NULL) return NULL;
  s->head = e->next;
  if (s->head == NULL) s->tail = NULL;
  return e;
}

/* Queues an event; `data` is its own from then on, whatever happens. */
static void put(ws_session *s, ws_kind kind, unsigned code, char *data, size_t size) {
  ws_event *e = malloc(sizeof *e);
  if (e == NULL) {
    free(data);
    s->no_memory = 1;
    return;
  }
  e->next = NULL;
  e->kind = kind;
  e->code = code;
  e->data = data;
  e->size = size;
  if (s->tail != NULL) s->tail->next = e;
  else s->head = e;
  s->tail = e;
}

static void put_copy(ws_session *s, ws_kind kind, unsigned code, const void *data, size_t size) {
  char *copy = NULL;
  if (size > 0) {
    copy = malloc(size);
    if (copy == NULL) {
      s->no_memory = 1;
      return;
    }
    memcpy(copy, data, size);
  }
  put(s, kind, code, copy, size);
}

/* ---- what wslay calls ---- */

static ssize_t on_recv(wslay_event_context_ptr ctx, uint8_t *buf, size_t size, int flags,
                       void *user) {
  ws_session *s = session_of(user);
  size_t n = size < s->in_size ? size : s->in_size;
  (void)flags;
  if (n == 0) {
    wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
    return -1;
  }
  memcpy(buf, s->in, n);
  s->in += n;
  s->in_size -= n;
  return (ssize_t)n;
}

static ssize_t on_send(wslay_event_context_ptr ctx, const uint8_t *data, size_t size, int flags,
                       void *user) {
  ws_session *s = session_of(user);
  (void)flags;
  if (append(&s->out, data, size) == 0) return (ssize_t)size;
  s->no_memory = 1;
  wslay_event_set_error(ctx, WSLAY_ERR_CALLBACK_FAILURE);
  return -1;
}

/* A mask must not be known beforehand (RFC 6455, 10.3). */
static int on_genmask(wslay_event_context_ptr ctx, uint8_t *buf, size_t size, void *user) {
  ws_session *s = session_of(user);
  if (s->noise_left < size) {
    if (size > sizeof s->noise || getentropy(s->noise, sizeof s->noise) != 0) {
      wslay_event_set_error(ctx, WSLAY_ERR_CALLBACK_FAILURE);
      return -1;
    }
    s->noise_left = sizeof s->noise;
  }
  s->noise_left -= size;
  memcpy(buf, s->noise + s->noise_left, size);
  return 0;
}

/* Answers a broken rule; nothing more is read. */
static void refuse(ws_session *s, wslay_event_context_ptr ctx, unsigned code) {
  if (s->failure == 0) s->failure = code;
  wslay_event_shutdown_read(ctx);
  if (wslay_event_queue_close(ctx, (uint16_t)code, NULL, 0) == WSLAY_ERR_NOMEM) s->no_memory = 1;
}

static void on_frame_start(wslay_event_context_ptr ctx,
                           const struct wslay_event_on_frame_recv_start_arg *frame, void *user) {
  ws_session *s = session_of(user);
  s->in_frame = 1;
  s->control_opcode = wslay_is_ctrl_frame(frame->opcode) ? frame->opcode : 0;
  if (s->control_opcode != 0) {
    s->control.size = 0;
    if (frame->opcode == WSLAY_CONNECTION_CLOSE && frame->payload_length == 1)
      refuse(s, ctx, WSLAY_CODE_PROTOCOL_ERROR);
    return;
  }
  if (frame->payload_length > s->max - s->part.size) refuse(s, ctx, WSLAY_CODE_MESSAGE_TOO_BIG);
}

static void on_frame_chunk(wslay_event_context_ptr ctx,
                           const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *user) {
  ws_session *s = session_of(user);
  ws_bytes *to = s->control_opcode != 0 ? &s->control : &s->part;
  if (s->failure != 0) return;
  if (append(to, chunk->data, chunk->data_length) == 0) return;
  s->no_memory = 1;
  wslay_event_shutdown_read(ctx);
}

/* 1012 to 1014 were registered after the RFC; wslay 1.1.1 takes them for wrong. */
static void on_frame_end(wslay_event_context_ptr ctx, void *user) {
  ws_session *s = session_of(user);
  unsigned code;
  s->in_frame = 0;
  if (s->control_opcode != WSLAY_CONNECTION_CLOSE || s->control.size < 2) return;
  code = code_of(&s->control);
  if (code < 1012 || code > 1014) return;
  s->peer_closed = 1;
  put_copy(s, WS_CLOSE, code, s->control.data + 2, s->control.size - 2);
  if (wslay_event_queue_close(ctx, (uint16_t)code, NULL, 0) == WSLAY_ERR_NOMEM) s->no_memory = 1;
}

static void on_close(ws_session *s, const struct wslay_event_on_msg_recv_arg *m) {
  size_t skip = m->msg_length < 2 ? m->msg_length : 2;
  if (s->failure != 0) return;
  s->peer_closed = 1;
  put_copy(s, WS_CLOSE, m->status_code == 0 ? WSLAY_CODE_NO_STATUS_RCVD : m->status_code,
           m->msg_length > skip ? m->msg + skip : NULL, m->msg_length - skip);
}

static void on_message(wslay_event_context_ptr ctx, const struct wslay_event_on_msg_recv_arg *m,
                       void *user) {
  ws_session *s = session_of(user);
  (void)ctx;
  switch (m->opcode) {
    case WSLAY_CONNECTION_CLOSE: on_close(s, m); break;
    case WSLAY_PING: put_copy(s, WS_PING, 0, m->msg, m->msg_length); break;
    case WSLAY_PONG: put_copy(s, WS_PONG, 0, m->msg, m->msg_length); break;
    default:
      if (s->failure != 0) break;
      put(s, m->opcode == WSLAY_TEXT_FRAME ? WS_TEXT : WS_BINARY, 0, s->part.data, s->part.size);
      memset(&s->part, 0, sizeof s->part); /* the event's now */
  }
}

/* ---- the session ---- */

static int open_context(ws_session *s) {
  static const struct wslay_event_callbacks callbacks = {
      on_recv, on_send, on_genmask, on_frame_start, on_frame_chunk, on_frame_end, on_message};
  int status = s->server ? wslay_event_context_server_init(&s->ctx, &callbacks, s)
                         : wslay_event_context_client_init(&s->ctx, &callbacks, s);
  if (status != 0) {
    s->ctx = NULL;
    return -1;
  }
  wslay_event_config_set_no_buffering(s->ctx, 1);
  wslay_event_config_set_max_recv_msg_length(s->ctx, s->max);
  return 0;
}

int ws_session_begin(ws_session *s, int server, uint64_t max) {
  s->server = server;
  s->max = max;
  return open_context(s);
}

void ws_session_end(ws_session *s) {
  ws_event *e;
  if (s->ctx != NULL) wslay_event_context_free(s->ctx);
  s->ctx = NULL;
  while ((e = ws_session_take(s)) != NULL) ws_event_free(e);
  release(&s->part);
  release(&s->control);
  release(&s->out);
}

/* Moves what wslay has queued to `out`. */
static int flush(ws_session *s) {
  if (wslay_event_send(s->ctx) < 0) s->no_memory = 1; /* or no random bytes: as final */
  return s->no_memory ? -1 : 0;
}

/* wslay answers a frame that makes no sense with an empty close frame, which is not out yet: a new
** context says 1002 in its place. */
static int answer_nonsense(ws_session *s) {
  int closed = wslay_event_get_close_sent(s->ctx);
  if (s->failure == 0) s->failure = WSLAY_CODE_PROTOCOL_ERROR;
  wslay_event_context_free(s->ctx);
  if (open_context(s) != 0) return -1;
  wslay_event_shutdown_read(s->ctx);
  if (closed) wslay_event_shutdown_write(s->ctx);
  else if (wslay_event_queue_close(s->ctx, (uint16_t)s->failure, NULL, 0) != 0) return -1;
  return 0;
}

int ws_session_feed(ws_session *s, const char *bytes, size_t size) {
  int status, was_closed;
  if (s->ctx == NULL || s->no_memory) return -1;
  was_closed = wslay_event_get_close_sent(s->ctx);
  s->in = (const uint8_t *)bytes;
  s->in_size = size;
  status = wslay_event_recv(s->ctx);
  s->in = NULL;
  s->in_size = 0;
  if (s->no_memory || status == WSLAY_ERR_NOMEM) return -1;
  if (status != 0 && answer_nonsense(s) != 0) return -1;
  if (flush(s) != 0) return -1;
  if (s->failure == 0 && !s->peer_closed && !wslay_event_get_read_enabled(s->ctx))
    s->failure = was_closed ? WSLAY_CODE_PROTOCOL_ERROR : wslay_event_get_status_code_sent(s->ctx);
  return 0;
}

int ws_session_send(ws_session *s, ws_kind kind, const char *bytes, size_t size) {
  static const uint8_t opcodes[] = {WSLAY_TEXT_FRAME, WSLAY_BINARY_FRAME, WSLAY_PING, WSLAY_PONG};
  struct wslay_event_msg m;
  int status;
  if (s->ctx == NULL) return 0;
  m.opcode = opcodes[kind];
  m.msg = (const uint8_t *)bytes;
  m.msg_length = size;
  status = wslay_event_queue_msg(s->ctx, &m);
  if (status == WSLAY_ERR_NO_MORE_MSG) return 0;
  return status != 0 || flush(s) != 0 ? -1 : 1;
}

int ws_session_close(ws_session *s, unsigned code, const char *reason, size_t size) {
  int status;
  if (s->ctx == NULL) return 0;
  status = wslay_event_queue_close(s->ctx, (uint16_t)code, (const uint8_t *)reason, size);
  if (status == WSLAY_ERR_NO_MORE_MSG) return 0;
  return status != 0 || flush(s) != 0 ? -1 : 1;
}

void ws_session_sent(ws_session *s) {
  if (s->out.capacity > KEPT) release(&s->out);
  s->out.size = 0;
}

int ws_session_partial(const ws_session *s) { return s->in_frame || s->part.size > 0; }
