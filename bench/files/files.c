/* files.c - the limit, for bench/files.lua: the same jobs in C. Prints the seconds that each took.
**   files small-blocking DIR N     open, fstat, read, close, one file after another
**   files small-uv DIR N           libuv's four operations, 64 files in flight
**   files pieces FILE              read(2) of 64 KiB
**   files lines FILE               getline(3) */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define IN_FLIGHT 64
#define PIECE 65536

static const char *directory;
static int files, next_file;
static size_t bytes;

static void name_of(char *name, size_t size, int i) {
  snprintf(name, size, "%s/%d/%d", directory, i % 100, i);
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void small_blocking(void) {
  char name[4096], *data;
  struct stat st;
  for (int i = 0; i < files; i++) {
    name_of(name, sizeof name, i);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) fail(name);
    data = malloc((size_t)st.st_size);
    bytes += (size_t)read(fd, data, (size_t)st.st_size);
    close(fd);
    free(data);
  }
}

typedef struct job {
  uv_fs_t req;
  uv_file fd;
  uv_buf_t buf;
} job;

static void start(job *j);

static void on_closed(uv_fs_t *req) {
  job *j = req->data;
  uv_fs_req_cleanup(req);
  free(j->buf.base);
  start(j);
}

static void on_read(uv_fs_t *req) {
  job *j = req->data;
  bytes += (size_t)req->result;
  uv_fs_req_cleanup(req);
  uv_fs_close(uv_default_loop(), &j->req, j->fd, on_closed);
}

static void on_stat(uv_fs_t *req) {
  job *j = req->data;
  j->buf = uv_buf_init(malloc(req->statbuf.st_size), (unsigned)req->statbuf.st_size);
  uv_fs_req_cleanup(req);
  uv_fs_read(uv_default_loop(), &j->req, j->fd, &j->buf, 1, 0, on_read);
}

static void on_open(uv_fs_t *req) {
  job *j = req->data;
  if (req->result < 0) fail(req->path);
  j->fd = (uv_file)req->result;
  uv_fs_req_cleanup(req);
  uv_fs_fstat(uv_default_loop(), &j->req, j->fd, on_stat);
}

static void start(job *j) {
  char name[4096];
  if (next_file == files) return;
  name_of(name, sizeof name, next_file++);
  j->req.data = j;
  uv_fs_open(uv_default_loop(), &j->req, name, O_RDONLY, 0, on_open);
}

static void small_uv(void) {
  static job jobs[IN_FLIGHT];
  for (int i = 0; i < IN_FLIGHT; i++) start(&jobs[i]);
  uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

static void pieces(void) {
  static char data[PIECE];
  ssize_t n;
  int fd = open(directory, O_RDONLY);
  if (fd < 0) fail(directory);
  while ((n = read(fd, data, sizeof data)) > 0) bytes += (size_t)n;
  close(fd);
}

static void lines(void) {
  char *line = NULL;
  size_t size = 0;
  ssize_t n;
  FILE *f = fopen(directory, "r");
  if (f == NULL) fail(directory);
  while ((n = getline(&line, &size, f)) > 0) bytes += (size_t)n;
  fclose(f);
  free(line);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  directory = argv[2];
  files = argc > 3 ? atoi(argv[3]) : 0;
  uint64_t began = uv_hrtime();
  if (strcmp(argv[1], "small-blocking") == 0) small_blocking();
  else if (strcmp(argv[1], "small-uv") == 0) small_uv();
  else if (strcmp(argv[1], "pieces") == 0) pieces();
  else lines();
  printf("%.9f %zu\n", (double)(uv_hrtime() - began) * 1e-9, bytes);
  return 0;
}
