"""Python's own memory: pymalloc beside gort's allocator, mimalloc and jemalloc, in turn.

    python benches/memory_work.py [ROUNDS]

Each round runs every allocator once, in turn. A workload's time is the fastest of all repeats and
rounds (neighbours on the machine only make it slower); in brackets pymalloc's time over it.
mimalloc and jemalloc are preloaded under PYTHONMALLOC=malloc; what is not installed is left out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import gort

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
RIVALS: dict[str, dict[str, str]] = {
    "pymalloc": {},
    "gort": {"GORT_MALLOC": "1"},
    "mimalloc": {"PYTHONMALLOC": "malloc", "LD_PRELOAD": str(LIBRARIES / "libmimalloc.so.2")},
    "jemalloc": {"PYTHONMALLOC": "malloc", "LD_PRELOAD": str(LIBRARIES / "libjemalloc.so.2")},
}
ROUNDS = 7
REPEATS = 7


class Node:
    """A node of a binary tree."""

    def __init__(self, left: Node | None, right: Node | None) -> None:
        self.left = left
        self.right = right


def tree(depth: int) -> Node:
    """Make a tree."""
    return Node(tree(depth - 1), tree(depth - 1)) if depth else Node(None, None)


def objects() -> None:
    """Trees of small objects, born and dead."""
    for _ in range(8):
        tree(13)


def dicts() -> None:
    """Dicts that grow, tuples and strings in them, a third deleted."""
    for _ in range(8):
        table = {i: (i, str(i)) for i in range(8_000)}
        for i in range(0, 8_000, 3):
            del table[i]


def strings() -> None:
    """Strings of all lengths, joined and split."""
    for _ in range(10):
        parts = [f"k{i}" * (i % 40) for i in range(5_000)]
        "".join(parts).split("k")


def documents() -> None:
    """JSON, written and read."""
    rows = [
        {"id": i, "name": f"n{i}", "tags": [f"a{j}" for j in range(i % 7)], "x": i / 3}
        for i in range(2_000)
    ]
    for _ in range(4):
        json.loads(json.dumps(rows))


def buffers() -> None:
    """Buffers of up to 20 KB, and lists that grow to 1.6 MB."""
    for _ in range(40):
        _kept = [bytearray(n) for n in range(600, 20_000, 160)]
    for _ in range(3):
        grown: list[None] = []
        for _ in range(200_000):
            grown.append(None)  # noqa: PERF401 - the growing is what is measured


def goroutines() -> None:
    """Many goroutines, each with objects of its own."""

    def one() -> int:
        return sum(len(str(x)) for x in [object() for _ in range(20)])

    for _ in range(10):
        for goroutine in [gort.go(one) for _ in range(1_000)]:
            goroutine.join()


WORK = (objects, dicts, strings, documents, buffers, goroutines)


def child() -> None:
    """Measure every workload here; a line of JSON."""
    found = {}
    for work in WORK:
        work()  # warms
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        found[work.__name__] = min(times) * 1e3
    print(json.dumps([found, gort.memory.stats()]))


def run(rival: str) -> tuple[dict[str, float], dict[str, int]]:
    """Run a child with one allocator."""
    unset = ("GORT_MALLOC", "PYTHONMALLOC", "LD_PRELOAD")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, __file__, "--child"],
        env={**env, **RIVALS[rival]},
        capture_output=True,
        text=True,
        check=True,
    )
    found, stats = json.loads(done.stdout)
    return found, stats


def main() -> None:
    """Run all in turn, and print the table."""
    if "--child" in sys.argv:
        child()
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    rivals = [r for r, env in RIVALS.items() if Path(env.get("LD_PRELOAD", "/")).exists()]
    all_times: dict[str, dict[str, list[float]]] = {w.__name__: {} for w in WORK}
    stats: dict[str, int] = {}
    for _ in range(rounds):
        for rival in rivals:
            found, said = run(rival)
            stats = said if rival == "gort" else stats
            for name, ms in found.items():
                all_times[name].setdefault(rival, []).append(ms)
    print(f"CPython {sys.version.split()[0]}, ms, in brackets pymalloc's time over it")
    ratios: dict[str, list[float]] = {rival: [] for rival in rivals}
    for name, times in all_times.items():
        fastest = {rival: min(ms) for rival, ms in times.items()}
        for rival in rivals:
            ratios[rival].append(fastest["pymalloc"] / fastest[rival])
        cells = [f"{r} {fastest[r]:7.2f} ({ratios[r][-1]:.2f})" for r in rivals]
        print(f"{name:<12}" + "  ".join(cells))
    means = [f"{r} {statistics.geometric_mean(ratios[r]):.2f}" for r in rivals]
    print(f"{'all':<12}" + "  ".join(means) + "  (geometric mean of the ratios)")
    allocs, hits = stats["python_allocs_objects"], stats["python_cache_hits"]
    per_lock = allocs / stats["python_lock_operations"]
    print(
        f"gort: {100 * hits / allocs:.2f} % hits, a lock operation per {per_lock:.0f} allocations"
    )


if __name__ == "__main__":
    main()
