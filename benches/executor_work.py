"""Empty tasks in an executor of concurrent.futures: by map, and by submit and result.

Nothing here knows gort: the programs decide what the executor is.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter_ns as now
from time import process_time_ns

import harness

WORKERS = 8


def nothing(_: int) -> None:
    """Do nothing."""


def mapped(make: Callable[[int], Executor], n: int) -> harness.Figures:
    """Take the results of n calls from map, once its workers are there."""
    with make(WORKERS) as pool:
        list(pool.map(nothing, range(WORKERS * 10)))
        begun, cpu = now(), process_time_ns()
        count = sum(1 for _ in pool.map(nothing, range(n)))
        elapsed, cpu = now() - begun, process_time_ns() - cpu
    harness.check(count, n)
    return elapsed, {"cpu_ns": cpu / n}


def submitted(make: Callable[[int], Executor], n: int) -> harness.Figures:
    """Submit n calls and then ask each future for its result."""
    with make(WORKERS) as pool:
        list(pool.map(nothing, range(WORKERS * 10)))
        begun, cpu = now(), process_time_ns()
        for future in [pool.submit(nothing, i) for i in range(n)]:
            future.result()
        return now() - begun, {"cpu_ns": (process_time_ns() - cpu) / n}
