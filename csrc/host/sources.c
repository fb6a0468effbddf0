/* sources.c - completion sources: Tasks that C code settles, from any thread.
** Owns asynctask_source: an operation of the kernel with a count of its users. Calls the kernel and the
** inbox of the runtime. Settling, releasing: any thread (a local source: loop thread), no Lua.
** Invariants: `state` leaves OPEN once, by an exchange, and who did that settles the Task: by mail, from a
** settling thread; on the spot, from the kernel's cancellation. The kernel's reference to the request goes
** with that. What a settling thread writes is published by the mail. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "core/op.h"
#include "core/post.h"
#include "host/api.h"
#include "host/values.h"

enum { OPEN, SETTLED, CANCELLED };
enum { BY_VALUES, BY_ERROR, BY_CANCEL, BY_PUSH, BY_RELEASE, BY_NO_MEMORY };

struct asynctask_source {
  at_op op;
  at_mail mail;
  at_inbox *inbox;       /* counted; NULL: local */
  atomic_int state;
  atomic_int users;      /* references of users */
  atomic_int holders;    /* the users together; the kernel: it is freed when both are gone */
  unsigned char how;     /* whoever settled it; then the loop thread */
  int (*push)(lua_State *L, void *data);
  asynctask_writer *values; /* owned */
  char *texts[3];        /* owned as one: code, op, message; or the reason */
  void (*cancelled)(void *data);
  void (*released)(void *data);
  void *data;
  int pushed;            /* what `push` returned */
  char name[];
};

/* ---- life ---- */

static void drop(asynctask_source *s) {
  if (atomic_fetch_sub_explicit(&s->holders, 1, memory_order_acq_rel) != 1) return;
  asynctask_writer_free(s->values);
  free(s->texts[0]);
  if (s->inbox != NULL) at_inbox_release(s->inbox);
  if (s->released != NULL) s->released(s->data);
  free(s);
}

static void on_release(at_op *op) { drop((asynctask_source *)(void *)op); }

/* The kernel cancels the Task. 0: a thread has just settled it, and its mail is on the way. */
static int on_cancel(at_op *op) {
  asynctask_source *s = (asynctask_source *)(void *)op;
  int open = OPEN;
  if (s->inbox != NULL) at_external_remove(op->rt);
  if (!atomic_compare_exchange_strong(&s->state, &open, CANCELLED)) return 0;
  if (s->cancelled != NULL) s->cancelled(s->data);
  return 1;
}

static const char *subject(at_op *op) {
  asynctask_source *s = (asynctask_source *)(void *)op;
  return s->name[0] != '\0' ? s->name : NULL;
}

/* ---- the result ---- */

/* [-0, +1, m] an error object of the source's own. */
static void push_error(lua_State *L, const asynctask_source *s, const char *code, const char *words) {
  at_error_push(L, code, words, s->name[0] != '\0' ? s->name : NULL);
}

/* stack: source */
static int l_push(lua_State *L) {
  asynctask_source *s = lua_touserdata(L, 1);
  int n;
  lua_settop(L, 0);
  n = s->pushed = s->push(L, s->data);
  if (n < 0) {
    s->pushed = AT_OP_FAILED;
    if (lua_gettop(L) == 0) lua_pushnil(L);
    return 1;
  }
  if (n > lua_gettop(L)) return luaL_error(L, "asynctask_source_settle: fewer values than were promised");
  return n;
}

/* [-0, +n, m] what the user's function leaves, or what it raises. */
static int call_push(lua_State *L, asynctask_source *s) {
  int base = lua_gettop(L);
  lua_pushcfunction(L, l_push);
  lua_pushlightuserdata(L, s);
  if (lua_pcall(L, 1, LUA_MULTRET, 0) != LUA_OK || s->pushed < 0) return AT_OP_FAILED;
  return lua_gettop(L) - base;
}

static int push_values(lua_State *L, asynctask_source *s) {
  int status = at_values_finish(s->values);
  if (status == 0) return at_values_push(L, s->values);
  at_values_push_error(L, s->values, status, s->name[0] != '\0' ? s->name : NULL);
  return AT_OP_FAILED;
}

/* A fault's report knows the name. [-0, +0, m] */
static void name_task(lua_State *L, asynctask_source *s) {
  if (s->name[0] == '\0') return;
  luaL_checkstack(L, 3, "source");
  at_anchor_push(L, s->op.rt, AT_SLOT_NAMES);
  at_op_push_task(L, &s->op);
  lua_pushstring(L, s->name);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

static int on_push(lua_State *L, at_op *op) {
  asynctask_source *s = (asynctask_source *)(void *)op;
  int n = AT_OP_FAILED;
  switch (s->how) {
    case BY_VALUES: n = push_values(L, s); break;
    case BY_PUSH: n = call_push(L, s); break;
    case BY_ERROR: asynctask_push_error(L, s->texts[0], s->texts[1], s->texts[2]); break;
    case BY_CANCEL:
      push_error(L, s, "ECANCELED", "operation cancelled");
      at_error_set(L, "reason", s->texts[0]);
      n = AT_OP_CANCELLED;
      break;
    case BY_NO_MEMORY: push_error(L, s, "ENOMEM", asynctask_strerror(UV_ENOMEM)); break;
    default:
      push_error(L, s, "EABANDONED", "the completion source was released before it settled its task");
  }
  if (n == AT_OP_FAILED) name_task(L, s);
  return n;
}

static const at_opclass class = {"source", on_push, on_cancel, on_release, subject, 0};

/* ---- making ---- */

typedef struct making {
  asynctask_source_options options;
  asynctask_source *source;
} making;

/* [-0, +0, m] the source of the Task at the top, which settles by itself if there is no memory (NULL). */
static asynctask_source *allocate(lua_State *L, at_runtime *rt, at_task *t, size_t size) {
  asynctask_source *s;
  if (at_task_settled(t)) return calloc(1, size); /* in a cancelled scope */
  s = at_op_alloc(L, rt, t, &class, size);
  if (s == NULL) at_task_observe(L, rt, t, -1);
  return s;
}

/* stack: making */
static int l_make(lua_State *L) {
  making *m = lua_touserdata(L, 1);
  const char *name = m->options.name != NULL ? m->options.name : "";
  size_t n = strlen(name) + 1;
  at_runtime *rt = at_api_runtime(L);
  at_task *t = at_op_new(L, rt);
  int refused = at_task_settled(t);
  asynctask_source *s = allocate(L, rt, t, sizeof *s + n);
  if (s == NULL) return luaL_error(L, "not enough memory");
  memcpy(s->name, name, n); /* nothing raises from here on */
  s->cancelled = m->options.cancelled;
  s->released = m->options.released;
  s->data = m->options.data;
  atomic_init(&s->users, 1);
  atomic_init(&s->state, refused ? CANCELLED : OPEN);
  atomic_init(&s->holders, refused ? 1 : 2);
  if (!m->options.local && !refused) {
    s->inbox = at_inbox_retain(rt->inbox);
    at_external_add(rt);
  }
  m->source = s;
  return 1;
}

asynctask_source *asynctask_source_new(lua_State *L, const asynctask_source_options *options) {
  making m;
  at_api_options(L, &m.options, sizeof m.options, options);
  at_api_take(L, l_make, &m, 0, m.options.released, m.options.data);
  return m.source;
}

/* ---- settling ---- */

/* The mail has come, or the inbox is closed. */
static void receive(at_runtime *rt, at_mail *mail) {
  asynctask_source *s = (asynctask_source *)(void *)((char *)mail - offsetof(asynctask_source, mail));
  if (rt == NULL) {
    s->op.rt = NULL;
    drop(s);
    return;
  }
  if (s->op.task != NULL) at_external_remove(rt);
  at_op_done(&s->op);
}

/* The first one settles it: true. */
static int claim(asynctask_source *s) {
  int open = OPEN;
  return atomic_compare_exchange_strong(&s->state, &open, SETTLED);
}

static int deliver(asynctask_source *s, int how) {
  s->how = (unsigned char)how;
  if (s->inbox == NULL) {
    at_op_done(&s->op);
  } else {
    s->mail.receive = receive;
    at_post(s->inbox, &s->mail);
  }
  return 1;
}

int asynctask_source_succeed(asynctask_source *s, asynctask_writer *values) {
  if (!claim(s)) {
    asynctask_writer_free(values);
    return 0;
  }
  s->values = values;
  return deliver(s, BY_VALUES);
}

/* Copies up to three texts into one piece of memory. False: there is none. */
static int keep_texts(asynctask_source *s, const char *a, const char *b, const char *c) {
  const char *texts[3] = {a, b, c};
  size_t sizes[3], total = 0;
  char *p;
  int i;
  for (i = 0; i < 3; i++) total += sizes[i] = texts[i] != NULL ? strlen(texts[i]) + 1 : 0;
  if (total == 0) return 1;
  p = malloc(total);
  if (p == NULL) return 0;
  for (i = 0; i < 3; i++) {
    if (texts[i] == NULL) continue;
    s->texts[i] = memcpy(p, texts[i], sizes[i]);
    p += sizes[i];
  }
  return 1;
}

int asynctask_source_fail(asynctask_source *s, const char *code, const char *op, const char *message) {
  if (!claim(s)) return 0;
  if (code == NULL) code = "UNKNOWN";
  return deliver(s, keep_texts(s, code, op, message) ? BY_ERROR : BY_NO_MEMORY);
}

int asynctask_source_cancel(asynctask_source *s, const char *reason) {
  if (!claim(s)) return 0;
  return deliver(s, keep_texts(s, reason, NULL, NULL) ? BY_CANCEL : BY_NO_MEMORY);
}

int asynctask_source_settle(asynctask_source *s, int (*push)(lua_State *L, void *data)) {
  if (!claim(s)) return 0;
  s->push = push;
  return deliver(s, BY_PUSH);
}

int asynctask_source_wanted(const asynctask_source *s) {
  return atomic_load(&((asynctask_source *)(size_t)s)->state) == OPEN;
}

asynctask_source *asynctask_source_retain(asynctask_source *s) {
  atomic_fetch_add_explicit(&s->users, 1, memory_order_relaxed);
  return s;
}

void asynctask_source_release(asynctask_source *s) {
  if (s == NULL || atomic_fetch_sub_explicit(&s->users, 1, memory_order_acq_rel) != 1) return;
  if (claim(s)) (void)deliver(s, BY_RELEASE);
  drop(s);
}
