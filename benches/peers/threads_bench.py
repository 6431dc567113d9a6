"""The workloads of benches/workloads.toml on threads: `threads_bench.py WORKLOAD N`.

queue has no unbuffered channel: a Queue of one value takes its place, which is less work.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Event, Lock, Semaphore, Thread
from time import perf_counter_ns as now
from time import sleep
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import executor_work
import harness

RING, SENDERS, WORKERS, KEYS = 100, 100, 8, 1000


def _go(work: Callable[..., Any], *args: Any) -> Thread:
    thread = Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


def _join(threads: list[Thread]) -> None:
    for thread in threads:
        thread.join()


def nothing() -> None:
    """Do nothing."""


def spawn(n: int) -> int:
    start = now()
    _join([_go(nothing) for _ in range(n)])
    return now() - start


def round_trip(n: int) -> int:
    ping, pong = Queue(1), Queue(1)

    def echo() -> None:
        while True:
            pong.put(ping.get())

    _go(echo)
    start = now()
    for i in range(n):
        ping.put(i)
        pong.get()
    return now() - start


def _forward(source: Queue, target: Queue) -> None:
    while True:
        target.put(source.get() + 1)


def ring(n: int) -> int:
    rounds = n // RING
    first = last = Queue(1)
    for _ in range(RING - 1):
        target = Queue(1)
        _go(_forward, last, target)
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
    ch, each = Queue(1), n // SENDERS

    def sender() -> None:
        for _ in range(each):
            ch.put(1)

    start = now()
    for _ in range(SENDERS):
        _go(sender)
    total = 0
    for _ in range(each * SENDERS):
        total += ch.get()
    elapsed = now() - start
    harness.check(total, each * SENDERS)
    return elapsed


def yield_(n: int) -> int:
    def spin() -> None:
        for _ in range(n // 2):
            os.sched_yield()

    start = now()
    other = _go(spin)
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
    _go(sender)
    for _ in range(n):
        total += ch.get()
    elapsed = now() - start
    harness.check(total, n)
    return elapsed


def mutex(n: int) -> int:
    lock, each, count = Lock(), n // WORKERS, 0

    def worker() -> None:
        nonlocal count
        for _ in range(each):
            lock.acquire()
            count += 1
            os.sched_yield()
            lock.release()

    start = now()
    _join([_go(worker) for _ in range(WORKERS)])
    elapsed = now() - start
    harness.check(count, each * WORKERS)
    return elapsed


def cache_get(n: int) -> int:
    """Hits of functools.lru_cache, of the keys in turn."""
    get = functools.lru_cache(2 * KEYS)(lambda key: key)
    for key in range(KEYS):
        get(key)
    total = 0
    start = now()
    for _ in range(n // KEYS):
        for key in range(KEYS):
            total += get(key)
    elapsed = now() - start
    harness.check(total, n // KEYS * sum(range(KEYS)))
    return elapsed


def sleepers(n: int) -> int:
    start = now()
    _join([_go(sleep, 0.01) for _ in range(n)])
    return now() - start


def _numbers(ch: Queue) -> None:
    i = 2
    while True:
        ch.put(i)
        i += 1


def _filter(source: Queue, target: Queue, prime: int) -> None:
    while True:
        value = source.get()
        if value % prime:
            target.put(value)


def sieve(n: int) -> int:
    prime = 0
    start = now()
    ch = Queue(1)
    _go(_numbers, ch)
    for _ in range(n):
        prime = ch.get()
        target = Queue(1)
        _go(_filter, ch, target, prime)
        ch = target
    elapsed = now() - start
    harness.first_primes_check(prime, n)
    return elapsed


def _node(ch: Queue, number: int, size: int) -> None:
    if size == 1:
        ch.put(number)
        return
    sub, size = Queue(1), size // 10
    for i in range(10):
        _go(_node, sub, number + i * size, size)
    ch.put(sum(sub.get() for _ in range(10)))


def skynet(n: int) -> int:
    ch = Queue(1)
    start = now()
    _go(_node, ch, 0, n)
    total = ch.get()
    elapsed = now() - start
    harness.check(total, n * (n - 1) // 2)
    return elapsed


def parked(n: int) -> harness.Figures:
    gate, ready, adding = Event(), Semaphore(0), Lock()
    total = 0

    def three() -> int:
        ready.release()
        gate.wait()
        return 0

    def two() -> int:
        return three() + 1

    def one() -> int:
        return two() + 1

    def body() -> None:
        nonlocal total
        depth = one()
        with adding:
            total += depth

    def fill(count: int) -> list[Thread]:
        tasks = [_go(body) for _ in range(count)]
        for _ in range(count):
            ready.acquire()
        return tasks

    base = n // 10
    start = now()
    tasks = fill(base)
    low = harness.memory_bytes()
    tasks += fill(n - base)
    high = harness.memory_bytes()
    gate.set()
    _join(tasks)
    elapsed = now() - start
    harness.check(total, 2 * n)
    return elapsed, harness.slope(low, high, n - base)


def blocking(n: int) -> harness.Figures:
    pause = os.sched_yield
    alone = harness.lone_rate(pause)
    stop, rates = Event(), []

    def busy() -> None:
        steps, elapsed = harness.busy_until(stop.is_set, pause)
        rates.append(steps / elapsed)

    computing = _go(busy)
    start = now()
    _join([_go(sleep, 0.1) for _ in range(n)])
    elapsed = now() - start
    stop.set()
    computing.join()
    return elapsed, {"seconds": elapsed / 1e9, "lone_share": rates[0] / alone}


def ticker(n: int) -> harness.Figures:
    stop: list[int] = []
    computing = [_go(harness.count_until, stop) for _ in range(10)]
    found = harness.lateness(sleep, n)
    stop.append(1)
    _join(computing)
    return found


def _first(work: Callable[[int], int | harness.Figures], name: str, n: int) -> None:
    harness.show(name, n, work(n))
    sys.stdout.flush()
    os._exit(0)  # threads that never end


if __name__ == "__main__":
    works = {
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
        "blocking": blocking,
        "ticker": ticker,
        "cache_get": cache_get,
        "executor_map": lambda n: executor_work.mapped(ThreadPoolExecutor, n),
        "executor_map_lazy": lambda n: executor_work.mapped(ThreadPoolExecutor, n),
        "executor_submit": lambda n: executor_work.submitted(ThreadPoolExecutor, n),
        "executor_submit_lazy": lambda n: executor_work.submitted(ThreadPoolExecutor, n),
    }
    harness.main({k: lambda n, k=k: _first(works[k], k, n) for k in works})
