"""`concurrent.futures` on goroutines: `Executor` in the place of ThreadPoolExecutor.

Each task is a goroutine of its own, so starting one costs no OS thread, and what a task keeps per
thread (`threading.local`, the owner of an RLock) is its own and gone with it. Futures are those of
`concurrent.futures`: `wait`, `as_completed`, `asyncio.wrap_future` and `loop.run_in_executor` take
them, and so does a plain thread. Whoever waits for one in a goroutine parks.

What holds it together. `_running` counts the tasks that have a place, that is a goroutine, `_queue`
has those for which there was no room; both change under `_lock`, which is held for moments. A
goroutine that ends starts the next of the queue, so a task waits only while `max_workers` others
run. What a goroutine that never ran leaves is settled too (`_work.py`).

At exit the interpreter waits for every task that was submitted, as it does for the threads of a
ThreadPoolExecutor. In the child of a fork an executor is empty and works; the futures of tasks that
stayed in the parent raise BrokenExecutor there.
"""

from __future__ import annotations

import os
import sys
import threading
from _thread import RLock
from collections import deque
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures._base import LOGGER
from concurrent.futures.thread import BrokenThreadPool, ThreadPoolExecutor
from itertools import count, islice
from time import monotonic
from weakref import WeakSet, WeakValueDictionary, ref

from gort._core import Chan, Mutex, _no_preempt, _start, _unstarted
from gort._exceptions import RuntimeStopped
from gort._lazyfuture import LazyFuture
from gort._typing import TYPE_CHECKING, T
from gort._work import BROKEN, STAYED, Call, Slot, Task, forked, tasks_of_this_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from gort._core import Goroutine

__all__ = ["Executor", "LazyFuture"]

_CLOSED = "cannot schedule new futures after shutdown"
_EXITING = "cannot schedule new futures after interpreter shutdown"


class Executor(ThreadPoolExecutor):
    """A `concurrent.futures` executor whose tasks are goroutines, at most `max_workers` at once.

    It takes ThreadPoolExecutor's place, also where asyncio asks for one (`set_default_executor`),
    and is a subclass for that reason alone: no thread is started, and none of its code runs. What
    differs: each task has a goroutine of its own, thus fresh thread-locals; a task sees the context
    variables of its `submit`; without `max_workers` all tasks run at once.

    Args:
        max_workers: tasks that run at the same time at most; None: no limit.
        thread_name_prefix: with it goroutines are named `<prefix>_<n>`, for dumps.
        initializer: called in the goroutine of each task, before it; when it raises, the executor
            is broken: that is logged, and what waits or is submitted gets BrokenThreadPool.
        initargs: arguments of the initializer.
        lazy: futures are of LazyFuture, which is cheaper.

    Raises:
        ValueError: max_workers is less than 1.
        TypeError: initializer is not callable.

    Example:
        >>> from gort.futures import Executor
        >>> with Executor(max_workers=4) as pool:
        ...     list(pool.map(pow, [2, 3, 4], [5, 2, 3]))
        [32, 9, 64]
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        lazy: bool = False,
    ) -> None:
        """Start nothing yet."""
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._max_workers = sys.maxsize if max_workers is None else max_workers
        self._goroutine: Callable[[Task], Goroutine[None]] = _maker(thread_name_prefix)
        self._before = initializer
        self._before_args = initargs
        self._future: Callable[[], Future[Any]] = LazyFuture if lazy else Future
        # A Mutex, not an RLock: that asks each goroutine who it is, which takes longer than to
        # start it. Nothing that may call a finalizer, which may submit, is done while it is held.
        self._lock = Mutex()
        self._places = object()  # another one after a fork: those taken before are the parent's
        self._running = 0
        self._futures: set[Future[Any]] = set()  # of tasks that are not over
        self._maps: WeakValueDictionary[int, deque[Slot]] = WeakValueDictionary()
        self._queue: deque[Task] = deque()
        self._broken = False
        self._closed = _EXITING if _exiting else ""  # why nothing more is taken
        self._waiting: list[Chan[None]] = []  # closed, and gone, once nothing runs any more
        with _registry:
            _executors.add(self)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a goroutine call `fn`; never parks.

        Args:
            fn: what to call.
            *args: its positional arguments.
            **kwargs: its keyword arguments.

        Returns:
            The future of the call.

        Raises:
            RuntimeError: the executor was shut down, or the interpreter ends.
            BrokenThreadPool: an initializer raised.
        """
        future = self._future()
        task = Task(self, future, fn, args, kwargs)
        self._futures.add(future)
        self._put(task)
        return future

    def _call(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Slot:
        """Submit a call of a map."""
        slot = Slot()
        slot.is_over = False
        slot.error = slot.waiter = None
        self._put(Call(self, slot, fn, args))
        return slot

    def _put(self, task: Task) -> None:
        """Start its goroutine, or queue it while there is no room."""
        if _exiting:  # even the lock is out of use by now
            self._futures.discard(task.future)
            raise RuntimeError(_EXITING)
        try:
            # It is the submitter's, whoever starts it. Not made with the lock held: see `_lock`.
            goroutine = self._goroutine(task)
            with self._lock:
                if self._broken:
                    raise BrokenThreadPool(BROKEN)
                if self._closed:
                    raise RuntimeError(self._closed)
                if self._running >= self._max_workers:
                    task.goroutine = goroutine
                    self._queue.append(task)
                    return
                self._running += 1
                task.place = self._places
            _start(goroutine)
        except BaseException:  # a signal's, too
            self._futures.discard(task.future)
            if task.place is not None:
                self._ended(task)
            self._remove(task)
            raise

    def _ended(self, task: Task) -> None:
        """Give its place to the next of the queue. To be told twice does no harm."""
        error: BaseException | None = None
        while True:
            _no_preempt(1)  # no cancel comes between either
            try:
                if error is not None:
                    task.give_up(error)
                    error = None
                with self._lock:
                    if task.place is self._places:
                        self._running -= 1
                    task.place = None
                    if not self._queue:
                        while self._waiting and not self._running:
                            self._waiting.pop().close()
                        return
                    if self._running >= self._max_workers:
                        return
                    following = self._queue[0]
                    self._running += 1
                    following.place = self._places
                    self._queue.popleft()
                task = following
                goroutine, task.goroutine = task.goroutine, None
                assert goroutine is not None
                try:
                    _start(goroutine)
                except BaseException as failure:  # noqa: BLE001 - who waits for it has to know
                    error = failure
                else:
                    return
            except MemoryError:
                continue  # again, from where it came to: no place and no task may be lost
            finally:
                _no_preempt(-1)

    def _initialize(self) -> bool:
        """Call the initializer before a task; return whether the task may run."""
        if self._broken:
            return False
        assert self._before is not None
        try:
            self._before(*self._before_args)
        except BaseException:  # noqa: BLE001 - as a ThreadPoolExecutor does
            LOGGER.critical("Exception in initializer:", exc_info=True)
        else:
            return True
        with self._lock:
            self._broken = True
        while (task := self._first()) is not None:
            task.give_up(BrokenThreadPool(BROKEN))
            self._remove(task)
        return False

    def _first(self) -> Task | None:
        """The first task of the queue. It stays there, so that it is not lost before it is told."""
        with self._lock:
            return self._queue[0] if self._queue else None

    def _remove(self, task: Task) -> None:
        """Take a task out of the queue, if it is there still."""
        with self._lock:
            if task in self._queue:
                self._queue.remove(task)
                task.goroutine = None

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Give the results of `fn` for the items of the iterables, in their order.

        Submits at once: everything, or as much as `buffersize` says and one more for each result
        taken. Taking a result parks until it is there. What is left when an iterator that gave a
        result is closed or dropped, or an exception comes out of it, does not begin any more.

        Args:
            fn: called with an item of each iterable, until the shortest ends.
            *iterables: read here, and where results are taken with a buffersize.
            timeout: seconds from now until the last result at most; None for ever.
            chunksize: ignored, as ThreadPoolExecutor does.
            buffersize: calls whose results were not taken at most; None: no limit.

        Raises:
            TypeError: buffersize is no integer.
            ValueError: buffersize is less than 1.
            TimeoutError: from the iterator.
            BaseException: from the iterator: what the call raised.
        """
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        until = None if timeout is None else monotonic() + timeout
        calls = zip(*iterables, strict=False)
        slots: deque[Slot] = deque()
        self._maps[id(slots)] = slots
        for args in islice(calls, buffersize):
            slots.append(self._call(fn, args))
        # The iterator does not keep the executor, and not what it has given.
        return _results(slots, until, calls if buffersize else None, fn, ref(self))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks. May be called again, from any goroutine and thread.

        Args:
            wait: park until all tasks have ended.
            cancel_futures: cancel the tasks that have not begun.

        Raises:
            RuntimeError: a task waits for the executor that runs it.
        """
        with self._lock:
            self._closed = self._closed or _CLOSED
        while cancel_futures and (task := self._first()) is not None:
            task.cancel()
            self._remove(task)
        if wait:
            if any(task.place is self._places for task in tasks_of_this_stack()):
                raise RuntimeError("cannot join the current task")
            self._drain()

    def _drain(self) -> None:
        """Park until nothing runs and nothing is queued."""
        ended: Chan[None] = Chan()
        with self._lock:
            if not self._running and not self._queue:
                return
            self._waiting.append(ended)
        ended.recv_ok()

    def _forked(self, here: set[Task]) -> None:
        """In the child of a fork: what is not of the goroutine that forked is the parent's."""
        self._lock = Mutex()
        self._places = object()  # who exits in a task that forked does not wait for it
        self._running = 0
        for task in self._queue:
            task.goroutine = None  # they refer to each other, and the collector does not see it
        self._queue.clear()
        self._waiting.clear()
        mine = {task.future for task in here}
        for future in self._futures:
            forked(future, future in mine)
        self._futures &= mine
        for slots in self._maps.values():
            for slot in slots:
                if slot not in mine:
                    slot.waiter = None
                    slot.give_up(BrokenExecutor(STAYED))


def _results(
    slots: deque[Slot],
    until: float | None,
    calls: Iterator[tuple[Any, ...]] | None,
    fn: Callable[..., Any],
    executor: Callable[[], Executor | None],
) -> Iterator[Any]:
    """Give what `Executor.map` promises."""
    try:
        while slots:
            if calls is not None and (pool := executor()) is not None:
                for args in islice(calls, 1):
                    slots.append(pool._call(fn, args))
                del pool
            yield slots.popleft().get(until)
    finally:
        for slot in slots:
            slot.is_over = True


def _maker(prefix: str) -> Callable[[Task], Goroutine[None]]:
    """What makes goroutines that do not run yet, named after a prefix if there is one."""
    if not prefix:
        return _unstarted
    number = count()
    return lambda task: _unstarted(task, f"{prefix}_{next(number)}")


#: Every executor there is, under the lock; at exit they are waited for, in a fork they are seen to.
_executors: WeakSet[Executor] = WeakSet()
_registry = RLock()
_exiting = False
_at_fork: list[Executor] = []


def _wait_at_exit() -> None:
    """Take no more tasks and wait for all, before the interpreter waits for its threads."""
    global _exiting
    _exiting = True
    with _registry:
        executors = list(_executors)
    for executor in executors:
        with executor._lock:
            executor._closed = _EXITING
    for executor in executors:
        executor._drain()


def _before_fork() -> None:
    """Hold all locks, so that the child sees no executor half changed."""
    _registry.acquire()
    for executor in list(_executors):
        try:
            executor._lock.lock()
        except RuntimeStopped:
            break  # nothing runs any more, here and in the child
        _at_fork.append(executor)


def _after_fork_in_parent() -> None:
    for executor in _at_fork:
        executor._lock.unlock()
    _at_fork.clear()
    _registry.release()


def _after_fork_in_child() -> None:
    global _registry
    _registry = RLock()
    here = tasks_of_this_stack()
    for executor in _at_fork:
        executor._forked(here)
    _at_fork.clear()


# As concurrent.futures.thread does: atexit's functions come too late, after the threads.
threading._register_atexit(_wait_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
