# aiohttp_peer.py URL COUNT - COUNT requests with aiohttp, 100 in flight; prints how many a second.
import asyncio
import sys
import time

import aiohttp

url, count = sys.argv[1], int(sys.argv[2])


async def run(session, n):
    left = n

    async def one():
        nonlocal left
        while left > 0:
            left -= 1
            async with session.get(url) as response:
                assert len(await response.text()) > 0

    await asyncio.gather(*(one() for _ in range(100)))


async def main():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session:
        await run(session, count // 10)
        began = time.perf_counter()
        await run(session, count)
        print("rate", count / (time.perf_counter() - began))


asyncio.run(main())
