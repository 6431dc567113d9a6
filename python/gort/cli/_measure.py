"""The small measurements of `gort bench` and `gort demo`, each for goroutines and for threads.

Times come in nanoseconds per operation, memory in bytes. The goroutine forms run inside
gort.run().
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from time import perf_counter, perf_counter_ns

import gort

__all__ = [
    "gosched_ns",
    "memory_bytes",
    "park_goroutines",
    "park_threads",
    "peak_bytes",
    "round_trip_ns",
    "spawn_ns",
    "thread_round_trip_ns",
    "thread_spawn_ns",
]


def _status_bytes(*names: str) -> int:
    """Add up lines of /proc/self/status that are in kB; 0 where there is no /proc."""
    total = 0
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key in names:
                    total += int(value.split()[0]) * 1024
    except OSError:
        pass
    return total


def memory_bytes() -> int:
    """Resident memory of this process with its page tables: VmRSS + VmPTE."""
    return _status_bytes("VmRSS", "VmPTE")


def peak_bytes() -> int:
    """Largest resident memory this process had: VmHWM."""
    return _status_bytes("VmHWM")


def _nothing() -> None:
    """Do nothing."""


def spawn_ns(count: int = 100_000) -> float:
    """Start `count` goroutines that do nothing, and let them all run."""

    def main() -> float:
        before = gort.num_goroutine()
        start = perf_counter_ns()
        for _ in range(count):
            gort.go(_nothing)
        while gort.num_goroutine() > before:
            gort.gosched()
        return (perf_counter_ns() - start) / count

    return gort.run(main)


def round_trip_ns(count: int = 100_000) -> float:
    """Send a value to another goroutine and receive the answer, over unbuffered channels."""

    def echo(ping: gort.Chan[int], pong: gort.Chan[int]) -> None:
        for value in ping:
            pong.send(value)

    def main() -> float:
        ping: gort.Chan[int] = gort.Chan()
        pong: gort.Chan[int] = gort.Chan()
        gort.go(echo, ping, pong)
        start = perf_counter_ns()
        for i in range(count):
            ping.send(i)
            pong.recv()
        elapsed = perf_counter_ns() - start
        ping.close()
        return elapsed / count

    return gort.run(main)


def gosched_ns(count: int = 100_000) -> float:
    """Give way to another goroutine that does the same; per call."""

    def spin() -> None:
        for _ in range(count):
            gort.gosched()

    def main() -> float:
        start = perf_counter_ns()
        other = gort.go(spin)
        spin()
        other.join()
        return (perf_counter_ns() - start) / (2 * count)

    return gort.run(main)


def thread_spawn_ns(count: int = 1_000) -> float:
    """Start and join `count` threads that do nothing, one after the other."""
    start = perf_counter_ns()
    for _ in range(count):
        thread = threading.Thread(target=_nothing)
        thread.start()
        thread.join()
    return (perf_counter_ns() - start) / count


def thread_round_trip_ns(count: int = 10_000) -> float:
    """Send a value to another thread and receive the answer, over SimpleQueue."""
    ping: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    pong: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def echo() -> None:
        while (value := ping.get()) is not None:
            pong.put(value)

    thread = threading.Thread(target=echo)
    thread.start()
    start = perf_counter_ns()
    for i in range(count):
        ping.put(i)
        pong.get()
    elapsed = perf_counter_ns() - start
    ping.put(None)
    thread.join()
    return elapsed / count


def park_goroutines(count: int, show: Callable[[int], None]) -> dict[str, float]:
    """Park `count` goroutines on one channel, release them by closing it, and count them.

    Args:
        count: how many.
        show: called with the number parked so far, ten times.

    Returns:
        parked and released (counts), spawn_seconds, release_seconds, and the memory of each:
        bytes_each, and trimmed_each after gort.memory.trim(), which they are released from.
    """
    tally = itertools.count()  # next() on it is one step, whatever runs beside it

    def wait(gate: gort.Chan[None], parked: gort.WaitGroup, gone: gort.WaitGroup) -> None:
        parked.done()
        if gate.recv_ok() == (None, False):
            next(tally)
        gone.done()

    def main() -> dict[str, float]:
        gate: gort.Chan[None] = gort.Chan()
        parked, gone = gort.WaitGroup(), gort.WaitGroup()
        gone.add(count)
        alone = gort.num_goroutine()
        low = step = max(1, count // 10)
        first_bytes = memory_bytes()
        base, base_bytes = 0, first_bytes
        seconds = 0.0
        for done in range(0, count, step):
            batch = min(step, count - done)
            parked.add(batch)
            start = perf_counter()
            for _ in range(batch):
                gort.go(wait, gate, parked, gone)
            parked.wait()
            seconds += perf_counter() - start
            show(done + batch)
            if done == 0 and count > low:
                base, base_bytes = batch, memory_bytes()
        # The slope from a tenth to all of them leaves out what the process has anyway.
        each = (memory_bytes() - base_bytes) / (count - base)
        alive = gort.num_goroutine() - alone
        gort.memory.trim()
        trimmed = (memory_bytes() - first_bytes) / count
        start = perf_counter()
        gate.close()
        gone.wait(timeout=300)
        while gort.num_goroutine() > alone:
            gort.gosched()
        release = perf_counter() - start
        return {
            "parked": alive,
            "released": next(tally),
            "spawn_seconds": seconds,
            "release_seconds": release,
            "bytes_each": each,
            "trimmed_each": trimmed,
        }

    return gort.run(main)


def park_threads(count: int) -> dict[str, float]:
    """Park `count` threads on an Event, release them, and count them; fewer if refused."""
    gate = threading.Event()
    threads: list[threading.Thread] = []
    before = memory_bytes()
    start = perf_counter()
    for _ in range(count):
        thread = threading.Thread(target=gate.wait)
        try:
            thread.start()
        except RuntimeError:
            break  # the system gives no more threads: measured with those there are
        threads.append(thread)
    seconds = perf_counter() - start
    each = (memory_bytes() - before) / max(1, len(threads))
    start = perf_counter()
    gate.set()
    for thread in threads:
        thread.join()
    return {
        "parked": len(threads),
        "released": len(threads),
        "spawn_seconds": seconds,
        "release_seconds": perf_counter() - start,
        "bytes_each": each,
    }
