"""Named profiles, as Go's runtime/pprof has them: lookup, those of your own, writing."""

from __future__ import annotations

import os
import sys
import threading
import time

from gort._core import num_goroutine
from gort._typing import TYPE_CHECKING
from gort.pprof import _contention, _heap, _kinds
from gort.pprof._kinds import count_data, count_text
from gort.pprof._model import Frame, Frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Protocol

    from gort.pprof._model import Data, Label, Stack

    class Writable(Protocol):
        """What profiles are written to: a binary file."""

        def write(self, data: bytes, /) -> object: ...


__all__ = ["Profile", "lookup", "new_profile", "profiles"]

#: Frames that `add` keeps; Go's number.
_ADDED = 32
#: The stack of who skipped all of it.
_NO_STACK = (Frame.native(1, "gort.pprof.lost"),)


class Profile:
    """A profile: stacks, and how many of each there are. `lookup` and `new_profile` give them.

    Attributes:
        name: its name, by which `lookup` finds it.

    Example:
        >>> import gort.pprof, io
        >>> file = io.BytesIO()
        >>> gort.pprof.lookup("goroutine").write_to(file, debug=1)
        >>> file.getvalue().startswith(b"goroutine profile: total ")
        True
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        """Name it; use `new_profile`, which has `lookup` find it."""
        self.name = name

    def __repr__(self) -> str:
        """Say which."""
        return f"<gort.pprof.Profile {self.name!r}>"

    def count(self) -> int:
        """Give how many stacks are in it now. Does not park."""
        raise NotImplementedError

    def add(self, value: object, skip: int = 0) -> None:
        """Add the caller's stack, kept with `value` until `remove`. Does not park.

        Args:
            value: anything hashable; it is kept alive.
            skip: how many of the newest frames are left out; 0 begins with the caller of `add`.

        Raises:
            ValueError: the value is in it already, or this is a profile of gort's own.
            TypeError: the value is not hashable.
        """
        raise ValueError(f"pprof: add() called on built-in profile {self.name}")

    def remove(self, value: object) -> None:
        """Take the stack of `value` out; does nothing if there is none. Does not park."""

    def write_to(self, file: Writable, debug: int = 0) -> None:
        """Write the profile as it is now.

        Does not park, but in the `write` of the file. It takes some microseconds for each stack,
        while nothing else runs for a part of it; goroutineleak collects garbage first.

        Args:
            file: a file open for bytes.
            debug: 0 writes what `go tool pprof` reads (profile.proto, compressed); 1 the text that
                Go writes; 2, of goroutines, a dump as `gort.dump` gives it.

        Raises:
            OSError: the file cannot be written.
            MemoryError: there is no memory for it.
        """
        file.write(self._bytes(debug))

    def _bytes(self, debug: int) -> bytes:
        """What `write_to` writes."""
        if debug <= 0:
            return self._data().encode()
        return self._text(debug).encode("utf-8", "backslashreplace")

    def _stamped(self) -> Data:
        """The profile with the time it was made."""
        return self._data()._replace(time_ns=time.time_ns())

    def _data(self) -> Data:
        """The profile itself."""
        raise NotImplementedError

    def _text(self, debug: int) -> str:
        """The same as text."""
        raise NotImplementedError


class _Counting(Profile):
    """A profile of gort's own that counts stacks."""

    __slots__ = ("_count", "_groups", "_stacks")

    def __init__(
        self,
        name: str,
        count: Callable[[], int],
        groups: Callable[[], list[tuple[Stack, tuple[Label, ...], int]]],
        stacks: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(name)
        self._count = count
        self._groups = groups
        self._stacks = stacks

    def count(self) -> int:
        return self._count()

    def _data(self) -> Data:
        return count_data(self.name, self._groups())

    def _text(self, debug: int) -> str:
        if debug >= 2 and self._stacks is not None:
            return self._stacks()
        return count_text(self.name, self._groups())


class _Heap(Profile):
    """The memory that Python objects have, by where it was asked for."""

    __slots__ = ("_default",)

    def __init__(self, name: str, default: str) -> None:
        super().__init__(name)
        self._default = default

    def count(self) -> int:
        return _heap.count()

    def _data(self) -> Data:
        return _heap.data(self._default)

    def _text(self, debug: int) -> str:
        return _heap.text()


class _Contention(Profile):
    """What goroutines wait for, or who holds locks that they wait for."""

    __slots__ = ()

    def count(self) -> int:
        return _contention.count(self.name)

    def _data(self) -> Data:
        return _contention.data(self.name)

    def _text(self, debug: int) -> str:
        return _contention.text(self.name)


class _Own(Profile):
    """A profile of the program's."""

    __slots__ = ("_lock", "_stacks")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._lock = threading.Lock()
        self._stacks: dict[object, Stack] = {}

    def count(self) -> int:
        return len(self._stacks)

    def add(self, value: object, skip: int = 0) -> None:
        stack = _stack_of(sys._getframe(1), skip) or _NO_STACK
        with self._lock:
            if value in self._stacks:
                raise ValueError("pprof: Profile.add of duplicate value")
            self._stacks[value] = stack

    def remove(self, value: object) -> None:
        with self._lock:
            self._stacks.pop(value, None)

    def _groups(self) -> list[tuple[Stack, tuple[Label, ...], int]]:
        """Equal stacks once."""
        with self._lock:
            stacks = list(self._stacks.values())
        counts: dict[Stack, int] = {}
        for stack in stacks:
            counts[stack] = counts.get(stack, 0) + 1
        return [(stack, (), count) for stack, count in counts.items()]

    def _data(self) -> Data:
        return count_data(self.name, self._groups())

    def _text(self, debug: int) -> str:
        return count_text(self.name, self._groups())


def _stack_of(frame: FrameType | None, skip: int) -> Stack:
    """The frames from this one on, without the newest `skip`."""
    items: list[tuple[int, CodeType, int, str | None]] = []
    while frame is not None and len(items) < _ADDED:
        if skip > 0:
            skip -= 1
        else:
            code, name = frame.f_code, frame.f_globals.get("__name__")
            module = name if isinstance(name, str) else None
            items.append((id(code) + max(frame.f_lasti, 0), code, frame.f_lineno or 0, module))
        frame = frame.f_back
    return Frames().stack(items)


def _threads() -> int:
    """How many threads the process has."""
    return len(os.listdir("/proc/self/task"))


_lock = threading.Lock()
_known: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        _Counting("goroutine", num_goroutine, _kinds.goroutine, _kinds.goroutine_stacks),
        _Counting(
            "goroutineleak",
            _kinds.leaked_before,
            _kinds.goroutineleak,
            _kinds.goroutineleak_stacks,
        ),
        _Counting("threadcreate", _threads, _kinds.threadcreate),
        _Contention("block"),
        _Contention("mutex"),
        _Heap("heap", ""),
        _Heap("allocs", "alloc_space"),
    )
}


def lookup(name: str) -> Profile | None:
    """Give the profile of this name, or None. Never blocks for long.

    Example:
        >>> import gort.pprof
        >>> gort.pprof.lookup("goroutine"), gort.pprof.lookup("no such")
        (<gort.pprof.Profile 'goroutine'>, None)
    """
    return _known.get(name)


def profiles() -> list[Profile]:
    """Give all profiles, by name. Never blocks for long.

    Example:
        >>> import gort.pprof
        >>> {"goroutine", "heap"} <= {profile.name for profile in gort.pprof.profiles()}
        True
    """
    with _lock:
        return [_known[name] for name in sorted(_known)]


def new_profile(name: str) -> Profile:
    """Make a profile of your own, to which `add` adds stacks. Never blocks for long.

    Go's tools want names without spaces; begin them with that of your package: `app.connections`.

    Args:
        name: its name, by which `lookup` and the server find it.

    Raises:
        ValueError: the name is empty, or that of another profile.

    Example:
        >>> import gort.pprof
        >>> connections = gort.pprof.new_profile("example.connections")
        >>> connections.add("first")
        >>> connections.count()
        1
        >>> connections.remove("first")
    """
    if not name:
        raise ValueError("pprof: new_profile with empty name")
    profile = _Own(name)
    with _lock:
        if name in _known:
            raise ValueError(f"pprof: new_profile name already in use: {name}")
        _known[name] = profile
    return profile
