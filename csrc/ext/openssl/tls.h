/* tls.h - TLS as a state machine: what the files of this module share. OpenSSL encrypts and decrypts between
** buffers; no file here reads or writes a descriptor, waits, or calls back into Lua.
**
** module.c       what Lua sees: contexts and connections
** context.c      SSL_CTX: certificates, trust, versions, names of a server
** sessions.c     a client's cache of sessions
** connection.c   SSL and the two buffers it works between
** certificate.c  what a certificate says
** failure.c      words for what OpenSSL refuses
**
** One state, one thread. Nothing but module.c and certificate.c uses Lua, and may raise. A function that may fail returns 1, or 0 and leaves
** the reason in OpenSSL's error queue (read at once with tls_failure_get). */
#ifndef EXT_OPENSSL_TLS_H
#define EXT_OPENSSL_TLS_H

#include <lua.h>
#include <openssl/ssl.h>
#include <stddef.h>

#pragma GCC visibility push(hidden)

#define TLS_RECORD 16384              /* bytes of plaintext in a record at most */
#define TLS_SCRATCH (96 * 1024)       /* plaintext that one call gives at most */

typedef struct tls_context tls_context;
typedef struct tls_connection tls_connection;

/* ---- failure.c ---- */

enum tls_kind { TLS_PROTOCOL, TLS_CERTIFICATE, TLS_MEMORY };

typedef struct tls_failure {
  int kind;            /* enum tls_kind */
  const char *message; /* static: what happened */
  char reason[160];    /* why: OpenSSL's words */
} tls_failure;

void tls_failure_memory(tls_failure *f);

/* What the error queue says first; empties it. */
void tls_failure_get(tls_failure *f);
/* The same for a connection: the result of verifying the peer's certificate counts, too. */
void tls_failure_of(tls_failure *f, const SSL *ssl);

/* ---- sessions.c ---- */

typedef struct tls_sessions tls_sessions;

tls_sessions *tls_sessions_new(void); /* NULL: no memory */
void tls_sessions_free(tls_sessions *s);
/* Keeps the session, which it takes if it returns 1. */
int tls_sessions_put(tls_sessions *s, const char *key, SSL_SESSION *session);
/* The newest one that can be resumed, owned by the caller, or NULL. One of TLS 1.3 is given once (RFC 8446, C.4). */
SSL_SESSION *tls_sessions_take(tls_sessions *s, const char *key);
size_t tls_sessions_count(const tls_sessions *s);

/* ---- context.c ---- */

struct tls_context {
  SSL_CTX *ctx;         /* owned */
  int refs;             /* the userdata, each connection */
  unsigned char server;
  unsigned char *alpn;  /* owned: names in the wire's form, or NULL */
  unsigned alpn_size;
  struct tls_name *names; /* owned: certificates by name */
  tls_sessions *sessions; /* owned; NULL on a server, or switched off */
  BIO_METHOD *buffers;  /* owned: connection.c's */
  char *scratch;        /* owned: TLS_SCRATCH bytes, made when first needed */
};

tls_context *tls_context_new(int server); /* NULL: failed */
void tls_context_drop(tls_context *c);
int tls_context_certificate(tls_context *c, const char *pem, size_t size); /* and its chain */
int tls_context_key(tls_context *c, const char *pem, size_t size, const char *password);
int tls_context_trust(tls_context *c, const char *pem, size_t size); /* certificates to trust; 0: none in it */
int tls_context_trust_directory(tls_context *c, const char *path);
int tls_context_trust_system(tls_context *c);
int tls_context_versions(tls_context *c, int lowest, int highest); /* TLS1_2_VERSION...; 0: the library's */
int tls_context_ciphers(tls_context *c, const char *list);       /* of TLS 1.2 */
int tls_context_ciphersuites(tls_context *c, const char *list);  /* of TLS 1.3 */
/* Names in the wire's form (RFC 7301): each behind its length. Copied. */
int tls_context_alpn(tls_context *c, const unsigned char *names, unsigned size);
/* Server: clients are asked for a certificate (1), or must show one (2). */
void tls_context_ask(tls_context *c, int how);
int tls_context_tickets(tls_context *c, const unsigned char *keys, size_t size); /* of tls_context_ticket_size */
size_t tls_context_ticket_size(tls_context *c);
void tls_context_no_sessions(tls_context *c);
/* Server: clients that ask for the name, or "*.name", get the certificate of `other`. */
int tls_context_name(tls_context *c, const char *name, const tls_context *other);

/* ---- connection.c ---- */

/* Bytes that wait: from `start` on. */
typedef struct tls_bytes {
  char *data; /* owned */
  size_t start, size, capacity;
} tls_bytes;

enum tls_state { TLS_OPEN, TLS_MORE, TLS_CLOSED, TLS_FAILED };

struct tls_connection {
  SSL *ssl;             /* owned */
  tls_context *context; /* counted */
  char *key;            /* owned: of the session cache, or NULL */
  const char *lent;     /* what came in this call and was not taken yet; borrowed */
  size_t lent_size;
  tls_bytes in;         /* what came before and was not taken */
  tls_bytes out;        /* what is to be sent */
  unsigned char no_memory; /* one of the buffers could not grow */
};

typedef struct tls_client {
  const char *name;   /* of the server: asked for (SNI) and verified; NULL: neither */
  int verify;         /* the certificate and its name */
  const char *key;    /* of the session cache, or NULL: no resumption */
  const unsigned char *alpn; /* or NULL: the context's */
  unsigned alpn_size;
} tls_client;

tls_connection *tls_connection_client(tls_context *c, const tls_client *client); /* NULL: failed */
tls_connection *tls_connection_server(tls_context *c);
void tls_connection_free(tls_connection *n);

/* One of 1 (done), 0 (needs bytes from the peer), -1 (failed). */
int tls_connection_handshake(tls_connection *n, const char *bytes, size_t size);
/* Decrypts: `*plain` shows `*count` bytes, valid until the next call in this state. TLS_MORE: call again without
** bytes. TLS_CLOSED: the peer will send no more. */
int tls_connection_receive(tls_connection *n, const char *bytes, size_t size, const char **plain, size_t *count);
int tls_connection_send(tls_connection *n, const char *bytes, size_t size);
/* close_notify goes to n->out, once. */
void tls_connection_shutdown(tls_connection *n);
void tls_connection_sent(tls_connection *n); /* n->out is taken */

BIO_METHOD *tls_connection_buffers(void);

/* ---- certificate.c ---- */

/* [-0, +1, m] pushes a table of what the certificate of the peer says, or nil without one. */
void tls_certificate_push(lua_State *L, const SSL *ssl);
/* [-0, +0, m] makes its classes. */
void tls_certificate_open(lua_State *L);

#pragma GCC visibility pop

#endif
