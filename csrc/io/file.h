/* file.h - the open file: what file.c (the object and its queue), fileops.c (its operations in Lua),
** filework.c (what they do) and filelines.c (the iterator) share. */
#ifndef AT_IO_FILE_H
#define AT_IO_FILE_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "base/format.h"
#include "core/blocking.h"

#pragma GCC visibility push(hidden)

#define AT_FILE_MT "asynctask.File"
#define AT_FILE_MERGED 64 /* writes in one trip at most */
#define AT_FORMATS_FEW 4 /* formats of a read that need no memory of their own */

/* Bytes [start, end) were read and not yet given out. Unlike base/buffer it keeps its memory: a file
** is read in large pieces one after another. */
typedef struct at_filebuf {
  char *data; /* owned */
  size_t start, end, capacity;
} at_filebuf;

typedef struct at_file at_file;
typedef struct at_fileop at_fileop;

/* The object behind the userdata. Malloc'd: work on a pool thread outlives the userdata. */
struct at_file {
  at_runtime *rt;            /* borrowed; used on the loop thread only */
  at_closable closable;      /* ends the queue when the state closes */
  at_fileop *head, *tail;    /* operations in order of their start; loop thread */
  at_fileop *running;        /* the head, with a pool thread or ended and not yet released */
  atomic_int refs;           /* the userdata and each operation */
  char *path;                /* owned */
  int64_t pos;               /* of the file behind the buffer; the running operation's */
  at_filebuf buf;            /* the running operation's */
  size_t chunk;              /* bytes to read ahead next time */
  int fd;                    /* -1: closed */
  unsigned char readable, writable, append;
  unsigned char seekable;    /* has a position of its own: pread, pwrite */
  unsigned char regular;     /* a regular file */
  unsigned char locked;      /* AT_LOCK_*: what was handed out; 0: nothing. Loop thread */
  unsigned char nowait;      /* cached data may be read on the loop thread */
  unsigned char closing;     /* close was called, or the userdata collected; loop thread */
};

enum at_fileop_kind {
  AT_FILE_READ, AT_FILE_WRITE, AT_FILE_READ_AT, AT_FILE_WRITE_AT, AT_FILE_CLOSE, AT_FILE_SEEK,
  AT_FILE_TRUNCATE, AT_FILE_SYNC, AT_FILE_DATASYNC, AT_FILE_STAT, AT_FILE_LOCK, AT_FILE_UNLOCK
};
enum at_lock { AT_LOCK_SHARED = 1, AT_LOCK_EXCLUSIVE };

struct at_fileop {
  at_work work;
  at_file *file;            /* counted */
  at_fileop *next, *prev;
  unsigned char kind;
  unsigned char linked;     /* in the file's queue */
  unsigned char submitted;  /* with the pool */
  unsigned char ended;      /* at_op_done was called */
  at_fileop *with;          /* write: the next one of the same trip to the pool */
  unsigned char flight;     /* rides with the running one; loop thread */
  atomic_uchar written;     /* has been, or has failed; set by the trip that it rides with */
  unsigned char undo;       /* lock: got, and not handed out */
  atomic_uchar abandoned;   /* its Task was cancelled while it ran */
  char *data;               /* owned: what to write; read_at: what was read */
  size_t length;
  int64_t value;            /* seek, truncate: offset, size; write_at: where; read_at: the count */
  int64_t offset;           /* read_at */
  int whence;               /* seek; lock: which */
  struct stat st;
  at_plan plan;             /* read; nothing leaves the buffer before push (S10) */
  at_item items[];
};

/* ---- file.c ---- */

/* [-0, +1, m] pushes a closed File of that path, to be opened by at_file_adopt, which cannot fail
** and takes the descriptor. */
at_file *at_file_push(lua_State *L, at_runtime *rt, const char *path);
void at_file_adopt(at_file *f, int fd, int flags, const struct stat *st);

/* [-0, +0, v] the file at argument `arg`, open or closed. */
at_file *at_file_check(lua_State *L, int arg);

/* Puts an operation into the queue, which starts it in its turn. No Lua. */
void at_file_enqueue(at_runtime *rt, at_file *f, at_fileop *o);

/* The classes' cancel and release. */
int at_file_op_cancel(at_op *op);
void at_file_op_release(at_op *op);

/* [-0, +1, m] pushes the Task of a close. */
void at_file_start_close(lua_State *L, at_runtime *rt, int file);

/* [-1, +0, e] waits for the Task at the top under a shield: for __close. Tail call. */
int at_file_close_wait(lua_State *L, at_runtime *rt);

int l_file_close(lua_State *L); /* file:close() */

/* ---- fileops.c ---- */

extern const luaL_Reg at_file_methods[];

/* [-0, +1, m] pushes the Task of a new operation, not queued yet; NULL: the Task has settled. */
at_fileop *at_file_new_op(lua_State *L, at_runtime *rt, int file, int kind, int items);

/* [-0, +1, m] pushes a Task that faulted. */
void at_file_push_fault(lua_State *L, at_runtime *rt, const at_file *f, int kind,
                        const char *code, const char *message);

/* [-0, +1, m] pushes the Task of a read; `file` is where the userdata is. The plan is fresh. */
void at_file_start_read(lua_State *L, at_runtime *rt, int file, const at_plan *plan);

/* Tries a fresh plan without waiting: 1 when it is answered (at_file_take pushes it), 0 when it has
** to be started, with a fresh plan (those of several formats always are). Loop thread, no Lua. */
int at_file_try_read(at_runtime *rt, at_file *f, at_plan *plan);

/* [-0, +n, m] pushes the values of an answered plan and takes their bytes from the buffer. */
int at_file_take(lua_State *L, at_file *f, const at_plan *plan);

/* ---- filework.c ---- */

/* What an operation does on a pool thread, by kind. */
extern void (*const at_file_run[])(at_work *w);

/* Searches with what is buffered or cached: 1 when the plan is answered, 0: ask the pool. The loop
** thread, no operation running. */
int at_file_read_cached(at_runtime *rt, at_file *f, at_plan *plan);

/* Moves and gives the new position; a negative status if there is no such place. */
int64_t at_file_seek_to(at_file *f, int whence, int64_t offset, int64_t size);

/* A lock that was got and that nobody receives: what was held before is held again (S10). */
void at_file_undo_lock(at_fileop *o);

/* ---- filelines.c ---- */

int l_file_lines(lua_State *L); /* file:lines(formats...) */

/* [-0, +0, m] each adds its functions to the table at the top. */
void at_file_open(lua_State *L, at_runtime *rt);
void at_filelines_open(lua_State *L, at_runtime *rt);
void at_filesome_open(lua_State *L, at_runtime *rt); /* adds to the methods of files */

#pragma GCC visibility pop

#endif
