/* fsdir.c - directories: asynctask.Walker, which gives the entries of a directory (a stream) or a tree
** in batches, one trip to the pool each. The iterators walk and dir stand on it in Lua. Owns the
** walker's queue of one; what is read, and how, is in fswalk.c.
** Loop thread, but for walk_run and the freeing.
** Invariants: one operation at a time touches the walker (walker->running), the next waits; entries
** leave the batch only when they are handed to Lua, so a cancelled read loses none. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/arg.h"
#include "base/error.h"
#include "io/fs.h"
#include "io/fswalk.h"

#define AT_WALKER_MT "asynctask.Walker"

typedef struct walk_op walk_op;

struct walk_op {
  at_work work;
  at_walker *walker; /* counted */
  int prune;      /* leave directories deeper than this; -1: none */
  unsigned char submitted, ended;
  unsigned char handed_over; /* its batch is Lua's */
};

typedef struct walker_box {
  at_walker *walker; /* counted; NULL: not made yet, or collected */
} walker_box;

#define op_of(o) ((walk_op *)(void *)(o))

static void walker_unref(at_walker *w) {
  if (atomic_fetch_sub(&w->refs, 1) != 1) return;
  at_closable_remove(&w->closable); /* on another thread the state has closed: it is in no list */
  at_walk_close(w);
  free(w->frames);
  free(w->path);
  free(w->root);
  free(w);
}

static void walk_run(at_work *work) { at_walk_fill(op_of(work)->walker, op_of(work)->prune); }

/* ---- the operation ---- */

static void end_op(walk_op *o) {
  o->ended = 1;
  at_op_done(&o->work.op);
}

static void start_op(at_runtime *rt, walk_op *o) {
  at_walker *w = o->walker;
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

static void read_ahead(at_runtime *rt, at_walker *w, const at_opclass *class);

/* It is another one's turn, or nobody's. */
static void next_turn(at_runtime *rt, at_walker *w, const walk_op *ended) {
  walk_op *next = w->waiting;
  w->running = NULL;
  if (rt->closing) return;
  w->waiting = NULL;
  if (next != NULL) start_op(rt, next);
  else if (w->closed) at_walk_close(w);
  else if (ended->handed_over && ended->prune < 0) read_ahead(rt, w, ended->work.op.class);
}

static void op_release(at_op *op) {
  walk_op *o = op_of(op);
  at_walker *w = o->walker;
  if (op->rt != NULL) { /* else another thread may be here */
    if (w->waiting == o) {
      w->waiting = NULL;
      if (w->running != NULL && w->running->submitted && w->running->work.op.task == NULL)
        at_blocking_count(&w->running->work.op, 0);
    }
    if (w->running == o) next_turn(op->rt, w, o);
  }
  free(o);
  walker_unref(w);
}

/* While a batch is being looked at, the next one is read: by an operation that no Task waits for. (Not
** while a directory is being left out: the next read will say how far.) */
static void read_ahead(at_runtime *rt, at_walker *w, const at_opclass *class) {
  walk_op *o;
  if (w->finished || (o = calloc(1, sizeof *o)) == NULL) return;
  o->work.op.class = class;
  o->work.op.rt = rt;
  o->walker = w;
  o->prune = -1;
  o->submitted = 1;
  if (at_blocking_submit(rt, &o->work, walk_run) < 0) {
    free(o);
    return;
  }
  atomic_fetch_add(&w->refs, 1); /* its mail is received on this thread: not before this */
  at_blocking_count(&o->work.op, 0); /* keeps nothing alive until somebody waits for it */
  w->running = o;
}

/* The state closes: what waits will not start. */
static void close_state(at_runtime *rt, at_closable *c) {
  at_walker *w = (at_walker *)(void *)c;
  (void)rt;
  if (w->waiting != NULL) at_op_done(&w->waiting->work.op); /* releases it */
}

static const char *op_subject(at_op *op) { return op_of(op)->walker->root; }

/* [-0, +1, m] pushes the table of an entry. */
static void push_entry(lua_State *L, const at_walker *w, const at_walk_entry *e) {
  if (w->stat && e->has_stat) {
    at_fs_push_stat(L, &e->st);
  } else {
    lua_createtable(L, 0, 4);
    lua_pushstring(L, at_fs_type(e->st.st_mode));
    lua_setfield(L, -2, "type");
  }
  lua_pushstring(L, e->path + e->name);
  lua_setfield(L, -2, "name");
  lua_pushinteger(L, e->depth);
  lua_setfield(L, -2, "depth");
  if (e->phase != AT_WALK_ONCE) { /* for the Lua face */
    lua_pushboolean(L, e->phase == AT_WALK_IN);
    lua_setfield(L, -2, "entering");
  }
  if (e->error < 0) {
    at_error_push_uv(L, e->error, "walk", e->path);
    lua_setfield(L, -2, "error");
  }
}

/* nil at the end, else {path, entry, path, entry, ...} and how many values */
static int walk_push(lua_State *L, at_op *op) {
  at_walker *w = op_of(op)->walker;
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
  at_walk_clear(w);
  op_of(op)->handed_over = 1;
  return 2;
}

static const at_opclass walk_class = {"walk", walk_push, op_cancel, op_release, op_subject, 0};
static const at_opclass dir_class = {"dir", walk_push, op_cancel, op_release, op_subject, 0};

/* ---- Lua ---- */

static at_walker *check_walker(lua_State *L) {
  at_walker *w = ((walker_box *)luaL_checkudata(L, 1, AT_WALKER_MT))->walker;
  if (w == NULL) luaL_argerror(L, 1, "walker was collected");
  return w;
}

/* walker(path, stream, follow, stat, depth, post) -> walker; the Lua face has checked the options */
static int l_fs_walker(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *path = at_arg_path(L, 1);
  lua_Integer depth = luaL_optinteger(L, 5, INT_MAX);
  walker_box *box;
  at_walker *w;
  lua_settop(L, 6);
  box = lua_newuserdatauv(L, sizeof *box, 0);
  box->walker = NULL;
  luaL_setmetatable(L, AT_WALKER_MT);
  w = calloc(1, sizeof *w);
  if (w != NULL) {
    atomic_init(&w->refs, 1);
    w->closable.close = close_state;
    w->root = strdup(path);
    if (w->root == NULL || at_walk_set_path(w, 0, path) < 0) {
      walker_unref(w);
      w = NULL;
    }
  }
  if (w == NULL) return luaL_error(L, "not enough memory");
  w->stream = (unsigned char)lua_toboolean(L, 2);
  w->follow = (unsigned char)lua_toboolean(L, 3);
  w->stat = (unsigned char)lua_toboolean(L, 4);
  w->post = (unsigned char)lua_toboolean(L, 6);
  w->depth = depth > INT_MAX ? INT_MAX : (int)depth;
  at_closable_add(rt, &w->closable);
  box->walker = w;
  return 1;
}

/* walker:read([prune]) -> Task of a batch; at most one waits behind one that was cancelled */
static int l_walker_read(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_walker *w = check_walker(L);
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
  at_walker *w = check_walker(L);
  walk_op *o = w->running;
  w->closed = 1;
  if (o != NULL && o->submitted && !o->ended && o->work.op.task == NULL &&
      at_blocking_cancel(&o->work.op))
    op_release(&o->work.op); /* it was reading ahead, and had not begun */
  if (w->running != NULL) return 0;
  at_walk_close(w);
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
