/* certificate.c - what a certificate says, as a Lua table. Owns, while it is written, the certificate and a
** buffer, in a userdata: every push may raise. Loop thread. */
#include <lauxlib.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "ext/openssl/tls.h"

#define HELD "asynctask.openssl.held"

typedef struct held {
  X509 *x;               /* owned */
  BIO *text;             /* owned */
  GENERAL_NAMES *names;  /* owned */
} held;

static int l_held_gc(lua_State *L) {
  held *h = luaL_checkudata(L, 1, HELD);
  X509_free(h->x);
  BIO_free(h->text);
  GENERAL_NAMES_free(h->names);
  memset(h, 0, sizeof *h);
  return 0;
}

/* [-0, +0, m] what was written into the buffer becomes a field of the table at the top. */
static void take_field(lua_State *L, held *h, const char *field) {
  char *data;
  long size = BIO_get_mem_data(h->text, &data);
  lua_pushlstring(L, data, size > 0 ? (size_t)size : 0);
  lua_setfield(L, -2, field);
  (void)BIO_reset(h->text);
}

static void set_name(lua_State *L, held *h, const char *field, const X509_NAME *name) {
  (void)X509_NAME_print_ex(h->text, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB);
  take_field(L, h, field);
}

/* Seconds since 1970. */
static void set_time(lua_State *L, const char *field, const ASN1_TIME *when) {
  struct tm tm;
  if (!ASN1_TIME_to_tm(when, &tm)) return;
  lua_pushinteger(L, (lua_Integer)timegm(&tm));
  lua_setfield(L, -2, field);
}

static void set_fingerprint(lua_State *L, const X509 *x) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  char hex[2 * EVP_MAX_MD_SIZE + 1];
  unsigned size, i;
  if (!X509_digest(x, EVP_sha256(), digest, &size)) return;
  for (i = 0; i < size; i++) {
    hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
    hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
  }
  lua_pushlstring(L, hex, 2 * (size_t)size);
  lua_setfield(L, -2, "fingerprint");
}

/* [-0, +(0|1), m] pushes the text of an address in its 4 or 16 bytes. */
static int push_address(lua_State *L, const unsigned char *b, int size) {
  if (size == 4) {
    lua_pushfstring(L, "%d.%d.%d.%d", b[0], b[1], b[2], b[3]);
    return 1;
  }
  if (size == 16) {
    char text[40], *at = text;
    int i;
    for (i = 0; i < 16; i += 2) at += sprintf(at, "%x%s", b[i] << 8 | b[i + 1], i < 14 ? ":" : "");
    lua_pushstring(L, text);
    return 1;
  }
  return 0;
}

/* The lists `names` (of hosts) and `addresses`. Stack: ... table */
static void set_alternatives(lua_State *L, const held *h) {
  int i, count = h->names != NULL ? sk_GENERAL_NAME_num(h->names) : 0;
  lua_Integer names = 0, addresses = 0;
  lua_newtable(L);
  lua_newtable(L); /* stack: ... table names addresses */
  for (i = 0; i < count; i++) {
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(h->names, i);
    if (name->type == GEN_DNS) {
      lua_pushlstring(L, (const char *)ASN1_STRING_get0_data(name->d.dNSName),
                      (size_t)ASN1_STRING_length(name->d.dNSName));
      lua_rawseti(L, -3, ++names);
    } else if (name->type == GEN_IPADD &&
               push_address(L, ASN1_STRING_get0_data(name->d.iPAddress), ASN1_STRING_length(name->d.iPAddress))) {
      lua_rawseti(L, -2, ++addresses);
    }
  }
  lua_setfield(L, -3, "addresses");
  lua_setfield(L, -2, "names");
}

static X509 *peer_of(const SSL *ssl) {
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
  return SSL_get1_peer_certificate(ssl);
#else
  return SSL_get_peer_certificate(ssl);
#endif
}

void tls_certificate_push(lua_State *L, const SSL *ssl) {
  held *h;
  luaL_checkstack(L, 8, "certificate");
  h = lua_newuserdatauv(L, sizeof *h, 0);
  memset(h, 0, sizeof *h);
  luaL_setmetatable(L, HELD);
  h->x = peer_of(ssl);
  if (h->x == NULL) {
    lua_pushnil(L);
    lua_remove(L, -2);
    return;
  }
  h->text = BIO_new(BIO_s_mem());
  if (h->text == NULL) luaL_error(L, "not enough memory");
  h->names = X509_get_ext_d2i(h->x, NID_subject_alt_name, NULL, NULL);
  lua_createtable(L, 0, 9);
  set_name(L, h, "subject", X509_get_subject_name(h->x));
  set_name(L, h, "issuer", X509_get_issuer_name(h->x));
  (void)i2a_ASN1_INTEGER(h->text, X509_get0_serialNumber(h->x));
  take_field(L, h, "serial");
  (void)PEM_write_bio_X509(h->text, h->x);
  take_field(L, h, "pem");
  set_time(L, "not_before", X509_get0_notBefore(h->x));
  set_time(L, "not_after", X509_get0_notAfter(h->x));
  set_fingerprint(L, h->x);
  set_alternatives(L, h);
  ERR_clear_error();
  lua_remove(L, -2);
}

void tls_certificate_open(lua_State *L) {
  if (luaL_newmetatable(L, HELD)) {
    lua_pushcfunction(L, l_held_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_pop(L, 1);
}
