/* send.c - the body of an upload, which Lua gives piece by piece. Curl takes it when the server
** does; it is told to wait while there is nothing, and Lua while there is more than MARK. Loop
** thread; no Lua. */
#include "ext/curl/transfer.h"

#include <string.h>

#define MARK 65536 /* bytes */

static size_t on_read(char *buffer, size_t one, size_t size, void *data) {
  hc_transfer *t = data;
  size_t n = t->out.size - t->taken;
  size *= one;
  if (n == 0) {
    if (t->ended) return 0;
    t->starved = 1;
    return CURL_READFUNC_PAUSE;
  }
  if (n > size) n = size;
  memcpy(buffer, t->out.data + t->taken, n);
  t->taken += n;
  if (t->taken == t->out.size) t->taken = t->out.size = 0;
  t->last = hc_engine_now();
  if (!hc_send_full(t)) hc_send_wake(t);
  return n;
}

void hc_send_setup(hc_transfer *t, curl_off_t size) {
  t->upload = 1;
  (void)curl_easy_setopt(t->easy, CURLOPT_UPLOAD, 1L);
  (void)curl_easy_setopt(t->easy, CURLOPT_READFUNCTION, on_read);
  (void)curl_easy_setopt(t->easy, CURLOPT_READDATA, t);
  (void)curl_easy_setopt(t->easy, CURLOPT_INFILESIZE_LARGE, size);
}

int hc_send_full(const hc_transfer *t) { return !t->over && t->out.size - t->taken >= MARK; }

/* Whoever waits for room goes on, or sees that it is over. */
void hc_send_wake(hc_transfer *t) {
  const asynctask_api *at = t->engine->at;
  asynctask_source *s = t->writer;
  if (s == NULL) return;
  t->writer = NULL;
  (void)at->source_succeed(s, NULL);
  at->source_release(s);
}

static void go_on(hc_transfer *t) {
  if (!t->starved || t->over) return;
  t->starved = 0;
  t->resume = 1;
  hc_engine_later(t->engine, t);
}

/* The server does not want the rest: curl stops sending, but for a request that it was told to
** pause, whose end it would wait for. */
void hc_send_give_up(hc_transfer *t) {
  if (t->upload && !t->ended) go_on(t);
}

/* Curl reads no more. While the request is paused it would wait for that to go on, although the
** server has closed the connection without an answer. */
void hc_send_deaf(hc_transfer *t) {
  if (t->starved && !t->head_done)
    hc_transfer_fail(t, "ECONNRESET", NULL, "the server closed the connection during the request");
}

int hc_send_bytes(hc_transfer *t, const char *bytes, size_t size) {
  if (t->over || t->doomed) return 1;
  if (t->taken > 0 && t->taken >= t->out.size / 2) { /* room in front */
    t->out.size -= t->taken;
    memmove(t->out.data, t->out.data + t->taken, t->out.size);
    t->taken = 0;
  }
  if (!hc_bytes_add(&t->out, bytes, size)) return 0;
  if (size > 0) go_on(t);
  return 1;
}

void hc_send_end(hc_transfer *t) {
  t->ended = 1;
  go_on(t);
}
