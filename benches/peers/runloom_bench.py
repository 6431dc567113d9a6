"""The workloads of benches/workloads.toml on runloom, one hub: `runloom_bench.py WORKLOAD N`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns as now

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness
import runloom
import runloom.sync

RING, SENDERS, WORKERS = 100, 100, 8


def _each(ch: runloom.Chan) -> Iterator[int]:
    while True:
        value, ok = ch.recv()
        if not ok:
            return
        yield value


def nothing() -> None:
    """Do nothing."""


def spawn(n: int) -> int:
    done = runloom.Chan()
    go = runloom.fiber
    start = now()
    for _ in range(n - 1):
        go(nothing)
    go(done.send, 1)  # run in order: the last one ends the wait
    done.recv()
    return now() - start


def round_trip(n: int) -> int:
    ping, pong = runloom.Chan(), runloom.Chan()

    def echo() -> None:
        for value in _each(ping):
            pong.send(value)

    runloom.fiber(echo)
    start = now()
    for i in range(n):
        ping.send(i)
        pong.recv()
    elapsed = now() - start
    ping.close()
    return elapsed


def _forward(source: runloom.Chan, target: runloom.Chan) -> None:
    for value in _each(source):
        target.send(value + 1)


def ring(n: int) -> int:
    rounds = n // RING
    first = last = runloom.Chan()
    for _ in range(RING - 1):
        target = runloom.Chan()
        runloom.fiber(_forward, last, target)
        last = target
    value = 0
    start = now()
    for _ in range(rounds):
        first.send(value)
        value = last.recv()[0] + 1
    elapsed = now() - start
    harness.check(value, rounds * RING)
    return elapsed


def fan_in(n: int) -> int:
    ch, each = runloom.Chan(), n // SENDERS

    def sender() -> None:
        for _ in range(each):
            ch.send(1)

    start = now()
    for _ in range(SENDERS):
        runloom.fiber(sender)
    total = 0
    for _ in range(each * SENDERS):
        total += ch.recv()[0]
    elapsed = now() - start
    harness.check(total, each * SENDERS)
    return elapsed


def select4(n: int) -> int:
    chans = [runloom.Chan(n) for _ in range(4)]
    for ch in chans:
        for _ in range(n):
            ch.send(1)
    a, b, c, d = chans
    select = runloom.select
    total = 0
    start = now()
    for _ in range(n):
        _, (value, _) = select([("recv", a), ("recv", b), ("recv", c), ("recv", d)])
        total += value
    elapsed = now() - start
    harness.check(total, n)
    return elapsed


def yield_(n: int) -> int:
    def spin() -> None:
        gosched = runloom.yield_now
        for _ in range(n // 2):
            gosched()

    start = now()
    done = runloom.Chan(1)
    runloom.fiber(lambda: done.send(spin()))
    spin()
    done.recv()
    return now() - start


def buffered(n: int) -> int:
    ch = runloom.Chan(1000)

    def sender() -> None:
        for _ in range(n):
            ch.send(1)
        ch.close()

    total = 0
    start = now()
    runloom.fiber(sender)
    for value in _each(ch):
        total += value
    elapsed = now() - start
    harness.check(total, n)
    return elapsed


def mutex(n: int) -> int:
    lock, wg = runloom.sync.Lock(), runloom.WaitGroup()
    each, count = n // WORKERS, 0

    def worker() -> None:
        nonlocal count
        for _ in range(each):
            lock.acquire()
            count += 1
            runloom.yield_now()
            lock.release()
        wg.done()

    start = now()
    wg.add(WORKERS)
    for _ in range(WORKERS):
        runloom.fiber(worker)
    wg.wait()
    elapsed = now() - start
    harness.check(count, each * WORKERS)
    return elapsed


def sleepers(n: int) -> int:
    wg = runloom.WaitGroup()

    def sleeper() -> None:
        runloom.sleep(0.01)
        wg.done()

    start = now()
    wg.add(n)
    for _ in range(n):
        runloom.fiber(sleeper)
    wg.wait()
    return now() - start


def _numbers(ch: runloom.Chan) -> None:
    i = 2
    while True:
        ch.send(i)
        i += 1


def _filter(source: runloom.Chan, target: runloom.Chan, prime: int) -> None:
    for value in _each(source):
        if value % prime:
            target.send(value)


def sieve(n: int) -> int:
    prime = 0
    start = now()
    ch = runloom.Chan()
    runloom.fiber(_numbers, ch)
    for _ in range(n):
        prime, _ = ch.recv()
        target = runloom.Chan()
        runloom.fiber(_filter, ch, target, prime)
        ch = target
    elapsed = now() - start
    harness.first_primes_check(prime, n)
    return elapsed


def _node(ch: runloom.Chan, number: int, size: int) -> None:
    if size == 1:
        ch.send(number)
        return
    sub, size = runloom.Chan(), size // 10
    for i in range(10):
        runloom.fiber(_node, sub, number + i * size, size)
    ch.send(sum(sub.recv()[0] for _ in range(10)))


def skynet(n: int) -> int:
    ch = runloom.Chan()
    start = now()
    runloom.fiber(_node, ch, 0, n)
    total, _ = ch.recv()
    elapsed = now() - start
    harness.check(total, n * (n - 1) // 2)
    return elapsed


def parked(n: int) -> harness.Figures:
    gate, ready, done = runloom.Chan(), runloom.Chan(), runloom.Chan(n)

    def three() -> int:
        gate.recv()
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
            runloom.fiber(body)
        for _ in range(count):
            ready.recv()
        runloom.yield_now()

    base = n // 10
    start = now()
    fill(base)
    low = harness.memory_bytes()
    fill(n - base)
    high = harness.memory_bytes()
    gate.close()
    total = 0
    for _ in range(n):
        total += done.recv()[0]
    elapsed = now() - start
    harness.check(total, 2 * n)
    return elapsed, harness.slope(low, high, n - base)


WORKLOADS = {
    "spawn": spawn,
    "round_trip": round_trip,
    "ring": ring,
    "fan_in": fan_in,
    "select4": select4,
    "yield": yield_,
    "buffered": buffered,
    "mutex": mutex,
    "sleepers": sleepers,
    "sieve": sieve,
    "skynet": skynet,
    "parked": parked,
}


def run(work: Callable[[int], int | harness.Figures], n: int) -> int | harness.Figures:
    """Run `work` as the first fiber; its fibers that never end do not hold up the process."""

    def first() -> None:
        harness.show(sys.argv[1], n, work(n))
        sys.stdout.flush()
        os._exit(0)

    runloom.run(1, first)
    sys.exit("the first fiber did not end")


if __name__ == "__main__":
    harness.main({name: lambda n, f=f: run(f, n) for name, f in WORKLOADS.items()})
