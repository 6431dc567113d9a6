"""The libc boundary: which calls of which objects the scheduler answers.

Inside goroutines the blocking calls of the standard library (sockets, select, sleeps, locks,
subprocess waits, name resolution) park the goroutine instead of its OS thread, and everybody who
asks for the current thread is told of the goroutine. Nothing is patched in Python: the calls are
answered where the interpreter and its libraries enter the C library. It is on from the first
goroutine; GORT_BOUNDARY=0 leaves blocking calls to their OS threads.

    >>> import gort.boundary
    >>> gort.boundary.status().identity
    True
"""

from __future__ import annotations

import os

from gort._core import _boundary_add, _boundary_status

__all__ = ["CallCount", "ObjectStatus", "Status", "add", "status"]


class ObjectStatus:
    """What is replaced in one loaded object (an executable or a shared library)."""

    __slots__ = ("error", "kind", "left", "names", "path")

    path: str
    kind: str
    names: tuple[str, ...]
    left: dict[str, str]
    error: str | None

    def __init__(
        self,
        path: str,
        kind: str,
        names: tuple[str, ...],
        left: tuple[tuple[str, str], ...],
        error: str | None,
    ) -> None:
        """Take over a record of the core.

        Args:
            path: the file.
            kind: interpreter, standard module, OpenSSL, greenlet, driver or added.
            names: the functions whose entries are replaced.
            left: (function, reason) for those that are known and were left alone.
            error: why nothing of the object could be replaced, or None.
        """
        self.path = path
        self.kind = kind
        self.names = names
        self.left = dict(left)
        self.error = error

    def __repr__(self) -> str:
        """Show file, kind and how much is replaced."""
        what = self.error or f"{len(self.names)} replaced"
        return f"<ObjectStatus {self.path} ({self.kind}): {what}>"


class CallCount:
    """How often calls of one function by goroutines waited."""

    __slots__ = ("handed_off", "name", "parked")

    name: str
    parked: int
    handed_off: int

    def __init__(self, name: str, parked: int, handed_off: int) -> None:
        """Take over a record of the core.

        Args:
            name: the function.
            parked: waits that parked the goroutine only.
            handed_off: calls left to the OS thread, whose processor went to another one.
        """
        self.name = name
        self.parked = parked
        self.handed_off = handed_off

    def __repr__(self) -> str:
        """Show the counts."""
        return f"<CallCount {self.name}: {self.parked} parked, {self.handed_off} handed off>"


class Status:
    """What the boundary does in this process."""

    __slots__ = ("calls", "identity", "lasting", "objects", "parking")

    parking: bool
    identity: bool
    objects: list[ObjectStatus]
    calls: dict[str, CallCount]
    lasting: dict[str, int]

    def __init__(
        self,
        parking: bool,
        identity: bool,
        objects: list[ObjectStatus],
        calls: list[CallCount],
        lasting: list[tuple[str, int]],
    ) -> None:
        """Put the parts together; see `status`."""
        self.parking = parking
        self.identity = identity
        self.objects = objects
        self.calls = {call.name: call for call in calls}
        self.lasting = dict(lasting)

    def advice(self) -> list[str]:
        """Say what could be done about libraries whose calls block OS threads. Does not park.

        Returns:
            A sentence for each unknown library that was seen in a call that lasts, the one seen
            most often first.

        Example:
            >>> from gort.boundary import Status
            >>> seen = Status(True, True, [], [], [("/usr/lib/libodbc.so.2", 7)])
            >>> [sentence] = seen.advice()  # of this process: status().advice()
            >>> sentence.endswith("gort.boundary.add('libodbc')")
            True
        """
        often = sorted(self.lasting.items(), key=lambda item: -item[1])
        return [
            f"{path} was seen {count} times in a call that kept its OS thread. If what it waits "
            f"for are sockets or pipes, and it holds no lock of its own meanwhile: "
            f"gort.boundary.add({os.path.basename(path).split('.')[0]!r})"
            for path, count in often
        ]

    def __repr__(self) -> str:
        """Show what is on and where."""
        return (
            f"<Status parking={self.parking} identity={self.identity} "
            f"objects={len(self.objects)} calls={len(self.calls)}>"
        )


def status() -> Status:
    """Tell what is in place. Starts the runtime if it has not started. Does not park.

    Returns:
        parking: whether calls that block park their goroutine.
        identity: whether each goroutine is a thread of its own to those who ask.
        objects: the known loaded objects, each with what is replaced and what was left alone.
        calls: by name, how often goroutines parked in it and how often it was handed off.
        lasting: by file, how often a call of a library that is not known was seen to last; a
            sample, taken at most every 10 ms. `advice()` puts it into words.
    """
    parking, identity, objects, calls, lasting = _boundary_status()
    return Status(
        parking,
        identity,
        [ObjectStatus(*record) for record in objects],
        [CallCount(*record) for record in calls],
        lasting,
    )


def add(name: str, /) -> int:
    """Let goroutines park in the calls of another library, loaded already or later.

    Only for libraries that hold no lock of their own while they wait: a goroutine that parks with
    such a lock makes every other one that wants it keep its OS thread. While frames of such a
    library are on its stack a goroutine stays on its OS thread, which serves nobody else; those of
    known drivers (docs/drivers.md), which need not be added, do not bind it. Does not park.

    Args:
        name: how the file name of the library starts, such as "libodbc"; the same for every
            other library that takes part in its waiting ("pyodbc").

    Returns:
        How many loaded objects have such a name.

    Raises:
        TypeError: `name` is not a str.
        ValueError: `name` is empty.

    Example:
        >>> import gort.boundary
        >>> gort.boundary.add("no-such-library")
        0
    """
    if not isinstance(name, str):
        raise TypeError(f"boundary.add() needs the name of a library, not {type(name).__name__}")
    if not name:
        raise ValueError("boundary.add() needs a name")
    return _boundary_add(name)
