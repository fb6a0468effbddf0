/* failure.c - curl's codes as the codes of error objects (S22): errno's names where the system
** said no, EAI_NONAME for names, ECERT for certificates, EPROTO for what is no proper HTTP or TLS,
** EOF for a response that ends too soon. The message is curl's. */
#include "ext/curl/transfer.h"

#include <string.h>

/* The name of the errno that curl has seen, or NULL. */
static const char *system_code(hc_transfer *t) {
  long number = 0;
  if (t->easy != NULL) (void)curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &number);
  return number > 0 ? uv_err_name((int)-number) : NULL;
}

static const char *code_of(hc_transfer *t, CURLcode result) {
  const char *code = system_code(t);
  switch (result) {
  case CURLE_OK:
    return "EPROTO"; /* a response without a head */
  case CURLE_OUT_OF_MEMORY:
    return "ENOMEM";
  case CURLE_URL_MALFORMAT:
    return "EINVAL";
  case CURLE_UNSUPPORTED_PROTOCOL:
    return t->connected ? "EPROTO" : "EPROTONOSUPPORT"; /* an answer of another one */
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_RESOLVE_PROXY:
    return "EAI_NONAME";
  case CURLE_COULDNT_CONNECT:
    return code != NULL ? code : "ECONNREFUSED";
  case CURLE_OPERATION_TIMEDOUT:
    return "ETIMEDOUT"; /* the system's; our deadlines are told otherwise */
  case CURLE_PARTIAL_FILE:
    return "EOF";
  case CURLE_GOT_NOTHING:
  case CURLE_SEND_FAIL_REWIND:
    return "ECONNRESET";
  case CURLE_SEND_ERROR:
    return code != NULL ? code : "EPIPE";
  case CURLE_INTERFACE_FAILED:
    return code != NULL ? code : "EADDRNOTAVAIL";
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_SSL_INVALIDCERTSTATUS:
  case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    return "ECERT";
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CRL_BADFILE:
    return "ECERTFILE";
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_RECV_ERROR:
    return code != NULL ? code : "EPROTO";
  case CURLE_ABORTED_BY_CALLBACK:
    return "ECANCELED";
  default:
    return "EPROTO";
  }
}

void hc_failure_note(hc_transfer *t, CURLcode result) {
  if (t->code != NULL) return; /* known better */
  t->code = code_of(t, result);
  (void)snprintf(t->message, sizeof t->message, "%s",
                 t->error[0] != '\0'  ? t->error
                 : result == CURLE_OK ? "no response"
                                      : curl_easy_strerror(result));
}

static void set(lua_State *L, const char *field, const char *value) {
  if (value == NULL) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, field);
}

/* [-0, +1, m] the error object of a transfer that failed; -1 */
int hc_failure_push(lua_State *L, void *data) {
  hc_transfer *t = data;
  luaL_checkstack(L, 4, "error");
  t->engine->at->push_error(L, t->code, t->method, t->message);
  set(L, "address", t->url);
  set(L, "url", t->url);
  set(L, "stage", t->stage);
  return -1;
}
