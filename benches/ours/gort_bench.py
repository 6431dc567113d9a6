"""The workloads of benches/workloads.toml on gort: `gort_bench.py WORKLOAD N`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter_ns as now
from time import sleep

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import executor_work
import gort
import harness
from gort.cache import ConcurrentCache
from gort.futures import Executor

RING, SENDERS, WORKERS, KEYS = 100, 100, 8, 1000


def nothing() -> None:
    """Do nothing."""


def spawn(n: int) -> int:
    go = gort.go
    start = now()
    for _ in range(n):
        go(nothing)
    while gort.num_goroutine() > 1:
        gort.gosched()
    return now() - start


def errgroup(n: int) -> int:
    group = gort.errgroup.Group()
    go = group.go
    start = now()
    for _ in range(n):
        go(nothing)
    group.wait()
    return now() - start


def round_trip(n: int) -> int:
    ping, pong = gort.Chan(), gort.Chan()

    def echo() -> None:
        for value in ping:
            pong.send(value)

    gort.go(echo)
    start = now()
    for i in range(n):
        ping.send(i)
        pong.recv()
    elapsed = now() - start
    ping.close()
    return elapsed


def _forward(source: gort.Chan[int], target: gort.Chan[int]) -> None:
    for value in source:
        target.send(value + 1)


def ring(n: int) -> int:
    rounds = n // RING
    first = last = gort.Chan()
    for _ in range(RING - 1):
        target = gort.Chan()
        gort.go(_forward, last, target)
        last = target
    value = 0
    start = now()
    for _ in range(rounds):
        first.send(value)
        value = last.recv() + 1
    elapsed = now() - start
    harness.check(value, rounds * RING)
    return elapsed


def fan_in(n: int) -> int:
    ch, each = gort.Chan(), n // SENDERS

    def sender() -> None:
        for _ in range(each):
            ch.send(1)

    start = now()
    for _ in range(SENDERS):
        gort.go(sender)
    total = 0
    for _ in range(each * SENDERS):
        total += ch.recv()
    elapsed = now() - start
    harness.check(total, each * SENDERS)
    return elapsed


def select4(n: int) -> int:
    chans = [gort.Chan(n) for _ in range(4)]
    for ch in chans:
        for _ in range(n):
            ch.send(1)
    a, b, c, d = chans
    select, recv = gort.select, gort.recv
    total = 0
    start = now()
    for _ in range(n):
        _, value, _ = select(recv(a), recv(b), recv(c), recv(d))
        total += value
    elapsed = now() - start
    harness.check(total, n)
    return elapsed


def yield_(n: int) -> int:
    def spin() -> None:
        gosched = gort.gosched
        for _ in range(n // 2):
            gosched()

    start = now()
    other = gort.go(spin)
    spin()
    other.join()
    return now() - start


def buffered(n: int) -> int:
    ch = gort.Chan(1000)

    def sender() -> None:
        for _ in range(n):
            ch.send(1)
        ch.close()

    total = 0
    start = now()
    gort.go(sender)
    for value in ch:
        total += value
    elapsed = now() - start
    harness.check(total, n)
    return elapsed


def mutex(n: int) -> int:
    lock, wg = gort.sync.Mutex(), gort.sync.WaitGroup()
    each, count = n // WORKERS, 0

    def worker() -> None:
        nonlocal count
        for _ in range(each):
            lock.lock()
            count += 1
            gort.gosched()
            lock.unlock()
        wg.done()

    start = now()
    wg.add(WORKERS)
    for _ in range(WORKERS):
        gort.go(worker)
    wg.wait()
    elapsed = now() - start
    harness.check(count, each * WORKERS)
    return elapsed


def semaphore(n: int) -> int:
    semaphore = gort.Semaphore(3)
    acquire, release = semaphore.acquire, semaphore.release
    start = now()
    for _ in range(n):
        acquire()
        release()
    return now() - start


def sync_map(n: int) -> int:
    """Nine loads and a store of ten, on the keys in turn."""
    m = gort.Map((key, key) for key in range(KEYS))
    load, store = m.load, m.store
    total = 0
    start = now()
    for _ in range(n // KEYS):
        for key in range(KEYS):
            if key % 10 == 0:
                store(key, key)
            else:
                value, ok = load(key)
                if ok:
                    total += value
    elapsed = now() - start
    harness.check(total, n // KEYS * sum(key for key in range(KEYS) if key % 10))
    return elapsed


def cache_get(n: int) -> int:
    """Hits of the keys in turn."""
    cache = ConcurrentCache[int, int](2 * KEYS)
    for key in range(KEYS):
        cache[key] = key
    get = cache.get
    total = 0
    start = now()
    for _ in range(n // KEYS):
        for key in range(KEYS):
            value, ok = get(key)
            if ok:
                total += value
    elapsed = now() - start
    harness.check(total, n // KEYS * sum(range(KEYS)))
    return elapsed


def sleepers(n: int) -> int:
    wg = gort.sync.WaitGroup()

    def sleeper() -> None:
        gort.sleep(0.01)
        wg.done()

    start = now()
    wg.add(n)
    for _ in range(n):
        gort.go(sleeper)
    wg.wait()
    return now() - start


def _numbers(ch: gort.Chan[int]) -> None:
    i = 2
    while True:
        ch.send(i)
        i += 1


def _filter(source: gort.Chan[int], target: gort.Chan[int], prime: int) -> None:
    for value in source:
        if value % prime:
            target.send(value)


def sieve(n: int) -> int:
    prime = 0
    start = now()
    ch = gort.Chan()
    gort.go(_numbers, ch)
    for _ in range(n):
        prime = ch.recv()
        target = gort.Chan()
        gort.go(_filter, ch, target, prime)
        ch = target
    elapsed = now() - start
    harness.first_primes_check(prime, n)
    return elapsed


def _node(ch: gort.Chan[int], number: int, size: int) -> None:
    if size == 1:
        ch.send(number)
        return
    sub, size = gort.Chan(), size // 10
    for i in range(10):
        gort.go(_node, sub, number + i * size, size)
    ch.send(sum(sub.recv() for _ in range(10)))


def skynet(n: int) -> int:
    ch = gort.Chan()
    start = now()
    gort.go(_node, ch, 0, n)
    total = ch.recv()
    elapsed = now() - start
    harness.check(total, n * (n - 1) // 2)
    return elapsed


def context_cancel(n: int) -> int:
    background, with_cancel = gort.context.background, gort.context.with_cancel
    parent, cancel = with_cancel(background())
    children = [with_cancel(parent)[0] for _ in range(n)]
    start = now()
    cancel()
    elapsed = now() - start
    harness.check(sum(child.err() is not None for child in children), n)
    return elapsed


def crowd(n: int, settle: Callable[[], object]) -> tuple[int, int, float]:
    """Park n goroutines three calls deep, release them: ns in all, ns to release, bytes each."""
    gate, ready, done = gort.Chan(), gort.Chan(), gort.Chan(n)

    def three() -> int:
        gate.recv_ok()
        return 0

    def two() -> int:
        return three() + 1

    def one() -> int:
        return two() + 1

    def body() -> None:
        ready.send(1)
        done.send(one())

    def fill(count: int) -> None:
        for _ in range(count):
            gort.go(body)
        for _ in range(count):
            ready.recv()
        gort.gosched()

    base = n // 10
    start = now()
    fill(base)
    settle()
    low = harness.memory_bytes()
    fill(n - base)
    settle()
    high = harness.memory_bytes()
    wake = now()
    gate.close()
    total = 0
    for _ in range(n):
        total += done.recv()
    end = now()
    harness.check(total, 2 * n)
    return end - start, end - wake, harness.slope(low, high, n - base)


def parked(n: int) -> harness.Figures:
    elapsed, _, size = crowd(n, gort.gosched)
    return elapsed, size


def wake(n: int) -> harness.Figures:
    _, elapsed, size = crowd(n, gort.gosched)
    return elapsed, size


def trimmed(n: int) -> harness.Figures:
    _, elapsed, size = crowd(n, gort.memory.trim)
    return elapsed, size


def blocking(n: int) -> harness.Figures:
    """N goroutines in an ordinary blocking call beside one that computes."""
    gosched = gort.gosched
    alone = harness.lone_rate(gosched)
    stop: list[int] = []
    busy = gort.go(harness.busy_until, lambda: stop, gosched)
    gosched()
    start = now()
    for g in [gort.go(sleep, 0.1) for _ in range(n)]:
        g.join()
    elapsed = now() - start
    stop.append(1)
    steps, busy_ns = busy.join()
    return elapsed, {"seconds": elapsed / 1e9, "lone_share": steps / busy_ns / alone}


def ticker(n: int) -> harness.Figures:
    """How late one wakes who sleeps, beside ten that compute and call nothing."""
    stop: list[int] = []
    computing = [gort.go(harness.count_until, stop) for _ in range(10)]
    found = harness.lateness(gort.sleep, n)
    stop.append(1)
    for g in computing:
        g.join()
    return found


def lazy(workers: int) -> Executor:
    """An executor with lazy futures."""
    return Executor(workers, lazy=True)


def import_(n: int) -> int:
    """Start n interpreters that import gort and n that do not; the difference of the medians."""
    seconds: dict[str, list[int]] = {"import gort": [], "pass": []}
    for _ in range(n):
        for code, found in seconds.items():
            start = now()
            subprocess.run([sys.executable, "-c", code], check=True)
            found.append(now() - start)
    return int(n * (median(seconds["import gort"]) - median(seconds["pass"])))


WORKLOADS = {
    "spawn": spawn,
    "errgroup": errgroup,
    "round_trip": round_trip,
    "ring": ring,
    "fan_in": fan_in,
    "select4": select4,
    "yield": yield_,
    "buffered": buffered,
    "mutex": mutex,
    "semaphore": semaphore,
    "sync_map": sync_map,
    "cache_get": cache_get,
    "sleepers": sleepers,
    "sieve": sieve,
    "skynet": skynet,
    "context_cancel": context_cancel,
    "parked": parked,
    "wake": wake,
    "trimmed": trimmed,
    "blocking": blocking,
    "ticker": ticker,
    "executor_map": lambda n: executor_work.mapped(Executor, n),
    "executor_map_lazy": lambda n: executor_work.mapped(lazy, n),
    "executor_submit": lambda n: executor_work.submitted(Executor, n),
    "executor_submit_lazy": lambda n: executor_work.submitted(lazy, n),
    "import": import_,
}

if __name__ == "__main__":
    harness.main({name: lambda n, f=f: gort.run(f, n) for name, f in WORKLOADS.items()})
