"""`gort bench`: spawn, round trip and gosched in nanoseconds, beside threads.

A quick look at one machine; the comparison with other runtimes is `make bench` in the source tree.
"""

from __future__ import annotations

import argparse
import json
import platform
from statistics import median

import gort
from gort.cli import _measure
from gort.cli._output import say

__all__ = ["add_arguments", "main"]

_WORK = (
    ("spawn and run", "spawn", _measure.spawn_ns, _measure.thread_spawn_ns),
    ("round trip", "round_trip", _measure.round_trip_ns, _measure.thread_round_trip_ns),
    ("gosched", "gosched", _measure.gosched_ns, None),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gort bench`."""
    parser.add_argument("--repeat", type=int, default=5, help="runs per figure (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(options: argparse.Namespace) -> int:
    """Measure and print medians."""
    repeat = max(1, options.repeat)
    figures: dict[str, dict[str, float]] = {}
    for _, key, ours, threads in _WORK:
        runs = [ours() for _ in range(repeat)]
        figures[key] = {"ns": median(runs), "min_ns": min(runs), "max_ns": max(runs)}
        if threads is not None:
            figures[key]["threads_ns"] = median(threads() for _ in range(repeat))
    if options.json:
        say(json.dumps({"python": platform.python_version(), **figures}))
        return 0
    say(
        f"gort {gort.__version__}, Python {platform.python_version()}, "
        f"GOMAXPROCS={gort.gomaxprocs()}, median of {repeat} runs (lowest to highest)"
    )
    for title, key, _, _ in _WORK:
        f = figures[key]
        threads_ns = f"   threads {f['threads_ns']:10,.0f} ns" if "threads_ns" in f else ""
        spread = f"({f['min_ns']:,.0f} to {f['max_ns']:,.0f})"
        say(f"{title:<15}{f['ns']:10,.0f} ns  {spread:<20}{threads_ns}")
    return 0
