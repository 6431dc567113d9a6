"""Block and mutex profiles: what goroutines wait for, and who holds locks that others wait for."""

from __future__ import annotations

from gort._core import _contention_rates, _contention_records
from gort._typing import TYPE_CHECKING
from gort.pprof._kinds import parked_in
from gort.pprof._model import Data, Frame, Frames, addresses, aligned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gort.pprof._model import Stack

__all__ = ["count", "data", "set_block_profile_rate", "set_mutex_profile_fraction", "text"]

#: The greatest rate: that of Go's int.
_MOST = (1 << 63) - 1
#: What unlocks, by the word for the wait of who unlocked it.
_UNLOCKS = {
    "sync.Mutex.Lock": Frame.native(0x1000, "gort.Mutex.unlock"),
    "sync.RWMutex.Lock": Frame.native(0x1010, "gort.RWMutex.unlock"),
    "sync.RWMutex.RLock": Frame.native(0x1020, "gort.RWMutex.runlock"),
}
_CONTENTIONS = ("contentions", "count")


def _rate(name: str, rate: int) -> int:
    """Look at a rate."""
    if not isinstance(rate, int):
        raise TypeError(f"{name}() needs an int, not {type(rate).__name__}")
    return min(rate, _MOST)


def set_block_profile_rate(rate: int) -> None:
    """Set how much of what goroutines wait for the profile `block` has. Does not park.

    It counts waits for channels, select, locks, conditions, groups, semaphores, ends of goroutines
    and locks of C code (`threading.Lock`), from the park to when somebody woke who waits; not
    sleeps, and not what the outside makes wait. Go's runtime.SetBlockProfileRate.

    Args:
        rate: on average one wait is chosen for so many nanoseconds of waiting, those that are
            longer always: 1 takes all of them, 0 or less none. At first it is 0.

    Raises:
        TypeError: the rate is no int.

    Example:
        >>> import gort.pprof
        >>> gort.pprof.set_block_profile_rate(1)
        >>> gort.go(gort.Chan(1).send, "value").join()
        >>> gort.pprof.set_block_profile_rate(0)
    """
    _contention_rates(max(_rate("set_block_profile_rate", rate), 0), -1)


def set_mutex_profile_fraction(rate: int) -> int:
    """Set how many of the unlocks that others waited for the profile `mutex` has. Does not park.

    An unlock of a Mutex or RWMutex that lets somebody go on is charged with the time for which all
    who wait for the lock have waited since the last such unlock. Go's
    runtime.SetMutexProfileFraction.

    Args:
        rate: one of so many is chosen: 1 takes all, 0 none; less than 0 leaves it as it is. At
            first it is 0.

    Returns:
        The fraction before.

    Raises:
        TypeError: the rate is no int.

    Example:
        >>> import gort.pprof
        >>> gort.pprof.set_mutex_profile_fraction(5)
        0
        >>> gort.pprof.set_mutex_profile_fraction(0)
        5
    """
    chosen = max(_rate("set_mutex_profile_fraction", rate), -1)
    fraction: int = _contention_rates(-1, chosen)[1]
    return fraction


def _records(name: str) -> tuple[list[tuple[Stack, int, int]], int]:
    """Give (stack, count, ns) of each, the longest first, and how many events were lost."""
    is_mutex = name == "mutex"
    found, lost = _contention_records(is_mutex)
    frames = Frames()
    records = []
    for word, items, count, ns in found:
        parts = iter(items)
        stack = frames.stack(zip(parts, parts, parts, parts, strict=True))
        leaf = _UNLOCKS.get(word) if is_mutex else parked_in(word)
        records.append(((leaf, *stack) if leaf else stack, max(count, 1), min(ns, _MOST)))
    records.sort(key=lambda record: (-record[2], addresses(record[0])))
    return records, lost


def count(name: str) -> int:
    """Give how many stacks a profile has. Does not park."""
    return len(_contention_records(name == "mutex")[0])


def data(name: str) -> Data:
    """Give a profile, `block` or `mutex`. Does not park."""
    records, lost = _records(name)
    samples = tuple((stack, (count, ns), ()) for stack, count, ns in records)
    comments = (f"{lost} events lost: no memory",) if lost else ()
    return Data((_CONTENTIONS, ("delay", "nanoseconds")), _CONTENTIONS, 1, samples, "", comments)


def text(name: str) -> str:
    """Give one as text, as Go's debug=1 does: cycles are nanoseconds."""
    lines = [f"--- {'contention' if name == 'block' else name}:", "cycles/second=1000000000"]
    if name == "mutex":
        lines.append(f"sampling period={set_mutex_profile_fraction(-1)}")
    for stack, count, ns in _records(name)[0]:
        lines.append(f"{ns} {count} {addresses(stack)}")
        lines += _frame_lines(stack)
    return "\n".join(aligned(lines)) + "\n"


def _frame_lines(stack: Stack) -> Iterable[str]:
    """Give the lines of a stack, with the runtime's function that waits or unlocks, as Go does."""
    return [*map(str, stack), ""]
