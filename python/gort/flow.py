"""Channels put together: merging, workers side by side, pipelines.

A `Stream` is what these functions give: values that goroutines behind it produce. Whoever reads it
gets their exceptions, and ends them by closing it. Nothing here polls.
"""

from __future__ import annotations

from types import GeneratorType

from gort._core import Chan, current, spawn
from gort._exceptions import Cancelled, GoroutineExit
from gort._receiving import Receiving
from gort._typing import TYPE_CHECKING, T, overload
from gort.runtime import _report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, TypeVar

    from gort._core import Goroutine

    A = TypeVar("A")
    B = TypeVar("B")

__all__ = ["Stream", "fan_out", "merge", "pipeline"]


class _Crew:
    """The goroutines behind a stream. When one fails all end; when all have ended it is closed.

    They know this, and not the stream, so that nobody but its reader keeps that.
    """

    __slots__ = ("error", "is_stopped", "is_told", "members", "out", "trace")

    def __init__(self, cap: int) -> None:
        self.out: Chan[Any] = Chan(cap)
        self.members: list[Goroutine[None]] = []
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
        self.is_stopped = self.is_told = False

    def fail(self, error: BaseException, trace: TracebackType | None = None) -> None:
        """The stream ends with that, unless it has been stopped before."""
        if not self.is_stopped:
            self.error, self.trace = error, trace
            self.stop()

    def start(self, *bodies: tuple[Callable[..., None], tuple[Any, ...]]) -> Stream[Any]:
        """Start a goroutine for each (function, arguments)."""
        try:
            for body, args in bodies:
                name = getattr(body, "__qualname__", None)
                member: Goroutine[None] = spawn(self._run, (body, args), name=name)
                self.members.append(member)
                if self.is_stopped:  # by one of those before it
                    member.cancel()
            spawn(self._watch, name="flow.watch")
        except BaseException:  # no memory
            self.stop()
            raise
        return Stream(self)

    def stop(self) -> None:
        """Have all end, does not wait for it. Once: a second request would meet their clean-up."""
        if not self.is_stopped:
            self.is_stopped = True
            me = current()
            for member in self.members:
                if member is not me:
                    member.cancel()

    def _run(self, body: Callable[..., None], args: tuple[Any, ...]) -> None:
        try:
            body(*args)
        except GoroutineExit:
            self.fail(Cancelled("a goroutine of the stream was ended"))
            raise
        except BaseException as error:  # noqa: BLE001 - it is for the reader
            trace = error.__traceback__
            self.fail(error, trace and trace.tb_next)  # without this frame, which knows all

    def _watch(self) -> None:
        try:
            for member in self.members:
                try:
                    member.join()
                except Cancelled as error:
                    self.fail(error)  # one that never began
        except GoroutineExit:
            self.fail(Cancelled("a goroutine of the stream was ended"))
            raise
        finally:
            self.out.close()


class Stream(Receiving[T]):
    """Values that goroutines produce: what merge, fan_out and pipeline give.

    Iterate over it, or use recv, recv_ok and select as with a channel; several goroutines may. An
    exception of a goroutine behind it ends the others, and comes out here after the values that
    came before it; who finds a stream closed in a select learns of it from recv_ok. `close` (also
    the end of a `with` block, or dropping the stream) ends the goroutines; values on their way are
    lost then, and an exception that nobody took is reported by gort.excepthook.

    Example:
        >>> from gort.flow import merge
        >>> with merge([1, 2], [3]) as stream:
        ...     sorted(stream)
        [1, 2, 3]
    """

    __slots__ = ("_crew",)

    def __init__(self, crew: _Crew) -> None:
        """Made by merge, fan_out and pipeline."""
        super().__init__(crew.out)
        self._crew = crew

    def close(self) -> None:
        """End the goroutines behind it, and park until they have ended. May be called again."""
        self._crew.stop()
        for _ in self._crew.out:
            pass  # who ends may have been about to send

    def _check_end(self) -> None:
        crew = self._crew
        if crew.error is not None:
            crew.is_told = True
            raise crew.error.with_traceback(crew.trace)  # or each time would add to it

    def __del__(self) -> None:
        """End them without waiting; report an exception that nobody took."""
        crew = getattr(self, "_crew", None)
        if crew is None:
            return
        crew.stop()
        if crew.error is not None and not crew.is_told:
            _report(None, crew.error)


def _finish(source: object) -> None:
    """End what ends with its only reader; a channel is somebody's who is not here."""
    if isinstance(source, Stream | GeneratorType):
        source.close()


def _pump(source: Iterable[Any], send: Callable[[Any], None]) -> None:
    try:
        for value in source:
            send(value)
    finally:
        _finish(source)


def merge(*sources: Iterable[T], cap: int = 0) -> Stream[T]:
    """Give a stream of the values of all sources, as they come; it ends when all have. Never parks.

    Each source has a goroutine that iterates over it. Generators and streams are closed with the
    stream, channels are not.

    Args:
        *sources: channels, streams or any other iterables.
        cap: values the stream keeps beyond those that somebody waits for.

    Raises:
        TypeError: a source cannot be iterated over.
        ValueError: cap is negative.

    Example:
        >>> import gort
        >>> from gort.flow import merge
        >>> a, b = gort.Chan(1), gort.Chan(1)
        >>> a.send(1), b.send(2), a.close(), b.close()
        (None, None, None, None)
        >>> sorted(merge(a, b))
        [1, 2]
    """
    crew = _Crew(cap)
    for source in sources:
        _need_iterable(source)
    return crew.start(*((_pump, (source, crew.out.send)) for source in sources))


def _need_iterable(source: object) -> None:
    if not hasattr(type(source), "__iter__"):
        raise TypeError(f"a source must be iterable, not {type(source).__name__}")


def fan_out(
    source: Iterable[A],
    fn: Callable[[A], B],
    workers: int,
    *,
    ordered: bool = False,
    cap: int = 0,
) -> Stream[B]:
    """Give a stream of fn(value) for each value, `workers` calls at a time; never parks.

    Args:
        source: a channel, a stream or any other iterable; iterated over by one goroutine.
        fn: called with each value, in a goroutine.
        workers: goroutines that call it, 1 or more.
        ordered: results come in the order of the values, not as they are ready. Up to `workers`
            results wait for those before them.
        cap: results the stream keeps beyond those that somebody waits for.

    Raises:
        TypeError: source cannot be iterated over, or fn is not callable.
        ValueError: workers is less than 1, or cap is negative.

    Example:
        >>> from gort.flow import fan_out
        >>> list(fan_out(range(5), lambda n: n * n, 3, ordered=True))
        [0, 1, 4, 9, 16]
    """
    _need_iterable(source)
    if not callable(fn):
        raise TypeError(f"fan_out() needs a callable, not {type(fn).__name__}")
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    crew = _Crew(cap)
    jobs: Chan[Any] = Chan()
    if not ordered:
        feeds = (_feed, (source, jobs.send, jobs))
        return crew.start(feeds, *((_work, (jobs, fn, crew.out.send)) for _ in range(workers)))
    places: Chan[Chan[B]] = Chan(workers)

    def in_order(value: A) -> None:
        place: Chan[B] = Chan(1)
        places.send(place)
        jobs.send((value, place))

    def call(job: tuple[A, Chan[B]]) -> None:
        value, place = job
        place.send(fn(value))

    return crew.start(
        (_feed, (source, in_order, jobs, places)),
        *((_pump, (jobs, call)) for _ in range(workers)),
        (_work, (places, Chan.recv, crew.out.send)),
    )


def _feed(source: Iterable[Any], send: Callable[[Any], None], *ends: Chan[Any]) -> None:
    _pump(source, send)
    for ch in ends:
        ch.close()


def _work(jobs: Chan[Any], fn: Callable[[Any], Any], send: Callable[[Any], None]) -> None:
    for job in jobs:
        send(fn(job))


@overload
def pipeline(source: Iterable[T], /, *, cap: int = 0) -> Stream[T]: ...
@overload
def pipeline(
    source: Iterable[A], first: Callable[[Iterable[A]], Iterable[T]], /, *, cap: int = 0
) -> Stream[T]: ...
@overload
def pipeline(
    source: Iterable[A],
    first: Callable[[Iterable[A]], Iterable[B]],
    second: Callable[[Iterable[B]], Iterable[T]],
    /,
    *,
    cap: int = 0,
) -> Stream[T]: ...
@overload
def pipeline(
    source: Iterable[A],
    first: Callable[[Iterable[A]], Iterable[B]],
    second: Callable[[Iterable[B]], Iterable[Any]],
    third: Callable[[Any], Iterable[Any]],
    /,
    *stages: Callable[[Any], Iterable[Any]],
    cap: int = 0,
) -> Stream[Any]: ...
def pipeline(
    source: Iterable[Any], /, *stages: Callable[[Any], Iterable[Any]], cap: int = 0
) -> Stream[Any]:
    """Give a stream of what comes out of the last stage; never parks.

    A stage is called with the values of the stage before it and gives an iterable, as a generator
    function does; it runs in a goroutine of its own. `fan_out` in a stage makes its work parallel.
    When a stage ends, those before it are closed. When one raises, the exception goes on through
    those behind it, which may catch it, to the reader; those before it are closed.

    Args:
        source: a channel, a stream or any other iterable.
        *stages: functions from an iterable to an iterable.
        cap: values each stage may be ahead.

    Raises:
        TypeError: source cannot be iterated over, or a stage is not callable.
        ValueError: cap is negative.

    Example:
        >>> from gort.flow import fan_out, pipeline
        >>> def even(numbers):
        ...     for n in numbers:
        ...         if n % 2 == 0:
        ...             yield n
        >>> def squared(numbers):
        ...     return fan_out(numbers, lambda n: n * n, 4, ordered=True)
        >>> list(pipeline(range(9), even, squared))
        [0, 4, 16, 36, 64]
    """
    for stage in stages:
        if not callable(stage):
            raise TypeError(f"a stage must be callable, not {type(stage).__name__}")
    if not stages:
        return merge(source, cap=cap)
    _need_iterable(source)
    for stage in stages:
        crew = _Crew(cap)
        source = crew.start((_stage, (stage, source, crew.out.send)))
    return source  # type: ignore[return-value]


def _stage(
    stage: Callable[[Any], Iterable[Any]], source: Iterable[Any], send: Callable[[Any], None]
) -> None:
    try:
        _pump(stage(source), send)
    finally:
        _finish(source)
