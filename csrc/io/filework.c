/* filework.c - what the operations of an open file do: filling the read-ahead buffer, writing, closing,
** storing. Owns nothing; the file's descriptor, position and buffer are the running operation's.
** *_run: pool threads, no Lua; the other functions: loop thread, while nothing runs.
** Invariant: reading only adds to the buffer; what a cancelled read got is there for the next (S10). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/file.h"
#include "io/fs.h"

#define CHUNK_MAX (256 * 1024)  /* bytes to read ahead at most */
#define BLIND_MAX (1024 * 1024) /* asked of a file that does not tell its size, at a time */
#define ROOM_LEAST (64 * 1024)  /* of a read_at whose file does not tell its size */

#define op_of(o) ((at_fileop *)(void *)(o))

/* ---- buffer and position ---- */

/* The position that the user sees. */
static int64_t position(const at_file *f) {
  return f->pos - (int64_t)(f->buf.end - f->buf.start);
}

/* What was read ahead may be stale, or lies elsewhere now. */
static void drop_buffer(at_file *f) {
  f->pos = position(f);
  f->buf.start = f->buf.end = 0;
}

int64_t at_file_seek_to(at_file *f, int whence, int64_t offset, int64_t size) {
  int64_t to = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? position(f) : size, behind;
  if (offset > INT64_MAX - to || to + offset < 0) return UV_EINVAL;
  to += offset;
  behind = f->pos - to;
  if (behind >= 0 && behind <= (int64_t)(f->buf.end - f->buf.start)) {
    f->buf.start = f->buf.end - (size_t)behind;
  } else {
    f->buf.start = f->buf.end = 0;
    f->pos = to;
  }
  return to;
}

/* Room for `more` bytes behind `end`; 0 or UV_ENOMEM. */
static int reserve(at_filebuf *b, size_t more) {
  size_t held = b->end - b->start, capacity = b->capacity;
  char *data;
  if (more <= b->capacity - b->end) return 0;
  if (held <= b->start && more <= b->capacity - held) { /* the front is free: no overlap */
    memcpy(b->data, b->data + b->start, held);
  } else {
    if (more > SIZE_MAX / 4 || held > SIZE_MAX / 4) return UV_ENOMEM;
    if (capacity < held + more) capacity = held + more + (held > more ? held / 2 : 0);
    data = malloc(capacity);
    if (data == NULL) return UV_ENOMEM;
    if (held > 0) memcpy(data, b->data + b->start, held);
    free(b->data);
    b->data = data;
    b->capacity = capacity;
  }
  b->start = 0;
  b->end = held;
  return 0;
}

/* ---- reading ---- */

static int search(at_plan *plan, const at_filebuf *b, int ended) {
  const char *bytes = b->data != NULL ? b->data + b->start : "";
  return at_format_search(plan, bytes, b->end - b->start, ended);
}

/* How many more bytes the plan is known to want: 0 if its format does not say. */
static size_t wanted(const at_plan *plan, const at_filebuf *b) {
  const at_item *item = &plan->items[plan->found];
  size_t have = b->end - b->start - plan->end;
  if (item->format == AT_FORMAT_COUNT && item->limit > have) return item->limit - have;
  return item->format == AT_FORMAT_ALL ? have : 0; /* all: doubles */
}

/* Bytes to ask for: what is wanted, or some more to read ahead. */
static size_t ask(at_file *f, size_t want) {
  if (want < f->chunk) want = f->chunk;
  if (f->chunk < CHUNK_MAX) f->chunk *= 2;
  return want;
}

int at_file_read_cached(at_runtime *rt, at_file *f, at_plan *plan) {
  int ended = 0, found;
  while ((found = search(plan, &f->buf, ended)) == 0) {
    size_t want = wanted(plan, &f->buf);
    ssize_t n;
    if (!f->nowait || want > AT_CACHED_PIECE || !at_cached_allowed(rt)) return 0;
    want = ask(f, want);
    if (reserve(&f->buf, want) != 0) return 0;
    n = at_cached_read(f->fd, f->buf.data + f->buf.end, want, f->pos, &f->nowait);
    if (n < 0) return 0;
    at_cached_charge(rt, (size_t)n);
    f->buf.end += (size_t)n;
    f->pos += n;
    ended = n == 0;
  }
  return found > 0; /* what is wrong is said by the trip */
}

/* The bytes to ask for in a trip: to the end at once for a large wish, with one more to meet it. */
static size_t ask_blocking(at_file *f, const at_plan *plan) {
  size_t want = wanted(plan, &f->buf), rest = BLIND_MAX;
  int all = plan->items[plan->found].format == AT_FORMAT_ALL;
  struct stat st;
  if ((all || want > f->chunk) && f->seekable && fstat(f->fd, &st) == 0 && st.st_size > f->pos) {
    rest = (size_t)(st.st_size - f->pos) + 1;
    if (all) want = rest;
  }
  return ask(f, want < rest ? want : rest);
}

static ssize_t read_piece(at_file *f, size_t want) {
  char *to = f->buf.data + f->buf.end;
  ssize_t n;
  do {
    n = f->seekable ? pread(f->fd, to, want, (off_t)f->pos) : read(f->fd, to, want);
  } while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

static void read_run(at_work *w) {
  at_fileop *o = op_of(w);
  at_file *f = o->file;
  int ended = 0, found;
  while ((found = search(&o->plan, &f->buf, ended)) == 0 && !atomic_load(&o->abandoned)) {
    size_t want = ask_blocking(f, &o->plan);
    ssize_t n = reserve(&f->buf, want);
    if (n == 0) n = read_piece(f, want);
    if (n < 0) {
      w->op.status = (int)n;
      return;
    }
    f->buf.end += (size_t)n;
    f->pos += n;
    ended = n == 0;
  }
  if (found < 0) w->op.status = found;
}

/* ---- writing, and reading elsewhere ---- */

/* Pieces of the writes from `o` on, of which `done` bytes are written; how many. */
static int pieces_of(const at_fileop *o, size_t done, struct iovec *pieces) {
  int n = 0;
  for (; o != NULL; o = o->with, done = 0) {
    if (o->length == done) continue;
    pieces[n].iov_base = o->data + done;
    pieces[n++].iov_len = o->length - done;
  }
  return n;
}

/* n bytes more are written: marks the writes that are complete, gives the one to go on with. */
static at_fileop *step(at_fileop *o, size_t *done, size_t n) {
  while (o != NULL && n >= o->length - *done) {
    n -= o->length - *done;
    *done = 0;
    o->written = 1;
    o = o->with;
  }
  *done += n;
  return o;
}

/* A write and those that share its trip. The first that fails ends the trip: the ones behind it are
** tried by themselves. */
static void write_run(at_work *w) {
  at_fileop *o = op_of(w);
  at_file *f = o->file;
  struct iovec pieces[AT_FILE_MERGED];
  size_t done = 0;
  if (f->seekable) drop_buffer(f);
  o = step(o, &done, 0);
  while (o != NULL) {
    int count = pieces_of(o, done, pieces);
    ssize_t n = f->seekable && !f->append ? pwritev(f->fd, pieces, count, (off_t)f->pos)
                                          : writev(f->fd, pieces, count);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      o->work.op.status = -errno;
      o->written = 1;
      break;
    }
    f->pos += n;
    o = step(o, &done, (size_t)n);
  }
  if (f->append && f->seekable) {
    off_t end = lseek(f->fd, 0, SEEK_CUR);
    if (end >= 0) f->pos = end;
  }
}

static void write_at_run(at_work *w) {
  at_fileop *o = op_of(w);
  at_file *f = o->file;
  size_t done = 0;
  drop_buffer(f); /* it may lie there */
  while (done < o->length) {
    ssize_t n = pwrite(f->fd, o->data + done, o->length - done, (off_t)(o->value + (int64_t)done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      w->op.status = -errno;
      break;
    }
    done += (size_t)n;
  }
}

/* Bytes to have room for: what is there by the file's own word, and one more to meet the end. */
static size_t room_at(const at_fileop *o) {
  int64_t want = o->value > 0 ? o->value : 1, rest = 0;
  struct stat st;
  if (fstat(o->file->fd, &st) == 0 && st.st_size > o->offset) rest = st.st_size - o->offset;
  if (rest < ROOM_LEAST) rest = ROOM_LEAST;
  return (size_t)(want <= rest ? want : rest + 1);
}

/* Position and buffer stay as they are. */
static void read_at_run(at_work *w) {
  at_fileop *o = op_of(w);
  size_t want = o->value > 0 ? (size_t)o->value : 1, room = room_at(o);
  ssize_t n = 1;
  o->data = malloc(room);
  if (o->data == NULL) w->op.status = UV_ENOMEM;
  while (w->op.status == 0 && o->length < want && n != 0 && !atomic_load(&o->abandoned)) {
    if (o->length == room) { /* it has grown */
      char *data = realloc(o->data, room *= 2);
      if (data == NULL) {
        w->op.status = UV_ENOMEM;
        break;
      }
      o->data = data;
    }
    n = pread(o->file->fd, o->data + o->length, (want < room ? want : room) - o->length,
              (off_t)(o->offset + (int64_t)o->length));
    if (n > 0) o->length += (size_t)n;
    else if (n < 0 && errno != EINTR) w->op.status = -errno;
  }
}

/* ---- locks ---- */

static const int lock_flags[] = {
    [0] = LOCK_UN, [AT_LOCK_SHARED] = LOCK_SH, [AT_LOCK_EXCLUSIVE] = LOCK_EX};

static int lock(const at_file *f, int which) {
  int failed;
  do {
    failed = flock(f->fd, lock_flags[which] | LOCK_NB);
  } while (failed && errno == EINTR);
  return failed ? -errno : 0;
}

static void lock_run(at_work *w) {
  at_fileop *o = op_of(w);
  int status = lock(o->file, o->whence);
  o->undo = status == 0;
  if (status != -EWOULDBLOCK) w->op.status = status;
}

static void unlock_run(at_work *w) {
  at_fileop *o = op_of(w);
  w->op.status = lock(o->file, 0);
  o->file->locked = 0;
}

void at_file_undo_lock(at_fileop *o) { (void)lock(o->file, o->file->locked); /* nobody to tell */ }

/* ---- the end ---- */

static void close_run(at_work *w) {
  at_file *f = op_of(w)->file;
  int fd = f->fd;
  f->fd = -1;
  if (close(fd) != 0 && errno != EINTR) w->op.status = -errno; /* EINTR: it is closed (Linux) */
}

/* stat, and the size for a seek from the end */
static void stat_run(at_work *w) {
  at_fileop *o = op_of(w);
  if (fstat(o->file->fd, &o->st) != 0) w->op.status = -errno;
}

static void truncate_run(at_work *w) {
  at_fileop *o = op_of(w);
  at_file *f = o->file;
  int64_t size = o->value;
  drop_buffer(f);
  if (size < 0) size = f->pos;
  if (ftruncate(f->fd, (off_t)size) != 0) w->op.status = -errno;
}

static void sync_run(at_work *w) {
  at_fileop *o = op_of(w);
#ifdef __APPLE__
  int failed = fsync(o->file->fd);
#else
  int failed = o->kind == AT_FILE_DATASYNC ? fdatasync(o->file->fd) : fsync(o->file->fd);
#endif
  if (failed) w->op.status = -errno;
}

void (*const at_file_run[])(at_work *w) = {
    [AT_FILE_READ] = read_run,         [AT_FILE_WRITE] = write_run, [AT_FILE_CLOSE] = close_run,
    [AT_FILE_SEEK] = stat_run,         [AT_FILE_SYNC] = sync_run,   [AT_FILE_DATASYNC] = sync_run,
    [AT_FILE_TRUNCATE] = truncate_run, [AT_FILE_STAT] = stat_run,
    [AT_FILE_READ_AT] = read_at_run,   [AT_FILE_WRITE_AT] = write_at_run,
    [AT_FILE_LOCK] = lock_run,         [AT_FILE_UNLOCK] = unlock_run};
