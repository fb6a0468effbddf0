/* sharedchannel.pml - a channel between threads (csrc/par/sharedqueue.c, sharedchannel.c): senders and receivers that
** wait are handed their outcome under the mutex and told by mail; either may be cancelled while it waits, or after it
** was handed something and before it is told. Checked: each value that was sent is received once, a send that was cancelled did not
** happen, and nobody waits for ever while another could go on (an invalid end state).
** Each block under the mutex is one atomic step. The order of values is not modelled. */

#define SENDERS 2
#define RECEIVERS 2
#define EACH 2 /* values of each sender */
#define ALL (SENDERS * EACH)
#define CAPACITY 1
#define CANCELS 3 /* in all */
#define NONE 255

chan queue = [ALL] of { byte };
bool rwaits[RECEIVERS], swaits[SENDERS];   /* in the lists */
byte handed[RECEIVERS], offered[SENDERS];  /* the parcel of a request, or NONE */
bool rmail[RECEIVERS], smail[SENDERS];     /* told */
byte got[ALL], received, cancels;

/* at_sharedqueue_put, under the mutex */
inline put(v) {
  if
  :: rwaits[0] -> rwaits[0] = false; handed[0] = v; rmail[0] = true
  :: rwaits[1] -> rwaits[1] = false; handed[1] = v; rmail[1] = true
  :: else -> queue!v
  fi
}

inline take_sender(s) {
  s = NONE;
  if
  :: swaits[0] -> s = 0
  :: swaits[1] -> s = 1
  :: else -> skip
  fi;
  if
  :: s != NONE -> swaits[s] = false; smail[s] = true
  :: else -> skip
  fi
}

inline count_value(v) {
  d_step {
    got[v]++;
    assert(got[v] == 1);
    received++
  }
}

proctype sender(byte me) {
  byte i = 0, v;
  bool waits;
  do
  :: i == EACH -> break
  :: else ->
    v = me * EACH + i;
    atomic { /* send */
      waits = !(rwaits[0] || rwaits[1] || len(queue) < CAPACITY);
      if
      :: waits -> offered[me] = v; swaits[me] = true
      :: else -> put(v)
      fi
    };
    if
    :: !waits -> i++
    :: waits ->
       if
       :: atomic { smail[me] -> smail[me] = false }; i++
       :: atomic {
            cancels < CANCELS -> /* request_cancel */
            cancels++;
            if
            :: swaits[me] -> swaits[me] = false; offered[me] = NONE /* it did not happen: sent again */
#ifdef MUTANT_SEND_CANCELLED_TOO_LATE
            :: else -> smail[me] = false
#else
            :: else -> smail[me] = false; i++ /* it has happened */
#endif
            fi
          }
       fi
    fi
  od
}

proctype receiver(byte me) {
  byte v, s;
  bool waits;
  do
  :: received == ALL -> break
  :: received < ALL ->
    atomic { /* at_sharedqueue_get */
      waits = false;
      v = NONE;
      if
      :: len(queue) > 0 ->
         queue?v;
         if
         :: len(queue) < CAPACITY ->
            take_sender(s);
            if
            :: s != NONE -> put(offered[s]); offered[s] = NONE
            :: else -> skip
            fi
         :: else -> skip
         fi
      :: else ->
         take_sender(s);
         if
         :: s != NONE -> v = offered[s]; offered[s] = NONE
         :: s == NONE && received < ALL -> waits = true; rwaits[me] = true
         :: else -> skip /* closed */
         fi
      fi
    };
    if
    :: !waits && v != NONE -> count_value(v)
    :: !waits && v == NONE -> break
    :: waits ->
       if
       :: atomic { rmail[me] -> rmail[me] = false; v = handed[me]; handed[me] = NONE };
          if
          :: v == NONE -> break /* closed */
          :: else -> count_value(v)
          fi
       :: atomic {
            cancels < CANCELS -> /* request_cancel */
            cancels++;
            if
            :: rwaits[me] -> rwaits[me] = false
            :: else ->
               v = handed[me];
               handed[me] = NONE;
               rmail[me] = false;
               if
#ifndef MUTANT_DROPS_WHAT_WAS_HANDED
               :: v != NONE -> put(v) /* goes back */
#endif
               :: else -> skip
               fi
            fi
          }
       fi
    fi
  od
}

/* at_sharedqueue_take_all: the last value has been received, and the channel is closed. */
active proctype closer() {
  byte r = 0;
  received == ALL;
  atomic {
    do
    :: r == RECEIVERS -> break
    :: else ->
      if
      :: rwaits[r] -> rwaits[r] = false; rmail[r] = true
      :: else -> skip
      fi;
      r++
    od
  }
}

init {
  atomic {
    handed[0] = NONE; handed[1] = NONE; offered[0] = NONE; offered[1] = NONE;
    run sender(0); run sender(1); run receiver(0); run receiver(1)
  }
}
