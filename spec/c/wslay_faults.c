/* wslay_faults.c - memory that runs out in csrc/ext/wslay/session.c and in the library below it: the
** n-th allocation fails, alone or with all after it, for n = 1, 2, 3 ... until nothing fails. Each
** failure is reported, or harmless; nothing leaks or crashes. Built and run by
** spec/http/websocket_spec.lua. The functions below take the place of the C library's for libwslay,
** too (glibc). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ext/wslay/session.h"

#define LOST 2 /* blocks: wslay 1.1.1 forgets a frame that it cannot queue */

static long count, at, failed, live;
static int sticky;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

static int fails(void) {
  count++;
  if (at == 0 || count < at || (count > at && !sticky)) return 0;
  failed++;
  return 1;
}

void *malloc(size_t size) {
  void *p = fails() ? NULL : __libc_malloc(size);
  live += p != NULL;
  return p;
}

void *calloc(size_t n, size_t size) {
  void *p = fails() ? NULL : __libc_calloc(n, size);
  live += p != NULL;
  return p;
}

void *realloc(void *old, size_t size) {
  void *p = fails() ? NULL : __libc_realloc(old, size);
  live += p != NULL && old == NULL;
  return p;
}

void free(void *p) {
  live -= p != NULL;
  __libc_free(p);
}

static int trouble; /* a call that said so */

/* Moves what one has to send to the other, a few bytes at a time, and takes what that makes. */
static int pass(ws_session *from, ws_session *to, size_t step) {
  size_t i, taken = 0;
  for (i = 0; i < from->out.size; i += step) {
    size_t n = from->out.size - i < step ? from->out.size - i : step;
    if (ws_session_feed(to, from->out.data + i, n) != 0) trouble++;
  }
  ws_session_sent(from);
  for (;;) {
    ws_event *e = ws_session_take(to);
    if (e == NULL) return (int)taken;
    taken++;
    ws_event_free(e);
  }
}

static void check(int result) {
  if (result < 0) trouble++;
}

/* 1: everything that was sent has come. */
static int scenario(void) {
  static char large[70000];
  ws_session server, client;
  int come = 0;
  memset(&server, 0, sizeof server);
  memset(&client, 0, sizeof client);
  memset(large, 'x', sizeof large);
  trouble = 0;
  check(ws_session_begin(&server, 1, 100000));
  check(ws_session_begin(&client, 0, 100000));
  check(ws_session_send(&client, WS_TEXT, "hello", 5));
  check(ws_session_send(&client, WS_PING, "x", 1));
  check(ws_session_send(&client, WS_BINARY, large, sizeof large));
  come += pass(&client, &server, 1000);
  check(ws_session_send(&server, WS_BINARY, large, sizeof large));
  come += pass(&server, &client, 4096);
  check(ws_session_close(&server, 1000, "bye", 3));
  come += pass(&server, &client, 1);
  come += pass(&client, &server, 1);
  if (ws_session_feed(&server, "\x81\x01x", 3) != 0) trouble++;
  ws_session_end(&client);
  ws_session_end(&server);

  memset(&server, 0, sizeof server); /* a frame that makes no sense */
  check(ws_session_begin(&server, 1, 100));
  if (ws_session_feed(&server, "\x89\xfe\x01\x00", 4) != 0) trouble++;
  if (trouble == 0 && server.failure != 1002) come = -100;
  ws_session_end(&server);
  return come == 7;
}

int main(void) {
  long runs = 0;
  for (sticky = 0; sticky <= 1; sticky++) {
    at = 0;
    for (;;) {
      int whole;
      long before;
      count = failed = 0;
      before = live;
      whole = scenario();
      if (live - before > LOST)
        return fprintf(stderr, "failure %ld leaks %ld\n", at, live - before), 1;
      if (at == 0 && !whole) return fputs("the scenario fails by itself\n", stderr), 1;
      if (at != 0 && failed == 0) break;
      if (failed > 0 && !whole && trouble == 0)
        return fprintf(stderr, "failure %ld is hidden\n", at), 1;
      at++;
      runs++;
    }
  }
  printf("ok %ld\n", runs);
  return 0;
}
