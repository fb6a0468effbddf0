/* transfer.c - one request and its response: from the start to the end, whichever comes first:
** curl has done, a deadline, nobody wants it, the state closes. Loop thread only; runs no Lua
** itself.
**
** A transfer is counted: by its object in Lua, by its source and its feed until they say
** `released`, by the engine while curl has it. When it is over, curl, source and feed have been
** let go; the memory goes with the last count. */
#include "ext/curl/transfer.h"

#include <stdlib.h>
#include <string.h>

int hc_bytes_add(hc_bytes *b, const char *bytes, size_t size) {
  if (size > b->capacity - b->size) {
    size_t capacity = b->capacity < 512 ? 1024 : b->capacity * 2;
    char *grown;
    if (capacity < b->size + size) capacity = b->size + size;
    grown = realloc(b->data, capacity);
    if (grown == NULL) return 0;
    b->data = grown;
    b->capacity = capacity;
  }
  if (size != 0) memcpy(b->data + b->size, bytes, size);
  b->size += size;
  return 1;
}

void hc_bytes_free(hc_bytes *b) {
  free(b->data);
  b->data = NULL;
  b->size = b->capacity = 0;
}

hc_transfer *hc_transfer_new(hc_engine *e) {
  hc_transfer *t = calloc(1, sizeof *t);
  if (t == NULL) return NULL;
  t->easy = curl_easy_init();
  if (t->easy == NULL) {
    free(t);
    return NULL;
  }
  t->engine = e;
  e->refs++;
  t->refs = 1;
  return t;
}

hc_transfer *hc_transfer_ref(hc_transfer *t) {
  t->refs++;
  return t;
}

static void free_options(hc_transfer *t) {
  if (t->easy != NULL) curl_easy_cleanup(t->easy);
  t->easy = NULL;
  curl_slist_free_all(t->headers);
  curl_slist_free_all(t->resolve);
  t->headers = t->resolve = NULL;
}

void hc_transfer_unref(hc_transfer *t) {
  if (--t->refs > 0) return;
  free_options(t);
  hc_bytes_free(&t->head);
  hc_bytes_free(&t->body);
  hc_bytes_free(&t->out);
  free(t->method);
  free(t->url);
  hc_engine_unref(t->engine);
  free(t);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void unlink_running(hc_transfer *t) {
  hc_engine *e = t->engine;
  if (!t->running) return;
  t->running = 0;
  if (t->prev != NULL) t->prev->next = t->next;
  else e->running = t->next;
  if (t->next != NULL) t->next->prev = t->prev;
  t->next = t->prev = NULL;
  e->nrunning--;
  if (e->multi != NULL) (void)curl_multi_remove_handle(e->multi, t->easy);
  hc_transfer_unref(t);
}

/* Lets go of curl, the source and the feed; each may be the last that holds the transfer. */
void hc_transfer_drop(hc_transfer *t) {
  const asynctask_api *at = t->engine->at;
  asynctask_source *source = t->source;
  asynctask_feed *feed = t->feed;
  hc_transfer_ref(t);
  t->over = 1;
  unlink_running(t);
  free_options(t);
  hc_bytes_free(&t->out);
  hc_send_wake(t);
  t->source = NULL;
  t->feed = NULL;
  if (source != NULL) at->source_release(source);
  if (feed != NULL) at->feed_release(feed);
  hc_transfer_unref(t);
}

/* The words go to whoever waits: for the response, or for more of its body. */
static void tell_failure(hc_transfer *t) {
  const asynctask_api *at = t->engine->at;
  if (!t->told && t->source != NULL) {
    t->told = 1;
    (void)at->source_settle(t->source, hc_failure_push);
  }
  if (t->feed != NULL) at->feed_fail(t->feed, t->code, t->method, t->message);
}

void hc_transfer_finish(hc_transfer *t, CURLcode result) {
  const asynctask_api *at = t->engine->at;
  hc_transfer_ref(t);
  if (result != CURLE_OK || t->code != NULL || !t->head_done) {
    hc_failure_note(t, result);
    tell_failure(t);
  } else {
    if (!t->told && t->source != NULL) {
      t->told = 1;
      (void)at->source_settle(t->source, hc_receive_push_head);
    }
    if (t->feed != NULL) at->feed_end(t->feed);
  }
  hc_transfer_drop(t);
  hc_transfer_unref(t);
}

void hc_transfer_kill(hc_transfer *t) {
  if (t->over || t->doomed) return;
  t->doomed = 1;
  hc_engine_later(t->engine, t);
}

void hc_transfer_fail(hc_transfer *t, const char *code, const char *stage, const char *message) {
  if (t->over || t->code != NULL) return;
  t->code = code;
  t->stage = stage;
  (void)snprintf(t->message, sizeof t->message, "%s", message);
  hc_transfer_kill(t);
}

void hc_transfer_catch_up(hc_transfer *t) {
  if (t->over) return;
  if (t->doomed) {
    if (t->code != NULL) tell_failure(t);
    hc_transfer_drop(t);
    return;
  }
  if (t->resume) {
    t->resume = 0;
    t->last = hc_engine_now();
    /* An error of it comes as the transfer's end. */
    (void)curl_easy_pause(t->easy,
                          (t->stopped ? CURLPAUSE_RECV : 0) | (t->starved ? CURLPAUSE_SEND : 0));
    if (!t->over) hc_engine_arm(t->engine, hc_transfer_due(t, t->last));
  }
}

/* ---- deadlines ------------------------------------------------------------------------------- */

/* What has gone to and fro; callbacks do not see all of it. */
static curl_off_t moved(hc_transfer *t) {
  curl_off_t up = 0, down = 0;
  long head = 0, request = 0;
  (void)curl_easy_getinfo(t->easy, CURLINFO_SIZE_UPLOAD_T, &up);
  (void)curl_easy_getinfo(t->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
  (void)curl_easy_getinfo(t->easy, CURLINFO_HEADER_SIZE, &head);
  (void)curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &request);
  return up + down + head + request;
}

/* The clock of `idle` stands still while it is our side that waits. */
static int idle_counts(const hc_transfer *t) {
  return t->idle != 0 && t->connected && !t->stopped && !t->starved;
}

uint64_t hc_transfer_due(hc_transfer *t, uint64_t now) {
  uint64_t due = t->deadline;
  if (t->over || t->doomed) return 0;
  if (due != 0 && now >= due) {
    hc_transfer_fail(t, "ETIMEDOUT", "total", "the time for the request has passed");
    return 0;
  }
  if (t->connect != 0 && t->began != 0 && !t->connected) {
    uint64_t end = t->began + t->connect;
    if (now >= end) {
      hc_transfer_fail(t, "ETIMEDOUT", "connect", "the connection was not made in time");
      return 0;
    }
    if (due == 0 || end < due) due = end;
  }
  if (idle_counts(t)) {
    if (now >= t->last + t->idle) {
      curl_off_t progress = moved(t);
      if (progress == t->progress) {
        hc_transfer_fail(t, "ETIMEDOUT", "idle",
                         t->head_done ? "the server has stopped sending"
                                      : "the server does not answer");
        return 0;
      }
      t->progress = progress;
      t->last = now;
    }
    if (due == 0 || t->last + t->idle < due) due = t->last + t->idle;
  }
  return due;
}

void hc_transfer_connecting(hc_transfer *t) {
  if (t->began != 0 || t->connected) return;
  t->began = hc_engine_now();
  if (t->connect != 0) hc_engine_arm(t->engine, t->began + t->connect);
}

static int on_connected(void *data, char *ip, char *local_ip, int port, int local_port) {
  hc_transfer *t = data;
  (void)ip;
  (void)local_ip;
  (void)port;
  (void)local_port;
  t->connected = 1;
  t->last = hc_engine_now();
  if (t->idle != 0) hc_engine_arm(t->engine, t->last + t->idle);
  return CURL_PREREQFUNC_OK;
}

/* ---- the beginning --------------------------------------------------------------------------- */

void hc_transfer_start(hc_transfer *t) {
  hc_engine *e = t->engine;
  CURLMcode code;
  (void)curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
  (void)curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->error);
  (void)curl_easy_setopt(t->easy, CURLOPT_SHARE, e->share);
  (void)curl_easy_setopt(t->easy, CURLOPT_PREREQFUNCTION, on_connected);
  (void)curl_easy_setopt(t->easy, CURLOPT_PREREQDATA, t);
  hc_engine_sockets(e, t);
  hc_receive_setup(t);
  hc_engine_enter(e);
  code = curl_multi_add_handle(e->multi, t->easy);
  if (code != CURLM_OK) {
    hc_transfer_fail(t, code == CURLM_OUT_OF_MEMORY ? "ENOMEM" : "ECONNABORTED", NULL,
                     curl_multi_strerror(code));
    tell_failure(t);
    hc_transfer_drop(t);
  } else {
    t->running = 1;
    hc_transfer_ref(t);
    t->next = e->running;
    if (t->next != NULL) t->next->prev = t;
    e->running = t;
    e->nrunning++;
    t->started = hc_engine_now();
    hc_engine_arm(e, t->deadline);
    hc_engine_arm(e, t->started + HC_PATIENCE);
  }
  hc_engine_leave(e);
}
