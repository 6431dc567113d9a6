"""The workloads of benches/workloads.toml on trio: `trio_bench.py WORKLOAD N`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter_ns as now

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness
import trio
import trio.testing

RING, SENDERS, WORKERS = 100, 100, 8
Send, Receive = trio.MemorySendChannel, trio.MemoryReceiveChannel


async def nothing() -> None:
    """Do nothing."""


async def spawn(nursery: trio.Nursery, n: int) -> int:
    start = now()
    async with trio.open_nursery() as inner:
        for _ in range(n):
            inner.start_soon(nothing)
    return now() - start


async def round_trip(nursery: trio.Nursery, n: int) -> int:
    ping_s, ping_r = trio.open_memory_channel(0)
    pong_s, pong_r = trio.open_memory_channel(0)

    async def echo() -> None:
        while True:
            await pong_s.send(await ping_r.receive())

    nursery.start_soon(echo)
    start = now()
    for i in range(n):
        await ping_s.send(i)
        await pong_r.receive()
    return now() - start


async def _forward(source: Receive, target: Send) -> None:
    while True:
        await target.send(await source.receive() + 1)


async def ring(nursery: trio.Nursery, n: int) -> int:
    rounds = n // RING
    first, last = trio.open_memory_channel(0)
    for _ in range(RING - 1):
        target, following = trio.open_memory_channel(0)
        nursery.start_soon(_forward, last, target)
        last = following
    value = 0
    start = now()
    for _ in range(rounds):
        await first.send(value)
        value = await last.receive() + 1
    elapsed = now() - start
    harness.check(value, rounds * RING)
    return elapsed


async def fan_in(nursery: trio.Nursery, n: int) -> int:
    target, source = trio.open_memory_channel(0)
    each = n // SENDERS

    async def sender() -> None:
        for _ in range(each):
            await target.send(1)

    start = now()
    for _ in range(SENDERS):
        nursery.start_soon(sender)
    total = 0
    for _ in range(each * SENDERS):
        total += await source.receive()
    elapsed = now() - start
    harness.check(total, each * SENDERS)
    return elapsed


async def yield_(nursery: trio.Nursery, n: int) -> int:
    async def spin() -> None:
        for _ in range(n // 2):
            await trio.lowlevel.checkpoint()

    start = now()
    async with trio.open_nursery() as inner:
        inner.start_soon(spin)
        inner.start_soon(spin)
    return now() - start


async def buffered(nursery: trio.Nursery, n: int) -> int:
    target, source = trio.open_memory_channel(1000)

    async def sender() -> None:
        for _ in range(n):
            await target.send(1)

    total = 0
    start = now()
    nursery.start_soon(sender)
    for _ in range(n):
        total += await source.receive()
    elapsed = now() - start
    harness.check(total, n)
    return elapsed


async def mutex(nursery: trio.Nursery, n: int) -> int:
    lock, each, count = trio.Lock(), n // WORKERS, 0

    async def worker() -> None:
        nonlocal count
        for _ in range(each):
            await lock.acquire()
            count += 1
            await trio.lowlevel.checkpoint()
            lock.release()

    start = now()
    async with trio.open_nursery() as inner:
        for _ in range(WORKERS):
            inner.start_soon(worker)
    elapsed = now() - start
    harness.check(count, each * WORKERS)
    return elapsed


async def sleepers(nursery: trio.Nursery, n: int) -> int:
    start = now()
    async with trio.open_nursery() as inner:
        for _ in range(n):
            inner.start_soon(trio.sleep, 0.01)
    return now() - start


async def _numbers(target: Send) -> None:
    i = 2
    while True:
        await target.send(i)
        i += 1


async def _filter(source: Receive, target: Send, prime: int) -> None:
    while True:
        value = await source.receive()
        if value % prime:
            await target.send(value)


async def sieve(nursery: trio.Nursery, n: int) -> int:
    prime = 0
    start = now()
    target, source = trio.open_memory_channel(0)
    nursery.start_soon(_numbers, target)
    for _ in range(n):
        prime = await source.receive()
        target, following = trio.open_memory_channel(0)
        nursery.start_soon(_filter, source, target, prime)
        source = following
    elapsed = now() - start
    harness.first_primes_check(prime, n)
    return elapsed


async def _node(nursery: trio.Nursery, result: Send, number: int, size: int) -> None:
    if size == 1:
        await result.send(number)
        return
    target, source = trio.open_memory_channel(0)
    size //= 10
    for i in range(10):
        nursery.start_soon(_node, nursery, target, number + i * size, size)
    total = 0
    for _ in range(10):
        total += await source.receive()
    await result.send(total)


async def skynet(nursery: trio.Nursery, n: int) -> int:
    target, source = trio.open_memory_channel(0)
    start = now()
    nursery.start_soon(_node, nursery, target, 0, n)
    total = await source.receive()
    elapsed = now() - start
    harness.check(total, n * (n - 1) // 2)
    return elapsed


async def parked(nursery: trio.Nursery, n: int) -> harness.Figures:
    gate = trio.Event()
    total = 0

    async def three() -> int:
        await gate.wait()
        return 0

    async def two() -> int:
        return await three() + 1

    async def one() -> int:
        return await two() + 1

    async def body() -> None:
        nonlocal total
        depth = await one()  # not `total += await`: that reads total before it parks
        total += depth

    base = n // 10
    low = high = 0
    start = now()
    async with trio.open_nursery() as inner:
        for _ in range(base):
            inner.start_soon(body)
        await trio.testing.wait_all_tasks_blocked()
        low = harness.memory_bytes()
        for _ in range(n - base):
            inner.start_soon(body)
        await trio.testing.wait_all_tasks_blocked()
        high = harness.memory_bytes()
        gate.set()
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


async def _first(name: str, n: int) -> None:
    async with trio.open_nursery() as nursery:
        harness.show(name, n, await WORKLOADS[name](nursery, n))
        sys.stdout.flush()
        os._exit(0)  # tasks that never end need no cancelling


if __name__ == "__main__":
    harness.main({name: lambda n, w=name: trio.run(_first, w, n) for name in WORKLOADS})
