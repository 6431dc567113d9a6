"""A pool of worker goroutines that grows with its backlog and shrinks when it is idle.

Goroutines are cheap, so a pool is not needed to save starting them: it bounds how much of something
is done at a time. The rules are those of Java's ThreadPoolExecutor (core, max, keep-alive, queue),
and one more: a pool whose jobs wait longer than `latency` grows as if its queue were full.
"""

from __future__ import annotations

import math
from collections import deque
from time import monotonic

from gort._closing import Closing
from gort._core import Chan, Cond, Mutex, _check_context, spawn
from gort._exceptions import Cancelled, ChanClosed, GoroutineExit
from gort._typing import TYPE_CHECKING, Generic, T
from gort.runtime import _report
from gort.time import after_func

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Literal

    from gort._core import Context

__all__ = ["Job", "PoolFull", "WorkerPool"]


class PoolFull(Exception):
    """A pool that rejects has max workers, all of them busy, and no room in its queue."""


class Job(Generic[T]):
    """What `WorkerPool.submit` gives: a call that is queued, runs or is over."""

    __slots__ = (
        "__weakref__", "_call", "_error", "_is_joined", "_over", "_pool", "_result", "_traceback",
    )  # fmt: skip

    def __init__(self, pool: WorkerPool, call: tuple[Any, ...]) -> None:
        """Made by `submit`."""
        self._pool = pool
        self._call: tuple[Any, ...] | None = call
        self._over: Chan[None] = Chan()
        self._result: T | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._is_joined = False

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._over.closed

    def join(self, timeout: float | None = None, ctx: Context | None = None) -> T:
        """Park until it is over; return what it returned, or raise what it raised.

        Args:
            timeout: the longest wait in seconds; None for ever.
            ctx: wait until it is done at most.

        Raises:
            TimeoutError: it is not over by then.
            ContextCanceled, DeadlineExceeded: ctx is done.
            Cancelled: it was cancelled before it began.
            BaseException: what the function raised.
        """
        self._over.recv_ok(timeout, ctx)
        self._is_joined = True
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)  # or each join would add to it
        return self._result  # type: ignore[return-value]

    def cancel(self) -> bool:
        """Take it out of the queue; return whether it was still there. Never parks for long."""
        if not self._pool._remove(self):
            return False
        self._end(None, Cancelled("the job was cancelled"))
        self._is_joined = True
        return True

    def _run(self) -> None:
        """Call the function, on a worker."""
        if self._call is None:
            return
        fn, args, kwargs = self._call
        result = error = None
        try:
            result = fn(*args, **kwargs)
        except GoroutineExit:
            pass  # it ends the job, not the worker
        except BaseException as raised:  # noqa: BLE001 - it is whoever joins who has to know
            # Without this frame, which knows the job: that would be a cycle.
            trace = raised.__traceback__
            error = raised.with_traceback(trace and trace.tb_next)
        del fn, args, kwargs
        self._end(result, error)
        del error

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._call = None
        self._result = result
        self._error = error
        self._traceback = None if error is None else error.__traceback__
        self._over.close()

    def __del__(self) -> None:
        """Report an exception nobody joined, as a goroutine does."""
        if self._error is not None and not self._is_joined:
            _report(None, self._error)


class WorkerPool(Closing):
    """Runs jobs in `core` to `max` goroutines.

    A job goes to an idle worker if there is one; else to a new worker while there are fewer than
    `core`, or none; else into the queue while that has room; else to a new worker while there are
    fewer than `max`. Otherwise the pool is full: `submit` parks or raises PoolFull, by `when_full`.
    When the first job of the queue has waited for `latency` seconds the pool grows too: to twice
    as many workers, and again every quarter of that while it is late, up to `max`. Workers beyond
    `core` end after `keepalive` idle seconds.

    Use it as a context manager, or call `close`. Everything works from goroutines and threads.

    Args:
        core: workers that stay, 0 or more.
        max: workers at most, 1 or more and not less than core.
        keepalive: seconds.
        queue: jobs that may wait, 0 or more.
        latency: seconds a job may wait before the pool grows; None: only a full queue counts.
        when_full: "block" or "reject".
        name: of the workers, for dumps.

    Raises:
        ValueError: a number is out of its range, or when_full is something else.

    Example:
        >>> from gort.pool import WorkerPool
        >>> with WorkerPool(2, 8) as pool:
        ...     jobs = [pool.submit(pow, 2, n) for n in range(5)]
        ...     [job.join() for job in jobs]
        [1, 2, 4, 8, 16]
    """

    def __init__(
        self,
        core: int,
        max: int,  # noqa: A002 - Java's word, and the natural one
        keepalive: float = 60.0,
        queue: int = 1000,
        *,
        latency: float | None = 0.1,
        when_full: Literal["block", "reject"] = "block",
        name: str = "worker",
    ) -> None:
        """Start no worker yet."""
        if not (core >= 0 and max >= 1 and core <= max):
            raise ValueError(f"workers: 0 <= core <= max and max >= 1 wanted, not {core} and {max}")
        if queue < 0:
            raise ValueError(f"queue must be 0 or more, not {queue}")
        for seconds, what in ((keepalive, "keepalive"), (latency, "latency")):
            if seconds is not None and not (seconds >= 0 and math.isfinite(seconds)):
                raise ValueError(f"{what} must be a non-negative number of seconds, not {seconds}")
        if when_full not in ("block", "reject"):
            raise ValueError(f"when_full is 'block' or 'reject', not {when_full!r}")
        self._core, self._max, self._limit = core, max, queue
        self._keepalive, self._latency = keepalive, latency
        self._rejects = when_full == "reject"
        self._name = name
        self._lock = Mutex()
        self._room = Cond(self._lock)
        self._ended = Cond(self._lock)
        self._queue: deque[tuple[float, Job[Any]]] = deque()
        self._idle: list[Chan[Job[Any]]] = []  # the one that came last first: the others may end
        self._workers = 0
        self._is_watched = False
        self._is_closed = False
        self._counts = {"submitted": 0, "rejected": 0, "done": 0, "started": 0, "peak": 0}

    def submit(
        self, fn: Callable[..., T], /, *args: Any, ctx: Context | None = None, **kwargs: Any
    ) -> Job[T]:
        """Have a worker call `fn`; parks while the pool is full, if it does not reject.

        Args:
            fn: what to call.
            *args: its positional arguments.
            ctx: park until it is done at most. It is not passed on: a function that takes one
                gets it as a positional argument.
            **kwargs: its keyword arguments.

        Raises:
            PoolFull: the pool is full and rejects; nothing happened.
            ContextCanceled, DeadlineExceeded: ctx is done; nothing happened.
            RuntimeError: the pool is closed.
            TypeError: fn is not callable.
        """
        if not callable(fn):
            raise TypeError(f"submit() needs a callable, not {type(fn).__name__}")
        if ctx is not None:
            _check_context(ctx)
        job: Job[T] = Job(self, (fn, args, kwargs))
        with self._lock:
            while True:
                if self._is_closed:
                    raise RuntimeError("the WorkerPool is closed")
                if self._place(job):
                    self._counts["submitted"] += 1
                    return job
                if self._rejects:
                    self._counts["rejected"] += 1
                    raise PoolFull(f"{self._max} workers are busy, {self._limit} jobs wait")
                self._room.wait(ctx=ctx)

    def _place(self, job: Job[Any]) -> bool:
        """Find a place for a job, if there is one."""
        if self._idle:
            self._idle.pop().send(job)  # the worker's own channel, which is empty
        elif self._workers < max(self._core, 1):
            self._start(job)
        elif len(self._queue) < self._limit:
            self._queue.append((monotonic(), job))
            self._watch()
        elif self._workers < self._max:
            self._queue.append((monotonic(), job))
            self._start(self._queue.popleft()[1])  # who waits longest goes first
        else:
            return False
        return True

    def _start(self, job: Job[Any]) -> None:
        self._workers += 1
        self._counts["started"] += 1
        self._counts["peak"] = max(self._counts["peak"], self._workers)
        spawn(self._work, (job,), name=self._name)

    def _watch(self, least: float = 0.0) -> None:
        """Look at the queue when its first job is late, in `least` seconds or later."""
        if self._is_watched or self._latency is None or self._workers >= self._max:
            return
        self._is_watched = True
        left = self._queue[0][0] + self._latency - monotonic()
        after_func(max(left, least), self._grow, self._latency)

    def _grow(self, latency: float) -> None:
        """Twice as many workers, if so many jobs are late; then see what they can do."""
        with self._lock:
            self._is_watched = False
            late = monotonic() - latency
            for _ in range(min(self._workers, self._max - self._workers)):
                if not self._queue or self._queue[0][0] > late:
                    break
                self._start(self._queue.popleft()[1])
                self._room.signal()
            if self._queue:
                self._watch(max(latency / 4, 0.001))

    def _work(self, job: Job[Any] | None) -> None:
        """Do one job after another, until there is none for too long."""
        inbox: Chan[Job[Any]] = Chan(1)
        while job is not None:
            job._run()
            job = None  # or it would live as long as this worker is idle
            job = self._next(inbox)

    def _next(self, inbox: Chan[Job[Any]]) -> Job[Any] | None:
        """The next job for a worker; None: it is to end."""
        with self._lock:
            self._counts["done"] += 1
            if self._queue:
                self._room.signal()
                return self._queue.popleft()[1]
            if self._is_closed:
                self._leave()
                return None
            self._idle.append(inbox)
            self._room.signal()
            is_core = self._workers <= self._core
        while True:
            try:
                return inbox.recv(None if is_core else self._keepalive)
            except ChanClosed:
                with self._lock:
                    self._leave()
                return None
            except TimeoutError:
                with self._lock:
                    if inbox not in self._idle:
                        continue  # a job is in it
                    if self._workers > self._core:
                        self._idle.remove(inbox)
                        self._leave()
                        return None
                    is_core = True

    def _leave(self) -> None:
        self._workers -= 1
        self._ended.broadcast()

    def _remove(self, job: Job[Any]) -> bool:
        with self._lock:
            for i, (_, queued) in enumerate(self._queue):
                if queued is job:
                    del self._queue[i]
                    self._room.signal()
                    return True
        return False

    def close(self, timeout: float | None = None, ctx: Context | None = None) -> None:
        """Take no more jobs, and park until those that were taken are done and all workers ended.

        Those that wait in `submit` get a RuntimeError. May be called again, after a time-out too.

        Args:
            timeout: the longest wait in seconds; None for ever.
            ctx: park until it is done at most; the pool is closed then as well.

        Raises:
            TimeoutError: workers are busy by then; they go on with what is queued.
            ContextCanceled, DeadlineExceeded: ctx is done, and workers are busy.
        """
        until = None if timeout is None else monotonic() + timeout
        with self._lock:
            self._is_closed = True
            self._room.broadcast()
            for inbox in self._idle:
                inbox.close()
            self._idle.clear()
            while self._workers:
                self._ended.wait(None if until is None else max(until - monotonic(), 0.0), ctx)

    def stats(self) -> dict[str, int]:
        """Return counts: workers, idle, queued; submitted, rejected, done, started, peak."""
        with self._lock:
            now = {"workers": self._workers, "idle": len(self._idle), "queued": len(self._queue)}
            return now | self._counts
