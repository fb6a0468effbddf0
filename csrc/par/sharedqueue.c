/* sharedqueue.c - the mechanism of shared channels: parcels, those who wait, and the mail to them. Owns
** what is in a channel. Any thread; the mutex is held for a few instructions; no Lua.
** Invariants: receivers wait only while nothing lies in the channel and no sender waits; senders wait only
** while it is full. Whoever takes a request out of a list decides its outcome, under the mutex, and posts
** its mail after, so that it is told once. */
#include "par/sharedqueue.h"

#include <stddef.h>
#include <stdlib.h>

void at_sharedqueue_free(parcel *p) {
  if (p == NULL) return;
  at_message_free(&p->message);
  free(p);
}

/* ---- the lists; under the mutex ---- */

void at_sharedqueue_wait(waiters *list, request *r) {
  r->prev = list->tail;
  r->next = NULL;
  if (list->tail != NULL)
    list->tail->next = r;
  else
    list->head = r;
  list->tail = r;
  r->waiting = 1;
}

void at_sharedqueue_leave(waiters *list, request *r) {
  if (r->prev != NULL)
    r->prev->next = r->next;
  else
    list->head = r->next;
  if (r->next != NULL)
    r->next->prev = r->prev;
  else
    list->tail = r->prev;
  r->prev = r->next = NULL;
  r->waiting = 0;
}

/* The first of the list leaves it; NULL: nobody waits. */
static request *list_take(waiters *list, int outcome) {
  request *r = list->head;
  if (r == NULL) return NULL;
  at_sharedqueue_leave(list, r);
  r->outcome = (unsigned char)outcome;
  return r;
}

/* A parcel comes in: to a receiver, who is to be told, or to an end of the queue. */
request *at_sharedqueue_put(channel *c, parcel *p, int front) {
  request *r = list_take(&c->receivers, DONE);
  if (r != NULL) {
    r->parcel = p;
    return r;
  }
  p->next = front ? c->first : NULL;
  if (front)
    c->first = p;
  else if (c->last != NULL)
    c->last->next = p;
  else
    c->first = p;
  if (p->next == NULL) c->last = p;
  c->count++;
  return NULL;
}

static parcel *take_first(channel *c) {
  parcel *p = c->first;
  c->first = p->next;
  if (c->first == NULL) c->last = NULL;
  c->count--;
  p->next = NULL;
  return p;
}

/* DONE: *p comes out. *told: a sender who is to be told, or NULL. */
int at_sharedqueue_get(channel *c, parcel **p, request **told) {
  request *s;
  *told = NULL;
  if (c->count > 0) {
    *p = take_first(c);
    if (c->count >= c->capacity || (s = list_take(&c->senders, DONE)) == NULL) return DONE;
    (void)at_sharedqueue_put(c, s->parcel, 0);
  } else if ((s = list_take(&c->senders, DONE)) != NULL) {
    *p = s->parcel;
  } else {
    return c->closed ? CLOSED : BLOCKED;
  }
  s->parcel = NULL;
  *told = s;
  return DONE;
}

int at_sharedqueue_can_put(const channel *c) {
  if (c->closed) return CLOSED;
  return c->receivers.head != NULL || c->count < c->capacity ? DONE : BLOCKED;
}

/* ---- telling ---- */

/* Loop thread: it waits no longer. */
void at_sharedqueue_unwait(at_runtime *rt, request *r) {
  if (r->box != NULL) {
    *r->near_prev = r->near_next;
    if (r->near_next != NULL) r->near_next->near_prev = r->near_prev;
    r->box = NULL;
  }
  if (r->counted) at_external_remove(rt);
  r->counted = 0;
}

void at_sharedqueue_arrive(at_runtime *rt, at_mail *mail) {
  request *r = (request *)(void *)((char *)mail - offsetof(request, mail));
  if (rt == NULL) {
    r->op.rt = NULL;
    r->op.class->release(&r->op);
    return;
  }
  at_sharedqueue_unwait(rt, r);
  at_op_done(&r->op);
}

/* Outside the mutex: those of the list learn their outcome. `rt` is the caller's, or NULL. */
void at_sharedqueue_tell(at_runtime *rt, request *r) {
  while (r != NULL) {
    request *next = r->next;
    r->next = NULL;
    if (rt != NULL && r->op.rt == rt)
      at_sharedqueue_arrive(rt, &r->mail);
    else
      at_post(r->home, &r->mail);
    r = next;
  }
}

/* Nobody got it: it is the next one to be received. Any thread. */
void at_sharedqueue_give_back(channel *c, parcel *p) {
  request *r;
  pthread_mutex_lock(&c->mutex);
  r = at_sharedqueue_put(c, p, 1);
  pthread_mutex_unlock(&c->mutex);
  at_sharedqueue_tell(NULL, r);
}

/* Everybody who waits: one list, linked by next. Under the mutex. */
request *at_sharedqueue_take_all(channel *c) {
  request *told = NULL, **link = &told, *r;
  while ((r = list_take(&c->senders, CLOSED)) != NULL || (r = list_take(&c->receivers, CLOSED)) != NULL) {
    *link = r;
    link = &r->next;
  }
  return told;
}

/* ---- the channel ---- */

static void destroy(at_shared *s) {
  channel *c = (channel *)(void *)s;
  while (c->first != NULL) at_sharedqueue_free(take_first(c));
  at_sharedqueue_free(c->error);
  pthread_mutex_destroy(&c->mutex);
  free(c);
}

channel *at_sharedqueue_new(size_t capacity) {
  channel *c = calloc(1, sizeof *c);
  if (c == NULL) return NULL;
  at_shared_init(&c->shared, destroy);
  (void)pthread_mutex_init(&c->mutex, NULL); /* cannot fail for a plain one */
  c->capacity = capacity;
  return c;
}
