"""`ctx=` of every call that waits: it ends the wait, loses nothing, and leaves nobody in a queue."""

from __future__ import annotations

import gc
import threading
import time
import traceback
import weakref

import gort
import pytest
from children import check
from gort import leak
from gort.context import background, with_cancel, with_cancel_cause, with_timeout, with_value
from gort.pool import WorkerPool
from gort.testing import synctest
from waiting import LIMIT, eventually, parked, settle


class Taken:
    """A pool whose one worker is busy and whose queue is full."""

    def __init__(self):
        self.hold = gort.Chan()
        self.pool = WorkerPool(1, 1, queue=0)
        self.job = self.pool.submit(self.hold.recv_ok)

    def end(self):
        self.hold.close()
        self.job.cancel()


def locked(mutex):
    mutex.lock()
    return mutex


def full():
    ch = gort.Chan(1)
    ch.send("first")
    return ch


def joined():
    hold = gort.Chan()
    return gort.go(hold.recv_ok)


def counted():
    wg = gort.WaitGroup()
    wg.add(1)
    return wg


class Cond(gort.Cond):
    """A condition whose lock the wait takes first."""

    def wait(self, *args, **kwargs):
        with self.mutex:
            super().wait(*args, **kwargs)
            assert not self.mutex.try_lock()


def cond_on(lock):
    cond = Cond(lock)
    cond.mutex = lock
    return cond


class OtherLock:
    """A lock that gort does not know."""

    def __init__(self):
        self.inner = gort.Mutex()
        self.lock, self.unlock, self.try_lock = (
            self.inner.lock, self.inner.unlock, self.inner.try_lock)  # fmt: skip

    def __enter__(self):
        self.lock()

    def __exit__(self, *_):
        self.unlock()


# How to make something to wait for, and how to wait for it.
WAITS = {
    "recv": (gort.Chan, lambda ch, **kw: ch.recv(**kw)),
    "recv_ok": (gort.Chan, lambda ch, **kw: ch.recv_ok(**kw)),
    "view recv": (gort.Chan, lambda ch, **kw: ch.receiver().recv(**kw)),
    "view recv_ok": (gort.Chan, lambda ch, **kw: ch.receiver().recv_ok(**kw)),
    "send": (gort.Chan, lambda ch, **kw: ch.send("lost?", **kw)),
    "send full": (full, lambda ch, **kw: ch.send("lost?", **kw)),
    "view send": (full, lambda ch, **kw: ch.sender().send("lost?", **kw)),
    "select recv": (gort.Chan, lambda ch, **kw: gort.select(gort.recv(ch), **kw)),
    "select send": (full, lambda ch, **kw: gort.select(gort.send(ch, "lost?"), **kw)),
    "select two": (gort.Chan, lambda ch, **kw: gort.select(gort.recv(ch), gort.send(ch, 1), **kw)),
    "select many": (
        gort.Chan, lambda ch, **kw: gort.select(*[gort.recv(ch) for _ in range(20)], **kw)),
    "select none": (gort.Chan, lambda _, **kw: gort.select(**kw)),
    "select nil": (gort.Chan, lambda _, **kw: gort.select(gort.recv(None), **kw)),
    "mutex": (lambda: locked(gort.Mutex()), lambda m, **kw: m.lock(**kw)),
    "rw lock": (lambda: locked(gort.RWMutex()), lambda m, **kw: m.lock(**kw)),
    "rw rlock": (lambda: locked(gort.RWMutex()), lambda m, **kw: m.rlock(**kw)),
    "wait group": (counted, lambda wg, **kw: wg.wait(**kw)),
    "cond": (lambda: cond_on(gort.Mutex()), lambda c, **kw: c.wait(**kw)),
    "cond on a lock of another kind": (lambda: cond_on(OtherLock()), lambda c, **kw: c.wait(**kw)),
    "semaphore": (lambda: gort.Semaphore(0), lambda s, **kw: s.acquire(**kw)),
    "semaphore, too much": (lambda: gort.Semaphore(1), lambda s, **kw: s.acquire(5, **kw)),
    "join": (joined, lambda g, **kw: g.join(**kw)),
    "sleep": (lambda: None, lambda _, ctx, timeout=None: gort.sleep(3600, ctx=ctx)),
    "pool submit": (Taken, lambda p, ctx, timeout=None: p.pool.submit(print, ctx=ctx)),
    "pool join": (Taken, lambda p, **kw: p.job.join(**kw)),
    "pool close": (Taken, lambda p, **kw: p.pool.close(**kw)),
}  # fmt: skip
HAVE_NO_TIMEOUT = {"sleep", "pool submit"}


def raised(fn, *args, **kwargs):
    try:
        fn(*args, **kwargs)
    except BaseException as error:
        return error
    return None


@pytest.fixture(params=WAITS)
def wait(request):
    """Something to wait for, and the call that waits."""
    make, call = WAITS[request.param]
    thing = make()
    yield thing, call
    if isinstance(thing, Taken):
        thing.end()
    elif isinstance(thing, gort.Goroutine):
        thing.cancel()


def waiters_of(thing):
    """Values a sender still offers, or whether a receiver takes one."""
    return [thing.try_recv(), thing.try_recv()] if isinstance(thing, gort.Chan) else []


def test_cancelling_ends_the_wait(wait):
    thing, call = wait
    ctx, cancel = with_cancel(background())
    g = gort.go(raised, call, thing, ctx=ctx)
    parked(g)
    cancel()
    error = g.join(timeout=LIMIT)
    assert type(error) is gort.ContextCanceled
    assert error is not ctx.err()
    assert error.__cause__ is None
    if isinstance(thing, gort.Chan):
        held = ("first", True, True) if len(thing) else (None, False, False)
        assert waiters_of(thing) == [held, (None, False, False)]
        assert not thing.try_send(1) or thing.cap


def test_all_at_once_in_one_context_and_below():
    root, cancel = with_cancel(background())
    things, goroutines = [], []
    for make, call in WAITS.values():
        for ctx in (root, with_value(root, "k", 1), with_cancel(root)[0]):
            things.append(make())
            goroutines.append(gort.go(raised, call, things[-1], ctx=ctx))
    parked(*goroutines)
    cancel()
    assert {type(g.join(timeout=LIMIT)) for g in goroutines} == {gort.ContextCanceled}
    for thing in things:
        if isinstance(thing, Taken):
            thing.end()
        elif isinstance(thing, gort.Goroutine):
            thing.cancel()


def test_deadline_ends_the_wait(wait):
    thing, call = wait
    ctx, _ = with_timeout(background(), 0.005)
    g = gort.go(raised, call, thing, ctx=ctx)
    assert type(g.join(timeout=LIMIT)) is gort.DeadlineExceeded


def test_context_that_is_done_ends_it_before_it_begins(wait):
    thing, call = wait
    ctx, cancel = with_cancel(background())
    cancel()
    assert type(raised(call, thing, ctx=ctx)) is gort.ContextCanceled


def test_wait_of_a_plain_thread_ends(wait):
    thing, call = wait
    ctx, cancel = with_cancel(background())
    errors = []
    thread = threading.Thread(target=lambda: errors.append(raised(call, thing, ctx=ctx)))
    thread.start()
    gort.sleep(0.01)  # it may wait by then, or not yet: both have to do
    cancel()
    eventually(lambda: errors, what="the end of the wait")
    thread.join()
    assert type(errors[0]) is gort.ContextCanceled


@pytest.mark.parametrize("name", sorted(set(WAITS) - HAVE_NO_TIMEOUT))
def test_timeout_counts_beside_the_context(name):
    make, call = WAITS[name]
    thing = make()
    with with_cancel(background()) as ctx:
        ended = raised(call, thing, timeout=0.001, ctx=ctx)
    assert isinstance(ended, TimeoutError) or name.startswith("select")
    if isinstance(thing, Taken):
        thing.end()


def test_goroutine_that_is_cancelled_while_it_waits_leaves_the_context(wait):
    thing, call = wait
    with with_cancel(background()) as ctx:
        g = gort.go(call, thing, ctx=ctx)
        parked(g)
        g.cancel()
        with pytest.raises(gort.Cancelled):
            g.join(timeout=LIMIT)


def test_background_as_context_changes_nothing():
    ch = full()
    assert ch.recv(ctx=background()) == "first"
    with pytest.raises(TimeoutError):
        ch.recv(timeout=0.001, ctx=background())
    assert ch.send(1, ctx=None) is None


def test_cause_is_the_cause():
    why = OSError("disk full")
    ctx, cancel = with_cancel_cause(background())
    errors = [gort.go(raised, gort.Chan().recv, ctx=ctx) for _ in range(2)]
    parked(*errors)
    cancel(why)
    first, second = (g.join() for g in errors)
    assert first is not second
    assert first.__cause__ is second.__cause__ is why
    assert len(traceback.extract_tb(first.__traceback__)) == 1
    assert type(raised(gort.sleep, 0, ctx=ctx)) is gort.ContextCanceled


def test_context_of_another_kind_ends_waits():
    class Named(gort.context.Context):
        def done(self):
            return self.own

    parent = Named()
    parent.own = gort.Chan()
    parent.err = lambda: OSError("mine")
    g = gort.go(raised, gort.Chan().recv, ctx=parent)
    parked(g)
    parent.own.close()
    error = g.join(timeout=LIMIT)
    assert str(error) == "mine"
    settle()


def test_subclass_around_one_of_ours_ends_waits():
    class Named(gort.context.Context):
        pass

    ctx, cancel = with_cancel(background())
    before = gort.stats()["created"]
    g = gort.go(raised, gort.Chan().recv, ctx=Named(ctx))
    parked(g)
    assert gort.stats()["created"] == before + 1
    cancel()
    assert type(g.join(timeout=LIMIT)) is gort.ContextCanceled


@pytest.mark.parametrize("ctx", [5, "ctx", object(), gort.Chan])
def test_other_objects_are_no_contexts(wait, ctx):
    thing, call = wait
    error = raised(call, thing, ctx=ctx)
    assert type(error) is TypeError
    assert "must be a Context" in str(error)


# What is handed over is not lost.


def test_value_is_received_or_still_there():
    for round_ in range(300):
        ch, ctx_cancel = gort.Chan(), with_cancel(background())
        ctx, cancel = ctx_cancel
        receiver = gort.go(raised_or, ch.recv, ctx=ctx)
        if round_ % 2:
            parked(receiver)
        sender = gort.go(ch.send, "value")
        gort.go(cancel)
        got = receiver.join(timeout=LIMIT)
        if got == "value":
            sender.join(timeout=LIMIT)
        else:
            assert type(got) is gort.ContextCanceled
            assert ch.recv(timeout=LIMIT) == "value"


def raised_or(fn, *args, **kwargs):
    try:
        return fn(*args, **kwargs)
    except Exception as error:
        return error


def test_units_are_passed_on():
    semaphore = gort.Semaphore(2)
    semaphore.acquire(1)
    ctx, cancel = with_cancel(background())
    big = gort.go(raised, semaphore.acquire, 2, ctx=ctx)
    parked(big)
    small = gort.go(semaphore.acquire, 1)
    parked(small)
    cancel()
    small.join(timeout=LIMIT)  # it stood behind the one that left
    assert type(big.join()) is gort.ContextCanceled


def test_readers_behind_a_writer_that_leaves_go_on():
    rw = gort.RWMutex()
    rw.rlock()
    ctx, cancel = with_cancel(background())
    writer = gort.go(raised, rw.lock, ctx=ctx)
    parked(writer)
    reader = gort.go(rw.rlock)
    parked(reader)
    cancel()
    reader.join(timeout=LIMIT)


def test_many_waits_leave_nothing_behind():
    ctx, cancel = with_cancel(background())
    ch = gort.Chan()
    goroutines = [gort.go(raised, ch.recv, ctx=ctx) for _ in range(1000)]
    parked(*goroutines)
    for i in range(500):
        ch.send(i)
    cancel()
    ended = [type(g.join(timeout=LIMIT)) for g in goroutines]
    assert ended.count(gort.ContextCanceled) == 500
    assert not ch.try_send(1)
    gone = weakref.ref(ctx)
    del ctx, cancel, goroutines
    eventually(lambda: gc.collect() is not None and gone() is None)


# Others who look at who waits.


def test_wait_that_a_context_may_end_is_no_leak():
    def leaky(ch, ctx):
        return ch.recv(ctx=ctx)

    ctx, cancel = with_cancel(background())
    g = gort.go(raised, leaky, gort.Chan(), ctx)
    parked(g)
    assert leak.find(handles=False) == []
    late, end = with_timeout(background(), 3600)
    timed = gort.go(raised, leaky, gort.Chan(), late)
    del late
    below = gort.go(raised, leaky, gort.Chan(), with_value(with_cancel(ctx)[0], "k", 1))
    parked(timed, below)
    assert leak.find(handles=False) == []
    cancel()
    end()
    for goroutine in (g, timed, below):
        goroutine.join(timeout=LIMIT)


def test_wait_that_nobody_can_end_is_a_leak():
    def leaky():
        ctx, cancel = with_cancel(background())
        return gort.Chan().recv(ctx=ctx), cancel

    g = gort.go(leaky)
    parked(g)
    found = leak.find(handles=False)
    assert [entry.goroutine for entry in found] == [g]
    g.cancel()


def test_deadlock_is_found_and_deadlines_prevent_it():
    check(
        """
        import gort
        from gort.context import background, with_cancel, with_timeout

        try:
            with with_cancel(background()) as ctx:
                gort.Chan().recv(ctx=ctx)
        except gort.DeadlockError:
            pass
        try:
            with with_timeout(background(), 0.01) as ctx:
                gort.Chan().recv(ctx=ctx)
        except gort.DeadlineExceeded:
            print("deadline")
        """,
        "deadline",
    )


def test_waits_in_a_bubble_are_durable_if_their_context_is_of_it():
    def body():
        began = time.monotonic()
        with with_timeout(background(), 60) as ctx:
            g = gort.go(raised, gort.Chan().recv, ctx=ctx)
            synctest.wait()
            assert g.status == "chan receive"
            assert type(g.join()) is gort.DeadlineExceeded
        assert time.monotonic() - began == 60

    synctest.run(body)


def test_context_from_outside_keeps_a_bubble_waiting():
    ctx, cancel = with_cancel(background())
    waits = gort.Chan(1)

    def body():
        waits_here = gort.Chan()
        gort.go(waits.send, None)
        return raised(waits_here.recv, ctx=ctx)

    bubble = gort.go(synctest.run, body)
    waits.recv(timeout=LIMIT)
    settle()
    assert not bubble.done
    cancel()
    bubble.join(timeout=LIMIT)


def test_context_of_a_bubble_is_not_for_those_outside():
    kept = []
    synctest.run(lambda: kept.append(with_cancel(background())[0]))
    with pytest.raises(RuntimeError, match="from outside bubble"):
        gort.Chan().recv(ctx=kept[0])


def test_stack_is_saved_while_it_waits_with_a_context():
    ctx, cancel = with_cancel(background())
    goroutines = [gort.go(raised, gort.Chan().recv, ctx=ctx) for _ in range(50)]
    parked(*goroutines)
    gort.memory.trim()
    cancel()
    assert {type(g.join(timeout=LIMIT)) for g in goroutines} == {gort.ContextCanceled}
