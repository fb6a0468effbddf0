/* module.c - asynctask.http1: the C part of asynctask.http's server. Pure functions and one parser class;
** it makes no task and opens nothing, so that it needs nothing of asynctask's but the way it is installed.
** Policy is in lua/asynctask/http. */
#include "ext/http1/request.h"

#include "ext/http1/parser.h"

ASYNCTASK_API int luaopen_asynctask_http1(lua_State *L);

int luaopen_asynctask_http1(lua_State *L) {
  lua_newtable(L);
  http1_request_open(L);
  http1_fields_open(L);
  http1_response_open(L);
#ifdef AT_LLHTTP
  lua_pushfstring(L, "llhttp %d.%d.%d", LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH);
#else
  {
    unsigned long v = http_parser_version();
    lua_pushfstring(L, "http-parser %d.%d.%d", (int)(v >> 16 & 255), (int)(v >> 8 & 255), (int)(v & 255));
  }
#endif
  lua_setfield(L, -2, "library");
  return 1;
}
