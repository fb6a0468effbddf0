/* waker.h - wakes a host that sleeps in something else than the loop's descriptor. */
#ifndef AT_CORE_WAKER_H
#define AT_CORE_WAKER_H

#include "core/runtime.h"

#pragma GCC visibility push(hidden)

typedef struct at_waker at_waker;

/* From now on `wake` is called when there may be something to do (NULL: no more). 0 or a status: the old one
** is gone then. */
int at_waker_set(at_runtime *rt, void (*wake)(void *data), void *data);
void at_waker_close(at_runtime *rt);

/* Something was made ready outside a step, or is due earlier than the host was told. Once for each sleep. */
void at_waker_call(at_runtime *rt);

/* A step begins: the host is awake. A step ends: it may sleep. */
void at_waker_awake(at_runtime *rt);
void at_waker_asleep(at_runtime *rt);

#pragma GCC visibility pop

#endif
