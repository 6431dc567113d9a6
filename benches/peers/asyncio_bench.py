"""The workloads of benches/workloads.toml on asyncio: `asyncio_bench.py WORKLOAD N`.

asyncio has no unbuffered channel: a Queue of one value takes its place, which is less work.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import perf_counter_ns as now
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness

RING, SENDERS, WORKERS = 100, 100, 8
TASKS: list[asyncio.Task[Any]] = []  # the loop itself holds tasks weakly


def _go(work: Coroutine[Any, Any, Any]) -> None:
    TASKS.append(asyncio.create_task(work))


async def nothing() -> None:
    """Do nothing."""


async def spawn(n: int) -> int:
    start = now()
    for _ in range(n - 1):
        asyncio.create_task(nothing())  # the ready queue holds it until it has run
    await asyncio.create_task(nothing())
    return now() - start


async def round_trip(n: int) -> int:
    ping, pong = asyncio.Queue(1), asyncio.Queue(1)

    async def echo() -> None:
        while True:
            await pong.put(await ping.get())

    _go(echo())
    start = now()
    for i in range(n):
        await ping.put(i)
        await pong.get()
    return now() - start


async def _forward(source: asyncio.Queue[int], target: asyncio.Queue[int]) -> None:
    while True:
        await target.put(await source.get() + 1)


async def ring(n: int) -> int:
    rounds = n // RING
    first = last = asyncio.Queue(1)
    for _ in range(RING - 1):
        target = asyncio.Queue(1)
        _go(_forward(last, target))
        last = target
    value = 0
    start = now()
    for _ in range(rounds):
        await first.put(value)
        value = await last.get() + 1
    elapsed = now() - start
    harness.check(value, rounds * RING)
    return elapsed


async def fan_in(n: int) -> int:
    ch, each = asyncio.Queue(1), n // SENDERS

    async def sender() -> None:
        for _ in range(each):
            await ch.put(1)

    start = now()
    for _ in range(SENDERS):
        _go(sender())
    total = 0
    for _ in range(each * SENDERS):
        total += await ch.get()
    elapsed = now() - start
    harness.check(total, each * SENDERS)
    return elapsed


async def yield_(n: int) -> int:
    async def spin() -> None:
        for _ in range(n // 2):
            await asyncio.sleep(0)

    start = now()
    other = asyncio.create_task(spin())
    await spin()
    await other
    return now() - start


async def buffered(n: int) -> int:
    ch = asyncio.Queue(1000)

    async def sender() -> None:
        for _ in range(n):
            await ch.put(1)

    total = 0
    start = now()
    _go(sender())
    for _ in range(n):
        total += await ch.get()
    elapsed = now() - start
    harness.check(total, n)
    return elapsed


async def mutex(n: int) -> int:
    lock, each, count = asyncio.Lock(), n // WORKERS, 0

    async def worker() -> None:
        nonlocal count
        for _ in range(each):
            await lock.acquire()
            count += 1
            await asyncio.sleep(0)
            lock.release()

    start = now()
    await asyncio.gather(*[worker() for _ in range(WORKERS)])
    elapsed = now() - start
    harness.check(count, each * WORKERS)
    return elapsed


async def sleepers(n: int) -> int:
    start = now()
    await asyncio.gather(*[asyncio.sleep(0.01) for _ in range(n)])
    return now() - start


async def _numbers(ch: asyncio.Queue[int]) -> None:
    i = 2
    while True:
        await ch.put(i)
        i += 1


async def _filter(source: asyncio.Queue[int], target: asyncio.Queue[int], prime: int) -> None:
    while True:
        value = await source.get()
        if value % prime:
            await target.put(value)


async def sieve(n: int) -> int:
    prime = 0
    start = now()
    ch = asyncio.Queue(1)
    _go(_numbers(ch))
    for _ in range(n):
        prime = await ch.get()
        target = asyncio.Queue(1)
        _go(_filter(ch, target, prime))
        ch = target
    elapsed = now() - start
    harness.first_primes_check(prime, n)
    return elapsed


async def _node(ch: asyncio.Queue[int], number: int, size: int) -> None:
    if size == 1:
        await ch.put(number)
        return
    sub, size = asyncio.Queue(1), size // 10
    for i in range(10):
        _go(_node(sub, number + i * size, size))
    total = 0
    for _ in range(10):
        total += await sub.get()
    await ch.put(total)


async def skynet(n: int) -> int:
    ch = asyncio.Queue(1)
    start = now()
    _go(_node(ch, 0, n))
    total = await ch.get()
    elapsed = now() - start
    harness.check(total, n * (n - 1) // 2)
    return elapsed


async def parked(n: int) -> harness.Figures:
    gate = asyncio.Event()

    async def three() -> int:
        await gate.wait()
        return 0

    async def two() -> int:
        return await three() + 1

    async def one() -> int:
        return await two() + 1

    async def fill(count: int) -> list[asyncio.Task[int]]:
        tasks = [asyncio.create_task(one()) for _ in range(count)]
        await asyncio.sleep(0)
        return tasks

    base = n // 10
    start = now()
    tasks = await fill(base)
    low = harness.memory_bytes()
    tasks += await fill(n - base)
    high = harness.memory_bytes()
    gate.set()
    total = 0
    for task in tasks:
        total += await task
    elapsed = now() - start
    harness.check(total, 2 * n)
    return elapsed, harness.slope(low, high, n - base)


WORKLOADS = {
    "spawn": spawn,
    "round_trip": round_trip,
    "ring": ring,
    "fan_in": fan_in,
    "yield": yield_,
    "buffered": buffered,
    "mutex": mutex,
    "sleepers": sleepers,
    "sieve": sieve,
    "skynet": skynet,
    "parked": parked,
}


def main(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
    """Run the command line with `run` as the event loop's entry."""

    async def first(name: str, n: int) -> None:
        harness.show(name, n, await WORKLOADS[name](n))
        sys.stdout.flush()
        os._exit(0)  # tasks that never end need no cancelling

    harness.main({name: lambda n, w=name: run(first(w, n)) for name in WORKLOADS})


if __name__ == "__main__":
    main(asyncio.run)
