/* fault.h - what a faulted task keeps: the error, the stack where it was raised, the fault that it
** passes on; and the report of faults that nobody looked at (S15). */
#ifndef AT_CORE_FAULT_H
#define AT_CORE_FAULT_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

typedef struct at_frame {
  char source[60]; /* as lua_Debug.short_src */
  char name[40];
  int line;
} at_frame;

/* A userdata with user values 1: the error, 2: the fault it came from (or nil), 3: the task's name.
** Its __gc reports if nobody looked. */
typedef struct at_fault {
  at_runtime *rt; /* NULL once the runtime is closed or the fault is counted as observed */
  unsigned char observed;
  int count;
  at_frame frames[];
} at_fault;

/* [-1, +1, m] replaces the error at the top by a fault: with the frames of L, or, called by the body of
** a task itself, with those that its handler noted for this error. */
at_fault *at_fault_new(lua_State *L, at_runtime *rt, int with_frames);

/* [-1, +1, m] the same for a function of par that calls another under at_fault_handler: with the frames
** that this noted for the error. */
at_fault *at_fault_noted(lua_State *L, at_runtime *rt);

/* [-1, +0, -] the text at the top becomes part of the next fault made of an operation (a worker's
** traceback). */
void at_fault_text(lua_State *L, at_runtime *rt);

/* [-1, +1, m] the message handler of task bodies: notes where the error was raised, and returns it. */
int at_fault_handler(lua_State *L);

/* [-0, +0, -] true if the value at `index` is a fault; it is unforgeable from Lua. */
at_fault *at_fault_test(lua_State *L, int index);

/* [-0, +0, m] gives the fault at the top the name of the task at `index`. */
void at_fault_name(lua_State *L, at_runtime *rt, int index);

/* [-0, +0, -] somebody looked at the fault. */
void at_fault_observe(at_runtime *rt, at_fault *f);

/* [-0, +1, m] pushes the whole traceback of the fault at `index` as text. */
void at_fault_push_traceback(lua_State *L, int index);

/* [-0, +0, m] hands collected unobserved faults to the handler; from the scheduler. */
void at_fault_flush(lua_State *L, at_runtime *rt);

/* [-1, +0, -] the error at the top, of a callback that was called under at_fault_handler, is reported as a
** fault that nobody looked at. */
void at_fault_report(lua_State *L, at_runtime *rt);

/* [-0, +0, -] the state closes: reports what is left. */
void at_fault_close(lua_State *L, at_runtime *rt);

/* [-0, +0, m] adds on_unobserved, unobserved to the table at the top. */
void at_fault_functions(lua_State *L, at_runtime *rt);
void at_fault_open(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
