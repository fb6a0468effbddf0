"""asyncio, or uvloop with the argument `uvloop`, at the measurements of bench/kernel.lua.

Prints lines `name nanoseconds` (CPU time for one), `sleepers` in seconds, `bytes` in bytes of RSS."""
import asyncio
import resource
import sys
import time


def cpu():
    return time.process_time_ns()


async def trivial():
    return None


async def spawn(n):
    for _ in range(n):
        await asyncio.create_task(trivial())


async def switch(n):
    async def half():
        for _ in range(n // 2):
            await asyncio.sleep(0)

    await asyncio.gather(half(), half())


async def zero(n):
    # sleep(0) is a bare yield there: a timer that is due at once is the same work as ours
    loop = asyncio.get_running_loop()
    for _ in range(n):
        future = loop.create_future()
        loop.call_later(0, future.set_result, None)
        await future


def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


async def sleepers(n):
    before, began = rss(), cpu()
    tasks = [asyncio.create_task(asyncio.sleep(1.0)) for _ in range(n)]
    await asyncio.sleep(0)
    size = (rss() - before) / n
    await asyncio.gather(*tasks)
    return (cpu() - began) / 1e9, size


async def main(n):
    for name, f in (("spawn", spawn), ("switch", switch), ("zero", zero)):
        await f(n // 10)
        began = cpu()
        await f(n)
        print(name, (cpu() - began) / n)
    seconds, size = await sleepers(100000)
    print("sleepers", seconds)
    print("bytes", size)


if len(sys.argv) > 1 and sys.argv[1] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main(100000))
