/* handle.c - descriptors that travel over a Unix socket: send_handle and receive_handle. Owns what was
** received and nobody has taken (stream->handles). Loop thread only.
** Invariants: a descriptor goes out with a byte of its own, a zero, in its turn among the writes;
** reads do not see that byte (the system ends a receive behind a message that carries descriptors, so
** it is the last one received); a receive_handle that is cancelled has taken none (S10). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "core/task.h"
#include "io/address.h"
#include "io/server.h"
#include "io/stream.h"
#include "io/udp.h"

#ifndef MSG_CMSG_CLOEXEC
#define MSG_CMSG_CLOEXEC 0
#endif

/* The receive_handle that waits. */
struct at_handing {
  at_op op;
  at_stream *stream; /* counted */
  unsigned char answered;
};

/* ---- receiving ---- */

/* Keeps what the message carries. Returns how many descriptors that were. */
static int keep(at_stream *s, struct msghdr *message) {
  struct cmsghdr *head;
  int kept = 0;
  for (head = CMSG_FIRSTHDR(message); head != NULL; head = CMSG_NXTHDR(message, head)) {
    size_t i, count;
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
    count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
      kept++;
      if (s->handle_count < AT_STREAM_HANDLES) {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        s->handles[s->handle_count++] = fd;
      } else {
        (void)close(fd); /* cannot be: there was no room for it in the message */
      }
    }
  }
  return kept;
}

ssize_t at_handle_recv(at_stream *s, char *memory, size_t size) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * AT_STREAM_HANDLES)];
  } control;
  for (;;) {
    struct iovec vector = {.iov_base = memory, .iov_len = size};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    ssize_t n;
    size_t room = sizeof(int) * (size_t)(AT_STREAM_HANDLES - s->handle_count);
    if (room == 0) {
      errno = EAGAIN;
      return -1;
    }
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_LEN(room);
    n = recvmsg(s->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n <= 0 || message.msg_controllen == 0 || keep(s, &message) == 0) return n;
    if (memory[n - 1] == '\0') n--; /* ours; who sends descriptors with other bytes means these */
    if (n > 0) return n;
  }
}

void at_handle_answer(at_stream *s) {
  struct at_handing *h = s->handing;
  if (h == NULL || h->answered) return;
  if (s->handle_count == 0 && !s->in.ended && s->in.status == 0) return;
  h->answered = 1;
  h->op.status = s->handle_count > 0 ? 0 : s->in.status;
  at_op_done(&h->op);
}

void at_handle_end(at_stream *s, int status) {
  struct at_handing *h = s->handing;
  while (s->handle_count > 0) (void)close(s->handles[--s->handle_count]);
  if (h == NULL || h->answered) return;
  h->answered = 1;
  h->op.status = status;
  at_op_done(&h->op);
}

/* ---- what a descriptor is ---- */

int at_handle_push(lua_State *L, at_runtime *rt, int fd) {
  struct stat what;
  int domain, type = at_address_get(fd, SOL_SOCKET, SO_TYPE);
  if (type < 0) {
    at_streambox *box = at_stream_box(L, rt);
    if (fstat(fd, &what) != 0) return -errno;
    return S_ISFIFO(what.st_mode) ? at_stream_take(rt, box, fd, AT_STREAM_FILE) : UV_ENOTSUP;
  }
  domain = at_address_family(fd);
  if (type == SOCK_DGRAM && domain != AF_UNIX) return at_udp_push(L, rt, fd);
  if (type != SOCK_STREAM) {
    lua_pushnil(L);
    return UV_ENOTSUP;
  }
  if (at_address_get(fd, SOL_SOCKET, SO_ACCEPTCONN) > 0) return at_server_push(L, rt, fd);
  return at_stream_take(rt, at_stream_box(L, rt), fd,
                        domain == AF_UNIX ? AT_STREAM_UNIX : AT_STREAM_SOCKET);
}

/* [-0, +1, m] pushes the object of the oldest descriptor, nil if there will be none, or the error. */
static int push_oldest(lua_State *L, at_runtime *rt, at_stream *s) {
  int status, fd;
  luaL_checkstack(L, 8, "handle");
  if (s->handle_count == 0) {
    lua_pushnil(L);
    return 0;
  }
  status = at_handle_push(L, rt, s->handles[0]); /* if this raises, it is still ours */
  fd = s->handles[0];
  s->handle_count--;
  memmove(s->handles, s->handles + 1, (size_t)s->handle_count * sizeof fd);
  if (status == 0) return 0;
  (void)close(fd);
  lua_pop(L, 1);
  at_stream_push_error(L, status, "receive_handle");
  return status;
}

/* ---- the operation ---- */

static int handing_push(lua_State *L, at_op *op) {
  struct at_handing *h = (struct at_handing *)(void *)op;
  if (op->status == 0) return push_oldest(L, op->rt, h->stream) == 0 ? 1 : AT_OP_FAILED;
  at_stream_push_error(L, op->status, op->class->name);
  return AT_OP_FAILED;
}

static int handing_cancel(at_op *op) { return !((struct at_handing *)(void *)op)->answered; }

static void handing_release(at_op *op) {
  struct at_handing *h = (struct at_handing *)(void *)op;
  at_stream *s = h->stream;
  if (s != NULL) {
    s->handing = NULL;
    s->waits--;
    at_stream_update(s);
    at_stream_drop(s);
  }
  free(h);
}

static const at_opclass class = {"receive_handle", handing_push, handing_cancel, handing_release,
                                 NULL, 0};

/* receive_handle() -> Stream, Server or Udp; nil at the end */
int l_stream_receive_handle(lua_State *L) {
  at_stream *s = at_stream_open_one(at_stream_self(L));
  at_runtime *rt = at_rt(L);
  struct at_handing *h;
  at_task *t;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (s == NULL) return at_stream_failed(L, rt, UV_EBADF, "receive_handle");
  if (!s->is_unix) return at_stream_failed(L, rt, UV_ENOTSUP, "receive_handle");
  if (s->handing != NULL) return at_stream_failed(L, rt, UV_EBUSY, "receive_handle");
  if (s->handle_count > 0 || s->in.ended) {
    if (push_oldest(L, rt, s) == 0)
      at_task_resolved(L, rt, 1);
    else
      at_task_failed(L, rt);
    at_stream_update(s);
    return 1;
  }
  if (s->in.status != 0) return at_stream_failed(L, rt, s->in.status, "receive_handle");
  t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  h = at_op_alloc(L, rt, t, &class, sizeof *h);
  if (h == NULL) return 1;
  h->stream = s;
  at_stream_hold(s);
  s->handing = h;
  s->waits++;
  s->in.wanted = 1;
  at_stream_update(s);
  lua_pushvalue(L, 1); /* the Task keeps the stream alive */
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* ---- sending ---- */

/* The descriptor of a Stream, Server or Udp at argument 2; -1: closed. */
static int descriptor(lua_State *L) {
  at_streambox *box = luaL_testudata(L, 2, AT_STREAM_MT);
  if (box != NULL) {
    at_stream *s = at_stream_open_one(box);
    return s == NULL ? -1 : s->fd;
  }
  if (luaL_testudata(L, 2, AT_SERVER_MT) != NULL) return at_server_fd(L, 2);
  if (luaL_testudata(L, 2, AT_UDP_MT) != NULL) return at_udp_fd(L, 2);
  return luaL_argerror(L, 2, "Stream, Server or Udp expected");
}

/* send_handle(other) -> nothing; `other` stays open here */
int l_stream_send_handle(lua_State *L) {
  at_stream *s = at_stream_open_one(at_stream_self(L));
  at_runtime *rt = at_rt(L);
  int fd = descriptor(L), status;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  if (s == NULL || fd < 0) return at_stream_failed(L, rt, UV_EBADF, "send_handle");
  if (!s->is_unix) return at_stream_failed(L, rt, UV_ENOTSUP, "send_handle");
  status = s->out_status != 0 ? s->out_status : s->shut ? UV_EPIPE : 0;
  if (status < 0) return at_stream_failed(L, rt, status, "send_handle");
  fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return at_stream_failed(L, rt, -errno, "send_handle");
  status = at_writer_handle(s, fd);
  at_stream_update(s);
  if (status < 0) return at_stream_failed(L, rt, status, "send_handle");
  at_task_resolved(L, rt, 0);
  return 1;
}
