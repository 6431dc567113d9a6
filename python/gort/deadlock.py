"""Deadlocks while the rest of the program runs, and locks that are fought over.

When everything is asleep the runtime raises DeadlockError by itself. Here are found those cycles of
goroutines that wait for each other while others run: by the ends of goroutines, by who has the
locks, once `track` is on, and by channels that nobody else can reach (`gort.leak`).

Locks of gort.sync belong to nobody, as in Go: who has one is taken to be who locked it.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from weakref import WeakKeyDictionary

from gort import _core, leak
from gort._closing import Stopping
from gort._core import goroutines, recv, select, spawn
from gort._typing import TYPE_CHECKING
from gort.time import after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any

    from gort._core import Chan, Goroutine, Mutex

__all__ = [
    "Deadlock", "Link", "Lock", "LockOrderWarning", "Watch", "find", "inversions", "locks", "track",
]  # fmt: skip

_PACKAGE = __file__.rpartition("/")[0] + "/"
#: With more leaks than this none is asked whether it holds what another waits for.
_ASKED = 50


class LockOrderWarning(RuntimeWarning):
    """Two locks were taken in one order here and in the other order elsewhere.

    Example:
        >>> import warnings, gort, gort.deadlock
        >>> was_on, a, b = gort.deadlock.track(), gort.Mutex(), gort.Mutex()
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     with a, b:
        ...         pass
        ...     with b, a:
        ...         pass
        >>> [warning.category.__name__ for warning in told], gort.deadlock.track(False)
        (['LockOrderWarning'], True)
    """


class Link:
    """A goroutine in a cycle. As a Leak it does not count as somebody who could wake it.

    Attributes:
        id: of the goroutine; 1 is the main one.
        goroutine: its object; None for the main one and for threads.
        name: its name, or "main".
        reason: why it is parked, in Go's words.
        waits_for: what it waits for: a lock, a channel, or a goroutine's end.
        stack: its frames as a traceback shows them, the newest last.
    """

    __slots__ = ("_leak", "_thing", "id", "name", "reason", "stack")

    def __init__(
        self,
        ident: int,
        goroutine: Goroutine[Any] | None,
        waits_for: object,
        frame: FrameType | None,
    ) -> None:
        """Describe it."""
        self.id = ident
        self._leak = None if goroutine is None else leak.Leak(goroutine, [waits_for], frame)
        self._thing = waits_for if self._leak is None else None
        self.name = "main" if self._leak is None else self._leak.name
        self.reason = "" if self._leak is None else self._leak.reason
        self.stack = leak._stack(frame)

    @property
    def goroutine(self) -> Goroutine[Any] | None:
        """Its object; None for the main one and for threads."""
        return None if self._leak is None else self._leak.goroutine

    @property
    def waits_for(self) -> object:
        """What it waits for."""
        return self._thing if self._leak is None else self._leak.waits_on[0]

    def __repr__(self) -> str:
        """Say which."""
        return f"<gort.deadlock.Link goroutine {self.id} waits for {self.waits_for!r}>"


class Deadlock:
    """Goroutines each of which waits for the next, and the last for the first.

    Attributes:
        cycle: a `Link` for each.
    """

    __slots__ = ("cycle",)

    def __init__(self, cycle: tuple[Link, ...]) -> None:
        """Hold a cycle."""
        self.cycle = cycle

    def __repr__(self) -> str:
        """Say who."""
        return f"<gort.deadlock.Deadlock of goroutines {', '.join(str(g.id) for g in self.cycle)}>"

    def __str__(self) -> str:
        """Tell the cycle, a line and the frames for each goroutine."""
        lines = [f"deadlock of {len(self.cycle)} goroutine{'s'[: len(self.cycle) != 1]}:"]
        for link, following in zip(self.cycle, (*self.cycle[1:], self.cycle[0]), strict=True):
            reason = f" [{link.reason}]" if link.reason else ""
            lines.append(
                f"goroutine {link.id} ({link.name}){reason} waits for {link.waits_for!r}, "
                f"which is up to goroutine {following.id}"
            )
            lines.append(link.stack)
        return "\n".join(line for line in lines if line)


class Lock:
    """A Mutex or RWMutex and who fights over it.

    Attributes:
        lock: the lock.
        holders: ids of the goroutines that have it; 0 is a thread.
        waiters: ids of those that wait for it without a time-out.
        waits: how often somebody had to wait for it since `track` is on.
        waited: seconds, of all these waits that are over.
    """

    __slots__ = ("holders", "lock", "waited", "waiters", "waits")

    def __init__(
        self,
        lock: Mutex | _core.RWMutex,
        holders: list[int],
        waiters: list[int],
        waits: int,
        waited_ns: int,
    ) -> None:
        """Hold what the core kept."""
        self.lock, self.holders, self.waiters = lock, tuple(holders), tuple(waiters)
        self.waits, self.waited = waits, waited_ns / 1e9

    def __repr__(self) -> str:
        """Say everything."""
        return (
            f"<gort.deadlock.Lock {self.lock!r} held by {self.holders}, awaited by {self.waiters}, "
            f"{self.waits} waits, {self.waited:.6f} s>"
        )


#: By lock: those that were taken while it was held, with where the first time was.
_followers: WeakKeyDictionary[object, WeakKeyDictionary[object, str]] = WeakKeyDictionary()
_inversions: list[str] = []


def track(on: bool = True) -> bool:
    """Keep from now on who has which Mutex and RWMutex, and in which order they are taken.

    Two locks that are taken in both orders are a deadlock that waits to happen: that is warned of,
    with LockOrderWarning, the first time; `inversions` gives the warnings so far. Each operation on
    a lock then takes some tenths of a microsecond more. What is held already is not known.

    Args:
        on: False stops it, and forgets what was kept.

    Returns:
        Whether it was on.

    Example:
        >>> import gort.deadlock
        >>> gort.deadlock.track(), gort.deadlock.track(False)
        (False, True)
    """
    _followers.clear()
    _inversions.clear()
    return _core._track_holders(_taken_in_turn if on else None)


def inversions() -> list[str]:
    """Give the warnings of locks that were taken in both orders since `track` is on.

    Example:
        >>> import gort.deadlock
        >>> was_on = gort.deadlock.track()
        >>> gort.deadlock.inversions()
        []
        >>> gort.deadlock.track(False)
        True
    """
    return list(_inversions)


def _place() -> str:
    """The line of the program that takes a lock."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame is None:
        return "an unknown place"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _taken_in_turn(first: object, second: object) -> None:
    """Called by the core: who has `first` has taken `second`, as nobody has before."""
    here = _place()
    _followers.setdefault(first, WeakKeyDictionary()).setdefault(second, here)
    path = _way(second, first)
    if path is None:
        return
    names = " before ".join(repr(lock) for lock in [second, *(lock for lock, _ in path)])
    before = ", ".join(where for _, where in path)
    text = f"lock order: {first!r} before {second!r} at {here}, but {names} at {before}"
    _inversions.append(text)
    warnings.warn(text, LockOrderWarning, stacklevel=2)


def _way(start: object, target: object) -> list[tuple[object, str]] | None:
    """Locks that lead from one to another in the order in which they were taken, and where."""
    seen = {start}
    ways: list[tuple[object, list[tuple[object, str]]]] = [(start, [])]
    while ways:
        lock, way = ways.pop()
        for following, where in list(_followers.get(lock, {}).items()):
            longer = [*way, (following, where)]
            if following is target:
                return longer
            if following not in seen:
                seen.add(following)
                ways.append((following, longer))
    return None


def locks() -> list[Lock]:
    """Give the locks that were taken since `track` is on, the most fought over first. Never parks.

    Example:
        >>> import gort, gort.deadlock
        >>> was_on, mutex = gort.deadlock.track(), gort.Mutex()
        >>> with mutex:
        ...     [(found.lock is mutex, found.holders) for found in gort.deadlock.locks()]
        [(True, (1,))]
        >>> gort.deadlock.track(False)
        True
    """
    found = [Lock(*of_lock) for of_lock in _core._lock_holders()]
    found.sort(key=lambda lock: (-lock.waited, -lock.waits, -len(lock.waiters)))
    return found


def find(*, channels: bool = True) -> list[Deadlock]:
    """Find goroutines that wait for each other in a cycle, while others run. Never parks.

    A goroutine is looked at if it waits for one thing only, with no time-out and no context: a
    lock, for who has it, if `track` is on; a goroutine's end, for that one; a channel or another
    thing that only goroutines can reach which can never run again, for those that hold it.

    Args:
        channels: False leaves the last kind out, which takes a look at all objects (`leak.find`).

    Returns:
        The deadlocks, each once, in order of their least ids.

    Example:
        >>> import gort, gort.deadlock
        >>> ch = gort.Chan(1)
        >>> first = gort.go(lambda: ch.recv().join())
        >>> second = gort.go(first.join)
        >>> ch.send(second)
        >>> while (first.status, second.status) != ("join", "join"):
        ...     gort.gosched()
        >>> found = [{link.id for link in one.cycle} for one in gort.deadlock.find()]
        >>> {first.id, second.id} in found
        True
        >>> first.cancel()
        True
    """
    waits: dict[int, list[tuple[int, object]]] = {}
    for lock, holders, waiters, _, _ in _core._lock_holders():
        for waiter in waiters:
            waits.setdefault(waiter, []).extend((holder, lock) for holder in holders if holder)
    for goroutine, waiters in _core._joins():
        for waiter in waiters:
            waits.setdefault(waiter, []).append((goroutine.id, goroutine))
    if channels:
        for waiter, holder, thing in _held_by_leaks():
            if waiter not in waits:
                waits.setdefault(waiter, []).append((holder, thing))
    cycles = list(_cycles(waits))
    by_id: dict[int, Goroutine[Any]] = {g.id: g for g in goroutines()} if cycles else {}
    frames = sys._current_frames() if cycles else {}
    return [
        Deadlock(tuple(_link(i, by_id.get(i), thing, frames) for i, thing in c)) for c in cycles
    ]


def _link(
    ident: int, goroutine: Goroutine[Any] | None, thing: object, frames: dict[int, FrameType]
) -> Link:
    """Describe one of a cycle."""
    frame = None if goroutine is None else frames.get(_core._ident(goroutine) or 0)
    return Link(ident, goroutine, thing, frame)


def _held_by_leaks() -> Iterator[tuple[int, int, object]]:
    """Of those that can never run again: who waits, who holds what it waits for, and that."""
    gc.collect()  # what is garbage may wake somebody as it goes
    pairs = [(g, waits_on) for g, waits_on, _ in leak._search(leak._NO_HANDLES)]
    if not 1 < len(pairs) <= _ASKED:
        return
    all_frames = sys._current_frames()
    frames = {g.id: all_frames.get(_core._ident(g) or 0) for g, _ in pairs}
    for g, waits_on in pairs:
        for thing in waits_on if len(waits_on) == 1 else ():
            for other, _ in pairs:
                if other is not g and _holds(frames[other.id], thing):
                    yield g.id, other.id, thing
                    break


def _holds(frame: FrameType | None, thing: object) -> bool:
    """Whether variables of these frames lead to it."""
    while frame is not None:
        if any(leak._path(value, thing) is not None for value in frame.f_locals.values()):
            return True
        frame = frame.f_back
    return False


def _cycles(waits: dict[int, list[tuple[int, object]]]) -> Iterator[list[tuple[int, object]]]:
    """Cycles, no two with a goroutine in common: who is in one is not looked at again."""
    done: set[int] = set()
    for start in sorted(waits.keys()):
        if start in done:
            continue
        done.add(start)
        way, rest, place = [start], [iter(waits[start])], {start: 0}
        things: list[object] = []
        while way:
            step = next(rest[-1], None)
            if step is None:
                rest.pop()
                del place[way.pop()]
                del things[-1:]
                continue
            to, thing = step
            if to in place:
                yield list(zip(way[place[to] :], [*things[place[to] :], thing], strict=True))
                break
            if to in waits and to not in done:
                done.add(to)
                place[to] = len(way)
                way.append(to)
                things.append(thing)
                rest.append(iter(waits[to]))


class Watch(Stopping):
    """Looks for deadlocks now and then, in a goroutine, and reports each once.

    Args:
        period: seconds between two looks.
        report: called with each new `Deadlock`, in that goroutine; None prints it to stderr.
        channels: as for `find`.

    Raises:
        ValueError: period is not more than 0.

    Example:
        >>> import gort, gort.deadlock
        >>> with gort.deadlock.Watch(period=60) as watch:
        ...     known = watch.look()
        ...     watch.look()  # what is new since then
        []
    """

    def __init__(
        self,
        period: float = 10.0,
        report: Callable[[Deadlock], object] | None = None,
        *,
        channels: bool = True,
    ) -> None:
        """Begin to look."""
        if not period > 0:
            raise ValueError(f"Watch(): period must be more than 0, not {period}")
        self._period, self._channels = period, channels
        self._report = _print if report is None else report
        self._known: set[frozenset[int]] = set()
        self._stop: Chan[None] = _core.Chan()
        self._goroutine = spawn(self._run, name="gort.deadlock.Watch")

    def look(self) -> list[Deadlock]:
        """Look now; the deadlocks that were not known, which are reported as well."""
        found = find(channels=self._channels)
        keys = [frozenset(link.id for link in one.cycle) for one in found]
        new = [one for one, key in zip(found, keys, strict=True) if key not in self._known]
        self._known = set(keys)
        for one in new:
            self._report(one)
        return new

    def stop(self) -> None:
        """Look no more. May be called again. Parks until a look in progress is over."""
        if not self._stop.closed:
            self._stop.close()
        self._goroutine.join()

    def _run(self) -> None:
        """Look each period."""
        while select(recv(after(self._period)), recv(self._stop))[0] == 0:
            self.look()


def _print(found: Deadlock) -> None:
    """Report to stderr."""
    sys.stderr.write(f"{found}\n")


os.register_at_fork(after_in_child=_core._holders_forked)
