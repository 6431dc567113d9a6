"""Blocks of several goroutines in a given order."""

from __future__ import annotations

from gort._core import Cond, Mutex
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Sequencer:
    """Lets blocks run in the order of their numbers, whichever goroutines they are in.

    `with seq(n):` parks until the blocks 0 to n-1 are over. Each number is for one block. When a
    block raises, or the wait for one is cancelled, the order is broken: those that wait for it get
    a RuntimeError.

    Example:
        >>> import gort
        >>> from gort.testing import Sequencer
        >>> seq, order = Sequencer(), []
        >>> def step(n):
        ...     with seq(n):
        ...         order.append(n)
        >>> gs = [gort.go(step, n) for n in (2, 0, 1)]
        >>> for g in gs: g.join()
        >>> order
        [0, 1, 2]
    """

    def __init__(self) -> None:
        """Begin with block 0."""
        self._lock = Mutex()
        self._changed = Cond(self._lock)
        self._next = 0
        self._claimed: set[int] = set()
        self._is_broken = False

    def __call__(self, number: int) -> _Block:
        """Give the block with this number, 0 for the first.

        Raises:
            ValueError: the number is negative.
            RuntimeError: another block has it.
        """
        if number < 0:
            raise ValueError(f"blocks are numbered from 0, not {number}")
        if number in self._claimed:
            raise RuntimeError(f"two blocks have the number {number}")
        self._claimed.add(number)
        return _Block(self, number)

    def _begin(self, number: int) -> None:
        with self._lock:
            try:
                while self._next != number and not self._is_broken:
                    self._changed.wait()
            except BaseException:
                self._break()
                raise
            if self._is_broken:
                raise RuntimeError(f"block {number} cannot begin: one before it failed")

    def _end(self, has_failed: bool) -> None:
        with self._lock:
            self._next += 1
            if has_failed:
                self._break()
            self._changed.broadcast()

    def _break(self) -> None:
        self._is_broken = True
        self._changed.broadcast()


class _Block:
    """One block of a Sequencer."""

    __slots__ = ("_number", "_sequencer")

    def __init__(self, sequencer: Sequencer, number: int) -> None:
        self._sequencer = sequencer
        self._number = number

    def __enter__(self) -> None:
        """Park until those before are over."""
        self._sequencer._begin(self._number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the next begin."""
        self._sequencer._end(error is not None)
