"""A bursty load on a fixed pool of workers, and on one that grows and shrinks with objects reused.

Bursts of jobs come with pauses between. Each job fills a buffer with records, waits as for a
database, and sums what it has. The fixed pool has all its workers from the beginning, each with a
buffer of its own, as thread-local ones are; its jobs build their records anew. The other has
gort.pool.WorkerPool between 4 and as many, buffers and records from gort.Pool. Both run in
processes of their own, in turn. Printed: peak memory, collections of the garbage collector per
minute (all, and those of the oldest generation), the spread of the CPU time in slots of 100 ms, new
containers for each job, and how long jobs took.

    python benches/burst.py [--seconds 20] [--rounds 3]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
from time import monotonic, process_time

import gort
from gort.pool import WorkerPool

WORKERS = 400
BURST = 1200
PAUSE_SECONDS = 0.75
RECORDS = 400
BUFFER_BYTES = 256 << 10
#: What the founding document says of such a change: the part of it that is left.
PROMISED = {"peak_mb": 1 - 0.39, "collections": 1 / 3, "cpu_spread": 1 / 2}


class Counts:
    """New containers, and collections by generation."""

    def __init__(self) -> None:
        self.made = 0
        self.collections = [0, 0, 0]
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        self.collections[info["generation"]] += phase == "stop"

    def records(self) -> list[dict[str, object]]:
        """New records."""
        self.made += RECORDS + 1
        return [{} for _ in range(RECORDS)]

    def buffer(self) -> bytearray:
        """A new buffer, touched."""
        self.made += 1
        return bytearray(b"\1") * BUFFER_BYTES


def serve(records: list[dict[str, object]], buffer: bytearray, n: int) -> int:
    """What a job does."""
    for i, record in enumerate(records):
        record["key"], record["value"] = f"{n}-{i}", i
    buffer[n % BUFFER_BYTES] = n % 251
    gort.sleep(0.01)
    return sum(record["value"] for record in records)  # type: ignore[misc]


def fixed(counts: Counts) -> tuple[WorkerPool, object]:
    """All workers from the beginning, each with its buffer; nothing else is kept."""
    pool = WorkerPool(WORKERS, WORKERS, queue=BURST)
    buffers: dict[int, bytearray] = {}

    def job(n: int) -> int:
        worker = gort.current().id  # type: ignore[union-attr]
        buffer = buffers.get(worker)
        if buffer is None:
            buffer = buffers[worker] = counts.buffer()
        return serve(counts.records(), buffer, n)

    for done in [pool.submit(job, n) for n in range(WORKERS)]:
        done.join()
    return pool, job


def adaptive(counts: Counts) -> tuple[WorkerPool, object]:
    """Workers as they are needed; records and buffers are reused."""
    pool = WorkerPool(4, WORKERS, keepalive=1.0, queue=BURST, latency=0.25)
    records, buffers = gort.Pool(counts.records), gort.Pool(counts.buffer)

    def job(n: int) -> int:
        mine, buffer = records.get(), buffers.get()
        try:
            return serve(mine, buffer, n)
        finally:
            records.put(mine)
            buffers.put(buffer)

    return pool, job


KINDS = {"fixed": fixed, "adaptive": adaptive}


def measure(kind: str, seconds: float) -> dict[str, float]:
    """Run one kind for so long."""
    counts = Counts()
    pool, job = KINDS[kind](counts)
    slots: list[float] = []
    times: list[float] = []
    jobs = peak = 0
    counts.made, counts.collections = 0, [0, 0, 0]
    stop: list[bool] = []

    def sample() -> None:
        nonlocal peak
        before = process_time()
        while not stop:
            gort.sleep(0.1)
            now = process_time()
            slots.append((now - before) / 0.1)
            before = now
            with open("/proc/self/statm") as file:
                peak = max(peak, int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    sampler = gort.go(sample)
    end = monotonic() + seconds
    while monotonic() < end:
        begun = monotonic()
        burst = [pool.submit(job, n) for n in range(BURST)]  # type: ignore[arg-type]
        for done in burst:
            done.join()
        times.append(monotonic() - begun)
        jobs += BURST
        gort.sleep(PAUSE_SECONDS)
    stop.append(True)
    sampler.join()
    pool.close()
    minutes = seconds / 60
    return {
        "peak_mb": peak / 1e6,
        "collections": sum(counts.collections) / minutes,
        "full_collections": counts.collections[2] / minutes,
        "cpu_spread": statistics.pstdev(slots) * 100,
        "cpu": statistics.mean(slots) * 100,
        "made_per_job": counts.made / jobs,
        "burst_ms": statistics.median(times) * 1000,
        "workers": pool.stats()["peak"],
    }


def compare(rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Both kinds in turn, each in a process of its own; medians."""
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, found in runs.items():
            command = [sys.executable, __file__, "--kind", kind, "--seconds", str(seconds)]
            found.append(
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            )
    return {
        kind: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for kind, found in runs.items()
    }


LABELS = {
    "peak_mb": "peak memory, MB",
    "collections": "collections per minute",
    "full_collections": "of them full",
    "cpu_spread": "standard deviation of the CPU, %",
    "cpu": "CPU, %",
    "made_per_job": "new containers per job",
    "burst_ms": "a burst takes, ms",
    "workers": "workers at most",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kind", choices=KINDS)
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(gort.run(measure, options.kind, options.seconds)))
        return
    found = compare(options.rounds, options.seconds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"Python {platform.python_version()}: {options.rounds} rounds of {options.seconds:g} s")
    print(f"{'':34} {'fixed':>10} {'adaptive':>10} {'ratio':>8} {'promised':>9}")
    for key, label in LABELS.items():
        a, b = found["fixed"][key], found["adaptive"][key]
        ratio = f"{b / a:8.2f}" if a else f"{'':8}"
        promised = f"{PROMISED[key]:9.2f}" if key in PROMISED else ""
        print(f"{label:34} {a:10.1f} {b:10.1f} {ratio} {promised}")


if __name__ == "__main__":
    main()
