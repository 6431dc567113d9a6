"""What every Python program here shares: the command line, the JSON line, memory from /proc."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from time import perf_counter_ns

# elapsed nanoseconds, and bytes per parked task or other figures by name
Figures = tuple[int, float | dict[str, float]]


def memory_bytes() -> int:
    """Resident memory of this process with its page tables: VmRSS + VmPTE."""
    total = 0
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in ("VmRSS", "VmPTE"):
                total += int(value.split()[0]) * 1024
    return total


def slope(low: int, high: int, tasks: int) -> float:
    """Bytes per task, from memory at the smaller and the larger count, `tasks` apart."""
    return (high - low) / tasks


def first_primes_check(last: int, n: int) -> None:
    """Stop when the sieve's last prime is not the n-th prime."""
    primes: list[int] = []
    candidate = 2
    while len(primes) < n:
        if all(candidate % p for p in primes if p * p <= candidate):
            primes.append(candidate)
        candidate += 1
    check(last, primes[-1])


def busy_until(stopped: Callable[[], object], pause: Callable[[], object]) -> tuple[int, int]:
    """Compute in small steps, with a pause after each, until stopped: steps done, nanoseconds."""
    steps, total = 0, 0
    start = perf_counter_ns()
    while not stopped():
        for i in range(300):
            total += i
        steps += 1
        pause()
    return steps, perf_counter_ns() - start


def lone_rate(pause: Callable[[], object], seconds: float = 0.2) -> float:
    """Steps of busy_until per nanosecond when nothing else runs."""
    end = perf_counter_ns() + int(seconds * 1e9)
    steps, elapsed = busy_until(lambda: perf_counter_ns() >= end, pause)
    return steps / elapsed


def count_until(stop: list[int]) -> int:
    """Compute, without a call and without a pause, until `stop` is not empty."""
    steps = 0
    while not stop:
        steps += 1
    return steps


def lateness(sleep: Callable[[float], object], n: int) -> Figures:
    """Sleep n times for 10 ms: how late each wake-up is."""
    late = []
    for _ in range(n):
        due = perf_counter_ns() + 10_000_000
        sleep(0.01)
        late.append(perf_counter_ns() - due)
    late.sort()
    return sum(late), {"p50_ms": late[n // 2] / 1e6, "p99_ms": late[n * 99 // 100] / 1e6}


def check(found: object, expected: object) -> None:
    """Stop with code 1 when a workload did not compute what it should."""
    if found != expected:
        sys.exit(f"wrong result: {found!r} instead of {expected!r}")


def show(name: str, n: int, found: int | Figures) -> None:
    """Print the JSON line of one workload."""
    elapsed, more = found if isinstance(found, tuple) else (found, {})
    line: dict[str, object] = {"workload": name, "n": n, "ns_per_op": elapsed / n}
    line.update(more if isinstance(more, dict) else {"bytes": more})
    print(json.dumps(line))


def main(workloads: Mapping[str, Callable[[int], int | Figures]]) -> None:
    """`prog WORKLOAD N` runs one workload and prints its line; `prog --list` names them."""
    args = sys.argv[1:]
    if args == ["--list"]:
        print(" ".join(workloads))
        return
    if len(args) != 2 or args[0] not in workloads or not args[1].isdigit() or int(args[1]) < 10:
        sys.exit(f"usage: {sys.argv[0]} WORKLOAD N, N >= 10, WORKLOAD: {' '.join(workloads)}")
    name, n = args[0], int(args[1])
    show(name, n, workloads[name](n))
