"""What grows without end: threads, goroutines and executors, and locks nobody releases."""

from __future__ import annotations

import _thread
import gc
import sys
import threading
from itertools import pairwise
from weakref import WeakKeyDictionary

from gort import _core
from gort._closing import Stopping
from gort._core import goroutines, recv, select, spawn
from gort._typing import TYPE_CHECKING
from gort.time import after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any

    from gort._core import Chan, Goroutine

_LOCKS = (_thread.LockType, _thread.RLock)
#: Lines of a finding that say where.
_PLACES = 10
_PACKAGE = __file__.rpartition("/")[0] + "/"


class Growth:
    """Something that grew over the samples of a `Watch`, or a lock held at each of them.

    Attributes:
        kind: "threads", "goroutines", "executors" or "lock".
        what: which of them: what the threads run, why the goroutines wait, the lock's name.
        counts: how many there were, by sample.
        where: where they were made and are now, a line each.
    """

    __slots__ = ("counts", "kind", "what", "where")

    def __init__(self, kind: str, what: str, counts: list[int], where: list[str]) -> None:
        """Made by `Watch.growing`."""
        self.kind, self.what, self.counts, self.where = kind, what, counts, where

    def __str__(self) -> str:
        """Give it as text, the places below."""
        counts = " ".join(map(str, self.counts))
        return "\n  ".join([f"{self.kind}: {self.what}: {counts}", *self.where])

    def __repr__(self) -> str:
        """Say which."""
        return f"<gort.leak.Growth {self.kind}: {self.what}>"


class Watch(Stopping):
    """Counts threads, goroutines, executors and taken locks, and tells what only ever grows.

    While it is on it keeps where threads, executors and goroutines are made (`Thread.start` and
    the constructors of executors are wrapped for that, and put back). It ends with its block, or
    with `stop`.

    Args:
        samples: how many samples something must have grown over.
        every: seconds between samples, which a goroutine takes; None: `sample` is called by hand.
        then: called with the list of `Growth` after each sample that shows some; None: `growing`
            is asked.

    Raises:
        ValueError: fewer than two samples, or no time between them.

    Example:
        >>> import threading
        >>> from gort.leak import Watch
        >>> over = threading.Event()
        >>> with Watch(samples=3) as watch:
        ...     for _ in range(3):
        ...         threading.Thread(target=over.wait).start()
        ...         watch.sample()
        ...     [growth] = [growth for growth in watch.growing() if growth.kind == "threads"]
        >>> growth.kind, growth.counts
        ('threads', [1, 2, 3])
        >>> over.set()
    """

    def __init__(
        self,
        samples: int = 5,
        every: float | None = None,
        then: Callable[[list[Growth]], object] | None = None,
    ) -> None:
        """Begin."""
        if samples < 2:
            raise ValueError(f"samples must be 2 or more, not {samples!r}")
        if every is not None and not every > 0:
            raise ValueError(f"every must be a positive number of seconds, not {every!r}")
        self._samples = samples
        self._then = then
        self._counts: list[dict[tuple[str, str], int]] = []
        self._locks: list[dict[int, str]] = []
        self._sites: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        self._undo = [*_wrap_all(self._sites)]
        self._over: Chan[None] = _core.Chan()
        if every is not None:
            spawn(self._run, (every,), name="gort.leak.Watch")

    def stop(self) -> None:
        """Take no more samples, and keep no more where things are made. Never parks."""
        while self._undo:
            self._undo.pop()()
        if not self._over.closed:
            self._over.close()

    def sample(self) -> None:
        """Count now; collects garbage first, so that only what is held counts."""
        gc.collect()
        counts: dict[tuple[str, str], int] = {}
        for kind, what, _ in self._all():
            counts[kind, what] = counts.get((kind, what), 0) + 1
        self._counts = [*self._counts, counts][-self._samples :]
        self._locks = [*self._locks, dict(_taken_locks())][-self._samples :]

    def growing(self) -> list[Growth]:
        """Give what has never shrunk over the last samples, and grew in most of them.

        Returns:
            Also the locks that were held at each sample; nothing before there are enough samples.
        """
        if len(self._counts) < self._samples:
            return []
        found = []
        for kind, what in self._counts[-1]:
            counts = [sample.get((kind, what), 0) for sample in self._counts]
            steps = [later - sooner for sooner, later in pairwise(counts)]
            if min(steps) >= 0 and 2 * sum(step > 0 for step in steps) > len(steps):
                places = [place for k, w, place in self._all() if (k, w) == (kind, what)]
                found.append(Growth(kind, what, counts, _shortened(places)))
        held = set.intersection(*map(set, self._locks)) if self._locks else set()
        for key in sorted(held):
            name = self._locks[-1][key]
            found.append(Growth("lock", name, [1] * self._samples, _users(key)))
        return found

    def _run(self, every: float) -> None:
        """The goroutine that takes samples."""
        while select(recv(self._over), recv(after(every)))[0] == 1:
            self.sample()
            if self._then is not None and (growing := self.growing()):
                self._then(growing)

    def _all(self) -> Iterator[tuple[str, str, str]]:
        """Kind, group and place of all there is."""
        frames = sys._current_frames()
        for thread in threading.enumerate():
            target = getattr(thread, "_target", None)
            if target is not None:
                place = self._place(thread, frames.get(thread.ident or 0))
                yield "threads", _described(target), f"{thread.name}: {place}"
        for g in goroutines():
            if g is not _core.current() and g.name != "gort.leak.Watch":
                yield "goroutines", *_goroutine(g, frames)
        for executor in _open_executors():
            yield "executors", type(executor).__qualname__, self._place(executor, None)

    def _place(self, thing: object, frame: FrameType | None) -> str:
        """Where it was made, and is."""
        made = self._sites.get(thing)
        parts = ["made before the watch" if made is None else f"made by {made}"]
        if frame is not None:
            parts.append(f"is in {_line(frame)}")
        return ", ".join(parts)


def _goroutine(g: Goroutine[Any], frames: dict[int, FrameType]) -> tuple[str, str]:
    """The group of a goroutine, and its place."""
    frame = frames.get(_core._ident(g) or 0)
    made = f"started by {g.created or 'no Python code'}"
    if frame is None:
        return f"[{g.status}]", f"goroutine {g.id}: {made}"
    return (
        f"[{g.status}] {frame.f_code.co_qualname}",
        f"goroutine {g.id}: {made}, is in {_line(frame)}",
    )


def _line(frame: FrameType) -> str:
    """Where a frame is."""
    return f"{frame.f_code.co_qualname} at {frame.f_code.co_filename}:{frame.f_lineno}"


def _described(function: object) -> str:
    """What a thread runs."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or '?'}.{name}"


def _shortened(places: list[str]) -> list[str]:
    """No more lines than anybody reads."""
    more = len(places) - _PLACES
    return places if more <= 0 else [*places[:_PLACES], f"and {more} more"]


def _open_executors() -> Iterator[object]:
    """Pools of threads and goroutines that were not shut down."""
    futures = sys.modules.get("concurrent.futures.thread")
    pool = sys.modules.get("gort.pool")
    for thing in gc.get_objects():
        if futures is not None and type(thing) is futures.ThreadPoolExecutor:
            if not thing._shutdown:
                yield thing
        elif pool is not None and type(thing) is pool.WorkerPool and not thing._is_closed:
            yield thing


def _is_taken(lock: Any) -> bool:
    """Whether somebody has a lock, ours or not."""
    taken = _core._is_taken(lock)
    return repr(lock).startswith("<locked") if taken is None else taken


def _space(thing: object) -> Any:
    """The attributes of an object; None of a proxy to what is not there (werkzeug's raise)."""
    try:
        return getattr(thing, "__dict__", None)
    except Exception:  # noqa: BLE001 - whatever it raises, it has none now
        return None


def _taken_locks() -> Iterator[tuple[int, str]]:
    """The locks that somebody has and that have a name: by id, with the name."""
    taken = [lock for lock in _core._locks(_LOCKS) if _is_taken(lock)]
    wanted = {id(lock) for lock in taken}
    names: dict[int, str] = {}
    for owner in gc.get_objects():
        if type(owner) is dict or isinstance(owner, threading.Thread):
            continue
        space = _space(owner) if wanted else None
        if not isinstance(space, dict) or isinstance(owner, type):
            continue
        for name, value in list(space.items()):
            if id(value) in wanted:
                names[id(value)] = f"{_owner(owner)}.{name}"
    del taken
    yield from names.items()


def _owner(thing: object) -> str:
    """Whose attribute a lock is."""
    return getattr(thing, "__name__", None) or type(thing).__qualname__


def _users(key: int) -> list[str]:
    """The frames that have the lock of this id in a variable, or in an attribute of one."""
    places = []
    for frame in [*sys._current_frames().values()]:
        at: FrameType | None = frame
        while at is not None:
            if at.f_code.co_filename.startswith(_PACKAGE):
                at = at.f_back
                continue
            values = [*at.f_locals.values()]
            spaces = [_space(v) for v in values]
            values += [v for s in spaces if isinstance(s, dict) for v in s.values()]
            if any(id(value) == key for value in values):
                places.append(f"used in {_line(at)}")
            at = at.f_back
    return _shortened(places)


def _caller() -> str:
    """Who makes a thread or an executor: the first frame outside of the library."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(
        ("threading", "concurrent.futures", "gort.")
    ):
        frame = frame.f_back
    return "?" if frame is None else _line(frame)


def _wrap_all(sites: WeakKeyDictionary[object, str]) -> Iterator[Callable[[], None]]:
    """Note who makes threads and executors; gives how to put each function back."""
    from concurrent.futures import ThreadPoolExecutor

    from gort.pool import WorkerPool

    for owner, name in (
        (threading.Thread, "start"), (ThreadPoolExecutor, "__init__"), (WorkerPool, "__init__"),
    ):  # fmt: skip
        yield _wrap(owner, name, sites)


def _wrap(owner: type, name: str, sites: WeakKeyDictionary[object, str]) -> Callable[[], None]:
    """Have a method note its caller."""
    old = getattr(owner, name)

    def noting(self: object, *args: Any, **kwargs: Any) -> Any:
        try:
            sites[self] = _caller()
        except TypeError:
            pass  # no weak references to it
        return old(self, *args, **kwargs)

    def put_back() -> None:
        if owner.__dict__.get(name) is noting:
            setattr(owner, name, old)

    noting.__name__, noting.__qualname__, noting.__doc__ = name, old.__qualname__, old.__doc__
    setattr(owner, name, noting)
    return put_back
