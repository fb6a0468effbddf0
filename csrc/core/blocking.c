/* blocking.c - the process' pool for calls that block. Owns its threads (detached, all signals
** blocked, never joined: exit does not wait for a call that hangs) and the queue of work.
** submit and cancel: loop threads; work runs on the pool's threads and comes back through the
** inbox of its runtime. One mutex guards everything; no call blocks while holding it.
**
** Wake-ups are chained: a submit wakes a thread only if none is on its way, and a thread that takes
** work wakes the next one if more is left; so a burst of short calls costs few wake-ups. When all
** threads hang and the queue does not move for STALL_MS, a supervisor doubles them beyond the size (up
** to AT_BLOCKING_MAX); a thread beyond the size ends when it finds nothing to do. */
#include "core/blocking.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MIN 4
#define THREADS_MAX 16
#define STALL_MS 20
#define STACK_BYTES (256 * 1024)

enum { WORK_QUEUED = 1, WORK_RUNNING };

static struct {
  pthread_mutex_t mutex;
  pthread_cond_t wake;         /* idle threads wait here */
  pthread_cond_t full;         /* the supervisor waits here for a queue that nobody takes from */
  at_work *head, **tail;       /* tail NULL: the queue is empty and was never used */
  int queued;                  /* works in the queue */
  int size;                    /* threads at most while calls return; 0: not chosen yet */
  int threads, idle, waking;   /* started; waiting on `wake`; on their way to the queue */
  int supervised;              /* the supervisor runs */
  unsigned long taken;         /* works that threads took: the queue's progress */
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .full = PTHREAD_COND_INITIALIZER};

static int default_size(void) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  int size = cores > 0 && cores < THREADS_MAX ? (int)cores * 4 : THREADS_MAX;
  if (size < THREADS_MIN) size = THREADS_MIN;
  return size > THREADS_MAX ? THREADS_MAX : size;
}

/* The queue; all under the mutex. */

static void queue_append(at_work *w) {
  if (pool.tail == NULL || pool.head == NULL) pool.tail = &pool.head;
  w->next = NULL;
  w->prev = pool.tail;
  *pool.tail = w;
  pool.tail = &w->next;
  pool.queued++;
}

static void queue_remove(at_work *w) {
  *w->prev = w->next;
  if (w->next != NULL)
    w->next->prev = w->prev;
  else
    pool.tail = w->prev;
  pool.queued--;
}

/* Threads. */

static int start_thread(void *(*body)(void *)) {
  pthread_attr_t attr;
  pthread_t thread;
  sigset_t all, old;
  int error = pthread_attr_init(&attr);
  if (error != 0) return -error;
  (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED); /* constants: cannot fail */
  (void)pthread_attr_setstacksize(&attr, STACK_BYTES);               /* else the default size */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  error = pthread_create(&thread, &attr, body, NULL);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  (void)pthread_attr_destroy(&attr);
  return -error;
}

/* Waits for work; NULL: the thread is one too many. Under the mutex. */
static at_work *next_work(void) {
  at_work *w;
  while (pool.head == NULL) {
    if (pool.threads > pool.size) return NULL;
    pool.idle++;
    pthread_cond_wait(&pool.wake, &pool.mutex);
    pool.idle--;
    if (pool.waking > 0) pool.waking--; /* a spurious wake-up costs one signal too many */
  }
  w = pool.head;
  queue_remove(w);
  w->state = WORK_RUNNING;
  pool.taken++;
  return w;
}

static void run_work(at_work *w) {
  at_inbox *inbox = w->inbox;
  w->run(w);
  at_post(inbox, &w->mail); /* w is the loop thread's from here on */
  at_inbox_release(inbox);
}

static int grow(void);

static void *thread_main(void *unused) {
  at_work *w;
  (void)unused;
  pthread_mutex_lock(&pool.mutex);
  if (pool.waking > 0) pool.waking--;
  while ((w = next_work()) != NULL) {
    if (pool.head != NULL) (void)grow(); /* best effort: this thread comes back for the rest */
    pthread_mutex_unlock(&pool.mutex);
    run_work(w);
    pthread_mutex_lock(&pool.mutex);
  }
  pool.threads--;
  pthread_mutex_unlock(&pool.mutex);
  return NULL;
}

/* Under the mutex. 0 or a negative status. */
static int add_thread(void) {
  int status = start_thread(thread_main);
  if (status == 0) {
    pool.threads++;
    pool.waking++;
  }
  return status;
}

/* The queue stands still: every thread hangs in its call. Under the mutex. */
static void add_threads(void) {
  int more = pool.threads < pool.queued ? pool.threads : pool.queued;
  while (more-- > 0 && pool.threads < AT_BLOCKING_MAX)
    if (add_thread() != 0) break; /* tried again after another interval */
}

/* Waits for STALL_MS, whatever happens. Under the mutex. */
static void wait_interval(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += STALL_MS * 1000000L;
  if (until.tv_nsec >= 1000000000L) {
    until.tv_nsec -= 1000000000L;
    until.tv_sec++;
  }
  while (pthread_cond_timedwait(&pool.full, &pool.mutex, &until) == 0) continue;
}

static void *supervisor_main(void *unused) {
  (void)unused;
  pthread_mutex_lock(&pool.mutex);
  for (;;) {
    unsigned long seen;
    while (pool.head == NULL || pool.idle > 0) pthread_cond_wait(&pool.full, &pool.mutex);
    seen = pool.taken;
    wait_interval();
    if (pool.head != NULL && pool.taken == seen) add_threads();
  }
  return NULL;
}

/* Sees to it that somebody comes for the work in the queue. Under the mutex. 0, or why there is no
** thread at all. */
static int grow(void) {
  int status = 0;
  if (pool.waking > 0) return 0;
  if (pool.idle > 0) {
    pool.waking++;
    pthread_cond_signal(&pool.wake);
  } else if (pool.threads < pool.size) {
    status = add_thread();
    if (status != 0 && pool.threads > 0) status = 0;
  } else if (!pool.supervised) {
    pool.supervised = start_thread(supervisor_main) == 0; /* else tried again at the next work */
  } else {
    pthread_cond_signal(&pool.full);
  }
  return status;
}

/* The way back: on the loop thread, or anywhere once the runtime is gone. */
static void receive(at_runtime *rt, at_mail *mail) {
  at_work *w = (at_work *)(void *)((char *)mail - offsetof(at_work, mail));
  if (rt == NULL) {
    w->op.rt = NULL;
    w->op.class->release(&w->op);
    return;
  }
  at_blocking_count(&w->op, 0);
  at_op_done(&w->op);
}

int at_blocking_submit(at_runtime *rt, at_work *w, void (*run)(at_work *w)) {
  int status;
  w->run = run;
  w->counted = 0;
  w->mail.receive = receive;
  w->inbox = at_inbox_retain(rt->inbox);
  w->state = WORK_QUEUED;
  pthread_mutex_lock(&pool.mutex);
  if (pool.size == 0) pool.size = default_size();
  queue_append(w);
  status = grow();
  if (status != 0) queue_remove(w);
  pthread_mutex_unlock(&pool.mutex);
  if (status != 0) {
    at_inbox_release(w->inbox);
    return status;
  }
  at_blocking_count(&w->op, 1); /* its mail is received on this thread: not before this */
  return 0;
}

void at_blocking_count(at_op *op, int on) {
  at_work *w = (at_work *)(void *)op;
  if (on && !w->counted) at_external_add(op->rt);
  if (!on && w->counted) at_external_remove(op->rt);
  w->counted = on != 0;
}

int at_blocking_cancel(at_op *op) {
  at_work *w = (at_work *)(void *)op;
  int queued;
  pthread_mutex_lock(&pool.mutex);
  queued = w->state == WORK_QUEUED;
  if (queued) queue_remove(w);
  pthread_mutex_unlock(&pool.mutex);
  at_blocking_count(op, 0);
  if (queued) at_inbox_release(w->inbox);
  return queued;
}

int at_blocking_size(int threads) {
  int size;
  pthread_mutex_lock(&pool.mutex);
  if (pool.size == 0) pool.size = default_size();
  if (threads > 0) pool.size = threads > AT_BLOCKING_MAX ? AT_BLOCKING_MAX : threads;
  size = pool.size;
  pthread_mutex_unlock(&pool.mutex);
  return size;
}
