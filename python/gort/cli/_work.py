"""The work of `gort demo`, done in three ways, each in a process of its own.

Run as `python -m gort.cli._work TASK ARGUMENTS RESULT-FILE`: the demo starts one process per way
so that each peak of memory is its own. Arguments and results are JSON; progress goes to stdout.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import threading
import tokenize
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import gort
from gort.cli import _load, _measure, _unchanged
from gort.cli._progress import Progress

__all__ = ["TASKS", "Found", "examine", "find_files", "main"]

Found = tuple[str, int, str, int]  # path, bytes, sha256, tokens (-1 when it does not tokenise)

_TICK_SECONDS = 0.1


def find_files(top: str, limit: int) -> Iterator[str]:
    """Walk `top` in a fixed order and give at most `limit` paths of .py files.

    Installed packages are left out, so that the default directory means the standard library.
    """
    left = limit
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(f for f in folders if f not in ("site-packages", "__pycache__"))
        for name in sorted(files):
            if name.endswith(".py"):
                if left <= 0:
                    return
                left -= 1
                yield os.path.join(folder, name)


def examine(path: str) -> Found:
    """Open, read, hash and tokenise one file with ordinary blocking calls."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return path, 0, f"unreadable: {error.strerror}", -1
    try:
        count = sum(1 for _ in tokenize.tokenize(io.BytesIO(data).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        count = -1  # test data that is wrong on purpose
    return path, len(data), hashlib.sha256(data).hexdigest(), count


def _goroutines(top: str, limit: int, total: int, workers: int) -> list[Found]:
    """Walker goroutine, worker goroutines, a ticker goroutine, and this one, which collects."""
    progress = Progress(f"{workers:,} goroutines", total)
    paths: gort.Chan[str] = gort.Chan()
    results: gort.Chan[Found] = gort.Chan()
    finished: gort.Chan[None] = gort.Chan()
    wg = gort.WaitGroup()

    def walk() -> None:
        for path in find_files(top, limit):
            paths.send(path)
        paths.close()

    def work() -> None:
        for path in paths:
            results.send(examine(path))

    def close_results() -> None:
        wg.wait()
        results.close()

    def show() -> None:
        ticker = gort.Ticker(_TICK_SECONDS)
        while gort.select(gort.recv(ticker.c), gort.recv(finished))[0] == 0:
            progress.show()
        ticker.stop()

    start = perf_counter()
    gort.go(walk)
    for _ in range(workers):
        wg.go(work)
    gort.go(close_results)
    bar = gort.go(show)
    found = []
    for result in results:
        found.append(result)
        progress.done = len(found)
    finished.close()
    bar.join()
    progress.end(perf_counter() - start)
    return found


def _collect(
    title: str, total: int, give: Callable[[Callable[[Found], None]], None]
) -> list[Found]:
    """Run `give(collect)` in front of a thread that drives the progress bar."""
    progress = Progress(title, total)
    found: list[Found] = []
    finished = threading.Event()

    def collect(result: Found) -> None:
        found.append(result)
        progress.done = len(found)

    def show() -> None:
        while not finished.wait(_TICK_SECONDS):
            progress.show()

    bar = threading.Thread(target=show)
    bar.start()
    start = perf_counter()
    try:
        give(collect)
    finally:
        finished.set()
        bar.join()
    progress.end(perf_counter() - start)
    return found


def _threads(top: str, limit: int, total: int, workers: int) -> list[Found]:
    """One thread per file, at most `workers` of them alive."""

    def give(collect: Callable[[Found], None]) -> None:
        room = threading.BoundedSemaphore(workers)

        def work(path: str) -> None:
            try:
                collect(examine(path))
            finally:
                room.release()

        threads = []
        for path in find_files(top, limit):
            room.acquire()
            thread = threading.Thread(target=work, args=(path,))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    return _collect(f"a thread per file, {workers} alive", total, give)


def _futures(top: str, limit: int, total: int, workers: int) -> list[Found]:
    """concurrent.futures with `workers` threads."""

    def give(collect: Callable[[Found], None]) -> None:
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for result in pool.map(examine, find_files(top, limit)):
                collect(result)

    return _collect(f"concurrent.futures, {workers}", total, give)


def _timed(
    way: Callable[[str, int, int, int], list[Found]], top: str, limit: int, total: int, workers: int
) -> dict[str, Any]:
    """Do the job one way: seconds, peak memory and the results in a fixed order."""
    start = perf_counter()
    found = way(top, limit, total, workers)
    seconds = perf_counter() - start
    return {"seconds": seconds, "peak_bytes": _measure.peak_bytes(), "found": sorted(found)}


def _park(count: int) -> dict[str, float]:
    """Park `count` goroutines under a progress bar."""
    progress = Progress("parking", count, "goroutines")
    start = perf_counter()

    def show(parked: int) -> None:
        progress.done = parked
        progress.show()

    result = _measure.park_goroutines(count, show)
    progress.end(perf_counter() - start)
    return result


def _in_main_goroutine(*arguments: Any) -> list[Found]:
    """Run the goroutine way as the main goroutine."""
    return gort.run(_goroutines, *arguments)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "goroutines": lambda *a: _timed(_in_main_goroutine, *a),
    "threads": lambda *a: _timed(_threads, *a),
    "futures": lambda *a: _timed(_futures, *a),
    "park_goroutines": _park,
    "park_threads": _measure.park_threads,
    "key_values": _load.key_values,
    "million": _load.million,
    "unchanged": _unchanged.run,
    "small": lambda: {
        "spawn_ns": _measure.spawn_ns(),
        "round_trip_ns": _measure.round_trip_ns(),
        "thread_spawn_ns": _measure.thread_spawn_ns(),
        "thread_round_trip_ns": _measure.thread_round_trip_ns(),
    },
}


def main(arguments: Iterable[str]) -> int:
    """Do one task and write its result as JSON."""
    task, options, target = arguments
    result = TASKS[task](*json.loads(options))
    with open(target, "w", encoding="utf-8") as file:
        json.dump(result, file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
