"""Channels: one-way views, and receiving and sending inside asyncio.

`Chan`, `select`, `recv` and `send` are compiled. The views keep a channel and offer one direction
of it; the core asks a view for its channel through `_recv_chan` and `_send_chan`.

How the asyncio forms lose no value. A goroutine waits for the channel and a `stop` channel at
once, so a wait that is given up early receives nothing. When the wait is given up just after the
goroutine received, whoever loses the race for `_Handoff.claim` knows that the value has no taker
and puts it back at the head of the channel, with the stamp of its receive: several that are put
back stand in the order in which they had been received. The event loop is only told to look; the
value never travels inside a callback that a closing loop could drop.
"""

from __future__ import annotations

from _thread import allocate_lock

from gort._core import Case, Chan, Goroutine, recv, select, send, spawn
from gort._exceptions import ChanClosed
from gort._typing import TYPE_CHECKING, Generic, T

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import AsyncIterator, Iterator
    from typing import Any, NoReturn

    from gort._core import Context

__all__ = [
    "Case",
    "Chan",
    "ChanClosed",
    "RecvChan",
    "SendChan",
    "recv",
    "recv_async",
    "select",
    "send",
    "send_async",
]

_SETTLE_SECONDS = 0.05  # most a cancelled wait holds up the event loop; usually microseconds


class _View(Generic[T]):
    """What both views share: length, capacity, state, and equality by the channel behind them."""

    __slots__ = ("__weakref__", "_ch")

    def __init__(self, ch: Chan[T]) -> None:
        """Look at the channel `ch`; made by ch.sender() and ch.receiver()."""
        if not isinstance(ch, Chan):
            raise TypeError(f"{type(self).__name__}() needs a Chan, not {type(ch).__name__}")
        self._ch = ch

    def __len__(self) -> int:
        """Count the values waiting in the buffer."""
        return len(self._ch)

    def __bool__(self) -> bool:
        """Say True: a channel is a thing, however few values wait in it."""
        return True

    @property
    def cap(self) -> int:
        """Size of the buffer in values; 0 for an unbuffered channel."""
        return self._ch.cap

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._ch.closed

    def __eq__(self, other: object) -> bool:
        """Two views of one direction are equal when the channel behind them is the same."""
        return type(self) is type(other) and self._ch is other._ch

    def __hash__(self) -> int:
        """Hash by the channel."""
        return hash((type(self), id(self._ch)))

    def __repr__(self) -> str:
        """Show direction and channel."""
        return f"<{type(self).__name__} of {self._ch!r}>"


class SendChan(_View[T]):
    """The sending side of a channel: send, try_send and close; receiving raises TypeError.

    Example:
        >>> import gort
        >>> ch = gort.Chan[int](1)
        >>> ch.sender().send(3)
        >>> ch.recv()
        3
    """

    __slots__ = ()

    @property
    def _send_chan(self) -> Chan[T]:
        return self._ch

    @property
    def _recv_chan(self) -> NoReturn:
        raise TypeError("receive from send-only channel")

    def send(self, value: T, timeout: float | None = None, ctx: Context | None = None) -> None:
        """Send `value`; may park, up to `timeout` seconds. Errors as Chan.send."""
        self._ch.send(value, timeout, ctx)

    def try_send(self, value: T) -> bool:
        """Send `value` if that needs no waiting and say whether it was; never parks."""
        return self._ch.try_send(value)

    def close(self) -> None:
        """Close the channel; never parks. Raises ChanClosed the second time."""
        self._ch.close()

    async def send_async(self, value: T) -> None:
        """Send `value` from asyncio code; see `send_async`."""
        await send_async(self._ch, value)

    def recv(self, timeout: float | None = None, ctx: Context | None = None) -> NoReturn:
        """Refuse: this side only sends."""
        raise TypeError("receive from send-only channel")

    recv_ok = try_recv = recv

    def __iter__(self) -> NoReturn:
        """Refuse: this side only sends."""
        raise TypeError("range over send-only channel")


class RecvChan(_View[T]):
    """The receiving side of a channel: recv, recv_ok, try_recv and iteration; sending raises.

    Example:
        >>> import gort
        >>> ch = gort.Chan[int](2)
        >>> ch.send(1), ch.send(2), ch.close()
        (None, None, None)
        >>> list(ch.receiver())
        [1, 2]
    """

    __slots__ = ()

    @property
    def _recv_chan(self) -> Chan[T]:
        return self._ch

    @property
    def _send_chan(self) -> NoReturn:
        raise TypeError("send to receive-only channel")

    def recv(self, timeout: float | None = None, ctx: Context | None = None) -> T:
        """Receive a value; may park, up to `timeout` seconds. Errors as Chan.recv."""
        return self._ch.recv(timeout, ctx)

    def recv_ok(
        self, timeout: float | None = None, ctx: Context | None = None
    ) -> tuple[T | None, bool]:
        """Receive as Go's two-value form: (None, False) once closed and drained; may park."""
        return self._ch.recv_ok(timeout, ctx)

    def try_recv(self) -> tuple[T | None, bool, bool]:
        """Receive if that needs no waiting: (value, ok, ready); never parks."""
        return self._ch.try_recv()

    def __iter__(self) -> Iterator[T]:
        """Receive until the channel is closed and drained; parks between values."""
        return iter(self._ch)

    async def recv_async(self) -> T:
        """Receive from asyncio code; see `recv_async`."""
        return await recv_async(self._ch)

    def __aiter__(self) -> AsyncIterator[T]:
        """Receive from asyncio code until the channel is closed and drained."""
        return _aiter(self._ch)

    def send(
        self, value: object, timeout: float | None = None, ctx: Context | None = None
    ) -> NoReturn:
        """Refuse: this side only receives."""
        raise TypeError("send to receive-only channel")

    try_send = send

    def close(self) -> NoReturn:
        """Refuse: only the sending side closes."""
        raise TypeError("close of receive-only channel")


def _sender(ch: Chan[T]) -> SendChan[T]:
    """Chan.sender() of the core."""
    return SendChan(ch)


def _receiver(ch: Chan[T]) -> RecvChan[T]:
    """Chan.receiver() of the core."""
    return RecvChan(ch)


class _Handoff:
    """One asyncio wait and the goroutine that waits for it."""

    __slots__ = ("claim", "error", "future", "item", "loop", "stop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.future: Future[None] = loop.create_future()
        self.stop: Chan[None] = Chan(0)  # closed when the asyncio side gives up
        self.claim = allocate_lock()  # taken once: by the goroutine with a result, or by giving up
        self.item: tuple[Any, bool, int] = (None, False, 0)  # value, ok, stamp of the receive
        self.error: BaseException | None = None

    def wake(self) -> None:
        """Goroutine side: tell the loop that the result is there."""
        try:
            self.loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            pass  # the loop is closed; the coroutine is closed too and puts the value back

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def give_up(self, goroutine: Goroutine[None], cause: BaseException) -> bool:
        """Asyncio side: stop waiting; True when the goroutine had a result by then.

        The goroutine is given the moment it needs to see the stop, so that a value it holds is
        back before the next receive: that keeps the order. A coroutine closed by the collector
        (GeneratorExit) may not wait; there the goroutine puts the value back itself.
        """
        self.stop.close()
        try:
            if not isinstance(cause, GeneratorExit):
                goroutine.join(_SETTLE_SECONDS)
        except TimeoutError:
            pass  # it loses the claim below and puts the value back when it runs
        finally:
            late = not self.claim.acquire(blocking=False)
        return late


def _receive_for(ch: Chan[Any], handoff: _Handoff) -> None:
    """Goroutine: receive one value for an asyncio wait."""
    if handoff.stop.closed:
        return
    item = ch._recv_until(handoff.stop)
    if item is None:
        return
    handoff.item = item
    if handoff.claim.acquire(blocking=False):
        handoff.wake()
    elif item[1]:
        ch._unrecv(item[0], item[2])


def _send_for(ch: Chan[Any], value: Any, handoff: _Handoff) -> None:
    """Goroutine: send one value for an asyncio wait."""
    if handoff.stop.closed:
        return
    try:
        index = select(send(ch, value), recv(handoff.stop))[0]
    except ChanClosed as error:
        handoff.error = error
        index = 0
    if index == 0 and handoff.claim.acquire(blocking=False):
        handoff.wake()


async def _recv_ok(ch: Chan[Any]) -> tuple[Any, bool]:
    """Receive (value, ok) inside asyncio."""
    value, ok, ready = ch.try_recv()
    if ready:
        return value, ok
    from asyncio import get_running_loop

    handoff = _Handoff(get_running_loop())
    goroutine = spawn(_receive_for, (ch, handoff), name="gort.recv_async")
    try:
        await handoff.future
    except BaseException as cause:  # cancelled, or the coroutine was closed
        late = handoff.give_up(goroutine, cause)
        value, ok, stamp = handoff.item
        if late and ok:
            ch._unrecv(value, stamp)
        raise
    return handoff.item[:2]


async def recv_async(ch: Chan[T]) -> T:
    """Receive a value from `ch` inside asyncio; also `await ch.recv_async()`.

    Suspends the task, not the event loop. A cancelled wait loses no value and keeps the order:
    what had already been received goes back to the head of the channel.

    Args:
        ch: the channel.

    Raises:
        ChanClosed: the channel is closed and drained.
        asyncio.CancelledError: the task was cancelled.

    Example:
        >>> import asyncio, gort
        >>> ch = gort.Chan()
        >>> g = gort.go(ch.send, 7)
        >>> asyncio.run(gort.chan.recv_async(ch))
        7
    """
    value, ok = await _recv_ok(ch)
    if not ok:
        raise ChanClosed("receive from closed channel")
    result: T = value
    return result


async def send_async(ch: Chan[T], value: T) -> None:
    """Send `value` on `ch` inside asyncio; also `await ch.send_async(value)`.

    Suspends the task, not the event loop. After a cancelled wait the value is either with the
    receiver that took it at that very moment, or not sent at all.

    Args:
        ch: the channel.
        value: what to send.

    Raises:
        ChanClosed: the channel is closed.
        asyncio.CancelledError: the task was cancelled.

    Example:
        >>> import asyncio, gort
        >>> ch = gort.Chan()
        >>> g = gort.go(ch.recv)
        >>> asyncio.run(gort.chan.send_async(ch, 7))
        >>> g.join()
        7
    """
    if ch.try_send(value):
        return
    from asyncio import get_running_loop

    handoff = _Handoff(get_running_loop())
    goroutine = spawn(_send_for, (ch, value, handoff), name="gort.send_async")
    try:
        await handoff.future
    except BaseException as cause:  # cancelled, or the coroutine was closed
        handoff.give_up(goroutine, cause)
        raise
    if handoff.error is not None:
        raise handoff.error


async def _aiter(ch: Chan[T]) -> AsyncIterator[T]:
    """Iterate over `ch` inside asyncio: `async for value in ch`."""
    while True:
        value, ok = await _recv_ok(ch)
        if not ok:
            return
        yield value
