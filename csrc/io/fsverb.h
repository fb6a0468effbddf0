/* fsverb.h - an operation on a path: what fs.c fills in and fsverb.c carries out. */
#ifndef AT_IO_FSVERB_H
#define AT_IO_FSVERB_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "core/blocking.h"

#pragma GCC visibility push(hidden)

enum at_verb {
  AT_VERB_OPEN, AT_VERB_STAT, AT_VERB_LSTAT, AT_VERB_EXISTS, AT_VERB_MKDIR, AT_VERB_REMOVE,
  AT_VERB_RENAME, AT_VERB_LINK, AT_VERB_SYMLINK, AT_VERB_CHMOD, AT_VERB_TRUNCATE, AT_VERB_UTIME,
  AT_VERB_COPY, AT_VERB_REALPATH, AT_VERB_READLINK, AT_VERB_MKDTEMP, AT_VERB_CHOWN,
  AT_VERB_STATFS, AT_VERB_TMPFILE, AT_VERB_GLOB
};

typedef struct at_pathop {
  at_work work;
  char *path, *path2;  /* owned; path2 or NULL */
  char *beneath;       /* owned; open: the directory that the path must not leave, or NULL */
  int flags;           /* open flags; options of the verb */
  int permissions;
  int64_t number;      /* truncate: the size; exists: the answer */
  double atime, mtime; /* utime: seconds since the epoch; NaN: now */
  uid_t uid;           /* chown; -1: as it is */
  gid_t gid;
  int fd;              /* owned; open: -1 when there is none */
  int made;            /* mkdtemp: exists and was not handed out */
  char *text;          /* owned: a path that is the result */
  char **names;        /* owned: glob's result, name_count of them */
  size_t name_count;
  atomic_uchar abandoned; /* cancelled while it ran: stop where you can */
  struct stat st;
  uv_statfs_t fs;
} at_pathop;

/* What each verb does on a pool thread. */
extern void (*const at_verb_run[])(at_work *w);
void at_copy_run(at_work *w);   /* fscopy.c */
void at_remove_run(at_work *w); /* fsremove.c */
void at_glob_run(at_work *w);   /* fsglob.c */

#pragma GCC visibility pop

#endif
