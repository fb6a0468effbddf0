/* parser.c - the library that parses, in one of its two shapes (AT_LLHTTP: llhttp, else http-parser).
** The only file that calls it. No Lua, no memory of its own.
** Invariant: a run stops behind a head and behind a message, so the bytes that are not taken belong to
** somebody else: to a body with a length, or to the next request. */
#include "ext/http1/parser.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;

#ifdef AT_LLHTTP

static llhttp_settings_t settings;

static int on_head(llhttp_t *lib) {
  ((http1_parser *)lib->data)->event = HTTP1_HEAD;
  return HPE_PAUSED;
}

static int on_body(llhttp_t *lib, const char *bytes, size_t size) {
  http1_parser *p = lib->data;
  p->body(p->data, bytes, size);
  return 0;
}

static int on_end(llhttp_t *lib) {
  ((http1_parser *)lib->data)->event = HTTP1_DONE;
  return HPE_PAUSED;
}

static void prepare(void) {
  llhttp_settings_init(&settings);
  settings.on_headers_complete = on_head;
  settings.on_body = on_body;
  settings.on_message_complete = on_end;
}

void http1_parser_begin(http1_parser *p) {
  llhttp_init(&p->lib, HTTP_REQUEST, &settings);
  p->lib.data = p;
  p->event = HTTP1_MORE;
}

int http1_parser_run(http1_parser *p, const char *bytes, size_t size, size_t *taken) {
  llhttp_errno_t err;
  if (llhttp_get_errno(&p->lib) == HPE_PAUSED) llhttp_resume(&p->lib);
  p->event = HTTP1_MORE;
  err = llhttp_execute(&p->lib, bytes, size);
  *taken = size;
  if (err == HPE_OK) return HTTP1_MORE;
  *taken = (size_t)(llhttp_get_error_pos(&p->lib) - bytes);
  if (err == HPE_PAUSED || err == HPE_PAUSED_UPGRADE) return p->event;
  return err == HPE_INVALID_METHOD ? HTTP1_METHOD : HTTP1_BAD;
}

int http1_parser_chunked(const http1_parser *p) { return (p->lib.flags & F_CHUNKED) != 0; }

#else

static http_parser_settings settings;

/* It stops in front of the head's last byte, which it sees again when it goes on. */
static int on_head(http_parser *lib) {
  ((http1_parser *)lib->data)->event = HTTP1_HEAD;
  http_parser_pause(lib, 1);
  return 0;
}

static int on_body(http_parser *lib, const char *bytes, size_t size) {
  http1_parser *p = lib->data;
  p->body(p->data, bytes, size);
  return 0;
}

static int on_end(http_parser *lib) {
  ((http1_parser *)lib->data)->event = HTTP1_DONE;
  http_parser_pause(lib, 1);
  return 0;
}

static void prepare(void) {
  http_parser_settings_init(&settings);
  settings.on_headers_complete = on_head;
  settings.on_body = on_body;
  settings.on_message_complete = on_end;
  http_parser_set_max_header_size(INT32_MAX); /* the limits are ours */
}

void http1_parser_begin(http1_parser *p) {
  http_parser_init(&p->lib, HTTP_REQUEST);
  p->lib.data = p;
  p->event = HTTP1_MORE;
  p->owes = 0;
}

int http1_parser_run(http1_parser *p, const char *bytes, size_t size, size_t *taken) {
  enum http_errno err;
  if (HTTP_PARSER_ERRNO(&p->lib) == HPE_PAUSED) http_parser_pause(&p->lib, 0);
  p->event = HTTP1_MORE;
  if (p->owes) {
    p->owes = 0;
    (void)http_parser_execute(&p->lib, &settings, "\n", 1); /* an error stays in the parser */
  }
  *taken = http_parser_execute(&p->lib, &settings, bytes, size);
  err = HTTP_PARSER_ERRNO(&p->lib);
  if (p->event == HTTP1_HEAD && err == HPE_PAUSED && *taken < size) {
    *taken += 1;
    p->owes = 1;
    return HTTP1_HEAD;
  }
  if (err == HPE_PAUSED) return p->event;
  if (err != HPE_OK) return err == HPE_INVALID_METHOD ? HTTP1_METHOD : HTTP1_BAD;
  return *taken == size ? HTTP1_MORE : HTTP1_BAD;
}

int http1_parser_chunked(const http1_parser *p) { return (p->lib.flags & F_CHUNKED) != 0; }

#endif

void http1_parser_open(void) { (void)pthread_once(&once, prepare); }
