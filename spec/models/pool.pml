/* pool.pml - sleeping and waking of workers (csrc/par/pool.c): a root submits jobs, workers take them or go to sleep;
** at most one worker is on its way to the queue at a time, and passes the call on. One job submits another one, as a
** nested run does. Checked: every job runs once, and nobody sleeps for ever while a job waits (an invalid end state).
** Each block under the mutex is one atomic step; nudges go through the inbox, which is inbox.pml's. */

#define WORKERS 2
#define JOBS 3 /* submitted by the root; the first one submits one more */
#define ALL (JOBS + 1)

byte waiting, ran;
bool coming;               /* pool->coming */
bool idle[WORKERS];        /* in the idle list */
bool on_its_way[WORKERS];  /* w->coming */
bool nudged[WORKERS], mail[WORKERS];
bool first = true;
bool closing;

/* pool.c call_worker, under the mutex: the worker to nudge, or WORKERS. */
inline call_worker(w) {
  w = WORKERS;
  if
  :: !coming && idle[0] -> w = 0
  :: !coming && idle[1] -> w = 1
  :: else -> skip
  fi;
  if
  :: w < WORKERS -> idle[w] = false; coming = true; on_its_way[w] = true
  :: else -> skip
  fi
}

inline nudge(w) {
  if
  :: w < WORKERS ->
     if
     :: atomic { !nudged[w] -> nudged[w] = true }; mail[w] = true
     :: else -> skip
     fi
  :: else -> skip
  fi
}

inline arrived(w) {
  if
  :: on_its_way[w] -> on_its_way[w] = false; coming = false
  :: else -> skip
  fi
}

inline submit(other) {
  atomic { call_worker(other); waiting++ };
  nudge(other)
}

active proctype root() {
  byte i = 0, other;
  do
  :: i == JOBS -> break
  :: else -> submit(other); i++
  od;
  ran == ALL; /* all have run: the pool is dismissed */
  atomic {
    closing = true;
    idle[0] = false; idle[1] = false
  };
  nudge(0);
  nudge(1)
}

proctype worker(byte me) {
  byte other;
  bool sleeps, took, nest;
end_of_work:
  do
  :: true ->
    /* at_pool_take */
    atomic {
      other = WORKERS;
      took = waiting > 0;
      if
      :: took ->
         waiting--;
         arrived(me);
         if
         :: waiting > 0 -> call_worker(other)
         :: else -> skip
         fi
      :: else -> skip
      fi
    };
    nudge(other);
    if
    :: took -> /* runs it */
       atomic { nest = first; first = false };
       if
       :: nest -> submit(other)
       :: else -> skip
       fi;
       ran++
    :: else ->
       /* at_pool_sleep */
       atomic {
         sleeps = waiting == 0 && !closing;
         if
         :: sleeps ->
#ifndef MUTANT_KEEPS_COMING
            arrived(me);
#endif
            idle[me] = true
         :: else -> skip
         fi
       };
       if
       :: sleeps ->
          mail[me]; /* sleeps in its loop */
          mail[me] = false;
          nudged[me] = false;
          atomic { idle[me] = false } /* at_pool_awake */
       :: else -> skip
       fi
    fi;
    if
    :: closing && waiting == 0 -> break
    :: else -> skip
    fi
  od
}

init {
  atomic { run worker(0); run worker(1) }
}
