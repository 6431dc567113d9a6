"""What profiles cost: the same work with one on and without, in rounds that take turns.

    python benches/profile_work.py [--rounds N] [--seconds S] [--profile cpu|block|mutex]

A round is a pair of runs, with the profile and without, whose order changes from pair to pair, so
that what else the machine does falls on both. The CPU time of a run counts, that of the profile's
own thread with it. Prints for each work the median of the pairs' ratios and the range of the middle
half of them; `none` compares the work with itself, which is how far a ratio is to be trusted.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable

import gort
import gort.pprof

#: Sizes for a second or so, from which others are reckoned.
COMPUTE, PINGS, LOCKS = 4_000_000, 250_000, 400_000


def compute(share: float) -> None:
    """Compute in Python, in calls a few frames deep."""

    def mix(x: int, depth: int) -> int:
        return mix(x ^ depth, depth - 1) if depth else x * 31 & 0xFFFF

    total = 0
    for i in range(int(COMPUTE * share) // 8):
        total = (total + mix(i, 3)) & 0xFFFFFF


def ping_pong(share: float) -> None:
    """Send a value there and back between two goroutines."""
    there, back = gort.Chan(), gort.Chan()
    n = int(PINGS * share)

    def pong() -> None:
        for _ in range(n):
            back.send(there.recv())

    g = gort.go(pong)
    for i in range(n):
        there.send(i)
        back.recv()
    g.join()


def mutex(share: float) -> None:
    """Lock and unlock in eight goroutines, each of which lets others run while it has the lock."""
    m = gort.Mutex()
    n = int(LOCKS * share) // 32

    def work() -> None:
        for _ in range(n):
            with m:
                gort.gosched()

    for g in [gort.go(work) for _ in range(8)]:
        g.join()


WORKS: dict[str, Callable[[float], None]] = {
    "compute": compute,
    "ping_pong": ping_pong,
    "mutex": mutex,
}


def _cpu_on() -> None:
    gort.pprof.start_cpu_profile(io.BytesIO())


#: How each profile begins and ends. The rates are those that Go's documents name for production.
PROFILES: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "none": (lambda: None, lambda: None),
    "cpu": (_cpu_on, gort.pprof.stop_cpu_profile),
    "block": (
        lambda: gort.pprof.set_block_profile_rate(10_000),
        lambda: gort.pprof.set_block_profile_rate(0),
    ),
    "mutex": (
        lambda: gort.pprof.set_mutex_profile_fraction(100),
        lambda: gort.pprof.set_mutex_profile_fraction(0),
    ),
}


def _run(work: Callable[[float], None], share: float, profile: str) -> float:
    """CPU seconds of one run; the writing of the profile is not in it."""
    begin, end = PROFILES[profile]
    begin()
    begun = time.process_time()
    work(share)
    used = time.process_time() - begun
    end()
    return used


def measure(
    work: Callable[[float], None], profile: str, rounds: int, seconds: float
) -> list[float]:
    """Ratios of CPU time with the profile to that without, of each pair."""
    share = seconds / _run(work, 1.0, "none")  # the first run warms up, too
    ratios = []
    for i in range(rounds):
        order = ("none", profile) if i % 2 else (profile, "none")
        used = [_run(work, share, name) for name in order]
        with_it, without = used if i % 2 == 0 else used[::-1]
        ratios.append(with_it / without)
    return ratios


def main() -> int:
    """Measure what is asked for; a line of JSON for each work."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.7, help="CPU time of a run")
    parser.add_argument("--profile", choices=PROFILES, action="append")
    parser.add_argument("--work", choices=WORKS, action="append")
    options = parser.parse_args()
    for profile in options.profile or ["none", "cpu"]:
        for name in options.work or WORKS:
            ratios = measure(WORKS[name], profile, options.rounds, options.seconds)
            low, middle, high = statistics.quantiles(ratios, n=4)
            line = {"profile": profile, "work": name, "ratio": round(middle, 4)}
            line |= {"from": round(low, 4), "to": round(high, 4), "rounds": options.rounds}
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
