/* failure.c - words for what OpenSSL refuses: its reason, and the result of verifying a certificate.
** Calls OpenSSL only. Invariant: the calling thread's error queue is empty afterwards. */
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>

#include "ext/openssl/tls.h"

static void set(tls_failure *f, int kind, const char *reason, const char *message) {
  f->kind = kind;
  f->message = message;
  (void)snprintf(f->reason, sizeof f->reason, "%s", reason);
}

void tls_failure_get(tls_failure *f) {
  unsigned long e = ERR_get_error();
  const char *reason = e != 0 ? ERR_reason_error_string(e) : NULL;
  char text[120];
  if (e != 0 && reason == NULL) {
    ERR_error_string_n(e, text, sizeof text);
    reason = text;
  }
  if (e != 0 && ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE)
    tls_failure_memory(f);
  else
    set(f, TLS_PROTOCOL, reason != NULL ? reason : "unknown", "protocol failure");
  ERR_clear_error();
}

void tls_failure_memory(tls_failure *f) { set(f, TLS_MEMORY, "out of memory", "not enough memory"); }

/* What the peer's alert says: behind "alert" in OpenSSL's words. */
static const char *alert(const char *reason) {
  const char *at = strstr(reason, "alert ");
  return at != NULL ? at + strlen("alert ") : NULL;
}

void tls_failure_of(tls_failure *f, const SSL *ssl) {
  unsigned long e = ERR_peek_error();
  long result = SSL_get_verify_result(ssl);
  const char *said;
  if (e != 0 && ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED &&
      result != X509_V_OK) {
    ERR_clear_error();
    set(f, TLS_CERTIFICATE, X509_verify_cert_error_string(result), "the peer's certificate is refused");
    return;
  }
  tls_failure_get(f);
  said = f->kind == TLS_PROTOCOL ? alert(f->reason) : NULL;
  if (said == NULL) return;
  f->message = "the peer has refused";
  memmove(f->reason, said, strlen(said) + 1);
}
