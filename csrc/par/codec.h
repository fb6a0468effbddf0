/* codec.h - values on their way from one lua_State to another: through one malloc'd message.
**
** A message is made by encode.c in the sender's state and read once by decode.c in the receiver's.
** It never leaves the process (it holds pointers to bytecode). The decoder takes pointers and counts from
** the struct, which only encode.c fills, and checks every byte of the data against them. */
#ifndef AT_PAR_CODEC_H
#define AT_PAR_CODEC_H

#include <stdatomic.h>

#include "base/block.h"
#include "core/runtime.h"
#include "par/seen.h"

/* The bytecode of a function. Counted: senders remember it by function, messages carry it. */
typedef struct at_code {
  atomic_int refs;
  lua_Integer id; /* unique in the process: receivers remember the loaded function by it */
  size_t size, capacity;
  char *bytes; /* owned */
  unsigned char upvalues;
} at_code;

void at_code_release(at_code *code); /* any thread */

/* How a class of userdata travels: its shared part is counted by the message. */
#define AT_CARRY_BYTES 24
typedef struct at_carrier {
  /* [-0, +0, e] the shared part of the userdata at `index` (borrowed from it), and bytes of one's own. */
  at_shared *(*give)(lua_State *L, int index, void *bytes);
  /* [-0, +(0|1), e] pushes a userdata that holds s (a reference of its own) and returns 1; 0: the bytes
  ** make no sense. */
  int (*take)(lua_State *L, at_shared *s, const void *bytes);
  int gives; /* what give returns is the message's: made for it, not borrowed */
} at_carrier;

typedef struct at_carried {
  const at_carrier *carrier;
  at_shared *shared; /* counted */
} at_carried;

typedef struct at_message {
  char *data; /* owned */
  size_t size, capacity;
  at_code **codes; /* owned, each counted */
  int code_count, code_capacity;
  at_carried *carried; /* owned */
  int carried_count, carried_capacity;
  int keys;   /* strings that AT_T_NEWKEY numbers */
  int roots;  /* values */
  int locals; /* task-local variables, each with its value, behind the roots */
} at_message;

void at_message_clear(at_message *m); /* empty, but keeps its memory */
void at_message_free(at_message *m);  /* any thread; m itself is not freed */
void at_message_move(at_message *to, at_message *from); /* frees what `to` had */
void at_message_swap(at_message *a, at_message *b);

/* Tags. The low bits say what follows; the high bits say more about a table or function. */
enum at_tag {
  AT_T_NIL, AT_T_FALSE, AT_T_TRUE,
  AT_T_INT8,    /* i8 */
  AT_T_INT,     /* i64 */
  AT_T_FLOAT,   /* f64 */
  AT_T_SHORT,   /* u8 length, bytes */
  AT_T_STRING,  /* u64 length, bytes */
  AT_T_TABLE,   /* u32 items, u32 pairs, the items 1 to n, key value ... */
  AT_T_LATER,   /* a table whose body (as above) follows after the roots, in order of appearance */
  AT_T_FUNC,    /* u32 index of its code, u8 plain, u8 upvalues, then upvalues */
  AT_T_REF,     /* u64 offset of the tag of the value meant */
  AT_T_NAMED,   /* u32 length, module, u32 length, field; no field when that length is 0 */
  AT_T_GLOBALS, /* the receiver's globals */
  AT_T_NEWUP,   /* of a function: a value */
  AT_T_SAMEUP,  /* of a function: u64 offset of another function, u8 which of its upvalues */
  AT_T_CARRIED, /* u32 index of what is carried, AT_CARRY_BYTES of its own */
  AT_T_LOCAL,   /* a task-local variable: u64 number, its default */
  AT_T_CLASS,   /* a registered metatable: u32 length, name (0: none), u8 how; its own metatable, if
                ** AT_CLASS_META; then as AT_T_TABLE, or nothing (AT_CLASS_LATER), or an AT_T_NAMED */
  AT_T_NEWKEY,  /* a key as AT_T_SHORT, which gets the next number of the message, from 0 */
  AT_T_KEY,     /* u8: the key of that number */
  AT_T_MASK = 0x1f,
  AT_T_ERROR = 0x20,   /* a table that is an error object */
  AT_T_CLASSED = 0x40, /* a table with a metatable: a value that is one comes first */
  AT_T_SHARED = 0x80 /* something refers to this one */
};

enum { AT_CLASS_LATER = 1, AT_CLASS_NAMED = 2, AT_CLASS_META = 4 };

#define AT_CODEC_DEPTH 60 /* C recursion; a level takes some 300 bytes and 4 slots of the Lua stack */

/* What the values of a message are, for the paths in errors. */
enum at_role { AT_ROLE_JOB, AT_ROLE_RESULT, AT_ROLE_ERROR, AT_ROLE_MESSAGE };

/* What one lua_State needs for both directions. Plain memory of a userdata. */
typedef struct at_codec {
  struct at_par *par; /* the state's, once it has one */
  at_runtime *rt;     /* the state's */
  at_message message; /* being written */
  at_seen seen;
  at_keys keys;
  char *large;      /* owned, or NULL: the memory of one large message that has been read */
  size_t large_capacity;
  unsigned char filter[1024]; /* two bits for each named value: most others end here */
  size_t named_print; /* fingerprint of package.loaded when the names were collected */
  unsigned char named_fresh; /* compared in this message */
  const void *globals;
  unsigned char paused; /* the decoder has stopped the collector */
  unsigned char closed; /* at_codec_free was called */
  unsigned char apart;  /* a finalizer writes a message of its own */
  int loaded_count;   /* functions remembered by the decoder */
  int class_count;    /* classes registered in this state */
} at_codec;

/* User values of the codec's userdata. */
enum { AT_CODEC_NAMES = 1, AT_CODEC_CODES, AT_CODEC_LOADED, AT_CODEC_ERRORMT, AT_CODEC_PACKAGE,
       AT_CODEC_CLASSES, AT_CODEC_VALUES = AT_CODEC_CLASSES };

/* [-0, +1, m] pushes a new codec, which becomes the state's. */
at_codec *at_codec_new(lua_State *L);
/* [-0, +1, -] pushes the state's codec. */
at_codec *at_codec_push(lua_State *L);
void at_codec_free(at_codec *c); /* what it owns; no Lua */

/* [-0, +0, e] writes the values from `first` to the top into c->message; `codec` is the index of
** the userdata. A value that cannot be copied raises, naming the path to it; c keeps the memory.
** With role AT_ROLE_JOB the first value is the function,
** argument 1 of the call, and the values of the running task's variables are written, too. */
void at_encode(lua_State *L, at_codec *c, int codec, int first, int role);

/* [-0, +n, e] pushes the values of a message and returns their number; task-local values become the
** running task's. Bytes that encode.c cannot have written raise "corrupt message". */
int at_decode(lua_State *L, at_codec *c, int codec, const at_message *m);
/* [-0, +0, -] for the caller, after at_decode has raised. */
void at_decode_end(lua_State *L, at_codec *c);

/* Finalizers run while a message is being written, and may send something themselves: each Lua function
** that encodes begins with `if (at_codec_is_nested(L)) return at_codec_apart(L);`. */
int at_codec_is_nested(lua_State *L);
/* [-n, +r, e] calls the running function with its arguments again, with memory apart. */
int at_codec_apart(lua_State *L);

/* carry.c */
/* [-0, +0, m] adds class to the table at the top. */
void at_carry_open(lua_State *L, at_runtime *rt);
/* [-0, +0, m] userdata with the metatable at the top travel so. */
void at_carry_class(lua_State *L, const at_carrier *carrier);
/* [-0, +1, m] pushes the table of what can be carried: metatable -> class name | carrier, class name -> metatable. */
void at_carry_push(lua_State *L);
/* [-2, +0, m] name and metatable, at the top, are a class of this state. */
void at_carry_register(lua_State *L, at_codec *c, int codec);
/* [-0, +0, m] the next at_carry_add cannot raise. */
void at_carry_reserve(lua_State *L, at_message *m);
/* [-0, +0, m] the message carries s; returns its index there. */
uint32_t at_carry_add(lua_State *L, at_message *m, const at_carrier *carrier, at_shared *s);
/* A value on its way as a list of its own: [-0, +1, m] decodes m, whose values are pushed, or the error;
** the status of lua_pcall. */
int at_carry_decode(lua_State *L, const at_message *m);

/* codec.c for encode.c. */
/* [-0, +0, m] room for n more bytes in c->message. */
void at_codec_grow(lua_State *L, at_codec *c, size_t n);
/* Keeps the memory of m for the next large message, if that is worth it. */
void at_codec_keep(at_codec *c, at_message *m);
/* [-0, +0, m] raises what Lua raises when it has no memory. */
int at_codec_no_memory(lua_State *L);
/* [-0, +1, m] pushes the holder of the bytecode of the Lua function at `index`, or nil (NULL). */
at_code *at_code_remembered(lua_State *L, int codec, int index);
/* [-0, +1, m] the same, made now and remembered. */
at_code *at_code_make(lua_State *L, int codec, int index);

/* The names by which values are known. */
/* [-0, +0, m] looks whether package.loaded has changed; collects the names again if so, or `force`. */
void at_codec_refresh(lua_State *L, at_codec *c, int codec, int force);
/* True if `p` may have a name. */
int at_codec_maybe_named(const at_codec *c, const void *p);

#endif
