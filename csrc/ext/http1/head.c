/* head.c - reads a request's head strictly: RFC 9112, sections 2.2, 3, 5 and 6.
** The library has parsed the same bytes before; what it lets pass (bare LF, folded lines, odd spaces, equal
** lengths twice) is refused here, since servers that disagree about it can be played against each other.
** No Lua, no memory. */
#include "ext/http1/head.h"

#include <string.h>
#include <strings.h>

static const char token_marks[] = "!#$%&'*+-.^_`|~";

static int is_token_byte(unsigned char c) {
  if ((c | 32) >= 'a' && (c | 32) <= 'z') return 1;
  if (c >= '0' && c <= '9') return 1;
  return c != 0 && strchr(token_marks, c) != NULL;
}

int http1_head_is_token(const char *bytes, size_t size) {
  size_t i;
  for (i = 0; i < size; i++)
    if (!is_token_byte((unsigned char)bytes[i])) return 0;
  return size > 0;
}

/* Visible characters, spaces, tabs and bytes above 127. */
int http1_head_is_value(const char *bytes, size_t size) {
  size_t i;
  for (i = 0; i < size; i++) {
    unsigned char c = (unsigned char)bytes[i];
    if ((c < 32 && c != '\t') || c == 127) return 0;
  }
  return 1;
}

static int is_space(char c) { return c == ' ' || c == '\t'; }

/* The line at `at`: its size without CRLF, or a status. */
static int line_at(const char *bytes, size_t at, size_t end, size_t *size, const char **why) {
  const char *lf = memchr(bytes + at, '\n', end - at);
  size_t n;
  if (lf == NULL) {
    *why = "a line without end";
    return 400;
  }
  n = (size_t)(lf - bytes) - at;
  if (n == 0 || lf[-1] != '\r') {
    *why = "a line that ends with LF alone";
    return 400;
  }
  if (memchr(bytes + at, '\r', n - 1) != NULL) {
    *why = "CR inside a line";
    return 400;
  }
  *size = n - 1;
  return 0;
}

/* ---- fields ---- */

int http1_head_next(const char *bytes, size_t *at, size_t end, size_t *name, size_t *name_size, size_t *value,
                    size_t *value_size) {
  const char *lf, *colon;
  size_t from, to;
  if (*at >= end) return 0;
  lf = memchr(bytes + *at, '\n', end - *at);
  colon = memchr(bytes + *at, ':', end - *at);
  if (lf == NULL || colon == NULL || colon > lf) return 0;
  *name = *at;
  *name_size = (size_t)(colon - bytes) - *at;
  from = (size_t)(colon - bytes) + 1;
  to = (size_t)(lf - bytes) - 1;
  while (from < to && is_space(bytes[from])) from++;
  while (to > from && is_space(bytes[to - 1])) to--;
  *value = from;
  *value_size = to - from;
  *at = (size_t)(lf - bytes) + 1;
  return 1;
}

int http1_head_check_fields(const char *bytes, size_t size, size_t most, const char **why) {
  size_t at = 0, count = 0, line;
  while (at < size) {
    const char *colon;
    int status;
    if (is_space(bytes[at])) {
      *why = "a folded header";
      return 400;
    }
    status = line_at(bytes, at, size, &line, why);
    if (status != 0) return status;
    colon = memchr(bytes + at, ':', line);
    if (colon == NULL || !http1_head_is_token(bytes + at, (size_t)(colon - bytes) - at)) {
      *why = "a header without a proper name";
      return 400;
    }
    if (!http1_head_is_value(colon, line - ((size_t)(colon - bytes) - at))) {
      *why = "a control character in a header";
      return 400;
    }
    if (++count > most) {
      *why = "too many headers";
      return 431;
    }
    at += line + 2;
  }
  return 0;
}

/* ---- what frames the message ---- */

typedef struct framing {
  int hosts, lengths, codings, chunked;
} framing;

static int same(const char *bytes, size_t size, const char *word) {
  return strlen(word) == size && strncasecmp(bytes, word, size) == 0;
}

/* Digits only, at most 2^63 - 1: 0, or a status. */
static int read_length(const char *bytes, size_t size, uint64_t *length, const char **why) {
  uint64_t n = 0;
  size_t i;
  for (i = 0; i < size && bytes[i] >= '0' && bytes[i] <= '9'; i++) {
    if (n > ((uint64_t)INT64_MAX - 9) / 10) break;
    n = n * 10 + (uint64_t)(bytes[i] - '0');
  }
  if (size == 0 || i < size) {
    *why = "Content-Length is no length";
    return 400;
  }
  *length = n;
  return 0;
}

/* The options of a Connection header. */
static void read_connection(const char *bytes, size_t size, unsigned *flags) {
  size_t at = 0;
  while (at < size) {
    const char *comma = memchr(bytes + at, ',', size - at);
    size_t to = comma != NULL ? (size_t)(comma - bytes) : size, end = to;
    while (at < end && is_space(bytes[at])) at++;
    while (end > at && is_space(bytes[end - 1])) end--;
    if (same(bytes + at, end - at, "close")) *flags |= HTTP1_CLOSE;
    if (same(bytes + at, end - at, "keep-alive")) *flags |= HTTP1_KEEP;
    if (same(bytes + at, end - at, "upgrade")) *flags |= HTTP1_UPGRADE;
    at = to + 1;
  }
}

static int refuse(int status, const char *words, const char **why) {
  *why = words;
  return status;
}

static int read_field(const char *name, size_t name_size, const char *value, size_t size, http1_head *head,
                      framing *f, const char **why) {
  switch (name_size) {
    case 4:
      if (!same(name, name_size, "host")) return 0;
      if (++f->hosts > 1) return refuse(400, "Host twice", why);
      if (memchr(value, ' ', size) != NULL || memchr(value, '\t', size) != NULL ||
          memchr(value, ',', size) != NULL || memchr(value, '/', size) != NULL ||
          memchr(value, '@', size) != NULL)
        return refuse(400, "Host is no host", why);
      return 0;
    case 6:
      if (!same(name, name_size, "expect")) return 0;
      if (!same(value, size, "100-continue")) return refuse(417, "an unknown expectation", why);
      if (!(head->flags & HTTP1_OLD)) head->flags |= HTTP1_EXPECT;
      return 0;
    case 10:
      if (same(name, name_size, "connection")) read_connection(value, size, &head->flags);
      return 0;
    case 14:
      if (!same(name, name_size, "content-length")) return 0;
      if (++f->lengths > 1) return refuse(400, "Content-Length twice", why);
      return read_length(value, size, &head->length, why);
    case 17:
      if (!same(name, name_size, "transfer-encoding")) return 0;
      if (++f->codings > 1) return refuse(400, "Transfer-Encoding twice", why);
      if (!same(value, size, "chunked")) return refuse(501, "a transfer coding other than chunked", why);
      f->chunked = 1;
      return 0;
    default: return 0;
  }
}

static int read_fields(const char *bytes, http1_head *head, const char **why) {
  framing f = {0, 0, 0, 0};
  size_t at = head->fields, name, name_size, value, value_size;
  while (http1_head_next(bytes, &at, head->fields_end, &name, &name_size, &value, &value_size)) {
    int status = read_field(bytes + name, name_size, bytes + value, value_size, head, &f, why);
    if (status != 0) return status;
  }
  if (f.codings > 0 && f.lengths > 0)
    return refuse(400, "Content-Length beside Transfer-Encoding", why);
  if (f.codings > 0 && (head->flags & HTTP1_OLD))
    return refuse(400, "Transfer-Encoding in HTTP/1.0", why);
  if (f.hosts == 0 && !(head->flags & HTTP1_OLD)) return refuse(400, "no Host", why);
  if (f.chunked) head->flags |= HTTP1_BODY | HTTP1_CHUNKED;
  if (head->length > 0) head->flags |= HTTP1_BODY;
  if (!(head->flags & HTTP1_BODY)) head->flags &= ~(unsigned)HTTP1_EXPECT;
  return 0;
}

/* ---- the request line ---- */

int http1_head_begins(const char *bytes, size_t size) {
  size_t at = 0;
  const char *space;
  while (at + 1 < size && bytes[at] == '\r' && bytes[at + 1] == '\n') at += 2;
  space = memchr(bytes + at, ' ', size - at);
  return http1_head_is_token(bytes + at, space != NULL ? (size_t)(space - bytes) - at : size - at);
}

/* Whether the target has one of the four forms (RFC 9112, 3.2): a path; a URL with a host; CONNECT's authority; the
** star of OPTIONS. What decides by the path could be led past its own checks by anything else. */
static int is_target(const char *target, size_t size, const char *method, size_t method_size) {
  size_t i = 0;
  if (method_size == 7 && memcmp(method, "CONNECT", 7) == 0)
    return memchr(target, '/', size) == NULL && memchr(target, '?', size) == NULL;
  if (*target == '/') return 1;
  if (*target == '*') return size == 1 && method_size == 7 && memcmp(method, "OPTIONS", 7) == 0;
  while (i < size && is_token_byte((unsigned char)target[i])) i++; /* a scheme, roughly: the library has read it */
  return i > 0 && size - i > 3 && memcmp(target + i, "://", 3) == 0 && target[i + 3] != '/' && target[i + 3] != '?';
}

/* The line is bytes[at, at + size): method SP target SP HTTP-version. */
static int read_line(const char *bytes, size_t at, size_t size, http1_head *head, const char **why) {
  const char *line = bytes + at, *space = memchr(line, ' ', size), *version;
  size_t i, n;
  if (space == NULL || !http1_head_is_token(line, (size_t)(space - line)))
    return refuse(400, "the request line has no method", why);
  head->method = at;
  head->method_size = (size_t)(space - line);
  head->target = head->method + head->method_size + 1;
  n = size - head->method_size - 1;
  version = memchr(space + 1, ' ', n);
  if (version == NULL) return refuse(400, "the request line has no version", why);
  head->target_size = (size_t)(version - space) - 1;
  if (head->target_size == 0) return refuse(400, "the request line has no target", why);
  for (i = 0; i < head->target_size; i++) {
    unsigned char c = (unsigned char)space[1 + i];
    if (c <= 32 || c >= 127 || c == '#') return refuse(400, "a character that no target has", why);
  }
  if (!is_target(space + 1, head->target_size, line, head->method_size))
    return refuse(400, "the target is no path and no URL", why);
  n = size - (size_t)(version + 1 - line);
  if (n != 8 || memcmp(version + 1, "HTTP/", 5) != 0 || version[7] != '.' || version[6] < '0' ||
      version[6] > '9' || version[8] < '0' || version[8] > '9')
    return refuse(400, "the request line has no version", why);
  if (version[6] != '1') return refuse(505, "a version other than HTTP/1", why);
  if (version[8] == '0') head->flags |= HTTP1_OLD;
  if (head->method_size == 4 && memcmp(line, "HEAD", 4) == 0) head->flags |= HTTP1_HEADLESS;
  return 0;
}

int http1_head_read(const char *bytes, size_t size, const http1_limits *limits, http1_head *head,
                    const char **why) {
  size_t at = 0, line;
  int status;
  memset(head, 0, sizeof *head);
  while (at + 1 < size && bytes[at] == '\r' && bytes[at + 1] == '\n') at += 2; /* 2.2: empty lines before */
  status = line_at(bytes, at, size, &line, why);
  if (status != 0) return status;
  if (line > limits->line) return refuse(414, "the request line is too long", why);
  status = read_line(bytes, at, line, head, why);
  if (status != 0) return status;
  head->fields = at + line + 2;
  if (size < head->fields + 2 || bytes[size - 2] != '\r') return refuse(400, "a line that ends with LF alone", why);
  head->fields_end = size - 2;
  if (head->fields_end - head->fields > limits->fields_size)
    return refuse(431, "the headers are too large", why);
  status = http1_head_check_fields(bytes + head->fields, head->fields_end - head->fields, limits->fields, why);
  if (status == 0) status = read_fields(bytes, head, why);
  if (status != 0) return status;
  if (!(head->flags & HTTP1_OLD)) head->flags |= HTTP1_KEEP;
  if (head->flags & HTTP1_CLOSE) head->flags &= ~(unsigned)HTTP1_KEEP;
  return 0;
}
