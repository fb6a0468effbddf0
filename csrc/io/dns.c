/* dns.c - names into addresses: getaddrinfo on the pool for blocking calls. Owns the request; the
** pool's thread writes `list` and `error`, the loop thread reads them afterwards.
** Invariant: a lookup that runs cannot be stopped; its waiter goes on without it. */
#include "io/dns.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/arg.h"
#include "base/error.h"
#include "core/blocking.h"
#include "core/task.h"
#include "io/address.h"

typedef struct lookup {
  at_work work;
  struct addrinfo *list; /* owned */
  int error;             /* of getaddrinfo */
  int family;
  char host[];
} lookup;

/* On a pool thread. */
static void run(at_work *w) {
  lookup *l = (lookup *)(void *)w;
  struct addrinfo hints;
  memset(&hints, 0, sizeof hints);
  hints.ai_family = l->family;
  hints.ai_socktype = SOCK_STREAM;
  l->error = getaddrinfo(l->host, NULL, &hints, &l->list);
  /* RFC 6761, 6.3: this name is the loopback address, also on a machine without /etc/hosts. */
  if (l->error != 0 && strcasecmp(l->host, "localhost") == 0)
    l->error = getaddrinfo(NULL, "0", &hints, &l->list);
  if (l->error == EAI_SYSTEM) l->work.op.status = -errno;
}

/* libuv's status of a getaddrinfo error. */
static int status_of(int error) {
  switch (error) {
    case EAI_AGAIN: return UV_EAI_AGAIN;
    case EAI_BADFLAGS: return UV_EAI_BADFLAGS;
    case EAI_FAIL: return UV_EAI_FAIL;
    case EAI_FAMILY: return UV_EAI_FAMILY;
    case EAI_MEMORY: return UV_EAI_MEMORY;
#ifdef EAI_NODATA
    case EAI_NODATA: return UV_EAI_NODATA;
#endif
    default: return UV_EAI_NONAME;
  }
}

static int lookup_push(lua_State *L, at_op *op) {
  lookup *l = (lookup *)(void *)op;
  const struct addrinfo *a;
  int n = 0;
  if (op->status == 0 && l->error != 0) op->status = status_of(l->error);
  if (op->status < 0) {
    at_op_push_error(L, op, op->status);
    return AT_OP_FAILED;
  }
  lua_newtable(L);
  for (a = l->list; a != NULL; a = a->ai_next) {
    struct sockaddr_storage name;
    if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
    memset(&name, 0, sizeof name);
    memcpy(&name, a->ai_addr, a->ai_addrlen);
    at_address_push(L, &name, a->ai_addrlen);
    lua_pushnil(L);
    lua_setfield(L, -2, "port");
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

static void lookup_release(at_op *op) {
  lookup *l = (lookup *)(void *)op;
  if (l->list != NULL) freeaddrinfo(l->list);
  free(l);
}

static const char *lookup_subject(at_op *op) { return ((lookup *)(void *)op)->host; }

static const at_opclass resolve_class = {"resolve", lookup_push, at_blocking_cancel,
                                         lookup_release, lookup_subject, 1};

/* resolve(host, {family="ipv4"|"ipv6"}) -> list of {host=, family=} */
static int l_net_resolve(lua_State *L) {
  static const char *const options[] = {"family", NULL};
  static const char *const names[] = {"any", "ipv4", "ipv6", NULL};
  static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
  at_runtime *rt = at_rt(L);
  size_t size;
  const char *host;
  int family = AF_UNSPEC, status;
  lookup *l;
  at_task *t;
  if (lua_type(L, 1) != LUA_TSTRING) at_arg_type_error(L, 1, "string");
  host = lua_tolstring(L, 1, &size);
  luaL_argcheck(L, size > 0, 1, "host is empty");
  luaL_argcheck(L, strlen(host) == size, 1, "host contains a zero byte");
  if (at_arg_options(L, 2, options)) {
    lua_getfield(L, 2, "family");
    if (!lua_isnil(L, -1)) {
      int i = 0;
      const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
      while (names[i] != NULL && strcmp(names[i], name) != 0) i++;
      luaL_argcheck(L, names[i] != NULL, 2,
                    "option 'family': \"ipv4\", \"ipv6\" or \"any\" expected");
      family = families[i];
    }
    lua_pop(L, 1);
  }
  t = at_op_new(L, rt);
  if (at_task_settled(t)) return 1;
  l = at_op_alloc(L, rt, t, &resolve_class, sizeof *l + size + 1);
  if (l == NULL) return 1;
  l->family = family;
  memcpy(l->host, host, size + 1);
  status = at_blocking_submit(rt, &l->work, run);
  if (status < 0) at_op_fail(L, &l->work.op, status);
  return 1;
}

/* [-0, +0, m] adds to core.net at the top */
void at_dns_open(lua_State *L, at_runtime *rt) {
  static const luaL_Reg functions[] = {{"resolve", l_net_resolve}, {NULL, NULL}};
  at_runtime_setfuncs(L, rt, functions);
}
