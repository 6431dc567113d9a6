"""The CPU profile: what goroutines and threads run, by CPU time."""

from __future__ import annotations

import os
import threading
import time

from gort._core import _cpu_start, _cpu_stop
from gort._typing import TYPE_CHECKING
from gort.pprof._kinds import labels_of
from gort.pprof._model import Data, Frame, Frames, Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from gort.pprof._profiles import Writable

__all__ = ["start_cpu_profile", "start_taking", "stop_cpu_profile"]

#: CPU time between two samples of a thread, ns: Go's 100 Hz.
_PERIOD_NS = 10_000_000
_CPU = ("cpu", "nanoseconds")
#: What runs where there are no Python frames; the numbers are those of the core.
_SCHEDULER, _OTHER_THREAD = 1, 2
_NATIVE = {
    _SCHEDULER: (Frame.native(_SCHEDULER, "gort.schedule"),),
    _OTHER_THREAD: (Frame.native(_OTHER_THREAD, "native_thread"),),
}


class _Running:
    """The profile that is being taken."""

    __slots__ = ("begun_ns", "take")

    def __init__(self, take: Callable[[Data], object]) -> None:
        self.take = take
        self.begun_ns = time.time_ns()


_lock = threading.Lock()
_running: _Running | None = None


def _forget_parent() -> None:
    """In a forked child: its parent's profile is not its own, and nobody has the lock."""
    global _lock, _running
    _lock, _running = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_parent)


def start_cpu_profile(file: Writable) -> None:
    r"""Begin to take samples of what uses the CPU; `stop_cpu_profile` writes them. Does not park.

    Each OS thread is sampled once in 10 ms of its CPU time: what waits is not counted. Goroutines
    have their labels in it. Taking a sample has the running code stop for some microseconds at its
    next safe point, so that a C call counts for the line that made it.

    Args:
        file: a file open for bytes, or anything with a `write`.

    Raises:
        RuntimeError: a CPU profile is being taken already ("cpu profiling already in use"), or the
            system refuses a thread.
        TypeError: the file has no `write`.

    Example:
        >>> import gort.pprof, io
        >>> file = io.BytesIO()
        >>> gort.pprof.start_cpu_profile(file)
        >>> total = sum(range(100_000))
        >>> gort.pprof.stop_cpu_profile()
        >>> file.getvalue()[:2]
        b'\x1f\x8b'
    """
    if not callable(getattr(file, "write", None)):
        raise TypeError(f"start_cpu_profile() needs a file, not {type(file).__name__}")
    start_taking(lambda data: file.write(data.encode()))


def start_taking(take: Callable[[Data], object]) -> None:
    """Begin to take samples; `stop_cpu_profile` calls `take` with the profile. Does not park.

    Raises:
        RuntimeError: as `start_cpu_profile`.
    """
    global _running
    with _lock:
        if _running is not None:
            raise RuntimeError("cpu profiling already in use")
        if not _cpu_start(_PERIOD_NS):
            raise RuntimeError("cpu profiling already in use")
        _running = _Running(take)


def stop_cpu_profile() -> None:
    """End the CPU profile and write it; does nothing if there is none.

    Does not park, but in the `write` of the file.

    Raises:
        OSError: the file cannot be written.
    """
    global _running
    with _lock:
        running, _running = _running, None
        if running is None:
            return
        found = _cpu_stop()
    samples, lost = found if found is not None else ([], 0)
    running.take(_data(running, samples, lost))


def _data(
    running: _Running,
    found: list[tuple[int, tuple[object, ...], dict[str, str] | None, int]],
    lost: int,
) -> Data:
    """The profile of what the core noted."""
    frames = Frames()
    samples: list[Sample] = []
    for kind, items, labels, count in found:
        parts = iter(items)
        stack = frames.stack(zip(parts, parts, parts, parts, strict=True))  # type: ignore[arg-type]
        values = (count, count * _PERIOD_NS)
        samples.append((stack or _NATIVE.get(kind, ()), values, labels_of(labels)))
    comments = (f"{lost} samples lost: no memory",) if lost else ()
    now = time.time_ns()
    return Data(
        (("samples", "count"), _CPU), _CPU, _PERIOD_NS, tuple(samples), "", comments,
        running.begun_ns, now - running.begun_ns,
    )  # fmt: skip
