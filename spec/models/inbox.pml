/* inbox.pml - the inbox of a runtime (csrc/core/post.c): posters push mail onto a lock-free stack, the loop takes it
** whole, spins for a while or sleeps in its descriptor. Checked: no mail is lost or received twice, the order of one
** poster is kept, and the loop never sleeps for ever while mail waits (an invalid end state).
** Sequentially consistent, as the C code's atomics on `head` and `spinning` are. */

#define POSTERS 2
#define MAILS 2 /* of each poster */
#define ALL (POSTERS * MAILS)
#define NONE 255

byte head = NONE;      /* newest mail, or NONE */
byte next[ALL];        /* of each mail: the older one */
bool spinning, signalled; /* signalled: the eventfd's counter is not 0 */
byte received, expected[POSTERS];

active [POSTERS] proctype poster() {
  byte i = 0, seen;
  do
  :: i == MAILS -> break
  :: else ->
    do
    :: seen = head;
       next[_pid * MAILS + i] = seen;
       if
       :: atomic { head == seen -> head = _pid * MAILS + i }; break /* the exchange succeeds */
       :: atomic { head != seen -> skip }
       fi
    od;
    if
    :: seen == NONE ->
       if
       :: !spinning -> signalled = true
       :: else -> skip
       fi
    :: else -> skip
    fi;
    i++
  od
}

/* Takes the stack and receives it, oldest first. */
inline take() {
  d_step {
    byte newest = head, oldest = NONE, following;
    head = NONE;
    do
    :: newest == NONE -> break
    :: else -> following = next[newest]; next[newest] = oldest; oldest = newest; newest = following
    od;
    do
    :: oldest == NONE -> break
    :: else ->
      assert(oldest % MAILS == expected[oldest / MAILS]); /* once, and in the order of its poster */
      expected[oldest / MAILS]++;
      received++;
      oldest = next[oldest]
    od;
    newest = 0; oldest = 0; following = 0
  }
}

active proctype loop() {
  do
  :: received == ALL -> break
  :: received < ALL ->
    if
    :: take() /* a turn that looks at the inbox on its way */
    :: spinning = true; /* spins: until there is mail, or in vain */
       if
       :: head != NONE -> skip
       :: true -> skip
       fi;
#ifdef MUTANT_NO_SECOND_LOOK
       spinning = false
#else
       spinning = false;
       take()
#endif
    :: true -> skip
    fi;
    if
    :: received == ALL -> break
    :: received < ALL ->
#ifdef MUTANT_CLEAR_AFTER
       signalled; take(); signalled = false
#else
       signalled; /* sleeps until the descriptor is readable */
       signalled = false;
       take()
#endif
    fi
  od
}
