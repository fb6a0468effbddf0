/* dns.c - names into addresses and back: getaddrinfo, getnameinfo and, for LuaSocket's API, gethostbyname
** on the pool for blocking calls.
** Owns the requests; a pool's thread writes `list`, `error` and the names, the loop thread reads them
** afterwards.
** Invariants: a lookup that runs cannot be stopped, its waiter goes on without it; one runtime has no
** more than half of the pool's threads look up names that somebody waits for, so that slow ones do not
** starve files. */
#include "io/dns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/blocking.h"
#include "core/task.h"
#include "io/address.h"

/* The lookups of one runtime. */
typedef struct lane {
  atomic_int refs; /* the registry's userdata, each lookup: the last one may end on a pool's thread */
  int running; /* on the pool, or in its queue */
  struct lookup *first, **last; /* what waits for its turn */
} lane;

typedef struct lookup {
  at_work work;
  lane *lane; /* counted */
  struct lookup *next, **prev; /* prev NULL: on the pool, or never came so far */
  unsigned char submitted;     /* and counted in `running` */
  void (*run)(at_work *w);
  int error;             /* of getaddrinfo or getnameinfo */
  struct addrinfo *list; /* owned */
  struct hostent entry;  /* of run_entry; points into `memory` */
  char *memory;          /* owned */
  int family;
  at_address address;        /* of a reverse lookup */
  char service[NI_MAXSERV];  /* wanted, or found */
  char host[];               /* wanted; of a reverse lookup NI_MAXHOST bytes, found */
} lookup;

static const char lane_key = 'd';

/* ---- on a pool thread ---- */

static void note(lookup *l) {
  if (l->error == EAI_SYSTEM) l->work.op.status = -errno;
}

static void run_resolve(at_work *w) {
  lookup *l = (lookup *)(void *)w;
  const char *service = *l->service != '\0' ? l->service : NULL;
  struct addrinfo hints;
  memset(&hints, 0, sizeof hints);
  hints.ai_family = l->family;
  hints.ai_socktype = SOCK_STREAM;
  l->error = getaddrinfo(l->host, service, &hints, &l->list);
  /* RFC 6761, 6.3: this name is the loopback address, also on a machine without /etc/hosts. */
  if (l->error != 0 && l->error != EAI_SERVICE && strcasecmp(l->host, "localhost") == 0)
    l->error = getaddrinfo(NULL, service != NULL ? service : "0", &hints, &l->list);
  note(l);
}

static void run_lookup(at_work *w) {
  lookup *l = (lookup *)(void *)w;
  l->error = getnameinfo((const struct sockaddr *)&l->address.name, l->address.size, l->host,
                         NI_MAXHOST, l->service, sizeof l->service, NI_NAMEREQD);
  note(l);
}

/* getaddrinfo's error for one of gethostbyname. */
static int error_of(int h_error) {
  switch (h_error) {
    case TRY_AGAIN: return EAI_AGAIN;
    case NO_RECOVERY: return EAI_FAIL;
#ifdef EAI_NODATA
    case NO_DATA: return EAI_NODATA;
#endif
    default: return EAI_NONAME;
  }
}

#ifdef __GLIBC__
/* A call with this much memory. ERANGE: it wants more. */
static int call_entry(lookup *l, size_t size) {
  struct hostent *found = NULL;
  struct in_addr address;
  int h_error = 0, error;
  if (inet_aton(l->host, &address) != 0)
    error = gethostbyaddr_r(&address, sizeof address, AF_INET, &l->entry, l->memory, size, &found, &h_error);
  else
    error = gethostbyname_r(l->host, &l->entry, l->memory, size, &found, &h_error);
  if (error == ERANGE) return ERANGE;
  l->error = found != NULL ? 0 : error_of(h_error);
  return 0;
}

static void run_entry(at_work *w) {
  lookup *l = (lookup *)(void *)w;
  size_t size = 1024;
  do {
    free(l->memory);
    l->memory = malloc(size);
    if (l->memory == NULL) l->error = EAI_MEMORY;
  } while (l->memory != NULL && call_entry(l, size) == ERANGE && (size *= 2) < 1024 * 1024);
}
#else
/* Without the calls that take memory: the name and the IPv4 addresses, no aliases. */
static void run_entry(at_work *w) {
  static char *none[] = {NULL};
  lookup *l = (lookup *)(void *)w;
  struct addrinfo hints, *a;
  char **list;
  size_t n = 1;
  memset(&hints, 0, sizeof hints);
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_CANONNAME;
  l->error = getaddrinfo(l->host, NULL, &hints, &l->list);
  if (l->error != 0) return;
  for (a = l->list; a != NULL; a = a->ai_next) n++;
  list = malloc(n * sizeof *list);
  l->memory = (char *)list;
  if (list == NULL) {
    l->error = EAI_MEMORY;
    return;
  }
  l->entry.h_name = l->list->ai_canonname != NULL ? l->list->ai_canonname : l->host;
  l->entry.h_aliases = none;
  l->entry.h_addr_list = list;
  for (a = l->list; a != NULL; a = a->ai_next)
    *list++ = (char *)&((struct sockaddr_in *)(void *)a->ai_addr)->sin_addr;
  *list = NULL;
}
#endif

/* ---- whose turn it is ---- */

static void lane_drop(lane *d) {
  if (atomic_fetch_sub(&d->refs, 1) == 1) free(d);
}

static int l_lane_gc(lua_State *L) {
  lane **holder = lua_touserdata(L, 1);
  if (*holder != NULL) lane_drop(*holder);
  *holder = NULL;
  return 0;
}

static void take_out(lookup *l) {
  *l->prev = l->next;
  if (l->next != NULL)
    l->next->prev = l->prev;
  else
    l->lane->last = l->prev;
  l->prev = NULL;
}

/* Onto the pool. No Lua. */
static int submit(at_runtime *rt, lookup *l) {
  int status = at_blocking_submit(rt, &l->work, l->run);
  if (status < 0) return status;
  l->submitted = 1;
  l->lane->running++;
  return 0;
}

/* Those whose turn has come. No Lua. */
static void advance(at_runtime *rt, lane *d) {
  int limit = at_blocking_size(0) / 2;
  while (d->first != NULL && !rt->closing && d->running < (limit > 0 ? limit : 1)) {
    lookup *l = d->first;
    int status;
    take_out(l);
    at_external_remove(rt);
    status = submit(rt, l);
    if (status < 0) {
      l->work.op.status = status;
      at_op_done(&l->work.op);
    }
  }
}

static void enter(at_runtime *rt, lookup *l) {
  lane *d = l->lane;
  l->prev = d->last;
  *d->last = l;
  d->last = &l->next;
  at_external_add(rt); /* so that waiting for a turn is no deadlock */
  advance(rt, d);
}

/* ---- the operations ---- */

/* libuv's status of a getaddrinfo error. */
static int status_of(int error) {
  switch (error) {
    case EAI_AGAIN: return UV_EAI_AGAIN;
    case EAI_BADFLAGS: return UV_EAI_BADFLAGS;
    case EAI_FAIL: return UV_EAI_FAIL;
    case EAI_FAMILY: return UV_EAI_FAMILY;
    case EAI_MEMORY: return UV_EAI_MEMORY;
    case EAI_SERVICE: return UV_EAI_SERVICE;
#ifdef EAI_NODATA
    case EAI_NODATA: return UV_EAI_NODATA;
#endif
    default: return UV_EAI_NONAME;
  }
}

static void push_addresses(lua_State *L, const lookup *l) {
  const struct addrinfo *a;
  int n = 0;
  lua_newtable(L);
  for (a = l->list; a != NULL; a = a->ai_next) {
    struct sockaddr_storage name;
    if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
    memset(&name, 0, sizeof name);
    memcpy(&name, a->ai_addr, a->ai_addrlen);
    at_address_push(L, &name, a->ai_addrlen);
    if (*l->service == '\0') {
      lua_pushnil(L);
      lua_setfield(L, -2, "port");
    }
    lua_rawseti(L, -2, ++n);
  }
}

/* [-0, +1, m] pushes {name=, alias={...}, ip={...}}. */
static void push_entry(lua_State *L, const struct hostent *h) {
  char text[INET_ADDRSTRLEN];
  int i;
  lua_createtable(L, 0, 3);
  lua_pushstring(L, h->h_name);
  lua_setfield(L, -2, "name");
  lua_newtable(L);
  for (i = 0; h->h_aliases != NULL && h->h_aliases[i] != NULL; i++) {
    lua_pushstring(L, h->h_aliases[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "alias");
  lua_newtable(L);
  for (i = 0; h->h_addr_list[i] != NULL; i++) {
    lua_pushstring(L, inet_ntop(AF_INET, h->h_addr_list[i], text, sizeof text));
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "ip");
}

static int lookup_push(lua_State *L, at_op *op) {
  lookup *l = (lookup *)(void *)op;
  if (op->status == 0 && l->error != 0) op->status = status_of(l->error);
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  if (l->run == run_resolve) {
    push_addresses(L, l);
    return 1;
  }
  if (l->run == run_entry) {
    push_entry(L, &l->entry);
    return 1;
  }
  lua_pushstring(L, l->host);
  lua_pushstring(L, l->service);
  return 2;
}

static int lookup_cancel(at_op *op) {
  lookup *l = (lookup *)(void *)op;
  if (l->submitted) {
    l->lane->running--; /* one that hangs, and that nobody waits for, holds up no other */
    l->submitted = 0;
    if (at_blocking_cancel(op)) return 1;
    advance(op->rt, l->lane);
    return 0;
  }
  if (l->prev != NULL) {
    take_out(l);
    at_external_remove(op->rt);
    return 1;
  }
  return 0; /* could not be submitted: at_op_done has been called */
}

/* Without a runtime (it is gone) on a pool's thread. */
static void lookup_release(at_op *op) {
  lookup *l = (lookup *)(void *)op;
  if (l->lane != NULL) {
    if (op->rt != NULL) {
      if (l->submitted) l->lane->running--;
      advance(op->rt, l->lane);
    }
    lane_drop(l->lane);
  }
  if (l->list != NULL) freeaddrinfo(l->list);
  free(l->memory);
  free(l);
}

static const char *lookup_subject(at_op *op) {
  lookup *l = (lookup *)(void *)op;
  return l->run == run_lookup ? l->address.text : l->host;
}

static const at_opclass resolve_class = {"resolve", lookup_push, lookup_cancel, lookup_release,
                                         lookup_subject, 1};
static const at_opclass lookup_class = {"lookup", lookup_push, lookup_cancel, lookup_release,
                                        lookup_subject, 1};

/* [-0, +1, m] pushes the Task of a lookup with room for a host; NULL: it has settled. */
static lookup *begin(lua_State *L, at_runtime *rt, const at_opclass *class, size_t room) {
  lookup *l;
  lane *d;
  at_task *t = at_op_new(L, rt);
  if (at_task_settled(t)) return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &lane_key);
  d = *(lane **)lua_touserdata(L, -1);
  lua_pop(L, 1);
  l = at_op_alloc(L, rt, t, class, sizeof *l + room);
  if (l == NULL) return NULL;
  l->lane = d;
  atomic_fetch_add(&d->refs, 1);
  return l;
}

/* An index into `names` of a string option; 0: none. */
static int choice(lua_State *L, int arg, const char *field, const char *const names[],
                  const char *message) {
  int i = 0;
  if (!lua_istable(L, arg)) return 0;
  lua_getfield(L, arg, field);
  if (!lua_isnil(L, -1)) {
    const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    while (names[i] != NULL && strcmp(names[i], name) != 0) i++;
    luaL_argcheck(L, names[i] != NULL, arg, message);
  }
  lua_pop(L, 1);
  return i;
}

/* The option `service`, borrowed from the table; "" if there is none. */
static const char *service_option(lua_State *L, int arg) {
  const char *service = "";
  if (!lua_istable(L, arg)) return service;
  if (lua_getfield(L, arg, "service") != LUA_TNIL) {
    if (lua_type(L, -1) != LUA_TSTRING || lua_rawlen(L, -1) >= NI_MAXSERV)
      luaL_argerror(L, arg, "option 'service': name of a service expected");
    service = lua_tostring(L, -1);
  }
  lua_pop(L, 1);
  return service;
}

/* resolve(host, {family=, service=}) -> list of {host=, family=, port=} */
static int l_net_resolve(lua_State *L) {
  static const char *const options[] = {"family", "service", NULL};
  static const char *const names[] = {"any", "ipv4", "ipv6", NULL};
  static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
  at_runtime *rt = at_rt(L);
  size_t size;
  const char *host, *service;
  int family;
  lookup *l;
  if (lua_type(L, 1) != LUA_TSTRING) at_arg_type_error(L, 1, "string");
  host = lua_tolstring(L, 1, &size);
  luaL_argcheck(L, size > 0, 1, "host is empty");
  luaL_argcheck(L, strlen(host) == size, 1, "host contains a zero byte");
  (void)at_arg_options(L, 2, options);
  family = families[choice(L, 2, "family", names, "option 'family': \"ipv4\", \"ipv6\" or \"any\" expected")];
  service = service_option(L, 2);
  l = begin(L, rt, &resolve_class, size + 1);
  if (l == NULL) return 1;
  l->run = run_resolve;
  l->family = family;
  strcpy(l->service, service); /* shorter: see service_option */
  memcpy(l->host, host, size + 1);
  enter(rt, l);
  return 1;
}

/* lookup(address [, port]) -> name, service */
static int l_net_lookup(lua_State *L) {
  at_runtime *rt = at_rt(L);
  at_address a;
  const char *host = luaL_checkstring(L, 1);
  int port = (int)luaL_optinteger(L, 2, 0);
  lookup *l;
  luaL_argcheck(L, at_address_parse(&a, host, port) == 0, 1, "numeric address expected");
  l = begin(L, rt, &lookup_class, NI_MAXHOST);
  if (l == NULL) return 1;
  l->run = run_lookup;
  l->address = a;
  enter(rt, l);
  return 1;
}

/* host_entry(host) -> {name=, alias={...}, ip={...}}: what gethostbyname and gethostbyaddr say (IPv4) */
static int l_net_host_entry(lua_State *L) {
  at_runtime *rt = at_rt(L);
  const char *host = luaL_checkstring(L, 1);
  size_t size = strlen(host) + 1;
  lookup *l = begin(L, rt, &resolve_class, size);
  if (l == NULL) return 1;
  l->run = run_entry;
  memcpy(l->host, host, size);
  enter(rt, l);
  return 1;
}

/* [-0, +0, m] adds to core.net at the top */
void at_dns_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"resolve", l_net_resolve}, {"lookup", l_net_lookup},
                                       {"host_entry", l_net_host_entry}, {NULL, NULL}};
  lane **holder;
  at_runtime_setfuncs(L, rt, functions);
  holder = lua_newuserdatauv(L, sizeof *holder, 0);
  *holder = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, l_lane_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  *holder = calloc(1, sizeof **holder);
  if (*holder == NULL) luaL_error(L, "not enough memory");
  atomic_init(&(*holder)->refs, 1);
  (*holder)->last = &(*holder)->first;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &lane_key);
}
