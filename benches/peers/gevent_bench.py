"""The workloads of benches/workloads.toml on gevent: `gevent_bench.py WORKLOAD N`."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter_ns as now

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gevent
import harness
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.queue import Channel, Queue

RING, SENDERS, WORKERS = 100, 100, 8


def nothing() -> None:
    """Do nothing."""


def spawn(n: int) -> int:
    start = now()
    for _ in range(n - 1):
        gevent.spawn(nothing)
    gevent.spawn(nothing).join()  # run in order: the last one ends the wait
    return now() - start


def round_trip(n: int) -> int:
    ping, pong = Channel(), Channel()

    def echo() -> None:
        while True:
            pong.put(ping.get())

    gevent.spawn(echo)
    start = now()
    for i in range(n):
        ping.put(i)
        pong.get()
    return now() - start


def _forward(source: Channel, target: Channel) -> None:
    while True:
        target.put(source.get() + 1)


def ring(n: int) -> int:
    rounds = n // RING
    first = last = Channel()
    for _ in range(RING - 1):
        target = Channel()
        gevent.spawn(_forward, last, target)
        last = target
    value = 0
    start = now()
    for _ in range(rounds):
        first.put(value)
        value = last.get() + 1
    elapsed = now() - start
    harness.check(value, rounds * RING)
    return elapsed


def fan_in(n: int) -> int:
    ch, each = Channel(), n // SENDERS

    def sender() -> None:
        for _ in range(each):
            ch.put(1)

    start = now()
    for _ in range(SENDERS):
        gevent.spawn(sender)
    total = 0
    for _ in range(each * SENDERS):
        total += ch.get()
    elapsed = now() - start
    harness.check(total, each * SENDERS)
    return elapsed


def yield_(n: int) -> int:
    def spin() -> None:
        sleep = gevent.sleep
        for _ in range(n // 2):
            sleep(0)

    start = now()
    other = gevent.spawn(spin)
    spin()
    other.join()
    return now() - start


def buffered(n: int) -> int:
    ch = Queue(1000)

    def sender() -> None:
        for _ in range(n):
            ch.put(1)

    total = 0
    start = now()
    gevent.spawn(sender)
    for _ in range(n):
        total += ch.get()
    elapsed = now() - start
    harness.check(total, n)
    return elapsed


def mutex(n: int) -> int:
    lock, each, count = BoundedSemaphore(1), n // WORKERS, 0

    def worker() -> None:
        nonlocal count
        for _ in range(each):
            lock.acquire()
            count += 1
            gevent.sleep(0)
            lock.release()

    start = now()
    gevent.joinall([gevent.spawn(worker) for _ in range(WORKERS)])
    elapsed = now() - start
    harness.check(count, each * WORKERS)
    return elapsed


def sleepers(n: int) -> int:
    start = now()
    gevent.joinall([gevent.spawn(gevent.sleep, 0.01) for _ in range(n)])
    return now() - start


def _numbers(ch: Channel) -> None:
    i = 2
    while True:
        ch.put(i)
        i += 1


def _filter(source: Channel, target: Channel, prime: int) -> None:
    while True:
        value = source.get()
        if value % prime:
            target.put(value)


def sieve(n: int) -> int:
    prime = 0
    start = now()
    ch = Channel()
    gevent.spawn(_numbers, ch)
    for _ in range(n):
        prime = ch.get()
        target = Channel()
        gevent.spawn(_filter, ch, target, prime)
        ch = target
    elapsed = now() - start
    harness.first_primes_check(prime, n)
    return elapsed


def _node(ch: Channel, number: int, size: int) -> None:
    if size == 1:
        ch.put(number)
        return
    sub, size = Channel(), size // 10
    for i in range(10):
        gevent.spawn(_node, sub, number + i * size, size)
    ch.put(sum(sub.get() for _ in range(10)))


def skynet(n: int) -> int:
    ch = Channel()
    start = now()
    gevent.spawn(_node, ch, 0, n)
    total = ch.get()
    elapsed = now() - start
    harness.check(total, n * (n - 1) // 2)
    return elapsed


def parked(n: int) -> harness.Figures:
    gate = Event()
    total = 0

    def three() -> int:
        gate.wait()
        return 0

    def two() -> int:
        return three() + 1

    def one() -> int:
        return two() + 1

    def body() -> None:
        nonlocal total
        depth = one()  # not `total += one()`: that reads total before it parks
        total += depth

    def fill(count: int) -> list[gevent.Greenlet]:
        tasks = [gevent.spawn(body) for _ in range(count)]
        gevent.sleep(0)
        return tasks

    base = n // 10
    start = now()
    tasks = fill(base)
    low = harness.memory_bytes()
    tasks += fill(n - base)
    high = harness.memory_bytes()
    gate.set()
    gevent.joinall(tasks)
    elapsed = now() - start
    harness.check(total, 2 * n)
    return elapsed, harness.slope(low, high, n - base)


if __name__ == "__main__":
    harness.main(
        {
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
    )
