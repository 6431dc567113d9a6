"""asyncio beside goroutines: await a channel, await a goroutine, and run a loop inside one."""

import asyncio
import time

import gort


def blocking(n: int) -> int:
    time.sleep(0.01)  # an ordinary call; the goroutine waits, the event loop does not
    return n * n


async def client(replies: gort.Chan[str]) -> None:
    squares = await asyncio.gather(*(gort.wait(gort.go(blocking, n)) for n in range(5)))
    print("goroutines awaited:", squares)
    await replies.send_async("from asyncio")
    async for value in replies:
        print("received:", value)
        break


async def inside(n: int) -> int:
    await asyncio.sleep(0.001)
    return n + 1


def main() -> None:
    asyncio.run(client(gort.Chan(1)))
    loops = [gort.go(lambda n=n: asyncio.run(inside(n))) for n in range(3)]
    print("an event loop in each goroutine:", [g.join() for g in loops])


if __name__ == "__main__":
    main()
