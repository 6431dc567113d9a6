"""`gort bench`: spawn, round trip and gosched in nanoseconds, beside threads; and what load does.

A quick look at one machine; the comparison with other runtimes is `make bench` in the source tree.
`gort bench binding`, `preempt` and `shares` measure how late goroutines run beside others that
compute, and how much they get. `gort bench --report FILE` makes a page of what `make bench` has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median

import gort
from gort.cli import _bench_report, _latency, _measure
from gort.cli._latency import Latency
from gort.cli._output import complain, say

__all__ = ["add_arguments", "main"]

_WORK = (
    ("spawn and run", "spawn", _measure.spawn_ns, _measure.thread_spawn_ns),
    ("round trip", "round_trip", _measure.round_trip_ns, _measure.thread_round_trip_ns),
    ("gosched", "gosched", _measure.gosched_ns, None),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gort bench`."""
    parser.add_argument(
        "what",
        nargs="?",
        choices=("speed", *_TABLES),
        default="speed",
        help="speed (default); binding: how late bound goroutines wake; preempt: how late others "
        "do; shares: what a group with a quota and a plain thread get",
    )
    parser.add_argument("--repeat", type=int, default=5, help="runs per figure (default 5)")
    parser.add_argument("--count", type=int, default=1000, help="wake-ups per row (default 1000)")
    parser.add_argument(
        "--seconds", type=float, default=5, help="how long shares measures each (default 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--report", metavar="FILE", help="measure nothing: write what `make bench` has as HTML"
    )
    parser.add_argument(
        "--results",
        metavar="DIR",
        default=_bench_report.DEFAULT,
        help=f"where `make bench` has its results, for --report (default {_bench_report.DEFAULT})",
    )


def main(options: argparse.Namespace) -> int:
    """Measure and print, or write a page."""
    if options.report is not None:
        return _report(Path(options.results), Path(options.report))
    if options.what != "speed":
        return gort.run(_TABLES[options.what], options)
    return _speed(options)


def _report(results: Path, file: Path) -> int:
    """Write the page of what was measured."""
    try:
        found, passed = _bench_report.read(results)
        file.write_text(_bench_report.page(found), encoding="utf-8")
    except _bench_report.Unusable as error:
        complain(f"gort bench: {error}")
        return 2
    except OSError as error:
        complain(f"gort bench: cannot write {file}: {error.strerror}")
        return 1
    for line in passed:
        complain(f"passed over {line}")
    say(f"wrote {file}: {len(found)} runs")
    return 0


def _title(what: str) -> str:
    """The first line of a table."""
    return (
        f"gort {gort.__version__}, Python {platform.python_version()}, "
        f"GOMAXPROCS={gort.gomaxprocs()}, {what}"
    )


def _speed(options: argparse.Namespace) -> int:
    """Medians of what a switch and a start cost."""
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
    say(_title(f"median of {repeat} runs (lowest to highest)"))
    for title, key, _, _ in _WORK:
        f = figures[key]
        threads_ns = f"   threads {f['threads_ns']:10,.0f} ns" if "threads_ns" in f else ""
        spread = f"({f['min_ns']:,.0f} to {f['max_ns']:,.0f})"
        say(f"{title:<15}{f['ns']:10,.0f} ns  {spread:<20}{threads_ns}")
    return 0


def _print_latencies(options: argparse.Namespace, title: str, rows: dict[str, Latency]) -> None:
    """A line for each row, or JSON."""
    if options.json:
        figures = {name: latency.figures() for name, latency in rows.items()}
        say(json.dumps({"python": platform.python_version(), **figures}))
        return
    say(_title(title))
    say(f"{'':<40}{'p50 us':>10}{'p99 us':>10}{'migrations per 1,000':>24}")
    for name, row in rows.items():
        p50, p99 = (row.percentile(part) / 1000 for part in (0.5, 0.99))
        migrations = f"{row.migrations:24,.1f}" if row.stats else ""
        say(f"{name:<40}{p50:10,.1f}{p99:10,.1f}{migrations}")


def _binding(options: argparse.Namespace) -> int:
    """How late a goroutine wakes that is free, locked to its thread, and reserved."""
    rows = _latency.binding(options.count)
    what = f"{options.count} sleeps of 1 ms beside {_latency.HOGS} goroutines that compute"
    _print_latencies(options, f"{what} and 2 that block: how late", rows)
    if not options.json:
        free, _, reserved = (row.percentile(0.5) for row in rows.values())
        say(f"a reserved one is late by {reserved / max(free, 1):.3f} of a free one's p50")
    return 0


def _preempt(options: argparse.Namespace) -> int:
    """How soon another one runs, by cause."""
    slice_ms = os.environ.get("GORT_SLICE", "10")
    rows = {
        "a higher priority wakes (mlfq)": _latency.more_urgent(options.count),
        f"the slice of {slice_ms} ms is over": _latency.slice_over(options.count // 2),
        "gosched by hand": _latency.by_hand(options.count * 10),
    }
    tickers, period = _latency.ticking(max(options.count // 5, 2))
    rows["1,000 tickers of 10 ms, 100 in C calls"] = tickers
    what = f"beside {_latency.HOGS} goroutines that compute: from being due to running"
    _print_latencies(options, what, rows)
    if not options.json:
        say(f"the tickers' mean period is {period:.3f} of 10 ms")
    return 0


def _shares(options: argparse.Namespace) -> int:
    """What a group with a quota, and a plain thread, get of the interpreter."""
    group = _latency.quota(options.seconds)
    thread, goroutines = _latency.foreign_thread(options.seconds)
    if options.json:
        figures = {"quota_0.2": group, "thread": thread, "goroutines": goroutines}
        say(json.dumps({"python": platform.python_version(), **figures}))
        return 0
    say(_title(f"parts of the time, {options.seconds:g} s each"))
    say(f"a group with a quota of 0.2 CPUs beside a goroutine that computes: {group:.3f}")
    say(f"a plain thread beside 1,000 goroutines, all computing: {thread:.3f}")
    say(f"the 1,000 goroutines: {goroutines:.3f}")
    return 0


_TABLES: dict[str, Callable[[argparse.Namespace], int]] = {
    "binding": _binding,
    "preempt": _preempt,
    "shares": _shares,
}
