"""What `gort bench binding`, `preempt` and `shares` measure: how late goroutines run under load.

Each measurement has a load of its own and ends it. Times are nanoseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic_ns, perf_counter_ns, process_time_ns, thread_time_ns
from typing import Any

import gort

__all__ = [
    "HOGS",
    "Latency",
    "binding",
    "by_hand",
    "foreign_thread",
    "more_urgent",
    "quota",
    "slice_over",
    "ticking",
]

HOGS = 10  # goroutines that compute meanwhile


class Latency:
    """How late something was, many times, and what its goroutine was measured to do.

    Args:
        late_ns: one number for each time.
        stats: `Goroutine.stats` of whoever was late.
    """

    def __init__(self, late_ns: list[int], stats: dict[str, int] | None = None) -> None:
        self.late_ns = sorted(late_ns)
        self.stats = stats or {}

    def percentile(self, part: float) -> int:
        """The nearest-rank percentile; `part` is from 0 to 1."""
        return self.late_ns[min(int(part * len(self.late_ns)), len(self.late_ns) - 1)]

    @property
    def migrations(self) -> float:
        """How often its goroutine changed its OS thread, for each 1,000 times."""
        return self.stats.get("m_migrations", 0) * 1000 / len(self.late_ns)

    def figures(self) -> dict[str, float]:
        """What is printed as JSON."""
        return {
            "p50_ns": self.percentile(0.5),
            "p99_ns": self.percentile(0.99),
            "migrations_per_1000": self.migrations,
        }


def _compute(stop: list[bool]) -> None:
    """Compute until `stop` is not empty."""
    n = 0
    while not stop:
        n += 1


def _block(stop: list[bool]) -> None:
    """Sit in calls of a millisecond that gort cannot see into, as a driver's are."""
    import ctypes

    usleep = ctypes.CDLL(None).usleep
    while not stop:
        usleep(1000)
        for _ in range(2000):
            pass


@contextmanager
def _load(hogs: int, blockers: int = 0) -> Iterator[None]:
    """Goroutines that compute, and that block, while the block lasts."""
    stop: list[bool] = []
    gs = [gort.go(_compute, stop) for _ in range(hogs)]
    gs += [gort.go(_block, stop) for _ in range(blockers)]
    try:
        yield
    finally:
        stop.append(True)
        for g in gs:
            g.join()


def _tick(count: int, seconds: float) -> tuple[list[int], dict[str, int] | None]:
    """Sleep `count` times; how late each wake-up was."""
    late = []
    for _ in range(count):
        due = monotonic_ns() + int(seconds * 1e9)
        gort.sleep(seconds)
        late.append(max(monotonic_ns() - due, 0))
    me = gort.current()
    return late, me.stats() if me is not None else None


def _ticker(count: int, **options: Any) -> Latency:
    """A goroutine that sleeps for a millisecond `count` times."""
    return Latency(*gort.spawn(_tick, (count, 0.001), **options).join())


def binding(count: int) -> dict[str, Latency]:
    """Wake-ups beside 10 goroutines that compute and 2 that block: free, locked, and reserved."""
    kinds: dict[str, dict[str, Any]] = {
        "unbound": {},
        "locked to its thread": {"locked": True},
        "locked and reserved": {"locked": True, "reserve": True},
    }
    found = {}
    for name, options in kinds.items():
        with _load(HOGS, blockers=2):
            found[name] = _ticker(count, **options)
    return found


def more_urgent(count: int) -> Latency:
    """A goroutine of higher priority wakes beside 10 that compute, under the policy "mlfq"."""
    before = gort.set_policy("mlfq")
    try:
        with _load(HOGS):
            return _ticker(count, priority=10)
    finally:
        gort.set_policy(before)  # type: ignore[arg-type]


def slice_over(count: int) -> Latency:
    """A goroutine wakes beside 10 that compute, and goes on when a slice is over."""
    with _load(HOGS):
        return _ticker(count)


def by_hand(count: int) -> Latency:
    """Two goroutines that call gosched in turn: from the call of one to the other's going on."""
    late: list[int] = []
    called = [0]

    def give_way() -> None:
        for _ in range(count):
            called[0] = perf_counter_ns()
            gort.gosched()
            late.append(perf_counter_ns() - called[0])

    for g in [gort.go(give_way), gort.go(give_way)]:
        g.join()
    return Latency(late)


def ticking(ticks: int, tickers: int = 1000, blocked: int = 100) -> tuple[Latency, float]:
    """Goroutines that each tick every 10 ms while `blocked` others sit in C calls.

    How late the ticks are, and the mean period in parts of 10 ms.
    """
    import ctypes

    usleep = ctypes.CDLL(None).usleep
    stop: list[bool] = []

    def block() -> None:
        while not stop:
            usleep(50_000)

    late: list[int] = []
    periods: list[float] = []

    def tick() -> None:
        begun = due = monotonic_ns()
        for _ in range(ticks):
            due += 10_000_000
            gort.sleep(max(due - monotonic_ns(), 0) / 1e9)
            late.append(max(monotonic_ns() - due, 0))
        periods.append((monotonic_ns() - begun) / ticks / 10_000_000)

    blockers = [gort.go(block) for _ in range(blocked)]
    gs = []
    for i in range(tickers):  # spread over a period
        gs.append(gort.go(tick))
        if i % 10 == 9:
            gort.sleep(0.0001)
    for g in gs:
        g.join()
    stop.append(True)
    for g in blockers:
        g.join()
    return Latency(late), sum(periods) / len(periods)


def quota(seconds: float, part: float = 0.2) -> float:
    """What a group with a quota of `part` CPUs gets of a busy P in `seconds`."""
    group = gort.Group("bench", quota=part)
    stop: list[bool] = []
    with _load(1):
        begun = perf_counter_ns()
        g = group.go(_compute, stop)
        gort.sleep(seconds)
        used, passed = group.stats()["run_ns"], perf_counter_ns() - begun
        stop.append(True)
        group.quota = None
        g.join()
    return used / passed


def foreign_thread(seconds: float, count: int = 1000) -> tuple[float, float]:
    """A plain thread that computes beside `count` goroutines that do: the parts both get."""
    stop: list[bool] = []
    used = [0]

    def thread_main() -> None:
        begun = thread_time_ns()
        _compute(stop)
        used[0] = thread_time_ns() - begun

    thread = threading.Thread(target=thread_main)
    begun = process_time_ns()
    gs = [gort.go(_compute, stop) for _ in range(count)]
    with gort.threads.real():
        thread.start()
    gort.sleep(seconds)
    stop.append(True)
    thread.join()
    whole = process_time_ns() - begun
    ours = whole - used[0]
    for g in gs:
        g.join()
    return used[0] / whole, ours / whole
