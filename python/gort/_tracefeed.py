"""Writes what the core gives of a trace to a file that is not the system's."""

from __future__ import annotations

from gort._core import Chan, _trace_take, spawn
from gort._exceptions import ChanClosed
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Protocol

    from gort._core import Goroutine

    class Writable(Protocol):
        """Takes bytes."""

        def write(self, data: bytes, /) -> object:
            """Take some."""


__all__ = ["Feeder"]

#: Seconds between two writes.
_LOOK = 0.05


class Feeder:
    """A goroutine that writes what the core gives to a file of Python's."""

    def __init__(self, file: Writable) -> None:
        """Begin."""
        self._file = file
        self._ends: Chan[None] = Chan(0)
        self.error: Exception | None = None
        self._goroutine: Goroutine[None] = spawn(self._run, name="gort.trace")

    def _run(self) -> None:
        """Write until the end, or the first error; what comes after that is dropped."""
        while True:
            try:
                self._ends.recv(_LOOK)
            except TimeoutError:
                self.write(_trace_take())
            except ChanClosed:
                return

    def write(self, data: bytes) -> None:
        """Write."""
        if data and self.error is None:
            try:
                self._file.write(data)
            except Exception as error:  # noqa: BLE001 - it is whoever stops who has to know
                self.error = error

    def end(self) -> None:
        """Wait for the goroutine. May be called again."""
        if not self._ends.closed:
            self._ends.close()
        try:
            self._goroutine.join()
        except MemoryError:
            pass  # it had no memory to go on: what it has not taken is written at the end
