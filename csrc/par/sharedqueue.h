/* sharedqueue.h - what a shared channel is beneath Lua: its queue of parcels, those who wait, and how they
** are told. sharedqueue.c has the mechanism, sharedchannel.c the operations. */
#ifndef AT_PAR_SHAREDQUEUE_H
#define AT_PAR_SHAREDQUEUE_H

#include <pthread.h>

#include "core/op.h"
#include "core/post.h"
#include "par/codec.h"

enum outcome { BLOCKED, DONE, CLOSED };

/* A value on its way. */
typedef struct parcel {
  struct parcel *next;
  at_message message;
} parcel;

typedef struct request {
  at_op op;
  at_mail mail;            /* the way home */
  at_inbox *home;          /* counted */
  struct channel *channel; /* counted */
  struct request *prev, *next; /* guarded by channel->mutex: the list it waits in, then those to be told */
  parcel *parcel;          /* owned; guarded: what it brings, or was handed */
  unsigned char sends;
  unsigned char waiting;   /* guarded: in a list */
  unsigned char outcome;   /* guarded until its mail has come */
  unsigned char counted;   /* loop thread: counts as an external source */
  struct box *box;         /* loop thread: borrowed while it is in the box's list */
  struct request *near_next, **near_prev; /* loop thread */
} request;

typedef struct waiters {
  request *head, *tail;
} waiters;

typedef struct channel {
  at_shared shared;
  pthread_mutex_t mutex;
  size_t capacity;
  size_t count;            /* guarded, as is all below */
  parcel *first, *last;
  waiters receivers, senders;
  size_t requests;         /* alive: each is a holder */
  unsigned char closed;
  parcel *error;           /* owned; set when it is closed, then never changed; NULL: none */
} channel;

/* The userdata: one for each channel in each state. */
typedef struct box {
  channel *channel; /* counted */
  request *near;    /* requests of this state that wait */
} box;

void at_sharedqueue_free(parcel *p); /* NULL is fine */
/* A new channel; NULL: no memory. */
channel *at_sharedqueue_new(size_t capacity);

/* ---- under the mutex ---- */

void at_sharedqueue_wait(waiters *list, request *r);
void at_sharedqueue_leave(waiters *list, request *r);
/* A parcel comes in: to a receiver, who is to be told, or to an end of the queue. */
request *at_sharedqueue_put(channel *c, parcel *p, int front);
/* DONE: *p comes out. *told: a sender who is to be told, or NULL. */
int at_sharedqueue_get(channel *c, parcel **p, request **told);
int at_sharedqueue_can_put(const channel *c);
/* Everybody who waits, as closed: one list, linked by next. */
request *at_sharedqueue_take_all(channel *c);

/* ---- outside the mutex ---- */

/* Those of the list learn their outcome. `rt` is the caller's, or NULL. */
void at_sharedqueue_tell(at_runtime *rt, request *r);
/* Nobody got it: it is the next one to be received. Any thread. */
void at_sharedqueue_give_back(channel *c, parcel *p);
/* Loop thread: the request waits no longer. */
void at_sharedqueue_unwait(at_runtime *rt, request *r);
/* A request's mail. */
void at_sharedqueue_arrive(at_runtime *rt, at_mail *mail);

#endif
