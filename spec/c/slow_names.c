/* slow_names.c - a getaddrinfo that takes its time, preloaded by spec/io/dns_spec.lua: every name is
** 127.0.0.1, after 50 ms; "hang" after ten seconds. */
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
  struct sockaddr_in *name = calloc(1, sizeof *name);
  (void)service;
  usleep(strcmp(host, "hang") == 0 ? 10000000 : 50000);
  *out = calloc(1, sizeof **out);
  name->sin_family = AF_INET;
  name->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  (*out)->ai_family = AF_INET;
  (*out)->ai_socktype = hints->ai_socktype;
  (*out)->ai_addr = (struct sockaddr *)name;
  (*out)->ai_addrlen = sizeof *name;
  return 0;
}

void freeaddrinfo(struct addrinfo *list) {
  free(list->ai_addr);
  free(list);
}
