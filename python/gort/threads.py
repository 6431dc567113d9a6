"""Threads as goroutines: unchanged programs that use threading, on a few OS threads.

    >>> import gort.threads, threading
    >>> gort.threads.enable()
    >>> done = []
    >>> t = threading.Thread(target=done.append, args=(1,))
    >>> t.start(); t.join(); done
    [1]
    >>> gort.threads.disable()

After `enable()` every thread that `threading`, `_thread`, `concurrent.futures` or `socketserver`
starts is a goroutine with a stack as large as a thread's (virtual; memory is what it touches).
Threads that C libraries start stay real. `gort run --threads app.py` and GORT_THREADS=1 do the
same for a whole program.
"""

from __future__ import annotations

import _thread

from gort._core import _threads_enabled, _threads_mode
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["disable", "enable", "enabled", "real"]


def enable() -> None:
    """Make every thread started from now on a goroutine. Does not park.

    Raises:
        RuntimeError: this interpreter's threads cannot be taken over (no import table to patch,
            GORT_BOUNDARY=0, or an interpreter that starts threads in an unknown way).
    """
    if not _learn():
        raise RuntimeError(
            "gort cannot make goroutines of this interpreter's threads: see gort.boundary.status()"
        )
    _threads_mode(1)


def _learn() -> bool:
    """Find out how this interpreter starts threads: those that a bubble starts are its goroutines.

    Returns:
        Whether it can be done.
    """
    if _threads_mode(6):
        return True
    _threads_mode(2)
    try:
        # One real thread shows which of the interpreter's start routines is the one of `_thread`.
        ready = _thread.allocate_lock()
        ready.acquire()
        _thread.start_new_thread(ready.release, ())
        ready.acquire()
    finally:
        _threads_mode(3)
    return _threads_mode(6)


def disable() -> None:
    """Let threads started from now on be real again; those that are goroutines go on."""
    _threads_mode(0)


def enabled() -> bool:
    """Tell whether a thread started now would be a goroutine."""
    return _threads_enabled()


class real:
    """Start real threads inside the block: `with gort.threads.real(): pool = Pool()`.

    It counts for the goroutine or thread that enters the block. Does not park.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        """Begin."""
        _threads_mode(4)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End; exceptions pass."""
        _threads_mode(5)
