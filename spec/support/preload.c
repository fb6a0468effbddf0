/* preload.c - preloaded by `make asan` and `make tsan` behind the sanitizer's runtime, so that the
** stock interpreter can run an instrumented module. Four things:
** dlclose does nothing: modules that Lua unloads when a state closes stay, and reports name their
** functions. __longjmp_chk, with which a fortified interpreter leaves functions, goes through longjmp,
** and syscall(SYS_close), with which libuv closes descriptors, through close: the sanitizers do not see
** the former, and take every function left so for one that still runs, and two users of one descriptor's
** number for a race.
** LD_PRELOAD is taken out of the environment: programs that specs start (a shell, make) run without all
** this, some of them would crash. Those that want it find it in ASYNCTASK_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

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

static long (*real_syscall)(long number, ...);

long syscall(long number, ...)
{
  long a[6];
  va_list list;
  int i;
  va_start(list, number);
  for (i = 0; i < 6; i++) a[i] = va_arg(list, long); /* those that were not given are ignored */
  va_end(list);
  if (number == SYS_close) return close((int)a[0]);
  return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

__attribute__((constructor)) static void prepare(void)
{
  *(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
  (void)unsetenv("LD_PRELOAD");
}
