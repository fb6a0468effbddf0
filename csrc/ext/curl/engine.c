/* engine.c - libcurl's multi interface on the runtime's loop: descriptors, timers, what has ended.
** Owns one CURLM and its connections, for one client object. Loop thread only; no Lua, but for a
** collection of garbage when dropped responses hold all connections.
**
** Invariant: curl is never entered from inside itself. What callbacks ask for meanwhile (cancel,
** go on) is put on the list `todo` and done when the outermost call has come back.
**
** A connection between two requests stays watched, without keeping the loop alive, so that the
** next request on it costs no call to the system. Descriptors that curl opens by itself (its
** resolver's) are not kept so, nor those that have not connected yet: curl 7.88 closes them
** without a word. */
#include "ext/curl/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ext/curl/transfer.h"

struct hc_poll {
  uv_poll_t handle;
  hc_engine *engine; /* counted */
  int fd;
  int events;  /* what libuv watches for */
  int idle;    /* curl does not ask for it at the moment */
  int started; /* uv_poll_init was called */
  int ours;    /* we opened it; once it is connected we are told when it is closed */
  int connected;
};

uint64_t hc_engine_now(void) { return uv_hrtime() / 1000000; }

void hc_engine_unref(hc_engine *e) {
  if (--e->refs > 0) return;
  if (e->remote != NULL) e->at->remote_release(e->remote);
  free(e->polls);
  free(e);
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static hc_poll *poll_of(hc_engine *e, curl_socket_t fd) {
  return fd >= 0 && fd < e->npolls ? e->polls[fd] : NULL;
}

static void on_poll_closed(uv_handle_t *handle) {
  hc_poll *p = handle->data;
  hc_engine_unref(p->engine);
  free(p);
}

static void close_poll(hc_engine *e, hc_poll *p) {
  e->polls[p->fd] = NULL;
  if (p->started) uv_close((uv_handle_t *)&p->handle, on_poll_closed);
  else {
    hc_engine_unref(e);
    free(p);
  }
}

/* The entry of a descriptor, made if need be; NULL: no memory. */
static hc_poll *new_poll(hc_engine *e, curl_socket_t fd) {
  hc_poll *p = poll_of(e, fd);
  if (p != NULL) return p;
  if (fd >= e->npolls) {
    int n = fd + 64;
    hc_poll **grown = realloc(e->polls, (size_t)n * sizeof *grown);
    if (grown == NULL) return NULL;
    memset(grown + e->npolls, 0, (size_t)(n - e->npolls) * sizeof *grown);
    e->polls = grown;
    e->npolls = n;
  }
  p = calloc(1, sizeof *p);
  if (p == NULL) return NULL;
  p->engine = e;
  p->fd = fd;
  e->refs++;
  e->polls[fd] = p;
  return p;
}

static void act(hc_engine *e, curl_socket_t fd, int bits) {
  int running;
  if (e->multi == NULL) return;
  hc_engine_enter(e);
  (void)curl_multi_socket_action(e->multi, fd, bits,
                                 &running); /* a broken engine fails its next start */
  hc_engine_leave(e);
}

static void on_poll(uv_poll_t *handle, int status, int events) {
  hc_poll *p = handle->data;
  int bits = status < 0 ? CURL_CSELECT_ERR : 0;
  if (p->idle) { /* the peer closed it, or the reader is slow: curl will see when it looks */
    (void)uv_poll_stop(handle);
    p->events = 0;
    return;
  }
  if (events & UV_READABLE) bits |= CURL_CSELECT_IN;
  if (events & UV_WRITABLE) bits |= CURL_CSELECT_OUT;
  act(p->engine, p->fd, bits);
}

static int watch(hc_engine *e, hc_poll *p, int events) {
  if (!p->started) {
    if (uv_poll_init_socket(e->loop, &p->handle, p->fd) != 0) return -1;
    p->handle.data = p;
    p->started = 1;
  }
  if (p->idle) {
    p->idle = 0;
    uv_ref((uv_handle_t *)&p->handle);
  }
  if (events == p->events) return 0;
  p->events = events;
  return uv_poll_start(&p->handle, events, on_poll) == 0 ? 0 : -1;
}

static curl_socket_t on_open(void *data, curlsocktype purpose, struct curl_sockaddr *a) {
  hc_transfer *t = data;
  hc_engine *e = t->engine;
  hc_poll *p;
  int fd, events = 0;
  (void)purpose;
#ifdef SOCK_CLOEXEC
  fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
#else
  fd = socket(a->family, a->socktype, a->protocol);
  if (fd >= 0) (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
  if (fd < 0) return CURL_SOCKET_BAD;
  p = poll_of(e, fd);
  if (p !=
      NULL) { /* of a descriptor that was closed without a word; curl may take this one for it */
    events = p->idle ? 0 : p->events;
    close_poll(e, p);
  }
  p = new_poll(e, fd);
  if (p == NULL || (events != 0 && watch(e, p, events) != 0)) {
    if (p != NULL) close_poll(e, p);
    (void)close(fd);
    return CURL_SOCKET_BAD;
  }
  p->ours = 1;
  hc_transfer_connecting(t);
  return fd;
}

static int on_close(void *data, curl_socket_t fd) {
  hc_engine *e = data;
  hc_poll *p = poll_of(e, fd);
  if (p != NULL) close_poll(e, p);
  return close(fd);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *data, void *unused) {
  hc_engine *e = data;
  hc_poll *p = poll_of(e, fd);
  hc_transfer *t = NULL;
  (void)unused;
  if ((what & CURL_POLL_IN) == 0 &&
      curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t) == CURLE_OK && t != NULL)
    hc_send_deaf(t);
  if (what == CURL_POLL_REMOVE) {
    if (p != NULL && !(p->ours && p->connected)) close_poll(e, p);
    else if (p != NULL && p->started && !p->idle) {
      p->idle = 1;
      uv_unref((uv_handle_t *)&p->handle);
    }
    return 0;
  }
  if (p == NULL) p = new_poll(e, fd);
  if (p == NULL) return -1;
  if (what & CURL_POLL_IN) p->connected = 1; /* before that, curl asks for OUT alone */
  return watch(e, p,
               (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0));
}

void hc_engine_sockets(hc_engine *e, hc_transfer *t) {
  (void)curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
  (void)curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETDATA, t);
  (void)curl_easy_setopt(t->easy, CURLOPT_CLOSESOCKETFUNCTION,
                         on_close); /* the connection may outlive the transfer */
  (void)curl_easy_setopt(t->easy, CURLOPT_CLOSESOCKETDATA, e);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void on_timer(uv_timer_t *timer) { act(timer->data, CURL_SOCKET_TIMEOUT, 0); }

/* Curl forgets a deadline that it is called for a fraction of a millisecond before it would find
** it passed (its deadlines and its checks read the clock one after the other), so it is called a
** little late. */
static int on_timeout(CURLM *multi, long ms, void *data) {
  hc_engine *e = data;
  (void)multi;
  if (ms < 0) (void)uv_timer_stop(&e->timer);
  else if (ms == 0) (void)uv_timer_start(&e->timer, on_timer, 0, 0);
  else {
    uv_update_time(e->loop);
    (void)uv_timer_start(&e->timer, on_timer, (uint64_t)ms + 2, 0);
  }
  return 0;
}

static void collect(lua_State *L, void *data) {
  (void)data;
  (void)lua_gc(L, LUA_GCCOLLECT, 0);
}

/* Requests wait for connections while responses are not read. Perhaps nobody has these any more:
** then only a collection closes them. 0, or when to look again. */
static uint64_t starving(hc_engine *e, int waiting, int held, uint64_t now) {
  if (!waiting) {
    e->collect_pause = HC_PATIENCE;
    e->collect_at = 0;
    return 0;
  }
  if (!held) return now + HC_PATIENCE;
  if (now >= e->collect_at) {
    (void)e->at->call(e->remote, collect, NULL);
    e->collect_at = now + e->collect_pause;
    if (e->collect_pause < 16000) e->collect_pause *= 2;
  }
  return e->collect_at;
}

static uint64_t earlier(uint64_t a, uint64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

static void on_deadlines(uv_timer_t *timer) {
  hc_engine *e = timer->data;
  uint64_t now = hc_engine_now(), next = 0;
  int waiting = 0, held = 0;
  hc_transfer *t, *after;
  e->armed = 0;
  hc_engine_enter(e); /* what fails is dropped when the list has been walked */
  for (t = e->running; t != NULL; t = after) {
    next = earlier(next, hc_transfer_due(t, now));
    after = t->next;
    held |= t->held;
    if (t->began != 0 || t->connected) continue;
    if (now >= t->started + HC_PATIENCE) waiting = 1;
    else next = earlier(next, t->started + HC_PATIENCE);
  }
  next = earlier(next, starving(e, waiting, held, now));
  if (next != 0) hc_engine_arm(e, next);
  hc_engine_leave(e);
}

void hc_engine_arm(hc_engine *e, uint64_t when) {
  uint64_t now;
  if (e->multi == NULL || when == 0 || (e->armed != 0 && e->armed <= when)) return;
  now = hc_engine_now();
  e->armed = when;
  (void)uv_timer_start(&e->deadlines, on_deadlines, when > now ? when - now : 0, 0);
}

/* ---- in and out of curl ---------------------------------------------------------------------- */

void hc_engine_enter(hc_engine *e) {
  e->inside++;
  e->refs++;
}

void hc_engine_later(hc_engine *e, hc_transfer *t) {
  if (!t->queued) {
    t->queued = 1;
    t->todo = e->todo;
    e->todo = hc_transfer_ref(t);
  }
  if (e->inside == 0) {
    hc_engine_enter(e);
    hc_engine_leave(e);
  }
}

static int do_later(hc_engine *e) {
  hc_transfer *t = e->todo;
  if (t == NULL) return 0;
  e->todo = t->todo;
  t->queued = 0;
  hc_transfer_catch_up(t);
  hc_transfer_unref(t);
  return 1;
}

static int take_ended(hc_engine *e) {
  CURLMsg *message;
  int left;
  void *t = NULL;
  if (e->multi == NULL) return 0;
  message = curl_multi_info_read(e->multi, &left);
  if (message == NULL) return 0;
  if (message->msg != CURLMSG_DONE) return 1;
  (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &t);
  hc_transfer_finish(t, message->data.result);
  return 1;
}

void hc_engine_leave(hc_engine *e) {
  if (e->inside == 1)
    while (do_later(e) || take_ended(e)) continue;
  e->inside--;
  if (e->inside == 0) {
    if (e->nrunning == 0 && e->multi != NULL) {
      (void)uv_timer_stop(&e->deadlines);
      e->armed = 0;
    }
    if (e->ending || (!e->owned && e->nrunning == 0)) hc_engine_shutdown(e);
  }
  hc_engine_unref(e);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

/* A multi handle has a pair of sockets, for curl_multi_wakeup, which curl opens without close-on-exec and does not
** show. They take the lowest free descriptors: those of the first WAKE_LOOKS that are Unix sockets now and
** were nothing before are marked, so that children do not inherit them. */
#define WAKE_LOOKS 64

static int is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

static void mark_wakeup(int first, const char *before) {
#ifdef SO_DOMAIN
  int i;
  for (i = 0; i < WAKE_LOOKS; i++) {
    int domain = 0;
    socklen_t size = sizeof domain;
    if (before[i] || getsockopt(first + i, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) continue;
    if (domain == AF_UNIX) (void)fcntl(first + i, F_SETFD, FD_CLOEXEC);
  }
#else
  (void)first;
  (void)before;
#endif
}

static CURLM *multi_new(void) {
  char before[WAKE_LOOKS];
  CURLM *multi;
  int i, first = fcntl(0, F_DUPFD_CLOEXEC, 3); /* the lowest free one */
  if (first < 0) return curl_multi_init();
  (void)close(first);
  for (i = 0; i < WAKE_LOOKS; i++) before[i] = (char)is_open(first + i);
  multi = curl_multi_init();
  mark_wakeup(first, before);
  return multi;
}

hc_engine *hc_engine_new(const asynctask_api *at, uv_loop_t *loop, int cookies) {
  hc_engine *e = calloc(1, sizeof *e);
  if (e == NULL) return NULL;
  e->at = at;
  e->cookies = cookies;
  e->loop = loop;
  e->multi = multi_new();
  e->share = curl_share_init();
  if (e->multi == NULL || e->share == NULL) {
    if (e->multi != NULL) (void)curl_multi_cleanup(e->multi);
    if (e->share != NULL) (void)curl_share_cleanup(e->share);
    free(e);
    return NULL;
  }
  (void)curl_share_setopt(e->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
  if (cookies) (void)curl_share_setopt(e->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_COOKIE);
  (void)curl_multi_setopt(e->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  (void)curl_multi_setopt(e->multi, CURLMOPT_SOCKETDATA, e);
  (void)curl_multi_setopt(e->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
  (void)curl_multi_setopt(e->multi, CURLMOPT_TIMERDATA, e);
  (void)uv_timer_init(loop, &e->timer); /* cannot fail */
  (void)uv_timer_init(loop, &e->deadlines);
  e->timer.data = e->deadlines.data = e;
  e->collect_pause = HC_PATIENCE;
  e->owned = 1;
  e->refs = 3; /* the client and two timers */
  return e;
}

static void on_timer_closed(uv_handle_t *handle) { hc_engine_unref(handle->data); }

void hc_engine_shutdown(hc_engine *e) {
  CURLM *multi = e->multi;
  int i;
  if (multi == NULL) return;
  e->ending = 1;
  if (e->inside > 0) return; /* a finalizer's wish: done on leaving */
  e->refs++;
  e->inside++; /* what callbacks ask for now is of no use any more */
  while (e->running != NULL) hc_transfer_drop(e->running);
  while (e->todo != NULL) {
    hc_transfer *t = e->todo;
    e->todo = t->todo;
    t->queued = 0;
    hc_transfer_unref(t);
  }
  e->multi = NULL;
  (void)curl_multi_cleanup(
    multi); /* closes the connections, and with them the entries of `polls` */
  (void)curl_share_cleanup(e->share);
  e->share = NULL;
  for (i = 0; i < e->npolls; i++)
    if (e->polls[i] != NULL) close_poll(e, e->polls[i]);
  uv_close((uv_handle_t *)&e->timer, on_timer_closed);
  uv_close((uv_handle_t *)&e->deadlines, on_timer_closed);
  if (e->closer != NULL) e->at->closer_remove(e->closer);
  e->closer = NULL;
  e->inside--;
  hc_engine_unref(e);
}

void hc_engine_disown(hc_engine *e) {
  if (!e->owned) return;
  e->owned = 0;
  if (e->nrunning == 0 && e->inside == 0) hc_engine_shutdown(e);
  hc_engine_unref(e);
}
