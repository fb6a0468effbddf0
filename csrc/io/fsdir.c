/* fsdir.c - reading directories: asynctask.Walker, which gives the entries of a tree (or of one
** directory, streamed) in batches, one trip to the pool each. The iterators walk and dir stand on it
** in Lua. Owns the names of the directories on the way (a tree's are sorted, so the order is
** defined), the open directory of a stream, the batch.
** Lua functions, push, cancel and release: loop thread; walk_run: pool threads.
** Invariants: one operation at a time touches the walker (walker->running), the next waits; entries
** leave the batch only when they are handed to Lua, so a cancelled read loses none. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arg.h"
#include "base/error.h"
#include "io/fs.h"

#define AT_WALKER_MT "asynctask.Walker"
#define BATCH 256

typedef struct entry {
  char *path;         /* owned */
  size_t name;        /* where its last part begins */
  int depth, error;   /* error: why a directory could not be read; 0 */
  int has_stat;
  struct stat st;     /* st_mode's type at least */
} entry;

/* A directory that is being walked: its names, sorted. */
typedef struct name {
  char *text;         /* owned */
  unsigned char type; /* d_type */
} name;

typedef struct frame {
  name *names; /* owned */
  size_t count, next;
  size_t length; /* of the path up to this directory */
  dev_t dev;
  ino_t ino;
} frame;

typedef struct walk_op walk_op;

typedef struct walker {
  at_closable closable;
  atomic_int refs;          /* the userdata and each operation */
  walk_op *running, *waiting; /* loop thread */
  unsigned char closed;     /* loop thread */
  unsigned char stream, follow, stat;
  int depth;                /* of entries at most */
  char *root;               /* owned; as it was given */
  /* the running operation's: */
  unsigned char started, finished;
  int failed;               /* why it finished early; told when the batch is empty */
  char *path;               /* owned: of the entry under way */
  size_t length, capacity;
  frame *frames;            /* owned: the way down */
  int frame_count, frame_capacity;
  DIR *dir;                 /* owned: of a stream */
  entry batch[BATCH];
  int count;
} walker;

struct walk_op {
  at_work work;
  walker *walker; /* counted */
  int prune;      /* leave directories deeper than this; -1: none */
  unsigned char submitted, ended;
};

typedef struct walker_box {
  walker *walker; /* counted; NULL: not made yet, or collected */
} walker_box;

#define op_of(o) ((walk_op *)(void *)(o))

/* ---- memory ---- */

static void pop_frame(walker *w) {
  frame *f = &w->frames[--w->frame_count];
  size_t i;
  for (i = 0; i < f->count; i++) free(f->names[i].text);
  free(f->names);
}

static void clear_batch(walker *w) {
  int i;
  for (i = 0; i < w->count; i++) free(w->batch[i].path);
  w->count = 0;
}

static void walker_unref(walker *w) {
  if (atomic_fetch_sub(&w->refs, 1) != 1) return;
  at_closable_remove(&w->closable); /* on another thread the state has closed: it is in no list */
  while (w->frame_count > 0) pop_frame(w);
  clear_batch(w);
  if (w->dir != NULL) (void)closedir(w->dir); /* for reading only */
  free(w->frames);
  free(w->path);
  free(w->root);
  free(w);
}

/* The path becomes its first `length` bytes, a slash if it needs one, and the name. */
static int set_path(walker *w, size_t length, const char *text) {
  size_t more = strlen(text);
  if (length + more + 2 > w->capacity) {
    size_t capacity = (length + more + 2) * 2;
    char *path = realloc(w->path, capacity);
    if (path == NULL) return UV_ENOMEM;
    w->path = path;
    w->capacity = capacity;
  }
  if (length > 0 && w->path[length - 1] != '/') w->path[length++] = '/';
  memcpy(w->path + length, text, more + 1);
  w->length = length + more;
  return 0;
}

/* ---- pool threads ---- */

static int is_dots(const char *s) {
  return s[0] == '.' && (s[1] == '\0' || (s[1] == '.' && s[2] == '\0'));
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const name *)a)->text, ((const name *)b)->text);
}

/* Takes the names of the open directory into the frame. */
static int read_names(DIR *dir, frame *f) {
  size_t capacity = 0;
  struct dirent *e;
  while (errno = 0, (e = readdir(dir)) != NULL) {
    if (is_dots(e->d_name)) continue;
    if (f->count == capacity) {
      name *names = realloc(f->names, (capacity = capacity * 2 + 16) * sizeof *names);
      if (names == NULL) return UV_ENOMEM;
      f->names = names;
    }
    if ((f->names[f->count].text = strdup(e->d_name)) == NULL) return UV_ENOMEM;
    f->names[f->count++].type = e->d_type;
  }
  return -errno;
}

/* Has the way down led through this directory before? (links are followed) */
static int is_cycle(const walker *w, const frame *f) {
  int i;
  for (i = 0; i < w->frame_count; i++)
    if (w->frames[i].dev == f->dev && w->frames[i].ino == f->ino) return 1;
  return 0;
}

static int open_directory(const walker *w, int root, DIR **dir) {
  int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (w->follow || root ? 0 : O_NOFOLLOW);
  int fd = open(w->path, flags), status = 0;
  if (fd < 0) return -errno;
  *dir = fdopendir(fd);
  if (*dir == NULL) {
    status = -errno;
    (void)close(fd); /* for reading only */
  }
  return status;
}

/* Goes into the directory at the current path. */
static int push_frame(walker *w) {
  frame *f;
  struct stat st;
  DIR *dir;
  int status;
  if (w->frame_count == w->frame_capacity) {
    int capacity = w->frame_capacity * 2 + 8;
    frame *frames = realloc(w->frames, (size_t)capacity * sizeof *frames);
    if (frames == NULL) return UV_ENOMEM;
    w->frames = frames;
    w->frame_capacity = capacity;
  }
  f = &w->frames[w->frame_count];
  memset(f, 0, sizeof *f);
  status = open_directory(w, w->frame_count == 0, &dir);
  if (status < 0) return status;
  if (w->follow && fstat(dirfd(dir), &st) == 0) {
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    if (is_cycle(w, f)) status = UV_ELOOP;
  }
  f->length = w->length;
  w->frame_count++;
  if (status == 0) status = read_names(dir, f);
  (void)closedir(dir); /* for reading only */
  if (status < 0)
    pop_frame(w);
  else if (f->count > 1)
    qsort(f->names, f->count, sizeof *f->names, compare_names);
  return status;
}

static unsigned mode_of(unsigned char type) {
  switch (type) {
    case DT_REG: return S_IFREG;
    case DT_DIR: return S_IFDIR;
    case DT_LNK: return S_IFLNK;
    case DT_FIFO: return S_IFIFO;
    case DT_SOCK: return S_IFSOCK;
    case DT_CHR: return S_IFCHR;
    case DT_BLK: return S_IFBLK;
    default: return 0;
  }
}

/* Finds out what the entry is: by what the directory said, or by asking. */
static void look(const walker *w, entry *e, int at, const char *path, unsigned char type) {
  int followed = w->follow && (type == DT_LNK || type == DT_UNKNOWN);
  e->st.st_mode = (mode_t)mode_of(type);
  if (!w->stat && !followed && type != DT_UNKNOWN) return;
  e->has_stat = fstatat(at, path, &e->st, w->follow ? 0 : AT_SYMLINK_NOFOLLOW) == 0 ||
                fstatat(at, path, &e->st, AT_SYMLINK_NOFOLLOW) == 0; /* a link to nowhere */
}

static entry *add_entry(walker *w, const char *path, size_t at_name, int depth) {
  entry *e = &w->batch[w->count];
  memset(e, 0, sizeof *e);
  e->path = strdup(path);
  if (e->path == NULL) return NULL;
  e->name = at_name;
  e->depth = depth;
  w->count++;
  return e;
}

/* The next entry of the tree. */
static int step_tree(walker *w) {
  frame *f = &w->frames[w->frame_count - 1];
  const name *n;
  entry *e;
  int status;
  if (f->next == f->count) {
    pop_frame(w);
    return 0;
  }
  n = &f->names[f->next];
  status = set_path(w, f->length, n->text);
  if (status < 0) return status;
  e = add_entry(w, w->path, w->length - strlen(n->text), w->frame_count);
  if (e == NULL) return UV_ENOMEM;
  f->next++;
  look(w, e, AT_FDCWD, w->path, n->type);
  if (S_ISDIR(e->st.st_mode) && w->frame_count < w->depth) e->error = push_frame(w);
  return 0;
}

/* The next entry of a stream. */
static int step_stream(walker *w) {
  struct dirent *d;
  entry *e;
  errno = 0;
  d = readdir(w->dir);
  if (d == NULL) {
    w->finished = 1;
    return -errno;
  }
  if (is_dots(d->d_name)) return 0;
  e = add_entry(w, d->d_name, 0, 1);
  if (e == NULL) return UV_ENOMEM;
  look(w, e, dirfd(w->dir), d->d_name, d->d_type);
  return 0;
}

static void walk_run(at_work *work) {
  walk_op *o = op_of(work);
  walker *w = o->walker;
  int status = 0;
  if (o->prune >= 0)
    while (w->frame_count > o->prune) pop_frame(w);
  if (!w->started) {
    status = w->stream ? open_directory(w, 1, &w->dir) : push_frame(w);
    w->started = status == 0;
  }
  while (status == 0 && !w->finished && w->count < BATCH) {
    if (w->stream)
      status = step_stream(w);
    else if (w->frame_count == 0)
      w->finished = 1;
    else
      status = step_tree(w);
  }
  if (status < 0) {
    w->finished = 1;
    w->failed = status;
  }
}

/* ---- the operation ---- */

static void end_op(walk_op *o) {
  o->ended = 1;
  at_op_done(&o->work.op);
}

static void start_op(at_runtime *rt, walk_op *o) {
  walker *w = o->walker;
  int status;
  w->running = o;
  if (w->closed || w->count > 0 || w->finished) {
    end_op(o); /* what a cancelled read has left, or the end */
    return;
  }
  o->submitted = 1;
  status = at_blocking_submit(rt, &o->work, walk_run);
  if (status < 0) {
    o->submitted = 0;
    o->work.op.status = status;
    end_op(o);
  }
}

static int op_cancel(at_op *op) {
  walk_op *o = op_of(op);
  if (o->ended) return 0;
  if (!o->submitted || at_blocking_cancel(op)) return 1;
  at_blocking_count(op, o->walker->waiting != NULL);
  return 0;
}

static void op_release(at_op *op) {
  walk_op *o = op_of(op), *next;
  walker *w = o->walker;
  if (op->rt != NULL) { /* else another thread may be here */
    if (w->waiting == o) {
      w->waiting = NULL;
      if (w->running != NULL && w->running->submitted && w->running->work.op.task == NULL)
        at_blocking_count(&w->running->work.op, 0);
    }
    if (w->running == o) {
      w->running = NULL;
      next = w->waiting;
      w->waiting = NULL;
      if (next != NULL && !op->rt->closing) start_op(op->rt, next);
      else w->waiting = next;
    }
  }
  free(o);
  walker_unref(w);
}

/* The state closes: what waits will not start. */
static void close_state(at_runtime *rt, at_closable *c) {
  walker *w = (walker *)(void *)c;
  (void)rt;
  if (w->waiting != NULL) at_op_done(&w->waiting->work.op); /* releases it */
}

static const char *op_subject(at_op *op) { return op_of(op)->walker->root; }

/* [-0, +1, m] pushes the table of an entry. */
static void push_entry(lua_State *L, const walker *w, const entry *e) {
  if (w->stat && e->has_stat) {
    at_fs_push_stat(L, &e->st);
  } else {
    lua_createtable(L, 0, 3);
    lua_pushstring(L, at_fs_type(e->st.st_mode));
    lua_setfield(L, -2, "type");
  }
  lua_pushstring(L, e->path + e->name);
  lua_setfield(L, -2, "name");
  lua_pushinteger(L, e->depth);
  lua_setfield(L, -2, "depth");
  if (e->error < 0) {
    at_error_push_uv(L, e->error, "walk", e->path);
    lua_setfield(L, -2, "error");
  }
}

/* nil at the end, else {path, entry, path, entry, ...} and how many values */
static int walk_push(lua_State *L, at_op *op) {
  walker *w = op_of(op)->walker;
  int i;
  if (w->count == 0 && (op->status < 0 || w->failed < 0)) {
    at_op_push_error(L, op, op->status < 0 ? op->status : w->failed);
    w->failed = 0;
    return AT_OP_FAILED;
  }
  if (w->count == 0) {
    lua_pushnil(L);
    return 1;
  }
  luaL_checkstack(L, 8, "entries");
  lua_createtable(L, 2 * w->count, 0);
  for (i = 0; i < w->count; i++) {
    lua_pushstring(L, w->batch[i].path);
    lua_rawseti(L, -2, 2 * i + 1);
    push_entry(L, w, &w->batch[i]);
    lua_rawseti(L, -2, 2 * i + 2);
  }
  lua_pushinteger(L, 2 * w->count);
  clear_batch(w);
  return 2;
}

static const at_opclass walk_class = {"walk", walk_push, op_cancel, op_release, op_subject, 0};
static const at_opclass dir_class = {"dir", walk_push, op_cancel, op_release, op_subject, 0};

/* ---- Lua ---- */

static walker *check_walker(lua_State *L) {
  walker *w = ((walker_box *)luaL_checkudata(L, 1, AT_WALKER_MT))->walker;
  if (w == NULL) luaL_argerror(L, 1, "walker was collected");
  return w;
}

/* walker(path, stream, follow, stat, depth) -> walker; the Lua face has checked the options */
static int l_fs_walker(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  lua_Integer depth = luaL_optinteger(L, 5, INT_MAX);
  walker_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  walker *w;
  box->walker = NULL;
  luaL_setmetatable(L, AT_WALKER_MT);
  w = calloc(1, sizeof *w);
  if (w != NULL) {
    atomic_init(&w->refs, 1);
    w->closable.close = close_state;
    w->root = strdup(path);
    if (w->root == NULL || set_path(w, 0, path) < 0) {
      walker_unref(w);
      w = NULL;
    }
  }
  if (w == NULL) return luaL_error(L, "not enough memory");
  w->stream = (unsigned char)lua_toboolean(L, 2);
  w->follow = (unsigned char)lua_toboolean(L, 3);
  w->stat = (unsigned char)lua_toboolean(L, 4);
  w->depth = depth > INT_MAX ? INT_MAX : (int)depth;
  at_closable_add(rt, &w->closable);
  box->walker = w;
  return 1;
}

/* walker:read([prune]) -> Task of a batch; at most one waits behind one that was cancelled */
static int l_walker_read(lua_State *L) {
  at_runtime *rt = at_rt(L);
  walker *w = check_walker(L);
  lua_Integer prune = luaL_optinteger(L, 2, -1);
  at_task *t;
  walk_op *o;
  if (w->waiting != NULL) return luaL_error(L, "walker is being read");
  t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  o = at_op_alloc(L, rt, t, w->stream ? &dir_class : &walk_class, sizeof *o);
  if (o == NULL) return 1;
  o->walker = w;
  o->prune = (int)prune;
  atomic_fetch_add(&w->refs, 1);
  if (w->running != NULL) {
    w->waiting = o;
    if (w->running->submitted) at_blocking_count(&w->running->work.op, 1);
  } else
    start_op(rt, o);
  return 1;
}

/* walker:close(): gives what it holds back, now or when the pool lets go */
static int l_walker_close(lua_State *L) {
  walker *w = check_walker(L);
  w->closed = 1;
  if (w->running != NULL) return 0;
  clear_batch(w);
  while (w->frame_count > 0) pop_frame(w);
  if (w->dir != NULL) (void)closedir(w->dir); /* for reading only */
  w->dir = NULL;
  return 0;
}

static int l_walker_gc(lua_State *L) {
  walker_box *box = lua_touserdata(L, 1);
  if (box->walker != NULL) walker_unref(box->walker);
  box->walker = NULL;
  return 0;
}

void at_fsdir_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"walker", l_fs_walker}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"read", l_walker_read}, {"close", l_walker_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_walker_gc}, {NULL, NULL}};
  at_runtime_class(L, rt, AT_WALKER_MT, methods, meta);
  at_runtime_setfuncs(L, rt, functions);
}
