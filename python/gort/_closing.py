"""What has an end that a `with` block brings: `close`, or `stop`."""

from __future__ import annotations

from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class _Ending:
    """Gives itself at the start of a `with` block, and is ended at its end."""

    __slots__ = ()

    def _end(self) -> None:
        """End it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Begin a block that ends it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; exceptions pass."""
        self._end()


class Closing(_Ending):
    """A `with` block closes it."""

    __slots__ = ()

    def close(self) -> None:
        """End it."""
        raise NotImplementedError

    def _end(self) -> None:
        self.close()


class Stopping(_Ending):
    """A `with` block stops it."""

    __slots__ = ()

    def stop(self) -> None:
        """End it."""
        raise NotImplementedError

    def _end(self) -> None:
        self.stop()
