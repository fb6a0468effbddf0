/* preload.c - preloaded by `make asan` and `make tsan` behind the sanitizer's runtime, so that the
** stock interpreter can run an instrumented module. Three things:
** dlclose does nothing: modules that Lua unloads when a state closes stay, and reports name their
** functions. __longjmp_chk, with which a fortified interpreter leaves functions, goes through longjmp:
** the sanitizers do not see the former, and take every function left so for one that still runs.
** LD_PRELOAD is taken out of the environment: programs that specs start run without all this. */
#include <setjmp.h>
#include <stdlib.h>

int dlclose(void *handle);
int dlclose(void *handle)
{
  (void)handle;
  return 0;
}

void __longjmp_chk(jmp_buf env, int value);
void __longjmp_chk(jmp_buf env, int value)
{
  longjmp(env, value);
}

__attribute__((constructor)) static void leave_children_alone(void)
{
  (void)unsetenv("LD_PRELOAD");
}
