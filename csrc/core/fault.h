/* fault.h - what a faulted task keeps: the error, the stack where it was raised, the fault that it
** passes on; and the report of faults that nobody looked at (S15). */
#ifndef AT_CORE_FAULT_H
#define AT_CORE_FAULT_H

#include "core/task.h"

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

/* [-0, +1, m] pushes a fault for the error at the top (which stays): frames of L from `level` on. */
at_fault *at_fault_new(lua_State *L, at_runtime *rt, int frames);

/* [-1, +1, m] the message handler of task bodies: replaces the error at the top by a fault. */
int at_fault_handler(lua_State *L);

/* [-0, +0, -] somebody looked at the fault. */
void at_fault_observe(at_runtime *rt, at_fault *f);

/* [-0, +1, m] pushes the whole traceback of the fault at `index` as text. */
void at_fault_push_traceback(lua_State *L, int index);

/* [-0, +0, m] hands collected unobserved faults to the handler; from the scheduler. */
void at_fault_flush(lua_State *L, at_runtime *rt);

void at_fault_open(lua_State *L, at_runtime *rt);

#endif
