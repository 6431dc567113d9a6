"""Labels of goroutines, as runtime/pprof's: names and values that say what one works for.

A goroutine has the labels of who started it, and those that `gort.spawn(labels=)` adds. They are
kept in its contextvars, so code that runs in a copy of its context (an asyncio task) has them too.
`Goroutine.labels` shows those of another one.
"""

from __future__ import annotations

from gort import _core
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextvars import Token
    from typing import Any

__all__ = ["current", "do"]


def current() -> dict[str, str]:
    """Give the caller's labels, a copy. Never blocks.

    Example:
        >>> import gort, gort.labels
        >>> gort.spawn(gort.labels.current, labels={"request": "7"}).join()
        {'request': '7'}
    """
    return _core._labels()


class do:
    """Within the block the caller has these labels beside those it had, which they replace.

    Goroutines that are started within have them as well. Blocks nest. Never blocks.

    Args:
        labels: dict of str.
        **more: labels whose names are Python's.

    Raises:
        TypeError: a name or a value is no str.

    Example:
        >>> import gort, gort.labels
        >>> with gort.labels.do(handler="/health"):
        ...     gort.go(gort.labels.current).join()
        {'handler': '/health'}
        >>> gort.labels.current()
        {}
    """

    __slots__ = ("_labels", "_tokens")

    def __init__(self, labels: dict[str, str] | None = None, /, **more: str) -> None:
        """Say which; nothing changes before the block."""
        self._labels = more if labels is None else {**labels, **more}
        self._tokens: list[Token[dict[str, str]]] = []

    def __enter__(self) -> None:
        """Begin the block."""
        self._tokens.append(_core._labels_set(self._labels))
        _note()

    def __exit__(self, *_: Any) -> None:
        """End it."""
        _core._labels_reset(self._tokens.pop())
        _note()


def _note() -> None:
    """Tell a trace, if one is taken, what labels the caller has now."""
    if _core._trace_on():
        labels = ", ".join(f"{name}={value}" for name, value in _core._labels().items())
        _core._trace_user(5, 0, 0, labels)
