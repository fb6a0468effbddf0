/* load.c - load generator for echo servers: `load PORT CONNECTIONS SECONDS [BYTES]`. Each connection sends a
** message, waits for all of it, and sends the next. Prints "requests/s p50 p99" (microseconds) on one line.
** One thread, epoll; latencies in a histogram of 1% buckets. The first tenth of the time is not counted. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 2400 /* 1% apart: from 0.1 us to a day */

typedef struct connection {
  int fd;
  int got;
  int64_t began;
} connection;

static char message[65536], answer[65536];
static int64_t histogram[BUCKETS];

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static int dial(int port) {
  struct sockaddr_in a;
  int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&a, 0, sizeof a);
  a.sin_family = AF_INET;
  a.sin_port = htons((uint16_t)port);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0) die("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static void ask(connection *c, int bytes) {
  c->got = 0;
  c->began = now();
  if (send(c->fd, message, (size_t)bytes, MSG_NOSIGNAL) != bytes) die("send");
}

static int bucket(int64_t ns) {
  int i = (int)(log((double)(ns < 100 ? 100 : ns) / 100.0) / log(1.01));
  return i < BUCKETS ? i : BUCKETS - 1;
}

static double percentile(int64_t total, double part) {
  int64_t seen = 0, wanted = (int64_t)((double)total * part);
  int i;
  for (i = 0; i < BUCKETS - 1 && seen + histogram[i] <= wanted; i++) seen += histogram[i];
  return 100.0 * pow(1.01, i + 0.5) / 1000.0;
}

int main(int argc, char **argv) {
  int port = argc > 1 ? atoi(argv[1]) : 0, count = argc > 2 ? atoi(argv[2]) : 1, i;
  double seconds = argc > 3 ? atof(argv[3]) : 1;
  int bytes = argc > 4 ? atoi(argv[4]) : 64;
  int64_t begin, counted, end, requests = 0;
  struct epoll_event events[1024];
  connection *all = calloc((size_t)count, sizeof *all);
  int queue = epoll_create1(0);
  if (port == 0 || all == NULL || queue < 0 || bytes > (int)sizeof message) return 2;
  memset(message, 'x', sizeof message);
  message[bytes - 1] = '\n';
  for (i = 0; i < count; i++) {
    struct epoll_event e;
    memset(&e, 0, sizeof e);
    e.events = EPOLLIN;
    e.data.ptr = &all[i];
    all[i].fd = dial(port);
    epoll_ctl(queue, EPOLL_CTL_ADD, all[i].fd, &e);
  }
  begin = now();
  counted = begin + (int64_t)(seconds * 1e8);
  end = begin + (int64_t)(seconds * 1e9);
  for (i = 0; i < count; i++) ask(&all[i], bytes);
  for (;;) {
    int n = epoll_wait(queue, events, 1024, 2000);
    int64_t t = now();
    if (n == 0) {
      fprintf(stderr, "load: no answer\n");
      return 1;
    }
    if (t > end) break;
    for (i = 0; i < n; i++) {
      connection *c = events[i].data.ptr;
      ssize_t got = recv(c->fd, answer, sizeof answer, 0);
      if (got <= 0) die("recv");
      c->got += (int)got;
      if (c->got < bytes) continue;
      t = now();
      if (t > counted) {
        histogram[bucket(t - c->began)]++;
        requests++;
      }
      ask(c, bytes);
    }
  }
  printf("%.0f %.1f %.1f\n", (double)requests / ((double)(end - counted) / 1e9), percentile(requests, 0.5),
         percentile(requests, 0.99));
  return 0;
}
