"""What /debug/gort/ tells of the program: figures, goroutines by what they do, a CPU profile.

All of it is plain values for JSON. Counters only grow and histograms are told as they are: whoever
asks makes rates and quantiles of two answers. Nothing here parks.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time

from gort import _core
from gort._dump import Record, function_name, printable, records
from gort._health import HealthMonitor
from gort._typing import TYPE_CHECKING
from gort.metrics._sources import COLLECTOR, INTERPRETER_LOCK, READY, WAKE_UP, Reading

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType
    from typing import Any

    from gort._health import Health
    from gort.pprof._model import Data

__all__ = ["MOST", "flames", "goroutines", "state"]

#: Goroutines that are looked at one by one unless more are asked for: some tenths of a second.
MOST = 100_000
#: Groups that are told, and goroutines of each.
_GROUPS, _MEMBERS = 200, 20
#: Frames of a goroutine, the newest.
_DEPTH = 64
#: Characters of a command line.
_LONGEST = 500
#: Seconds between looks at health: its trends are over so many looks, not over seconds.
_HEALTH_APART = 6.5

_KINDS = {
    "run_queue": READY,
    "wake_up": WAKE_UP,
    "interpreter_lock": INTERPRETER_LOCK,
    "collector": COLLECTOR,
}
_COUNTERS = (
    "created", "steals", "hand_offs", "local_pops", "global_pops", "spins", "preemptions",
)  # fmt: skip
_started = time.time()


class _Health:
    """The last look at health, and whose samples it was made of: not those of `gort.health`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._monitor = HealthMonitor()
        self._at = float("-inf")
        self._found: Health | None = None

    def look(self) -> dict[str, Any]:
        """Give the findings, at most some seconds old."""
        with self._lock:
            now = time.monotonic()
            if self._found is None or now - self._at >= _HEALTH_APART:
                self._found, self._at = self._monitor.check(), now
            return self._found.as_dict()


_health = _Health()


def _after_fork() -> None:
    """In a forked child: samples of its own, a lock that nobody has, and a start of its own."""
    global _health, _started
    _health, _started = _Health(), time.time()


os.register_at_fork(after_in_child=_after_fork)


def _histogram(kind: int) -> dict[str, Any]:
    """A histogram: what all values add up to, and the buckets that have some."""
    counts, total_ns = _core._latencies(kind)
    return {"total_ns": total_ns, "counts": [[i, n] for i, n in enumerate(counts) if n]}


def _processors() -> dict[str, Any]:
    """The Ps, and what waits for one."""
    idle, spinning, waiting, *each = _core._processors()
    return {
        "count": len(each) // 2,
        "idle": idle,
        "spinning": spinning,
        "global_queue": waiting,
        "queues": each[::2],
        "runs": each[1::2],
    }


def _memory(reading: Reading) -> dict[str, int]:
    """What memory is used for, in bytes."""
    return {
        "resident": _core._resident_bytes(),
        "goroutines": reading.memory["goroutine_bytes"],
        "heap": reading.mapped(),
        "heap_objects": reading.heap("objects_bytes"),
        "stacks_saved": reading.memory["stacks_saved"],
    }


def _since(begun_ns: int) -> int:
    """CPU time that an answer took; less than nothing would be that of another thread."""
    return max(time.thread_time_ns() - begun_ns, 0)


def state() -> dict[str, Any]:
    """Give the figures of now. Looks at each goroutine's state: some ms for a million.

    `runs` are goroutines that a P took from its queue; together with `global_pops` they tell how
    often goroutines were switched to. A histogram's bucket i ends at `bounds_ns[i]`.
    """
    begun = time.thread_time_ns()
    reading = Reading()
    scheduler, passes = reading.scheduler, reading.passes
    found = {
        "process": {
            "pid": os.getpid(),
            "started": _started,
            "command": printable(" ".join(sys.orig_argv))[:_LONGEST],
            "python": platform.python_version(),
            "gort": _core.__version__,
        },
        "now_ns": time.monotonic_ns(),
        "goroutines": {"total": scheduler["goroutines"], **reading.states},
        "processors": _processors(),
        "machines": {
            "count": scheduler["machines"] + 1,
            "idle": scheduler["idle_machines"],
        },
        "timers": scheduler["timers"],
        "counters": {
            **{name: scheduler[name] for name in _COUNTERS},
            "collections": reading.passes_in_all(),
            "collected": passes["collected"],
            "lock_wait_ns": reading.totals["lock_wait_ns"],
            "cpu_available_ns": reading.totals["cpu_available_ns"],
            "cpu_used_ns": reading.totals["cpu_used_ns"],
        },
        "latencies": {name: _histogram(kind) for name, kind in _KINDS.items()},
        "bounds_ns": _core._latency_bounds(),
        "memory": _memory(reading),
        "health": _health.look(),
    }
    found["cost_ns"] = _since(begun)
    return found


class _Places:
    """Frames, each once, and the numbers that they are told by."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], int] = {}

    def number(self, name: str, file: str, line: int) -> int:
        """Give the number of one."""
        return self._known.setdefault((name, file, line), len(self._known))

    def of_code(self, code: CodeType, module: str | None, line: int) -> int:
        """Give the number of one that the core tells of."""
        return self.number(function_name(code, module), printable(code.co_filename), line)

    def all(self) -> list[tuple[str, str, int]]:
        """Give them in the order of their numbers."""
        return list(self._known)


class _Group:
    """Goroutines that do the same at the same place, started by the same line."""

    def __init__(self, first: Record, places: _Places) -> None:
        self.state = first.state
        self.members: list[Record] = []
        self.origin: tuple[str, str, int] | None = None
        if first.origin is not None:
            name, file, line = first.origin
            self.origin = printable(name), printable(file), line
        self.stack = [places.of_code(code, module, n) for _, code, n, module in first.frames()]

    def matches(self, words: str, places: list[tuple[str, str, int]]) -> bool:
        """Whether its state or one of its frames has these words, in lower case."""
        if words in self.state.lower():
            return True
        found = [places[n] for n in self.stack]
        if self.origin is not None:
            found.append(self.origin)
        return any(words in f"{name} {file}:{line}".lower() for name, file, line in found)

    def told(self) -> dict[str, Any]:
        """Give it as plain values; of its goroutines those that wait longest."""
        longest = sorted(self.members, key=lambda record: -record.waited)
        return {
            "count": len(self.members),
            "state": self.state,
            "longest": longest[0].waited,
            "stack": self.stack,
            "created_by": self.origin,
            "members": [_member(record) for record in longest[:_MEMBERS]],
        }


def _member(record: Record) -> dict[str, Any]:
    """One goroutine, without its frames."""
    labels = record.labels or {}
    return {
        "id": record.id,
        "name": None if record.name is None else printable(record.name),
        "waited": record.waited,
        "parent": record.parent,
        "locked": record.locked,
        "bubble": record.bubble,
        "kept_ms": record.kept,
        "labels": {printable(key): printable(labels[key]) for key in sorted(labels)},
    }


def _is_named(record: Record, words: str) -> bool:
    """Whether a goroutine's number, name or labels have these words, in lower case."""
    if words == str(record.id) or (record.name is not None and words in record.name.lower()):
        return True
    labels = record.labels or {}
    return any(words in f"{key}={value}".lower() for key, value in labels.items())


def _grouped(found: Iterable[Record], places: _Places) -> dict[tuple[object, ...], _Group]:
    """All goroutines, by what they do and where."""
    groups: dict[tuple[object, ...], _Group] = {}
    for record in found:
        key = (record.state, record.origin, *record.place())
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Group(record, places)
        group.members.append(record)
    return groups


def goroutines(words: str = "", most: int = MOST) -> dict[str, Any]:
    """Give the goroutines by what they do, those that are many first.

    Takes some microseconds for each, while nothing else runs for a part of it: more than `most` are
    not looked at, which the answer says.

    Args:
        words: only those in whose state, name, labels or frames these are, in whatever case.
        most: how many may be looked at.
    """
    total = _core.num_goroutine()
    if total > most:
        return {"total": total, "skipped": True, "most": most}
    begun = time.thread_time_ns()
    places = _Places()
    found = records(_DEPTH)
    groups = list(_grouped(found, places).values())
    words = words.strip().lower()
    if words:
        known = places.all()
        for group in groups:
            if not group.matches(words, known):
                group.members = [one for one in group.members if _is_named(one, words)]
        groups = [group for group in groups if group.members]
    groups.sort(key=lambda group: -len(group.members))
    return {
        "total": len(found),
        "matched": sum(len(group.members) for group in groups),
        "skipped": False,
        "groups": [group.told() for group in groups[:_GROUPS]],
        "left_out": max(len(groups) - _GROUPS, 0),
        "frames": places.all(),
        "cost_ns": _since(begun),
    }


def flames(data: Data) -> dict[str, Any]:
    """Give a CPU profile for a flame graph: stacks, the outermost function first, and counts."""
    places = _Places()
    counts: dict[tuple[int, ...], int] = {}
    for stack, values, _ in data.samples:
        key = tuple(
            [places.number(frame.name, frame.file, frame.start_line) for frame in reversed(stack)]
        )
        counts[key] = counts.get(key, 0) + values[0]
    return {
        "period_ns": data.period,
        "duration_ns": data.duration_ns,
        "samples": sum(counts.values()),
        "stacks": [[count, list(key)] for key, count in counts.items()],
        "frames": places.all(),
        "comments": data.comments,
    }
