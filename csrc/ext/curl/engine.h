/* engine.h - libcurl's multi interface on the runtime's loop. See engine.c. */
#ifndef HC_ENGINE_H
#define HC_ENGINE_H

#include <curl/curl.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "asynctask.h"

#if LIBCURL_VERSION_NUM < 0x075000
#error "libcurl 7.80.0 or newer is needed"
#endif

typedef struct hc_transfer hc_transfer;
typedef struct hc_poll hc_poll;

#define HC_PATIENCE 500 /* ms that a request waits for a connection before anything is suspected */

typedef struct hc_engine {
  const asynctask_api *at;
  uv_loop_t *loop;
  CURLM *multi;             /* owned; NULL once shut down */
  CURLSH *share;            /* owned: TLS sessions, and cookies where the client keeps them */
  asynctask_closer *closer; /* NULL once the runtime closes */
  uv_timer_t timer;         /* curl's */
  uv_timer_t deadlines;     /* ours: the earliest deadline of a transfer, or earlier */
  asynctask_remote *remote; /* counted; for collections */
  uint64_t collect_at;      /* not to collect garbage before; pauses between collections, in ms */
  uint64_t collect_pause;
  uint64_t armed;  /* when `deadlines` fires, in ms; 0: it does not */
  hc_poll **polls; /* owned: by descriptor */
  int npolls;
  hc_transfer *running; /* list of those that curl has */
  size_t nrunning;
  hc_transfer *todo; /* what could not be done inside curl; each counted */
  int cookies;       /* kept, for all requests */
  int inside;        /* depth of calls into curl */
  int owned;         /* a client object in Lua holds it */
  int ending;        /* to be shut down */
  int refs;          /* handles, transfers and the client */
} hc_engine;

/* [-0, +0, -] A new engine, counted once, or NULL: no memory. */
hc_engine *hc_engine_new(const asynctask_api *at, uv_loop_t *loop, int cookies);
void hc_engine_unref(hc_engine *e);
/* Ends every transfer at once, and the connections; inside curl, on leaving it. Idempotent. */
void hc_engine_shutdown(hc_engine *e);
/* Nobody will start a transfer any more: shuts down when the last one has ended. */
void hc_engine_disown(hc_engine *e);

/* Around every call into curl that may call back. Leaving the outermost one does what has been put
** off, and takes what has ended. */
void hc_engine_enter(hc_engine *e);
void hc_engine_leave(hc_engine *e);
/* Puts a transfer on the list of things to do once curl has been left; now when outside. */
void hc_engine_later(hc_engine *e, hc_transfer *t);

/* The clock of deadlines, in ms. */
uint64_t hc_engine_now(void);
/* Has the deadlines looked at by then. */
void hc_engine_arm(hc_engine *e, uint64_t when);

/* The sockets of connections, which the engine opens and closes for curl. */
void hc_engine_sockets(hc_engine *e, hc_transfer *t);

#endif
