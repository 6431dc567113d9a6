"""Goroutines that a block leaves behind."""

from __future__ import annotations

import sys
import traceback
from time import monotonic

from gort import _core
from gort._core import goroutines, sleep
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from gort._core import Goroutine

_PAUSE = 0.001


class LeakError(AssertionError):
    """A block left goroutines behind: the message shows each with what it waits for and where."""


class no_leaks:
    """A block that must leave no goroutine behind that it did not find.

    Goroutines that are about to end get `grace` seconds for it. What started before the block is
    not looked at. An exception of the block itself goes first. Threads are not counted.

    Args:
        grace: seconds.

    Raises:
        LeakError: at the end of the block.

    Example:
        >>> import gort
        >>> from gort.testing import LeakError, no_leaks
        >>> ch = gort.Chan()
        >>> try:
        ...     with no_leaks(grace=0):
        ...         g = gort.go(ch.recv)
        ...         gort.gosched()
        ... except LeakError as error:
        ...     print(str(error).splitlines()[0])
        1 goroutine was left behind
        >>> ch.close()
    """

    def __init__(self, grace: float = 1.0) -> None:
        """Check `grace`."""
        if not grace >= 0:
            raise ValueError(f"grace must be a non-negative number of seconds, not {grace!r}")
        self._grace = grace
        self._before: set[int] = set()

    def __enter__(self) -> Self:
        """Note who is there."""
        self._before = {g.id for g in goroutines()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for those that are about to end, and complain of the others."""
        if error is not None:
            return
        until = monotonic() + self._grace
        while (left := self._left()) and monotonic() < until:
            sleep(_PAUSE)
        if left:
            count = "1 goroutine was" if len(left) == 1 else f"{len(left)} goroutines were"
            raise LeakError(f"{count} left behind\n\n" + "\n".join(map(_described, left)))

    def _left(self) -> list[Goroutine[Any]]:
        current = _core.current()
        return [g for g in goroutines() if g.id not in self._before and g is not current]


def _described(goroutine: Goroutine[Any]) -> str:
    """Its line of a dump, and where it is."""
    head = f"goroutine {goroutine.id} ({goroutine.name}) [{goroutine.status}]"
    ident = _core._ident(goroutine)
    frame = None if ident is None else sys._current_frames().get(ident)
    if frame is None:
        return head
    return f"{head}\n{''.join(traceback.format_stack(frame)).rstrip()}"
