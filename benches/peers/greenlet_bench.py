"""Bare switches with greenlet, which has no scheduler: `greenlet_bench.py WORKLOAD N`.

A lower bound for gevent: spawn runs each greenlet at once, a round trip is two switches.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter_ns as now

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness
from greenlet import getcurrent, greenlet

RING = 100


def nothing() -> None:
    """Do nothing."""


def spawn(n: int) -> int:
    start = now()
    for _ in range(n):
        greenlet(nothing).switch()
    return now() - start


def round_trip(n: int) -> int:
    main = getcurrent()

    def echo(value: int) -> None:
        while True:
            value = main.switch(value)

    other = greenlet(echo)
    start = now()
    for i in range(n):
        other.switch(i)
    return now() - start


def ring(n: int) -> int:
    rounds = n // RING
    following = getcurrent()

    def forward(value: int, target: greenlet) -> None:
        while True:
            value = target.switch(value + 1)

    def start_with(target: greenlet) -> greenlet:
        return greenlet(lambda value: forward(value, target))

    for _ in range(RING - 1):
        following = start_with(following)
    value = 0
    start = now()
    for _ in range(rounds):
        value = following.switch(value) + 1
    elapsed = now() - start
    harness.check(value, rounds * RING)
    return elapsed


def yield_(n: int) -> int:
    return round_trip(n // 2)


def parked(n: int) -> harness.Figures:
    main = getcurrent()
    total = 0

    def three() -> int:
        main.switch()
        return 0

    def two() -> int:
        return three() + 1

    def one() -> int:
        return two() + 1

    def body() -> None:
        nonlocal total
        depth = one()  # not `total += one()`: that reads total before it parks
        total += depth

    def fill(count: int) -> list[greenlet]:
        tasks = [greenlet(body) for _ in range(count)]
        for task in tasks:
            task.switch()
        return tasks

    base = n // 10
    start = now()
    tasks = fill(base)
    low = harness.memory_bytes()
    tasks += fill(n - base)
    high = harness.memory_bytes()
    for task in tasks:
        task.switch()
    elapsed = now() - start
    harness.check(total, 2 * n)
    return elapsed, harness.slope(low, high, n - base)


if __name__ == "__main__":
    harness.main(
        {
            "spawn": spawn,
            "round_trip": round_trip,
            "ring": ring,
            "yield": yield_,
            "parked": parked,
        }
    )
