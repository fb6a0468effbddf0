/* nodlclose.c - preloaded by `make asan` and `make tsan`: dlclose does nothing, so that modules that
** Lua unloads when a state closes keep their place, and reports name their functions. */
int dlclose(void *handle);
int dlclose(void *handle)
{
  (void)handle;
  return 0;
}
