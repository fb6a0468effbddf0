/* perturb.c - a library for LD_PRELOAD that sleeps now and then around what threads do with each other: locks,
** conditions, wake-ups through descriptors, signals, starts of threads. PERTURB_SEED chooses the sequence of each thread, PERTURB_MICROSECONDS
** the longest sleep (200). Interleavings that a quiet machine never shows become common. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static atomic_uint threads;
static _Thread_local uint64_t state;

static void perturb(void) {
  static int longest = -1;
  static uint64_t seed;
  if (longest < 0) {
    const char *s = getenv("PERTURB_SEED"), *n = getenv("PERTURB_MICROSECONDS");
    seed = s != NULL ? strtoull(s, NULL, 10) : 0;
    longest = s == NULL ? 0 : n != NULL ? atoi(n) : 200;
  }
  if (longest == 0) return;
  if (state == 0) state = (seed + 1) * 0x9e3779b97f4a7c15u + atomic_fetch_add(&threads, 1) * 0xbf58476d1ce4e5b9u + 1;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  if (state % 8 == 0) {
    struct timespec t = {0, (long)(state / 8 % (uint64_t)longest) * 1000};
    nanosleep(&t, NULL);
  }
}

#define AROUND(type, name, call, ...)                                                               \
  type name(__VA_ARGS__);                                                                           \
  type name(__VA_ARGS__) {                                                                          \
    static type (*next)(__VA_ARGS__);                                                               \
    type result;                                                                                    \
    if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, #name);                                    \
    perturb();                                                                                      \
    result = next call;                                                                             \
    perturb();                                                                                      \
    return result;                                                                                  \
  }

AROUND(int, pthread_mutex_lock, (m), pthread_mutex_t *m)
AROUND(int, pthread_mutex_unlock, (m), pthread_mutex_t *m)
AROUND(int, pthread_cond_signal, (c), pthread_cond_t *c)
AROUND(int, pthread_cond_broadcast, (c), pthread_cond_t *c)
AROUND(int, pthread_cond_wait, (c, m), pthread_cond_t *c, pthread_mutex_t *m)
AROUND(int, pthread_kill, (t, s), pthread_t t, int s)
AROUND(int, pthread_create, (t, a, f, v), pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *v)
AROUND(ssize_t, write, (fd, p, n), int fd, const void *p, size_t n)
AROUND(ssize_t, read, (fd, p, n), int fd, void *p, size_t n)
