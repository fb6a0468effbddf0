/* context.c - contexts: SSL_CTX with the defaults that are safe, and what is put into it. Calls sessions.c.
** Invariants: TLS 1.2 is the lowest version; no renegotiation, no compression; a client's context verifies
** unless a connection says otherwise. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ext/openssl/tls.h"

#define SERVER_SESSIONS 1024 /* of clients that know no tickets */

/* A name of a server with a certificate of its own. */
typedef struct tls_name {
  struct tls_name *next;
  SSL_CTX *ctx; /* counted */
  char name[];  /* lower or upper case; may begin with "*." */
} tls_name;

/* ---- callbacks of OpenSSL ---- */

/* The server takes the first of its names that the client has; without a common one the connection ends (RFC 7301). */
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *size, const unsigned char *in,
                       unsigned in_size, void *arg) {
  const tls_context *c = arg;
  unsigned char *chosen;
  (void)ssl;
  if (SSL_select_next_proto(&chosen, size, c->alpn, c->alpn_size, in, in_size) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

/* "*.b.c" stands for one label before ".b.c". */
static int matches(const char *pattern, const char *name) {
  const char *dot;
  if (strncmp(pattern, "*.", 2) != 0) return strcasecmp(pattern, name) == 0;
  dot = strchr(name, '.');
  return dot != NULL && dot != name && strcasecmp(pattern + 1, dot) == 0;
}

/* Exact names come before patterns. */
static SSL_CTX *find(const tls_context *c, const char *name) {
  const tls_name *n;
  int pattern;
  for (pattern = 0; pattern < 2; pattern++)
    for (n = c->names; n != NULL; n = n->next)
      if ((*n->name == '*') == pattern && matches(n->name, name)) return n->ctx;
  return NULL;
}

static int select_name(SSL *ssl, int *alert, void *arg) {
  const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  SSL_CTX *ctx = name != NULL ? find(arg, name) : NULL;
  (void)alert;
  if (ctx == NULL) return SSL_TLSEXT_ERR_NOACK; /* the context's own certificate */
  (void)SSL_set_SSL_CTX(ssl, ctx);
  return SSL_TLSEXT_ERR_OK;
}

static int keep_session(SSL *ssl, SSL_SESSION *session) {
  const tls_connection *n = SSL_get_app_data(ssl);
  if (n == NULL || n->key == NULL || n->context->sessions == NULL) return 0;
  return tls_sessions_put(n->context->sessions, n->key, session);
}

/* OpenSSL's own would ask on the terminal. */
static int give_password(char *to, int size, int writing, void *password) {
  size_t length = password != NULL ? strlen(password) : 0;
  (void)writing;
  if (length == 0 || length > (size_t)size) return 0;
  memcpy(to, password, length);
  return (int)length;
}

/* ---- life ---- */

static void set_defaults(tls_context *c) {
  static const unsigned char id[] = "asynctask";
  SSL_CTX *ctx = c->ctx;
  (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
  (void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  (void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_default_passwd_cb(ctx, give_password);
  if (c->server) {
    (void)SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    (void)SSL_CTX_set_session_id_context(ctx, id, sizeof id - 1);
    (void)SSL_CTX_sess_set_cache_size(ctx, SERVER_SESSIONS);
    (void)SSL_CTX_set_tlsext_servername_callback(ctx, select_name);
    (void)SSL_CTX_set_tlsext_servername_arg(ctx, c);
  } else {
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, keep_session);
  }
}

tls_context *tls_context_new(int server) {
  tls_context *c = calloc(1, sizeof *c);
  if (c == NULL) return NULL;
  c->refs = 1;
  c->server = server != 0;
  c->ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
  c->buffers = tls_connection_buffers();
  if (!server) c->sessions = tls_sessions_new();
  if (c->ctx == NULL || c->buffers == NULL || (!server && c->sessions == NULL)) {
    tls_context_drop(c);
    return NULL;
  }
  set_defaults(c);
  return c;
}

void tls_context_drop(tls_context *c) {
  tls_name *n;
  if (c == NULL || --c->refs > 0) return;
  SSL_CTX_free(c->ctx);
  while ((n = c->names) != NULL) {
    c->names = n->next;
    SSL_CTX_free(n->ctx);
    free(n);
  }
  tls_sessions_free(c->sessions);
  if (c->buffers != NULL) BIO_meth_free(c->buffers);
  free(c->alpn);
  free(c->scratch);
  free(c);
}

/* ---- certificates ---- */

/* After the last PEM block: that there was none further is no failure. */
static int at_end(void) {
  unsigned long e = ERR_peek_last_error();
  if (ERR_GET_LIB(e) != ERR_LIB_PEM || ERR_GET_REASON(e) != PEM_R_NO_START_LINE) return 0;
  ERR_clear_error();
  return 1;
}

static BIO *text(const char *pem, size_t size) { return BIO_new_mem_buf(pem, (int)size); }

static int add_chain(tls_context *c, BIO *bio) {
  X509 *x;
  (void)SSL_CTX_clear_chain_certs(c->ctx);
  while ((x = PEM_read_bio_X509(bio, NULL, give_password, NULL)) != NULL) {
    if (!SSL_CTX_add0_chain_cert(c->ctx, x)) {
      X509_free(x);
      return 0;
    }
  }
  return at_end();
}

int tls_context_certificate(tls_context *c, const char *pem, size_t size) {
  BIO *bio = text(pem, size);
  X509 *x = bio != NULL ? PEM_read_bio_X509_AUX(bio, NULL, give_password, NULL) : NULL;
  int ok = x != NULL && SSL_CTX_use_certificate(c->ctx, x) == 1 && add_chain(c, bio);
  X509_free(x);
  BIO_free(bio);
  return ok;
}

int tls_context_key(tls_context *c, const char *pem, size_t size, const char *password) {
  BIO *bio = text(pem, size);
  EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, give_password, (void *)(uintptr_t)password) : NULL;
  int ok = key != NULL && SSL_CTX_use_PrivateKey(c->ctx, key) == 1 && SSL_CTX_check_private_key(c->ctx) == 1;
  EVP_PKEY_free(key);
  BIO_free(bio);
  return ok;
}

int tls_context_trust(tls_context *c, const char *pem, size_t size) {
  X509_STORE *store = SSL_CTX_get_cert_store(c->ctx);
  BIO *bio = text(pem, size);
  X509 *x;
  int count = 0, ok = bio != NULL;
  while (ok && (x = PEM_read_bio_X509_AUX(bio, NULL, give_password, NULL)) != NULL) {
    ok = X509_STORE_add_cert(store, x) && (!c->server || SSL_CTX_add_client_CA(c->ctx, x));
    X509_free(x);
    count++;
  }
  BIO_free(bio);
  (void)X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN); /* any certificate in it is an anchor */
  return ok && count > 0 && at_end();
}

int tls_context_trust_directory(tls_context *c, const char *path) {
  return SSL_CTX_load_verify_locations(c->ctx, NULL, path);
}

int tls_context_trust_system(tls_context *c) { return SSL_CTX_set_default_verify_paths(c->ctx); }

/* ---- choices ---- */

int tls_context_versions(tls_context *c, int lowest, int highest) {
  return (lowest == 0 || SSL_CTX_set_min_proto_version(c->ctx, lowest)) &&
         SSL_CTX_set_max_proto_version(c->ctx, highest);
}

int tls_context_ciphers(tls_context *c, const char *list) { return SSL_CTX_set_cipher_list(c->ctx, list); }

int tls_context_ciphersuites(tls_context *c, const char *list) { return SSL_CTX_set_ciphersuites(c->ctx, list); }

int tls_context_alpn(tls_context *c, const unsigned char *names, unsigned size) {
  unsigned char *copy = malloc(size > 0 ? size : 1);
  if (copy == NULL) return 0;
  memcpy(copy, names, size);
  free(c->alpn);
  c->alpn = copy;
  c->alpn_size = size;
  if (!c->server) return SSL_CTX_set_alpn_protos(c->ctx, names, size) == 0; /* 0 is its success */
  SSL_CTX_set_alpn_select_cb(c->ctx, select_alpn, c);
  return 1;
}

void tls_context_ask(tls_context *c, int how) {
  SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER | (how > 1 ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
}

size_t tls_context_ticket_size(tls_context *c) {
  long size = SSL_CTX_get_tlsext_ticket_keys(c->ctx, NULL, 0);
  return size > 0 ? (size_t)size : 0;
}

int tls_context_tickets(tls_context *c, const unsigned char *keys, size_t size) {
  return (int)SSL_CTX_set_tlsext_ticket_keys(c->ctx, (void *)(uintptr_t)keys, (long)size);
}

void tls_context_no_sessions(tls_context *c) {
  (void)SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
  (void)SSL_CTX_set_options(c->ctx, SSL_OP_NO_TICKET);
  if (c->server) (void)SSL_CTX_set_num_tickets(c->ctx, 0);
  tls_sessions_free(c->sessions);
  c->sessions = NULL;
}

int tls_context_name(tls_context *c, const char *name, const tls_context *other) {
  tls_name *n = malloc(sizeof *n + strlen(name) + 1); /* owned by c */
  if (n == NULL) return 0;
  if (!SSL_CTX_up_ref(other->ctx)) {
    free(n);
    return 0;
  }
  strcpy(n->name, name);
  n->ctx = other->ctx;
  n->next = c->names;
  c->names = n;
  return 1;
}
