"""Where the values come from: each source is asked once for a reading, and only if it is needed."""

from __future__ import annotations

import os
from functools import cached_property

from gort import _core
from gort.gc import _in_force
from gort.metrics._model import Float64Histogram

__all__ = ["Reading", "histogram"]

#: The numbers of the core's latencies.
READY, WAKE_UP, INTERPRETER_LOCK, COLLECTOR, STOPPED = range(5)

_MEMORY_LIMIT_OFF = (1 << 63) - 1
_PERCENT_OFF = (1 << 64) - 1
_INF = float("inf")
_BUCKETS = (-_INF, *(ns / 1e9 for ns in _core._latency_bounds()), _INF)


def histogram(raw: tuple[tuple[int, ...], int]) -> Float64Histogram:
    """A histogram of the core's, in seconds."""
    counts, total_ns = raw
    return Float64Histogram(counts, _BUCKETS, total_ns / 1e9)


class Reading:
    """All sources at one moment, or nearly: each when it is first asked for."""

    @cached_property
    def scheduler(self) -> dict[str, int]:
        """Counts of the scheduler."""
        return _core.stats()

    @cached_property
    def states(self) -> dict[str, int]:
        """How many goroutines do what: a look at each."""
        return _core._goroutine_states()

    @cached_property
    def memory(self) -> dict[str, int]:
        """What memory is used for."""
        return _core._memory_stats()

    @cached_property
    def passes(self) -> dict[str, int]:
        """Passes of the collector."""
        return _core._gc_stats()

    @cached_property
    def totals(self) -> dict[str, int]:
        """Times that are added up."""
        return _core._metric_totals()

    def heap(self, name: str) -> int:
        """A number of gort's heaps: its own, and that of Python's objects where it serves those."""
        return self.memory[f"heap_{name}"] + self.memory[f"python_{name}"]

    def objects(self) -> int:
        """Objects in those heaps."""
        return self.heap("allocs_objects") - self.heap("frees_objects")

    def mapped(self) -> int:
        """Bytes that they have, with what is kept about them."""
        parts = ("objects_bytes", "unused_bytes", "free_bytes", "released_bytes")
        return sum(map(self.heap, parts)) + self.memory["metadata_bytes"]

    def passes_in_all(self) -> int:
        """Passes of every generation."""
        return self.passes["young"] + self.passes["middle"] + self.passes["full"]

    def cpu_total(self) -> float:
        """CPU seconds that there were for goroutines."""
        return self.totals["cpu_available_ns"] / 1e9

    def cpu_gc(self) -> float:
        """Of these, in passes."""
        return min(self.passes["cpu_ns"] / 1e9, self.cpu_total())

    def cpu_user(self) -> float:
        """Of these, for everything else."""
        used = self.totals["cpu_used_ns"] / 1e9
        return max(min(used, self.cpu_total()) - self.cpu_gc(), 0.0)

    def cpu_idle(self) -> float:
        """Of these, unused."""
        return max(self.cpu_total() - self.cpu_gc() - self.cpu_user(), 0.0)

    @staticmethod
    def percent() -> int:
        """What gort.gc.tune paces the collector by."""
        tuner = _in_force()
        percent = None if tuner is None else tuner.pacer.percent
        return _PERCENT_OFF if percent is None else percent

    @staticmethod
    def memory_limit() -> int:
        """The limit that tune was given."""
        tuner = _in_force()
        limit = None if tuner is None else tuner.pacer.limit
        return _MEMORY_LIMIT_OFF if limit is None else limit

    @staticmethod
    def descriptors() -> int:
        """Open descriptors of the process; 0 where the system does not tell."""
        try:
            # Since Linux 6.2 the size says how many there are.
            return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
        except OSError:
            return 0
