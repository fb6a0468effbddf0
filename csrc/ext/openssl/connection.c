/* connection.c - one connection: SSL between two buffers. Bytes of the peer go in, plaintext comes out, and the
** other way round. Calls context.c. No I/O.
** Invariants: what OpenSSL wants to send is appended to n->out in order, and leaves it whole; what came and was not
** taken in this call is kept; while a call runs, `lent` is read before what is borrowed goes away. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "ext/openssl/tls.h"

/* ---- bytes ---- */

static int append(tls_bytes *b, const char *bytes, size_t size) {
  if (b->start > 0) {
    memmove(b->data, b->data + b->start, b->size);
    b->start = 0;
  }
  if (b->capacity - b->size < size) {
    size_t capacity = b->capacity < 1024 ? 1024 : b->capacity;
    char *data;
    while (capacity - b->size < size) capacity *= 2;
    data = realloc(b->data, capacity);
    if (data == NULL) return 0;
    b->data = data;
    b->capacity = capacity;
  }
  memcpy(b->data + b->size, bytes, size);
  b->size += size;
  return 1;
}

static void clear(tls_bytes *b) {
  if (b->capacity > 64 * 1024) {
    free(b->data);
    memset(b, 0, sizeof *b);
  }
  b->start = b->size = 0;
}

/* ---- what OpenSSL reads from and writes to ---- */

static int bio_write(BIO *bio, const char *bytes, int size) {
  tls_connection *n = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (append(&n->out, bytes, (size_t)size)) return size;
  n->no_memory = 1;
  return -1;
}

/* What was kept comes before what is lent. */
static int bio_read(BIO *bio, char *to, int room) {
  tls_connection *n = BIO_get_data(bio);
  size_t size = (size_t)room;
  BIO_clear_retry_flags(bio);
  if (n->in.size > 0) {
    if (size > n->in.size) size = n->in.size;
    memcpy(to, n->in.data + n->in.start, size);
    n->in.start += size;
    n->in.size -= size;
    if (n->in.size == 0) clear(&n->in);
    return (int)size;
  }
  if (n->lent_size == 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  if (size > n->lent_size) size = n->lent_size;
  memcpy(to, n->lent, size);
  n->lent += size;
  n->lent_size -= size;
  return (int)size;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
  (void)bio;
  (void)number;
  (void)pointer;
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static int bio_create(BIO *bio) {
  BIO_set_init(bio, 1);
  return 1;
}

BIO_METHOD *tls_connection_buffers(void) {
  BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "asynctask");
  if (m == NULL) return NULL;
  (void)BIO_meth_set_write(m, bio_write);
  (void)BIO_meth_set_read(m, bio_read);
  (void)BIO_meth_set_ctrl(m, bio_ctrl);
  (void)BIO_meth_set_create(m, bio_create);
  return m;
}

/* ---- life ---- */

void tls_connection_free(tls_connection *n) {
  if (n == NULL) return;
  SSL_free(n->ssl);
  tls_context_drop(n->context);
  free(n->key);
  free(n->in.data);
  free(n->out.data);
  free(n);
}

static tls_connection *new_connection(tls_context *c) {
  tls_connection *n = calloc(1, sizeof *n);
  BIO *bio;
  if (n == NULL) return NULL;
  n->context = c;
  c->refs++;
  n->ssl = SSL_new(c->ctx);
  bio = n->ssl != NULL ? BIO_new(c->buffers) : NULL;
  if (bio == NULL) {
    tls_connection_free(n);
    return NULL;
  }
  BIO_set_data(bio, n);
  SSL_set_bio(n->ssl, bio, bio); /* takes it, once */
  (void)SSL_set_app_data(n->ssl, n);
  return n;
}

/* The name is verified as a host name or as an address, never both; the subject's common name does not count
** (RFC 9525, 2). An address is not asked for (RFC 6066, 3). */
static int set_name(SSL *ssl, const tls_client *client) {
  X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
  ASN1_OCTET_STRING *address = a2i_IPADDRESS(client->name);
  int is_address = address != NULL;
  ASN1_OCTET_STRING_free(address);
  ERR_clear_error();
  if (!is_address && !SSL_set_tlsext_host_name(ssl, client->name)) return 0;
  if (!client->verify) return 1;
  if (is_address) return X509_VERIFY_PARAM_set1_ip_asc(param, client->name);
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  return SSL_set1_host(ssl, client->name);
}

static int resume(tls_connection *n, const char *key) {
  SSL_SESSION *session;
  if (key == NULL || n->context->sessions == NULL) return 1;
  n->key = strdup(key);
  if (n->key == NULL) return 0;
  session = tls_sessions_take(n->context->sessions, key);
  if (session == NULL) return 1;
  (void)SSL_set_session(n->ssl, session); /* else a full handshake */
  SSL_SESSION_free(session);
  return 1;
}

tls_connection *tls_connection_client(tls_context *c, const tls_client *client) {
  tls_connection *n = new_connection(c);
  if (n == NULL) return NULL;
  SSL_set_verify(n->ssl, client->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
  if ((client->name != NULL && !set_name(n->ssl, client)) ||
      (client->alpn != NULL && SSL_set_alpn_protos(n->ssl, client->alpn, client->alpn_size) != 0) ||
      !resume(n, client->key)) {
    tls_connection_free(n);
    return NULL;
  }
  SSL_set_connect_state(n->ssl);
  return n;
}

tls_connection *tls_connection_server(tls_context *c) {
  tls_connection *n = new_connection(c);
  if (n != NULL) SSL_set_accept_state(n->ssl);
  return n;
}

/* ---- work ---- */

static void begin(tls_connection *n, const char *bytes, size_t size) {
  ERR_clear_error();
  n->lent = bytes;
  n->lent_size = size;
}

/* Keeps what was not taken. False: no memory. */
static int end(tls_connection *n) {
  int ok = n->lent_size == 0 || append(&n->in, n->lent, n->lent_size);
  n->lent = NULL;
  n->lent_size = 0;
  if (!ok) n->no_memory = 1;
  return !n->no_memory;
}

int tls_connection_handshake(tls_connection *n, const char *bytes, size_t size) {
  int result, why;
  begin(n, bytes, size);
  result = SSL_do_handshake(n->ssl);
  why = result == 1 ? SSL_ERROR_NONE : SSL_get_error(n->ssl, result);
  if (!end(n)) return -1;
  return result == 1 ? 1 : why == SSL_ERROR_WANT_READ ? 0 : -1;
}

int tls_connection_receive(tls_connection *n, const char *bytes, size_t size, const char **plain, size_t *count) {
  tls_context *c = n->context;
  int state = TLS_OPEN, result = 1;
  *count = 0;
  if (c->scratch == NULL && (c->scratch = malloc(TLS_SCRATCH)) == NULL) {
    n->no_memory = 1;
    return TLS_FAILED;
  }
  *plain = c->scratch;
  begin(n, bytes, size);
  while (*count <= TLS_SCRATCH - TLS_RECORD) {
    size_t got;
    result = SSL_read_ex(n->ssl, c->scratch + *count, TLS_RECORD, &got);
    if (result != 1) break;
    *count += got;
  }
  if (result == 1) {
    state = TLS_MORE;
  } else {
    int why = SSL_get_error(n->ssl, result);
    if (why == SSL_ERROR_ZERO_RETURN) state = TLS_CLOSED;
    else if (why != SSL_ERROR_WANT_READ) state = TLS_FAILED;
  }
  return end(n) ? state : TLS_FAILED;
}

int tls_connection_send(tls_connection *n, const char *bytes, size_t size) {
  size_t written;
  ERR_clear_error();
  return size == 0 || (SSL_write_ex(n->ssl, bytes, size, &written) == 1 && !n->no_memory);
}

void tls_connection_shutdown(tls_connection *n) {
  ERR_clear_error();
  if (!(SSL_get_shutdown(n->ssl) & SSL_SENT_SHUTDOWN) && SSL_is_init_finished(n->ssl)) (void)SSL_shutdown(n->ssl);
  ERR_clear_error();
}

void tls_connection_sent(tls_connection *n) { clear(&n->out); }
