/* fswalk.h - a directory or a tree that is being read: between fsdir.c (the object and its operations) and
** fswalk.c (what they do on pool threads). */
#ifndef AT_IO_FSWALK_H
#define AT_IO_FSWALK_H

#include <dirent.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "core/blocking.h"

#pragma GCC visibility push(hidden)

#define AT_WALK_BATCH 256

/* A directory that is walked children first comes twice: on the way in, for the filter, and out. */
enum at_walk_phase { AT_WALK_ONCE, AT_WALK_IN, AT_WALK_OUT };

typedef struct at_walk_entry {
  char *path;         /* owned */
  size_t name;        /* where its last part begins */
  int depth, error;   /* error: why it could not be read, or looked at; 0 */
  unsigned char has_stat;
  unsigned char phase; /* AT_WALK_*: of a directory that is walked children first */
  struct stat st;     /* st_mode's type at least */
} at_walk_entry;

/* A directory that is being walked: its names, sorted. */
typedef struct at_walk_name {
  const char *text;   /* in the frame's */
  size_t at;          /* where it begins there */
  unsigned char type; /* d_type */
} at_walk_name;

typedef struct at_walk_frame {
  char *text;          /* owned: all the names, one behind the other */
  at_walk_name *names; /* owned */
  size_t count, next;
  size_t length; /* of the path up to this directory */
  dev_t dev;
  ino_t ino;
  size_t name;   /* where its own last part begins */
  struct stat st; /* children first: what its second entry will say */
  unsigned char has_stat;
} at_walk_frame;

struct walk_op;

typedef struct at_walker {
  at_closable closable;
  atomic_int refs;          /* the userdata and each operation */
  struct walk_op *running, *waiting; /* loop thread */
  unsigned char closed;     /* loop thread */
  unsigned char stream, follow, stat, post; /* post: children first */
  int depth;                /* of entries at most */
  char *root;               /* owned; as it was given */
  /* the running operation's: */
  unsigned char started, finished;
  int failed;               /* why it finished early; told when the batch is empty */
  char *path;               /* owned: of the entry under way */
  size_t length, capacity;
  at_walk_frame *frames;            /* owned: the way down */
  int frame_count, frame_capacity;
  DIR *dir;                 /* owned: of a stream */
  at_walk_entry batch[AT_WALK_BATCH];
  int count;
} at_walker;

/* Fills the batch; leaves directories deeper than `prune` (-1: none) first. */
void at_walk_fill(at_walker *w, int prune);
/* 0, or UV_ENOMEM: the path of the entry under way becomes its first bytes, a slash, and the text. */
int at_walk_set_path(at_walker *w, size_t length, const char *text);
void at_walk_clear(at_walker *w); /* the batch */
void at_walk_close(at_walker *w); /* all that it holds but its own memory */

#pragma GCC visibility pop

#endif
