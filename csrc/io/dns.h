/* dns.h - names into addresses. */
#ifndef AT_IO_DNS_H
#define AT_IO_DNS_H

#include "core/runtime.h"

void at_dns_open(lua_State *L, at_runtime *rt);

#endif
