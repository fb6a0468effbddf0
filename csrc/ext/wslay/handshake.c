/* handshake.c - the two values of WebSocket's opening handshake (RFC 6455, section 4): the
** client's key and the server's answer, base64 of a SHA-1 (FIPS 180-4). Own code: the hash
** protects nothing here (it shows that the server speaks the protocol), and a cryptographic
** library for it would be a dependency. Pure. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ext/wslay/session.h"

#include <string.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

#define BLOCK 64
#define DIGEST 20

typedef struct sha1 {
  uint32_t h[5];
  uint64_t length; /* bytes so far */
  uint8_t block[BLOCK];
} sha1;

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static uint32_t word_at(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

/* One of the 80 rounds' functions with its constant. */
static uint32_t mix(int round, uint32_t b, uint32_t c, uint32_t d) {
  if (round < 20) return ((b & c) | (~b & d)) + 0x5A827999u;
  if (round < 40) return (b ^ c ^ d) + 0x6ED9EBA1u;
  if (round < 60) return ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDCu;
  return (b ^ c ^ d) + 0xCA62C1D6u;
}

static void compress(sha1 *s) {
  uint32_t w[80], a = s->h[0], b = s->h[1], c = s->h[2], d = s->h[3], e = s->h[4], next;
  int i;
  for (i = 0; i < 16; i++) w[i] = word_at(s->block + 4 * i);
  for (; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  for (i = 0; i < 80; i++) {
    next = rotate(a, 5) + mix(i, b, c, d) + e + w[i];
    e = d;
    d = c;
    c = rotate(b, 30);
    b = a;
    a = next;
  }
  s->h[0] += a;
  s->h[1] += b;
  s->h[2] += c;
  s->h[3] += d;
  s->h[4] += e;
}

static void add(sha1 *s, const void *data, size_t size) {
  const uint8_t *p = data;
  for (; size > 0; size--) {
    s->block[s->length++ % BLOCK] = *p++;
    if (s->length % BLOCK == 0) compress(s);
  }
}

static void finish(sha1 *s, uint8_t digest[DIGEST]) {
  uint64_t bits = s->length * 8;
  uint8_t tail[8];
  int i;
  add(s, "\x80", 1);
  while (s->length % BLOCK != BLOCK - 8) add(s, "", 1);
  for (i = 0; i < 8; i++) tail[i] = (uint8_t)(bits >> (56 - 8 * i));
  add(s, tail, sizeof tail);
  for (i = 0; i < DIGEST; i++) digest[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t *data, size_t size, char *text) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (; size > 0; text += 4) {
    size_t n = size < 3 ? size : 3, i;
    uint32_t three = 0;
    for (i = 0; i < 3; i++) three = three << 8 | (i < n ? data[i] : 0u);
    for (i = 0; i < 4; i++) text[i] = i <= n ? digits[three >> (18 - 6 * i) & 63] : '=';
    data += n;
    size -= n;
  }
}

void ws_handshake_accept(const char *key, size_t size, char accept[WS_ACCEPT_SIZE]) {
  static const char suffix[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455, 1.3 */
  sha1 s = {.h = {0x67452301u, 0xEFCDAB89u, 0x98BADCFEu, 0x10325476u, 0xC3D2E1F0u}};
  uint8_t digest[DIGEST];
  add(&s, key, size);
  add(&s, suffix, sizeof suffix - 1);
  finish(&s, digest);
  base64(digest, sizeof digest, accept);
}

int ws_handshake_key(char key[WS_KEY_SIZE]) {
  uint8_t random[16];
  if (getentropy(random, sizeof random) != 0) return -1;
  base64(random, sizeof random, key);
  return 0;
}
