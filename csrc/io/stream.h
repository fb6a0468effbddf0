/* stream.h - a stream of bytes over a descriptor that can be polled: TCP and Unix sockets, pairs,
** later pipes and terminals. What stream.c (lifetime), receiver.c (what comes),
** writer.c (writing) and ending.c (shutdown, close) share; reading is reader.c's, through the inlet. Loop thread only.
**
** Why uv_poll and our own calls, not uv_stream_t: libuv's queued writes raise SIGPIPE (it has no
** MSG_NOSIGNAL), and its accept loop spins or drops clients when descriptors run out. */
#ifndef AT_IO_STREAM_H
#define AT_IO_STREAM_H

#include <uv.h>

#include "core/op.h"
#include "io/inlet.h"

#define AT_STREAM_MT "asynctask.Stream"
#define AT_STREAM_HANDLES 4 /* descriptors that wait to be received before reading is held up */

/* What a descriptor is: read and write go to it, recv and send, the latter with descriptors. */
enum { AT_STREAM_FILE, AT_STREAM_SOCKET, AT_STREAM_UNIX };

typedef struct at_stream at_stream;

/* The userdata. */
typedef struct at_streambox {
  const void *kind;  /* stream.c's mark until it is collected: says that it is one */
  at_stream *stream; /* counted; NULL before it was opened */
} at_streambox;

/* What the streams of one runtime share: the memory that is read into. */
typedef struct at_scratch at_scratch;

struct at_stream {
  at_inlet in;
  uv_poll_t poll;
  at_closable closable;
  at_runtime *rt;
  at_streambox *box;   /* borrowed; NULL once collected */
  at_scratch *scratch; /* counted */
  int fd;              /* owned; -1 once closed */
  int refs;            /* the handle, the box, each operation */
  int waits;           /* operations that wait: the handle keeps the loop alive */
  unsigned char events;     /* what is polled for */
  unsigned char is_socket, is_unix;
  unsigned char shut;       /* our end was shut, or will be once the queue is empty */
  unsigned char closing;    /* close was called */
  unsigned char in_poll;    /* its callback runs, which updates at its end */

  struct at_connecting *connecting; /* tcp.c: borrowed from the kernel */
  void (*connected)(at_stream *s, int status);

  /* handle.c */
  int handles[AT_STREAM_HANDLES]; /* owned: received, and nobody has them */
  int handle_count;
  struct at_handing *handing;     /* the one receive_handle that waits, or NULL */

  /* writer.c */
  struct at_chunk *head, *tail;       /* owned */
  uint64_t queued, sent;              /* bytes that ever came into the queue, and left it */
  unsigned mark;                      /* a write waits while so many are queued up to its end */
  struct at_ending *endings;          /* shutdowns and closes that wait for the queue */
  int out_status;                     /* why writing failed */
  struct at_linger *linger;           /* owned; while a close waits for the queue */
};

/* [-0, +1, m] pushes a Stream without descriptor. */
at_streambox *at_stream_box(lua_State *L, at_runtime *rt);

/* Gives it the descriptor, which is made non-blocking. 0, or a status (the descriptor is still the
** caller's). No Lua. */
int at_stream_take(at_runtime *rt, at_streambox *box, int fd, int kind);

/* [-0, +0, v] the box at argument 1 of a method. */
at_streambox *at_stream_self(lua_State *L);

/* The stream of a box if it is open and not being closed, else NULL. */
at_stream *at_stream_open_one(const at_streambox *box);

/* Counting, for operations: their streams outlive them. */
void at_stream_hold(at_stream *s);
void at_stream_drop(at_stream *s);

/* Polls for what is wanted now, and keeps the loop alive or not. */
void at_stream_update(at_stream *s);

/* Closes at once, whatever is queued; what waits on it ends with EBADF. No Lua. */
void at_stream_abort(at_stream *s);

/* Shuts a stream that is only for writing: the descriptor is closed, the stream is not. No Lua. */
void at_stream_shut_pipe(at_stream *s);

/* Memory to read into, valid until the callback returns. */
char *at_stream_scratch(at_stream *s);

/* [-0, +1, m] pushes the error object of a status, with words of our own for a closed stream. */
void at_stream_push_error(lua_State *L, int status, const char *op);
/* [-0, +1, m] pushes a Task that failed with it; returns 1. */
int at_stream_failed(lua_State *L, at_runtime *rt, int status, const char *op);

/* receiver.c */
void at_receiver_run(at_stream *s);              /* there may be bytes to read */

/* writer.c */
int l_stream_write(lua_State *L);
void at_writer_flush(at_stream *s);              /* there may be room to write */
void at_writer_end(at_stream *s, int status);    /* gives the queue up */
/* Queues a byte that carries the descriptor, which is taken whatever becomes of it. A status. */
int at_writer_handle(at_stream *s, int handle);

/* handle.c */
int l_stream_send_handle(lua_State *L);
int l_stream_receive_handle(lua_State *L);
ssize_t at_handle_recv(at_stream *s, char *memory, size_t size); /* as recv; keeps descriptors */
/* [-0, +1, m] pushes the Stream, Server or Udp of a descriptor. 0, or a status (it is still the caller's). */
int at_handle_push(lua_State *L, at_runtime *rt, int fd);
void at_handle_answer(at_stream *s);             /* there may be a descriptor, or there will be none */
void at_handle_end(at_stream *s, int status);    /* closes what nobody has; ends what waits */

/* ending.c */
int l_stream_shutdown(lua_State *L);
int l_stream_close(lua_State *L);
void at_ending_drained(at_stream *s);            /* the queue is empty: does what waited for it */
void at_ending_finish(at_stream *s);             /* closes, once the queue is empty */
void at_ending_end(at_stream *s, int status);    /* ends what waits */

void at_stream_open(lua_State *L, at_runtime *rt);

/* deposit.c: descriptors on their way to another runtime */
void at_deposit_open(lua_State *L, at_runtime *rt);

#endif
