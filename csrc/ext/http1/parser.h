/* parser.h - the thin interface over the library that parses: llhttp where the build found it, else
** http-parser. parser.c alone knows which. No Lua; any thread, one at a time for each parser. */
#ifndef HTTP1_PARSER_H
#define HTTP1_PARSER_H

#ifdef AT_LLHTTP
#include <llhttp.h>
#else
#include <http_parser.h>
#endif
#include <stddef.h>

#pragma GCC visibility push(hidden)

/* What a run ended with. */
enum {
  HTTP1_MORE, /* all bytes are taken, and the message goes on */
  HTTP1_HEAD, /* the head has ended; taken: up to its last byte */
  HTTP1_DONE, /* the message has ended */
  HTTP1_BAD,  /* no HTTP */
  HTTP1_METHOD /* a method that the library does not know */
};

typedef struct http1_parser {
#ifdef AT_LLHTTP
  llhttp_t lib;
#else
  http_parser lib;
#endif
  /* Called during a run for each piece of a chunked body. */
  void (*body)(void *data, const char *bytes, size_t size);
  void *data;
  unsigned char event; /* set by the library's callbacks */
  unsigned char owes;  /* the library has not seen the last byte of the head yet */
} http1_parser;

/* Once in a process, before the first parser. */
void http1_parser_open(void);

/* A new request begins. `body`, `data` stay as they are. */
void http1_parser_begin(http1_parser *p);

/* Parses; stops behind the head, goes on with a chunked body, stops behind the message. Of a message with
** a Content-Length only the head is to be given. */
int http1_parser_run(http1_parser *p, const char *bytes, size_t size, size_t *taken);

/* Whether the library takes the message that follows this head for a chunked one. */
int http1_parser_chunked(const http1_parser *p);

#pragma GCC visibility pop

#endif
