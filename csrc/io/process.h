/* process.h - a child process: what process.c (its life) and spawn.c (its birth) share. Loop thread. */
#ifndef AT_IO_PROCESS_H
#define AT_IO_PROCESS_H

#include "core/op.h"

#pragma GCC visibility push(hidden)

#define AT_PROCESS_MT "asynctask.process.Handle"

typedef struct at_process {
  uv_process_t handle;
  at_closable closable;
  at_runtime *rt;
  struct at_exit *waiting; /* waits for its end */
  int refs;                /* the handle, the box, each wait */
  int waits;               /* the handle keeps the loop alive for them */
  int pid;
  unsigned char running;   /* not reaped yet */
  unsigned char detached;  /* outlives the state */
  int code, signal;        /* once it has ended; signal 0: it exited */
} at_process;

/* The userdata. */
typedef struct at_processbox {
  at_process *process; /* counted; NULL before it was started */
} at_processbox;

/* [-0, +1, m] pushes a handle without process. */
at_processbox *at_process_box(lua_State *L, at_runtime *rt);

/* Starts it for the box; `options->exit_cb` is set here. 0 or a negative status. No Lua. */
int at_process_start(at_runtime *rt, at_processbox *box, uv_process_options_t *options);

/* spawn.c */
int l_process_spawn(lua_State *L);
int l_process_environ(lua_State *L);

/* [-0, +0, m] fills core.process at the top. */
void at_process_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
