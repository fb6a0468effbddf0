/* blocking.h - a pool of detached threads for calls that block: files, getaddrinfo. One a process,
** apart from libuv's own and from the pool for CPU-bound jobs, started at first use. A call that
** never returns keeps its thread but holds up neither the exit of the process nor a runtime. */
#ifndef AT_CORE_BLOCKING_H
#define AT_CORE_BLOCKING_H

#include "core/op.h"
#include "core/post.h"

#pragma GCC visibility push(hidden)

/* An operation whose C side is one blocking piece of work. Embed as the first member of a request:
** `at_work work; ...`; &r->work.op is its at_op. */
typedef struct at_work {
  at_op op;
  at_mail mail;
  struct at_work *next, **prev;   /* guarded by the pool's mutex */
  at_inbox *inbox;                /* counted; the pool's until `run` has ended and was posted */
  void (*run)(struct at_work *w); /* on a pool thread: no Lua, no runtime; sets w->op.status */
  unsigned char state;            /* guarded by the pool's mutex: queued, running */
  unsigned char counted;          /* loop thread: an external of the runtime */
} at_work;

/* Hands the work over. Loop thread. Afterwards `run` is called on a pool thread, then at_op_done on
** the loop thread; if the runtime is gone by then, class->release (which must not use op.rt then:
** it is NULL) on the pool thread. Returns 0, or a negative status when no thread could be started
** (nothing was taken). */
int at_blocking_submit(at_runtime *rt, at_work *w, void (*run)(at_work *w));

/* For at_opclass.cancel: takes work that has not started out of the queue. Returns 1 if it was
** taken out (release it), 0 if it runs (at_op_done will come). */
int at_blocking_cancel(at_op *op);

/* Running work whose Task was cancelled keeps no loop alive; `on` says that something else waits for
** it to end now, or no longer does. Loop thread. */
void at_blocking_count(at_op *op, int on);

#define AT_BLOCKING_MAX 256 /* threads, whatever happens */

/* Threads at most; 0: leave as it is. Returns the number in force. Any thread. */
int at_blocking_size(int threads);

#pragma GCC visibility pop

#endif
