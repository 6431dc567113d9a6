"""`gort demo [DIR]`: a real job on goroutines and on threads, a million goroutines, a service.

A walker goroutine sends paths over a channel; thousands of worker goroutines open, read, hash and
tokenise the files; results come back over a channel; a ticker goroutine drives the progress bar.
The same files then go through one thread per file and through concurrent.futures, and the results
must be equal. An unchanged threaded program then runs plain and with its threads as goroutines, and
goroutines ask an HTTP service, on gort.wsgi and on other servers. See `gort.cli._work` for the
three ways, `gort.cli._measure` for the figures, `_service` and `_million` for the service.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from typing import Any

import gort
from gort.cli import _million, _report, _service
from gort.cli._output import say
from gort.cli._report import Row
from gort.cli._unchanged import PROGRAM

__all__ = ["add_arguments", "affordable", "disagreement", "main"]

_FILES = 600  # about 6 s for the three ways on two slow CPUs; --files changes it
_WORKERS = 2_000
_THREADS_ALIVE = 64
_PARKED_THREADS = 1_000
_ASKING = 3_000  # goroutines, of three requests each: 1 to 3 s for each server
_BYTES_PER_GOROUTINE = 8 * 1024
_LEAST_FILES = 32  # for a Python and a few connections
_HEADROOM = 1.5
_MB = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gort demo`."""
    parser.add_argument(
        "dir", nargs="?", help="where the .py files are (default: the standard library)"
    )
    parser.add_argument(
        "--files", type=int, default=_FILES, help=f"read at most this many (default {_FILES})"
    )
    parser.add_argument(
        "--goroutines", type=int, default=1_000_000, help="how many to park (default 1,000,000)"
    )
    parser.add_argument(
        "--asking", type=int, default=_ASKING,
        help=f"goroutines that ask the service, three requests each (default {_ASKING:,})",
    )  # fmt: skip
    parser.add_argument(
        "--million", action="store_true",
        help="only this: a million GETs, through a semaphore and without a limit",
    )  # fmt: skip
    parser.add_argument(
        "--gets", type=int, default=1_000_000, help="of --million (default 1,000,000)"
    )
    parser.add_argument(
        "--limit", type=int, default=1_000, help="of --million: the semaphore (default 1,000)"
    )
    parser.add_argument(
        "--open-files", type=int, default=4_096,
        help="of --million: descriptors of the client without a limit (default 4,096)",
    )  # fmt: skip
    parser.add_argument("--out", default="gort-demo.html", help="the page (default gort-demo.html)")


def _available_bytes() -> int | None:
    """Memory that can still be used: MemAvailable, or less where a cgroup allows less."""
    limits = []
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            limits += [int(line.split()[1]) * 1024 for line in file if "MemAvailable" in line]
    except OSError:
        pass
    try:
        with (
            open("/sys/fs/cgroup/memory.max", encoding="ascii") as most,
            open("/sys/fs/cgroup/memory.current", encoding="ascii") as used,
        ):
            limits.append(int(most.read()) - int(used.read()))
    except (OSError, ValueError):
        pass  # no cgroup, or no limit
    return min(limits, default=None)


def affordable(wanted: int) -> int:
    """Cut the number of goroutines to what the available memory holds.

    Example:
        >>> from gort.cli.demo import affordable
        >>> affordable(10)
        10
    """
    available = _available_bytes()
    if available is None:
        return wanted
    return max(1, min(wanted, int(available / (_BYTES_PER_GOROUTINE * _HEADROOM))))


def _task(name: str, *arguments: Any) -> dict[str, Any]:
    """Do a task of gort.cli._work in a process of its own; its progress goes to our stdout."""
    sys.stdout.flush()
    root = os.path.dirname(os.path.dirname(os.path.abspath(gort.__file__)))
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory(prefix="gort-demo-") as folder:
        target = os.path.join(folder, "result.json")
        subprocess.run(
            [sys.executable, "-m", "gort.cli._work", name, json.dumps(arguments), target],
            env={**os.environ, "PYTHONPATH": path},
            check=True,
        )
        with open(target, encoding="utf-8") as file:
            result: dict[str, Any] = json.load(file)
            return result


def _rows(
    ways: list[dict[str, Any]],
    parked: dict[str, Any],
    threads: dict[str, Any],
    small: dict[str, Any],
    unchanged: list[dict[str, Any]],
) -> list[Row]:
    """Arrange all figures as the lines of the table."""

    def job(figures: list[float]) -> tuple[float, float, float]:
        return figures[0], figures[1], figures[2]

    seconds = [way["seconds"] for way in ways]
    read = [sum(found[1] for found in way["found"]) / _MB for way in ways]
    tokens = [sum(max(0, found[3]) for found in way["found"]) for way in ways]

    def both(figures: str) -> tuple[float, float, None]:
        return parked[figures], threads[figures], None

    def program(figures: str) -> tuple[float, float, None]:
        return unchanged[0][figures], unchanged[1][figures], None

    return [
        Row("files", job([len(way["found"]) for way in ways])),
        Row("MB read and hashed", job(read), 1),
        Row("tokens", job(tokens)),
        Row("time for the job", job(seconds), 2, "seconds"),
        Row("the same, goroutines = 1", job([s / seconds[0] for s in seconds]), 2),
        Row("peak memory of the job", job([way["peak_bytes"] / _MB for way in ways]), 1, "MB"),
        Row("parked at once", both("parked")),
        Row("released and counted", both("released")),
        Row("time to start and park them all, seconds", both("spawn_seconds"), 2),
        Row("time to release them all, seconds", both("release_seconds"), 2),
        Row("memory per parked one", both("bytes_each"), 0, "bytes"),
        Row("the same after gort.memory.trim(), bytes", (parked["trimmed_each"], None, None)),
        Row("spawn and run", (small["spawn_ns"], small["thread_spawn_ns"], None), 0, "ns"),
        Row(
            "round trip of a value",
            (small["round_trip_ns"], small["thread_round_trip_ns"], None),
            0,
            "ns",
        ),
        Row("an unchanged threaded program", program("seconds"), 2, "seconds"),
        Row("the same, at most", program("os_threads"), 0, "OS threads"),
    ]


def disagreement(ways: list[dict[str, Any]], total: int) -> str:
    """Say which way found something else than the first, or not `total` files; empty if none.

    Example:
        >>> from gort.cli.demo import disagreement
        >>> same = {"found": [["a.py", 1, "00", 5]]}
        >>> disagreement([same, same, {"found": []}], 1)
        'concurrent.futures found 0 of 1 files'
    """
    first = ways[0]["found"]
    for way, title in zip(ways, _report.COLUMNS, strict=True):
        found = way["found"]
        if len(found) != total:
            return f"{title} found {len(found)} of {total} files"
        for one, other in zip(first, found, strict=True):
            if one != other:
                return f"{title} has {other} where {_report.COLUMNS[0]} has {one}"
    return ""


def _job(top: str, limit: int) -> list[dict[str, Any]] | None:
    """Do the job in three ways; None, and said, when their results differ."""
    from gort.cli._work import find_files

    total = sum(1 for _ in find_files(top, limit))
    if total == 0:
        say(f"gort demo: no .py files under {top}")
        return None
    cap = " (--files reads more)" if total == limit else ""
    say(f"Reading, hashing and tokenising {total} .py files under {top}{cap}")
    ways = [
        _task("goroutines", top, limit, total, _WORKERS),
        _task("threads", top, limit, total, _THREADS_ALIVE),
        _task("futures", top, limit, total, _THREADS_ALIVE),
    ]
    if problem := disagreement(ways, total):
        say(f"gort demo: FAILED, the results differ: {problem}")
        return None
    return ways


def _unchanged_program() -> list[dict[str, Any]] | None:
    """Run it as goroutines and plain; None, and said, when it does not print the same."""
    say("Running an unchanged threaded program, plain and with its threads as goroutines")
    both = [_task("unchanged", True), _task("unchanged", False)]
    if both[0]["output"] != both[1]["output"]:
        outputs = " instead of ".join(repr(one["output"]) for one in both)
        say(f"gort demo: FAILED, the threaded program printed {outputs}")
        return None
    return both


def _machine() -> str:
    """Say what all is measured on."""
    return (
        f"gort {gort.__version__}, {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.system()} {platform.release()}, "
        f"{os.cpu_count()} CPUs."
    )


def _notes(top: str, parked: str, printed: str, absent: list[str], asking: int) -> list[str]:
    """Say under the table what it was measured on."""
    return [
        _machine(),
        (
            f"The job: {_WORKERS:,} worker goroutines against threads, {_THREADS_ALIVE} alive at "
            f"most, on the files under {top}; each way in a process of its own, results equal. All "
            "three share one GIL and the job mostly computes, so that their times should be close."
        ),
        f"Parked: {parked} against {_PARKED_THREADS:,} threads.",
        (
            f"The unchanged program, {PROGRAM}, knows nothing of gort: sockets, queues, threads. "
            f"Both ways printed: {printed}."
        ),
        (
            f"The service, {_service.PROGRAM}: keys in SQLite. {asking:,} goroutines of another "
            f"process, through Semaphore({_service.LIMIT}), each PUT a key, GET it and GET /health;"
            " every answer is checked. Times are of a request; RSS of all processes of a server."
            + (f" Not installed: {', '.join(absent)}." if absent else "")
        ),
    ]


def _bad_option(options: argparse.Namespace, top: str) -> str:
    """Say which option is no good; empty if all are."""
    if not os.path.isdir(top):
        return f"not a directory: {top}"
    if options.files < 1 or options.goroutines < 1 or options.asking < 1:
        return "--files, --goroutines and --asking need a number of at least 1"
    if options.gets < 1 or options.limit < 1:
        return "--gets and --limit need a number of at least 1"
    if options.open_files < _LEAST_FILES:
        return f"--open-files needs a number of at least {_LEAST_FILES}"
    return ""


def main(options: argparse.Namespace) -> int:
    """Run the demo: 0 when all ways agree and nothing is lost, 1 when not, 2 for a bad option."""
    top = os.path.abspath(options.dir or sysconfig.get_path("stdlib"))
    if text := _bad_option(options, top):
        say(f"gort demo: {text}")
        return 2
    try:
        if options.million:
            say(_machine())
            gets = options.gets
            return _million.run(_task, gets, options.limit, options.open_files, affordable(gets))
        return _all(options, top)
    except KeyboardInterrupt:
        return 130
    except ChildProcessError as error:
        say(f"gort demo: FAILED, {error}")
        return 1
    except subprocess.CalledProcessError as error:
        say(f"gort demo: FAILED, a part of it ended with status {error.returncode}")
        return 1


def _all(options: argparse.Namespace, top: str) -> int:
    """Do one part after the other, and print and write what was found."""
    count = affordable(options.goroutines)
    ways = _job(top, options.files)
    if ways is None:
        return 1
    fewer = ""
    if count < options.goroutines:
        fewer = f" ({options.goroutines:,} would not fit in the memory that is free)"
    say(f"Parking {count:,} goroutines on a channel{fewer}")
    parked = _task("park_goroutines", count)
    say(f"Parking {_PARKED_THREADS:,} threads, and the small figures")
    threads = _task("park_threads", _PARKED_THREADS)
    small = _task("small")
    unchanged = _unchanged_program()
    if unchanged is None:
        return 1
    say("Asking an HTTP service")
    served, absent = _service.compare(_task, options.asking)
    rows = _rows(ways, parked, threads, small, unchanged)
    service = _service.lines(served)
    printed = str(unchanged[0]["output"]).strip()
    parked_text = f"{count:,} goroutines on a channel{fewer}"
    notes = _notes(top, parked_text, printed, absent, options.asking)
    say("\n".join(["", _report.table(rows), "", _report.grid(service), "", *notes]))
    out = os.path.abspath(options.out)
    try:
        with open(out, "w", encoding="utf-8") as file:
            file.write(_report.page(rows, notes, service))
    except OSError as error:
        say(f"gort demo: cannot write {out}: {error.strerror}")
        return 1
    say(f"The same figures as a page: {out}")
    return _verdict(count - min(parked["parked"], parked["released"]), served)


def _verdict(lost: int, served: dict[str, dict[str, Any]]) -> int:
    """Say what is not as it must be of gort's; 1 if anything is not."""
    ours = served[_service.NAMES["gort"]]
    if lost:
        say(f"gort demo: FAILED, {lost:,} goroutines were lost")
    if ours["answered"] != ours["requests"] or ours["errors"]:
        failed = ours["errors"] + ours["refused"] + ours["lost"]
        say(f"gort demo: FAILED, {failed:,} requests failed: {ours['example']}")
        return 1
    return 1 if lost else 0
