/* session.h - one WebSocket's protocol: bytes in, messages out; messages in, bytes out. What
** session.c does and module.c shows to Lua. Prefix ws_, since wslay_ is the library's. */
#ifndef EXT_WSLAY_SESSION_H
#define EXT_WSLAY_SESSION_H

#include <stddef.h>
#include <stdint.h>
#include <wslay/wslay.h>

#pragma GCC visibility push(hidden)

/* What came from the peer. */
typedef enum ws_kind { WS_TEXT, WS_BINARY, WS_PING, WS_PONG, WS_CLOSE } ws_kind;

typedef struct ws_event {
  struct ws_event *next;
  ws_kind kind;
  unsigned code; /* WS_CLOSE: the status code, 1005 when there was none */
  char *data;    /* owned; NULL when it is empty */
  size_t size;
} ws_event;

typedef struct ws_bytes {
  char *data; /* owned, or NULL */
  size_t size, capacity;
} ws_bytes;

typedef struct ws_session {
  wslay_event_context_ptr ctx; /* owned; NULL: not begun, or over */
  int server;
  uint64_t max;          /* bytes of a message that is received */
  const uint8_t *in;     /* borrowed while ws_session_feed runs */
  size_t in_size;
  ws_bytes part;         /* of the data message that is coming in */
  ws_bytes control;      /* of the control frame that is coming in */
  ws_bytes out;          /* to be sent */
  ws_event *head, *tail; /* owned */
  unsigned char control_opcode; /* of the control frame that is coming in; 0: it is a data frame */
  unsigned char in_frame;       /* a frame has begun and has not ended */
  unsigned char no_memory;
  unsigned char peer_closed; /* a close frame came */
  unsigned failure;          /* the status code with which a broken rule was answered, or 0 */
  uint8_t noise[64];         /* random bytes for masks */
  size_t noise_left;
} ws_session;

/* 0, or -1 without memory. The structure is zeroed before; ws_session_end accepts one that was not
** begun. */
int ws_session_begin(ws_session *s, int server, uint64_t max);
void ws_session_end(ws_session *s);

/* Takes bytes of the peer; what they make waits in the queue. 0, or -1 without memory. */
int ws_session_feed(ws_session *s, const char *bytes, size_t size);
/* The next event, which the caller frees with ws_event_free; NULL: none. */
ws_event *ws_session_take(ws_session *s);
void ws_event_free(ws_event *e);

/* Appends a frame to `out`: 1; 0 when a close frame has been sent before; -1 without memory. A
** control frame holds at most 125 bytes, a close frame a code (0: none) and 123. */
int ws_session_send(ws_session *s, ws_kind kind, const char *bytes, size_t size);
int ws_session_close(ws_session *s, unsigned code, const char *reason, size_t size);

/* What is in `out` has been taken. */
void ws_session_sent(ws_session *s);

/* Is the peer in the middle of a message? */
int ws_session_partial(const ws_session *s);

/* handshake.c: RFC 6455, section 4 */
#define WS_ACCEPT_SIZE 28 /* base64 of a SHA-1 */
#define WS_KEY_SIZE 24    /* base64 of 16 bytes */
void ws_handshake_accept(const char *key, size_t size, char accept[WS_ACCEPT_SIZE]);
int ws_handshake_key(char key[WS_KEY_SIZE]); /* 0, or -1: the system gives no random bytes */

#pragma GCC visibility pop

#endif
