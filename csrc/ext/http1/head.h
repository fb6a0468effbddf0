/* head.h - what a request's head says: checked byte by byte as RFC 9112 asks, where the parsing library
** is more lenient, and the fields that decide how a message is framed. No Lua. */
#ifndef HTTP1_HEAD_H
#define HTTP1_HEAD_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

enum {
  HTTP1_KEEP = 1,     /* the connection may go on */
  HTTP1_BODY = 2,     /* a body follows */
  HTTP1_CHUNKED = 4,  /* of unknown length */
  HTTP1_EXPECT = 8,   /* the client waits for 100 (Continue) */
  HTTP1_UPGRADE = 16, /* Connection: upgrade */
  HTTP1_OLD = 32,     /* HTTP/1.0 */
  HTTP1_HEADLESS = 64, /* HEAD: the answer has no body */
  HTTP1_CLOSE = 128   /* Connection: close */
};

/* Limits, in bytes and fields. */
typedef struct http1_limits {
  size_t line, fields_size, fields;
} http1_limits;

typedef struct http1_head {
  size_t method, method_size; /* offsets into the head */
  size_t target, target_size;
  size_t fields, fields_end; /* the lines of the fields */
  unsigned flags;
  uint64_t length; /* of the body; with HTTP1_CHUNKED unknown */
} http1_head;

/* Reads a whole head. 0, or the status to refuse it with; `*why`: static words. */
int http1_head_read(const char *bytes, size_t size, const http1_limits *limits, http1_head *head,
                    const char **why);

/* One field line of checked bytes: [*at, end). Gives name and value (trimmed) as spans and moves *at
** behind the line. 0 at the end. */
int http1_head_next(const char *bytes, size_t *at, size_t end, size_t *name, size_t *name_size, size_t *value,
                    size_t *value_size);

/* Checks field lines, each with its CRLF (of a head, or trailers). As http1_head_read. */
int http1_head_check_fields(const char *bytes, size_t size, size_t most, const char **why);

/* Whether these first bytes could be a method, known or not. */
int http1_head_begins(const char *bytes, size_t size);

/* Whether the bytes are a token (RFC 9110, 5.6.2), and a field's value. */
int http1_head_is_token(const char *bytes, size_t size);
int http1_head_is_value(const char *bytes, size_t size);

#pragma GCC visibility pop

#endif
