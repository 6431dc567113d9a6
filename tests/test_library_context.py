"""A context ends every wait of the library, and what waited is as if it had not."""

from __future__ import annotations

import concurrent.futures

import gort
import pytest
from gort import context, errgroup, pubsub, rate, singleflight
from gort.cache import ConcurrentCache
from waiting import LIMIT, parked


def limiter():
    spent = rate.Limiter(rate.every(3600), 1)
    assert spent.allow()
    return spent


def loading():
    """A cache whose key another goroutine loads until the gate opens."""
    cache, gate = ConcurrentCache[str, int](4), gort.Chan[int]()
    parked(gort.go(cache.get_or_load, "key", lambda _: gate.recv()))
    return cache, gate


def in_flight():
    group, gate = singleflight.Group[str, int](), gort.Chan[int]()
    parked(gort.go(group.do, "key", gate.recv))
    return group, gate


def full():
    hub = pubsub.Broadcast[int](slow="block")
    return hub, hub.subscribe()


def busy():
    group, gate = errgroup.Group(), gort.Chan[int]()
    group.go(gate.recv)
    return group, gate


def subscription():
    hub = pubsub.Broadcast[int](slow="block")
    return hub.subscribe(), hub


def scoped(ctx):
    with gort.scope() as s:
        child = s.go(gort.sleep, 3600)
        try:
            child.join(ctx=ctx)
        except (gort.ContextCanceled, gort.DeadlineExceeded) as error:
            failure = error
        child.cancel()
    raise failure


#: What waits, called with a context; what has to be kept alive meanwhile comes second.
WAITS = {
    "rate.wait": lambda: (limiter().wait, None),
    "barrier": lambda: (gort.Barrier(2).wait, None),
    "latch": lambda: (gort.CountDownLatch(1).wait, None),
    "cache": lambda: ((c := loading())[0].get_or_load, c, "key", lambda _: 1),
    "singleflight": lambda: ((c := in_flight())[0].do, c, "key", int),
    "broadcast": lambda: ((c := full())[0].send, c, 1),
    "subscription recv": lambda: ((c := subscription())[0].recv, c),
    "subscription recv_ok": lambda: ((c := subscription())[0].recv_ok, c),
    "errgroup": lambda: ((c := busy())[0].wait, c),
    "future": lambda: (gort.from_future, None, concurrent.futures.Future()),
    "scope child": lambda: (scoped, None),
}


@pytest.mark.parametrize("what", WAITS)
def test_a_context_ends_the_wait(what):
    call, kept, *args = WAITS[what]()
    ctx, cancel = context.with_cancel_cause(context.background())
    g = gort.go(call, *args, ctx=ctx)
    parked(g)
    cancel(KeyError("why"))
    with pytest.raises(gort.ContextCanceled) as caught:
        g.join(timeout=LIMIT)
    assert isinstance(caught.value.__cause__, KeyError)
    del kept


@pytest.mark.parametrize("what", WAITS)
def test_a_deadline_ends_the_wait_as_a_time_out(what):
    call, kept, *args = WAITS[what]()
    with context.with_timeout(context.background(), 0.01) as ctx, pytest.raises(TimeoutError):
        gort.go(call, *args, ctx=ctx).join(timeout=LIMIT)
    del kept


@pytest.mark.parametrize("what", WAITS)
def test_a_context_that_is_done_ends_it_before_it_begins(what):
    call, kept, *args = WAITS[what]()
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    with pytest.raises(gort.ContextCanceled):
        gort.go(call, *args, ctx=ctx).join(timeout=LIMIT)
    del kept


@pytest.mark.parametrize("what", [name for name in WAITS if name != "scope child"])
def test_what_is_no_context_is_refused(what):
    call, kept, *args = WAITS[what]()
    with pytest.raises(TypeError):
        call(*args, ctx=7)
    del kept


def test_limiter_counts_nothing_for_who_was_ended():
    limit = rate.Limiter(rate.every(3600), 2)
    assert limit.allow_n(2)
    ctx, cancel = context.with_cancel(context.background())
    g = gort.go(limit.wait, ctx=ctx)
    parked(g)
    assert limit.tokens() < -0.9
    cancel()
    with pytest.raises(gort.ContextCanceled):
        g.join(timeout=LIMIT)
    assert limit.tokens() > -0.1


def test_limiter_does_not_begin_a_wait_beyond_the_deadline():
    limit = limiter()
    with context.with_timeout(context.background(), 60) as ctx:
        with pytest.raises(TimeoutError, match=r"rate: Wait\(n=1\) would exceed context deadline"):
            limit.wait(ctx=ctx)
        assert ctx.err() is None


def test_barrier_is_broken_by_who_was_ended_and_not_by_who_never_came():
    barrier = gort.Barrier(2)
    ctx, cancel = context.with_cancel(context.background())
    g = gort.go(barrier.wait, ctx=ctx)
    parked(g)
    cancel()
    with pytest.raises(gort.ContextCanceled):
        g.join(timeout=LIMIT)
    assert barrier.broken
    barrier.reset()
    with pytest.raises(gort.ContextCanceled):
        barrier.wait(ctx=ctx)
    assert not barrier.broken


def test_what_another_loads_goes_on_for_the_others():
    cache, gate = loading()
    ctx, cancel = context.with_cancel(context.background())
    ended = gort.go(cache.get_or_load, "key", lambda _: 1, ctx=ctx)
    stays = gort.go(cache.get_or_load, "key", lambda _: 2)
    parked(ended, stays)
    cancel()
    with pytest.raises(gort.ContextCanceled):
        ended.join(timeout=LIMIT)
    gate.send(3)
    assert stays.join(timeout=LIMIT) == 3
    assert cache.get_or_load("key", lambda _: 4, ctx=context.background()) == 3
