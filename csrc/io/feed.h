/* feed.h - a readable stream whose bytes come from C or from Lua, not from a descriptor: a response's body, a
** decrypted connection. Its reader has the reading half of a Stream; its producer is here. Loop thread only.
**
**     at_feed *f = at_feed_push_new(L, rt, 0, &hooks, data);      -- [+1] what the reader gets
**     ... as bytes come, in callbacks, without Lua:
**     if (at_feed_push(f, bytes, size) == 0) stop_producing();     -- until hooks.wanted
**     at_feed_end(f);
**     at_feed_release(f); */
#ifndef AT_IO_FEED_H
#define AT_IO_FEED_H

#include "core/runtime.h"

#pragma GCC visibility push(hidden)

#define AT_BYTES_FEED_MT "asynctask.Feed"

typedef struct at_feed at_feed;

/* What the producer is told; either may be NULL. No Lua; called inside a read, a close, or a collection
** of garbage. */
typedef struct at_feed_hooks {
  void (*wanted)(void *data); /* a reader waits, or what at_feed_push held up is half read: go on. May push */
  void (*closed)(void *data); /* the last call, made once: the reader closed or was collected, the runtime
                              ** closes, or the producer released the feed. at_feed_push now says UV_EPIPE */
} at_feed_hooks;

/* [-0, +1, m] pushes a Feed; returns its other end, counted once for the caller. `mark`: bytes that wait
** before push says hold; 0: AT_STREAM_MARK. When it raises, `data` is still the caller's. */
at_feed *at_feed_push_new(lua_State *L, at_runtime *rt, size_t mark, const at_feed_hooks *hooks, void *data);

/* Copies the bytes. 1: go on (a reader waits, or less than the mark is there); 0: hold until `wanted`;
** UV_EPIPE: nobody will read them, or the end was told; UV_ENOMEM: nothing was taken. */
int at_feed_push(at_feed *f, const char *bytes, size_t size);

/* No more bytes come: once they are read, reads give nil, or fault. The first end counts. `op`: or NULL. */
void at_feed_end(at_feed *f);
void at_feed_fail(at_feed *f, const char *code, const char *op, const char *message);

/* The producer lets go; without an end before, reads fault with EABANDONED. Also after the state closed. */
void at_feed_release(at_feed *f);

/* [-0, +0, m] adds to core.net at the top */
void at_feed_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
