/* post.c - the inbox of a runtime: the only way in from another thread.
**
** Owns at_inbox: a lock-free stack of mail (pushed by any thread, taken whole and reversed by the
** loop thread, so mail arrives in the order it was sent) and the handle that wakes the loop. Calls
** receivers, and at_sched_enter once for each wake-up. Runs no Lua itself.
** Invariants: whoever turns an empty stack into one with mail wakes the loop, unless the loop thread
** says that it is spinning; the wake-up is cleared before the stack is taken, so none is lost. The
** struct and its descriptor live until the last holder lets go; libuv's handle counts as one. */
#include "core/post.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#ifdef __linux__
#include <sys/eventfd.h>
#include <unistd.h>
#endif

#include "core/sched.h"

#define SPIN_LOOKS 32 /* looks at the stack between two looks at the clock */
#define SPIN_TRIES 8  /* spins in vain, one after another, before there are none */
#define SPIN_PAUSE 64 /* for so many waits */

struct at_inbox {
  _Atomic(at_mail *) head; /* newest first; &closed_mark: nobody takes any more */
  atomic_int refs;
  atomic_int spinning;     /* the loop thread looks at `head` by itself */
  at_runtime *rt;          /* loop thread only */
  int misses;              /* loop thread only: spins in vain, and waits without a spin since */
#ifdef __linux__
  int fd;                  /* owned; written by any thread */
  uv_poll_t handle;        /* loop thread only */
#else
  uv_mutex_t mutex;
  int closed;              /* guarded by mutex: the handle must not be sent to */
  uv_async_t handle;
#endif
};

static at_mail closed_mark;

static uv_handle_t *handle_of(at_inbox *inbox) {
  return (uv_handle_t *)&inbox->handle;
}

/* ---- the wake-up: an eventfd, or uv_async ---- */

static int take_and_receive(at_inbox *inbox);

#ifdef __linux__

static void wake_close(at_inbox *inbox) {
  if (inbox->fd >= 0) close(inbox->fd);
}

static void wake_send(at_inbox *inbox) {
  const uint64_t one = 1;
  ssize_t n;
  do {
    n = write(inbox->fd, &one, sizeof one);
  } while (n < 0 && errno == EINTR); /* EAGAIN: the counter is full, so a wake-up is pending */
}

static void on_wake(uv_poll_t *handle, int status, int events) {
  at_inbox *inbox = (at_inbox *)handle->data;
  uint64_t count;
  (void)status;
  (void)events;
  if (inbox->rt->spent) return; /* the descriptor stays readable: the next step comes here */
  while (read(inbox->fd, &count, sizeof count) < 0 && errno == EINTR) continue;
  if (take_and_receive(inbox)) at_sched_enter(inbox->rt);
}

static int wake_open(at_inbox *inbox, uv_loop_t *loop) {
  int status;
  inbox->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (inbox->fd < 0) return uv_translate_sys_error(errno);
  status = uv_poll_init(loop, &inbox->handle, inbox->fd);
  if (status < 0) {
    wake_close(inbox);
    return status;
  }
  inbox->handle.data = inbox;
  return uv_poll_start(&inbox->handle, UV_READABLE, on_wake); /* cannot fail: just made, not closing */
}

static void wake_stop(at_inbox *inbox) {
  (void)inbox; /* the descriptor stays open for late posts */
}

#else

static void wake_close(at_inbox *inbox) {
  uv_mutex_destroy(&inbox->mutex);
}

static void wake_send(at_inbox *inbox) {
  uv_mutex_lock(&inbox->mutex);
  if (!inbox->closed) uv_async_send(&inbox->handle);
  uv_mutex_unlock(&inbox->mutex);
}

static void on_wake(uv_async_t *handle) {
  at_inbox *inbox = (at_inbox *)handle->data; /* in a step without budget left, what comes is only queued */
  if (take_and_receive(inbox)) at_sched_enter(inbox->rt);
}

static int wake_open(at_inbox *inbox, uv_loop_t *loop) {
  int status = uv_mutex_init(&inbox->mutex);
  if (status < 0) return status;
  status = uv_async_init(loop, &inbox->handle, on_wake);
  if (status < 0) {
    wake_close(inbox);
    return status;
  }
  inbox->handle.data = inbox;
  return 0;
}

static void wake_stop(at_inbox *inbox) {
  uv_mutex_lock(&inbox->mutex);
  inbox->closed = 1;
  uv_mutex_unlock(&inbox->mutex);
}

#endif

/* ---- any thread ---- */

at_inbox *at_inbox_retain(at_inbox *inbox) {
  atomic_fetch_add_explicit(&inbox->refs, 1, memory_order_relaxed);
  return inbox;
}

void at_inbox_release(at_inbox *inbox) {
  if (atomic_fetch_sub_explicit(&inbox->refs, 1, memory_order_acq_rel) != 1) return;
  wake_close(inbox);
  free(inbox);
}

/* The mail may hold what the sender knew the inbox by, and is gone once it is pushed: hence the
** reference of our own. */
void at_post(at_inbox *inbox, at_mail *mail) {
  at_mail *head = atomic_load_explicit(&inbox->head, memory_order_acquire); /* closed: all it did */
  at_inbox_retain(inbox);
  do {
    if (head == &closed_mark) {
      mail->receive(NULL, mail);
      at_inbox_release(inbox);
      return;
    }
    mail->next = head; /* from the exchange on the mail belongs to the receiver */
  } while (!atomic_compare_exchange_weak(&inbox->head, &head, mail));
  /* Sequentially consistent with the spinner, which first says that it stops and then looks. */
  if (head == NULL && !atomic_load(&inbox->spinning)) wake_send(inbox);
  at_inbox_release(inbox);
}

int at_inbox_waiting(const at_inbox *inbox) {
  at_mail *head = atomic_load_explicit(&((at_inbox *)inbox)->head, memory_order_relaxed);
  return head != NULL && head != &closed_mark;
}

/* ---- the loop thread ---- */

static at_mail *reverse(at_mail *newest) {
  at_mail *oldest = NULL;
  while (newest != NULL) {
    at_mail *next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  return oldest;
}

static void receive_all(at_runtime *rt, at_mail *newest) {
  at_mail *mail = reverse(newest);
  while (mail != NULL) {
    at_mail *next = mail->next; /* receive frees the mail */
    mail->receive(rt, mail);
    mail = next;
  }
}

/* Only the loop thread closes the inbox, so the stack it takes is never the closed mark here unless
** it did so itself before. */
static int take_and_receive(at_inbox *inbox) {
  at_mail *newest;
  if (!at_inbox_waiting(inbox)) return 0;
  if (inbox->rt->waking != NULL) inbox->rt->waking(inbox->rt);
  newest = atomic_exchange(&inbox->head, NULL);
  receive_all(inbox->rt, newest);
  return 1;
}

int at_inbox_poll(at_runtime *rt) {
  return rt->inbox != NULL && take_and_receive(rt->inbox);
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
  __asm__ __volatile__("yield");
#endif
}

/* Spinning makes sense only where the other thread can run at the same time. */
static int cpus_allowed(void) {
  static atomic_int cached; /* every thread finds the same number */
  int n = atomic_load_explicit(&cached, memory_order_relaxed);
  if (n == 0) {
    n = (int)uv_available_parallelism();
    atomic_store_explicit(&cached, n, memory_order_relaxed);
  }
  return n;
}

/* Spins only while that pays: on a busy machine both threads may share a processor, and then it only
** keeps the other from answering. */
static int spin_pays(at_inbox *inbox) {
  if (inbox->misses < SPIN_TRIES) return 1;
  if (++inbox->misses < SPIN_TRIES + SPIN_PAUSE) return 0;
  inbox->misses = 0;
  return 1;
}

int at_inbox_spin(at_runtime *rt, int microseconds) {
  at_inbox *inbox = rt->inbox;
  uint64_t end;
  if (inbox == NULL) return 0;
  if (take_and_receive(inbox)) return 1;
  if (microseconds <= 0 || cpus_allowed() < 2 || !spin_pays(inbox)) return 0;
  atomic_store(&inbox->spinning, 1);
  end = uv_hrtime() + (uint64_t)microseconds * 1000;
  do {
    int i;
    for (i = 0; i < SPIN_LOOKS && !at_inbox_waiting(inbox); i++) relax();
  } while (!at_inbox_waiting(inbox) && uv_hrtime() < end);
  atomic_store(&inbox->spinning, 0);
  if (!take_and_receive(inbox)) { /* what came before the store woke nobody */
    inbox->misses++;
    return 0;
  }
  inbox->misses = 0;
  return 1;
}

void at_inbox_ref(at_runtime *rt, int on) {
  if (rt->inbox == NULL) return;
  if (on) uv_ref(handle_of(rt->inbox));
  else uv_unref(handle_of(rt->inbox));
}

int at_inbox_open(at_runtime *rt) {
  int status;
  at_inbox *inbox = (at_inbox *)calloc(1, sizeof *inbox);
  if (inbox == NULL) return UV_ENOMEM;
  atomic_init(&inbox->head, NULL);
  atomic_init(&inbox->refs, 2); /* the runtime, and libuv's handle */
  atomic_init(&inbox->spinning, 0);
  inbox->rt = rt;
  status = wake_open(inbox, rt->loop);
  if (status < 0) {
    free(inbox);
    return status;
  }
  uv_unref(handle_of(inbox));
  rt->inbox = inbox;
  return 0;
}

static void on_closed(uv_handle_t *handle) {
  at_inbox_release((at_inbox *)handle->data);
}

void at_inbox_close(at_runtime *rt) {
  at_inbox *inbox = rt->inbox;
  at_mail *newest;
  if (inbox == NULL) return;
  rt->inbox = NULL;
  newest = atomic_exchange(&inbox->head, &closed_mark);
  receive_all(NULL, newest);
  wake_stop(inbox);
  inbox->rt = NULL;
  uv_close(handle_of(inbox), on_closed);
  at_inbox_release(inbox);
}
