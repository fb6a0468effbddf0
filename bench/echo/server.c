/* server.c - the peer to be measured by: an echo server in plain C on libuv, as simple as it can be. */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

static char memory[65536];

static void on_closed(uv_handle_t *h) { free(h); }

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *buffer) {
  (void)h;
  (void)size;
  *buffer = uv_buf_init(memory, sizeof memory);
}

/* Small echoes never fill the socket's buffer: what uv_try_write does not take ends the connection. */
static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buffer) {
  uv_buf_t out;
  if (n == 0) return;
  if (n > 0) {
    out = uv_buf_init(buffer->base, (unsigned)n);
    if (uv_try_write(s, &out, 1) == n) return;
  }
  uv_close((uv_handle_t *)s, on_closed);
}

static void on_connection(uv_stream_t *server, int status) {
  uv_tcp_t *client = malloc(sizeof *client);
  if (status < 0 || client == NULL) abort();
  uv_tcp_init(server->loop, client);
  if (uv_accept(server, (uv_stream_t *)client) != 0) abort();
  uv_tcp_nodelay(client, 1);
  uv_read_start((uv_stream_t *)client, on_alloc, on_read);
}

int main(void) {
  uv_loop_t *loop = uv_default_loop();
  struct sockaddr_in a;
  int size = sizeof a;
  uv_tcp_t server;
  uv_ip4_addr("127.0.0.1", 0, &a);
  uv_tcp_init(loop, &server);
  uv_tcp_bind(&server, (struct sockaddr *)&a, 0);
  if (uv_listen((uv_stream_t *)&server, 1024, on_connection) != 0) return 1;
  uv_tcp_getsockname(&server, (struct sockaddr *)&a, &size);
  printf("%d\n", ntohs(a.sin_port));
  fflush(stdout);
  return uv_run(loop, UV_RUN_DEFAULT);
}
