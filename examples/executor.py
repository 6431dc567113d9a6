"""concurrent.futures on goroutines: a drop-in executor, by itself and as asyncio's default one."""

import asyncio
import time
from concurrent.futures import as_completed

import gort
from gort.futures import Executor


def fetch(n: int) -> int:
    time.sleep(0.01)  # an ordinary blocking call: the goroutine waits, no thread does
    return n * n


async def program() -> list[int]:
    asyncio.get_running_loop().set_default_executor(Executor())
    return await asyncio.gather(*(asyncio.to_thread(fetch, n) for n in range(200)))


async def double(n: int) -> int:
    await asyncio.sleep(0.001)
    return 2 * n


def drive_a_loop() -> list[int]:
    loop = asyncio.new_event_loop()
    running = gort.go(loop.run_forever)
    futures = [asyncio.run_coroutine_threadsafe(double(n), loop) for n in range(3)]
    results = [gort.from_future(future) for future in futures]
    loop.call_soon_threadsafe(loop.stop)
    running.join()
    loop.close()
    return results


def main() -> None:
    with Executor(max_workers=8) as pool:
        print("in order:", list(pool.map(fetch, range(6))))
        futures = [pool.submit(fetch, n) for n in range(6)]
        print("as completed:", sorted(future.result() for future in as_completed(futures)))
        numbers = iter(range(1_000_000))
        results = pool.map(fetch, numbers, buffersize=4)
        print("read ahead:", next(results), "then", next(numbers))
        results.close()
    print("through asyncio:", sum(asyncio.run(program())))
    print("a goroutine drives a loop:", gort.go(drive_a_loop).join())


if __name__ == "__main__":
    main()
