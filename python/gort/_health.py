"""Whether the program is in a bad way: limits on rates and trends, with reasons.

A trend needs more than one look. Each `health()` notes a sample, at most one a second, and judges
by the last of them: whoever asks every few seconds, as those do that watch services, gets trends.
"""

from __future__ import annotations

import os
from collections import deque
from itertools import pairwise
from time import monotonic

from gort import _core
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Health", "HealthLimits", "HealthMonitor", "health"]

#: Samples kept.
_KEPT = 64
#: Seconds between two of them, at least.
_APART = 1.0
#: What the core's count of recent passes looks back to, seconds.
_MINUTE = 60.0


class HealthLimits:
    """What is too much. All may be set.

    Attributes:
        gc_per_s: passes of the collector per second, 50.
        growing_samples: so many looks in a row, 6, at which goroutines never got fewer and mostly
            got more, are "ever growing",
        growing_seconds: if they are at least so many seconds in all, 30.
        memory_per_minute: a part, 0.25, by which resident memory grows in a minute,
        memory_bytes: if it grew by so many bytes meanwhile, 16 MiB,
        memory_seconds: judged over at least so many seconds, 10.
        descriptors: the part of the process's limit that is open, 0.9.
    """

    __slots__ = (
        "descriptors", "gc_per_s", "growing_samples", "growing_seconds", "memory_bytes",
        "memory_per_minute", "memory_seconds",
    )  # fmt: skip

    def __init__(
        self,
        *,
        gc_per_s: float = 50.0,
        growing_samples: int = 6,
        growing_seconds: float = 30.0,
        memory_per_minute: float = 0.25,
        memory_bytes: int = 16 << 20,
        memory_seconds: float = 10.0,
        descriptors: float = 0.9,
    ) -> None:
        """Set limits.

        Raises:
            ValueError: one is not more than 0.

        Example:
            >>> import gort
            >>> gort.HealthLimits(gc_per_s=100).gc_per_s
            100
        """
        self.gc_per_s = gc_per_s
        self.growing_samples, self.growing_seconds = growing_samples, growing_seconds
        self.memory_per_minute, self.memory_bytes = memory_per_minute, memory_bytes
        self.memory_seconds, self.descriptors = memory_seconds, descriptors
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"HealthLimits(): {name} must be more than 0")


class Health:
    """What `health` found. True if no limit is passed.

    Attributes:
        ok: whether no limit is passed.
        flags: which are: "gc", "goroutines", "memory", "descriptors".
        reasons: a sentence for each flag.
        gc_per_s: passes of the collector per second, since the sample before.
        goroutines: how many there are.
        goroutines_per_s: how many more each second, over the samples kept; None: there is one only.
        resident_bytes: memory of the process; 0 where the system does not tell.
        memory_per_s: bytes more each second, likewise.
        descriptors: open ones; 0 where the system does not tell.
        descriptor_limit: how many may be open; None: as many as one likes.

    Example:
        >>> import gort
        >>> limits = gort.HealthLimits(descriptors=1e-9)
        >>> found = gort.HealthMonitor(limits).check()
        >>> "descriptors" in found.flags, found.ok, len(found.reasons) == len(found.flags)
        (True, False, True)
    """

    __slots__ = (
        "descriptor_limit", "descriptors", "flags", "gc_per_s", "goroutines", "goroutines_per_s",
        "memory_per_s", "reasons", "resident_bytes",
    )  # fmt: skip

    flags: tuple[str, ...]
    reasons: tuple[str, ...]
    gc_per_s: float
    goroutines: int
    goroutines_per_s: float | None
    resident_bytes: int
    memory_per_s: float | None
    descriptors: int
    descriptor_limit: int | None

    def __init__(self, **values: Any) -> None:
        """Hold what was found."""
        for name in self.__slots__:
            setattr(self, name, values[name])

    @property
    def ok(self) -> bool:
        """Whether no limit is passed."""
        return not self.flags

    def __bool__(self) -> bool:
        """Whether no limit is passed."""
        return self.ok

    def __repr__(self) -> str:
        """Say that all is well, or what is not."""
        return f"<gort.Health {'; '.join(self.reasons) or 'ok'}>"

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {"ok": self.ok} | {name: getattr(self, name) for name in self.__slots__}


class _Sample:
    """What is looked at, at one moment."""

    __slots__ = ("at", "descriptors", "goroutines", "last_minute", "limit", "passes", "resident")

    def __init__(
        self,
        at: float,
        passes: int,
        last_minute: int,
        goroutines: int,
        resident: int,
        descriptors: int,
        limit: int | None,
    ) -> None:
        """Hold it."""
        self.at, self.passes, self.last_minute = at, passes, last_minute
        self.goroutines, self.resident = goroutines, resident
        self.descriptors, self.limit = descriptors, limit


def _open_descriptors() -> int:
    """How many the process has open; 0 where the system does not tell."""
    try:
        # Since Linux 6.2 the size says how many there are.
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def _look() -> _Sample:
    """A sample of this process."""
    import resource  # none that `import gort` should wait for

    passes = _core._gc_stats()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _Sample(
        monotonic(),
        passes["young"] + passes["middle"] + passes["full"],
        passes["last_minute"],
        _core.num_goroutine(),
        _core._resident_bytes(),
        _open_descriptors(),
        None if limit == resource.RLIM_INFINITY else limit,
    )


class HealthMonitor:
    """Samples of its own and limits of its own; `health` is that of a monitor for all.

    Args:
        limits: what is too much; None for the limits as they are by default.

    Example:
        >>> import gort
        >>> monitor = gort.HealthMonitor(gort.HealthLimits(gc_per_s=1e9))
        >>> "gc" in monitor.check().flags
        False
    """

    def __init__(self, limits: HealthLimits | None = None) -> None:
        """Begin without samples."""
        self.limits = HealthLimits() if limits is None else limits
        self._samples: deque[_Sample] = deque(maxlen=_KEPT)
        self._look: Callable[[], _Sample] = _look

    def check(self) -> Health:
        """Look, and judge by this and the last samples. Never blocks."""
        now = self._look()
        if not self._samples or now.at - self._samples[-1].at >= _APART:
            self._samples.append(now)
        kept = list(self._samples)
        if kept[-1] is not now:
            kept.append(now)  # judged, not kept: a sample is not far enough from the last
        found: list[tuple[str, str]] = []
        gc_per_s = self._passes(kept, found)
        goroutines_per_s = self._goroutines(kept, found)
        memory_per_s = self._memory(kept, found)
        if now.limit is not None and now.descriptors >= now.limit * self.limits.descriptors:
            text = f"{now.descriptors} of {now.limit} descriptors are open"
            found.append(("descriptors", text))
        return Health(
            flags=tuple(flag for flag, _ in found),
            reasons=tuple(reason for _, reason in found),
            gc_per_s=gc_per_s,
            goroutines=now.goroutines,
            goroutines_per_s=goroutines_per_s,
            resident_bytes=now.resident,
            memory_per_s=memory_per_s,
            descriptors=now.descriptors,
            descriptor_limit=now.limit,
        )

    def _passes(self, kept: list[_Sample], found: list[tuple[str, str]]) -> float:
        """The rate of passes, since the last sample that is a second old, or of the last minute."""
        now = kept[-1]
        before = next((one for one in reversed(kept) if now.at - one.at >= _APART), None)
        if before is None:
            rate = now.last_minute / _MINUTE
        else:
            rate = (now.passes - before.passes) / (now.at - before.at)
        if rate > self.limits.gc_per_s:
            found.append(("gc", f"{rate:.0f} passes of the collector per second"))
        return rate

    def _goroutines(self, kept: list[_Sample], found: list[tuple[str, str]]) -> float | None:
        """How fast goroutines grow, and whether they never stop."""
        first, now = kept[0], kept[-1]
        count = self.limits.growing_samples
        last = kept[-count:]
        steps = [b.goroutines - a.goroutines for a, b in pairwise(last)]
        grew = sum(step > 0 for step in steps)
        long_enough = len(last) >= count and now.at - last[0].at >= self.limits.growing_seconds
        if long_enough and min(steps) >= 0 and 4 * grew >= 3 * len(steps):
            text = f"goroutines only grow: from {last[0].goroutines} to {now.goroutines}"
            found.append(("goroutines", f"{text} in {now.at - last[0].at:.0f} s"))
        passed = now.at - first.at
        return (now.goroutines - first.goroutines) / passed if passed >= _APART else None

    def _memory(self, kept: list[_Sample], found: list[tuple[str, str]]) -> float | None:
        """How fast resident memory grows, and whether that is fast."""
        now, limits = kept[-1], self.limits
        before = next((s for s in reversed(kept) if now.at - s.at >= limits.memory_seconds), None)
        if before is not None and before.resident:
            grown = now.resident - before.resident
            part = grown / before.resident * _MINUTE / (now.at - before.at)
            if grown >= limits.memory_bytes and part > limits.memory_per_minute:
                text = f"resident memory grew by {grown >> 20} MiB in {now.at - before.at:.0f} s"
                found.append(("memory", f"{text}, {part:.0%} a minute"))
        passed = now.at - kept[0].at
        return (now.resident - kept[0].resident) / passed if passed >= _APART else None


_monitor = HealthMonitor()


def health(limits: HealthLimits | None = None) -> Health:
    """Say whether the program is in a bad way, and why. Never blocks.

    Flags are raised by more than 50 passes of the collector per second, goroutines that only ever
    grow, memory that grows fast, and descriptors near their limit. Trends are over the calls so
    far, so it is to be called now and then; the first call knows none.

    Args:
        limits: what is too much from now on; None leaves the limits as they are.

    Returns:
        What was found: true if all is well, with `reasons` if not.

    Example:
        >>> import gort
        >>> found = gort.health()
        >>> found.goroutines >= 1, found.ok == (not found.reasons)
        (True, True)
    """
    if limits is not None:
        _monitor.limits = limits
    return _monitor.check()
