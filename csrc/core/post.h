/* post.h - the ONLY way into a runtime from another thread: its inbox. Lock-free push, one wake-up
** for many messages, on an eventfd of our own under Linux, uv_async elsewhere. */
#ifndef AT_CORE_POST_H
#define AT_CORE_POST_H

#include "core/runtime.h"

#pragma GCC visibility push(hidden)

/* A message. Its memory belongs to the sender until `receive` is called, which takes it. */
typedef struct at_mail {
  struct at_mail *next;
  /* On the loop thread, outside Lua, must not raise: typically fills a request and calls at_op_done.
  ** rt is NULL when the runtime is gone: then it frees what it holds, on any thread. */
  void (*receive)(at_runtime *rt, struct at_mail *mail);
} at_mail;

/* Any thread. The inbox may be of a closed runtime: the mail is then received with rt == NULL. */
void at_post(at_inbox *inbox, at_mail *mail);

at_inbox *at_inbox_retain(at_inbox *inbox);  /* any thread */
void at_inbox_release(at_inbox *inbox);      /* any thread */

/* Loop thread: takes what has arrived without waiting for the wake-up. True if there was mail. */
int at_inbox_poll(at_runtime *rt);
/* Loop thread, before it would block: as at_inbox_poll, but looks for up to so many microseconds (not
** at all on one CPU, or while it has not paid); senders need no system call meanwhile. The caller
** enters the scheduler. */
int at_inbox_spin(at_runtime *rt, int microseconds);
/* True if mail is waiting (no lock: for spinning). */
int at_inbox_waiting(const at_inbox *inbox);

/* The wake handle counts for the loop's liveness while rt->externals > 0. */
void at_inbox_ref(at_runtime *rt, int on);

int at_inbox_open(at_runtime *rt);   /* 0 or a uv status */
void at_inbox_close(at_runtime *rt); /* messages still inside are received with NULL */

#pragma GCC visibility pop

#endif
