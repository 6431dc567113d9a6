r"""Execution traces that `go tool trace` opens: what each goroutine did, when, and why it waited.

    >>> import gort.trace, io
    >>> file = io.BytesIO()
    >>> with gort.trace.to(file):
    ...     gort.go(sorted, [2, 1]).join()
    [1, 2]
    >>> file.getvalue()[:13]
    b'go 1.26 trace'

Go's runtime/trace with Python frames: `start` and `stop`, tasks, regions and messages of your own,
and a flight recorder, which keeps the last seconds until they are wanted. While no trace is taken
it costs nothing that can be measured. See docs/trace.md.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import stat
import threading
import warnings
from contextvars import ContextVar

from gort._core import (
    _trace_close,
    _trace_forget,
    _trace_on,
    _trace_open,
    _trace_record,
    _trace_snapshot,
    _trace_state,
    _trace_user,
)
from gort._graphviews import Graph, mermaid, svg
from gort._tracefeed import Feeder
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextvars import Token

    from gort._tracefeed import Writable

__all__ = [
    "FlightRecorder", "Graph", "Region", "Task", "is_enabled", "log", "mermaid", "start", "stop",
    "svg", "to",
]  # fmt: skip

#: Nanoseconds of a generation, with which a trace can begin.
_PERIOD_NS = 1_000_000_000
#: What `_trace_user` notes, by number.
_TASK_BEGIN, _TASK_END, _REGION_BEGIN, _REGION_END, _LOG = range(5)

_lock = threading.Lock()
_numbers = itertools.count(1)
_task: ContextVar[int] = ContextVar("gort.trace.task", default=0)


class _Running:
    """The trace that is written."""

    __slots__ = ("feeder",)

    def __init__(self, feeder: Feeder | None) -> None:
        """Keep who writes it."""
        self.feeder = feeder


_running: _Running | None = None


def _forget_parent() -> None:
    """In a forked child: its parent's trace is not its own, and nobody has the lock."""
    global _lock, _running
    _lock, _running = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_parent)


def _descriptor(file: object) -> int:
    """Give a descriptor of its own for a file that the system writes as it is; -1 for others."""
    if isinstance(file, (str, bytes, os.PathLike)):
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    if not callable(getattr(file, "write", None)):
        raise TypeError(f"start() needs a path or a file, not {type(file).__name__}")
    if isinstance(file, (io.FileIO, io.BufferedWriter, io.BufferedRandom)):
        file.flush()
        kind = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(kind) or stat.S_ISCHR(kind):
            return os.dup(file.fileno())
    elif isinstance(file, io.TextIOBase):
        raise TypeError("start() needs a file that is open for bytes")
    return -1


def start(file: str | os.PathLike[str] | Writable, *, stacks: bool = True) -> None:
    r"""Begin to trace; `stop` ends it. Waits for a moment for the thread that writes the trace.

    A path, or a file of the system's, is written by a thread of its own that never needs the
    interpreter; another file by a goroutine, every 50 ms. If it cannot be written the trace is
    given up, and `stop` says so.

    Args:
        file: a path, or a file open for bytes, or anything with a `write`.
        stacks: note the Python frames of each event; without them it takes less time.

    Raises:
        RuntimeError: a trace is being taken ("tracing is already enabled"), or the system refuses a
            thread.
        OSError: the file cannot be opened.
        TypeError: it is no file.

    Example:
        >>> import gort.trace, io
        >>> file = io.BytesIO()
        >>> gort.trace.start(file)
        >>> gort.trace.stop()
        >>> file.getvalue()[:13]
        b'go 1.26 trace'
    """
    _start(file, stacks, _PERIOD_NS)


def _start(file: str | os.PathLike[str] | Writable, stacks: bool, period_ns: int) -> None:
    """Begin, with generations of that length."""
    global _running
    with _lock:
        if _trace_state()[0]:
            raise RuntimeError("tracing is already enabled")
        running = _Running(None)  # before it begins: it could not be ended for want of memory
        descriptor = _descriptor(file)
        try:
            opened = _trace_open(descriptor, stacks, period_ns)
        except BaseException:
            if descriptor >= 0:
                os.close(descriptor)
            raise
        if not opened:
            raise RuntimeError("tracing is already enabled")
        _running = running
        try:
            running.feeder = None if descriptor >= 0 else Feeder(file)  # type: ignore[arg-type]
        except BaseException:
            _running = None
            _trace_close()
            raise


def stop() -> None:
    """End the trace: all of it is written when this returns. Does nothing if there is none.

    Waits for the thread that writes it.

    Raises:
        OSError: the file could not be written, or what else its `write` raised; MemoryError if
            memory was refused. Nothing but the trace has suffered.

    Warns:
        RuntimeWarning: events were lost, because memory was refused or because so many were noted
            that they could not be written in time.
    """
    global _running
    with _lock:
        if (running := _running) is None:
            return
        if running.feeder is not None:
            running.feeder.end()
        ended = _trace_close()
        _running = None  # where that was refused memory it can be called again
    if ended is None:
        return
    data, number, lost = ended
    if running.feeder is not None:
        running.feeder.write(data)
        if running.feeder.error is not None:
            raise running.feeder.error
    if number == errno.ENOMEM:
        raise MemoryError("gort.trace: memory was refused; the trace is not whole")
    if number:
        raise OSError(number, os.strerror(number))
    if lost:
        warnings.warn(f"gort.trace: {lost} events were lost", RuntimeWarning, stacklevel=2)


def is_enabled() -> bool:
    """Tell whether a trace is taken or the flight recorder runs. Never blocks.

    Example:
        >>> import gort.trace
        >>> with gort.trace.FlightRecorder():
        ...     gort.trace.is_enabled()
        True
    """
    return _trace_on()


class to:
    """Within the block a trace is taken: `start` at its beginning, `stop` at its end.

    Args:
        file: as for `start`.
        stacks: as for `start`.

    Raises:
        RuntimeError: as for `start`, when the block begins.
        OSError: as for `start` and `stop`.

    Example:
        >>> import gort.trace, io
        >>> with gort.trace.to(io.BytesIO()):
        ...     gort.trace.is_enabled()
        True
    """

    __slots__ = ("_file", "_stacks")

    def __init__(self, file: str | os.PathLike[str] | Writable, *, stacks: bool = True) -> None:
        """Say where; nothing happens before the block."""
        self._file = file
        self._stacks = stacks

    def __enter__(self) -> None:
        """Begin."""
        start(self._file, stacks=self._stacks)

    def __exit__(self, *_: object) -> None:
        """End."""
        stop()


class Task:
    """A piece of work that several goroutines may take part in, as Go's trace.NewTask.

    As a block it is the task of the regions and messages within, and of goroutines that are
    started there; a task made there is a part of it. `go tool trace` shows how long tasks took and
    what their goroutines did. Never blocks; costs next to nothing while no trace is taken.

    Args:
        name: what tasks of this kind are called.

    Raises:
        TypeError: the name is no str.

    Example:
        >>> import gort.trace
        >>> with gort.trace.Task("order") as task:
        ...     gort.trace.log("customer", "7")
        ...     with gort.trace.Region("pay"):
        ...         pass
    """

    __slots__ = ("_is_over", "_name", "_number", "_tokens")

    def __init__(self, name: str) -> None:
        """Begin it."""
        _check(name)
        self._name = name
        self._number = next(_numbers)
        self._is_over = False
        self._tokens: list[Token[int]] = []
        if _trace_on():
            _trace_user(_TASK_BEGIN, self._number, _task.get(), name)

    def __repr__(self) -> str:
        """Name it."""
        return f"<gort.trace.Task {self._name!r}>"

    def end(self) -> None:
        """End it, if that was not done. Any goroutine may."""
        if not self._is_over:
            self._is_over = True
            if _trace_on():
                _trace_user(_TASK_END, self._number, 0)

    def __enter__(self) -> Task:
        """Begin its block."""
        self._tokens.append(_task.set(self._number))
        return self

    def __exit__(self, *_: object) -> None:
        """End the block, and the task."""
        _task.reset(self._tokens.pop())
        self.end()


class Region:
    """A part of what one goroutine does, as Go's trace.WithRegion: a block. Blocks nest.

    It belongs to the task that it is in. Never blocks; costs next to nothing while no trace is
    taken.

    Args:
        name: what regions of this kind are called.

    Raises:
        TypeError: the name is no str.

    Example:
        >>> import gort.trace
        >>> with gort.trace.Region("parse"):
        ...     int("7")
        7
    """

    __slots__ = ("_name", "_tasks")

    def __init__(self, name: str) -> None:
        """Say what it is called; it begins with the block."""
        _check(name)
        self._name = name
        self._tasks: list[int] = []

    def __repr__(self) -> str:
        """Name it."""
        return f"<gort.trace.Region {self._name!r}>"

    def __enter__(self) -> None:
        """Begin."""
        task = _task.get()
        self._tasks.append(task)
        if _trace_on():
            _trace_user(_REGION_BEGIN, task, 0, self._name)

    def __exit__(self, *_: object) -> None:
        """End."""
        task = self._tasks.pop()
        if _trace_on():
            _trace_user(_REGION_END, task, 0, self._name)


def log(category: str, message: str) -> None:
    """Put a message into the trace, of the task and the goroutine it comes from. Never blocks.

    Args:
        category: what kind of message it is; 1,024 bytes of it are kept.
        message: as many of this.

    Raises:
        TypeError: one of them is no str.

    Example:
        >>> import gort.trace
        >>> gort.trace.log("cache", "miss")
    """
    _check(category)
    _check(message)
    if _trace_on():
        _trace_user(_LOG, _task.get(), 0, category, message)


def _check(text: object) -> None:
    """Refuse what is no text."""
    if not isinstance(text, str):
        raise TypeError(f"gort.trace takes a str, not {type(text).__name__}")


class FlightRecorder:
    """Keeps the last seconds of a trace in memory, to be written when something has happened.

    One may run at a time, beside `start`. As a block it runs within.

    Args:
        min_age: seconds that it goes back, at least if `max_bytes` are enough; 10.
        max_bytes: what it keeps, at most, but for the last generation, a second; 10 MiB.
        stacks: as for `start`; whoever begins first decides.

    Raises:
        ValueError: a number is negative.

    Example:
        >>> import gort.trace, io
        >>> with gort.trace.FlightRecorder() as recorder:
        ...     file = io.BytesIO()
        ...     recorder.write_to(file) == len(file.getvalue())
        True
    """

    def __init__(
        self, min_age: float = 10.0, max_bytes: int = 10 << 20, *, stacks: bool = True
    ) -> None:
        """Say what is kept; `start` begins."""
        if min_age < 0 or max_bytes < 0:
            raise ValueError("FlightRecorder(): min_age and max_bytes must not be negative")
        self._age_ns = int(min_age * 1e9)
        self._bytes = int(max_bytes)
        self._stacks = stacks
        self._process = 0
        self._writing = threading.Lock()

    @property
    def enabled(self) -> bool:
        """Whether it runs."""
        return self._process == os.getpid()

    def start(self) -> None:
        """Begin. Waits for a moment for the thread that keeps it.

        Raises:
            RuntimeError: it runs, or another one does, or the system refuses a thread.
        """
        self._start(_PERIOD_NS)

    def _start(self, period_ns: int) -> None:
        """Begin, with generations of that length."""
        if self.enabled:
            raise RuntimeError("cannot enable a enabled flight recorder")
        process = os.getpid()  # before it begins: it could not be stopped for want of memory
        if not _trace_record(self._age_ns, self._bytes, self._stacks, period_ns):
            raise RuntimeError("flight recorder already enabled")
        self._process = process

    def stop(self) -> None:
        """End; what was kept is gone. Does nothing if it does not run."""
        if self.enabled:
            _trace_forget()
            self._process = 0

    def write_to(self, file: Writable) -> int:
        """Write a trace of what it keeps; it goes on. Waits for the thread that keeps it.

        Args:
            file: a file open for bytes, or anything with a `write`.

        Returns:
            How many bytes were written.

        Raises:
            RuntimeError: it does not run, or somebody else is writing it.
            OSError: the file cannot be written.
        """
        if not self.enabled:
            raise RuntimeError("cannot snapshot a disabled flight recorder")
        if not self._writing.acquire(blocking=False):
            raise RuntimeError("call to write_to for FlightRecorder already in progress")
        try:
            data = _trace_snapshot()
            if data is None:
                raise RuntimeError("cannot snapshot a disabled flight recorder")
            file.write(data)
        finally:
            self._writing.release()
        return len(data)

    def __enter__(self) -> FlightRecorder:
        """Begin."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.stop()
