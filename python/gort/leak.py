"""Goroutines that can never run again, and what else grows without end.

`find` is Go 1.26's goroutine leak profile for Python objects. A goroutine leaks when it is parked
for a channel, a lock of gort.sync or the end of a goroutine, without a time-out, and no code that
can still run can get at what it waits for. Who else holds that object (a variable, another
object, a timer, C code) keeps the goroutine from being called a leak: nothing is called a leak
that is none, but a leak may be missed. `Watch` looks at counts over time: threads, goroutines and
executors that only ever get more, and locks that are held at each look.
"""

from __future__ import annotations

import builtins
import gc
import sys
import traceback
import types
from time import monotonic

from gort import _core
from gort._typing import TYPE_CHECKING
from gort._watch import Growth, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType
    from typing import Any

    from gort._core import Goroutine

__all__ = ["Growth", "Leak", "Watch", "find", "report", "track"]

#: Before 3.14 the depth of a frame's value stack must be found from its code.
_NEEDS_DEPTHS = sys.version_info < (3, 14)
if _NEEDS_DEPTHS:
    # Like traceback, loaded at once: an import during a search that is refused memory may end
    # with CPython's RuntimeError ("can't allocate read lock").
    from gort._depths import owned_depth
#: Whose Goroutine object keeps a goroutine from being a leak: nobody's, that which somebody holds,
#: that which somebody has a weak reference to as well.
_NO_HANDLES, _HELD_HANDLES, _ALL_HANDLES = range(3)
#: Objects a chain is looked for in.
_LOOKED_AT = 5_000
#: Instructions whose depth is kept.
_REMEMBERED = 10_000
#: With more leaks than this none is asked whether it holds what another waits for.
_ASKED = 50
#: What leads to everything, and never from a leak to what it waits for alone.
_TOO_WIDE = (types.ModuleType, types.FrameType, types.CodeType, type)

_BUILTINS = vars(builtins)

_depths: dict[tuple[CodeType, int], tuple[int, int]] = {}
_first_seen: dict[int, float] = {}


class Leak:
    """A goroutine that can never run again.

    A report keeps what it describes, but does not count as somebody who could wake it.

    Attributes:
        goroutine: the goroutine; its cancel() ends it.
        id: its id.
        name: its name.
        reason: why it is parked, in Go's words.
        age: seconds since it was started, if `track` was on by then; else since `find` first saw
            it.
        created: "function at file:line" that started it.
        waits_on: the objects it waits for; none for a nil channel.
        chain: what keeps those objects, a line for each that does; all of it is leaked as well. Of
            many leaks each is asked for itself alone.
        stack: its frames, the newest last.
    """

    __slots__ = (
        "age", "chain", "created", "goroutine", "id", "name", "reason", "stack", "waits_on",
    )  # fmt: skip

    def __init__(
        self, goroutine: Goroutine[Any], waits_on: list[object], frame: FrameType | None
    ) -> None:
        """Describe it; `find` adds the chain."""
        self.goroutine = goroutine
        self.id = goroutine.id
        self.name = goroutine.name
        self.reason = goroutine.status
        self.waits_on = waits_on
        self.chain: list[str] = []
        seen = monotonic() - _first_seen.setdefault(self.id, monotonic())
        age = _core._age(goroutine)
        self.age = seen if age is None else age
        self.created = goroutine.created
        self.stack = _stack(frame)

    def __repr__(self) -> str:
        """Say which."""
        return f"<gort.leak.Leak goroutine {self.id} [{self.reason}]>"

    def __str__(self) -> str:
        """Give it as Go's dump does: `goroutine 7 [chan send (leaked)]:` and the frames."""
        lines = [f"goroutine {self.id} ({self.name}) [{self.reason} (leaked), {self.age:.0f} s]:"]
        lines += [f"  waits on {thing!r}" for thing in self.waits_on] or ["  waits on nothing"]
        lines += [f"  {line}" for line in self.chain]
        lines.append(self.stack)
        if self.created is not None:
            lines.append(f"created by {self.created}")
        return "\n".join(lines)


def find(*, handles: bool = True) -> list[Leak]:
    """Find the goroutines that can never run again; collects garbage first, never parks.

    It takes time in proportion to the number of objects, while nothing else runs: some tenths of a
    second for a million.

    Args:
        handles: a goroutine whose Goroutine object can still be reached may be cancelled, so it is
            no leak. False: it is one if nothing but that can wake it.

    Returns:
        The leaks, in order of their ids.

    Example:
        >>> import gort, gort.leak
        >>> def forgotten():
        ...     gort.Chan().recv()
        >>> ident = gort.go(forgotten).id
        >>> gort.gosched()
        >>> [leak] = [leak for leak in gort.leak.find() if leak.id == ident]
        >>> leak.reason
        'chan receive'
        >>> leak.goroutine.cancel()
        True
    """
    gc.collect()  # what is garbage may wake somebody as it goes
    pairs = _search(_ALL_HANDLES if handles else _NO_HANDLES)
    frames = sys._current_frames() if pairs else {}
    found = [Leak(g, waits_on, frames.get(_core._ident(g) or 0)) for g, waits_on, _ in pairs]
    found.sort(key=lambda leak: leak.id)
    for gone in _first_seen.keys() - {leak.id for leak in found}:
        del _first_seen[gone]
    asked = found if len(found) <= _ASKED else []
    for leak in found:
        others = [other for other in asked if other is not leak]
        leak.chain = [
            line for thing in leak.waits_on for line in _holders(thing, [leak, *others], frames)
        ]
    return found


def report(*, handles: bool = True) -> str:
    """Give the leaks as text, in the form of Go's goroutineleak profile.

    Args:
        handles: as for `find`.

    Example:
        >>> import gort.leak
        >>> gort.leak.report().startswith("goroutineleak profile: total ")
        True
    """
    found = find(handles=handles)
    head = f"goroutineleak profile: total {len(found)}"
    return "\n\n".join([head, *map(str, found)])


def track(on: bool = True) -> bool:
    """Keep, from now on, when each goroutine is started; it costs some tenths of a microsecond.

    Args:
        on: False stops it, and forgets what was kept.

    Returns:
        Whether it was on.

    Example:
        >>> import gort.leak
        >>> gort.leak.track()
        False
        >>> gort.leak.track(False)
        True
    """
    return _core._track_ages(on)


def _search(handles: int) -> list[tuple[Goroutine[Any], list[object], int]]:
    """What the core finds: goroutines, what they wait for, and which of them could meet."""
    depths: list[tuple[CodeType, int, int, int]] = []
    if _NEEDS_DEPTHS:
        if len(_depths) > _REMEMBERED:
            _depths.clear()  # it keeps the code alive
        for code, offset in _core._leak_calls():
            known = _depths.get((code, offset))
            if known is None:
                known = _depths[code, offset] = owned_depth(code, offset)
            depths.append((code, offset, *known))
    return _core._leaks(depths, handles, Leak)


def _place(code: CodeType, line: int) -> str:
    """A line of code, in words."""
    return f"{code.co_qualname} at {code.co_filename}:{line}"


def _stack(frame: FrameType | None) -> str:
    """The frames of a parked goroutine, as a traceback shows them."""
    return "" if frame is None else "".join(traceback.format_stack(frame)).rstrip()


def _holders(thing: object, leaks: list[Leak], frames: dict[int, FrameType]) -> Iterator[str]:
    """Who holds what a leak waits for, a line each."""
    for leak in leaks:
        frame = frames.get(_core._ident(leak.goroutine) or 0)
        while frame is not None:
            for name, value in frame.f_locals.items():
                path = _path(value, thing)
                if path is not None:
                    where = _place(frame.f_code, frame.f_lineno)
                    yield f"kept by goroutine {leak.id}: {' -> '.join([name, *path])} in {where}"
                    break
            frame = frame.f_back


def _path(start: object, target: object) -> list[str] | None:
    """How one object leads to another: types, or names where there are some; None: it does not."""
    if start is target:
        return []
    seen = {id(start)}
    level: list[tuple[object, list[str]]] = [(start, [])]
    while level and len(seen) < _LOOKED_AT:
        following = []
        for thing, path in level:
            if isinstance(thing, _TOO_WIDE):
                continue
            names = getattr(thing, "__dict__", thing)
            for value in gc.get_referents(thing):
                if (
                    id(value) in seen
                    or value is getattr(thing, "__globals__", None)
                    or value is _BUILTINS
                ):
                    continue
                seen.add(id(value))
                longer = path if value is names else [*path, _label(names, value)]
                if value is target:
                    return longer
                following.append((value, longer))
        level = following
    return None


def _label(names: object, value: object) -> str:
    """The name that a dict has a value by, or its type."""
    if isinstance(names, dict):
        for key, other in names.items():
            if other is value and isinstance(key, str):
                return f".{key}"
    return type(value).__name__
