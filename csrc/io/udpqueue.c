/* udpqueue.c - sending and receiving datagrams: at once where the system can, else in turn. Owns
** datagrams that were received and nobody has taken. Loop thread only.
** Invariants: the system is asked for a datagram only while a receive waits (the rest waits in its
** buffer, which drops what is too much); receives are served first in, first out; a received datagram
** belongs to an operation that ends or to `held`, so a cancelled receive loses none (S10); a send that
** is cancelled before its turn has sent nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "core/sched.h"
#include "core/task.h"
#include "io/tcp.h"
#include "io/udp.h"

#define AT_UDP_SIZE 65536 /* more than any datagram has */
#define AT_UDP_BURST 64   /* datagrams in one callback */

/* Defined where the system knows them; on Linux nothing can raise SIGPIPE here anyway. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* A send or a receive that waits, or ends. */
typedef struct at_udpwait {
  at_op op;
  struct at_udpwait *next, **prev; /* prev NULL: not waiting */
  at_udp *udp;                  /* counted */
  struct at_udpwait ***last;       /* the end of the list that it is in */
  at_datagram *data;               /* owned: received, or to be sent (then from: whereto) */
} at_udpwait;

static void unlink_pending(at_udpwait *p) {
  *p->prev = p->next;
  if (p->next != NULL)
    p->next->prev = p->prev;
  else
    *p->last = p->prev;
  p->prev = NULL;
}

static void end(at_udpwait *p, int status) {
  unlink_pending(p);
  p->op.status = status;
  at_op_done(&p->op);
}

void at_udpqueue_end(at_udp *u, int status) {
  while (u->receives != NULL) end(u->receives, status);
  while (u->sends != NULL) end(u->sends, status);
}

/* ---- the system ---- */

/* 0 and a datagram, or a negative status. */
static int receive(at_udp *u, at_datagram **out) {
  struct sockaddr_storage from;
  socklen_t from_size = sizeof from;
  at_datagram *d;
  char scratch[AT_UDP_SIZE]; /* on the stack: a thread-local one would not fit beside par's */
  ssize_t n;
  memset(&from, 0, sizeof from);
  do {
    n = recvfrom(u->fd, scratch, sizeof scratch, MSG_DONTWAIT, (struct sockaddr *)&from, &from_size);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  d = malloc(sizeof *d + (size_t)n); /* the operation's */
  if (d == NULL) return UV_ENOMEM;
  d->next = NULL;
  d->from = from;
  d->from_size = from_size;
  d->size = (size_t)n;
  memcpy(d->bytes, scratch, (size_t)n);
  *out = d;
  return 0;
}

static int put(at_udp *u, const void *bytes, size_t size, const struct sockaddr_storage *to,
               socklen_t to_size) {
  ssize_t n;
  do {
    n = sendto(u->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL,
               to_size > 0 ? (const struct sockaddr *)to : NULL, to_size);
  } while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : 0;
}

static int full(int status) { return status == -EAGAIN || status == -EWOULDBLOCK || status == -ENOBUFS; }

/* ---- polling ---- */

static void on_poll(uv_poll_t *handle, int status, int events);

static void update(at_udp *u) {
  int events = (u->receives != NULL ? UV_READABLE : 0) | (u->sends != NULL ? UV_WRITABLE : 0);
  if (u->fd < 0) return;
  if (events != u->events) {
    u->events = events;
    if (events == 0)
      (void)uv_poll_stop(&u->poll); /* cannot fail */
    else
      (void)uv_poll_start(&u->poll, events, on_poll); /* fails for a closing handle only */
  }
  if (events != 0)
    uv_ref((uv_handle_t *)&u->poll);
  else
    uv_unref((uv_handle_t *)&u->poll);
}

/* Ends the oldest receive with a datagram. */
static void hand_over(at_udp *u, at_datagram *d) {
  u->receives->data = d;
  end(u->receives, 0);
}

static void receive_waiting(at_udp *u) {
  int left = AT_UDP_BURST;
  while (u->receives != NULL && left-- > 0) {
    at_datagram *d = NULL;
    int status = receive(u, &d);
    if (status == 0)
      hand_over(u, d);
    else if (full(status))
      return;
    else
      end(u->receives, status); /* an error of the socket is told once, as it is by the system */
  }
}

static void send_waiting(at_udp *u) {
  while (u->sends != NULL) {
    at_datagram *d = u->sends->data;
    int status = put(u, d->bytes, d->size, &d->from, d->from_size);
    if (full(status)) return;
    end(u->sends, status);
  }
}

static void on_poll(uv_poll_t *handle, int status, int events) {
  at_udp *u = handle->data;
  if (status < 0) { /* uv stopped it; the calls say what it is */
    events = u->events;
    u->events = 0;
  }
  u->refs++;
  if (events & UV_WRITABLE) send_waiting(u);
  if (events & UV_READABLE) receive_waiting(u);
  at_sched_enter(u->rt);
  update(u);
  at_udp_drop(u);
}

/* ---- the operations ---- */

static int pending_push(lua_State *L, at_op *op) {
  at_udpwait *p = (at_udpwait *)(void *)op;
  luaL_checkstack(L, 8, "udp");
  if (op->status < 0) {
    if (op->status == UV_EBADF)
      at_error_push(L, "EBADF", "the socket is closed", op->class->name);
    else
      at_error_push_uv(L, op->status, op->class->name, NULL);
    return AT_OP_FAILED;
  }
  if (p->last != &p->udp->last_receive) return 0;
  lua_pushlstring(L, p->data->bytes, p->data->size);
  at_address_push(L, &p->data->from, p->data->from_size);
  free(p->data);
  p->data = NULL;
  return 2;
}

static int pending_cancel(at_op *op) {
  at_udpwait *p = (at_udpwait *)(void *)op;
  if (p->prev == NULL) return 0;
  unlink_pending(p);
  return 1;
}

static void pending_release(at_op *op) {
  at_udpwait *p = (at_udpwait *)(void *)op;
  at_udp *u = p->udp;
  if (u != NULL) {
    if (p->data != NULL && p->last == &u->last_receive && u->fd >= 0) { /* nobody got it */
      at_datagram *d = p->data;
      p->data = NULL;
      if (u->receives != NULL) {
        hand_over(u, d);
      } else {
        d->next = u->held;
        u->held = d;
      }
    }
    update(u);
    at_udp_drop(u);
  }
  free(p->data);
  free(p);
}

static const at_opclass receive_class = {"receive", pending_push, pending_cancel, pending_release,
                                         NULL, 0};
static const at_opclass send_class = {"send", pending_push, pending_cancel, pending_release, NULL, 0};

/* Waits in the list, with the datagram (taken, or freed if it fails). The Task keeps the socket alive. */
static int wait(lua_State *L, at_runtime *rt, at_udp *u, const at_opclass *class, at_udpwait ***last,
                at_datagram *d) {
  at_task *t = at_op_new(L, rt);
  at_udpwait *p = at_task_settled(t) ? NULL : at_op_alloc(L, rt, t, class, sizeof *p);
  if (p == NULL) {
    free(d);
    return 1;
  }
  p->udp = u;
  u->refs++;
  p->data = d;
  p->last = last;
  p->prev = *last;
  **last = p;
  *last = &p->next;
  update(u);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* receive() -> data, {host=, port=} */
int l_udp_receive(lua_State *L) {
  at_udpbox *box = at_udp_self(L);
  at_runtime *rt = at_rt(L);
  at_udp *u;
  at_datagram *d;
  int status;
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  status = at_udp_ready(rt, box, AF_INET);
  if (status < 0) return at_udp_failed(L, rt, status, "receive", NULL);
  u = box->udp;
  d = u->held;
  if (d == NULL) return wait(L, rt, u, &receive_class, &u->last_receive, NULL);
  lua_pushlstring(L, d->bytes, d->size);
  at_address_push(L, &d->from, d->from_size);
  u->held = d->next;
  free(d);
  at_task_resolved(L, rt, 2);
  return 1;
}

/* try_receive() -> data, {host=, port=}; nil when there is none now, nil and the error otherwise */
int l_udp_try_receive(lua_State *L) {
  at_udpbox *box = at_udp_self(L);
  at_runtime *rt = at_rt(L);
  at_udp *u;
  at_datagram *d = NULL;
  int status = at_udp_ready(rt, box, AF_INET);
  if (status == 0 && box->udp->held == NULL) {
    u = box->udp;
    status = u->receives != NULL ? UV_EAGAIN : receive(u, &d);
    if (status == 0) u->held = d; /* nothing was held */
  }
  if (status < 0) {
    lua_pushnil(L);
    if (full(status)) return 1;
    at_error_push_uv(L, status, "receive", NULL);
    return 2;
  }
  u = box->udp;
  d = u->held;
  lua_pushlstring(L, d->bytes, d->size);
  at_address_push(L, &d->from, d->from_size);
  u->held = d->next;
  free(d);
  return 2;
}

/* The datagram waits until the system takes it. */
static int send_later(lua_State *L, at_runtime *rt, at_udp *u, const char *bytes, size_t size,
                      const at_address *to) {
  at_datagram *d;
  (void)lua_newuserdatauv(L, 0, 0); /* [+1] memory for what follows may run out here, not later */
  lua_pop(L, 1);
  d = malloc(sizeof *d + size); /* wait takes it */
  if (d == NULL) return at_udp_failed(L, rt, UV_ENOMEM, "send", to);
  memcpy(d->bytes, bytes, size);
  d->size = size;
  d->from_size = 0;
  if (to != NULL) {
    d->from = to->name;
    d->from_size = to->size;
  }
  return wait(L, rt, u, &send_class, &u->last_send, d);
}

/* send(data [, host, port]): the address is numeric; none for a connected socket */
int l_udp_send(lua_State *L) {
  at_udpbox *box = at_udp_self(L);
  at_runtime *rt = at_rt(L);
  at_address a, *to = NULL;
  size_t size;
  const char *bytes;
  int status;
  luaL_checktype(L, 2, LUA_TSTRING);
  bytes = lua_tolstring(L, 2, &size);
  if (!lua_isnoneornil(L, 3)) {
    luaL_argcheck(L, at_tcp_check_address(L, 3, &a), 3, "numeric address expected");
    to = &a;
  }
  if (at_op_refused(rt)) {
    at_task_refused(L, rt);
    return 1;
  }
  status = at_udp_ready(rt, box, to != NULL ? a.name.ss_family : AF_INET);
  if (status < 0) return at_udp_failed(L, rt, status, "send", to);
  if (to != NULL) at_udp_map(box->udp, to);
  status = box->udp->sends != NULL ? UV_EAGAIN
                                   : put(box->udp, bytes, size, to != NULL ? &a.name : NULL,
                                         to != NULL ? a.size : 0);
  if (full(status)) return send_later(L, rt, box->udp, bytes, size, to);
  if (status < 0) return at_udp_failed(L, rt, status, "send", to);
  at_task_resolved(L, rt, 0);
  return 1;
}
