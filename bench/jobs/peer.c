/* peer.c - plain C on libuv's pool of threads at the measurements of bench/parallel.lua: the limit. Prints lines
** `name seconds`. Main thread and libuv's two workers; nothing is shared but what libuv locks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define MEGABYTE (1 << 20)

typedef struct text_job {
  uv_work_t work;
  char *sent, *answer; /* owned: the worker's copy, and what comes back */
} text_job;

static char text[MEGABYTE];
static int left;

static void nothing(uv_work_t *w) { (void)w; }

static void one_done(uv_work_t *w, int status) {
  (void)status;
  if (--left > 0) uv_queue_work(uv_default_loop(), w, nothing, one_done);
}

static void one(void) {
  uv_work_t work;
  left = 1000;
  uv_queue_work(uv_default_loop(), &work, nothing, one_done);
  uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

static void many_done(uv_work_t *w, int status) {
  (void)status;
  free(w);
}

static void many(void) {
  int k, i;
  for (k = 0; k < 20; k++) {
    for (i = 0; i < 1000; i++) uv_queue_work(uv_default_loop(), malloc(sizeof(uv_work_t)), nothing, many_done);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
  }
}

/* What a worker with memory of its own has to do: take a copy, give a copy. */
static void text_run(uv_work_t *w) {
  text_job *job = (text_job *)w;
  job->answer = malloc(MEGABYTE);
  memcpy(job->answer, job->sent, MEGABYTE);
}

static void text_done(uv_work_t *w, int status);

static void text_send(text_job *job) {
  job->sent = malloc(MEGABYTE);
  memcpy(job->sent, text, MEGABYTE);
  uv_queue_work(uv_default_loop(), &job->work, text_run, text_done);
}

static void text_done(uv_work_t *w, int status) {
  text_job *job = (text_job *)w;
  (void)status;
  memcpy(text, job->answer, MEGABYTE);
  free(job->sent);
  free(job->answer);
  if (--left > 0) text_send(job);
}

static void string(void) {
  text_job job;
  memset(text, 'x', sizeof text);
  left = 50;
  text_send(&job);
  uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

static void clocked(const char *name, void (*f)(void)) {
  uint64_t began;
  f();
  began = uv_hrtime();
  f();
  printf("%s %.9f\n", name, (double)(uv_hrtime() - began) / 1e9);
}

int main(void) {
  clocked("one", one);
  clocked("many", many);
  clocked("string", string);
  return 0;
}
