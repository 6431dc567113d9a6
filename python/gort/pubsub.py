"""One sender to many receivers: a Broadcast, and a PubSub by topic.

They have no goroutines. What becomes of a value for a subscriber that is slow is said when they are
made. Nothing here polls.
"""

from __future__ import annotations

from gort._closing import Closing
from gort._core import Chan, Mutex
from gort._deadline import left, until
from gort._exceptions import ChanClosed, DeadlineExceeded
from gort._receiving import Receiving
from gort._typing import TYPE_CHECKING, Generic, T

if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    from gort._core import Context

    Slow: TypeAlias = Literal["block", "drop_new", "drop_old", "cut"]

__all__ = ["Broadcast", "PubSub", "SlowSubscriber", "Subscription"]


class SlowSubscriber(Exception):
    """A subscriber of what cuts slow ones off was too slow: values were sent that it has not got.

    Example:
        >>> from gort.pubsub import Broadcast
        >>> news = Broadcast(1, slow="cut")
        >>> reader = news.subscribe()
        >>> news.send("one"), news.send("two")
        (1, 0)
        >>> reader.recv()
        'one'
        >>> reader.recv()
        Traceback (most recent call last):
        gort.pubsub.SlowSubscriber: cut off: it had no room for a value
    """


class _Outlet:
    """The channel of a subscription, which is all that those know who send."""

    __slots__ = ("ch", "dropped", "is_cut", "lock", "topics")

    def __init__(self, cap: int) -> None:
        self.ch: Chan[Any] = Chan(cap)
        self.dropped, self.is_cut = 0, False
        self.lock = Mutex()  # senders of several topics may drop at once
        self.topics: list[_Topic] = []

    def leave(self) -> None:
        """Get no more. Each step may come twice, and in a finalizer."""
        for topic in self.topics:
            topic.outlets.pop(self, None)
        try:
            self.ch.close()
        except ChanClosed:
            pass


class _Topic:
    """Those that get a value, all in the same order. The dict changes in single steps."""

    __slots__ = ("lock", "outlets")

    def __init__(self) -> None:
        self.lock = Mutex()
        self.outlets: dict[_Outlet, None] = {}

    def send(self, value: Any, slow: Slow, until_ns: int | None, ctx: Context | None) -> int:
        """Give it to all, and return to how many."""
        self.lock.lock(left(until_ns), ctx)
        try:
            full, given = [], 0
            for outlet in list(self.outlets):
                try:
                    if outlet.ch.try_send(value):
                        given += 1
                    else:
                        full.append(outlet)
                except ChanClosed:
                    pass  # it has just left
            late = 0
            for outlet in full:
                try:
                    given += _insist(outlet, value, slow, until_ns, ctx)
                except ChanClosed:
                    pass
                except DeadlineExceeded:
                    raise
                except TimeoutError:
                    late += 1
            if late:
                raise TimeoutError(f"timed out: no room at {late} of {late + given} subscribers")
            return given
        finally:
            self.lock.unlock()


def _insist(
    outlet: _Outlet, value: Any, slow: Slow, until_ns: int | None, ctx: Context | None
) -> bool:
    """Do what is to be done with a slow one; whether it got the value."""
    if slow == "block":
        outlet.ch.send(value, left(until_ns), ctx)
        return True
    if slow == "cut":
        outlet.is_cut = True
        outlet.leave()
        return False
    with outlet.lock:
        if slow == "drop_new":
            outlet.dropped += 1
            return False
        while not outlet.ch.try_send(value):
            outlet.dropped += outlet.ch.try_recv()[2]
        return True


class Subscription(Receiving[T]):
    """What a subscriber receives from: a Broadcast's or a PubSub's values from now on.

    Iterate over it, or use recv, recv_ok and select as with a channel. It ends when it is closed
    (also by the end of a `with` block, or by dropping it), or the sender is: after the values that
    are queued. `dropped` counts the values it missed because it was slow; one that was cut off
    raises SlowSubscriber at its end.

    Example:
        >>> from gort.pubsub import Broadcast
        >>> numbers = Broadcast(3, slow="drop_old")
        >>> with numbers.subscribe() as reader:
        ...     for n in range(5):
        ...         _ = numbers.send(n)
        ...     reader.recv(), reader.dropped
        (2, 2)
    """

    __slots__ = ("_outlet",)

    def __init__(self, outlet: _Outlet) -> None:
        """Made by Broadcast.subscribe and PubSub.subscribe."""
        super().__init__(outlet.ch)
        self._outlet = outlet

    @property
    def dropped(self) -> int:
        """Values it missed so far."""
        return self._outlet.dropped

    def close(self) -> None:
        """Get no more; what is queued can still be received. May be called again. Never parks."""
        self._outlet.leave()

    def _check_end(self) -> None:
        if self._outlet.is_cut:
            raise SlowSubscriber("cut off: it had no room for a value")

    def __del__(self) -> None:
        """Get no more."""
        outlet = getattr(self, "_outlet", None)
        if outlet is not None:
            outlet.leave()


class PubSub(Closing, Generic[T]):
    """Values by topic: each goes to all who subscribed to its topic.

    Subscribers of a topic get its values in the same order. `slow` says what becomes of a value for
    a subscriber that has no room:

    - "block": publish parks until there is room; who is slow slows all.
    - "drop_new": this one misses the value.
    - "drop_old": its oldest queued value makes room.
    - "cut": it is cut off, and told so by SlowSubscriber after what is queued.

    Works from goroutines and threads. `close` (also the end of a `with` block) ends the
    subscriptions, after what is queued. Nothing but publish under "block" parks for long.

    Args:
        cap: values queued for each subscriber; at 0 only one that waits has room.
        slow: "block", "drop_new", "drop_old" (cap of 1 or more) or "cut".

    Raises:
        ValueError: cap is negative, or slow is something else.

    Example:
        >>> from gort.pubsub import PubSub
        >>> hub = PubSub(10, slow="block")
        >>> both, one = hub.subscribe("a", "b"), hub.subscribe("a")
        >>> hub.publish("a", 1), hub.publish("b", 2), hub.publish("c", 3)
        (2, 1, 0)
        >>> hub.close()
        >>> list(both), list(one)
        ([1, 2], [1])
    """

    __slots__ = ("__weakref__", "_cap", "_is_closed", "_lock", "_slow", "_topics")

    def __init__(self, cap: int = 0, *, slow: Slow) -> None:
        """Begin without subscribers."""
        if slow not in ("block", "drop_new", "drop_old", "cut"):
            raise ValueError(f"slow is 'block', 'drop_new', 'drop_old' or 'cut', not {slow!r}")
        if cap < (slow == "drop_old"):
            raise ValueError(f"cap must be {int(slow == 'drop_old')} or more, not {cap}")
        self._cap, self._slow = cap, slow
        self._lock = Mutex()  # of the topics: who comes, and which has nobody any more
        self._topics: dict[Any, _Topic] = {}
        self._is_closed = False

    def publish(
        self, topic: Any, value: T, timeout: float | None = None, ctx: Context | None = None
    ) -> int:
        """Give a value to all subscribers of a topic, and return how many got it.

        Args:
            topic: anything that can be hashed.
            value: what they get.
            timeout: the longest wait in seconds under "block"; None for ever.
            ctx: a Context that ends the wait when it is done.

        Raises:
            ChanClosed: the PubSub is closed.
            TimeoutError: some have no room by then; the others have got it.
            ContextCanceled, DeadlineExceeded: ctx is done first; those after that have not.
        """
        until_ns = until(timeout)
        if self._is_closed:
            raise ChanClosed("send on closed channel")
        found = self._topics.get(topic)
        if found is None:
            return 0
        given = found.send(value, self._slow, until_ns, ctx)
        if not found.outlets:
            with self._lock:
                if not found.outlets and self._topics.get(topic) is found:
                    del self._topics[topic]
        return given

    def subscribe(self, *topics: Any) -> Subscription[T]:
        """Give a subscription to one or more topics; that of a closed PubSub is at its end.

        Raises:
            TypeError: no topic, or one that cannot be hashed.
        """
        if not topics:
            raise TypeError("subscribe() needs a topic")
        outlet = _Outlet(self._cap)
        subscription: Subscription[T] = Subscription(outlet)
        with self._lock:
            if self._is_closed:
                outlet.leave()
                return subscription
            for topic in topics:
                found = self._topics.setdefault(topic, _Topic())
                outlet.topics.append(found)
                found.outlets[outlet] = None
        return subscription

    def close(self) -> None:
        """End all subscriptions, after what is queued. May be called again."""
        with self._lock:
            self._is_closed = True
            topics = list(self._topics.values())
            self._topics.clear()
        for topic in topics:
            for outlet in list(topic.outlets):
                outlet.leave()


class Broadcast(Closing, Generic[T]):
    """One value to many: each goes to all subscribers. A PubSub of one topic, with its rules.

    Args:
        cap: values queued for each subscriber; at 0 only one that waits has room.
        slow: what becomes of a subscriber without room: "block", "drop_new", "drop_old" or "cut".

    Raises:
        ValueError: cap is negative, or slow is something else.

    Example:
        >>> import gort
        >>> from gort.pubsub import Broadcast
        >>> news = Broadcast(slow="block")
        >>> readers = [gort.go(list, news.subscribe()) for _ in range(3)]
        >>> for n in range(3):
        ...     _ = news.send(n)
        >>> news.close()
        >>> [g.join() for g in readers]
        [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """

    __slots__ = ("__weakref__", "_hub")

    def __init__(self, cap: int = 0, *, slow: Slow) -> None:
        """Begin without subscribers."""
        self._hub: PubSub[T] = PubSub(cap, slow=slow)

    def send(self, value: T, timeout: float | None = None, ctx: Context | None = None) -> int:
        """Give a value to all subscribers, and return how many got it.

        Args:
            value: what they get.
            timeout: the longest wait in seconds under "block"; None for ever.
            ctx: a Context that ends the wait when it is done.

        Raises:
            ChanClosed: the Broadcast is closed.
            TimeoutError: some have no room by then; the others have got it.
            ContextCanceled, DeadlineExceeded: ctx is done first; those after that have not.
        """
        return self._hub.publish(None, value, timeout, ctx)

    def subscribe(self) -> Subscription[T]:
        """Give a subscription to what is sent from now on; of a closed one it is at its end."""
        return self._hub.subscribe(None)

    def close(self) -> None:
        """End all subscriptions, after what is queued. May be called again."""
        self._hub.close()
