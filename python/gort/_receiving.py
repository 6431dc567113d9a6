"""What Stream and Subscription have of a channel: receiving, iterating, closing."""

from __future__ import annotations

from gort._closing import Closing
from gort._core import Chan
from gort._exceptions import ChanClosed
from gort._typing import TYPE_CHECKING, Generic, T

if TYPE_CHECKING:
    from typing import Self

    from gort._core import Context


class Receiving(Closing, Generic[T]):
    """What can be received from and closed; `_recv_chan` makes it a case of select, too."""

    __slots__ = ("__weakref__", "_recv_chan")

    def __init__(self, ch: Chan[T]) -> None:
        self._recv_chan = ch

    def _check_end(self) -> None:
        """Raise, if that is how it ended."""

    def recv_ok(
        self, timeout: float | None = None, ctx: Context | None = None
    ) -> tuple[T | None, bool]:
        """Receive (value, True), or (None, False) at the end; parks until there is either.

        Args:
            timeout: the longest wait in seconds; None for ever.
            ctx: a Context that ends the wait when it is done.

        Raises:
            TimeoutError: there is nothing by then.
            ContextCanceled, DeadlineExceeded: ctx is done.
            BaseException: what ended it, after the values that came before that.
        """
        value, ok = self._recv_chan.recv_ok(timeout, ctx)
        if not ok:
            self._check_end()
        return value, ok

    def recv(self, timeout: float | None = None, ctx: Context | None = None) -> T:
        """Receive a value; parks until there is one.

        Args:
            timeout: the longest wait in seconds; None for ever.
            ctx: a Context that ends the wait when it is done.

        Raises:
            ChanClosed: it is at its end.
            TimeoutError: there is nothing by then.
            ContextCanceled, DeadlineExceeded: ctx is done.
            BaseException: what ended it.
        """
        value, ok = self.recv_ok(timeout, ctx)
        if not ok:
            raise ChanClosed("receive from closed channel")
        return value  # type: ignore[return-value]

    def __iter__(self) -> Self:
        """Iterate over the values until the end."""
        return self

    def __next__(self) -> T:
        """Receive the next value; parks."""
        value, ok = self.recv_ok()
        if not ok:
            raise StopIteration
        return value  # type: ignore[return-value]
