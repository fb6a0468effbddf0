/* fs.h - what the files of the fs family share: cached access on the loop thread, stat tables,
** opening with io's modes. */
#ifndef AT_IO_FS_H
#define AT_IO_FS_H

#include <sys/stat.h>
#include <sys/types.h>

#include "core/blocking.h"

#pragma GCC visibility push(hidden)

/* ---- fscached.c: files whose data is in memory, read on the loop thread (Linux) ---- */

#define AT_CACHED_WHOLE (64 * 1024)  /* the largest file that read_file reads so */
#define AT_CACHED_PIECE (256 * 1024) /* the largest piece that file:read reads so */

/* True if this turn of the loop may still read on the loop thread. */
int at_cached_allowed(const at_runtime *rt);
/* Charges bytes to the turn: its budget of awaits that did not wait. */
void at_cached_charge(at_runtime *rt, size_t bytes);
/* A descriptor of the regular file for reading, or -1: ask the pool. Never blocks. With `beneath`
** the path begins in that directory and does not leave it. */
int at_cached_open(const char *beneath, const char *path, struct stat *st);
/* Bytes read, 0 at the end, or -1: ask the pool; *able is cleared if that will always be so. */
ssize_t at_cached_read(int fd, void *data, size_t size, int64_t at, unsigned char *able);
/* 1 if st was filled in without blocking, else 0. */
int at_cached_stat(const char *path, int follow, struct stat *st);

/* ---- fs.c, fsverb.c ---- */

/* [-0, +1, m] the table of a stat. */
void at_fs_push_stat(lua_State *L, const struct stat *st);
/* The name of a type in st_mode: "file", "directory", "link", ... */
const char *at_fs_type(unsigned mode);
/* [-0, +0, v] the open(2) flags of io's mode string at `arg` ("r" if none). */
int at_fs_check_mode(lua_State *L, int arg);
/* open(2) that does not inherit; a descriptor or a negative status. Blocks. */
int at_fs_open_fd(const char *path, int flags, int permissions, struct stat *st);
/* fstat of a descriptor that was opened: it again, or a negative status (a directory: EISDIR); then
** it is closed. */
int at_fs_accept_fd(int fd, struct stat *st);
/* As at_fs_open_fd, from the directory on and never out of it (EXDEV). Does not wait for a FIFO's
** writer. fsbeneath.c. Blocks. */
int at_fs_open_beneath(const char *directory, const char *path, int flags, int permissions,
                       struct stat *st);

/* [-0, +1, m] pushes the Task of a File opened with these flags; with `beneath` (or NULL) a path
** that begins in that directory and does not leave it. */
void at_fs_start_open(lua_State *L, at_runtime *rt, const char *beneath, const char *path,
                      int flags, int permissions);

/* [-0, +0, m] each adds its functions to the table at the top. */
void at_fs_open(lua_State *L, at_runtime *rt);
void at_fswhole_open(lua_State *L, at_runtime *rt);
void at_fsdir_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
