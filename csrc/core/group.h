/* group.h - groups: members that end together (S13; TaskGroup, nursery). */
#ifndef AT_CORE_GROUP_H
#define AT_CORE_GROUP_H

#include "core/task.h"

#pragma GCC visibility push(hidden)

/* The ring of a group's members, from the leaf that stands for it. No Lua. */
at_leaf **at_group_ring(at_leaf *leaf);

/* [-0, +0, m] adds group and Group (its metatable) to the table at the top. */
void at_group_functions(lua_State *L, at_runtime *rt);

#pragma GCC visibility pop

#endif
