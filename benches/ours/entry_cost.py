"""What the boundary costs others: a plain thread in libc, and a round trip over channels.

A difference of 5 ns is far below what a system call varies by from one moment to the next, so every
figure is the lowest of many short batches, before and after in the same process and on the same
thread. A like call that is not replaced goes through the same two measurements: what it seems to
have gained is drift, and is taken off. The median over several processes is given.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from statistics import median
from time import perf_counter_ns as now

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness

BATCH = 500  # calls: some 0.2 ms, shorter than what else runs on a CPU takes
CHILDREN = 5
# Calls that are not replaced, one that keeps the GIL and one that lets go of it: each other call is
# measured against the one it is like.
KEEPING, RELEASING = "getppid", "lseek"
CONTROLS = {"get_ident": KEEPING, "locked": KEEPING}
PAIRS = 6
Times = dict[str, float]
Calls = dict[str, tuple[Callable[..., object], tuple[object, ...]]]

_kept: list[socket.socket] = []  # the calls know their descriptors only


def _calls() -> Calls:
    """The calls, by name, each through one entry that is replaced, but for the control."""
    near, far = socket.socketpair()
    far.send(b"x")
    waiting = select.poll()
    waiting.register(far, select.POLLIN)
    _kept.extend((near, far))
    lock = threading.Lock()
    zero = os.open("/dev/zero", os.O_RDONLY)
    return {
        KEEPING: (os.getppid, ()),
        RELEASING: (os.lseek, (zero, 0, os.SEEK_SET)),
        "read": (os.read, (zero, 1)),
        "recv": (near.recv, (1, socket.MSG_PEEK)),
        "poll": (waiting.poll, (0,)),
        "get_ident": (threading.get_ident, ()),
        "locked": (lock.acquire, (False,)),  # taken at the first call: sem_trywait fails from then
    }


def _lowest(calls: Calls, n: int) -> Times:
    """Lowest ns per call over n batches of each call, the calls taking turns."""
    lowest: Times = {}
    for _ in range(n):
        for name, (call, arguments) in calls.items():
            start = now()
            for _ in repeat(None, BATCH):
                call(*arguments)
            spent = (now() - start) / BATCH
            lowest[name] = min(spent, lowest.get(name, spent))
    return lowest


def _child(n: int) -> None:
    """Measure on one plain thread before gort is there and after its runtime has started."""
    calls = _calls()
    found: list[Times] = []
    gate, measured = threading.Semaphore(0), threading.Semaphore(0)

    def work() -> None:
        for _ in range(2):
            gate.acquire()
            _lowest(calls, max(n // 20, 1))
            found.append(_lowest(calls, n))
            measured.release()

    thread = threading.Thread(target=work)
    thread.start()
    gate.release()
    measured.acquire()
    import gort
    import gort.boundary

    harness.check(gort.go(int).join(), 0)
    status = gort.boundary.status()
    if not status.identity or (os.environ.get("GORT_BOUNDARY") != "0") != status.parking:
        sys.exit(f"the boundary is not in place: {status}")
    gate.release()
    measured.acquire()
    thread.join()
    print(json.dumps(found))


def plain_call(n: int) -> harness.Figures:
    """Ns more for a call on a plain thread, the worst of the calls; n batches for each."""
    more: dict[str, list[float]] = {}
    after_all: list[float] = []
    for _ in range(CHILDREN):
        done = subprocess.run(
            [sys.executable, __file__, str(n)], check=True, capture_output=True, text=True
        )
        before, after = json.loads(done.stdout)
        drift = {name: after[name] - before[name] for name in before}
        for name, value in drift.items():
            control = 0.0 if name in (KEEPING, RELEASING) else drift[CONTROLS.get(name, RELEASING)]
            more.setdefault(name, []).append(value - control)
        after_all.append(sum(after.values()) / len(after))
    medians = {name: median(values) for name, values in more.items()}
    worst = max(medians.keys() - {KEEPING, RELEASING}, key=lambda name: medians[name])
    figures = {f"more_{name}_ns": value for name, value in sorted(medians.items())}
    figures["extra_ns"] = medians[worst]
    figures["extra_spread_ns"] = max(more[worst]) - min(more[worst])
    return int(median(after_all) * n), figures


def boundary_off(n: int) -> harness.Figures:
    """The round trip of step 1 with the boundary, and how much that is over none.

    None is GORT_BOUNDARY=0, where what asks for identity is still replaced, or, if BENCH_BEFORE
    names a Python, the gort of that one, from before there was a boundary.
    """
    program = Path(__file__).with_name("gort_bench.py")
    earlier = os.environ.get("BENCH_BEFORE")
    ways = {
        "with": (sys.executable, "1"),
        "without": (earlier or sys.executable, "1" if earlier else "0"),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(PAIRS):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            python, value = ways[name]
            done = subprocess.run(
                [python, str(program), "round_trip", str(n)],
                check=True, capture_output=True, text=True,
                env={**os.environ, "GORT_BOUNDARY": value},
            )  # fmt: skip
            found[name].append(json.loads(done.stdout)["ns_per_op"])
    shares = [a / b for a, b in zip(found["with"], found["without"], strict=True)]
    lowest = min(found["with"]) / min(found["without"])
    return int(median(found["with"]) * n), {
        "share": median(shares),
        "share_of_lowest": lowest,
        "share_spread": max(shares) - min(shares),
    }


if __name__ == "__main__":
    _child(int(sys.argv[1]))
