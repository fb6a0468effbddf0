/* sessions.c - a client's cache of sessions, for resumption: a bounded list, newest first. Owns the sessions.
** Invariant: what is given out can be resumed by the key it was put under, which names all that the session
** was verified against. */
#include <stdlib.h>
#include <string.h>

#include "ext/openssl/tls.h"

#define MOST 256     /* sessions */
#define MOST_OF_KEY 4

typedef struct entry {
  struct entry *next;
  SSL_SESSION *session; /* owned */
  char key[];
} entry;

struct tls_sessions {
  entry *head; /* owned */
  size_t count;
};

tls_sessions *tls_sessions_new(void) { return calloc(1, sizeof(tls_sessions)); }

/* Takes the entry out; its session is the caller's. */
static SSL_SESSION *take_out(tls_sessions *s, entry **link) {
  entry *e = *link;
  SSL_SESSION *session = e->session;
  *link = e->next;
  s->count--;
  free(e);
  return session;
}

void tls_sessions_free(tls_sessions *s) {
  if (s == NULL) return;
  while (s->head != NULL) SSL_SESSION_free(take_out(s, &s->head));
  free(s);
}

/* Lets the oldest of a key go, and the oldest of all. */
static void trim(tls_sessions *s, const char *key) {
  entry **link = &s->head;
  size_t of_key = 0, all = 0;
  while (*link != NULL) {
    if (strcmp((*link)->key, key) == 0) of_key++;
    if (++all > MOST || (of_key > MOST_OF_KEY && strcmp((*link)->key, key) == 0)) {
      SSL_SESSION_free(take_out(s, link));
      all--;
    } else {
      link = &(*link)->next;
    }
  }
}

int tls_sessions_put(tls_sessions *s, const char *key, SSL_SESSION *session) {
  entry *e = malloc(sizeof *e + strlen(key) + 1); /* owned by s */
  if (e == NULL) return 0;
  strcpy(e->key, key);
  e->session = session;
  e->next = s->head;
  s->head = e;
  s->count++;
  trim(s, key);
  return 1;
}

SSL_SESSION *tls_sessions_take(tls_sessions *s, const char *key) {
  entry **link = &s->head;
  while (*link != NULL) {
    if (strcmp((*link)->key, key) != 0) {
      link = &(*link)->next;
    } else if (!SSL_SESSION_is_resumable((*link)->session)) {
      SSL_SESSION_free(take_out(s, link));
    } else if (SSL_SESSION_get_protocol_version((*link)->session) >= TLS1_3_VERSION) {
      return take_out(s, link);
    } else {
      SSL_SESSION *session = (*link)->session;
      return SSL_SESSION_up_ref(session) ? session : NULL;
    }
  }
  return NULL;
}

size_t tls_sessions_count(const tls_sessions *s) { return s->count; }
