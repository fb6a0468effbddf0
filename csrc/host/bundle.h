/* bundle.h - the Lua files of the library as C data, which tools/bundle.lua makes. */
#ifndef AT_HOST_BUNDLE_H
#define AT_HOST_BUNDLE_H

#include <stddef.h>

#pragma GCC visibility push(hidden)

typedef struct at_bundled {
  const char *name;  /* of the module; NULL ends the table */
  const char *chunk; /* of the chunk, for messages */
  const char *text;
  size_t size;
} at_bundled;

extern const at_bundled at_bundle[];

#pragma GCC visibility pop

#endif
