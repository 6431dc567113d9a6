"""Empty tasks in an executor of concurrent.futures: by map, and by submit and result.

Nothing here knows gort: the programs decide what the executor is.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter_ns as now

import harness

WORKERS = 8


def nothing(_: int) -> None:
    """Do nothing."""


def mapped(make: Callable[[int], Executor], n: int) -> int:
    """Take the results of n calls from map, once its workers are there."""
    with make(WORKERS) as pool:
        list(pool.map(nothing, range(WORKERS * 10)))
        begun = now()
        count = sum(1 for _ in pool.map(nothing, range(n)))
        elapsed = now() - begun
    harness.check(count, n)
    return elapsed


def submitted(make: Callable[[int], Executor], n: int) -> int:
    """Submit n calls and then ask each future for its result."""
    with make(WORKERS) as pool:
        list(pool.map(nothing, range(WORKERS * 10)))
        begun = now()
        for future in [pool.submit(nothing, i) for i in range(n)]:
            future.result()
        return now() - begun
