/* transfer.h - one request and its response. See transfer.c. */
#ifndef HC_TRANSFER_H
#define HC_TRANSFER_H

#include "ext/curl/engine.h"

typedef struct hc_bytes {
  char *data; /* owned */
  size_t size, capacity;
} hc_bytes;

struct hc_transfer {
  hc_engine *engine; /* counted */
  CURL *easy;        /* owned; NULL once it is over */
  hc_transfer *next, *prev, *todo;
  asynctask_source *source;             /* counted; NULL once it was let go */
  asynctask_source *writer;             /* of a send that waits for room, or NULL */
  asynctask_feed *feed;                 /* counted; NULL: the body is kept whole */
  struct curl_slist *headers, *resolve; /* owned, for curl */
  char *method, *url;                   /* owned, for errors; the URL without credentials */
  hc_bytes head;                        /* raw lines of the head that comes, or came last */
  hc_bytes body;                        /* whole mode: what came */
  hc_bytes out; /* of an upload: what curl has not taken yet, from `taken` on */
  size_t taken;
  size_t header_bytes, max_headers;
  uint64_t length; /* the head's Content-Length, with has_length */
  uint64_t received, max_body; /* 0: no limit */
  uint64_t deadline, last;     /* ms; 0: none */
  uint64_t idle;               /* ms without a byte; 0: no limit */
  uint64_t connect;            /* ms that connecting may take; 0: no limit */
  uint64_t started;            /* when curl got it */
  uint64_t began;              /* when connecting began; 0: not yet */
  curl_off_t progress;         /* what had gone to and fro when a deadline was last looked at */
  int refs;
  int status;
  const char *version; /* static */
  unsigned running : 1, queued : 1, doomed : 1, resume : 1;
  unsigned whole : 1;     /* the body is kept, and given with the head when it is complete */
  unsigned has_length : 1;
  unsigned head_done : 1; /* the response's own head (no 1xx) is complete */
  unsigned told : 1;      /* the source has been settled */
  unsigned held : 1;      /* the feed is full */
  unsigned stopped : 1;   /* curl was told to pause the response */
  unsigned upload : 1, ended : 1; /* the body is fed with sends; it has ended */
  unsigned starved : 1;           /* curl was told to pause the request */
  unsigned connected : 1;         /* the request is on its way */
  unsigned over : 1;
  const char *code, *stage; /* static: the failure that is known already, which deadline it was */
  char message[CURL_ERROR_SIZE];
  char error[CURL_ERROR_SIZE]; /* curl's own words */
};

hc_transfer *hc_transfer_new(hc_engine *e);
hc_transfer *hc_transfer_ref(hc_transfer *t);
void hc_transfer_unref(hc_transfer *t);
/* Gives it to curl. What goes wrong settles its source. */
void hc_transfer_start(hc_transfer *t);
/* Curl has ended it, or never had it. */
void hc_transfer_finish(hc_transfer *t, CURLcode result);
/* Nobody wants it any more: closes it as soon as curl has been left. */
void hc_transfer_kill(hc_transfer *t);
/* The same with a failure that is told. */
void hc_transfer_fail(hc_transfer *t, const char *code, const char *stage, const char *message);
/* Does what was put off. */
void hc_transfer_catch_up(hc_transfer *t);
/* When it has to be looked at, in ms; 0: never. Fails it when that has passed. */
uint64_t hc_transfer_due(hc_transfer *t, uint64_t now);
/* A first socket is opened for it: from now on `connect` counts. */
void hc_transfer_connecting(hc_transfer *t);
/* Takes it out of curl; the source and the feed are let go. */
void hc_transfer_drop(hc_transfer *t);

/* receive.c: what comes. */
void hc_receive_setup(hc_transfer *t);
void hc_receive_wanted(void *data);
int hc_receive_push_head(lua_State *L, void *data);

/* send.c: the body of an upload. */
void hc_send_setup(hc_transfer *t, curl_off_t size);
int hc_send_bytes(hc_transfer *t, const char *bytes, size_t size);
void hc_send_end(hc_transfer *t);
void hc_send_give_up(hc_transfer *t);
void hc_send_deaf(hc_transfer *t);
int hc_send_full(const hc_transfer *t);
void hc_send_wake(hc_transfer *t);

/* failure.c: curl's codes as ours. */
void hc_failure_note(hc_transfer *t, CURLcode result);
int hc_failure_push(lua_State *L, void *data);

/* options.c: [-0, +0, e] the table at `index` as options of the easy handle. */
void hc_options_apply(lua_State *L, hc_transfer *t, int index);

/* url.c */
int l_url_parse(lua_State *L);

/* False: no memory. */
int hc_bytes_add(hc_bytes *b, const char *bytes, size_t size);
void hc_bytes_free(hc_bytes *b);

#endif
