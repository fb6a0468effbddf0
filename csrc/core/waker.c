/* waker.c - the wake callback of a host that cannot watch the loop's descriptor.
** Owns a thread that watches it for the host, and the calls. Set, awake, asleep, call, close: loop thread.
** Invariants: between two steps the host is called once at most; the thread looks at the descriptor only while
** the host sleeps, and has left before that is closed; it calls nothing but the host's function. */
#include "core/waker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define STACK_BYTES (256 * 1024)

struct at_waker {
  void (*wake)(void *data);
  void *data;
  atomic_int called;     /* since the last step, or one is under way */
  int fd;                /* the loop's, borrowed */
  int end[2];            /* owned; a pipe whose closing ends the thread's wait */
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int asleep;            /* guarded by mutex: the host may sleep, and has not been woken by the thread */
  int ending;            /* guarded by mutex */
};

static void call_host(at_waker *w) {
  if (!atomic_exchange(&w->called, 1)) w->wake(w->data);
}

/* Sleeps until there is something to do on the loop, or the thread is to end. */
static void watch(const at_waker *w) {
  struct pollfd fds[2] = {{.fd = w->fd, .events = POLLIN}, {.fd = w->end[0], .events = POLLIN}};
  while (poll(fds, 2, -1) < 0 && errno == EINTR) continue;
}

static void *thread_main(void *waker) {
  at_waker *w = waker;
  pthread_mutex_lock(&w->mutex);
  while (!w->ending) {
    if (!w->asleep) {
      pthread_cond_wait(&w->changed, &w->mutex);
      continue;
    }
    pthread_mutex_unlock(&w->mutex);
    watch(w);
    pthread_mutex_lock(&w->mutex);
    if (w->ending || !w->asleep) continue; /* the host has come by itself, and sees what there is */
    w->asleep = 0;
    pthread_mutex_unlock(&w->mutex);
    call_host(w);
    pthread_mutex_lock(&w->mutex);
  }
  pthread_mutex_unlock(&w->mutex);
  return NULL;
}

static int start_thread(at_waker *w) {
  pthread_attr_t attributes;
  sigset_t all, old;
  int error = pthread_attr_init(&attributes);
  if (error != 0) return -error;
  (void)pthread_attr_setstacksize(&attributes, STACK_BYTES); /* else the default size */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  error = pthread_create(&w->thread, &attributes, thread_main, w);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  (void)pthread_attr_destroy(&attributes);
  return -error;
}

static int open_pipe(int ends[2]) {
  if (pipe(ends) != 0) return -errno;
  (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC); /* cannot fail: just made */
  (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  return 0;
}

int at_waker_set(at_runtime *rt, void (*wake)(void *data), void *data) {
  at_waker *w;
  int status;
  if (rt->waker != NULL) at_waker_close(rt);
  if (wake == NULL) return 0;
  w = calloc(1, sizeof *w);
  if (w == NULL) return UV_ENOMEM;
  w->wake = wake;
  w->data = data;
  w->fd = uv_backend_fd(rt->loop);
  w->asleep = 1;
  status = open_pipe(w->end);
  if (status == 0) {
    pthread_mutex_init(&w->mutex, NULL); /* default attributes: cannot fail */
    pthread_cond_init(&w->changed, NULL);
    status = start_thread(w);
    if (status == 0) {
      rt->waker = w;
      return 0;
    }
    (void)close(w->end[0]);
    (void)close(w->end[1]);
  }
  free(w);
  return status;
}

void at_waker_close(at_runtime *rt) {
  at_waker *w = rt->waker;
  rt->waker = NULL;
  pthread_mutex_lock(&w->mutex);
  w->ending = 1;
  pthread_cond_signal(&w->changed);
  pthread_mutex_unlock(&w->mutex);
  (void)close(w->end[1]); /* poll sees the end of the pipe */
  (void)pthread_join(w->thread, NULL);
  (void)close(w->end[0]);
  pthread_mutex_destroy(&w->mutex);
  pthread_cond_destroy(&w->changed);
  free(w);
}

void at_waker_call(at_runtime *rt) {
  if (!rt->in_uv_run) call_host(rt->waker); /* else a step is under way, and says itself what is left */
}

void at_waker_awake(at_runtime *rt) {
  at_waker *w = rt->waker;
  atomic_store(&w->called, 1); /* it needs no call */
  pthread_mutex_lock(&w->mutex);
  w->asleep = 0;
  pthread_mutex_unlock(&w->mutex);
}

void at_waker_asleep(at_runtime *rt) {
  at_waker *w = rt->waker;
  atomic_store(&w->called, 0);
  pthread_mutex_lock(&w->mutex);
  w->asleep = 1;
  pthread_cond_signal(&w->changed);
  pthread_mutex_unlock(&w->mutex);
}
