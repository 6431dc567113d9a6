"""CPython's garbage collector under goroutines: what its passes cost, and how often they come.

    >>> import gort
    >>> with gort.gc.tune(percent=100, limit=2 << 30):
    ...     pass  # fewer passes in here, and more again near 2 GiB

From the first goroutine on each pass is counted and timed (about a microsecond). Whoever collects
is not preempted before the pass is over; a finalizer that waits holds up all later passes, as it
does with threads, so it had better start a goroutine for what may wait: Go runs all finalizers in
one.
"""

from __future__ import annotations

import gc as collector
import sys
from _operator import index
from time import monotonic_ns

from gort import _core
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from gort._unreachable import Finder
    from gort.leak import Leak

__all__ = ["Stats", "Tuning", "after_pass", "collect_unreachable", "stats", "tune"]

#: CPython 3.14.0 to 3.14.4 collect the old in steps, as generation 1.
IN_STEPS = (3, 14, 0) <= sys.version_info[:3] < (3, 14, 5)

#: The generation of passes that look at everything, or at a step of it.
FULL = 1 if IN_STEPS else 2

_MOST = 2**31 - 1  # a threshold is a C int
_LEAST = 700  # where it was off: CPython's own until 3.12
_LEAST_BYTES = 200  # of an object: a small list or instance, with what it refers to
_WINDOW_NS = 1_000_000_000  # over which the collector's share of the time is measured
_SHARE = 0.5  # Go's limit of it near a memory limit (runtime/mgclimit.go)


class Stats:
    """Passes since the runtime began: what `stats` gives. Times are nanoseconds.

    Attributes:
        passes: how many were over, by generation: young, middle, full.
        last_minute: how many began in the last 60 seconds.
        collected: objects found to be garbage.
        uncollectable: objects found that nothing could be done about.
        total_ns: time in passes, with whatever their finalizers waited for.
        last_ns: of the last pass.
        longest_ns: of the longest one.
        running_ns: of the one in progress so far; 0: none is. If this grows, a finalizer waits.
        unreachable: goroutines that `collect_unreachable` ended.
    """

    __slots__ = (
        "collected", "last_minute", "last_ns", "longest_ns", "passes", "running_ns", "total_ns",
        "uncollectable", "unreachable",
    )  # fmt: skip

    collected: int
    last_minute: int
    last_ns: int
    longest_ns: int
    passes: tuple[int, int, int]
    running_ns: int
    total_ns: int
    uncollectable: int
    unreachable: int

    def __init__(self, counts: dict[str, int]) -> None:
        """Take over what the core counted."""
        self.passes = (counts["young"], counts["middle"], counts["full"])
        for name in self.__slots__:
            if name != "passes":
                setattr(self, name, counts[name])

    def __repr__(self) -> str:
        """Show everything."""
        values = (f"{name}={getattr(self, name)}" for name in self.__slots__)
        return f"Stats({', '.join(values)})"


def stats() -> Stats:
    """Return what passes there were since the first goroutine. Never parks.

    Example:
        >>> import gc, gort
        >>> before = gort.gc.stats()
        >>> _ = gc.collect()
        >>> gort.gc.stats().passes[2] > before.passes[2]
        True
    """
    return Stats(_core._gc_stats())


def after_pass(fn: Callable[[int, int], object], /) -> Callable[[], None]:
    """Have `fn(generation, nanoseconds)` called at the end of each pass; return what undoes it.

    It is called where the pass happened, on any goroutine or thread, with the collector still held:
    it should be short and not wait; it may start a goroutine. What it raises is written to stderr.

    Args:
        fn: called with the generation, 0 to 2 (2: a full pass), and how long the pass was.

    Raises:
        TypeError: fn is not callable.

    Example:
        >>> import gc, gort
        >>> seen = []
        >>> undo = gort.gc.after_pass(lambda generation, ns: seen.append(generation))
        >>> _ = gc.collect()
        >>> undo()
        >>> seen
        [2]
    """
    if not callable(fn):
        raise TypeError(f"after_pass() needs a callable, not {type(fn).__name__}")
    entry = (fn,)  # an object of its own: the same function may be there twice
    _followers.append(entry)
    _listen()

    def undo() -> None:
        _followers[:] = [other for other in _followers if other is not entry]
        _listen()

    return undo


def collect_unreachable(on: bool = True, *, report: Callable[[Leak], object] | None = None) -> bool:
    """Have goroutines that can never run again ended, or not any more. Never parks.

    Off by default. After full passes, and once there are a quarter more goroutines, a goroutine
    looks for what `gort.leak.find` finds: goroutines parked for channels, locks of gort.sync or
    the end of others, which nobody who can still run has. GoroutineExit is raised in each, in the
    order of their ids, so their `finally` blocks run; who catches it and waits again is asked
    again after a later pass. A goroutine whose Goroutine object somebody holds is left alone; a
    weak reference to that object does not hold it. Main, threads, who is locked to its OS
    thread, who waits in a call of the C library or in a bubble of synctest, and who a trace
    function looks at are never ended.

    Each look stops everything for some tenths of a second per million objects; looks take at most a
    twentieth of the time, but for the first few. Of goroutines that share what they wait for, or
    have each other's objects, the first is ended first, and more after the next look, if nothing
    that it did as it ended keeps them from being found again.

    Args:
        on: False stops it.
        report: called with a `gort.leak.Leak` for each that was asked to end, in a goroutine.

    Returns:
        Whether it was on.

    Raises:
        TypeError: report is not callable.

    Example:
        >>> import gort
        >>> gort.gc.collect_unreachable()
        False
        >>> gort.gc.collect_unreachable(False)
        True
    """
    global _finder
    if report is not None and not callable(report):
        raise TypeError(
            f"collect_unreachable(): report must be callable, not {type(report).__name__}"
        )
    was_on = _finder is not None
    _finder = None
    if on:
        from gort._unreachable import Finder  # it takes others along

        _finder = Finder(report)
    _listen()
    return was_on


class Pacer:
    """Says after how many new objects the next pass comes: numbers in, a number out.

    With thresholds (n, 0, 0) CPython's passes are young, middle and full in turn, n new objects
    after one another (a full one only once the old have become a quarter more). So n is a third of
    what the heap may grow by. Near the limit n is what half the room left is enough for, but at
    least CPython's own.

    Args:
        percent: growth of the heap from one full pass to the next; None: only the limit counts.
        limit: bytes the process should not take; None for no limit.
        floor: the least threshold.
    """

    def __init__(self, percent: int | None, limit: int | None, floor: int) -> None:
        """Begin at the floor where there is a limit: what objects weigh is not known yet."""
        self.percent, self.limit, self.floor = percent, limit, floor
        self.threshold = floor
        self._bytes_each = float(_LEAST_BYTES)
        self._resident = 0
        self._window = (0, 0)  # when it began, and the collector's time by then
        self._is_capped = False
        self._full = (0, 0, 0)  # the last full pass: its end, its length, resident bytes after it

    def next(self, now_ns: int, gc_ns: int, live: int, resident: int) -> int:
        """Choose the next threshold, at the end of a pass or at the beginning of all.

        Args:
            now_ns: a clock.
            gc_ns: time in passes so far.
            live: objects and goroutines there are.
            resident: bytes of the process; of no interest without a limit.
        """
        goal = _MOST if self.percent is None else live * self.percent // 300
        wanted = goal
        if self.limit is not None:
            self._measure(now_ns, gc_ns, resident)
            room = max(self.limit - resident, 0) / 2
            wanted = min(goal, int(room / self._bytes_each), 2 * self.threshold)
            if self._is_capped:
                wanted = max(wanted, min(goal, 2 * self.threshold))
        self.threshold = max(self.floor, min(wanted, _MOST))
        return self.threshold

    def _measure(self, now_ns: int, gc_ns: int, resident: int) -> None:
        """Learn what objects weigh, and which share of the time passes take."""
        if self._resident:
            grown = (resident - self._resident) / self.threshold
            self._bytes_each = max(grown, self._bytes_each * 0.75, _LEAST_BYTES)
        self._resident = resident
        since, before = self._window
        if now_ns - since >= _WINDOW_NS:
            self._is_capped = bool(since) and (gc_ns - before) / (now_ns - since) > _SHARE
            self._window = (now_ns, gc_ns)

    def wants_full(self, now_ns: int, resident: int) -> bool:
        """Whether the limit is passed and a full pass is due.

        Full passes of the limit's take at most half of the time, and one that could not help is
        not followed by another before the process has grown by a twentieth of the limit.
        """
        if self.limit is None or resident < self.limit or self._is_capped:
            return False
        ended, length, left = self._full
        return now_ns - ended >= length and resident - left >= (self.limit // 20 if ended else 0)

    def note_full(self, now_ns: int, length_ns: int, resident: int) -> None:
        """A full pass is over."""
        self._full = (now_ns, length_ns, resident)


class _Tuner:
    """One setting of tune() while it is in force."""

    def __init__(self, percent: int | None, limit: int | None, floor: int) -> None:
        self.pacer = Pacer(percent, limit, floor)
        self.set = (0, 0, 0)
        self._live = 0
        self._collecting: _core.Goroutine[int] | None = None

    def apply(self, generation: int, length_ns: int) -> None:
        """A pass of `generation` is over: set what leads to the next."""
        if generation >= 1:
            self._live = _core._gc_tracked()
        now, resident = _clock(), 0
        if self.pacer.limit is not None:
            resident = _resident()
            if generation == 2:
                self.pacer.note_full(now, length_ns, resident)
        live = self._live + _core.num_goroutine()
        wanted = self.pacer.next(now, _core._gc_stats()["total_ns"], live, resident)
        self.set = (wanted, 0, 0)
        collector.set_threshold(*self.set)
        if self.pacer.wants_full(now, resident) and (
            self._collecting is None or self._collecting.done
        ):
            # In a goroutine: in here the collector is held.
            self._collecting = _core.spawn(collector.collect, name="gort.gc")


class Tuning:
    """A setting of the collector, made by `tune`: a context manager whose end undoes it."""

    __slots__ = ("_before", "_is_undone")

    def __init__(self, before: _Tuner | None) -> None:
        """Remember what was in force before."""
        self._before = before
        self._is_undone = False

    def undo(self) -> None:
        """Put back what was in force before, once; a second call does nothing."""
        if not self._is_undone:
            self._is_undone = True
            _enforce(self._before)

    def __enter__(self) -> Self:
        """Begin the block; its end undoes the setting."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Undo; exceptions pass."""
        self.undo()


def tune(percent: int | None = 100, limit: int | None = None) -> Tuning:
    """Set how far the heap grows between full passes, as Go's GOGC and GOMEMLIMIT do.

    Off by default: CPython then looks at new objects each time some hundreds (since 3.13 two
    thousand) have come, however large the heap is. With 100 percent a full pass comes when the
    objects it looks at have doubled, goroutines included, with a young and a middle one on the way.
    The price is what reference counting does not free meanwhile: cycles, at most a `percent` of the
    heap. A program that grows gains most. One whose garbage is all young has fewer passes, but
    spends no less time in them: what is collected soon is still in the processor's caches.

    `limit` is a soft limit of the process's resident memory: nearing it brings passes as often as
    CPython's own, and above it full ones, but no more than half of the time goes into them. It
    is looked at when passes come: objects that suddenly weigh much more than those before are
    noticed a pass later.

    `tune(None)` puts CPython's own thresholds back. So does whoever calls `gc.set_threshold`, which
    ends the tuning. `gc.disable()` works as ever. Never parks.

    Args:
        percent: 1 or more; None: passes come for the limit's sake only, or as CPython's own.
        limit: bytes, more than 0; None for no limit.

    Raises:
        TypeError: a number is no integer.
        ValueError: a number is out of its range.
        RuntimeError: this is CPython 3.14.0 to 3.14.4, whose collector works in steps.

    Example:
        >>> import gc, gort
        >>> before = gc.get_threshold()
        >>> tuning = gort.gc.tune(200)
        >>> gc.get_threshold()[0] > before[0]
        True
        >>> tuning.undo()
        >>> gc.get_threshold() == before
        True
    """
    for number, what in ((percent, "percent"), (limit, "limit")):
        if number is not None and index(number) <= 0:
            raise ValueError(f"tune(): {what} must be more than 0, not {number}")
    if IN_STEPS:
        raise RuntimeError("CPython 3.14.0 to 3.14.4 collect in steps, which tune() cannot pace")
    before = _in_force()
    if percent is None and limit is None:
        _enforce(None)
    else:
        _enforce(_Tuner(percent, limit, (_own or collector.get_threshold())[0] or _LEAST))
    return Tuning(before)


#: How time and resident bytes are read; tests put others in their place.
_clock = monotonic_ns
_resident = _core._resident_bytes
#: Functions of after_pass().
_followers: list[tuple[Callable[[int, int], object]]] = []
#: What tune() set, and the thresholds before it.
_tuner: _Tuner | None = None
_own: tuple[int, int, int] | None = None
#: What ends goroutines that can never run again, while that is on.
_finder: Finder | None = None


def _in_force() -> _Tuner | None:
    """The tuner, unless somebody set other thresholds since: those count then."""
    global _tuner, _own
    if _tuner is not None and collector.get_threshold() != _tuner.set:
        _tuner = _own = None
        _listen()
    return _tuner


def _enforce(tuner: _Tuner | None) -> None:
    """Have `tuner` set the thresholds, or nobody."""
    global _tuner, _own
    if _in_force() is None:
        if tuner is None:
            return
        _own = collector.get_threshold()
    _tuner = tuner
    _listen()
    if tuner is not None:
        tuner.apply(1, 0)
    elif _own is not None:
        collector.set_threshold(*_own)
        _own = None


def _listen() -> None:
    """Be called after passes, or not any more."""
    is_heard = bool(_followers) or _tuner is not None or _finder is not None
    _core._gc_hook(_pass_is_over if is_heard else None)


def _pass_is_over(generation: int, length_ns: int) -> None:
    """Called by the core at the end of a pass, with the collector still held."""
    failure: BaseException | None = None
    for (follower,) in tuple(_followers):
        try:
            follower(generation, length_ns)
        except BaseException as raised:  # noqa: BLE001 - the others are called all the same
            failure = raised
    tuner = _in_force()
    if tuner is not None:
        tuner.apply(generation, length_ns)
    if _finder is not None:
        _finder.pass_is_over(generation >= FULL)
    if failure is not None:
        raise failure
