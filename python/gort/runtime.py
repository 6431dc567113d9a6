"""Running goroutines: `run`, and what happens to an exception nobody joined.

The running itself is compiled (`gort._core`); this file holds the entry point and the reporting
of unhandled exceptions, which the core calls through `_report`.
"""

from __future__ import annotations

import os
import sys

from gort._core import (
    Goroutine,
    _bubble_current,
    _no_preempt,
    _set_package,
    current,
    go,
    goexit,
    gomaxprocs,
    goroutines,
    gosched,
    lock_os_thread,
    num_goroutine,
    run_main,
    sleep,
    spawn,
    stats,
    unlock_os_thread,
)
from gort._dump import dump
from gort._typing import TYPE_CHECKING, T

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any

__all__ = [
    "ExceptHookArgs",
    "Goroutine",
    "current",
    "dump",
    "excepthook",
    "go",
    "goexit",
    "gomaxprocs",
    "goroutines",
    "gosched",
    "lock_os_thread",
    "locked_os_thread",
    "no_preempt",
    "num_goroutine",
    "run",
    "sleep",
    "spawn",
    "stats",
    "unlock_os_thread",
]


_set_package(__file__.rpartition("/")[0] + "/")


def run(main: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call `main` as the main goroutine, on the calling thread, and return its result.

    When main returns the other goroutines end with it, as in Go. Blocks until then.

    Args:
        main: any callable; `args` and `kwargs` are passed on to it.
        *args: positional arguments of main.
        **kwargs: keyword arguments of main.

    Raises:
        TypeError: main is not callable.
        RuntimeError: a run() is already going on.
        DeadlockError: all goroutines are asleep and nothing can wake them.
        BaseException: whatever main raises.

    Example:
        >>> import gort
        >>> def main(n):
        ...     ch = gort.Chan()
        ...     gort.go(ch.send, n + 1)
        ...     return ch.recv()
        >>> gort.run(main, 41)
        42
    """
    if not callable(main):
        raise TypeError(f"gort.run() needs a callable, not {type(main).__name__}")
    result: T = run_main(main, args, kwargs)
    return result


class no_preempt:
    """Within the block the goroutine keeps its P, however long it computes.

    By itself gort lets others run when a goroutine has computed for a slice (10 ms; GORT_SLICE in
    milliseconds) and others wait. Parking, `gosched` and calls that release the GIL let others run
    as always. Blocks nest. On a plain thread it does nothing. Never blocks.

    Raises:
        RuntimeError: the block is left by a goroutine that did not enter it.

    Example:
        >>> import gort
        >>> with gort.no_preempt():
        ...     total = sum(range(1000))
    """

    __slots__ = ()

    def __enter__(self) -> None:
        """Begin the block."""
        _no_preempt(1)

    def __exit__(self, *_: object) -> None:
        """End the block."""
        if not _no_preempt(-1):
            raise RuntimeError("no_preempt() left by a goroutine that did not enter it")


class locked_os_thread:
    """Within the block the goroutine stays on its OS thread, which runs no other goroutine.

    For libraries that want the same thread each time: those of windows, some of databases. Blocks
    nest. See `lock_os_thread`.

    Example:
        >>> import gort, threading
        >>> with gort.locked_os_thread():
        ...     before = threading.get_native_id()
        ...     gort.sleep(0.001)
        ...     threading.get_native_id() == before
        True
    """

    __slots__ = ()

    def __enter__(self) -> None:
        """Lock; the main goroutine may park until the main thread is free."""
        lock_os_thread()

    def __exit__(self, *_: object) -> None:
        """Unlock."""
        unlock_os_thread()


class ExceptHookArgs:
    """What `gort.excepthook` is called with: an exception that ended a goroutine nobody joined."""

    __slots__ = ("exc_traceback", "exc_type", "exc_value", "goroutine")

    exc_type: type[BaseException]
    exc_value: BaseException
    exc_traceback: TracebackType | None
    goroutine: Goroutine[Any] | None

    def __init__(self, goroutine: Goroutine[Any] | None, exc: BaseException) -> None:
        """Take the exception `exc` apart; `goroutine` is where it went unhandled."""
        self.exc_type = type(exc)
        self.exc_value = exc
        self.exc_traceback = exc.__traceback__
        self.goroutine = goroutine

    def __repr__(self) -> str:
        """Show exception and goroutine."""
        return f"ExceptHookArgs(exc_value={self.exc_value!r}, goroutine={self.goroutine!r})"


def _who(goroutine: Goroutine[Any] | None) -> str:
    """Name a goroutine as reports do: `goroutine 7 (worker)`."""
    if goroutine is None:
        return "a goroutine"
    name = goroutine.name
    if not name or name == f"goroutine-{goroutine.id}":  # the name it gets without one
        return f"goroutine {goroutine.id}"
    return f"goroutine {goroutine.id} ({name})"


def _plain_lines(exc: BaseException) -> Iterator[str]:
    """Give a traceback without reading anything: files, lines and functions."""
    frame = exc.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        yield f'  File "{code.co_filename}", line {frame.tb_lineno}, in {code.co_name}\n'
        frame = frame.tb_next
    yield f"{type(exc).__name__}: {exc}\n"


def _write(head: str, exc: BaseException) -> None:
    """Write a heading and the traceback of `exc` to stderr in one piece; do nothing without one."""
    stream = sys.stderr
    if stream is None:
        return
    try:
        import traceback

        text = "".join(traceback.format_exception(exc))
    except (OSError, MemoryError, RuntimeError):
        # No descriptor or memory is left to read a module or the source; the last is what CPython
        # raises where a file's lock is refused memory.
        text = "".join(_plain_lines(exc))
    try:
        stream.write(f"{head}\n{text}")
        stream.flush()
    except (OSError, ValueError):
        pass  # stderr is closed: there is nowhere left to complain


def excepthook(args: ExceptHookArgs, /) -> None:
    """Report an exception that ended a goroutine nobody joined; the default prints a traceback.

    Assign your own function to `gort.excepthook` to replace it, as with threading.excepthook.
    SystemExit is ignored, as threading does. Does not park.

    Args:
        args: exc_type, exc_value, exc_traceback and goroutine.

    Example:
        >>> import gort
        >>> seen = gort.Chan(1)
        >>> gort.excepthook = lambda args: seen.send(args.exc_type.__name__)
        >>> g = gort.go(lambda: 1 / 0)
        >>> del g
        >>> seen.recv(timeout=5)
        'ZeroDivisionError'
        >>> gort.excepthook = gort.runtime.excepthook
    """
    if not issubclass(args.exc_type, SystemExit):
        _write(f"Exception in {_who(args.goroutine)}:", args.exc_value)


#: Exceptions that nobody joined, of the bubbles that are being driven.
_bubble_failures: dict[int, list[BaseException]] = {}


def _report(goroutine: Goroutine[Any] | None, exc: BaseException) -> None:
    """Called by the core, once, for an exception no join() took. Never raises.

    With GORT_PANIC=exit the process then ends with code 2, as a Go program that panics does.
    """
    failures = _bubble_failures.get(_bubble_current())
    if failures is not None and not isinstance(exc, SystemExit):
        failures.append(exc)  # `gort.testing.synctest.run` raises it
        return
    panic = os.environ.get("GORT_PANIC") == "exit" and not isinstance(exc, SystemExit)
    gort = sys.modules.get("gort")  # None while the interpreter ends
    hook = getattr(gort, "excepthook", None) or excepthook
    if not (panic and hook is excepthook):
        try:
            hook(ExceptHookArgs(goroutine, exc))
        except Exception as failure:  # noqa: BLE001 - must not hide the exception
            _write("Exception in gort.excepthook:", failure)
            _write(f"Exception in {_who(goroutine)}:", exc)
    if panic:
        what = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        _write(f"panic: {what}\n\n{_who(goroutine)} [running]:", exc)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                continue  # closed or missing
        os._exit(2)
