/* address.h - numeric socket addresses as text and as Lua tables, and options of sockets. */
#ifndef AT_IO_ADDRESS_H
#define AT_IO_ADDRESS_H

#include <lua.h>
#include <sys/socket.h>

#define AT_ADDRESS_TEXT 128 /* holds any address as text */

typedef struct at_address {
  struct sockaddr_storage name;
  socklen_t size;
  char text[AT_ADDRESS_TEXT]; /* for error objects: "127.0.0.1:80", "[::1]:80", a path */
} at_address;

/* 0, or UV_EINVAL when host is no numeric IPv4 or IPv6 address (with %scope). No Lua. */
int at_address_parse(at_address *a, const char *host, int port);

/* A Unix socket; a leading zero byte makes it an abstract one. 0, or UV_ENAMETOOLONG. No Lua. */
int at_address_path(at_address *a, const char *path, size_t size);

/* [-0, +1, m] pushes {host=, port=, family=} or {path=}. */
void at_address_push(lua_State *L, const struct sockaddr_storage *name, socklen_t size);

/* [-0, +1 or 2, m] pushes the own or the peer's name of a socket, or nil and an error object. */
int at_address_push_name(lua_State *L, int fd, int peer);

/* 0, or a negative status. No Lua. */
int at_address_nodelay(int fd, int on);
int at_address_keepalive(int fd, int on, int seconds); /* seconds 0: the system's */

int at_address_set(int fd, int level, int option, int value);
int at_address_get(int fd, int level, int option); /* the value, or a negative status */

int at_address_family(int fd); /* AF_INET, AF_INET6, AF_UNIX, or AF_UNSPEC for no socket */

/* A socket that is closed on exec and does not block, or a negative status. */
int at_address_socket(int family, int type);

/* [-0, +1 or 2, v] the methods send_buffer_size([bytes]) and recv_buffer_size([bytes]) of a descriptor:
** the size, or nil and an error object; argument 2 is the size. */
int at_address_buffer_size(lua_State *L, int fd, int option, const char *op);

#endif
